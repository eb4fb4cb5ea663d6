"""What every group is given to measure with."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import collector
from collector import Collector


@dataclass(frozen=True)
class Bench:
    """The folder for files, the loop that makes calls, how thorough to be."""

    folder: Path
    """Everybody may enter it: servers run as nobody."""
    program: Path
    """The compiled getppid.c."""
    storm: Path
    """The compiled storm.c."""
    is_quick: bool = False
    """Each thing briefly, to try the benchmarks themselves."""

    def times(self, thorough: int, quick: int = 1) -> int:
        """Return how often, how many or how long: one of the two."""
        return quick if self.is_quick else thorough

    @contextmanager
    def collector(self) -> Iterator[Collector]:
        """Run a collector for the duration of a `with` block."""
        with collector.started(self.folder) as running:
            yield running
