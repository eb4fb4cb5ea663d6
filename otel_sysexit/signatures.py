"""
Which arguments each system call has: C types and names, as the kernel declares them.

The table that is shipped (data/syscall_args.json) knows every ABI. Where the running kernel shows its own declarations
(tracefs), those say how the arguments of the native ABI are called; positions are the same on every kernel. Both are
read when something asks for them. ABIs go by their labels: `x86_64`, `i386`, `x32`, `aarch64`, `arm`.
"""

import json
import platform
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

TRACEFS_NAMES: Final = {"stat": "newstat", "lstat": "newlstat", "fstat": "newfstat", "uname": "newuname"}
"""Call -> the name of the kernel's function, where that is another one on every ABI."""
_TRACEFS: Final = (Path("/sys/kernel/tracing"), Path("/sys/kernel/debug/tracing"))
_NATIVE_TRACEFS_NAMES: Final = {
    "x86_64": TRACEFS_NAMES | {"umount2": "umount", "sendfile": "sendfile64"},
    "aarch64": TRACEFS_NAMES | {"umount2": "umount", "sendfile": "sendfile64", "fadvise64": "fadvise64_64"},
}
# A register is 8 bytes; the fields that are no registers (common_*, __syscall_nr, copies of user memory) are smaller.
_FIELD: Final = re.compile(r"^\tfield:(?P<type>.*?)\s*(?P<name>\w+);\toffset:\d+;\tsize:8;", re.MULTILINE)
FOREIGN_DESCRIPTORS: Final = frozenset({("pidfd_getfd", 1)})
"""Call and place of descriptors that are of another process's table."""
_DESCRIPTORS: Final = frozenset(("fd_in", "fd_out", "fdin", "fdout", "fildes", "mqdes"))


class Declared(NamedTuple):
    """One argument of a call."""

    c_type: str
    """As `unsigned int` or `const char *`."""
    name: str
    is_path: bool = False

    @property
    def is_pointer(self) -> bool:
        """Whether it is an address."""
        return "*" in self.c_type

    @property
    def is_descriptor(self) -> bool:
        """Whether it is one file descriptor."""
        return not self.is_pointer and (
            (self.name.endswith("fd") and self.name != "max_fd") or self.name in _DESCRIPTORS
        )


Signature: TypeAlias = tuple[Declared, ...]
"""At most six, in the order of the registers."""


@cache
def _shipped() -> Mapping[str, Mapping[str, Signature]]:
    """Return group ("common" or an ABI's label) -> call -> signature."""
    with (Path(__file__).parent / "data" / "syscall_args.json").open("rb") as file:
        groups = json.load(file)
    del groups["note"]
    return {
        group: {
            call: tuple(Declared(c_type, name, bool(mark)) for c_type, name, *mark in arguments)
            for call, arguments in calls.items()
        }
        for group, calls in groups.items()
    }


def shipped_signature(call: str, abi: str) -> Signature | None:
    """Return what the shipped table says of a call, None when it does not know it."""
    groups = _shipped()
    own = groups.get(abi, {}).get(call)
    return groups["common"].get(call) if own is None else own


def signature(call: str, abi: str) -> Signature | None:
    """
    Return the signature of a call, as the running kernel declares it if that can be read, else as shipped.

    Which arguments are paths is what the shipped table says by their positions: the kernel does not declare it.
    """
    shipped = shipped_signature(call, abi)
    running = _running(call, abi)
    if running is None:
        return shipped
    paths = [place for place, argument in enumerate(shipped or ()) if argument.is_path]
    if not all(place < len(running) and running[place].is_pointer for place in paths):
        return shipped  # one of the two is odd, and the kernel side goes by the shipped one
    return tuple(Declared(one.c_type, one.name, place in paths) for place, one in enumerate(running))


def _running(call: str, abi: str) -> Signature | None:
    """Return what tracefs says of a call of the native ABI; None where it cannot be read or says nothing sensible."""
    if abi != platform.machine() or abi not in _NATIVE_TRACEFS_NAMES:
        return None
    name = _NATIVE_TRACEFS_NAMES[abi].get(call, call)
    for root in _TRACEFS:
        try:
            text = (root / "events" / "syscalls" / f"sys_enter_{name}" / "format").read_text("ascii")
        except (OSError, ValueError):
            continue
        declared = tuple(Declared(found["type"], found["name"]) for found in _FIELD.finditer(text))
        if "__syscall_nr;" in text and len(declared) <= 6 and all(argument.c_type for argument in declared):
            return declared
    return None
