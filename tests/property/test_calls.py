"""Decoding: any record at all is taken, strings find their calls and no others, times and outcomes follow the rules."""

import itertools
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit import syscalls
from otel_sysexit.benign import BenignErrors
from otel_sysexit.calls import Calls, Decoder, Outcome
from otel_sysexit.kernel import records
from otel_sysexit.kernel.records import CallKind, StringRole
from otel_sysexit.strings import _EXECS_MAX

INTERRUPTIONS = (-512, -513, -514, -516)
# Where the rules change, and one to either side.
RESULTS = [0, 1, -1, 39, -4094, -4095, -4096, *range(-517, -510), 2**63 - 1, -(2**63)]
results = st.sampled_from(RESULTS) | st.integers(-(2**63), 2**63 - 1)
garbage = st.binary(max_size=20 * records.CALL.itemsize).map(
    lambda data: np.frombuffer(
        data[: len(data) // records.CALL.itemsize * records.CALL.itemsize], records.CALL
    )
)


def call_records(*rows: dict) -> np.ndarray:
    """Return CALL records; what a row does not give is a finished read() that returned 0."""
    made = np.zeros(len(rows), records.CALL)
    made["restarted_nr"] = -1
    for record, row in zip(made, rows, strict=True):
        for name, value in row.items():
            record[name] = value
    return made


def string_record(
    seq: int,
    cpu: int,
    role: StringRole,
    text: bytes,
    length: int | None = None,
    *,
    limit: int = records.STRING_LIMIT_DEFAULT,
) -> np.ndarray:
    """Return one STRING record."""
    made = np.zeros(1, records.string_dtype(limit))
    made["seq"], made["cpu"], made["role"] = seq, cpu, role
    made["length"] = len(text) if length is None else length
    made["text"][0, : len(text)] = np.frombuffer(text, np.uint8)
    return made


def path_of(calls: Calls, row: int, column: int) -> bytes | None:
    """Return the path of a call as bytes, None when it has none."""
    found = calls.path_row[row, column]
    return calls.paths.text[found, : calls.paths.length[found]].tobytes() if found >= 0 else None


def garbage_strings(limit: int) -> st.SearchStrategy[np.ndarray]:
    """Return STRING records of any content, with numbers so small that calls name some of them."""
    dtype = records.string_dtype(limit)

    def shape(data: bytes) -> np.ndarray:
        found = np.frombuffer(data[: len(data) // dtype.itemsize * dtype.itemsize], dtype).copy()
        found["seq"] %= 4
        found["cpu"] %= 2
        found["role"] %= len(StringRole)
        return found

    return st.binary(max_size=4 * dtype.itemsize).map(shape)


@given(garbage, garbage_strings(128), garbage_strings(128))
def test_any_record_is_decoded(calls, strings, files):
    """Whatever bytes are in records, each becomes one row, and every text is valid UTF-8."""
    calls = calls.copy()
    for name, count in (("string_seq", 4), ("string_cpu", 2), ("files", 4)):
        calls[name] %= count
    decoder = Decoder(BenignErrors("EAGAIN,futex*:ETIMEDOUT"), 128)
    decoder.strings.add(strings)
    decoder.files.add(files)
    decoded = decoder.decode(calls)

    assert len(decoded) == len(calls)
    assert decoded.path_row.max(initial=-1) < len(decoded.paths)
    assert decoded.file_row.max(initial=-1) < len(decoded.files)
    assert decoded.address_row.max(initial=-1) < len(decoded.addresses.texts)
    for texts in (decoded.paths, decoded.files, decoded.addresses.texts):
        for text, length in zip(texts.text, texts.length.tolist(), strict=True):
            text[:length].tobytes().decode()


@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62)), max_size=20))
def test_a_call_ends_after_it_starts(times):
    """The duration is added to the start; both clocks agree on it."""
    decoder = Decoder(BenignErrors(""))
    calls = decoder.decode(call_records(*({"start_ns": start, "duration_ns": took} for start, took in times)))
    offset_ns = decoder.clock.offset_ns()

    assert (calls.start_unix_ns + calls.duration_ns >= calls.start_unix_ns).all()
    assert calls.end_boot_ns.tolist() == [start + took for start, took in times]
    assert calls.start_unix_ns.tolist() == [start + offset_ns for start, _ in times]


def test_a_clock_that_is_behind_stops_nothing():
    """Where the wall clock is not set yet, it may be behind the boot clock; times are as it says."""
    decoder = Decoder(BenignErrors(""))
    decoder.clock.offset_ns = lambda: -5

    assert decoder.decode(call_records({"start_ns": 7})).start_unix_ns.tolist() == [2]


def expected_outcome(name: str, rolled_back: int, ret: int, call_kind: CallKind, benign: set[int]) -> Outcome:
    """Return how a call ended, by the documented rules, the first that applies; *rolled_back*: what a trap leaves."""
    rules = [
        (call_kind == CallKind.NEVER_RETURNED, Outcome.NO_RETURN),
        (name in ("rt_sigreturn", "sigreturn"), Outcome.NO_VALUE),
        (call_kind == CallKind.NOT_EXECUTED and ret == rolled_back, Outcome.NO_VALUE),
        (ret in INTERRUPTIONS, Outcome.INTERRUPTED),
        (-ret in benign, Outcome.BENIGN),
        (-4095 <= ret < 0, Outcome.FAILED),
    ]
    return next((outcome for applies, outcome in rules if applies), Outcome.SUCCEEDED)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["read", "rt_sigreturn", "exit_group", "getpid", "futex"]),
            st.sampled_from(syscalls.Abi),
            st.just(None) | results,  # None: what was in the register before
            st.sampled_from(CallKind),
        ),
        max_size=30,
    )
)
def test_outcomes_follow_the_rules(made):
    """Every outcome is what the table of rules says, and only failures have an errno."""
    rows, expected = [], []
    for name, abi, result, call_kind in made:
        nr = syscalls.number_of(name, abi)
        first_argument = 77
        if abi in (syscalls.Abi.AARCH64, syscalls.Abi.ARM):
            rolled_back = first_argument
        else:
            rolled_back = nr | syscalls.X32_BIT if abi == syscalls.Abi.X32 else nr
        ret = rolled_back if result is None else result
        args = [first_argument, 0, 0, 0, 0, 0]
        rows.append({"nr": nr, "abi": abi, "ret": ret, "kind_flags": call_kind, "args": args})
        expected.append(expected_outcome(name, rolled_back, ret, call_kind, {11}))
    calls = Decoder(BenignErrors("EAGAIN")).decode(call_records(*rows))
    failures = (Outcome.FAILED, Outcome.BENIGN)

    assert calls.outcome.tolist() == expected
    assert calls.errno.tolist() == [
        -row["ret"] if outcome in failures else 0 for row, outcome in zip(rows, expected, strict=True)
    ]
    assert calls.is_executed.tolist() == [call_kind != CallKind.NOT_EXECUTED for *_, call_kind in made]


@pytest.mark.parametrize(
    ("ret", "kind_flags", "expected"),
    [
        (-4095, 0, Outcome.FAILED),
        (-4096, 0, Outcome.SUCCEEDED),
        (-512, 0, Outcome.INTERRUPTED),
        (-515, 0, Outcome.FAILED),
        (-516, 0, Outcome.INTERRUPTED),
        (39, CallKind.NOT_EXECUTED, Outcome.NO_VALUE),
        (38, CallKind.NOT_EXECUTED, Outcome.SUCCEEDED),
        (-38, CallKind.NOT_EXECUTED, Outcome.FAILED),
        (0, CallKind.NEVER_RETURNED, Outcome.NO_RETURN),
    ],
)
def test_outcomes_at_the_edges(ret, kind_flags, expected):
    """Results of getpid (39) around each edge, spelt out."""
    record = call_records({"nr": 39, "ret": ret, "kind_flags": kind_flags})

    assert Decoder(BenignErrors("")).decode(record).outcome.tolist() == [expected]


# --- strings ----------------------------------------------------------------------------------------------------------

# (CPU, which of its paths have strings, in which round after the call's these come: negative: before it)
stringed_calls = st.tuples(
    st.integers(0, 3), st.sets(st.sampled_from([0, 1])), st.integers(-3, 2), st.booleans()
)


@given(st.lists(st.lists(stringed_calls, max_size=8), max_size=8))
def test_strings_find_their_calls_and_no_others(rounds):
    """A call has the paths that came with its number by the time it is decoded; no call ever has another's."""
    arriving: dict[int, list[np.ndarray]] = {}
    calls_of: list[list[tuple[int, int, bool, dict[int, bytes]]]] = []
    sequence = itertools.count(1)
    for index, made in enumerate(rounds):
        calls_of.append([])
        for cpu, roles, delay, has_string in made:
            seq = next(sequence)
            texts = {role: f"/{cpu}/{seq}/{role}".encode() for role in roles}
            for role, text in texts.items():
                arriving.setdefault(max(index + delay, 0), []).append(
                    string_record(seq, cpu, StringRole(role), text)
                )
            in_time = texts if has_string and delay <= 0 else {}
            calls_of[-1].append((cpu, seq, has_string, in_time))
    decoder = Decoder(BenignErrors(""))
    for index, expected in enumerate(calls_of):
        for strings in arriving.pop(index, []):
            decoder.strings.add(strings)
        flag = {True: records.HAS_STRING | records.HAS_ARGS, False: records.HAS_ARGS}
        rows = [
            {"string_cpu": cpu, "string_seq": seq, "kind_flags": flag[has_string]}
            for cpu, seq, has_string, _ in expected
        ]
        calls = decoder.decode(call_records(*rows))
        for row, (*_, texts) in enumerate(expected):
            assert {0: path_of(calls, row, 0), 1: path_of(calls, row, 1)} == {
                column: texts.get(column) for column in (0, 1)
            }


@given(st.integers(0, 3), st.integers(-4095, -1))
def test_an_unreadable_string_is_none(cpu, length):
    """A string whose memory was not there (a negative length) is no path."""
    decoder = Decoder(BenignErrors(""))
    decoder.strings.add(string_record(7, cpu, StringRole.FIRST_PATH, b"", length))
    calls = decoder.decode(
        call_records({"string_cpu": cpu, "string_seq": 7, "kind_flags": records.HAS_STRING})
    )

    assert calls.path_row.tolist() == [[-1, -1]]


LIMITS = [64, 128, records.STRING_LIMIT_DEFAULT, 4096]


@pytest.mark.parametrize("limit", LIMITS)
@given(st.sampled_from([b"/", "ü".encode(), b"\xff"]), st.integers(0, 12), st.binary(max_size=16))
def test_a_path_is_valid_utf8_and_says_when_it_was_cut(limit, unit, missing, end):
    """A path's text is UTF-8 of at most as many bytes as are kept: what was read, or its beginning and a note of that."""
    # Read is one byte more than is kept, which tells of a cut.
    raw = ((unit * limit)[: limit - missing] + end.replace(b"\0", b"/"))[: limit + 1]
    decoder = Decoder(BenignErrors(""), limit)
    decoder.strings.add(string_record(1, 0, StringRole.FIRST_PATH, raw, limit=limit))
    calls = decoder.decode(call_records({"string_seq": 1, "kind_flags": records.HAS_STRING}))
    text = raw[:limit].decode(errors="backslashreplace")
    path = path_of(calls, 0, 0).decode()

    assert len(path.encode()) <= limit
    assert text.startswith(path)
    assert calls.paths.is_cut.tolist() == [path != text or len(raw) > limit]


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(0, 5))
def test_strings_that_nobody_will_ask_for_are_forgotten(first, older, newer):
    """Once a call has its string, older ones of its CPU are dropped and newer ones kept; numbers go round at 2^32."""
    decoder = Decoder(BenignErrors(""))
    numbers = [(first + index) % 2**32 for index in range(older + 1 + newer)]
    for number in numbers:
        decoder.strings.add(string_record(number, 0, StringRole.FIRST_PATH, b"/mine"))
    decoder.strings.add(string_record(numbers[0], 1, StringRole.FIRST_PATH, b"/another CPU's"))
    flags = records.HAS_STRING | records.HAS_ARGS
    decoder.decode(call_records({"string_seq": numbers[older], "kind_flags": flags}))
    asked = [
        *({"string_seq": number, "kind_flags": flags} for number in numbers),
        {"string_seq": numbers[0], "string_cpu": 1, "kind_flags": flags},
    ]
    calls = decoder.decode(call_records(*asked))

    assert (calls.path_row[:, 0] >= 0).tolist() == [False] * (older + 1) + [True] * (newer + 1)


def test_paths_of_execs_are_kept_up_to_a_bound():
    """An exec whose call is filtered leaves its path behind: the newest of these are kept, and no more."""
    decoder = Decoder(BenignErrors(""))
    strings = np.zeros(_EXECS_MAX + 5, records.STRING)
    strings["seq"] = np.arange(len(strings))
    decoder.strings.take_execs(np.empty(0, records.TASK), strings)
    asked = [{"string_seq": seq, "kind_flags": records.HAS_STRING} for seq in (4, 5, len(strings) - 1)]
    calls = decoder.decode(call_records(*asked))

    assert (calls.path_row[:, 0] >= 0).tolist() == [False, True, True]


@given(st.integers(0, 9), st.integers(0, 9))
def test_no_more_strings_are_read_than_calls_can_name(named, unnamed):
    """Two for each call that has one, and a little for CPUs that are ahead."""
    decoder = Decoder(BenignErrors(""))
    flags = records.HAS_STRING | records.HAS_ARGS
    made = [*[{"kind_flags": flags}] * named, *[{"kind_flags": records.HAS_ARGS}] * unnamed]
    calls = call_records(*made)
    slack = decoder.strings.wanted(call_records())

    assert decoder.strings.wanted(calls) == 2 * named + slack


@given(
    st.lists(st.tuples(st.sampled_from(StringRole), st.binary(max_size=40)), max_size=6), st.integers(0, 2)
)
def test_an_exec_has_its_strings(made, seq):
    """What the kernel said of an exec is found by its number; of what it did not say, nothing is made up."""
    decoder = Decoder(BenignErrors(""))
    expected = dict.fromkeys(StringRole, "")
    parts = [np.empty(0, records.STRING)]
    for role, text in made:
        parts.append(string_record(1, 0, role, text.replace(b"\0", b"x")))
        if seq == 1:
            expected[role] = text.replace(b"\0", b"x").decode(errors="backslashreplace")
    tasks = np.zeros(2, records.TASK)
    tasks["kind"] = records.TaskKind.RENAME, records.TaskKind.EXEC
    tasks["string_seq"] = seq
    ((row, strings),) = decoder.strings.take_execs(tasks, np.concatenate(parts)).items()

    assert row == 1
    assert (strings.filename, strings.command, strings.executable) == (
        expected[StringRole.FIRST_PATH],
        expected[StringRole.COMMAND],
        expected[StringRole.EXECUTABLE],
    )


# --- benign errors ----------------------------------------------------------------------------------------------------


def benign(text: str, cases: Iterable[tuple[str, int]]) -> list[bool]:
    """Return which of (call, errno) are benign."""
    kinds = syscalls.Kinds()
    numbers = np.array([syscalls.number_of(name, syscalls.Abi.X86_64) for name, _ in cases], np.int32)
    kind = kinds.index(np.zeros(len(numbers), np.uint8), numbers, np.full(len(numbers), -1, np.int32))
    return BenignErrors(text).match(np.array([code for _, code in cases], np.uint16), kind, kinds).tolist()


CASES = [("read", 11), ("futex", 110), ("futex_wait", 110), ("read", 110), ("futex", 0), ("openat", 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [False] * 6),
        ("EAGAIN", [True, False, False, False, False, False]),
        (" eagain , ENOENT,", [True, False, False, False, False, True]),
        ("EWOULDBLOCK", [True, False, False, False, False, False]),
        ("futex:ETIMEDOUT", [False, True, False, False, False, False]),
        ("futex*:ETIMEDOUT", [False, True, True, False, False, False]),
        ("*:ETIMEDOUT", [False, True, True, True, False, False]),
        ("[or]*:ENOENT,read:EAGAIN", [True, False, False, False, False, True]),
    ],
)
def test_benign_errors_are_matched_by_errno_and_call(text, expected):
    """ERRNO counts for every call, GLOB:ERRNO for calls of that name; case and blanks do not matter."""
    assert benign(text, CASES) == expected


@pytest.mark.parametrize("text", ["EWHAT", "futex:", "11", "EAGAIN:futex", "EAGAIN,,EWHAT"])
def test_an_unknown_errno_is_refused(text):
    """What names no errno is an error of one line."""
    with pytest.raises(ValueError, match="unknown errno") as caught:
        BenignErrors(text)

    assert "\n" not in str(caught.value)


@given(st.lists(st.binary(min_size=24, max_size=24), max_size=5))
def test_a_call_says_which_span_it_was_made_in(ids):
    """Records with room for a span give its ids byte for byte; of records without, nobody says."""
    made = np.zeros(len(ids), records.call_dtype(has_span=True))
    made["span"] = np.frombuffer(b"".join(ids), records.SPAN_CONTEXT)

    assert Decoder(BenignErrors("")).decode(made).span.tobytes() == b"".join(ids)
    assert Decoder(BenignErrors("")).decode(np.zeros(1, records.CALL)).span is None
