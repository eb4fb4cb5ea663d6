"""Random ids: as many as are asked for, each once, and of traces such as reach their calls' thresholds."""

import numpy as np
from made_calls import Made, make_calls

from otel_sysexit.flat import Flat
from otel_sysexit.traces import Ids


def test_ids_of_spans_are_distinct():
    """No id comes twice, within what is asked for at once or later."""
    ids = Ids()
    found = np.concatenate([ids.span_ids(count) for count in (5000, 0, 1, 5000)])

    assert len(np.unique(found)) == 10_001
    assert found.all()


def test_ids_of_spans_use_every_bit_evenly():
    """Each of the 64 bits is set in about half of them."""
    bits = np.unpackbits(Ids().span_ids(40_000).view(np.uint8)).reshape(-1, 64)

    assert np.abs(bits.mean(axis=0) - 0.5).max() < 0.025  # ten standard deviations


def test_two_sources_give_different_ids():
    """Agents that run side by side do not share ids."""
    assert not set(Ids().span_ids(1000).tolist()) & set(Ids().span_ids(1000).tolist())


def test_randomness_of_a_flat_trace_is_even_above_its_threshold():
    """It reaches the threshold of the call, is less than 2**56, and every quarter of what is between has its share."""
    calls = make_calls(*[Made("getppid", threshold=3 << 30)] * 20_000)
    trace_ids = Flat().place(calls).trace_id
    randomness = trace_ids[:, 9:].astype(np.uint64) @ (
        np.uint64(256) ** np.arange(6, -1, -1, dtype=np.uint64)
    )
    quarters = (randomness - np.uint64(3 << 54)) >> np.uint64(52)

    assert randomness.min() >= 3 << 54
    assert np.abs(np.bincount(quarters.astype(np.intp), minlength=4) - 5000).max() < 700
