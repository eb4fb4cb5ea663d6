"""
The Python twin of `bpf/records.h`: what a record's bytes mean.

Names, order and units are those of the header, where the layouts are drawn; tests/contract compares the two.
Every dtype is packed and little-endian.
"""

import enum
from typing import Any

import numpy as np
import numpy.typing as npt

STRING_LIMIT_DEFAULT = 256
NR_LIMIT = 1024
ABI_COUNT = 5
EXEC_STRINGS = 0x8000
"""`cpu` of strings that tell of an exec, from here on."""
SAMPLED_OUT_AT_ENTER = 1
"""A slot's `start_ns` that is no time."""

SPAN_CONTEXT = np.dtype([("trace_id", "<u8", (2,)), ("span_id", "<u8")])


def call_dtype(*, has_span: bool = False) -> np.dtype[Any]:
    """Return the dtype of call records; *has_span*: as with the macro CURRENT_SPANS."""
    return np.dtype(
        [
            ("start_ns", "<u8"),
            ("duration_ns", "<u8"),
            ("ret", "<i8"),
            ("args", "<u8", (6,)),
            ("tgid", "<u4"),
            ("tid", "<u4"),
            ("nr", "<i4"),
            ("restarted_nr", "<i4"),
            ("string_seq", "<u4"),
            ("string_cpu", "<u2"),
            ("abi", "u1"),
            ("kind_flags", "u1"),
            ("files", "<u4", (2,)),
            ("threshold", "<u4"),
            ("reserved", "<u4"),
            *([("span", SPAN_CONTEXT)] if has_span else []),
        ]
    )


CALL = call_dtype()


def copy_field(rows: npt.NDArray[Any], name: str) -> npt.NDArray[Any]:
    """
    Return a field of *rows* that is an array itself, contiguous: a copy made a row at a time, not a number at a time.

    Raises:
        TypeError: *rows* are no records.
    """
    fields = rows.dtype.fields
    if fields is None:
        raise TypeError(f"{rows.dtype} has no fields")
    dtype, offset = fields[name][:2]
    whole = np.ascontiguousarray(rows.getfield(np.dtype((np.void, dtype.itemsize)), offset))
    return whole.view(dtype.base).reshape(len(rows), *dtype.shape)


def string_dtype(limit: int = STRING_LIMIT_DEFAULT) -> np.dtype[Any]:
    """Return the dtype of string records that keep *limit* bytes; their `text` is a little longer."""
    return np.dtype(
        [
            ("ino", "<u8"),
            ("seq", "<u4"),
            ("mode", "<u4"),
            ("length", "<i4"),
            ("cpu", "<u2"),
            ("role", "u1"),
            ("reserved", "u1"),
            ("text", "u1", ((limit + 2 + 7) // 8 * 8,)),
        ]
    )


STRING = string_dtype()

TASK = np.dtype(
    [
        ("time_ns", "<u8"),
        ("start_ns", "<u8"),
        ("tgid", "<u4"),
        ("tid", "<u4"),
        ("parent_tgid", "<u4"),
        ("previous_tid", "<u4"),
        ("uid", "<u4"),
        ("wait_status", "<i4"),
        ("string_seq", "<u4"),
        ("string_cpu", "<u2"),
        ("kind", "u1"),
        ("is_last", "u1"),
        ("comm", "u1", (16,)),
        ("cgroup", "<u8"),
        ("euid", "<u4"),
        ("vpid", "<u4"),
        ("gid", "<u4"),
        ("egid", "<u4"),
    ]
)


def place_dtype(*, has_span: bool = False) -> np.dtype[Any]:
    """Return the dtype of places, with that of slots as the field `slot`; *has_span*: as with the macro CURRENT_SPANS."""
    slot = np.dtype(
        [
            ("start_ns", "<u8"),
            ("nr", "<i4"),
            ("tid", "<u4"),
            ("tgid", "<u4"),
            ("interrupted_nr", "<i4"),
            ("exit_status", "<u4"),
            ("string_seq", "<u4"),
            ("string_cpu", "<u2"),
            ("abi", "u1"),
            ("state", "u1"),
            ("has_execed", "u1"),
            ("was_target", "u1"),
            ("address_room", "u1"),
            ("reserved", "u1"),
            ("file", "<u4"),
            ("threshold", "<u4"),
            *([("span", SPAN_CONTEXT)] if has_span else []),
        ]
    )
    return np.dtype(
        [
            ("slot", slot),
            ("owner", "<u4"),
            ("others", "<u4"),
            ("has_attached", "<u4"),
            ("reserved", "<u4"),
            *([("padding", "<u8", (5,))] if has_span else []),
        ]
    )


PLACE = place_dtype()
SLOT = PLACE["slot"]

SELECTOR_KEY = np.dtype([("kind", "<u8"), ("value", "<u8", (2,))])
GLOB_SIZE = 264
GLOB_LENGTH_MAX = 255

RATE = np.dtype(
    [
        ("threshold", "<u4"),
        ("budget", "<u4"),
        ("kept_budget", "<u4"),
        ("emitted", "<u4"),
        ("kept", "<u4"),
        ("reserved", "<u4"),
    ]
)


class Entry(enum.IntFlag):
    """Bits of an entry of `syscall_table` beside the places of arguments (shifts, three bits each: 1 + index)."""

    IS_ADDRESS_OUT = 1 << 18
    IS_BIRTH = 1 << 30
    IS_WANTED = 1 << 31


class Selector(enum.IntEnum):
    """What threads are chosen or left out by."""

    PID = 0
    TID = 1
    UID = 2
    COMM = 3
    CGROUP = 4


SELECTOR_EXCLUDED = 8
ERRNO_IS_WANTED = 1
ERRNO_IS_KEPT = 2


class CallKind(enum.IntEnum):
    """How a call ended (low four bits of `kind_flags`)."""

    RETURNED = 0
    NEVER_RETURNED = 1
    NOT_EXECUTED = 2


HAS_STRING = 0x10
HAS_ARGS = 0x20


class StringRole(enum.IntEnum):
    """What a string record holds."""

    FIRST_PATH = 0
    SECOND_PATH = 1
    COMMAND = 2
    EXECUTABLE = 3
    ARGV = 4
    ADDRESS = 5
    FILE = 6


class TaskKind(enum.IntEnum):
    """What happened to a task."""

    PROCESS_START = 0
    THREAD_START = 1
    EXEC = 2
    RENAME = 3
    END = 4


class SlotState(enum.IntEnum):
    """What the next lone sys_exit of a thread means."""

    NORMAL = 0
    NEWBORN = 1
    ATTACHED = 2
    LAUNCHING = 3
    EXCLUDED = 4


class Ledger(enum.IntEnum):
    """Counters of what became of every call."""

    SEEN = 0
    FILTERED_SUCCEEDED = 1
    FILTERED_SHORT = 2
    FILTERED_ERRNO = 3
    FILTERED_EXCLUDED = 4
    SAMPLED_OUT = 5
    EMITTED = 6
    DROPPED_RING_FULL = 7
    DROPPED_PENDING_FULL = 8
    DROPPED_OVERWRITTEN = 9
    UNPAIRED_START = 10
    UNPAIRED_ATTACH = 11
    THREADS_UNFOLLOWED = 12
    STRINGS_DROPPED = 13
    STRINGS_UNREADABLE = 14
    TASKS_DROPPED = 15
    KEEP_REFUSED = 16
