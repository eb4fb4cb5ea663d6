"""
The system call bpf(2), for which the standard library has no name; ours, since bcc's own is the loader's only.

The compiler runs under another Python than the agent: this imports the standard library only.
"""

import ctypes
import errno
import os
import platform
import struct
from enum import IntEnum
from typing import Final

NUMBER: Final = {"x86_64": 321, "aarch64": 280}
"""By machine (include/uapi/asm-generic/unistd.h, arch/x86/entry/syscalls/syscall_64.tbl)."""

RAW_TRACEPOINT: Final = 17
"""BPF_PROG_TYPE_RAW_TRACEPOINT"""
TRACEPOINT: Final = 5
"""BPF_PROG_TYPE_TRACEPOINT"""
_NAME_BYTES_MAX: Final = 15
_LOG_BYTES: Final = 16 << 20
_ATTEMPTS: Final = 5

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


def create_map(
    map_type: int,
    key_size: int,
    value_size: int,
    max_entries: int,
    *,
    map_flags: int = 0,
    inner_map_fd: int = 0,
    name: str = "",
) -> int:
    """Return the descriptor of a new map; raises OSError. Sizes in bytes; of a ring, *max_entries* is; of a map of maps, *inner_map_fd* is one like those."""
    numbers = map_type, key_size, value_size, max_entries, map_flags, inner_map_fd
    # numa_node, map_name of union bpf_attr.
    return bpf(Command.MAP_CREATE, struct.pack("=6I4x16s", *numbers, _name(name)))


def put_map(outer_map_fd: int, index: int, fd: int) -> None:
    """Make the map *fd* an element of a map of maps; raises OSError."""
    key, value = ctypes.c_uint32(index), ctypes.c_uint32(fd)
    # map_fd, key, value, flags of union bpf_attr.
    pointers = ctypes.addressof(key), ctypes.addressof(value)
    bpf(Command.MAP_UPDATE_ELEM, struct.pack("=I4xQQQ", outer_map_fd, *pointers, 0))


def load_program(program_type: int, instructions: bytes, licence: str, name: str = "") -> int:
    """
    Have the kernel verify a program; return its descriptor.

    Raises:
        OSError: it is refused; `strerror` ends with the verifier's last words, if there are any.
    """
    try:
        return _load_program(program_type, instructions, licence, name, None)
    except OSError as refusal:
        log = ctypes.create_string_buffer(_LOG_BYTES)
        try:
            return _load_program(program_type, instructions, licence, name, log)
        except OSError:
            said = log.value.decode(errors="replace").splitlines()
        words = [line for line in said if line and not line.startswith("processed ")]
        reason = f"{refusal.strerror} ({words[-1]})" if words else refusal.strerror
        raise OSError(refusal.errno, reason) from refusal


def _load_program(
    program_type: int, instructions: bytes, licence: str, name: str, log: ctypes.Array[ctypes.c_char] | None
) -> int:
    code, terms = ctypes.create_string_buffer(instructions), ctypes.create_string_buffer(licence.encode())
    pointers = ctypes.addressof(code), ctypes.addressof(terms)
    verbosity = (0, 0, 0) if log is None else (1, len(log), ctypes.addressof(log))
    # prog_type, insn_cnt, insns, license, log_level, log_size, log_buf, kern_version, prog_flags, prog_name of union bpf_attr.
    attributes = struct.pack(
        "=IIQQIIQ8x16s", program_type, len(instructions) // 8, *pointers, *verbosity, _name(name)
    )
    for _ in range(_ATTEMPTS - 1):
        try:
            return bpf(Command.PROG_LOAD, attributes)
        except OSError as error:
            if error.errno != errno.EAGAIN:  # a signal interrupted the verifier
                raise
    return bpf(Command.PROG_LOAD, attributes)


def _name(text: str) -> bytes:
    """Return what the kernel shows people: letters, digits, underscores."""
    return text.encode()[:_NAME_BYTES_MAX]
