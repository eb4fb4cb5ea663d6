"""
The child process that compiles and attaches the BPF programs, hands them over and ends.

In: a socket's descriptor and one JSON object on the command line. Out, over the socket: one JSON object, with the
descriptors of `MAPS` and `LINKS` beside it when all went well. bcc and its compiler (about 120 MB) live and die here.

It may run under another interpreter than the agent, the one that has bcc, so it imports the standard library,
bcc and btf.py only.
"""

import ctypes
import errno
import json
import os
import platform
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from otel_sysexit.kernel.btf import VMLINUX, Btf

# bcc sees maps and programs in one text only: these are joined, in this order.
SOURCES: Final = ("calls.bpf.c", "lifecycle.bpf.c")
MAPS: Final = ("pending", "calls", "strings", "tasks", "exec_strings", "ledger", "is_closing")
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
    ),
    "signal_struct": ("live", "flags", "group_exit_code"),
    "mm_struct": ("arg_start", "exe_file"),
    "file": ("f_path.dentry",),
    "dentry": ("d_name.name",),
    "linux_binprm": ("filename",),
}
_ARCHITECTURES: Final = {
    "x86_64": ("ARCH_X86_64", "thread_info.status"),
    "aarch64": ("ARCH_AARCH64", "thread_info.flags"),
}

_BPF_MAP_CREATE: Final = 0
_BPF_MAP_TYPE_RINGBUF: Final = 27
_BPF_SYSCALL_NUMBER: Final = {"x86_64": 321, "aarch64": 280}

INSTALL_BCC: Final = (
    "install the distribution's package (Debian, Ubuntu: python3-bpfcc; Fedora, Alpine, Arch: python3-bcc, py3-bcc, "
    "python-bcc), not the unrelated project of that name on PyPI"
)


class LoadError(Exception):
    """Why nothing could be loaded; *kind* is one word for the agent, the text is for people."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


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


def check_kernel() -> None:
    """
    Find out by trying whether this kernel and these privileges can do it.

    Raises:
        LoadError: "unknown-machine", "no-bpf", "no-privileges", "no-ring-buffer" or "no-btf".
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise LoadError("unknown-machine", f"{machine} is not supported: x86_64 and aarch64 are")
    # struct { map_type, key_size, value_size, max_entries } of union bpf_attr.
    attributes = (ctypes.c_uint32 * 32)(_BPF_MAP_TYPE_RINGBUF, 0, 0, os.sysconf("SC_PAGESIZE"))
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(
        _BPF_SYSCALL_NUMBER[machine], _BPF_MAP_CREATE, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    if fd >= 0:
        os.close(fd)
    else:
        code = ctypes.get_errno()
        if code in (errno.EPERM, errno.EACCES):
            raise LoadError(
                "no-privileges",
                "not permitted to use BPF: run as root (sudo), or with CAP_BPF and CAP_PERFMON",
            )
        if code == errno.ENOSYS:
            raise LoadError("no-bpf", "this kernel has no bpf(2): it needs CONFIG_BPF_SYSCALL")
        raise LoadError(
            "no-ring-buffer", f"no BPF ring buffer ({os.strerror(code)}): Linux 5.8 or newer is needed"
        )
    if not VMLINUX.exists():
        raise LoadError("no-btf", f"no {VMLINUX}: the kernel needs CONFIG_DEBUG_INFO_BTF")


def offset_flags() -> list[str]:
    """Return `-DSTRUCT_MEMBER=offset` for each member that `bpf/` reads, for the running kernel."""
    macro, compat = _ARCHITECTURES[platform.machine()]
    try:
        btf = Btf(VMLINUX.read_bytes())
        flags = [
            f"-D{structure}_{member}".replace(".", "_").upper() + f"={btf.offset_of(structure, member)}"
            for structure, members in _MEMBERS.items()
            for member in members
        ]
        flags.append(f"-DTASK_STRUCT_COMPAT_FLAGS={btf.offset_of('task_struct', compat)}")
    except (KeyError, ValueError, OSError) as error:
        raise LoadError("bad-btf", f"{VMLINUX} lacks what is needed: {error}") from error
    return [f"-D{macro}", *flags]


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


def load(request: dict[str, Any]) -> Any:
    """Compile, load and attach; return the bcc object that keeps it all alive."""
    check_kernel()
    offsets = in_parallel(offset_flags)
    bcc = import_bcc()
    bpf_dir = request["bpf_dir"]
    os.environ["BCC_KERNEL_SOURCE"] = bpf_dir
    # Without debug information: nothing reads it, and it costs 30 ms.
    flags = ["-g0", f"-I{bpf_dir}", *offsets(), *request["cflags"]]
    source = "".join(f'#line 1 "{name}"\n{Path(bpf_dir, name).read_text()}' for name in SOURCES)
    try:
        # Tried, not asked by version: distributions backport.
        module = compile_and_load(bcc, source, [*flags, "-DHAVE_TASK_BTF"])
    except Exception:  # noqa: BLE001 (bcc raises Exception itself)
        try:
            module = compile_and_load(bcc, source, flags)
        except Exception as error:
            raise LoadError("load", f"the BPF programs do not load on this kernel: {error}") from error
    table = module["syscall_table"]
    for index, entry in enumerate(bytes.fromhex(request["syscall_table"])):
        if entry:
            table[ctypes.c_int(index)] = ctypes.c_ubyte(entry)
    for tracepoint in LINKS:
        try:
            module.attach_raw_tracepoint(tp=tracepoint.encode(), fn_name=f"on_{tracepoint}".encode())
        except Exception as error:
            raise LoadError("attach", f"cannot attach to the raw tracepoint {tracepoint}: {error}") from error
    return module


def compile_and_load(bcc: Any, text: str, flags: list[str]) -> Any:
    """Compile *text* and load all its programs into the kernel, none attached yet."""
    module = bcc.BPF(text=text.encode(), cflags=flags)
    for tracepoint in LINKS:
        module.load_func(f"on_{tracepoint}".encode(), bcc.BPF.RAW_TRACEPOINT)
    return module


def descriptors(module: Any) -> list[int]:
    """Return the descriptors of `MAPS`, then of `LINKS`."""
    return [module[name].map_fd for name in MAPS] + [
        module.raw_tracepoint_fds[name.encode()] for name in LINKS
    ]


def main() -> None:
    """Serve one request: `SOCKET_FD JSON` on the command line."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by some that start us, and then inherited
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        module = load(json.loads(sys.argv[2]))
    except LoadError as error:
        channel.sendall(json.dumps({"error": error.kind, "message": str(error)}).encode())
        os._exit(1)
    socket.send_fds(channel, [b'{"error": null}'], descriptors(module))
    # bcc would detach at a normal exit; the agent has its own copies by now.
    os._exit(0)


if __name__ == "__main__":
    main()
