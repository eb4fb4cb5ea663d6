"""Arguments as text, for columns of calls."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_sysexit import arguments
from otel_sysexit.arguments import ArgumentTexts, Texts
from otel_sysexit.notation import placed_sorts
from otel_sysexit.signatures import shipped_signature
from otel_sysexit.syscalls import NUMBERS, Abi, Kinds, convert_arguments, number_of, numbers

NOTHING = (None,) * 6
CALLS = [abi * NUMBERS + number for abi in Abi for number in numbers(abi).values() if 0 <= number < NUMBERS]
COMMON = [
    abi * NUMBERS + numbers(abi)[name]
    for abi in (Abi.X86_64, Abi.I386, Abi.AARCH64)
    for name in ("openat", "fcntl", "prctl", "socket", "kill", "read", "newfstatat", "getpid", "mmap")
    if name in numbers(abi)
]
REGISTERS = st.sampled_from([0, 1, 2, 3, 4, 0o100, 0x80000, 2**64 - 100, 2**32 - 100]) | st.integers(
    0, 2**64 - 1
)
batches = st.lists(
    st.tuples(st.sampled_from(COMMON) | st.sampled_from(CALLS), st.lists(REGISTERS, min_size=6, max_size=6)),
    max_size=30,
)


class Batches:
    """Texts of batches of calls, by name or by kind."""

    def __init__(self) -> None:
        self.kinds = Kinds()
        self.texts = ArgumentTexts()

    def index(self, calls: Sequence[tuple[int, Sequence[int]]]) -> list[int]:
        """Return the indices of calls given as kind and registers."""
        kind = np.array([kind for kind, _ in calls], np.uint16)
        registers = np.array([args for _, args in calls], np.uint64).reshape(-1, 6)
        args = convert_arguments(registers, self.kinds.forms(kind))
        before = args.copy()
        index = self.texts.index(kind, args, self.kinds)
        assert (index.dtype, index.shape) == (np.uint16, (len(calls),))
        assert np.array_equal(args, before)
        return index.tolist()

    def __call__(self, *calls: tuple[str, Sequence[int]], abi: Abi = Abi.X86_64) -> list[Texts]:
        """Return the texts of calls given by name and their first arguments."""
        rows = []
        for name, args in calls:
            number = number_of(name, abi)
            assert number is not None
            rows.append((abi * NUMBERS + number, [value % 2**64 for value in (*args, *[0] * 6)[:6]]))
        return [self.texts[index] for index in self.index(rows)]

    def naive(self, kind: int, registers: Sequence[int]) -> Texts:
        """Return the texts of one call, the plain way."""
        of = self.kinds[kind]
        forms = self.kinds.forms(np.array([kind], np.uint16))
        args = convert_arguments(np.array([registers], np.uint64), forms)[0].tolist()
        widths = {1: 32, 2: 32, 3: 16, 5: 32}
        texts: dict[int, str | None] = {}
        for placed in placed_sorts(of.name, shipped_signature(of.name, of.abi.label) or ()):
            if placed.holds(args) and placed.place not in texts:
                bits = args[placed.place] % 2 ** widths.get(of.arguments[placed.place].form, 64)
                texts[placed.place] = placed.sort.text(args[placed.place], bits, of.abi)
        return tuple(map(texts.get, range(6)))


def test_arguments_have_texts_at_their_places() -> None:
    """Numbers that are only numbers have none."""
    assert Batches()(("openat", [-100, 0x7FFE0000, 0x80241, 0o600])) == [
        ("AT_FDCWD", None, "O_WRONLY|O_CREAT|O_TRUNC|O_CLOEXEC", "0600", None, None)
    ]


def test_calls_without_text_share_index_0() -> None:
    """Calls without such arguments, those whose values have no name, and numbers nobody knows."""
    batches = Batches()
    kill, unknown = Abi.X86_64 * NUMBERS + 62, 500
    assert batches.index([(0, [3, 4, 5, 0, 0, 0]), (kill, [1, 99, 0, 0, 0, 0]), (unknown, [1] * 6)]) == [
        0,
        0,
        0,
    ]
    assert batches.texts[0] == NOTHING


def test_what_is_no_text_makes_no_combination() -> None:
    """Descriptors, addresses, and modes that are not looked at: calls that differ in them share an index."""
    batches = Batches()
    openat = Abi.X86_64 * NUMBERS + 257
    index = batches.index(
        [(openat, [fd, 0x1000 * fd, 0x80000, fd, fd, fd]) for fd in range(1000)]
        + [(Abi.X86_64 * NUMBERS + 72, [fd, 6, 0x1000 * fd, 0, 0, 0]) for fd in range(1000)]
    )
    assert len(set(index)) == 2
    assert 0 not in index


def test_a_32_bit_value_is_written_with_32_bits() -> None:
    """Flags in an int whose highest bit is set are no 64-bit number."""
    assert Batches()(("inotify_add_watch", [3, 0, 0x80000000])) == [
        (None, None, "IN_ONESHOT", None, None, None)
    ]
    assert Batches()(("umask", [-1])) == [("037777777777", None, None, None, None, None)]


def test_a_combination_keeps_its_index() -> None:
    """Later batches find what earlier ones found; an index once given out means the same for ever."""
    batches = Batches()
    kill = Abi.X86_64 * NUMBERS + 62
    first = batches.index([(kill, [1, signal, 0, 0, 0, 0]) for signal in (15, 9, 15)])
    again = batches.index([(kill, [2, signal, 0, 0, 0, 0]) for signal in (1, 9, 15)])
    assert first[0] == first[2] == again[2]
    assert first[1] == again[1] != again[0]
    assert [batches.texts[index][1] for index in again] == ["SIGHUP", "SIGKILL", "SIGTERM"]


def test_no_calls_have_no_indices() -> None:
    """An empty batch is fine."""
    assert Batches().index([]) == []


@settings(database=None, deadline=None)
@given(st.lists(batches, max_size=4))
def test_any_batch_has_the_texts_of_the_plain_way(many: list[list[tuple[int, list[int]]]]) -> None:
    """For any calls of any ABI with any registers, in any order: as if each call was looked at alone."""
    found = Batches()
    for batch in many:
        assert [found.texts[index] for index in found.index(batch)] == [
            found.naive(kind, registers) for kind, registers in batch
        ]


def test_every_call_can_have_any_arguments() -> None:
    """No call of any ABI trips over extreme registers."""
    extremes = [0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
    found = Batches()
    batch = [(kind, [value] * 6) for kind in CALLS for value in extremes]
    assert [found.texts[index] for index in found.index(batch)] == [found.naive(*call) for call in batch]


def test_a_kind_has_room_for_so_many_combinations() -> None:
    """What comes after stays numbers, what came before keeps its text, and other kinds are not touched."""
    batches = Batches()
    umask, mkdir = Abi.X86_64 * NUMBERS + 95, Abi.X86_64 * NUMBERS + 83
    index = batches.index([(umask, [mode, 0, 0, 0, 0, 0]) for mode in range(1000)])
    assert index == [*range(1, 257), *[0] * 744]
    again = batches.index([(umask, [5, *[0] * 5]), (umask, [999, *[0] * 5]), (mkdir, [0, 5, *[0] * 4])])
    assert again == [6, 0, 257]


def test_there_is_room_for_so_many_combinations_in_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bound over all kinds holds too."""
    monkeypatch.setattr(arguments, "COMBINATIONS_MAX", 10)
    batches = Batches()
    umask, mkdir = Abi.X86_64 * NUMBERS + 95, Abi.X86_64 * NUMBERS + 83
    assert batches.index([(umask, [mode, *[0] * 5]) for mode in range(8)]) == [*range(1, 9)]
    assert batches.index([(mkdir, [0, mode, *[0] * 4]) for mode in range(4)]) == [9, 10, 0, 0]
    assert batches.index([(umask, [7, *[0] * 5]), (umask, [8, *[0] * 5])]) == [8, 0]


def test_combinations_with_one_key_are_not_mistaken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where keys coincide the later combination stays numbers: no text is ever another call's."""
    monkeypatch.setattr(
        arguments,
        "_keys",
        lambda kind, values: values.sum(axis=1).astype(np.uint64) % np.uint64(2) + np.uint64(len(kind)),
    )
    assert Batches()(("kill", [0, 1]), ("kill", [0, 3]), ("mkdir", [0, 1]), ("kill", [0, 1])) == [
        (None, "SIGHUP", None, None, None, None),
        NOTHING,
        NOTHING,
        (None, "SIGHUP", None, None, None, None),
    ]


def test_a_combination_whose_slot_is_taken_is_found_all_the_same() -> None:
    """Several combinations can have one slot: it holds the latest, and the others keep their indices."""
    batches = Batches()
    calls = [(Abi.X86_64 * NUMBERS + 62, [1, signal, 0, 0, 0, 0]) for signal in range(1, 9)]
    before = batches.index(calls)
    batches.texts._table._rows[:] = before[0]
    assert batches.index(calls) == before
