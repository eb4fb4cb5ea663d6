"""
Strings that calls and execs refer to: kept until what names them comes.

In: STRING records of two rings, and the CALL and TASK records that name them. Out: for a batch of calls the texts of its paths
and its addresses; for tasks what was executed. Strings are submitted before what refers to them, so they are read after it.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.addresses import NO_ADDRESSES, Addresses, make_addresses
from otel_sysexit.kernel import records
from otel_sysexit.texts import NO_TEXTS, Texts, make_texts

_SLACK: Final = 1_024
_EXECS_MAX: Final = 8_192
"""Whose paths are kept: of those that wait in the ring for a slow exporter, and of those whose calls are not recorded, which cannot be told apart."""
_ROLES: Final = (records.StringRole.FIRST_PATH, records.StringRole.SECOND_PATH, records.StringRole.ADDRESS)
_STRINGS_A_CALL_MAX: Final = 2
_NONE: Final = np.empty(0, np.intp)


@dataclass(frozen=True, slots=True)
class ExecStrings:
    """What the kernel said of an exec; "" where it could not."""

    filename: str = ""
    """As given to execve."""
    command: str = ""
    """argv[0]."""
    executable: str = ""
    """Path of the file that became the program; of a script: its interpreter's. Its bare name alone where that is longer than what is kept."""
    args: tuple[str, ...] = ()
    """argv, where it was asked for; what was cut off ends with "..."."""

    @property
    def executable_path(self) -> str | None:
        """The path, where there is one."""
        return self.executable if self.executable.startswith("/") else None

    @property
    def executable_name(self) -> str:
        """The bare name."""
        return self.executable.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class CallTexts:
    """What the n calls of a batch name."""

    path_row: npt.NDArray[np.int32]
    """i4[n, 2]: rows of *paths* with the first and second path argument; -1: none."""
    paths: Texts
    address_row: npt.NDArray[np.int32]
    """i4[n]: row of *addresses*; -1: none."""
    addresses: Addresses


class Strings:
    """Strings that were read and may still be asked for."""

    def __init__(self, string_dtype: np.dtype[Any], limit: int) -> None:
        """*string_dtype*: of the records; *limit*: the bytes of a text in them."""
        self._limit = limit
        self._strings = np.empty(0, string_dtype)
        self._last_seqs: dict[int, np.uint32] = {}
        """Number of the last string that came, by CPU."""
        self._execs = np.empty(0, string_dtype)
        self._exec_paths = np.empty(0, string_dtype)

    def wanted(self, calls: npt.NDArray[Any]) -> int:
        """
        Return how many more strings to read for *calls* (dtype CALL).

        Strings come nearly in the order of their calls, two a call at most; CPUs get ahead of each other by a few. What only
        later calls ask for is better left in the kernel's ring.
        """
        named = int(np.count_nonzero(calls["kind_flags"] & records.HAS_STRING))
        return max(_STRINGS_A_CALL_MAX * named + _SLACK - len(self._strings), 0)

    def lacks(self, calls: npt.NDArray[Any]) -> bool:
        """Whether *calls* (dtype CALL) name strings that were not added yet and can still come: not those that were dropped."""
        is_named = (calls["kind_flags"] & records.HAS_STRING) != 0
        # What execs name comes by another ring, which was read already.
        named = calls.take(np.flatnonzero(is_named & (calls["string_cpu"] < records.EXEC_STRINGS)))
        have = _keys(self._strings)
        found, _ = _find(have, np.ones(len(have), np.bool_), _keys(named, "string_"))
        if len(found) == len(named):
            return False
        missing = np.delete(named, found)
        for cpu in set(missing["string_cpu"].tolist()):
            last = self._last_seqs.get(cpu)
            # On a CPU strings come in the order of their numbers, which go round at 2^32: what was overtaken was dropped.
            ahead = 0 if last is None else last - missing["string_seq"][missing["string_cpu"] == cpu]
            if not np.all((ahead > 0) & (ahead < 1 << 31)):
                return True
        return False

    def add(self, strings: npt.NDArray[Any]) -> None:
        """Keep *strings* (dtype STRING) for the calls that name them."""
        self._strings = np.concatenate((self._strings, strings)) if len(self._strings) else strings
        for cpu in set(strings["cpu"].tolist()):
            self._last_seqs[cpu] = strings["seq"][strings["cpu"] == cpu][-1]

    def take_execs(self, tasks: npt.NDArray[Any], strings: npt.NDArray[Any]) -> dict[int, ExecStrings]:
        """
        Return what was executed, by row of *tasks* (dtype TASK), for those that are execs.

        *strings* (dtype STRING) were read after *tasks*. The paths among them are kept for the execs' calls.
        """
        is_path = strings["role"] == records.StringRole.FIRST_PATH
        self._exec_paths = np.concatenate((self._exec_paths, strings[is_path]))[-_EXECS_MAX:]
        self._execs = np.concatenate((self._execs, strings))
        rows = np.flatnonzero(tasks["kind"] == records.TaskKind.EXEC)
        wanted = _keys(tasks[rows], "string_")
        is_wanted = np.isin(_keys(self._execs), wanted)
        texts: dict[tuple[int, int], bytes] = {}
        cut: set[int] = set()
        for string in self._execs[is_wanted]:
            raw = string["text"].tobytes()[: min(max(int(string["length"]), 0), self._limit)]
            texts[int(_keys(string)), int(string["role"])] = raw
            if string["role"] == records.StringRole.ARGV and string["length"] > self._limit:
                cut.add(int(_keys(string)))
        self._execs = self._execs[~is_wanted][-_EXECS_MAX:]

        def text(key: int, role: records.StringRole) -> str:
            return texts.get((key, role), b"").decode(errors="backslashreplace")

        return {
            row: ExecStrings(
                filename=text(key, records.StringRole.FIRST_PATH),
                command=text(key, records.StringRole.COMMAND),
                executable=text(key, records.StringRole.EXECUTABLE),
                args=_split_argv(texts.get((key, records.StringRole.ARGV), b""), is_cut=key in cut),
            )
            for row, key in zip(rows.tolist(), wanted.tolist(), strict=True)
        }

    def join(self, calls: npt.NDArray[Any]) -> CallTexts:
        """Find the strings of each of *calls* (dtype CALL) by number; keep what only later calls can ask for."""
        path_row = np.full((len(calls), 2), -1, np.int32)
        address_row = np.full(len(calls), -1, np.int32)
        rows = np.flatnonzero((calls["kind_flags"] & records.HAS_STRING) != 0)
        if not len(rows) or not (len(self._strings) or len(self._exec_paths)):
            return CallTexts(path_row, NO_TEXTS, address_row, NO_ADDRESSES)
        calls = calls.take(rows)
        wanted = _keys(calls, "string_")
        asked = np.flatnonzero(np.isin(_keys(self._exec_paths), wanted)) if len(self._exec_paths) else _NONE
        kept = np.concatenate((self._exec_paths[asked], self._strings)) if len(asked) else self._strings
        role_of, is_used = np.ascontiguousarray(kept["role"]), np.zeros(len(kept), np.bool_)
        there_are = np.bincount(role_of, minlength=len(records.StringRole)).tolist()
        have = _keys(kept)
        found = [
            (row, *_find(have, role_of == role, wanted))
            for row, role in zip((*path_row.T, address_row), _ROLES, strict=True)
            if there_are[role]
        ]
        for _, _, at in found:
            is_used[at] = True
        is_given = is_used & (kept["length"] >= 0)
        is_address = role_of == records.StringRole.ADDRESS
        row_of = np.full(len(kept), -1, np.int32)
        used = np.flatnonzero(is_given & ~is_address)
        row_of[used] = np.arange(len(used))
        paths = make_texts(kept if len(used) == len(kept) else kept.take(used), self._limit)
        addresses = NO_ADDRESSES
        if there_are[records.StringRole.ADDRESS]:
            used = np.flatnonzero(is_given & is_address)
            row_of[used], addresses = make_addresses(kept.take(used))
        for row, named, at in found:
            row[rows.take(named)] = row_of.take(at)
        self._drop(asked, is_used)
        self._forget_older(calls)
        return CallTexts(path_row, paths, address_row, addresses)

    def _drop(self, asked: npt.NDArray[np.intp], is_used: npt.NDArray[np.bool_]) -> None:
        """Forget what was used of the paths of execs at *asked*, and of the strings."""
        used = asked[is_used[: len(asked)]]
        if len(used):
            self._exec_paths = np.delete(self._exec_paths, used)
        self._strings = self._strings.take(np.flatnonzero(~is_used[len(asked) :]))

    def _forget_older(self, calls: npt.NDArray[Any]) -> None:
        """Drop strings that nobody will ask for: on a CPU calls come in the order of their strings."""
        if not len(self._strings):
            return
        is_over = np.zeros(len(self._strings), np.bool_)
        for cpu in set(calls["string_cpu"].tolist()):
            mine = calls[calls["string_cpu"] == cpu]
            # Numbers go round at 2^32.
            age = mine["string_seq"][-1] - self._strings["seq"]
            is_over |= (self._strings["cpu"] == cpu) & (age < np.uint32(1 << 31))
        self._strings = self._strings[~is_over]


def _split_argv(raw: bytes, *, is_cut: bool) -> tuple[str, ...]:
    """Return arguments that lie one behind the other, each with a NUL."""
    if not raw:
        return ()
    args = [part.decode(errors="backslashreplace") for part in raw.removesuffix(b"\0").split(b"\0")]
    return (*args[:-1], args[-1] + "...") if is_cut else tuple(args)


def _find(
    keys: npt.NDArray[np.uint64], is_candidate: npt.NDArray[np.bool_], wanted: npt.NDArray[np.uint64]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return which of the *wanted* are among the candidates of *keys*, and where in *keys*."""
    candidates = np.flatnonzero(is_candidate)
    if not len(candidates):
        return _NONE, _NONE
    keys = keys.take(candidates)
    order = np.argsort(keys, kind="stable")
    keys = keys.take(order)
    # The last of equal ones: a thread's id, by which execs are named, may have been another's before.
    at = np.searchsorted(keys, wanted, side="right") - 1
    found = np.flatnonzero(keys[at] == wanted)
    return found, candidates.take(order.take(at[found]))


def _keys(rows: Any, prefix: str = "") -> Any:
    """Return the numbers that strings are found by: CPU and sequence on it, u8."""
    return (rows[f"{prefix}cpu"].astype(np.uint64) << np.uint64(32)) | rows[f"{prefix}seq"]
