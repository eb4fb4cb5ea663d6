"""
Measures what otel-sysexit costs, beside other tools and in one run, and writes docs/overhead.md.

    make bench                      or    .venv/bin/python benchmarks/overhead.py [--rounds N] [--output FILE]

Needs root, BPF and a C compiler. Takes about three minutes.
"""

import argparse
import os
import statistics
import sys
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

# Before numpy is loaded, as the agent does it.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import collector
import pipeline
import whole_agent
from machine import ROOT, compile_loop, describe, install_tools
from options import make_options, variants
from variants import Variant, Variants, measure_in_turn

_ROUNDS: Final = 12
_PIPELINE_ROUNDS: Final = 7
_STARTS: Final = 10
_STRANGER: Final = "otel-sysexit, attached to another process"
_FILTERED: Final = "otel-sysexit, call not in the set"
_FULL: Final = "otel-sysexit, to a collector"
_READING: Final = Path(__file__).with_name("reading.md").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Goal:
    """One thing that was promised."""

    text: str
    measured: str
    is_met: bool

    def row(self) -> list[str]:
        """Return it as a row of a table."""
        return [self.text, self.measured, "met" if self.is_met else "**not met**"]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table in Markdown; the columns but the first are right-aligned."""
    rule = ["---", *["--:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *rows))


def added(row: Variant, bare: Variant) -> float:
    """Return what *row* adds to a bare call, in ns, by their minima."""
    return min(row.ns) - min(bare.ns)


def call_table(rows: Sequence[Variant]) -> str:
    """Return the table of what a call costs."""
    bare, pair = rows[:2]
    lines = []
    for row in rows:
        if not row.ns:
            lines.append([row.title, row.note or "nothing measured", "", "", ""])
            continue
        ratio = "-" if row is bare else f"{added(row, bare) / added(pair, bare):,.1f}"
        ns = [f"{value:,.0f}" for value in (min(row.ns), statistics.median(row.ns), added(row, bare))]
        lines.append([row.title, *ns, ratio])
    head = ["attached", "ns a call, min", "median", "added (min)", "÷ what two empty programs add"]
    return table(head, lines)


def measure_calls(program: Path, endpoint: str, rounds: int) -> tuple[list[Goal], str]:
    """Measure every variant; return the goals and the section."""
    compared = Variants(program, endpoint)
    measure_in_turn(compared.rows, rounds)
    bare, pair = compared.rows[:2]
    by_title = {row.title: row for row in compared.rows}
    goals = []
    for title, what, most in (
        (_FILTERED, "a call that the set filters out takes", 1.15),
        (_STRANGER, "a call of a process that is no target takes", 1.2),
    ):
        ratio = min(by_title[title].ns) / min(pair.ns)
        text = f"{what} at most {most} times what it takes under two empty programs"
        goals.append(Goal(text, f"{ratio:.2f} times", ratio <= most))
    ratio = added(by_title[_FULL], bare) / added(pair, bare)
    text = "a call that is recorded and delivered: adds at most 3.2 times what two empty programs add"
    goals.append(Goal(text, f"{ratio:.1f} times", ratio <= 3.2))
    text = (
        f"{call_table(compared.rows)}\n\nOf the {compared.emitted:,} calls recorded for the row “{_FULL}” "
        f"{compared.delivered:,} were delivered; {compared.dropped:,} more were dropped."
    )
    return goals, text


def measure_options(program: Path, rounds: int) -> str:
    """Measure what each option costs; return the table."""
    options = make_options(program)
    measure_in_turn(variants(options), rounds)
    head = ["asked for", "ns a call added to a bare one", "more than recorded with numbers"]
    return table(head, [one.cells() for one in options])


def measure_pipeline() -> tuple[list[Goal], str]:
    """Measure the Python path alone; return the goals, one for each budget, and the section."""
    rows = []
    worst: dict[float, float] = {}
    for measured, taken in pipeline.measure(_PIPELINE_ROUNDS):
        case, best = measured.case, min(taken) / 1e3
        worst[case.budget_us] = max(worst.get(case.budget_us, 0), best)
        figures = (best, statistics.median(taken) / 1e3, case.budget_us)
        verdict = "met" if best <= case.budget_us else "**not met**"
        rows.append([case.title, *(f"{us:.2f}" for us in figures), verdict, f"{measured.bytes_a_span:.0f}"])
    goals = [
        Goal(
            f"ring → OTLP bytes{which} at most {budget_us:.0f} µs of CPU a span",
            f"{worst[budget_us]:.2f} µs at worst",
            worst[budget_us] <= budget_us,
        )
        for which, budget_us in ((", up to 1,000 processes", 1.0), (", 10,000 processes alive", 2.0))
    ]
    head = [
        f"calls in batches of {pipeline.ROUND_CALLS:,}",
        "µs of CPU a span, min",
        "median",
        "budget",
        "",
        "bytes a span",
    ]
    return goals, table(head, rows)


def measure_million(program: Path, endpoint: str) -> tuple[list[Goal], str]:
    """Run a million calls through the whole agent; return the goals and the section."""
    million = whole_agent.run_million(program, endpoint)
    ledger = million.ledger
    after, peak = (million.memory[name] * 1024 / 1e6 for name in ("VmRSS", "VmHWM"))
    goals = [
        Goal(
            f"{whole_agent.CALLS:,} calls: every one accounted for",
            f"{ledger.seen:,} seen = {ledger.delivered:,} delivered + {ledger.dropped:,} dropped"
            f" + {ledger.undelivered:,} undelivered",
            ledger.adds_up and ledger.seen >= whole_agent.CALLS,
        ),
        Goal(
            "resident memory of the agent at most 80 MB",
            f"{peak:.0f} MB at most, {after:.0f} after",
            peak <= 80,
        ),
    ]
    names = list(million.memory)
    memory = table(
        ["MiB resident", *names],
        [
            [when, *(f"{found[name] / 1024:.1f}" for name in names)]
            for when, found in (("before", million.idle_memory), ("after", million.memory))
        ],
    )
    imports = ", ".join(f"{title} {kib / 1024:.1f}" for title, kib in whole_agent.import_costs())
    text = (
        f"The program took {million.wall_ns_a_call:,.0f} ns a call; {ledger.delivered / ledger.seen:.1%} were delivered. "
        f"The whole agent took {million.cpu_ns_a_span / 1e3:.2f} µs of CPU for each delivered span.\n\n{memory}\n\n"
        f"What imports take of it (MiB, one after the other in a new interpreter): {imports}."
    )
    return goals, text


def measure_start(endpoint: str) -> tuple[list[Goal], str]:
    """Start the agent a few times; return the goals and the section's table."""
    starts = whole_agent.measure_starts(endpoint, _STARTS)
    ways = {
        "the first call is captured, programs compiled now": starts.compiling,
        "the first call is captured, programs kept from an earlier start": starts.kept,
        "`--help` has ended": starts.helping,
    }
    rows = [
        [way, *(f"{value:.2f}" for value in (min(seconds), statistics.median(seconds), max(seconds)))]
        for way, seconds in ways.items()
    ]
    first_call, helping = statistics.median(starts.kept), statistics.median(starts.helping)
    goals = [
        Goal(
            "start until the first call is captured, programs kept, at most 0.5 s",
            f"{first_call:.2f} s",
            first_call <= 0.5,
        ),
        Goal("`--help` at most 0.15 s", f"{helping:.2f} s", helping <= 0.15),
    ]
    return goals, table(["s from the start until", "min", "median", "max"], rows)


def main() -> None:
    """Measure everything, print it and write it."""
    parser = argparse.ArgumentParser(description="Measure what otel-sysexit costs.")
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="visits of each row of the first table")
    parser.add_argument("--output", type=Path, default=ROOT / "docs" / "overhead.md")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("make bench needs root: the programs in the kernel do")
    install_tools()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        program = compile_loop(folder)
        with collector.started(folder) as sink:
            ratios, calls = measure_calls(program, sink.endpoint, options.rounds)
            prices = measure_options(program, max(options.rounds // 2, 1))
            starting, starts = measure_start(sink.endpoint)
            million, long_run = measure_million(program, sink.endpoint)
        cpu, spans = measure_pipeline()
    goals = table(["goal", "measured", ""], [goal.row() for goal in (*ratios, *cpu, *million, *starting)])
    text = _READING.format(
        machine=describe(),
        date=f"{datetime.now(UTC):%Y-%m-%d}",
        collector=sink.name,
        rounds=options.rounds,
        goals=goals,
        calls=calls,
        prices=prices,
        spans=spans,
        million=long_run,
        starts=starts,
        start_count=_STARTS,
    )
    print(text)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
