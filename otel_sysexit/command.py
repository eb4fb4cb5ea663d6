"""
The command to run: started but held before its execve, so that nothing of it is missed; then signals in, status out.

In: argv and environment. Out: a pid to make a target of, and an exit status as a shell would give it.
"""

import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, NoReturn

from otel_sysexit.errors import EXIT_STATUS

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
# Python ignores these for itself; a program expects them as a shell leaves them.
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)


class CommandError(Exception):
    """The command cannot be started; *exit_status* is what a shell would return."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def find_executable(name: str, path: str | None) -> str:
    """
    Return the file that *name* means, looked up in *path* (PATH) unless it has a slash.

    Raises:
        CommandError: there is none (127), or it may not be executed (126).
    """
    found = shutil.which(name, path=path)
    if found is not None:
        return found
    there = shutil.which(name, mode=os.F_OK, path=path)
    if there is not None or ("/" in name and os.path.exists(name)):  # noqa: PTH110 (text in, text out)
        reason = "is a directory" if os.path.isdir(there or name) else "permission denied"  # noqa: PTH112
        raise CommandError(f"{name}: {reason}", NOT_EXECUTABLE)
    raise CommandError(f"{name}: command not found", NOT_FOUND)


@dataclass(frozen=True, slots=True)
class Inherited:
    """What we were started with, and the command gets, whatever we changed for ourselves."""

    environ: Mapping[str, str]
    signal_mask: Collection[int]
    """The blocked signals."""


class Command:
    """A child process that waits to become the command."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], signal_mask: Iterable[int]) -> None:
        """
        Fork the child; call this before any thread is started.

        Args:
            argv: The command and its arguments.
            environ: Its environment.
            signal_mask: Its blocked signals.

        Raises:
            CommandError: it cannot be found or executed.
        """
        path = find_executable(argv[0], environ.get("PATH", os.defpath))
        gate_out, self._gate = os.pipe()
        self._failure, failure_in = os.pipe()
        # Who starts us may ignore SIGCHLD, and we would learn no status; the command inherits what we got.
        is_child_ignored = signal.signal(signal.SIGCHLD, signal.SIG_DFL) is signal.SIG_IGN
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._gate)
            _become(path, argv, environ, signal_mask, gate_out, failure_in, is_child_ignored)
        os.close(gate_out)
        os.close(failure_in)
        self.pidfd = os.pidfd_open(self.pid)
        self._noticed_at = float("inf")
        self._path = path

    def release(self) -> None:
        """
        Let the child call execve.

        Raises:
            CommandError: the execve failed; the child has ended.
        """
        with suppress(BrokenPipeError):  # a Ctrl-C has killed it already
            os.write(self._gate, b"!")
        os.close(self._gate)
        with open(self._failure, "rb") as pipe:  # noqa: PTH123 (a descriptor)
            answer = pipe.read()  # ends when execve closes the other end
        if answer:
            os.waitpid(self.pid, 0)
            code = int(answer)
            status = NOT_FOUND if code == 2 else NOT_EXECUTABLE
            raise CommandError(f"{self._path}: {os.strerror(code)}", status)

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        with suppress(OSError):  # ended; or, having changed its user, not ours to signal
            signal.pidfd_send_signal(self.pidfd, number)

    def has_ended(self) -> bool:
        """Whether it is over; it may still wait to be reaped."""
        is_over = bool(select.select([self.pidfd], [], [], 0)[0])
        if is_over:
            self._noticed_at = min(self._noticed_at, time.monotonic())
        return is_over

    def has_ended_for(self, seconds: float) -> bool:
        """Whether it has been known for so long to be over."""
        return self.has_ended() and time.monotonic() - self._noticed_at > seconds

    def reap(self) -> int:
        """Wait for its end and return its exit status; 128 + signal when it was killed."""
        _, status = os.waitpid(self.pid, 0)
        code = os.waitstatus_to_exitcode(status)
        return code if code >= 0 else 128 - code

    def discard(self) -> None:
        """End it at once, released or not."""
        self.send_signal(signal.SIGKILL)
        self.reap()


def _become(  # noqa: PLR0917 (all of them are needed, once)
    path: str,
    argv: Sequence[str],
    environ: Mapping[str, str],
    signal_mask: Iterable[int],
    gate_out: int,
    failure_in: int,
    is_child_ignored: bool,
) -> NoReturn:
    """In the child: wait at the gate, then execve; whatever fails, never return into the agent's code."""
    try:
        for number in _IGNORED_BY_PYTHON:
            signal.signal(number, signal.SIG_DFL)
        if is_child_ignored:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, signal_mask)
        if not os.read(gate_out, 1):  # the agent died or gave up
            os._exit(EXIT_STATUS)
        os.execve(path, list(argv), environ)  # noqa: S606 (that is the job)
    except OSError as error:
        os.write(failure_in, str(error.errno).encode())
    except BaseException as error:  # noqa: BLE001 (an argument with a NUL, say)
        sys.stderr.write(f"otel-sysexit: {error}\n")
    os._exit(EXIT_STATUS)
