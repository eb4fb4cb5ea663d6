"""What descriptors are: in any order of tellings and questions, the newest telling of a number, and what is used stays."""

import re
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit import files as files_module
from otel_sysexit.files import Files
from otel_sysexit.kernel import records
from otel_sysexit.kernel.records import StringRole
from otel_sysexit.texts import Texts

FILES_MAX = files_module._FILES_MAX
LIMIT = records.STRING_LIMIT_DEFAULT
CAPACITY = 8


@pytest.fixture(autouse=True, scope="module")
def few():
    """Let a generation have room for few files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files_module, "_FILES_MAX", CAPACITY)
        yield


def file_records(*files: tuple[int, bytes], mode: int = stat.S_IFREG, ino: int = 0) -> np.ndarray:
    """Return STRING records that tell what numbers mean."""
    made = np.zeros(len(files), records.STRING)
    made["role"], made["mode"], made["ino"] = StringRole.FILE, mode, ino
    for record, (number, name) in zip(made, files, strict=True):
        kept = name[: LIMIT + 1]
        record["seq"], record["length"] = number, len(kept)
        record["text"][: len(kept)] = np.frombuffer(kept, np.uint8)
    return made


def make_files() -> Files:
    """Return files."""
    return Files(LIMIT)


def ask(files: Files, *numbers: int) -> list[bytes | None]:
    """Return what numbers mean, asked for in one batch of calls with two descriptors each."""
    pairs = np.array([*numbers, *[0] * (len(numbers) % 2)], np.uint32).reshape(-1, 2)
    row, texts = files.find(pairs)
    return [text_at(texts, found) for found in row.reshape(-1)[: len(numbers)].tolist()]


def text_at(texts: Texts, row: int) -> bytes | None:
    """Return a text, None for -1."""
    return texts.text[row, : texts.length[row]].tobytes() if row >= 0 else None


# What happens: files are told of, or asked for, by small numbers so that these come again.
numbers = st.integers(1, 12)
events = st.lists(
    st.tuples(st.sampled_from(["told", "asked"]), st.lists(numbers, min_size=1, max_size=4)), max_size=40
)


@given(events)
def test_a_number_means_what_was_told_last(happened):
    """Whatever is found is the newest telling of that number; what was never told is not found."""
    files, newest = make_files(), {}
    for at, (event, chosen) in enumerate(happened):
        if event == "told":
            told = [(number, f"/{number}/{at}/{place}".encode()) for place, number in enumerate(chosen)]
            files.add(file_records(*told))
            newest |= dict(told)
        else:
            for number, found in zip(chosen, ask(files, *chosen), strict=True):
                assert found in (newest.get(number), None)

    assert max(files._younger.count, files._older.count) <= CAPACITY


@given(events)
def test_what_is_used_is_kept(happened):
    """A file is found as long as, since it was told or asked for, no more were told or asked for than a generation has room for."""
    files = make_files()
    since: dict[int, int] = {}  # by number: how much was since it was touched
    for event, chosen in happened:
        if event == "told":
            files.add(file_records(*((number, b"/file") for number in chosen)))
            touched = chosen
        else:
            found = ask(files, *chosen)
            for number, text in zip(chosen, found, strict=True):
                assert text is not None or since.get(number, CAPACITY + 1) > CAPACITY - len(chosen)
            touched = sorted({number for number, text in zip(chosen, found, strict=True) if text is not None})
        for number in touched:
            since = {other: count + 1 for other, count in since.items()}
            since[number] = len(touched)


@given(st.lists(st.integers(1, CAPACITY), max_size=30), st.integers(1, CAPACITY))
def test_a_file_that_is_asked_for_again_and_again_stays(bursts, favourites):
    """Files in use outlive any number of others that are told of meanwhile, a generation's worth at a time."""
    files = make_files()
    wanted = range(1, favourites + 1)
    files.add(file_records(*((number, b"/in/use") for number in wanted)))
    for count in bursts:
        files.add(file_records(*((number, b"/other") for number in range(100, 100 + count))))

        assert ask(files, *wanted) == [b"/in/use"] * favourites


@given(st.lists(numbers, max_size=60))
def test_the_oldest_are_forgotten_first(told):
    """Of files that nobody asks for those told last are kept: a generation's worth at least, two at most."""
    files = make_files()
    for number in told:
        files.add(file_records((number, b"/file")))
    kept = {number for number in range(1, 13) if ask_only(files, number)}

    assert set(told[-CAPACITY:]) <= kept <= set(told[-2 * CAPACITY :])


def ask_only(files: Files, number: int) -> bool:
    """Whether a number is known, which does not make it new again."""
    return not files.lacks(np.array([[number, 0]], np.uint32))


@given(st.lists(st.integers(0, 6), max_size=20))
def test_each_file_has_one_text_in_a_batch(asked):
    """However many calls name a file, it is there once; 0 is no file; what is unknown has no row."""
    files = make_files()
    files.add(file_records(*((number, b"/%d" % number) for number in (1, 2, 3, 4))))
    known = {number for number in asked if 1 <= number <= 4}
    pairs = np.array([*asked, *[0] * (len(asked) % 2)], np.uint32).reshape(-1, 2)
    row, texts = files.find(pairs)

    assert row.shape == pairs.shape
    assert len(texts) == len(known)
    for number, found in zip(asked, row.reshape(-1).tolist(), strict=False):
        assert text_at(texts, found) == (b"/%d" % number if number in known else None)


@pytest.mark.parametrize(
    ("mode", "name", "shown"),
    [
        (stat.S_IFREG | 0o644, b"/etc/hosts", b"/etc/hosts"),
        (stat.S_IFDIR | 0o755, b"/", b"/"),
        (stat.S_IFCHR, b"/dev/null", b"/dev/null"),
        (stat.S_IFSOCK | 0o777, b"TCP", b"socket:[42]"),
        (stat.S_IFSOCK | 0o777, b"", b"socket:[42]"),
        (stat.S_IFIFO | 0o600, b"", b"pipe:[42]"),
        (stat.S_IFIFO | 0o600, b"/run/fifo", b"/run/fifo"),
        (stat.S_IFSOCK | 0o777, b"/run/socket", b"/run/socket"),
        (0o600, b"[eventpoll]", b"anon_inode:[eventpoll]"),
        (0o600, b"[eventfd]", b"anon_inode:[eventfd]"),
        (stat.S_IFREG | 0o777, b"memfd:secret", b"memfd:secret"),
        (stat.S_IFREG | 0o444, b"/", b"inode:[42]"),
        (0o700, b"/", b"inode:[42]"),
        (stat.S_IFREG, b"", None),
        (stat.S_IFREG, "/dé".encode(), "/dé".encode()),
        (stat.S_IFREG, b"/\xff/x", rb"/\xff/x"),
        (stat.S_IFREG, b"\xff", rb"\xff"),
    ],
)
def test_a_file_is_called_as_proc_calls_it(mode, name, shown):
    r"""A path as it is; what has none by its sort and inode; bytes that are no UTF-8 as \xNN; what has no name is nothing."""
    files = make_files()
    files.add(file_records((7, name), mode=mode, ino=42))

    assert ask(files, 7) == [shown]


@given(
    st.lists(st.tuples(st.integers(1, 3), st.binary(max_size=LIMIT + 1)), max_size=4),
    st.integers(0, 2**16 - 1),
)
def test_any_name_becomes_a_text(told, mode):
    """Whatever bytes a name has, it is valid UTF-8 of at most as many bytes as are kept, without a NUL."""
    files = make_files()
    files.add(file_records(*((number, name.replace(b"\0", b"x")) for number, name in told), mode=mode))
    for found in ask(files, 1, 2, 3):
        if found is not None:
            found.decode()
            assert 0 < len(found) <= LIMIT
            assert b"\0" not in found


def test_nothing_told_is_nothing_found():
    """Without files there are neither rows nor texts; telling of none changes nothing."""
    files = make_files()
    files.add(file_records())
    row, texts = files.find(np.array([[1, 0]], np.uint32))

    assert (row.tolist(), len(texts)) == ([[-1, -1]], 0)


def test_what_is_kept_has_a_bound_in_bytes(monkeypatch):
    """However long names are, a generation has no more bytes of them than it may, but for one batch of records."""
    monkeypatch.setattr(files_module, "_FILES_MAX", 1_000)
    monkeypatch.setattr(files_module, "_BYTES_MAX", 1_000)
    files = make_files()
    for number in range(1, 101):
        files.add(file_records((number, b"/" + b"x" * 99)))

    assert files._younger._bytes_used + files._older._bytes_used <= 2_000


def test_as_many_are_kept_as_the_kernel_side_remembers():
    """What the kernel side has told of, and does not tell again for a while, is not forgotten before."""
    source = (Path(__file__).parents[2] / "bpf" / "files.bpf.c").read_text(encoding="utf-8")

    assert int(re.search(r"#define FILES_KNOWN_MAX (\d+)", source)[1]) <= FILES_MAX


def test_numbers_with_one_hash_are_told_apart():
    """Of files whose numbers share a slot each is found, and what was never told is not."""
    files = make_files()
    files.add(file_records((1, b"/one"), (2, b"/two"), (3, b"/three")))
    files._younger._table._rows[:] = 1

    assert ask(files, 1, 2, 3, 4) == [b"/one", b"/two", b"/three", None]
