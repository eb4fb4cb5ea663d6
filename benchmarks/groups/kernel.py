"""What a system call costs: bare, under us in several modes, under other tools; each option; what each loses at full speed."""

import platform
import statistics
from collections.abc import Iterator, Mapping
from typing import Final

from bench import Bench
from machine import numbers, run
from options import make_options, variants
from report import Cell, Goal, Results, Table
from tools import BPFTRACE, PERF, STRACE, TOOLS
from variants import (
    AGENT,
    BARE,
    FILTERED,
    FULL,
    PAIR,
    STRANGER,
    Ledger,
    Loop,
    Variant,
    Variants,
    measure_in_turn,
)

from otel_sysexit.syscalls import Abi, number_of

_RATIOS: Final = (
    (FILTERED, "a call that the set filters out takes", 1.15),
    (STRANGER, "a call of a process that is no target takes", 1.2),
)
_ADDS_AT_MOST: Final = 3.2
_SHARES: Final = ((BPFTRACE, 10), (PERF, 20), (STRACE, 50))
"""Of what these add we add at most one nth."""
_LOOP: Final = "getppid"
_BURST: Final = (100_000, 5_000)
"""Calls at full speed; fewer under what stops the program at each."""


def measure(bench: Bench) -> Results:
    """Measure every row in turn."""
    rounds = bench.times(12)
    with bench.collector() as sink:
        compared = Variants(bench.program, sink.endpoint, bench.folder)
        measure_in_turn(compared.rows, rounds)
        losses = Table(
            {
                "full speed": "",
                "calls": ",d",
                "captured": ",d",
                "lost": ",d",
                "it says so": "",
                "ns a call": ",.0f",
            },
            list(_losses(bench, sink.endpoint)),
        )
    options = make_options(bench.program)
    measure_in_turn(variants(options), max(rounds // 2, 1))
    by_title = {row.title: row for row in compared.rows}
    columns = {
        "asked for": "",
        "ns a call added to a bare one": ",.0f",
        "more than recorded with numbers": "+,.0f",
    }
    return Results(
        list(_goals(by_title)),
        {
            "calls": _call_table(by_title),
            "losses": losses,
            "prices": Table(columns, [one.cells() for one in options]),
        },
        {
            "collector": f"Spans went to: {sink.name}.",
            "rounds": f"Every row was visited {rounds} times.",
            "delivered": f"Of the {compared.emitted:,} calls recorded for the row “{FULL}” "
            f"{compared.delivered:,} were delivered; {compared.dropped:,} more were dropped.",
        },
    )


def added(row: Variant, bare: Variant) -> float:
    """Return what *row* adds to a bare call, in ns, by their minima."""
    return min(row.ns) - min(bare.ns)


def _goals(rows: Mapping[str, Variant]) -> Iterator[Goal]:
    bare, pair, full = rows[BARE], rows[PAIR], rows[FULL]
    for title, what, most in _RATIOS:
        ratio = min(rows[title].ns) / min(pair.ns)
        text = f"{what} at most {most} times what it takes under two empty programs"
        yield Goal(text, f"{ratio:.2f} times", ratio <= most)
    ratio = added(full, bare) / added(pair, bare)
    text = f"a call that is recorded and delivered: adds at most {_ADDS_AT_MOST} times what two empty programs add"
    yield Goal(text, f"{ratio:.1f} times", ratio <= _ADDS_AT_MOST)
    for tool, share in _SHARES:
        text = f"the same: at most 1/{share} of what {tool.title} adds"
        if rows[tool.title].ns:
            ratio = added(rows[tool.title], bare) / added(full, bare)
            yield Goal(text, f"1/{ratio:,.0f}", ratio >= share)
        else:
            yield Goal(text, rows[tool.title].note, is_met=False)


def _call_table(rows: Mapping[str, Variant]) -> Table:
    bare, pair = rows[BARE], rows[PAIR]
    lines: list[list[Cell]] = []
    for row in rows.values():
        if row.ns:
            ratio = "-" if row is bare else added(row, bare) / added(pair, bare)
            lines.append([row.title, min(row.ns), statistics.median(row.ns), added(row, bare), ratio])
        else:
            lines.append([row.title, row.note, *[None] * 3])
    columns = ("attached", "ns a call, min", "median", "added (min)", "÷ what two empty programs add")
    return Table(dict(zip(columns, ("", ",.0f", ",.0f", ",.0f", ",.1f"), strict=True)), lines)


def _losses(bench: Bench, endpoint: str) -> Iterator[list[Cell]]:
    """Make calls as fast as possible, once under each; yield rows of a table."""
    streamed, stopped = (Loop(bench.program, chunks=1, calls=calls // bench.times(1, 10)) for calls in _BURST)
    options = ("--syscalls", _LOOP, "--endpoint", endpoint, "--protocol", "grpc")
    done = run([*AGENT, "run", *options, "--", *streamed.command()])
    ledger = Ledger.parse(done.stderr)
    lost = streamed.made - ledger.delivered
    yield [
        FULL,
        streamed.made,
        ledger.delivered,
        lost,
        f"{ledger.dropped + ledger.undelivered:,}",
        numbers(done.stdout)[0],
    ]
    nr = number_of(_LOOP, Abi[platform.machine().upper()])
    for tool in TOOLS:
        if not tool.is_installed:
            yield [tool.title, "not installed", *[None] * 4]
            continue
        loop = streamed if tool.is_tracefs_needed else stopped
        output = bench.folder / "printed"
        done = run(tool.run(loop.command(), output))
        printed = output.read_text(encoding="utf-8", errors="replace")
        captured = tool.count_calls(printed, _LOOP, nr)
        words = printed + done.stderr.decode(errors="replace")
        yield [
            tool.title,
            loop.made,
            captured,
            loop.made - captured,
            f"{tool.count_lost(words):,}",
            numbers(done.stdout)[0],
        ]
