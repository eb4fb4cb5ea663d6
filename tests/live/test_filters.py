"""Filters decide in the kernel, and what they leave out is counted, not lost."""

import errno

import pytest
from live.native import CHILD_RETURNS, MACHINE, OPENAT_NUMBERS
from otlp_json import STATUS_ERROR


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        ("getppid", {"getppid"}),
        ("getp*", {"getppid"}),
        ("%file,!execve,!access", {"openat", "newfstatat", "faccessat2"}),
    ],
)
def test_only_chosen_calls_are_recorded(run_traced, build, selection, wanted):
    """Names, globs and classes choose; what begins with ! is taken away."""
    run = run_traced(build("getppid"), "23", options=("--syscalls", selection))

    assert {span.name for span in run.calls()} <= wanted
    assert run.ledger.filtered == 0, "calls outside the set are not looked at, so not seen"


def test_a_chosen_call_is_recorded_every_time(run_traced, build):
    """With getppid alone chosen, all 997 of them are there and nothing else is seen."""
    run = run_traced(build("getppid"), "997", options=("--syscalls", "getppid"))

    assert len(run.calls("getppid")) == run.ledger.seen == 997


def test_all_but_one_call_are_recorded(run_traced, build):
    """A set that begins with ! is everything else."""
    run = run_traced(build("getppid"), "23", options=("--syscalls", "!getppid"))

    names = {span.name for span in run.calls()}
    assert "getppid" not in names
    assert {"execve", "write", "exit_group"} <= names


@pytest.mark.each_kernel
def test_a_return_of_a_call_outside_the_set_is_nothing(run_traced):
    """Signal returns, forks and execs that are not chosen leave no span and no unpaired exit but the children's own."""
    run = run_traced(
        "sh", "-c", "for i in 1 2 3; do /bin/true; done; :", options=("--syscalls", "!rt_sigreturn")
    )

    assert not [span for span in run.calls() if not span.is_executed]
    assert run.ledger.unpaired == 3 * CHILD_RETURNS[MACHINE]


def test_the_command_starts_though_execve_is_not_chosen(run_traced, build):
    """The first exec need not be recorded for the calls after it to be."""
    run = run_traced(build("getppid"), "23", options=("--syscalls", "write"))

    assert {span.name for span in run.calls()} == {"write"}
    assert run.processes()[0].name == "getppid"


def test_short_calls_are_filtered(run_traced):
    """With --min-duration only what took that long is emitted; all else is counted as filtered."""
    run = run_traced("sleep", "0.05", options=("--min-duration", "20ms"))

    assert [span.name for span in run.calls()] == ["clock_nanosleep"]
    assert run.ledger.filtered == run.ledger.seen - 1 > 10


def test_successful_calls_are_filtered(run_traced):
    """With --errors-only every span is a failure, and the exit is filtered too."""
    run = run_traced("cat", "/nonexistent/file", options=("--errors-only",))

    assert {span.return_value < 0 for span in run.calls()} == {True}
    assert [span.attributes["file.path"] for span in run.calls() if span.name == "openat"][-1]
    assert "/nonexistent/file" in {span.attributes.get("file.path") for span in run.calls()}
    assert run.ledger.filtered > 0


@pytest.mark.each_kernel
def test_filters_add_up(run_traced):
    """Set, errors and duration together: each left-out call is counted once."""
    run = run_traced(
        "cat", "/nonexistent/file", options=("--syscalls", "openat", "--errors-only", "--min-duration", "1ns")
    )

    assert {span.name for span in run.calls()} == {"openat"}
    assert {span.status for span in run.calls()} == {STATUS_ERROR}
    assert run.ledger.seen == run.ledger.filtered + len(run.calls())


@pytest.mark.each_kernel
def test_both_paths_of_a_rename_are_there(run_traced, tmp_path):
    """The first path is file.path, the second an argument with its own name."""
    old, new = tmp_path / "ä old", tmp_path / "new"
    old.touch()
    run = run_traced("mv", old, new)
    renames = [span for span in run.calls() if span.name.startswith("rename")]

    assert renames[-1].attributes["file.path"] == str(old)
    assert renames[-1].attributes["syscall.argument.newname"] == str(new)


def test_a_path_that_is_no_text_is_escaped(run_traced):
    """Bytes that are no UTF-8 appear as backslash, x and two digits; the span is legal."""
    run = run_traced("cat", b"/nonexistent/\xff\xfe")

    assert "/nonexistent/\\xff\\xfe" in {span.attributes.get("file.path") for span in run.calls("openat")}


@pytest.mark.parametrize(("length", "is_cut"), [(256, False), (257, True), (4000, True)])
def test_a_path_too_long_is_cut_and_says_so(run_traced, length, is_cut):
    """256 bytes are whole, more are cut to 256 and marked."""
    path = "/" + "x/" * 2000
    run = run_traced("cat", path[:length])
    spans = [span for span in run.calls("openat") if span.attributes["file.path"].startswith("/x/")]

    assert [span.attributes["file.path"] for span in spans] == [path[: min(length, 256)]]
    assert [span.attributes.get("syscall.truncated", False) for span in spans] == [is_cut]


@pytest.mark.each_kernel
def test_an_unreadable_path_stays_a_number(run_traced):
    """A path pointer that leads nowhere is an argument; there is no file.path."""
    program = (
        f"import ctypes; ctypes.CDLL(None).syscall({OPENAT_NUMBERS[MACHINE]}, -100, ctypes.c_long(16), 0)"
    )
    run = run_traced("python3", "-c", program)
    (span,) = [span for span in run.calls("openat") if span.error_type == "EFAULT"]

    assert span.attributes["syscall.argument.filename"] == 16
    assert "file.path" not in span.attributes


def test_an_abi_can_be_chosen(run_traced, build):
    """What is chosen for another ABI only is not recorded for ours."""
    run = run_traced(build("int80"), options=("--syscalls", "getppid@i386,getpid@i386,exit_group"))

    assert {span.abi for span in run.calls() if span.name != "exit_group"} == {"i386"}


def test_a_call_can_have_a_duration_of_its_own(run_traced):
    """A short sleep is recorded where its own limit allows it, though all other calls that short are not."""
    run = run_traced("sleep", "0.02", options=("--min-duration", "10s,clock_nanosleep=10ms"))

    assert [span.name for span in run.calls()] == ["clock_nanosleep"]


def test_one_call_alone_can_have_a_least_duration(run_traced):
    """Without a limit for all, only the named call is filtered."""
    run = run_traced("sleep", "0.02", options=("--min-duration", "clock_nanosleep=10s"))

    assert "clock_nanosleep" not in {span.name for span in run.calls()}
    assert run.ledger.filtered == 1
    assert {"execve", "openat", "exit_group"} <= {span.name for span in run.calls()}


def test_errnos_can_be_chosen(run_traced):
    """Only failures with that errno are recorded."""
    run = run_traced("sh", "-c", "cat /nonexistent; cat /", options=("--errno", "EISDIR"))

    assert {span.errno for span in run.calls()} == {errno.EISDIR}
    assert run.ledger.filtered == run.ledger.seen - len(run.calls())


def test_errnos_can_be_left_out(run_traced):
    """With ! all is recorded, successes too, but failures with that errno."""
    run = run_traced("sh", "-c", "cat /nonexistent; cat /", options=("--errno", "!ENOENT"))
    found = {span.errno for span in run.calls()}

    assert {None, errno.EISDIR} <= found
    assert errno.ENOENT not in found
    assert run.ledger.filtered > 0


def test_an_exec_under_another_number_is_not_taken_for_a_skipped_one(run_traced):
    """fexecve, which returns under execve's number, is no span where only execve is chosen."""
    program = "import os; os.execve(os.open('/bin/true', os.O_RDONLY), ['true'], {})"
    run = run_traced("/usr/bin/python3", "-c", program, options=("--syscalls", "execve"))

    assert [span.is_executed for span in run.calls("execve")] == [True]


def test_children_can_be_left_out(run_traced):
    """With --no-follow the command is traced from its exec to its end, its children are not."""
    run = run_traced("sh", "-c", "/bin/true; /bin/true; exit 7", options=("--no-follow",))

    assert run.status == 7
    assert {span.pid for span in run.calls()} == {run.processes()[0].pid}
    assert {"execve", "wait4", "exit_group"} <= {span.name for span in run.calls()}
