"""Strings and their calls come through different rings: in whatever order CPUs wrote them, each call gets its own."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit.benign import BenignErrors
from otel_sysexit.calls import Calls, Decoder
from otel_sysexit.kernel import records
from otel_sysexit.kernel.records import StringRole, TaskKind
from otel_sysexit.strings import _SLACK

ORDINARY = records.HAS_STRING | records.HAS_ARGS  # a call with paths; an exec's has no arguments left
NO_STRINGS = np.empty(0, records.STRING)


def call_records(*calls: tuple[int, int], flags: int = ORDINARY) -> np.ndarray:
    """Return CALL records that name the strings (CPU, number)."""
    made = np.zeros(len(calls), records.CALL)
    made["restarted_nr"] = -1
    made["kind_flags"] = flags
    for record, (cpu, seq) in zip(made, calls, strict=True):
        record["string_cpu"], record["string_seq"] = cpu, seq
    return made


def string_record(cpu: int, seq: int, role: StringRole) -> np.ndarray:
    """Return one STRING record, whose text says which it is."""
    made = np.zeros(1, records.STRING)
    made["seq"], made["cpu"], made["role"] = seq, cpu, role
    text = text_of(cpu, seq, role)
    made["length"] = len(text)
    made["text"][0, : len(text)] = np.frombuffer(text, np.uint8)
    return made


def text_of(cpu: int, seq: int, role: StringRole) -> bytes:
    """Return the text of a string."""
    return f"/{cpu}/{seq}/{role.name}".encode()


def path_of(calls: Calls, row: int) -> bytes | None:
    """Return the first path of a call, None when it has none."""
    found = calls.path_row[row, 0]
    return calls.paths.text[found, : calls.paths.length[found]].tobytes() if found >= 0 else None


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[list[tuple[int, int]]], np.ndarray]:
    """Return batches of calls as (CPU, number), and their strings in a slightly other order."""
    cpus = draw(st.lists(st.integers(0, 3), max_size=60))
    first = draw(st.sampled_from([1, 2**32 - 20]))  # numbers go round
    counts = dict.fromkeys(cpus, 0)
    calls = []
    for cpu in cpus:
        counts[cpu] += 1
        calls.append((cpu, (first + counts[cpu]) % 2**32))
    # CPUs get ahead of each other; on one CPU strings come in the order of their calls.
    ahead = draw(st.lists(st.integers(0, 9), min_size=4, max_size=4))
    order = sorted(range(len(calls)), key=lambda at: (at + ahead[calls[at][0]], at))
    strings = [
        string_record(*calls[at], role)
        for at in order
        for role in (StringRole.FIRST_PATH, StringRole.SECOND_PATH)
    ]
    cuts = sorted(draw(st.lists(st.integers(0, len(calls)), max_size=6)))
    batches = [calls[start:end] for start, end in itertools.pairwise([0, *cuts, len(calls)])]
    return batches, np.concatenate([NO_STRINGS, *strings])


@given(streams())
def test_as_many_strings_are_read_as_calls_need(stream):
    """Reading no more strings than are wanted, every call gets its own, and hardly more are kept."""
    batches, strings = stream
    decoder = Decoder(BenignErrors(""))
    position = 0
    for batch in batches:
        made = call_records(*batch)
        wanted = decoder.strings.wanted(made)
        decoder.strings.add(strings[position : position + wanted])
        position += wanted

        assert not decoder.strings.lacks(made)

        calls = decoder.decode(made)

        assert [path_of(calls, row) for row in range(len(batch))] == [
            text_of(*call, StringRole.FIRST_PATH) for call in batch
        ]
        assert len(decoder.strings._strings) <= _SLACK


@given(st.lists(st.integers(0, 9), max_size=4))
def test_an_execs_path_waits_for_its_call(later):
    """An exec's call may be decoded long after its task record, and after later calls of its CPU: it has its path."""
    decoder = Decoder(BenignErrors(""))
    tasks = np.zeros(1, records.TASK)
    tasks["kind"], tasks["string_seq"] = TaskKind.EXEC, 7
    decoder.strings.take_execs(tasks, string_record(0, 7, StringRole.FIRST_PATH))
    for distance in later:
        decoder.decode(call_records((0, 8 + distance)))
    calls = decoder.decode(call_records((0, 7), flags=records.HAS_STRING))

    assert path_of(calls, 0) == text_of(0, 7, StringRole.FIRST_PATH)


def test_strings_of_an_exec_may_come_before_its_record():
    """What is read early is kept for the task record that names it."""
    decoder = Decoder(BenignErrors(""))
    tasks = np.zeros(1, records.TASK)
    tasks["kind"], tasks["string_seq"] = TaskKind.EXEC, 7
    decoder.strings.take_execs(tasks[:0], string_record(0, 7, StringRole.COMMAND))
    ((_, found),) = decoder.strings.take_execs(tasks, NO_STRINGS).items()

    assert found.command == text_of(0, 7, StringRole.COMMAND).decode()


def exec_task(seq: int) -> np.ndarray:
    """Return the TASK record of a thread's first exec, by the thread's id."""
    made = np.zeros(1, records.TASK)
    made["kind"], made["string_seq"], made["string_cpu"] = TaskKind.EXEC, seq, records.EXEC_STRINGS | 1
    return made


def make_string(
    role: StringRole, text: bytes, *, seq: int, cpu: int = records.EXEC_STRINGS | 1
) -> np.ndarray:
    """Return a STRING record of any text, cut as the kernel side cuts it."""
    made = string_record(cpu, seq, role)
    made["length"], made["text"] = min(len(text), records.STRING_LIMIT_DEFAULT + 1), 0
    kept = text[: records.STRING_LIMIT_DEFAULT + 1]
    made["text"][0, : len(kept)] = np.frombuffer(kept, np.uint8)
    return made


def test_a_thread_id_that_is_used_again_names_the_later_exec():
    """Strings of execs are named by the thread: where its id was another's before, the last ones count."""
    decoder = Decoder(BenignErrors(""))
    for path in (b"/bin/old", b"/bin/new"):
        decoder.strings.take_execs(exec_task(7), make_string(StringRole.FIRST_PATH, path, seq=7))
    calls = decoder.decode(call_records((records.EXEC_STRINGS | 1, 7), flags=records.HAS_STRING))

    assert path_of(calls, 0) == b"/bin/new"


def test_an_execs_strings_are_not_waited_for():
    """They come by a ring that is read before: what is not there was dropped, and waiting would not bring it."""
    strings = Decoder(BenignErrors("")).strings

    assert not strings.lacks(call_records((records.EXEC_STRINGS | 1, 7), flags=records.HAS_STRING))
    assert strings.lacks(call_records((0, 7)))


# Bytes that are in no argument: a NUL ends one.
arguments = st.lists(
    st.binary(max_size=30).map(lambda raw: raw.replace(b"\0", b"x")), min_size=1, max_size=12
)


@given(arguments)
def test_a_command_line_has_its_arguments(argv):
    """An exec has every argument, empty ones too; a line that is longer than what is kept ends with "..."."""
    raw = b"".join(argument + b"\0" for argument in argv)
    strings = Decoder(BenignErrors("")).strings
    found = strings.take_execs(exec_task(7), make_string(StringRole.ARGV, raw, seq=7))[0].args
    limit = records.STRING_LIMIT_DEFAULT

    if len(raw) <= limit:
        assert found == tuple(argument.decode(errors="backslashreplace") for argument in argv)
    else:
        whole = raw[:limit].removesuffix(b"\0").split(b"\0")
        assert found == (
            *(argument.decode(errors="backslashreplace") for argument in whole[:-1]),
            whole[-1].decode(errors="backslashreplace") + "...",
        )


def test_a_program_without_a_command_line_has_none():
    """Where the arguments were not asked for, or there are none, nothing is made up."""
    assert Decoder(BenignErrors("")).strings.take_execs(exec_task(7), NO_STRINGS)[0].args == ()


@given(st.sets(st.sampled_from([StringRole.FIRST_PATH, StringRole.SECOND_PATH, StringRole.ADDRESS])))
def test_a_call_has_the_strings_of_each_role(roles):
    """Paths and address of a call are told apart by their roles, whichever of them there are."""
    decoder = Decoder(BenignErrors(""))
    for role in roles:
        text = b"\x01\0/run/socket\0" if role == StringRole.ADDRESS else text_of(0, 7, role)
        decoder.strings.add(make_string(role, text, seq=7, cpu=0))
    calls = decoder.decode(call_records((0, 7)))

    assert (calls.path_row[0] >= 0).tolist() == [
        StringRole.FIRST_PATH in roles,
        StringRole.SECOND_PATH in roles,
    ]
    assert (calls.address_row[0] >= 0) == (StringRole.ADDRESS in roles)
    assert len(calls.paths) == len(roles - {StringRole.ADDRESS})
    assert len(calls.addresses.family) == len(roles & {StringRole.ADDRESS})
