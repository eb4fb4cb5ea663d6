"""
Which trace and which parent each call belongs to.

In: identified batches of calls, and processes that ended. Out: a `Placement` for each batch, and the spans that are not
calls: of processes (`Tree`, for a command that is run) and of windows (`Windows`, for processes that run on).
"""

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Protocol
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from otel_sysexit import attributes
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image, Process
from otel_sysexit.sampling import ALL_ARE_HERE, make_trace_id

WINDOW_SPANS_MAX: Final = 2_000
WINDOW_SECONDS_MAX: Final = 10


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the n calls of a batch stand: ids of their spans, and k contexts that they share."""

    span_id: npt.NDArray[np.uint64]
    """u8[n], not 0."""
    context: npt.NDArray[np.uint32]
    """u4[n]: index into the next two."""
    trace_id: npt.NDArray[np.uint8]
    """u1[k, 16]."""
    parent_span_id: npt.NDArray[np.uint64]
    """u8[k]."""


@dataclass(frozen=True, slots=True)
class Link:
    """A pointer to a span of another trace."""

    trace_id: bytes
    span_id: int
    attributes: dict[str, str]
    trace_state: str = ALL_ARE_HERE
    """Of that span."""


@dataclass(frozen=True, slots=True)
class Span:
    """A span that is not a call's: of a process or of a window."""

    name: str
    trace_id: bytes
    span_id: int
    parent_span_id: int
    """0: it is its trace's root."""
    start_unix_ns: int
    end_unix_ns: int
    image: Image
    attributes: dict[str, str | int]
    links: Sequence[Link] = ()
    is_error: bool = False
    trace_state: str = ALL_ARE_HERE
    """Empty in a trace of sampled calls: this span was not sampled, but the trace's randomness is not free for it."""


class Structure(Protocol):
    """What the agent asks of a trace structure."""

    def set_root(self, process: Process) -> None:
        """Name the process of the command that is run."""

    def place(self, calls: Calls) -> Placement:
        """Give each call its place."""

    def end(self, processes: Iterable[Process]) -> None:
        """Take note that *processes* ended, all their calls placed."""

    def tick(self, now_unix_ns: int) -> None:
        """Finish what time has finished."""

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:
        """Finish everything: nothing more will come."""

    def take_spans(self) -> list[Span]:
        """Return the spans finished since the last time."""


class _Ids:
    """Random ids. Not cryptographic ones, but seeded by the system's randomness."""

    def __init__(self) -> None:
        self._random = np.random.Generator(np.random.PCG64(int.from_bytes(os.urandom(16), "little")))

    def span_ids(self, count: int) -> npt.NDArray[np.uint64]:
        return self._random.integers(1, 2**64, count, dtype=np.uint64)

    def span_id(self) -> int:
        return int(self.span_ids(1)[0])


def _trace_state(threshold: int) -> str:
    """Return the trace state of spans that are no calls, in a trace whose calls were sampled at *threshold*."""
    return "" if threshold else ALL_ARE_HERE


class Tree:
    """One trace: the command is the root, each process hangs below its parent's, each call below its process's."""

    def __init__(self, threshold: int = 0) -> None:
        """*threshold*: the highest at which calls are sampled (call records; those always kept have 0)."""
        self._ids = _Ids()
        self.trace_id = make_trace_id(threshold)
        self._trace_state = _trace_state(threshold)
        # A process may outlive its parent and still name it: kept as long as anything knows the process.
        self._span_ids: WeakKeyDictionary[Process, int] = WeakKeyDictionary()
        self._root: Process | None = None
        self._spans: list[Span] = []

    def set_root(self, process: Process) -> None:
        """Name the process of the command."""
        self._root = process

    def place(self, calls: Calls) -> Placement:
        """Give each call its process's span as the parent."""
        processes: dict[Process, int] = {}
        of_thread = np.array(
            [processes.setdefault(thread.process, len(processes)) for thread in calls.threads], np.uint32
        )
        return Placement(
            span_id=self._ids.span_ids(len(calls)),
            context=of_thread[calls.thread] if len(calls) else np.empty(0, np.uint32),
            trace_id=np.tile(np.frombuffer(self.trace_id, np.uint8), (len(processes), 1)),
            parent_span_id=np.array([self._span_id(process) for process in processes], np.uint64),
        )

    def _span_id(self, process: Process) -> int:
        span_id = self._span_ids.get(process)
        if span_id is None:
            span_id = self._span_ids[process] = self._ids.span_id()
        return span_id

    def end(self, processes: Iterable[Process]) -> None:
        """Make the spans of *processes*."""
        for process in processes:
            if process.image is not None and process.end_unix_ns is not None:
                self._spans.append(self._span(process, process.image, process.end_unix_ns))

    def tick(self, now_unix_ns: int) -> None:
        """Nothing: a process span waits for its process."""

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:
        """End the spans of *living* processes now, without an exit code."""
        for process in living:
            if process.image is not None:
                self._spans.append(self._span(process, process.image, now_unix_ns))

    def _span(self, process: Process, image: Image, end_unix_ns: int) -> Span:
        parent = 0 if process is self._root else self._span_id(process.parent or self._root or process)
        noted: dict[str, str | int] = {}
        if process.exit_code is not None:
            noted[attributes.PROCESS_EXIT_CODE] = process.exit_code
        error = _error_type(process)
        if error is not None:
            noted[attributes.ERROR_TYPE] = error
        return Span(
            name=process.name,
            trace_id=self.trace_id,
            span_id=self._span_id(process),
            parent_span_id=parent,
            start_unix_ns=min(process.begin_unix_ns, end_unix_ns),
            end_unix_ns=end_unix_ns,
            image=image,
            attributes=noted,
            is_error=error is not None,
            trace_state=self._trace_state,
        )

    def take_spans(self) -> list[Span]:
        """Return the process spans made since the last time."""
        spans, self._spans = self._spans, []
        return spans


def _error_type(process: Process) -> str | None:
    """Return the signal that killed *process*, or its exit code as text; None when all was well."""
    if process.exit_signal is not None:
        try:
            return signal.Signals(process.exit_signal).name
        except ValueError:  # a real-time signal
            return f"SIG{process.exit_signal}"
    return str(process.exit_code) if process.exit_code else None


@dataclass(slots=True)
class _Window:
    """An open window of a process."""

    threshold: int
    trace_id: bytes
    span_id: int
    opened_unix_ns: int
    start_unix_ns: int
    end_unix_ns: int
    links: list[Link]
    calls: int = 0
    errors: int = 0


@dataclass(slots=True)
class _Contexts:
    trace_ids: list[bytes] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def add(self, window: _Window) -> int:
        self.trace_ids.append(window.trace_id)
        self.parents.append(window.span_id)
        return len(self.parents) - 1


class Windows:
    """
    A trace for each window of each process, linked to the one before.

    A span can be sent only when it ends, so the root of a trace that lives for days would be missing for days; and back
    ends refuse or truncate very large traces. A window ends after `WINDOW_SPANS_MAX` calls or `WINDOW_SECONDS_MAX`.

    Calls that were sampled at different thresholds are in different windows: a trace has one randomness, and only what was
    sampled at one threshold can be sampled again by it (tracestate-probability-sampling.md).
    """

    def __init__(self) -> None:
        self._ids = _Ids()
        self._windows: dict[tuple[Process, int], _Window] = {}
        self._previous: dict[Process, Link] = {}
        self._spans: list[Span] = []

    def set_root(self, process: Process) -> None:
        """Nothing: all processes are alike."""

    def place(self, calls: Calls) -> Placement:
        """Give each call the root of an open window of its process as the parent."""
        contexts = _Contexts()
        context = np.zeros(len(calls), np.uint32)
        ends = calls.start_unix_ns + calls.duration_ns
        for process, threshold, rows in _by_process_and_threshold(calls):
            remaining = rows
            while len(remaining):
                window = self._open(process, threshold, int(ends[remaining[0]]))
                taken, remaining = np.split(remaining, [WINDOW_SPANS_MAX - window.calls])
                context[taken] = contexts.add(window)
                window.calls += len(taken)
                window.errors += int((calls.outcome[taken] == Outcome.FAILED).sum())
                window.start_unix_ns = min(window.start_unix_ns, int(calls.start_unix_ns[taken].min()))
                window.end_unix_ns = max(window.end_unix_ns, int(ends[taken].max()))
                if window.calls >= WINDOW_SPANS_MAX:
                    self._close(process, threshold)
        return Placement(
            span_id=self._ids.span_ids(len(calls)),
            context=context,
            trace_id=np.frombuffer(b"".join(contexts.trace_ids), np.uint8).reshape(-1, 16),
            parent_span_id=np.array(contexts.parents, np.uint64),
        )

    def _open(self, process: Process, threshold: int, now_unix_ns: int) -> _Window:
        window = self._windows.get((process, threshold))
        if window is None:
            previous = self._previous.get(process)
            window = self._windows[process, threshold] = _Window(
                threshold,
                make_trace_id(threshold),
                self._ids.span_id(),
                now_unix_ns,
                now_unix_ns,
                now_unix_ns,
                [previous] if previous else [],
            )
        return window

    def _close(self, process: Process, threshold: int) -> None:
        window = self._windows.pop((process, threshold))
        if process.image is None:
            return
        state = _trace_state(threshold)
        self._spans.append(
            Span(
                name=process.name,
                trace_id=window.trace_id,
                span_id=window.span_id,
                parent_span_id=0,
                start_unix_ns=window.start_unix_ns,
                end_unix_ns=window.end_unix_ns,
                image=process.image,
                attributes={attributes.WINDOW_CALLS: window.calls, attributes.WINDOW_ERRORS: window.errors},
                links=window.links,
                trace_state=state,
            )
        )
        self._previous[process] = Link(
            window.trace_id, window.span_id, {attributes.LINK_TYPE: "previous_window"}, state
        )

    def end(self, processes: Iterable[Process]) -> None:
        """Close the windows of *processes*."""
        gone = set(processes)
        if gone:
            self._close_all(key for key in self._windows if key[0] in gone)
        for process in gone:
            self._previous.pop(process, None)

    def tick(self, now_unix_ns: int) -> None:
        """Close the windows that are old enough."""
        limit = now_unix_ns - WINDOW_SECONDS_MAX * 1_000_000_000
        self._close_all(key for key, window in self._windows.items() if window.opened_unix_ns <= limit)

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:  # noqa: ARG002 (other structures need it)
        """Close every window."""
        self._close_all(self._windows)

    def _close_all(self, keys: Iterable[tuple[Process, int]]) -> None:
        for process, threshold in list(keys):
            self._close(process, threshold)

    def take_spans(self) -> list[Span]:
        """Return the window roots made since the last time."""
        spans, self._spans = self._spans, []
        return spans


def _by_process_and_threshold(calls: Calls) -> Iterator[tuple[Process, int, npt.NDArray[np.intp]]]:
    """Yield the rows of each process's calls, ascending, apart for each threshold."""
    processes: dict[Process, int] = {}
    of_thread = np.array(
        [processes.setdefault(thread.process, len(processes)) for thread in calls.threads], np.uint64
    )
    group = (
        of_thread[calls.thread] << np.uint64(32) | calls.threshold if len(calls) else np.empty(0, np.uint64)
    )
    order = np.argsort(group, kind="stable")
    distinct, firsts = np.unique(group[order], return_index=True)
    members = list(processes)
    for value, rows in zip(distinct.tolist(), np.split(order, firsts[1:]), strict=True) if len(calls) else ():
        yield members[value >> 32], value & 0xFFFFFFFF, rows
