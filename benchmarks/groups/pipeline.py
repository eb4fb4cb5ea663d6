"""What a span costs: from the ring to OTLP bytes, and from there to a collector, beside the SDK's way."""

import statistics

import pipeline
import sdk
from bench import Bench
from report import Cell, Goal, Results, Table

_WORDS = {"grpc": "gRPC", "http/protobuf": "HTTP", "none": "", "gzip": ", gzip"}


def measure(bench: Bench) -> Results:
    """Measure the Python path alone, then both ways to a collector."""
    measured = list(pipeline.measure(bench.times(7)))
    worst: dict[float, float] = {}
    rows: list[list[Cell]] = []
    for one, taken in measured:
        best, budget = min(taken) / 1e3, one.case.budget_us
        worst[budget] = max(worst.get(budget, 0), best)
        verdict = "met" if best <= budget else "**not met**"
        rows.append([one.case.title, best, statistics.median(taken) / 1e3, budget, verdict, one.bytes_a_span])
    columns = (
        f"calls in batches of {pipeline.BATCH_CALLS_MAX:,}",
        *("µs of CPU a span, min", "median", "budget", "verdict", "bytes a span"),
    )
    return Results(
        [
            Goal(
                f"ring → OTLP bytes{which} at most {budget:.0f} µs of CPU a span",
                f"{worst[budget]:.2f} µs at worst",
                worst[budget] <= budget,
            )
            for which, budget in ((", up to 1,000 processes", 1.0), (", 10,000 processes alive", 2.0))
        ],
        {
            "spans": Table(dict(zip(columns, ("", ".2f", ".2f", ".0f", "", ".0f"), strict=True)), rows),
            "sdk": _beside_the_sdk(bench),
        },
    )


def _beside_the_sdk(bench: Bench) -> Table:
    with bench.collector() as sink:
        ways = sdk.measure(sink, bench.times(5))
    columns = (
        "µs of CPU a span",
        "otel-sysexit, min",
        "median",
        "SDK, min",
        "median of the SDK",
        "SDK ÷ ours",
    )
    return Table(
        dict(zip(columns, ("", ".2f", ".2f", ".1f", ".1f", ".0f"), strict=True)),
        [
            [
                _WORDS[way.protocol] + _WORDS[way.compression],
                *(figure(way.ours) / 1e3 for figure in (min, statistics.median)),
                *(figure(way.sdk) / 1e3 for figure in (min, statistics.median)),
                min(way.sdk) / min(way.ours),
            ]
            for way in ways
        ],
    )
