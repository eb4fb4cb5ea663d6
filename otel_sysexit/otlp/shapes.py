"""
Shapes of calls: what decides the layout of a call's span.

In: a batch of calls. Out: for each call three numbers that say what its span consists of, and which of the calls have
the same ones. spans.py makes one template for each shape.
"""

import enum
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls
from otel_sysexit.sampling import Thresholds
from otel_sysexit.texts import Texts


class FileText(enum.IntEnum):
    """What the text of a descriptor is."""

    NONE = 0
    PATH = 1
    OTHER = 2
    """socket:[42] and the like."""


class Shape(NamedTuple):
    """What decides the layout of a call's span: calls of one shape differ in fixed-width places only."""

    kind: int
    outcome: int
    is_executed: int
    errno: int
    name_length: int
    is_cut: int
    has_args: int
    threshold_length: int
    argument_text: int
    has_first_path: int
    first_path_length: int
    has_second_path: int
    second_path_length: int
    first_file: int
    first_file_length: int
    second_file: int
    second_file_length: int
    family: int
    address_length: int
    is_root: int
    owner: int


_SHAPE_BITS: Final = (
    (14, 3, 1, 12, 6, 1, 1, 4, 16),
    (1, 13, 1, 13, 2, 13, 2, 13),
    (2, 8, 1, 2),
)
"""How many bits of three u64 each member of `Shape` takes."""
_COLUMN_BITS: Final = ((14, 3, 1, 12, 6, 1, 1, 4, 16), (14, 14, 15, 15), (2, 8, 1, 2))
"""The same by column: whether a text is there, or what it is, and its length are in one."""
_MIX: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
"""Odd numbers to multiply with: any will do."""


def _look_up(of_text: npt.NDArray[Any], row: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
    """Return what *of_text*, of some texts, says of those at *row*, and 0 where that is -1."""
    return np.append(of_text, of_text.dtype.type(0)).take(row)  # -1 is the last


def _is_cut(texts: Texts, row: npt.NDArray[np.int32]) -> npt.NDArray[np.bool_]:
    """Return bool[n]: whether one of the two texts that each call may have was cut; *row*: i4[n, 2]."""
    if not texts.is_cut.any():
        return np.zeros(len(row), np.bool_)
    is_cut: npt.NDArray[np.bool_] = _look_up(texts.is_cut, row)
    return is_cut[:, 0] | is_cut[:, 1]


def _path_codes(texts: Texts) -> npt.NDArray[np.uint16]:
    """Return of each of *texts* that it is there, a bit, and its length, 13 bits."""
    return np.uint16(1 << 13) | texts.length


def _file_codes(texts: Texts) -> npt.NDArray[np.uint16]:
    """Return `FileText` of each of *texts*, 2 bits, and its length, 13 bits."""
    is_path = (texts.text[:, :1] == ord("/")).any(axis=1)
    sort = np.where(is_path, FileText.PATH, FileText.OTHER).astype(np.uint16)
    return sort << np.uint16(13) | texts.length


def pack_shapes(
    calls: Calls,
    name_length: npt.NDArray[np.uint64],
    thresholds: Thresholds,
    is_root: npt.NDArray[np.bool_],
    owner: npt.NDArray[np.uint8],
) -> list[npt.NDArray[np.uint64]]:
    """
    Return each call's shape as three numbers.

    Args:
        calls: n of them, identified.
        name_length: u8[n]: bytes of their threads' names.
        thresholds: Of the same calls.
        is_root: bool[n]: whether they have no parent.
        owner: u1[n]: whose trace they are in, `traces.Owner`.

    Returns:
        Three times u8[n].
    """
    path = _look_up(_path_codes(calls.paths), calls.path_row)
    file = _look_up(_file_codes(calls.files), calls.file_row)
    is_cut = _is_cut(calls.paths, calls.path_row) | _is_cut(calls.files, calls.file_row)
    addresses = calls.addresses
    members = (
        *(calls.kind, calls.outcome, calls.is_executed, calls.errno, name_length),
        *(is_cut, calls.has_args, thresholds.length, calls.argument_text),
        *(path[:, 0], path[:, 1], file[:, 0], file[:, 1]),
        *(_look_up(addresses.family, calls.address_row), _look_up(addresses.texts.length, calls.address_row)),
        *(is_root, owner),
    )  # in the order of Shape
    words = []
    remaining = iter(members)
    for sizes in _COLUMN_BITS:
        word = np.zeros(len(calls), np.uint64)
        for bits in sizes:
            word <<= np.uint64(bits)
            word |= np.asarray(next(remaining)).astype(np.uint64)
        words.append(word)
    return words


def unpack_shape(packed: tuple[int, ...]) -> Shape:
    """Return the shape that three numbers of `pack_shapes` stand for."""
    members: list[int] = []
    for sizes, word in zip(_SHAPE_BITS, packed, strict=True):
        places = np.cumsum(sizes[::-1])[::-1].tolist()  # each member and those below it
        members += [word >> place - bits & (1 << bits) - 1 for place, bits in zip(places, sizes, strict=True)]
    return Shape(*members)


def distinct(words: list[npt.NDArray[np.uint64]]) -> tuple[list[tuple[int, ...]], npt.NDArray[np.intp]]:
    """Return the distinct rows of *words*, columns of one length, and for each row which of these it is."""
    mixed = np.zeros_like(words[0])
    for word, factor in zip(words, _MIX, strict=True):
        mixed = (mixed ^ word) * factor
        mixed ^= mixed >> np.uint64(32)
    _, first, which = np.unique(mixed, return_index=True, return_inverse=True)
    if not all(np.array_equal(word[first][which], word) for word in words):
        _, first, which = np.unique(np.stack(words, axis=1), axis=0, return_index=True, return_inverse=True)
        which = which.reshape(-1)
    return list(zip(*(word[first].tolist() for word in words), strict=True)), which
