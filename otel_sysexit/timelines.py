"""
What a pid was from when on: programs of its process, names of its threads.

In: what happened, in the order in which it did. Out: what was in force at a time, as long as calls can ask for that.
"""

from dataclasses import dataclass, field
from typing import TypeVar

from otel_sysexit.identity import Image

_Entry = TypeVar("_Entry")


@dataclass(slots=True)
class Timeline:
    """What a pid was from when on: programs of its process and names of its threads, oldest first."""

    images: list[tuple[int, Image]] = field(default_factory=list)
    names: dict[int, list[tuple[int, str]]] = field(default_factory=dict)
    threads: set[int] = field(default_factory=set)
    """Those that live, as far as we know."""
    settled: set[int] = field(default_factory=set)
    """Keys of threads that are settled (settled.py) by what this timeline says."""

    def image_at(self, time_ns: int) -> Image:
        """Return the program at a time."""
        return _latest(self.images, time_ns)

    def name_at(self, tid: int, time_ns: int) -> str:
        """Return a thread's name at a time."""
        return (
            _latest(self.names[tid], time_ns)
            if tid in self.names
            else self.image_at(time_ns).executable_name[:15]
        )

    def changes(self, tid: int) -> list[int]:
        """Return the times at which the answers for *tid* change, ascending."""
        return sorted(
            {since for since, _ in self.images[1:]} | {since for since, _ in self.names.get(tid, ())[1:]}
        )

    def forget_before(self, tid: int, time_ns: int, *, is_gone: bool) -> None:
        """Drop what no call can ask for any more that ended after *time_ns*; all of *tid* up to then if it is gone."""
        self.images = _since(self.images, time_ns)
        names = self.names.get(tid)
        if names is not None:
            kept = [entry for entry in names if entry[0] > time_ns] if is_gone else _since(names, time_ns)
            if kept:
                self.names[tid] = kept
            else:
                del self.names[tid]


def _latest(entries: list[tuple[int, _Entry]], time_ns: int) -> _Entry:
    """Return the value in force at *time_ns*; before the first one, the first."""
    value = entries[0][1]
    for since, candidate in entries[1:]:
        if since > time_ns:
            break
        value = candidate
    return value


def _since(entries: list[tuple[int, _Entry]], time_ns: int) -> list[tuple[int, _Entry]]:
    """Return the entry in force at *time_ns* and all later ones."""
    first = max((index for index, (since, _) in enumerate(entries) if since <= time_ns), default=0)
    return entries[first:]
