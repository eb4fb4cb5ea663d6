import errno
import io
import os
import pty
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_sysexit.progress import Progress


class Clock:
    """A clock that tests move."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    """A stream that is a pseudo-terminal to those who ask, and keeps what is written."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def fileno(self) -> int:
        """Return the descriptor of the pseudo-terminal."""
        return self.side

    def isatty(self) -> bool:
        """Say yes."""
        return True

    def take(self) -> str:
        """Return what was written since the last time."""
        text = self.getvalue()
        self.seek(0)
        self.truncate()
        return text


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    """Open a pseudo-terminal 60 columns wide."""
    main, side = pty.openpty()
    termios.tcsetwinsize(side, (24, 60))
    yield Terminal(side)
    os.close(main)
    os.close(side)


def test_a_long_run_shows_its_progress(terminal: Terminal) -> None:
    """Calls so far, calls a second, calls lost."""
    clock = Clock()
    progress = Progress(terminal, clock)
    clock.now += 2
    progress.update(50_000, 12)
    assert terminal.take() == "\r\x1b[2K50,000 calls, 25,000/s, 12 dropped"


def test_a_short_run_shows_none(terminal: Terminal) -> None:
    """In the first second nothing is written, at the end nothing erased."""
    clock = Clock()
    progress = Progress(terminal, clock)
    clock.now += 0.9
    progress.update(50_000, 0)
    progress.close()
    assert terminal.take() == ""


def test_progress_is_drawn_five_times_a_second_at_most(terminal: Terminal) -> None:
    """However often it is told."""
    clock = Clock()
    progress = Progress(terminal, clock)
    for _ in range(192):
        clock.now += 1 / 64
        progress.update(1, 0)
    assert 9 <= terminal.take().count("\r") <= 11  # two seconds after the first one


def test_progress_is_erased_at_the_end(terminal: Terminal) -> None:
    """What follows starts on an empty line, and nothing comes after."""
    clock = Clock()
    progress = Progress(terminal, clock)
    clock.now += 2
    progress.update(1, 0)
    terminal.take()
    progress.close()
    clock.now += 2
    progress.update(2, 0)
    assert terminal.take() == "\r\x1b[2K"


def test_progress_fits_the_terminal(terminal: Terminal) -> None:
    """A line that wraps could not be erased."""
    termios.tcsetwinsize(terminal.fileno(), (24, 12))
    clock = Clock()
    progress = Progress(terminal, clock)
    clock.now += 2
    progress.update(50_000_000, 1)
    assert terminal.take() == "\r\x1b[2K50,000,000 "


@pytest.mark.parametrize("mode", [termios.ICANON, termios.ECHO])
def test_progress_leaves_programs_their_screen(terminal: Terminal, mode: int) -> None:
    """An editor reads single keys, a password prompt does not echo: neither is drawn over."""
    modes = termios.tcgetattr(terminal.fileno())
    modes[3] &= ~mode
    termios.tcsetattr(terminal.fileno(), termios.TCSANOW, modes)
    clock = Clock()
    progress = Progress(terminal, clock)
    clock.now += 2
    progress.update(1, 0)
    assert terminal.take() == ""


def test_another_line_gets_its_room(terminal: Terminal) -> None:
    """After clear() the line is gone, and the next update shows it again."""
    clock = Clock()
    progress = Progress(terminal, clock)
    clock.now += 2
    progress.update(1, 0)
    terminal.take()
    progress.clear()
    progress.clear()
    assert terminal.take() == "\r\x1b[2K"
    clock.now += 2
    progress.update(3, 0)
    assert terminal.take() == "\r\x1b[2K3 calls, 1/s"


def test_without_a_terminal_there_is_no_progress() -> None:
    """Nothing is written to a file."""
    clock, stream = Clock(), io.StringIO()
    progress = Progress(stream, clock)
    clock.now += 2
    progress.update(1, 0)
    progress.close()
    assert stream.getvalue() == ""


def test_a_terminal_that_hangs_up_is_no_error(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on without it, and nobody writes again."""
    attempts = []

    def fail(text: str) -> int:
        attempts.append(text)
        raise OSError(errno.EIO, "hung up")

    monkeypatch.setattr(terminal, "write", fail)
    clock = Clock()
    progress = Progress(terminal, clock)
    for _ in range(3):
        clock.now += 2
        progress.update(1, 0)
    progress.close()
    assert len(attempts) == 1


def test_a_descriptor_that_is_no_terminal_any_more_is_no_error(terminal: Terminal) -> None:
    """Modes cannot be asked for then; nothing is drawn."""
    clock = Clock()
    progress = Progress(terminal, clock)
    clock.now += 2
    with Path(os.devnull).open() as null:
        terminal.side, side = null.fileno(), terminal.side
        progress.update(1, 0)
        terminal.side = side
    assert terminal.take() == ""
