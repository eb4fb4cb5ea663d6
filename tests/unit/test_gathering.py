"""Few calls wait for others, as long as was asked for; nothing that is much waits."""

import pytest

from otel_sysexit import gathering
from otel_sysexit.gathering import BATCH_CALLS_MAX, Gathering


class Clock:
    """A clock that is set by hand."""

    now = 1_000.0

    def monotonic(self) -> float:
        """Return the time, as time.monotonic() does."""
        return self.now


@pytest.fixture
def clock(monkeypatch):
    """Return the clock by which calls wait."""
    clock = Clock()
    monkeypatch.setattr(gathering, "time", clock)
    return clock


def is_due(gathered: Gathering, calls: int = 1, ring_share: float = 0.0, ends: int = 0) -> bool:
    """Return whether to read what waits."""
    return gathered.is_due(calls, ring_share, ends)


def test_few_calls_wait_as_long_as_was_asked_for(clock):
    """Counted from when the first of them was seen."""
    gathered = Gathering(2.0)
    seen = []
    for _ in range(4):
        seen.append(is_due(gathered))
        clock.now += 0.7

    assert seen == [False, False, False, True]


@pytest.mark.parametrize("much", [{"calls": BATCH_CALLS_MAX}, {"ring_share": 0.2}, {"ends": 2_000}], ids=str)
def test_what_is_much_does_not_wait(much):
    """A full batch; a ring that fills, however few calls it holds; ends and execs that calls are waited for with."""
    assert is_due(Gathering(60.0), **much)


def test_calls_that_could_not_be_read_stay_due(clock):
    """Where nobody has room for them, the next ones do not make them wait anew."""
    gathered = Gathering(1.0)
    is_due(gathered)
    clock.now += 1

    assert [is_due(gathered), is_due(gathered)] == [True, True]


def test_what_comes_after_a_batch_waits_by_itself(clock):
    """The time counts from when it was seen."""
    gathered = Gathering(1.0)
    is_due(gathered)
    clock.now += 1
    gathered.note_read()

    assert not is_due(gathered)


def test_without_calls_nothing_is_due(clock):
    """Whatever else there is; and time does not count."""
    gathered = Gathering(1.0)
    idle = is_due(gathered, calls=0, ends=2_000)
    clock.now += 5

    assert (idle, is_due(gathered)) == (False, False)


def test_strangers_are_read_at_once(clock):
    """For a while after an attach; then calls are gathered."""
    gathered = Gathering(60.0)
    gathered.expect_strangers()
    early = is_due(gathered)
    clock.now += 10

    assert (early, is_due(gathered)) == (True, False)


def test_at_the_end_nothing_waits():
    """What is left is read."""
    gathered = Gathering(60.0)
    is_due(gathered)
    gathered.finish()

    assert is_due(gathered)
