"""What a span costs: from the ring to OTLP bytes, and from there to a collector, beside the SDK's way."""

import statistics

import pipeline
import sdk
from bench import Bench
from report import Goal, Results, Table

_WORDS = {"grpc": "gRPC", "http/protobuf": "HTTP", "none": "", "gzip": ", gzip"}


def measure(bench: Bench) -> Results:
    """Measure the Python path alone, then both ways to a collector."""
    measured = list(pipeline.measure(bench.times(7)))
    worst = max(min(ns) for _, ns in measured)
    title = f"calls in batches of {pipeline.ROUND_CALLS:,}"
    return Results(
        [
            Goal(
                "ring → OTLP bytes at most 2 µs of CPU a span",
                f"{worst / 1e3:.2f} µs at worst",
                worst <= 2_000,
            )
        ],
        {
            "spans": Table(
                {title: "", "µs of CPU a span, min": ".2f", "median": ".2f", "bytes a span": ".0f"},
                [
                    [one.case.title, min(ns) / 1e3, statistics.median(ns) / 1e3, one.bytes_a_span]
                    for one, ns in measured
                ],
            ),
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
