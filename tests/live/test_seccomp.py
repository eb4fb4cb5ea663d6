"""Calls that seccomp answers: not executed, of no length, with a result only where user space saw it."""

import pytest
from live.native import CHILD_RETURNS, IS_GUEST, MACHINE, own_name
from otlp_json import STATUS_UNSET

pytestmark = pytest.mark.each_kernel

MODES = ["errno", "zero", "fork", "newborn", "trace", "trap", "kill_thread", "kill_process"]


@pytest.mark.parametrize(
    ("mode", "label", "name"),
    [
        ("errno", "filtered", "getppid"),
        ("zero", "filtered", "getppid"),
        ("trace", "filtered", "getppid"),
        ("fork", "filtered", "fork"),
        ("newborn", "filtered", "getppid"),
        ("newborn", "newborn's first", "getppid"),
    ],
)
def test_an_answered_call_is_not_executed(trace, mode, label, name):
    """The call has the name, value and errno the program saw, no length, and says it was not executed."""
    run = trace("seccomp", mode)
    fact = run.fact("call", label)
    span = run.span_of(fact)

    assert (span.name, span.is_executed, span.duration) == (own_name(name), False, 0)
    assert span.return_value == fact["ret"]
    assert span.errno == (-fact["ret"] if fact["ret"] < 0 else None)


@pytest.mark.parametrize(("mode", "error"), [("errno", "EXDEV"), ("trace", "ENOSYS")])
def test_a_refused_call_is_an_error(trace, mode, error):
    """A call that the filter answered with an errno is an error of that type."""
    run = trace("seccomp", mode)
    span = run.span_of(run.fact("call", "filtered"))

    assert (span.error_type, span.status) == (error, 2)


def test_a_trapped_call_has_no_result(trace, without_result):
    """Under RET_TRAP the value at sys_exit means nothing: the span claims none, and is not executed."""
    run = trace("seccomp", "trap")
    span = run.span_of(run.fact("call", "filtered"))

    assert (span.name, span.is_executed, span.duration) == ("getppid", False, 0)
    without_result(span)


def test_a_traps_handler_returns_without_a_result(trace, without_result):
    """The rt_sigreturn after a trap claims nothing of the value that the handler put in place."""
    run = trace("seccomp", "trap")
    (span,) = run.calls("rt_sigreturn")

    assert span.start >= run.span_of(run.fact("call", "filtered")).end
    without_result(span)


def test_a_call_that_kills_the_process_has_no_result(trace, without_result):
    """Under RET_KILL_PROCESS the call is there, not executed and without a value."""
    run = trace("seccomp", "kill_process")
    fact = run.fact("call", "filtered")
    if IS_GUEST and not run.calls(tid=fact["tid"], number=fact["nr"]):
        pytest.skip("the kernel kills inside seccomp, and no sys_exit follows (until 5.16)")
    span = run.span_of(fact)

    assert (span.name, span.is_executed) == ("getppid", False)
    assert run.calls(tid=span.tid)[-1] == span
    without_result(span)


def test_a_process_killed_by_a_filter_says_so(trace):
    """The child that the filter killed is an error of type SIGSYS."""
    run = trace("seccomp", "kill_process")
    (child,) = run.processes(pid=run.fact("child")["child"])

    assert run.fact("child")["signal"] == 31
    assert (child.error_type, child.status) == ("SIGSYS", 2)


def test_a_call_that_kills_its_thread_only_is_invisible(trace):
    """Under RET_KILL_THREAD, with other threads left, the kernel delivers nothing of the call."""
    run = trace("seccomp", "kill_thread")
    fact = run.fact("call", "filtered")

    assert run.calls("getppid", tid=fact["tid"]) == []


def test_a_killed_threads_process_goes_on(trace):
    """After RET_KILL_THREAD the process's other thread makes its calls and leaves in order."""
    run = trace("seccomp", "kill_thread")
    run.assert_returned(run.fact("call", "beside the filter"), "getppid")

    (child,) = run.processes(pid=run.fact("child")["child"])
    assert child.attributes["process.exit.code"] == run.fact("child")["status"] == 4


@pytest.mark.parametrize("mode", MODES)
def test_calls_beside_the_filter_are_untouched(trace, mode):
    """The call before the filter is executed and has its own result."""
    run = trace("seccomp", mode)
    span = run.assert_returned(run.fact("call", "before the filter"), "getppid")

    assert span.duration > 0


@pytest.mark.parametrize("mode", ["errno", "zero", "fork", "newborn", "trace", "trap"])
def test_the_next_call_is_paired_with_itself(trace, mode):
    """After a call that was not executed the thread's next call has its own number and result."""
    run = trace("seccomp", mode)

    run.assert_returned(run.fact("call", "allowed"), "getpid")


def test_not_executed_calls_are_not_unpaired(trace):
    """A call answered by the filter is seen and emitted: the ledger does not call it unpaired."""
    fork, errno, newborn = (
        trace("seccomp", mode, alone=True).ledger for mode in ("fork", "errno", "newborn")
    )

    # The fork of the child is one; a thread is another.
    assert fork.unpaired == errno.unpaired
    assert newborn.unpaired == errno.unpaired + CHILD_RETURNS[MACHINE]


@pytest.mark.parametrize(("label", "ret"), [("answered", 4242), ("refused", -18)])
def test_a_supervisors_answer_is_the_result(trace, label, ret):
    """A call that a supervisor answers is not executed and returns the supervisor's value or error."""
    run = trace("seccomp_notify")
    span = run.span_of(run.fact("call", label))

    assert (span.name, span.is_executed, span.return_value) == ("getppid", False, ret)
    assert run.fact("call", label)["ret"] == ret


def test_a_call_that_the_supervisor_lets_go_on_is_executed(trace):
    """A continued call is executed; the supervisor's 20 ms lie before it, not in it."""
    run = trace("seccomp_notify")
    fact = run.fact("call", "continued")
    span = run.assert_returned(fact, "getppid")

    assert span.start >= fact["before"] + run.clock_offset_ns + 20_000_000 - 1_000_000
    assert span.duration < fact["after"] - fact["before"] - 20_000_000
    assert span.status == STATUS_UNSET
