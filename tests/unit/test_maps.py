import errno
import os
from pathlib import Path

import pytest

from otel_sysexit.kernel import maps
from otel_sysexit.kernel.maps import Map, possible_cpus, wait_for_running_programs


@pytest.mark.parametrize(("text", "cpus"), [("0\n", 1), ("0-1\n", 2), ("0-3,8-11\n", 12), ("0,2,4-5\n", 6)])
def test_a_per_cpu_map_has_a_value_for_every_possible_cpu(monkeypatch, text, cpus):
    """The highest possible CPU counts, whichever are missing below it."""
    monkeypatch.setattr(Path, "read_text", lambda *_, **__: text)

    assert possible_cpus() == cpus


def test_the_running_kernel_has_its_cpus():
    """There are at least as many as are at work."""
    assert possible_cpus() >= os.cpu_count()


class Kernel:
    """A bpf(2) that is asked of a map held here: keys and values of 4 bytes."""

    def __init__(self, elements: dict[bytes, bytes], limit: int = 3) -> None:
        self.elements = elements
        self.limit = limit
        self.calls: list[tuple[int, int]] = []

    def syscall(self, number: int, command: int, attributes: object, size: int) -> int:
        """Do as BPF_MAP_{LOOKUP,UPDATE,DELETE,GET_NEXT_KEY}_ELEM do."""
        found = attributes._obj
        self.calls.append((number, size))
        read = lambda at: maps.ctypes.string_at(at, 4)  # noqa: E731 (two words for one thing)
        key = read(found.key) if found.key else None
        code = 0
        if command == maps._LOOKUP and key in self.elements:
            maps.ctypes.memmove(found.value, self.elements[key], 4)
        elif command == maps._UPDATE:
            code = self._update(key, read(found.value), found.flags)
        elif command == maps._DELETE and key in self.elements:
            del self.elements[key]
        elif command == maps._GET_NEXT_KEY and (following := self._next(key)) is not None:
            maps.ctypes.memmove(found.value, following, 4)
        else:
            code = errno.ENOENT
        maps.ctypes.set_errno(code)
        return -1 if code else 0

    def _update(self, key: bytes, value: bytes, flags: int) -> int:
        if flags == maps._NOEXIST and key in self.elements:
            return errno.EEXIST
        if key not in self.elements and len(self.elements) >= self.limit:
            return errno.E2BIG
        self.elements[key] = value
        return 0

    def _next(self, key: bytes | None) -> bytes | None:
        keys = sorted(self.elements)
        later = keys if key is None else [one for one in keys if one > key]
        return later[0] if later else None


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel with one map of two elements."""
    made = Kernel({b"key1": b"one!", b"key2": b"two!"})
    monkeypatch.setattr(maps, "_libc", made)
    monkeypatch.setattr(maps.platform, "machine", lambda: "x86_64")
    return made


@pytest.mark.usefixtures("kernel")
def test_an_element_is_looked_up():
    """A key that is there has its value, another has none."""
    found = Map(7, 4, 4)

    assert (found.lookup(b"key1"), found.lookup(b"key9")) == (b"one!", None)


def test_an_element_is_set(kernel):
    """update() sets what was there and what was not."""
    found = Map(7, 4, 4)
    found.update(b"key1", b"uno!")
    found.update(b"key3", b"tre!")

    assert kernel.elements == {b"key1": b"uno!", b"key2": b"two!", b"key3": b"tre!"}


def test_an_element_that_is_there_can_be_spared(kernel):
    """With only_new, what is there stays, and the caller learns of it."""
    with pytest.raises(FileExistsError):
        Map(7, 4, 4).update(b"key1", b"uno!", only_new=True)

    assert kernel.elements[b"key1"] == b"one!"


def test_a_full_map_is_an_error(kernel):
    """A map that takes no more says so."""
    kernel.limit = 2
    with pytest.raises(OSError, match="Argument list too long") as caught:
        Map(7, 4, 4).update(b"key3", b"tre!")

    assert caught.value.errno == errno.E2BIG


def test_an_element_is_removed(kernel):
    """delete() says whether there was anything."""
    found = Map(7, 4, 4)

    assert (found.delete(b"key1"), found.delete(b"key1")) == (True, False)
    assert kernel.elements == {b"key2": b"two!"}


@pytest.mark.usefixtures("kernel")
def test_all_elements_come():
    """items() gives every key with its value."""
    assert list(Map(7, 4, 4).items()) == [(b"key1", b"one!"), (b"key2", b"two!")]


def test_an_element_that_goes_meanwhile_is_left_out(kernel):
    """A key whose element went between two questions is not there."""
    items = Map(7, 4, 4).items()
    next(items)
    lookup, kernel.syscall = kernel.syscall, lambda *asked: -1 if asked[1] == maps._LOOKUP else lookup(*asked)

    assert list(items) == []


def test_what_is_no_map_is_an_error():
    """The running kernel refuses a descriptor that is no map, or us."""
    with open(os.devnull, "rb") as file, pytest.raises(OSError):  # noqa: PTH123 (a descriptor is wanted)
        Map(file.fileno(), 4, 4).update(b"key1", b"one!")


def test_waiting_for_programs_ends():
    """The kernel answers, whether it lets us wait or not."""
    wait_for_running_programs()
