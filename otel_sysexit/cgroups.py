"""
Control groups: what a path means in the mounted hierarchies, and which of them hold containers.

In: /proc and texts from the user. Out: `Cgroup`s, with the inode number by which the kernel knows them. Every
container runtime names the cgroup of a container after its id, and the kubelet that of a pod after its uid; nothing
else about containers is known here.
"""

import os
import re
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from otel_sysexit.procfs import PROC, list_ids, parse_cgroups, read

_SHOWN_IDS_MAX: Final = 10
_SHOWN_ID_LENGTH: Final = 12
# One component of a path: the id alone or behind the runtime's name, in the systemd driver's form with .scope behind.
# 64 hex digits, or those of Amazon ECS. A monitor (crio-conmon-ID.scope) is outside the container it watches.
_CONTAINER: Final = re.compile(
    r"(?:(?!.*\bconmon-).*[-:])?([0-9a-f]{64}|[0-9a-f]{32}-[0-9]{1,10})(?:\.scope)?", re.DOTALL
)
# Below it Podman names a pod by 64 digits alone, and a container by libpod- and its id (cgroupfs driver).
_PODMAN: Final = "libpod_parent"
# One component of a path: `pod` and the uid, in the systemd driver's form a slice with underscores for dashes, and what
# runs in it behind a colon where kubelet and runtime have different drivers. A static pod's uid is a hash without dashes.
_POD: Final = re.compile(
    r"(?:.*-)?pod([0-9a-f]{8}(?:[-_]?[0-9a-f]{4}){3}[-_]?[0-9a-f]{12})(?:\.slice(?::.*)?)?", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Cgroup:
    """A control group that exists."""

    controllers: str
    """Of its hierarchy, as /proc/PID/cgroup has them: `memory`, `cpu,cpuacct`; empty: cgroup v2."""
    path: str
    """Below the hierarchy's root, as /proc/PID/cgroup has it."""
    inode: int
    """Of its directory: the kernel's cgroup id."""

    def contains(self, path: str | None) -> bool:
        """Whether the cgroup of this *path* in the same hierarchy is this one or below it."""
        return path is not None and (path == self.path or path.startswith(self.path.rstrip("/") + "/"))


class Membership(NamedTuple):
    """Where a process belongs, as containers go; None: in none."""

    container_id: str | None = None
    pod_uid: str | None = None
    """As Kubernetes writes it, with dashes; a static pod's has none."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A mounted hierarchy."""

    controllers: str
    """As in `Cgroup`."""
    root: str
    """The cgroup that is mounted: `/`, but for mounts that a container was given."""
    mountpoint: str

    def find(self, path: str) -> Cgroup | None:
        """Return the cgroup *path* of this hierarchy; None: there is none that this mount shows."""
        below = _below(path, self.root)
        return None if below is None else self._at(path, self.mountpoint + below)

    def find_directory(self, directory: str) -> Cgroup | None:
        """Return the cgroup whose *directory* is below this mount."""
        below = _below(directory, self.mountpoint)
        return None if below is None else self._at((self.root.rstrip("/") + below) or "/", directory)

    def _at(self, path: str, directory: str) -> Cgroup | None:
        try:
            found = Path(directory).stat()
        except OSError:
            return None
        return Cgroup(self.controllers, path, found.st_ino) if stat.S_ISDIR(found.st_mode) else None


Meanings = Mapping[str, frozenset[Cgroup]]
"""What a text of the user's means, by the controllers of the hierarchy it is looked up in."""


def _below(path: str, root: str) -> str | None:
    """Return what follows *root* in *path*: empty, or with a slash before it; None: it is not below."""
    rest = path.removeprefix(root.rstrip("/"))
    is_below = path.startswith(root.rstrip("/")) and (not rest or rest.startswith("/"))
    return rest.rstrip("/") if is_below else None


def read_mounts(proc: Path = PROC, pid: int | str = "self") -> list[Mount]:
    """
    Return the hierarchies that *pid* sees in which the kernel can look a task up, v2 first.

    Those without a controller (`name=systemd`) are left out: no `enum cgroup_subsys_id` leads to them.
    """
    own = parse_cgroups(os.fsdecode(read(f"{proc}/{pid}/cgroup") or b""))
    mounts = []
    for line in os.fsdecode(read(f"{proc}/{pid}/mountinfo") or b"").splitlines():
        mount, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        root, mountpoint = (_unescape(field) for field in mount.split(" ")[3:5])
        if kind == "cgroup2":
            mounts.append(Mount("", root, mountpoint))
        elif kind == "cgroup":
            mounts += [
                Mount(controllers, root, mountpoint)
                for controllers in own
                if subsystem(controllers) and set(controllers.split(",")) <= set(options.split(","))
            ]
    return sorted(mounts, key=lambda mount: (mount.controllers != "", len(mount.root)))


def main_hierarchy(mounts: Iterable[Mount]) -> str | None:
    """
    Return the controllers of the hierarchy that tells containers and services apart; None: there are no cgroups.

    Where v1 hierarchies with controllers are mounted, runtimes use these, whether or not v2 is mounted, too (hybrid).
    """
    controllers = [mount.controllers for mount in mounts]
    v1 = [one for one in controllers if one]
    best = [one for one in v1 if not {"memory", "pids"}.isdisjoint(one.split(","))]
    return next(iter([*best, *v1, *controllers]), None)


def _unescape(field: str) -> str:
    r"""Undo what mountinfo writes for blanks and backslashes: `\040` (proc(5))."""
    return re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), field)


def subsystem(controllers: str) -> str | None:
    """Return the name in `enum cgroup_subsys_id` by which a v1 hierarchy is reached; None: it has none, or is v2."""
    names = [name for name in controllers.split(",") if name and not name.startswith("name=")]
    return names[0].replace("blkio", "io") if names else None


def find_cgroup(path: str, mounts: Iterable[Mount]) -> Meanings:
    """
    Return what *path* can mean: the one cgroup whose full path it is, else that of this path in each hierarchy.

    Raises:
        LookupError: there is none; the message is one line.
    """
    mounts = list(mounts)
    found = [mount.find_directory(path) for mount in mounts]
    if not any(found):
        found = [mount.find(path) for mount in mounts]
    meanings = {cgroup.controllers: frozenset([cgroup]) for cgroup in reversed(found) if cgroup is not None}
    if not meanings:
        raise LookupError(f"there is no cgroup {path!r}")
    return meanings


def containers_of(path: str) -> Iterator[tuple[str, str]]:
    """
    Yield id and path of each container that the cgroup *path* is in, from the outermost to the innermost.

    A container may run containers of its own; the last one is what a process in the cgroup belongs to.
    """
    components = path.split("/")
    for depth, component in enumerate(components, 1):
        found = _CONTAINER.fullmatch(component)
        is_podmans_pod = found is not None and found[1] == component and components[depth - 2] == _PODMAN
        if found and not is_podmans_pod:
            yield found[1], "/".join(components[:depth])


def find_membership(cgroups: Mapping[str, str]) -> Membership:
    """
    Return the innermost container and pod of a process that is in these *cgroups*: paths by controllers.

    Where hierarchies disagree, the first counts that names a container, else the first that names a pod: cgroup v2, then
    those of v1 in the order of *cgroups*. A hybrid host may use v2 for systemd's services only.
    """
    paths = [path for _, path in sorted(cgroups.items(), key=lambda item: item[0] != "")]
    found = [Membership(_innermost_container(path), _innermost_pod(path)) for path in paths]
    with_container = (one for one in found if one.container_id)
    with_pod = (one for one in found if one.pod_uid)
    return next(with_container, None) or next(with_pod, None) or Membership()


def _innermost_container(path: str) -> str | None:
    ids = [container for container, _ in containers_of(path)]
    return ids[-1] if ids else None


def _innermost_pod(path: str) -> str | None:
    uids = [found[1] for component in path.split("/") if (found := _POD.fullmatch(component))]
    return uids[-1].replace("_", "-") if uids else None


class Containers:
    """The containers that have processes now."""

    def __init__(self, proc: Path = PROC) -> None:
        """Look at the cgroups of every process."""
        # By id, then by the hierarchy's controllers: paths.
        self._paths: dict[str, dict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
        # Most processes are in the cgroups of others.
        seen = {read(f"{proc}/{pid}/cgroup") for pid in list_ids(str(proc))}
        for text in filter(None, seen):
            for controllers, path in parse_cgroups(os.fsdecode(text)).items():
                for container, directory in containers_of(path):
                    self._paths[container][controllers].add(directory)

    def find(self, prefix: str, mounts: Iterable[Mount]) -> Meanings:
        """
        Return the cgroups of the container whose id begins with *prefix*.

        Raises:
            LookupError: there is none or more than one; the message is one line and lists them.
        """
        ids = sorted(container for container in self._paths if container.startswith(prefix))
        if not ids:
            known = f"running are {_listed(sorted(self._paths))}" if self._paths else "none is running"
            raise LookupError(f"there is no container {prefix!r}: {known}")
        if len(ids) > 1:
            raise LookupError(f"several containers begin with {prefix!r}: {_listed(ids)}")
        paths = self._paths[ids[0]]
        meanings: dict[str, frozenset[Cgroup]] = {}
        for mount in mounts:
            found = frozenset(filter(None, map(mount.find, paths.get(mount.controllers, ()))))
            if found:
                meanings.setdefault(mount.controllers, found)
        if not meanings:
            raise LookupError(
                f"the cgroup of container {prefix!r} is not to be seen from here: "
                "give us the host's (docker run --cgroupns=host -v /sys/fs/cgroup:/sys/fs/cgroup:ro)"
            )
        return meanings


def _listed(ids: list[str]) -> str:
    shown = ", ".join(container[:_SHOWN_ID_LENGTH] for container in ids[:_SHOWN_IDS_MAX])
    more = len(ids) - _SHOWN_IDS_MAX
    return f"{shown} and {more} more" if more > 0 else shown
