"""
The traces of processes that run on: one for each window of each program in a process, linked to the one before.

A span can be sent only when it ends, so the root of a trace that lives for days would be missing for days; and back ends refuse
or cut very large traces. So a window ends with the program it shows, or when it has `WINDOW_SPANS_MAX` calls, about
`WINDOW_BYTES_MAX` bytes or an age of `WINDOW_SECONDS_MAX`.

Calls that were sampled at different thresholds are in different windows: a trace has one randomness, and only what was
sampled at one threshold can be sampled again by it (tracestate-probability-sampling.md).
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from otel_sysexit import attributes
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image, Process
from otel_sysexit.joining import join
from otel_sysexit.sampling import make_trace_id
from otel_sysexit.traces import Ids, Link, Placement, Span, Totals, error_type, link_to_starter, state_beside

WINDOW_SPANS_MAX: Final = 2_000
WINDOW_BYTES_MAX: Final = 512 << 10
WINDOW_SECONDS_MAX: Final = 10
_SPAN_BYTES: Final = 240
_ARGUMENT_BYTES: Final = 40
_TOTALS: Final = (attributes.WINDOW_FILTERED, attributes.WINDOW_SAMPLED_OUT, attributes.WINDOW_DROPPED)
"""In the order of `Totals`."""
_NAMES_MAX: Final = 50
"""Calls that a root counts by name; the rest of them together."""


@dataclass(slots=True)
class _Window:
    """An open window of a program."""

    image: Image
    threshold: int
    trace_id: bytes
    span_id: int
    opened_unix_ns: int
    start_unix_ns: int
    end_unix_ns: int
    links: list[Link]
    totals: Totals
    calls: int = 0
    errors: int = 0
    size: int = 0
    """About how many bytes its spans have."""
    names: dict[str, int] = field(default_factory=dict)
    """Calls by name."""

    def link(self, kind: str) -> Link:
        """Return a link to its root."""
        return Link(self.trace_id, self.span_id, {attributes.LINK_TYPE: kind}, state_beside(self.threshold))

    def is_full(self) -> bool:
        """Whether no more calls fit."""
        return self.calls >= WINDOW_SPANS_MAX or self.size >= WINDOW_BYTES_MAX

    def fitting(self, group: "_Group", size: npt.NDArray[np.int64]) -> int:
        """Return how many of the calls of *group* fit, at least one; *size*: of each call of the batch."""
        fitting = min(WINDOW_SPANS_MAX - self.calls, group.count)
        if self.size + group.size > WINDOW_BYTES_MAX:
            below = np.searchsorted(np.cumsum(size[group.rows]), WINDOW_BYTES_MAX - self.size, side="right")
            fitting = min(fitting, int(below))
        return max(fitting, 1)

    def take(self, group: "_Group") -> None:
        """Count the calls of *group*."""
        self.calls += group.count
        self.errors += group.errors
        self.size += group.size
        self.start_unix_ns = min(self.start_unix_ns, group.start_unix_ns)
        self.end_unix_ns = max(self.end_unix_ns, group.end_unix_ns)
        for name, count in group.names:
            self.names[name] = self.names.get(name, 0) + count


@dataclass(frozen=True, slots=True)
class _Group:
    """Calls of a batch that may be in one window: of one program, sampled at one threshold."""

    image: Image
    threshold: int
    rows: npt.NDArray[np.intp]
    """Of the batch, ascending."""
    names: list[tuple[str, int]]
    """How many calls of each name."""
    count: int
    errors: int
    size: int
    start_unix_ns: int
    end_unix_ns: int
    first_end_unix_ns: int
    """When the first of them ended."""


@dataclass(slots=True)
class _Contexts:
    trace_ids: list[bytes] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def add(self, window: _Window) -> int:
        self.trace_ids.append(window.trace_id)
        self.parents.append(window.span_id)
        return len(self.parents) - 1


class Windows:
    """A trace for each window of each program."""

    def __init__(self) -> None:
        self._ids = Ids()
        self._windows: dict[Process, dict[tuple[Image, int], _Window]] = {}
        """Those that are open, by program and threshold; of one program at a time."""
        self._by_age: list[tuple[int, int, _Window]] = []
        """A heap of all windows that are not too old, open or not, by when they were opened and the ids of their roots."""
        self._previous: dict[Process, _Window] = {}
        """The latest one that was closed."""
        self._totals = Totals()
        self._spans: list[Span] = []

    def set_root(self, process: Process) -> None:
        """Nothing: all processes are alike."""

    def place(self, calls: Calls) -> Placement:
        """Give each call the root of an open window of its program as the parent, or its application's span; the window counts both."""
        contexts = _Contexts()
        context = np.zeros(len(calls), np.uint32)
        size = _span_sizes(calls)
        for group in _groups(calls, np.arange(len(calls)), size):
            self._place(group, calls, size, context, contexts)
        in_windows = Placement(
            span_id=self._ids.span_ids(len(calls)),
            context=context,
            trace_id=np.frombuffer(b"".join(contexts.trace_ids), np.uint8).reshape(-1, 16),
            parent_span_id=np.array(contexts.parents, np.uint64),
        )
        return join(calls, in_windows)

    def _place(
        self,
        group: _Group,
        calls: Calls,
        size: npt.NDArray[np.int64],
        context: npt.NDArray[np.uint32],
        contexts: _Contexts,
    ) -> None:
        """Place the calls of *group* in as many windows as they fill."""
        remaining: _Group | None = group
        while remaining is not None:
            part, remaining = remaining, None
            window = self._open(part)
            fitting = window.fitting(part, size)
            if fitting < part.count:
                rows, rest = part.rows[:fitting], part.rows[fitting:]
                (part,) = _groups(calls, rows, size)
                (remaining,) = _groups(calls, rest, size)
            context[part.rows] = contexts.add(window)
            window.take(part)
            if remaining is not None or window.is_full():
                self._close(part.image, part.threshold)

    def _open(self, group: _Group) -> _Window:
        """Return the open window of a program and threshold; a new one ends those of what the process ran before."""
        process = group.image.process
        windows = self._windows.setdefault(process, {})
        window = windows.get((group.image, group.threshold))
        if window is None:
            for image, threshold in [key for key in windows if key[0] is not group.image]:
                self._close(image, threshold)
            window = windows[group.image, group.threshold] = _Window(
                group.image,
                group.threshold,
                make_trace_id(group.threshold),
                self._ids.span_id(),
                group.first_end_unix_ns,
                group.start_unix_ns,
                group.end_unix_ns,
                self._links(group.image),
                self._totals,
            )
            heapq.heappush(self._by_age, (window.opened_unix_ns, window.span_id, window))
        return window

    def _links(self, image: Image) -> list[Link]:
        """Return links to the window before, to one of the process that started this one, and to the span that did."""
        process = image.process
        before, parent = self._previous.get(process), process.parent
        links = [before.link("previous_window")] if before else []
        if parent is not None:
            open_windows = self._windows.get(parent)
            above = next(reversed(open_windows.values())) if open_windows else self._previous.get(parent)
            links += [above.link("parent_window")] if above else []
        if image.trace_context is not None:
            links.append(link_to_starter(image.trace_context))
        return links

    def _close(self, image: Image, threshold: int, *, is_last: bool = False) -> None:
        process = image.process
        window = self._windows[process].pop((image, threshold))
        noted = self._attributes(window)
        error = error_type(process) if is_last else None
        if is_last and process.exit_code is not None:
            noted[attributes.PROCESS_EXIT_CODE] = process.exit_code
        if error is not None:
            noted[attributes.ERROR_TYPE] = error
        self._spans.append(
            Span(
                name=image.executable_name,
                trace_id=window.trace_id,
                span_id=window.span_id,
                parent_span_id=0,
                start_unix_ns=window.start_unix_ns,
                end_unix_ns=window.end_unix_ns,
                image=image,
                attributes=noted,
                links=window.links,
                is_error=error is not None,
                trace_state=state_beside(threshold),
            )
        )
        self._previous[process] = window

    def _attributes(self, window: _Window) -> dict[str, str | int]:
        """Return what a root says: its calls, in all and by name, and of the calls of all targets those that are not here."""
        noted: dict[str, str | int] = {
            attributes.WINDOW_CALLS: window.calls,
            attributes.WINDOW_ERRORS: window.errors,
        }
        by_count = sorted(window.names.items(), key=lambda item: (-item[1], item[0]))
        for name, count in by_count[:_NAMES_MAX]:
            noted[attributes.WINDOW_CALLS_BY_NAME + name] = count
        others = sum(count for _, count in by_count[_NAMES_MAX:])
        if others:
            noted[attributes.WINDOW_CALLS_BY_NAME + "_OTHER"] = others
        for key, now, before in zip(_TOTALS, self._totals, window.totals, strict=True):
            if now > before:
                noted[key] = now - before
        return noted

    def end(self, processes: Iterable[Process]) -> None:
        """Close the windows of *processes*; their last roots say how they ended."""
        for process in processes:
            self._close_all(process, is_last=True)
            self._windows.pop(process, None)
            self._previous.pop(process, None)

    def tick(self, now_unix_ns: int, totals: Totals) -> None:
        """Close the windows that are old enough."""
        self._totals = totals
        opened_until = now_unix_ns - WINDOW_SECONDS_MAX * 1_000_000_000
        while self._by_age and self._by_age[0][0] <= opened_until:
            window = heapq.heappop(self._by_age)[-1]
            key = window.image, window.threshold
            if self._windows.get(window.image.process, {}).get(key) is window:
                self._close(*key)

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:  # noqa: ARG002 (other structures need it)
        """Close every window."""
        for process in self._windows:
            self._close_all(process)

    def _close_all(self, process: Process, *, is_last: bool = False) -> None:
        for image, threshold in list(self._windows.get(process, ())):
            self._close(image, threshold, is_last=is_last)

    def take_spans(self) -> list[Span]:
        """Return the window roots made since the last time."""
        spans, self._spans = self._spans, []
        return spans


def _groups(calls: Calls, rows: npt.NDArray[np.intp], size: npt.NDArray[np.int64]) -> Iterator[_Group]:
    """Yield the calls at *rows*, ascending, by program and threshold; *size*: of each call of the batch."""
    if not len(rows):
        return
    images: dict[Image, int] = {}
    of_thread = np.array(
        [images.setdefault(thread.image, len(images)) for thread in calls.threads], np.uint64
    )
    key = of_thread[calls.thread[rows]] << np.uint64(32) | calls.threshold[rows]
    order = np.argsort(key, kind="stable")
    rows = rows[order]
    distinct, firsts, counts = np.unique(key[order], return_index=True, return_counts=True)
    starts = calls.start_unix_ns[rows]
    ends = starts + calls.duration_ns[rows]
    columns = (
        counts,
        np.add.reduceat((calls.outcome[rows] == Outcome.FAILED).astype(np.int64), firsts),
        np.add.reduceat(size[rows], firsts),
        np.minimum.reduceat(starts, firsts),
        np.maximum.reduceat(ends, firsts),
        ends[firsts],
    )
    members = list(images)
    parts = np.split(rows, firsts[1:])
    names = _count_names(calls, rows, counts)
    figures = zip(*(column.tolist() for column in columns), strict=True)
    for value, part, by_name, of_group in zip(distinct.tolist(), parts, names, figures, strict=True):
        yield _Group(members[value >> 32], value & 0xFFFFFFFF, part, by_name, *of_group)


def _count_names(
    calls: Calls, rows: npt.NDArray[np.intp], counts: npt.NDArray[np.intp]
) -> list[list[tuple[str, int]]]:
    """Return for each of the groups, *counts* calls each of *rows*, how many calls of each name there are."""
    group = np.repeat(np.arange(len(counts), dtype=np.uint64), counts)
    pairs, numbers = np.unique(group << np.uint64(16) | calls.kind[rows], return_counts=True)
    found: list[list[tuple[str, int]]] = [[] for _ in counts]
    for pair, number in zip(pairs.tolist(), numbers.tolist(), strict=True):
        found[pair >> 16].append((calls.kinds[pair & 0xFFFF].name, number))
    return found


def _span_sizes(calls: Calls) -> npt.NDArray[np.int64]:
    """Return i8[n]: about how many bytes each call's span has (otlp/spans.py), without what all have of its program."""
    size = np.full(len(calls), _SPAN_BYTES, np.int64)
    used = np.unique(calls.kind)
    arguments = np.zeros(int(used.max(initial=0)) + 1, np.int64)
    arguments[used] = [len(calls.kinds[index].arguments) for index in used.tolist()]
    size += arguments[calls.kind] * calls.has_args * _ARGUMENT_BYTES
    for texts, row in (
        (calls.paths, calls.path_row.T),
        (calls.files, calls.file_row.T),
        (calls.addresses.texts, calls.address_row[np.newaxis]),
    ):
        if len(texts):
            size += np.append(texts.length, 0)[row].sum(axis=0, dtype=np.int64)  # -1 is the last
    return size
