"""What people see: nothing, live lines, a summary, the ledger; on stderr, which is not the command's output."""

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from otel_sysexit.calls import Calls
from otel_sysexit.config import Config
from otel_sysexit.identity import Process
from otel_sysexit.kernel.capture import Capture
from otel_sysexit.kernel.records import Ledger
from otel_sysexit.ledger import Account
from otel_sysexit.messages import escape, say, write
from otel_sysexit.progress import Progress
from otel_sysexit.stuck import CallInFlight

if TYPE_CHECKING:
    from otel_sysexit.terminal import Summary

_IN_FLIGHT_LINES_MAX = 100
_WIDTH = 80
_HINT = "To send this to a collector: add --endpoint http://localhost:4318"


def _make_summary(title: str) -> "Summary":
    from otel_sysexit.terminal import Summary  # noqa: PLC0415 (only where it is shown: rich comes with it)

    return Summary(title)


class View:
    """Everything on the terminal of one run."""

    def __init__(self, config: Config, title: str) -> None:
        """*title* names the run: the command as it was written, or nothing."""
        self._config = config
        is_shown = config.exporter == "terminal" and not config.quiet
        self._summary = _make_summary(title) if is_shown else None
        # A line that is drawn again and again would wipe what a command writes on the same terminal.
        is_shared = bool(title) and sys.stdout is not None and sys.stdout.isatty()
        self._progress = None if config.live or config.quiet or is_shared else Progress(sys.stderr)
        self._origin_unix_ns = 0
        self._calls = 0
        self._live_threads: set[int] = set()
        for warning in config.warnings:
            say(f"warning: {warning}")

    def add(self, calls: Calls, ended: Iterable[Process]) -> None:
        """Take in a batch and the processes that ended with it."""
        self._calls += len(calls)
        if self._summary is not None:
            self._summary.add(calls)
            for process in ended:
                self._summary.see(process)
        if self._config.live and len(calls):
            self._write_lines(calls)

    def see_living(self, processes: Iterable[Process]) -> None:
        """Take note of processes that go on after the end."""
        if self._summary is not None:
            for process in processes:
                self._summary.see(process)

    def _write_lines(self, calls: Calls) -> None:
        from otel_sysexit.live import format_lines  # noqa: PLC0415 (seldom needed)

        if not self._origin_unix_ns:
            self._origin_unix_ns = int(calls.start_unix_ns.min())
        self._live_threads.update(thread.tid for thread in calls.threads)
        lines = format_lines(calls, self._origin_unix_ns, show_threads=len(self._live_threads) > 1)
        write("\n".join(lines) + "\n")

    def report_in_flight(self, calls: Sequence[CallInFlight]) -> None:
        """Write a line for each of *calls*, of very many only for the first; say so when there are none."""
        if self._progress is not None:
            self._progress.clear()
        lines = [escape(call.line()) for call in calls[:_IN_FLIGHT_LINES_MAX]]
        if len(calls) > len(lines):
            lines.append(f"and {len(calls) - len(lines)} more calls in flight")
        for line in lines or ["no call is in flight"]:
            say(line)

    def progress(self, capture: Capture) -> None:
        """Tell how it goes on, on a terminal."""
        if self._progress is not None and self._progress.is_due() and sys.stderr.isatty():
            ledger = capture.ledger()
            self._progress.update(self._calls, ledger[Ledger.DROPPED_RING_FULL])

    def finish(self, account: Account) -> None:
        """Say what became of everything."""
        if self._progress is not None:
            self._progress.close()
        if self._summary is not None:
            from rich.console import Console  # noqa: PLC0415 (only here)

            hint = "" if self._config.output else _HINT
            console = Console(stderr=True)
            console.width = console.width or _WIDTH  # COLUMNS=0: nobody knows
            with console.capture() as captured:
                self._summary.render(console, f"otel-sysexit: {account.line()}", hint)
            write(captured.get())  # not by rich, which ends the program when nobody reads
        elif not self._config.quiet:
            say(account.line())
        for loss in account.losses():
            say(f"warning: {loss}")
