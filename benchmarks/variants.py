"""What a call costs while this or that is attached: bare, two empty programs, we in several modes, other tools."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from machine import (
    ENVIRONMENT,
    HERE,
    ROOT,
    Patience,
    is_quiet,
    links,
    loop_cpu,
    numbers,
    run,
    wait_until,
)
from tools import TOOLS

BARE: Final = "bare"
PAIR: Final = "two empty programs"
STRANGER: Final = "otel-sysexit, attached to another process"
FILTERED: Final = "otel-sysexit, call not in the set"
FULL: Final = "otel-sysexit, to a collector"
AGENT: Final = [sys.executable, "-m", "otel_sysexit"]
_WARM_UP: Final = 100
"""Calls before each chunk of getppid.c."""
_BCC_PYTHON: Final = "/usr/bin/python3"
LINKS_OF_THE_AGENT: Final = 6
_PATIENCE_SECONDS: Final = 30.0
"""Spent in all on waiting for others to detach their programs, and on visits that they spoilt."""
SETTLE_SECONDS: Final = 0.05
"""The kernel takes a moment to forget a program after its last descriptor was closed."""
_LEDGER: Final = re.compile(
    r"seen (\d+) = filtered (\d+)(?: \([^)]*\))? \+ sampled out (\d+) \+ emitted (\d+) "
    r"\+ dropped (\d+)(?: \([^)]*\))? \+ in flight (\d+);"
    r"(?: emitted \d+ = delivered (\d+) \+ undelivered (\d+))?"  # there may be nowhere to deliver to
)


@dataclass(frozen=True)
class Ledger:
    """What the agent says at its end of the calls it saw."""

    seen: int
    filtered: int
    sampled_out: int
    emitted: int
    dropped: int
    in_flight: int
    delivered: int
    undelivered: int

    @classmethod
    def parse(cls, stderr: bytes) -> "Ledger":
        """
        Read it from what the agent printed.

        Raises:
            RuntimeError: there is no such line.
        """
        found = _LEDGER.search(stderr.decode(errors="replace"))
        if found is None:
            raise RuntimeError(f"the agent printed no ledger: {stderr.decode(errors='replace')}")
        return cls(*map(int, found.groups("0")))

    @property
    def adds_up(self) -> bool:
        """Whether it is known what became of each call."""
        kernel = self.filtered + self.sampled_out + self.emitted + self.dropped + self.in_flight
        return (self.seen, self.emitted) == (kernel, self.delivered + self.undelivered)


@dataclass(frozen=True)
class Loop:
    """How the calls of one visit are made."""

    program: Path
    chunks: int = 20
    calls: int = 5_000
    pause_us: int = 0
    call: str = "getppid"

    @property
    def made(self) -> int:
        """How many calls it makes, those included that are not timed."""
        return self.chunks * (self.calls + _WARM_UP)

    def command(self) -> list[str]:
        """Return its command line."""
        numbers = (loop_cpu(), self.chunks, self.calls, self.pause_us)
        return [str(self.program), *map(str, numbers), self.call]


@dataclass
class Variant:
    """One row of the table."""

    title: str
    visit: Callable[[], bytes]
    """Attaches, lets the loop run, detaches; returns what the loop printed."""
    note: str = ""
    """Why it is not measured."""
    ns: list[float] = field(default_factory=list)
    """Of each chunk of each visit, per call."""

    def measure(self, patience: Patience) -> None:
        """Visit once; again if others attached something meanwhile."""
        while True:
            patience.wait()
            before = time.monotonic()
            printed = self.visit()
            time.sleep(SETTLE_SECONDS)
            if is_quiet() or not patience.spend(before):
                self.ns += numbers(printed)
                self.note = "" if self.ns else "does not work here"
                return


def measure_in_turn(rows: Sequence[Variant], rounds: int) -> None:
    """Measure every row *rounds* times, in a new order each time."""
    chance = np.random.default_rng()
    patience = Patience(_PATIENCE_SECONDS if rounds > 1 else 0)
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds} ", end="", file=sys.stderr, flush=True)
        for index in chance.permutation(len(rows)).tolist():
            if not rows[index].note:
                rows[index].measure(patience)
    print(file=sys.stderr)


class Variants:
    """All rows of the comparison."""

    def __init__(self, program: Path, endpoint: str, folder: Path) -> None:
        """*program* is the compiled loop, *endpoint* a collector's for gRPC, *folder* for what tools print."""
        self._loop = Loop(program).command()
        self._program = program
        self._endpoint = endpoint
        self.emitted = self.dropped = self.delivered = 0
        """Of full emission, over all visits."""
        self.rows = [
            Variant(BARE, lambda: run(self._loop).stdout),
            Variant(PAIR, self._empty_pair),
            Variant(STRANGER, self._other_target),
            Variant(FILTERED, self._filtered_out),
            Variant(FULL, self._full),
            *self._tools(folder),
        ]

    def _empty_pair(self) -> bytes:
        command = [_BCC_PYTHON, HERE / "empty_pair.py", ROOT / "bpf"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as pair:
            if pair.stdout is None or not pair.stdout.readline():
                raise RuntimeError("the two empty programs were not attached")
            printed = run(self._loop).stdout
            pair.communicate()
        return printed

    def _other_target(self) -> bytes:
        with running(["sleep", "600"]) as other:
            command = [*AGENT, "attach", "--quiet", "--exporter", "none", "--pid", str(other.pid)]
            with running(command) as agent:
                wait_until(lambda: links(agent.pid) == LINKS_OF_THE_AGENT, "attached")
                time.sleep(SETTLE_SECONDS)  # it adds its target then
                return run(self._loop).stdout

    def _filtered_out(self) -> bytes:
        options = ("--quiet", "--exporter", "none", "--syscalls", "openat")
        return run([*AGENT, "run", *options, "--", *self._loop]).stdout

    def _full(self) -> bytes:
        options = ("--endpoint", self._endpoint, "--protocol", "grpc")
        done = run([*AGENT, "run", *options, "--", *self._loop])
        ledger = Ledger.parse(done.stderr)
        self.emitted += ledger.emitted
        self.dropped += ledger.dropped
        self.delivered += ledger.delivered
        return done.stdout

    def _tools(self, folder: Path) -> Iterator[Variant]:
        # Short visits: these are slow. Pauses: what does not fit their buffers would be lost and cost nothing.
        stopped = Loop(self._program, calls=500).command()
        streamed = Loop(self._program, chunks=10, calls=1_000, pause_us=30_000).command()
        for tool in TOOLS:
            command = tool.run(streamed if tool.is_tracefs_needed else stopped, folder / "printed")
            yield Variant(
                tool.title, partial(_printed_by, command), "" if tool.is_installed else "not installed"
            )


def _printed_by(command: Sequence[str]) -> bytes:
    return run(command).stdout


@contextlib.contextmanager
def running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* for the duration of a `with` block."""
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        try:
            yield process
        finally:
            process.terminate()
