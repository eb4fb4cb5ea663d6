"""Numbers that are no calls, numbers with stray bits, and the 32-bit ABI beside the 64-bit one."""

import pytest
from live.native import BUILT, MACHINE, x86_64_only

pytestmark = pytest.mark.each_kernel


@pytest.mark.parametrize("number", [-1, 9999, 500, -39, 0x7FFFFFFF])
def test_an_unknown_number_has_a_name_of_its_own(trace, number):
    """A number that is no call is named after itself and fails with ENOSYS."""
    run = trace("invalid")
    span = run.span_of(run.fact("call", str(number)))

    assert (span.name, span.return_value, span.error_type) == (f"syscall_{number}", -38, "ENOSYS")


@pytest.mark.parametrize("number", [-1, 9999, 500, -39])
def test_an_unknown_number_is_of_the_native_abi(trace, number):
    """A number whose bits only look like x32's (-1 has all of them set) is the native ABI's."""
    run = trace("invalid")

    run.assert_returned(run.fact("call", str(number)), f"syscall_{number}")


@x86_64_only
def test_high_bits_of_rax_do_not_count(trace):
    """The kernel looks at 32 bits of the number: 0x1_0000_0027 runs getpid, and that is the span."""
    run = trace("invalid")
    span = run.assert_returned(run.fact("call", str(0x100000027)), "getpid", number=39)

    assert span.return_value == span.pid


@x86_64_only
def test_an_x32_number_is_of_the_x32_abi(trace):
    """A getpid with the x32 bit is x32's getpid, and fails where the kernel has no x32."""
    run = trace("invalid")
    fact = run.fact("call", str(0x40000027))
    (span,) = run.calls(abi="x32", name="getpid")

    assert span.return_value == fact["ret"]


def test_a_uprobe_call_by_hand_is_an_ordinary_call(trace):
    """The calls uretprobe and uprobe, made by hand, are spans, with the program's result where it saw one."""
    run = trace("uprobe_calls")
    names = {335: "uretprobe", 336: "uprobe"}

    for fact in run.facts_of("call", "by hand"):
        assert run.span_of(fact).name in {names[fact["nr"]], f"syscall_{fact['nr']}"}
    for fact in run.facts_of("call", "answered"):
        assert run.span_of(fact).return_value == fact["ret"]


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("i386 getpid", "getpid"),
        ("i386 mkdir", "mkdir"),
        ("i386 close", "close"),
        ("i386 -1", "syscall_-1"),
        ("i386 9999", "syscall_9999"),
        ("i386 getppid", "getppid"),
    ],
)
def test_int80_is_the_i386_abi(trace, label, name):
    """A call by `int 0x80` in a 64-bit program is named by the i386 table, with the program's result."""
    run = trace("int80")
    fact = run.fact("call", label)
    (span,) = run.calls(tid=fact["tid"], number=fact["nr"], abi="i386")

    assert (span.name, span.return_value) == (name, fact["ret"])
    assert span.errno == (-fact["ret"] if fact["ret"] < 0 else None)


@pytest.mark.parametrize(("label", "name"), [("x86_64 writev", "writev"), ("x86_64 getpid", "getpid")])
def test_the_same_number_by_syscall_is_another_call(trace, label, name):
    """Between the `int 0x80` calls the same numbers by `syscall` are the 64-bit table's."""
    run = trace("int80")
    fact = run.fact("call", label)
    (span,) = [
        span for span in run.calls(name, abi="x86_64", number=fact["nr"]) if span.return_value == fact["ret"]
    ]

    assert span == run.assert_returned(fact, name)


def test_int80_calls_lie_within_the_programs_readings(trace):
    """Each `int 0x80` call lies within the readings around it, in the program's order."""
    run = trace("int80")
    facts = [fact for fact in run.facts if fact["call"].startswith("i386")]
    spans = run.calls(abi="i386")

    for fact, span in zip(facts, spans, strict=True):
        assert span.start >= fact["before"] + run.clock_offset_ns - 1_000_000
        assert span.end <= fact["after"] + run.clock_offset_ns + 1_000_000


def test_int80_arguments_are_the_i386_registers(trace):
    """The descriptor of an i386 close is the one given in ebx."""
    run = trace("int80")
    (span,) = run.calls("close", abi="i386")

    assert span.argument("fd") == 9999


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("getppid", "getppid"),
        ("missing file", "openat"),
        ("bad descriptor", "close"),
        ("no call", "syscall_9999"),
        ("minus one", "syscall_-1"),
    ],
)
def test_a_32_bit_programs_calls_are_i386(trace32, label, name):
    """A static 32-bit program's calls have the i386 names, numbers and results."""
    run = trace32("i386")

    run.assert_returned(run.fact("call", label), name, "i386")


def test_all_calls_of_a_32_bit_program_are_i386(trace32):
    """But for the execve that started it, no call of it is of another ABI."""
    assert {span.abi for span in trace32("i386").calls()[1:]} == {"i386"}


def test_a_high_32_bit_address_is_no_error(trace32):
    """An mmap2 that returns an address in the upper half of 32 bits has succeeded."""
    run = trace32("i386")
    fact = run.fact("call", "high address")
    span = run.span_of(fact)

    assert (span.name, span.errno, span.status) == ("mmap2", None, 0)
    assert span.return_value % 2**32 == fact["ret"] % 2**32


def test_a_32_bit_path_is_read(trace32):
    """The path of a 32-bit openat is the program's."""
    run = trace32("i386")

    assert run.span_of(run.fact("call", "missing file")).attributes["file.path"] == "/nonexistent/file"


@pytest.mark.parametrize("name", ["openat", "getppid"])
def test_a_name_chosen_is_chosen_for_i386_too(trace32, name):
    """With --syscalls the calls of that name by a 32-bit program are there, and no others."""
    run = trace32("i386", options=("--syscalls", name))
    (span,) = run.calls()

    assert (span.name, span.abi) == (name, "i386")


def test_a_name_chosen_is_chosen_by_abi(trace):
    """With --syscalls getpid only calls named so are there: by `syscall` 39, by `int 0x80` 20."""
    run = trace("int80", options=("--syscalls", "getpid"))

    assert {(span.abi, span.number) for span in run.calls()} == {("x86_64", 39), ("i386", 20)}


@pytest.mark.parametrize("name", ["nanosleep", "poll", "futex"])
def test_restart_syscall_of_i386_is_number_zero(trace32, without_result, name):
    """A stopped 32-bit call goes on as i386's restart_syscall, whose number is 0."""
    run = trace32("stopped", name)
    stopped = run.span_of(run.fact("call"))
    (restart,) = run.calls("restart_syscall")

    assert (stopped.name, stopped.abi, stopped.is_interrupted) == (name, "i386", True)
    assert (restart.number, restart.abi, restart.attributes["syscall.restarts"]) == (0, "i386", name)
    assert restart.return_value == run.fact("call")["ret"]
    without_result(stopped)


def test_32_bit_threads_are_counted(trace32):
    """Each of three threads of a 32-bit program that make 97 getppid calls has 97 spans."""
    run = trace32("getppid", "97", "3")

    for fact in run.facts:
        assert len(run.calls("getppid", tid=fact["tid"], abi="i386", number=64)) == 97


def test_a_32_bit_call_with_sa_restart_is_two_spans(trace32):
    """An interrupted 32-bit read is made again under its own number and then has its result."""
    run = trace32("interrupted", "restart")
    descriptor = run.fact("descriptor")["descriptor"]
    first, second = [span for span in run.calls("read", number=3) if span.argument("fd") == descriptor]

    assert (first.is_interrupted, second.is_interrupted, second.return_value) == (True, False, 1)


@pytest.fixture
def arm(run_program):
    """Return the trace of the 32-bit arm program."""
    if MACHINE != "aarch64":
        pytest.skip("32-bit arm programs run on aarch64 only")
    if not BUILT:
        pytest.skip("arm.s needs an assembler for 32-bit arm: tests/kernels has one")
    return run_program(BUILT / "arm")


def test_a_32_bit_arm_programs_calls_are_arm(arm):
    """Names and results of a 32-bit program's calls are by the arm table; only its execve is the kernel's own ABI."""
    execve, *calls = arm.calls()

    assert (execve.name, execve.abi, execve.return_value) == ("execve", "aarch64", 0)
    assert {span.abi for span in calls} == {"arm"}
    assert [(span.name, span.number, span.errno) for span in calls] == [
        ("getppid", 64, None),
        ("openat", 322, 2),
        ("close", 6, 9),
        ("process_vm_readv", 376, 22),
        ("syscall_9999", 9999, 38),
        ("exit_group", 248, None),
    ]


def test_a_32_bit_arm_programs_arguments_are_its_registers(arm):
    """Path, descriptor, six numbers and exit status are what the arm registers held."""
    openat, close, readv, _, exit_group = arm.calls()[2:]
    names = ("pid", "lvec", "liovcnt", "rvec", "riovcnt", "flags")

    assert openat.attributes["file.path"] == "/nonexistent/file"
    assert close.argument("fd") == 9999
    assert [readv.argument(name) for name in names] == [1, 2, 3, 4, 5, 6]
    assert exit_group.argument("error_code") == arm.status == 7
