"""What a ring's lock costs: programs on one CPU or on all of them at once, which share one ring or have one each."""

import os
import shlex
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machine import run
from report import Table
from variants import AGENT, Variant

_OPTIONS: Final = ("run", "--quiet", "--exporter", "none", "--args", "none", "--ring-size", "256MiB")
_CHUNKS, _CALLS = 10, 20_000
_PAUSE_US: Final = 0


@dataclass(frozen=True)
class Contender:
    """One row: so many CPUs make calls, and write them to so many rings."""

    cpus: int
    rings: int
    """0: nothing is attached."""
    row: Variant


def make_contenders(program: Path) -> list[Contender]:
    """Return all rows, to be measured; *program* is the compiled loop."""
    everyone = min(len(os.sched_getaffinity(0)), 8)
    cases = [(cpus, rings) for cpus in (1, everyone) for rings in (0, 1, everyone)]
    return [Contender(cpus, rings, _variant(program, cpus, rings)) for cpus, rings in dict.fromkeys(cases)]


def _variant(program: Path, cpus: int, rings: int) -> Variant:
    chosen = sorted(os.sched_getaffinity(0))[:cpus]
    numbers = f"{_CHUNKS} {_CALLS} {_PAUSE_US} getppid"
    loops = " & ".join(f"{shlex.quote(str(program))} {cpu} {numbers}" for cpu in chosen)
    command = ["sh", "-c", f"{loops} & wait"]
    ours = [*AGENT, *_OPTIONS, "--rings", str(rings), "--"] if rings else []
    return Variant(f"{cpus} {rings}", lambda: run([*ours, *command]).stdout)


def contention_table(contenders: Sequence[Contender]) -> Table:
    """Return what a call takes, by CPUs and rings."""
    columns = {"CPUs that make calls": "d", "rings": "", "ns a call, min": ",.0f", "median": ",.0f"}
    rows = [
        [
            one.cpus,
            str(one.rings) if one.rings else "nothing is attached",
            min(one.row.ns),
            statistics.median(one.row.ns),
        ]
        for one in contenders
    ]
    return Table(columns, rows)
