"""
A BPF ring buffer, mapped and read as numpy arrays.

In: the ring's descriptor (or two buffers, in tests) and the dtype of its records, which all have one size. Out: arrays
of records, each a copy that outlives the next read. It knows nothing of what the records mean.

The protocol is the kernel's (kernel/bpf/ringbuf.c): a producer position and a consumer position that only grow, an
8-byte header before each record, with a busy bit until it is committed and a discard bit. Records lie at multiples of
one stride, but the last of a turn may go on at the start of the ring.

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


class Ring:
    """The consumer of one ring buffer; only one may exist for a ring."""

    def __init__(self, consumer: Any, producer: Any, dtype: np.dtype[Any]) -> None:
        """
        Read records of *dtype* from two buffers.

        Args:
            consumer: Writable; starts with the consumer position, a little-endian u64.
            producer: Starts with the producer position; the data follow one page later and fill the rest.
            dtype: Of a record without its header; its size a multiple of 8.
        """
        self._consumer = np.frombuffer(consumer, "<u8", count=1)
        self._producer = np.frombuffer(producer, "<u8", count=1)
        self._data = np.frombuffer(producer, np.uint8, offset=mmap.PAGESIZE)
        self._dtype = dtype
        self._stride = _HEADER_SIZE + dtype.itemsize
        self.size = len(self._data)

    @classmethod
    def from_fd(cls, fd: int, pages: int, dtype: np.dtype[Any]) -> "Ring":
        """
        Map the ring *fd* of *pages* pages; the data once, not twice as the kernel offers, to halve resident memory.

        Raises:
            OSError: the mapping is refused.
        """
        consumer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        producer = mmap.mmap(
            fd, mmap.PAGESIZE * (1 + pages), mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE
        )
        return cls(consumer, producer, dtype)

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
        return int(self._producer[0] - self._consumer[0]) // self._stride

    def read(self, limit: int) -> npt.NDArray[Any]:
        """
        Return at most *limit* committed records, oldest first, up to the first uncommitted one.

        Returns:
            An array of the ring's dtype, a copy.
        """
        count = min(self.waiting(), limit)
        out = np.empty((count, self._dtype.itemsize), np.uint8)
        kept = 0
        while count:
            taken, committed = self._read_stretch(out[kept:], count)
            kept += taken
            count -= committed
            if committed == 0:
                break
        return out[:kept].view(self._dtype).reshape(kept)

    def _read_stretch(self, out: npt.NDArray[np.uint8], count: int) -> tuple[int, int]:
        """
        Copy records that lie without a break, or the one that the ring's end breaks.

        Returns:
            (records copied to *out*, records consumed); discarded ones are consumed and not copied.
        """
        position = int(self._consumer[0])
        offset = position % self.size
        whole = min(count, (self.size - offset) // self._stride)
        if whole == 0:
            # The header never breaks: the ring's size and every record are multiples of 8.
            header = self._data[offset : offset + 4].view("<u4")[0]
            if header & _BUSY:
                return 0, 0
            _load_barrier()
            stretch = np.concatenate((self._data[offset:], self._data[: self._stride - (self.size - offset)]))
            stretch = stretch.reshape(1, self._stride)
            headers = np.array([header])
        else:
            stretch = self._data[offset : offset + whole * self._stride].reshape(whole, self._stride)
            headers = np.ascontiguousarray(stretch[:, :4]).view("<u4").reshape(whole)
            busy = np.flatnonzero(headers & _BUSY)
            if len(busy):
                whole = int(busy[0])
                headers = headers[:whole]
            _load_barrier()
        committed = len(headers)
        bodies = stretch[:committed, _HEADER_SIZE:]
        if (headers & _DISCARDED).any():
            bodies = bodies[(headers & _DISCARDED) == 0]
        out[: len(bodies)] = bodies
        self._consumer[0] = position + committed * self._stride
        return len(bodies), committed
