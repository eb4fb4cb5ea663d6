"""
The traces of a command that is run: the command is the root, each process hangs below its parent's, each call below its process's.

A span can be sent only when it ends, and back ends refuse or cut very large traces. So a tree goes on in another trace, its next
part, when it has very many spans or gets old. In each part, a process that has spans there has one of its own, which covers what of its life
lies in that part; the root of a part is linked to the one before.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import compress
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit import attributes
from otel_sysexit.calls import Calls
from otel_sysexit.distinct import index_distinct
from otel_sysexit.identity import Image, Process
from otel_sysexit.joining import is_joined, join
from otel_sysexit.kinship import NO_NEWCOMERS, NOBODY, Kinship, Newcomers
from otel_sysexit.propagation import TraceContext
from otel_sysexit.sampling import make_trace_id
from otel_sysexit.settings import TREE_SPANS_MAX
from otel_sysexit.traces import (
    OWN_TRACE_FLAGS,
    SAMPLED,
    AlikeSpans,
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
from otel_sysexit.treeparts import TreePart

PART_SECONDS_MAX: Final = 60
_AT_ONCE: Final = 1_024
"""As many processes are looked at together, whether or not there is room for them."""


class _Fitting(NamedTuple):
    """The first n of some calls, which fit into a part."""

    callers: npt.NDArray[np.intp]
    """intp[k]: who made them, rows in `Kinship`."""
    of_row: npt.NDArray[np.intp]
    """intp[n], n > 0: who of *callers* made each call."""
    newcomers: Newcomers
    """Who needs a span there for them."""
    is_too_much: bool
    """Whether there is no room even for the first call, which is here alone."""


class Tree:
    """A trace, and further ones where it becomes too large or too old."""

    def __init__(
        self, threshold: int = 0, spans_max: int = TREE_SPANS_MAX, context: TraceContext | None = None
    ) -> None:
        """
        Begin.

        Args:
            threshold: The highest at which calls are sampled (call records; those always kept have 0).
            spans_max: Of a trace, calls and processes.
            context: Of who starts the command: its first part is below that span, in its trace. Where that trace is not kept, or
                the calls are sampled, for which its randomness is not free, the root is linked to the span instead.
        """
        self._ids = Ids()
        self._threshold = threshold
        self._spans_max = spans_max
        self._trace_state = state_beside(threshold)
        self._root: Process | None = None
        self._kinship = Kinship()
        self._spans = Spans()
        self._context = context
        is_joined = context is not None and bool(context.trace_flags & SAMPLED) and not threshold
        self._part = self._open(1, 0, [link_to_starter(context)] if context and not is_joined else [])
        if context is not None and is_joined:
            self._part.joined = context
            self._part.trace_id = context.trace_id

    @property
    def trace_id(self) -> bytes:
        """Of the part that is open."""
        return self._part.trace_id

    def _open(self, number: int, start_unix_ns: int, links: list[Link]) -> TreePart:
        return TreePart(number, make_trace_id(self._threshold), start_unix_ns, links)

    def set_root(self, process: Process) -> None:
        """Name the process of the command."""
        self._root = process
        self._kinship.set_root(process)

    def place(self, calls: Calls) -> Placement:
        """Give each call its process's span as the parent, in the part that has room, or its application's span."""
        context = np.zeros(len(calls), np.uint32)
        parents: list[npt.NDArray[np.uint64]] = []
        trace_ids: list[bytes] = []
        owners: list[Owner] = []
        ours = np.flatnonzero(~is_joined(calls))
        first = 0
        while first < len(ours):
            fitting = self._fit(calls, ours[first : first + max(self._room(), 1)])
            # Into an empty one goes one call at least, however many are above it.
            if fitting.is_too_much and (self._part.calls or len(self._part) > 1):
                self._close_part()
                continue
            self._admit(fitting.newcomers)
            rows = ours[first : first + len(fitting.of_row)]
            row_of_caller = self._part.find(fitting.callers)
            context[rows] = len(trace_ids) + fitting.of_row
            parents.append(self._part.span_ids(row_of_caller))
            trace_ids += [self._part.trace_id] * len(fitting.callers)
            owners += [Owner.US if self._part.joined is None else Owner.STARTER] * len(fitting.callers)
            self._note_times(calls, rows, row_of_caller.take(fitting.of_row))
            first += len(rows)
        in_tree = Placement(
            span_id=self._ids.span_ids(len(calls)),
            context=context,
            trace_id=np.frombuffer(b"".join(trace_ids), np.uint8).reshape(-1, 16),
            parent_span_id=np.concatenate([np.empty(0, np.uint64), *parents]),
            owner=np.array(owners, np.uint8) if any(owners) else None,
        )
        return join(calls, in_tree)

    def _fit(self, calls: Calls, rows: npt.NDArray[np.intp]) -> _Fitting:
        """Return the first of the calls at *rows*, intp[n], n > 0, that there is room for together with the spans that they need of processes."""
        room = self._room()
        programs, of_row = index_distinct(calls.program.take(rows))
        callers = self._kinship.find(calls.process_number.take(programs), calls.programs, programs)
        strangers = np.flatnonzero(self._part.find(callers) == NOBODY)
        newcomers = NO_NEWCOMERS
        if len(strangers):  # not in most batches of few processes
            first_of = np.empty(len(callers), np.intp)
            first_of[of_row[::-1]] = np.arange(len(rows) - 1, -1, -1)  # of several the last one stays
            strangers = strangers.take(np.argsort(first_of.take(strangers)))
            newcomers = self._find_newcomers(callers.take(strangers))
            strangers = first_of.take(strangers)
        # With a stranger's first call come its span and those above it; as far as the next one's no others do.
        taken = int(np.searchsorted(strangers + 1 + newcomers.counts[1:], room, side="right"))
        firsts = [*strangers[taken : taken + 1].tolist(), len(rows)]
        count = min(firsts[0], room - int(newcomers.counts[taken]))
        is_too_much = count <= 0
        if is_too_much:
            count = 1
            taken = int(firsts[0] == 0)  # the spans that it needs, if its process is a stranger
        if count < len(rows):
            present, of_row = index_distinct(of_row[:count])
            callers = callers.take(present)
        return _Fitting(callers, of_row, newcomers.first(taken), is_too_much)

    def _note_times(self, calls: Calls, rows: npt.NDArray[np.intp], of_process: npt.NDArray[np.intp]) -> None:
        """Let the part have the calls at *rows*, and with them the rows *of_process* there."""
        part = self._part
        starts = calls.start_unix_ns.take(rows)
        early = np.flatnonzero(starts < part.start_unix_ns)
        if len(early):
            part.note_starts(of_process.take(early), starts.take(early))
        part.calls += len(rows)
        part.end_unix_ns = max(part.end_unix_ns, int((starts + calls.duration_ns.take(rows)).max()))

    def _room(self) -> int:
        """Return how many more spans fit into the part."""
        return self._spans_max - self._part.calls - len(self._part)

    def _find_newcomers(self, kin: npt.NDArray[np.intp]) -> Newcomers:
        """Return who needs a span in this part for *kin*, intp[n], rows in `Kinship`, which have none."""
        if not len(kin):  # mostly
            return NO_NEWCOMERS
        return self._kinship.find_newcomers(kin, self._part.has(len(self._kinship)))

    def _admit(self, newcomers: Newcomers) -> None:
        """Give *newcomers* a span in this part, each below who is above it."""
        if len(newcomers.rows):
            self._part.admit(newcomers, self._ids.span_ids(len(newcomers.rows)))

    def _admit_all(self, processes: Sequence[Process]) -> npt.NDArray[np.intp]:
        """Return the rows, intp[n], of the spans of *processes* in this part; they and those above them have one from now on."""
        kin = self._kinship.rows(processes)
        self._admit(self._find_newcomers(kin[self._part.find(kin) == NOBODY]))
        return self._part.find(kin)

    def _by_part(self, processes: Sequence[Process]) -> Iterator[Sequence[Process]]:
        """Yield *processes* in groups: the spans of each, and of those above them, fit into the part that is open then, or are in it."""
        at = 0
        while at < len(processes):
            head = processes[at : at + max(self._room(), _AT_ONCE)]
            kin = self._kinship.rows(head)
            new = np.flatnonzero(self._part.find(kin) == NOBODY)
            newcomers = self._find_newcomers(kin.take(new))
            taken = int(np.searchsorted(newcomers.counts[1:], self._room(), side="right"))
            count = int(new[taken]) if taken < len(new) else len(head)
            if not count and (self._part.calls or len(self._part) > 1):
                self._close_part()
                continue
            # Into an empty one goes one at least, however many are above it.
            yield head[: max(count, 1)]
            at += max(count, 1)

    def end(self, processes: Iterable[Process]) -> None:
        """Make the spans of *processes*."""
        for ended in self._by_part([one for one in processes if one.end_unix_ns is not None]):
            self._end_here(ended)

    def _end_here(self, processes: Sequence[Process]) -> None:
        """Make the spans of *processes*, which have ended, in this part."""
        part = self._part
        for process, row in zip(processes, self._admit_all(processes).tolist(), strict=True):
            end_unix_ns = process.end_unix_ns or 0
            part.end_unix_ns = max(part.end_unix_ns, end_unix_ns)
            if end_unix_ns < part.start_unix_ns:
                part.note_start(row, end_unix_ns)
            self._tell(process, row, end_unix_ns, is_over=True)
            self._kinship.end(process)

    def tick(self, now_unix_ns: int, totals: Totals) -> None:  # noqa: ARG002 (other structures need it)
        """Go on in another part when this one is old."""
        part = self._part
        if part.opened_unix_ns is None or not (part.calls or len(part)):
            part.opened_unix_ns = now_unix_ns
        part.opened_unix_ns = min(part.opened_unix_ns, now_unix_ns)  # the clock may be set back
        if now_unix_ns - part.opened_unix_ns >= PART_SECONDS_MAX * 1_000_000_000:
            part.end_unix_ns = max(part.end_unix_ns, now_unix_ns)
            self._close_part()

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:
        """End the spans of *living* processes now, without an exit code, and what else is left of the part."""
        for processes in self._by_part(list(living)):
            for process, row in zip(processes, self._admit_all(processes).tolist(), strict=True):
                self._tell(process, row, now_unix_ns)
        self._tell_rest(now_unix_ns)

    def _close_part(self) -> None:
        """End the part, and open the next one."""
        part = self._part
        part.is_continued = True
        self._tell_rest(part.end_unix_ns)
        links = []
        if self._root is not None:
            noted = {attributes.LINK_TYPE: "previous_part"}
            span_id = int(part.span_ids(self._admit_all([self._root]))[0])
            links = [Link(part.trace_id, span_id, noted, *self._context_of(part))]
        self._kinship.forget()
        self._part = self._open(part.number + 1, part.end_unix_ns, links)

    def _tell_rest(self, end_unix_ns: int) -> None:
        """Make the spans of all processes of the part that have none there yet."""
        part = self._part
        rows = part.untold()
        processes = self._processes(rows)
        # All but a few have no more to say than when they were at work.
        alike = [None if process is self._root else process.image for process in processes]
        silent = (None, self._context)
        is_plain = [image is not None and image.trace_context in silent for image in alike]
        plain = rows[is_plain]
        if len(plain):
            images = [image for image in compress(alike, is_plain) if image]
            self._spans.alike.append(self._make_alike(plain, images, end_unix_ns))
            part.tell(plain)
        rows = part.untold()
        for process, row in zip(self._processes(rows), rows.tolist(), strict=True):
            self._tell(process, row, end_unix_ns)

    def _processes(self, rows: npt.NDArray[np.intp]) -> list[Process]:
        """Return the processes that the spans at *rows*, intp[n], in this part are of."""
        return self._kinship.processes(self._part.kin(rows))

    def _make_alike(
        self, rows: npt.NDArray[np.intp], images: Sequence[Image], end_unix_ns: int
    ) -> AlikeSpans:
        """Return the spans at *rows*, intp[n], in this part, which are those of processes that run *images*."""
        part = self._part
        return AlikeSpans(
            images,
            part.trace_id,
            part.span_ids(rows),
            part.parent_span_ids(rows),
            part.starts_unix_ns(rows, self._kinship.begins_unix_ns(part.kin(rows)), end_unix_ns),
            end_unix_ns,
            *self._context_of(part),
        )

    def _context_of(self, part: TreePart) -> tuple[str, int]:
        """Return trace state and trace flags of the spans of processes in *part*."""
        joined = part.joined
        return (
            (self._trace_state, OWN_TRACE_FLAGS)
            if joined is None
            else (joined.trace_state, joined.trace_flags)
        )

    def _tell(self, process: Process, row: int, end_unix_ns: int, *, is_over: bool = False) -> None:
        """Make the span of *process*, at *row* in this part; *is_over*: with it the process ends, and no call of it is to come."""
        part, image = self._part, process.image
        member = part.get(row)
        if member.is_told:
            return
        part.tell(row)
        if image is None:  # nothing is known of it, and no call named it
            return
        span = Span(
            image.executable_name,
            part.trace_id,
            member.span_id,
            0 if member.above == NOBODY else part.get(member.above).span_id,
            min(max(process.begin_unix_ns, part.start_unix_ns), member.earliest_unix_ns, end_unix_ns),
            end_unix_ns,
            image,
            {},
            self._links(image),
            False,
            *self._context_of(part),
        )
        if is_over:
            error = error_type(process)
            span.is_error = error is not None
            if process.exit_code is not None:
                span.attributes[attributes.PROCESS_EXIT_CODE] = process.exit_code
            if error is not None:
                span.attributes[attributes.ERROR_TYPE] = error
        if process is self._root:
            span.links = part.links
            if part.links or part.is_continued:
                span.attributes[attributes.TRACE_PART] = part.number
            if part.joined is not None:
                span.parent_span_id, span.is_parent_remote = span_id_of(part.joined), True
        self._spans.alone.append(span)

    def _links(self, image: Image) -> Sequence[Link]:
        """Return a link to who started a program, which its environment says, if that is another than the command's."""
        context = image.trace_context
        return [link_to_starter(context)] if context not in (None, self._context) else ()

    def take_spans(self) -> Spans:
        """Return the process spans made since the last time."""
        spans, self._spans = self._spans, Spans()
        return spans
