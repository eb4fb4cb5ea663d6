"""
A rate that is kept: how strongly calls must be sampled for so many spans a second.

In: what was offered to the sampler and what was kept since the last look, and how full the ring is. Out: the threshold and
the budgets for the next second. Between two looks the kernel side thins out by itself what exceeds the budget (bpf/sampling.bpf.c); each
call carries the threshold it was kept at, so nothing said here makes an extrapolated count wrong.
"""

import time
from dataclasses import dataclass
from typing import Final

from otel_sysexit.kernel.capture import Capture
from otel_sysexit.kernel.records import Ledger
from otel_sysexit.sampling import WHOLE

LOOK_SECONDS: Final = 1.0
"""Between two looks."""
PRESSED_LOOK_SECONDS: Final = 0.1
"""While the ring fills faster than it is read."""
RING_PRESSED: Final = 0.25
"""Share of the ring that may wait to be read before less is put there."""
_SLACK: Final = 1.5
"""What chance and a late look may add to the rate before the kernel side steps in."""
_CHANGE_WORTH_A_WORD: Final = 0.1
"""Smaller relative changes are left: each threshold has traces of its own."""
_RECOVERY: Final = 1.5
_RELIEF: Final = 0.5


@dataclass(frozen=True, slots=True)
class Word:
    """What the kernel side is told."""

    threshold: int
    budget: int
    kept_budget: int


class RateController:
    """Decides on thresholds, a look at a time."""

    def __init__(self, calls_a_second: int, base_threshold: int) -> None:
        """*base_threshold*: what was asked for whatever the rate (`--sample`); it is never undercut."""
        self._rate = calls_a_second
        self._most = WHOLE - base_threshold
        """Of WHOLE: the probability with which a call is kept at best."""
        self._kept = self._most
        self._offered_a_second = 0.0
        self._pressure = 1.0

    def first_word(self) -> Word:
        """Return what to say before anything is known."""
        return self._word()

    def look(self, seconds: float, offered: int, ring_share: float) -> Word:
        """
        Return what to say now.

        Args:
            seconds: Since the last look.
            offered: Calls that the sampler saw since then, those always kept not counted.
            ring_share: Of the ring, how much waits to be read.
        """
        # A burst is remembered for a few looks, halved at each: what follows it is often another one.
        self._offered_a_second = max(offered / max(seconds, 1e-3), self._offered_a_second / 2)
        if ring_share > RING_PRESSED:
            self._pressure *= _RELIEF
        else:
            self._pressure = min(self._pressure * _RECOVERY, 1.0)
        share = min(1.0, self._rate / self._offered_a_second) if self._offered_a_second else 1.0
        wanted = max(min(self._most, round(share * self._pressure * WHOLE)), 1)
        if abs(wanted - self._kept) > _CHANGE_WORTH_A_WORD * self._kept or wanted == self._most:
            self._kept = wanted
        return self._word()

    def _word(self) -> Word:
        budget = max(round(self._rate * self._pressure), 1)
        return Word(WHOLE - self._kept, round(budget * _SLACK) or 1, budget)


class RateKeeper:
    """Looks at a capture about once a second, and tells it what to keep."""

    def __init__(self, capture: Capture, calls_a_second: int, base_threshold: int) -> None:
        """Say the first word; arguments as for `RateController`."""
        self._capture = capture
        self._controller = RateController(calls_a_second, base_threshold)
        self._looked_at = time.monotonic()
        self._sampled_out = 0
        self._say(self._controller.first_word())

    def keep(self) -> None:
        """Look, if it is time to."""
        now = time.monotonic()
        seconds = now - self._looked_at
        ring_share = self._capture.calls.share_used()
        if seconds < (PRESSED_LOOK_SECONDS if ring_share > RING_PRESSED else LOOK_SECONDS):
            return
        sampled_out = self._capture.ledger()[Ledger.SAMPLED_OUT]
        offered = sampled_out - self._sampled_out + self._capture.rate_spent()
        self._looked_at, self._sampled_out = now, sampled_out
        self._say(self._controller.look(seconds, offered, ring_share))

    def _say(self, word: Word) -> None:
        self._capture.set_rate(word.threshold, word.budget, word.kept_budget)
