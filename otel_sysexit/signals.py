"""
Signals of the agent, taken by one thread so that no other is ever interrupted.

Out: each signal with its origin, to a callback, in that thread; and a descriptor that becomes readable.
"""

import os
import signal
import threading
from collections.abc import Callable
from typing import Final

HANDLED: Final = frozenset(
    {
        signal.SIGINT,
        signal.SIGTERM,
        signal.SIGHUP,
        signal.SIGQUIT,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
    }
)
REPORT: Final = signal.SIGUSR1
"""Asks the agent which calls are in flight: never a command's."""
_SI_KERNEL: Final = 0x80  # siginfo.h: sent by the kernel, as by a terminal to its foreground process group


class Signals:
    """Blocks the handled signals in the calling thread and in those it starts."""

    def __init__(self) -> None:
        """Block; call this before any thread is started."""
        signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED)
        # An ignored signal (nohup, a shell's background job) stays ignored.
        self._wanted = {number for number in HANDLED if signal.getsignal(number) is not signal.SIG_IGN}
        self.fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def pending(self) -> int | None:
        """Return a signal to end that came before anybody watched, if one did."""
        return min(signal.sigpending() & self._wanted - {REPORT}, default=None)

    def watch(self, handle: Callable[[signal.Signals, bool], None]) -> None:
        """
        Call *handle* for each signal from now on, in a thread of its own.

        Args:
            handle: Gets the signal, and whether the whole process group got it (a Ctrl-C at the terminal).
        """

        def loop() -> None:
            while True:
                info = signal.sigwaitinfo(self._wanted)
                handle(signal.Signals(info.si_signo), info.si_code == _SI_KERNEL)
                os.eventfd_write(self.fd, 1)

        threading.Thread(target=loop, name="signals", daemon=True).start()
