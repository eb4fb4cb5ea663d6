"""Interrupted and restarted calls: one span an attempt, and no error that user space never saw."""

import pytest
from live.native import MACHINE, RESTART_SYSCALL_NUMBERS, own_name

pytestmark = pytest.mark.each_kernel

# Younger architectures have ppoll, which is made again.
RESTARTED = ["nanosleep", "poll", "futex"] if MACHINE == "x86_64" else ["nanosleep", "futex"]


def attempts(run, name):
    """Return all spans of the call of this name on the descriptor that the program uses once."""
    descriptor = run.fact("descriptor")["descriptor"]
    spans = run.calls(name, tid=run.fact("call", name)["tid"])
    return [span for span in spans if span.argument("fd") == descriptor]


def test_an_interrupted_call_is_one_span_without_a_result(trace, without_result):
    """A read that a handler interrupts is one interrupted span, though the program sees EINTR."""
    run = trace("interrupted", "eintr")
    (span,) = attempts(run, "read")

    assert run.fact("call", "read")["ret"] == -4
    assert span.is_interrupted
    assert span == run.span_of(run.fact("call", "read"))
    without_result(span)


def test_an_interrupted_call_is_followed_by_rt_sigreturn(trace, without_result):
    """After the interrupted read comes the handler's rt_sigreturn, without a value."""
    run = trace("interrupted", "eintr")
    (read,) = attempts(run, "read")
    (sigreturn,) = run.calls("rt_sigreturn")

    assert sigreturn.start >= read.end
    without_result(sigreturn)


def test_a_restarted_call_is_two_spans(trace, without_result):
    """With SA_RESTART the read is two spans: interrupted, then made again with the program's result."""
    run = trace("interrupted", "restart")
    first, second = attempts(run, "read")

    assert run.fact("call", "read")["ret"] == 1
    assert (first.is_interrupted, second.is_interrupted, second.return_value) == (True, False, 1)
    without_result(first)


def test_a_handler_stands_between_the_attempts(trace):
    """The rt_sigreturn of the handler lies between the two attempts of the read."""
    run = trace("interrupted", "restart")
    first, second = attempts(run, "read")
    (sigreturn,) = run.calls("rt_sigreturn")

    assert first.end <= sigreturn.start <= sigreturn.end <= second.start


@pytest.mark.parametrize("name", RESTARTED)
def test_a_stopped_call_goes_on_as_restart_syscall(trace, without_result, name):
    """A call stopped by SIGSTOP is interrupted; restart_syscall goes on with it and names it."""
    run = trace("stopped", name)
    fact = run.fact("call")
    stopped = run.span_of(fact)
    (restart,) = run.calls("restart_syscall")

    assert (stopped.name, stopped.is_interrupted) == (name, True)
    assert (restart.number, restart.attributes["syscall.restarts"]) == (
        RESTART_SYSCALL_NUMBERS[MACHINE],
        name,
    )
    assert (restart.return_value, restart.tid) == (fact["ret"], stopped.tid)
    assert restart.end <= fact["after"] + run.clock_offset_ns + 1_000_000
    without_result(stopped)


def test_a_call_stopped_twice_is_restarted_twice(trace, without_result):
    """Both restart_syscalls name the first call; the first of them is interrupted itself."""
    run = trace("stopped", "nanosleep", "2")
    first, second = run.calls("restart_syscall")

    assert [span.attributes["syscall.restarts"] for span in (first, second)] == ["nanosleep"] * 2
    assert (first.is_interrupted, second.is_interrupted, second.return_value) == (True, False, 0)
    without_result(first)


def test_attempts_together_last_as_long_as_the_sleep(trace):
    """From the nanosleep's start to its restart's end pass the 700 ms that were asked for."""
    run = trace("stopped", "nanosleep")
    stopped = run.span_of(run.fact("call"))
    (restart,) = run.calls("restart_syscall")

    assert restart.end - stopped.start >= 700_000_000 - 1_000_000


def test_a_tracers_interrupt_restarts_too(trace):
    """A nanosleep interrupted by PTRACE_INTERRUPT goes on as restart_syscall with the program's result."""
    run = trace("ptrace_stopped")
    stopped = run.span_of(run.fact("call"))
    (restart,) = run.calls("restart_syscall")

    assert (stopped.name, stopped.is_interrupted) == ("nanosleep", True)
    assert (restart.attributes["syscall.restarts"], restart.return_value) == ("nanosleep", 0)


def test_only_restart_syscall_restarts(trace):
    """No call of any other name says that it restarts one."""
    run = trace("stopped", "futex")

    assert {span.name for span in run.calls() if "syscall.restarts" in span.attributes} == {"restart_syscall"}


def test_each_restart_names_its_own_call(trace):
    """Of two calls stopped one after the other each restart_syscall names the one it goes on with."""
    spans = trace("other_restart").calls("restart_syscall")

    assert [span.attributes["syscall.restarts"] for span in spans] == ["poll", "nanosleep"]


def test_a_restart_of_a_call_not_chosen_names_no_other(trace):
    """When the set leaves nanosleep out, its restart does not claim to restart the poll before it."""
    run = trace("other_restart", options=("--syscalls", "poll,restart_syscall"))
    poll, nanosleep = run.calls("restart_syscall")

    assert poll.attributes["syscall.restarts"] == "poll"
    assert nanosleep.attributes.get("syscall.restarts") in {None, "nanosleep"}


def test_a_stopped_pause_is_made_again(trace, without_result):
    """A pause has no restart_syscall: after SIGCONT it is a second pause, ended by a handler."""
    run = trace("stopped", "pause")
    first, second = run.calls(own_name("pause"))

    assert run.calls("restart_syscall") == []
    for span in (first, second):
        assert span.is_interrupted
        without_result(span)


def test_a_fork_with_a_signal_pending_is_made_again(trace, without_result):
    """The fork that the kernel gave up is interrupted; the second returns the child's pid."""
    run = trace("fork_interrupted")
    (fact,) = [fact for fact in run.facts_of("call", "fork") if fact["ret"]]
    first, second = run.calls(own_name("fork"), tid=fact["tid"])

    assert (first.is_interrupted, second.is_interrupted) == (True, False)
    assert second.return_value == fact["ret"]
    without_result(first)


# The storm itself is as many calls as the machine is slow: only what it falls on is of interest.
FORKS_ONLY = ("--syscalls", "!kill,!sched_yield,!rt_sigreturn")


def test_forks_in_a_storm_of_signals_are_all_there(trace):
    """Of 100 forks under fire every one that returned is there with its child, in order."""
    run = trace("fork_storm", "100", options=FORKS_ONLY)
    returned = [
        span for span in run.calls(own_name("fork"), tid=run.calls()[0].tid) if not span.is_interrupted
    ]

    # Where fork(2) is clone(2), the first one made the process that sends the signals.
    assert [span.return_value for span in returned][-100:] == [fact["forked"] for fact in run.facts]
    assert len(returned) == (100 if own_name("fork") == "fork" else 101)


def test_children_of_a_storm_are_all_processes(trace):
    """Every child of the storm is a process span in each part of the trace it saw, with one call of its own: exit_group."""
    run = trace("fork_storm", "100", options=FORKS_ONLY)

    for fact in run.facts:
        parts = [span.trace_id for span in run.processes(pid=fact["forked"])]
        assert parts
        assert len(parts) == len(set(parts))
        assert {span.name for span in run.calls(pid=fact["forked"])} <= {"exit_group", "rt_sigreturn"}


@pytest.mark.parametrize("name", ["read", "nanosleep", "futex", "poll"])
def test_a_killed_threads_call_is_interrupted(trace, without_result, name):
    """A call that SIGKILL ends is an interrupted span, its thread's last, without a result."""
    run = trace("sigkill")
    fact = run.fact("call", f"blocked {name}")
    span = run.span_of(fact)

    assert (span.name, span.is_interrupted) == (own_name(name), True)
    assert run.calls(tid=fact["tid"])[-1] == span
    without_result(span)


def test_a_killed_leaders_call_is_interrupted(trace, without_result):
    """The killed leader's pause is an interrupted span too."""
    run = trace("sigkill")
    span = run.span_of(run.fact("call", "leader's pause"))

    assert span.is_interrupted
    without_result(span)


def test_a_killed_process_says_by_what(trace):
    """The killed child's span is an error of type SIGKILL; the command's own is none."""
    run = trace("sigkill")
    (child,) = run.processes(pid=run.fact("killed")["killed"])

    assert (child.error_type, child.status) == ("SIGKILL", 2)
    assert run.processes()[0].error_type is None


def test_rt_sigreturn_never_has_a_result(trace, without_result):
    """rt_sigreturn seems to return whatever rax was, -ENOENT too: its spans claim nothing of it."""
    run = trace("rt_sigreturn")
    spans = run.calls("rt_sigreturn")

    assert len(spans) == len(run.facts) == 8
    for span in spans:
        assert not span.is_interrupted
        without_result(span)


def test_rt_sigreturn_is_found_by_its_own_number(trace):
    """Each rt_sigreturn lies within its handler's readings, by its number."""
    run = trace("rt_sigreturn")

    for fact, span in zip(run.facts, run.calls("rt_sigreturn"), strict=True):
        assert run.span_of(fact) == span
