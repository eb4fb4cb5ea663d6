"""How arguments are written."""

import operator
import re
from functools import reduce

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_sysexit.constants import constants
from otel_sysexit.notation import SORTS, Sort, placed_sorts
from otel_sysexit.signatures import shipped_signature
from otel_sysexit.syscalls import Abi, numbers

FLAGS = [sort for sort in SORTS if not sort.one_of]
ENUMERATIONS = [sort for sort in SORTS if sort.one_of]
VALUES = st.integers(0, 2**64 - 1) | st.lists(st.integers(0, 63), max_size=4).map(
    lambda bits: reduce(operator.or_, (1 << bit for bit in bits), 0)
)
any_abi = st.sampled_from(Abi)


def write(place: str, value: int, *others: tuple[str, int], abi: Abi = Abi.X86_64) -> str | None:
    """Return how one argument is written, beside others of the call that count."""
    call, _, argument = place.partition(".")
    signature = shipped_signature(call, abi.label)
    assert signature is not None
    names = [declared.name for declared in signature]
    given = dict(others) | {argument: value}
    args = [given.get(name, 0) for name in names]
    for placed in placed_sorts(call, signature):
        if names[placed.place] == argument and placed.holds(args):
            return placed.sort.text(value, value % 2**64, abi)
    return None


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("openat.dfd", -100, "AT_FDCWD"),
        ("openat.dfd", 5, None),
        ("openat.dfd", -1, None),
        ("execveat.fd", -100, "AT_FDCWD"),
        ("openat.flags", 0, "O_RDONLY"),
        ("openat.flags", 0x80000, "O_RDONLY|O_CLOEXEC"),
        ("openat.flags", 0x241, "O_WRONLY|O_CREAT|O_TRUNC"),
        ("openat.flags", 0x40000000, "O_RDONLY|0x40000000"),
        ("openat.flags", 0x101002, "O_RDWR|O_SYNC"),
        ("openat.flags", 0x410002, "O_RDWR|O_TMPFILE"),
        ("openat.flags", 0x8000, "O_RDONLY|O_LARGEFILE"),
        ("socket.family", 2, "AF_INET"),
        ("socket.family", 99, None),
        ("socket.type", 0x80001, "SOCK_STREAM|SOCK_CLOEXEC"),
        ("mmap.prot", 3, "PROT_READ|PROT_WRITE"),
        ("mprotect.prot", 0, "PROT_NONE"),
        ("mmap.flags", 0x22, "MAP_PRIVATE|MAP_ANONYMOUS"),
        ("mmap.flags", 0x40000 | 21 << 26 | 0x21, "MAP_SHARED|MAP_HUGE_2MB|MAP_ANONYMOUS|MAP_HUGETLB"),
        ("mmap.flags", 3, "MAP_SHARED_VALIDATE"),
        ("kill.sig", 15, "SIGTERM"),
        ("kill.sig", 34, "SIGRT_2"),
        ("kill.sig", 0, None),
        ("kill.sig", 65, None),
        ("lseek.whence", 0, "SEEK_SET"),
        ("lseek.whence", 9, None),
        ("futex.op", 128, "FUTEX_WAIT_PRIVATE"),
        ("futex.op", 393, "FUTEX_WAIT_BITSET_PRIVATE|FUTEX_CLOCK_REALTIME"),
        ("clone.clone_flags", 0x1200011, "CLONE_CHILD_CLEARTID|CLONE_CHILD_SETTID|SIGCHLD"),
        ("clone.clone_flags", 0x4100, "CLONE_VM|CLONE_VFORK"),
        ("unshare.unshare_flags", 0x20000080, "CLONE_NEWTIME|CLONE_NEWPID"),
        ("unlinkat.flag", 0x200, "AT_REMOVEDIR"),
        ("faccessat2.flags", 0x200, "AT_EACCESS"),
        ("newfstatat.flag", 0x1100, "AT_SYMLINK_NOFOLLOW|AT_EMPTY_PATH"),
        ("newfstatat.flag", 0, "0"),
        ("access.mode", 6, "R_OK|W_OK"),
        ("access.mode", 0, "F_OK"),
        ("mkdir.mode", 0o755, "0755"),
        ("chmod.mode", 0, "000"),
        ("mknod.mode", 0o020666, "S_IFCHR|0666"),
        ("fcntl.cmd", 1030, "F_DUPFD_CLOEXEC"),
        ("ioctl.cmd", 0x5401, "TCGETS"),
        ("ioctl.cmd", 0x5413, "TIOCGWINSZ"),
        ("ioctl.cmd", 0x12345678, None),
        ("madvise.behavior", 4, "MADV_DONTNEED"),
        ("epoll_ctl.op", 1, "EPOLL_CTL_ADD"),
        ("setsockopt.level", 1, "SOL_SOCKET"),
        ("shutdown.how", 2, "SHUT_RDWR"),
        ("clock_gettime.which_clock", 1, "CLOCK_MONOTONIC"),
        ("clock_gettime.which_clock", -6, None),
        ("prlimit64.resource", 7, "RLIMIT_NOFILE"),
        ("wait4.options", 0x40000003, "WNOHANG|WUNTRACED|__WALL"),
        ("waitid.options", 0x1000004, "WEXITED|WNOWAIT"),
        ("getrusage.who", -1, "RUSAGE_CHILDREN"),
        ("ptrace.request", 16, "PTRACE_ATTACH"),
        ("rt_sigprocmask.how", 2, "SIG_SETMASK"),
        ("recvfrom.flags", 0x42, "MSG_PEEK|MSG_DONTWAIT"),
        ("eventfd2.flags", 0x80801, "EFD_SEMAPHORE|EFD_NONBLOCK|EFD_CLOEXEC"),
        ("timerfd_create.flags", 0x800, "TFD_NONBLOCK"),
        ("epoll_create1.flags", 0x80000, "EPOLL_CLOEXEC"),
        ("pipe2.flags", 0x80800, "O_NONBLOCK|O_CLOEXEC"),
        ("dup3.flags", 0x80000, "O_CLOEXEC"),
        ("getrandom.flags", 1, "GRND_NONBLOCK"),
        ("memfd_create.flags", 3, "MFD_CLOEXEC|MFD_ALLOW_SEALING"),
        ("mount.flags", 0xC0ED0001, "MS_MGC_VAL|MS_RDONLY"),
        ("mount.flags", 0x5000, "MS_BIND|MS_REC"),
        ("sched_setscheduler.policy", 0x40000001, "SCHED_FIFO|SCHED_RESET_ON_FORK"),
        ("semget.semflg", 0o1600, "IPC_CREAT|0600"),
        ("shmctl.cmd", 0, "IPC_RMID"),
        ("statx.mask", 0xFFF, "STATX_BASIC_STATS|STATX_BTIME"),
    ],
)
def test_arguments_are_written_as_strace_does(place: str, value: int, expected: str | None) -> None:
    """Names where there are some, unknown bits in hex, and an unknown choice stays a number."""
    assert write(place, value) == expected


@pytest.mark.parametrize(
    ("place", "value", "other", "expected"),
    [
        ("openat.mode", 0o644, ("flags", 0o100), "0644"),
        ("openat.mode", 0o600, ("flags", 0o20200000), "0600"),
        ("openat.mode", 0o644, ("flags", 0), None),
        ("openat.mode", 0o644, ("flags", 0o200000), None),
        ("mq_open.mode", 0o644, ("oflag", 0o100), "0644"),
        ("fcntl.arg", 1, ("cmd", 2), "FD_CLOEXEC"),
        ("fcntl.arg", 0x802, ("cmd", 4), "O_RDWR|O_NONBLOCK"),
        ("fcntl.arg", 0x7FFE0000, ("cmd", 6), None),
        ("fcntl.arg", 10, ("cmd", 0), None),
        ("fcntl.arg", 10, ("cmd", 10), "SIGUSR1"),
        ("prctl.arg2", 15, ("option", 1), "SIGTERM"),
        ("prctl.arg2", 21, ("option", 24), "CAP_SYS_ADMIN"),
        ("prctl.arg2", 0x7FFE0000, ("option", 15), None),
        ("socket.protocol", 6, ("family", 2), "IPPROTO_TCP"),
        ("socket.protocol", 6, ("family", 16), "NETLINK_XFRM"),
        ("socket.protocol", 6, ("family", 1), None),
        ("setsockopt.optname", 2, ("level", 1), "SO_REUSEADDR"),
        ("setsockopt.optname", 1, ("level", 6), "TCP_NODELAY"),
        ("setsockopt.optname", 1, ("level", 99), None),
    ],
)
def test_what_another_argument_decides(
    place: str, value: int, other: tuple[str, int], expected: str | None
) -> None:
    """An argument whose meaning hangs on another one is text only where the meaning is known."""
    assert write(place, value, other) == expected


@pytest.mark.parametrize(
    ("place", "value", "abi", "expected"),
    [
        ("openat.flags", 0x4000, Abi.X86_64, "O_RDONLY|O_DIRECT"),
        ("openat.flags", 0x4000, Abi.AARCH64, "O_RDONLY|O_DIRECTORY"),
        ("openat.flags", 0x8000, Abi.ARM, "O_RDONLY|O_NOFOLLOW"),
        ("mmap2.flags", 0x62, Abi.I386, "MAP_PRIVATE|MAP_ANONYMOUS|MAP_32BIT"),
        ("mmap.flags", 0x62, Abi.AARCH64, "MAP_PRIVATE|MAP_ANONYMOUS|0x40"),
        ("mprotect.prot", 0x11, Abi.AARCH64, "PROT_READ|PROT_BTI"),
        ("fcntl64.cmd", 13, Abi.I386, "F_SETLK64"),
        ("fcntl.cmd", 13, Abi.X86_64, None),
        ("ptrace.request", 12, Abi.X86_64, "PTRACE_GETREGS"),
        ("ptrace.request", 12, Abi.AARCH64, None),
        ("fadvise64_64.advice", 4, Abi.I386, "POSIX_FADV_DONTNEED"),
        ("arm_fadvise64_64.advice", 4, Abi.ARM, "POSIX_FADV_DONTNEED"),
        ("_llseek.whence", 2, Abi.I386, "SEEK_END"),
        ("socketcall.call", 3, Abi.I386, "SYS_CONNECT"),
        ("ipc.call", 0x1000D, Abi.I386, "MSGGET|0x10000"),
        ("clock_gettime64.which_clock", 7, Abi.I386, "CLOCK_BOOTTIME"),
    ],
)
def test_values_are_those_of_the_traced_abi(place: str, value: int, abi: Abi, expected: str | None) -> None:
    """The same bits have other names on another ABI, or none."""
    assert write(place, value, abi=abi) == expected


def given_back(text: str, sort: Sort, abi: Abi) -> int:
    """Return the number that a text stands for."""
    groups = " ".join([sort.flags, *(of for _, of in sort.fields)]).split()
    values = {name: value for group in reversed(groups) for name, value in constants(group, abi).items()}
    return reduce(
        operator.or_,
        (
            values[part] if part in values else int(part, 8 if re.fullmatch("0[0-7]*", part) else 16)
            for part in text.split("|")
            if part != sort.zero
        ),
        0,
    )


@settings(database=None, deadline=None, max_examples=1000)
@given(st.sampled_from(FLAGS), VALUES, any_abi)
def test_flags_give_their_value_back(sort: Sort, value: int, abi: Abi) -> None:
    """The names, the octal digits and the rest in hex are together the value."""
    text = sort.text(value, value, abi)
    assert text is not None
    assert given_back(text, sort, abi) == value


@settings(database=None, deadline=None, max_examples=300)
@given(st.sampled_from(ENUMERATIONS), st.integers(-(2**63), 2**63 - 1) | st.integers(-200, 300), any_abi)
def test_a_choice_is_its_name_or_a_number(sort: Sort, value: int, abi: Abi) -> None:
    """A value of any size has the name that constants give it, or none."""
    text = sort.text(value, value % 2**64, abi)
    known = {name: of for group in sort.one_of.split() for name, of in constants(group, abi).items()}
    assert text is None or known[text] == value
    assert (text is None) == (value not in known.values())


def test_every_place_is_an_argument() -> None:
    """Each place in the table is an argument of a call of some ABI, and conditions are about arguments beside it."""
    arguments = {
        name: {argument.name for argument in shipped_signature(name, abi.label) or ()}
        for abi in Abi
        for name in numbers(abi)
    }
    for abi in Abi:
        for name in numbers(abi):
            arguments[name] |= {argument.name for argument in shipped_signature(name, abi.label) or ()}
    for sort in SORTS:
        for place in sort.places.split():
            call, _, argument = place.partition(".")
            having = [names for name, names in arguments.items() if call in ("*", name)]
            assert any(argument in names for names in having), place
            if sort.when and sort.when.argument:
                assert all(sort.when.argument in names for names in having), place


def test_a_condition_is_about_what_is_told_too() -> None:
    """What decides on another argument is itself written, whatever it is: a combination has both."""
    for abi in Abi:
        for name in numbers(abi):
            placed = placed_sorts(name, shipped_signature(name, abi.label) or ())
            always = {one.place for one in placed if one.sort.when is None}
            assert all(one.controls in always or one.controls == one.place for one in placed), name


def test_no_argument_that_is_an_address_is_written() -> None:
    """Names of calls and arguments that look alike do not lead to text for pointers."""
    for abi in Abi:
        for name in numbers(abi):
            signature = shipped_signature(name, abi.label) or ()
            assert not any(signature[one.place].is_pointer for one in placed_sorts(name, signature)), name
