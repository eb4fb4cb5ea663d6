"""Programs that perf calls, as where raw tracepoints can be preempted: they tell of a program what the others tell of it."""

import os
import subprocess
import sys
from collections import Counter
from functools import partial

import pytest
from live.native import MACHINE

# The agent, as on a kernel of the other kind.
AGENT = """
import sys
from otel_sysexit.kernel import loader, macros, tracepoints

macros.is_preemptible = lambda offset: True
attach = loader.attach

def attach_by_perf(tracepoint, program_fd, is_event):
    assert is_event == (tracepoint in tracepoints.EVENTS)
    return attach(tracepoint, program_fd, is_event=is_event)

loader.attach = attach_by_perf
from otel_sysexit.__main__ import main

main()
"""
BY_EVENTS = (sys.executable, "-c", AGENT)


@pytest.fixture(scope="module")
def by_events(run_traced, environment, tmp_path_factory):
    """Return the same as `run_traced`, with programs that perf calls, on any kernel; they are compiled for a kernel that there is not."""
    cache = {"OTEL_SYSEXIT_CACHE": str(tmp_path_factory.mktemp("cache"))}
    return partial(run_traced, agent=BY_EVENTS, env=environment | cache)


# Those that make the same calls each time.
PROGRAMS = [("getppid", "997"), ("calls",), ("fork",), ("exec_path", "/bin/true")]


@pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program[0])
def test_programs_are_told_the_same(run_traced, by_events, build, program):
    """As many spans of each name and outcome, whoever calls the programs."""
    name, *arguments = program
    traces = [run(build(name), *arguments) for run in (run_traced, by_events)]

    raw, by_perf = (
        Counter((span.name, span.attributes.get("error.type")) for span in trace.calls()) for trace in traces
    )
    assert by_perf == raw


def test_i386_calls_are_told_the_same(run_traced, by_events, build32):
    """The ABI, numbers and arguments of 32-bit calls are the same."""
    traces = [run(build32("i386")) for run in (run_traced, by_events)]

    raw, by_perf = (
        Counter((span.name, span.attributes.get("syscall.abi")) for span in trace.calls()) for trace in traces
    )
    assert by_perf == raw


def test_arguments_are_told_the_same(run_traced, by_events):
    """Paths, descriptors and flags are those that the others have."""
    command = ("/bin/cat", "/etc/hostname", "/nonexistent")
    traces = [run(*command, options=("--syscalls", "openat,read")) for run in (run_traced, by_events)]

    raw, by_perf = (
        [
            (span.name, span.attributes.get("file.path"), span.attributes.get("syscall.arg.flags"))
            for span in trace.calls()
        ]
        for trace in traces
    )
    assert by_perf == raw
    assert ("openat", "/etc/hostname") in [one[:2] for one in by_perf]


PERF_EVENT_OPEN = {"x86_64": "298", "aarch64": "241"}
# Counts its own calls by perf while an agent is at work, with a tracefs that only it sees.
COUNT = """
import ctypes, os, struct, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
if not os.path.ismount("/sys/kernel/tracing"):
    assert libc.mount(b"tracefs", b"/sys/kernel/tracing", b"tracefs", 0, None) == 0
event = int(open("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id").read())
# type (tracepoint), size, config, sample_period, sample_type, read_format, flags, wakeup_events, bp_type, bp_addr.
attributes = struct.pack("=IIQQQQQIIQ", 2, 64, event, 0, 0, 0, 0, 0, 0, 0)
counter = libc.syscall({number}, attributes, 0, -1, -1, 0)
assert counter >= 0
agent = subprocess.Popen(
    [*sys.argv[1:], "run", "--exporter", "none", "--", "sh", "-c", "echo ready; read word"],
    stdin=subprocess.PIPE, stdout=subprocess.PIPE,
)
assert agent.stdout.readline() == b"ready\\n"
before = os.read(counter, 8)
for _ in range(1000):
    os.getppid()
print(struct.unpack("=Q", os.read(counter, 8))[0] - struct.unpack("=Q", before)[0])
agent.communicate(b"\\n")
assert agent.returncode == 0
"""


def test_others_see_the_events_still(environment):
    """Whoever counts calls by perf meanwhile counts all of them: our programs do not keep the events to themselves."""
    done = subprocess.run(
        [
            "unshare",
            "--mount",
            sys.executable,
            "-c",
            COUNT.replace("{number}", PERF_EVENT_OPEN[MACHINE]),
            *BY_EVENTS,
        ],
        check=True,
        capture_output=True,
        timeout=60,
        env=environment | {"OTEL_SYSEXIT_CACHE": "off"},
    )

    assert int(done.stdout) >= 1000


def test_the_events_are_not_left_behind(by_events):
    """The place where tracefs was mounted for the loader is as it was."""
    before = os.path.ismount("/sys/kernel/tracing")
    by_events("/bin/true")

    assert os.path.ismount("/sys/kernel/tracing") == before
