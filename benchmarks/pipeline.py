"""
The agent's Python path alone: recorded bytes in a ring → identified, placed and encoded as OTLP requests.

The ring is made by hand: committed records as the kernel would leave them, so that each case is the same in every run.
CPU time is this thread's. Nothing is sent. Spans of processes and windows are among what is made and counted.

    .venv/bin/python benchmarks/pipeline.py [ROUNDS]        this part alone
"""

import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# Before numpy is loaded, as the agent does it.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from otel_sysexit.benign import BenignErrors
from otel_sysexit.calls import Decoder
from otel_sysexit.flat import Flat
from otel_sysexit.gathering import BATCH_CALLS_MAX
from otel_sysexit.kernel import records
from otel_sysexit.kernel.ring import Ring
from otel_sysexit.memory import keep_freed_memory
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.processes import Processes
from otel_sysexit.settings import BENIGN_ERRORS
from otel_sysexit.signatures import shipped_signature
from otel_sysexit.syscalls import Abi, number_of
from otel_sysexit.traces import Structure
from otel_sysexit.trees import Tree
from otel_sysexit.windows import Windows

BATCHES_A_CASE = 4
_FIRST_PID = 1 << 23
"""No pid is that high: nothing of this machine is read from /proc."""
_WITH_PATH = {"openat": 2, "newfstatat": 2, "access": 1, "readlink": 1, "stat": 1, "statx": 2, "unlink": 1}
_WITHOUT_PATH = (
    "read write close mmap munmap mprotect brk futex poll epoll_wait recvfrom sendto lseek ioctl fcntl fstat"
    " getrandom rt_sigaction rt_sigprocmask clock_nanosleep getdents64 pread64 pwrite64"
)
MIX = (*_WITH_PATH, *_WITHOUT_PATH.split())
"""30 calls as programs make them; every fourth or so has a path, most others a descriptor."""
_FAILURES = (-2, -11, -13)
_VALUES = (0, 1, 2, 3, 0o100, 0x80000)
"""Of arguments."""
_COMBINATIONS = 4
"""Of arguments, for a kind of call: programs use few flags."""
_CALL_NS = 1_000
"""From one call to the next."""
_FILES = 200
"""What descriptors are, in all."""


@dataclass(frozen=True)
class Case:
    """What the calls of a batch are like, and who makes them."""

    title: str
    names: Sequence[str] = MIX
    processes: int = 1
    """Alive."""
    active: int | None = None
    """Those that make the calls of a batch, others in each batch; None: all."""
    calls: int = BATCH_CALLS_MAX
    structure: Callable[[], Structure] = Tree
    budget_us: float = 1.0
    """Of CPU a span."""


_STRUCTURES = (("tree", Tree), ("windows", Windows), ("flat", Flat))

CASES = (
    Case("getppid only, 1 process", ("getppid",)),
    Case("30 kinds with paths, 1 process"),
    Case("30 kinds with paths, 1 process, batches of 2,000", calls=2_000),
    Case("30 kinds with paths, 1 process, batches of 16,384", calls=16_384),
    Case("30 kinds with paths, 100 processes", processes=100),
    *(
        Case(f"{title}, {name}", MIX, processes, active, structure=structure, budget_us=budget_us)
        for title, processes, active, budget_us in (
            ("1,000 processes", 1_000, None, 1.0),
            ("10,000 processes", 10_000, None, 2.0),
            ("10,000 processes, 100 in a batch", 10_000, 100, 2.0),
        )
        for name, structure in _STRUCTURES
    ),
)


def _ring(rows: np.ndarray) -> Ring:
    """Return a ring that holds *rows*, committed, and no space for more."""
    stride = 8 + rows.itemsize
    data = np.zeros(1 << (len(rows) * stride - 1).bit_length(), np.uint8)
    lines = data[: len(rows) * stride].reshape(len(rows), stride)
    lines[:, 0:4] = np.frombuffer(np.uint32(rows.itemsize).tobytes(), np.uint8)
    lines[:, 8:] = rows.view(np.uint8).reshape(len(rows), rows.itemsize)
    produced = np.uint64(lines.size).tobytes()
    return Ring(bytearray(8), produced, np.tile(data, 2), rows.dtype)


def _processes(count: int) -> np.ndarray:
    """Return a TASK record for the start of each process."""
    tasks = np.zeros(count, records.TASK)
    tasks["tgid"] = tasks["tid"] = tasks["previous_tid"] = _FIRST_PID + np.arange(count)
    tasks["parent_tgid"] = 1
    tasks["kind"] = records.TaskKind.PROCESS_START
    tasks["time_ns"] = tasks["start_ns"] = 1 + np.arange(count)
    tasks["comm"][:, :6] = np.frombuffer(b"worker", np.uint8)
    return tasks


def _files() -> np.ndarray:
    """Return a STRING record for each file that descriptors may be, numbers from 1 on."""
    files = np.zeros(_FILES, records.STRING)
    files["seq"] = 1 + np.arange(_FILES)
    files["role"] = records.StringRole.FILE
    for row in range(_FILES):
        _write(files[row], b"/var/lib/service/segment-%d" % row)
    return files


def _write(record: np.void, text: bytes) -> None:
    """Put a text into a STRING record."""
    record["length"] = len(text)
    record["text"][: len(text)] = np.frombuffer(text, np.uint8)


def _calls(case: Case, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return CALL records and the STRING records that belong to them."""
    count = case.calls
    calls = np.zeros(count, records.CALL)
    kind = chance.integers(0, len(case.names), count)
    numbers = np.array([number_of(name, Abi.X86_64) for name in case.names])
    calls["nr"] = numbers[kind]
    calls["restarted_nr"] = -1
    active = chance.permutation(case.processes)[: case.active]
    calls["tgid"] = calls["tid"] = _FIRST_PID + chance.choice(active, count)
    calls["start_ns"] = 1_000_000 + np.arange(count) * _CALL_NS
    calls["duration_ns"] = chance.integers(200, 1_000_000, count)
    arguments = chance.choice(_VALUES, (len(case.names), _COMBINATIONS, 6))
    calls["args"] = arguments[kind, chance.integers(0, _COMBINATIONS, count)]
    calls["kind_flags"] = records.HAS_ARGS
    has_file = np.array([bool(_descriptors(name)) for name in case.names])[kind]
    calls["files"][:, 0] = np.where(has_file, chance.integers(1, 1 + _FILES, count), 0)
    has_path = np.isin(kind, [index for index, name in enumerate(case.names) if name in _WITH_PATH])
    fails = chance.random(count) < 0.03
    calls["ret"] = np.where(fails, chance.choice(_FAILURES, count), chance.integers(0, 4_096, count))
    rows = np.flatnonzero(has_path)
    calls["kind_flags"][rows] |= records.HAS_STRING
    calls["string_seq"][rows] = 1 + np.arange(len(rows))
    strings = np.zeros(len(rows), records.STRING)
    strings["seq"] = calls["string_seq"][rows]
    for row in range(len(rows)):
        _write(strings[row], b"/usr/lib/python3/dist-packages/"[: 8 + row % 24] + b"%d.so" % (row % 997))
    return calls, strings


def _descriptors(name: str) -> list[str]:
    """Return the names of a call's descriptor arguments."""
    return [one.name for one in shipped_signature(name, Abi.X86_64.label) or () if one.is_descriptor]


class Pipeline:
    """The stages of one case, warm as those of an agent that has run a while."""

    def __init__(self, case: Case) -> None:
        self.case = case
        chance = np.random.default_rng(20_260_101)
        self._batches = [_calls(case, chance) for _ in range(BATCHES_A_CASE)]
        self._decoder = Decoder(BenignErrors(BENIGN_ERRORS))
        self._processes = Processes(self._decoder.clock.offset_ns())
        self._processes.learn(_processes(case.processes), {}, 0)
        self._decoder.files.add(_files())
        self._structure = case.structure()
        self._time_ns = 0
        self._encoder = SpanEncoder()
        self.bytes_a_span = 0.0

    def run(self) -> float:
        """Take every batch from a ring to bytes once, later than the time before; return ns of CPU a span."""
        spent = size = spans = 0
        for calls, strings in self._batches:
            later = calls.copy()
            later["start_ns"] += np.uint64(self._time_ns)
            self._time_ns += _CALL_NS * len(calls)
            call_ring, string_ring = _ring(later), _ring(strings)
            before = time.thread_time_ns()
            raw_calls = call_ring.read(len(calls))
            self._decoder.strings.add(string_ring.read(len(strings)))
            identified = self._processes.identify(self._decoder.decode(raw_calls))
            placement = self._structure.place(identified)
            others = self._structure.take_spans()
            requests = list(self._encoder.encode(identified, placement, others))
            spent += time.thread_time_ns() - before
            assert sum(request.calls for request in requests) == len(calls)
            size += sum(len(request.body) for request in requests)
            spans += len(calls) + len(others)
        self.bytes_a_span = size / spans
        return spent / spans


def measure(rounds: int) -> Iterator[tuple[Pipeline, list[float]]]:
    """Yield for each case its pipeline and the ns of CPU a span, by round; cases are interleaved."""
    keep_freed_memory()  # as the agent does
    pipelines = [Pipeline(case) for case in CASES]
    taken: dict[Pipeline, list[float]] = {pipeline: [] for pipeline in pipelines}
    chance = np.random.default_rng()
    for number in range(1 + rounds):
        for index in chance.permutation(len(pipelines)).tolist():
            ns = pipelines[index].run()
            if number:  # the first time is for templates and caches
                taken[pipelines[index]].append(ns)
    yield from taken.items()


if __name__ == "__main__":
    for pipeline, taken in measure(int(sys.argv[1]) if len(sys.argv) > 1 else 7):
        figures = min(taken) / 1e3, statistics.median(taken) / 1e3, pipeline.case.budget_us
        print(f"{pipeline.case.title:55}", *(f"{us:6.2f}" for us in figures))
