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

from otel_sysexit.distinct import index_distinct
from otel_sysexit.growing import grown
from otel_sysexit.hashing import HashTable
from otel_sysexit.texts import NO_TEXTS, Texts, clean_text, kept_lengths, pack_texts

_FILES_MAX: Final = 16_384
"""In a generation: as many as the kernel side remembers to have told of (FILES_KNOWN_MAX)."""
_BYTES_MAX: Final = 4 << 20
"""Of the texts of a generation: `_FILES_MAX` of the longest at the default limit."""
_TABLE_BITS: Final = 16
_S_IFMT: Final = 0o170000  # uapi/linux/stat.h; the standard library has it as a function of one number
_NUMBERED: Final = (stat.S_IFSOCK, b"socket"), (stat.S_IFIFO, b"pipe")
"""What has no path is called by its sort and inode."""


class Files:
    """
    The files that calls may name, in two generations.

    What is told or asked for is in the younger one. When that is full the older one is forgotten and it becomes the
    older: so each stays until as many others were told of or asked for as a generation has room for.
    """

    def __init__(self, limit: int) -> None:
        """*limit*: the bytes of a text in a record."""
        self._limit = limit
        self._younger, self._older = _Generation(), _Generation()

    def add(self, strings: npt.NDArray[Any]) -> None:
        """Take in *strings* (dtype STRING, role FILE); those without a path, or of odd bytes, are described in place."""
        if not len(strings):
            return
        has_path = strings["text"][:, 0] == ord("/")
        for sort, word in _NUMBERED:
            is_one = ~has_path & (strings["mode"] & _S_IFMT == sort)
            _number(strings, np.flatnonzero(is_one), word)
            has_path |= is_one
        is_odd = ~has_path | (strings["text"][:, 1] == 0) | (strings["text"] >= 0x80).any(axis=1)
        rows = np.flatnonzero(is_odd)
        for row, length in zip(rows, kept_lengths(strings[rows], self._limit).tolist(), strict=True):
            self._describe(strings[row], length)
        named = strings[strings["text"][:, 0] != 0]  # without a name there is nothing to say
        length = kept_lengths(named, self._limit)
        text = named["text"][:, : int(length.max(initial=0))]
        self._put(named["seq"], Texts(text, length, named["length"] > self._limit))

    def _describe(self, string: Any, length: int) -> None:
        """Write the text that /proc has for what is neither socket nor pipe and has no path, or valid UTF-8."""
        name = string["text"].tobytes()[:length]
        if name.startswith(b"["):
            name = b"anon_inode:" + name
        elif name == b"/" and string["mode"] & _S_IFMT != stat.S_IFDIR:  # nsfs, pidfs: named when asked for
            name = b"inode:[%d]" % string["ino"]
        text, is_cut = clean_text(name, self._limit)
        string["text"] = 0
        string["text"][: len(text)] = np.frombuffer(text, np.uint8)
        string["length"] = self._limit + 1 if is_cut or string["length"] > self._limit else len(text)

    def _put(self, numbers: npt.NDArray[np.uint32], texts: Texts) -> None:
        if not self._younger.has_room_for(texts):
            self._younger, self._older = _Generation(), self._younger
        self._younger.put(numbers, texts)

    def lacks(self, numbers: npt.NDArray[np.uint32]) -> bool:
        """Whether one of *numbers*, u4[n, 2], is not known; 0 is none."""
        return bool((self._rows(numbers[numbers != 0]) < 0).any())

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
        rows = self._rows(numbers.reshape(-1).take(named))
        is_found = rows >= 0
        if not is_found.all():
            named, rows = named[is_found], rows[is_found]
        if not len(named):
            return row, NO_TEXTS
        used, at = index_distinct(rows)
        row.reshape(-1)[named] = at
        younger = np.searchsorted(used, self._younger.count)
        texts = self._younger.texts(used[:younger])
        if younger < len(used):
            again = used[younger:] - self._younger.count
            numbers_again, texts_again = self._older.numbers.take(again), self._older.texts(again)
            texts = _join(texts, texts_again)
            self._put(numbers_again, texts_again)
        return row, texts

    def _rows(self, numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
        """Return where each of *numbers* is: rows of the younger generation, behind them those of the older; -1: nowhere."""
        rows = self._younger.find(numbers)
        missing = np.flatnonzero(rows < 0)
        if len(missing):
            older = self._older.find(numbers.take(missing))
            rows[missing] = np.where(older < 0, -1, older + self._younger.count)
        return rows


class _Generation:
    """Texts of files, one behind the other."""

    def __init__(self) -> None:
        self.count = 0
        self.numbers = np.empty(0, np.uint32)
        """Of the files, in the order in which they came."""
        self._start = np.empty(0, np.uint32)
        self._length = np.empty(0, np.uint16)
        self._is_cut = np.empty(0, np.bool_)
        self._bytes = np.empty(0, np.uint8)
        self._bytes_used = 0
        self._table = HashTable(_TABLE_BITS)
        """The row of each number."""

    def has_room_for(self, texts: Texts) -> bool:
        """Whether *texts* fit; any fit into an empty one."""
        count, used = self.count + len(texts), self._bytes_used + int(texts.length.sum())
        return not self.count or (count <= _FILES_MAX and used <= _BYTES_MAX)

    def put(self, numbers: npt.NDArray[np.uint32], texts: Texts) -> None:
        """Add the *texts* of *numbers*."""
        begin, end = self.count, self.count + len(texts)
        ends = self._bytes_used + np.cumsum(texts.length, dtype=np.intp)
        self.numbers = grown(self.numbers, end)
        self._start, self._length = grown(self._start, end), grown(self._length, end)
        self._is_cut = grown(self._is_cut, end)
        self.numbers[begin:end] = numbers
        self._start[begin:end] = ends - texts.length
        self._length[begin:end], self._is_cut[begin:end] = texts.length, texts.is_cut
        self._table.put(numbers, np.arange(begin, end))
        packed = texts.text[_is_text(texts.length, texts.text.shape[1])]
        used = self._bytes_used + len(packed)
        self._bytes = grown(self._bytes, used)
        self._bytes[self._bytes_used : used] = packed
        self.count, self._bytes_used = end, used

    def find(self, numbers: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
        """Return the last row of each of *numbers*; -1: it has none."""
        if not self.count:
            return np.full(len(numbers), -1, np.intp)
        rows = self._table.guess(numbers)
        missed = np.flatnonzero(self.numbers.take(rows) != numbers)
        if len(missed):
            wanted, index = np.unique(numbers.take(missed), return_inverse=True)
            found = self._search(wanted)
            rows[missed] = found.take(index)
            is_here = found >= 0
            self._table.put(wanted[is_here], found[is_here])
        return rows

    def _search(self, wanted: npt.NDArray[np.uint32]) -> npt.NDArray[np.intp]:
        """Return the last row of each of *wanted*, ascending; -1: it has none."""
        have = self.numbers[: self.count]
        at = np.minimum(np.searchsorted(wanted, have), len(wanted) - 1)
        rows = np.full(len(wanted), -1, np.intp)
        matching = np.flatnonzero(wanted.take(at) == have)
        rows[at.take(matching)] = matching  # of several with one number, which go round, the last one's
        return rows

    def texts(self, rows: npt.NDArray[np.intp]) -> Texts:
        """Return the texts of *rows*."""
        length = self._length.take(rows)
        width = int(length.max(initial=0))
        at = self._start.take(rows)[:, np.newaxis] + np.arange(width)
        text = self._bytes.take(at, mode="clip") * _is_text(length, width)
        return Texts(text, length, self._is_cut.take(rows))


def _number(strings: npt.NDArray[Any], rows: npt.NDArray[np.intp], word: bytes) -> None:
    """Call *rows* of *strings* by *word* and their inodes' numbers."""
    texts = pack_texts([b"%b:[%d]" % (word, ino) for ino in strings["ino"][rows].tolist()])
    strings["text"][rows] = 0
    strings["text"][rows, : texts.text.shape[1]] = texts.text
    strings["length"][rows] = texts.length


def _is_text(length: npt.NDArray[np.uint16], width: int) -> npt.NDArray[np.bool_]:
    """Return bool[n, width]: what is not padding in texts of such a *length*."""
    return np.arange(width) < length[:, np.newaxis]


def _join(first: Texts, second: Texts) -> Texts:
    """Return the texts of both, one behind the other."""
    width = max(first.text.shape[1], second.text.shape[1])
    return Texts(
        np.concatenate(
            [np.pad(one.text, ((0, 0), (0, width - one.text.shape[1]))) for one in (first, second)]
        ),
        np.concatenate((first.length, second.length)),
        np.concatenate((first.is_cut, second.is_cut)),
    )
