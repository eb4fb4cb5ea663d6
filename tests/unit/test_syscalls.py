import errno
import subprocess
import sys

import numpy as np
import pytest

from otel_sysexit import syscalls
from otel_sysexit.syscalls import ABIS, KINDS_MAX, NUMBERS, Abi, Form, Kind, Kinds


def kind_of(number: int, abi: int = Abi.X86_64, restarted: int = -1) -> Kind:
    """Return the kind of one call, by way of the columns."""
    kinds = Kinds()
    index = kinds.index(
        np.array([abi], np.uint8), np.array([number], np.int32), np.array([restarted], np.int32)
    )
    return kinds[int(index[0])]


def convert(form: Form, register: int) -> int:
    """Return how one register reads in one form."""
    registers = np.full((1, 6), register, np.uint64)
    return int(syscalls.convert_arguments(registers, np.full((1, 6), form, np.uint8))[0, 0])


@pytest.mark.parametrize(
    ("abi", "number", "name"),
    [
        (Abi.X86_64, 257, "openat"),
        (Abi.X86_64, 5, "fstat"),
        (Abi.X86_64, 63, "uname"),
        (Abi.X86_64, 166, "umount2"),
        (Abi.I386, 102, "socketcall"),
        (Abi.I386, 22, "umount"),
        (Abi.X32, 39, "getpid"),
        (Abi.AARCH64, 56, "openat"),
        (Abi.ARM, 192, "mmap2"),
    ],
)
def test_a_number_has_the_name_of_its_own_abi(abi: Abi, number: int, name: str) -> None:
    """The same number is another call in another ABI."""
    assert kind_of(number, abi).name == name


def test_abis_have_the_labels_of_telemetry() -> None:
    """Labels are what syscall.abi holds."""
    assert [abi.label for abi in Abi] == ["x86_64", "i386", "x32", "aarch64", "arm"]


def test_an_x32_call_keeps_its_bit_in_the_number() -> None:
    """The kernel side sends x32 numbers without bit 30; the kind shows what the program asked for."""
    assert kind_of(39, Abi.X32).number == 0x40000027


def test_a_static_index_is_abi_times_numbers_plus_number() -> None:
    """Numbers with a place in the tables have an index that needs no look-up."""
    index = Kinds().index(np.array([0, 4], np.uint8), np.array([257, 1], np.int32), np.full(2, -1, np.int32))
    assert index.tolist() == [257, 4 * NUMBERS + 1]


@pytest.mark.parametrize("number", [-1, -39, 500, 9999, 0x7FFFFFFF, -(2**31)])
def test_a_number_without_a_name_is_called_by_its_number(number: int) -> None:
    """Any 32-bit number a program may give has a kind."""
    kind = kind_of(number)
    assert (kind.name, kind.number) == (f"syscall_{number}", number)


def test_an_unknown_call_has_six_arguments_by_position() -> None:
    """Nothing is known about them, so registers are shown as they are."""
    kind = kind_of(9999)
    assert [argument.name for argument in kind.arguments] == [f"arg{i}" for i in range(6)]
    assert {argument.form for argument in kind.arguments} == {Form.SIGNED_64}


def test_an_unknown_i386_call_has_32_bit_arguments() -> None:
    """Registers of i386 are 32 bits wide and hold no sign."""
    assert {argument.form for argument in kind_of(9999, Abi.I386).arguments} == {Form.UNSIGNED_32}


def test_restart_syscall_says_what_it_restarts() -> None:
    """The name comes from the number that the kernel side remembers."""
    assert (kind_of(219, restarted=35).name, kind_of(219, restarted=35).restarts) == (
        "restart_syscall",
        "nanosleep",
    )


def test_restart_syscall_alone_restarts_nothing_known() -> None:
    """After an attach in the middle, nobody knows what went before."""
    assert kind_of(219).restarts is None


def test_an_i386_restart_takes_the_name_of_the_i386_table() -> None:
    """Number 162 is nanosleep there."""
    assert kind_of(0, Abi.I386, restarted=162).restarts == "nanosleep"


def test_an_odd_kind_keeps_its_index() -> None:
    """Later batches find what earlier batches found, and different odd calls stay apart."""
    kinds = Kinds()
    numbers, none = np.array([9999, -1, 9999], np.int32), np.full(3, -1, np.int32)
    first = kinds.index(np.zeros(3, np.uint8), numbers, none)
    again = kinds.index(np.zeros(3, np.uint8), numbers[::-1].copy(), none)
    assert first[0] == first[2] != first[1]
    assert again.tolist() == first[::-1].tolist()


def test_kinds_are_bounded() -> None:
    """A program that makes up numbers cannot grow memory: the rest shares one kind."""
    kinds = Kinds()
    numbers = np.arange(1000, 1000 + 2 * KINDS_MAX, dtype=np.int32)
    index = kinds.index(np.zeros(len(numbers), np.uint8), numbers, np.full(len(numbers), -1, np.int32))
    assert index.max() == KINDS_MAX - 1
    assert kinds[KINDS_MAX - 1].name == "syscall_other"
    assert kinds[KINDS_MAX - 2].name.startswith("syscall_")


def test_an_abi_nobody_knows_is_other() -> None:
    """A byte the kernel side never writes makes no error."""
    assert kind_of(3, abi=9).name == "syscall_other"


def test_an_index_not_given_out_is_an_error() -> None:
    """Mistakes with indices show at once."""
    with pytest.raises(IndexError, match="no kind has the index"):
        Kinds()[ABIS * NUMBERS]


def test_forms_follow_the_arguments() -> None:
    """The column for a kind holds the forms of its arguments, then UNUSED."""
    forms = Kinds().forms(np.array([257, 39], np.uint16))
    openat = [Form.SIGNED_32, Form.POINTER_64, Form.SIGNED_32, Form.UNSIGNED_16, Form.UNUSED, Form.UNUSED]
    assert forms.tolist() == [openat, [Form.UNUSED] * 6]


def test_kinds_have_as_many_arguments_as_they_declare() -> None:
    """Of unknown calls there may be six."""
    assert Kinds().argument_counts(np.array([257, 39, 1000], np.uint16)).tolist() == [4, 0, 6]


def test_what_a_signal_handler_returns_by_has_no_value() -> None:
    """Of each ABI these calls, and no other kind that is in the same column."""
    kind = np.array([15, 0, NUMBERS + 119, NUMBERS + 173, 2 * NUMBERS + 513, 3 * NUMBERS + 139], np.uint16)
    assert Kinds().have_no_value(kind).tolist() == [True, False, True, True, True, True]


@pytest.mark.parametrize(
    ("form", "register", "value"),
    [
        (Form.SIGNED_32, 0xFFFFFF9C, -100),
        (Form.SIGNED_32, 0xDEADBEEF_00000003, 3),
        (Form.UNSIGNED_32, 0xFFFFFFFF_FFFFFFFF, 0xFFFFFFFF),
        (Form.UNSIGNED_16, 0x7FFF_000081A4, 0o100644),
        (Form.SIGNED_64, 0xFFFFFFFF_FFFFFFFE, -2),
        (Form.SIGNED_64, 2**63, -(2**63)),
        (Form.POINTER_64, 0x7FFE_DEADBEEF, 0x7FFE_DEADBEEF),
        (Form.POINTER_32, 0x1_FFFFE000, 0xFFFFE000),
        (Form.UNUSED, 77, 0),
    ],
)
def test_a_register_reads_as_its_form_says(form: Form, register: int, value: int) -> None:
    """What the kernel ignores of a register is ignored here too."""
    assert convert(form, register) == value


def test_a_descriptor_reads_as_int_whatever_the_kernel_declares() -> None:
    """The kernel declares read's fd as unsigned and mmap's as unsigned long; programs pass -1 in both."""
    assert kind_of(0).arguments[0].form == Form.SIGNED_32
    assert kind_of(9).arguments[4].form == Form.SIGNED_32


def test_clone_has_its_arguments_in_the_order_of_the_abi() -> None:
    """All but x86_64 pass tls before the child's tid."""
    assert [argument.name for argument in kind_of(56).arguments][3:] == ["child_tidptr", "tls"]
    assert [argument.name for argument in kind_of(220, Abi.AARCH64).arguments][3:] == ["tls", "child_tidptr"]


def test_a_64_bit_argument_takes_two_registers_of_i386() -> None:
    """The offset of pread64 is not mistaken for its lower half."""
    assert [argument.name for argument in kind_of(180, Abi.I386).arguments] == [
        "fd",
        "buf",
        "count",
        "pos_lo",
        "pos_hi",
    ]


def test_every_named_call_has_known_arguments() -> None:
    """The tables fit together: only two calls that never existed lack arguments."""
    unknown = {
        name
        for abi in Abi
        for name, number in syscalls.numbers(abi).items()
        if [argument.name for argument in kind_of(number, abi).arguments][:1] == ["arg0"]
    }
    assert unknown == {"epoll_ctl_old", "epoll_wait_old"}


def test_no_call_has_more_than_six_arguments() -> None:
    """There are six registers."""
    counts = [len(kind_of(number, abi).arguments) for abi in Abi for number in syscalls.numbers(abi).values()]
    assert max(counts) == 6


@pytest.mark.parametrize(
    ("number", "name"),
    [
        (2, "ENOENT"),
        (11, "EAGAIN"),
        (35, "EDEADLK"),
        (95, "EOPNOTSUPP"),
        (133, "EHWPOISON"),
        (524, "ENOTSUPP"),
        (4000, "4000"),
    ],
)
def test_errno_names_are_the_kernels(number: int, name: str) -> None:
    """Where C has two names for an errno, it is the one the kernel uses; without a name it is the number."""
    assert syscalls.errno_name(number) == name


def test_every_errno_of_the_c_library_has_a_name() -> None:
    """Nothing that user space knows is shown as a number."""
    assert all(syscalls.errno_name(number).startswith("E") for number in errno.errorcode)


def test_number_of_knows_both_answers() -> None:
    """A call the ABI lacks has no number."""
    assert syscalls.number_of("openat", Abi.X86_64) == 257
    assert syscalls.number_of("getpid", Abi.X32) == 39
    assert syscalls.number_of("open", Abi.AARCH64) is None


def test_importing_reads_no_table() -> None:
    """Tables of calls are read when something asks for them: start-up is short."""
    code = "import sys, otel_sysexit.syscalls; print([m for m in sys.modules if 'system_calls' in m])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
