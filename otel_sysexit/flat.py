"""
Each call its own trace.

Nothing is lost when a back end drops or cuts large traces, and what is sampled is sampled call by call: best for statistics.
"""

import secrets
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls
from otel_sysexit.identity import Process
from otel_sysexit.joining import join
from otel_sysexit.traces import Ids, Placement, Span, Totals

_RANDOMNESS_BITS: Final = 56
_THRESHOLD_SHIFT: Final = 24
"""Thresholds are the upper 32 of those bits (sampling.py)."""


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
        least = threshold.astype(np.uint64) << np.uint64(_THRESHOLD_SHIFT)
        randomness = self._ids.random.integers(least, 1 << _RANDOMNESS_BITS, dtype=np.uint64)
        out = np.empty((len(threshold), 16), np.uint8)
        out[:, 8:] = randomness.astype(">u8").view(np.uint8).reshape(-1, 8)
        out[:, :9] = np.frombuffer(secrets.token_bytes(9 * len(threshold)), np.uint8).reshape(-1, 9)
        return out

    def end(self, processes: Iterable[Process]) -> None:
        """Nothing: a process has no span."""

    def tick(self, now_unix_ns: int, totals: Totals) -> None:
        """Nothing is open."""

    def finish(self, living: Iterable[Process], now_unix_ns: int) -> None:
        """Nothing is open."""

    def take_spans(self) -> list[Span]:
        """Return none."""
        return []
