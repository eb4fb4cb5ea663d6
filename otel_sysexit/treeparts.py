"""
One trace of a tree: which processes have a span there, below which others, and from when on.

In: processes, and the times of their calls that began before the trace did. Out: ids, parents and beginnings as columns, a row a process.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.distinct import find_distinct
from otel_sysexit.growing import grown
from otel_sysexit.identity import Process
from otel_sysexit.propagation import TraceContext
from otel_sysexit.traces import Link

_NOBODY: Final = -1
_NEVER: Final = 2**64 - 1
# As Member has it.
_ROW: Final = np.dtype(
    [
        ("span_id", np.uint64),
        ("above", np.intp),
        ("earliest_unix_ns", np.uint64),
        ("is_told", np.bool_),
    ]
)
_ROWS_AT_FIRST: Final = 64


class Member(NamedTuple):
    """What a part knows of one process, which has a span there."""

    span_id: int
    above: int
    """Row of whose span it is below; -1: nobody's."""
    earliest_unix_ns: int
    """Beginning of the earliest call of it or somebody below it that was noted."""
    is_told: bool
    """Whether its span was made."""


@dataclass(slots=True)
class TreePart:
    """One trace of a tree."""

    number: int
    trace_id: bytes
    start_unix_ns: int
    """0: that of its processes."""
    links: list[Link]
    joined: TraceContext | None = None
    """The span of another program that it is below."""
    opened_unix_ns: int | None = None
    """As the first tick says."""
    is_continued: bool = False
    calls: int = 0
    end_unix_ns: int = 0
    """Of what was latest in it: a call, the end of a process, a look at the clock."""
    row: dict[Process, int] = field(default_factory=dict)
    """Of the processes that have a span here."""
    _rows: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(_ROWS_AT_FIRST, _ROW))

    def __len__(self) -> int:
        """Return how many processes have a span here."""
        return len(self.row)

    def find(self, processes: Sequence[Process]) -> npt.NDArray[np.intp]:
        """Return intp[n], the row of each of *processes*, which have a span here."""
        return np.fromiter(map(self.row.__getitem__, processes), np.intp, len(processes))

    def admit(self, above: Mapping[Process, Process | None], span_ids: npt.NDArray[np.uint64]) -> None:
        """Give the processes that are the keys of *above* a row each, below those that are its values, and these *span_ids*."""
        first = len(self.row)
        self.row.update(zip(above, range(first, first + len(above)), strict=True))
        self._rows = grown(self._rows, len(self.row))
        rows = self._rows[first : len(self.row)]
        rows["span_id"] = span_ids
        rows["above"] = [_NOBODY if one is None else self.row[one] for one in above.values()]
        rows["earliest_unix_ns"] = _NEVER

    def note_starts(self, rows: npt.NDArray[np.intp], starts_unix_ns: npt.NDArray[np.uint64]) -> None:
        """Let the spans at *rows*, intp[n], and those above them begin no later than *starts_unix_ns*, u8[n]."""
        earliest, above = self._rows["earliest_unix_ns"], self._rows["above"]
        while len(rows):  # from level to level, those that were made earlier
            before = earliest.take(rows)
            np.minimum.at(earliest, rows, starts_unix_ns)
            changed = find_distinct(rows[starts_unix_ns < before])
            changed = changed[above.take(changed) != _NOBODY]
            rows, starts_unix_ns = above.take(changed), earliest.take(changed)

    def note_start(self, row: int, start_unix_ns: int) -> None:
        """Do the same for one; that costs less so."""
        rows = self._rows
        while row != _NOBODY and int(rows["earliest_unix_ns"][row]) > start_unix_ns:
            rows["earliest_unix_ns"][row] = start_unix_ns
            row = int(rows["above"][row])

    def get(self, row: int) -> Member:
        """Return one row."""
        return Member(*self._rows[row].item())

    def span_ids(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """Return u8[n], the ids of the spans at *rows*."""
        return self._rows["span_id"].take(rows)

    def parent_span_ids(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.uint64]:
        """Return u8[n], the ids of the spans above those at *rows*; 0: none."""
        above = self._rows["above"].take(rows)
        return np.where(above == _NOBODY, np.uint64(0), self.span_ids(above))

    def starts_unix_ns(
        self, rows: npt.NDArray[np.intp], processes: Sequence[Process], end_unix_ns: int
    ) -> npt.NDArray[np.uint64]:
        """Return u8[n], when the spans at *rows*, which are those of *processes*, begin if they end at *end_unix_ns*."""
        starts = np.array([process.begin_unix_ns for process in processes], np.uint64)
        np.maximum(starts, np.uint64(self.start_unix_ns), out=starts)
        np.minimum(starts, self._rows["earliest_unix_ns"].take(rows), out=starts)
        return np.minimum(starts, np.uint64(end_unix_ns), out=starts)

    def tell(self, rows: npt.NDArray[np.intp] | int) -> None:
        """Note that the spans at *rows* are made."""
        self._rows["is_told"][rows] = True

    def untold(self) -> npt.NDArray[np.intp]:
        """Return the rows of the spans that were not made yet."""
        return np.flatnonzero(~self._rows["is_told"][: len(self.row)])
