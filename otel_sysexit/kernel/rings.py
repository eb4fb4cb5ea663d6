"""
Several ring buffers with one kind of record, read as one.

In: the rings, each written to by its own group of CPUs (bpf/calls.bpf.c). Out: records in the order of their ends, as far as what is read at once
goes, and positions that say what lies before what. One ring's lock is taken for each record by every CPU that writes to it.
"""

from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from otel_sysexit.kernel.ring import Ring


class Rings:
    """The consumer of some rings; a single one is read as it is."""

    def __init__(self, rings: Sequence[Ring]) -> None:
        """*rings*: of CALL records, at least one."""
        self._rings = tuple(rings)
        self._turns = deque(rings)
        self._marks: deque[tuple[int, tuple[int, ...]]] = deque()
        """Positions that were given out and are not passed yet, each with what it stands for in every ring."""
        self._produced = self._consumed = 0

    @property
    def produced(self) -> int:
        """A position: what was reserved until now lies before it. Positions grow, by nothing in particular."""
        now = tuple(ring.produced for ring in self._rings)
        if not self._marks or self._marks[-1][1] != now:
            self._produced += 1
            self._marks.append((self._produced, now))
        return self._produced

    @property
    def consumed(self) -> int:
        """The greatest position given out before which everything was read."""
        now = tuple(ring.consumed for ring in self._rings)
        while self._marks and all(read >= mark for read, mark in zip(now, self._marks[0][1], strict=True)):
            self._consumed, _ = self._marks.popleft()
        return self._consumed

    def waiting(self) -> int:
        """Return how many records were reserved and not read yet, committed or not."""
        return sum(ring.waiting() for ring in self._rings)

    def share_used(self) -> float:
        """Return how full the fullest ring is, 0 to 1."""
        return max(ring.share_used() for ring in self._rings)

    def read(self, limit: int) -> npt.NDArray[Any]:
        """
        Return at most *limit* committed records, of each ring its oldest ones.

        Returns:
            A copy, in the order in which the calls ended; what one ring gives later may have ended earlier.
        """
        if len(self._rings) == 1:
            return self._rings[0].read(limit)
        # Shares are rounded up, and who comes last gets what is left: another one each time.
        self._turns.rotate()
        total = max(self.waiting(), 1)
        limit = min(limit, total)
        parts = []
        left = limit
        for ring in self._turns:
            parts.append(ring.read(min(-(-limit * ring.waiting() // total), left)))
            left -= len(parts[-1])
        records = np.concatenate(parts)
        return records[np.argsort(records["start_ns"] + records["duration_ns"], kind="stable")]
