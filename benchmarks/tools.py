"""The tools that we stand beside: how a command is run under each, and what each says that it captured and lost."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

# perf and bpftrace need tracefs, which is not mounted everywhere; in a mount namespace nobody else sees it.
_TRACEFS: Final = (
    *("unshare", "--mount", "sh", "-c"),
    'mountpoint -q /sys/kernel/tracing || mount -t tracefs tracefs /sys/kernel/tracing; exec "$@"',
    "sh",
)
_ENTER: Final = "tracepoint:raw_syscalls:sys_enter /{whom}/ {{ @start[tid] = nsecs; }}"
_PRINT: Final = (
    "tracepoint:raw_syscalls:sys_exit /@start[tid]/ {{"
    ' printf("%d %d %d %d\\n", tid, args->id, args->ret, nsecs - @start[tid]); delete(@start[tid]); }}'
)
_HIST: Final = (
    "tracepoint:raw_syscalls:sys_exit /@start[tid]/ {{"
    " @calls[args->id] = count(); @ns[args->id] = hist(nsecs - @start[tid]); delete(@start[tid]); }}"
)
_COMMAND: Final = "pid == cpid"


@dataclass(frozen=True)
class Tool:
    """One of them, in one of its usual forms."""

    title: str
    program: str
    options: Sequence[str]
    """Before `-o FILE`."""
    call: str
    """Pattern of a call in what it prints, with {name} and {nr}; a number in its group is how many it stands for."""
    lost: str = r"(?!)"
    """Pattern of the words that it has for losses, the number in its group."""
    script: str = ""
    """bpftrace's program, {whom} being the predicate."""
    is_tracefs_needed: bool = True

    @property
    def is_installed(self) -> bool:
        """Whether it can be found."""
        return shutil.which(self.program) is not None

    def run(self, command: Sequence[str], output: Path) -> list[str]:
        """Return the command line that runs *command* and its children under it, and prints to *output*."""
        if self.script:
            return [*self._begin(output), "-e", self.script.format(whom=_COMMAND), "-c", " ".join(command)]
        dashes = ["--"] if self.program == "perf" else []
        return [*self._begin(output), *dashes, *command]

    def watch(self, uid: int, output: Path) -> list[str]:
        """Return the command line that looks at everything of a user; only where there is a script."""
        return [*self._begin(output), "-e", self.script.format(whom=f"uid == {uid}")]

    def _begin(self, output: Path) -> list[str]:
        tracefs = _TRACEFS if self.is_tracefs_needed else ()
        return [*tracefs, self.program, *self.options, "-o", str(output)]

    def count_calls(self, printed: str, name: str = r"\w+", nr: int | str = r"\d+") -> int:
        """Return how many calls *printed* tells of: all, or those of one kind."""
        return _add_up(self.call.format(name=name, nr=nr), printed)

    def count_lost(self, printed: str) -> int:
        """Return how many it says it lost."""
        return _add_up(self.lost, printed)


def _add_up(pattern: str, text: str) -> int:
    found = re.finditer(pattern, text, re.MULTILINE)
    return sum(int(match[1]) if match.re.groups else 1 for match in found)


# A call that another thread interrupts is told in two lines; the second says so.
STRACE: Final = Tool(
    "`strace -f -T`", "strace", ("-f", "-T"), r"^(?:\d+ +)?{name}\(", is_tracefs_needed=False
)
STRACE_SUMS: Final = Tool(
    "`strace -f -c`",
    "strace",
    ("-f", "-c"),
    r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(?!total$){name}$",
    is_tracefs_needed=False,
)
_PERF_LOST: Final = r"LOST (\d+) events!"
PERF: Final = Tool(
    "`perf trace`",
    "perf",
    ("trace",),
    r"^ *[\d.]+ \( *(?:[\d.]+ ms)? *\): (?:[^ ]+/\d+ )?(?!\.\.\. \[continued\]){name}\(",
    _PERF_LOST,
)
PERF_SUMS: Final = Tool(
    "`perf trace -s`", "perf", ("trace", "-s"), r"^   {name} +(\d+) +\d+ +[\d.]+ ", _PERF_LOST
)
_BPFTRACE_LOST: Final = r"Lost (\d+) events"
BPFTRACE: Final = Tool(
    "bpftrace, printing each call",
    "bpftrace",
    (),
    r"^\d+ {nr} -?\d+ \d+$",
    _BPFTRACE_LOST,
    f"{_ENTER} {_PRINT}",
)
BPFTRACE_HIST: Final = Tool(
    "bpftrace, `count()` and `hist()` in the kernel",
    "bpftrace",
    (),
    r"^@calls\[{nr}\]: (\d+)$",
    _BPFTRACE_LOST,
    f"{_ENTER} {_HIST}",
)
TOOLS: Final = (STRACE_SUMS, STRACE, PERF, PERF_SUMS, BPFTRACE, BPFTRACE_HIST)
