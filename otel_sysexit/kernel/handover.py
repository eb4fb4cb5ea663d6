"""
The agent's side of the loader: start it, take what it hands over.

In: a `Request`. Out: descriptors. It imports little, as nothing can be loaded before the loader is started.
"""

import json
import os
import signal
import socket
from contextlib import suppress
from typing import Final, Self

from otel_sysexit.errors import AgentError
from otel_sysexit.kernel.request import Request

_LOADER_SECONDS: Final = 300.0
"""Against one that hangs: compiling takes a second, on a host that is very slow or busy a minute."""
_DESCRIPTORS_MAX: Final = 64


class Loader:
    """A loader child at work; started early, so that it loads while the agent does other things."""

    def __init__(self, request: Request) -> None:
        """Start the child for *request*: a copy of this process, which must have no threads yet."""
        self.request = request
        self._channel, theirs = socket.socketpair()
        agent_pid = os.getpid()
        self._pid = os.fork()
        if self._pid == 0:
            try:
                self._channel.close()
                from otel_sysexit.kernel import loader  # noqa: PLC0415 (while the agent imports other things)

                loader.serve(request, theirs, agent_pid)
            finally:
                os._exit(1)  # whatever happens, this copy of the agent must not go on
        theirs.close()
        self._channel.settimeout(_LOADER_SECONDS)

    def descriptors(self) -> list[int]:
        """
        Wait for the child and return what it hands over: of maps, links and programs, as `load` in loader.py returns them.

        Raises:
            AgentError: nothing could be loaded, with the reason.
        """
        with self._channel:
            try:
                data, fds, _, _ = socket.recv_fds(self._channel, 65536, _DESCRIPTORS_MAX)
            except TimeoutError as error:
                self._end(signal.SIGKILL)
                raise AgentError(f"the loader did not finish within {_LOADER_SECONDS:.0f} s") from error
        status = self._end()
        for fd in fds:  # the command must not inherit what keeps the programs attached
            os.set_inheritable(fd, False)
        answer = (
            json.loads(data)
            if data
            else {"error": "died", "message": f"the loader died (exit status {status})"}
        )
        if answer["error"] is not None:
            raise AgentError(answer["message"])
        return fds

    def _end(self, number: signal.Signals | None = None) -> int:
        """Wait for the child, which is sent the signal *number* with all that it has started; return its exit status."""
        if number is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, number)
            with suppress(ProcessLookupError):  # it may have no group yet
                os.killpg(self._pid, number)
        status = 0
        with suppress(
            ChildProcessError
        ):  # SIGCHLD is ignored by some that start us: then the kernel reaps it
            _, status = os.waitpid(self._pid, 0)
        self._pid = 0
        return os.waitstatus_to_exitcode(status)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child whatever it does."""
        self._channel.close()
        if self._pid:
            self._end(signal.SIGKILL)
