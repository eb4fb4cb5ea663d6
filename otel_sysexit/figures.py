"""
What open windows have so far, as columns: calls are counted a batch at a time, however many windows they are in.

In: calls by group, as `Groups`. Out: the figures of one window, when it ends. It does not know when that is.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.distinct import find_distinct, sort_stably
from otel_sysexit.growing import grown
from otel_sysexit.syscalls import KINDS_MAX
from otel_sysexit.texts import look_up
from otel_sysexit.traces import Owner

WINDOW_SPANS_MAX: Final = 2_000
WINDOW_BYTES_MAX: Final = 512 << 10
_SPAN_BYTES: Final = 240
_ARGUMENT_BYTES: Final = 40
_ROWS_AT_FIRST: Final = 16
_KINDS_AT_FIRST: Final = 32
_WINDOW: Final = np.dtype(
    [
        ("trace_id", np.uint8, 16),
        ("span_id", np.uint64),
        ("calls", np.int64),
        ("errors", np.int64),
        ("size", np.int64),
        ("start_unix_ns", np.uint64),
        ("end_unix_ns", np.uint64),
        ("owner", np.uint8),
    ],
    align=True,
)
"""Its *owner* is whose trace it is in (`Owner`), its *size* about how many bytes its spans have."""


@dataclass(frozen=True, slots=True)
class Groups:
    """n calls of a batch in k groups, which are numbered from 0; none is empty."""

    calls: Calls
    """The whole batch."""
    sizes: npt.NDArray[np.int64]
    """i8[calls]: about how many bytes the span of each call of the batch has (`span_sizes`)."""
    rows: npt.NDArray[np.intp]
    """intp[n]: indices in the batch, group by group, ascending in each."""
    number: npt.NDArray[np.intp]
    """intp[n]: the group of each of *rows*."""
    count: npt.NDArray[np.intp]
    """intp[k]: calls of each group."""
    firsts: npt.NDArray[np.intp]
    """intp[k]: where in *rows* each group begins."""
    size: npt.NDArray[np.int64]
    """i8[k]: the bytes of the spans of each."""

    @classmethod
    def make(cls, calls: Calls, number: npt.NDArray[np.intp]) -> "Groups":
        """Put all of *calls* into groups; *number*: intp[n], that of each call's."""
        rows = sort_stably(number, len(number))
        sizes = span_sizes(calls)
        count = np.bincount(number)
        firsts = np.cumsum(count) - count
        return cls(calls, sizes, rows, number.take(rows), count, firsts, _sums(sizes.take(rows), firsts))

    def rows_of(self, group: int) -> npt.NDArray[np.intp]:
        """Return the indices in the batch of a group's calls."""
        return self.rows[self.firsts[group] :][: self.count[group]]

    def part(self, rows: npt.NDArray[np.intp]) -> "Groups":
        """Return some of a group's calls, one at least, as the only group; *rows*: as `rows_of` returns them."""
        zero = np.zeros(len(rows), np.intp)
        size = self.sizes[rows].sum(keepdims=True)
        return Groups(self.calls, self.sizes, rows, zero, np.array([len(rows)]), zero[:1], size)


def _sums(values: npt.NDArray[np.int64], firsts: npt.NDArray[np.intp]) -> npt.NDArray[np.int64]:
    """Return the sum of each group of *values*, which begin at *firsts*."""
    return np.add.reduceat(values, firsts) if len(firsts) else np.zeros(0, np.int64)


class Summary(NamedTuple):
    """The figures of a window that ended."""

    calls: int
    errors: int
    start_unix_ns: int
    end_unix_ns: int
    kinds: list[tuple[int, int]]
    """Which kinds of calls it has, as indices, and how many of each."""


class Figures:
    """A row for each open window."""

    def __init__(self) -> None:
        self.windows = np.zeros(_ROWS_AT_FIRST, _WINDOW)
        """_WINDOW[rows]"""
        self._counts = np.zeros((_ROWS_AT_FIRST, _KINDS_AT_FIRST), np.uint16)
        """u2[rows, columns]: calls by kind; a window has no more than a few thousand."""
        self._column = np.full(KINDS_MAX, -1, np.intp)
        """intp[KINDS_MAX]: the column of each kind, -1: none yet. Few of the thousands that there can be are ever made."""
        self._kinds: list[int] = []
        """By column."""
        self._free = list(range(_ROWS_AT_FIRST))

    def open(self, trace_id: bytes, span_id: int, owner: Owner) -> int:
        """Return the row of a new window, which has no calls yet."""
        if not self._free:
            rows = len(self.windows)
            self.windows = grown(self.windows, rows + 1)
            self._counts = grown(self._counts, rows + 1)
            self._free = list(range(rows, len(self.windows)))
        row = self._free.pop()
        self.windows[row] = (np.frombuffer(trace_id, np.uint8), span_id, 0, 0, 0, 2**64 - 1, 0, owner)
        self._counts[row] = 0
        return row

    def have_room(self, rows: npt.NDArray[np.intp], groups: Groups) -> npt.NDArray[np.bool_]:
        """Return bool[k]: whether windows have calls to spare beside those of *groups*; *rows*: intp[k], -1: no window, no room."""
        windows = self.windows
        has_calls = windows["calls"][rows] + groups.count < WINDOW_SPANS_MAX
        return (rows >= 0) & has_calls & (windows["size"][rows] + groups.size < WINDOW_BYTES_MAX)

    def fitting(self, row: int, sizes: npt.NDArray[np.int64]) -> int:
        """Return how many more calls, of which *sizes* are, fit into a window, at least one."""
        window = self.windows[row]
        below = np.searchsorted(np.cumsum(sizes), WINDOW_BYTES_MAX - window["size"], side="right")
        return max(min(int(below), WINDOW_SPANS_MAX - int(window["calls"])), 1)

    def is_full(self, row: int) -> bool:
        """Whether no more calls fit."""
        window = self.windows[row]
        return bool(window["calls"] >= WINDOW_SPANS_MAX or window["size"] >= WINDOW_BYTES_MAX)

    def add(self, rows: npt.NDArray[np.intp], groups: Groups) -> None:
        """Count the calls of *groups*; *rows*: intp[k], distinct, each group's, -1: not this group."""
        calls, of_groups = groups.calls, groups.rows
        chosen = np.flatnonzero(rows >= 0)
        if not len(chosen):
            return
        at = rows[chosen]
        start = calls.start_unix_ns.take(of_groups)
        end = start + calls.duration_ns.take(of_groups)
        has_failed = calls.outcome.take(of_groups) == Outcome.FAILED
        errors = np.bincount(groups.number[has_failed], minlength=len(groups.count))
        windows = self.windows
        windows["calls"][at] += groups.count[chosen]
        windows["errors"][at] += errors[chosen]
        windows["size"][at] += groups.size[chosen]
        starts = np.minimum.reduceat(start, groups.firsts)[chosen]
        windows["start_unix_ns"][at] = np.minimum(windows["start_unix_ns"][at], starts)
        ends = np.maximum.reduceat(end, groups.firsts)[chosen]
        windows["end_unix_ns"][at] = np.maximum(windows["end_unix_ns"][at], ends)
        self._count_kinds(rows.take(groups.number), calls.kind.take(of_groups))

    def _count_kinds(self, row: npt.NDArray[np.intp], kind: npt.NDArray[np.uint16]) -> None:
        """Count calls by kind; *row*: that of each, -1: not this one."""
        column = self._column.take(kind)
        if (column < 0).any():
            fresh = find_distinct(kind[column < 0])
            self._column[fresh] = len(self._kinds) + np.arange(len(fresh))
            self._kinds += fresh.tolist()
            column = self._column.take(kind)
            self._counts = grown(self._counts, len(self._kinds), axis=1)
        at = row * self._counts.shape[1] + column
        if (row < 0).any():
            at = at[row >= 0]
        np.add.at(self._counts.reshape(-1), at, np.uint16(1))

    def close(self, row: int) -> "Summary":
        """Return what a window has; its row is another's from now on."""
        self._free.append(row)
        _, _, calls, errors, _, start_unix_ns, end_unix_ns, _ = self.windows[row].item()
        counts = self._counts[row]
        (columns,) = counts.nonzero()
        by_column = zip(columns.tolist(), counts.take(columns).tolist(), strict=True)
        kinds = [(self._kinds[column], count) for column, count in by_column]
        return Summary(calls, errors, start_unix_ns, end_unix_ns, kinds)


def span_sizes(calls: Calls) -> npt.NDArray[np.int64]:
    """Return i8[n]: about how many bytes each call's span has (otlp/spans.py), without what all have of its program."""
    size = calls.kinds.argument_counts(calls.kind).astype(np.int64)
    size *= _ARGUMENT_BYTES
    size *= calls.has_args
    size += _SPAN_BYTES
    for texts, row in ((calls.paths, calls.path_row), (calls.files, calls.file_row)):
        if len(texts):
            of_call = look_up(texts.length, row)
            size += of_call[:, 0]
            size += of_call[:, 1]
    if len(calls.addresses.texts):
        size += look_up(calls.addresses.texts.length, calls.address_row)
    return size
