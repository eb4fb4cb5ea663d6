"""What a span costs the whole agent as processes, threads, kinds of calls and calls a second grow, and a call as CPUs do."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import whole_agent
from bench import Bench
from collector import Collector
from contention import contention_table, make_contenders
from report import Cell, Goal, Results, Table
from variants import measure_in_turn

_ROUNDS: Final = 2
_SECONDS: Final = 8
_CONTENTION_ROUNDS: Final = 6
_MOST_US: Final = {1_000: 1, 10_000: 2}
"""Of the agent, by processes."""
_RATE: Final = 50_000
"""Calls a second of all together, where something else grows."""


@dataclass
class Storm:
    """One point of one curve."""

    processes: int = 10
    threads: int = 1
    kinds: int = 8
    rate: int = _RATE
    """0: as many as the machine makes."""
    cpu_us_a_span: list[float] = field(default_factory=list)
    """Of the agent, by round; of what the calls take, not their processes' births and ends."""
    birth_and_end_cpu_seconds: list[tuple[float, float]] = field(default_factory=list)
    """Of the agent until all processes were there, its own start included, and when they ended; by round."""
    seen_a_second: float = 0.0
    spans_a_call: float = 1.0
    """More than one: processes have spans too, one in each trace."""
    dropped: float = 0.0
    """Share of all."""

    def measure(self, bench: Bench, sink: Collector) -> None:
        """Run it once under the agent."""
        seconds = bench.times(_SECONDS)
        words = (self.processes, self.threads, self.kinds, self.rate, seconds)
        traced = whole_agent.trace([str(bench.storm), *map(str, words)], sink)
        made, ledger = int(traced.printed), traced.ledger
        lost = ledger.dropped + ledger.undelivered
        spans = max(made - lost, 1) if traced.spans is None else traced.spans
        self.cpu_us_a_span.append(traced.cpu_seconds * 1e6 / spans)
        self.spans_a_call = spans / max(made - lost, 1)
        self.birth_and_end_cpu_seconds.append((traced.start_cpu_seconds, traced.end_cpu_seconds))
        self.seen_a_second = made / seconds
        self.dropped = lost / ledger.seen


@dataclass(frozen=True)
class Curve:
    """What grows."""

    name: str
    title: str
    attribute: str
    values: Sequence[int]
    quick: Sequence[int]

    def storms(self, bench: Bench) -> list[Storm]:
        """Return its points."""
        values = self.quick if bench.is_quick else self.values
        return [Storm(**{self.attribute: value}) for value in values]

    def table(self, storms: Sequence[Storm]) -> Table:
        """Return the best of all rounds for each point."""
        rows: list[list[Cell]] = [
            [
                storm.seen_a_second if self.attribute == "rate" else getattr(storm, self.attribute),
                min(storm.cpu_us_a_span),
                storm.spans_a_call,
                storm.dropped,
            ]
            for storm in storms
        ]
        return Table(
            {self.title: ",.0f", "µs of CPU a span": ".2f", "spans a call": ".2f", "lost": ".1%"}, rows
        )


_CURVES: Final = (
    Curve("scale_processes", "processes alive", "processes", (10, 100, 1_000, 10_000), (10, 1_000)),
    Curve("scale_threads", "threads of one process", "threads", (1, 10, 100, 1_000), (1, 100)),
    Curve("scale_kinds", "kinds of calls", "kinds", (1, 4, 16, 64), (1, 64)),
    Curve("scale_rate", "calls a second", "rate", (1_000, 10_000, 100_000, 300_000, 0), (1_000, 0)),
)


def measure(bench: Bench) -> Results:
    """Measure every point of every curve, in a new order each time."""
    curves = [(curve, curve.storms(bench)) for curve in _CURVES]
    for curve, storms in curves:
        if curve.attribute == "threads":
            for storm in storms:
                storm.processes = 1
    every = [storm for _, storms in curves for storm in storms]
    with bench.collector() as sink:
        for storm in _in_turn(every, bench.times(_ROUNDS)):
            storm.measure(bench, sink)
    contenders = make_contenders(bench.program)
    measure_in_turn([one.row for one in contenders], bench.times(_CONTENTION_ROUNDS))
    tables = {curve.name: curve.table(storms) for curve, storms in curves}
    tables["lives"] = _lives_table(curves[0][1])
    tables["contention"] = contention_table(contenders)
    return Results(list(_goals(tables["scale_processes"])), tables)


def _lives_table(storms: Sequence[Storm]) -> Table:
    """Return what the births and the ends of processes take beyond the first storm's few, best of all rounds."""
    few, *many = (
        (storm.processes, *map(min, zip(*storm.birth_and_end_cpu_seconds, strict=True))) for storm in storms
    )
    rows: list[list[Cell]] = [
        [
            count,
            *(
                (seconds - of_few) * 1e6 / (count - few[0])
                for seconds, of_few in zip(cpu_seconds, few[1:], strict=True)
            ),
        ]
        for count, *cpu_seconds in many
    ]
    return Table({"processes": ",.0f", "µs of CPU a birth": ",.0f", "an end": ",.0f"}, rows)


def _goals(processes: Table) -> Iterator[Goal]:
    measured = {row[0]: row[1] for row in processes.rows}
    for count, most in _MOST_US.items():
        us = measured.get(count)
        if isinstance(us, float):
            text = f"ring → acknowledged, {count:,} processes active: at most {most} µs of CPU a span"
            yield Goal(text, f"{us:.2f} µs", us <= most)


def _in_turn(storms: Sequence[Storm], rounds: int) -> Iterator[Storm]:
    chance = np.random.default_rng()
    for _ in range(rounds):
        yield from (storms[index] for index in chance.permutation(len(storms)).tolist())
