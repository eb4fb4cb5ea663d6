"""
The system call bpf(2), for which the standard library has no name; ours, since bcc's own is the loader's only.

The loader runs under another Python than the agent: this imports the standard library only.
"""

import ctypes
import os
import platform
from enum import IntEnum
from typing import Final

NUMBER: Final = {"x86_64": 321, "aarch64": 280}
"""By machine (include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls/syscall_64.tbl)."""

_libc = ctypes.CDLL(None, use_errno=True)


class Command(IntEnum):
    """Those of `enum bpf_cmd` (include/uapi/linux/bpf.h) that are used."""

    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_GET = 7
    RAW_TRACEPOINT_OPEN = 17
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_LOOKUP_BATCH = 24
    MAP_UPDATE_BATCH = 26


def bpf(command: Command, attributes: bytes | ctypes.Structure) -> int:
    """
    Call the kernel.

    Args:
        command: What to do.
        attributes: The beginning of `union bpf_attr`; what follows it is zero. The kernel may write into a structure.

    Returns:
        A descriptor, or 0.

    Raises:
        OSError: the kernel refused.
    """
    given = (
        ctypes.create_string_buffer(attributes, len(attributes))
        if isinstance(attributes, bytes)
        else attributes
    )
    number = NUMBER[platform.machine()]
    result: int = _libc.syscall(number, int(command), ctypes.byref(given), ctypes.sizeof(given))
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
