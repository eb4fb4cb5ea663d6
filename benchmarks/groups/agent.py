"""The whole agent: a million calls to a collector, its memory, what it takes when idle, how soon it captures."""

import statistics
from collections.abc import Iterator, Sequence

import whole_agent
from bench import Bench
from collector import Collector
from machine import numbers
from report import Cell, Goal, Results, Table
from whole_agent import AttachTimes, Starts, Traced

_RESIDENT_MB_MAX = 64
_RATE = 300_000
_MILLIONS = 5
"""How often a million calls are made; the run counts in which a span took least of the agent: others disturb it less."""
_SUSTAINED = {
    "calls": "",
    "seen a second": ",.0f",
    "out of the ring": ",.0f",
    "dropped": ".1%",
    "CPU of the agent": ".0%",
    "of the collector": ".0%",
}
_RING_SIZES = ("256KiB", "1MiB", "4MiB", "16MiB", "64MiB")
_RING_RATE = 1_000_000
_LOAD = (10, 1, 8, 100_000)
"""Processes, threads, kinds of calls, calls a second, for memory over time."""
_REST_SECONDS = 7
"""Longer than after the last batch the agent keeps memory that it does not use."""


def measure(bench: Bench) -> Results:
    """Run it in its usual ways."""
    load = [str(bench.storm), *map(str, _LOAD), str(bench.times(60, 5))]
    with bench.collector() as sink:
        starts = whole_agent.measure_starts(sink.endpoint, bench.times(10, 2))
        millions = [whole_agent.run_million(bench.program, sink) for _ in range(bench.times(_MILLIONS, 1))]
        long_run = whole_agent.trace(load, sink, rest_seconds=bench.times(_REST_SECONDS, 1))
        sustained = list(_sustain(bench, sink))
        ring_sizes = _ring_sizes(bench, sink)
    million = min(millions, key=_cpu_us_a_span)
    idle = whole_agent.idle_share(bench.times(20, 2))
    attach = whole_agent.attach_times(bench.storm, bench.times(5_000, 500))
    imports = ", ".join(f"{title} {kib / 1024:.1f}" for title, kib in whole_agent.import_costs())
    points = [[float(second), kib / 1024] for second, kib in enumerate(long_run.resident)]
    return Results(
        [
            *_goals(million, sink.name),
            _memory_goal(million, long_run),
            *(goal for goal, _ in sustained),
            *_idle_and_start(idle, starts),
        ],
        {
            "sustained": Table(_SUSTAINED, [cells for _, cells in sustained]),
            "ring_sizes": ring_sizes,
            "memory": _memory(million),
            "starts": _starts(starts),
            "memory_over_time": Table({"seconds under load": ".0f", "MiB resident": ".1f"}, points),
        },
        {
            "million": _tell(millions, million, sink.name),
            "imports": f"What imports take of it (MiB, one after the other in a new interpreter): {imports}.",
            "attach": _tell_attach(attach),
            "growth": _tell_growth(long_run),
            "rest": f"{long_run.rest_resident / 1024:.1f} MiB stay when no more calls come.",
            "idle": f"An agent that traces a process which sleeps takes {idle:.2%} of one CPU.",
        },
    )


def _cpu_us_a_span(traced: Traced) -> tuple[float, float]:
    """Return µs of CPU of the agent, and of the collector, for each span."""
    delivered = traced.ledger.delivered
    return traced.cpu_seconds * 1e6 / delivered, traced.collector_cpu_seconds * 1e6 / delivered


def _goals(million: Traced, collector: str) -> list[Goal]:
    ledger = million.ledger
    ours, others = _cpu_us_a_span(million)
    return [
        Goal(
            f"{whole_agent.CALLS:,} calls: every one accounted for",
            f"{ledger.seen:,} seen = {ledger.delivered:,} delivered + {ledger.dropped:,} dropped"
            f" + {ledger.undelivered:,} undelivered",
            ledger.adds_up and ledger.seen >= whole_agent.CALLS,
        ),
        Goal(
            "ring → acknowledged by the collector at most 1 µs of CPU a span, of the whole agent",
            f"{ours:.2f} µs",
            ours <= 1,
        ),
        Goal(
            "less than half of the CPU that the collector takes to receive it",
            f"{ours / others:.2f} of what {collector} takes",
            ours < others / 2,
        ),
    ]


def _memory_goal(million: Traced, long_run: Traced) -> Goal:
    """Return what was hoped for of memory: steady, whatever the first seconds take."""
    seconds, kib = len(long_run.resident) - 1, long_run.resident[-1]
    steady, peak = (amount * 1024 / 1e6 for amount in (kib, million.memory["VmHWM"]))
    return Goal(
        f"resident memory of the agent, steady, at most {_RESIDENT_MB_MAX} MB",
        f"{steady:.0f} MB after {seconds} s of {_LOAD[-1]:,} calls a second; {peak:.0f} MB at most, at full speed",
        steady <= _RESIDENT_MB_MAX,
    )


def _sustain(bench: Bench, sink: Collector) -> Iterator[tuple[Goal, list[Cell]]]:
    """Keep a rate up for a while; yield what was hoped for, and a row of the table."""
    seconds = bench.times(20, 3)
    delivered = whole_agent.trace([str(bench.storm), "10", "1", "8", str(_RATE), str(seconds)], sink)
    ledger = delivered.ledger
    what = f"{_RATE:,} calls a second for {seconds} s, to a collector"
    figures = f"{ledger.seen:,} seen = {ledger.delivered:,} delivered + {ledger.dropped:,} dropped + {ledger.undelivered:,} undelivered"
    is_met = ledger.adds_up and delivered.cpu_seconds < delivered.collector_cpu_seconds
    yield (
        Goal(
            f"{what}: every one accounted for, and the collector takes more CPU than the agent",
            figures,
            is_met,
        ),
        _row(what, delivered, seconds),
    )
    seconds = bench.times(30, 3)
    read = whole_agent.trace(
        [str(bench.storm), "1", "1", "8", "0", str(seconds)], sink, ("--exporter", "none")
    )
    rate = read.ledger.emitted / seconds
    what = f"as many as one program makes for {seconds} s, read and sent nowhere"
    yield (
        Goal(
            f"{what}: at least 1,000,000 a second, none dropped",
            f"{rate:,.0f} a second, {read.ledger.dropped:,} dropped",
            rate >= 1_000_000 and not read.ledger.dropped,
        ),
        _row(what, read, seconds),
    )


def _ring_sizes(bench: Bench, sink: Collector) -> Table:
    """Return how much is lost with rings of several sizes."""
    seconds = bench.times(5, 1)
    columns = {"ring": "", "calls a second": ",.0f", "lost": ".2%"}
    rows: list[list[Cell]] = []
    for size in _RING_SIZES:
        command = [str(bench.storm), "1", "1", "8", str(_RING_RATE), str(seconds)]
        ledger = whole_agent.trace(command, sink, ("--exporter", "none", "--ring-size", size)).ledger
        rows.append([size, ledger.seen / seconds, ledger.dropped / ledger.seen])
    return Table(columns, rows)


def _row(what: str, traced: Traced, seconds: int) -> list[Cell]:
    ledger = traced.ledger
    shares = (traced.cpu_seconds / seconds, traced.collector_cpu_seconds / seconds)
    return [what, ledger.seen / seconds, ledger.emitted / seconds, ledger.dropped / ledger.seen, *shares]


def _starts(starts: Starts) -> Table:
    ways = {
        "the first call is captured, programs compiled now": starts.compiling,
        "the first call is captured, programs kept from an earlier start": starts.kept,
        "`--help` has ended": starts.helping,
    }
    columns = {"s from the start until": "", "min": ".2f", "median": ".2f", "max": ".2f"}
    return Table(columns, [[way, min(s), statistics.median(s), max(s)] for way, s in ways.items()])


def _idle_and_start(idle: float, starts: Starts) -> list[Goal]:
    middle, helping = statistics.median(starts.kept), statistics.median(starts.helping)
    return [
        Goal("an idle agent takes less than 0.5 % of one CPU", f"{idle:.2%}", idle < 0.005),
        Goal(
            "start until the first call is captured, programs kept, at most 0.3 s",
            f"{middle:.2f} s",
            middle <= 0.3,
        ),
        Goal("`--help` at most 0.15 s", f"{helping:.2f} s", helping <= 0.15),
    ]


def _tell(millions: Sequence[Traced], million: Traced, collector: str) -> str:
    ledger = million.ledger
    ours, others = _cpu_us_a_span(million)
    median, _ = map(statistics.median, zip(*map(_cpu_us_a_span, millions), strict=True))
    return (
        f"The program took {numbers(million.printed)[0]:,.0f} ns a call; {ledger.delivered / ledger.seen:.1%} were delivered. "
        f"For each delivered span the whole agent took {ours:.2f} µs of CPU, {collector} {others:.2f} µs. "
        f"That is the best of {len(millions)} runs, the median is {median:.2f} µs: others on the machine only make it dearer."
    )


def _tell_attach(times: AttachTimes) -> str:
    return (
        f"With {times.processes:,} processes alive that are to be traced: {times.first:.2f} s until the first call is captured, "
        f"{times.all:.2f} s until {times.captured:,} of them had one captured; each makes some 4 calls a second."
    )


def _tell_growth(long_run: Traced) -> str:
    processes, _, _, rate = _LOAD
    seconds = len(long_run.resident) - 1
    early = min(5, seconds)
    first, last = (long_run.resident[second] / 1024 for second in (early, seconds))
    return (
        f"Under {rate:,} calls a second from {processes} processes: {first:.1f} MiB resident after {early} s, "
        f"{last:.1f} MiB after {seconds} s."
    )


def _memory(million: Traced) -> Table:
    names = list(million.memory)
    return Table(
        {"MiB resident": "", **dict.fromkeys(names, ".1f")},
        [
            [when, *(found[name] / 1024 for name in names)]
            for when, found in (("before", million.idle_memory), ("after", million.memory))
        ],
    )
