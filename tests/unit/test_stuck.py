"""Which calls in flight are reported when, and in what words."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_calls import make_process

from otel_sysexit.identity import Thread
from otel_sysexit.kernel.records import SLOT
from otel_sysexit.stuck import StuckCalls, all_in_flight, describe
from otel_sysexit.syscalls import Abi, Kinds, number_of

SECOND = 10**9
BOOT_TO_UNIX_NS = 1_700_000_000 * SECOND
PROCESS = make_process(812, "postgres")


def make_slots(*facts: dict[str, int]) -> np.ndarray:
    """Return slots; what is not given is of a read in thread 812 that began at 5 s."""
    slots = np.zeros(len(facts), SLOT)
    for slot, fact in zip(slots, facts, strict=True):
        chosen = {"start_ns": 5 * SECOND, "tid": 812, "tgid": 812, "interrupted_nr": -1} | fact
        for name, value in chosen.items():
            slot[name] = value
    return slots


def find_thread(tgid: int, tid: int) -> Thread | None:
    """Return a thread of the one process that there is."""
    return Thread(tid, "worker", PROCESS.image) if tgid == 812 else None


def look_each_second(threshold_ns: int, start_ns: int, seconds: int) -> list[int]:
    """Return at which seconds a call that began at *start_ns* is due, when it is looked at once a second."""
    stuck = StuckCalls(threshold_ns, 0)
    slots = make_slots({"start_ns": start_ns})
    return [second for second in range(1, seconds) if len(stuck.due(slots, second * SECOND))]


def test_a_call_is_due_once_and_whenever_its_time_has_doubled():
    """With 30 s: at 30, 60, 120, 240 s after it began, each time at the next look."""
    assert look_each_second(30 * SECOND, 5 * SECOND, 300) == [35, 65, 125, 245]
    assert look_each_second(30 * SECOND, 5 * SECOND + 1, 300) == [36, 66, 126, 246]


def test_doublings_between_two_looks_are_one():
    """A threshold far below a second reports no call more often than it is looked at."""
    assert look_each_second(SECOND // 1000, 2, 20) == [1, 2, 3, 5, 9, 17]


def test_the_next_call_of_a_thread_is_another():
    """A thread that goes on and gets stuck again is reported again."""
    stuck = StuckCalls(2 * SECOND, 0)
    first, second = make_slots({"start_ns": SECOND}), make_slots({"start_ns": 4 * SECOND})

    assert [len(stuck.due(first, 3 * SECOND)), len(stuck.due(second, 6 * SECOND))] == [1, 1]


@pytest.mark.parametrize("start_ns", [0, 1])
def test_what_is_no_call_is_never_due(start_ns):
    """A slot without a call in flight, or with one that was sampled out, is not reported, asked for or not."""
    slots = make_slots({"start_ns": start_ns})

    assert len(StuckCalls(1, 0).due(slots, SECOND)) == 0
    assert len(all_in_flight(slots)) == 0


def test_a_call_that_began_during_the_look_is_not_due_yet():
    """A slot may be younger than the moment it is judged for; its time is 0 then, not a wrapped number."""
    stuck = StuckCalls(2 * SECOND, 0)
    slots = make_slots({"start_ns": 7 * SECOND})
    (call,) = describe(all_in_flight(slots), 6 * SECOND, 0, Kinds(), find_thread)

    assert len(stuck.due(slots, 6 * SECOND)) == 0
    assert call.elapsed_ns == 0
    assert len(stuck.due(slots, 9 * SECOND)) == 1


@given(
    st.integers(1, 10**12),
    st.integers(2, 10**12),
    st.lists(st.integers(0, 2**42), min_size=1, max_size=30).map(sorted),
)
def test_every_doubling_is_seen_exactly_once(threshold_ns, start_ns, looks):
    """Whenever it is looked, a call is due if it passed the threshold or a doubling of it since the last look."""
    stuck = StuckCalls(threshold_ns, 0)
    slots = make_slots({"start_ns": start_ns})
    marks = [start_ns + (threshold_ns << doubling) for doubling in range(43)]
    for earlier, now in zip([0, *looks], looks, strict=False):
        passed = any(earlier < mark <= now for mark in marks)
        assert bool(len(stuck.due(slots, now))) == passed


@pytest.mark.parametrize(
    ("elapsed_ns", "words"),
    [
        (0, "0 ms"),
        (12_345, "0.0123 ms"),
        (999_400_000, "999 ms"),
        (SECOND, "1 s"),
        (31 * SECOND + 999_999_999, "31 s"),
        (3600 * SECOND, "3600 s"),
    ],
)
def test_a_line_says_for_how_long(elapsed_ns, words):
    """Whole seconds that are over, or milliseconds below one."""
    slots = make_slots({"nr": number_of("fsync", Abi.X86_64)})
    (call,) = describe(slots, 5 * SECOND + elapsed_ns, 0, Kinds(), find_thread)

    assert call.line() == f"fsync in postgres[812] for {words}"


def test_a_thread_that_is_not_the_leader_is_named():
    """The process's id stands behind its name, the thread's behind that."""
    (call,) = describe(make_slots({"tid": 830}), 6 * SECOND, 0, Kinds(), find_thread)

    assert call.line() == "read in postgres[812] (thread 830) for 1 s"


@pytest.mark.parametrize("abi", list(Abi))
def test_a_restarted_call_is_named(abi):
    """restart_syscall says what goes on; for every other call what was interrupted before is of no interest."""
    interrupted = number_of("nanosleep", abi)
    slots = make_slots(
        {"nr": number_of("restart_syscall", abi), "interrupted_nr": interrupted, "abi": abi},
        {"nr": number_of("read", abi), "interrupted_nr": interrupted, "abi": abi},
    )
    lines = [call.line() for call in describe(slots, 6 * SECOND, 0, Kinds(), find_thread)]

    assert lines == ["restart_syscall of nanosleep in postgres[812] for 1 s", "read in postgres[812] for 1 s"]


def test_the_longest_come_first():
    """In the order in which they began, with their wall-clock start."""
    slots = make_slots({"start_ns": 3 * SECOND, "tid": 3}, {"start_ns": 2 * SECOND, "tid": 2})
    calls = describe(slots, 6 * SECOND, BOOT_TO_UNIX_NS, Kinds(), find_thread)

    assert [(call.thread.tid, call.elapsed_ns) for call in calls] == [(2, 4 * SECOND), (3, 3 * SECOND)]
    assert calls[0].start_unix_ns == BOOT_TO_UNIX_NS + 2 * SECOND


def test_a_call_whose_process_is_gone_is_left_out():
    """Nobody can be named for it any more, and it has ended."""
    assert describe(make_slots({"tgid": 9}), 6 * SECOND, 0, Kinds(), find_thread) == []
