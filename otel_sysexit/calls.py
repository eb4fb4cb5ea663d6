"""
Records of the kernel → calls, as columns.

In: arrays of CALL and STRING records. Out: `Calls`: wall-clock times, kinds, outcomes, converted arguments, paths. It
does not know who made a call (processes.py) nor what becomes of it. No Python object is made for a call.
"""

import enum
import errno
import fnmatch
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.identity import Thread
from otel_sysexit.kernel import records
from otel_sysexit.syscalls import X32_BIT, Abi, Kinds, convert_arguments

_INTERRUPTIONS: Final = np.array([-512, -513, -514, -516], np.int64)
_SIGRETURNS: Final = frozenset({"rt_sigreturn", "sigreturn"})
_SLACK: Final = 1_024
_EXEC_PATHS_MAX: Final = 4_096
_ERRNOS: Final = {name: number for name, number in vars(errno).items() if isinstance(number, int)}
PATH_WIDTH: Final = 256


class Outcome(enum.IntEnum):
    """How a call ended, as user space sees it."""

    SUCCEEDED = 0
    FAILED = 1
    BENIGN = 2
    """Returned an errno that is no error: nothing to read yet, a wait that timed out."""
    INTERRUPTED = 3
    """By a signal: restarted by the kernel, or made to fail with EINTR when a handler ran."""
    NO_RETURN = 4
    """The thread ended in it: exit, exit_group."""
    NO_VALUE = 5
    """It ended, and what the kernel shows as its result is not one: rt_sigreturn, trapped by seccomp."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Texts of path arguments."""

    text: npt.NDArray[np.uint8]
    """u1[m, w], valid UTF-8, zero padded; w is up to PATH_WIDTH, at least the longest one's length."""
    length: npt.NDArray[np.uint16]
    """u2[m], bytes."""
    is_cut: npt.NDArray[np.bool_]
    """bool[m]: longer than what was captured."""


NO_PATHS: Final = Paths(np.empty((0, PATH_WIDTH), np.uint8), np.empty(0, np.uint16), np.empty(0, np.bool_))


@dataclass(frozen=True, slots=True)
class Calls:
    """A batch of finished calls: n rows, in the order they came from the kernel."""

    start_unix_ns: npt.NDArray[np.uint64]
    duration_ns: npt.NDArray[np.uint64]
    end_boot_ns: npt.NDArray[np.uint64]
    """CLOCK_BOOTTIME at the end, the clock of task records."""
    tgid: npt.NDArray[np.uint32]
    tid: npt.NDArray[np.uint32]
    ret: npt.NDArray[np.int64]
    args: npt.NDArray[np.int64]
    """i8[n, 6], as the argument's type says: an int is signed, a pointer's bits are kept."""
    has_args: npt.NDArray[np.bool_]
    """False where the registers were gone: a successful exec."""
    kind: npt.NDArray[np.uint16]
    """Index into *kinds*."""
    outcome: npt.NDArray[np.uint8]
    """`Outcome`."""
    is_executed: npt.NDArray[np.bool_]
    """False for a call that seccomp or a tracer skipped; its duration is 0."""
    errno: npt.NDArray[np.uint16]
    """0 unless it failed, benignly or not."""
    path_row: npt.NDArray[np.int32]
    """i4[n, 2]: rows of *paths* with the first and second path argument; -1: none."""
    paths: Paths
    kinds: Kinds
    thread: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    """Index into *threads*; filled in by processes.py."""
    threads: Sequence[Thread] = ()

    def __len__(self) -> int:
        return len(self.start_unix_ns)


@dataclass(frozen=True, slots=True)
class ExecStrings:
    """What the kernel said of an exec; "" where it could not."""

    filename: str = ""
    """As given to execve."""
    command: str = ""
    """argv[0]."""
    executable: str = ""
    """Bare name of the file that became the program; of a script: its interpreter's."""

    def path(self) -> str | None:
        """Return the executable's path, where the file name given is one."""
        is_path = self.filename.startswith("/") and not self.filename.startswith("/dev/fd/")
        return self.filename if is_path and self.filename.rpartition("/")[2] == self.executable else None


class Clock:
    """Wall-clock time of boot-clock times; the distance of the two clocks is sampled again once a second."""

    def __init__(self) -> None:
        self._sampled_at = -1.0
        self._offset_ns = 0

    def offset_ns(self) -> int:
        """Return CLOCK_REALTIME - CLOCK_BOOTTIME in ns, at most a second old."""
        now = time.monotonic()
        if self._sampled_at < 0 or now - self._sampled_at >= 1:
            self._offset_ns = self._sample()
            self._sampled_at = now
        return self._offset_ns

    @staticmethod
    def _sample() -> int:
        """Read one clock between two readings of the other; the closest of five pairs is the least disturbed."""
        best, offset = 1 << 62, 0
        for _ in range(5):
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if after - before < best:
                best, offset = after - before, wall - (before + after) // 2
        return offset


class BenignErrors:
    """Which failures are no errors: `ERRNO` for every call, or `GLOB:ERRNO` for calls of that name."""

    def __init__(self, text: str) -> None:
        """
        Parse a comma list.

        Raises:
            ValueError: an errno has no name here; the message is one line.
        """
        self._everywhere = np.zeros(4096, np.bool_)
        self._by_name: list[tuple[str, int]] = []
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, _, code = item.rpartition(":")
            number = _ERRNOS.get(code.upper())
            if number is None:
                raise ValueError(f"unknown errno {code!r}")
            if name:
                self._by_name.append((name, number))
            else:
                self._everywhere[number] = True

    def match(
        self, codes: npt.NDArray[np.uint16], kind: npt.NDArray[np.uint16], kinds: Kinds
    ) -> npt.NDArray[np.bool_]:
        """Return bool[n]: whether the failure *codes* of calls of *kind* are benign."""
        benign = self._everywhere[codes]
        for pattern, number in self._by_name:
            rows = np.flatnonzero(codes == number)
            for index in np.unique(kind[rows]).tolist():
                if fnmatch.fnmatchcase(kinds[index].restarts or kinds[index].name, pattern):
                    benign[rows[kind[rows] == index]] = True
        return benign


class Decoder:
    """Turns batches of records into batches of calls; keeps strings that came before their calls."""

    def __init__(self, benign_errors: BenignErrors) -> None:
        self.kinds = Kinds()
        self.clock = Clock()
        self._benign_errors = benign_errors
        self._strings = np.empty(0, records.STRING)
        self._last_seqs: dict[int, np.uint32] = {}
        """Number of the last string that came, by CPU."""
        self._execs = np.empty(0, records.STRING)
        self._exec_paths = np.empty(0, records.STRING)

    def strings_wanted(self, calls: npt.NDArray[Any]) -> int:
        """
        Return how many more strings to read for *calls* (dtype CALL).

        Strings come nearly in the order of their calls, two a call at most; CPUs get ahead of each other by a few. What only
        later calls ask for is better left in the kernel's ring.
        """
        named = int(np.count_nonzero(calls["kind_flags"] & records.HAS_STRING))
        return max(2 * named + _SLACK - len(self._strings), 0)

    def lacks_strings(self, calls: npt.NDArray[Any]) -> bool:
        """Whether *calls* (dtype CALL) name strings that were not added yet and can still come: not those that were dropped."""
        named = calls[(calls["kind_flags"] & records.HAS_STRING) != 0]
        have = np.concatenate((_keys(self._strings), _keys(self._exec_paths)))
        missing = named[~np.isin(_keys(named, "string_"), have)]
        for cpu in np.unique(missing["string_cpu"]).tolist():
            last = self._last_seqs.get(cpu)
            # On a CPU strings come in the order of their numbers, which go round at 2^32: what was overtaken was dropped.
            ahead = 0 if last is None else last - missing["string_seq"][missing["string_cpu"] == cpu]
            if not np.all((ahead > 0) & (ahead < 1 << 31)):
                return True
        return False

    def add_strings(self, strings: npt.NDArray[Any]) -> None:
        """Keep *strings* (dtype STRING) for the calls that name them."""
        self._strings = np.concatenate((self._strings, strings)) if len(self._strings) else strings
        for cpu in np.unique(strings["cpu"]).tolist():
            self._last_seqs[cpu] = strings["seq"][strings["cpu"] == cpu][-1]

    def take_exec_strings(self, tasks: npt.NDArray[Any], strings: npt.NDArray[Any]) -> dict[int, ExecStrings]:
        """
        Return what was executed, by row of *tasks* (dtype TASK), for those that are execs.

        *strings* (dtype STRING) were read after *tasks*. The paths among them are kept for the execs' calls.
        """
        is_path = strings["role"] == records.StringRole.FIRST_PATH
        self._exec_paths = np.concatenate((self._exec_paths, strings[is_path]))[-_EXEC_PATHS_MAX:]
        self._execs = np.concatenate((self._execs, strings))
        rows = np.flatnonzero(tasks["kind"] == records.TaskKind.EXEC)
        wanted = _keys(tasks[rows], "string_")
        is_wanted = np.isin(_keys(self._execs), wanted)
        texts: dict[tuple[int, int], str] = {}
        for string in self._execs[is_wanted]:
            raw = string["text"].tobytes()[: min(max(int(string["length"]), 0), records.STRING_LIMIT)]
            texts[int(_keys(string)), int(string["role"])] = raw.decode(errors="backslashreplace")
        self._execs = self._execs[~is_wanted][-_EXEC_PATHS_MAX:]
        return {
            row: ExecStrings(
                filename=texts.get((key, records.StringRole.FIRST_PATH), ""),
                command=texts.get((key, records.StringRole.COMMAND), ""),
                executable=texts.get((key, records.StringRole.EXECUTABLE), ""),
            )
            for row, key in zip(rows.tolist(), wanted.tolist(), strict=True)
        }

    def decode(self, calls: npt.NDArray[Any]) -> Calls:
        """
        Decode *calls* (dtype CALL); the strings read after them must have been added.

        Returns:
            One row a call, in the same order.
        """
        kind = self.kinds.index(calls["abi"], calls["nr"], calls["restarted_nr"])
        ret = np.ascontiguousarray(calls["ret"])
        flags = calls["kind_flags"]
        call_kind = flags & 0x0F
        is_executed = call_kind != records.CallKind.NOT_EXECUTED
        has_failed = (ret < 0) & (ret >= -4095)
        outcome = np.where(has_failed, np.uint8(Outcome.FAILED), np.uint8(Outcome.SUCCEEDED))
        outcome[np.isin(ret, _INTERRUPTIONS)] = Outcome.INTERRUPTED
        # Trapped by seccomp: the result is the number again, as the program gave it.
        given_nr = np.where(calls["abi"] == Abi.X32, calls["nr"] | X32_BIT, calls["nr"])
        outcome[self._has_no_value(kind) | (~is_executed & (ret == given_nr))] = Outcome.NO_VALUE
        outcome[call_kind == records.CallKind.NEVER_RETURNED] = Outcome.NO_RETURN
        codes = np.where(outcome == Outcome.FAILED, -ret, 0).astype(np.uint16)
        outcome[(outcome == Outcome.FAILED) & self._benign_errors.match(codes, kind, self.kinds)] = (
            Outcome.BENIGN
        )
        path_row, paths = self._join(calls)
        start_ns, duration_ns = calls["start_ns"], calls["duration_ns"]
        offset_ns = np.uint64(self.clock.offset_ns() % 2**64)  # negative on a host whose clock is not set yet
        return Calls(
            start_unix_ns=start_ns + offset_ns,
            duration_ns=np.ascontiguousarray(duration_ns),
            end_boot_ns=start_ns + duration_ns,
            tgid=np.ascontiguousarray(calls["tgid"]),
            tid=np.ascontiguousarray(calls["tid"]),
            ret=ret,
            args=convert_arguments(np.ascontiguousarray(calls["args"]), self.kinds.forms(kind)),
            has_args=(flags & records.HAS_ARGS) != 0,
            kind=kind,
            outcome=outcome,
            is_executed=is_executed,
            errno=codes,
            path_row=path_row,
            paths=paths,
            kinds=self.kinds,
        )

    def _has_no_value(self, kind: npt.NDArray[np.uint16]) -> npt.NDArray[np.bool_]:
        found = [index for index in np.unique(kind).tolist() if self.kinds[index].name in _SIGRETURNS]
        return np.isin(kind, np.array(found, np.uint16))

    def _join(self, calls: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], Paths]:
        """Find each call's strings by number; keep what only later calls can ask for."""
        path_row = np.full((len(calls), 2), -1, np.int32)
        kept = np.concatenate((self._exec_paths, self._strings)) if len(self._exec_paths) else self._strings
        if not len(kept):
            return path_row, NO_PATHS
        rows = np.flatnonzero(calls["kind_flags"] & records.HAS_STRING)
        wanted = _keys(calls[rows], "string_")
        have = _keys(kept)
        is_used = np.zeros(len(kept), np.bool_)
        for column, role in enumerate((records.StringRole.FIRST_PATH, records.StringRole.SECOND_PATH)):
            candidates = np.flatnonzero(kept["role"] == role)
            if not len(candidates) or not len(wanted):
                continue
            order = candidates[np.argsort(have[candidates], kind="stable")]
            at = np.searchsorted(have[order], wanted).clip(max=len(order) - 1)
            matches = have[order[at]] == wanted
            found = order[at[matches]]
            is_used[found] = True
            path_row[rows[matches], column] = found
        used = np.flatnonzero(is_used)
        renumber = np.full(len(kept) + 1, -1, np.int32)
        renumber[used] = np.where(kept["length"][used] >= 0, np.arange(len(used)), -1)
        first = len(self._exec_paths)
        self._exec_paths = self._exec_paths[~is_used[:first]]
        self._strings = self._strings[~is_used[first:]]
        self._forget_older(calls[rows])
        return renumber[path_row], _paths(kept, used)

    def _forget_older(self, calls: npt.NDArray[Any]) -> None:
        """Drop strings that nobody will ask for: on a CPU calls come in the order of their strings."""
        if not len(self._strings):
            return
        is_over = np.zeros(len(self._strings), np.bool_)
        for cpu in np.unique(calls["string_cpu"]).tolist():
            # An exec may end long after its string was made: its number says nothing of the others'.
            mine = calls[(calls["string_cpu"] == cpu) & ((calls["kind_flags"] & records.HAS_ARGS) != 0)]
            if len(mine):
                # Numbers go round at 2^32.
                age = mine["string_seq"][-1] - self._strings["seq"]
                is_over |= (self._strings["cpu"] == cpu) & (age < np.uint32(1 << 31))
        self._strings = self._strings[~is_over]


def _keys(rows: Any, prefix: str = "") -> Any:
    """Return the numbers that strings are found by: CPU and sequence on it, u8."""
    return (rows[f"{prefix}cpu"].astype(np.uint64) << np.uint64(32)) | rows[f"{prefix}seq"]


def _paths(strings: npt.NDArray[Any], rows: npt.NDArray[np.intp]) -> Paths:
    """Return the texts of the *rows* of *strings*, made valid UTF-8."""
    limit = records.STRING_LIMIT
    given = strings["length"][rows]
    is_cut = given > limit
    length = given.clip(0, limit).astype(np.uint16)
    widest = int(length.max(initial=0))
    text = strings["text"][rows, :widest]
    odd = np.flatnonzero((text >= 0x80).any(axis=1)).tolist()
    if odd:  # may become longer
        text = np.pad(text, ((0, 0), (0, PATH_WIDTH - widest)))
    for row in odd:
        clean, was_cut = _clean(text[row, : length[row]].tobytes())
        text[row] = 0
        text[row, : len(clean)] = np.frombuffer(clean, np.uint8)
        length[row] = len(clean)
        is_cut[row] |= was_cut
    return Paths(text, length, is_cut)


def _clean(raw: bytes) -> tuple[bytes, bool]:
    """Return *raw* as valid UTF-8 of at most STRING_LIMIT bytes, and whether that cut it."""
    text = raw.decode(errors="backslashreplace").encode()
    if len(text) <= records.STRING_LIMIT:
        return text, False
    return text[: records.STRING_LIMIT].decode(errors="ignore").encode(), True
