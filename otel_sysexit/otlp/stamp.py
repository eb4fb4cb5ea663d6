"""
Many protobuf messages of a few shapes, made by stamping columns into templates.

The official class serializes one message a shape with marks in the places that vary (templates.py). The templates are joined in the
order of the rows (layout.py), and numpy writes each column over its marks in all of them at once, so that the cost hardly depends
on how many shapes there are. protobuf's own encoder decides the layout, and no message is built for a row. Numbers are
varints padded to a fixed width (legal protobuf: decoders accept non-canonical varints; proven with the Collector,
Jaeger, rotel and Tempo).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from otel_sysexit.distinct import find_distinct

VARINT_WIDTH: Final = 10
"""Bytes of a padded varint that can hold any 64-bit number."""
LENGTH_WIDTH: Final = 4
"""Bytes of a length that is written later, a padded varint: up to 256 MiB."""

_LOW_BITS: Final = 56
"""Of a number, those in the first eight bytes of its varint."""
_LOW: Final = np.uint64((1 << _LOW_BITS) - 1)
_SPREADS: Final = tuple(
    (np.uint64(moves), np.uint64((1 << shift) - 1))
    for moves, shift in ((0x00FF_FFFF_F000_0000, 4), (0x0FFF_C000_0FFF_C000, 2), (0x3F80_3F80_3F80_3F80, 1))
)
"""Steps that make room for a bit after every seventh: what moves, and the times itself that it is to grow by, which shifts it."""
_GOES_ON: Final = 0x8080_8080_8080_8080
"""That another byte follows, in each of eight bytes."""
_WHOLE: Final = np.dtype([("low", "<u8"), ("high", "<u2")])
"""A varint of ten bytes."""
_FLOOR_LOG2: Final = np.array([max(length.bit_length() - 1, 0) for length in range(1 << 13)], np.uint8)

Column: TypeAlias = Callable[[npt.NDArray[np.intp]], npt.NDArray[np.uint8]]
"""From the indices of calls, intp[k], to what is to be written in theirs: u1[k, width], or more than the width."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Bytes that are in a template exactly once; the last *width* of them are to be written over."""

    anchor: bytes
    width: int


def random_mark(width: int) -> bytes:
    """Return random bytes to stand for a fixed-width field of *width* (8 or more) bytes."""
    return os.urandom(width)


def marked_number(width: int) -> int:
    """Return a signed 64-bit number whose varint is *width* (1 to 10) bytes long."""
    value = 1 << (7 * (width - 1))
    return value - (1 << 64) if value >= 1 << 63 else value


def encode_varints(values: npt.NDArray[Any], width: int) -> npt.NDArray[np.uint8]:
    """
    Return u1[n, width]: each of the 64-bit *values* as a varint padded to *width* bytes, which is at most 8 or VARINT_WIDTH.

    Negative numbers are their two's complement, as protobuf's int64 wants; they need all 10 bytes.
    """
    bits = values.astype(np.uint64) if values.dtype != np.int64 else values.view(np.uint64)
    low = bits & _LOW
    for moves, times in _SPREADS:
        moved = low & moves
        moved *= times
        low += moved
    if width < VARINT_WIDTH:
        low |= np.uint64(_GOES_ON ^ 0x80 << 8 * (width - 1))
        return low.astype("<u8", copy=False).view(np.uint8).reshape(-1, 8)[:, :width]
    out = np.empty(len(bits), _WHOLE)
    low |= np.uint64(_GOES_ON)
    out["low"] = low
    high = (bits >> np.uint64(_LOW_BITS)).astype(np.uint16)
    out["high"] = high & np.uint16(0x7F) | np.uint16(0x80) | high >> np.uint16(7) << np.uint16(8)
    return out.view(np.uint8).reshape(-1, VARINT_WIDTH)


def encode_fixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """Return u1[n, 8]: each of *values* as a fixed64."""
    return np.ascontiguousarray(values, "<u8").view(np.uint8).reshape(-1, 8)


def varint(value: int) -> bytes:
    """Return *value* (not negative) as a canonical varint."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, body: bytes) -> bytes:
    """Return a length-delimited field: key, length, *body*."""
    return varint(number << 3 | 2) + varint(len(body)) + body


class Block:
    """
    Bytes that templates begin with: constant ones, and between them the values of columns; all of it is written at once.

    What lies together is one place in memory to go to. A template may have less of its end.
    """

    def __init__(self, parts: Sequence[bytes | tuple[str, int]]) -> None:
        """*parts*: constant bytes, or a column's name and its width."""
        self.skeleton = b"".join(part if isinstance(part, bytes) else bytes(part[1]) for part in parts)
        """What is constant, with zeros in the place of columns."""
        widths = [len(part) if isinstance(part, bytes) else part[1] for part in parts]
        ends = np.cumsum(widths).tolist()
        self._fields = {
            part[0]: (end - width, width)
            for part, width, end in zip(parts, widths, ends, strict=True)
            if not isinstance(part, bytes)
        }

    def column(self, columns: Mapping[str, Column]) -> Column:
        """Return the whole block as a column, made of *columns*."""
        row_type = np.dtype(
            {
                "names": list(self._fields),
                "formats": [(np.void, width) for _, width in self._fields.values()],
                "offsets": [start for start, _ in self._fields.values()],
                "itemsize": len(self.skeleton),
            }
        )

        def fill(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint8]:
            out = np.empty((len(rows), len(self.skeleton)), np.uint8)
            out[:] = np.frombuffer(self.skeleton, np.uint8)
            lines = out.view(row_type)[:, 0]
            for name, (_, width) in self._fields.items():
                values = np.ascontiguousarray(columns[name](rows)[:, :width])
                lines[name] = values.view((np.void, width))[:, 0]
            return out

        return fill


class Rows(NamedTuple):
    """Messages that lie somewhere, n of them, each a copy of a template."""

    at: npt.NDArray[np.int64]
    """i8[n]: where each begins."""
    which: npt.NDArray[np.intp]
    """intp[n]: the template of each."""
    call: npt.NDArray[np.intp]
    """intp[n]: the call that each is to show."""


def write_columns(
    out: bytearray, rows: Rows, places: npt.NDArray[np.int64], columns: Sequence[Column]
) -> None:
    """
    Write columns over the marks of messages.

    Args:
        out: Where the messages lie.
        rows: The messages.
        places: i8[k, columns, 2]: of the templates, where a column's place begins, and its width; 0: it has none.
        columns: What to write.
    """
    for index, column in enumerate(columns):
        starts, widths = places[:, index, 0], places[:, index, 1]
        if len(widths) and widths.all():
            _write(out, rows.at + starts[rows.which], column(rows.call), widths, rows.which)
        elif widths.any():
            some = np.flatnonzero(widths[rows.which])
            which = rows.which[some]
            _write(out, rows.at[some] + starts[which], column(rows.call[some]), widths, which)


def _write(
    out: bytearray,
    at: npt.NDArray[np.int64],
    values: npt.NDArray[np.uint8],
    widths: npt.NDArray[np.int64],
    of_row: npt.NDArray[np.intp],
) -> None:
    """Copy the first `widths[of_row]` bytes of each row of *values* to *out*, to its place *at*."""
    distinct = sorted(set(widths.tolist()) - {0})
    for width in distinct:
        chosen = slice(None) if len(distinct) == 1 else widths[of_row] == width
        write_bytes(out, at[chosen], values[chosen, :width])


def write_bytes(out: bytearray, at: npt.NDArray[np.int64], values: npt.NDArray[np.uint8]) -> None:
    """Copy *values*, u1[k, width], to the places *at*, i8[k], in *out*."""
    width = values.shape[1]
    _items(out, width)[at] = np.ascontiguousarray(values).view((np.void, width))[:, 0]


def write_numbers(
    out: bytearray, rows: Rows, starts: npt.NDArray[np.int64], values: npt.NDArray[np.int64]
) -> None:
    """
    Write several numbers of each message, as varints of VARINT_WIDTH bytes.

    Args:
        out: Where the messages lie.
        rows: The messages.
        starts: i8[k, m]: of the templates, where each number's place begins; 0: it has none.
        values: i8[calls, m].
    """
    used = np.flatnonzero(starts.any(axis=0))
    if not len(used):
        return
    places = starts[:, used].take(rows.which, axis=0).reshape(-1)
    found = np.flatnonzero(places)
    row = found // len(used)
    numbers = values[rows.call.take(row), used.take(found - row * len(used))]
    write_bytes(out, rows.at.take(row) + places.take(found), encode_varints(numbers, VARINT_WIDTH))


def write_texts(
    out: bytearray,
    at: npt.NDArray[np.int64],
    texts: npt.NDArray[np.uint8],
    begin: npt.NDArray[np.int64],
    length: npt.NDArray[np.integer[Any]],
) -> None:
    """
    Copy texts, whatever their lengths: each in two pieces, which overlap, whose size is a power of two.

    Args:
        out: Where to.
        at: i8[k]: the place of each in *out*.
        texts: u1[...], contiguous.
        begin: i8[k]: where in *texts* each begins.
        length: k, in bytes, less than 2^13; of some it may be 0.
    """
    size_log2 = _FLOOR_LOG2.take(length)
    for log2 in find_distinct(size_log2).tolist():
        chosen = np.flatnonzero((size_log2 == log2) & (length > 0))
        if len(chosen):
            size = 1 << log2
            to, items = _items(out, size), _items(texts, size)
            first_to, first = at.take(chosen), begin.take(chosen)
            to[first_to] = items[first]
            to_last = length.take(chosen) - size
            to[first_to + to_last] = items[first + to_last]


def _items(data: bytearray | npt.NDArray[np.uint8], width: int) -> npt.NDArray[np.void]:
    """Return every place in *data* where an item of *width* bytes can be; they overlap, those that are written must not."""
    return np.ndarray(len(data) - width + 1, np.dtype((np.void, width)), data, strides=(1,))
