"""What each option costs: one loop under us with this or that asked for; nothing is sent anywhere."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machine import run
from report import Cell
from variants import AGENT, Loop, Variant

_QUIETLY: Final = ("run", "--quiet", "--exporter", "none")
_ALL: Final = (
    *(
        "--syscalls",
        "getppid,openat",
        "--errno",
        "!ENOENT",
        "--min-duration",
        "1ns,read=1ms",
        "--sample",
        "0.999999",
    ),
    *(
        "--keep-errors",
        "--keep-slow",
        "1ns",
        "--max-rate",
        "10000000",
        "--not-comm",
        "nobody",
        "--command-args",
    ),
)
# Title, options; in the order of the table. What is recorded is compared with the first.
_OF_GETPPID: Final = (
    ("everything is recorded: numbers of arguments", ("--args", "numbers")),
    ("no arguments", ("--args", "none")),
    ("arguments decoded (the default)", ()),
    ("a set of calls, this one in it", ("--args", "numbers", "--syscalls", "getppid,openat")),
    ("a set of calls, this one not in it", ("--args", "numbers", "--syscalls", "openat")),
    ("`--errors-only`, it succeeds", ("--args", "numbers", "--errors-only")),
    ("`--errno ENOENT`, it succeeds", ("--args", "numbers", "--errno", "ENOENT")),
    ("`--min-duration 1s`", ("--args", "numbers", "--min-duration", "1s")),
    ("`--min-duration 1s,read=1ms`", ("--args", "numbers", "--min-duration", "1s,read=1ms")),
    ("`--sample 1/100`", ("--args", "numbers", "--sample", "1/100")),
    ("`--sample 1/100 --keep-errors`", ("--args", "numbers", "--sample", "1/100", "--keep-errors")),
    ("`--sample 1/100 --keep-slow 1s`", ("--args", "numbers", "--sample", "1/100", "--keep-slow", "1s")),
    ("`--max-rate 5000`", ("--args", "numbers", "--max-rate", "5000")),
    ("`--not-comm nobody`", ("--args", "numbers", "--not-comm", "nobody")),
    ("all of them together, everything is recorded", _ALL),
)
_DECODED: Final = (
    ("read", "what a descriptor is"),
    ("openat", "a path"),
    ("getsockname", "a descriptor and a socket address"),
)


@dataclass(frozen=True)
class Option:
    """One row: a call with something asked for, and what it is compared with."""

    title: str
    row: Variant
    bare: Variant
    recorded: Variant

    def cells(self) -> list[Cell]:
        """Return it as cells of a table: what is added to a bare call, and how much more than where it is just recorded."""
        added = min(self.row.ns) - min(self.bare.ns)
        more = min(self.row.ns) - min(self.recorded.ns)
        return [self.title, added, more if self.row is not self.recorded else "-"]


def _under_us(program: Path, call: str, options: Sequence[str]) -> Variant:
    loop = Loop(program, call=call).command()
    return Variant(call, lambda: run([*AGENT, *_QUIETLY, *options, "--", *loop]).stdout)


def _bare(program: Path, call: str) -> Variant:
    loop = Loop(program, call=call).command()
    return Variant(call, lambda: run(loop).stdout)


def make_options(program: Path) -> list[Option]:
    """Return all rows, to be measured; *program* is the compiled loop."""
    bare = _bare(program, "getppid")
    rows = [(title, _under_us(program, "getppid", options)) for title, options in _OF_GETPPID]
    found = [Option(title, row, bare, rows[0][1]) for title, row in rows]
    for call, what in _DECODED:
        of_call, numbers = _bare(program, call), _under_us(program, call, ("--args", "numbers"))
        found.append(Option(f"`{call}`, numbers", numbers, of_call, numbers))
        found.append(Option(f"`{call}`, decoded: {what}", _under_us(program, call, ()), of_call, numbers))
    return found


def variants(options: Sequence[Option]) -> list[Variant]:
    """Return everything that has to be measured for *options*, once each."""
    return list({id(row): row for one in options for row in (one.bare, one.recorded, one.row)}.values())
