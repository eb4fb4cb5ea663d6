"""
Serialized pieces that messages are made of, each once.

In: bytes. Out: columns of them, from which numpy takes references by the thousand.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.growing import grown

_PARTS_AT_FIRST: Final = 256


class Parts(NamedTuple):
    """p parts."""

    content: npt.NDArray[np.object_]
    """object[p], bytes."""
    length: npt.NDArray[np.int64]
    """i8[p], bytes of each."""


class Store:
    """Keeps parts."""

    def __init__(self) -> None:
        """Have none."""
        self._content = np.zeros(_PARTS_AT_FIRST, np.object_)
        self._length = np.zeros(_PARTS_AT_FIRST, np.int64)
        self._count = 0
        self.size = 0
        """In bytes."""

    def __len__(self) -> int:
        return self._count

    def add(self, part: bytes) -> int:
        """Keep *part*; return its index."""
        index = self._count
        self._content, self._length = grown(self._content, index + 1), grown(self._length, index + 1)
        self._content[index], self._length[index] = part, len(part)
        self._count += 1
        self.size += len(part)
        return index

    def get(self, more: Sequence[bytes]) -> Parts:
        """Return all parts that are kept, and behind them *more*."""
        content = np.empty(self._count + len(more), np.object_)
        content[: self._count] = self._content[: self._count]
        content[self._count :] = more
        lengths = np.fromiter(map(len, more), np.int64, len(more))
        return Parts(content, np.concatenate((self._length[: self._count], lengths)))

    def __getitem__(self, index: int) -> bytes:
        """Return a part."""
        part: bytes = self._content[index]
        return part
