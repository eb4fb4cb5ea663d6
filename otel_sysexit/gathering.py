"""
When calls are read from the ring: many at once, or few that have waited for others long enough.

In: how much waits. Out: whether to read. A batch, and its request, cost some milliseconds however small they are. What happens to tasks
is read in every round, as /proc forgets; so what must be kept in mind for calls that are not read yet counts, too.
"""

import time
from typing import Final

BATCH_CALLS_MAX: Final = 8_192
"""Calls in one batch: what is worked on at once decides the agent's memory."""
_SHARE_MAX: Final = 1 / 8
"""Of a ring: so much of it calls, their strings and their files may take while they are gathered."""
_ENDS_MAX: Final = 1_024
_EAGER_SECONDS: Final = 3.0
"""In which nearly all that runs has made a call."""


class Gathering:
    """Keeps in mind since when calls wait."""

    def __init__(self, delay_seconds: float) -> None:
        """*delay_seconds*: How long they may."""
        self._delay_seconds = delay_seconds
        self._since: float | None = None
        self._eager_until = 0.0

    def expect_strangers(self) -> None:
        """Let no call wait for a while: who ran before us is known to /proc only, and no longer than it lives."""
        self._eager_until = time.monotonic() + _EAGER_SECONDS

    def finish(self) -> None:
        """Let no call wait any more."""
        self._delay_seconds = 0.0

    def is_due(self, calls: int, ring_share: float, ends: int) -> bool:
        """
        Whether calls are to be read now.

        Args:
            calls: How many wait.
            ring_share: How full the fullest ring is that they fill, 0 to 1.
            ends: How many execs, new names and ends of threads are kept in mind for them.
        """
        if not calls:
            self._since = None
            return False
        now = time.monotonic()
        if self._since is None:
            self._since = now
        is_old = now < self._eager_until or now - self._since >= self._delay_seconds
        return is_old or calls >= BATCH_CALLS_MAX or ring_share > _SHARE_MAX or ends > _ENDS_MAX

    def note_read(self) -> None:
        """Take note that what waited longest was read."""
        self._since = None
