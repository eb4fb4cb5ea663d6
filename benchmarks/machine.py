"""The machine that is measured on: what it is, what else goes on there, and the small program that makes the calls."""

import os
import platform
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent
DEADLINE_SECONDS: Final = 60.0
ENVIRONMENT: Final[Mapping[str, str]] = {
    **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
    "PYTHONPATH": str(ROOT),
    "OTEL_SYSEXIT_CACHE": "off",
}
"""For the agent: nothing in it configures us, it is this checkout that runs, and it uses nothing that was compiled earlier."""
_LINKS: Final = ("anon_inode:bpf_link", "anon_inode:bpf-link")
_PACKAGES: Final = {"strace": "strace", "perf": "linux-perf", "bpftrace": "bpftrace"}


def describe() -> str:
    """Return processor, CPUs, whether the machine is virtual, and the kernel."""
    text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    facts = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    names = {key.strip(): value.strip() for key, value in facts.items()}
    model = names.get("model name", platform.machine())
    kind = ", virtual" if "hypervisor" in names.get("flags", "") else ""
    release = ".".join(platform.release().split("-")[0].split(".")[:2])
    return f"{model}, {os.cpu_count()} CPUs{kind}; Linux {release} {platform.machine()}"


def install_tools() -> None:
    """Try to install the tools that we compare with; what is missing still, the table says."""
    missing = [package for tool, package in _PACKAGES.items() if not shutil.which(tool)]
    if missing and shutil.which("apt-get"):
        print(f"installing {' '.join(missing)}", flush=True)
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        subprocess.run(command, check=False, capture_output=True)


def compile_program(name: str, folder: Path) -> Path:
    """Compile *name*.c, which lies here, into *folder*."""
    program = folder / name
    subprocess.run(["cc", "-O2", "-pthread", "-o", program, HERE / f"{name}.c"], check=True)
    return program


def loop_cpu() -> int:
    """Return the CPU that the calls are made on: the last one we may use."""
    return max(os.sched_getaffinity(0))


def wait_until(condition: Callable[[], Any], what: str, seconds: float = DEADLINE_SECONDS) -> Any:
    """
    Return what *condition* gives as soon as it is true.

    Raises:
        TimeoutError: it never was.
    """
    end = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {seconds:.0f} s")
        time.sleep(0.005)


def links(pid: int | str) -> int:
    """Return how many BPF programs the process *pid* keeps attached."""
    folder = f"/proc/{pid}/fd"
    count = 0
    try:
        for name in os.listdir(folder):  # noqa: PTH208 (names are all)
            count += os.readlink(f"{folder}/{name}") in _LINKS  # noqa: PTH115
    except OSError:
        return count  # it ended, or closed that one
    return count


def is_quiet() -> bool:
    """Whether nobody keeps BPF programs attached that would make every call dearer."""
    return not any(links(pid) for pid in os.listdir("/proc") if pid.isdigit())  # noqa: PTH208


class Patience:
    """With others who keep BPF programs attached for a while: some for the whole run, then it goes on beside them."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def spend(self, since: float) -> bool:
        """Take off the time since then (`time.monotonic()`); return whether some is left."""
        self._seconds -= time.monotonic() - since
        return self._seconds > 0

    def wait(self) -> None:
        """Wait until it is quiet, or there is none left."""
        before = time.monotonic()
        while not is_quiet() and time.monotonic() - before < self._seconds:
            time.sleep(0.05)
        self.spend(before)


def numbers(lines: bytes) -> list[float]:
    """Return what the loop printed: ns a call, by chunk."""
    return [float(line) for line in lines.split()]


def run(command: Sequence[str | Path]) -> subprocess.CompletedProcess[bytes]:
    """Run *command* to its end with nothing on its standard input."""
    return subprocess.run(
        command,
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        env=ENVIRONMENT,
        timeout=DEADLINE_SECONDS,
    )
