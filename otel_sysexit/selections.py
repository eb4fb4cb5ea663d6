"""
What a user selects: calls, durations, errnos; and the tables that tell it to the kernel side.

In comes text from the command line (names, globs, classes, ABIs), out come small values that can be compared, and
arrays that are copied into the kernel's maps. An error is a ValueError with one line for the user.
"""

import fnmatch
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from otel_sysexit.kernel.records import Entry
from otel_sysexit.signatures import FOREIGN_DESCRIPTORS, TRACEFS_NAMES, Declared, Signature, shipped_signature
from otel_sysexit.syscalls import ABIS, ERRNOS, NUMBERS, Abi, numbers

U1: TypeAlias = npt.NDArray[np.uint8]
U4: TypeAlias = npt.NDArray[np.uint32]
U8: TypeAlias = npt.NDArray[np.uint64]
Call: TypeAlias = tuple[Abi, str]
"""A call of one ABI; its name is UNNAMED for all numbers of the ABI that have no name."""

UNNAMED: Final = "syscall_*"
_CALLS_BY_FUNCTION: Final = {function: call for call, function in TRACEFS_NAMES.items()}
ERRNO_MAX: Final = 4095
_UNITS_NS: Final = {
    "ns": 1,
    "us": 10**3,
    "µs": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "m": 60 * 10**9,
    "h": 3600 * 10**9,
}

# --- calls ------------------------------------------------------------------------------------------------------------

# Classes as strace names them. What the argument tables can tell is taken from there; the rest is listed.
_MORE_DESC: Final = """
    accept* bpf creat dup* epoll_create* eventfd* fanotify_init fsmount fsopen fspick inotify_init* io_uring_setup
    landlock_create_ruleset memfd_* mq_open open* perf_event_open pidfd_getfd pidfd_open pipe* signalfd* socket
    socketpair timerfd_create userfaultfd
    poll ppoll* select _newselect pselect6* mmap"""  # return a descriptor; take descriptors in memory
_CLASSES: Final = {
    "process": """clone* execve* exit exit_group fork kill pidfd_send_signal rt_sigqueueinfo rt_tgsigqueueinfo tgkill
        tkill vfork wait*""",
    "network": """accept* bind connect getpeername getsockname getsockopt listen recv* send* setsockopt
        shutdown socket*""",
    "signal": """kill pause pidfd_send_signal rt_sig* rt_tgsigqueueinfo sgetmask sigaction sigaltstack signal*
        sigpending sigprocmask sigreturn sigsuspend ssetmask tgkill tkill""",
    "memory": """brk get_mempolicy io_destroy io_setup madvise map_shadow_stack mbind migrate_pages mincore mlock*
        mmap* move_pages mprotect mremap mseal msync munlock* munmap pkey_* process_madvise remap_file_pages
        set_mempolicy* shmat shmdt""",
    "ipc": "ipc msgctl msgget msgrcv msgsnd sem* shm*",
    "creds": """capget capset getegid* geteuid* getgid* getgroups* getresgid* getresuid* getuid* prctl setfsgid*
        setfsuid* setgid* setgroups* setregid* setresgid* setresuid* setreuid* setuid*""",
    "clock": "adjtimex clock_[!n]* gettimeofday settimeofday stime time",
    "pure": "getegid* geteuid* getgid getgid32 getpgrp getpid getppid gettid getuid getuid32",
    "stat": "stat stat64 oldstat",
    "lstat": "lstat lstat64 oldlstat",
    "fstat": "fstat fstat64 fstatat64 newfstatat oldfstat statx",
    "statfs": "statfs statfs64",
    "fstatfs": "fstatfs fstatfs64",
}
_CLASS_ALIASES: Final = {"net": "network"}
CLASSES: Final = ("file", "desc", *_CLASSES, *_CLASS_ALIASES)
"""Names a selection knows after a per cent sign."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Which calls are recorded."""

    calls: frozenset[Call]

    def names(self, abi: Abi) -> frozenset[str]:
        """Return the names of the calls of one ABI."""
        return frozenset(name for of, name in self.calls if of is abi and name != UNNAMED)

    def includes_unnamed(self, abi: Abi) -> bool:
        """Return whether numbers of one ABI that have no name are recorded."""
        return (abi, UNNAMED) in self.calls

    @property
    def includes_unknown(self) -> bool:
        """Whether numbers of any ABI that have no name are recorded."""
        return any(map(self.includes_unnamed, Abi))


@cache
def _all_calls() -> frozenset[Call]:
    return frozenset((abi, name) for abi in Abi for name in (*numbers(abi), UNNAMED))


@cache
def _all_names() -> frozenset[str]:
    return frozenset(name for _, name in _all_calls()) - {UNNAMED}


def _taking(is_wanted: Callable[[Declared], bool]) -> frozenset[str]:
    """Return the names of the calls that have an argument that is wanted, on any ABI."""
    return frozenset(
        name for abi in Abi for name in numbers(abi) if any(map(is_wanted, _declared(name, abi)))
    )


def _declared(name: str, abi: Abi) -> Signature:
    return shipped_signature(name, abi.label) or ()


@cache
def _class_names(name: str) -> frozenset[str]:
    name = _CLASS_ALIASES.get(name, name)
    if name == "file":
        return _taking(lambda argument: argument.is_path)
    if name == "desc":
        return _taking(lambda argument: argument.is_descriptor) | _matching(_MORE_DESC.split())
    return _matching(_CLASSES[name].split())


def _matching(patterns: Iterable[str]) -> frozenset[str]:
    return frozenset(name for pattern in patterns for name in fnmatch.filter(_all_names(), pattern))


def parse_selection(text: str) -> Selection:
    """
    Read a set of calls as a user writes it: ``openat,read*,%net,!futex,mmap@i386``.

    Items stand between commas: names, globs and classes (``%file``), of every ABI or, with ``@ABI`` behind, of one. Each
    adds to the set; with ``!`` before it, it takes away. The set starts empty, or with everything when the first item
    takes away. Numbers without a name are called ``syscall_<number>``: globs that match ``syscall_0``, such as
    ``syscall_*`` and ``*``, include them all.

    Raises:
        ValueError: The text is empty, an item means nothing, or nothing is left.
    """
    items = _items(text, "system calls")
    calls = _all_calls() if items[0].startswith("!") else frozenset[Call]()
    for item in items:
        meant = _meaning(item.removeprefix("!").strip())
        calls = calls - meant if item.startswith("!") else calls | meant
    if not calls:
        raise ValueError(f"the set of system calls {text!r} leaves nothing to record")
    return Selection(calls)


def _items(text: str, what: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    if items == [""]:
        raise ValueError(f"the set of {what} is empty")
    if not all(item.removeprefix("!").strip() for item in items):
        raise ValueError(f"an item in the set of {what} is empty")
    return items


def _meaning(item: str) -> frozenset[Call]:
    """Return the calls that an item stands for, with or without ``@ABI``."""
    pattern, at, label = item.partition("@")
    abis = {abi.label: abi for abi in Abi}
    if at and label not in abis:
        raise ValueError(f"no ABI is called {label!r}: {', '.join(abis)}")
    names = _names_meant(pattern)
    calls = frozenset(
        (abi, name)
        for abi in ((abis[label],) if at else Abi)
        for name in names
        if name == UNNAMED or name in numbers(abi)
    )
    if not calls:
        raise ValueError(f"no system call of {label} is meant by {pattern!r}")
    return calls


def _names_meant(pattern: str) -> frozenset[str]:
    """Return the names that an item without ``@ABI`` stands for, UNNAMED among them."""
    if pattern.startswith("%"):
        if pattern[1:] not in CLASSES:
            raise ValueError(f"no class of system calls is called {pattern!r}{_nearest_call(pattern)}")
        return _class_names(pattern[1:])
    if any(character in pattern for character in "*?["):
        names = _matching((pattern,))
        if fnmatch.fnmatchcase("syscall_0", pattern):
            names |= {UNNAMED}
        if not names:
            raise ValueError(f"no system call matches {pattern!r}")
        return names
    name = _CALLS_BY_FUNCTION.get(pattern, pattern)
    if name not in _all_names():
        raise ValueError(f"no system call is called {pattern!r}{_nearest_call(pattern)}")
    return frozenset((name,))


def _nearest_call(word: str) -> str:
    return _nearest(word.lower(), [*_all_names(), *(f"%{name}" for name in CLASSES)])


def _nearest(word: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  (6 ms that only a mistake costs)

    nearest = get_close_matches(word, sorted(known), n=3)
    return f"; nearest: {', '.join(nearest)}" if nearest else ""


# --- durations --------------------------------------------------------------------------------------------------------


def parse_duration_ns(text: str) -> int:
    """
    Return a duration such as `10s`, `1.5ms`, `1m30s`, in ns.

    By hand, because no library found keeps nanoseconds.

    Raises:
        ValueError: It is none, or of 292 years or more.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)", text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        raise ValueError(f"{text!r} is no duration: write 500us, 10ms, 1.5s or 1m30s")
    duration_ns = sum(float(number) * _UNITS_NS[unit] for number, unit in parts)
    if duration_ns >= 1 << 63:
        raise ValueError(f"{text!r} is too long a duration: at most 292 years")
    return round(duration_ns)


@dataclass(frozen=True, slots=True)
class Durations:
    """A threshold for each call: one for all, and exceptions."""

    default_ns: int = 0
    """Of the calls that have none of their own; 0: none."""
    by_call_ns: Mapping[Call, int] = field(default_factory=dict)

    def table(self) -> U8:
        """Return the thresholds in ns, 0 where there is none: u8[ABIS * NUMBERS], index ``abi * NUMBERS + number``."""
        table = np.full((ABIS, NUMBERS), self.default_ns, np.uint64)
        for abi in Abi:
            table[abi] = self.by_call_ns.get((abi, UNNAMED), self.default_ns)
            for name, number in _placed(abi):
                table[abi, number] = self.by_call_ns.get((abi, name), self.default_ns)
        return table.reshape(-1)


def parse_durations(text: str) -> Durations:
    """
    Read thresholds as a user writes them: ``10ms``, ``read=10ms,fsync=1ms`` or ``5ms,%net=10ms,mmap@i386=0s``.

    Items stand between commas. A duration alone is for all calls that no other item names, wherever it stands; before
    ``=`` stands what an item of a selection may be. Of two items for one call the later wins.

    Raises:
        ValueError: The text is empty, an item means nothing, or a duration is none.
    """
    default_ns = 0
    by_call_ns: dict[Call, int] = {}
    for item in _items(text, "durations"):
        calls, is_exception, duration = item.rpartition("=")
        duration_ns = parse_duration_ns(duration.strip())
        if is_exception:
            if not calls.strip():
                raise ValueError(f"{item!r} names no system call before '='")
            by_call_ns |= dict.fromkeys(_meaning(calls.strip()), duration_ns)
        else:
            default_ns = duration_ns
    return Durations(default_ns, by_call_ns)


# --- errnos -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ErrnoSet:
    """Which outcomes are recorded."""

    errnos: frozenset[int]
    """Of the failures that are recorded: 1..ERRNO_MAX."""
    includes_successes: bool

    def table(self) -> U1:
        """Return 1 for each errno that is recorded, else 0: u1[4096]; entry 0 stands for successes."""
        table = np.zeros(ERRNO_MAX + 1, np.uint8)
        table[list(self.errnos)] = 1
        table[0] = self.includes_successes
        return table


def parse_errnos(text: str) -> ErrnoSet:
    """
    Read a set of errnos as a user writes it: ``ENOENT,EACCES``, or ``!EAGAIN`` for everything but those failures.

    Items stand between commas: names in any case, or numbers. Each adds to the set; with ``!`` before it, it takes away.
    The set starts empty, or with everything, successes too, when the first item takes away.

    Raises:
        ValueError: The text is empty, an item is no errno, or nothing is left.
    """
    items = _items(text, "errnos")
    includes_successes = items[0].startswith("!")
    errnos = set(range(1, ERRNO_MAX + 1)) if includes_successes else set()
    for item in items:
        errno = _errno(item.removeprefix("!").strip())
        if item.startswith("!"):
            errnos.discard(errno)
        else:
            errnos.add(errno)
    if not errnos and not includes_successes:
        raise ValueError(f"the set of errnos {text!r} leaves nothing to record")
    return ErrnoSet(frozenset(errnos), includes_successes)


def _errno(word: str) -> int:
    if word.isascii() and word.isdigit():
        number = int(word) if len(word) <= 4 else 0
        if not 0 < number <= ERRNO_MAX:
            raise ValueError(f"{word} is no errno: they are 1 to {ERRNO_MAX}")
        return number
    if word.upper() not in ERRNOS:
        raise ValueError(f"no errno is called {word!r}{_nearest(word.upper(), ERRNOS)}")
    return ERRNOS[word.upper()]


# --- the kernel's table of calls --------------------------------------------------------------------------------------

_BIRTHS: Final = frozenset({"execve", "execveat", "fork", "vfork", "clone", "clone3"})


def _placed(abi: Abi) -> list[tuple[str, int]]:
    """Return name and number of the calls that have a place in the kernel's tables."""
    return [(name, number) for name, number in numbers(abi).items() if number < NUMBERS]


def kernel_table(selection: Selection | None) -> U4:
    """
    Return what the kernel side must know of each call: u4[ABIS * NUMBERS], index ``abi * NUMBERS + number``.

    Places of arguments are 1 + their index, 0 for none, three bits each: from bit 0 the first and the second path, the
    first and the second descriptor, the socket address and its length. Bit 18: that length is pointed to. Bit 30: an
    exec or a fork, whose end may be another thread's or program's. Bit 31: the call is in the selection; with None
    all are. Names whose number has no place in the table (NUMBERS and above) are not in it.
    """
    table = np.zeros((ABIS, NUMBERS), np.uint32)
    wanted = int(Entry.IS_WANTED)  # plain numbers: these are two thousand calls, and a start is waited for
    for abi in Abi:
        row = table[abi]
        if selection is None or selection.includes_unnamed(abi):
            row[:] = wanted
        chosen = None if selection is None else selection.names(abi)
        label = abi.label
        for name, number in _placed(abi):
            is_chosen = chosen is None or name in chosen
            row[number] = _layout(name, shipped_signature(name, label) or ()) | (wanted if is_chosen else 0)
    return table.reshape(-1)


@cache
def _layout(name: str, declared: Signature) -> int:
    """Return bits 0 to 30 of a call's entry."""
    layout = 0
    paths = [place for place, argument in enumerate(declared) if argument.is_path]
    descriptors = [
        place
        for place, argument in enumerate(declared)
        if argument.is_descriptor and (name, place) not in FOREIGN_DESCRIPTORS
    ]
    for shift, places in ((0, paths), (6, descriptors)):
        for i, place in enumerate(places[:2]):
            layout |= (1 + place) << (shift + 3 * i)
    for place, argument in enumerate(declared):
        if argument.c_type == "struct sockaddr *":  # its length is always the next one
            layout |= (1 + place) << 12 | (2 + place) << 15 | declared[place + 1].is_pointer << 18
    return layout | (int(Entry.IS_BIRTH) if name in _BIRTHS else 0)
