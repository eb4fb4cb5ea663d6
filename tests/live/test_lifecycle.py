"""Calls that end a thread, and calls that make a process: no return is invented, none is mistaken."""

import pytest
from live.native import CHILD_RETURNS, CLONE_NUMBERS, MACHINE, own_name
from otlp_json import STATUS_ERROR

pytestmark = pytest.mark.each_kernel

BLOCKED = ["read", "pause", "nanosleep", "futex", "poll"]
BY_FORK = [
    ("fork", 57 if MACHINE == "x86_64" else CLONE_NUMBERS[MACHINE]),
    ("clone", CLONE_NUMBERS[MACHINE]),
    ("clone3", 435),
]


def test_exit_is_a_call_without_a_result(trace, without_result):
    """Each thread's exit(2) is one span under its thread, with the status as argument, without a value."""
    run = trace("exit_thread")
    facts = run.facts_of("call", "thread's exit")

    spans = [run.span_of(fact) for fact in facts]

    assert [span.argument("error_code") for span in spans] == [41, 42, 43]
    for span in spans:
        assert span.name == "exit"
        without_result(span)


def test_the_leaders_exit_ends_the_process(trace):
    """The last thread's exit(2) is its last call and gives the process its exit code."""
    run = trace("exit_thread")
    span = run.span_of(run.fact("call", "leader's exit"))

    assert run.calls()[-1] == span
    assert run.status == 7
    assert run.processes()[0].attributes["process.exit.code"] == 7


def test_a_process_survives_its_leader(trace):
    """After the leader's exit the other thread's calls still come, and it ends the process's span."""
    run = trace("exit_leader")
    (process,) = run.processes()
    leader = run.span_of(run.fact("call", "leader's exit"))
    after = run.assert_returned(run.fact("call", "after the leader"), "getppid")
    last = run.span_of(run.fact("call", "exit_group"))

    assert leader.end <= after.start <= after.end <= last.start
    assert process.end >= last.start
    assert (run.status, process.attributes["process.exit.code"]) == (9, 9)


@pytest.mark.parametrize("caller", ["leader", "thread"])
def test_exit_group_is_one_call_of_its_caller(trace, without_result, caller):
    """exit_group is one span, of the thread that made it, without a value."""
    run = trace("exit_group", caller)
    (span,) = run.calls("exit_group")

    assert span == run.span_of(run.fact("call", "exit_group"))
    assert span.argument("error_code") == 5
    assert run.status == 5
    without_result(span)


@pytest.mark.parametrize("name", BLOCKED)
@pytest.mark.parametrize("caller", ["leader", "thread"])
def test_exit_group_interrupts_the_other_threads_calls(trace, without_result, caller, name):
    """A call that another thread is blocked in ends as interrupted, after the exit_group began."""
    run = trace("exit_group", caller)
    fact = run.fact("call", f"blocked {name}")
    span = run.span_of(fact)

    assert span.name == own_name(name)
    assert span.is_interrupted
    assert span.end >= run.calls("exit_group")[0].start
    assert run.calls(tid=fact["tid"])[-1] == span
    without_result(span)


def test_exit_group_by_a_thread_interrupts_the_leader(trace, without_result):
    """The leader's pause ends as interrupted when another thread ends the process."""
    run = trace("exit_group", "thread")
    span = run.span_of(run.fact("call", "leader's pause"))

    assert span.is_interrupted
    without_result(span)


@pytest.mark.parametrize(("name", "number"), BY_FORK)
def test_the_parent_gets_the_childs_pid(trace, name, number):
    """The parent's call returns the child's pid, within the parent's clock readings."""
    run = trace("fork")
    child = run.fact("child", f"child of {name}")

    call = run.fact("call", name, ret=child["pid"])
    assert run.assert_returned(call, own_name(name)).number == number


@pytest.mark.parametrize(("name", "number"), BY_FORK)
def test_the_childs_return_is_no_call(trace, name, number):
    """A child has no span of the call that made it: it never made that call."""
    run = trace("fork")
    child = run.fact("child", f"child of {name}")

    assert run.calls(tid=child["pid"], number=number) == []


@pytest.mark.parametrize(("name", "status"), [("fork", 11), ("clone", 12), ("clone3", 13)])
def test_a_child_is_a_span_below_its_parents(trace, name, status):
    """A child is a process span with its own exit code, below its parent's, and its calls are below it."""
    run = trace("fork")
    child = run.fact("child", f"child of {name}")
    (process,) = run.processes(pid=child["pid"])
    call = run.assert_returned(run.fact("call", f"child of {name}"), "getppid")

    assert process.parent_id == run.processes()[0].span_id
    assert process.attributes["process.exit.code"] == child["status"] == status
    assert process.status == STATUS_ERROR
    assert call.parent_id == process.span_id
    assert call.return_value == run.processes()[0].pid


def test_a_new_thread_is_the_result_of_clone3(trace):
    """Each thread's id is what a clone3 (or clone) of the leader returned; the thread itself has no such call."""
    run = trace("getppid", "997", "5")
    threads = {fact["tid"] for fact in run.facts}
    spans = run.calls("clone3") + run.calls("clone")

    assert {span.return_value for span in spans} == threads
    assert {span.tid for span in spans} == {run.processes()[0].pid}


def test_every_child_counts_as_unpaired(trace):
    """The ledger calls the three children's returns unpaired, beyond what a childless run has, where they are traced."""
    unpaired = [trace(*command, alone=True).ledger.unpaired for command in (("fork",), ("getppid", "0"))]

    assert unpaired[0] - unpaired[1] == 3 * CHILD_RETURNS[MACHINE]


def test_vfork_lasts_until_the_child_exits(trace):
    """The parent's vfork lasts as long as the child that sleeps 30 ms, and returns its pid."""
    run = trace("vfork")
    child = run.fact("child", "child of vfork")
    (span,) = run.calls(own_name("vfork"), return_value=child["pid"])
    (sleep,) = run.calls("nanosleep", tid=child["pid"])

    run.assert_returned(run.fact("call", "vfork"), own_name("vfork"))
    assert span.duration >= sleep.duration >= 30_000_000
    assert (span.start <= sleep.start, span.end >= sleep.end) == (True, True)


def test_vfork_returns_after_the_childs_exec(trace):
    """The parent's vfork ends not before its child's execve, which is the child's own call."""
    run = trace("vfork")
    child = run.fact("child", "exec after vfork")
    span = run.assert_returned(run.fact("call", "vfork and exec"), own_name("vfork"))
    (execve,) = run.calls("execve", tid=child["pid"])

    assert span.return_value == child["pid"]
    assert execve.return_value == 0
    assert execve.start >= span.start
    assert run.calls(own_name("vfork"), tid=child["pid"]) == []


@pytest.mark.parametrize(("label", "inner"), [("first", 1), ("second", 2)])
def test_a_pid_namespace_is_seen_from_outside(trace, label, inner):
    """A process that calls itself 1 or 2 in its namespace has its outer pid in the spans."""
    run = trace("clone_newpid")
    span = run.assert_returned(run.fact("call", label), "getpid")

    assert span.return_value == inner
    assert span.pid == span.tid == run.fact("call", label)["tid"]


def test_clone_returns_the_pid_as_the_caller_knows_it(trace):
    """Outside, clone returns the outer pid; inside, it returns the namespace's own."""
    run = trace("clone_newpid")
    outer = run.assert_returned(run.fact("call", "clone with a new namespace"), "clone")
    inside = run.assert_returned(run.fact("call", "clone inside"), "clone")

    assert outer.return_value == run.fact("call", "first")["tid"]
    assert inside.return_value == 2


def test_processes_of_a_namespace_hang_below_each_other(trace):
    """The grandchild is below the child, the child below the command."""
    run = trace("clone_newpid")
    outer, first, second = (
        run.processes(pid=run.fact("call", label)["tid"])[0] for label in ("outer", "first", "second")
    )

    assert (second.parent_id, first.parent_id, outer.parent_id) == (first.span_id, outer.span_id, "")
    assert [span.attributes["process.exit.code"] for span in (first, second)] == [21, 22]


def test_a_pid_that_comes_again_is_another_process(trace):
    """Three processes of the same pid are three spans with an end of their own each."""
    run = trace("tid_reuse")
    generations = run.facts_of("generation")
    spans = run.processes(pid=generations[0]["pid"])

    # The process that merely found a free pid comes first.
    assert [span.attributes.get("process.exit.code") for span in spans[2:]] == [61, 62]
    assert spans[1].error_type == "SIGKILL"
    assert len(spans) == 4
    assert len({span.resource["process.creation.time"] for span in spans}) > 1


def test_a_reused_tid_pairs_nothing_of_its_predecessor(trace, without_result):
    """The first process's blocked read ends with it; the second's first call is its own."""
    run = trace("tid_reuse")
    read = run.span_of(run.fact("call", "blocked"))
    second = run.assert_returned(run.fact("call", "generation 1"), "getppid")
    third = run.assert_returned(run.fact("call", "generation 2"), "getuid")

    assert read.is_interrupted
    assert len({read.parent_id, second.parent_id, third.parent_id}) == 3
    assert len(run.calls("read", tid=read.tid)) == 1
    without_result(read)
