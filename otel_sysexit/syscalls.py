"""
The kernel's tables of system calls: numbers, names, arguments, classes.

In come what the kernel side writes (an ABI, a number, raw registers) and what a user writes (names, globs, classes);
out come names, small indices for whole columns, and byte tables that are copied into the kernel.
Tables are read on first use and only those of the ABIs asked for. Nothing here knows records, spans or terminals.
"""

import enum
import errno as _errno
import fnmatch
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

U1: TypeAlias = npt.NDArray[np.uint8]
U2: TypeAlias = npt.NDArray[np.uint16]
I4: TypeAlias = npt.NDArray[np.int32]
U8: TypeAlias = npt.NDArray[np.uint64]
I8: TypeAlias = npt.NDArray[np.int64]

NUMBERS = 1024
"""Numbers 0..1023 of an ABI have a place in the kernel's tables."""
ABIS = 5
"""How many ABIs there are in those tables."""
KINDS_MAX = 8192
"""How many kinds one run can tell apart; its last index stands for all others."""
X32_BIT = 0x40000000
"""The bit in a number that asks for the x32 ABI."""


class Abi(enum.IntEnum):
    """The calling convention a call came through; the value is what the kernel side writes."""

    X86_64 = 0
    I386 = 1
    X32 = 2
    AARCH64 = 3
    ARM = 4

    @property
    def label(self) -> str:
        """The ABI's name on telemetry: ``x86_64``, ``i386``, ``x32``, ``aarch64`` or ``arm``."""
        return self.name.lower()

    @property
    def is_32_bit(self) -> bool:
        """Whether registers are 32 bits wide (those of x32 are not)."""
        return self in (Abi.I386, Abi.ARM)


class Form(enum.IntEnum):
    """How a raw 64-bit register is read as a signed 64-bit integer."""

    SIGNED_64 = 0  # also unsigned long: the bit pattern
    SIGNED_32 = 1
    UNSIGNED_32 = 2
    UNSIGNED_16 = 3  # umode_t
    POINTER_64 = 4  # converted as SIGNED_64
    POINTER_32 = 5  # converted as UNSIGNED_32
    UNUSED = 6  # the call has no such argument: always 0


_FORM_MASK = np.array([2**64 - 1, 2**32 - 1, 2**32 - 1, 2**16 - 1, 2**64 - 1, 2**32 - 1, 0], dtype=np.uint64)
_FORM_SIGN = np.array([0, 2**31, 0, 0, 0, 0, 0], dtype=np.int64)


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a call, with the kernel's own name for it."""

    name: str
    form: Form
    is_path: bool


@dataclass(frozen=True, slots=True)
class Kind:
    """
    One sort of call.

    Attributes:
        name: The call's name; ``syscall_<number>`` when the tables have none.
        number: As the program gave it: with bit 30 set for x32.
        abi: The calling convention.
        arguments: At most six, in the order of the registers.
        restarts: For restart_syscall: the name of the call that goes on, when known.
    """

    name: str
    number: int
    abi: Abi
    arguments: tuple[Argument, ...]
    restarts: str | None


# --- the tables -------------------------------------------------------------------------------------------------------

_TABLE_OF_ABI = {"aarch64": "arm64"}  # where the package's name of an architecture is another one
_TRACEFS_NAMES = {"newstat": "stat", "newlstat": "lstat", "newfstat": "fstat", "newuname": "uname"}
_Signature: TypeAlias = list[list[str]]  # [C type, name] or [C type, name, "path"] for each argument


@cache
def _numbers(abi: Abi) -> dict[str, int]:
    """Return name -> number; x32 numbers without bit 30."""
    table = _TABLE_OF_ABI.get(abi.label, abi.label)
    numbers: dict[str, int] = getattr(import_module(f"system_calls.tables.{table}"), f"syscalls_{table}")
    if abi is Abi.X32:
        return {name: number & ~X32_BIT for name, number in numbers.items()}
    return numbers


@cache
def _names(abi: Abi) -> dict[int, str]:
    return {number: name for name, number in _numbers(abi).items()}


@cache
def _signatures() -> dict[str, dict[str, _Signature]]:
    """Return group ("common" or an ABI's label) -> call -> its arguments."""
    with (Path(__file__).parent / "data" / "syscall_args.json").open("rb") as file:
        groups = json.load(file)
    del groups["note"]
    signatures: dict[str, dict[str, _Signature]] = groups
    return signatures


def _signature(name: str, abi: Abi) -> _Signature | None:
    groups = _signatures()
    own = groups.get(abi.label, {}).get(name)
    return groups["common"].get(name) if own is None else own


def number_of(name: str, abi: Abi) -> int | None:
    """Return the number of a call, without bit 30 for x32; None when the ABI has no such call."""
    return _numbers(abi).get(name)


# Where Python's table prefers another name than the kernel, or has none.
_ERRNO_NAMES = {35: "EDEADLK", 95: "EOPNOTSUPP", 133: "EHWPOISON", 524: "ENOTSUPP"}


def errno_name(errno: int) -> str:
    """Return the symbol of a positive errno (``ENOENT``), its number as text when it has none."""
    return _ERRNO_NAMES.get(errno) or _errno.errorcode.get(errno) or str(errno)


# --- arguments --------------------------------------------------------------------------------------------------------

_SIGNED_32 = frozenset(
    ("int", "pid_t", "__s32", "key_t", "key_serial_t", "clockid_t", "timer_t", "mqd_t", "rwf_t")
)
_UNSIGNED_32 = frozenset(("unsigned int", "unsigned", "u32", "__u32", "uid_t", "gid_t", "qid_t"))
_SIGNED_WORD = frozenset(("long", "off_t", "loff_t"))
_POINTER_TYPES = frozenset(("cap_user_header_t", "cap_user_data_t"))
_DESCRIPTORS = frozenset(("fd_in", "fd_out", "fdin", "fdout", "fildes", "mqdes"))


def _is_descriptor(c_type: str, name: str) -> bool:
    return "*" not in c_type and (name.endswith("fd") or name in _DESCRIPTORS)


def _form(c_type: str, name: str, abi: Abi) -> Form:
    c_type = c_type.removeprefix("const ")
    if "*" in c_type or c_type in _POINTER_TYPES:
        return Form.POINTER_32 if abi.is_32_bit else Form.POINTER_64
    # Some calls declare a descriptor as unsigned or as long; a program passes an int, and -1 is common.
    if c_type in _SIGNED_32 or c_type.startswith("enum ") or _is_descriptor(c_type, name):
        return Form.SIGNED_32
    if c_type in _UNSIGNED_32:
        return Form.UNSIGNED_32
    if c_type == "umode_t":
        return Form.UNSIGNED_16
    if not abi.is_32_bit:
        return Form.SIGNED_64
    return Form.SIGNED_32 if c_type in _SIGNED_WORD else Form.UNSIGNED_32


def _arguments(name: str, abi: Abi) -> tuple[Argument, ...]:
    signature = _signature(name, abi)
    if signature is None:
        return _unknown_arguments(abi)
    return tuple(
        Argument(argument, _form(c_type, argument, abi), is_path=bool(mark))
        for c_type, argument, *mark in signature
    )


def _unknown_arguments(abi: Abi) -> tuple[Argument, ...]:
    form = Form.UNSIGNED_32 if abi.is_32_bit else Form.SIGNED_64
    return tuple(Argument(f"arg{i}", form, is_path=False) for i in range(6))


def convert_arguments(args: U8, forms: U1) -> I8:
    """
    Read raw registers as signed 64-bit integers.

    Args:
        args: Registers, shape (n, 6).
        forms: A Form for each of them, shape (n, 6).

    Returns:
        A new array of shape (n, 6); places that are UNUSED hold 0.
    """
    values = (args & _FORM_MASK[forms]).view(np.int64)
    sign = _FORM_SIGN[forms]
    values ^= sign
    values -= sign
    return values


# --- kinds ------------------------------------------------------------------------------------------------------------


class Kinds:
    """
    Every sort of call seen, each with a small index that columns can hold.

    An index is ``abi * NUMBERS + number`` for the numbers that have a place in the tables. Odd ones (other numbers,
    restart_syscall that says what it restarts) get the next free index when first seen and keep it. There are never
    more than KINDS_MAX: what comes after that shares the last index, a kind named ``syscall_other``.
    """

    def __init__(self) -> None:
        self._kinds: list[Kind | None] = [None] * KINDS_MAX
        self._kinds[-1] = Kind("syscall_other", -1, Abi.X86_64, _unknown_arguments(Abi.X86_64), None)
        self._forms = np.zeros((KINDS_MAX, 6), dtype=np.uint8)
        self._has_forms = np.zeros(KINDS_MAX, dtype=np.bool_)
        self._odd: dict[int, int] = {}  # packed (abi, number, restarted) -> index

    def index(self, abi: U1, number: I4, restarted: I4) -> U2:
        """
        Return the index of each call's kind, shape (n,).

        Args:
            abi: As the kernel side wrote it, shape (n,).
            number: Without bit 30 for x32, shape (n,).
            restarted: The number of the call that restart_syscall restarts, -1 for every other call, shape (n,).
        """
        index = abi * np.int32(NUMBERS) + number
        is_odd = (number.view(np.uint32) >= NUMBERS) | (restarted >= 0) | (abi >= ABIS)
        if is_odd.any():
            rows = np.flatnonzero(is_odd)
            odd_restarted = np.minimum(restarted[rows], 0xFFF0).astype(np.int64) + 1
            packed = (number[rows].astype(np.int64) << 24) | (np.maximum(odd_restarted, 0) << 8) | abi[rows]
            distinct, inverse = np.unique(packed, return_inverse=True)
            indices = np.array([self._odd_index(key) for key in distinct.tolist()], dtype=np.int32)
            index[rows] = indices[inverse]
        return index.astype(np.uint16)

    def _odd_index(self, packed: int) -> int:
        known = self._odd.get(packed)
        if known is not None:
            return known
        abi, restarted, number = packed & 0xFF, (packed >> 8 & 0xFFFF) - 1, packed >> 24
        index = ABIS * NUMBERS + len(self._odd)
        if abi >= ABIS or index >= KINDS_MAX - 1:
            return KINDS_MAX - 1
        self._odd[packed] = index
        restarts = _name(Abi(abi), restarted) if restarted >= 0 else None
        self._kinds[index] = _kind(Abi(abi), number, restarts)
        return index

    def __getitem__(self, index: int) -> Kind:
        """Return the kind with an index that index() gave out."""
        kind = self._kinds[index]
        if kind is None:
            if index >= ABIS * NUMBERS:
                raise IndexError(f"no kind has the index {index} yet")
            kind = self._kinds[index] = _kind(Abi(index // NUMBERS), index % NUMBERS, None)
        return kind

    def forms(self, kinds: U2) -> U1:
        """Return the Form of each argument of each call, shape (n, 6); UNUSED where there is no argument."""
        is_new = ~self._has_forms[kinds]
        if is_new.any():
            for index in np.unique(kinds[is_new]).tolist():
                forms = [argument.form for argument in self[index].arguments]
                self._forms[index] = forms + [Form.UNUSED] * (6 - len(forms))
                self._has_forms[index] = True
        return self._forms[kinds]


def _name(abi: Abi, number: int) -> str:
    return _names(abi).get(number) or f"syscall_{_given_number(abi, number)}"


def _given_number(abi: Abi, number: int) -> int:
    return number | X32_BIT if abi is Abi.X32 else number


def _kind(abi: Abi, number: int, restarts: str | None) -> Kind:
    name = _name(abi, number)
    return Kind(name, _given_number(abi, number), abi, _arguments(name, abi), restarts)


# --- selections -------------------------------------------------------------------------------------------------------

# Classes as strace names them. What the argument tables can tell is taken from there; the rest is listed.
_MORE_DESC = """
    accept* bpf creat dup* epoll_create* eventfd* fanotify_init fsmount fsopen fspick inotify_init* io_uring_setup
    landlock_create_ruleset memfd_* mq_open open* perf_event_open pidfd_getfd pidfd_open pipe* signalfd* socket
    socketpair timerfd_create userfaultfd
    poll ppoll* select _newselect pselect6* mmap"""  # return a descriptor; take descriptors in memory
_CLASSES = {
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
_CLASS_ALIASES = {"net": "network"}
CLASSES: Final = ("file", "desc", *_CLASSES, *_CLASS_ALIASES)
"""Names a selection knows after a per cent sign."""


@dataclass(frozen=True)
class Selection:
    """
    Which calls are recorded.

    Attributes:
        names: Of any ABI.
        includes_unknown: Whether numbers without a name are recorded too.
    """

    names: frozenset[str]
    includes_unknown: bool


@cache
def _all_names() -> frozenset[str]:
    return frozenset(name for abi in Abi for name in _numbers(abi))


def _taking(is_wanted: Callable[[list[str]], bool]) -> frozenset[str]:
    """Return the calls with an argument ([C type, name] or [C type, name, "path"]) that is wanted."""
    return frozenset(
        name
        for calls in _signatures().values()
        for name, signature in calls.items()
        if any(map(is_wanted, signature))
    )


@cache
def _class_names(name: str) -> frozenset[str]:
    name = _CLASS_ALIASES.get(name, name)
    if name == "file":
        return _taking(lambda argument: len(argument) > 2)
    if name == "desc":
        return _taking(lambda argument: _is_descriptor(*argument[:2])) | _matching(_MORE_DESC.split())
    return _matching(_CLASSES[name].split())


def parse_selection(text: str) -> Selection:
    """
    Read a set of calls as a user writes it: ``openat,read*,%net,!futex``.

    Items stand between commas: names, globs and classes (``%file``), of any ABI. Each adds to the set; with ``!`` before
    it, it takes away. The set starts empty, or with everything when the first item takes away. Numbers without a name
    are called ``syscall_<number>``: globs that match ``syscall_0``, such as ``syscall_*`` and ``*``, include them all.

    Raises:
        ValueError: The text is empty, an item means nothing, or nothing is left; the message is one line.
    """
    items = [item.strip() for item in text.split(",")]
    if items == [""]:
        raise ValueError("the set of system calls is empty")
    names: frozenset[str] = frozenset()
    includes_unknown = False
    if items[0].startswith("!"):
        names, includes_unknown = _all_names(), True
    for item in items:
        pattern = item.removeprefix("!").strip()
        meant, is_unknown_meant = _meaning(pattern)
        if item.startswith("!"):
            names -= meant
            includes_unknown &= not is_unknown_meant
        else:
            names |= meant
            includes_unknown |= is_unknown_meant
    if not names and not includes_unknown:
        raise ValueError(f"the set of system calls {text!r} leaves nothing to record")
    return Selection(names, includes_unknown)


def _meaning(pattern: str) -> tuple[frozenset[str], bool]:
    """Return the names an item stands for, and whether it stands for calls without a name too."""
    if not pattern:
        raise ValueError("an item in the set of system calls is empty")
    if pattern.startswith("%"):
        if pattern[1:] not in CLASSES:
            raise ValueError(f"no class of system calls is called {pattern!r}{_nearest(pattern)}")
        return _class_names(pattern[1:]), False
    if any(character in pattern for character in "*?["):
        meant = _matching((pattern,))
        is_unknown_meant = fnmatch.fnmatchcase("syscall_0", pattern)
        if not meant and not is_unknown_meant:
            raise ValueError(f"no system call matches {pattern!r}")
        return meant, is_unknown_meant
    name = _TRACEFS_NAMES.get(pattern, pattern)
    if name not in _all_names():
        raise ValueError(f"no system call is called {pattern!r}{_nearest(pattern)}")
    return frozenset((name,)), False


def _matching(patterns: Iterable[str]) -> frozenset[str]:
    return frozenset(name for pattern in patterns for name in fnmatch.filter(_all_names(), pattern))


def _nearest(word: str) -> str:
    from difflib import get_close_matches  # noqa: PLC0415  (6 ms that only a mistake costs)

    known = sorted(_all_names()) + [f"%{name}" for name in CLASSES]
    nearest = get_close_matches(word.lower(), known, n=3)
    return f"; nearest: {', '.join(nearest)}" if nearest else ""


# --- tables for the kernel side ---------------------------------------------------------------------------------------


def wanted_table(selection: Selection | None) -> U1:
    """
    Return 1 for each call to record, else 0; shape (ABIS * NUMBERS,), index ``abi * NUMBERS + number``.

    None selects everything. Names whose number has no place in the table (NUMBERS and above) are not in it.
    """
    if selection is None:
        return np.ones(ABIS * NUMBERS, dtype=np.uint8)
    table = np.full((ABIS, NUMBERS), selection.includes_unknown, dtype=np.uint8)
    for abi in Abi:
        for name, number in _numbers(abi).items():
            if number < NUMBERS:
                table[abi, number] = name in selection.names
    return table.reshape(-1)


def path_arguments_table() -> U1:
    """
    Return which arguments are paths; shape (ABIS * NUMBERS,), index ``abi * NUMBERS + number``.

    The low four bits hold 1 + the index of the first path argument, the high four bits that of the second; 0 = none.
    """
    table = np.zeros((ABIS, NUMBERS), dtype=np.uint8)
    for abi in Abi:
        for name, number in _numbers(abi).items():
            places = [i for i, argument in enumerate(_signature(name, abi) or ()) if len(argument) > 2]
            if places and number < NUMBERS:
                table[abi, number] = sum((1 + place) << (4 * i) for i, place in enumerate(places[:2]))
    return table.reshape(-1)
