"""
The threads that run already: which of them are targets, by /proc, and how they become so without a gap.

The kernel decides at fork and exec; what was there before is found here and judged by the same rules. In: `Targets` and
/proc. Out: slots in the kernel, through `Slots`, and who got one.
"""

from collections.abc import Collection, Iterator
from enum import Enum
from pathlib import Path
from typing import NamedTuple, Protocol

from otel_sysexit.procfs import PROC, ProcessFacts, ThreadFacts, list_ids, read_tgid
from otel_sysexit.targets import Criteria, Targets, glob_matches


class Standing(Enum):
    """What a thread is to us."""

    STRANGER = 0
    """Not chosen, or it cannot make calls (any more)."""
    TARGET = 1
    EXCLUDED = 2
    """Chosen, but left out now; its children are followed, and an exec may make it a target."""


class FoundThread(NamedTuple):
    """A running thread that is no stranger."""

    tgid: int
    tid: int
    standing: Standing


class Slots(Protocol):
    """Where the kernel keeps who is a target."""

    def add_thread(self, tid: int, *, is_excluded: bool) -> bool:
        """Give the thread a slot; return whether it had none: what the kernel decided itself stays."""

    def remove_thread(self, tid: int) -> None:
        """Take its slot away, if it has one."""


class Scan:
    """A look at the running threads that goes on until nobody is missing."""

    def __init__(self, targets: Targets, own_pids: Collection[int], proc: Path = PROC) -> None:
        """
        Prepare to look for *targets*; nothing is read yet.

        Args:
            targets: Who is looked for.
            own_pids: Processes that are never targets, whatever was chosen: the agent and its loader.
            proc: Where procfs is mounted.
        """
        self._targets = targets
        self._own_pids = frozenset(own_pids)
        self._proc = proc
        self._seen: set[int] = set()

    def new_threads(self) -> Iterator[FoundThread]:
        """
        Yield the targets among the processes that were not there at the last look, and those left out for now.

        A process's threads are listed until no new one appears, so that each thread is given its slot before the last
        listing: who is born later is born to a thread with a slot.
        """
        pids = self._processes() - self._seen - self._own_pids
        self._seen |= pids
        for pid in sorted(pids):
            process = ProcessFacts(pid, self._proc)
            known: set[int] = set()
            while new := self._threads(pid) - known:
                known |= new
                found = [FoundThread(pid, tid, self._judge(ThreadFacts(process, tid))) for tid in sorted(new)]
                found = [thread for thread in found if thread.standing is not Standing.STRANGER]
                if not found:
                    break
                yield from found

    def standing(self, tgid: int, tid: int) -> Standing:
        """Return what the thread is now."""
        if tgid in self._own_pids:
            return Standing.STRANGER
        return self._judge(ThreadFacts(ProcessFacts(tgid, self._proc), tid))

    def may_grow(self) -> bool:
        """
        Return whether a running thread that is none, or a program yet to come, can become a target.

        Where processes or threads were named, only while one of them runs.
        """
        chosen = self._targets.chosen
        if not chosen.pids and not chosen.tids:
            return self._targets.is_all or not chosen.is_empty()
        return any(
            ThreadFacts(ProcessFacts(pid, self._proc), tid).is_running()
            for pid in self._processes()
            for tid in self._threads(pid)
        )

    def _processes(self) -> set[int]:
        """Return the processes that can have targets."""
        chosen = self._targets.chosen
        if chosen.tids:
            return {tgid for tid in chosen.tids if (tgid := read_tgid(tid, self._proc)) is not None}
        if chosen.pids:
            return set(chosen.pids)
        if chosen.is_empty() and not self._targets.is_all:  # a command's only
            return set()
        return list_ids(str(self._proc))

    def _threads(self, pid: int) -> set[int]:
        tids = list_ids(f"{self._proc}/{pid}/task")
        return tids & self._targets.chosen.tids if self._targets.chosen.tids else tids

    def _judge(self, thread: ThreadFacts) -> Standing:
        targets = self._targets
        if not all(_answers(targets.chosen, thread)):
            return Standing.STRANGER
        is_excluded = any(_answers(targets.excluded, thread))
        if (is_excluded and not targets.follows_children) or not thread.is_running():
            return Standing.STRANGER
        return Standing.EXCLUDED if is_excluded else Standing.TARGET


def _answers(criteria: Criteria, thread: ThreadFacts) -> Iterator[bool]:
    """Yield for each kind that is asked for whether *thread* has one of the values; what costs least comes first."""
    if criteria.pids:
        yield thread.tgid in criteria.pids
    if criteria.tids:
        yield thread.tid in criteria.tids
    if criteria.comms:
        yield thread.process.comm in criteria.comms or thread.comm in criteria.comms
    if criteria.exe_globs:
        path = thread.executable
        yield path is not None and any(glob_matches(glob, path) for glob in criteria.exe_globs)
    if criteria.cgroups:
        yield any(cgroup.contains(thread.cgroups.get(cgroup.controllers)) for cgroup in criteria.cgroups)
    if criteria.uids:
        yield thread.uid in criteria.uids


def take_up(scan: Scan, slots: Slots) -> list[FoundThread]:
    """
    Give every running target its slot, and return who is known to have one.

    To be called when the kernel's hooks for fork, exec and exit are attached. Nobody is missed: looks are repeated until
    one gives no slot away, and then whoever was born meanwhile was born to a thread with a slot; whoever became a
    match by exec, the kernel saw. Nobody has a slot wrongly: each is judged again once it has it.
    """
    taken: list[FoundThread] = []
    is_complete = False
    while not is_complete:
        is_complete = True
        for found in scan.new_threads():
            standing, is_new = _settle(scan, slots, found)
            if standing is not Standing.STRANGER:
                taken.append(FoundThread(found.tgid, found.tid, standing))
                is_complete = is_complete and not is_new
    return taken


def _settle(scan: Scan, slots: Slots, found: FoundThread) -> tuple[Standing, bool]:
    """
    Give a thread its slot; return what it is then, and whether it was we who gave it.

    Between the look and the slot it may have ended or become another by exec; the hooks found no slot to change. From
    the slot on they see everything, so what is found after that stands. The same goes for a slot taken away again.
    """
    standing = found.standing
    while standing is not Standing.STRANGER:
        if not slots.add_thread(found.tid, is_excluded=standing is Standing.EXCLUDED):
            return standing, False
        now = scan.standing(found.tgid, found.tid)
        if now is standing:
            return standing, True
        slots.remove_thread(found.tid)
        standing = scan.standing(found.tgid, found.tid)
    return standing, False
