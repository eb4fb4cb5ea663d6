"""Rings → calls: what is read in which order, and what is left where it is."""

import itertools
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

from otel_sysexit.benign import BenignErrors
from otel_sysexit.calls import Decoder
from otel_sysexit.kernel import records
from otel_sysexit.kernel.records import StringRole, TaskKind
from otel_sysexit.processes import Processes
from otel_sysexit.reading import Reader

PID = 10_000_000  # above what Linux gives out, so that /proc knows none
EXEC_CPU = records.EXEC_STRINGS | 1


@dataclass
class FakeRing:
    """A ring of records that appear one look after the other."""

    name: str
    dtype: np.dtype
    order: list[str]
    rows: list[np.ndarray] = field(default_factory=list)
    hidden: int = 0
    """How many of the last rows are still being written: each look finds one more."""
    consumed: int = 0

    @property
    def produced(self) -> int:
        """Position behind the last record."""
        return len(self.rows)

    def waiting(self) -> int:
        """Return how many records are there, those included that are being written."""
        return len(self.rows) - self.consumed

    def read(self, limit: int) -> np.ndarray:
        """Return the next records that are written."""
        self.order.append(self.name)
        end = min(self.consumed + limit, len(self.rows) - self.hidden)
        found, self.consumed = self.rows[self.consumed : end], end
        self.hidden = max(self.hidden - 1, 0)
        return np.concatenate([np.empty(0, self.dtype), *found])


class FakeCapture:
    """The rings of a capture."""

    def __init__(self) -> None:
        self.order: list[str] = []
        for name, dtype in (
            ("calls", records.CALL),
            ("strings", records.STRING),
            ("tasks", records.TASK),
            ("exec_strings", records.STRING),
            ("files", records.STRING),
        ):
            setattr(self, name, FakeRing(name, dtype, self.order))


@pytest.fixture
def capture() -> FakeCapture:
    """Empty rings."""
    return FakeCapture()


@pytest.fixture
def reader(capture: FakeCapture) -> Reader:
    """A reader of these rings."""
    return Reader(capture, Decoder(BenignErrors("")), Processes(0))


def call(name_of_string: tuple[int, int] | None = None, *, file: int = 0) -> np.ndarray:
    """Return a CALL record that names a string, as (CPU, number), and a file."""
    made = np.zeros(1, records.CALL)
    made["tgid"] = made["tid"] = PID
    made["restarted_nr"], made["files"][:, 0] = -1, file
    if name_of_string is not None:
        made["kind_flags"] = records.HAS_STRING | records.HAS_ARGS
        made["string_cpu"], made["string_seq"] = name_of_string
    return made


def string(role: StringRole, text: bytes, *, seq: int, cpu: int = 0) -> np.ndarray:
    """Return a STRING record."""
    made = np.zeros(1, records.STRING)
    made["role"], made["seq"], made["cpu"], made["length"] = role, seq, cpu, len(text)
    made["text"][0, : len(text)] = np.frombuffer(text, np.uint8)
    return made


def task(kind: TaskKind, *, seq: int = 0) -> np.ndarray:
    """Return a TASK record."""
    made = np.zeros(1, records.TASK)
    made["kind"], made["tgid"], made["tid"], made["previous_tid"] = kind, PID, PID, PID
    made["string_seq"], made["string_cpu"] = seq, EXEC_CPU
    return made


def test_what_is_referred_to_is_read_after_what_refers_to_it(reader, capture):
    """Calls, tasks, strings of execs, strings, files: each is submitted before what names it, so it is there."""
    capture.calls.rows.append(call((0, 1), file=1))
    capture.files.rows.append(string(StringRole.FILE, b"/b", seq=1))
    reader.read(10)

    assert list(dict.fromkeys(capture.order)) == ["calls", "tasks", "exec_strings", "strings", "files"]


def test_without_calls_strings_and_files_wait(reader, capture):
    """What calls name stays in its ring until they come; what happened to tasks is taken in at once."""
    capture.strings.rows.append(string(StringRole.FIRST_PATH, b"/a", seq=1))
    capture.files.rows.append(string(StringRole.FILE, b"/b", seq=1))
    capture.tasks.rows.append(task(TaskKind.PROCESS_START))

    assert len(reader.read(10)) == 0
    assert set(capture.order) == {"calls", "tasks", "exec_strings"}


def test_a_call_comes_with_all_that_it_names(reader, capture):
    """One round gives its thread, its program, its path and its file."""
    capture.tasks.rows += [task(TaskKind.PROCESS_START), task(TaskKind.EXEC, seq=PID)]
    capture.exec_strings.rows.append(string(StringRole.EXECUTABLE, b"worker", seq=PID, cpu=EXEC_CPU))
    capture.strings.rows.append(string(StringRole.FIRST_PATH, b"/a", seq=1))
    capture.files.rows.append(string(StringRole.FILE, b"/b", seq=7))
    capture.calls.rows.append(call((0, 1), file=7))
    calls = reader.read(10)

    assert [thread.process.pid for thread in calls.threads] == [PID] * len(calls.threads)
    assert calls.threads[calls.thread[0]].image.executable_name == "worker"
    assert (calls.path_row[0, 0], calls.file_row[0, 0]) == (0, 0)


def test_no_more_calls_are_taken_than_asked_for(reader, capture):
    """The others stay in the ring for the next round."""
    capture.calls.rows += [call()] * 5

    assert [len(reader.read(2)) for _ in range(4)] == [2, 2, 1, 0]


def test_a_string_that_is_just_being_written_is_waited_for(reader, capture):
    """A record of another CPU that is not finished stands before the one that is asked for: a moment later it is there."""
    capture.strings.rows += [
        string(StringRole.FIRST_PATH, b"/another", seq=1, cpu=1),
        string(StringRole.FIRST_PATH, b"/mine", seq=1),
    ]
    capture.strings.hidden = 2
    capture.calls.rows.append(call((0, 1)))

    assert reader.read(10).path_row[0, 0] == 0


def test_what_is_there_is_read_however_slow_we_are(reader, capture, monkeypatch):
    """A machine that stands still between two looks loses no text: patience is for what is being written, not for us."""
    clock = itertools.count(step=3600)
    monkeypatch.setattr(time, "monotonic", lambda: float(next(clock)))
    capture.files.rows += [string(StringRole.FILE, b"/b", seq=seq) for seq in range(1, 5000)]
    capture.calls.rows.append(call(file=4999))

    assert reader.read(10).file_row[0, 0] == 0


def test_what_comes_meanwhile_is_for_the_next_round(reader, capture):
    """A ring that is filled as fast as it is read keeps nobody from what else there is to do, whatever is missing."""
    files = capture.files

    def read(limit: int) -> np.ndarray:
        found = FakeRing.read(files, limit)
        files.rows += [string(StringRole.FILE, b"/more", seq=2)] * 5
        return found

    files.rows.append(string(StringRole.FILE, b"/b", seq=1))
    files.read = read
    capture.calls.rows.append(call(file=4999))

    assert reader.read(10).file_row[0, 0] == -1


def test_a_string_that_never_comes_holds_up_nothing(reader, capture):
    """When it was dropped, the call comes without it."""
    capture.calls.rows.append(call((0, 1)))
    capture.strings.rows.append(string(StringRole.FIRST_PATH, b"/later", seq=2))
    calls = reader.read(10)

    assert (len(calls), calls.path_row[0, 0]) == (1, -1)
