import errno
import os
from pathlib import Path

import pytest

from otel_sysexit.kernel import bpf, maps
from otel_sysexit.kernel.bpf import Command
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
    """A bpf(2) that is asked of a map held here: keys and values of 4 bytes, two keys in each bucket."""

    def __init__(self, elements: dict[bytes, bytes], limit: int = 3) -> None:
        self.elements = elements
        self.limit = limit
        self.batch_errno = 0
        self.can_take = True
        self.calls: list[tuple[int, int]] = []

    def syscall(self, number: int, command: int, attributes: object, size: int) -> int:
        """Do as BPF_MAP_{LOOKUP,UPDATE,DELETE,GET_NEXT_KEY,LOOKUP_AND_DELETE}_ELEM do."""
        found = attributes._obj
        self.calls.append((number, size))
        if command == Command.MAP_LOOKUP_BATCH:
            return self._lookup_batch(found)
        read = lambda at: maps.ctypes.string_at(at, 4)  # noqa: E731 (two words for one thing)
        key = read(found.key) if found.key else None
        code = 0
        if command == Command.MAP_LOOKUP_ELEM and key in self.elements:
            maps.ctypes.memmove(found.value, self.elements[key], 4)
        elif command == Command.MAP_UPDATE_ELEM:
            code = self._update(key, read(found.value), found.flags)
        elif command == Command.MAP_LOOKUP_AND_DELETE_ELEM and not self.can_take:
            code = maps._ENOTSUPP
        elif command == Command.MAP_LOOKUP_AND_DELETE_ELEM and key in self.elements:
            maps.ctypes.memmove(found.value, self.elements.pop(key), 4)
        elif command == Command.MAP_DELETE_ELEM and key in self.elements:
            del self.elements[key]
        elif command == Command.MAP_GET_NEXT_KEY and (following := self._next(key)) is not None:
            maps.ctypes.memmove(found.value, following, 4)
        else:
            code = errno.ENOENT
        maps.ctypes.set_errno(code)
        return -1 if code else 0

    def _lookup_batch(self, found: object) -> int:
        """Give whole buckets, as many as there is room for."""
        room, found.count = found.count, 0
        code = self.batch_errno
        keys = sorted(self.elements)
        bucket = int.from_bytes(maps.ctypes.string_at(found.in_batch, 4), "little") if found.in_batch else 0
        while not code and keys[2 * bucket :]:
            content = keys[2 * bucket : 2 * bucket + 2]
            if found.count + len(content) > room:
                code = 0 if found.count else errno.ENOSPC
                break
            for key in content:
                maps.ctypes.memmove(found.keys + 4 * found.count, key, 4)
                maps.ctypes.memmove(found.values + 4 * found.count, self.elements[key], 4)
                found.count += 1
            bucket += 1
        else:
            code = code or errno.ENOENT
        maps.ctypes.memmove(found.out_batch, bucket.to_bytes(4, "little"), 4)
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


class Going(dict[bytes, bytes]):
    """Elements that are listed still, but are there no more when they are asked for."""

    def __contains__(self, key: object) -> bool:
        return False


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """A kernel with one map of two elements."""
    made = Kernel({b"key1": b"one!", b"key2": b"two!"})
    monkeypatch.setattr(bpf, "_libc", made)
    monkeypatch.setattr(bpf.platform, "machine", lambda: "x86_64")
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


@pytest.mark.parametrize("can_take", [True, False])
def test_an_element_is_taken(kernel, can_take):
    """take() gives the last value, once; where the kernel cannot do it in one step, it is done in two."""
    kernel.can_take = can_take
    found = Map(7, 4, 4)

    assert (found.take(b"key1"), found.take(b"key1")) == (b"one!", None)
    assert kernel.elements == {b"key2": b"two!"}


@pytest.mark.usefixtures("kernel")
def test_all_elements_come():
    """items() gives every key with its value."""
    assert list(Map(7, 4, 4).items()) == [(b"key1", b"one!"), (b"key2", b"two!")]


def test_an_element_that_goes_meanwhile_is_left_out(kernel):
    """A key whose element went between two questions is not there."""
    items = Map(7, 4, 4).items()
    next(items)
    kernel.elements = Going(kernel.elements)

    assert list(items) == []


def read(found: Map) -> dict[bytes, bytes]:
    """Return all that a map gives, as a dict; no key may come twice."""
    keys, values = found.read()
    assert (keys.shape, keys.dtype) == (values.shape, values.dtype) == ((len(keys), 4), "u1")
    elements = {key.tobytes(): value.tobytes() for key, value in zip(keys, values, strict=True)}
    assert len(elements) == len(keys)
    return elements


@pytest.mark.parametrize("count", [0, 1, 2, 7])
@pytest.mark.parametrize("capacity", [1, 2, 3, 1024])
def test_all_elements_are_read_at_once(kernel, monkeypatch, count, capacity):
    """However many fit, and however many buckets that takes, read() gives each element once."""
    monkeypatch.setattr(maps, "_BATCH_ELEMENTS", capacity)
    kernel.elements = {b"key%d" % at: b"val%d" % at for at in range(count)}

    assert read(Map(7, 4, 4)) == kernel.elements


@pytest.mark.parametrize("refusal", [errno.EINVAL, maps._ENOTSUPP])
@pytest.mark.parametrize("count", [0, 2])
def test_without_batches_elements_are_read_one_by_one(kernel, refusal, count):
    """A kernel that reads no batches, or none of this type of map, gives the same."""
    kernel.elements = {b"key%d" % at: b"val%d" % at for at in range(count)}
    kernel.batch_errno = refusal

    assert read(Map(7, 4, 4)) == kernel.elements


def test_other_refusals_are_errors(kernel):
    """A kernel that refuses us altogether is not asked again in another way."""
    kernel.batch_errno = errno.EPERM
    with pytest.raises(PermissionError):
        Map(7, 4, 4).read()

    assert len(kernel.calls) == 1


def test_what_is_no_map_is_an_error():
    """The running kernel refuses a descriptor that is no map, or us."""
    with open(os.devnull, "rb") as file, pytest.raises(OSError):  # noqa: PTH123 (a descriptor is wanted)
        Map(file.fileno(), 4, 4).update(b"key1", b"one!")


def test_waiting_for_programs_ends():
    """The kernel answers, whether it lets us wait or not."""
    wait_for_running_programs()
