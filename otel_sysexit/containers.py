"""
Which container and pod a process is in, as /proc says it, and which we ourselves are in.

In: /proc. Out: `Membership`s. Paths of cgroups are relative to our cgroup namespace; in a container that has one of its
own, what is in there with us has the path `/`, and others have paths such as `/../../docker/ID`. So where we are is found
out once, and paths are completed by it.
"""

import os
import posixpath
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Final

from otel_sysexit.cgroups import Membership, Mount, find_membership, read_mounts, subsystem
from otel_sysexit.procfs import PROC, is_running, list_ids, parse_cgroup_numbers, parse_cgroups, read

_INITIAL_CGROUP_NAMESPACE: Final = 0xEFFFFFFB  # PROC_CGROUP_INIT_INO, linux/proc_ns.h
# Files that a runtime mounts into a container; their sources lie in a folder that is named after it.
_RUNTIMES_FILES: Final = ("/run/.containerenv", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_RUNTIMES_FOLDER: Final = re.compile(r".*/(?:overlay-)?containers/(?:[^/]+/)?([0-9a-f]{64})/.*", re.DOTALL)
# And those that the kubelet mounts.
_KUBELETS_FILES: Final = ("/etc/hosts", "/dev/termination-log")
_KUBELETS_FOLDER: Final = re.compile(r".*/pods/([0-9a-f-]{32,36})/.*", re.DOTALL)

_REREAD_SECONDS: Final = 0.2
"""So often at most all cgroups are looked at for one that is not known,"""
_REREAD_FACTOR: Final = 20
"""and it takes a twentieth of the time at most."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What paths of cgroups are relative to."""

    roots: Mapping[str, str]
    """Full path of our cgroup namespace's root by the hierarchy's controllers, where it can be seen."""
    own: Membership
    """Ours, as far as mounts tell it."""

    def find(self, cgroups: Mapping[str, str]) -> Membership:
        """Return where a process belongs that has these *cgroups*: paths by controllers, as we see them."""
        found = find_membership(
            {
                controllers: posixpath.normpath(self.roots[controllers] + path)
                if controllers in self.roots
                else path
                for controllers, path in cgroups.items()
            }
        )
        if any(path.startswith("/..") for path in cgroups.values()):
            return found
        return Membership(found.container_id or self.own.container_id, found.pod_uid or self.own.pod_uid)


def read_membership(pid: int, proc: Path = PROC) -> Membership | None:
    """Return where the process *pid* belongs now; None: it has begun to end, and v1 says `/` of it already, or is gone."""
    text = read(f"{proc}/{pid}/cgroup")
    if not text or not is_running(pid, proc):
        return None
    return _understand(text, proc)


@lru_cache(maxsize=1024)
def _understand(text: bytes, proc: Path) -> Membership:
    """Return what a /proc/PID/cgroup means; most processes have that of others."""
    return read_surroundings(proc).find(parse_cgroups(os.fsdecode(text)))


@cache
def read_surroundings(proc: Path = PROC) -> Surroundings:
    """Return where we are ourselves, which does not change; in the initial cgroup namespace paths are full as they are."""
    if _namespace(proc, "self", "cgroup") in {_INITIAL_CGROUP_NAMESPACE, None}:
        return Surroundings({}, Membership())
    return Surroundings(_find_roots(proc), _own_by_mounts(proc))


def _namespace(proc: Path, pid: int | str, kind: str) -> int | None:
    """Return the number of a process's namespace; None: it is gone, or not ours to ask."""
    try:
        return Path(f"{proc}/{pid}/ns/{kind}").stat().st_ino
    except OSError:
        return None


def _find_roots(proc: Path) -> dict[str, str]:
    """
    Return the full paths of our cgroup namespace's roots, as who is outside of it sees the same folders.

    That is the host's init, or the next one if init does not let us look. Who shares mounts sees the same.
    """
    inside = {None, _namespace(proc, "self", "cgroup")}
    views: set[int | None] = {None}
    for pid in sorted(list_ids(str(proc))):
        view = _namespace(proc, pid, "mnt")
        if view not in views and _namespace(proc, pid, "cgroup") not in inside:
            views.add(view)
            roots = _find_roots_as(pid, proc)
            if roots:
                return roots
    return {}


def _find_roots_as(pid: int, proc: Path) -> dict[str, str]:
    seen = {mount.controllers: f"{proc}/{pid}/root{mount.mountpoint}" for mount in read_mounts(proc, pid)}
    ours = [mount for mount in read_mounts(proc) if mount.root == "/" and mount.controllers in seen]
    found = {mount.controllers: _find_path(seen[mount.controllers], mount) for mount in ours}
    return {controllers: path for controllers, path in found.items() if path is not None}


def _find_path(top: str, mount: Mount) -> str | None:
    """Return the path below *top* of the folder that is mounted for us; None: it is not there, or not ours to see."""
    try:
        wanted = Path(mount.mountpoint).stat()
    except OSError:
        return None
    for folder, _, _ in os.walk(top):
        try:
            is_it = os.path.samestat(os.stat(folder), wanted)  # noqa: PTH116 (pathlib takes twice the time)
        except OSError:  # removed meanwhile
            continue
        if is_it:
            return folder.removeprefix(top)
    return None


def _own_by_mounts(proc: Path) -> Membership:
    """
    Return our own container and pod by the sources of what was mounted into it.

    In a pod, the runtime's files are those of the pod's sandbox, which has another id than the container.
    """
    sources: dict[str, str] = {}
    for line in os.fsdecode(read(f"{proc}/self/mountinfo") or b"").splitlines():
        source, mountpoint = line.split(" ")[3:5]
        sources[mountpoint] = source
    pod = _first_match(_KUBELETS_FOLDER, [sources.get(file, "") for file in _KUBELETS_FILES])
    container = _first_match(_RUNTIMES_FOLDER, [sources.get(file, "") for file in _RUNTIMES_FILES])
    return Membership(None if pod else container, pod)


def _first_match(pattern: re.Pattern[str], texts: list[str]) -> str | None:
    found = (pattern.fullmatch(text) for text in texts)
    return next((one[1] for one in found if one), None)


class CgroupIndex:
    """Which container and pod a cgroup is of, by the number that the kernel knows it by: its directory's inode."""

    def __init__(self, subsystem_name: str, proc: Path = PROC) -> None:
        """Look in the hierarchy with the controller *subsystem_name*; empty: v2. Nothing is read yet."""
        self._proc = proc
        self._mount = next(
            (mount for mount in read_mounts(proc) if (subsystem(mount.controllers) or "") == subsystem_name),
            None,
        )
        self._paths: dict[int, str] = {}
        self._read_again_at = 0.0
        self._numbers = parse_cgroup_numbers(os.fsdecode(read(f"{proc}/self/cgroup") or b""))

    def find(self, inode: int) -> Membership | None:
        """Return where the processes of a cgroup belong; None: there is no such cgroup (any more), or it cannot be seen."""
        path = self._path(inode)
        if self._mount is None or path is None:
            return None
        return read_surroundings(self._proc).find({self._mount.controllers: path})

    def line(self, inode: int, pid: int) -> str | None:
        """Return what /proc/PID/cgroup says of this hierarchy; *inode*: of its cgroup, 0: ask /proc; None: it cannot be known."""
        if self._mount is None:
            return None
        controllers = self._mount.controllers
        path = self._path(inode) if inode else self._path_now(pid)
        return None if path is None else f"{self._numbers.get(controllers, 0)}:{controllers}:{path}"

    def has_left(self, inode: int, pid: int) -> bool:
        """Return whether a process that was in a cgroup is seen to be in another one now."""
        was, now = self._path(inode), self._path_now(pid)
        return was is not None and now is not None and was != now

    def _path_now(self, pid: int) -> str | None:
        cgroups = parse_cgroups(os.fsdecode(read(f"{self._proc}/{pid}/cgroup") or b""))
        return None if self._mount is None else cgroups.get(self._mount.controllers)

    def _path(self, inode: int) -> str | None:
        if inode not in self._paths and time.monotonic() >= self._read_again_at:
            began = time.monotonic()
            self._paths = self._read()
            took = time.monotonic() - began
            self._read_again_at = began + took + max(_REREAD_SECONDS, _REREAD_FACTOR * took)
        return self._paths.get(inode)

    def _read(self) -> dict[int, str]:
        """Return the paths of all cgroups by inode."""
        if self._mount is None:
            return {}
        top = self._mount.mountpoint
        found = {}
        for folder, _, _ in os.walk(top):
            with suppress(OSError):  # removed meanwhile
                found[Path(folder).stat().st_ino] = self._mount.root.rstrip("/") + folder[len(top) :] or "/"
        return found
