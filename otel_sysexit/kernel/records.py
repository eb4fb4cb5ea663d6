"""
The Python twin of `bpf/records.h`: what a record's bytes mean.

Names, order and units are those of the header, where the layouts are drawn; tests/contract compares the two.
Every dtype is packed and little-endian.
"""

import enum

import numpy as np

VERSION = 1
STRING_LIMIT = 255
NR_LIMIT = 1024
ABI_COUNT = 5

CALL = np.dtype(
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
    ]
)

STRING = np.dtype(
    [
        ("seq", "<u4"),
        ("cpu", "<u2"),
        ("role", "u1"),
        ("reserved", "u1"),
        ("length", "<i4"),
        ("reserved2", "<u4"),
        ("text", "u1", (264,)),
    ]
)

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
    ]
)

SLOT = np.dtype(
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
        ("reserved", "u1", (3,)),
        ("file", "<u4"),
        ("reserved2", "<u4"),
    ]
)

SAMPLED_OUT_NS = 1
"""`start_ns` in a slot whose call is in flight and will be no span; 0: no call is in flight."""


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


class Ledger(enum.IntEnum):
    """Counters of what became of every call."""

    SEEN = 0
    FILTERED_SUCCEEDED = 1
    FILTERED_SHORT = 2
    EMITTED = 3
    DROPPED_RING_FULL = 4
    DROPPED_OVERWRITTEN = 5
    UNPAIRED_START = 6
    UNPAIRED_ATTACH = 7
    THREADS_UNFOLLOWED = 8
    STRINGS_DROPPED = 9
    STRINGS_UNREADABLE = 10
    TASKS_DROPPED = 11
