"""
Threads that are the same whatever the time, found for columns of calls.

In: a thread, once nothing more is known of it than what it is now; keys of calls. Out: numbers of the threads that made them.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.growing import grown
from otel_sysexit.hashing import HashTable
from otel_sysexit.identity import Thread

_TABLE_BITS: Final = 16
_THREADS_AT_FIRST: Final = 256


class SettledThreads:
    """Threads by key, which is tgid << 32 | tid and never 0; each has a number, from 1 on, while it is here."""

    def __init__(self) -> None:
        """Have none."""
        self._numbers: dict[int, int] = {}
        self._keys = np.zeros(_THREADS_AT_FIRST, np.uint64)
        """By number; 0: no thread has it."""
        self._threads = np.zeros(_THREADS_AT_FIRST, np.object_)
        self._owners = np.zeros((_THREADS_AT_FIRST, 2), np.uint64)
        """As `calls.number_owners` returns them."""
        self._free: list[int] = list(range(_THREADS_AT_FIRST - 1, 0, -1))
        self._table = HashTable(_TABLE_BITS)

    def add(self, key: int, thread: Thread) -> None:
        """Take in *thread*, which is not here."""
        if not self._free:
            count = len(self._keys)
            self._keys, self._threads, self._owners = (
                grown(array, count + 1) for array in (self._keys, self._threads, self._owners)
            )
            self._free = list(range(len(self._keys) - 1, count - 1, -1))
        number = self._numbers[key] = self._free.pop()
        self._keys[number], self._threads[number] = key, thread
        self._owners[number] = thread.image.number, thread.process.number

    def discard(self, key: int) -> None:
        """Forget a thread that is here."""
        number = self._numbers.pop(key)
        self._keys[number], self._threads[number] = 0, None
        self._free.append(number)

    def find(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
        """Return intp[n], the number of the thread of each of *keys*, u8[n]; 0: it is not here."""
        return self._table.find(keys, self._keys, self._look_up)

    def _look_up(self, keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
        return np.array([self._numbers.get(key, 0) for key in keys.tolist()], np.intp)

    def take(self, numbers: npt.NDArray[np.intp]) -> tuple[list[Thread], npt.NDArray[np.uint64]]:
        """Return the threads that have *numbers*, intp[k], none of which is 0, and `calls.number_owners` of them, u8[k, 2]."""
        threads: list[Thread] = self._threads.take(numbers).tolist()
        return threads, self._owners.take(numbers, axis=0)
