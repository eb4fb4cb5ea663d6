"""
Many protobuf messages of one shape, made by stamping columns into a template.

The official class serializes one message with marks in the places that vary; its bytes are repeated n times and numpy
writes the columns over the marks. So protobuf's own encoder decides the layout and no message is built for a row.
Numbers are varints padded to a fixed width (legal protobuf: decoders accept non-canonical varints; proven with the
Collector, Jaeger, rotel and Tempo).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

VARINT_WIDTH: Final = 10
"""Bytes of a padded varint that can hold any 64-bit number."""


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

    def __init__(self, message: bytes, marks: Mapping[str, Mark]) -> None:
        """
        Find each mark's place in *message*.

        Raises:
            ValueError: a mark is not in *message* exactly once.
        """
        self._template = np.frombuffer(message, np.uint8)
        self._places: dict[str, tuple[int, int]] = {}
        for name, mark in marks.items():
            if message.count(mark.anchor) != 1:
                raise ValueError(f"the mark of {name} is in the message {message.count(mark.anchor)} times")
            end = message.index(mark.anchor) + len(mark.anchor)
            self._places[name] = (end - mark.width, end)

    @property
    def width(self) -> int:
        """Bytes of one message."""
        return len(self._template)

    def fill(self, count: int, columns: Mapping[str, npt.NDArray[np.uint8]]) -> npt.NDArray[np.uint8]:
        """
        Return u1[count, width], a message a row.

        Args:
            count: n.
            columns: For every mark: u1[n, width of the mark], or u1[width of the mark] for all rows alike.
        """
        out = np.empty((count, self.width), np.uint8)
        out[:] = self._template
        for name, (start, end) in self._places.items():
            out[:, start:end] = columns[name]
        return out
