"""A /proc of a few files, for tests of what reads them."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

PF_EXITING = 0x4
PF_KTHREAD = 0x200000


@dataclass
class FakeProc:
    """Processes, threads and mounted cgroup hierarchies below *root*."""

    root: Path

    def __post_init__(self):
        self.mounts: list[str] = []
        self.hierarchies: list[str] = []
        (self.root / "self").mkdir(parents=True)
        (self.root / "cpuinfo").touch()

    def add(
        self,
        tgid: int,
        tid: int | None = None,
        *,
        comm="x",
        uid=0,
        exe: str | None = "/bin/x",
        cgroup="0::/",
        state="S",
        flags=0,
    ) -> None:
        """Add a thread, the process's leader if no *tid* is given, or change it."""
        tid = tid or tgid
        # The second is not listed by a real /proc, but there.
        for folder in (self.root / str(tgid) / "task" / str(tid), self.root / str(tid)):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "comm").write_bytes(os.fsencode(comm) + b"\n")
            (folder / "status").write_text(f"Name:\tx\nTgid:\t{tgid}\nPid:\t{tid}\nUid:\t{uid}\t7\t7\t7\n")
            (folder / "stat").write_text(f"{tid} (a) b) {state} 1 1 1 0 -1 {flags} 0 0\n")
            (folder / "cgroup").write_text(cgroup + "\n")
            (folder / "exe").unlink(missing_ok=True)
            if exe is not None:
                (folder / "exe").symlink_to(exe)

    def remove(self, tgid: int, tid: int) -> None:
        """Let a thread be gone."""
        shutil.rmtree(self.root / str(tgid) / "task" / str(tid))

    def mount(self, controllers: str, mountpoint: Path, root: str = "/") -> None:
        """Mount a hierarchy: v2, or v1 with these controllers."""
        kind, options = ("cgroup", f"rw,xattr,{controllers}") if controllers else ("cgroup2", "rw,nsdelegate")
        place = str(mountpoint).replace(" ", r"\040")
        self.mounts.append(f"31 23 0:28 {root} {place} rw,relatime shared:9 - {kind} {kind} {options}\n")
        self.hierarchies.append(f"{len(self.hierarchies)}:{controllers}:/\n")
        (self.root / "self" / "mountinfo").write_text(
            "21 1 0:20 / / rw - ext4 /dev/x rw\n" + "".join(self.mounts)
        )
        (self.root / "self" / "cgroup").write_text("".join(self.hierarchies))
        mountpoint.mkdir(parents=True, exist_ok=True)
