"""The folder of compiled programs: what was stored comes out; what anybody else could have written, or is not whole, does not."""

import os
from pathlib import Path

import pytest

from otel_sysexit.kernel.cache import ENTRIES_MAX, Cache

KEY = "a1" * 32
OTHER_KEY = "b2" * 32
ENTRY, OTHER_ENTRY = f"{KEY}.bpf", f"{OTHER_KEY}.bpf"
CONTENT = b'{"object": "..."}' * 1000


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with one entry."""
    Cache(str(tmp_path / "cache")).write(KEY, CONTENT)
    return tmp_path / "cache"


def read(folder: Path, key: str = KEY) -> bytes | None:
    """Return an entry."""
    return Cache(str(folder)).read(key)


def test_what_was_stored_comes_out(folder):
    """An entry is read by another process as it was written, and only under its key."""
    assert read(folder) == CONTENT
    assert read(folder, OTHER_KEY) is None


def test_folder_and_files_are_for_their_owner_only(tmp_path):
    """Folder and files are made for nobody else, with any mask; a folder above that is missing is made as such folders are."""
    mask = os.umask(0)
    try:
        Cache(str(tmp_path / "a" / "b")).write(KEY, CONTENT)
    finally:
        os.umask(mask)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / ENTRY]

    assert [oct(path.stat().st_mode & 0o777) for path in made] == ["0o755", "0o700", "0o600"]


def test_an_entry_is_replaced(folder):
    """The last content counts, and nothing else is left behind."""
    Cache(str(folder)).write(KEY, b"new")

    assert read(folder) == b"new"
    assert [path.name for path in folder.iterdir()] == [ENTRY]


def test_no_folder_is_no_entry(tmp_path):
    """Before anything was stored there is nothing, and reading makes no folder."""
    assert read(tmp_path / "nowhere") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("length", [0, 10, 64, 65, 100, -1])
def test_a_truncated_entry_is_none(folder, length):
    """What is not whole is not there."""
    entry = folder / ENTRY
    entry.write_bytes(entry.read_bytes()[:length])

    assert read(folder) is None


@pytest.mark.parametrize("at", [0, 63, 64, 5000])
def test_a_changed_entry_is_none(folder, at):
    """One bit makes it another one."""
    data = bytearray((folder / ENTRY).read_bytes())
    data[at] ^= 1
    (folder / ENTRY).write_bytes(data)

    assert read(folder) is None


def test_a_renamed_entry_is_none(folder):
    """An entry counts for the key that it was written for."""
    (folder / ENTRY).rename(folder / OTHER_ENTRY)

    assert read(folder, OTHER_KEY) is None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_none(folder, mode):
    """Who could have put it there is not asked."""
    (folder / ENTRY).chmod(mode)

    assert read(folder) is None


@pytest.mark.parametrize("mode", [0o720, 0o702, 0o1777])
def test_a_folder_that_others_can_write_is_not_used(folder, mode):
    """Nothing is read from it, and nothing is stored in it."""
    folder.chmod(mode)
    Cache(str(folder)).write(OTHER_KEY, CONTENT)

    assert (read(folder), read(folder, OTHER_KEY)) == (None, None)
    assert [path.name for path in folder.iterdir()] == [ENTRY]


def test_a_folder_that_others_can_read_is_used(folder):
    """Programs are no secret."""
    folder.chmod(0o755)

    assert read(folder) == CONTENT


def test_what_belongs_to_others_is_none(folder, monkeypatch):
    """A folder or a file of another user is not used, not even by root."""
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    Cache(str(folder)).write(OTHER_KEY, CONTENT)

    assert read(folder) is None
    assert [path.name for path in folder.iterdir()] == [ENTRY]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_a_file_of_another_user_is_none(folder):
    """The folder being ours is not enough."""
    os.chown(folder / ENTRY, 65534, 65534)

    assert read(folder) is None


def test_links_are_not_followed(folder, tmp_path):
    """Neither the folder nor an entry can be somewhere else."""
    (tmp_path / "link").symlink_to(folder)
    assert read(tmp_path / "link") is None
    (folder / ENTRY).rename(tmp_path / "elsewhere")
    (folder / ENTRY).symlink_to(tmp_path / "elsewhere")

    assert read(folder) is None


def test_what_is_no_file_is_none(folder):
    """A pipe in an entry's place does not keep us waiting."""
    (folder / ENTRY).unlink()
    os.mkfifo(folder / ENTRY, 0o600)

    assert read(folder) is None


def test_what_is_too_large_is_none(folder):
    """A file that no compilation has made is not read into memory."""
    os.truncate(folder / ENTRY, 1 << 40)

    assert read(folder) is None


@pytest.mark.parametrize("place", ["/proc/nowhere/cache", "/dev/null/cache", "/dev/null", "/" + "x" * 300])
def test_where_nothing_can_be_stored_nothing_is(place):
    """A place that cannot be written is no error."""
    cache = Cache(place)
    cache.write(KEY, CONTENT)

    assert cache.read(KEY) is None


def test_a_failed_write_leaves_the_entry_as_it_was(folder, monkeypatch):
    """On a full disk the last content still counts, and there is no half of a new one."""

    def rename(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "rename", rename)
    Cache(str(folder)).write(KEY, b"new")

    assert read(folder) == CONTENT
    assert [path.name for path in folder.iterdir()] == [ENTRY]


def test_the_number_of_entries_is_bounded(folder):
    """The entries that were not used for the longest time go, those that are read stay."""
    cache = Cache(str(folder))
    os.utime(folder / ENTRY, (0, 0))
    keys = [f"{number:064x}" for number in range(ENTRIES_MAX + 5)]
    for number, key in enumerate(keys):
        cache.write(key, b"x")
        os.utime(folder / f"{key}.bpf", (number, number))
        cache.read(KEY)
    cache.write(OTHER_KEY, b"x")

    assert {path.name for path in folder.iterdir()} == {
        f"{key}.bpf" for key in (KEY, OTHER_KEY, *keys[-(ENTRIES_MAX - 2) :])
    }


def test_files_of_others_stay(folder):
    """In a folder that is used for something else, too, nothing is removed but entries."""
    for name in ("precious", "c3" * 32):
        (folder / name).touch()
        os.utime(folder / name, (0, 0))
    for number in range(ENTRIES_MAX + 5):
        Cache(str(folder)).write(f"{number:064x}", b"x")

    assert (folder / "precious").exists()
    assert (folder / ("c3" * 32)).exists()
    assert len(list(folder.iterdir())) == ENTRIES_MAX + 2


def test_what_a_killed_writer_left_goes(folder):
    """A half of an entry counts as one, and goes in its turn."""
    (folder / f"{OTHER_ENTRY}.4711.new").touch()
    os.utime(folder / f"{OTHER_ENTRY}.4711.new", (0, 0))
    for number in range(ENTRIES_MAX):
        Cache(str(folder)).write(f"{number:064x}", b"x")

    assert not (folder / f"{OTHER_ENTRY}.4711.new").exists()
