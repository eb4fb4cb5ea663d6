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
    """The m processes that need a span in a part so that the k that were asked for can have one: these, and those above them."""

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
        # In later parts, what those who are over left behind hangs below who is above them. They may come back after `forget`.
        self._over: WeakSet[Process] = WeakSet()
        self._root = NOBODY

    def __len__(self) -> int:
        return len(self._row_of)

    def set_root(self, process: Process) -> None:
        """Name the process of the command, above which nobody is."""
        self._root = self.row(process)

    def row(self, process: Process) -> int:
        """Return the row of *process*. If it is a new one, those above it have one then, too."""
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

    def find(
        self, numbers: npt.NDArray[np.uint64], programs: Sequence[Image], which: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.intp]:
        """
        Return the row of each of k processes, intp[k].

        Args:
            numbers: u8[k], theirs.
            programs: What they run, among others.
            which: intp[k]: which of *programs* each one runs.
        """

        def look_up(new: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
            program = dict(zip(numbers.tolist(), which.tolist(), strict=True))
            return self.rows([programs[program[number]].process for number in new.tolist()])

        return self._table.find(numbers, self._number, look_up)

    def processes(self, rows: npt.NDArray[np.intp]) -> list[Process]:
        """Return the processes that have *rows*, intp[n]."""
        found: list[Process] = self._process.take(rows).tolist()
        return found

    def begins_unix_ns(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """Return u8[n]: from when on those that have *rows*, intp[n], are of interest; of the command, whose beginning is known later, as it was thought to be."""
        return self._begin_unix_ns.take(rows)

    def end(self, process: Process) -> None:
        """Take note that *process* is over."""
        self._over.add(process)
        row = self.row(process)  # before: the columns may become longer
        self._is_over[row] = True

    def find_newcomers(self, rows: npt.NDArray[np.intp], is_here: npt.NDArray[np.bool_]) -> Newcomers:
        """
        Return who needs a span in a part so that those who have *rows* can have one.

        Args:
            rows: intp[k], who have none yet; in this order they are asked for.
            is_here: bool[all rows]: who has one there.
        """
        above_of = np.full(len(self), NOBODY)
        is_needed = np.zeros(len(self), np.bool_)
        level = rows
        while len(level):
            is_needed[level] = True
            above = above_of[level] = self._find_above(level, is_here)
            above = above[above != NOBODY]
            level = find_distinct(above[~(is_here | is_needed).take(above)])
        found = np.flatnonzero(is_needed)
        needed_by = self._find_first(rows, found, above_of, is_needed)
        order = np.argsort(needed_by, kind="stable")
        counts = np.cumsum(np.bincount(needed_by + 1, minlength=1 + len(rows)))
        found = found.take(order)
        return Newcomers(found, above_of.take(found), counts)

    def _find_first(
        self,
        rows: npt.NDArray[np.intp],
        found: npt.NDArray[np.intp],
        above_of: npt.NDArray[np.intp],
        is_needed: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.intp]:
        """Return which of *rows* needs each of those that were *found* first, intp[m]; the other arguments are of all rows."""
        first = np.full(len(self), _NEVER)
        np.minimum.at(first, rows, np.arange(len(rows)))
        # To whom is above, who is above that one, and so on: each time twice as far up.
        everyone = np.arange(len(self))
        upwards = np.where((above_of != NOBODY) & is_needed.take(above_of), above_of, everyone)
        while not np.array_equal(upwards, everyone):
            np.minimum.at(first, upwards.take(found), first.take(found))
            everyone, upwards = upwards, upwards.take(upwards)
        return first.take(found)

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
