"""Number, name, value, errno and status of calls that succeed or fail in the ordinary ways."""

import errno

import pytest
from otlp_json import STATUS_ERROR, STATUS_UNSET

pytestmark = pytest.mark.each_kernel


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("missing file", "openat"),
        ("bad descriptor", "close"),
        ("would block", "read"),
        ("timed out", "futex"),
        ("present file", "openat"),
        ("large value", "mmap"),
    ],
)
def test_a_call_has_the_programs_result(trace, label, name):
    """Name, value and errno are those that the program saw."""
    run = trace("calls")

    run.assert_returned(run.fact("call", label), name)


@pytest.mark.parametrize(("label", "error"), [("missing file", "ENOENT"), ("bad descriptor", "EBADF")])
def test_a_failure_is_an_error(trace, label, error):
    """A call that failed has the status ERROR and its errno's name as error.type."""
    run = trace("calls")
    span = run.span_of(run.fact("call", label))

    assert (span.status, span.error_type) == (STATUS_ERROR, error)


@pytest.mark.parametrize(
    ("label", "number"),
    [
        ("would block", errno.EAGAIN),
        ("timed out", errno.ETIMEDOUT),
        ("present file", None),
        ("large value", None),
    ],
)
def test_a_success_and_a_benign_failure_are_none(trace, label, number):
    """A call that succeeded, or failed as such calls do every day, leaves the status unset."""
    run = trace("calls")
    span = run.span_of(run.fact("call", label))

    assert (span.status, span.error_type, span.errno) == (STATUS_UNSET, None, number)


def test_arguments_have_the_kernels_names(trace):
    """The call's arguments are there by the kernel's names, in words where there are words, its path as file.path."""
    run = trace("calls")
    span = run.span_of(run.fact("call", "missing file"))

    assert span.attributes["file.path"] == "/nonexistent/file"
    assert (span.argument("dfd"), span.argument("flags")) == ("AT_FDCWD", "O_RDONLY")


def test_each_argument_is_its_own_register(trace):
    """Six arguments of six values have these values at exit, though the result has taken a register by then."""
    run = trace("calls")
    span = run.assert_returned(run.fact("call", "six arguments"), "process_vm_readv")
    names = ("pid", "lvec", "liovcnt", "rvec", "riovcnt", "flags")

    assert [span.argument(name) for name in names] == [1, 2, 3, 4, 5, 6]


def test_a_call_says_which_thread_made_it(trace):
    """Each thread's calls bear its id, and its process's id in the resource."""
    run = trace("getppid", "997", "5")

    for fact in run.facts:
        assert {span.pid for span in run.calls(tid=fact["tid"])} == {run.processes()[0].pid}
