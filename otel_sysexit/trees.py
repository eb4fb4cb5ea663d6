"""
The traces of a command that is run: the command is the root, each process hangs below its parent's, each call below its process's.

A span can be sent only when it ends, and back ends refuse or cut very large traces. So a tree goes on in another trace, its next
part, when it has very many spans or gets old. In each part, a process that has spans there has one of its own, which covers what of its life
lies in that part; the root of a part is linked to the one before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Final
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from otel_sysexit import attributes
from otel_sysexit.calls import Calls
from otel_sysexit.distinct import find_distinct
from otel_sysexit.identity import Process
from otel_sysexit.joining import is_joined, join
from otel_sysexit.propagation import TraceContext
from otel_sysexit.sampling import make_trace_id
from otel_sysexit.settings import TREE_SPANS_MAX
from otel_sysexit.traces import (
    OWN_TRACE_FLAGS,
    SAMPLED,
    Ids,
    Link,
    Owner,
    Placement,
    Span,
    Totals,
    error_type,
    link_to_starter,
    span_id_of,
    state_beside,
)

PART_SECONDS_MAX: Final = 60


@dataclass(slots=True)
class _Part:
    """One trace of a tree."""

    number: int
    trace_id: bytes
    start_unix_ns: int
    """0: that of its processes."""
    links: list[Link]
    joined: TraceContext | None = None
    """The span of another program that it is below."""
    opened_unix_ns: int | None = None
    """As the first tick says."""
    span_ids: dict[Process, int] = field(default_factory=dict)
    starts_unix_ns: dict[Process, int] = field(default_factory=dict)
    """Of the earliest call of a process or one below it: it may have begun before the part did."""
    told: set[Process] = field(default_factory=set)
    is_continued: bool = False
    calls: int = 0
    end_unix_ns: int = 0
    """Of its latest call."""


class Tree:
    """A trace, and further ones where it becomes too large or too old."""

    def __init__(
        self, threshold: int = 0, spans_max: int = TREE_SPANS_MAX, context: TraceContext | None = None
    ) -> None:
        """
        Begin.

        Args:
            threshold: The highest at which calls are sampled (call records; those always kept have 0).
            spans_max: Of a trace, calls and processes; more than there are processes at work at once.
            context: Of who starts the command: its first part is below that span, in its trace. Where that trace is not kept, or
                the calls are sampled, for which its randomness is not free, the root is linked to the span instead.
        """
        self._ids = Ids()
        self._threshold = threshold
        self._spans_max = spans_max
        self._trace_state = state_beside(threshold)
        self._root: Process | None = None
        # Processes whose end was told: in later parts, what they left behind hangs below who is above them.
        self._over: WeakSet[Process] = WeakSet()
        self._spans: list[Span] = []
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

    def _open(self, number: int, start_unix_ns: int, links: list[Link]) -> _Part:
        return _Part(number, make_trace_id(self._threshold), start_unix_ns, links)

    def set_root(self, process: Process) -> None:
        """Name the process of the command."""
        self._root = process

    def place(self, calls: Calls) -> Placement:
        """Give each call its process's span as the parent, in the part that has room, or its application's span."""
        of_call = calls.program
        members = [image.process for image in calls.programs]
        context = np.empty(len(calls), np.uint32)
        trace_ids: list[bytes] = []
        parents: list[int] = []
        owners: list[Owner] = []
        ours = np.flatnonzero(~is_joined(calls))
        first = 0
        while first < len(ours):
            end = first + max(self._room(), 0)
            looked_at = ours[first:end]
            found, at_work, span_ids = self._at_work(members, of_call.take(looked_at))
            newcomers = [] if all(span_ids) else self._newcomers(at_work)
            end -= len(newcomers)
            if end <= first and self._part.calls:
                self._close_part()
                continue
            rows = ours[first : max(end, first + 1)]  # so many processes that one more call does not matter
            of_row = of_call.take(rows)
            if len(rows) < len(looked_at) or not len(looked_at):
                found, at_work, span_ids = self._at_work(members, of_row)
                newcomers = self._newcomers(at_work)
            if newcomers:
                self._admit(newcomers)
                span_ids = [self._part.span_ids[process] for process in at_work]
            row_of_member = np.empty(len(members), np.uint32)
            row_of_member[found] = len(parents) + np.arange(len(found))
            context[rows] = row_of_member.take(of_row)
            parents += span_ids
            trace_ids += [self._part.trace_id] * len(found)
            owners += [Owner.US if self._part.joined is None else Owner.STARTER] * len(found)
            starts = calls.start_unix_ns.take(rows)
            early = np.flatnonzero(starts < self._part.start_unix_ns)
            if len(early):
                self._note_starts(members, of_row.take(early), starts.take(early))
            self._part.calls += len(rows)
            starts += calls.duration_ns.take(rows)
            self._part.end_unix_ns = max(self._part.end_unix_ns, int(starts.max()))
            first += len(rows)
        in_tree = Placement(
            span_id=self._ids.span_ids(len(calls)),
            context=context,
            trace_id=np.frombuffer(b"".join(trace_ids), np.uint8).reshape(-1, 16),
            parent_span_id=np.array(parents, np.uint64),
            owner=np.array(owners, np.uint8) if any(owners) else None,
        )
        return join(calls, in_tree)

    def _at_work(
        self, members: Sequence[Process], of_row: npt.NDArray[np.intp]
    ) -> tuple[npt.NDArray[np.intp], Sequence[Process], list[int]]:
        """Return whose rows *of_row* are: their indices in *members*, they, and the ids of their spans in this part, 0 where there is none yet."""
        found = find_distinct(of_row)
        at_work = members if len(found) == len(members) else [members[index] for index in found.tolist()]
        return found, at_work, [*map(self._part.span_ids.get, at_work, repeat(0))]

    def _room(self) -> int:
        """Return how many more spans fit into the part."""
        return self._spans_max - self._part.calls - len(self._part.span_ids)

    def _above(self, process: Process) -> Process | None:
        """Return whose span the process hangs below: its parent's or, where that one is over, that of who is above it."""
        if process is self._root:
            return None
        above = process.parent
        while above is not None and above not in self._part.span_ids and above in self._over:
            above = above.parent
        return above or self._root

    def _newcomers(self, processes: Iterable[Process]) -> list[Process]:
        """Return those of *processes*, and above them, that have no span in this part yet."""
        found: dict[Process, None] = {}
        known = self._part.span_ids
        for process in processes:
            next_one: Process | None = process
            while next_one is not None and next_one not in known and next_one not in found:
                found[next_one] = None
                next_one = self._above(next_one)
        return list(found)

    def _admit(self, newcomers: Sequence[Process]) -> None:
        """Give *newcomers* a span in this part."""
        self._part.span_ids.update(zip(newcomers, self._ids.span_ids(len(newcomers)).tolist(), strict=True))

    def _span_id(self, process: Process) -> int:
        """Return the id of the process's span in this part; it and those above it have one from now on."""
        if process not in self._part.span_ids:
            self._admit(self._newcomers([process]))
        return self._part.span_ids[process]

    def _note_starts(
        self,
        members: Sequence[Process],
        of_call: npt.NDArray[np.intp],
        starts_unix_ns: npt.NDArray[np.uint64],
    ) -> None:
        """Let spans begin no later than calls do; *of_call*: the index in *members* of each call's process."""
        earliest = np.full(len(members), 2**64 - 1, np.uint64)
        np.minimum.at(earliest, of_call, starts_unix_ns)
        found = find_distinct(of_call)
        for index, start_unix_ns in zip(found.tolist(), earliest[found].tolist(), strict=True):
            self._note_start(members[index], start_unix_ns)

    def _note_start(self, process: Process, start_unix_ns: int) -> None:
        """Let the spans of the process and those above it begin no later than its call."""
        starts = self._part.starts_unix_ns
        above: Process | None = process
        while above is not None and starts.get(above, start_unix_ns + 1) > start_unix_ns:
            starts[above] = start_unix_ns
            above = self._above(above)

    def end(self, processes: Iterable[Process]) -> None:
        """Make the spans of *processes*."""
        for process in processes:
            if process.end_unix_ns is None:
                continue
            if self._room() <= 0 and process not in self._part.span_ids:
                self._close_part()
            self._part.end_unix_ns = max(self._part.end_unix_ns, process.end_unix_ns)
            if process.end_unix_ns < self._part.start_unix_ns:
                self._note_start(process, process.end_unix_ns)
            self._tell(process, process.end_unix_ns, is_over=True)
            self._over.add(process)

    def tick(self, now_unix_ns: int, totals: Totals) -> None:  # noqa: ARG002 (other structures need it)
        """Go on in another part when this one is old."""
        part = self._part
        if part.opened_unix_ns is None or not (part.calls or part.told):
            part.opened_unix_ns = now_unix_ns
        elif now_unix_ns - part.opened_unix_ns >= PART_SECONDS_MAX * 1_000_000_000:
            part.end_unix_ns = max(part.end_unix_ns, now_unix_ns)
            self._close_part()

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:
        """End the spans of *living* processes now, without an exit code, and what else is left of the part."""
        for process in living:
            self._tell(process, now_unix_ns)
        self._tell_rest(now_unix_ns)

    def _close_part(self) -> None:
        """End the part, and open the next one."""
        part = self._part
        part.is_continued = True
        self._tell_rest(part.end_unix_ns)
        links = []
        if self._root is not None:
            noted = {attributes.LINK_TYPE: "previous_part"}
            links = [Link(part.trace_id, self._span_id(self._root), noted, self._state_of(part))]
        self._part = self._open(part.number + 1, part.end_unix_ns, links)

    def _tell_rest(self, end_unix_ns: int) -> None:
        """Make the spans of all processes of the part that have none there yet; the root's is the last."""
        part = self._part
        told, root = part.told, self._root
        rest = [process for process in part.span_ids if process not in told and process is not root]
        self._spans += self._make_spans(rest, end_unix_ns)
        told.update(rest)
        if self._root is not None and part.span_ids:
            self._tell(self._root, end_unix_ns)

    def _tell(self, process: Process, end_unix_ns: int, *, is_over: bool = False) -> None:
        """Make the span of *process* in this part; *is_over*: with it the process ends, and no call of it is to come."""
        part = self._part
        if process in part.told:
            return
        part.told.add(process)
        if process.image is None:  # nothing is known of it, and no call named it
            return
        noted: dict[str, str | int] = {}
        error = None
        if is_over:
            error = error_type(process)
            if process.exit_code is not None:
                noted[attributes.PROCESS_EXIT_CODE] = process.exit_code
            if error is not None:
                noted[attributes.ERROR_TYPE] = error
        if process is self._root and (part.links or part.is_continued):
            noted[attributes.TRACE_PART] = part.number
        for span in self._make_spans([process], end_unix_ns):
            span.attributes = noted
            span.is_error = error is not None
            if process is self._root:
                span.links = part.links
                if part.joined is not None:
                    span.parent_span_id, span.is_parent_remote = span_id_of(part.joined), True
            self._spans.append(span)

    def _make_spans(self, processes: Iterable[Process], end_unix_ns: int) -> list[Span]:
        """Return the spans of *processes* in this part, as far as something is known of them. There are many when it is closed."""
        part, joined = self._part, self._part.joined
        trace_state = self._trace_state if joined is None else joined.trace_state
        trace_flags = OWN_TRACE_FLAGS if joined is None else joined.trace_flags
        span_ids, starts, begin_unix_ns = part.span_ids, part.starts_unix_ns, part.start_unix_ns
        spans = []
        for process in processes:
            image = process.image
            if image is None:
                continue
            span_id = span_ids.get(process) or self._span_id(process)
            above = self._above(process)
            spans.append(
                Span(
                    image.executable_name,
                    part.trace_id,
                    span_id,
                    0 if above is None else self._span_id(above),
                    min(
                        max(process.begin_unix_ns, begin_unix_ns),
                        starts.get(process, end_unix_ns),
                        end_unix_ns,
                    ),
                    end_unix_ns,
                    image,
                    {},
                    () if image.trace_context is None else self._links(image.trace_context),
                    False,
                    trace_state,
                    trace_flags,
                )
            )
        return spans

    def _links(self, context: TraceContext) -> Sequence[Link]:
        """Return a link to who started a process, which its environment says, if that is another than the command's."""
        return [link_to_starter(context)] if context != self._context else ()

    def _state_of(self, part: _Part) -> str:
        return part.joined.trace_state if part.joined else self._trace_state

    def take_spans(self) -> list[Span]:
        """Return the process spans made since the last time."""
        spans, self._spans = self._spans, []
        return spans
