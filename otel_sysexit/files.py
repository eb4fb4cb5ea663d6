"""
What descriptors are: STRING_FILE records → texts that calls find by a number.

In: records that the kernel side made when it met a file that it had not told of for a while. Out: for the numbers in a
batch of calls, texts as readlink on /proc/PID/fd gives them: a path, `socket:[42]`, `pipe:[43]`, `anon_inode:[eventpoll]`;
`inode:[44]` for a namespace or a pidfd, whose names only the kernel can make.
"""

import stat
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.hashing import HashTable
from otel_sysexit.texts import NO_TEXTS, Texts, clean_text, kept_lengths, make_texts

_TABLE_BITS: Final = 16
_BYTES_MAX: Final = 6 << 20
"""What is kept: 20,000 files of the usual size; those asked for longest ago go first."""


class Files:
    """The files that calls may name."""

    def __init__(self, string_dtype: np.dtype[Any], limit: int) -> None:
        """*string_dtype*: of the records; *limit*: the bytes of a text in them."""
        self._limit = limit
        self._capacity = max(_BYTES_MAX // string_dtype.itemsize, 64)
        self._records = np.empty(0, string_dtype)
        """Oldest first; what was asked for lately is new again."""
        self._numbers = np.empty(0, np.uint32)
        """Of the records, ascending."""
        self._order = np.empty(0, np.intp)
        """Where the record of each of `_numbers` is."""
        self._table = HashTable(_TABLE_BITS)
        """Where in `_numbers` each is."""

    def add(self, strings: npt.NDArray[Any]) -> None:
        """Take in *strings* (role FILE)."""
        if len(strings):
            is_described = (strings["text"][:, 0] != ord("/")) | (strings["text"][:, 1] == 0)
            is_described |= (strings["text"] >= 0x80).any(axis=1)
            rows = np.flatnonzero(is_described)
            for row, length in zip(rows, kept_lengths(strings[rows], self._limit).tolist(), strict=True):
                self._describe(strings[row], length)
            self._append(strings[strings["text"][:, 0] != 0])  # without a name there is nothing to say

    def _describe(self, string: Any, length: int) -> None:
        """Write the text that /proc has for something without a path, or valid UTF-8."""
        name = string["text"].tobytes()[:length]
        mode, ino = int(string["mode"]), int(string["ino"])
        if stat.S_ISSOCK(mode) and not name.startswith(b"/"):
            name = b"socket:[%d]" % ino
        elif stat.S_ISFIFO(mode) and not name.startswith(b"/"):
            name = b"pipe:[%d]" % ino
        elif name.startswith(b"["):
            name = b"anon_inode:" + name
        elif name == b"/" and not stat.S_ISDIR(mode):  # nsfs, pidfs: names are made when asked for
            name = b"inode:[%d]" % ino
        text, is_cut = clean_text(name, self._limit)
        string["text"] = 0
        string["text"][: len(text)] = np.frombuffer(text, np.uint8)
        string["length"] = self._limit + 1 if is_cut or string["length"] > self._limit else len(text)

    def _append(self, strings: npt.NDArray[Any]) -> None:
        self._records = np.concatenate((self._records, strings))[-self._capacity :]
        # Stable, so that of two with one number (which go round) the newer comes last.
        self._order = np.argsort(self._records["seq"], kind="stable")
        self._numbers = self._records["seq"][self._order]
        self._table.put(self._numbers, np.arange(len(self._numbers)))

    def lacks(self, numbers: npt.NDArray[np.uint32]) -> bool:
        """Whether one of *numbers*, u4[n, 2], is not known; 0 is none."""
        numbers = numbers.reshape(-1)
        named = np.flatnonzero(numbers != 0)
        if not len(named) or not len(self._numbers):
            return bool(len(named))
        return not bool(self._look_up(numbers.take(named))[1].all())

    def find(self, numbers: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.int32], Texts]:
        """
        Return what *numbers* mean.

        Args:
            numbers: u4[n, 2]; 0: none.

        Returns:
            i4[n, 2], the row of each one's text, -1 where there is none; and the texts.
        """
        row = np.full(numbers.shape, -1, np.int32)
        named = np.flatnonzero(numbers != 0)
        if not len(self._numbers) or not len(named):
            return row, NO_TEXTS
        at, is_found = self._look_up(numbers.reshape(-1).take(named))
        if not is_found.all():
            named, at = named[is_found], at[is_found]
        is_used = np.zeros(len(self._numbers), np.bool_)
        is_used[at] = True
        used = np.flatnonzero(is_used)
        row_of = np.empty(len(is_used), np.int32)
        row_of[used] = np.arange(len(used))
        row.reshape(-1)[named] = row_of.take(at)
        places = self._order.take(used)
        texts = make_texts(self._records.take(places), self._limit)
        if len(self._records) > self._capacity // 2:
            self._renew(places)
        return row, texts

    def _look_up(self, numbers: npt.NDArray[np.uint32]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
        """Return where in `_numbers`, of which there are some, each of *numbers* is last, and whether it is there at all."""
        at = self._table.guess(numbers)
        is_found = self._numbers.take(at) == numbers
        others = np.flatnonzero(~is_found)
        if len(others):
            at[others] = np.searchsorted(self._numbers, numbers[others], side="right") - 1
            is_found[others] = self._numbers[at[others]] == numbers[others]
        return at, is_found

    def _renew(self, places: npt.NDArray[np.intp]) -> None:
        """Make those that will soon be forgotten new again."""
        old = places[places < len(self._records) - self._capacity // 2]
        if len(old):
            kept = np.ones(len(self._records), np.bool_)
            kept[old] = False
            renewed = self._records[old]
            self._records = self._records[kept]
            self._append(renewed)
