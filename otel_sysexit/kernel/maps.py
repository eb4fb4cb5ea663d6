"""
BPF maps by descriptor, without bcc: bpf(2) through ctypes.

Keys and values are bytes as the kernel has them, or rows of bytes where all of a map are read. Descriptors come from the loader and may be used after every
capability was dropped (since Linux commit c8644cd0efe7, in v5.19; before it
CAP_BPF is needed).
"""

import ctypes
import errno
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.kernel.bpf import Command, bpf

_NOEXIST: Final = 1
_BATCH_ELEMENTS: Final = 1024
_ENOTSUPP: Final = 524
"""The kernel's own, linux/errno.h: the type of map does not know the command."""
_MEMBARRIER: Final = {"x86_64": 324, "aarch64": 283}
_MEMBARRIER_CMD_GLOBAL: Final = 1

_Rows = npt.NDArray[np.uint8]

_libc = ctypes.CDLL(None, use_errno=True)


class _ElementAttributes(ctypes.Structure):
    """The members of `union bpf_attr` (include/uapi/linux/bpf.h) that element commands use."""

    _fields_ = (
        ("map_fd", ctypes.c_uint32),
        ("padding", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class _BatchAttributes(ctypes.Structure):
    """The members of `union bpf_attr` that batch commands use (since Linux commit cb4d03ab499d, in v5.6)."""

    _fields_ = (
        ("in_batch", ctypes.c_uint64),
        ("out_batch", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map_fd", ctypes.c_uint32),
        ("elem_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    )


class Map:
    """A map whose elements are read and written one at a time, or read all together."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        """Use the map *fd*; sizes in bytes (per-CPU maps: of all CPUs' values together)."""
        self.fd = fd
        self._key_size = key_size
        self._value_size = value_size

    def lookup(self, key: bytes) -> bytes | None:
        """Return the value of *key*, or None if there is none."""
        value = ctypes.create_string_buffer(self._value_size)
        return value.raw if self._call(Command.MAP_LOOKUP_ELEM, key, value) else None

    def update(self, key: bytes, value: bytes, *, only_new: bool = False) -> None:
        """
        Set the value of *key*; with *only_new* it must not be there yet.

        Raises:
            OSError: the map is full (E2BIG), the key is there (EEXIST), or the kernel refuses.
        """
        buffer = ctypes.create_string_buffer(value, self._value_size)
        if not self._call(Command.MAP_UPDATE_ELEM, key, buffer, _NOEXIST if only_new else 0):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def take(self, key: bytes) -> bytes | None:
        """
        Remove *key* from a hash; return its last value, or None if it was not there.

        Until Linux 5.14 (commit 3e87f192b405) this is not one step: what is written between two is lost.
        """
        value = ctypes.create_string_buffer(self._value_size)
        if self._call(Command.MAP_LOOKUP_AND_DELETE_ELEM, key, value):
            return value.raw
        if ctypes.get_errno() == errno.ENOENT:
            return None
        last = self.lookup(key)
        self._call(Command.MAP_DELETE_ELEM, key, None)
        return last

    def is_empty(self) -> bool:
        """Whether it has no element."""
        return not self._call(Command.MAP_GET_NEXT_KEY, None, ctypes.create_string_buffer(self._key_size))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield keys and values; elements that come or go meanwhile may be missed."""
        key = None
        while True:
            following = ctypes.create_string_buffer(self._key_size)
            if not self._call(Command.MAP_GET_NEXT_KEY, key, following):
                return
            key = following.raw
            value = self.lookup(key)
            if value is not None:
                yield key, value

    def read(self) -> tuple[_Rows, _Rows]:
        """
        Return all keys, u1[n, key size], and their values, u1[n, value size], in no order.

        Elements that come or go meanwhile may be missed. A hash of n elements takes about n / 1024 system calls; where
        the kernel refuses to read many at once, two for each element.

        Raises:
            OSError: the kernel refuses to be read at all.
        """
        try:
            return self._read_batches()
        except OSError as error:
            if error.errno not in (errno.EINVAL, _ENOTSUPP):
                raise
        elements = list(self.items())
        keys, values = (
            (b"".join(column) for column in zip(*elements, strict=True)) if elements else (b"", b"")
        )
        return self._rows(keys, self._key_size), self._rows(values, self._value_size)

    def _read_batches(self) -> tuple[_Rows, _Rows]:
        """Read bucket after bucket; see __htab_map_lookup_and_delete_batch in kernel/bpf/hashtab.c."""
        capacity = _BATCH_ELEMENTS
        keys, values = self._buffers(capacity)
        # Where to go on, as the kernel writes it: a bucket's number, or in other types of maps a key.
        place = ctypes.create_string_buffer(max(self._key_size, 8))
        attributes = _BatchAttributes(out_batch=ctypes.addressof(place), map_fd=self.fd)
        parts: list[tuple[_Rows, _Rows]] = []
        code = 0
        while code != errno.ENOENT:  # the last bucket was read
            attributes.keys, attributes.values = keys.ctypes.data, values.ctypes.data
            attributes.count = capacity
            code = _bpf(Command.MAP_LOOKUP_BATCH, attributes)
            if code == errno.ENOSPC:  # the next bucket has more elements; nothing was read
                capacity *= 2
                keys, values = self._buffers(capacity)
                continue
            if code not in (0, errno.ENOENT):
                raise OSError(code, os.strerror(code))
            attributes.in_batch = attributes.out_batch
            parts.append((keys[: attributes.count].copy(), values[: attributes.count].copy()))
        all_keys, all_values = zip(*parts, strict=True)
        return np.concatenate(all_keys), np.concatenate(all_values)

    def _buffers(self, capacity: int) -> tuple[_Rows, _Rows]:
        return np.empty((capacity, self._key_size), np.uint8), np.empty(
            (capacity, self._value_size), np.uint8
        )

    @staticmethod
    def _rows(raw: bytes, size: int) -> _Rows:
        return np.frombuffer(raw, np.uint8).reshape(-1, size)

    def _call(
        self, command: Command, key: bytes | None, value: ctypes.Array[ctypes.c_char] | None, flags: int = 0
    ) -> bool:
        key_buffer = None if key is None else ctypes.create_string_buffer(key, self._key_size)
        attributes = _ElementAttributes(
            map_fd=self.fd,
            key=0 if key_buffer is None else ctypes.addressof(key_buffer),
            value=0 if value is None else ctypes.addressof(value),
            flags=flags,
        )
        return not _bpf(command, attributes)


def _bpf(command: Command, attributes: ctypes.Structure) -> int:
    """Call bpf(2); return 0 or the errno, which ctypes keeps, too: for a map, most refusals are answers."""
    try:
        bpf(command, attributes)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def possible_cpus() -> int:
    """Return for how many CPUs a per-CPU map has values (the kernel's `possible` mask, as "0-1,4")."""
    text = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip()
    return max(int(part.rpartition("-")[2]) for part in text.split(",")) + 1


def wait_for_running_programs() -> None:
    """
    Return when every BPF program that is running now has ended.

    A global membarrier waits for an RCU grace period (kernel/sched/membarrier.c), and tracing programs run inside one.
    A kernel that refuses it (nohz_full) leaves a window of microseconds.
    """
    _libc.syscall(_MEMBARRIER[platform.machine()], _MEMBARRIER_CMD_GLOBAL, 0, 0)
