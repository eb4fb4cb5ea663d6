"""
The kernel's system calls: numbers, names, arguments.

In comes what the kernel side writes (an ABI, a number, raw registers); out come names and small indices for whole
columns. Tables are read on first use and only those of the ABIs asked for. Nothing here knows records, spans or
terminals, nor what a user wants (selections.py).
"""

import enum
import errno as _errno
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from otel_sysexit.distinct import find_distinct
from otel_sysexit.signatures import FOREIGN_DESCRIPTORS, Declared, signature

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
    is_descriptor: bool = False
    """Whether it is a descriptor of the caller's own."""


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

    @property
    def descriptors(self) -> tuple[Argument, ...]:
        """The descriptors among its arguments that the kernel side looks up: the first two."""
        return tuple(argument for argument in self.arguments if argument.is_descriptor)[:2]


# --- the tables -------------------------------------------------------------------------------------------------------

_TABLE_OF_ABI = {"aarch64": "arm64"}  # where the package's name of an architecture is another one


@cache
def numbers(abi: Abi) -> Mapping[str, int]:
    """Return name -> number for every call of an ABI; x32 numbers without bit 30."""
    table = _TABLE_OF_ABI.get(abi.label, abi.label)
    given: dict[str, int] = getattr(import_module(f"system_calls.tables.{table}"), f"syscalls_{table}")
    if abi is Abi.X32:
        return {name: number & ~X32_BIT for name, number in given.items()}
    return given


@cache
def _names(abi: Abi) -> dict[int, str]:
    return {number: name for name, number in numbers(abi).items()}


def number_of(name: str, abi: Abi) -> int | None:
    """Return the number of a call, without bit 30 for x32; None when the ABI has no such call."""
    return numbers(abi).get(name)


# Where Python's table prefers another name than the kernel, or has none (linux/errno.h: what programs never see).
_ERRNO_NAMES: Final = {35: "EDEADLK", 95: "EOPNOTSUPP", 133: "EHWPOISON", 524: "ENOTSUPP"}
_INTERRUPTIONS: Final = {
    "ERESTARTSYS": 512,
    "ERESTARTNOINTR": 513,
    "ERESTARTNOHAND": 514,
    "ERESTART_RESTARTBLOCK": 516,
}
ERRNOS: Final[Mapping[str, int]] = {
    **{name: number for name, number in vars(_errno).items() if isinstance(number, int)},
    **{name: number for number, name in _ERRNO_NAMES.items()},
    **_INTERRUPTIONS,
}
"""Every name of an errno that a user may write -> its number."""


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


def _form(declared: Declared, abi: Abi) -> Form:
    c_type = declared.c_type.removeprefix("const ")
    if declared.is_pointer or c_type in _POINTER_TYPES:
        return Form.POINTER_32 if abi.is_32_bit else Form.POINTER_64
    # Some calls declare a descriptor as unsigned or as long; a program passes an int, and -1 is common.
    if c_type in _SIGNED_32 or c_type.startswith("enum ") or declared.is_descriptor:
        return Form.SIGNED_32
    if c_type in _UNSIGNED_32:
        return Form.UNSIGNED_32
    if c_type == "umode_t":
        return Form.UNSIGNED_16
    if not abi.is_32_bit:
        return Form.SIGNED_64
    return Form.SIGNED_32 if c_type in _SIGNED_WORD else Form.UNSIGNED_32


def _arguments(name: str, abi: Abi) -> tuple[Argument, ...]:
    declared = signature(name, abi.label)
    if declared is None:
        return _unknown_arguments(abi)
    return tuple(
        Argument(
            one.name,
            _form(one, abi),
            one.is_path,
            one.is_descriptor and (name, place) not in FOREIGN_DESCRIPTORS,
        )
        for place, one in enumerate(declared)
    )


def _unknown_arguments(abi: Abi) -> tuple[Argument, ...]:
    form = Form.UNSIGNED_32 if abi.is_32_bit else Form.SIGNED_64
    return tuple(Argument(f"arg{i}", form, is_path=False) for i in range(6))


def convert_arguments(args: U8, forms: npt.NDArray[np.integer[Any]]) -> I8:
    """
    Read raw registers as signed 64-bit integers.

    Args:
        args: Registers, shape (n, 6).
        forms: A Form for each of them, shape (n, 6).

    Returns:
        A new array of shape (n, 6); places that are UNUSED hold 0.
    """
    # take() is several times as fast as an index.
    values = (args & _FORM_MASK.take(forms)).view(np.int64)
    sign = _FORM_SIGN.take(forms)
    values ^= sign
    values -= sign
    return values


# --- kinds ------------------------------------------------------------------------------------------------------------

_SIGRETURNS: Final = frozenset({"rt_sigreturn", "sigreturn"})
"""Their result is a register of what they return to."""


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
        self._forms = np.zeros((KINDS_MAX, 6), dtype=np.intp)  # as they are looked up
        self._has_no_value = np.zeros(KINDS_MAX, dtype=np.bool_)
        self._argument_count = np.zeros(KINDS_MAX, dtype=np.uint8)
        self._is_known = np.zeros(KINDS_MAX, dtype=np.bool_)  # to the three before
        self._odd: dict[int, int] = {}  # packed (abi, number, restarted) -> index

    def index(self, abi: U1, number: I4, restarted: I4) -> U2:
        """
        Return the index of each call's kind, shape (n,).

        Args:
            abi: As the kernel side wrote it, shape (n,).
            number: Without bit 30 for x32, shape (n,).
            restarted: The number of the call that restart_syscall restarts, -1 for every other call, shape (n,).
        """
        index = abi * np.uint16(NUMBERS)  # goes round where the ABI is odd
        index += number.astype(np.uint16)
        unsigned = number.view(np.uint32)
        if unsigned.max(initial=0) >= NUMBERS or restarted.max(initial=-1) >= 0 or abi.max(initial=0) >= ABIS:
            rows = np.flatnonzero((unsigned >= NUMBERS) | (restarted >= 0) | (abi >= ABIS))
            odd_restarted = np.minimum(restarted[rows], 0xFFF0).astype(np.int64) + 1
            packed = (number[rows].astype(np.int64) << 24) | (np.maximum(odd_restarted, 0) << 8) | abi[rows]
            distinct, inverse = np.unique(packed, return_inverse=True)
            indices = np.array([self._odd_index(key) for key in distinct.tolist()], dtype=np.uint16)
            index[rows] = indices[inverse]
        return index

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

    def forms(self, kinds: U2) -> npt.NDArray[np.intp]:
        """Return the Form of each argument of each call, shape (n, 6); UNUSED where there is no argument."""
        self._learn(kinds)
        return self._forms.take(kinds, axis=0)

    def have_no_value(self, kinds: U2) -> npt.NDArray[np.bool_]:
        """Return whether what the kernel shows as a call's result is none, shape (n,)."""
        self._learn(kinds)
        return self._has_no_value.take(kinds)

    def argument_counts(self, kinds: U2) -> U1:
        """Return how many arguments each call has, shape (n,)."""
        self._learn(kinds)
        return self._argument_count.take(kinds)

    def _learn(self, kinds: U2) -> None:
        """Prepare the tables for calls of *kinds*."""
        is_known = self._is_known.take(kinds)
        if is_known.all():
            return
        for index in find_distinct(kinds[~is_known]).tolist():
            kind = self[index]
            forms = [argument.form for argument in kind.arguments]
            self._forms[index] = forms + [Form.UNUSED] * (6 - len(forms))
            self._argument_count[index] = len(forms)
            self._has_no_value[index] = kind.name in _SIGRETURNS
            self._is_known[index] = True


def _name(abi: Abi, number: int) -> str:
    return _names(abi).get(number) or f"syscall_{_given_number(abi, number)}"


def _given_number(abi: Abi, number: int) -> int:
    return number | X32_BIT if abi is Abi.X32 else number


def _kind(abi: Abi, number: int, restarts: str | None) -> Kind:
    name = _name(abi, number)
    return Kind(name, _given_number(abi, number), abi, _arguments(name, abi), restarts)
