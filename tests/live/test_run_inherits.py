"""The command inherits what it would have inherited without us, and nothing of ours."""

import json
import os
import resource
import signal
import subprocess

import pytest

ENVIRONMENT = {"PATH": os.environ["PATH"], "HOME": "/tmp", "ODD NAME": "ä = b", "EMPTY": ""}


def ignore_and_block():
    """Ignore two signals, as nohup and a shell's background do, and block two others."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1, signal.SIGRTMIN + 3})


def restrict():
    """Set a mask for new files, a lower priority and lower limits."""
    os.umask(0o077)
    os.nice(5)
    resource.setrlimit(resource.RLIMIT_NOFILE, (123, 456))
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (65536, 65536))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def close_stdin():
    """Close the standard input."""
    os.close(0)


def keep():
    """Change nothing."""


@pytest.fixture
def inherited(build, environment, run_traced, tmp_path):
    """Return a function that gives what a program inherits, run by itself and run under us."""

    def run(prepare=keep, **more):
        descriptor = os.open("/dev/zero", os.O_RDONLY)
        os.set_inheritable(descriptor, True)
        keep_tools = {
            name: value for name, value in environment.items() if name.startswith(("PYTHON", "LD_"))
        }
        settings = {
            "env": {**ENVIRONMENT, **keep_tools},
            "cwd": tmp_path,
            "preexec_fn": prepare,
            "close_fds": False,
            "stdin": subprocess.DEVNULL,
            **more,
        }
        try:
            plain = subprocess.run([build("inherited")], check=True, capture_output=True, **settings)
            traced = run_traced(build("inherited"), **settings)
        finally:
            os.close(descriptor)
        return merge(plain.stdout), merge(traced.stdout)

    return run


def merge(output: bytes) -> dict[str, str]:
    """Return a program's facts as one dict."""
    merged = {}
    for line in output.splitlines():
        merged.update(json.loads(line))
    assert len(merged) > 30
    return merged


@pytest.mark.parametrize("prepare", [keep, ignore_and_block, restrict, close_stdin])
def test_the_command_inherits_the_same(inherited, prepare):
    """Signals, descriptors, limits, umask, folder, environment, session, priority: all as without us."""
    plain, traced = inherited(prepare)

    assert traced == plain


def test_the_commands_signals_are_not_pythons(inherited):
    """Python ignores SIGPIPE for itself; the command does not inherit that."""
    _, traced = inherited(restore_signals=True)

    assert int(traced["SigIgn"], 16) & (1 << (signal.SIGPIPE - 1)) == 0


def test_the_comparison_would_notice(inherited):
    """The program does report what these tests compare: a descriptor, a mask and a variable."""
    plain, _ = inherited(ignore_and_block)

    assert "/dev/zero" in plain.values()
    assert int(plain["SigBlk"], 16) & (1 << (signal.SIGUSR1 - 1))
    assert plain["variable ODD NAME"] == "=ä = b"
