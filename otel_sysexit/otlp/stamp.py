"""
Many protobuf messages of a few shapes, made by stamping columns into templates.

The official class serializes one message a shape with marks in the places that vary. The templates are joined in the
order of the rows, and numpy writes each column over its marks in all of them at once, so that the cost hardly depends
on how many shapes there are. protobuf's own encoder decides the layout, and no message is built for a row. Numbers are
varints padded to a fixed width (legal protobuf: decoders accept non-canonical varints; proven with the Collector,
Jaeger, rotel and Tempo).
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

VARINT_WIDTH: Final = 10
"""Bytes of a padded varint that can hold any 64-bit number."""

Column: TypeAlias = Callable[[npt.NDArray[np.intp]], npt.NDArray[np.uint8]]
"""From rows, intp[k], to what is to be written in them: u1[k, width], or more than the width."""


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


def print_all(
    stamps: Sequence[Stamp], which: npt.NDArray[np.intp], columns: Sequence[Column]
) -> tuple[memoryview, npt.NDArray[np.int64]]:
    """
    Make a message for each row.

    Args:
        stamps: At least one, all with the same columns.
        which: intp[n]: the index in *stamps* of each row's.
        columns: What to write, in the order of the stamps' columns.

    Returns:
        The messages, one after the other, and i8[n + 1]: where each begins, and where the last one ends.
    """
    messages = np.empty(len(stamps), object)
    messages[:] = [stamp.message for stamp in stamps]
    # References to the few templates, not an object for each row.
    out = bytearray().join(messages[which].tolist())
    lengths = np.array([len(stamp.message) for stamp in stamps])
    bounds = np.zeros(len(which) + 1, np.int64)
    np.cumsum(lengths[which], out=bounds[1:])
    places = np.stack([stamp.places for stamp in stamps])
    for index, column in enumerate(columns):
        starts, widths = places[:, index, 0], places[:, index, 1]
        if not widths.any():
            continue
        rows = np.arange(len(which)) if widths.all() else np.flatnonzero(widths[which])
        of_row = which[rows]
        _write(out, bounds[rows] + starts[of_row], column(rows), widths, of_row)
    return memoryview(out), bounds


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
        item = np.dtype((np.void, width))
        # Every place in *out* where an item can be; the items overlap, those that are written do not.
        items = np.ndarray(len(out) - width + 1, item, out, strides=(1,))
        items[at[chosen]] = np.ascontiguousarray(values[chosen, :width]).view(item)[:, 0]
