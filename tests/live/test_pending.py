"""`pending`, the map of targets, never fills with the dead."""

import subprocess
import sys

import pytest

# Runs in a process of its own, as the agent would: attaches, follows the program, and counts the slots after its end.
COUNT = """
import os, subprocess, sys
from otel_sysexit.cli import make_request
from otel_sysexit.config import resolve
from otel_sysexit.kernel.capture import Loader
from otel_sysexit.kernel.records import Ledger
from otel_sysexit.targets import Targets

config = resolve("run", {"syscalls": "getppid", "args": "none"}, {})
with Loader(make_request(config, Targets())) as loader:
    capture = loader.capture()
gate_out, gate = os.pipe()
child = os.fork()
if child == 0:
    os.read(gate_out, 1)
    os.execv(sys.argv[1], sys.argv[1:])
capture.launch_thread(child)
os.write(gate, b"!")
while not os.waitpid(child, os.WNOHANG)[0]:
    capture.tasks.read(capture.tasks.waiting())
    capture.calls.read(capture.calls.waiting())
    capture.exec_strings.read(capture.exec_strings.waiting())
ledger = capture.ledger()
print(int(capture.has_targets()), ledger[Ledger.THREADS_UNFOLLOWED], ledger[Ledger.SEEN])
"""


@pytest.mark.parametrize(("kind", "count"), [("threads", 200_000), ("processes", 50_000)])
def test_no_slot_outlives_its_thread(build, environment, kind, count):
    """After 200,000 short-lived threads, or 50,000 processes that exec, exit or are killed, no slot is left."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT, build("short_lives"), kind, str(count)],
        check=True,
        capture_output=True,
        timeout=400,
        env=environment,
    )
    has_targets, unfollowed, seen = map(int, done.stdout.split()[-3:])

    assert (has_targets, unfollowed) == (0, 0)
    assert seen >= (count if kind == "threads" else 0)
