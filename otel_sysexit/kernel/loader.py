"""
The child process that compiles and attaches the BPF programs, hands them over and ends.

In: one JSON object on standard input, a socket's descriptor on the command line. Out, over the socket: one JSON object, with the
descriptors of maps, links and programs beside it when all went well. bcc and its compiler (about 120 MB) live and die here.

It may run under another interpreter than the agent, the one that has bcc, so it imports the standard library,
bcc, bpf.py, btf.py and probes.py only.
"""

import base64
import ctypes
import fcntl
import json
import os
import platform
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from otel_sysexit.kernel.bpf import Command, bpf
from otel_sysexit.kernel.btf import VMLINUX, Btf
from otel_sysexit.kernel.probes import LoadError, check_kernel, has_task_btf, is_preemptible

# bcc sees maps and programs in one text only: these are joined, in this order.
SOURCES: Final = tuple(
    f"{name}.bpf.c"
    for name in ("base", "slots", "strings", "files", "spans", "selection", "sampling", "calls", "lifecycle")
)
MAPS: Final = (
    *("pending", "pending_owners", "pending_others", "selection", "rate"),
    *("calls", "strings", "tasks", "exec_strings", "files", "ledger", "is_closing"),
)
# In the order of attaching: whatever ends a call or a thread first, sys_enter last, so that no enter is seen
# whose exit could be missed.
LINKS: Final = (
    "sched_process_exit",
    "sched_process_exec",
    "sched_process_fork",
    "task_rename",
    "sys_exit",
    "sys_enter",
)

# Those whose programs perf calls instead, where they could be preempted otherwise, and what the events are called. The others need
# more than the events tell.
EVENTS: Final = {
    "sched_process_exit": b"sched:sched_process_exit",
    "sched_process_exec": b"sched:sched_process_exec",
    "sys_exit": b"raw_syscalls:sys_exit",
    "sys_enter": b"raw_syscalls:sys_enter",
}
PERF_EVENTS: Final = "-DPERF_EVENTS"

_MEMBERS: Final = {
    "task_struct": (
        "tgid",
        "pid",
        "group_leader",
        "real_parent",
        "start_boottime",
        "mm",
        "exit_code",
        "signal",
        "comm",
        "cred",
        "files",
        "thread_pid",
    ),
    "signal_struct": ("live", "flags", "group_exit_code"),
    "mm_struct": ("arg_start", "arg_end", "exe_file"),
    "cred": ("uid", "euid", "gid", "egid"),
    "pid": ("level", "numbers"),
    "files_struct": ("fdt",),
    "fdtable": ("fd", "max_fds"),
    "file": ("f_path.dentry", "f_path.mnt", "f_inode", "f_op"),
    "dentry": ("d_parent", "d_name.name", "d_name.len", "d_name.hash_len"),
    "inode": ("i_mode", "i_ino"),
    "vfsmount": ("mnt_root",),
    "mount": ("mnt", "mnt_parent", "mnt_mountpoint"),
    "linux_binprm": ("filename",),
}
# Only where cgroups matter: a kernel without lacks them.
_CGROUP_MEMBERS: Final = {
    "task_struct": ("cgroups",),
    "css_set": ("dfl_cgrp", "subsys"),
    "cgroup": ("kn", "self"),
    "cgroup_subsys_state": ("cgroup", "parent"),
    "kernfs_node": ("id",),
}
_ARCHITECTURES: Final = {
    "x86_64": ("ARCH_X86_64", "thread_info.status"),
    "aarch64": ("ARCH_AARCH64", "thread_info.flags"),
}

_PERF_EVENT_IOC_DISABLE: Final = 0x2401
_CLONE_NEWNS: Final = 0x20000
_MS_REC: Final = 0x4000
_MS_PRIVATE: Final = 0x40000
_TRACEFS: Final = Path("/sys/kernel/tracing")

INSTALL_BCC: Final = (
    "install the distribution's package (Debian, Ubuntu: python3-bpfcc; Fedora, Alpine, Arch: python3-bcc, py3-bcc, "
    "python-bcc), not the unrelated project of that name on PyPI"
)


def import_bcc() -> Any:
    """
    Return the module `bcc`.

    Raises:
        LoadError: it is missing ("no-bcc"), or is the unrelated PyPI project ("wrong-bcc").
    """
    try:
        import bcc  # noqa: PLC0415 (only here, and late: the error is ours to word)
    except ImportError as error:
        if _is_foreign(error):
            raise LoadError("wrong-bcc", _wrong_bcc(error.path)) from error
        raise LoadError("no-bcc", f"{sys.executable} has no bcc ({error}): {INSTALL_BCC}") from error
    except OSError as error:  # the compiler's shared library is missing
        raise LoadError("no-bcc", f"{sys.executable} cannot load bcc ({error}): {INSTALL_BCC}") from error
    if not hasattr(bcc, "BPF"):
        raise LoadError("wrong-bcc", _wrong_bcc(getattr(bcc, "__file__", None)))
    return bcc


def _is_foreign(error: ImportError) -> bool:
    """Whether a module called bcc is there, but failed on something that the real one does not use."""
    return error.name is not None and error.name.partition(".")[0] not in ("bcc", "libbcc")


def _wrong_bcc(path: str | None) -> str:
    return f"the module bcc at {path or 'an unknown place'} is not the BPF compiler's: uninstall it, and {INSTALL_BCC}"


def lift_memory_limit() -> None:
    """
    Let maps be as large as they must be.

    Until Linux 5.11 (commit "bpf: Eliminate rlimit-based memory accounting") they count as locked memory, all of a
    user's together: a second agent, or any other BPF program, would leave none for us.
    """
    with suppress(OSError, ValueError):  # without CAP_SYS_RESOURCE: what there is may be enough
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def offset_flags(subsystem: str | None, *, has_cgroups: bool) -> list[str]:
    """
    Return `-DSTRUCT_MEMBER=offset` for each member that `bpf/` reads, and what else there is to say of the running kernel.

    Args:
        subsystem: The controller whose index in css_set.subsys is CGROUP_SUBSYSTEM; None: not needed.
        has_cgroups: Whether members of cgroups are read.
    """
    macro, compat = _ARCHITECTURES[platform.machine()]
    wanted = [*_MEMBERS.items(), *(_CGROUP_MEMBERS.items() if has_cgroups else ())]
    try:
        btf = Btf(VMLINUX.read_bytes())
        flags = [
            f"-D{structure}_{member}".replace(".", "_").upper() + f"={btf.offset_of(structure, member)}"
            for structure, members in wanted
            for member in members
        ]
        flags.append(f"-DTASK_STRUCT_COMPAT_FLAGS={btf.offset_of('task_struct', compat)}")
        if subsystem is not None:
            flags.append(f"-DCGROUP_SUBSYSTEM={btf.enumerator('cgroup_subsys_id', f'{subsystem}_cgrp_id')}")
    except (KeyError, ValueError, OSError) as error:
        raise LoadError("bad-btf", f"{VMLINUX} lacks what is needed: {error}") from error
    return [f"-D{macro}", *flags, *ability_flags(btf)]


def ability_flags(btf: Btf) -> list[str]:
    """Return the macros for what the running kernel can do."""
    if not has_task_btf():
        return []
    try:
        migration_disabled = btf.offset_of("task_struct", "migration_disabled")
    except KeyError:  # a kernel before 5.11, or for one CPU
        return ["-DHAVE_TASK_BTF"]
    return ["-DHAVE_TASK_BTF", *([PERF_EVENTS] if is_preemptible(migration_disabled) else [])]


def in_parallel(work: Callable[[], list[str]]) -> Callable[[], list[str]]:
    """
    Start *work* in a forked child; return a function that waits for its result.

    Reading BTF and importing bcc take 50 ms each, and a start is waited for.
    """
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer: dict[str, Any] = {"result": work()}
        except LoadError as error:
            answer = {"kind": error.kind, "message": str(error)}
        os.write(theirs, json.dumps(answer).encode())  # a few hundred bytes: a pipe takes them at once
        os._exit(0)
    os.close(theirs)

    def result() -> list[str]:
        with open(ours, "rb") as pipe:  # noqa: PTH123 (a descriptor)
            answer = json.loads(pipe.read() or '{"kind": "bad-btf", "message": "reading BTF failed"}')
        os.waitpid(pid, 0)
        if "kind" in answer:
            raise LoadError(answer["kind"], answer["message"])
        return list(answer["result"])

    return result


def read_source(bpf_dir: str) -> str:
    """Return the text of all programs."""
    return "".join(f'#line 1 "{name}"\n{Path(bpf_dir, name).read_text()}' for name in SOURCES)


def kernel_flags(cflags: list[str]) -> list[str]:
    """Return the macros that say what the running kernel is like, as far as *cflags* need it."""
    asked = dict(flag.removeprefix("-D").partition("=")[::2] for flag in cflags)
    has_cgroups = not asked.keys().isdisjoint(("CGROUPS", "SELECT_CGROUP", "EXCLUDE_CGROUP"))
    return offset_flags(asked.get("CGROUP_SUBSYSTEM"), has_cgroups=has_cgroups)


def load(request: dict[str, Any]) -> list[int]:
    """Compile, load and attach; return the descriptors of `MAPS`, of `LINKS`, and of the programs of `LINKS`."""
    lift_memory_limit()
    check_kernel()
    bpf_dir, cflags = request["bpf_dir"], request["cflags"]
    of_kernel = in_parallel(lambda: kernel_flags(cflags))
    bcc = import_bcc()
    os.environ["BCC_KERNEL_SOURCE"] = bpf_dir
    macros = [*cflags, *of_kernel()]
    try:
        module = compile_and_load(bcc, bpf_dir, macros, request["substitutes"])
    except Exception as error:  # bcc raises Exception itself
        raise LoadError("load", f"the BPF programs do not load on this kernel: {error}") from error
    for name, (keys, values, count) in request["contents"].items():
        fill(module[name].map_fd, base64.b64decode(keys), base64.b64decode(values), count)
    if PERF_EVENTS in macros:
        mount_tracefs()
    links = [
        attach(module, tracepoint, is_event=tracepoint in EVENTS and PERF_EVENTS in macros)
        for tracepoint in LINKS
    ]
    programs = [module.funcs[f"on_{tracepoint}".encode()].fd for tracepoint in LINKS]
    return [*(module[name].map_fd for name in MAPS), *links, *programs]


def fill(fd: int, keys: bytes, values: bytes, count: int) -> None:
    """Write *count* elements to the map *fd* (BPF_MAP_UPDATE_BATCH, since 5.6)."""
    key_buffer, value_buffer = ctypes.create_string_buffer(keys), ctypes.create_string_buffer(values)
    # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags of union bpf_attr.
    buffers = ctypes.addressof(key_buffer), ctypes.addressof(value_buffer)
    try:
        bpf(Command.MAP_UPDATE_BATCH, struct.pack("=QQQQIIQQ", 0, 0, *buffers, count, fd, 0, 0))
    except OSError as error:
        raise LoadError("load", f"cannot fill a map: {error.strerror}") from error


def compile_and_load(
    bcc: Any, bpf_dir: str, macros: list[str], substitutes: Mapping[str, int] | None = None
) -> Any:
    """
    Compile what is in *bpf_dir* and load all programs into the kernel, none attached yet.

    *substitutes*: descriptors of maps that others have made, by the names of ours that they take the place of.
    """
    # Of a macro that is given twice the last one counts. Without debug information: nothing reads it, and it costs 30 ms.
    cflags = ["-g0", "-Wno-macro-redefined", f"-I{bpf_dir}", *macros]
    module = bcc.BPF(text=read_source(bpf_dir).encode(), cflags=cflags)
    # Ours exist by now, and programs name them by descriptor until the kernel loads them. bcc's own way, BPF_TABLE_PINNED, would
    # pin a map of ours where there is none any more.
    for name, fd in (substitutes or {}).items():
        os.dup2(fd, module[name].map_fd, inheritable=False)
    for tracepoint in LINKS:
        is_event = tracepoint in EVENTS and PERF_EVENTS in macros
        kind = bcc.BPF.TRACEPOINT if is_event else bcc.BPF.RAW_TRACEPOINT
        module.load_func(f"on_{tracepoint}".encode(), kind)
    return module


def mount_tracefs() -> None:
    """Where it is not mounted, let this process alone see tracefs, which perf's events have their numbers in."""
    if os.path.ismount(_TRACEFS) or os.path.ismount("/sys/kernel/debug"):
        return
    libc = ctypes.CDLL(None)
    if libc.unshare(_CLONE_NEWNS) == 0 and libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None) == 0:
        libc.mount(b"tracefs", bytes(_TRACEFS), b"tracefs", 0, None)  # if not: attaching will tell


def attach(module: Any, tracepoint: str, *, is_event: bool) -> int:
    """Attach the program of a tracepoint; return the descriptor that keeps it there."""
    name, function = tracepoint.encode(), f"on_{tracepoint}".encode()
    try:
        if is_event:
            module.attach_tracepoint(tp=EVENTS[tracepoint], fn_name=function)
            fd = int(module.tracepoint_fds[EVENTS[tracepoint]])
            fcntl.ioctl(fd, _PERF_EVENT_IOC_DISABLE, 0)  # the event itself is not wanted; the program stays
            return fd
        module.attach_raw_tracepoint(tp=name, fn_name=function)
        return int(module.raw_tracepoint_fds[name])
    except Exception as error:  # bcc raises Exception itself
        hint = f", which needs to read tracefs, mounted at {_TRACEFS}" if is_event else ""
        raise LoadError("attach", f"cannot attach to the tracepoint {tracepoint}{hint}: {error}") from error


def main() -> None:
    """Serve one request: JSON on standard input, the number of the socket's descriptor on the command line."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by some that start us, and then inherited
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        descriptors = load(json.load(sys.stdin))
    except LoadError as error:
        channel.sendall(json.dumps({"error": error.kind, "message": str(error)}).encode())
        os._exit(1)
    socket.send_fds(channel, [b'{"error": null}'], descriptors)
    # bcc would detach at a normal exit; the agent has its own copies by now.
    os._exit(0)


if __name__ == "__main__":
    main()
