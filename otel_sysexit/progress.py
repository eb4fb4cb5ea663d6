"""One line on a terminal that says how a long run gets on."""

import os
import termios
import time
from collections.abc import Callable
from typing import TextIO


class Progress:
    """
    One line on a terminal that says how a long run gets on; nothing at all where there is no terminal.

    The line first appears after a second, so that short commands see none of it. It stays away while the terminal is in
    the hands of a program that reads single keys or a password (not canonical, or no echo): its screen is its own.
    """

    _INTERVAL_S = 0.2
    _DELAY_S = 1.0

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin; *clock* returns seconds."""
        self._stream = stream
        self._clock = clock
        self._is_terminal = stream.isatty()
        self._is_shown = False
        self._last = (clock(), 0)
        self._next_s = self._last[0] + self._DELAY_S

    def is_due(self) -> bool:
        """Whether an update would be shown: five times a second at most."""
        return self._is_terminal and self._clock() >= self._next_s

    def update(self, calls: int, dropped: int) -> None:
        """Show the counts since the start of the run, if it is time to."""
        if not self.is_due():
            return
        now = self._clock()
        self._next_s = now + self._INTERVAL_S
        last_s, last_calls = self._last
        rate = max(calls - last_calls, 0) / max(now - last_s, 1e-9)
        self._last = (now, calls)
        if not self._is_ours():
            return
        text = f"{calls:,} {'call' if calls == 1 else 'calls'}, {rate:,.0f}/s" + (
            f", {dropped:,} dropped" if dropped else ""
        )
        self._is_shown = self._write(f"\r\x1b[2K{text[: self._width() - 1]}")

    def clear(self) -> None:
        """Erase the line, to make room for another; the next update shows it again."""
        if self._is_shown:
            self._write("\r\x1b[2K")
        self._is_shown = False

    def close(self) -> None:
        """Erase the line; nothing more is shown."""
        self.clear()
        self._is_terminal = False

    def _is_ours(self) -> bool:
        try:
            modes = termios.tcgetattr(self._stream.fileno())[3]
        except termios.error:
            return False
        wanted = termios.ICANON | termios.ECHO
        return bool(modes & wanted == wanted)

    def _width(self) -> int:
        try:
            return os.get_terminal_size(self._stream.fileno()).columns or 80
        except OSError:
            return 80

    def _write(self, text: str) -> bool:
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._is_terminal = False  # the terminal is gone; the run is not
        return self._is_terminal
