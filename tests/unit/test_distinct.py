"""Small numbers are counted instead of sorted."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit.distinct import find_distinct, index_distinct

SMALL = st.lists(st.integers(0, 50), max_size=60).map(lambda numbers: np.array(numbers, np.intp))


@given(SMALL)
def test_each_number_is_found_once(numbers):
    """In ascending order, as sorting has it."""
    assert find_distinct(numbers).tolist() == sorted(set(numbers.tolist()))


@given(SMALL)
def test_an_index_leads_back_to_each_number(numbers):
    """What is returned says which distinct number stands in each place."""
    before = numbers.tolist()
    distinct, index = index_distinct(numbers)

    assert distinct.tolist() == sorted(set(before))
    assert distinct.take(index).tolist() == numbers.tolist() == before
