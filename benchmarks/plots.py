"""Tables → small plots in docs/: the first column across, the second one up."""

from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.figure import Figure
from report import Table

PLOTS: Final = {
    "scale_processes": "log",
    "scale_threads": "log",
    "scale_kinds": "log",
    "scale_rate": "log",
    "memory_over_time": "linear",
}
"""Tables that are drawn → scale of the axis across."""
_INCHES: Final = (4.2, 2.4)


def draw(name: str, table: Table, folder: Path) -> Path:
    """Write the plot of *table* to *folder*; return the file. The same table gives the same bytes."""
    across, up = list(table.columns)[:2]
    figure = Figure(_INCHES, layout="constrained")
    axes = figure.add_subplot()
    axes.plot([row[0] for row in table.rows], [row[1] for row in table.rows], marker="o", markersize=3)
    axes.set_xscale(PLOTS[name])
    axes.set_ylim(bottom=0)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(visible=True, alpha=0.3)
    path = folder / f"{name.replace('_', '-')}.svg"
    with mpl.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        figure.savefig(path, metadata={"Date": None})
    return path
