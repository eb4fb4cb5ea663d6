"""Ways to trace a program that serves: not at all, by us, by other tools; and what each captured and lost."""

import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import packages
import psutil
from applications import NOBODY
from machine import ENVIRONMENT, links, wait_until
from tools import BPFTRACE, PERF, STRACE_SUMS, Tool
from variants import AGENT, LINKS_OF_THE_AGENT, SETTLE_SECONDS, Ledger

_PATIENCE_SECONDS: Final = 1.0
"""bpftrace does not say when it has attached, but when it begins to; nor when it has printed all."""
_END_SECONDS: Final = 60.0


@dataclass
class Account:
    """Calls, over all visits; None: nobody counted."""

    captured: int | None = None
    sampled_out: int | None = None
    lost: int | None = None
    """As the tracer itself says."""

    def add(self, captured: int, lost: int, sampled_out: int | None = None) -> None:
        """Count one visit."""
        self.captured = (self.captured or 0) + captured
        self.lost = (self.lost or 0) + lost
        if sampled_out is not None:
            self.sampled_out = (self.sampled_out or 0) + sampled_out


class Tracer(Protocol):
    """One way."""

    title: str
    account: Account
    missing: str
    """Why it cannot be used."""

    def start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start *command*, which becomes nobody, traced from then on."""

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """End the program, and the tracing."""


def spawn(command: Sequence[str], **options: Any) -> "subprocess.Popen[bytes]":
    """Start *command* with the libraries of unpacked packages; it prints nothing."""
    silent = dict.fromkeys(("stdout", "stderr"), subprocess.DEVNULL)
    environment = packages.environment()
    return subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, **{**silent, **options})


def end(process: "subprocess.Popen[bytes]") -> None:
    """End the program that was started as *process*, or below it, by a tool that ends with it; then wait for all."""
    family = _family(process.pid)
    programs = [one for one in family if _is_nobody(one)]
    if programs:
        programs[0].send_signal(signal.SIGINT)  # the first is the main one: the others are its children
    try:
        process.wait(_END_SECONDS)
    finally:
        for one in psutil.wait_procs(family, timeout=5)[1]:
            one.kill()


@contextmanager
def _killed_on_failure(process: "subprocess.Popen[bytes]") -> Iterator[None]:
    """Leave no tracer behind that would make everything after it slower."""
    try:
        yield
    except BaseException:
        process.kill()
        process.wait()
        raise


def _family(pid: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def _is_nobody(process: psutil.Process) -> bool:
    try:
        return process.uids().real == NOBODY and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


class Untraced:
    """For comparison."""

    title = "nothing"
    missing = ""

    def __init__(self) -> None:
        self.account = Account()

    def start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Just start it."""
        return spawn(command)

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """End it."""
        end(process)


class UnderTool:
    """strace or perf: they start the program themselves, and follow its children."""

    def __init__(self, tool: Tool, folder: Path) -> None:
        self.title = tool.title
        self.account = Account()
        self.missing = "" if tool.is_installed else "not installed"
        self._tool = tool
        self._output = folder / "printed"

    def start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Start it under the tool."""
        self._output.unlink(missing_ok=True)
        return spawn(self._tool.run(command, self._output))

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """End it; count what was printed."""
        end(process)
        printed = self._output.read_text(encoding="utf-8", errors="replace")
        self.account.add(self._tool.count_calls(printed), self._tool.count_lost(printed))


class Watched:
    """bpftrace: it looks at all that is nobody's."""

    def __init__(self, tool: Tool, folder: Path) -> None:
        self.title = tool.title
        self.account = Account()
        self.missing = "" if tool.is_installed else "not installed"
        self._tool = tool
        self._output, self._errors = folder / "printed", folder / "errors"
        self._watcher: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Let the tool attach, then start the program."""
        self._output.unlink(missing_ok=True)
        with self._errors.open("wb") as errors:
            self._watcher = spawn(self._tool.watch(NOBODY, self._output), stderr=errors)
        with _killed_on_failure(self._watcher):
            wait_until(self._is_attaching, f"{self._tool.program} attaches")
            time.sleep(_PATIENCE_SECONDS)
            return spawn(command)

    def _is_attaching(self) -> bool:
        assert self._watcher is not None
        if self._watcher.poll() is not None:
            raise RuntimeError(f"{self._tool.program} ended: {self._errors.read_text(errors='replace')}")
        return self._output.exists() and self._output.stat().st_size > 0

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """End both; count what was printed."""
        end(process)
        if self._watcher is None:
            return
        self._wait_for_output()
        with _killed_on_failure(self._watcher):
            self._watcher.send_signal(signal.SIGINT)
            self._watcher.wait(_END_SECONDS)
        printed = self._output.read_text(encoding="utf-8", errors="replace")
        words = printed + self._errors.read_text(encoding="utf-8", errors="replace")
        self.account.add(self._tool.count_calls(printed), self._tool.count_lost(words))

    def _wait_for_output(self) -> None:
        """Let it print what is in its buffers: when it is told to end, it gives that up without a word."""
        size = -1
        while size != (size := self._output.stat().st_size):
            time.sleep(_PATIENCE_SECONDS)


class Ours:
    """`attach` to all that is nobody's, spans to a collector."""

    missing = ""

    def __init__(self, title: str, options: Sequence[str], endpoint: str) -> None:
        self.title = title
        self.account = Account()
        where = ("--endpoint", endpoint, "--protocol", "grpc", "--uid", str(NOBODY))
        self._command = [*AGENT, "attach", *where, *options]
        self._agent: subprocess.Popen[bytes] | None = None

    def start(self, command: Sequence[str]) -> "subprocess.Popen[bytes]":
        """Let the agent attach, then start the program."""
        self._agent = subprocess.Popen(
            self._command, env=ENVIRONMENT, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        agent = self._agent
        with _killed_on_failure(agent):
            wait_until(lambda: agent.poll() is not None or links(agent.pid) == LINKS_OF_THE_AGENT, "attached")
            if agent.poll() is not None:
                raise RuntimeError(f"the agent ended: {agent.communicate()[1].decode(errors='replace')}")
            time.sleep(SETTLE_SECONDS)  # it adds its targets then
            return spawn(command)

    def stop(self, process: "subprocess.Popen[bytes]") -> None:
        """End both; read the ledger."""
        end(process)
        if self._agent is None:
            return
        with _killed_on_failure(self._agent):
            self._agent.send_signal(signal.SIGINT)
            _, words = self._agent.communicate(timeout=_END_SECONDS)
        ledger = Ledger.parse(words)
        self.account.add(ledger.delivered, ledger.dropped + ledger.undelivered, ledger.sampled_out)


def make_tracers(endpoint: str, folder: Path) -> list[Tracer]:
    """Return all, in the order of the table; *endpoint* is a collector's for gRPC."""
    return [
        Untraced(),
        Ours("`otel-sysexit attach`", (), endpoint),
        Ours("`otel-sysexit attach --max-rate none`", ("--max-rate", "none"), endpoint),
        UnderTool(STRACE_SUMS, folder),
        UnderTool(PERF, folder),
        Watched(BPFTRACE, folder),
    ]
