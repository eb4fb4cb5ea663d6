"""
Task records and /proc → who made each call.

In: TASK records with their strings, and batches of calls. Out: for each call the thread, program and process it belongs
to, as they were when the call ended; and the processes that ended. What the kernel said at fork and exec comes first;
/proc adds what it still knows of a process that lives.
"""

import sys
import time
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import psutil

from otel_sysexit.calls import Calls, number_owners
from otel_sysexit.cgroups import Membership
from otel_sysexit.containers import CgroupIndex, read_membership
from otel_sysexit.contexts import ContextWatch
from otel_sysexit.distinct import index_distinct
from otel_sysexit.environment import parse_resource_attributes
from otel_sysexit.identity import Image, Process, Thread
from otel_sysexit.images import (
    START_TICK_NS,
    UNKNOWN,
    Facts,
    make_image,
    read_command_args,
    read_start_boot_ns,
    read_vpid,
    readable,
)
from otel_sysexit.kernel.records import TaskKind
from otel_sysexit.propagation import parse_trace_context
from otel_sysexit.settled import SettledThreads
from otel_sysexit.strings import ExecStrings
from otel_sysexit.timelines import Timeline

_PATIENCE_S: Final = 1.0
"""How long a process that ended is kept for threads that have not said that they did: their records may be lost."""


class _Dying(NamedTuple):
    """A process that ended, told when the ring of calls was read up to *position*."""

    position: int
    threads: set[int]
    """Those whose ends are waited for; shared with the timeline until another process has the pid."""
    patience_until: float
    """Of time.monotonic(): for how long."""


class _Stray(NamedTuple):
    """The end of a process that nobody has heard of yet, told when the ring of calls was read up to *position*."""

    position: int
    task: Any
    """A TASK record."""


class _Superseded(NamedTuple):
    """Something that no call asks for once the ring of calls was read up to *position*."""

    position: int
    timeline: Timeline
    pid: int
    tid: int
    time_ns: int
    is_gone: bool


class Processes:
    """All processes that are targets, or were until a moment ago."""

    def __init__(
        self, boot_to_unix_ns: int, *, has_command_args: bool = False, has_cgroup: bool = False
    ) -> None:
        """
        Know nobody.

        Args:
            boot_to_unix_ns: Turns start times of the boot clock into wall-clock times, the same for all.
            has_command_args: Whether whole command lines are wanted.
            has_cgroup: Whether paths of cgroups are.
        """
        self._has_command_args = has_command_args
        self._has_cgroup = has_cgroup
        self._boot_to_unix_ns = boot_to_unix_ns
        self._timelines: dict[int, Timeline] = {}
        self._settled = SettledThreads()
        """What a thread is whatever the time, until its timeline changes."""
        self._dying: dict[Process, _Dying] = {}
        """By when they were told."""
        self._superseded: deque[_Superseded] = deque()
        self._strays: dict[int, _Stray] = {}
        """By pid."""
        self._launched: Process | None = None
        self._contexts = ContextWatch()
        self.cgroups: CgroupIndex | None = None
        """What cgroups mean that the kernel side tells of; None: it does not."""
        self.bad_trace_contexts = 0
        """How many programs had a TRACEPARENT that is none."""

    def add_running(self, pid: int) -> Process:
        """
        Take up a process that runs already, from /proc.

        Raises:
            psutil.NoSuchProcess: it is gone.
        """
        found = psutil.Process(pid)
        process = self._make_process(pid, read_start_boot_ns(pid) or 0, found.ppid(), read_vpid(pid))
        users, groups, threads = found.uids(), found.gids(), found.threads()
        timeline = Timeline()
        self._add_image(
            timeline, process, 0, None, Facts(users.effective, users.real, groups.effective, groups.real)
        )
        for thread in threads:
            timeline.names[thread.id] = [(0, _read_comm(pid, thread.id))]
            timeline.threads.add(thread.id)
        self._unsettle(self._timelines.get(pid))
        self._timelines[pid] = timeline  # complete only: the process may be gone at any time
        return process

    def _make_process(
        self, pid: int, start_boot_ns: int, parent_pid: int | None, vpid: int | None
    ) -> Process:
        return Process(
            pid,
            start_boot_ns + self._boot_to_unix_ns,
            parent_pid,
            start_ticks=start_boot_ns // START_TICK_NS,
            vpid=vpid,
        )

    def add_thread(self, pid: int, tid: int) -> None:
        """Take up a running thread of a process that is known."""
        timeline = self._timelines[pid]
        self._unsettle_thread(pid, tid)
        timeline.names.setdefault(tid, [(0, _read_comm(pid, tid))])
        timeline.threads.add(tid)

    def learn(self, tasks: npt.NDArray[Any], exec_strings: Mapping[int, ExecStrings], produced: int) -> None:
        """
        Take in what happened.

        Args:
            tasks: dtype TASK, in the order of the ring.
            exec_strings: What was executed, by row of *tasks*.
            produced: Position in the ring of calls before which every call of a process that ended here lies.
        """
        for row, task in enumerate(tasks):
            kind, tid, time_ns = int(task["kind"]), int(task["tid"]), int(task["time_ns"])
            pid = int(task["tgid"])
            timeline = self._timelines.get(pid)
            if timeline is None and kind == TaskKind.END:
                # Its calls are yet to be read; or it was told already: two threads that end at once may both look like the last.
                if task["is_last"]:
                    self._strays[pid] = _Stray(produced, task.copy())
                continue
            if kind in (TaskKind.PROCESS_START, TaskKind.EXEC):
                self._unsettle(timeline)
            else:
                self._unsettle_thread(pid, tid)
            if timeline is None or kind == TaskKind.PROCESS_START:
                timeline = self._start(task, time_ns, produced)
            if kind in (TaskKind.EXEC, TaskKind.END):
                timeline.threads.discard(int(task["previous_tid"]))
            if kind == TaskKind.EXEC:
                self._exec(timeline, task, exec_strings.get(row))
            if kind == TaskKind.END:
                self._end(timeline, task, produced)
            else:
                timeline.threads.add(tid)
                timeline.names.setdefault(tid, []).append((time_ns, _text(task["comm"])))
            if kind not in (TaskKind.PROCESS_START, TaskKind.THREAD_START):
                # An exec by a thread that is not the leader gives it the leader's id; its own is gone.
                gone = int(task["previous_tid"])
                is_gone = kind == TaskKind.END or gone != tid
                self._superseded.append(_Superseded(produced, timeline, pid, gone, time_ns, is_gone))

    def _start(self, task: Any, time_ns: int, produced: int) -> Timeline:
        """A process is born with its parent's program; or we hear of it for the first time. Who had its pid before is over, though that was not told."""
        pid, parent_pid = int(task["tgid"]), int(task["parent_tgid"])
        self._strays.pop(pid, None)
        parent_timeline = self._timelines.get(parent_pid)
        parent_image = parent_timeline.image_at(time_ns) if parent_timeline else None
        process = self._make_process(pid, int(task["start_ns"]), parent_pid, int(task["vpid"]))
        timeline = self._timelines.get(pid)
        if timeline is None:
            timeline = self._timelines[pid] = Timeline()
        elif timeline.images:
            self._displace(timeline.images[-1][1].process, process, produced)
        timeline.threads = set()  # not emptied: another process of this pid may be dying still
        if parent_image is None:
            self._add_image(timeline, process, time_ns, None, Facts.of(task))
        else:
            process.parent = parent_image.process
            self._shorten_ancestry(process.parent)
            # What its parent publishes is in memory that a child does not inherit (OTEP 4719: MADV_DONTFORK).
            process.image = replace(
                parent_image,
                process=process,
                executed_by=parent_image.executed_by or parent_image.process,
                cgroup=int(task["cgroup"]),
                context_attributes={},
            )
            self._note_container(process.image, parent_image)
            self._note_cgroup(process.image)
            self._contexts.add(process.image)
            timeline.images.append((time_ns, process.image))
        return timeline

    def _displace(self, before: Process, process: Process, produced: int) -> None:
        """Let *before* be over, if *process* has its pid now and was not it: its end was lost."""
        is_other = before.start_ticks not in (0, process.start_ticks)
        if is_other and before.end_unix_ns is None:
            before.end_unix_ns = process.start_unix_ns
            self._dying[before] = _Dying(produced, set(), 0.0)

    def _shorten_ancestry(self, process: Process) -> None:
        """Let those go of the ended ones above *process* that nobody but the next one needs: who forks and ends, again and again, keeps none."""
        while (above := process.parent) is not None and above.parent is not None and self._is_over(above):
            process.parent = above.parent

    def _is_over(self, process: Process) -> bool:
        return process.end_unix_ns is not None and process not in self._dying

    def _exec(self, timeline: Timeline, task: Any, strings: ExecStrings | None) -> None:
        """From now on the process runs another program: a new image; the threads but the caller's are gone."""
        process = timeline.images[-1][1].process
        since = int(task["time_ns"])
        is_first = process is self._launched
        if is_first:  # what it ran before was our own code
            self._launched = None
            start_boot_ns = int(task["start_ns"])
            process.start_unix_ns = start_boot_ns + self._boot_to_unix_ns
            process.start_ticks = start_boot_ns // START_TICK_NS
            process.vpid = int(task["vpid"])
            timeline.images.clear()
            since = 0
        self._add_image(timeline, process, since, strings, Facts.of(task))
        if is_first:
            self.bad_trace_contexts = 0

    def _end(self, timeline: Timeline, task: Any, produced: int) -> None:
        """
        A thread ends, and its process if it is the last.

        Threads that end at once may all look like the last, the first of them before the others have made their last call:
        these are waited for, and the process ends with the latest.
        """
        process = timeline.images[-1][1].process
        if process.end_unix_ns is None:
            if not task["is_last"]:
                return
            status = int(task["wait_status"])
            if status & 0x7F:
                process.exit_signal = status & 0x7F
            else:
                process.exit_code = status >> 8 & 0xFF
        process.end_unix_ns = int(task["time_ns"]) + self._boot_to_unix_ns
        self._dying.pop(process, None)
        self._dying[process] = _Dying(produced, timeline.threads, time.monotonic() + _PATIENCE_S)

    def add_launched(
        self, pid: int, begin_unix_ns: int, parent_pid: int, environ: Mapping[str, str]
    ) -> Process:
        """Take up the command that waits for its execve with *environ*; what it is, its exec will say."""
        process = Process(pid, 0, parent_pid, begin_unix_ns=begin_unix_ns)
        process.image = Image(process, UNKNOWN)
        self._note_environment(process.image, environ)
        self.bad_trace_contexts = 0  # ours, which config.py warns of
        process.image.container_id, process.image.pod_uid = read_membership(pid) or Membership()
        self._timelines[pid] = Timeline([(0, process.image)])
        self._launched = process
        return process

    def _add_image(
        self, timeline: Timeline, process: Process, since: int, strings: ExecStrings | None, facts: Facts
    ) -> None:
        start_boot_ns = process.start_unix_ns - self._boot_to_unix_ns
        before = process.image
        image, environment, is_contained = make_image(process, start_boot_ns, strings, facts)
        process.image = image
        has_left = (
            self.cgroups is not None and facts.cgroup and self.cgroups.has_left(facts.cgroup, process.pid)
        )
        if not is_contained or has_left:  # /proc says nothing, or where it went since
            self._note_container(image, before)
        if environment is not None:
            self._note_environment(image, environment)
            self._contexts.add(image)
        elif before is not None:  # gone already; nearly all programs hand on the environment that they got
            image.service_name = before.service_name
            image.environment_attributes = before.environment_attributes
            image.trace_context = before.trace_context
        if strings is None and self._has_command_args:
            image.command_args = read_command_args(process.pid)
        self._note_cgroup(image)
        timeline.images.append((since, image))

    def _note_container(self, image: Image, before: Image | None) -> None:
        """Say which container and pod a program is in that is gone, or has just begun: where it was *before*, but for another cgroup."""
        is_moved = image.cgroup and (before is None or before.cgroup != image.cgroup)
        found = self.cgroups.find(image.cgroup) if is_moved and self.cgroups is not None else None
        # Of who ran before us, /proc may have said more than this one hierarchy does.
        is_known = before is None or before.cgroup
        if found is not None and (is_known or any(found)):
            image.container_id, image.pod_uid = found
        elif before is not None:
            image.container_id, image.pod_uid = before.container_id, before.pod_uid

    def _note_cgroup(self, image: Image) -> None:
        if self._has_cgroup and self.cgroups is not None:
            line = self.cgroups.line(image.cgroup, image.process.pid)
            image.cgroup_line = line and readable(line)

    def learn_contexts(self, now_boot_ns: int, produced: int) -> None:
        """Take in what programs publish of themselves: from now on each is one of another Resource; *produced*: as for `learn`."""
        for image, context in self._contexts.take():
            timeline = self._timelines.get(image.process.pid)
            if timeline is not None and timeline.images and timeline.images[-1][1] is image:
                self._unsettle(timeline)
                image.process.image = replace(image, context_attributes=context.attributes)
                timeline.images.append((now_boot_ns, image.process.image))
                pid = image.process.pid
                self._superseded.append(_Superseded(produced, timeline, pid, 0, now_boot_ns, is_gone=False))

    def _note_environment(self, image: Image, environment: Mapping[str, str]) -> None:
        """Take from a program's own environment what describes it."""
        attributes = parse_resource_attributes(environment.get("OTEL_RESOURCE_ATTRIBUTES", ""))
        image.environment_attributes = attributes
        name = readable(environment.get("OTEL_SERVICE_NAME", ""))
        image.service_name = name or attributes.get("service.name")
        try:
            image.trace_context = parse_trace_context(environment)
        except ValueError:
            self.bad_trace_contexts += 1

    def identify(self, calls: Calls) -> Calls:
        """
        Return *calls* with their threads and programs filled in.

        A call belongs to what its thread was when it ended: a successful exec to the new program.
        """
        keys = calls.tgid.astype(np.uint64) << np.uint64(32) | calls.tid
        # Of nearly all threads nothing changed lately; 0 stands for the others.
        settled, thread = index_distinct(self._settled.find(keys))
        if settled[:1].all():
            return calls.made_by(thread, *self._settled.take(settled))
        threads, owners = self._settled.take(settled[1:])
        rows = np.flatnonzero(thread == 0)
        index = thread - 1
        index[rows] = len(threads) + self._tell_apart(keys[rows], rows, calls, threads)
        others = number_owners(threads[len(owners) :])
        return calls.made_by(index, threads, np.concatenate((owners, others)))

    def _tell_apart(
        self,
        keys: npt.NDArray[np.uint64],
        rows: npt.NDArray[np.intp],
        calls: Calls,
        threads: list[Thread],
    ) -> npt.NDArray[np.intp]:
        """Add to *threads* what those that are not settled were, and settle those that were the same all the time; return intp[k], which of the added ones made the calls at *rows*, intp[k]."""
        unsettled, of_row = np.unique(keys, return_inverse=True)
        order = np.argsort(of_row, kind="stable")
        bounds = np.searchsorted(of_row, np.arange(len(unsettled) + 1), sorter=order)
        before = len(threads)
        firsts: list[int] = []
        later: list[tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]] = []
        for number, key in enumerate(unsettled.tolist()):
            firsts.append(len(threads) - before)
            own = order[bounds[number] : bounds[number + 1]]
            tgid, tid = key >> 32, key & 0xFFFFFFFF
            timeline = self._timelines.get(tgid)
            if timeline is None:  # its start was dropped (counted): /proc may know it
                timeline = self._recover(tgid, int(calls.start_unix_ns[rows[own]].min()))
            changes = timeline.changes(tid)
            threads += [
                Thread(tid, timeline.name_at(tid, since), timeline.image_at(since)) for since in (0, *changes)
            ]
            if changes:  # threads are few, calls many: times are looked at only where something changed
                ends = calls.end_boot_ns[rows[own]]
                later.append((own, np.searchsorted(np.array(changes, np.uint64), ends, side="right")))
            else:
                self._settled.add(key, threads[-1])
                timeline.settled.add(key)
        thread = np.array(firsts, np.intp)[of_row]
        for own, at in later:
            thread[own] += at
        return thread

    def _unsettle(self, timeline: Timeline | None) -> None:
        """Ask *timeline* again: it changes."""
        if timeline is not None:
            for key in timeline.settled:
                self._settled.discard(key)
            timeline.settled.clear()

    def _unsettle_thread(self, pid: int, tid: int) -> None:
        """Ask again for one thread only: nothing else changes."""
        timeline, key = self._timelines.get(pid), pid << 32 | tid
        if timeline is not None and key in timeline.settled:
            self._settled.discard(key)
            timeline.settled.discard(key)

    def _recover(self, pid: int, seen_unix_ns: int) -> Timeline:
        """Take up a process that nobody told of and that made a call, whether or not it is still there."""
        timeline = self._take_up(pid)
        if timeline is None:
            process = Process(pid, seen_unix_ns)  # it started no later than its first call that is known
            process.image = Image(process, UNKNOWN)
            timeline = self._timelines[pid] = Timeline([(0, process.image)])
            self._end_stray(pid, timeline)
        return timeline

    def _take_up(self, pid: int) -> Timeline | None:
        """Take up a process that nobody told of, and its end if that was told; None: it is gone."""
        try:
            self.add_running(pid)
        except psutil.Error:
            return None
        timeline = self._timelines[pid]
        self._end_stray(pid, timeline)
        return timeline

    def _end_stray(self, pid: int, timeline: Timeline) -> None:
        stray = self._strays.pop(pid, None)
        if stray is not None:
            timeline.threads.discard(int(stray.task["previous_tid"]))  # it may be a zombie still
            self._end(timeline, stray.task, stray.position)

    def thread_at(self, pid: int, tid: int, time_ns: int) -> Thread | None:
        """Return a thread as it is at a time of the boot clock; None: its process has ended, as far as anybody knows."""
        timeline = self._timelines.get(pid) or self._take_up(pid)
        if timeline is None:
            return None
        return Thread(tid, timeline.name_at(tid, time_ns), timeline.image_at(time_ns))

    def take_ended(self, consumed: int) -> list[Process]:
        """Return the processes whose last call was before position *consumed* of the ring of calls; forget what is over."""
        while self._superseded and self._superseded[0].position <= consumed:
            _, past, pid, tid, time_ns, is_gone = self._superseded.popleft()
            self._unsettle_thread(pid, tid)
            past.forget_before(tid, time_ns, is_gone=is_gone)
        while self._strays and (first := next(iter(self._strays.items())))[1].position <= consumed:
            del self._strays[first[0]]
        now = time.monotonic()
        ended = []
        for process, dying in self._dying.items():
            if dying.position > consumed:
                break
            # Up to sys.maxsize: nothing comes any more.
            if not dying.threads or dying.patience_until < now or consumed == sys.maxsize:
                ended.append(process)
        for process in ended:
            del self._dying[process]
            timeline = self._timelines.get(process.pid)
            if timeline is not None:
                self._unsettle(timeline)
                timeline.images = [entry for entry in timeline.images if entry[1].process is not process]
                if not timeline.images:
                    del self._timelines[process.pid]
        return ended

    def waiting(self) -> int:
        """Return how much is remembered for calls that were not read yet: execs, new names, ends of threads, what programs publish."""
        return len(self._superseded)

    def living(self) -> Iterable[Process]:
        """Return the processes that have not ended as far as we know."""
        return [
            image.process
            for timeline in self._timelines.values()
            for _, image in timeline.images[-1:]
            if image.process.end_unix_ns is None
        ]


def _text(comm: npt.NDArray[np.uint8]) -> str:
    # The same few names again and again: one object each is compared faster.
    return sys.intern(comm.tobytes().partition(b"\0")[0].decode(errors="backslashreplace"))


def _read_comm(pid: int, tid: int) -> str:
    try:
        with open(f"/proc/{pid}/task/{tid}/comm", "rb") as file:  # noqa: PTH123 (bytes, and often)
            return file.read().rstrip(b"\n").decode(errors="backslashreplace")
    except OSError:
        return UNKNOWN
