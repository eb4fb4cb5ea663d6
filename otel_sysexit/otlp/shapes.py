"""
Shapes of calls: what decides the layout of a call's span.

In: a batch of calls. Out: for each call three numbers that say what its span consists of, and which of the calls have
the same ones. spans.py makes one template for each shape.
"""

import enum
from typing import Final, NamedTuple

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
_MIX: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9], np.uint64)
"""Odd numbers to multiply with: any will do."""


class _Lengths(NamedTuple):
    """Of the two texts of a role that calls may have."""

    has: list[npt.NDArray[np.bool_]]
    """bool[n], twice."""
    length: list[npt.NDArray[np.uint16]]
    """u2[n], twice; 0 where there is none."""
    is_cut: npt.NDArray[np.bool_]
    """bool[n]: either of them."""

    @classmethod
    def of(cls, row: npt.NDArray[np.int32], texts: Texts) -> "_Lengths":
        """Look up i4[n, 2] rows of *texts*."""
        has = row >= 0
        if not len(texts):
            none = np.zeros(len(row), np.uint16)
            return cls([has[:, 0], has[:, 1]], [none, none], np.zeros(len(row), np.bool_))
        at = np.where(has, row, 0)
        length = np.where(has, texts.length[at], 0)
        is_cut = has & texts.is_cut[at]
        return cls([has[:, 0], has[:, 1]], [length[:, 0], length[:, 1]], is_cut[:, 0] | is_cut[:, 1])


def _file_texts(row: npt.NDArray[np.int32], texts: Texts) -> npt.NDArray[np.uint8]:
    """Return `FileText` of each of i4[n, 2] rows of *texts*."""
    is_path = np.append((texts.text[:, :1] == ord("/")).any(axis=1), False)  # -1 is the last
    return np.where(row < 0, FileText.NONE, np.where(is_path[row], FileText.PATH, FileText.OTHER)).astype(
        np.uint8
    )


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
    paths, files = _Lengths.of(calls.path_row, calls.paths), _Lengths.of(calls.file_row, calls.files)
    file_text = _file_texts(calls.file_row, calls.files)
    addresses = calls.addresses
    family = np.append(addresses.family, 0)[calls.address_row]  # -1 is the last
    address_length = np.append(addresses.texts.length, 0)[calls.address_row]
    members = (
        *(calls.kind, calls.outcome, calls.is_executed, calls.errno, name_length),
        *(paths.is_cut | files.is_cut, calls.has_args, thresholds.length, calls.argument_text),
        *(paths.has[0], paths.length[0], paths.has[1], paths.length[1]),
        *(file_text[:, 0], files.length[0], file_text[:, 1], files.length[1]),
        *(family, address_length, is_root, owner),
    )  # in the order of Shape
    words = []
    remaining = iter(members)
    for sizes in _SHAPE_BITS:
        word = np.zeros(len(calls), np.uint64)
        for bits in sizes:
            word = word << np.uint64(bits) | np.asarray(next(remaining)).astype(np.uint64)
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
