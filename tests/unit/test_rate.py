"""A rate that is kept: the controller beside a simulated kernel side, and the keeper beside a capture of its own."""

from dataclasses import dataclass, field

import pytest

from otel_sysexit import rate
from otel_sysexit.kernel.records import Ledger
from otel_sysexit.rate import RING_PRESSED, RateController, RateKeeper, Word
from otel_sysexit.sampling import WHOLE, threshold_of

RATE = 1_000


@dataclass
class Kernel:
    """What bpf/sampling.bpf.c does in a second, in expectation: the spent budget halves the probability, and so does each further eighth of it."""

    word: Word
    weight: float = 0.0
    """What the calls that were kept stand for, in all."""
    kept: list[float] = field(default_factory=list)
    """Calls kept, by second."""

    def run(self, offered: int, seconds: float = 1.0) -> int:
        """Let so many calls come, evenly; return how many were offered, as the counters say."""
        emitted, left = 0.0, float(offered)
        while left > 1e-9:
            budget, step = self.word.budget, self.word.budget // 8 or 1
            halvings = 1 + int((emitted - budget) / step + 1e-9) if emitted > budget - 1e-9 else 0
            share = max((WHOLE - self.word.threshold) >> min(halvings, 31), 1) / WHOLE
            until_next = budget + halvings * step - emitted
            calls = min(left, until_next / share)
            emitted += calls * share
            self.weight += calls  # calls * share of them, each standing for 1 / share
            left -= calls
        self.kept.append(emitted / seconds)
        return offered


def follow(offered_by_second: list[int], base: float = 1.0, ring_share: float = 0.0) -> Kernel:
    """Return what was kept when so many calls came in each second, with a look after each."""
    controller = RateController(RATE, threshold_of(base))
    kernel = Kernel(controller.first_word())
    for offered in offered_by_second:
        kernel.run(offered)
        kernel.word = controller.look(1.0, offered, ring_share)
    return kernel


@pytest.mark.parametrize("overload", [2, 10, 1_000])
def test_an_overload_is_brought_down_to_the_rate(overload):
    """However much more comes than is wanted, after three looks about the rate is kept, second by second."""
    kernel = follow([overload * RATE] * 20)

    assert all(0.85 * RATE <= kept <= 1.15 * RATE for kept in kernel.kept[3:])


def test_the_first_second_of_an_overload_is_thinned_out():
    """Before the first look the kernel side thins out by itself: a hundred times the rate makes about three times the rate."""
    assert follow([100 * RATE]).kept[0] < 3.5 * RATE


def test_every_call_that_is_kept_has_its_weight():
    """Whatever the thresholds were, the kept calls stand for as many as came."""
    offered = [100, 100 * RATE, 3 * RATE, 0, 50 * RATE, 7]

    assert follow(offered).weight == pytest.approx(sum(offered))


@pytest.mark.parametrize("offered", [0, 1, RATE // 2, RATE])
def test_what_is_within_the_rate_is_kept_whole(offered):
    """As long as no more comes than is wanted, nothing is sampled out."""
    kernel = follow([offered] * 10)

    assert kernel.word.threshold == 0
    assert kernel.kept == pytest.approx([offered] * 10)


def test_what_was_sampled_is_whole_again_when_the_load_goes():
    """After a burst all is kept again, within a few looks; the burst is remembered for some, as another may follow."""
    kernel = follow([10 * RATE] * 5 + [RATE // 10] * 10)

    assert 0 < kernel.kept[5] < RATE // 10
    assert kernel.kept[10:] == pytest.approx([RATE // 10] * 5)
    assert kernel.word.threshold == 0


def test_a_rate_that_was_asked_for_is_never_undercut():
    """With --sample 1/4 no more than a quarter is kept, however little comes; less when that is still too much."""
    base = threshold_of(0.25)

    assert {follow([calls], base=0.25).word.threshold for calls in (0, 10, RATE)} == {base}
    assert follow([40 * RATE] * 5, base=0.25).word.threshold > base


def test_small_changes_are_left():
    """A load that goes up and down a little leaves the threshold: each has traces of its own."""
    controller = RateController(RATE, 0)
    loads = [10 * RATE, 10 * RATE + 300, 10 * RATE - 300, 10 * RATE + 900]
    words = [controller.look(1.0, offered, 0.0) for offered in loads]

    assert len({word.threshold for word in words}) == 1


def test_a_ring_that_fills_sheds_load():
    """While the ring is read too slowly, less and less is kept; the mechanism is the same, so each call has its weight."""
    kernel = follow([10 * RATE] * 8, ring_share=RING_PRESSED + 0.01)

    assert kernel.kept[-1] < RATE / 50
    assert sorted(kernel.kept, reverse=True) == kernel.kept
    assert kernel.weight == pytest.approx(8 * 10 * RATE)


def test_when_the_ring_is_read_again_the_rate_comes_back():
    """Pressure goes away step by step, until the whole rate is kept."""
    controller = RateController(RATE, 0)
    for _ in range(5):
        pressed = controller.look(0.1, RATE, RING_PRESSED + 0.1)
    words = [controller.look(1.0, 10 * RATE, 0.0) for _ in range(12)]
    kept = [WHOLE - word.threshold for word in words]

    assert WHOLE - pressed.threshold < kept[0] < kept[-1]
    assert kept == sorted(kept)
    assert words[-1] == RateController(RATE, 0).look(1.0, 10 * RATE, 0.0)


@pytest.mark.parametrize("pressure", [0.0, 1.0])
def test_something_is_always_kept(pressure):
    """No load and no pressure makes a budget of nothing, or a threshold that nothing reaches."""
    controller = RateController(1, threshold_of(2**-32))
    for _ in range(200):
        word = controller.look(0.001, 2**40, pressure)

    assert word.budget >= 1
    assert word.kept_budget >= 1
    assert 0 <= word.threshold < WHOLE


def test_what_is_always_kept_has_a_budget_of_its_own():
    """Of kept classes as many as the rate are kept; under pressure fewer."""
    controller = RateController(RATE, 0)

    assert controller.first_word().kept_budget == RATE
    assert controller.look(1.0, 0, RING_PRESSED + 0.1).kept_budget == RATE // 2


def test_the_kernel_side_has_room_for_chance():
    """The budget is above the rate: a second that brings a little more by chance is not thinned out."""
    assert RateController(RATE, 0).first_word().budget == 1.5 * RATE


# --- the keeper -------------------------------------------------------------------------------------------------------


@dataclass
class FakeRing:
    """Rings with so much in them."""

    share: float = 0.0

    def share_used(self) -> float:
        """Return how full the fullest is."""
        return self.share


@dataclass
class FakeCapture:
    """A capture that keeps the words it was told."""

    calls: FakeRing = field(default_factory=FakeRing)
    sampled_out: int = 0
    spent: int = 0
    words: list[tuple[int, int, int]] = field(default_factory=list)

    def ledger(self) -> dict[Ledger, int]:
        """Return the only counter that is asked for."""
        return {Ledger.SAMPLED_OUT: self.sampled_out}

    def rate_spent(self) -> int:
        """Return what was emitted since the last word."""
        return self.spent

    def set_rate(self, threshold: int, budget: int, kept_budget: int) -> None:
        """Take a word."""
        self.words.append((threshold, budget, kept_budget))
        self.spent = 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A clock that shows its only element."""
    now = [100.0]
    monkeypatch.setattr(rate.time, "monotonic", lambda: now[0])
    return now


@pytest.mark.usefixtures("clock")
def test_the_first_word_is_said_at_once():
    """Before anything is emitted the kernel side knows its budgets."""
    capture = FakeCapture()
    RateKeeper(capture, RATE, threshold_of(0.5))

    assert capture.words == [(1 << 31, 1_500, 1_000)]


def test_a_look_comes_once_a_second(clock):
    """The agent may ask as often as it likes: a word is said once a second, and every 0.1 s under pressure."""
    capture = FakeCapture()
    keeper = RateKeeper(capture, RATE, 0)
    for _ in range(32):
        clock[0] += 1 / 16
        keeper.keep()

    assert len(capture.words) == 1 + 2

    capture.calls.share = 0.5
    for _ in range(32):
        clock[0] += 1 / 16
        keeper.keep()

    assert len(capture.words) == 1 + 2 + 16


def test_what_was_offered_is_what_was_kept_and_what_was_not(clock):
    """Calls sampled out since the last look, and those emitted since the last word, make the load."""
    capture = FakeCapture()
    keeper = RateKeeper(capture, RATE, 0)
    for _ in range(3):
        capture.sampled_out += 9_000
        capture.spent = 1_000
        clock[0] += 1.0
        keeper.keep()
    threshold, _, _ = capture.words[-1]

    assert threshold == threshold_of(0.1)


def test_a_late_look_counts_the_time_that_went_by(clock):
    """When the agent was busy for four seconds, what came is divided by four."""
    capture = FakeCapture(sampled_out=0)
    keeper = RateKeeper(capture, RATE, 0)
    capture.sampled_out = 4 * 10 * RATE
    clock[0] += 4.0
    keeper.keep()

    assert capture.words[-1][0] == threshold_of(0.1)
