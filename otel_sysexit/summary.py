"""
What is kept of a run's calls for the summary at its end: counts, distributions, the longest calls.

In come batches of Calls, column by column; no call becomes a Python object but those that are among the longest.
Memory does not grow with the number of calls. Nothing here knows how the figures are shown.

A call that was kept by sampling counts for all that it stands for, so counts, sums and percentiles are estimates of the whole then.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.distinct import find_distinct
from otel_sysexit.identity import Process
from otel_sysexit.live import describe
from otel_sysexit.sampling import Thresholds
from otel_sysexit.syscalls import KINDS_MAX, Kind, Kinds

I8: TypeAlias = npt.NDArray[np.int64]
F8: TypeAlias = npt.NDArray[np.float64]

LONGEST = 20
"""How many of the longest calls are kept."""
_FAILURES_MAX = 1_000
PROCESSES_MAX = 1000
"""How many processes are kept, the first that were seen."""
_MORE_PROCESSES_MAX = 20_000
_HISTOGRAMS_MAX = 256  # kinds with a distribution of their own, the first that were seen: at most 6 MB
_UNSEEN, _NO_HISTOGRAM = -1, -2
_PERCENTILES = (50, 95, 99)

# A bucket is a power of two divided by 64, read off the bits of a float64: exponent and the first 6 bits of the
# mantissa. Its middle is at most 1/128 of the value away. Bucket 0 is 0 ns; up to 128 ns each is one nanosecond.
_MANTISSA_SHIFT = 52 - 6
_FIRST_BUCKET = 1023 << 6
_BUCKETS = 48 * 64  # up to 2**48 ns = 3.2 days; what lasts longer is in the last
PERCENTILE_ERROR = 1 / 128
"""Largest relative error of a percentile: 0.8 %."""


def _bucket(duration_ns: npt.NDArray[np.uint64]) -> I8:
    bits = duration_ns.astype(np.float64).view(np.int64) >> _MANTISSA_SHIFT
    buckets: I8 = np.clip(bits - (_FIRST_BUCKET - 1), 0, _BUCKETS - 1)
    return buckets


def _bucket_middles() -> npt.NDArray[np.float64]:
    edges = ((np.arange(_BUCKETS + 1, dtype=np.int64) + (_FIRST_BUCKET - 1)) << _MANTISSA_SHIFT).view(
        np.float64
    )
    lowest, highest = np.ceil(edges[:-1]), np.ceil(edges[1:]) - 1  # durations are whole nanoseconds
    middles: npt.NDArray[np.float64] = (lowest + np.maximum(highest, lowest)) / 2
    middles[0] = 0
    return middles


@dataclass(frozen=True, slots=True)
class LongCall:
    """One of the longest calls, with what is needed to show it."""

    start_unix_ns: int
    duration_ns: int
    text: str  # as a line of `--live` shows it
    is_failed: bool
    tid: int
    process: Process


@dataclass(slots=True)
class ProcessFigures:
    """What one process did; times in nanoseconds, summed over its threads."""

    process: Process
    calls: float = 0
    total_ns: float = 0


@dataclass(frozen=True, slots=True)
class KindFigures:
    """
    Figures of one sort of call, or of several together; times in nanoseconds.

    Percentiles are nearest-rank, with a relative error of PERCENTILE_ERROR at most; None when none were kept.
    """

    kinds: tuple[Kind, ...]
    count: int
    errors: int
    total_ns: int
    max_ns: int
    percentiles_ns: tuple[float, float, float] | None  # p50, p95, p99


@dataclass(slots=True)
class _Totals:
    """Columns by kind: index as in Kinds."""

    count: F8 = field(default_factory=lambda: np.zeros(KINDS_MAX))
    errors: F8 = field(default_factory=lambda: np.zeros(KINDS_MAX))
    total_ns: F8 = field(default_factory=lambda: np.zeros(KINDS_MAX))
    max_ns: I8 = field(default_factory=lambda: np.zeros(KINDS_MAX, np.int64))
    histogram: I8 = field(default_factory=lambda: np.full(KINDS_MAX, _UNSEEN, np.int64))  # its row


@dataclass(slots=True)
class FailureFigures:
    """One way in which one kind of call failed."""

    kind: Kind
    errno: int
    count: float = 0
    example: str = ""
    """The last one, written as a line."""


class Statistics:
    """
    Running figures of all calls, and the longest of them.

    Attributes:
        longest: The longest calls, the longest first.
        processes: By (pid, start), in the order in which they were seen.
        start_unix_ns: When the first call began; 0 before any.
        end_unix_ns: When the last call ended; 0 before any.
        kept: How many calls were taken in.
        is_sampled: Whether any of them stands for more than itself: other figures are estimates then.
    """

    def __init__(self) -> None:
        self.longest: list[LongCall] = []
        self.processes: dict[tuple[int, int], ProcessFigures] = {}
        self.start_unix_ns = 0
        self.end_unix_ns = 0
        self.kept = 0
        self.is_sampled = False
        self._failures: dict[int, FailureFigures] = {}
        self._more_processes: set[int] = set()
        self._totals = _Totals()
        self._histograms: F8 = np.zeros((16, _BUCKETS))
        self._histograms_used = 0
        self._kinds: Kinds | None = None

    def add(self, calls: Calls) -> None:
        """Take a batch in: about 0.1 µs a call."""
        if not len(calls):
            return
        self._kinds = calls.kinds
        start = int(calls.start_unix_ns.min())
        self.start_unix_ns = min(self.start_unix_ns or start, start)
        self.end_unix_ns = max(self.end_unix_ns, int((calls.start_unix_ns + calls.duration_ns).max()))
        self.kept += len(calls)
        self.is_sampled = self.is_sampled or bool(calls.threshold.any())
        thresholds = Thresholds(calls.threshold)
        stands_for = (1 / thresholds.probability)[thresholds.row]
        self._add_to_kinds(calls, stands_for)
        self._add_to_processes(calls, stands_for)
        self._add_to_longest(calls)
        self._add_to_failures(calls, stands_for)

    def cover(self, process: Process) -> None:
        """Let the time that is shown reach over the whole life of *process*, filtered calls or none."""
        begin = process.begin_unix_ns
        self.start_unix_ns = min(self.start_unix_ns or begin, begin)
        self.end_unix_ns = max(self.end_unix_ns, process.end_unix_ns or begin)

    def see(self, process: Process) -> None:
        """Take note of a process, or of its latest state, whether or not it has made a call."""
        key = (process.pid, process.start_unix_ns)
        figures = self.processes.get(key)
        if figures is not None:
            figures.process = process
        elif len(self.processes) < PROCESSES_MAX:
            self.processes[key] = ProcessFigures(process)
        elif len(self._more_processes) < _MORE_PROCESSES_MAX:
            self._more_processes.add(hash(key))

    @property
    def calls(self) -> int:
        """How many calls those that were taken in stand for."""
        return round(float(self._totals.count.sum()))

    @property
    def more_processes(self) -> tuple[int, bool]:
        """How many processes beyond those kept were seen, and whether there may be even more."""
        return len(self._more_processes), len(self._more_processes) >= _MORE_PROCESSES_MAX

    def by_kind(self, most: int) -> tuple[list[KindFigures], KindFigures | None]:
        """Return the figures of the kinds with the largest totals, the largest first, and of all others together."""
        seen = np.flatnonzero(self._totals.count)
        order = seen[np.argsort(-self._totals.total_ns[seen], kind="stable")]
        rest = self._together(order[most:]) if len(order) > most else None
        return [self._together(order[i : i + 1]) for i in range(min(most, len(order)))], rest

    def failures(self, most: int) -> list[FailureFigures]:
        """Return the most frequent failures, the most frequent first."""
        return sorted(self._failures.values(), key=lambda one: (-one.count, one.kind.name, one.errno))[:most]

    def _add_to_failures(self, calls: Calls, stands_for: F8) -> None:
        rows = np.flatnonzero(calls.outcome == Outcome.FAILED)[::-1]
        packed = calls.kind[rows].astype(np.int64) << 12 | calls.errno[rows]
        found, lasts, places = np.unique(packed, return_index=True, return_inverse=True)
        counts = np.bincount(places, stands_for[rows], len(found))
        texts = describe(calls, rows[lasts].tolist())
        for key, count, text in zip(found.tolist(), counts.tolist(), texts, strict=True):
            figures = self._failures.get(key)
            if figures is None:
                if len(self._failures) >= _FAILURES_MAX:
                    continue
                figures = self._failures[key] = FailureFigures(calls.kinds[key >> 12], key & 0xFFF)
            figures.count += count
            figures.example = text

    def _together(self, indices: npt.NDArray[np.intp]) -> KindFigures:
        totals = self._totals
        max_ns = int(totals.max_ns[indices].max())
        rows = totals.histogram[indices]
        histogram = self._histograms[rows[rows >= 0]].sum(axis=0)
        return KindFigures(
            kinds=tuple(self._kinds[index] for index in indices.tolist()) if self._kinds else (),
            count=round(totals.count[indices].sum()),
            errors=round(totals.errors[indices].sum()),
            total_ns=round(totals.total_ns[indices].sum()),
            max_ns=max_ns,
            percentiles_ns=_percentiles(histogram, max_ns),
        )

    def _add_to_kinds(self, calls: Calls, stands_for: F8) -> None:
        totals = self._totals
        kind = calls.kind.astype(np.intp)
        duration_ns = calls.duration_ns.astype(np.int64)
        failed = calls.outcome == Outcome.FAILED
        totals.count += np.bincount(kind, stands_for, KINDS_MAX)
        totals.errors += np.bincount(kind[failed], stands_for[failed], KINDS_MAX)
        totals.total_ns += np.bincount(kind, duration_ns * stands_for, KINDS_MAX)
        np.maximum.at(totals.max_ns, kind, duration_ns)
        rows = totals.histogram[kind]
        if (rows == _UNSEEN).any():
            self._make_histograms(find_distinct(kind[rows == _UNSEEN]))
            rows = totals.histogram[kind]
        places = rows * _BUCKETS + _bucket(calls.duration_ns)
        has_histogram = rows >= 0
        np.add.at(self._histograms.reshape(-1), places[has_histogram], stands_for[has_histogram])

    def _make_histograms(self, kinds: npt.NDArray[np.intp]) -> None:
        """Give each kind a row, as long as there are any."""
        used = self._histograms_used
        new = min(len(kinds), _HISTOGRAMS_MAX - used)
        self._totals.histogram[kinds[new:]] = _NO_HISTOGRAM
        self._totals.histogram[kinds[:new]] = np.arange(used, used + new)
        self._histograms_used += new
        if self._histograms_used > len(self._histograms):
            grown = np.zeros((min(2 * self._histograms_used, _HISTOGRAMS_MAX), _BUCKETS))
            grown[:used] = self._histograms[:used]
            self._histograms = grown

    def _add_to_processes(self, calls: Calls, stands_for: F8) -> None:
        counts = np.bincount(calls.thread, stands_for, len(calls.threads))
        totals = np.bincount(calls.thread, calls.duration_ns * stands_for)
        present = np.flatnonzero(counts)
        for index, count, total in zip(
            present.tolist(), counts[present].tolist(), totals[present].tolist(), strict=True
        ):
            process = calls.threads[index].process
            self.see(process)
            figures = self.processes.get((process.pid, process.start_unix_ns))
            if figures is not None:
                figures.calls += count
                figures.total_ns += total

    def _add_to_longest(self, calls: Calls) -> None:
        shortest_ns = self.longest[-1].duration_ns if len(self.longest) == LONGEST else 0
        rows = np.flatnonzero(calls.duration_ns > shortest_ns)
        if not len(rows):
            return
        if len(rows) > LONGEST:
            rows = rows[np.argpartition(calls.duration_ns[rows], len(rows) - LONGEST)[-LONGEST:]]
        self.longest += _long_calls(calls, rows.tolist())
        self.longest.sort(key=lambda call: (-call.duration_ns, call.start_unix_ns))
        del self.longest[LONGEST:]


def _long_calls(calls: Calls, rows: list[int]) -> Iterable[LongCall]:
    for row, text in zip(rows, describe(calls, rows), strict=True):
        thread = calls.threads[calls.thread[row]]
        yield LongCall(
            start_unix_ns=int(calls.start_unix_ns[row]),
            duration_ns=int(calls.duration_ns[row]),
            text=text,
            is_failed=bool(calls.outcome[row] == Outcome.FAILED),
            tid=thread.tid,
            process=thread.process,
        )


def _percentiles(histogram: F8, max_ns: int) -> tuple[float, float, float] | None:
    cumulated = np.cumsum(histogram)
    count = cumulated[-1]
    if not count:
        return None
    ranks = [percent * count / 100 for percent in _PERCENTILES]
    p50, p95, p99 = np.minimum(_bucket_middles()[np.searchsorted(cumulated, ranks)], max_ns).tolist()
    return p50, p95, p99
