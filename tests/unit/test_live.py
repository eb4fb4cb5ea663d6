import re
from dataclasses import replace

import numpy as np
import pytest
from made_calls import START_UNIX_NS, Made, make_calls

from otel_sysexit.addresses import Family
from otel_sysexit.calls import Outcome
from otel_sysexit.live import format_lines
from otel_sysexit.messages import escape
from otel_sysexit.selections import kernel_table, parse_selection
from otel_sysexit.syscalls import NUMBERS, Abi, numbers


def line(made: Made, *, has_texts: bool = True) -> str:
    """Return the line of one call, without its times; without texts its arguments are numbers (`--args numbers`)."""
    calls = make_calls(made)
    if not has_texts:
        calls = replace(calls, argument_text=np.zeros(1, np.uint16))
    (formatted,) = format_lines(calls, START_UNIX_NS, show_threads=False)
    return re.sub(r"^\d+\.\d{6} | <\d+\.\d{6}>$", "", formatted)


def test_a_line_is_in_straces_habit() -> None:
    """Seconds since the origin, the call with its arguments, its result, the seconds it took."""
    call = Made(
        "openat", (-100, 0x7F00, 0, 0), ret=3, paths=(b"/etc/hosts",), start_ns=123_456, duration_ns=21_900
    )
    expected = '0.000123 openat(AT_FDCWD, "/etc/hosts", O_RDONLY) = 3 <0.000022>'
    assert format_lines(make_calls(call), START_UNIX_NS, show_threads=False) == [expected]


def test_threads_are_named_on_request() -> None:
    """With several threads each line says which one it was."""
    lines = format_lines(make_calls(Made("getpid", tid=4242, ret=7)), START_UNIX_NS, show_threads=True)
    assert lines == ["[pid 4242] 0.000000 getpid() = 7 <0.000000>"]


def test_lines_come_in_the_order_in_which_calls_began() -> None:
    """The kernel delivers calls in the order in which they end."""
    calls = make_calls(
        Made("read", start_ns=2000), Made("write", start_ns=1000), Made("close", start_ns=3000)
    )
    lines = format_lines(calls, START_UNIX_NS, show_threads=False)
    assert [text.split()[1].partition("(")[0] for text in lines] == ["write", "read", "close"]


def test_threads_stay_with_their_calls_when_lines_are_sorted() -> None:
    """Sorting moves whole calls."""
    calls = make_calls(Made("read", start_ns=2000, tid=22), Made("write", start_ns=1000, tid=11))
    lines = format_lines(calls, START_UNIX_NS, show_threads=True)
    assert [text.split("(")[0] for text in lines] == [
        "[pid 11] 0.000001 write",
        "[pid 22] 0.000002 read",
    ]


def test_a_call_before_the_origin_has_a_negative_time() -> None:
    """A call may have begun before the run's origin was taken."""
    lines = format_lines(make_calls(Made("getpid", start_ns=-1_000_000)), START_UNIX_NS, show_threads=False)
    assert lines[0].startswith("-0.001000 getpid()")


def test_no_calls_make_no_lines() -> None:
    """An empty batch is no special case."""
    assert format_lines(make_calls(), START_UNIX_NS, show_threads=True) == []


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.BENIGN])
def test_a_failure_has_its_name_and_meaning(outcome: Outcome) -> None:
    """Benign or not, the program saw -1 and an errno."""
    assert line(Made("close", (9,), ret=-9, outcome=outcome)) == "close(9) = -1 EBADF (Bad file descriptor)"


@pytest.mark.parametrize(
    ("ret", "name"),
    [
        (-512, "ERESTARTSYS"),
        (-513, "ERESTARTNOINTR"),
        (-514, "ERESTARTNOHAND"),
        (-516, "ERESTART_RESTARTBLOCK"),
    ],
)
def test_an_interrupted_call_has_the_kernels_own_code(ret: int, name: str) -> None:
    """No value reached the program; the code tells how the call goes on."""
    assert line(Made("pause", ret=ret, outcome=Outcome.INTERRUPTED)) == f"pause() = ? {name}"


def test_a_call_that_never_returned_has_no_result() -> None:
    """exit_group ends in itself."""
    assert line(Made("exit_group", (0,), outcome=Outcome.NO_RETURN)) == "exit_group(0) = ?"


def test_a_result_that_is_none_is_not_shown() -> None:
    """What rt_sigreturn leaves in the register belongs to the interrupted code."""
    assert line(Made("rt_sigreturn", ret=-4, outcome=Outcome.NO_VALUE)) == "rt_sigreturn() = ?"


def test_a_call_that_was_skipped_says_so() -> None:
    """Seccomp answered in the kernel's place."""
    call = Made("getpid", ret=-1, outcome=Outcome.FAILED, is_executed=False)
    assert line(call) == "getpid() = -1 EPERM (Operation not permitted) (not executed)"


def test_a_restarted_call_says_what_goes_on() -> None:
    """restart_syscall has no arguments of its own."""
    assert line(Made(219, restarted=35)) == "restart_syscall(<... resuming interrupted nanosleep ...>) = 0"


def test_a_successful_exec_shows_its_path_only() -> None:
    """The new program has overwritten the registers."""
    call = Made("execve", (1, 2, 3), paths=(b"/bin/true",), has_args=False)
    assert line(call) == 'execve("/bin/true", ...) = 0'


def test_arguments_that_are_gone_are_not_made_up() -> None:
    """Without a path nothing is known."""
    assert line(Made("execve", (1, 2, 3), has_args=False)) == "execve(...) = 0"


def test_an_unknown_call_shows_all_registers() -> None:
    """Nobody knows how many arguments it has, nor what they mean."""
    call = Made(9999, (1, 0, 255, -1, 0, 0), ret=-38, outcome=Outcome.FAILED)
    expected = "syscall_9999(0x1, 0, 0xff, 0xffffffffffffffff, 0, 0) = -1 ENOSYS (Function not implemented)"
    assert line(call) == expected


@pytest.mark.parametrize(
    ("call", "args", "shown"),
    [
        ("read", (3, 0x7FFE12345678, 4096), "read(3, 0x7ffe12345678, 4096)"),
        ("read", (-1, 0, 0), "read(-1, NULL, 0)"),
        ("lseek", (3, -5, 2), "lseek(3, -5, 2)"),
        ("mprotect", (0x400000, 4096, 3), "mprotect(0x400000, 4096, 0x3)"),
        ("mmap", (0, 4096, 3, 0x22, 0xFFFFFFFF, 0), "mmap(0, 4096, 0x3, 0x22, -1, 0)"),
        ("ioctl", (0, 0x5401, 0x7FFE12345678), "ioctl(0, 0x5401, 0x7ffe12345678)"),
        ("fcntl", (4, 2, 1), "fcntl(4, 2, 1)"),
        ("fchmod", (4, 0o644), "fchmod(4, 0644)"),
        ("setpriority", (0, 0, -20), "setpriority(0, 0, -20)"),
        ("pipe2", (0x7FFE12345678, 0x80000), "pipe2(0x7ffe12345678, 0x80000)"),
    ],
)
def test_a_number_is_written_as_its_kind_reads_best(call: str, args: tuple[int, ...], shown: str) -> None:
    """Pointers, addresses and flags are hexadecimal, a mode octal, everything else decimal."""
    assert line(Made(call, args), has_texts=False).partition(" = ")[0] == shown


@pytest.mark.parametrize(
    ("call", "args", "shown"),
    [
        ("lseek", (3, -5, 2), "lseek(3, -5, SEEK_END)"),
        ("mprotect", (0x400000, 4096, 3), "mprotect(0x400000, 4096, PROT_READ|PROT_WRITE)"),
        (
            "mmap",
            (0, 4096, 3, 0x22, 0xFFFFFFFF, 0),
            "mmap(0, 4096, PROT_READ|PROT_WRITE, MAP_PRIVATE|MAP_ANONYMOUS, -1, 0)",
        ),
        ("ioctl", (0, 0x5401, 0x7FFE12345678), "ioctl(0, TCGETS, 0x7ffe12345678)"),
        ("fcntl", (4, 2, 1), "fcntl(4, F_SETFD, FD_CLOEXEC)"),
        ("setpriority", (0, 0, -20), "setpriority(PRIO_PROCESS, 0, -20)"),
        ("pipe2", (0x7FFE12345678, 0x80000), "pipe2(0x7ffe12345678, O_CLOEXEC)"),
        ("kill", (7, 9), "kill(7, SIGKILL)"),
        ("socket", (2, 1, 0), "socket(AF_INET, SOCK_STREAM, IPPROTO_IP)"),
    ],
)
def test_a_number_with_a_name_is_written_by_it(call: str, args: tuple[int, ...], shown: str) -> None:
    """Flags, commands, signals and the like have names; what has none is a number."""
    assert line(Made(call, args)).partition(" = ")[0] == shown


# --- descriptors and addresses ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (Made("read", (3, 0, 9), files=(b"/etc/hosts",)), "read(3</etc/hosts>, NULL, 9)"),
        (Made("read", (3, 0, 9), files=(b"socket:[42]",)), "read(3<socket:[42]>, NULL, 9)"),
        (Made("sendfile", (4, 3, 0, 9), files=(b"/b", b"/a")), "sendfile(4</b>, 3</a>, NULL, 9)"),
        (Made("sendfile", (4, 3, 0, 9), files=(None, b"/a")), "sendfile(4, 3</a>, NULL, 9)"),
        (
            Made("openat", (5, 1, 0o2000000), paths=(b"hosts",), files=(b"/etc",)),
            'openat(5</etc>, "hosts", O_RDONLY|O_CLOEXEC)',
        ),
        (
            Made("renameat2", (5, 1, 6, 2, 1), paths=(b"a", b"b"), files=(b"/x", b"/y")),
            'renameat2(5</x>, "a", 6</y>, "b", RENAME_NOREPLACE)',
        ),
        (Made("close", (3,), files=(b"/long",), is_file_cut=True), "close(3</long...>)"),
        (Made("close", (3,), files=(b"/a\nb\x1b[m",)), r"close(3</a\nb\x1b[m>)"),
        (Made("close", (3,)), "close(3)"),
    ],
)
def test_a_descriptor_shows_what_it_is(made: Made, shown: str) -> None:
    """As strace -y has it: behind the number what was open under it, escaped; where nobody knows, the number alone."""
    assert line(made).partition(" = ")[0] == shown


@pytest.mark.parametrize(
    ("made", "shown"),
    [
        (
            Made("connect", (3, 0x7000, 16), address=(Family.IPV4, b"127.0.0.1", 80)),
            "connect(3, 127.0.0.1:80, 16)",
        ),
        (Made("bind", (3, 0x7000, 28), address=(Family.IPV6, b"::1", 8080)), "bind(3, [::1]:8080, 28)"),
        (
            Made("accept", (3, 0x7000, 0x7080), 4, address=(Family.UNIX, b"/run/a b", 0)),
            'accept(3, "/run/a b", 0x7080)',
        ),
        (
            Made("getpeername", (3, 0x7000, 0x7080), address=(Family.UNIX, b"@a\x01", 0)),
            r'getpeername(3, "@a\x01", 0x7080)',
        ),
        (
            Made("sendto", (3, 1, 2, 0, 0x7000, 16), 2, address=(Family.IPV4, b"192.0.2.1", 53)),
            "sendto(3, 0x1, 2, 0, 192.0.2.1:53, 16)",
        ),
        (
            Made("recvfrom", (3, 1, 2, 0, 0x7000, 0x7080), 2, address=(Family.IPV4, b"192.0.2.1", 53)),
            "recvfrom(3, 0x1, 2, 0, 192.0.2.1:53, 0x7080)",
        ),
        (Made("connect", (3, 0x7000, 16)), "connect(3, 0x7000, 16)"),
    ],
)
def test_an_address_stands_in_its_arguments_place(made: Made, shown: str) -> None:
    """Addresses are written as people do, unix sockets as paths; one that was not read is a pointer."""
    assert line(made).partition(" = ")[0] == shown


@pytest.mark.parametrize(
    "call", [name for name in numbers(Abi.X86_64) if name in parse_selection("%net").names(Abi.X86_64)]
)
def test_every_call_with_an_address_shows_it(call: str) -> None:
    """Whatever the kernel calls the argument, a call for whose address there is a place shows it there."""
    entry = int(kernel_table(None)[Abi.X86_64 * NUMBERS + numbers(Abi.X86_64)[call]])
    has_place = bool(entry >> 12 & 7)
    shown = line(Made(call, (1, 2, 3, 4, 5, 6), address=(Family.IPV4, b"192.0.2.1", 53)))

    assert ("192.0.2.1:53" in shown) == has_place


def test_an_address_as_a_result_is_hexadecimal() -> None:
    """Mmap returns one."""
    assert line(Made("mmap", ret=0x7F0000000000)).endswith("= 0x7f0000000000")


def test_the_mode_of_open_shows_only_where_it_counts() -> None:
    """Without O_CREAT its register holds whatever was there before."""
    assert (
        line(Made("openat", (-100, 0, 0x80000, 0o123), paths=(b"a",)))
        == 'openat(AT_FDCWD, "a", O_RDONLY|O_CLOEXEC) = 0'
    )
    assert line(Made("open", (0, 0o101, 0o600), paths=(b"a",))) == 'open("a", O_WRONLY|O_CREAT, 0600) = 0'


def test_two_paths_stand_in_their_places() -> None:
    """Directories and paths alternate in renameat2."""
    call = Made("renameat2", (-100, 1, 5, 2, 1), paths=(b"old", b"new"))
    assert line(call) == 'renameat2(AT_FDCWD, "old", 5, "new", RENAME_NOREPLACE) = 0'


def test_a_path_that_was_not_captured_is_a_pointer() -> None:
    """A bad pointer is shown as it is."""
    call = Made("openat", (-100, 0x1234, 0, 0), ret=-14, outcome=Outcome.FAILED)
    assert line(call) == "openat(AT_FDCWD, 0x1234, O_RDONLY) = -1 EFAULT (Bad address)"


def test_an_empty_path_is_shown_as_such() -> None:
    """An empty string is not a missing one."""
    assert line(Made("chdir", (0x1234,), paths=(b"",))) == 'chdir("") = 0'


def test_a_cut_path_ends_in_dots() -> None:
    """The reader sees that there was more."""
    assert line(Made("chdir", (1,), paths=(b"/long",), is_cut=True)) == 'chdir("/long"...) = 0'


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (b'a"b', '"a\\"b"'),
        (b"a\nb\tc\rd", '"a\\nb\\tc\\rd"'),
        (b"a\\b", '"a\\\\b"'),
        (b"\x1b[31mred", '"\\x1b[31mred"'),
        (b"\x7f\x00\x01", '"\\x7f\\x00\\x01"'),
        ("Grüße/日本".encode(), '"Grüße/日本"'),
        (b"\xff\xfe", '"\\xff\\xfe"'),
        (b"\\xff", '"\\xff"'),  # how calls.py writes a byte that is no UTF-8
        ("\u202eevil".encode(), '"\\xe2\\x80\\xaeevil"'),
        (b"[bold]x[/bold]", '"[bold]x[/bold]"'),
    ],
)
def test_a_path_is_quoted_as_in_c(path: bytes, shown: str) -> None:
    """Nothing in a path can reach the terminal as a command, and everything can be read back."""
    assert line(Made("chdir", (1,), paths=(path,))) == f"chdir({shown}) = 0"


def test_a_32_bit_call_has_32_bit_pointers() -> None:
    """i386 registers hold 32 bits."""
    call = Made("write", (1, 0xFFFFE000, 5), ret=5, abi=Abi.I386)
    assert line(call) == "write(1, 0xffffe000, 5) = 5"


@pytest.mark.parametrize(
    "code", [*range(0x20), 0x7F, 0x85, 0xA0, 0xAD, 0x200B, 0x2028, 0xFEFF, 0xDC80, 0xD800, 0xE000]
)
def test_escaped_text_is_printable(code: int) -> None:
    """No control, separator, invisible or lone surrogate character survives."""
    assert escape(f"a{chr(code)}b").isprintable()


def test_printable_text_is_left_alone() -> None:
    """Most names need nothing."""
    assert escape("python3.11 [ok] 日本") == "python3.11 [ok] 日本"
