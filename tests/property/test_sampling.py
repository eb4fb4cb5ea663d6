"""Thresholds, their texts and the trace ids that reach them, judged by OpenTelemetry's own parser and calculation."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace._sampling_experimental._trace_state import OtelTraceState
from opentelemetry.sdk.trace._sampling_experimental._util import calculate_threshold
from opentelemetry.trace import TraceState

from otel_sysexit.sampling import (
    ALL_ARE_HERE,
    WHOLE,
    Thresholds,
    make_trace_id,
    threshold_of,
    threshold_text,
    trace_state,
)
from otel_sysexit.settings import PROBABILITY_MIN, parse_probability

THRESHOLDS = st.integers(0, WHOLE - 1)


def official_threshold(text: str) -> int:
    """Return what OpenTelemetry's SDK reads in a trace state: a threshold of 56 bits."""
    return OtelTraceState.parse(TraceState.from_header([text])).threshold


def randomness(trace_id: bytes) -> int:
    """Return R of a trace id as W3C has it: its last 56 bits."""
    return int.from_bytes(trace_id, "big") & (1 << 56) - 1


# --- thresholds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("denominator", range(1, 1001))
def test_a_threshold_is_exact(denominator):
    """For 1/1 ... 1/1000 the threshold is the nearest of 2^32 to the probability; with 32 bits more it is the official one."""
    probability = Fraction(1, denominator)
    kept = WHOLE - threshold_of(parse_probability(f"1/{denominator}"))

    assert abs(kept - probability * WHOLE) <= Fraction(1, 2)
    # The SDK has 56 bits, of which 32 are ours.
    official = (1 << 56) - calculate_threshold(float(probability))
    assert abs(official - (kept << 24)) <= 1 << 23


@pytest.mark.parametrize(
    ("probability", "threshold"),
    [(1.0, 0), (0.5, 1 << 31), (0.75, 1 << 30), (float(PROBABILITY_MIN), WHOLE - 1), (1e-300, WHOLE - 1)],
)
def test_thresholds_at_the_edges(probability, threshold):
    """Everything is kept at 1; however rare, something is kept."""
    assert threshold_of(probability) == threshold


@given(st.floats(0, 1, exclude_min=True), st.floats(0, 1, exclude_min=True))
def test_a_lower_probability_has_no_lower_threshold(one, other):
    """Thresholds go with probabilities, and are always of 32 bits."""
    low, high = sorted((one, other))

    assert 0 <= threshold_of(high) <= threshold_of(low) < WHOLE


# --- texts ------------------------------------------------------------------------------------------------------------


@given(THRESHOLDS)
def test_the_sdk_reads_our_trace_states(threshold):
    """The official parser finds the same threshold, and would write it as we do."""
    state = trace_state(threshold_text(threshold))

    assert official_threshold(state) == threshold << 24
    assert OtelTraceState.parse(TraceState.from_header([state])).serialize() == state.removeprefix("ot=")


def test_without_sampling_a_span_stands_for_itself():
    """A threshold of 0 is said, and not left out: it is known that nothing was sampled out."""
    assert (ALL_ARE_HERE, threshold_text(0)) == ("ot=th:0", "0")


@given(st.lists(THRESHOLDS | st.sampled_from([0, 1 << 31]), max_size=30))
def test_a_batch_has_each_calls_threshold(thresholds):
    """Each call finds its digits and its probability, in a table of the distinct ones."""
    table = Thresholds(np.array(thresholds, np.uint32))

    assert len(table.text) == len(table.probability) == len(set(thresholds)) or not any(thresholds)
    assert len(table.row) == len(table.length) == len(thresholds)
    for threshold, row, length in zip(thresholds, table.row.tolist(), table.length.tolist(), strict=True):
        digits = table.text[row, :length].tobytes().decode()

        assert digits == (threshold_text(threshold) if threshold else "")
        assert not table.text[row, length:].any()
        assert table.probability[row] == float(1 - Fraction(threshold, WHOLE))


# --- trace ids --------------------------------------------------------------------------------------------------------


@given(THRESHOLDS)
def test_every_trace_id_reaches_its_threshold(threshold):
    """The official rule, R >= T, holds for every trace that is made for a threshold."""
    trace_id = make_trace_id(threshold)

    assert len(trace_id) == 16
    assert any(trace_id)
    assert randomness(trace_id) >= official_threshold(trace_state(threshold_text(threshold)))


@pytest.mark.parametrize("probability", [1, 0.75, 0.5, 0.01, 1 / 3, 2**-32])
def test_randomness_is_uniform_above_the_threshold(probability):
    """Of many trace ids as many are in each eighth of what the threshold leaves: a collector can sample further."""
    count, parts = 8_000, 8
    threshold = threshold_of(probability) << 24
    room = (1 << 56) - threshold
    found = Counter(
        (randomness(make_trace_id(threshold >> 24)) - threshold) * parts // room for _ in range(count)
    )
    # Seven standard deviations of a binomial: by chance once in 10^11 times.
    bound = 7 * (count * (1 / parts) * (1 - 1 / parts)) ** 0.5

    assert set(found) == set(range(parts))
    assert all(abs(number - count / parts) < bound for number in found.values())


def test_the_rest_of_a_trace_id_is_random():
    """Trace ids differ in the bits that have no part in sampling, even where that leaves no choice."""
    ids = {make_trace_id(WHOLE - 1)[:9] for _ in range(1000)}

    assert len(ids) == 1000
    assert {first[0] & 1 for first in ids} == {0, 1}
