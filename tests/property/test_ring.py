"""A ring laid out as kernel/bpf/ringbuf.c does, whatever is committed, discarded or still being written."""

import itertools
import mmap
import struct
from collections.abc import Iterable

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit.kernel.ring import Ring

BUSY, DISCARDED = 1 << 31, 1 << 30
STATES = st.sampled_from(["committed", "committed", "discarded", "busy"])


class KernelRing:
    """The producer's side: positions, headers and data, twice, as the kernel shows them to a consumer."""

    def __init__(self, pages: int, words: int, turns: int) -> None:
        """Records hold so many u64; *turns* records were made and read before."""
        self.size = pages * mmap.PAGESIZE
        self.stride = 8 + 8 * words
        self.consumer, self.producer = bytearray(mmap.PAGESIZE), bytearray(mmap.PAGESIZE)
        self.data = np.full(2 * self.size, 0xEE, np.uint8)  # what earlier turns left behind
        self._position = turns * self.stride
        for side in (self.consumer, self.producer):
            struct.pack_into("<Q", side, 0, self._position)
        dtype = np.dtype([("number", "<u8"), ("rest", "<u8", (words - 1,))])
        self.ring = Ring(self.consumer, self.producer, self.data, dtype)

    def reserve(self, number: int) -> int | None:
        """Reserve a record and write *number* all over it; return its position, None when the ring is full."""
        consumed = struct.unpack_from("<Q", self.consumer)[0]
        if self._position + self.stride - consumed > self.size - 1:
            return None
        at = self._position
        body = struct.pack(
            f"<II{self.stride // 8 - 1}Q", self.stride - 8 | BUSY, 0, *[number] * (self.stride // 8 - 1)
        )
        self._write(at, body)
        self._position += self.stride
        struct.pack_into("<Q", self.producer, 0, self._position)
        return at

    def finish(self, at: int, *, is_discarded: bool) -> None:
        """Commit or discard the record at a position."""
        self._write(at, struct.pack("<I", self.stride - 8 | (DISCARDED if is_discarded else 0)))

    def make(self, states: Iterable[str], first: int = 0) -> list[str]:
        """Make a record of each state, numbered from *first*; return the states of those that found room."""
        made = []
        for number, state in enumerate(states, first):
            at = self.reserve(number)
            if at is None:
                break
            made.append(state)
            if state != "busy":
                self.finish(at, is_discarded=state == "discarded")
        return made

    def _write(self, at: int, content: bytes) -> None:
        places = (at + np.arange(len(content))) % self.size
        self.data[places] = self.data[places + self.size] = np.frombuffer(content, np.uint8)


def committed_prefix(states: list[str]) -> list[int]:
    """Return the numbers of the committed records before the first busy one."""
    end = states.index("busy") if "busy" in states else len(states)
    return [number for number in range(end) if states[number] == "committed"]


rings = st.builds(
    KernelRing, pages=st.sampled_from([1, 2]), words=st.integers(1, 34), turns=st.integers(0, 2**40)
)


@given(rings, st.lists(STATES, max_size=80))
def test_the_committed_prefix_is_read_in_order(made, states):
    """What is committed before the first record that is being written comes out, in order, whole."""
    states = made.make(states)
    read = made.ring.read(1 << 30)

    assert read["number"].tolist() == committed_prefix(states)
    assert (read["rest"] == read["number"][:, None]).all()


@given(rings, st.lists(STATES, max_size=80))
def test_the_position_moves_to_the_first_busy_record(made, states):
    """After reading, the consumer is at the first busy record, or at the end; nothing before it waits."""
    start = made.ring.consumed
    states = made.make(states)
    made.ring.read(1 << 30)
    passed = states.index("busy") if "busy" in states else len(states)

    assert made.ring.consumed == start + passed * made.stride
    assert made.ring.waiting() == len(states) - passed


@given(rings, st.lists(STATES, max_size=80), st.lists(st.integers(0, 9), max_size=30))
def test_reading_in_pieces_equals_reading_at_once(made, states, limits):
    """Whatever the pieces, each is within its limit and together they are the whole."""
    states = made.make(states)
    pieces = [made.ring.read(limit)["number"].tolist() for limit in limits]

    assert all(len(piece) <= limit for piece, limit in zip(pieces, limits, strict=True))

    pieces.append(made.ring.read(1 << 30)["number"].tolist())

    assert list(itertools.chain.from_iterable(pieces)) == committed_prefix(states)


@given(rings, st.lists(st.tuples(st.lists(STATES, max_size=12), st.integers(0, 20)), max_size=20))
def test_producing_and_reading_take_turns(made, rounds):
    """Over many turns of the ring, every record that is committed at last comes out once, in order."""
    expected, found, number = [], [], 0
    for states, limit in rounds:
        waiting = []
        for state in states:
            at = made.reserve(number)
            if at is None:
                break
            waiting.append((at, state, number))
            number += 1
        for at, state, _ in reversed(waiting):  # the last one first: others are busy still
            found += made.ring.read(limit)["number"].tolist()
            made.finish(at, is_discarded=state == "discarded")
        expected += [one for _, state, one in waiting if state != "discarded"]
    found += made.ring.read(1 << 30)["number"].tolist()

    assert found == expected
    assert made.ring.consumed == made.ring.produced


@given(rings, st.integers(1, 20))
def test_what_was_read_outlives_the_ring(made, count):
    """An array is a copy: the kernel writing over the ring does not change it."""
    made.make(["committed"] * count)
    read = made.ring.read(1 << 30)
    numbers = read["number"].tolist()
    made.data[:] = 0

    assert read["number"].tolist() == numbers


@given(rings)
def test_a_full_ring_is_read_whole(made):
    """A ring that takes no more gives all it has in one read."""
    states = made.make(["committed"] * (made.size // made.stride + 1))

    assert len(made.ring.read(1 << 30)) == len(states)
    assert made.ring.waiting() == 0
