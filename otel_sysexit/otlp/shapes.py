"""
Shapes of calls: what decides the layout of a call's span.

In: a batch of calls. Out: for each call a number that says what its span consists of. spans.py makes one template for each shape.
"""

import enum
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls
from otel_sysexit.sampling import Thresholds
from otel_sysexit.texts import Texts, look_up


class Text(enum.IntEnum):
    """What the text of a path or a descriptor is."""

    NONE = 0
    """It is not there, or could not be read."""
    EMPTY = 1
    ABSOLUTE = 2
    """Begins with a slash: of a descriptor, the path of a file."""
    OTHER = 3
    """A relative path; of a descriptor, socket:[42] and the like."""


class Shape(NamedTuple):
    """What decides the layout of a call's span: calls of one shape differ in fixed-width places and in how long texts are."""

    kind: int
    errno: int
    argument_text: int
    outcome: int
    is_executed: int
    is_cut: int
    has_args: int
    threshold_length: int
    is_root: int
    owner: int
    first_path: int
    """This one and the next three: `Text`."""
    second_path: int
    first_file: int
    second_file: int
    family: int


_SHAPE_BITS: Final = ((13, 12, 16), (3, 1, 1, 1), (4, 1, 2), (2, 2, 2, 2), (2,))
"""
How many bits of a u64 each member of `Shape` takes, the first ones first; all of them together 64 at most, and never all are 1.

Those of the second group and the others are packed in a byte first: it is cheaper.
"""


def _is_cut(texts: Texts, row: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return bool[n]: whether one of the two texts that each call may have was cut; *row*: i4[n, 2]."""
    if not texts.is_cut.any():
        return np.zeros(len(row), np.bool_)
    is_cut: npt.NDArray[np.bool_] = look_up(texts.is_cut, row)
    return is_cut[:, 0] | is_cut[:, 1]


def _codes(texts: Texts) -> npt.NDArray[np.uint8]:
    """Return `Text` of each of *texts*."""
    is_absolute = (texts.text[:, :1] == ord("/")).any(axis=1)
    codes = np.where(is_absolute, np.uint8(Text.ABSOLUTE), np.uint8(Text.OTHER))
    codes[texts.length == 0] = Text.EMPTY
    return codes


def pack_shapes(
    calls: Calls,
    thresholds: Thresholds,
    is_root: npt.NDArray[np.bool_],
    owner: npt.NDArray[np.uint8],
) -> npt.NDArray[np.uint64]:
    """
    Return each call's shape as a number, u8[n].

    Args:
        calls: n of them, identified.
        thresholds: Of the same calls.
        is_root: bool[n]: whether they have no parent.
        owner: u1[n]: whose trace they are in, `traces.Owner`.
    """
    path = look_up(_codes(calls.paths), calls.path_row)
    file = look_up(_codes(calls.files), calls.file_row)
    is_cut = _is_cut(calls.paths, calls.path_row) | _is_cut(calls.files, calls.file_row)
    members = iter(
        (
            *(calls.kind, calls.errno, calls.argument_text),
            *(calls.outcome, calls.is_executed, is_cut, calls.has_args),
            *(thresholds.length, is_root, owner),
            *(path[:, 0], path[:, 1], file[:, 0], file[:, 1]),
            look_up(calls.addresses.family, calls.address_row),
        )
    )  # in the order of Shape
    packed = np.zeros(len(calls), np.uint64)
    for group, sizes in enumerate(_SHAPE_BITS):
        word: npt.NDArray[Any] = np.zeros(len(calls), np.uint8 if group else np.uint64)
        for bits in sizes:
            word <<= word.dtype.type(bits)
            word |= next(members).astype(word.dtype)
        packed <<= np.uint64(sum(sizes))
        packed |= word
    return packed


def unpack_shape(packed: int) -> Shape:
    """Return the shape that a number of `pack_shapes` stands for."""
    sizes = [bits for group in _SHAPE_BITS for bits in group]
    places = np.cumsum(sizes[::-1])[::-1].tolist()  # each member and those below it
    return Shape(
        *(packed >> place - bits & (1 << bits) - 1 for place, bits in zip(places, sizes, strict=True))
    )
