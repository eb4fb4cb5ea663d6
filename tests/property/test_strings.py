"""Strings and their calls come through different rings: in whatever order CPUs wrote them, each call gets its own."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit.calls import _SLACK, BenignErrors, Calls, Decoder
from otel_sysexit.kernel import records
from otel_sysexit.kernel.records import StringRole, TaskKind

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
        wanted = decoder.strings_wanted(made)
        decoder.add_strings(strings[position : position + wanted])
        position += wanted

        assert not decoder.lacks_strings(made)

        calls = decoder.decode(made)

        assert [path_of(calls, row) for row in range(len(batch))] == [
            text_of(*call, StringRole.FIRST_PATH) for call in batch
        ]
        assert len(decoder._strings) <= _SLACK


@given(st.lists(st.integers(0, 9), max_size=4))
def test_an_execs_path_waits_for_its_call(later):
    """An exec's call may be decoded long after its task record, and after later calls of its CPU: it has its path."""
    decoder = Decoder(BenignErrors(""))
    tasks = np.zeros(1, records.TASK)
    tasks["kind"], tasks["string_seq"] = TaskKind.EXEC, 7
    decoder.take_exec_strings(tasks, string_record(0, 7, StringRole.FIRST_PATH))
    for distance in later:
        decoder.decode(call_records((0, 8 + distance)))
    calls = decoder.decode(call_records((0, 7), flags=records.HAS_STRING))

    assert path_of(calls, 0) == text_of(0, 7, StringRole.FIRST_PATH)


def test_strings_of_an_exec_may_come_before_its_record():
    """What is read early is kept for the task record that names it."""
    decoder = Decoder(BenignErrors(""))
    tasks = np.zeros(1, records.TASK)
    tasks["kind"], tasks["string_seq"] = TaskKind.EXEC, 7
    decoder.take_exec_strings(tasks[:0], string_record(0, 7, StringRole.COMMAND))
    ((_, found),) = decoder.take_exec_strings(tasks, NO_STRINGS).items()

    assert found.command == text_of(0, 7, StringRole.COMMAND).decode()
