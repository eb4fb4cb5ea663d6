"""Calls that a tracer or the program itself tampers with: what the kernel did is what is told."""

import pytest

pytestmark = pytest.mark.each_kernel


def test_a_changed_number_is_the_one_that_ran(trace):
    """A getppid that a tracer turned into getpid is a getpid span with getpid's result."""
    run = trace("ptrace_calls", "change")
    span = run.assert_returned(run.fact("call", "tampered"), "getpid", number=39)

    assert span.return_value == span.tid


def test_a_changed_number_leaves_no_trace_of_the_old_one(trace):
    """The only getppid span of the child is the one that nobody tampered with."""
    run = trace("ptrace_calls", "change")
    fact = run.fact("call", "untouched")

    assert run.calls("getppid", tid=fact["tid"]) == [run.assert_returned(fact, "getppid")]


def test_a_skipped_call_is_number_minus_one(trace):
    """A call that a tracer skips is syscall_-1 and fails with ENOSYS, as the kernel sees it."""
    run = trace("ptrace_calls", "skip")
    span = run.span_of(run.fact("call", "tampered"), number=-1)

    assert (span.name, span.abi, span.return_value, span.error_type) == (
        "syscall_-1",
        "x86_64",
        -38,
        "ENOSYS",
    )


def test_a_tracers_invented_result_is_invisible(trace):
    """The -77 that the tracer gave its child comes after the kernel's own end of the call."""
    run = trace("ptrace_calls", "skip")

    assert run.fact("call", "tampered")["ret"] == -77
    assert run.calls(return_value=-77) == []


def test_an_emulated_call_is_not_executed(trace):
    """A call emulated with PTRACE_SYSEMU is not executed, of no length, with the tracer's value."""
    run = trace("ptrace_calls", "emulate")
    fact = run.fact("call", "tampered")
    span = run.span_of(fact)

    assert (span.name, span.is_executed, span.duration) == ("getppid", False, 0)
    assert span.return_value == fact["ret"] == 4242


def test_the_call_after_a_tampered_one_is_right(trace):
    """Whatever the tracer did, the next call has its own number, length and result."""
    for mode in ("change", "skip", "emulate"):
        run = trace("ptrace_calls", mode)
        span = run.assert_returned(run.fact("call", "untouched"), "getppid")
        assert span.duration > 0


def test_a_dispatched_call_is_invisible(trace):
    """A call that syscall user dispatch hands to the program itself leaves no span at all."""
    run = trace("user_dispatch")

    assert run.fact("call", "dispatched")["ret"] == 4242
    assert run.calls("getppid") == []


def test_a_dispatched_calls_handler_is_visible(trace, without_result):
    """What the dispatch leaves behind is its handler's rt_sigreturn, without a result."""
    run = trace("user_dispatch")
    (span,) = run.calls("rt_sigreturn")

    without_result(span)


def test_the_call_after_a_dispatched_one_is_right(trace):
    """The next call that does reach the kernel is paired with itself."""
    run = trace("user_dispatch")

    run.assert_returned(run.fact("call", "not dispatched"), "getpid")
