"""The command line as a user meets it: every mistake is one line and a defined exit status."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import otel_sysexit
from otel_sysexit.settings import SETTINGS

FAILURE = 125
USAGE = 2
NO_PROCESS = str(2**22 - 1)  # the largest id that Linux may give out, and hardly ever does


def otel_sysexit_cli(
    *arguments: str, environ: dict[str, str] | None = None, python: tuple[str, ...] = ()
) -> subprocess.CompletedProcess:
    """Run the command line in a clean environment."""
    return subprocess.run(
        [sys.executable, *python, "-m", "otel_sysexit", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env={"PATH": os.environ["PATH"], "LANG": "C.UTF-8"} | (environ or {}),
        cwd=Path(otel_sysexit.__file__).parents[1],
    )


def assert_one_line(done: subprocess.CompletedProcess, *words: str, status: int = FAILURE) -> None:
    """Assert that a run failed with one line of ours that has these words."""
    assert done.stdout == ""
    assert done.stderr.startswith("otel-sysexit: ")
    assert done.stderr.count("\n") == 1, done.stderr
    assert [word for word in words if word not in done.stderr] == []
    assert done.returncode == status


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["Missing command"]),
        (["trace"], ["No such command 'trace'"]),
        (["--bogus"], ["No such option '--bogus'"]),
        (["run"], ["Missing argument 'COMMAND"]),
        (["run", "--"], ["Missing argument 'COMMAND"]),
        (["run", "--bogus", "--", "true"], ["No such option '--bogus'"]),
        (["run", "--pid", "1", "--", "true"], ["No such option '--pid'"]),
        (["run", "--ring-size"], ["'--ring-size' requires an argument"]),
        (["attach", "extra"], ["extra"]),
    ],
)
def test_a_mistake_is_one_line(arguments, words):
    """What is no command line of ours is said in one line, without a traceback, and ends with 2."""
    assert_one_line(otel_sysexit_cli(*arguments), *words, status=USAGE)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "--syscalls", "opennat", "--", "true"], ["--syscalls", "'opennat'", "nearest: openat"]),
        (["run", "--syscalls", "%nett", "--", "true"], ["'%nett'", "nearest: %net"]),
        (["run", "--syscalls", "a\nb", "--", "true"], [r"'a\nb'"]),
        (["run", "--min-duration", "5", "--", "true"], ["--min-duration: '5' is no duration"]),
        (["run", "--endpoint", "ftp://c", "--", "true"], ["--endpoint: 'ftp://c' is no endpoint"]),
        (["run", "--header", "nothing", "--", "true"], ["--header: 'nothing' is not name=value"]),
        (["run", "--sample", "0", "--", "true"], ["--sample: '0' is no rate above 0 and up to 1"]),
        (["run", "--sample", "2/1", "--", "true"], ["--sample: '2/1' is no rate above 0 and up to 1"]),
        (["run", "--max-rate", "-1", "--", "true"], ["--max-rate: '-1' is no number of spans a second"]),
        (["run", "--errno", "EWHAT", "--", "true"], ["--errno: no errno is called 'EWHAT'"]),
        (["run", "--keep-slow", "read=x", "--", "true"], ["--keep-slow: 'x' is no duration"]),
        (["run", "--args", "all", "--", "true"], ["--args: 'all' is not one of none, numbers, decoded"]),
        (["run", "--string-limit", "9", "--", "true"], ["--string-limit: '9' is no number of bytes from"]),
        (["run", "--not-exe", "ls", "--", "true"], ["--not-exe: 'ls' is no absolute path"]),
        (["attach"], ["--pid"]),
        (["attach", "--not-pid", "1"], ["--pid"]),
        (["attach", "--all", "--pid", "1"], ["--all", "--pid"]),
        (["attach", "--tid", NO_PROCESS], [f"there is no thread {NO_PROCESS}"]),
        (["attach", "--cgroup", "/no/such/cgroup"], ["there is no cgroup '/no/such/cgroup'"]),
        (["attach", "--container", "0123456789ab"], ["no container", "0123456789ab"]),
        (["attach", "--uid", "no such user"], ["--uid: there is no user 'no such user'"]),
        (["attach", "--exe", "/bin/[ab]"], ["--exe: '/bin/[ab]': [] is not supported"]),
        (["attach", "--pid", "x"], ["--pid: 'x' is no process id"]),
        (["attach", "--pid", NO_PROCESS], [f"there is no process {NO_PROCESS}"]),
        (["attach", "--pid", "1", "--duration", "1d"], ["--duration: '1d' is no duration"]),
        (["attach", "--pid", "1", "--duration", "0s"], ["--duration: '0s' is no time at all"]),
    ],
)
def test_an_impossible_wish_is_one_line(arguments, words):
    """What an option cannot mean is said in one line that names it."""
    assert_one_line(otel_sysexit_cli(*arguments), *words, status=USAGE)


@pytest.mark.parametrize(
    ("environ", "words", "status"),
    [
        ({"OTEL_SYSEXIT_SYSCALLS": "opennat"}, ["OTEL_SYSEXIT_SYSCALLS", "nearest: openat"], USAGE),
        ({"OTEL_SYSEXIT_QUIET": "1"}, ["OTEL_SYSEXIT_QUIET: '1' is neither true nor false"], USAGE),
        ({"OTEL_CONFIG_FILE": "otel.yaml"}, ["OTEL_CONFIG_FILE is set"], USAGE),
        ({"OTEL_SYSEXIT_BCC_PYTHON": "/nowhere/python"}, ["/nowhere/python", "No such file"], FAILURE),
    ],
)
def test_a_mistake_in_the_environment_is_one_line(environ, words, status):
    """A variable of ours that is wrong is named as an option would be."""
    assert_one_line(otel_sysexit_cli("run", "--", "true", environ=environ), *words, status=status)


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (
            ["-o", "/nowhere/file.jsonl", "--", "true"],
            "cannot write /nowhere/file.jsonl: No such file",
            FAILURE,
        ),
        (["-o", "/", "--", "true"], "cannot write /: Is a directory", FAILURE),
        (["--", "no-such-command"], "no-such-command: command not found", 127),
        (["--", "{folder}/data"], "/data: permission denied", 126),
    ],
)
def test_what_is_tried_can_fail(tmp_path, arguments, words, status):
    """What only trying shows is one line, too; for the command the status is a shell's. Who cannot trace hears that first."""
    (tmp_path / "data").touch()
    done = otel_sysexit_cli("run", *(argument.format(folder=tmp_path) for argument in arguments))
    if re.search(r"\b(BPF|bcc|BTF|pid namespace)\b", done.stderr):
        words, status = "", FAILURE

    assert_one_line(done, words, status=status)


def test_the_agent_does_not_trace_itself():
    """Attaching to its own process is refused; a wrapper's exec keeps the process id."""
    shell = f"exec {sys.executable} -m otel_sysexit attach --pid $$"
    done = subprocess.run(
        ["/bin/sh", "-c", shell],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(otel_sysexit.__file__).parents[1],
    )

    assert_one_line(done, "is this program itself", status=USAGE)


@pytest.mark.skipif(os.geteuid() == 0 and shutil.which("setpriv") is None, reason="root, and no setpriv")
def test_without_privileges_it_says_what_is_needed(tmp_path):
    """Who may not use BPF is told so in one line, and the command does not run."""
    # Isolated from what this user cannot read: the package comes from a path that everyone may.
    prefix = ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all"] if os.geteuid() == 0 else []
    trace = tmp_path / "ran"
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "otel_sysexit", "run", "--", "touch", str(trace)],
        check=False,
        capture_output=True,
        text=True,
        cwd=Path(otel_sysexit.__file__).parents[1],
    )

    assert_one_line(done)
    assert not trace.exists()


@pytest.mark.parametrize("command", ["run", "attach"])
def test_help_lists_every_option(command):
    """--help names each option of the command, with its variables' origin and its default."""
    done = otel_sysexit_cli(command, "--help")
    options = [setting.flag for setting in SETTINGS if command in setting.commands]

    assert done.returncode == 0
    assert [option for option in options if option not in done.stdout] == []


def test_help_lists_every_command():
    """--help alone names the commands."""
    done = otel_sysexit_cli("--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert "\n  attach " in done.stdout
    assert "\n  run " in done.stdout


def test_the_version_is_the_packages():
    """--version prints one line."""
    done = otel_sysexit_cli("--version")

    assert (done.returncode, done.stdout) == (0, f"otel-sysexit {otel_sysexit.__version__}\n")


def test_the_exporters_read_no_variables_of_their_own():
    """Ours is the only reader of OTEL_EXPORTER_OTLP_*; a traced command gets all that was given to us."""
    variables = {
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=b",
        "OTEL_X": "1",
    }
    code = """
import os
from otel_sysexit.__main__ import _ENVIRON as given
for environ in (os.environ, given):
    print([name for name in sorted(environ) if name.startswith("OTEL_")])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        env=variables,
        cwd=Path(otel_sysexit.__file__).parents[1],
    )

    assert done.stdout == f"['OTEL_X']\n{sorted(variables)}\n"


def test_starting_imports_no_compiler_and_no_exporter():
    """What is slow to import is imported when it is needed: --help knows neither gRPC nor requests nor bcc."""
    done = otel_sysexit_cli("--help", python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}

    assert "click" in imported
    assert imported & {"grpc", "requests", "bcc", "rich", "opentelemetry.sdk.trace"} == set()
    assert (
        imported & {"opentelemetry.trace", "google.protobuf", "otel_sysexit.agent", "otel_sysexit.calls"}
        == set()
    )


def test_the_loader_is_started_before_the_rest_is_imported():
    """What a start cannot do without is imported first, and nothing else: the rest while the programs are loaded."""
    code = "import sys, otel_sysexit.startup; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(otel_sysexit.__file__).parents[1],
    )
    late = {"opentelemetry", "google.protobuf", "psutil", "subprocess", "numpy.ma"}
    late |= {
        f"otel_sysexit.{name}"
        for name in ("agent", "calls", "processes", "otlp", "kernel.loader", "kernel.capture")
    }

    assert set(done.stdout.split()) & late == set()
