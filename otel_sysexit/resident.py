"""
What of our memory is resident: not what only starting needed, but what is needed again and again.

What is freed goes back to the kernel at once by default, and comes back page by page, each a fault: a batch is some megabytes, many times a second.
It is kept instead. And importing a library touches its symbols, its relocations and code that runs once: a third of it or more. These pages are the page cache's, but count
as resident as long as they are mapped. Unmapped, what is needed again is there for a page fault.
"""

import ctypes
import mmap
from collections.abc import Iterator
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1  # malloc.h
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BYTES: Final = 8 << 20
"""What is larger is mapped, and unmapped when it is freed."""
_KEPT_BYTES: Final = 16 << 20
"""At most, of what is free at the end of each thread's memory."""
_PT_LOAD: Final = 1  # elf.h
_PF_W: Final = 2


class _ProgramHeader(ctypes.Structure):
    """`Elf64_Phdr` (elf.h)."""

    _fields_ = (
        ("type", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("offset", "vaddr", "paddr", "filesz", "memsz", "align")),
    )


class _LibraryInfo(ctypes.Structure):
    """The members of `struct dl_phdr_info` (link.h) that all have."""

    _fields_ = (
        ("addr", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.POINTER(_ProgramHeader)),
        ("count", ctypes.c_uint16),
    )


_Callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_LibraryInfo), ctypes.c_size_t, ctypes.c_void_p)


def keep_freed_memory() -> None:
    """Let the C library keep what is freed, but for large pieces; where it is none that can be told, nothing happens."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)


def constant_segments() -> list[tuple[int, int]]:
    """Return the addresses, from and to, of what is never written to of each library that is loaded: code and constants."""
    found: list[tuple[int, int]] = []

    def note(info: Any, _size: int, _data: Any) -> int:
        found.extend(_constant_segments(info.contents))
        return 0

    # Holding the interpreter's lock: who loads a library holds it while waiting for the loader's lock, which is held here.
    ctypes.PyDLL(None).dl_iterate_phdr(_Callback(note), None)
    return found


def _constant_segments(library: _LibraryInfo) -> Iterator[tuple[int, int]]:
    for header in library.headers[: library.count]:
        if header.type == _PT_LOAD and not header.flags & _PF_W:
            start = library.addr + header.vaddr
            # What shares a page with something else stays.
            yield _page(start + mmap.PAGESIZE - 1), _page(start + header.filesz)


def _page(address: int) -> int:
    return address // mmap.PAGESIZE * mmap.PAGESIZE


def give_back_libraries() -> None:
    """Unmap the pages of code and constants; where that is refused, as in locked memory, nothing happens."""
    madvise = ctypes.CDLL(None).madvise
    madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, end in constant_segments():
        if start < end:
            madvise(start, end - start, mmap.MADV_DONTNEED)
