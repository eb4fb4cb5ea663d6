"""
Calls that have not returned yet: which of them to report now, and in what words.

In: slots of calls in flight (dtype SLOT), and times of the boot clock. Out: the slots that are due, and these described.
Nothing is kept of a call: whether it is due follows from when it began and when was looked last.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from otel_sysexit.identity import Thread
from otel_sysexit.kernel.records import SAMPLED_OUT_AT_ENTER
from otel_sysexit.syscalls import Abi, Kind, Kinds, number_of


@dataclass(frozen=True, slots=True)
class CallInFlight:
    """A call that has not returned."""

    thread: Thread
    kind: Kind
    start_unix_ns: int
    elapsed_ns: int

    def line(self) -> str:
        """Return it in words: ``fsync in postgres[812] for 31 s``; a thread that is not the leader has its id there, too."""
        process = self.thread.process
        restarts = f" of {self.kind.restarts}" if self.kind.restarts else ""
        thread = f" (thread {self.thread.tid})" if self.thread.tid != process.pid else ""
        elapsed = _format_elapsed(self.elapsed_ns)
        return f"{self.kind.name}{restarts} in {process.name}[{process.pid}]{thread} for {elapsed}"


def _format_elapsed(elapsed_ns: int) -> str:
    """Return whole seconds; less than one in ms."""
    return f"{elapsed_ns // 10**9} s" if elapsed_ns >= 10**9 else f"{elapsed_ns / 1e6:.3g} ms"


class StuckCalls:
    """Finds calls that take longer than a threshold: each once, and again whenever its time has doubled."""

    def __init__(self, threshold_ns: int, now_ns: int) -> None:
        """*now_ns*: when the first look's time begins."""
        self._threshold_ns = threshold_ns
        self._looked_ns = now_ns

    def due(self, slots: npt.NDArray[Any], now_ns: int) -> npt.NDArray[Any]:
        """
        Return the slots of the calls that passed the threshold, or doubled it once more, since the last look.

        Args:
            slots: dtype SLOT, read no earlier than *now_ns*.
            now_ns: Of the boot clock, not before that of the last look.
        """
        slots = all_in_flight(slots)
        is_due = self._doublings(slots, now_ns) > self._doublings(slots, self._looked_ns)
        self._looked_ns = now_ns
        return slots[is_due]

    def _doublings(self, slots: npt.NDArray[Any], at_ns: int) -> npt.NDArray[np.int32]:
        """Return 0 below the threshold, 1 from there on, 2 from twice as long on, 3 from four times."""
        multiples = elapsed(slots, at_ns) // self._threshold_ns
        exponents: npt.NDArray[np.int32] = np.frexp(multiples.astype(np.float64))[1]
        return exponents


def all_in_flight(slots: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return the slots (dtype SLOT) whose call is in flight and was not sampled out."""
    return slots[slots["start_ns"] > SAMPLED_OUT_AT_ENTER]


def elapsed(slots: npt.NDArray[Any], at_ns: int) -> npt.NDArray[np.int64]:
    """Return for how many ns each call had been in flight at a time of the boot clock; 0 before its start."""
    return np.maximum(at_ns - slots["start_ns"].astype(np.int64), 0)


def describe(
    slots: npt.NDArray[Any],
    now_ns: int,
    boot_to_unix_ns: int,
    kinds: Kinds,
    find_thread: Callable[[int, int], Thread | None],
) -> list[CallInFlight]:
    """
    Return what *slots* (dtype SLOT) say, the longest in flight first.

    Args:
        slots: Of calls in flight, as `due` and `all_in_flight` return them.
        now_ns: Of the boot clock.
        boot_to_unix_ns: What turns that into wall-clock time.
        kinds: Gives each call its name.
        find_thread: Gives the thread for tgid and tid; None where the process has ended, and the call with it.
    """
    slots = slots[np.argsort(slots["start_ns"], kind="stable")]
    is_restart = slots["nr"] == _restart_numbers()[slots["abi"]]
    kind = kinds.index(slots["abi"], slots["nr"], np.where(is_restart, slots["interrupted_nr"], np.int32(-1)))
    columns = (slots["tgid"], slots["tid"], kind, slots["start_ns"], elapsed(slots, now_ns))
    found = []
    for tgid, tid, index, start_ns, elapsed_ns in zip(*(column.tolist() for column in columns), strict=True):
        thread = find_thread(tgid, tid)
        if thread is not None:
            found.append(CallInFlight(thread, kinds[index], start_ns + boot_to_unix_ns, elapsed_ns))
    return found


@cache
def _restart_numbers() -> npt.NDArray[np.int32]:
    """Return restart_syscall's number by ABI; each has it, i386 as 0."""
    return np.array([number_of("restart_syscall", abi) for abi in Abi], np.int32)
