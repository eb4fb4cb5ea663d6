"""Kinship: whoever is to have a span hangs below the nearest one above who is not over, and the rows may change beneath it."""

import gc
import weakref

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from made_calls import make_process

from otel_sysexit.kinship import NOBODY, Kinship

PROCESSES_MAX = 12
shares = st.floats(0, 1, exclude_max=True)
families = st.lists(st.tuples(shares, st.booleans(), st.booleans()), min_size=1, max_size=PROCESSES_MAX)
"""Of each process: which of those before it is its parent, whether it is over, and whether it has a span."""


def bring_up(family):
    """Return processes, the first of which is the command, and their kinship."""
    processes = [make_process(1)]
    kinship = Kinship()
    kinship.set_root(processes[0])
    for share, _, _ in family:
        parent = processes[int(share * len(processes))]
        processes.append(make_process(1 + len(processes), parent=parent))
    for process, (_, is_over, _) in zip(processes[1:], family, strict=True):
        if is_over:
            kinship.end(process)
    return processes, kinship


def find(kinship, processes):
    """Return the rows of *processes*, found by their numbers."""
    numbers = np.array([one.number for one in processes], np.uint64)
    return kinship.find(numbers, [one.image for one in processes], np.arange(len(processes)))


def above(process, root, over, here):
    """Return whose span that of *process* is to hang below."""
    if process is root:
        return None
    one = process.parent
    while one is not None and one in over and one not in here:
        one = one.parent
    return one or root


@given(families, st.randoms(use_true_random=False))
def test_newcomers_bring_those_above_them(family, chance):
    """Those that are asked for, and all above them who have no span, each once, no later than anybody needs them."""
    processes, kinship = bring_up(family)
    root = processes[0]
    over = {one for one, (_, is_over, _) in zip(processes[1:], family, strict=True) if is_over}
    here = {one for one, (_, _, is_here) in zip(processes[1:], family, strict=True) if is_here}
    asked = [one for one in processes if one not in here]
    chance.shuffle(asked)
    is_here = np.zeros(len(kinship.rows(processes)), np.bool_)
    is_here[kinship.rows([*here])] = True
    found = kinship.find_newcomers(kinship.rows(asked), is_here)
    expected: dict = {}
    counts = [0]
    for process in asked:
        one = process
        while one is not None and one not in here and one not in expected:
            expected[one] = above(one, root, over, here)
            one = expected[one]
        counts.append(len(expected))
    newcomers = kinship.processes(found.rows)

    assert found.counts.tolist() == counts
    for asked_for, count in enumerate(counts):
        assert set(kinship.processes(found.first(asked_for).rows)) == {*list(expected)[:count]}
    for process, row in zip(newcomers, found.above.tolist(), strict=True):
        assert (kinship.processes(np.array([row]))[0] if row != NOBODY else None) is expected[process]


@given(families)
def test_who_is_over_is_forgotten_and_its_children_stay_below_who_is_above_it(family):
    """After it, each that is left hangs below the same one as before, and has its number still."""
    processes, kinship = bring_up(family)
    root = processes[0]
    over = {one for one, (_, is_over, _) in zip(processes[1:], family, strict=True) if is_over}
    living = [one for one in processes if one not in over]
    kinship.rows(processes)
    kinship.forget()
    is_forgotten = len(kinship) < len(processes)
    rows = find(kinship, living)
    found = kinship.find_newcomers(rows, np.zeros(len(kinship), np.bool_))
    above_of = dict(zip(kinship.processes(found.rows), found.above.tolist(), strict=True))

    assert is_forgotten == (2 * (len(processes) - len(over)) < len(processes))
    assert kinship.processes(rows) == living
    assert kinship.begins_unix_ns(rows).tolist() == [one.begin_unix_ns for one in living]
    for process in living:
        expected = above(process, root, over, set())
        row = above_of[process]
        assert (kinship.processes(np.array([row]))[0] if row != NOBODY else None) is expected


def test_who_is_forgotten_is_let_go():
    """A command that starts and ends processes for days keeps none of them."""
    command, kinship = make_process(1), Kinship()
    kinship.set_root(command)
    gone = []
    for pid in range(2, 1_002):
        child = make_process(pid, parent=command)
        kinship.end(child)
        gone.append(weakref.ref(child))
        del child
        if pid % 10 == 0:
            kinship.forget()
    gc.collect()

    assert sum(one() is not None for one in gone) < 10


def test_a_number_that_looks_like_another_is_told_apart():
    """Far more processes than the table has places are found, each by its own number."""
    kinship = Kinship()
    processes = [make_process(pid) for pid in range(1, 50_000)]

    assert kinship.processes(find(kinship, processes)) == processes
    assert kinship.processes(find(kinship, processes)) == processes


def test_the_end_of_somebody_unknown_counts():
    """However many are known already: where there is no room for another row, it is made."""
    kinship = Kinship()
    processes = [make_process(pid) for pid in range(1, 200)]
    for process in processes:
        kinship.end(process)
    child = make_process(200, parent=processes[-1])
    newcomers = kinship.find_newcomers(kinship.rows([child]), np.zeros(200, np.bool_))

    assert kinship.processes(newcomers.rows) == [child]


def test_a_chain_of_ten_thousand_is_found():
    """Whoever of a long line of descendants is asked for first, each is found once, with who is above it."""
    kinship = Kinship()
    line = [make_process(1)]
    kinship.set_root(line[0])
    for pid in range(2, 10_001):
        line.append(make_process(pid, parent=line[-1]))
    newcomers = kinship.find_newcomers(kinship.rows(line[::-1]), np.zeros(len(line), np.bool_))

    assert newcomers.counts.tolist() == [0, *[len(line)] * len(line)]
    assert dict(zip(newcomers.rows.tolist(), newcomers.above.tolist(), strict=True)) == {
        row: row - 1 if row else NOBODY for row in kinship.rows(line).tolist()
    }
