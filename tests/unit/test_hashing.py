"""Columns of numbers find the rows that were put for them, or those of others with the same hash."""

import numpy as np
import pytest

from otel_sysexit.hashing import HashTable


@pytest.mark.parametrize("dtype", [np.uint32, np.uint64])
def test_what_was_put_is_guessed(dtype):
    """A few numbers in a large table have a place each."""
    table = HashTable(16)
    numbers = np.array([0, 1, 2, 7, 2**32 - 1], dtype)
    table.put(numbers, np.arange(1, 6))

    assert table.guess(numbers[::-1]).tolist() == [5, 4, 3, 2, 1]


def test_of_several_with_one_hash_the_last_is_guessed():
    """Two places are not enough for a hundred numbers: some get another one's row, but one that was put."""
    table = HashTable(1)
    numbers = np.arange(100, dtype=np.uint64)
    table.put(numbers, 1 + numbers)
    guessed = table.guess(numbers)

    assert table.guess(numbers[-1:]).tolist() == [100]
    assert len(set(guessed.tolist())) == 2


def test_a_number_that_was_not_put_is_row_0():
    """Or another one's row; in an empty table always 0."""
    assert HashTable(4).guess(np.array([3, 2**63], np.uint64)).tolist() == [0, 0]


def test_what_was_put_stays_where_room_is_made():
    """The table grows as more is put; what was there is guessed as before."""
    table = HashTable(16)
    numbers = np.arange(1, 300, dtype=np.uint64)  # so few lie apart, as they follow each other
    table.put(numbers, numbers)
    more = np.arange(300, 20_000, dtype=np.uint64)
    table.put(more, more)
    guessed = table.guess(numbers)

    assert set(guessed.tolist()) <= {*numbers.tolist(), *more.tolist()}
    assert np.count_nonzero(guessed == numbers) > 200
    assert (table.guess(more) == more).mean() > 0.9


def test_those_that_shared_a_place_get_one_each():
    """Who looks up what was missed again and again misses nothing in the end."""
    table, number_of_row = HashTable(16), np.arange(5_000, dtype=np.uint64) ** 2
    missed = []

    def look_up(numbers):
        missed[-1] += len(numbers)
        return np.searchsorted(number_of_row, numbers)

    for _ in range(30):
        missed.append(0)
        assert (table.find(number_of_row, number_of_row, look_up) == np.arange(5_000)).all()

    assert missed[0] > 4_900
    assert missed[-1] < 500
