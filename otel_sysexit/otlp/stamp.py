"""
Many protobuf messages of a few shapes, made by stamping columns into templates.

The official class serializes one message a shape with marks in the places that vary. The templates are joined in the
order of the rows (layout.py), and numpy writes each column over its marks in all of them at once, so that the cost hardly depends
on how many shapes there are. protobuf's own encoder decides the layout, and no message is built for a row. Numbers are
varints padded to a fixed width (legal protobuf: decoders accept non-canonical varints; proven with the Collector,
Jaeger, rotel and Tempo).
"""

import os
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

VARINT_WIDTH: Final = 10
"""Bytes of a padded varint that can hold any 64-bit number."""

STAMPS_MAX: Final = 16_384
_STAMPS_AT_FIRST: Final = 256
_Key = TypeVar("_Key", bound=Hashable)

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
    Return u1[n, width]: each of the 64-bit *values* as a varint padded to *width* bytes.

    Negative numbers are their two's complement, as protobuf's int64 wants; they need all 10 bytes.
    """
    bits = values.astype(np.uint64) if values.dtype != np.int64 else values.view(np.uint64)
    out = np.empty((len(bits), width), np.uint8)
    for index in range(width):
        out[:, index] = (bits >> np.uint64(7 * index)).astype(np.uint8) | np.uint8(0x80)
    out[:, width - 1] &= 0x7F if width < VARINT_WIDTH else 0x01
    return out


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


class Stamp:
    """A serialized message with places to write columns to."""

    def __init__(self, message: bytes, marks: Mapping[str, Mark], columns: Sequence[str]) -> None:
        """
        Find each mark's place in *message*.

        Args:
            message: The template.
            marks: By column.
            columns: The names of all columns; *message* may have no mark for some.

        Raises:
            ValueError: a mark is not in *message* exactly once.
        """
        self.message = message
        self.places = np.zeros((len(columns), 2), np.int64)
        """i8[columns, 2]: where a column's place begins, and its width; 0 where there is none."""
        for name, mark in marks.items():
            if message.count(mark.anchor) != 1:
                raise ValueError(f"the mark of {name} is in the message {message.count(mark.anchor)} times")
            end = message.index(mark.anchor) + len(mark.anchor)
            self.places[columns.index(name)] = (end - mark.width, mark.width)


class Stamps:
    """Templates with the same columns, by what they are templates of; at most *STAMPS_MAX* are kept."""

    def __init__(self, columns: int) -> None:
        """*columns*: how many they have."""
        self._index: dict[Hashable, int] = {}
        self._messages: list[bytes] = []
        self._places = np.zeros((_STAMPS_AT_FIRST, columns, 2), np.int64)

    def find(self, keys: Sequence[_Key], make: Callable[[_Key], Stamp]) -> "Chosen":
        """Return the templates of *keys*, distinct ones, those that are new from *make*."""
        if len(self._messages) > STAMPS_MAX:
            self._index.clear()
            self._messages.clear()
        found = [self._index.get(key, -1) for key in keys]
        if -1 in found:
            for at in [at for at, index in enumerate(found) if index < 0]:
                found[at] = self._add(keys[at], make(keys[at]))
        return Chosen([self._messages[index] for index in found], self._places.take(found, axis=0))

    def _add(self, key: Hashable, stamp: Stamp) -> int:
        index = self._index[key] = len(self._messages)
        self._messages.append(stamp.message)
        if index == len(self._places):
            self._places = np.concatenate((self._places, np.zeros_like(self._places)))
        self._places[index] = stamp.places
        return index


class Chosen(NamedTuple):
    """Templates that a batch needs, k of them."""

    messages: list[bytes]
    places: npt.NDArray[np.int64]
    """i8[k, columns, 2], as `Stamp` has them."""


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
        places: i8[k, columns, 2]: of the templates, as `Stamp` has them.
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
    item = np.dtype((np.void, width))
    # Every place in *out* where an item can be; the items overlap, those that are written do not.
    items = np.ndarray(len(out) - width + 1, item, out, strides=(1,))
    items[at] = np.ascontiguousarray(values).view(item)[:, 0]
