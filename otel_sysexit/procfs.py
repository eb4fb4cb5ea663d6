"""
What /proc says of one thread, as the kernel's side would see it. Everything may vanish or be forbidden at any moment.

Read by hand: psutil knows neither the threads of other processes nor their control groups, and reads more files than
a look at thousands of processes can afford.
"""

import os
import re
from functools import cached_property
from pathlib import Path
from typing import Final

PROC: Final = Path("/proc")
_DELETED: Final = b" (deleted)"
# Flags of include/linux/sched.h, as stat has them.
_PF_EXITING: Final = 0x4
_PF_KTHREAD: Final = 0x200000


def read(path: str) -> bytes | None:
    """Return what the file holds now; None: it cannot be read (any more)."""
    try:
        with open(path, "rb", buffering=0) as file:  # noqa: PTH123 (pathlib takes twice the time)
            return file.readall()
    except OSError:
        return None


def list_ids(path: str) -> set[int]:
    """Return the numbers that are names in the folder: process ids of /proc, thread ids of /proc/PID/task."""
    try:
        return {int(name) for name in os.listdir(path) if name.isdecimal()}  # noqa: PTH208 (names are all)
    except OSError:
        return set()


def read_tgid(tid: int, proc: Path = PROC) -> int | None:
    """Return the id of the process that the thread *tid* belongs to; None: there is no such thread."""
    status = read(f"{proc}/{tid}/status")
    found = status and re.search(rb"^Tgid:\s*(\d+)", status, re.MULTILINE)
    return int(found[1]) if found else None


def _read_state(folder: str) -> tuple[bytes, int] | None:
    """Return the state's letter and the flags of the task whose folder this is (proc(5), stat: 3 and 9); None: gone."""
    stat = read(f"{folder}/stat")
    if not stat:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()
    return fields[0], int(fields[6])


def is_kernel_thread(pid: int, proc: Path = PROC) -> bool:
    """Whether *pid* is one of the kernel's own threads, which make no calls."""
    state = _read_state(f"{proc}/{pid}")
    return state is not None and bool(state[1] & _PF_KTHREAD)


class ProcessFacts:
    """What the threads of a process have in common, read when it is first asked for."""

    def __init__(self, tgid: int, proc: Path = PROC) -> None:
        self.tgid = tgid
        self.folder = f"{proc}/{tgid}"
        self._executable: bytes | None = None

    @cached_property
    def comm(self) -> bytes | None:
        """Name of the thread group leader, at most 15 bytes."""
        return _read_comm(self.folder)

    def executable(self, tid: int) -> bytes | None:
        """Return the path of the executable, of a deleted one where it was; by *tid*, for the leader may have ended."""
        if self._executable is None:
            try:
                link = os.readlink(f"{self.folder}/task/{tid}/exe")  # noqa: PTH115 (pathlib takes twice the time)
            except OSError:
                return None
            self._executable = os.fsencode(link).removesuffix(_DELETED)
        return self._executable


class ThreadFacts:
    """One thread, its facts read when they are first asked for; None stands for what cannot be read."""

    def __init__(self, process: ProcessFacts, tid: int) -> None:
        self.process = process
        self.tid = tid
        self._folder = f"{process.folder}/task/{tid}"

    @property
    def tgid(self) -> int:
        """The process it belongs to."""
        return self.process.tgid

    @property
    def executable(self) -> bytes | None:
        """Path of its executable."""
        return self.process.executable(self.tid)

    @cached_property
    def comm(self) -> bytes | None:
        """Its own name, at most 15 bytes."""
        return self.process.comm if self.tid == self.tgid else _read_comm(self._folder)

    @cached_property
    def uid(self) -> int | None:
        """Real user id."""
        status = read(f"{self._folder}/status")
        found = status and re.search(rb"^Uid:\s*(\d+)", status, re.MULTILINE)
        return int(found[1]) if found else None

    @cached_property
    def cgroups(self) -> dict[str, str]:
        """Path of its cgroup by the controllers of the hierarchy, as proc(5) has them: `memory`, `cpu,cpuacct`; v2: empty."""
        text = os.fsdecode(read(f"{self._folder}/cgroup") or b"")
        return parse_cgroups(text)

    def is_running(self) -> bool:
        """Whether it can make calls: it has not begun to end, and is none of the kernel's own threads."""
        return _is_running(self._folder)


def is_running(pid: int, proc: Path = PROC) -> bool:
    """Whether a process's main thread can make calls: it has not begun to end, and is none of the kernel's own threads."""
    return _is_running(f"{proc}/{pid}")


def _is_running(folder: str) -> bool:
    state = _read_state(folder)
    return state is not None and state[0] not in b"ZX" and not state[1] & (_PF_EXITING | _PF_KTHREAD)


def _read_comm(folder: str) -> bytes | None:
    comm = read(f"{folder}/comm")
    return None if comm is None else comm.removesuffix(b"\n")


def parse_cgroups(text: str) -> dict[str, str]:
    """Return the paths of a /proc/PID/cgroup by their hierarchy's controllers."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return {controllers: path for _, controllers, path in lines}


def parse_cgroup_numbers(text: str) -> dict[str, int]:
    """Return the numbers of a /proc/PID/cgroup's hierarchies, which are the same for all processes, by controllers."""
    lines = (line.split(":", 2) for line in text.splitlines())
    return {controllers: int(number) for number, controllers, _ in lines}
