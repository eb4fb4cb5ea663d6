"""Programs that perf calls, as where raw tracepoints can be preempted: they tell of a program what the others tell of it."""

import os
from collections import Counter

import pytest

# Runs the loader as on a kernel of the other kind.
INTERPRETER = """#!/bin/sh
code=$3
shift 3
exec {python} -I -c "$(printf '%s' "$code" | sed 's/;from .*//')
from otel_sysexit.kernel import loader
loader.is_preemptible = lambda offset: True
loader.main()" "$@"
"""


@pytest.fixture(scope="module")
def by_events(tmp_path_factory) -> tuple[str, str]:
    """The options with which perf calls the programs, on any kernel."""
    path = tmp_path_factory.mktemp("interpreter") / "python"
    path.write_text(INTERPRETER.format(python=os.environ.get("BCC_PYTHON", "/usr/bin/python3")))
    path.chmod(0o755)
    return ("--bcc-python", str(path))


# Those that make the same calls each time.
PROGRAMS = [("getppid", "997"), ("calls",), ("fork",), ("exec_path", "/bin/true")]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program[0])
def test_programs_are_told_the_same(run_traced, build, by_events, program):
    """As many spans of each name and outcome, whoever calls the programs."""
    name, *arguments = program
    traces = [run_traced(build(name), *arguments, options=options) for options in ((), by_events)]

    raw, by_perf = (
        Counter((span.name, span.attributes.get("error.type")) for span in trace.calls()) for trace in traces
    )
    assert by_perf == raw


def test_i386_calls_are_told_the_same(run_traced, build32, by_events):
    """The ABI, numbers and arguments of 32-bit calls are the same."""
    traces = [run_traced(build32("i386"), options=options) for options in ((), by_events)]

    raw, by_perf = (
        Counter((span.name, span.attributes.get("syscall.abi")) for span in trace.calls()) for trace in traces
    )
    assert by_perf == raw


def test_arguments_are_told_the_same(run_traced, by_events):
    """Paths, descriptors and flags are those that the others have."""
    command = ("/bin/cat", "/etc/hostname", "/nonexistent")
    traces = [
        run_traced(*command, options=("--syscalls", "openat,read", *options)) for options in ((), by_events)
    ]

    raw, by_perf = (
        [
            (span.name, span.attributes.get("file.path"), span.attributes.get("syscall.arg.flags"))
            for span in trace.calls()
        ]
        for trace in traces
    )
    assert by_perf == raw
    assert ("openat", "/etc/hostname") in [one[:2] for one in by_perf]


def test_the_events_are_not_left_behind(run_traced, by_events):
    """The place where tracefs was mounted for the loader is as it was."""
    before = os.path.ismount("/sys/kernel/tracing")
    run_traced("/bin/true", options=by_events)

    assert os.path.ismount("/sys/kernel/tracing") == before
