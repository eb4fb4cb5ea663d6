"""Several rings of calls, as many as there are CPUs: nothing is lost between them, whoever writes to which."""

import sys

import pytest

RINGS = ("--rings", "8")
# Goes from CPU to CPU, and makes a call on each.
WANDERER = """
import os
cpus = sorted(os.sched_getaffinity(0))
for turn in range(300):
    os.sched_setaffinity(0, {cpus[turn % len(cpus)]})
    os.getppid()
"""


@pytest.mark.each_kernel
def test_every_call_of_every_ring_is_a_span(run_traced, build):
    """Five threads on all CPUs make 997 calls each."""
    run = run_traced(build("getppid"), "997", "5", options=RINGS)

    assert len(run.calls("getppid")) == 5 * 997


def test_calls_of_a_thread_that_moves_keep_their_order(run_traced):
    """Its calls go to another ring each time; by their starts they are in the order in which they were made."""
    run = run_traced(
        sys.executable, "-c", WANDERER, options=(*RINGS, "--syscalls", "sched_setaffinity,getppid")
    )

    assert [span.name for span in run.calls()] == ["sched_setaffinity", "getppid"] * 300


def test_paths_find_their_calls_in_every_ring(run_traced):
    """Strings are in one ring for all: each call has the path that it was given."""
    paths = [f"/no/such/file/{number}" for number in range(500)]
    script = "import os, sys\nfor path in sys.argv[1:]: os.access(path, 0)"
    commands = " & ".join(f"{sys.executable} -c '{script}' {' '.join(paths)}" for _ in range(2))
    run = run_traced(
        "sh", "-c", f"{commands} & wait", options=(*RINGS, "--syscalls", "access,faccessat,faccessat2")
    )
    found = [
        path for span in run.calls() if (path := span.attributes["file.path"]).startswith("/no/such/file/")
    ]

    assert sorted(found) == sorted(paths * 2)


def test_a_process_ends_after_its_last_call(run_traced):
    """Many short processes on all CPUs: each has its exit, whichever ring it is in."""
    run = run_traced("sh", "-c", "for i in $(seq 100); do /bin/true & done; wait", options=RINGS)
    exits = [span for span in run.calls("exit_group") if span.resource["process.executable.name"] == "true"]

    assert len({span.resource["process.pid"] for span in exits}) == 100
