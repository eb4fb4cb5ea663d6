"""Which running threads are targets, judged by /proc as the kernel judges at exec, and how they get their slots."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fake_proc import PF_EXITING, PF_KTHREAD, FakeProc

from otel_sysexit.cgroups import Cgroup
from otel_sysexit.scan import FoundThread, Scan, Standing, take_up
from otel_sysexit.targets import Criteria, Selectors, Targets, parse_exe, resolve

TARGET, EXCLUDED, STRANGER = Standing.TARGET, Standing.EXCLUDED, Standing.STRANGER
NOTHING = Criteria()
DEADLINE_S = 20


@pytest.fixture
def proc(tmp_path):
    """Return an empty fake /proc."""
    return FakeProc(tmp_path / "proc")


def found(proc: FakeProc, chosen: Criteria, excluded: Criteria = NOTHING, **more) -> set[tuple[int, int]]:
    """Return (tgid, tid) of all targets."""
    scan = Scan(Targets(chosen, excluded, **more), [], proc.root)
    return {(tgid, tid) for tgid, tid, standing in scan.new_threads() if standing is TARGET}


def comms(*names: bytes) -> Criteria:
    """Return what asks for threads of these names."""
    return Criteria(comms=frozenset(names))


# --- who matches ------------------------------------------------------------------------------------------------------


def test_a_process_is_all_its_threads(proc):
    """By process id every thread is a target; another process is none."""
    for tgid, tid in ((10, 10), (10, 11), (20, 20)):
        proc.add(tgid, tid)

    assert found(proc, Criteria(pids=frozenset([10]))) == {(10, 10), (10, 11)}


def test_a_thread_is_only_itself(proc):
    """By thread id the others of its process are strangers."""
    for tid in (10, 11, 12):
        proc.add(10, tid)

    assert found(proc, Criteria(tids=frozenset([11, 99]))) == {(10, 11)}


def test_a_name_is_the_threads_or_its_leaders(proc):
    """By the leader's name every thread is a target, by a thread's own only that thread."""
    proc.add(10, comm="java")
    proc.add(10, 11, comm="gc")
    proc.add(20, comm="other")
    proc.add(20, 21, comm="gc")

    assert found(proc, comms(b"java")) == {(10, 10), (10, 11)}
    assert found(proc, comms(b"gc")) == {(10, 11), (20, 21)}


def test_a_name_may_be_any_bytes(proc):
    """A line break in a name is the thread's, bytes that are no UTF-8 stay."""
    proc.add(10, comm="a\n\udcff\n")

    assert found(proc, comms(b"a\n\xff\n")) == {(10, 10)}


def test_a_user_is_the_real_one(proc):
    """Of the user ids in status the first counts."""
    proc.add(10, uid=7)
    proc.add(20, uid=1000)

    assert found(proc, Criteria(uids=frozenset([1000]))) == {(20, 20)}
    assert found(proc, Criteria(uids=frozenset([7]))) == {(10, 10)}


def test_a_deleted_executable_is_known_by_its_old_path(proc):
    """After an upgrade the old program still runs: it matches as before."""
    proc.add(10, exe="/usr/sbin/nginx (deleted)")
    proc.add(20, exe="/usr/sbin/nginx2")

    assert found(proc, Criteria(exe_globs=(b"/usr/sbin/nginx",))) == {(10, 10)}


def test_an_executable_that_cannot_be_read_matches_nothing(proc):
    """A kernel thread has none, another user's process may hide it: not even a star matches."""
    proc.add(10, exe=None)

    assert found(proc, Criteria(exe_globs=(b"*",))) == set()


def test_an_executable_is_known_when_the_leader_has_ended(proc):
    """The first thread may end before the others; they still run the program."""
    proc.add(10, exe=None, state="Z")
    proc.add(10, 11)

    assert found(proc, Criteria(exe_globs=(b"/bin/x",))) == {(10, 11)}


def test_a_cgroup_is_looked_up_in_its_hierarchy(proc):
    """The path of the same hierarchy counts, that of another does not; what is below is in it."""
    proc.add(10, cgroup="2:memory:/web/one\n0::/")
    proc.add(20, cgroup="2:memory:/\n0::/web")
    proc.add(30, cgroup="0::/web")

    assert found(proc, Criteria(cgroups=frozenset([Cgroup("memory", "/web", 1)]))) == {(10, 10)}
    assert found(proc, Criteria(cgroups=frozenset([Cgroup("", "/web", 1)]))) == {(20, 20), (30, 30)}


def test_values_of_a_kind_are_alternatives_and_kinds_must_all_hold(proc):
    """Two names or-ed, and-ed with a user."""
    proc.add(10, comm="a", uid=1)
    proc.add(20, comm="b", uid=1)
    proc.add(30, comm="a", uid=2)

    assert found(proc, Criteria(comms=frozenset([b"a", b"b"]), uids=frozenset([1]))) == {(10, 10), (20, 20)}


@pytest.mark.parametrize(
    "excluded",
    [
        Criteria(pids=frozenset([20])),
        Criteria(tids=frozenset([20])),
        comms(b"b"),
        Criteria(exe_globs=(b"/bin/b",)),
        Criteria(uids=frozenset([5])),
        Criteria(cgroups=frozenset([Cgroup("", "/b", 1)])),
        Criteria(pids=frozenset([99]), uids=frozenset([5])),
    ],
)
def test_any_exclusion_leaves_a_thread_out(proc, excluded):
    """One kind that holds is enough; without children to follow such a thread is a stranger."""
    proc.add(10)
    proc.add(20, comm="b", exe="/bin/b", uid=5, cgroup="0::/b")

    assert found(proc, Criteria(), excluded, is_all=True) == {(10, 10)}
    assert Scan(Targets(Criteria(), excluded, is_all=True), [], proc.root).standing(20, 20) is EXCLUDED
    no_follow = Targets(Criteria(pids=frozenset([20])), excluded, follows_children=False)
    assert Scan(no_follow, [], proc.root).standing(20, 20) is STRANGER


@pytest.mark.parametrize(
    "facts", [{"state": "Z"}, {"state": "X"}, {"flags": PF_EXITING}, {"flags": PF_KTHREAD}]
)
def test_who_cannot_make_calls_is_no_target(proc, facts):
    """The dead, the dying and the kernel's own threads match nothing."""
    proc.add(10, **facts)

    assert found(proc, Criteria(), is_all=True) == set()


def test_we_are_no_targets(proc):
    """The agent and its loader are never found, whatever was chosen."""
    proc.add(10)
    proc.add(20)
    scan = Scan(Targets(is_all=True), [10], proc.root)

    assert list(scan.new_threads()) == [FoundThread(20, 20, TARGET)]
    assert scan.standing(10, 10) is STRANGER


def test_without_a_choice_nobody_is_found(proc):
    """Where a command is run, the running processes are strangers."""
    proc.add(10)

    assert found(proc, Criteria(), comms(b"y")) == set()


def test_a_missing_proc_is_empty(proc, tmp_path):
    """What cannot be read is not there."""
    assert list(Scan(Targets(is_all=True), [], tmp_path / "nowhere").new_threads()) == []
    assert Scan(Targets(is_all=True), [], proc.root).standing(10, 10) is STRANGER


def test_only_the_files_that_are_needed_are_read(proc):
    """To look for a name neither status nor cgroup nor exe of thousands of processes is opened."""
    proc.add(10, comm="a")
    for name in ("status", "cgroup", "exe"):
        (proc.root / "10" / "task" / "10" / name).unlink()

    assert found(proc, comms(b"a")) == {(10, 10)}


# --- whether there will be targets ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chosen", "may_grow"),
    [
        (Criteria(pids=frozenset([10])), True),
        (Criteria(pids=frozenset([10, 20]), uids=frozenset([3])), True),
        (Criteria(pids=frozenset([20])), False),
        (Criteria(pids=frozenset([99])), False),
        (Criteria(tids=frozenset([11])), True),
        (Criteria(tids=frozenset([99])), False),
        (comms(b"none of this name"), True),
        (Criteria(), False),
    ],
)
def test_targets_may_appear(proc, chosen, may_grow):
    """A named process can become a target while it runs, and any program that a general selector fits."""
    proc.add(10)
    proc.add(10, 11)
    proc.add(20, state="Z")

    assert Scan(Targets(chosen), [], proc.root).may_grow() == may_grow


def test_everything_may_appear(proc):
    """With --all there are always more."""
    assert Scan(Targets(is_all=True), [], proc.root).may_grow()


# --- slots ------------------------------------------------------------------------------------------------------------


@dataclass
class FakeSlots:
    """The kernel's slots; what happens at the n-th gift of one can be told."""

    slots: dict[int, str] = field(default_factory=dict)
    events: dict[int, object] = field(default_factory=dict)
    gifts: int = 0

    def add_thread(self, tid: int, *, is_excluded: bool) -> bool:
        """Give a slot, after the event that is due."""
        self.gifts += 1
        self.events.get(self.gifts, lambda: None)()
        if tid in self.slots:
            return False
        self.slots[tid] = "excluded" if is_excluded else "target"
        return True

    def remove_thread(self, tid: int) -> None:
        """Take a slot away."""
        self.slots.pop(tid, None)


def take(proc: FakeProc, slots: FakeSlots, *arguments, **more) -> list[FoundThread]:
    """Take up the targets that the arguments describe."""
    return take_up(Scan(Targets(*arguments, **more), [], proc.root), slots)


def test_targets_get_slots(proc):
    """Targets and those left out for now are marked as what they are; strangers get none."""
    proc.add(10, comm="a", uid=1)
    proc.add(20, comm="b", uid=1)
    proc.add(30, comm="a", uid=2)
    slots = FakeSlots()
    taken = take(proc, slots, Criteria(uids=frozenset([1])), comms(b"b"))

    assert slots.slots == {10: "target", 20: "excluded"}
    assert taken == [FoundThread(10, 10, TARGET), FoundThread(20, 20, EXCLUDED)]


def test_a_thread_born_during_the_scan_is_not_missed(proc):
    """Its parent had no slot yet when it was born, so the kernel gave it none: it is found by looking again."""
    proc.add(10)
    slots = FakeSlots(events={1: lambda: proc.add(10, 11)})
    take(proc, slots, Criteria(pids=frozenset([10])))

    assert slots.slots == {10: "target", 11: "target"}


def test_a_process_born_during_the_scan_is_not_missed(proc):
    """A fork behind the place that the scan has come to is found by looking again, and its own fork, too."""
    proc.add(50)
    slots = FakeSlots(events={1: lambda: proc.add(10), 2: lambda: proc.add(5)})
    take(proc, slots, Criteria(uids=frozenset([0])))

    assert slots.slots == {50: "target", 10: "target", 5: "target"}


def test_looking_ends_when_the_kernel_gives_all_slots(proc):
    """Targets that fork all the time do not keep the scan going: who was born to a slot has one already."""
    slots = FakeSlots()

    class Busy(Scan):
        """Each look finds one more process, as on a host that forks without end; all but the first have slots."""

        def new_threads(self):
            pid = 10 + slots.gifts
            proc.add(pid)
            if pid > 10:
                slots.slots[pid] = "by birth"
            yield FoundThread(pid, pid, TARGET)

    taken = take_up(Busy(Targets(is_all=True), [], proc.root), slots)

    assert slots.slots == {10: "target", 11: "by birth"}
    assert taken == [FoundThread(10, 10, TARGET), FoundThread(11, 11, TARGET)]


def test_who_ends_before_it_has_a_slot_keeps_none(proc):
    """The hook that takes slots away has passed when the slot is given: it is taken away here."""
    proc.add(10)
    proc.add(10, 11)
    slots = FakeSlots(events={2: lambda: proc.remove(10, 11)})
    taken = take(proc, slots, Criteria(pids=frozenset([10])))

    assert slots.slots == {10: "target"}
    assert taken == [FoundThread(10, 10, TARGET)]


def test_who_becomes_another_before_it_has_a_slot_is_judged_again(proc):
    """An exec between look and slot found no slot to change: what the process is afterwards counts."""
    proc.add(10, comm="a")
    proc.add(20, comm="a")
    proc.add(30, comm="a")
    events = {1: lambda: proc.add(10, comm="b"), 2: lambda: proc.add(20, comm="left out")}
    slots = FakeSlots(events=events)
    taken = take(proc, slots, comms(b"a", b"left out"), comms(b"left out"))

    assert slots.slots == {20: "excluded", 30: "target"}
    assert taken == [FoundThread(20, 20, EXCLUDED), FoundThread(30, 30, TARGET)]


def test_what_the_kernel_decided_stays(proc):
    """A slot that is there is not touched, even where /proc looks otherwise."""
    proc.add(10, comm="a")
    slots = FakeSlots(slots={10: "by birth"}, events={1: lambda: proc.add(10, comm="b")})
    take(proc, slots, comms(b"a"))

    assert slots.slots == {10: "by birth"}


# --- the real /proc ---------------------------------------------------------------------------------------------------

TWO_THREADS = """
import sys, threading
threading.Thread(target=sys.stdin.read).start()
print(threading.get_native_id(), *(thread.native_id for thread in threading.enumerate() if thread.name != "MainThread"),
      flush=True)
"""
LEADER_ENDS = (
    TWO_THREADS
    + "import ctypes, platform\n"
    + ('ctypes.CDLL(None).syscall({"x86_64": 60}.get(platform.machine(), 93), 0)\n')
)


@pytest.fixture
def start():
    """Return a function that starts a Python program and gives process and first line; it is ended with the test."""
    started = []

    def start_program(code: str) -> tuple[int, list[int]]:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        return process.pid, [int(word) for word in process.stdout.readline().split()]

    yield start_program
    for process in started:
        process.kill()
        process.communicate()


def really_found(**selectors) -> set[tuple[int, int]]:
    """Return the targets on the running system."""
    scan = Scan(resolve(Selectors(**selectors), Selectors()), [])
    return {(tgid, tid) for tgid, tid, _ in scan.new_threads()}


def test_the_threads_of_a_running_process_are_found(start):
    """Each kind of selector finds both threads of a child that has two."""
    pid, tids = start(TWO_THREADS)
    threads = {(pid, tid) for tid in tids}
    comm = Path(f"/proc/{pid}/comm").read_bytes().removesuffix(b"\n")

    assert len(threads) == 2
    assert really_found(pids=[pid]) == threads
    assert really_found(tids=tids) == threads
    assert really_found(tids=tids[1:]) == {(pid, tids[1])}
    assert threads <= really_found(comms=[comm])
    assert threads <= really_found(exes=[parse_exe(sys.executable)])
    assert threads <= really_found(exes=[parse_exe("*/python*")])
    assert threads <= really_found(uids=[os.getuid()])
    assert threads & really_found(uids=[os.getuid() + 1]) == set()


def test_a_process_whose_leader_has_ended_is_found(start):
    """The leader is a zombie, its thread runs on: by its executable the thread is found, the leader is not."""
    pid, tids = start(LEADER_ENDS)

    end = time.monotonic() + DEADLINE_S
    while ") Z " not in Path(f"/proc/{pid}/stat").read_text() and time.monotonic() < end:
        os.sched_yield()

    assert really_found(pids=[pid], exes=[parse_exe("*/python*")]) == {(pid, tids[1])}
