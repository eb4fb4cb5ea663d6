"""
Each call its own trace.

Nothing is lost when a back end drops or cuts large traces, and what is sampled is sampled call by call: best for statistics.
"""

import os
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from otel_sysexit import sampling
from otel_sysexit.calls import Calls
from otel_sysexit.identity import Process
from otel_sysexit.joining import join
from otel_sysexit.traces import Ids, Placement, Spans, Totals

_THRESHOLD_SHIFT: Final = np.uint64(24)
"""Thresholds are the upper 32 of the 56 bits of a trace's randomness (sampling.py)."""
_BELOW_THRESHOLDS: Final = np.uint64((1 << 24) - 1)
_HALF: Final = np.uint64(32)
_WHOLE: Final = np.uint64(sampling.WHOLE)


class Flat:
    """Every call is a root; nothing else has a span."""

    def __init__(self) -> None:
        self._ids = Ids()

    def set_root(self, process: Process) -> None:
        """Nothing: all processes are alike."""

    def place(self, calls: Calls) -> Placement:
        """Give each call that is in no other trace an id of its own, whose randomness reaches the call's threshold."""
        count = len(calls)
        alone = Placement(
            span_id=self._ids.span_ids(count),
            context=np.arange(count, dtype=np.uint32),
            trace_id=self._trace_ids(calls.threshold),
            parent_span_id=np.zeros(count, np.uint64),
        )
        return join(calls, alone)

    def _trace_ids(self, threshold: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
        """Return u1[n, 16]: nine random bytes, then 56 bits of randomness from the threshold on (`sampling.make_trace_id`)."""
        bits = self._ids.span_ids(len(threshold))
        least = threshold.astype(np.uint64)
        # The upper half scaled to what is left above the threshold: even but for 2**-32 of it.
        upper = least + ((bits >> _HALF) * (_WHOLE - least) >> _HALF)
        randomness = upper << _THRESHOLD_SHIFT | bits & _BELOW_THRESHOLDS
        out = np.empty((len(threshold), 16), np.uint8)
        out[:, 8:] = randomness.astype(">u8").view(np.uint8).reshape(-1, 8)
        out[:, :9] = np.frombuffer(os.urandom(9 * len(threshold)), np.uint8).reshape(-1, 9)
        return out

    def end(self, processes: Iterable[Process]) -> None:
        """Nothing: a process has no span."""

    def tick(self, now_unix_ns: int, totals: Totals) -> None:
        """Nothing is open."""

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:
        """Nothing is open."""

    def take_spans(self) -> Spans:
        """Return none."""
        return Spans()
