"""
One trace of a tree: which processes have a span there, below which others, and from when on.

In: processes, and the times of their calls that began before the trace did. Out: ids, parents and beginnings as columns, a row a process.
"""

from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.distinct import find_distinct
from otel_sysexit.growing import grown
from otel_sysexit.kinship import NOBODY, Newcomers
from otel_sysexit.propagation import TraceContext
from otel_sysexit.traces import Link

_NEVER: Final = 2**64 - 1
# As Member has it.
_ROW: Final = np.dtype(
    [
        ("kin", np.intp),
        ("span_id", np.uint64),
        ("above", np.intp),
        ("earliest_unix_ns", np.uint64),
        ("is_told", np.bool_),
    ]
)
_ROWS_AT_FIRST: Final = 64


class Member(NamedTuple):
    """What a part knows of one process, which has a span there."""

    kin: int
    """Row of the process in `Kinship`."""
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
    _rows: npt.NDArray[Any] = field(default_factory=lambda: np.zeros(_ROWS_AT_FIRST, _ROW))
    _count: int = 0
    _row_of: npt.NDArray[np.intp] = field(default_factory=lambda: np.zeros(_ROWS_AT_FIRST, np.intp))
    """By row in `Kinship`: the row here and 1 more; 0: it has no span here."""

    def __len__(self) -> int:
        """Return how many processes have a span here."""
        return self._count

    def has(self, count: int) -> npt.NDArray[np.bool_]:
        """Return which of the first *count* rows of `Kinship` have a span here."""
        self._row_of = grown(self._row_of, count)
        return self._row_of[:count] > 0

    def find(self, kin: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return intp[n], the rows of those who have the rows *kin*, intp[n], in `Kinship`; NOBODY: it has no span here."""
        self._row_of = grown(self._row_of, int(kin.max(initial=0)) + 1)
        return self._row_of.take(kin) - 1

    def admit(self, newcomers: Newcomers, span_ids: npt.NDArray[np.uint64]) -> None:
        """Give *newcomers* a row each, and these *span_ids*."""
        first, self._count = self._count, self._count + len(newcomers.rows)
        self._rows = grown(self._rows, self._count)
        self._row_of = grown(self._row_of, int(newcomers.rows.max(initial=0)) + 1)
        self._row_of[newcomers.rows] = np.arange(first, self._count) + 1
        rows = self._rows[first : self._count]
        rows["kin"] = newcomers.rows
        rows["span_id"] = span_ids
        rows["above"] = np.where(newcomers.above == NOBODY, NOBODY, self._row_of.take(newcomers.above) - 1)
        rows["earliest_unix_ns"] = _NEVER

    def note_starts(self, rows: npt.NDArray[np.intp], starts_unix_ns: npt.NDArray[np.uint64]) -> None:
        """Let the spans at *rows*, intp[n], and those above them begin no later than *starts_unix_ns*, u8[n]."""
        earliest, above = self._rows["earliest_unix_ns"], self._rows["above"]
        while len(rows):  # from level to level, those that were made earlier
            before = earliest.take(rows)
            np.minimum.at(earliest, rows, starts_unix_ns)
            changed = find_distinct(rows[starts_unix_ns < before])
            changed = changed[above.take(changed) != NOBODY]
            rows, starts_unix_ns = above.take(changed), earliest.take(changed)

    def note_start(self, row: int, start_unix_ns: int) -> None:
        """Do the same for one; that costs less so."""
        rows = self._rows
        while row != NOBODY and int(rows["earliest_unix_ns"][row]) > start_unix_ns:
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
        return np.where(above == NOBODY, np.uint64(0), self.span_ids(above))

    def kin(self, rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
        """Return intp[n]: whose spans those at *rows* are, as rows in `Kinship`."""
        return self._rows["kin"].take(rows)

    def starts_unix_ns(
        self, rows: npt.NDArray[np.intp], begins_unix_ns: npt.NDArray[np.uint64], end_unix_ns: int
    ) -> npt.NDArray[np.uint64]:
        """Return u8[n], when the spans at *rows* begin if their processes do at *begins_unix_ns*, u8[n], and they end at *end_unix_ns*."""
        starts = np.maximum(begins_unix_ns, np.uint64(self.start_unix_ns))
        np.minimum(starts, self._rows["earliest_unix_ns"].take(rows), out=starts)
        return np.minimum(starts, np.uint64(end_unix_ns), out=starts)

    def tell(self, rows: npt.NDArray[np.intp] | int) -> None:
        """Note that the spans at *rows* are made."""
        self._rows["is_told"][rows] = True

    def untold(self) -> npt.NDArray[np.intp]:
        """Return the rows of the spans that were not made yet."""
        return np.flatnonzero(~self._rows["is_told"][: self._count])
