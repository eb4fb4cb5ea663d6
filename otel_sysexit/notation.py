"""
How arguments are written: `O_RDONLY|O_CLOEXEC` for the flags of openat, `SIGTERM` for a signal.

One number and the arguments beside it come in, a text as strace writes it goes out; what has no name stays a number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from otel_sysexit.constants import constants
from otel_sysexit.signatures import Signature
from otel_sysexit.syscalls import Abi


@dataclass(frozen=True, slots=True)
class When:
    """What an argument of the call must be for another one, or itself, to be written in some way."""

    argument: str
    values: tuple[int, ...] = ()
    """One of these,"""
    bits: int = 0
    """or any of these set."""


@dataclass(frozen=True, slots=True)
class Sort:
    """
    How arguments of one sort are written; groups are those of constants.py, several with blanks between.

    With *one_of*, the whole value has a name or is a number. Else what *fields* name comes first, then *flags*, then
    octal digits, then the rest in hex.
    """

    places: str
    """`call.argument`, with the names of the shipped signatures; `*` for every call."""
    one_of: str = ""
    fields: tuple[tuple[int, str], ...] = ()
    """Masks and the groups of the values that the bits in them can have."""
    flags: str = ""
    """Groups of single or several bits."""
    octal: int = 0
    """Bits that are written as octal digits."""
    zero: str = "0"
    is_field_last: bool = False
    when: When | None = None

    def text(self, value: int, bits: int, abi: Abi) -> str | None:
        """Return the text of a *value*, None if it stays a number; *bits* are the value's as an unsigned number."""
        if self.one_of:
            return _names(self.one_of, abi).get(value)
        parts, bits = self._field_names(bits, abi)
        names = []
        for flag, name in _flags(self.flags, abi):
            if bits & flag == flag:
                names.append(name)
                bits &= ~flag
        parts = names + parts if self.is_field_last else parts + names
        if digits := bits & self.octal:
            parts.append(f"0{digits:o}")
        if rest := bits & ~self.octal:
            parts.append(f"{rest:#x}")
        return "|".join(parts) or self.zero

    def _field_names(self, bits: int, abi: Abi) -> tuple[list[str], int]:
        """Return the names of the fields that have one, and the bits that are left."""
        parts = []
        for mask, group in self.fields:
            name = _names(group, abi).get(bits & mask)
            if name is not None:
                parts.append(name)
                bits &= ~mask
        return parts, bits


@cache
def _names(groups: str, abi: Abi) -> Mapping[int, str]:
    """Return value -> name."""
    names: dict[int, str] = {}
    for group in groups.split():
        for name, value in constants(group, abi).items():
            names.setdefault(value, name)
    return names


@cache
def _flags(groups: str, abi: Abi) -> Sequence[tuple[int, str]]:
    """Return bits and name, those of several bits first; else in the order of the bits."""
    return sorted(_names(groups, abi).items(), key=lambda flag: (-flag[0].bit_count(), flag[0]))


_ACCESS_MODE: Final = (3, "access_mode")
_SOCKET_TYPE: Final = ((0xF, "socket_type"),)
# O_CREAT, and the bit that is O_TMPFILE's alone: the same on every ABI.
_CREATES: Final = 0o100 | 0o20000000
_ANY_MODE: Final = 0xFFFF_FFFF
_PERMISSIONS: Final = 0o777
_AF_INET, _AF_INET6, _AF_NETLINK = 2, 10, 16
_IPC_COMMANDS: Final = 0xFF

SORTS: Final[tuple[Sort, ...]] = (
    # files
    Sort("*.dfd *.olddfd *.newdfd *.from_dfd *.to_dfd *.mountdirfd execveat.fd", "dirfd", when=When("", (-100,))),
    Sort("open.flags openat.flags open_by_handle_at.flags", fields=(_ACCESS_MODE,), flags="open"),
    Sort("open.mode openat.mode", octal=_ANY_MODE, zero="000", when=When("flags", bits=_CREATES)),
    Sort("mq_open.oflag", fields=(_ACCESS_MODE,), flags="mq_open"),
    Sort("mq_open.mode", octal=_ANY_MODE, zero="000", when=When("oflag", bits=0o100)),
    Sort("creat.mode chmod.mode fchmod.mode fchmodat.mode fchmodat2.mode mkdir.mode mkdirat.mode umask.mask", octal=_ANY_MODE, zero="000"),
    Sort("mknod.mode mknodat.mode", fields=((0o170000, "file_type"),), octal=_ANY_MODE, zero="000"),
    Sort("access.mode faccessat.mode faccessat2.mode", fields=((4, "access"), (2, "access"), (1, "access")), zero="F_OK"),
    Sort("fchownat.flag fstatat64.flag newfstatat.flag linkat.flags utimensat.flags utimensat_time64.flags fchmodat2.flags", flags="at"),
    Sort("unlinkat.flag", flags="at at_unlink"),
    Sort("faccessat2.flags", flags="at at_access"),
    Sort("name_to_handle_at.flag", flags="at at_handle"),
    Sort("execveat.flags", flags="at at_exec"),
    Sort("statx.flags", flags="at at_statx"),
    Sort("statx.mask", flags="statx"),
    Sort("*.at_flags", flags="at"),
    Sort("renameat2.flags", flags="rename"),
    Sort("lseek.whence _llseek.whence", "whence"),
    Sort("fallocate.mode", flags="fallocate"),
    Sort("fadvise64.advice fadvise64_64.advice arm_fadvise64_64.advice", "advice"),
    Sort("sync_file_range.flags sync_file_range2.flags", flags="sync_range"),
    Sort("flock.cmd", flags="flock"),
    Sort("setxattr.flags lsetxattr.flags fsetxattr.flags", flags="xattr"),
    Sort("preadv2.flags pwritev2.flags", flags="rwf"),
    Sort("splice.flags tee.flags vmsplice.flags", flags="splice"),
    Sort("pipe2.flags", flags="open"),
    Sort("dup3.flags", flags="dup"),
    Sort("close_range.flags", flags="close_range"),
    Sort("memfd_create.flags", fields=((0xFC00_0000, "memfd_huge"),), flags="memfd"),
    Sort("memfd_secret.flags", flags="dup"),
    Sort("inotify_init1.flags", flags="inotify"),
    Sort("inotify_add_watch.mask", flags="inotify_mask"),
    Sort("fcntl.cmd fcntl64.cmd", "fcntl"),
    Sort("fcntl.arg fcntl64.arg", flags="fd_flags", when=When("cmd", (2,))),
    Sort("fcntl.arg fcntl64.arg", fields=(_ACCESS_MODE,), flags="open", when=When("cmd", (4,))),
    Sort("fcntl.arg fcntl64.arg", "signal", when=When("cmd", (10,))),
    Sort("fcntl.arg fcntl64.arg", "lease", when=When("cmd", (1024,))),
    Sort("fcntl.arg fcntl64.arg", flags="directory_events", when=When("cmd", (1026,))),
    Sort("fcntl.arg fcntl64.arg", flags="seals", when=When("cmd", (1033,))),
    Sort("ioctl.cmd", "ioctl"),
    # memory
    Sort("mmap.prot mmap2.prot mprotect.prot pkey_mprotect.prot", flags="prot", zero="PROT_NONE"),
    Sort("mmap.flags mmap2.flags", fields=((0xF, "map_type"), (0xFC00_0000, "map_huge")), flags="mmap"),
    Sort("mremap.flags", flags="mremap"),
    Sort("msync.flags", flags="msync"),
    Sort("mlock2.flags", flags="mlock"),
    Sort("mlockall.flags", flags="mlockall"),
    Sort("madvise.behavior process_madvise.behavior", "madvise"),
    Sort("mbind.mode set_mempolicy.mode", fields=((0xFFF, "mempolicy"),), flags="mempolicy_flags"),
    Sort("mbind.flags move_pages.flags", flags="mempolicy_move"),
    # processes, signals, time
    Sort("clone.clone_flags", fields=((0xFF, "signal"),), flags="clone", is_field_last=True),
    Sort("unshare.unshare_flags setns.flags", flags="clone clone_time"),
    Sort("kill.sig tkill.sig tgkill.sig rt_sigqueueinfo.sig rt_tgsigqueueinfo.sig pidfd_send_signal.sig rt_sigaction.sig sigaction.sig signal.sig", "signal"),
    Sort("rt_sigprocmask.how sigprocmask.how", "sigprocmask"),
    Sort("signalfd4.flags", flags="signalfd"),
    Sort("pidfd_open.flags", flags="pidfd_open"),
    Sort("pidfd_send_signal.flags", flags="pidfd_signal"),
    Sort("wait4.options waitpid.options", flags="wait wait_own"),
    Sort("waitid.options", flags="waitid wait_own"),
    Sort("waitid.which", "idtype"),
    Sort("sched_setscheduler.policy sched_get_priority_max.policy sched_get_priority_min.policy", fields=((0xFFFF, "policy"),), flags="policy_flags"),
    Sort("getpriority.which setpriority.which", "priority"),
    Sort("ioprio_get.which ioprio_set.which", "ioprio"),
    Sort("getrlimit.resource setrlimit.resource ugetrlimit.resource prlimit64.resource", "resource"),
    Sort("getrusage.who", "rusage"),
    Sort("ptrace.request", "ptrace"),
    Sort("kcmp.type", "kcmp"),
    Sort("prctl.option", "prctl"),
    Sort("prctl.arg2", "signal", when=When("option", (1,))),
    Sort("prctl.arg2", "seccomp_mode", when=When("option", (22,))),
    Sort("prctl.arg2", "capability", when=When("option", (23, 24))),
    Sort("prctl.arg2", "cap_ambient", when=When("option", (47,))),
    Sort("arch_prctl.option", "arch_prctl"),
    Sort("seccomp.op", "seccomp"),
    Sort("seccomp.flags", flags="seccomp_filter", when=When("op", (1,))),
    Sort("futex.op futex_time64.op", fields=((0xFF, "futex"),), flags="futex_flags"),
    Sort("futex_wait.flags futex_wake.flags", fields=((3, "futex2_size"),), flags="futex2"),
    Sort("*.which_clock *.clockid", "clock"),
    Sort("clock_nanosleep.flags clock_nanosleep_time64.flags timer_settime.flags timer_settime64.flags", flags="timer"),
    Sort("timerfd_create.flags", flags="timerfd"),
    Sort("timerfd_settime.flags timerfd_settime64.flags", flags="timerfd_settime"),
    Sort("getitimer.which setitimer.which", "which_time"),
    Sort("membarrier.cmd", "membarrier"),
    Sort("rseq.flags", flags="rseq"),
    # sockets and events
    Sort("socket.family socketpair.family", "family"),
    Sort("socket.type socketpair.type", fields=_SOCKET_TYPE, flags="socket_flags"),
    Sort("socket.protocol socketpair.protocol", "ipproto", when=When("family", (_AF_INET, _AF_INET6))),
    Sort("socket.protocol socketpair.protocol", "netlink", when=When("family", (_AF_NETLINK,))),
    Sort("accept4.flags", flags="socket_flags"),
    Sort("send.flags sendto.flags sendmsg.flags sendmmsg.flags recv.flags recvfrom.flags recvmsg.flags recvmmsg.flags recvmmsg_time64.flags", flags="msg"),
    Sort("shutdown.how", "shutdown"),
    Sort("getsockopt.level setsockopt.level", "level"),
    Sort("getsockopt.optname setsockopt.optname", "so", when=When("level", (1,))),
    Sort("getsockopt.optname setsockopt.optname", "ip", when=When("level", (0,))),
    Sort("getsockopt.optname setsockopt.optname", "ipv6", when=When("level", (41,))),
    Sort("getsockopt.optname setsockopt.optname", "tcp", when=When("level", (6,))),
    Sort("getsockopt.optname setsockopt.optname", "udp", when=When("level", (17,))),
    Sort("socketcall.call", "socketcall"),
    Sort("epoll_create1.flags", flags="epoll_create"),
    Sort("epoll_ctl.op", "epoll_op"),
    Sort("eventfd2.flags", flags="eventfd"),
    Sort("userfaultfd.flags", flags="userfaultfd"),
    Sort("io_uring_enter.flags", flags="io_uring_enter"),
    # System V IPC
    Sort("ipc.call", fields=((0xFFFF, "ipc"),)),
    Sort("msgget.msgflg semget.semflg", flags="ipc_get", octal=_PERMISSIONS),
    Sort("shmget.shmflg", fields=((0xFC00_0000, "shm_huge"),), flags="ipc_get shm_get", octal=_PERMISSIONS),
    Sort("shmat.shmflg", flags="shm_at"),
    Sort("msgsnd.msgflg msgrcv.msgflg", flags="ipc_operation"),
    Sort("msgctl.cmd", fields=((_IPC_COMMANDS, "ipc_command msgctl"),), flags="ipc_version", is_field_last=True),
    Sort("semctl.cmd", fields=((_IPC_COMMANDS, "ipc_command semctl"),), flags="ipc_version", is_field_last=True),
    Sort("shmctl.cmd", fields=((_IPC_COMMANDS, "ipc_command shmctl"),), flags="ipc_version", is_field_last=True),
    # the system
    Sort("mount.flags", fields=((0xFFFF_0000, "mount_magic"),), flags="mount"),
    Sort("umount2.flags", flags="umount"),
    Sort("fsopen.flags", flags="fsopen"),
    Sort("fsmount.flags", flags="fsmount"),
    Sort("fspick.flags", flags="fspick"),
    Sort("fsconfig.cmd", "fsconfig"),
    Sort("open_tree.flags open_tree_attr.flags", flags="open_tree at at_recursive"),
    Sort("mount_setattr.flags", flags="at at_recursive"),
    Sort("move_mount.flags", flags="move_mount"),
    Sort("getrandom.flags", flags="getrandom"),
    Sort("bpf.cmd", "bpf"),
    Sort("perf_event_open.flags", flags="perf_event"),
    Sort("finit_module.flags", flags="module"),
    Sort("swapon.swap_flags", flags="swap"),
)  # fmt: skip
"""Of several sorts for one argument, the first whose condition holds counts."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A sort of an argument of one call."""

    place: int
    """Of the argument."""
    sort: Sort
    controls: int
    """Place of the argument that the sort's condition is about; the argument's own without one."""

    def holds(self, args: Sequence[int]) -> bool:
        """Return whether the sort's condition holds for a call's arguments."""
        when, value = self.sort.when, args[self.controls]
        return when is None or value in when.values or bool(value & when.bits)


def placed_sorts(call: str, signature: Signature) -> Sequence[Placed]:
    """Return the sorts that arguments of a call can be of, those of one argument in the order they count."""
    places = {argument.name: place for place, argument in enumerate(signature)}
    sorts = _sorts_by_place()
    return [
        Placed(place, sort, places[sort.when.argument] if sort.when and sort.when.argument else place)
        for name, place in places.items()
        for sort in (*sorts.get(f"{call}.{name}", ()), *sorts.get(f"*.{name}", ()))
    ]


@cache
def _sorts_by_place() -> Mapping[str, Sequence[Sort]]:
    sorts: dict[str, list[Sort]] = {}
    for sort in SORTS:
        for place in sort.places.split():
            sorts.setdefault(place, []).append(sort)
    return sorts
