"""Batches of calls made by hand, for tests of what reads them."""

from dataclasses import dataclass

import numpy as np

from otel_sysexit.calls import PATH_WIDTH, Calls, Outcome, Paths
from otel_sysexit.identity import Image, Process, Thread
from otel_sysexit.syscalls import Abi, Kinds, convert_arguments, number_of

START_UNIX_NS = 1_700_000_000_000_000_000
_KINDS = Kinds()
_FAILURES = (Outcome.FAILED, Outcome.BENIGN)


def make_process(
    pid: int, name: str = "worker", parent: Process | None = None, **facts: int | None
) -> Process:
    """Return a process that runs a program of a name, *pid* ns younger than START_UNIX_NS."""
    process = Process(pid, START_UNIX_NS + pid, parent.pid if parent else None, parent, **facts)
    process.image = Image(process, name)
    return process


_WORKER = make_process(1)


@dataclass(frozen=True)
class Made:
    """One call, with registers as the program passed them."""

    call: str | int = "read"
    args: tuple[int, ...] = ()
    ret: int = 0
    outcome: Outcome = Outcome.SUCCEEDED
    paths: tuple[bytes, ...] = ()
    abi: Abi = Abi.X86_64
    start_ns: int = 0  # after START_UNIX_NS
    duration_ns: int = 0
    process: Process = _WORKER
    tid: int = 1
    restarted: int = -1
    is_cut: bool = False
    is_executed: bool = True
    has_args: bool = True

    @property
    def number(self) -> int:
        """The call's number in its ABI."""
        number = number_of(self.call, self.abi) if isinstance(self.call, str) else self.call
        assert number is not None, f"{self.abi.label} has no {self.call}"
        return number


def make_calls(*made: Made) -> Calls:
    """Return the columns of some calls; every call has a thread of its own in *threads*."""
    kind = _KINDS.index(
        np.array([one.abi for one in made], np.uint8),
        np.array([one.number for one in made], np.int32),
        np.array([one.restarted for one in made], np.int32),
    )
    registers = np.zeros((len(made), 6), np.uint64)
    path_row = np.full((len(made), 2), -1, np.int32)
    texts: list[tuple[bytes, bool]] = []
    for row, one in enumerate(made):
        for column, register in enumerate(one.args):
            registers[row, column] = register % 2**64
        for column, path in enumerate(one.paths):
            path_row[row, column] = len(texts)
            texts.append((path, one.is_cut))
    text = np.zeros((len(texts), PATH_WIDTH), np.uint8)
    for row, (path, _) in enumerate(texts):
        text[row, : len(path)] = np.frombuffer(path, np.uint8)
    start = np.array([START_UNIX_NS + one.start_ns for one in made], np.uint64)
    duration = np.array([one.duration_ns for one in made], np.uint64)
    return Calls(
        start_unix_ns=start,
        duration_ns=duration,
        end_boot_ns=start + duration,
        tgid=np.array([one.process.pid for one in made], np.uint32),
        tid=np.array([one.tid for one in made], np.uint32),
        ret=np.array([one.ret for one in made], np.int64),
        args=convert_arguments(registers, _KINDS.forms(kind)),
        has_args=np.array([one.has_args for one in made], np.bool_),
        kind=kind,
        outcome=np.array([one.outcome for one in made], np.uint8),
        is_executed=np.array([one.is_executed for one in made], np.bool_),
        errno=np.array([-one.ret if one.outcome in _FAILURES else 0 for one in made], np.uint16),
        path_row=path_row,
        paths=Paths(
            text,
            np.array([len(path) for path, _ in texts], np.uint16),
            np.array([is_cut for _, is_cut in texts], np.bool_),
        ),
        kinds=_KINDS,
        thread=np.arange(len(made), dtype=np.uint32),
        threads=[
            Thread(one.tid, one.process.name, one.process.image or Image(one.process, "?")) for one in made
        ],
    )
