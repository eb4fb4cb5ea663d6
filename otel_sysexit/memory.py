"""
How the C library and the kernel go about our memory.

Without the settings here, what is freed goes back to the kernel at once, and comes back page by page, each a fault: a batch is some megabytes, many times a second.
What a burst took, and what code and constants were ever needed, would stay resident, though most of it never is again.
"""

import ctypes
import time
from typing import Any, Final

import psutil

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
_LARGE_BYTES: Final = 8 << 20
"""What is larger is mapped, and unmapped when it is freed."""
_KEPT_BYTES: Final = 16 << 20
"""At most, of what is free at the end of the memory."""
_MADV_DONTNEED: Final = 4  # linux/mman.h
_STARTED_SECONDS: Final = 3.0
"""When it has started: libraries are imported, the connection is made."""
_USED_SECONDS: Final = 5.0
"""As often what is not in use is given back, while there are batches."""


def keep_freed_memory() -> None:
    """
    Let the C library keep what is freed, but for large pieces, for whichever thread needs it next.

    Where it is none that can be told, nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_ARENA_MAX, 1)


def release_unused() -> None:
    """
    Give back what is not in use: free memory, and the pages of programs and libraries.

    What still runs comes back from the page cache, one fault for many. Where the C library has no such call, or the kernel does not say
    what is mapped, that part does not happen.
    """
    library = ctypes.CDLL(None)
    trim = getattr(library, "malloc_trim", None)
    if trim is not None:
        trim(0)
    madvise = library.madvise
    madvise.argtypes = ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int
    for mapping in _mappings():
        # Of a file, and no page another than the file's, as a debugger's breakpoint would make it.
        if mapping.perms in ("r-xp", "r--p") and mapping.path.startswith("/") and not mapping.anonymous:
            begin, end = (int(address, 16) for address in mapping.addr.split("-"))
            madvise(begin, end - begin, _MADV_DONTNEED)


class Unused:
    """Has what is not in use given back: once when the agent has started, and now and then while it works; a rest costs nothing."""

    def __init__(self) -> None:
        """Plan nothing yet."""
        self._due = float("inf")

    def note_start(self) -> None:
        """Plan it for when all is imported that is going to be."""
        self._due = time.monotonic() + _STARTED_SECONDS

    def note_batch(self) -> None:
        """Plan it for some time after a batch."""
        self._due = min(self._due, time.monotonic() + _USED_SECONDS)

    def tick(self) -> None:
        """Do it if it is due."""
        if time.monotonic() >= self._due:
            self._due = float("inf")
            release_unused()


def _mappings() -> list[Any]:
    try:
        return list(psutil.Process().memory_maps(grouped=False))
    except (psutil.Error, OSError, AttributeError):  # psutil lacks the method where there is no smaps
        return []
