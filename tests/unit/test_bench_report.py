"""What a run of the benchmarks found is kept and shown as it was found."""

import re

import pytest
import report
from report import Goal, Results, Run, Table

TABLE = Table(
    {"what": "", "ns": ",.0f", "ratio": ".2f"}, [["bare", 1234.5, "-"], ["no such tool", None, None]]
)
RUN = Run(
    "a machine",
    "2026-01-02",
    "abc",
    Results([Goal("at most 2", "3", is_met=False)], {"calls": TABLE}, {"million": "So."}),
)


def test_a_table_is_written_in_markdown():
    """Numbers in the column's way, texts as they are, nothing where there is nothing to say."""
    assert TABLE.markdown().splitlines() == [
        "| what | ns | ratio |",
        "| --- | --: | --: |",
        "| bare | 1,234 | - |",
        "| no such tool |  |  |",
    ]


def test_a_row_that_is_too_short_is_a_mistake():
    """It would be shown under the wrong columns."""
    with pytest.raises(ValueError, match="zip"):
        Table({"a": "", "b": ""}, [["1"]]).markdown()


def test_a_run_is_read_as_it_was_written(tmp_path):
    """Also when another run of the group was written before."""
    RUN.write("kernel", tmp_path)
    RUN.write("kernel", tmp_path)
    assert report.read("kernel", tmp_path) == RUN
    assert report.read("scale", tmp_path) is None


def test_goals_stand_beside_those_of_the_run_before():
    """By their texts; one that is new has nothing beside it."""
    before = [Goal("at most 2", "5", is_met=False)]
    table = report.goals_table([*RUN.results.goals, Goal("none lost", "0", is_met=True)], before)
    assert table.rows == [["at most 2", "3", "**not met**", "5"], ["none lost", "0", "met", "-"]]
    assert "before" not in report.goals_table(before).columns


def test_the_overview_has_what_was_measured_and_says_what_was_not():
    """Every part of reading.md is filled."""
    text = report.overview({"kernel": RUN})
    assert TABLE.markdown() in text
    assert "So." in text
    assert "*Not measured yet.*" in text
    assert "- *kernel*: 2026-01-02, commit abc, a machine" in text
    assert "| at most 2 | 3 | **not met** |" in text
    assert not re.search(r"{\w+}", text)
