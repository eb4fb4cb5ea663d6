"""Threads are found by their keys, as many as there are, as long as they are there."""

import numpy as np
from made_calls import make_process

from otel_sysexit.identity import Thread
from otel_sysexit.settled import SettledThreads

IMAGE = make_process(7).image


def key_of(tid):
    """Return the key of a thread of the one process."""
    return 7 << 32 | tid


def settle(*tids):
    """Return threads that have these tids."""
    settled = SettledThreads()
    for tid in tids:
        settled.add(key_of(tid), Thread(tid, "worker", IMAGE))
    return settled


def find(settled, *tids):
    """Return the tids of the threads that are found, 0 for those that are not."""
    numbers = settled.find(np.array([key_of(tid) for tid in tids], np.uint64))
    return [settled.take(np.array([number]))[0][0].tid if number else 0 for number in numbers.tolist()]


def test_a_thread_is_found_in_each_of_its_places():
    """A batch has calls of the same threads again and again."""
    assert find(settle(1, 2, 3), 3, 1, 3, 2) == [3, 1, 3, 2]


def test_nobody_is_found_for_an_unknown_key():
    """Among known ones, and where there are none."""
    assert find(settle(1), 2, 1) == [0, 1]
    assert find(SettledThreads(), 2) == [0]


def test_a_thread_that_was_forgotten_is_not_found():
    """Nor is who has its number next found by the old key."""
    settled = settle(1, 2)
    find(settled, 1, 2)
    settled.discard(key_of(1))
    settled.add(key_of(5), Thread(5, "worker", IMAGE))

    assert find(settled, 1, 2, 5) == [0, 2, 5]


def test_so_many_threads_that_hashes_are_shared_are_all_found():
    """More than the table of first guesses has places."""
    tids = range(1, 100_001)

    assert find(settle(*tids), *tids) == [*tids]
