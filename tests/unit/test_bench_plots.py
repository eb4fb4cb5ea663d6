"""Plots are drawn from tables."""

from plots import draw
from report import Table

TABLE = Table(
    {"processes alive": ",.0f", "µs of CPU a span": ".2f", "lost": ".1%"}, [[10, 1.5, 0.0], [100, 2.0, 0.0]]
)


def test_a_plot_says_what_it_shows_and_is_the_same_each_time(tmp_path):
    """Else every run would change every file."""
    first = draw("scale_processes", TABLE, tmp_path)
    drawn = first.read_bytes()
    assert first.name == "scale-processes.svg"
    assert "processes alive" in drawn.decode()
    assert draw("scale_processes", TABLE, tmp_path).read_bytes() == drawn
