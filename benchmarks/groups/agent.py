"""The whole agent: a million calls to a collector, its memory, how soon it captures."""

import statistics

import whole_agent
from bench import Bench
from report import Goal, Results, Table
from whole_agent import Million

_RESIDENT_MB_MAX = 64


def measure(bench: Bench) -> Results:
    """Run it in its usual ways."""
    with bench.collector() as sink:
        seconds = list(whole_agent.start_seconds(sink.endpoint, bench.times(10, 2)))
        million = whole_agent.run_million(bench.program, sink)
    middle = statistics.median(seconds)
    imports = ", ".join(f"{title} {kib / 1024:.1f}" for title, kib in whole_agent.import_costs())
    return Results(
        [
            *_goals(million),
            Goal("start until the first call is captured at most 0.3 s", f"{middle:.2f} s", middle <= 0.3),
        ],
        {"memory": _memory(million)},
        {
            "million": _tell(million),
            "imports": f"What imports take of it (MiB, one after the other in a new interpreter): {imports}.",
            "starts": f"{min(seconds):.2f} s at best, {middle:.2f} s in the median of {len(seconds)}, {max(seconds):.2f} s at worst.",
        },
    )


def _goals(million: Million) -> list[Goal]:
    ledger = million.ledger
    after, peak = (million.memory[name] * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    share = million.cpu_ns_a_span / million.collector_cpu_ns_a_span
    return [
        Goal(
            f"{whole_agent.CALLS:,} calls: every one accounted for",
            f"{ledger.seen:,} seen = {ledger.delivered:,} delivered + {ledger.dropped:,} dropped"
            f" + {ledger.undelivered:,} undelivered",
            ledger.adds_up and ledger.seen >= whole_agent.CALLS,
        ),
        Goal(
            "ring → acknowledged by the collector at most 1 µs of CPU a span, of the whole agent",
            f"{million.cpu_ns_a_span / 1e3:.2f} µs",
            million.cpu_ns_a_span <= 1_000,
        ),
        Goal("less than half of what the collector takes to receive it", f"{share:.2f} of it", share < 0.5),
        Goal(
            f"resident memory of the agent at most {_RESIDENT_MB_MAX} MB",
            f"{peak:.0f} MB at most, {after:.0f} after",
            peak <= _RESIDENT_MB_MAX,
        ),
    ]


def _tell(million: Million) -> str:
    ledger = million.ledger
    return (
        f"The program took {million.wall_ns_a_call:,.0f} ns a call; {ledger.delivered / ledger.seen:.1%} were delivered. "
        f"For each delivered span the whole agent took {million.cpu_ns_a_span / 1e3:.2f} µs of CPU, "
        f"{million.collector} {million.collector_cpu_ns_a_span / 1e3:.2f} µs."
    )


def _memory(million: Million) -> Table:
    names = list(million.memory)
    return Table(
        {"MiB resident": "", **dict.fromkeys(names, ".1f")},
        [
            [when, *(found[name] / 1024 for name in names)]
            for when, found in (("before", million.idle_memory), ("after", million.memory))
        ],
    )
