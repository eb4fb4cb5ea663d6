"""
What a kernel can do, found out by trying; versions tell nothing, since distributions carry changes back.

A probe is a program of a few instructions, assembled here: to find out by compiling everything a second time would
double the start. The compiler, which may run under another Python, imports it, so it needs the standard library, bpf.py and btf.py only.
"""

import ctypes
import errno
import os
import platform
import struct
from typing import Final

from otel_sysexit.kernel.bpf import NUMBER, RAW_TRACEPOINT, Command, bpf, create_map, load_program
from otel_sysexit.kernel.btf import VMLINUX

_MAP_TYPE_ARRAY: Final = 2
_MAP_TYPE_RINGBUF: Final = 27

# struct bpf_insn: code, registers (source << 4 | destination), offset, immediate value.
_Instruction = tuple[int, int, int, int]
_CURRENT_TASK: Final = (0x85, 0x00, 0, 158)  # r0 = bpf_get_current_task_btf()
_RETURN: Final = ((0xB7, 0x00, 0, 0), (0x95, 0x00, 0, 0))  # return 0


class LoadError(Exception):
    """Why nothing could be loaded; *kind* is one word for the agent, the text is for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


_NO_PRIVILEGES: Final = "not permitted to use BPF: run as root (sudo), or with CAP_BPF and CAP_PERFMON"


def check_kernel() -> None:
    """
    Find out whether this kernel and these privileges can do it at all.

    Raises:
        LoadError: "unknown-machine", "no-bpf", "no-privileges", "no-ring-buffer" or "no-btf".
    """
    machine = platform.machine()
    if machine not in NUMBER:
        raise LoadError("unknown-machine", f"{machine} is not supported: x86_64 and aarch64 are")
    try:
        os.close(create_map(_MAP_TYPE_RINGBUF, 0, 0, os.sysconf("SC_PAGESIZE")))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES):
            raise LoadError("no-privileges", _NO_PRIVILEGES) from error
        if error.errno == errno.ENOSYS:
            raise LoadError("no-bpf", "this kernel has no bpf(2): it needs CONFIG_BPF_SYSCALL") from error
        raise LoadError(
            "no-ring-buffer", f"no BPF ring buffer ({error.strerror}): Linux 5.8 or newer is needed"
        ) from error
    if not VMLINUX.exists():
        raise LoadError("no-btf", f"no {VMLINUX}: the kernel needs CONFIG_DEBUG_INFO_BTF")


def has_task_btf() -> bool:
    """Return whether a program may call bpf_get_current_task_btf() and bpf_task_pt_regs()."""
    task_pt_regs = ((0xBF, 0x01, 0, 0), (0x85, 0x00, 0, 175))  # r1 = r0; r0 = bpf_task_pt_regs(r1)
    try:
        os.close(_load((_CURRENT_TASK, *task_pt_regs, *_RETURN)))
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.EACCES):  # the verifier's words; what else there is may pass
            return False
        if error.errno == errno.EPERM:  # maps take CAP_BPF, this takes the other one
            raise LoadError("no-privileges", _NO_PRIVILEGES) from error
        raise LoadError("load", f"the kernel refuses a probe: {error.strerror}") from error
    return True


def is_preemptible(migration_disabled: int) -> bool:
    """
    Return whether programs on the raw tracepoints of system calls can be preempted, as they can from Linux 7 on.

    The kernel never runs a program that is already running on the same CPU. Where a program can be preempted, it skips
    the runs of all the threads that get the CPU meanwhile. In such a kernel __bpf_trace_run() (kernel/trace/bpf_trace.c)
    forbids migration, because it does not forbid preemption; so a program is attached, a call made, and looked what the
    task says inside of it.

    Args:
        migration_disabled: The offset of this member in struct task_struct.

    Raises:
        LoadError: the kernel refuses the probe.
    """
    fds: list[int] = []
    try:
        fds.append(create_map(_MAP_TYPE_ARRAY, 4, 4, 1))
        fds.append(
            _load(
                (
                    _CURRENT_TASK,
                    (0x69, 0x01, migration_disabled, 0),  # r1 = *(u16 *)(r0 + migration_disabled)
                    (0x63, 0x1A, -8, 0),  # *(u32 *)(r10 - 8) = r1
                    (0x62, 0x0A, -4, 0),  # *(u32 *)(r10 - 4) = 0
                    (0x18, 0x11, 0, fds[0]),  # r1 = the map
                    (0, 0, 0, 0),
                    (0xBF, 0xA2, 0, 0),  # r2 = r10 - 4: the key
                    (0x07, 0x02, 0, -4),
                    (0xBF, 0xA3, 0, 0),  # r3 = r10 - 8: the value
                    (0x07, 0x03, 0, -8),
                    (0xB7, 0x04, 0, 0),  # r4 = 0
                    (0x85, 0x00, 0, 2),  # bpf_map_update_elem(r1, r2, r3, r4)
                    *_RETURN,
                )
            )
        )
        name = ctypes.create_string_buffer(b"sys_enter")
        fds.append(bpf(Command.RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(name), fds[1])))
        os.getppid()  # any call, by anybody: it is the same for all
        return bool(_lookup(fds[0]))
    except OSError as error:
        raise LoadError(
            "load", f"cannot find out whether programs are preempted: {error.strerror}"
        ) from error
    finally:
        for fd in reversed(fds):
            os.close(fd)


def _lookup(map_fd: int) -> int:
    """Return the u32 at index 0 of an array."""
    key, value = ctypes.c_uint32(0), ctypes.c_uint32(0)
    # map_fd, (padding), key, value of union bpf_attr.
    bpf(
        Command.MAP_LOOKUP_ELEM, struct.pack("=I4xQQ", map_fd, ctypes.addressof(key), ctypes.addressof(value))
    )
    return value.value


def _load(instructions: tuple[_Instruction, ...]) -> int:
    """Load a program for raw tracepoints; return its descriptor."""
    code = b"".join(struct.pack("=BBhi", *instruction) for instruction in instructions)
    return load_program(RAW_TRACEPOINT, code, "Dual BSD/GPL")
