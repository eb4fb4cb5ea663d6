"""
A program in a process, described: what the kernel side said of its exec, completed from /proc while it lives.

In: the strings and facts that records have, and /proc. Out: an `Image`. Everything of /proc may be gone, or be another process's by
now, which the start time tells.
"""

import os
import pwd
import re
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple

import psutil

from otel_sysexit.containers import read_membership
from otel_sysexit.identity import Image, Process
from otel_sysexit.procfs import is_running, read
from otel_sysexit.strings import ExecStrings

UNKNOWN: Final = "unknown"
START_TICK_NS: Final = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
_VARIABLES: Final = ("OTEL_", "TRACEPARENT", "TRACESTATE")
"""How the variables begin that are looked at in a program's environment."""


class Facts(NamedTuple):
    """As whom and where a program runs."""

    effective_uid: int
    real_uid: int
    effective_gid: int
    real_gid: int
    cgroup: int = 0
    """Inode number; 0: unknown."""

    @classmethod
    def of(cls, task: Any) -> "Facts":
        """Return what a record (dtype TASK) says."""
        return cls(*(int(task[member]) for member in ("euid", "uid", "egid", "gid", "cgroup")))


def make_image(
    process: Process, start_boot_ns: int, strings: ExecStrings | None, facts: Facts
) -> tuple[Image, dict[str, str] | None, bool]:
    """
    Describe the program that *process* runs: what its exec said, completed from /proc while it lives.

    Returns:
        The program, what of its environment is of interest (None: that is not known any more), and whether its container is.
    """
    strings = strings or ExecStrings()
    path, command = strings.executable_path, strings.command
    environment: dict[str, str] | None = None
    membership = None
    found_ns = read_start_boot_ns(process.pid)
    if (
        found_ns is not None and abs(found_ns - start_boot_ns) <= START_TICK_NS
    ):  # not another one with its pid
        membership = read_membership(process.pid)
        try:
            living = psutil.Process(process.pid)
            variables = living.environ()
            # Who has begun to end has no memory left, and shows none.
            if variables or is_running(process.pid):
                environment = {key: value for key, value in variables.items() if key.startswith(_VARIABLES)}
            command = command or readable(next(iter(living.cmdline()), ""))
            if path is None:
                exe = readable(living.exe())
                # Between that exec and now it may have called another one.
                if not strings.executable or PurePosixPath(exe).name == strings.executable_name:
                    path = exe
        except (psutil.Error, OSError):
            pass  # gone, or not ours to read: the kernel's own words stand
    image = Image(
        process=process,
        executable_name=strings.executable_name or PurePosixPath(path or strings.filename).name or UNKNOWN,
        executable_path=path,
        command=command or None,
        owner=_user_name(facts.effective_uid),
        user_id=facts.effective_uid,
        real_user_id=facts.real_uid,
        group_id=facts.effective_gid,
        real_group_id=facts.real_gid,
        command_args=strings.args,
        cgroup=facts.cgroup,
    )
    if membership is not None:
        image.container_id, image.pod_uid = membership
    return image, environment, membership is not None


def read_command_args(pid: int) -> tuple[str, ...]:
    """Return argv of a living process; empty: it is gone, or not ours to ask."""
    try:
        return tuple(readable(part) for part in psutil.Process(pid).cmdline())
    except psutil.Error:
        return ()


def readable(text: str) -> str:
    r"""Return what the system said as valid Unicode; bytes that are no UTF-8 as \xNN."""
    return os.fsencode(text).decode(errors="backslashreplace")


def read_start_boot_ns(pid: int) -> int | None:
    """Return when *pid* started on the boot clock, to 10 ms (proc(5), stat field 22); None: there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    return int(stat[stat.rindex(b")") + 2 :].split()[19]) * START_TICK_NS


def read_vpid(pid: int) -> int | None:
    """Return the id of *pid* in its own pid namespace (proc(5), status: NSpid); None: there is no such process."""
    found = re.search(rb"^NSpid:.*?(\d+)$", read(f"/proc/{pid}/status") or b"", re.MULTILINE)
    return int(found[1]) if found else None


@lru_cache(maxsize=1024)
def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
