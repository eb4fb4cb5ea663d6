"""
A BPF ring buffer, mapped and read as numpy arrays.

In: the ring's descriptor (or two buffers, in tests) and the dtype of its records, which all have one size. Out: arrays
of records, each a copy that outlives the next read. It knows nothing of what the records mean.

The protocol is the kernel's (kernel/bpf/ringbuf.c): a producer position and a consumer position that only grow, an
8-byte header before each record, with a busy bit until it is committed and a discard bit. The kernel maps the data twice,
one copy behind the other, so a record that goes on at the start of the ring lies in one piece all the same.

Only what is being read is mapped: the ring belongs to the kernel, and mapped whole, twice, it would count as resident
memory of the agent, too.

Memory order. The kernel writes a record, then clears the busy bit with a full barrier. So all headers are read first
and only then the records behind the committed ones; a memcpy of both at once could load the end of a record before its
header. x86-64 does not reorder loads; on aarch64 a barrier between the two is had from sched_yield(2), whose
`__schedule` has a full one (the guarantee that membarrier(2) builds on).
"""

import mmap
import os
import platform
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

_HEADER_SIZE: Final = 8
_BUSY: Final = np.uint32(1 << 31)
_DISCARDED: Final = np.uint32(1 << 30)


def _no_barrier() -> None:
    """Do nothing: loads are not reordered on x86-64."""


_load_barrier: Callable[[], None] = _no_barrier if platform.machine() == "x86_64" else os.sched_yield


class _Windows:
    """The data of a ring, mapped piece by piece as it is sliced."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._size = size

    def __len__(self) -> int:
        return 2 * self._size

    def __getitem__(self, part: slice) -> npt.NDArray[np.uint8]:
        start = part.start // mmap.PAGESIZE * mmap.PAGESIZE
        # Two pages lie before the data: the consumer's position and the producer's.
        window = mmap.mmap(
            self._fd, part.stop - start, mmap.MAP_SHARED, mmap.PROT_READ, offset=2 * mmap.PAGESIZE + start
        )
        return np.frombuffer(
            window, np.uint8, offset=part.start - start
        )  # keeps the window mapped while it lives


class Ring:
    """The consumer of one ring buffer; only one may exist for a ring."""

    def __init__(
        self, consumer: Any, producer: Any, data: "npt.NDArray[np.uint8] | _Windows", dtype: np.dtype[Any]
    ) -> None:
        """
        Read records of *dtype*.

        Args:
            consumer: Writable buffer that starts with the consumer position, a little-endian u64.
            producer: Buffer that starts with the producer position.
            data: The ring's data, twice, one copy behind the other.
            dtype: Of a record without its header; its size a multiple of 8.
        """
        self._consumer = np.frombuffer(consumer, "<u8", count=1)
        self._producer = np.frombuffer(producer, "<u8", count=1)
        self._data = data
        self.dtype = dtype
        self._stride = _HEADER_SIZE + dtype.itemsize
        self.size = len(data) // 2

    @classmethod
    def from_fd(cls, fd: int, size: int, dtype: np.dtype[Any]) -> "Ring":
        """
        Read the ring *fd* whose data are *size* bytes.

        Raises:
            OSError: the mapping is refused.
        """
        consumer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        producer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        return cls(consumer, producer, _Windows(fd, size), dtype)

    @property
    def produced(self) -> int:
        """Position, in bytes since the ring began, up to which records were reserved."""
        return int(self._producer[0])

    @property
    def consumed(self) -> int:
        """Position up to which records were read."""
        return int(self._consumer[0])

    def waiting(self) -> int:
        """Return how many records were reserved and not read yet, committed or not."""
        return (self.produced - self.consumed) // self._stride

    def share_used(self) -> float:
        """Return how full it is, 0 to 1."""
        return (self.produced - self.consumed) / self.size

    def read(self, limit: int) -> npt.NDArray[Any]:
        """
        Return at most *limit* committed records, oldest first, up to the first uncommitted one.

        Returns:
            An array of the ring's dtype, a copy.
        """
        position = self.consumed
        count = min(self.waiting(), limit)
        if count == 0:
            return np.empty(0, self.dtype)
        offset = position % self.size
        stretch = self._data[offset : offset + count * self._stride].reshape(count, self._stride)
        headers = np.ascontiguousarray(stretch[:, :4]).view("<u4").reshape(count)
        busy = np.flatnonzero(headers & _BUSY)
        if len(busy):
            count = int(busy[0])
            headers = headers[:count]
        _load_barrier()
        bodies = stretch[:count, _HEADER_SIZE:]
        is_discarded = (headers & _DISCARDED) != 0
        if is_discarded.any():
            bodies = bodies[~is_discarded]
        out = bodies.copy().view(self.dtype).reshape(len(bodies))
        self._consumer[0] = position + count * self._stride
        return out
