"""What a span costs: from the ring to OTLP bytes."""

import statistics

import pipeline
from bench import Bench
from report import Goal, Results, Table


def measure(bench: Bench) -> Results:
    """Measure the Python path alone."""
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
            )
        },
    )
