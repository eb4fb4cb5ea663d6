"""The slots of targets: none outlives its thread, and where a thread's place is taken it has one elsewhere."""

import subprocess
import sys

import pytest

from otel_sysexit.kernel.request import PENDING_PLACES

# Runs in a process of its own, as the agent would: attaches and starts the program to follow. With one place
# for all, a process that is left out has it before the program comes.
START = """
import dataclasses, os, signal, sys, time
from otel_sysexit.config import resolve
from otel_sysexit.kernel.capture import Capture
from otel_sysexit.kernel.handover import Loader
from otel_sysexit.kernel.records import Ledger
from otel_sysexit.startup import make_request
from otel_sysexit.targets import Targets

places = int(sys.argv.pop(1))
config = resolve("run", {"syscalls": "getppid,clock_nanosleep", "args": "none"}, {})
request = dataclasses.replace(make_request(config, Targets()), pending_places=places)
with Loader(request) as loader:
    capture = Capture(request, loader.descriptors())
occupant = os.fork()
if occupant == 0:
    time.sleep(600)
if places == 1:
    capture.add_thread(occupant, is_excluded=True)
gate_out, gate = os.pipe()
child = os.fork()
if child == 0:
    os.read(gate_out, 1)
    os.execv(sys.argv[1], sys.argv[1:])
capture.launch_thread(child)
os.write(gate, b"!")
"""
# Waits for the program's first call; then says whether its slot is where its id names, and that of the occupant still is not.
SETTLE = """
while not capture.ledger()[Ledger.SEEN]:
    time.sleep(0.01)
in_places = {int(owner) for owner in capture._slots._owners.read()[1].view("<u4").ravel()}
print(int(child in in_places), int(occupant in in_places), int(capture.has_targets()))
for pid in (child, occupant):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
"""
# Counts the slots after the ends of both.
COUNT = """
while not os.waitpid(child, os.WNOHANG)[0]:
    capture.tasks.read(capture.tasks.waiting())
    capture.calls.read(capture.calls.waiting())
    capture.exec_strings.read(capture.exec_strings.waiting())
os.kill(occupant, signal.SIGKILL)
os.waitpid(occupant, 0)
ledger = capture.ledger()
print(int(capture.has_targets()), ledger[Ledger.THREADS_UNFOLLOWED], ledger[Ledger.SEEN])
"""
# Takes the slot away while the program sleeps.
CUT_OFF = """
while not len(capture.in_flight()):
    time.sleep(0.01)
capture.remove_thread(child)
for pid in (child, occupant):
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
ledger = capture.ledger()
print(ledger[Ledger.SEEN] - ledger[Ledger.EMITTED], ledger[Ledger.DROPPED_OVERWRITTEN], int(capture.has_targets()))
"""


def run(script, places, *command, environment):
    """Run *script* over *command*, with room for *places* slots in the array; return the words it printed last."""
    done = subprocess.run(
        [sys.executable, "-c", START + script, str(places), *command],
        check=True,
        capture_output=True,
        timeout=400,
        env=environment,
    )
    return list(map(int, done.stdout.split()[-3:]))


PLACES = pytest.mark.parametrize("places", [PENDING_PLACES, 1], ids=["in its place", "elsewhere"])


@PLACES
@pytest.mark.parametrize(("kind", "count"), [("threads", 200_000), ("processes", 50_000)])
def test_no_slot_outlives_its_thread(build, environment, kind, count, places):
    """After 200,000 short-lived threads, or 50,000 processes that exec, exit or are killed, no slot is left."""
    has_targets, unfollowed, seen = run(
        COUNT, places, build("short_lives"), kind, str(count), environment=environment
    )

    assert (has_targets, unfollowed) == (0, 0)
    assert seen >= (count if kind == "threads" else 0)


@PLACES
def test_a_call_whose_slot_is_taken_away_is_counted(environment, places):
    """Who is no target any more may be in a call: it is one whose end was not seen, not one that nobody knows of."""
    assert run(CUT_OFF, places, "/bin/sleep", "60", environment=environment) == [1, 1, 0]


def test_a_slot_moves_to_its_place_with_the_next_call(environment):
    """What the agent made is found without hashing from its thread's first call on; where the place is free, and only then."""
    assert run(SETTLE, PENDING_PLACES, "/bin/sleep", "60", environment=environment) == [1, 0, 1]
