"""When nothing is left to trace: what the kernel is asked about it, and how seldom."""

import time
from collections.abc import Callable
from typing import Final

from otel_sysexit.kernel.capture import Capture

_ASK_SECONDS: Final = 1.0
"""For ends that no record tells of: of threads that are left out, and those whose record was dropped."""


class TargetsLeft:
    """
    Whether any thread is a target.

    The kernel answers by walking through a hash, 0.2 ms for an empty one, so it is asked only after a task record, as each end of a target
    brings one when its slot is gone; and once a second. As long as there was none, it is asked each time.
    """

    def __init__(self, capture: Capture, clock: Callable[[], float] = time.monotonic) -> None:
        """Ask *capture*; *clock* returns seconds."""
        self._capture = capture
        self._clock = clock
        self._has_any = False
        self._tasks_read = 0
        self._next_s = 0.0

    def has_any(self) -> bool:
        """Return the answer that was true when tasks were last read, or a second ago."""
        read, now = self._capture.tasks.consumed, self._clock()
        if not self._has_any or read != self._tasks_read or now >= self._next_s:
            self._tasks_read, self._next_s = read, now + _ASK_SECONDS
            self._has_any = self._capture.has_targets()
        return self._has_any
