"""`pending`, the map of targets, never fills with the dead."""

import subprocess
import sys

import pytest

# Runs in a process of its own, as the agent would: attaches and starts the program to follow.
START = """
import os, subprocess, sys, time
from otel_sysexit.cli import make_request
from otel_sysexit.config import resolve
from otel_sysexit.kernel.capture import Loader
from otel_sysexit.kernel.records import Ledger
from otel_sysexit.targets import Targets

config = resolve("run", {"syscalls": "getppid,clock_nanosleep", "args": "none"}, {})
with Loader(make_request(config, Targets())) as loader:
    capture = loader.capture()
gate_out, gate = os.pipe()
child = os.fork()
if child == 0:
    os.read(gate_out, 1)
    os.execv(sys.argv[1], sys.argv[1:])
capture.launch_thread(child)
os.write(gate, b"!")
"""
# Counts the slots after its end.
COUNT = """
while not os.waitpid(child, os.WNOHANG)[0]:
    capture.tasks.read(capture.tasks.waiting())
    capture.calls.read(capture.calls.waiting())
    capture.exec_strings.read(capture.exec_strings.waiting())
ledger = capture.ledger()
print(int(capture.has_targets()), ledger[Ledger.THREADS_UNFOLLOWED], ledger[Ledger.SEEN])
"""
# Takes the slot away while the program sleeps.
CUT_OFF = """
while not len(capture.in_flight()):
    time.sleep(0.01)
capture.remove_thread(child)
ledger = capture.ledger()
print(ledger[Ledger.SEEN] - ledger[Ledger.EMITTED], ledger[Ledger.DROPPED_OVERWRITTEN], int(capture.has_targets()))
os.kill(child, 9)
os.waitpid(child, 0)
"""


@pytest.mark.parametrize(("kind", "count"), [("threads", 200_000), ("processes", 50_000)])
def test_no_slot_outlives_its_thread(build, environment, kind, count):
    """After 200,000 short-lived threads, or 50,000 processes that exec, exit or are killed, no slot is left."""
    done = subprocess.run(
        [sys.executable, "-c", START + COUNT, build("short_lives"), kind, str(count)],
        check=True,
        capture_output=True,
        timeout=400,
        env=environment,
    )
    has_targets, unfollowed, seen = map(int, done.stdout.split()[-3:])

    assert (has_targets, unfollowed) == (0, 0)
    assert seen >= (count if kind == "threads" else 0)


def test_a_call_whose_slot_is_taken_away_is_counted(environment):
    """Who is no target any more may be in a call: it is one whose end was not seen, not one that nobody knows of."""
    done = subprocess.run(
        [sys.executable, "-c", START + CUT_OFF, "/bin/sleep", "60"],
        check=True,
        capture_output=True,
        timeout=60,
        env=environment,
    )

    assert done.stdout.split()[-3:] == [b"1", b"1", b"0"]
