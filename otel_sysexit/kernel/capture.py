"""
The agent's side of the kernel: take over rings, maps and links, tell who is a target, read the ledger.

In: a `Request` and the descriptors that the loader has handed over. Out: rings (of calls, strings, files, tasks, exec strings) and the ledger.
"""

import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from otel_sysexit.errors import AgentError
from otel_sysexit.kernel import records
from otel_sysexit.kernel.maps import Map, possible_cpus, wait_for_running_programs
from otel_sysexit.kernel.names import LINKS
from otel_sysexit.kernel.request import TASKS_BYTES, Request
from otel_sysexit.kernel.ring import Ring
from otel_sysexit.kernel.rings import Rings
from otel_sysexit.kernel.slots import Slots


class Capture:
    """
    Programs at work in the kernel.

    They stay attached as long as this process holds the links; when it dies, the kernel detaches them.
    """

    def __init__(self, request: Request, fds: Sequence[int]) -> None:
        """Take over the descriptors of the *request*'s maps, of `LINKS`, and of the programs of `LINKS`."""
        names = request.maps
        maps = dict(zip(names, fds[: len(names)], strict=True))
        self._links = dict(zip(LINKS, fds[len(names) : -len(LINKS)], strict=True))
        self._programs = fds[-len(LINKS) :]
        self.calls_fds = [maps[name] for name in request.calls_rings]
        dtype = records.call_dtype(has_span=request.has_spans)
        self.calls = Rings([Ring.from_fd(fd, request.calls_ring_bytes, dtype) for fd in self.calls_fds])
        self.string_dtype = records.string_dtype(request.string_limit)
        self.strings = Ring.from_fd(maps["strings"], request.strings_bytes, self.string_dtype)
        self.tasks = Ring.from_fd(maps["tasks"], TASKS_BYTES, records.TASK)
        self.exec_strings = Ring.from_fd(maps["exec_strings"], TASKS_BYTES, self.string_dtype)
        self.files = Ring.from_fd(maps["files"], TASKS_BYTES, self.string_dtype)
        self._slots = Slots(
            *(maps["pending"], maps["pending_owners"], maps["pending_others"]),
            request.pending_places,
            records.place_dtype(has_span=request.has_spans),
        )
        self.cgroup_subsystem = request.cgroup_subsystem
        self._calls_cut_off = 0
        self._cpus = possible_cpus()
        self._ledger = Map(maps["ledger"], 4, 8 * self._cpus)
        self._is_closing = Map(maps["is_closing"], 4, 4)
        self._rate = Map(maps["rate"], 4, records.RATE.itemsize)

    def share_used(self) -> float:
        """Return how full the fullest ring is that calls write to, 0 to 1."""
        return max(ring.share_used() for ring in (self.calls, self.strings, self.files))

    def launch_thread(self, tid: int) -> None:
        """Make the command's thread *tid* (as the initial pid namespace has it) a target from its execve on."""
        self._add_slot(tid, records.SlotState.LAUNCHING)

    def add_thread(self, tid: int, *, is_excluded: bool) -> bool:
        """
        Make the running thread *tid* a target, or one that is left out for now; one that is either stays as it is.

        Returns:
            Whether it was neither.

        Raises:
            AgentError: no more threads can be followed.
        """
        return self._add_slot(tid, records.SlotState.EXCLUDED if is_excluded else records.SlotState.ATTACHED)

    def remove_thread(self, tid: int) -> None:
        """Make *tid* no target, if it is one; a call that it is in has no end that could be seen."""
        self._calls_cut_off += self._slots.remove(tid)

    def _add_slot(self, tid: int, state: records.SlotState) -> bool:
        try:
            return self._slots.add(tid, state)
        except OSError as error:
            raise AgentError(f"cannot follow thread {tid}: {error.strerror}") from error

    def has_targets(self) -> bool:
        """Whether any thread is a target now."""
        return not self._slots.is_empty()

    def in_flight(self) -> npt.NDArray[Any]:
        """Return the slots of the calls that have not returned yet, but for those that were sampled out."""
        return self._slots.in_flight()

    def ledger(self) -> dict[records.Ledger, int]:
        """Return every counter, summed over the CPUs; what we cut off ourselves is among it."""
        layout = f"={self._cpus}Q"
        counts = {
            entry: sum(struct.unpack(layout, self._ledger.lookup(struct.pack("=I", entry)) or b""))
            for entry in records.Ledger
        }
        counts[records.Ledger.DROPPED_OVERWRITTEN] += self._calls_cut_off
        return counts

    def skipped_runs(self) -> int:
        """
        Return how many runs of our programs the kernel skipped: whatever they would have told is missing.

        It skips a program that is already running on the same CPU, as it may be where programs can be preempted; and perf's
        programs while bpf(2) is at work on a map there. Strangers' calls are among them.
        """
        lines = (
            line.split()
            for fd in self._programs
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
        )
        return sum(int(count) for name, count, *_ in lines if name == "recursion_misses:")  # since Linux 5.12

    def set_rate(self, threshold: int, budget: int, kept_budget: int) -> None:
        """Say at what threshold calls are sampled from now on, and how many may be emitted until the next word."""
        word = np.zeros(1, records.RATE)
        word["threshold"], word["budget"], word["kept_budget"] = threshold, budget, kept_budget
        self._rate.update(struct.pack("=I", 0), word.tobytes())

    def rate_spent(self) -> int:
        """Return how many sampled calls were emitted since `set_rate`."""
        word = np.frombuffer(self._rate.lookup(struct.pack("=I", 0)) or b"", records.RATE)
        return int(word["emitted"].sum())

    def close_links(self) -> None:
        """
        Detach every program; counters and rings stay readable and change no more.

        sys_enter goes first: what it has not seen, sys_exit must then not take for a call that seccomp skipped.
        """
        if not self._links:
            return
        self._is_closing.update(struct.pack("=I", 0), struct.pack("=I", 1))
        for name in reversed(LINKS):
            os.close(self._links.pop(name))
            if name == "sys_enter":
                wait_for_running_programs()
        wait_for_running_programs()
