"""The command to run: found as a shell finds it, held until released, and ended as a shell would say."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

import otel_sysexit
from otel_sysexit.command import CommandError, find_executable

CHECKOUT = Path(otel_sysexit.__file__).parents[1]
DEADLINE_S = 20


def run_code(code: str, *arguments: object, **facts: object) -> subprocess.CompletedProcess:
    """Run Python code that has Command, in a process without threads, as the agent is when it forks."""
    head = "import os, signal, sys, time\nfrom otel_sysexit.command import Command, CommandError\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(code), *map(str, arguments)],
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        cwd=CHECKOUT,
        **facts,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a program, a file that is none, and a folder."""
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 7\n")
    program.chmod(0o755)
    (tmp_path / "data").touch(0o644)
    (tmp_path / "folder").mkdir()
    return tmp_path


def test_a_bare_name_is_looked_up_in_path(folder):
    """Without a slash, the first folder of PATH that has it counts."""
    assert find_executable("program", f"/nowhere:{folder}:/bin") == f"{folder}/program"


def test_a_name_with_a_slash_is_a_file(folder):
    """With a slash, PATH does not matter."""
    assert find_executable(f"{folder}/program", "/nowhere") == f"{folder}/program"


@pytest.mark.parametrize(
    ("name", "status", "reason"),
    [
        ("nothing", 127, "nothing: command not found"),
        ("{folder}/nothing", 127, "command not found"),
        ("data", 126, "data: permission denied"),
        ("{folder}/data", 126, "permission denied"),
        ("{folder}/folder", 126, "is a directory"),
        ("folder", 127, "folder: command not found"),
        ("{folder}/data/below", 127, "command not found"),
        ("", 127, "command not found"),
    ],
)
def test_what_cannot_be_started_has_a_shells_status(folder, name, status, reason):
    """127 for what is not there, 126 for what may not be executed, and why."""
    with pytest.raises(CommandError, match=reason) as caught:
        find_executable(name.format(folder=folder), str(folder))

    assert caught.value.exit_status == status


def test_the_command_waits_until_it_is_released(tmp_path):
    """Nothing of the command happens before release(), and then it does."""
    trace = tmp_path / "ran"
    done = run_code(
        """
        trace = sys.argv[1]
        command = Command(["touch", trace], os.environ, ())
        deadline = time.monotonic() + 10
        # At its gate, the child sleeps: it is there, and has not run the command.
        while open(f"/proc/{command.pid}/stat").read().rpartition(")")[2].split()[0] != "S":
            assert time.monotonic() < deadline
        assert not os.path.exists(trace)
        command.release()
        assert command.reap() == 0
        assert os.path.exists(trace)
        """,
        trace,
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("script", "status"), [("exit 0", 0), ("exit 3", 3), ("kill -9 $$", 137), ("kill -TERM $$", 143)]
)
def test_the_status_is_a_shells(script, status):
    """The exit code, or 128 and the signal's number."""
    done = run_code(
        """
        command = Command(["sh", "-c", sys.argv[1]], os.environ, ())
        command.release()
        print(command.reap())
        """,
        script,
    )

    assert (done.stdout, done.stderr) == (f"{status}\n", "")


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"\x7fELF nonsense", 126, "Exec format error"),
        (b"#!/nowhere/interpreter\n", 127, "No such file or directory"),
    ],
)
def test_what_the_kernel_refuses_is_said(tmp_path, content, status, reason):
    """An execve that fails ends the child and is reported in one line, with a shell's status."""
    program = tmp_path / "program"
    program.write_bytes(content)
    program.chmod(0o755)
    done = run_code(
        """
        command = Command([sys.argv[1]], os.environ, ())
        try:
            command.release()
        except CommandError as error:
            print(error.exit_status, error)
        """,
        program,
    )

    assert (done.stdout, done.stderr) == (f"{status} {program}: {reason}\n", "")


def test_the_command_gets_its_arguments_and_environment():
    """The argument list and the environment are what was asked for, nothing else."""
    done = run_code(
        """
        command = Command(["env", "A=1"], {"PATH": os.environ["PATH"], "B": "x y"}, ())
        command.release()
        command.reap()
        """
    )

    assert sorted(done.stdout.splitlines()) == ["A=1", "B=x y", f"PATH={os.environ['PATH']}"]


def test_path_is_the_commands_own():
    """The command is looked up in the environment that it gets."""
    done = run_code(
        """
        try:
            Command(["true"], {"PATH": "/nowhere"}, ())
        except CommandError as error:
            print(error)
        """
    )

    assert done.stdout == "true: command not found\n"


def test_no_descriptor_leaks_into_the_command():
    """The command inherits standard input, output and error, and nothing of ours."""
    done = run_code(
        """
        command = Command(["ls", "/proc/self/fd"], os.environ, ())
        command.release()
        command.reap()
        """
    )

    assert done.stdout.split() == ["0", "1", "2", "3"]  # 3 is what ls reads


def test_signals_are_as_a_program_expects_them():
    """What Python ignores or catches for itself is back to normal; the mask is the one that was asked for."""
    done = run_code(
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
        command = Command(["grep", "^Sig", "/proc/self/status"], os.environ, {signal.SIGUSR1})
        command.release()
        command.reap()
        """
    )
    masks = {
        line.split()[0]: int(line.split()[1], 16) for line in done.stdout.splitlines() if "/" not in line
    }

    assert masks["SigBlk:"] == 1 << signal.SIGUSR1 - 1
    assert (
        masks["SigIgn:"] & (1 << signal.SIGPIPE - 1 | 1 << signal.SIGXFSZ - 1 | 1 << signal.SIGINT - 1) == 0
    )


@pytest.mark.parametrize("number", [signal.SIGCHLD, signal.SIGINT])
def test_what_was_ignored_stays_ignored(number):
    """A signal that whoever started us ignores is ignored by the command, too; its status is learnt all the same."""
    done = run_code(
        """
        command = Command(["grep", "^SigIgn", "/proc/self/status"], os.environ, ())
        command.release()
        assert command.reap() == 0
        """,
        preexec_fn=lambda: signal.signal(number, signal.SIG_IGN),
    )
    ignored = int(done.stdout.split()[1], 16)

    assert done.stderr == ""
    assert ignored & 1 << number - 1


def test_a_command_that_is_discarded_never_ran(tmp_path):
    """discard() ends the child before it became the command."""
    trace = tmp_path / "ran"
    done = run_code(
        """
        command = Command(["touch", sys.argv[1]], os.environ, ())
        command.discard()
        print(os.path.exists(f"/proc/{command.pid}"))
        """,
        trace,
    )

    assert done.stdout == "False\n"
    assert not trace.exists()


def test_the_command_dies_with_an_agent_that_dies(tmp_path):
    """When the agent is killed before it released the command, nothing is run and nobody waits for ever."""
    trace = tmp_path / "ran"
    done = run_code(
        """
        command = Command(["touch", sys.argv[1]], os.environ, ())
        print(command.pid, flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        trace,
    )
    deadline = time.monotonic() + DEADLINE_S
    while _lives(int(done.stdout)):
        assert time.monotonic() < deadline, "the child still waits"
        time.sleep(0.01)

    assert done.returncode == -signal.SIGKILL
    assert not trace.exists()


def test_a_signal_reaches_the_command():
    """send_signal() goes to the command, and to nobody when it has ended."""
    done = run_code(
        """
        command = Command(["sleep", "60"], os.environ, ())
        command.release()
        command.send_signal(signal.SIGTERM)
        print(command.reap())
        command.send_signal(signal.SIGTERM)
        """
    )

    assert (done.stdout, done.stderr) == ("143\n", "")


def _lives(pid: int) -> bool:
    """Return whether a process runs; a zombie that nobody reaps does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return stat.rpartition(")")[2].split()[0] != "Z"
