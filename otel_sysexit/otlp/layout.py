"""
Serialized spans or log records → bodies of requests: which stand behind which Resource, in which request.

In: messages, those of one program next to each other, and for each program a head: all that stands before its spans.
Out: one piece of memory that holds all bodies. It is joined once, with heads in between; what heads say of lengths is
written by numpy, so that a program costs no more than a message does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Final
from weakref import finalize

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope

from otel_sysexit import __version__
from otel_sysexit import attributes as names
from otel_sysexit.identity import Image
from otel_sysexit.otlp.parts import Parts
from otel_sysexit.otlp.resources import ResourceRules, encode_resource
from otel_sysexit.otlp.stamp import LENGTH_WIDTH, encode_varints, field, write_bytes

_LENGTH: Final = bytes(LENGTH_WIDTH)
_SCHEMA: Final = field(3, names.SCHEMA_URL.encode())
_SCOPE: Final = (
    field(1, InstrumentationScope(name="otel_sysexit", version=__version__).SerializeToString()) + _SCHEMA
)


def make_head(resource: bytes) -> bytes:
    """
    Return what stands before the spans, or log records, of a program.

    That is a ResourceSpans with one ScopeSpans, all fields but the spans: *resource* (serialized), scope, schema URLs. The lengths
    of the two messages are open. ResourceLogs and ScopeLogs have the same numbers of fields.
    """
    return b"\x0a" + _LENGTH + field(1, resource) + _SCHEMA + b"\x12" + _LENGTH + _SCOPE


class Heads:
    """Makes heads of programs, each once."""

    def __init__(self, rules: ResourceRules) -> None:
        """*rules*: What Resources are to have."""
        self._rules = rules
        self._known: dict[int, bytes] = {}
        """By the id() of an image, as long as that exists."""

    def of(self, images: Sequence[Image]) -> list[bytes]:
        """Return what stands before the messages of each of *images*."""
        known = self._known
        heads = list(map(known.get, map(id, images), repeat(b"")))
        if not all(heads):
            for row in [row for row, head in enumerate(heads) if not head]:
                image = images[row]
                heads[row] = known[id(image)] = make_head(encode_resource(image, self._rules))
                finalize(image, known.pop, id(image)).atexit = False
        return heads


@dataclass(frozen=True, slots=True)
class Layout:
    """Bodies of r requests, one behind the other, that hold n messages of up to s parts."""

    out: bytearray
    at: npt.NDArray[np.int64]
    """i8[n]: where each message begins in *out*."""
    ends: npt.NDArray[np.int64]
    """i8[s, n]: where each of its parts ends in *out*."""
    bodies_at: npt.NDArray[np.int64]
    """i8[r + 1]: where each body begins in *out*, and where the last one ends."""
    firsts: npt.NDArray[np.intp]
    """intp[r + 1]: the first message of each body; n."""

    def bodies(self) -> Iterator[tuple[bytes, int, int]]:
        """Return each body, once everything is written to *out*, the index of its first message, and of the one after its last."""
        return _cut_bodies(memoryview(self.out), self.bodies_at.tolist(), self.firsts.tolist())


def _cut_bodies(
    out: memoryview, bodies_at: Sequence[int], firsts: Sequence[int]
) -> Iterator[tuple[bytes, int, int]]:
    """Yield what `Layout.bodies` returns, of which one is a megabyte; nothing else of the layout is kept alive, as sending takes its time."""
    for at in range(len(firsts) - 1):
        yield out[bodies_at[at] : bodies_at[at + 1]].tobytes(), firsts[at], firsts[at + 1]


def lay_out(
    parts: Parts,
    messages: npt.NDArray[np.intp],
    heads: int,
    owner: npt.NDArray[np.intp],
    bytes_max: int,
) -> Layout:
    """
    Join messages and heads to bodies.

    Args:
        parts: Of `spans` fields of a ScopeSpans; the last ones are heads, as `make_head` returns them.
        messages: intp[s, n], n > 0: of these each message's, one behind the other; -1: none.
        heads: How many of the parts are heads.
        owner: intp[n]: which of the heads each message stands behind; equal ones lie together.
        bytes_max: Size of a body; more only if that has one message.
    """
    lengths = np.append(parts.length, 0).take(messages)  # the last is what -1 finds
    length = lengths.sum(axis=0)
    first_head = len(parts.length) - heads
    head_lengths = parts.length[first_head:]
    is_first = np.ones(len(owner), np.bool_)
    np.not_equal(owner[1:], owner[:-1], out=is_first[1:])
    firsts = _cut(length, head_lengths.take(owner), is_first, bytes_max)
    is_first[firsts] = True
    blocks = np.flatnonzero(is_first)
    head = owner.take(blocks)
    taken = length.copy()
    taken[blocks] += head_lengths.take(head)
    at = np.cumsum(taken) - length
    # Heads come before the first message of their blocks.
    rows = np.full((len(owner), 1 + len(messages)), -1, np.intp)
    rows[blocks, 0] = first_head + head
    rows[:, 1:] = messages.T
    # References to the few that are distinct, not an object for each message.
    out = bytearray().join(parts.content.take(rows[rows >= 0]).tolist())
    heads_at = at.take(blocks) - head_lengths.take(head)
    _write_lengths(out, heads_at, head_lengths.take(head))
    bodies = np.append(heads_at.take(np.searchsorted(blocks, firsts)), len(out))
    return Layout(out, at, at + np.cumsum(lengths, axis=0), bodies, np.append(firsts, len(owner)))


def _cut(
    lengths: npt.NDArray[np.int64],
    head_lengths: npt.NDArray[np.int64],
    is_first: npt.NDArray[np.bool_],
    bytes_max: int,
) -> npt.NDArray[np.intp]:
    """Return the rows with which requests begin; all arguments: by row, *is_first*: of its program."""
    ends = np.cumsum(lengths + np.where(is_first, head_lengths, 0))
    firsts = []
    first = 0
    while first < len(lengths):
        firsts.append(first)
        before = (
            ends[first] - lengths[first] - head_lengths[first]
        )  # with a head of its own, whatever is before
        first = max(int(np.searchsorted(ends, before + bytes_max, side="right")), first + 1)
    return np.array(firsts, np.intp)


def _write_lengths(out: bytearray, at: npt.NDArray[np.int64], head_lengths: npt.NDArray[np.int64]) -> None:
    """Write the lengths that are open in the heads *at* these places; all that lies up to the next one is theirs."""
    ends = np.append(at[1:], len(out))
    messages = at + head_lengths
    write_bytes(out, at + 1, encode_varints(ends - at - 1 - LENGTH_WIDTH, LENGTH_WIDTH))
    scope_at = messages - len(_SCOPE)
    write_bytes(out, scope_at - LENGTH_WIDTH, encode_varints(ends - scope_at, LENGTH_WIDTH))
