"""execve: from any thread, into any ABI, with or without success, is one call of the thread that made it."""

import pytest
from live.native import own_name

pytestmark = pytest.mark.each_kernel

BLOCKED = ["read", "pause", "nanosleep", "futex", "poll"]
FAILURES = [("missing", "ENOENT"), ("a directory", "EACCES"), ("not executable", "EACCES")]


def test_the_first_call_is_the_commands_execve(trace):
    """A run's first span is the execve of the command itself, successful, by the command's process."""
    run = trace("exec")
    first = run.calls()[0]

    assert (first.name, first.return_value) == ("execve", 0)
    assert first.pid == first.tid == run.fact("image", 1)["pid"]


@pytest.mark.parametrize(("name", "image"), [("execve", 1), ("execveat", 2)])
def test_a_successful_exec_returns_zero(trace, name, image):
    """A successful execve lies between the old image's last reading and the new one's first."""
    run = trace("exec")
    span = run.span_of(run.fact("call", name))

    assert (span.name, span.return_value, span.errno) == (name, 0, None)
    assert span.end <= run.fact("image", image + 1)["now"] + run.clock_offset_ns + 1_000_000


def test_execs_are_counted(trace):
    """Of two executions by the program and one of it there are two execve and one execveat."""
    run = trace("exec")

    assert (len(run.calls("execve")), len(run.calls("execveat"))) == (2, 1)


def test_an_exec_has_the_path_it_was_given(trace):
    """The path is the one given to execve, though the new image has overwritten the old memory."""
    run = trace("exec")

    assert run.span_of(run.fact("call", "execve")).attributes["file.path"] == "/proc/self/exe"


def test_each_image_has_a_resource_of_its_own(trace):
    """The calls of the three images of one process are under three resources with one pid."""
    run = trace("exec")
    pid = run.fact("image", 1)["pid"]
    spans = [run.span_of(fact) for fact in run.facts_of("call", "own image")]

    assert [span.pid for span in spans] == [pid] * 3
    assert [span.resource["process.command"] for span in spans[1:]] == ["again", "once more"]
    assert len({str(sorted(span.resource.items(), key=str)) for span in spans}) == 3


def test_one_process_has_one_span_over_its_execs(trace):
    """A process that executes twice is still one process span, with its last exit code."""
    run = trace("exec")
    (process,) = run.processes()

    assert (run.status, process.attributes["process.exit.code"]) == (6, 6)


def test_an_exec_by_a_thread_is_its_own_call(trace):
    """An execve by another thread than the leader is one span, under the thread id it was made with."""
    run = trace("exec_thread")
    fact = run.fact("call", "execve")
    span = run.span_of(fact)

    assert (span.return_value, span.tid) == (0, fact["tid"])
    assert fact["tid"] != run.fact("image", 2)["pid"]
    assert len(run.calls("execve")) == 2


@pytest.mark.parametrize("name", BLOCKED)
def test_an_exec_by_a_thread_interrupts_the_others(trace, without_result, name):
    """The other threads' blocked calls end as interrupted before the execve does."""
    run = trace("exec_thread")
    span = run.span_of(run.fact("call", f"blocked {name}"))

    assert (span.name, span.is_interrupted) == (own_name(name), True)
    assert span.end <= run.span_of(run.fact("call", "execve")).end
    without_result(span)


def test_an_exec_by_a_thread_interrupts_the_leader(trace, without_result):
    """The leader's pause ends as interrupted, though its thread id lives on in the new image."""
    run = trace("exec_thread")
    span = run.span_of(run.fact("call", "leader's pause"))

    assert (span.name, span.is_interrupted) == (own_name("pause"), True)
    without_result(span)


def test_the_new_image_goes_on_under_the_leaders_id(trace):
    """After the execve by a thread, calls come under the process's id, paired as ever."""
    run = trace("exec_thread")
    fact = run.fact("call", "second image")
    span = run.assert_returned(fact, "getppid")

    assert span.tid == span.pid == run.fact("image", 2)["pid"]
    assert run.status == 8


@pytest.mark.parametrize(("case", "error"), FAILURES)
@pytest.mark.parametrize("caller", ["leader", "thread"])
def test_a_failed_exec_is_an_ordinary_failure(trace, caller, case, error):
    """A failed execve returns its error, and the thread goes on."""
    run = trace("exec_fail")
    span = run.assert_returned(run.fact("call", f"{caller}, {case}"), "execve")

    assert span.error_type == error


def test_a_failed_exec_changes_nobodys_identity(trace):
    """After failed execs from two threads all calls still belong to the first image."""
    run = trace("exec_fail")

    assert len({span.resource["process.command"] for span in run.calls()[1:]}) == 1
    assert len(run.calls("execve")) == 7


def test_an_exec_from_64_to_32_bits_is_the_callers(trace, build32):
    """An execve from a 64-bit into a 32-bit image keeps number and ABI of the caller."""
    run = trace("exec_path", str(build32("i386")))
    span = run.span_of(run.fact("call", "execve"))

    assert (span.name, span.number, span.abi, span.return_value) == ("execve", 59, "x86_64", 0)


def test_calls_after_an_exec_to_32_bits_are_i386(trace, build32):
    """The new image's calls bear the i386 ABI, name and number."""
    run = trace("exec_path", str(build32("i386")))

    assert run.assert_returned(run.fact("call", "getppid"), "getppid", "i386").number == 64


def test_an_exec_from_32_to_64_bits_is_the_callers(trace32, build):
    """An execve from a 32-bit into a 64-bit image keeps number and ABI of the caller."""
    run = trace32("i386", build("exec"))
    span = run.span_of(run.fact("call", "execve", nr=11))

    assert (span.name, span.number, span.abi, span.return_value) == ("execve", 11, "i386", 0)


def test_calls_after_an_exec_to_64_bits_are_x86_64(trace32, build):
    """The new image's calls bear the x86_64 ABI, name and number."""
    run = trace32("i386", build("exec"))

    assert run.assert_returned(run.facts_of("call", "own image")[0], "getppid").number == 110
