"""
The agent's hands in `pending`: who is a target, and which calls are in flight.

In: descriptors of the three maps of bpf/slots.bpf.c, which says how they belong together. Out: slots made and taken away beside the
kernel's programs, which do the same at the same moment, and copies of those that are in use.
"""

import mmap
import struct
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.kernel.maps import Map, wait_for_running_programs
from otel_sysexit.kernel.records import SAMPLED_OUT_AT_ENTER, SlotState

_NOBODY: Final = 0


class Slots:
    """The slots of all threads that are targets, or are left out of them."""

    def __init__(
        self, places_fd: int, owners_fd: int, others_fd: int, places: int, place: np.dtype[Any]
    ) -> None:
        """
        Take over the maps.

        Args:
            places_fd: Descriptor of `pending`.
            owners_fd: Of `pending_owners`.
            others_fd: Of `pending_others`.
            places: How many elements `pending` has.
            place: The dtype of these (`records.place_dtype`).
        """
        self._fd = places_fd
        self._place = place
        self._slot = place["slot"]
        self._owners = Map(owners_fd, 4, 4)
        self._others = Map(others_fd, 4, self._slot.itemsize)
        self._places = places

    def add(self, tid: int, state: SlotState) -> bool:
        """
        Give the thread *tid* a slot.

        Returns:
            Whether it had none.

        Raises:
            OSError: there is no room for another one (E2BIG), or the kernel refuses.
        """
        slot = np.zeros((), self._slot)
        slot["tid"], slot["interrupted_nr"], slot["state"] = tid, -1, state
        slot["was_target"] = state is not SlotState.EXCLUDED
        place = self._map(tid)
        place["has_attached"] = 1  # first: whoever finds no mark does not look for a slot
        if int(place["owner"]) == tid:  # born to a target a moment ago
            return False
        try:
            self._others.update(_u32(tid), slot.tobytes(), only_new=True)
        except FileExistsError:
            return False
        return True

    def remove(self, tid: int) -> bool:
        """
        Take the slot of *tid* away, if it has one.

        Returns:
            Whether the thread was in a call, whose end is not seen now.
        """
        other = self._others.take(_u32(tid))
        was_in_flight = other is not None and _is_in_flight(np.frombuffer(other, self._slot)[0])
        if other is not None:
            wait_for_running_programs()  # one may have been about to move it to its place
        place = self._map(tid)
        if int(place["owner"]) == tid:
            index = _u32(tid % self._places)
            self._owners.update(index, _u32(_NOBODY))
            place["owner"] = _NOBODY
            wait_for_running_programs()  # one may have found the slot; only then may somebody else have the place
            was_in_flight |= _is_in_flight(place["slot"])
            self._owners.take(index)
        return was_in_flight

    def is_empty(self) -> bool:
        """Whether no thread has a slot."""
        return self._owners.is_empty() and self._others.is_empty()

    def in_flight(self) -> npt.NDArray[Any]:
        """Return copies of the slots whose call has not returned yet, but for those that were sampled out."""
        size = self._places * self._place.itemsize
        places = np.frombuffer(self._mmap(0, size), self._place, self._places)
        owned = places["slot"][places["owner"] != 0]
        others = self._others.read()[1].view(self._slot).reshape(-1)
        slots: npt.NDArray[Any] = np.concatenate((owned, others))
        live: npt.NDArray[Any] = slots[slots["start_ns"] > SAMPLED_OUT_AT_ENTER]
        return live

    def _map(self, tid: int) -> npt.NDArray[Any]:
        """Return the place of *tid*, writable, as an array of no dimension; it is mapped as long as the array lives."""
        size = mmap.PAGESIZE
        page, offset = divmod(tid % self._places * self._place.itemsize, size)  # none lies on two pages
        found: npt.NDArray[Any] = np.frombuffer(
            self._mmap(page * size, size), self._place, 1, offset=offset
        ).reshape(())
        return found

    def _mmap(self, offset: int, size: int) -> mmap.mmap:
        """Map a part of `pending`: for a moment, as what is mapped counts as resident memory."""
        return mmap.mmap(self._fd, size, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE, offset=offset)


def _is_in_flight(slot: Any) -> bool:
    return bool(slot["start_ns"] > SAMPLED_OUT_AT_ENTER)


def _u32(number: int) -> bytes:
    return struct.pack("=I", number)
