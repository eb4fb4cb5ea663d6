"""Signals reach the command that `run` started: those sent to us, but for SIGUSR1, and those of the terminal once."""

import contextlib
import fcntl
import json
import os
import pty
import signal
import sys
import termios
import time
from pathlib import Path

import pytest

from otel_sysexit.procfs import is_running

SENT = [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR2]


def next_fact(stream):
    """Return the next line of a program's output as a fact; fail at its end."""
    for line in iter(stream.readline, b""):
        if line.strip().startswith(b'{"'):
            return json.loads(line)
    raise AssertionError("the program ended")


@pytest.mark.parametrize("number", SENT)
def test_a_signal_to_us_reaches_the_command(start_agent, build, tmp_path, number):
    """A signal sent to us is the command's, which decides what becomes of it."""
    agent = start_agent("run", "-o", tmp_path / "o", "--", build("await_signal"))
    next_fact(agent.stdout)
    agent.send_signal(number)

    assert next_fact(agent.stdout) == {"signal": number}
    assert agent.wait(timeout=60) == 40 + number


def test_sigusr1_is_ours(start_agent, build, tmp_path, eventually):
    """SIGUSR1 sent to us asks us what is in flight, and does not reach the command, which it might end."""
    printed = tmp_path / "stderr"
    with printed.open("wb") as stderr:
        agent = start_agent("run", "-o", tmp_path / "o", "--", build("await_signal"), stderr=stderr)
    next_fact(agent.stdout)

    def ask() -> bool:
        agent.send_signal(signal.SIGUSR1)  # again, should it have been just before its call
        return b" in await_signal[" in printed.read_bytes()

    eventually(ask, "the report")
    agent.send_signal(signal.SIGTERM)

    assert next_fact(agent.stdout) == {"signal": signal.SIGTERM}
    assert agent.wait(timeout=60) == 40 + signal.SIGTERM


def test_a_command_may_survive_sigterm(start_agent, build, tmp_path):
    """We end when the command does, not when SIGTERM comes: it may have three of them."""
    agent = start_agent("run", "-o", tmp_path / "o", "--", build("await_signal"), "3")
    next_fact(agent.stdout)
    for _ in range(3):
        agent.send_signal(signal.SIGTERM)
        assert next_fact(agent.stdout) == {"signal": signal.SIGTERM}

    assert agent.wait(timeout=60) == 40 + signal.SIGTERM
    assert (tmp_path / "o").stat().st_size > 0


class Terminal:
    """A pseudo terminal whose session's leader is a command line of ours."""

    def __init__(self, start_agent, *arguments):
        self.master, slave = pty.openpty()
        self.text = b""
        self.agent = start_agent(
            *arguments,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(slave)
        os.set_blocking(self.master, False)

    def press(self, key: bytes):
        """Type a key."""
        os.write(self.master, key)

    def shows(self, text: bytes, count: int = 1) -> bool:
        """Return whether the text has appeared so often."""
        # EIO means that nobody has the other end open any more.
        with contextlib.suppress(OSError):
            self.text += os.read(self.master, 65536)
        return self.text.count(text) >= count

    def close(self):
        """Hang up."""
        os.close(self.master)


@pytest.fixture
def terminal(start_agent, build, tmp_path, eventually):
    """Return a function that starts await_signal under us on a terminal and waits until it is ready."""
    opened = []

    def open_terminal(count: int) -> Terminal:
        shown = Terminal(start_agent, "run", "-o", tmp_path / "o", "--", build("await_signal"), str(count))
        opened.append(shown)
        eventually(lambda: shown.shows(b'"ready"'), "the program to be ready")
        return shown

    yield open_terminal
    for each in opened:
        each.close()


def pid_of(terminal: Terminal) -> int:
    """Return the pid that the program on the terminal printed."""
    (line,) = [line for line in terminal.text.splitlines() if b'"ready"' in line]
    return json.loads(line)["ready"]


def test_ctrl_c_goes_to_the_command(terminal, eventually):
    """Ctrl-C on the terminal is the command's SIGINT; its exit status is ours."""
    shown = terminal(1)
    shown.press(b"\x03")

    eventually(lambda: shown.shows(b'{"signal": 2}'), "the command's SIGINT")
    eventually(lambda: shown.shows(b"ledger:"), "our last line")
    assert shown.agent.wait(timeout=60) == 40 + signal.SIGINT


BUSY = """
import os
print(flush=True)
while True:
    os.getppid()
"""


@pytest.mark.parametrize("attempt", range(3))
def test_ctrl_c_loses_nothing(start_agent, tmp_path, attempt):
    """That the command is over when we come to look does not make it a Ctrl-C after its end: what was recorded is delivered."""
    printed = tmp_path / "stderr"
    with printed.open("wb") as stderr:
        busy = ("--max-rate", "2000", "-o", tmp_path / "o", "--", sys.executable, "-c", BUSY)
        agent = start_agent("run", *busy, stderr=stderr, start_new_session=True)
    agent.stdout.readline()
    time.sleep(attempt)
    os.killpg(agent.pid, signal.SIGINT)

    assert agent.wait(timeout=60) == 128 + signal.SIGINT
    assert "undelivered 0;" in printed.read_text()


def test_a_second_ctrl_c_ends_who_waits_for_a_reader(start_agent, eventually):
    """A terminal that is stopped, or a pipe that nobody reads, holds us up no longer than a few seconds."""
    unread, stderr = os.pipe()
    agent = start_agent("run", "--live", "--", sys.executable, "-c", BUSY, stderr=stderr)
    agent.stdout.readline()
    pid = int(Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text())
    time.sleep(1)  # the pipe is full by then
    agent.send_signal(signal.SIGINT)
    time.sleep(0.5)
    agent.send_signal(signal.SIGINT)

    assert agent.wait(timeout=30) in (128 + signal.SIGINT, 128 + signal.SIGKILL)
    eventually(lambda: not is_running(pid), "the command's end")
    os.close(unread)
    os.close(stderr)


def test_ctrl_c_comes_once(terminal, eventually):
    """The command gets one SIGINT a key press: we do not pass on what the terminal sent it already."""
    shown = terminal(2)
    shown.press(b"\x03")
    eventually(lambda: shown.shows(b'{"signal": 2}'), "the command's SIGINT")
    # Sent to us, it is passed on after whatever we would still have passed on.
    shown.agent.send_signal(signal.SIGTERM)

    eventually(lambda: shown.shows(b'{"signal": 15}'), "the command's SIGTERM")
    assert shown.text.count(b'{"signal": 2}') == 1
    assert shown.agent.wait(timeout=60) == 40 + signal.SIGTERM


def test_a_second_ctrl_c_ends_at_once(terminal, eventually):
    """Pressing Ctrl-C again ends us with 130, and the command though it takes no notice of any."""
    shown = terminal(100)
    shown.press(b"\x03")
    eventually(lambda: shown.shows(b'{"signal": 2}'), "the command's SIGINT")

    def press_again() -> bool:
        # What comes within a fifth of a second is the same one: a signal to us and one to our group.
        shown.press(b"\x03")
        return shown.shows(b"") and shown.agent.poll() is not None

    eventually(press_again, "our end", 10)
    assert shown.agent.returncode == 128 + signal.SIGINT
    eventually(lambda: not Path(f"/proc/{pid_of(shown)}").exists(), "the command's end", 10)
