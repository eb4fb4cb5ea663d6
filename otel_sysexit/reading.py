"""
Rings → identified calls: what is read when, so that whatever a call refers to is there.

In: a `Capture`. Out: batches of `Calls` with their threads; processes that ended are in `Processes`. It knows nothing
of traces, exporters or terminals.
"""

import time
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls, Decoder
from otel_sysexit.kernel.capture import Capture
from otel_sysexit.kernel.ring import Ring
from otel_sysexit.processes import Processes

_BUSY_SECONDS: Final = 0.1
"""How long a record that is being written on another CPU is waited for; a virtual one may be taken away meanwhile."""
_PAUSE_SECONDS: Final = 0.0001
_RECORDS_AT_ONCE: Final = 4_096
"""Of each ring, while something is missing."""


def _read_on(ring: Ring, limit: int) -> Iterator[npt.NDArray[Any]]:
    """Yield what *ring* holds now, *limit* records at most at a time, those included that are being written; not what comes meanwhile."""
    produced = ring.produced
    end = time.monotonic() + _BUSY_SECONDS
    while ring.consumed < produced:
        before = ring.consumed
        yield ring.read(limit)
        if ring.consumed != before:
            end = time.monotonic() + _BUSY_SECONDS
        elif time.monotonic() >= end:
            return
        else:
            time.sleep(_PAUSE_SECONDS)


def _read_all(ring: Ring) -> npt.NDArray[Any]:
    """Return all records of *ring* that were there when this began."""
    parts = [ring.read(ring.waiting()), *_read_on(ring, _RECORDS_AT_ONCE)]
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


class Reader:
    """Reads the rings of one capture."""

    def __init__(self, capture: Capture, decoder: Decoder, processes: Processes) -> None:
        """Fill *processes* and decode with *decoder*, which keep what later calls will ask for."""
        self._capture = capture
        self._decoder = decoder
        self._processes = processes

    def read(self, limit: int) -> Calls:
        """Return the next *limit* calls at most, and take in what happened to tasks until now."""
        capture = self._capture
        # In this order: what a call or a task refers to is submitted before it, so it is read after it.
        if not (
            (limit and capture.calls.waiting()) or capture.tasks.waiting() or capture.exec_strings.waiting()
        ):
            return self._decoder.no_calls  # most rounds of an idle agent
        calls = capture.calls.read(limit)
        tasks = _read_all(capture.tasks)
        produced = capture.calls.produced
        exec_strings = _read_all(capture.exec_strings)
        if len(tasks) or len(exec_strings):
            self._processes.learn(tasks, self._decoder.strings.take_execs(tasks, exec_strings), produced)
        if not len(calls):
            return self._decoder.no_calls
        self._read_strings(calls)
        self._read_files(calls)
        return self._processes.identify(self._decoder.decode(calls))

    def _read_files(self, calls: npt.NDArray[Any]) -> None:
        """Read what *calls* (dtype CALL) may name; the others wait in their ring, as the calls that name them do in theirs."""
        files = self._decoder.files
        pieces = _read_on(self._capture.files, _RECORDS_AT_ONCE)
        while files.lacks(calls["files"]) and (piece := next(pieces, None)) is not None:
            files.add(piece)

    def _read_strings(self, calls: npt.NDArray[Any]) -> None:
        """Read what *calls* (dtype CALL) name; wait a moment for what another CPU is just writing."""
        ring, strings = self._capture.strings, self._decoder.strings
        strings.add(ring.read(strings.wanted(calls)))
        pieces = _read_on(ring, _RECORDS_AT_ONCE)
        while strings.lacks(calls) and (piece := next(pieces, None)) is not None:
            strings.add(piece)
