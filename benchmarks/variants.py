"""What a call costs while this or that is attached: bare, two empty programs, we in several modes, other tools."""

import contextlib
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
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

AGENT: Final = [sys.executable, "-m", "otel_sysexit"]
_BCC_PYTHON: Final = "/usr/bin/python3"
_LINKS_OF_THE_AGENT: Final = 6
_PATIENCE_SECONDS: Final = 30.0
"""Spent in all on waiting for others to detach their programs, and on visits that they spoilt."""
_SETTLE_SECONDS: Final = 0.05
"""The kernel takes a moment to forget a program after its last descriptor was closed."""
_LEDGER: Final = re.compile(
    r"seen (\d+) = filtered (\d+)(?: \([^)]*\))? \+ sampled out (\d+) \+ emitted (\d+) "
    r"\+ dropped (\d+)(?: \([^)]*\))? \+ in flight (\d+); "
    r"emitted \d+ = delivered (\d+) \+ undelivered (\d+)"
)
_BPFTRACE: Final = """
tracepoint:raw_syscalls:sys_enter /pid == cpid/ { @start[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /@start[tid]/ {
    printf("%d %d %d %d\\n", tid, args->id, args->ret, nsecs - @start[tid]);
    delete(@start[tid]);
}
"""
# perf and bpftrace need tracefs, which is not mounted everywhere; in a mount namespace nobody else sees it.
_TRACEFS: Final = (
    *("unshare", "--mount", "sh", "-c"),
    'mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"',
    "sh",
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
        return cls(*map(int, found.groups()))

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
    ns: list[float] = field(default_factory=list)
    """Of each chunk of each visit, per call."""
    note: str = ""

    def measure(self, patience: Patience) -> None:
        """Visit once; again if others attached something meanwhile."""
        while True:
            patience.wait()
            before = time.monotonic()
            printed = self.visit()
            time.sleep(_SETTLE_SECONDS)
            if is_quiet() or not patience.spend(before):
                self.ns += numbers(printed)
                return


def measure_in_turn(rows: Sequence[Variant], rounds: int) -> None:
    """Measure every row *rounds* times, in a new order each time."""
    chance = np.random.default_rng()
    patience = Patience(_PATIENCE_SECONDS)
    for number in range(rounds):
        print(f"\rround {number + 1} of {rounds} ", end="", file=sys.stderr, flush=True)
        for index in chance.permutation(len(rows)).tolist():
            if not rows[index].note:
                rows[index].measure(patience)
    print(file=sys.stderr)


class Variants:
    """All rows of the comparison."""

    def __init__(self, program: Path, endpoint: str) -> None:
        """*program* is the compiled loop, *endpoint* a collector's for gRPC."""
        self._loop = Loop(program).command()
        self._program = program
        self._endpoint = endpoint
        self.emitted = self.dropped = self.delivered = 0
        """Of full emission, over all visits."""
        self.rows = [
            Variant("bare", lambda: run(self._loop).stdout),
            Variant("two empty programs", self._empty_pair),
            Variant("otel-sysexit, attached to another process", self._other_target),
            Variant("otel-sysexit, call not in the set", self._filtered_out),
            Variant("otel-sysexit, to a collector", self._full),
            *self._tools(),
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
        with _running(["sleep", "600"]) as other:
            command = [*AGENT, "attach", "--quiet", "--exporter", "none", "--pid", str(other.pid)]
            with _running(command) as agent:
                wait_until(lambda: links(agent.pid) == _LINKS_OF_THE_AGENT, "attached")
                time.sleep(_SETTLE_SECONDS)  # it adds its target then
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

    def _tools(self) -> list[Variant]:
        # Short visits: these are slow. Pauses: what does not fit their buffers would be lost and cost nothing.
        stopped = Loop(self._program, calls=500).command()
        streamed = Loop(self._program, calls=1_000, pause_us=30_000).command()
        rows = [
            _tool("`strace -c`", ["strace", "-c", "-o", "/dev/null", *stopped]),
            _tool("`strace`", ["strace", "-o", "/dev/null", *stopped]),
            _tool("`perf trace`", [*_TRACEFS, "perf", "trace", "-o", "/dev/null", "--", *streamed]),
            _tool(
                "bpftrace, printing each call",
                [*_TRACEFS, "bpftrace", "-o", "/dev/null", "-e", _BPFTRACE, "-c", " ".join(streamed)],
            ),
        ]
        for row in rows:
            if not row.note and not row.visit():
                row.note = "does not work here"
        return rows


@contextlib.contextmanager
def _running(command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run *command* for the duration of a `with` block."""
    with subprocess.Popen(command, env=ENVIRONMENT) as process:
        try:
            yield process
        finally:
            process.terminate()


def _tool(title: str, command: Sequence[str]) -> Variant:
    name = next(word for word in command if word in ("strace", "perf", "bpftrace"))
    return Variant(title, lambda: run(command).stdout, note="" if shutil.which(name) else "not installed")
