"""
How the C library goes about memory.

What is freed goes back to the kernel at once by default, and comes back page by page, each a fault: a batch is some megabytes, many times a second.
"""

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 8 << 20
"""What is larger is mapped, and unmapped when it is freed."""
_KEPT_BYTES: Final = 16 << 20
"""At most, of what is free at the end of each thread's memory."""


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, but for large pieces; where it is none that can be told, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
