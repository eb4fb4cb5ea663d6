"""Several rings read as one."""

import mmap

import numpy as np
import pytest

from otel_sysexit.kernel.records import CALL
from otel_sysexit.kernel.ring import Ring
from otel_sysexit.kernel.rings import Rings

STRIDE = 8 + CALL.itemsize
SIZE = 64 * mmap.PAGESIZE


class Written:
    """A ring that calls can be written to."""

    def __init__(self) -> None:
        self.position = bytearray(8)
        self.data = np.zeros(2 * SIZE, np.uint8)
        self.ring = Ring(bytearray(8), self.position, self.data, CALL)

    def write(self, *ends_ns: int) -> None:
        """Let calls have ended at these times."""
        for end_ns in ends_ns:
            call = np.zeros(1, CALL)
            call["start_ns"], call["duration_ns"] = end_ns - 1, 1
            at = int.from_bytes(self.position, "little")
            self.data[at : at + 4] = np.frombuffer(np.uint32(CALL.itemsize).tobytes(), np.uint8)
            self.data[at + 8 : at + STRIDE] = call.view(np.uint8)
            self.position[:] = (at + STRIDE).to_bytes(8, "little")


@pytest.fixture
def written():
    """Return two rings that can be written to."""
    return Written(), Written()


@pytest.fixture
def rings(written):
    """Return both as one."""
    return Rings([each.ring for each in written])


def ends(records: np.ndarray) -> list[int]:
    """Return when calls ended."""
    return (records["start_ns"] + records["duration_ns"]).tolist()


def test_calls_come_in_the_order_of_their_ends(rings, written):
    """Whichever ring they are in."""
    written[0].write(1, 4, 5)
    written[1].write(2, 3, 6)

    assert ends(rings.read(10)) == [1, 2, 3, 4, 5, 6]
    assert rings.waiting() == 0


@pytest.mark.parametrize("limit", range(1, 9))
def test_no_more_are_read_than_wanted(rings, written, limit):
    """However they are spread, all are read in the end, and none of both rings waits for the other to be empty."""
    written[0].write(*range(1, 100))
    written[1].write(200)
    sizes = []
    while rings.waiting():
        sizes.append(len(rings.read(limit)))

    assert max(sizes) <= limit
    assert sum(sizes) == 100


def test_a_position_is_passed_when_every_ring_was_read_so_far(rings, written):
    """What was reserved before lies before it, what comes later behind it."""
    written[0].write(1)
    written[1].write(2)
    mark = rings.produced

    assert rings.consumed < mark

    written[0].ring.read(1)

    assert rings.consumed < mark

    written[1].ring.read(1)

    assert rings.consumed >= mark


def test_later_calls_lie_behind_an_earlier_position(rings, written):
    """A position does not move, and a new one is greater."""
    written[0].write(1)
    earlier = rings.produced
    written[1].write(2)
    later = rings.produced
    written[0].ring.read(1)

    assert earlier < later
    assert earlier <= rings.consumed < later


def test_nothing_new_is_no_new_position(rings, written):
    """Marks do not pile up while nothing happens."""
    written[0].write(1)

    assert rings.produced == rings.produced
    assert len(rings._marks) == 1


def test_the_fullest_ring_counts(rings, written):
    """One that is full loses calls, however empty the other is."""
    written[1].write(*range(1, 6))

    assert rings.share_used() == written[1].ring.share_used() == 5 * STRIDE / SIZE


def test_a_single_ring_keeps_its_order(written):
    """As the kernel wrote it."""
    written[0].write(3, 1, 2)

    assert ends(Rings([written[0].ring]).read(10)) == [3, 1, 2]
