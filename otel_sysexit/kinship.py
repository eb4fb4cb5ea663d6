"""
Who hangs below whom in the traces of a command, for columns of processes.

In: processes as they turn up, and those that are over. Out: a row for each; and whom a part of the tree needs, beside those that it
has, for processes that are to have a span there.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from otel_sysexit.distinct import find_distinct
from otel_sysexit.growing import grown
from otel_sysexit.hashing import HashTable
from otel_sysexit.identity import Image, Process

NOBODY: Final = -1
"""Instead of a row."""
_NEVER: Final = np.iinfo(np.intp).max
_TABLE_BITS: Final = 15
_ROWS_AT_FIRST: Final = 64


class Newcomers(NamedTuple):
    """m processes that need a span in a part for others, k in number, that were asked for, and are among them."""

    rows: npt.NDArray[np.intp]
    """intp[m], those that are needed earlier first."""
    above: npt.NDArray[np.intp]
    """intp[m]: row of whose span each hangs below; NOBODY: no one's."""
    counts: npt.NDArray[np.intp]
    """intp[1 + k]: how many of them are needed for the first ones that were asked for."""

    def first(self, asked: int) -> "Newcomers":
        """Return those that are needed for the first *asked* ones."""
        count = int(self.counts[asked])
        return Newcomers(self.rows[:count], self.above[:count], self.counts[: asked + 1])


_NONE: Final = np.empty(0, np.intp)
NO_NEWCOMERS: Final = Newcomers(_NONE, _NONE, np.zeros(1, np.intp))


class Kinship:
    """
    Processes as rows, each with who started it.

    A row is the same process's until `forget`.
    """

    def __init__(self) -> None:
        """Know nobody."""
        self._row_of: dict[Process, int] = {}
        self._process = np.zeros(_ROWS_AT_FIRST, np.object_)
        self._number = np.zeros(_ROWS_AT_FIRST, np.uint64)
        self._parent = np.zeros(_ROWS_AT_FIRST, np.intp)
        self._begin_unix_ns = np.zeros(_ROWS_AT_FIRST, np.uint64)
        self._is_over = np.zeros(_ROWS_AT_FIRST, np.bool_)
        self._table = HashTable(_TABLE_BITS)
        """The row of each process's number."""
        # Processes whose end was told: in later parts, what they left behind hangs below who is above them.
        self._over: WeakSet[Process] = WeakSet()
        self._root = NOBODY

    def __len__(self) -> int:
        return len(self._row_of)

    def set_root(self, process: Process) -> None:
        """Name the process of the command, above which nobody is."""
        self._root = self.row(process)

    def row(self, process: Process) -> int:
        """Return the row of *process*; those above it have one then, too."""
        found = self._row_of.get(process)
        if found is not None:
            return found
        line = []
        next_one: Process | None = process
        while next_one is not None and next_one not in self._row_of:
            line.append(next_one)
            next_one = next_one.parent
        row = NOBODY if next_one is None else self._row_of[next_one]
        for one in reversed(line):
            row = self._append(one, row)
        return row

    def _append(self, process: Process, parent: int) -> int:
        """Give *process* a row; *parent*: that of who started it."""
        row = self._row_of[process] = len(self._row_of)
        if row == len(self._number):
            self._process, self._number, self._parent, self._begin_unix_ns, self._is_over = (
                grown(array, row + 1)
                for array in (
                    self._process,
                    self._number,
                    self._parent,
                    self._begin_unix_ns,
                    self._is_over,
                )
            )
        self._process[row], self._number[row], self._parent[row] = process, process.number, parent
        self._begin_unix_ns[row], self._is_over[row] = process.begin_unix_ns, process in self._over
        return row

    def rows(self, processes: Sequence[Process]) -> npt.NDArray[np.intp]:
        """Return intp[n], the row of each of *processes*."""
        return np.fromiter(map(self.row, processes), np.intp, len(processes))

    def find(self, numbers: npt.NDArray[np.uint64], programs: Sequence[Image]) -> npt.NDArray[np.intp]:
        """Return intp[k], the row of each of *numbers*, u8[k], of processes which *programs* run, and others."""

        def look_up(new: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
            process_of = {image.process.number: image.process for image in programs}
            return self.rows([process_of[number] for number in new.tolist()])

        return self._table.find(numbers, self._number, look_up)

    def processes(self, rows: npt.NDArray[np.intp]) -> list[Process]:
        """Return the processes that have *rows*, intp[n]."""
        found: list[Process] = self._process.take(rows).tolist()
        return found

    def begins_unix_ns(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """Return u8[n]: from when on those that have *rows*, intp[n], are of interest."""
        return self._begin_unix_ns.take(rows)

    def end(self, process: Process) -> None:
        """Take note that *process* is over."""
        self._over.add(process)
        self._is_over[self.row(process)] = True

    def find_newcomers(self, rows: npt.NDArray[np.intp], is_here: npt.NDArray[np.bool_]) -> Newcomers:
        """
        Return who needs a span in a part so that those who have *rows* can have one.

        Args:
            rows: intp[k], who have none yet; in this order they are asked for.
            is_here: bool[all rows]: who has one there.
        """
        # Which of those that are asked for needs each first.
        needed = np.full(len(self), _NEVER)
        np.minimum.at(needed, rows, np.arange(len(rows)))
        above_of = np.full(len(self), NOBODY)
        level = rows
        while len(level):
            above = above_of[level] = self._find_above(level, is_here)
            is_missing = (above != NOBODY) & ~is_here.take(above)
            level, above = level[is_missing], above[is_missing]
            before = needed.take(above)
            np.minimum.at(needed, above, needed.take(level))
            level = find_distinct(above[needed.take(above) < before])
        found = np.flatnonzero(needed != _NEVER)
        found = found.take(np.argsort(needed.take(found), kind="stable"))
        counts = np.cumsum(np.bincount(needed.take(found) + 1, minlength=1 + len(rows)))
        return Newcomers(found, above_of.take(found), counts)

    def _find_above(self, rows: npt.NDArray[np.intp], is_here: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
        """Return whose span those at *rows*, intp[n], hang below: their parent's or, where that one is over and has none, that of who is above it."""
        parent, is_over = self._parent, self._is_over
        above = parent.take(rows)
        while len(gone := np.flatnonzero((above != NOBODY) & is_over.take(above) & ~is_here.take(above))):
            above[gone] = parent.take(above.take(gone))
        above[above == NOBODY] = self._root
        above[rows == self._root] = NOBODY
        return above

    def forget(self) -> None:
        """Let go of those who are over, if they are many; nobody may have a span in a part that is open."""
        count = len(self)
        is_kept = ~self._is_over[:count]
        if 2 * np.count_nonzero(is_kept) >= count:
            return
        if self._root != NOBODY:
            is_kept[self._root] = True
        kept = np.flatnonzero(is_kept)
        above = self._find_above(kept, np.zeros(count, np.bool_))
        new_row = np.cumsum(is_kept) - 1
        processes = self.processes(kept)
        self._row_of = dict(zip(processes, range(len(kept)), strict=True))
        self._root = int(new_row[self._root]) if self._root != NOBODY else NOBODY
        self._parent[: len(kept)] = np.where(above == NOBODY, NOBODY, new_row.take(above))
        for array in (self._process, self._number, self._begin_unix_ns, self._is_over):
            array[: len(kept)] = array.take(kept)
            array[len(kept) :] = 0
