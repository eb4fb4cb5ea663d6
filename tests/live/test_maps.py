"""Maps of the running kernel, read in batches: what is in them comes out, each element once."""

import os
import struct

import numpy as np
import pytest

from otel_sysexit.kernel import maps
from otel_sysexit.kernel.bpf import Command, bpf
from otel_sysexit.kernel.loader import lift_memory_limit
from otel_sysexit.kernel.maps import Map

pytestmark = pytest.mark.each_kernel

HASH, LRU_HASH, RING = 1, 9, 27
KEY_BYTES, VALUE_BYTES = 4, 48


def make_map(kind: int, key_bytes: int, value_bytes: int, entries: int) -> int:
    """Return the descriptor of a new map (BPF_MAP_CREATE)."""
    lift_memory_limit()
    return bpf(Command.MAP_CREATE, struct.pack("=IIII", kind, key_bytes, value_bytes, entries))


@pytest.fixture(params=[HASH, LRU_HASH])
def table(request):
    """Return an empty hash map with room for 4,096 elements."""
    descriptor = make_map(request.param, KEY_BYTES, VALUE_BYTES, 4096)
    yield Map(descriptor, KEY_BYTES, VALUE_BYTES)
    os.close(descriptor)


@pytest.mark.parametrize("count", [0, 1, 3000])
@pytest.mark.parametrize("capacity", [1, 100, 1024])
def test_every_element_is_read_once(table, monkeypatch, count, capacity):
    """read() gives what was put in, also when a bucket has more elements than it made room for at first."""
    monkeypatch.setattr(maps, "_BATCH_ELEMENTS", capacity)
    for key in range(count):
        table.update(struct.pack("=I", key), struct.pack("=Q40x", key * key))
    keys, values = table.read()

    assert (keys.shape, values.shape) == ((count, KEY_BYTES), (count, VALUE_BYTES))
    numbers = keys.view("<u4").reshape(-1).astype("<u8")
    assert sorted(numbers.tolist()) == list(range(count))
    assert np.array_equal(values.view("<u8")[:, 0], numbers * numbers)
    assert not values[:, 8:].any()


def test_many_elements_take_few_system_calls(table, monkeypatch):
    """3,000 elements are read by fewer than ten calls of bpf(2)."""
    for key in range(3000):
        table.update(struct.pack("=I", key), bytes(VALUE_BYTES))
    asked = []
    ask = maps._bpf
    monkeypatch.setattr(
        maps, "_bpf", lambda command, attributes: asked.append(command) or ask(command, attributes)
    )
    table.read()

    assert set(asked) == {Command.MAP_LOOKUP_BATCH}
    assert len(asked) < 10


def test_what_is_taken_is_gone(table):
    """An element comes out with its last value, and is there no more."""
    key = struct.pack("=I", 1)
    table.update(key, struct.pack("=Q40x", 7))

    assert table.take(key) == struct.pack("=Q40x", 7)
    assert table.take(key) is None
    assert table.is_empty()


def test_a_map_that_knows_no_batches_is_read_otherwise():
    """A ring, which has no elements, refuses batches with ENOTSUPP, and has nothing to read one by one."""
    descriptor = make_map(RING, 0, 0, 4096)
    with pytest.raises(OSError) as refused:
        Map(descriptor, 4, 4)._read_batches()
    keys, _ = Map(descriptor, 4, 4).read()
    os.close(descriptor)

    assert refused.value.errno == maps._ENOTSUPP
    assert len(keys) == 0
