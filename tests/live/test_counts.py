"""Exactly the calls that a program makes become spans: prime numbers of getppid, and the blind spots."""

import pytest

pytestmark = pytest.mark.each_kernel


@pytest.mark.parametrize("count", [0, 1, 23, 997])
def test_every_call_is_one_span(trace, count):
    """So many getppid calls are so many spans."""
    assert len(trace("getppid", str(count)).calls("getppid")) == count


def test_every_thread_is_counted(trace):
    """Each of five threads that make 997 calls has 997 spans under its own id."""
    run = trace("getppid", "997", "5")

    for fact in run.facts:
        assert len(run.calls("getppid", tid=fact["tid"])) == 997
    assert len(run.calls("getppid")) == 5 * 997


def test_every_call_returns_what_the_program_saw(trace):
    """All 997 calls return the number that the program got from its last one."""
    run = trace("getppid", "997")

    assert {span.return_value for span in run.calls("getppid")} == {run.fact("call")["ret"]}


def test_all_calls_lie_within_the_programs_readings(trace):
    """The program's clock readings around its loop enclose every span of it."""
    run = trace("getppid", "997")
    fact = run.fact("call")
    spans = run.calls("getppid")

    assert spans[0].start >= fact["before"] + run.clock_offset_ns - 1_000_000
    assert spans[-1].end <= fact["after"] + run.clock_offset_ns + 1_000_000


def test_the_calls_durations_add_up_to_less_than_the_loop(trace):
    """The spans' lengths together are positive and shorter than the loop that made the calls."""
    run = trace("getppid", "997")
    fact = run.fact("call")

    assert 0 < sum(span.duration for span in run.calls("getppid")) < fact["after"] - fact["before"]


def test_clock_readings_in_user_space_are_invisible(trace):
    """Thousands of vdso readings and one by the vsyscall page leave no span between two calls of ours."""
    run = trace("vdso")
    first, last = (run.span_of(run.fact("call", label)) for label in ("first", "last"))
    between = [span for span in run.calls() if first.end <= span.start < last.start and span.name != "write"]

    assert {span.name for span in between} <= {"gettid", "clock_gettime"}


def test_clock_readings_in_the_kernel_are_counted(trace):
    """Seven readings of the process's CPU time, which the vdso cannot answer, are seven spans."""
    assert len(trace("vdso").calls("clock_gettime")) == 7
