"""Throughput and response times of real programs: untraced, traced by us, traced by other tools."""

import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import numpy as np
import packages
from applications import APPLICATIONS, Application, Load, give_to_nobody
from bench import Bench
from report import Cell, Results, Table
from tracers import Tracer, make_tracers

_ROUNDS: Final = 3
_SECONDS: Final = 3
_PROBLEMS: Final = (OSError, RuntimeError, subprocess.SubprocessError)
"""What may go wrong with programs of others: it is said in the row."""
_COLUMNS: Final = {
    "program": "",
    "traced by": "",
    "a second": ",.0f",
    "of untraced": ".0%",
    "p99 ms": ".2f",
    "calls captured": ",d",
    "sampled out": ",d",
    "lost": ",d",
}


@dataclass
class Row:
    """One program under one tracer."""

    application: Application
    tracer: Tracer
    loads: list[Load] = field(default_factory=list)
    problem: str = ""

    @property
    def throughput(self) -> float:
        """A second, the median of all visits."""
        return statistics.median(load.throughput for load in self.loads)

    def measure(self, seconds: float) -> None:
        """Visit once; what does not work is said in the row."""
        try:
            self.loads.append(self.application.visit(self.tracer.start, self.tracer.stop, seconds))
        except _PROBLEMS as error:
            self.problem = _first_line(error)

    def cells(self, untraced: "Row") -> list[Cell]:
        """Return it as cells of a table."""
        title = f"{self.application.title}: {self.application.unit}"
        problem = self.tracer.missing or self.problem
        if problem or not self.loads:
            return [title, self.tracer.title, problem, *[None] * 5]
        p99s = [load.p99_ms for load in self.loads if load.p99_ms is not None]
        share = self.throughput / untraced.throughput if untraced.loads else None
        account = self.tracer.account
        return [
            title,
            self.tracer.title,
            self.throughput,
            share,
            statistics.median(p99s) if p99s else "-",
            *("-" if one is None else one for one in (account.captured, account.sampled_out, account.lost)),
        ]


def measure(bench: Bench) -> Results:
    """Measure every program under every tracer, in a new order each time."""
    cells: list[list[Cell]] = []
    with bench.collector() as sink:
        for application in APPLICATIONS:
            print(application.title, flush=True)
            missing = packages.provide(application.programs)
            if missing:
                cells.append([application.title, missing, *[None] * 6])
                continue
            rows = [Row(application, tracer) for tracer in make_tracers(sink.endpoint, bench.folder)]
            try:
                _prepare(application, bench)
            except _PROBLEMS as error:
                cells.append([application.title, _first_line(error), *[None] * 6])
                continue
            _measure_in_turn(rows, bench)
            cells += [row.cells(rows[0]) for row in rows]
    return Results(tables={"applications": Table(_COLUMNS, cells)})


def _prepare(application: Application, bench: Bench) -> None:
    folder = Path(bench.folder, application.programs[0])
    folder.mkdir()
    give_to_nobody(folder)
    application.prepare(folder)


def _measure_in_turn(rows: Sequence[Row], bench: Bench) -> None:
    chance = np.random.default_rng()
    for _ in range(bench.times(_ROUNDS)):
        for index in chance.permutation(len(rows)).tolist():
            if not rows[index].tracer.missing:
                rows[index].measure(bench.times(_SECONDS))


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
