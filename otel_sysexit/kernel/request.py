"""
What to compile and load: choices → macros and contents of maps.

In: arrays and numbers, checked by config.py, selections.py and targets.py. Out: macros, sizes and contents of maps. A macro is a choice that costs nothing when it is not made; the macros are explained in bpf/base.bpf.c.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.kernel.names import CALLS, CALLS_RINGS_MAX, MAPS
from otel_sysexit.kernel.records import (
    ERRNO_IS_KEPT,
    ERRNO_IS_WANTED,
    GLOB_SIZE,
    NR_LIMIT,
    SELECTOR_KEY,
    STRING_LIMIT_DEFAULT,
    Entry,
)

PAGE_SIZE: Final = os.sysconf("SC_PAGESIZE")
TASKS_BYTES: Final = 4 << 20
"""Size of the rings of tasks, exec strings and files."""
CPUS_A_RING: Final = 16
"""On how many CPUs a ring's lock is still cheap: see docs/overhead.md."""
PENDING_PLACES: Final = 32_768
"""As many as there are thread ids where pid_max has its default; a power of two."""
PENDING_OTHERS: Final = 32_768
PENDING_OTHERS_ALL: Final = 131_072
"""With every thread of the host as a target."""


@dataclass(frozen=True, slots=True)
class Thresholds:
    """A duration for calls, with exceptions."""

    default_ns: int
    by_call_ns: npt.NDArray[np.uint64] | None = None
    """u8[ABI_COUNT * NR_LIMIT]; None: the default for all."""

    def cflags(self, name: str) -> list[str]:
        """Return the macros *name*_NS and, with exceptions, *name*_BY_CALL."""
        exceptions = [] if self.by_call_ns is None else [f"-D{name}_BY_CALL"]
        return [f"-D{name}_NS={self.default_ns}ULL", *exceptions]


@dataclass(frozen=True, slots=True)
class Selection:
    """Who is a target (bpf/selection.bpf.c), beside the threads that the agent adds."""

    cflags: Sequence[str] = ()
    """SELECT_..., EXCLUDE_..., EXE_GLOBS..., NO_FOLLOW."""
    keys: Sequence[bytes] = ()
    """Of `selection`: dtype SELECTOR_KEY each."""
    globs: Sequence[bytes] = ()
    """Patterns for the executable's path, at most GLOB_LENGTH_MAX bytes each: those that choose, then the others."""


@dataclass(frozen=True, slots=True)
class Request:
    """Everything that was asked of the kernel side."""

    calls_bytes: int
    """Size of the rings of calls together, if their number is a power of two, as this is; at least a page."""
    syscall_table: npt.NDArray[np.uint32]
    """u4[ABI_COUNT * NR_LIMIT]: entries as drawn in bpf/records.h."""
    cpus: int = 1
    """How many there are."""
    calls_rings_max: int = 0
    """How many rings of calls they are to share, at most CALLS_RINGS_MAX; 0: as many as are good for so many CPUs."""
    has_set: bool = False
    """Whether calls not marked in the table are left out."""
    wants_unknown: bool = True
    """With a set: whether numbers outside the table are recorded."""
    args: int = 2
    """0: none, 1: numbers, 2: what they mean, too."""
    has_command_args: bool = False
    string_limit: int = STRING_LIMIT_DEFAULT
    """Bytes of a string that are kept."""
    errors_only: bool = False
    wanted_errnos: npt.NDArray[np.uint8] | None = None
    """u1[4096], 1 where a call with that errno (0: none) is recorded; None: whatever it is."""
    min_duration: Thresholds | None = None
    sample_threshold: int = 0
    """Of 2^32 calls so many are left out, at random."""
    has_max_rate: bool = False
    """Whether the threshold is told at run time (`Capture.set_rate`)."""
    kept_errnos: npt.NDArray[np.uint8] | None = None
    """u1[4096], 1 where a call with that errno is never sampled out."""
    keep_slow: Thresholds | None = None
    reports_stuck: bool = False
    """Whether calls that do not return are reported: all of them, so that sampling is decided when they have returned."""
    selection: Selection = field(default_factory=Selection)
    cgroup_subsystem: str | None = None
    """Of the hierarchy in which processes are told, and chosen by, their cgroups; empty: v2; None: there are no cgroups."""
    pending_places: int = PENDING_PLACES
    """Threads that can have a slot in the array, a power of two (bpf/slots.bpf.c)."""
    own_tgid: int = 0
    """The agent's process: never a target."""
    current_spans_fd: int | None = None
    """Descriptor of another program's map that says which span each thread is in (contextmap.py); None: there is none."""
    bcc_python: str | None = None
    """Interpreter that has bcc; None: this one, then the system's."""
    cache_dir: str | None = None
    """Folder of what was compiled; None: nothing is kept."""

    @property
    def has_spans(self) -> bool:
        """Whether calls say which span they were made in."""
        return self.current_spans_fd is not None

    @property
    def substitutes(self) -> dict[str, int]:
        """Maps that others have made, by the names of those in bpf/ that they take the place of."""
        return {} if self.current_spans_fd is None else {"current_spans": self.current_spans_fd}

    @property
    def cpus_a_ring(self) -> int:
        """How many CPUs write to one ring of calls."""
        rings = self.calls_rings_max or min(-(-self.cpus // CPUS_A_RING), CALLS_RINGS_MAX)
        return -(-self.cpus // rings)

    @property
    def calls_rings(self) -> list[str]:
        """Names of the rings of calls."""
        return [CALLS, *(f"{CALLS}_{index}" for index in range(1, -(-self.cpus // self.cpus_a_ring)))]

    @property
    def maps(self) -> list[str]:
        """Names of the maps that the loader hands over, in this order."""
        return [*MAPS, *self.calls_rings]

    @property
    def calls_ring_bytes(self) -> int:
        """Size of each of them: a power of two, its part of all or more."""
        share = -(-self.calls_bytes // len(self.calls_rings))
        return max(1 << (share - 1).bit_length(), PAGE_SIZE)

    @property
    def strings_bytes(self) -> int:
        """Size of the ring of strings: enough when one call in five has a path."""
        return max(self.calls_bytes // 2, PAGE_SIZE)

    @property
    def pending_others(self) -> int:
        """Threads that can be followed beside those: whose place is taken."""
        return PENDING_OTHERS_ALL if "-DSELECT_ALL" in self.selection.cflags else PENDING_OTHERS

    def cflags(self) -> list[str]:
        """Return the macros of bpf/ for this request."""
        flags = [
            f"-DPENDING_PLACES={self.pending_places}",
            f"-DSTRING_LIMIT={self.string_limit}",
            f"-DARGS={self.args}",
            *self.selection.cflags,
        ]
        if self.cgroup_subsystem is not None:
            flags.append("-DCGROUPS")
        if self.cgroup_subsystem:
            flags.append(f"-DCGROUP_SUBSYSTEM={self.cgroup_subsystem}")
        if len(self.calls_rings) > 1:
            flags.append(f"-DCPUS_A_RING={self.cpus_a_ring}")
        if self.has_set:
            flags += ["-DSYSCALL_SET", f"-DWANT_UNKNOWN={int(self.wants_unknown)}"]
        if self.min_duration is not None:
            flags += self.min_duration.cflags("MIN_DURATION")
        if self.sample_threshold:
            flags.append(f"-DSAMPLE_THRESHOLD={self.sample_threshold}U")
        if self.keep_slow is not None:
            flags += self.keep_slow.cflags("KEEP_SLOW")
        choices = {
            "COMMAND_ARGS": self.has_command_args,
            "ERRORS_ONLY": self.errors_only,
            "ERRNO_SET": self.wanted_errnos is not None,
            "MAX_RATE": self.has_max_rate,
            "KEEP_ERRORS": self.kept_errnos is not None,
            "REPORT_STUCK": self.reports_stuck,
            "CURRENT_SPANS": self.has_spans,
        }
        return flags + [f"-D{name}" for name, is_made in choices.items() if is_made]

    def sizes(self) -> dict[str, int]:
        """Return by name of a map how large it is: bytes of a ring, elements of others; those that bpf/ leaves open."""
        rings = dict.fromkeys(("tasks", "exec_strings", "files"), TASKS_BYTES)
        rings |= dict.fromkeys(self.calls_rings, self.calls_ring_bytes)
        rings["strings"] = self.strings_bytes
        return {**rings, "pending_others": self.pending_others}

    def contents(self) -> dict[str, tuple[bytes, bytes, int]]:
        """Return by name of a map: its keys one behind the other, its values, and how many there are."""
        found: dict[str, tuple[bytes, bytes, int]] = {"syscall_table": _array(self.syscall_table)}
        if self.has_set:
            is_wanted = (self.syscall_table & (Entry.IS_WANTED | Entry.IS_BIRTH)) != 0
            found["unwanted_numbers"] = _array(~is_wanted.reshape(-1, NR_LIMIT).any(axis=0))
        errnos = np.zeros(4096, np.uint8)
        for marked, bit in ((self.wanted_errnos, ERRNO_IS_WANTED), (self.kept_errnos, ERRNO_IS_KEPT)):
            if marked is not None:
                errnos |= (marked != 0).astype(np.uint8) * np.uint8(bit)
        found["errnos"] = _array(errnos)
        for name, durations in (("min_durations", self.min_duration), ("keep_slow", self.keep_slow)):
            if durations is not None and durations.by_call_ns is not None:
                found[name] = _array(durations.by_call_ns)
        selection = self.selection
        keys = b"".join(selection.keys)
        found["selection"] = keys, b"\1" * len(selection.keys), len(keys) // SELECTOR_KEY.itemsize
        globs = b"".join(glob.ljust(GLOB_SIZE, b"\0") for glob in selection.globs)
        count = len(selection.globs)
        found["own_tgid"] = _array(np.array([self.own_tgid], "<u4"))
        found["exe_globs"] = np.arange(count, dtype="<u4").tobytes(), globs, count
        return {name: content for name, content in found.items() if content[2]}


def _array(values: npt.NDArray[Any]) -> tuple[bytes, bytes, int]:
    """Return the elements of an array map that are not 0, as it begins with zeros."""
    index = np.flatnonzero(values)
    return index.astype("<u4").tobytes(), values[index].tobytes(), len(index)
