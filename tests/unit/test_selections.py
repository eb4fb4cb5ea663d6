"""What a user selects, and the tables the kernel side gets of it."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_sysexit import selections
from otel_sysexit.selections import UNNAMED, Durations, ErrnoSet, Selection
from otel_sysexit.signatures import shipped_signature
from otel_sysexit.syscalls import ABIS, NUMBERS, Abi, number_of, numbers


def names(text: str) -> frozenset[str]:
    """Return the names a selection has on any ABI."""
    selection = selections.parse_selection(text)
    return frozenset().union(*(selection.names(abi) for abi in Abi))


def includes_unnamed(text: str) -> bool:
    """Return whether a selection has numbers without a name: of all ABIs or of none."""
    selection = selections.parse_selection(text)
    (answer,) = {selection.includes_unnamed(abi) for abi in Abi}
    return answer


def place(name: str, abi: Abi = Abi.X86_64) -> int:
    """Return a call's index in the tables."""
    number = number_of(name, abi)
    assert number is not None
    return abi * NUMBERS + number


# --- calls ------------------------------------------------------------------------------------------------------------


def test_a_selection_adds_and_takes_away() -> None:
    """Names, globs, classes and their negations work from left to right."""
    found = names("openat, readlink*,%net,!connect")
    assert {"openat", "readlink", "readlinkat", "bind", "socketcall"} <= found
    assert not found & {"connect", "close"}


def test_a_selection_that_starts_by_taking_away_starts_from_all() -> None:
    """'!futex' means everything else, unknown numbers too."""
    assert includes_unnamed("!futex")
    assert "futex" not in names("!futex")
    assert {"openat", "socketcall", "set_tls"} <= names("!futex")


def test_a_later_item_brings_back_what_an_earlier_took_away() -> None:
    """Order counts."""
    assert "connect" in names("%net,!conn*,connect")


def test_a_plain_selection_leaves_unknown_numbers_out() -> None:
    """What nobody asked for is not recorded."""
    assert not includes_unnamed("openat")


@pytest.mark.parametrize("text", ["*", "syscall_*"])
def test_a_glob_can_ask_for_unknown_numbers(text: str) -> None:
    """Calls without a name are called syscall_<number>, and globs match that."""
    assert includes_unnamed(text)


def test_a_glob_can_take_unknown_numbers_away() -> None:
    """The negation of the same glob."""
    assert not includes_unnamed("!syscall_*")


def test_names_of_one_abi_only_are_valid() -> None:
    """A 64-bit host may run 32-bit programs."""
    assert names("socketcall") == {"socketcall"}


def test_the_kernels_internal_names_are_understood() -> None:
    """Tracefs calls stat newstat."""
    assert names("newstat") == {"stat"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        (" ", "empty"),
        ("openat,,read", "empty"),
        ("openat,!", "empty"),
        ("opnat", "'opnat'; nearest: openat"),
        ("OPENAT", "'OPENAT'; nearest: openat"),
        ("%netwrk", "'%netwrk'; nearest: %network"),
        ("zz*", "no system call matches 'zz*'"),
        ("openat,!openat", "leaves nothing"),
        ("qqqqqqqqqq", "'qqqqqqqqqq'"),
        ("openat@", "no ABI is called ''"),
        ("openat@i387", "no ABI is called 'i387': x86_64, i386, x32, aarch64, arm"),
        ("socketcall@x86_64", "no system call of x86_64 is meant by 'socketcall'"),
        ("opnat@i386", "'opnat'; nearest: openat"),
        ("@i386", "no system call is called ''"),
    ],
)
def test_a_wrong_selection_is_refused_in_one_line(text: str, message: str) -> None:
    """The message says which item is wrong and names the nearest ones."""
    with pytest.raises(ValueError) as caught:
        selections.parse_selection(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", selections.CLASSES)
def test_no_class_is_empty(name: str) -> None:
    """Each class a user can name means something."""
    assert names(f"%{name}")


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("file", {"openat", "rename", "stat64", "umount", "execve"}, {"read", "close", "memfd_create"}),
        ("desc", {"read", "openat", "mmap", "pipe", "epoll_wait", "dup2", "poll"}, {"getpid", "unlink"}),
        ("process", {"fork", "clone3", "execve", "exit_group", "wait4"}, {"openat", "clock_gettime"}),
        ("net", {"socket", "sendto", "recvmmsg_time64", "accept4", "socketcall"}, {"read", "write"}),
        ("signal", {"rt_sigaction", "kill", "signalfd4", "pause"}, {"read"}),
        ("memory", {"mmap", "brk", "mprotect", "madvise"}, {"read", "memfd_create"}),
        ("clock", {"clock_gettime", "clock_settime64"}, {"clock_nanosleep", "nanosleep"}),
        ("creds", {"setuid", "getresgid32", "capset"}, {"getpid"}),
        ("ipc", {"semop", "shmat", "msgsnd"}, {"mq_open"}),
    ],
)
def test_a_class_means_what_strace_means(name: str, inside: set[str], outside: set[str]) -> None:
    """The classes hold the calls a user of strace expects, and no others of note."""
    found = names(f"%{name}")
    assert inside <= found
    assert not outside & found


def test_every_pattern_of_a_class_matches_something() -> None:
    """No word in the lists is a misspelling."""
    words = " ".join([*selections._CLASSES.values(), selections._MORE_DESC])
    assert [word for word in words.split() if not selections._matching((word,))] == []


def test_an_item_can_be_of_one_abi() -> None:
    """What stands behind @ is the only ABI it counts for."""
    selection = selections.parse_selection("openat@i386,read")
    assert (selection.names(Abi.I386), selection.names(Abi.X86_64)) == ({"openat", "read"}, {"read"})


def test_an_item_can_take_away_from_one_abi() -> None:
    """The others keep the call."""
    selection = selections.parse_selection("%file,!openat@x86_64")
    assert "openat" in selection.names(Abi.I386)
    assert "openat" not in selection.names(Abi.X86_64)


def test_a_class_of_one_abi_has_that_abis_calls() -> None:
    """'%net@i386' has socketcall, and nothing of x86_64."""
    selection = selections.parse_selection("%net@i386")
    assert "socketcall" in selection.names(Abi.I386)
    assert not any(selection.names(abi) for abi in Abi if abi is not Abi.I386)


def test_everything_of_one_abi_includes_its_unknown_numbers() -> None:
    """'*@i386' leaves the other ABIs' alone."""
    selection = selections.parse_selection("*@i386")
    assert [abi for abi in Abi if selection.includes_unnamed(abi)] == [Abi.I386]
    assert selection.names(Abi.I386) == set(numbers(Abi.I386))


def test_equal_texts_make_equal_selections() -> None:
    """Order and repetition do not show in what was selected."""
    assert selections.parse_selection("read,write") == selections.parse_selection("write,read,read")


# --- durations --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("500us", 500_000),
        ("500µs", 500_000),
        ("1.5ms", 1_500_000),
        ("1m30s", 90 * 10**9),
        ("1h1ms", 3600 * 10**9 + 10**6),
        ("292h", 292 * 3600 * 10**9),
        ("0.1s", 10**8),
    ],
)
def test_durations(text, expected):
    """Numbers with units, one after the other, to the nanosecond."""
    assert selections.parse_duration_ns(text) == expected


@pytest.mark.parametrize(
    "text", ["", "1", "s", "1 s", "-1s", "1s ", "1d", ".5s", "1e3s", "1sm", "9" * 400 + "h"]
)
def test_what_is_no_duration_is_refused(text):
    """Without a unit, with a sign, in words or without an end: no duration."""
    with pytest.raises(ValueError, match="duration"):
        selections.parse_duration_ns(text)


def test_a_duration_alone_is_for_every_call() -> None:
    """One threshold, for numbers without a name too."""
    durations = selections.parse_durations("10ms")
    assert durations == Durations(10_000_000, {})
    assert np.array_equal(durations.table(), np.full(ABIS * NUMBERS, 10_000_000, np.uint64))


def test_calls_can_have_durations_of_their_own() -> None:
    """Those that are not named have none."""
    table = selections.parse_durations("read=10ms, fsync = 1ms").table()
    assert (table[place("read")], table[place("fsync")], table[place("write")]) == (10_000_000, 1_000_000, 0)
    assert table[place("read", Abi.ARM)] == 10_000_000


@pytest.mark.parametrize("text", ["5ms,read=10ms", "read=10ms,5ms", "1s,read=3ms,read=10ms,5ms"])
def test_a_default_has_exceptions(text: str) -> None:
    """A duration alone is for the calls that no item names, wherever it stands; later items win."""
    table = selections.parse_durations(text).table()
    assert (table[place("read")], table[place("write")], table[500]) == (10_000_000, 5_000_000, 5_000_000)


def test_durations_know_globs_classes_and_abis() -> None:
    """Before the equals sign stands what a selection may have."""
    table = selections.parse_durations(
        "5ms,%net=1s,pread*=2s,read@i386=3s,syscall_*@arm=4s,connect=0s"
    ).table()
    seconds = {
        place("bind"): 1,
        place("preadv2"): 2,
        place("read", Abi.I386): 3,
        Abi.ARM * NUMBERS + 1000: 4,
        place("connect"): 0,
    }
    assert {index: int(table[index]) for index in seconds} == {i: s * 10**9 for i, s in seconds.items()}
    assert (table[place("read")], table[1000]) == (5_000_000, 5_000_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("1ms,,2ms", "empty"),
        ("read=", "'' is no duration"),
        ("=1ms", "names no system call"),
        ("raed=1ms", "'raed'; nearest: read"),
        ("read=10", "'10' is no duration"),
        ("read=-1ms", "'-1ms' is no duration"),
        ("read=300000000h", "too long"),
        ("!read=1ms", "'!read'"),
        ("read@i387=1ms", "no ABI"),
    ],
)
def test_wrong_durations_are_refused_in_one_line(text: str, message: str) -> None:
    """The message says which item is wrong."""
    with pytest.raises(ValueError) as caught:
        selections.parse_durations(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- errnos -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ENOENT,EACCES", {2, 13}),
        ("enoent", {2}),
        ("524", {524}),
        ("ENOTSUPP,EWOULDBLOCK", {524, 11}),
        ("ERESTARTSYS,EDEADLOCK,2", {512, 35, 2}),
        ("ENOENT,2,EPERM,!ENOENT", {1}),
    ],
)
def test_named_errnos_are_recorded_alone(text: str, expected: set[int]) -> None:
    """By name in any case, by a second name, or by number; successes are left out."""
    chosen = selections.parse_errnos(text)
    assert chosen == ErrnoSet(frozenset(expected), includes_successes=False)
    assert set(np.flatnonzero(chosen.table()).tolist()) == expected


def test_taking_errnos_away_leaves_all_else() -> None:
    """Other failures and successes."""
    table = selections.parse_errnos("!EAGAIN,!EINTR").table()
    assert (table.shape, table.dtype) == ((4096,), np.uint8)
    assert np.flatnonzero(table == 0).tolist() == [4, 11]


def test_an_errno_taken_away_can_come_back() -> None:
    """Order counts."""
    assert selections.parse_errnos("!EAGAIN,EAGAIN").table().all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty"),
        ("EPERM,", "empty"),
        ("ENOENTT", "'ENOENTT'; nearest: ENOENT"),
        ("eacess", "nearest: EACCES"),
        ("0", "1 to 4095"),
        ("4096", "1 to 4095"),
        ("99999999999999999999", "1 to 4095"),
        ("-2", "'-2'"),
        ("²", "'²'"),
        ("EPERM,!EPERM", "leaves nothing"),
    ],
)
def test_wrong_errnos_are_refused_in_one_line(text: str, message: str) -> None:
    """The message says which item is wrong and names the nearest ones."""
    with pytest.raises(ValueError) as caught:
        selections.parse_errnos(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def complaint(parse: Callable[[str], object], text: str) -> str:
    """Return what a parser says of a text, nothing if it understands it."""
    try:
        parse(text)
    except ValueError as error:
        return str(error)
    return ""


@settings(database=None, deadline=None)
@given(st.text("!@%=,*?[]aeiorstEINOT_1234567890mµ ", max_size=12))
def test_any_text_is_understood_or_refused(text: str) -> None:
    """Nothing a user types ends in another exception, or in more than a line."""
    for parse in (selections.parse_selection, selections.parse_durations, selections.parse_errnos):
        assert complaint(parse, text).isprintable()


# --- the kernel's table of calls --------------------------------------------------------------------------------------


def chosen(selection: Selection | None) -> np.ndarray:
    """Return where bit 31 is set."""
    return np.flatnonzero(selections.kernel_table(selection) >> 31)


def test_no_selection_chooses_everything() -> None:
    """Without a choice the kernel records all."""
    assert len(chosen(None)) == ABIS * NUMBERS


def test_the_table_chooses_the_selected_calls_of_every_abi() -> None:
    """One name sets its number in each ABI that has it, and nothing else."""
    expected = [257, NUMBERS + 295, 2 * NUMBERS + 257, 3 * NUMBERS + 56, 4 * NUMBERS + 322]
    assert chosen(selections.parse_selection("openat")).tolist() == expected


def test_the_table_chooses_for_one_abi() -> None:
    """What is selected of one ABI is not chosen in another."""
    assert chosen(selections.parse_selection("openat@i386,close@arm")).tolist() == [
        NUMBERS + 295,
        4 * NUMBERS + 6,
    ]


def test_unknown_numbers_follow_the_selection() -> None:
    """500 has no name; it is chosen when unknown numbers are, 257 is not then."""
    table = selections.kernel_table(Selection(frozenset({(Abi.X86_64, UNNAMED)}))) >> 31
    assert (table[500], table[257], table[NUMBERS + 500]) == (1, 0, 0)


PATH, PATH_2, FD, FD_2, ADDRESS, LENGTH = 1, 1 << 3, 1 << 6, 1 << 9, 1 << 12, 1 << 15
POINTED, EXEC = 1 << 18, 1 << 30


@pytest.mark.parametrize(
    ("abi", "name", "expected"),
    [
        (Abi.X86_64, "open", 1 * PATH),
        (Abi.X86_64, "openat", 2 * PATH | 1 * FD),
        (Abi.X86_64, "rename", 1 * PATH | 2 * PATH_2),
        (Abi.X86_64, "renameat2", 2 * PATH | 4 * PATH_2 | 1 * FD | 3 * FD_2),
        (Abi.X86_64, "symlinkat", 1 * PATH | 3 * PATH_2 | 2 * FD),
        (Abi.X86_64, "mount", 1 * PATH | 2 * PATH_2),
        (Abi.X86_64, "umount2", 1 * PATH),
        (Abi.X86_64, "fanotify_mark", 5 * PATH | 1 * FD | 4 * FD_2),
        (Abi.X86_64, "memfd_create", 0),
        (Abi.X86_64, "write", 1 * FD),
        (Abi.X86_64, "mmap", 5 * FD),
        (Abi.X86_64, "dup2", 1 * FD | 2 * FD_2),
        (Abi.X86_64, "sendfile", 1 * FD | 2 * FD_2),
        (Abi.X86_64, "epoll_ctl", 1 * FD | 3 * FD_2),
        (Abi.X86_64, "close", 1 * FD),
        (Abi.X86_64, "close_range", 1 * FD),
        (Abi.X86_64, "pidfd_getfd", 1 * FD),
        (Abi.X86_64, "execve", 1 * PATH | EXEC),
        (Abi.X86_64, "execveat", 2 * PATH | 1 * FD | EXEC),
        (Abi.X86_64, "connect", 1 * FD | 2 * ADDRESS | 3 * LENGTH),
        (Abi.X86_64, "sendto", 1 * FD | 5 * ADDRESS | 6 * LENGTH),
        (Abi.X86_64, "accept4", 1 * FD | 2 * ADDRESS | 3 * LENGTH | POINTED),
        (Abi.X86_64, "recvfrom", 1 * FD | 5 * ADDRESS | 6 * LENGTH | POINTED),
        (Abi.X86_64, "getpeername", 1 * FD | 2 * ADDRESS | 3 * LENGTH | POINTED),
        (Abi.I386, "stat64", 1 * PATH),
        (Abi.I386, "fanotify_mark", 6 * PATH | 1 * FD | 5 * FD_2),
        (Abi.I386, "mmap2", 5 * FD),
        (Abi.I386, "execve", 1 * PATH | EXEC),
        (Abi.X32, "openat", 2 * PATH | 1 * FD),
        (Abi.X32, "execve", 1 * PATH | EXEC),
        (Abi.AARCH64, "unlinkat", 2 * PATH | 1 * FD),
        (Abi.ARM, "chown32", 1 * PATH),
    ],
)
def test_the_table_says_what_to_capture(abi: Abi, name: str, expected: int) -> None:
    """Three bits a place: paths, descriptors, the socket address and its length; then what is special."""
    assert selections.kernel_table(selections.parse_selection("read@x86_64"))[place(name, abi)] == expected


def test_the_table_agrees_with_the_signatures() -> None:
    """A call has a path in the table exactly if one of its arguments is a path."""
    table = selections.kernel_table(None)
    for abi in Abi:
        for name, number in numbers(abi).items():
            if number < NUMBERS:
                signature = shipped_signature(name, abi.label) or ()
                has_path = any(argument.is_path for argument in signature)
                assert bool(table[abi * NUMBERS + number] & 7) == has_path, (abi, name)
