import time

import pytest

from otel_sysexit.calls import Clock


class Clocks:
    """The system's clocks, moved by tests; each reading takes *step_ns* of both."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monotonic_s = 100.0
        self.boot_ns = 5 * 10**9
        self.offset_ns = 10**18
        self.steps_ns = [100]
        self.readings = 0
        monkeypatch.setattr(time, "monotonic", lambda: self.monotonic_s)
        monkeypatch.setattr(time, "clock_gettime_ns", self.read)

    def read(self, clock: int) -> int:
        """Return what a clock says."""
        self.boot_ns += self.steps_ns[self.readings % len(self.steps_ns)]
        self.readings += 1
        return self.boot_ns + (self.offset_ns if clock == time.CLOCK_REALTIME else 0)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    """Clocks that tests move."""
    return Clocks(monkeypatch)


def test_the_offset_is_the_distance_of_the_clocks(clocks):
    """Wall clock minus boot clock, to half of what a reading takes."""
    assert abs(Clock().offset_ns() - clocks.offset_ns) <= 100


def test_the_offset_is_kept_for_a_second(clocks):
    """Within a second the clocks are read once."""
    clock = Clock()
    before = clock.offset_ns()
    clocks.offset_ns += 10**9
    clocks.monotonic_s += 0.999

    assert clock.offset_ns() == before


def test_the_offset_follows_a_clock_that_was_set(clocks):
    """After a second a step of the wall clock is seen."""
    clock = Clock()
    before = clock.offset_ns()
    clocks.offset_ns += 10**9
    clocks.monotonic_s += 1

    assert clock.offset_ns() == before + 10**9


def test_a_disturbed_reading_does_not_count(clocks):
    """Of several readings the least disturbed one is taken: an interruption of 1 ms costs nothing."""
    clocks.steps_ns = [100, 10**6, 100, 10**6, 10**6, 100, 100, 100, 100, 100, 10**6, 100, 10**6, 100, 10**6]

    assert abs(Clock().offset_ns() - clocks.offset_ns) <= 100
