"""
Looks for the process contexts of programs that run on: when they are a second old, and twice later.

In: programs as they are taken up. Out: those for which a context was found. A program publishes its context some time after it began;
and reading the memory of a process may take as long as it likes (a page of a network's file system), so a thread does it.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, NamedTuple

from otel_sysexit.identity import Image
from otel_sysexit.processcontext import ProcessContext, read_process_context

_LOOKS_SECONDS: Final = (1.0, 5.0, 25.0)
"""After so long a program is looked at, as long as nothing was found."""
_WAITING_MAX: Final = 10_000
"""Programs that wait for a look; on top of that the oldest are not looked at."""
_AT_ONCE_MAX: Final = 1_000


class _Look(NamedTuple):
    due: float
    """Of time.monotonic()."""
    image: Image
    number: int


class ContextWatch:
    """What programs publish of themselves, as it is found."""

    def __init__(self, read: Callable[[int], ProcessContext | None] = read_process_context) -> None:
        """*read* gives the context of a process by its pid."""
        self._read = read
        self._looks: tuple[deque[_Look], ...] = tuple(deque(maxlen=_WAITING_MAX) for _ in _LOOKS_SECONDS)
        self._pool: ThreadPoolExecutor | None = None
        self._asked: tuple[list[_Look], Future[list[ProcessContext | None]]] | None = None

    def add(self, image: Image) -> None:
        """Look at *image* from now on."""
        self._plan(image, 0)

    def _plan(self, image: Image, number: int) -> None:
        self._looks[number].append(_Look(time.monotonic() + _LOOKS_SECONDS[number], image, number))

    def take(self) -> list[tuple[Image, ProcessContext]]:
        """Return what was found since the last time, and have looked at what is due; never waits for it."""
        found = []
        if self._asked is not None:
            looks, answers = self._asked
            if not answers.done():
                return []
            self._asked = None
            for look, context in zip(looks, answers.result(), strict=True):
                if context is not None and context.attributes:
                    found.append((look.image, context))
                elif look.number + 1 < len(_LOOKS_SECONDS):
                    self._plan(look.image, look.number + 1)
        due = list(islice(self._due(), _AT_ONCE_MAX))
        if due:
            self._pool = self._pool or ThreadPoolExecutor(1, thread_name_prefix="contexts")
            pids = [look.image.process.pid for look in due]
            self._asked = due, self._pool.submit(lambda: [self._read(pid) for pid in pids])
        return found

    def _due(self) -> Iterator[_Look]:
        """Yield the programs to look at now, which run still."""
        now = time.monotonic()
        for looks in self._looks:
            while looks and looks[0].due <= now:
                look = looks.popleft()
                process = look.image.process
                if process.image is look.image and process.end_unix_ns is None:
                    yield look
