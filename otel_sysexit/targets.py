"""
Whose calls are recorded: what was chosen and left out, in the user's words and in the kernel's.

In: texts of options (`parse_*`), then the running system (`resolve`), before anything is attached. Out: `Targets`, from
which the kernel's side gets its macros, keys and globs, and scan.py what to look for in /proc. A kind of property is
one of several values (or), different kinds must all hold (and); whatever holds of the exclusions leaves a thread out.
"""

import fnmatch
import os
import posixpath
import pwd
import re
import struct
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Final

from otel_sysexit.cgroups import Cgroup, Containers, Meanings, Mount, find_cgroup, read_mounts
from otel_sysexit.errors import UsageError
from otel_sysexit.kernel.records import GLOB_LENGTH_MAX, SELECTOR_EXCLUDED, Selector
from otel_sysexit.procfs import PROC, is_kernel_thread, read_tgid

_COMM_BYTES_MAX: Final = 15
_GLOBS_MAX: Final = 16
"""The kernel compares 1,024 bytes with patterns, in all, for each program that is executed."""
_CONTAINER_DIGITS_MIN: Final = 4
_PID_MAX: Final = 1 << 22
_UID_INVALID: Final = (1 << 32) - 1


# --- options ----------------------------------------------------------------------------------------------------------


def _parse_id(text: str, what: str) -> int:
    if not text.isascii() or not text.isdigit() or not 0 < int(text) < _PID_MAX:
        raise ValueError(f"{text!r} is no {what} id")
    return int(text)


def parse_pid(text: str) -> int:
    """Return a process id; raises ValueError."""
    return _parse_id(text, "process")


def parse_tid(text: str) -> int:
    """Return a thread id; raises ValueError."""
    return _parse_id(text, "thread")


def parse_comm(text: str) -> bytes:
    """Return a thread's name, cut to 15 bytes as the kernel cuts it; raises ValueError."""
    if not text:
        raise ValueError("an empty name is no thread's")
    return os.fsencode(text)[:_COMM_BYTES_MAX]


def parse_exe(text: str) -> bytes:
    r"""
    Return a glob for the path of an executable: `*` stands for anything, `/` too, `?` for one byte, `\` quotes.

    Raises:
        ValueError: it could match no absolute path, or is longer than 255 bytes.
    """
    tokens = re.findall(rb"\\.|.", os.fsencode(text), re.DOTALL)
    if not tokens:
        raise ValueError("an empty text is no executable")
    if b"\\" in tokens:
        raise ValueError(rf"{text!r} ends with a \ that quotes nothing")
    if b"[" in tokens:
        raise ValueError(
            rf"{text!r}: [] is not supported; write ? for any character, \[ for the bracket itself"
        )
    if tokens[0] not in (b"/", b"*", b"?"):
        raise ValueError(f"{text!r} is no absolute path: write {'*/' + text.removeprefix('./')!r}")
    # Two stars mean what one does, and cost the kernel more.
    glob = b"".join(
        token
        for token, before in zip(tokens, [b"", *tokens], strict=False)
        if (before, token) != (b"*", b"*")
    )
    if len(glob) > GLOB_LENGTH_MAX:
        raise ValueError(f"{text!r} is too long: at most {GLOB_LENGTH_MAX} bytes")
    return glob


@dataclass(frozen=True, slots=True)
class ServiceRule:
    """What a service is called whose executable has a path such as this."""

    glob: bytes
    name: str

    def matches(self, path: str) -> bool:
        """Whether an executable's *path* is such a one."""
        return glob_matches(self.glob, os.fsencode(path))


def parse_service_rule(text: str) -> ServiceRule:
    """
    Return what `PATH=NAME` says: the path, or a glob for it as of `parse_exe`, and a name.

    Raises:
        ValueError: it is written in another way.
    """
    path, is_pair, name = text.rpartition("=")
    if not is_pair or not name.strip():
        raise ValueError(f"{text!r} is not PATH=NAME")
    return ServiceRule(parse_exe(path.strip()), name.strip())


def parse_uid(text: str) -> int:
    """Return a user's id, given as such or as the name; raises ValueError."""
    if text.isascii() and text.isdigit():
        if int(text) >= _UID_INVALID:
            raise ValueError(f"{text!r} is no user id")
        return int(text)
    try:
        return pwd.getpwnam(text).pw_uid
    except (KeyError, ValueError) as error:
        raise ValueError(f"there is no user {text!r}") from error


def parse_cgroup(text: str) -> str:
    """Return the path of a cgroup, below its hierarchy's root or as a full path; raises ValueError."""
    if not text or ".." in text.split("/"):
        raise ValueError(f"{text!r} is no path of a cgroup")
    return posixpath.normpath("/" + text.lstrip("/"))


def parse_container(text: str) -> str:
    """Return the beginning of a container's id, without what Kubernetes writes before it; raises ValueError."""
    prefix = re.sub(r"^[a-z][a-z0-9.+-]*://", "", text).lower()
    if not re.fullmatch(r"[0-9a-f]{1,64}|[0-9a-f]{32}-[0-9]{0,10}", prefix):
        raise ValueError(
            f"{text!r} is no container id: it has hexadecimal digits only, and names are not known here"
        )
    if len(prefix) < _CONTAINER_DIGITS_MIN:
        raise ValueError(f"{text!r} is too short for a container id: at least {_CONTAINER_DIGITS_MIN} digits")
    return prefix


@dataclass(frozen=True, slots=True)
class Selectors:
    """What the user wrote, parsed; empty: the kind was not asked for."""

    pids: Sequence[int] = ()
    tids: Sequence[int] = ()
    comms: Sequence[bytes] = ()
    exes: Sequence[bytes] = ()
    uids: Sequence[int] = ()
    cgroups: Sequence[str] = ()
    containers: Sequence[str] = ()

    def options(self) -> list[str]:
        """Return the options that were used, `--not-` left out."""
        return [_option(field.name) for field in fields(self) if getattr(self, field.name)]


def _option(name: str) -> str:
    return "--" + name.removesuffix("s")


# --- targets ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Criteria:
    """Properties of threads; empty: anything."""

    pids: frozenset[int] = frozenset()
    tids: frozenset[int] = frozenset()
    comms: frozenset[bytes] = frozenset()
    """Of the thread or of its group leader."""
    exe_globs: tuple[bytes, ...] = ()
    """As `parse_exe` makes them."""
    uids: frozenset[int] = frozenset()
    """Real ones."""
    cgroups: frozenset[Cgroup] = frozenset()
    """These and all below them."""

    def values(self) -> list[tuple[Selector, bytes]]:
        """Return every value as the kernel looks it up, numbers as little-endian u64; executables are no such value."""
        numbers = [(Selector.PID, pid) for pid in self.pids]
        numbers += [(Selector.TID, tid) for tid in self.tids]
        numbers += [(Selector.UID, uid) for uid in self.uids]
        numbers += [(Selector.CGROUP, cgroup.inode) for cgroup in self.cgroups]
        values = [(kind, struct.pack("<Q", number)) for kind, number in numbers]
        return sorted(values + [(Selector.COMM, comm) for comm in self.comms])

    def kinds(self) -> list[Selector]:
        """Return the kinds of `values`."""
        return list(dict.fromkeys(kind for kind, _ in self.values()))

    def is_empty(self) -> bool:
        """Whether nothing is asked for."""
        return self == Criteria()


@dataclass(frozen=True, slots=True)
class Targets:
    """Which threads are traced. With nothing chosen and not `is_all`: a command's that we run, and its children's."""

    chosen: Criteria = Criteria()
    excluded: Criteria = Criteria()
    is_all: bool = False
    follows_children: bool = True

    def cflags(self) -> list[str]:
        """Return the macros that say what is to be looked at in the kernel."""
        flags = ["-DSELECT_ALL"] if self.is_all else []
        flags += [f"-DSELECT_{kind.name}" for kind in self.chosen.kinds()]
        flags += [f"-DEXCLUDE_{kind.name}" for kind in self.excluded.kinds()]
        if self.chosen.exe_globs:
            flags.append(f"-DEXE_GLOBS={len(self.chosen.exe_globs)}")
        if self.excluded.exe_globs:
            flags.append(f"-DEXE_GLOBS_EXCLUDED={len(self.excluded.exe_globs)}")
        if not self.follows_children:
            flags.append("-DNO_FOLLOW")
        return flags

    def selection_keys(self) -> list[bytes]:
        """Return the keys of the map `selection`: {u64 kind; u8 value[16]}, 24 bytes each."""
        keys = [(int(kind), value) for kind, value in self.chosen.values()]
        keys += [(kind + SELECTOR_EXCLUDED, value) for kind, value in self.excluded.values()]
        return [struct.pack("=Q16s", kind, value) for kind, value in keys]

    def exe_globs(self) -> list[bytes]:
        """Return the patterns for the executable's path: the chosen ones, then the excluded ones."""
        return [*self.chosen.exe_globs, *self.excluded.exe_globs]

    @property
    def controllers(self) -> str | None:
        """Of the hierarchy that all cgroups are in; empty: v2; None: no cgroup was named."""
        return next((cgroup.controllers for cgroup in self.chosen.cgroups | self.excluded.cgroups), None)


def glob_matches(glob: bytes, path: bytes) -> bool:
    """Whether the kernel's glob matches the whole *path*."""
    return fnmatch.fnmatchcase(path, _fnmatch_pattern(glob))


@lru_cache
def _fnmatch_pattern(glob: bytes) -> bytes:
    """Return the same pattern as fnmatch(3)'s, in which nothing but brackets quotes."""

    def translate(quoted: re.Match[bytes]) -> bytes:
        return b"[" + quoted[1] + b"]" if quoted[1] in b"*?[" else quoted[1]

    return re.sub(rb"\\(.)", translate, glob, flags=re.DOTALL)


def _quoted(path: bytes) -> bytes:
    return re.sub(rb"[*?\\\[]", rb"\\\g<0>", path)


# --- resolution -------------------------------------------------------------------------------------------------------


def resolve(
    chosen: Selectors,
    excluded: Selectors,
    *,
    is_all: bool = False,
    follows_children: bool = True,
    has_command: bool = False,
    own_pids: Collection[int] = (),
    proc: Path = PROC,
) -> Targets:
    """
    Return what the user's selectors mean on the running system.

    Args:
        chosen: What is asked for.
        excluded: What is left out.
        is_all: Every thread is asked for.
        follows_children: Children of targets are targets.
        has_command: There is a command to run, so nothing else need be chosen.
        own_pids: Processes that are never traced: ours.
        proc: Where procfs is mounted.

    Raises:
        UsageError: one line: what does not exist, or cannot be together.
    """
    _check_scope(chosen, is_all=is_all, follows_children=follows_children, has_command=has_command)
    _check_ids(chosen, own_pids, proc)
    chosen_cgroups, excluded_cgroups = _resolve_cgroups(chosen, excluded, proc)
    targets = Targets(
        chosen=_criteria(chosen, chosen_cgroups),
        excluded=_criteria(excluded, excluded_cgroups),
        is_all=is_all,
        follows_children=follows_children,
    )
    _check_contradictions(chosen, excluded, targets)
    if len(targets.exe_globs()) > _GLOBS_MAX:
        raise UsageError(f"too many executables: at most {_GLOBS_MAX}, those left out included")
    return targets


def _criteria(selectors: Selectors, cgroups: frozenset[Cgroup]) -> Criteria:
    return Criteria(
        pids=frozenset(selectors.pids),
        tids=frozenset(selectors.tids),
        comms=frozenset(selectors.comms),
        exe_globs=tuple(dict.fromkeys(glob for exe in selectors.exes for glob in _globs_of(exe))),
        uids=frozenset(selectors.uids),
        cgroups=cgroups,
    )


def _globs_of(exe: bytes) -> list[bytes]:
    """Return *exe* and, if it is a symbolic link here, what it leads to: the kernel knows executables by that."""
    path = re.sub(rb"\\(.)", rb"\1", exe, flags=re.DOTALL)
    if _quoted(path) != exe:  # a pattern
        return [exe]
    real = _quoted(os.path.realpath(path))
    return [exe, real] if len(real) <= GLOB_LENGTH_MAX else [exe]


def _check_scope(chosen: Selectors, *, is_all: bool, follows_children: bool, has_command: bool) -> None:
    options = chosen.options()
    if is_all and options:
        raise UsageError(f"--all takes everything: leave out {', '.join(options)}")
    if is_all and not follows_children:
        raise UsageError("--all takes children too: leave out --no-follow")
    if not (is_all or options or has_command):
        every = ", ".join(_option(field.name) for field in fields(Selectors))
        raise UsageError(f"say what to attach to: --all or some of {every}")


def _check_ids(chosen: Selectors, own_pids: Collection[int], proc: Path) -> None:
    for pid in chosen.pids:
        tgid = read_tgid(pid, proc)
        if tgid is None:
            raise UsageError(f"there is no process {pid}")
        if tgid != pid:
            raise UsageError(f"{pid} is a thread of process {tgid}: write --tid {pid} or --pid {tgid}")
        _check_can_be_traced(pid, tgid, own_pids, proc)
    for tid in chosen.tids:
        tgid = read_tgid(tid, proc)
        if tgid is None:
            raise UsageError(f"there is no thread {tid}")
        if chosen.pids and tgid not in chosen.pids:
            raise UsageError(f"thread {tid} belongs to process {tgid}, which is not among --pid")
        _check_can_be_traced(tid, tgid, own_pids, proc)


def _check_can_be_traced(tid: int, tgid: int, own_pids: Collection[int], proc: Path) -> None:
    if tgid in own_pids:
        raise UsageError(f"{tid} is this program itself")
    if is_kernel_thread(tid, proc):
        raise UsageError(f"{tid} is a thread of the kernel itself, which makes no calls")


def _resolve_cgroups(
    chosen: Selectors, excluded: Selectors, proc: Path
) -> tuple[frozenset[Cgroup], frozenset[Cgroup]]:
    """Return the chosen and the excluded cgroups, those of containers included, all of one hierarchy."""
    sides = (chosen, excluded)
    if not any(side.cgroups or side.containers for side in sides):
        return frozenset(), frozenset()
    mounts = read_mounts(proc)
    containers = Containers(proc) if any(side.containers for side in sides) else None
    try:
        cgroups = {path: find_cgroup(path, mounts) for side in sides for path in side.cgroups}
        contained = {
            prefix: containers.find(prefix, mounts)
            for side in sides
            for prefix in side.containers
            if containers is not None
        }
    except LookupError as error:
        raise UsageError(str(error)) from error
    meanings = cgroups | contained
    controllers = _common_hierarchy(meanings, mounts)

    def all_of(texts: Iterable[str]) -> frozenset[Cgroup]:
        return frozenset(cgroup for text in texts for cgroup in meanings[text][controllers])

    return (
        _within_both(all_of(chosen.cgroups), all_of(chosen.containers)),
        all_of(excluded.cgroups) | all_of(excluded.containers),
    )


def _common_hierarchy(meanings: dict[str, Meanings], mounts: Iterable[Mount]) -> str:
    """Return the controllers of the first hierarchy in which every text means something: a thread is looked up in one."""
    for mount in mounts:
        if all(mount.controllers in meaning for meaning in meanings.values()):
            return mount.controllers
    places = (
        f"{text!r} ({' or '.join(each or 'v2' for each in meaning)})" for text, meaning in meanings.items()
    )
    raise UsageError(f"these cgroups are in different hierarchies: {', '.join(places)}")


def _within_both(cgroups: frozenset[Cgroup], containers: frozenset[Cgroup]) -> frozenset[Cgroup]:
    """Return what is in one of the *cgroups* and in one of the *containers*; what one of them leaves empty does not count."""
    if not cgroups or not containers:
        return cgroups | containers
    both = {one for one in cgroups if any(other.contains(one.path) for other in containers)}
    both |= {one for one in containers if any(other.contains(one.path) for other in cgroups)}
    if not both:
        raise UsageError("no --container is in a --cgroup: nothing can match")
    return frozenset(both)


def _check_contradictions(chosen: Selectors, excluded: Selectors, targets: Targets) -> None:
    """Refuse what can never match because every value of a kind that is asked for is left out."""
    for field in fields(Selectors):
        wanted = getattr(chosen, field.name)
        if wanted and set(wanted) <= set(getattr(excluded, field.name)):
            option = _option(field.name)
            raise UsageError(f"every {option} is left out by --not-{option[2:]}: nothing can match")
    cgroups = targets.chosen.cgroups
    if cgroups and all(
        any(other.contains(one.path) for other in targets.excluded.cgroups) for one in cgroups
    ):
        raise UsageError("all chosen cgroups and containers are left out: nothing can match")
