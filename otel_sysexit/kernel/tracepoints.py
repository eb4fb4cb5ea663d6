"""
Attach programs to the kernel's tracepoints: to raw ones by bpf(2), to perf's events by perf_event_open(2).

In: descriptors of loaded programs. Out: descriptors that keep them attached. It runs in the loader child, whose mounts are its own.
"""

import ctypes
import errno
import fcntl
import os
import platform
import struct
from pathlib import Path
from typing import Final

from otel_sysexit.kernel.bpf import Command, bpf
from otel_sysexit.kernel.probes import LoadError

# Those whose programs perf calls instead, where they could be preempted otherwise, and what the events are called. The others need
# more than the events tell.
EVENTS: Final = {
    "sched_process_exit": "sched/sched_process_exit",
    "sched_process_exec": "sched/sched_process_exec",
    "sys_exit": "raw_syscalls/sys_exit",
    "sys_enter": "raw_syscalls/sys_enter",
}
_TRACEFS: Final = Path("/sys/kernel/tracing")
_DEBUGFS: Final = Path("/sys/kernel/debug")
_CLONE_NEWNS: Final = 0x20000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000

_PERF_EVENT_OPEN: Final = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_TRACEPOINT: Final = 2
_PERF_ATTR_SIZE_VER0: Final = 64
_PERF_FLAG_FD_CLOEXEC: Final = 8
_PERF_EVENT_IOC_SET_BPF: Final = 0x40042408

_libc = ctypes.CDLL(None, use_errno=True)


def mount_tracefs() -> None:
    """Where it is not mounted, let this process alone see tracefs, which perf's events have their numbers in."""
    if os.path.ismount(_TRACEFS) or os.path.ismount(_DEBUGFS):
        return
    if _libc.unshare(_CLONE_NEWNS) == 0 and _libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0:
        _libc.mount(b"tracefs", bytes(_TRACEFS), b"tracefs", 0, None)  # if not: attaching will tell


def attach(tracepoint: str, program_fd: int, *, is_event: bool) -> int:
    """
    Attach a program to *tracepoint*, by perf's event or raw; return the descriptor that keeps it there.

    Raises:
        LoadError: the kernel refuses.
    """
    try:
        return (
            _attach_event(EVENTS[tracepoint], program_fd) if is_event else _attach_raw(tracepoint, program_fd)
        )
    except OSError as error:
        hint = f", which needs to read tracefs, mounted at {_TRACEFS}" if is_event else ""
        raise LoadError(
            "attach", f"cannot attach to the tracepoint {tracepoint}{hint}: {error.strerror}"
        ) from error


def _attach_raw(tracepoint: str, program_fd: int) -> int:
    name = ctypes.create_string_buffer(tracepoint.encode())
    # name, prog_fd of union bpf_attr.
    return bpf(Command.RAW_TRACEPOINT_OPEN, struct.pack("=QI", ctypes.addressof(name), program_fd))


def _attach_event(event: str, program_fd: int) -> int:
    """
    Have perf call the program.

    The event itself is not wanted, so its period is 0 and it stays on one CPU: programs are called on all, whatever is counted
    (perf_trace_run_bpf_submit() in kernel/events/core.c).
    """
    # type, size, config (the tracepoint's number), sample_period, sample_type, read_format, flags (1: disabled).
    attributes = struct.pack(
        "=IIQQQQQ16x", _PERF_TYPE_TRACEPOINT, _PERF_ATTR_SIZE_VER0, _event_number(event), 0, 0, 0, 1
    )
    number = _PERF_EVENT_OPEN[platform.machine()]
    every_process, cpu, no_group = ctypes.c_int(-1), ctypes.c_int(0), ctypes.c_int(-1)
    flags = ctypes.c_ulong(_PERF_FLAG_FD_CLOEXEC)
    fd: int = _libc.syscall(number, attributes, every_process, cpu, no_group, flags)
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    try:
        fcntl.ioctl(fd, _PERF_EVENT_IOC_SET_BPF, program_fd)
    except OSError:
        os.close(fd)
        raise
    return fd


def _event_number(event: str) -> int:
    for folder in (_TRACEFS, _DEBUGFS / "tracing"):
        try:
            return int((folder / "events" / event / "id").read_text(encoding="ascii"))
        except FileNotFoundError:
            continue
    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
