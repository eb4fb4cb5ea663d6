"""
The traces of processes that run on: one for each window of each program in a process, linked to the one before.

A span can be sent only when it ends, so the root of a trace that lives for days would be missing for days; and back ends refuse
or cut very large traces. So a window ends with the program it shows, or when it has `WINDOW_SPANS_MAX` calls, about
`WINDOW_BYTES_MAX` bytes or an age of `WINDOW_SECONDS_MAX`.

Calls that were sampled at different thresholds are in different windows: a trace has one randomness, and only what was
sampled at one threshold can be sampled again by it (tracestate-probability-sampling.md).

The first window of a program that another program started in a span of its own is a child of that span, in its trace. So a short command is
where its user looks for it, and what runs on links to that span (env-carriers.md: who runs for long is to link).
"""

import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Final, TypeAlias
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from otel_sysexit import attributes
from otel_sysexit.calls import Calls
from otel_sysexit.distinct import index_distinct
from otel_sysexit.figures import Figures, Groups, Summary
from otel_sysexit.identity import Image, Process
from otel_sysexit.joining import join
from otel_sysexit.propagation import TraceContext
from otel_sysexit.sampling import make_trace_id
from otel_sysexit.syscalls import Kinds
from otel_sysexit.traces import (
    OWN_TRACE_FLAGS,
    SAMPLED,
    Ids,
    Link,
    Owner,
    Placement,
    Span,
    Spans,
    Totals,
    error_type,
    link_to_starter,
    span_id_of,
    state_beside,
)

WINDOW_SECONDS_MAX: Final = 10
_TOTALS: Final = (attributes.WINDOW_FILTERED, attributes.WINDOW_SAMPLED_OUT, attributes.WINDOW_DROPPED)
"""In the order of `Totals`."""
JOINED_CALLS_MAX: Final = 10_000
"""As many calls get into the trace of who started their programs, about: windows that are open already are filled."""
_JOINED_TRACES_MAX: Final = 4_096
_NAMES_MAX: Final = 50
"""Calls that a root counts by name; the rest of them together."""


_Program: TypeAlias = tuple[Image, int]
"""Whose calls may be in one window: those of a program that were sampled at one threshold."""


@dataclass(slots=True)
class _Window:
    """A window of a program."""

    program: _Program
    trace_id: bytes
    span_id: int
    opened_unix_ns: int
    starter: TraceContext | None
    """Of whose span it is a child."""
    links: list[Link]
    totals: Totals
    row: int
    """Of its figures, while it is open."""

    def link(self, kind: str) -> Link:
        """Return a link to its root."""
        noted = {attributes.LINK_TYPE: kind}
        return Link(self.trace_id, self.span_id, noted, self.trace_state, self.trace_flags)

    @property
    def trace_flags(self) -> int:
        """W3C's flags of its trace."""
        return OWN_TRACE_FLAGS if self.starter is None else self.starter.trace_flags

    @property
    def trace_state(self) -> str:
        """Of its root."""
        return state_beside(self.program[1]) if self.starter is None else self.starter.trace_state


@dataclass(slots=True)
class _Contexts:
    """What a `Placement` says of windows, as it is put together."""

    of_call: npt.NDArray[np.uint32]
    trace_ids: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    """u1[k, 16], several of them."""
    parents: list[npt.NDArray[np.uint64]] = field(default_factory=list)
    owners: list[npt.NDArray[np.uint8]] = field(default_factory=list)
    count: int = 0

    def add(self, windows: npt.NDArray[Any]) -> npt.NDArray[np.uint32]:
        """Add contexts of *windows*, k rows of figures; return u4[k]: which they are."""
        self.trace_ids.append(windows["trace_id"])
        self.parents.append(windows["span_id"])
        self.owners.append(windows["owner"])
        added = np.arange(self.count, self.count + len(windows), dtype=np.uint32)
        self.count += len(windows)
        return added


class Windows:
    """A trace for each window of each program."""

    def __init__(self) -> None:
        self._ids = Ids()
        self._windows: dict[Process, dict[_Program, _Window]] = {}
        """Those that are open; of one image at a time."""
        self._by_age: list[tuple[int, int, _Window]] = []
        """A heap of all windows that are not too old, open or not, by when they were opened and the ids of their roots."""
        self._figures = Figures()
        self._rows: dict[int, dict[Image, int]] = {}
        """Of the figures of those that are open, by threshold and program."""
        self._kinds = Kinds()
        """Those of the calls."""
        self._previous: dict[Process, _Window] = {}
        """The latest one that was closed."""
        self._joined_calls: dict[bytes, int] = {}
        """Of other programs' traces, by their ids."""
        self._begun: WeakSet[Image] = WeakSet()
        """Programs that have had a window."""
        self._ticked_unix_ns = 0
        self._totals = Totals()
        self._spans = Spans()

    def set_root(self, process: Process) -> None:
        """Nothing: all processes are alike."""

    def place(self, calls: Calls) -> Placement:
        """Give each call the root of an open window of its program as the parent, or its application's span; the window counts both."""
        self._kinds = calls.kinds
        images, thresholds, groups = _group(calls)
        contexts = _Contexts(np.zeros(len(calls), np.uint32))
        rows = self._rows_of(images, thresholds)
        self._open_new(images, thresholds, groups, rows)
        # Nearly all windows have room for all their calls.
        rows[~self._figures.have_room(rows, groups)] = -1
        whole = np.flatnonzero(rows >= 0)
        context = np.zeros(len(rows), np.uint32)
        context[whole] = contexts.add(self._figures.windows.take(rows[whole]))
        contexts.of_call[groups.rows] = context.take(groups.number)
        self._figures.add(rows, groups)
        for group in np.flatnonzero(rows < 0).tolist():
            self._fill((images[group], thresholds[group]), groups.rows_of(group), groups, contexts)
        in_windows = Placement(
            span_id=self._ids.span_ids(len(calls)),
            context=contexts.of_call,
            trace_id=np.concatenate(contexts.trace_ids),
            parent_span_id=np.concatenate(contexts.parents),
            owner=np.concatenate(contexts.owners),
        )
        return join(calls, in_windows)

    def _rows_of(self, images: Sequence[Image], thresholds: Sequence[int]) -> npt.NDArray[np.intp]:
        """Return intp[k]: the row of the figures of each one's open window, -1 where none is open."""
        of_threshold = {threshold: self._rows.get(threshold, {}) for threshold in set(thresholds)}
        if len(of_threshold) == 1:
            (of_image,) = of_threshold.values()
            return np.array([*map(of_image.get, images, repeat(-1))], np.intp)
        found = [of_threshold[key].get(image, -1) for image, key in zip(images, thresholds, strict=True)]
        return np.array(found, np.intp)

    def _open_new(
        self,
        images: Sequence[Image],
        thresholds: Sequence[int],
        groups: Groups,
        rows: npt.NDArray[np.intp],
    ) -> None:
        """
        Open the windows that are missing, and put them into *rows*.

        But for those of processes that have other calls in the batch, too: a new window may end one that is to get these first.
        """
        missing = np.flatnonzero(rows < 0).tolist()
        if not missing:
            return
        times = Counter(image.process for image in images)
        for group in missing:
            program = images[group], thresholds[group]
            if times[program[0].process] == 1:
                first = groups.rows[groups.firsts[group]]
                rows[group] = self._open(program, groups.calls, first).row

    def _fill(
        self, program: _Program, rows: npt.NDArray[np.intp], groups: Groups, contexts: _Contexts
    ) -> None:
        """Place the calls at *rows*, of *program*, in as many windows as they fill."""
        while len(rows):
            window = self._open(program, groups.calls, rows[0])
            fitting = self._figures.fitting(window.row, groups.sizes[rows])
            part, rows = rows[:fitting], rows[fitting:]
            at = np.array([window.row])
            contexts.of_call[part] = contexts.add(self._figures.windows[at])
            self._figures.add(at, groups.part(part))
            if len(rows) or self._figures.is_full(window.row):
                self._close(program)

    def _open(self, program: _Program, calls: Calls, first: int) -> _Window:
        """Return the open window of a program; a new one, for calls of which *first* is the first, ends those of what the process ran before."""
        image, threshold = program
        windows = self._windows.setdefault(image.process, {})
        window = windows.get(program)
        if window is None:
            for before in [other for other in windows if other[0] is not image]:
                self._close(before)
            opened = int(calls.start_unix_ns[first] + calls.duration_ns[first])
            starter = self._starter(program, opened)
            trace_id, span_id = starter.trace_id if starter else make_trace_id(threshold), self._ids.span_id()
            row = self._figures.open(trace_id, span_id, Owner.APPLICATION if starter else Owner.US)
            links = self._links(image, starter)
            window = _Window(program, trace_id, span_id, opened, starter, links, self._totals, row)
            windows[program] = window
            self._begun.add(image)
            self._rows.setdefault(threshold, {})[image] = row
            heapq.heappush(self._by_age, (opened, span_id, window))
        return window

    def _starter(self, program: _Program, opened_unix_ns: int) -> TraceContext | None:
        """
        Return the context of the span that a new window of *program* is to be a child of; None: of none.

        That is who started it, if that trace is kept and has room for all calls, but only for what a young process does first. One that was
        forked and goes on with its parent's program is as old as that: a server's workers were started by the server.
        """
        image, threshold = program
        context = image.trace_context
        if context is None or not context.trace_flags & SAMPLED or threshold:
            return None
        began_unix_ns = (image.executed_by or image.process).begin_unix_ns
        is_young = opened_unix_ns - began_unix_ns <= WINDOW_SECONDS_MAX * 1_000_000_000
        has_room = self._joined_calls.get(context.trace_id, 0) < JOINED_CALLS_MAX
        return context if is_young and has_room and self._is_first(image) else None

    def _is_first(self, image: Image) -> bool:
        """Whether a process's program has had no window yet. What it publishes of itself makes no other program of it."""
        before = self._previous.get(image.process)
        # Not by what was closed last: a call of the program before may be read late, from another CPU's ring.
        return before is None or (image not in self._begun and not image.context_attributes)

    def _note_joined(self, context: TraceContext, calls: int) -> None:
        """Count the calls that another program's trace got from us; the traces that were not met for the longest time are forgotten."""
        self._joined_calls[context.trace_id] = self._joined_calls.pop(context.trace_id, 0) + calls
        if len(self._joined_calls) > _JOINED_TRACES_MAX:
            del self._joined_calls[next(iter(self._joined_calls))]

    def _links(self, image: Image, starter: TraceContext | None) -> list[Link]:
        """Return links to the window before, to one of the process that started this one, and to the span that did, if that is not above it."""
        process = image.process
        before, parent = self._previous.get(process), process.parent
        links = [before.link("previous_window")] if before else []
        if parent is not None:
            open_windows = self._windows.get(parent)
            above = next(reversed(open_windows.values())) if open_windows else self._previous.get(parent)
            links += [above.link("parent_window")] if above else []
        if image.trace_context is not None and starter is None:
            links.append(link_to_starter(image.trace_context))
        return links

    def _close(self, program: _Program, *, is_last: bool = False) -> None:
        image, threshold = program
        process = image.process
        window = self._windows[process].pop(program)
        figures = self._figures.close(self._rows[threshold].pop(image))
        if not self._rows[threshold]:
            del self._rows[threshold]
        noted = self._attributes(window, figures)
        error = error_type(process) if is_last else None
        if is_last and process.exit_code is not None:
            noted[attributes.PROCESS_EXIT_CODE] = process.exit_code
        if error is not None:
            noted[attributes.ERROR_TYPE] = error
        self._spans.alone.append(
            Span(
                name=image.executable_name,
                trace_id=window.trace_id,
                span_id=window.span_id,
                parent_span_id=span_id_of(window.starter) if window.starter else 0,
                start_unix_ns=figures.start_unix_ns,
                end_unix_ns=figures.end_unix_ns,
                image=image,
                attributes=noted,
                links=window.links,
                is_error=error is not None,
                trace_state=window.trace_state,
                trace_flags=window.trace_flags,
                is_parent_remote=window.starter is not None,
            )
        )
        if window.starter is not None:
            self._note_joined(window.starter, figures.calls)
        self._previous[process] = window

    def _attributes(self, window: _Window, figures: Summary) -> dict[str, str | int]:
        """Return what a root says: its calls, in all and by name, and of the calls of all targets those that are not here."""
        noted: dict[str, str | int] = {
            attributes.WINDOW_CALLS: figures.calls,
            attributes.WINDOW_ERRORS: figures.errors,
        }
        names: dict[str, int] = {}
        for index, count in figures.kinds:
            name = self._kinds[index].name
            names[name] = names.get(name, 0) + count
        by_count = sorted(names.items(), key=lambda item: (-item[1], item[0]))
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
        # Where the clock was set back, what is open opened now at the latest.
        if now_unix_ns < self._ticked_unix_ns:
            self._by_age = [
                (min(opened, now_unix_ns), number, window) for opened, number, window in self._by_age
            ]
            heapq.heapify(self._by_age)
        self._ticked_unix_ns = now_unix_ns
        opened_until = now_unix_ns - WINDOW_SECONDS_MAX * 1_000_000_000
        while self._by_age and self._by_age[0][0] <= opened_until:
            window = heapq.heappop(self._by_age)[-1]
            program = window.program
            if self._windows.get(program[0].process, {}).get(program) is window:
                self._close(program)

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:  # noqa: ARG002 (other structures need it)
        """Close every window."""
        for process in self._windows:
            self._close_all(process)

    def _close_all(self, process: Process, *, is_last: bool = False) -> None:
        for program in list(self._windows.get(process, ())):
            self._close(program, is_last=is_last)

    def take_spans(self) -> Spans:
        """Return the window roots made since the last time."""
        spans, self._spans = self._spans, Spans()
        return spans


def _group(calls: Calls) -> tuple[Sequence[Image], list[int], Groups]:
    """Return what may be in one window each: programs, thresholds, and the groups of their calls, in the same order."""
    images, key = calls.programs, calls.program
    thresholds = np.zeros(1, np.uint32)
    if calls.threshold.any():
        thresholds, of_threshold = np.unique(calls.threshold, return_inverse=True)
        key = key * len(thresholds) + of_threshold
    found, group = index_distinct(key)
    if len(found) < len(images) * len(thresholds):
        images = [images[row] for row in (found // len(thresholds)).tolist()]
    elif len(thresholds) > 1:
        images = [image for image in images for _ in thresholds]
    return images, thresholds[found % len(thresholds)].tolist(), Groups.make(calls, group)
