"""
Which trace and which parent each call belongs to: the words of it.

A structure takes identified batches of calls and processes that ended, and gives a `Placement` for each batch and the spans that are
no calls. There are three: `trees.Tree`, `windows.Windows` and `flat.Flat`.
"""

import enum
import random
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from otel_sysexit import attributes
from otel_sysexit.calls import Calls
from otel_sysexit.identity import Image, Process
from otel_sysexit.propagation import TraceContext
from otel_sysexit.sampling import ALL_ARE_HERE

SAMPLED: Final = 0x01
"""Of trace flags (W3C)."""
OWN_TRACE_FLAGS: Final = SAMPLED | 0x02
"""Sampled, and of a random trace id (W3C level 2)."""


class Owner(enum.IntEnum):
    """Whose trace a call is in."""

    US = 0
    STARTER = 1
    """Of the command: the call's span has the trace state of whoever that is."""
    APPLICATION = 2
    """The program that made the call."""


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
    """u8[k]; 0: none, these calls are roots."""
    owner: npt.NDArray[np.uint8] | None = None
    """u1[k]: `Owner`; None: all are ours."""


NO_PLACES: Final = Placement(
    np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty((0, 16), np.uint8), np.empty(0, np.uint64)
)
"""Where no calls stand."""


@dataclass(frozen=True, slots=True)
class Link:
    """A pointer to a span of another trace."""

    trace_id: bytes
    span_id: int
    attributes: dict[str, str]
    trace_state: str = ALL_ARE_HERE
    """Of that span."""
    trace_flags: int = OWN_TRACE_FLAGS
    """Of that span (W3C)."""
    is_remote: bool = False
    """Whether it is another program's."""


@dataclass(slots=True)  # not frozen, which would make each cost three times as much
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
    trace_flags: int = OWN_TRACE_FLAGS
    is_parent_remote: bool = False
    """Whether its parent is a span of another program's."""


@dataclass(frozen=True, slots=True)
class AlikeSpans:
    """n spans of processes that say no more than which program was at work in them, below which span, and when: as columns, for there may be thousands."""

    images: Sequence[Image]
    """Whose names are the spans'."""
    trace_id: bytes
    """Of all of them, as what follows without a shape."""
    span_id: npt.NDArray[np.uint64]
    """u8[n], not 0."""
    parent_span_id: npt.NDArray[np.uint64]
    """u8[n]; 0: it is a root."""
    start_unix_ns: npt.NDArray[np.uint64]
    """u8[n]"""
    end_unix_ns: int
    trace_state: str
    trace_flags: int

    def __len__(self) -> int:
        return len(self.images)

    def __iter__(self) -> Iterator[Span]:
        """Yield one after the other."""
        return map(self.span, range(len(self)))

    def span(self, index: int) -> Span:
        """Return one."""
        image = self.images[index]
        return Span(
            image.executable_name,
            self.trace_id,
            int(self.span_id[index]),
            int(self.parent_span_id[index]),
            int(self.start_unix_ns[index]),
            self.end_unix_ns,
            image,
            {},
            trace_state=self.trace_state,
            trace_flags=self.trace_flags,
        )


@dataclass(slots=True)
class Spans:
    """Spans that are no calls. Those that are alike come first: the last one of a process, which says how it ended, is behind its others."""

    alike: list[AlikeSpans] = field(default_factory=list)
    alone: list[Span] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.alike)) + len(self.alone)

    def __iter__(self) -> Iterator[Span]:
        """Yield one after the other."""
        return chain(*self.alike, self.alone)

    def images(self) -> Iterator[Image]:
        """Yield the program of each, in the same order."""
        return chain(*(alike.images for alike in self.alike), (span.image for span in self.alone))


class Totals(NamedTuple):
    """Calls of all targets, since the beginning, that no span shows."""

    filtered: int = 0
    sampled_out: int = 0
    dropped: int = 0


class Structure(Protocol):
    """What the agent asks of a trace structure."""

    def set_root(self, process: Process) -> None:
        """Name the process of the command that is run."""

    def place(self, calls: Calls) -> Placement:
        """Give each call its place."""

    def end(self, processes: Iterable[Process]) -> None:
        """Take note that *processes* ended, all their calls placed."""

    def tick(self, now_unix_ns: int, totals: Totals) -> None:
        """Finish what time has finished."""

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:
        """Finish everything: nothing more will come."""

    def take_spans(self) -> Spans:
        """Return the spans finished since the last time."""


def trace_flags(owner: int, starter: TraceContext | None) -> int:
    """
    Return W3C's flags of a call, whose trace is *owner*'s (`Owner`).

    Args:
        owner: Whether an application's trace id is random, nobody says.
        starter: Of who started the command, should that be the owner.
    """
    if owner == Owner.STARTER and starter is not None:
        return starter.trace_flags
    return SAMPLED if owner == Owner.APPLICATION else OWN_TRACE_FLAGS


class Ids:
    """Random ids. Not cryptographic ones, but seeded by the system's randomness."""

    def __init__(self) -> None:
        self._random = random.Random()  # noqa: S311 (no secrets; numpy's, half as expensive, takes 3 MB)

    def span_ids(self, count: int) -> npt.NDArray[np.uint64]:
        """Return u8[count], none of them 0."""
        ids = np.frombuffer(self._random.randbytes(8 * count), np.uint64)
        return ids if ids.all() else self.span_ids(count)

    def span_id(self) -> int:
        """Return one that is not 0."""
        return int(self.span_ids(1)[0])


def span_id_of(context: TraceContext) -> int:
    """Return the id of the span of *context* as spans here have it: its bytes, the lowest first."""
    return int.from_bytes(context.span_id.to_bytes(8, "big"), "little")


def link_to_starter(context: TraceContext) -> Link:
    """Return a link to the span that *context* is the context of."""
    noted = {attributes.LINK_TYPE: "started_by"}
    return Link(
        context.trace_id,
        span_id_of(context),
        noted,
        context.trace_state,
        context.trace_flags,
        is_remote=True,
    )


def state_beside(threshold: int) -> str:
    """Return the trace state of spans that are no calls, in a trace whose calls were sampled at *threshold*."""
    return "" if threshold else ALL_ARE_HERE


def error_type(process: Process) -> str | None:
    """Return the signal that killed *process*, or its exit code as text; None when all was well, or it lives."""
    if process.exit_signal is not None:
        try:
            return signal.Signals(process.exit_signal).name
        except ValueError:  # a real-time signal
            return f"SIG{process.exit_signal}"
    return str(process.exit_code) if process.exit_code else None
