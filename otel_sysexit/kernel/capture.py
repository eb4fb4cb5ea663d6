"""
The agent's side of the kernel: start the loader, take over rings, maps and links, tell who is a target, read the ledger.

In: a `Request`. Out: four rings (calls, strings, tasks, exec strings) and the ledger. It knows no
bcc: that lives in the loader child.
"""

import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import numpy.typing as npt

from otel_sysexit.errors import AgentError
from otel_sysexit.kernel import records
from otel_sysexit.kernel.loader import LINKS, MAPS
from otel_sysexit.kernel.maps import Map, possible_cpus, wait_for_running_programs
from otel_sysexit.kernel.ring import Ring

_PAGE_SIZE: Final = os.sysconf("SC_PAGESIZE")
_TASKS_BYTES: Final = 4 << 20
_LOADER_SECONDS: Final = 60.0
# Interpreters that may have the distribution's bcc, after our own.
_SYSTEM_PYTHON: Final = "/usr/bin/python3"


def _is_running(pid: int, tid: int) -> bool:
    """Whether a thread has not begun to end (proc(5), stat: state, and PF_EXITING of include/linux/sched.h in flags)."""
    try:
        stat = Path(f"/proc/{pid}/task/{tid}/stat").read_bytes()
    except OSError:
        return False
    state, *fields = stat[stat.rindex(b")") + 2 :].split()
    return state not in (b"Z", b"X") and not int(fields[5]) & 0x4


def _list_threads(pid: int) -> set[int]:
    try:
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}  # noqa: PTH208 (names are all)
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error


@dataclass(frozen=True, slots=True)
class Request:
    """What to compile and load."""

    calls_bytes: int
    """Size of the ring of calls: a power of two, at least a page."""
    syscall_table: npt.NDArray[np.uint8]
    """u1[ABI_COUNT * NR_LIMIT], as `syscall_table` in bpf/calls.bpf.c."""
    has_selection: bool
    """Whether calls not marked in the table are left out."""
    wants_unknown: bool
    """With a selection: whether numbers outside the table are recorded."""
    errors_only: bool = False
    min_duration_ns: int = 0
    bcc_python: str | None = None
    """Interpreter that has bcc; None: this one, then the system's."""

    @property
    def strings_bytes(self) -> int:
        """Size of the ring of strings: enough when one call in five has a path."""
        return max(self.calls_bytes // 2, _PAGE_SIZE)

    def cflags(self) -> list[str]:
        """Return the macros of bpf/calls.bpf.c for this request."""
        flags = [
            f"-DCALLS_PAGES={self.calls_bytes // _PAGE_SIZE}",
            f"-DSTRINGS_PAGES={self.strings_bytes // _PAGE_SIZE}",
            f"-DTASKS_PAGES={_TASKS_BYTES // _PAGE_SIZE}",
            f"-DWANT_UNKNOWN={int(self.wants_unknown)}",
        ]
        if self.has_selection:
            flags.append("-DSYSCALL_SET")
        if self.errors_only:
            flags.append("-DERRORS_ONLY")
        if self.min_duration_ns:
            flags.append(f"-DMIN_DURATION_NS={self.min_duration_ns}ULL")
        return flags


def find_bpf_dir() -> Path:
    """
    Return the folder of the BPF sources: in the installed package, or in the checkout beside it.

    Raises:
        AgentError: neither is there.
    """
    package = Path(str(files("otel_sysexit")))
    for folder in (package / "bpf", package.parent / "bpf"):
        if (folder / "calls.bpf.c").is_file():
            return folder
    raise AgentError(f"the BPF sources are missing from {package}: reinstall otel-sysexit")


class Loader:
    """A loader child at work; started early, so that it compiles while the agent does other things."""

    def __init__(self, request: Request) -> None:
        """Start the child for *request*."""
        self._request = request
        self._pythons = [request.bcc_python] if request.bcc_python else [sys.executable, _SYSTEM_PYTHON]
        self._start(self._pythons.pop(0))

    def _start(self, python: str) -> None:
        bpf_dir = find_bpf_dir()
        message = {
            "bpf_dir": str(bpf_dir),
            "cflags": self._request.cflags(),
            "syscall_table": self._request.syscall_table.tobytes().hex(),
        }
        # Appended: a distribution's bcc is found before anything beside our package. Isolated: nothing that the
        # user's environment says about Python reaches a program that runs as root.
        code = (
            f"import sys; sys.path.append({str(Path(str(files('otel_sysexit'))).parent)!r});"
            "from otel_sysexit.kernel.loader import main; main()"
        )
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                self._child = subprocess.Popen(
                    [python, "-I", "-c", code, str(theirs.fileno()), json.dumps(message)],
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    start_new_session=True,  # a Ctrl-C is for the command
                )
            except OSError as error:
                ours.close()
                raise AgentError(f"cannot start {python}, which should have bcc: {error.strerror}") from error
        ours.settimeout(_LOADER_SECONDS)
        self._channel = ours

    def capture(self) -> "Capture":
        """
        Wait for the child and return what it handed over.

        Raises:
            AgentError: nothing could be loaded, with the reason.
        """
        while True:
            answer, fds = self._receive()
            if answer is not None and answer["error"] is None:
                return Capture(self._request, fds)
            kind = "crash" if answer is None else answer["error"]
            if kind in ("no-bcc", "wrong-bcc") and self._pythons and Path(self._pythons[0]).exists():
                self._start(self._pythons.pop(0))
                continue
            raise AgentError(self._explain(answer))

    def _receive(self) -> tuple[dict[str, str | None] | None, list[int]]:
        """Return the child's answer (None: it died without one) and the descriptors beside it."""
        with self._channel:
            try:
                data, fds, _, _ = socket.recv_fds(self._channel, 65536, len(MAPS) + len(LINKS))
            except TimeoutError:
                data, fds = b"", []
                self._child.kill()
        for fd in fds:  # the command must not inherit what keeps the programs attached
            os.set_inheritable(fd, False)
        _, log = self._child.communicate()
        self._log = log.decode(errors="replace")
        return (json.loads(data) if data else None), fds

    def _explain(self, answer: dict[str, str | None] | None) -> str:
        """Return one line: the child's own words, and the compiler's first complaint when there is one."""
        message = "the loader died" if answer is None else str(answer["message"])
        complaints = [line.strip() for line in self._log.splitlines() if "error" in line.lower()]
        if answer is not None and answer["error"] != "load":
            return message
        return f"{message} ({complaints[0] if complaints else f'exit status {self._child.returncode}'})"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the child whatever it does."""
        self._channel.close()
        if self._child.returncode is None:
            self._child.kill()
            self._child.communicate()


class Capture:
    """
    Programs at work in the kernel.

    They stay attached as long as this process holds the links; when it dies, the kernel detaches them.
    """

    def __init__(self, request: Request, fds: Sequence[int]) -> None:
        """Take over the descriptors of `MAPS` and `LINKS`."""
        maps = dict(zip(MAPS, fds, strict=False))
        self._links = dict(zip(LINKS, fds[len(MAPS) :], strict=True))
        self.calls_fd = maps["calls"]
        self.calls = Ring.from_fd(maps["calls"], request.calls_bytes, records.CALL)
        self.strings = Ring.from_fd(maps["strings"], request.strings_bytes, records.STRING)
        self.tasks = Ring.from_fd(maps["tasks"], _TASKS_BYTES, records.TASK)
        self.exec_strings = Ring.from_fd(maps["exec_strings"], _TASKS_BYTES, records.STRING)
        self._pending = Map(maps["pending"], 4, records.SLOT.itemsize)
        self._cpus = possible_cpus()
        self._ledger = Map(maps["ledger"], 4, 8 * self._cpus)
        self._is_closing = Map(maps["is_closing"], 4, 4)

    def add_thread(self, tid: int, state: records.SlotState) -> None:
        """
        Make the running thread *tid* (as the initial pid namespace has it) a target; a target stays as it is.

        Raises:
            AgentError: no more threads can be followed.
        """
        slot = np.zeros(1, records.SLOT)
        slot["interrupted_nr"] = -1
        slot["state"] = state
        try:
            self._pending.update(struct.pack("=I", tid), slot.tobytes(), only_new=True)
        except FileExistsError:
            pass  # born to a target a moment ago
        except OSError as error:
            raise AgentError(f"cannot follow thread {tid}: {error.strerror}") from error

    def add_process(self, pid: int) -> list[int]:
        """
        Make all threads of the running process *pid* targets, and return their tids.

        No thread is missed: once all that were listed are targets, those born meanwhile are targets by birth.

        Raises:
            ProcessLookupError: there is no such process, or it is ending.
        """
        known: set[int] = set()
        while True:
            tids = _list_threads(pid)
            new = tids - known
            if not new:
                running = sorted(tid for tid in tids if _is_running(pid, tid))
                if not running:
                    raise ProcessLookupError(pid)
                return running
            for tid in new:
                self.add_thread(tid, records.SlotState.ATTACHED)
                # Who was ending before it became a target has passed the hook that would take its slot away.
                if not _is_running(pid, tid):
                    self._pending.delete(struct.pack("=I", tid))
            known |= new

    def has_targets(self) -> bool:
        """Whether any thread is a target now."""
        return not self._pending.is_empty()

    def in_flight(self) -> npt.NDArray[Any]:
        """Return the slots (dtype SLOT) of the calls that have not returned yet, but for those that were sampled out."""
        _, values = self._pending.read()
        slots: npt.NDArray[Any] = values.view(records.SLOT).reshape(-1)
        live: npt.NDArray[Any] = slots[slots["start_ns"] > records.SAMPLED_OUT_NS]
        return live

    def ledger(self) -> dict[records.Ledger, int]:
        """Return every counter, summed over the CPUs."""
        layout = f"={self._cpus}Q"
        return {
            entry: sum(struct.unpack(layout, self._ledger.lookup(struct.pack("=I", entry)) or b""))
            for entry in records.Ledger
        }

    def close_links(self) -> None:
        """
        Detach every program; counters and rings stay readable and change no more.

        sys_enter goes first: what it has not seen, sys_exit must then not take for a call that seccomp skipped.
        """
        if not self._links:
            return
        self._is_closing.update(struct.pack("=I", 0), struct.pack("=I", 1))
        for name in reversed(LINKS):
            os.close(self._links.pop(name))
            if name == "sys_enter":
                wait_for_running_programs()
        wait_for_running_programs()
