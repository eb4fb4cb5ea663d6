"""
Numbers → rows, for columns of numbers: where a number was put last, or another one with the same hash.

It is a first guess, right for nearly all: who asks compares, and looks up in another way the few that are not what was looked for.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_FACTOR: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 divided by the golden ratio: odd, without a pattern

_BITS_AT_FIRST: Final = 10


class HashTable:
    """A row for each hash; numpy has no dictionary that takes a column, and a search in sorted numbers takes five times as long."""

    def __init__(self, bits_max: int) -> None:
        """Have room for up to 2^*bits_max* hashes, for few at first; all rows are 0."""
        self._bits_max = bits_max
        self._bits = min(bits_max, _BITS_AT_FIRST)
        self._rows = np.zeros(1 << self._bits, np.uint32)
        self._puts = 0

    def put(self, numbers: npt.NDArray[Any], rows: npt.NDArray[Any]) -> None:
        """Note the *rows* of *numbers*, unsigned, [n]; of several with one hash the last counts, until there is more room for them."""
        self._puts += len(numbers)
        while 2 * self._puts > len(self._rows) and self._bits < self._bits_max:
            # The highest bits are the hash: one more of them leaves each where it was, and beside it room for another.
            self._rows = np.repeat(self._rows, 2)
            self._bits += 1
        self._rows[self._hash(numbers)] = rows

    def guess(self, numbers: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        """Return for each of *numbers*, unsigned, [n], the row of the last one that was put with its hash; intp[n]."""
        return self._rows.take(self._hash(numbers)).astype(np.intp)

    def find(
        self,
        numbers: npt.NDArray[np.uint64],
        number_of_row: npt.NDArray[np.uint64],
        look_up: Callable[[npt.NDArray[np.uint64]], npt.NDArray[np.intp]],
    ) -> npt.NDArray[np.intp]:
        """
        Return the row of each of *numbers*, u8[n]; intp[n].

        Args:
            numbers: Those to find.
            number_of_row: u8[rows]: the number that each row is of.
            look_up: Called with those that are not where the first guess was, each once; returns their rows.
        """
        rows = self.guess(numbers)
        missed = np.flatnonzero(number_of_row.take(rows) != numbers)
        if len(missed):
            distinct, inverse = np.unique(numbers[missed], return_inverse=True)
            found = look_up(distinct)
            self.put(distinct, found)
            rows[missed] = found[inverse]
        return rows

    def _hash(self, numbers: npt.NDArray[Any]) -> npt.NDArray[np.intp]:
        return ((numbers.astype(np.uint64) * _FACTOR) >> np.uint64(64 - self._bits)).astype(np.intp)
