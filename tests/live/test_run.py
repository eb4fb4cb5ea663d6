"""`run` ends as the command ends, hands its streams through, and follows it to its last call."""

import os
import signal
from pathlib import Path

import pytest

ODD_BYTES = bytes(range(256)) * 4099


@pytest.mark.parametrize("status", [0, 1, 3, 125, 126, 127, 255])
def test_the_commands_status_is_ours(run_traced, status):
    """The exit status is the command's own, also where the same number has a meaning of ours."""
    assert run_traced("/bin/sh", "-c", f"exit {status}").status == status


@pytest.mark.parametrize("number", [2, 6, 9, 11, 15])
def test_a_signal_is_told_as_a_shell_does(run_traced, number):
    """A command killed by a signal gives 128 plus the signal's number."""
    assert run_traced("/bin/sh", "-c", f"ulimit -c 0; kill -{number} $$").status == 128 + number


@pytest.mark.parametrize("command", ["/nonexistent/program", "no-such-command-anywhere", "./missing"])
def test_a_missing_command_is_127(invoke, command):
    """A command that does not exist gives 127 and one line that names it."""
    finished = invoke("run", "--", command)

    assert finished.returncode == 127
    assert finished.stderr.decode().startswith("otel-sysexit: ")
    assert command in finished.stderr.decode().splitlines()[0]


@pytest.mark.parametrize("mode", [0o644, None])
def test_a_command_that_cannot_be_executed_is_126(invoke, tmp_path, mode):
    """A file without permission, or a directory, gives 126 and one line that names it."""
    command = tmp_path / "command"
    if mode is None:
        command.mkdir()
    else:
        command.write_text("#!/bin/sh\n")
        command.chmod(mode)
    finished = invoke("run", "--", command)

    assert finished.returncode == 126
    assert finished.stderr.decode().startswith("otel-sysexit: ")
    assert str(command) in finished.stderr.decode().splitlines()[0]


def test_our_own_failure_is_125(invoke):
    """What we cannot do ourselves gives 125 and an explanation without a traceback."""
    finished = invoke("run", "-o", "/nonexistent/folder/spans.jsonl", "--", "/bin/true")

    assert finished.returncode == 125
    assert "otel-sysexit: " in finished.stderr.decode()
    assert "Traceback" not in finished.stderr.decode()


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--no-such-option", "--", "/bin/true"],
        ["run"],
        ["run", "--min-duration", "soon", "--", "/bin/true"],
        ["run", "--syscalls", "opennat", "--", "/bin/true"],
        ["run", "--errno", "ENOSUCH", "--", "/bin/true"],
        ["run", "--sample", "0", "--", "/bin/true"],
        ["run", "--sample", "1.01", "--", "/bin/true"],
        ["run", "--max-rate", "0", "--", "/bin/true"],
    ],
)
def test_a_mistake_is_2(invoke, arguments):
    """What is no command line of ours, or asks for what cannot be, gives 2 and an explanation without a traceback."""
    finished = invoke(*arguments)

    assert finished.returncode == 2
    assert "otel-sysexit: " in finished.stderr.decode()
    assert "Traceback" not in finished.stderr.decode()


def test_our_own_failure_starts_nothing(invoke, tmp_path):
    """With an option we refuse, the command is not started."""
    invoke("run", "--min-duration", "soon", "--", "/bin/touch", tmp_path / "started")

    assert not (tmp_path / "started").exists()


def test_stdin_and_stdout_pass_byte_for_byte(run_traced):
    """A megabyte of all bytes goes through the command unchanged."""
    assert run_traced("/bin/cat", input=ODD_BYTES).stdout == ODD_BYTES


def test_stderr_passes_byte_for_byte(invoke, tmp_path):
    """What the command writes to stderr is there unchanged, before the line of ours."""
    finished = invoke("run", "-o", tmp_path / "o", "--", "/bin/sh", "-c", "cat >&2", input=ODD_BYTES)

    assert finished.stderr.startswith(ODD_BYTES)
    assert finished.stderr.count(ODD_BYTES) == 1


def test_nothing_of_ours_is_on_stdout(run_traced):
    """A command that prints nothing leaves stdout empty."""
    assert run_traced("/bin/true").stdout == b""


def test_arguments_after_the_dashes_are_the_commands(run_traced):
    """Options after `--` are the command's, ours by name too; empty and non-UTF-8 ones survive."""
    words = [b"-o", b"--live", b"", b"--", b"\xff\xfe", b"a b"]

    assert run_traced("/usr/bin/printf", "%s|", *words).stdout == b"|".join([*words, b""])


def test_a_command_is_found_by_its_path(run_traced):
    """A bare name is looked up in PATH, and the execve that succeeds is a span of the run."""
    run = run_traced("true")
    (execve,) = run.calls("execve", return_value=0)

    assert run.status == 0
    assert execve.attributes["file.path"].endswith("/true")


def test_the_first_span_is_the_commands_execve(run_traced):
    """Nothing comes before the command's own execve: not our preparations for it."""
    run = run_traced("/bin/true")

    assert (run.calls()[0].name, run.calls()[0].return_value) == ("execve", 0)
    assert run.calls()[0].attributes["file.path"] == "/bin/true"


def test_the_last_span_is_the_commands_exit(run_traced):
    """The last call of the command, exit_group, is there."""
    assert run_traced("/bin/true").calls()[-1].name == "exit_group"


@pytest.mark.each_kernel
def test_children_and_grandchildren_are_followed(run_traced):
    """Processes of a shell, one inside the other, are below each other and have calls of their own."""
    script = "/bin/echo one; /bin/sh -c '/bin/echo two; exit 4'; exit 5"
    run = run_traced("/bin/sh", "-c", script)
    echoes = [span for span in run.processes() if span.name == "echo"]
    shells = [span for span in run.processes() if span.name != "echo"]

    assert run.stdout == b"one\ntwo\n"
    assert [span.parent_id for span in echoes] == [span.span_id for span in shells]
    assert [span.attributes["process.exit.code"] for span in shells] == [5, 4]
    assert all(run.calls("write", pid=span.pid) for span in echoes)


def test_a_strangers_calls_are_not_there(run_traced, start):
    """A process that is no child of the command leaves no span, however busy it is."""
    stranger = start("/bin/sh", "-c", "echo busy; while :; do :; done < /dev/null")
    stranger.stdout.readline()
    run = run_traced("/bin/true")

    assert {span.pid for span in run.calls()} == {run.processes()[0].pid}
    assert stranger.pid not in {span.pid for span in run.spans}


def test_a_child_in_the_background_is_left_alone(invoke, tmp_path, eventually):
    """We end with the command: a child that it left behind is neither waited for nor ended."""
    script = "/bin/sleep 60 > /dev/null 2>&1 < /dev/null & echo $!"
    finished = invoke("run", "-o", tmp_path / "o", "--", "/bin/sh", "-c", script)
    left = Path("/proc", finished.stdout.decode().strip())

    assert finished.returncode == 0
    eventually(lambda: b"sleep" in (left / "cmdline").read_bytes(), "the child to be what it is")
    os.kill(int(left.name), signal.SIGKILL)


def test_a_closed_reader_ends_the_command(start_agent, tmp_path):
    """The command gets SIGPIPE itself when the reader of its output is gone: 128 + 13."""
    process = start_agent("run", "-o", tmp_path / "o", "--", "/usr/bin/yes")
    process.stdout.readline()
    process.stdout.close()
    process.stdout = None

    assert process.wait(timeout=60) == 128 + 13
