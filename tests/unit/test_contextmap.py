"""The map of trace contexts: what is none is refused in one line. Its shape is the live tests' matter."""

import errno
import os

import pytest

from otel_sysexit.kernel import contextmap
from otel_sysexit.kernel.contextmap import open_context_map


def test_a_missing_map_is_said(monkeypatch):
    """What the kernel refuses to open is an error with its path and the reason."""

    def refuse(*_: object) -> int:
        raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    monkeypatch.setattr(contextmap, "bpf", refuse)

    with pytest.raises(ValueError, match="cannot open the map '/there': No such file or directory"):
        open_context_map("/there")


def test_what_is_no_map_is_closed(monkeypatch):
    """Another object, a program or a link say, is refused, and its descriptor is not kept."""
    fd = os.memfd_create("no-map")
    monkeypatch.setattr(contextmap, "bpf", lambda *_: fd)

    with pytest.raises(ValueError, match="no map at all"):
        open_context_map("/there")
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize(
    ("facts", "fault"),
    [
        ({}, ""),
        ({"map_type": "1"}, "its map_type is 1, not 9"),
        ({"key_size": "4"}, "its key_size is 4, not 8"),
        ({"value_size": "32"}, "its value_size is 32, not 24"),
        ({"max_entries": "1"}, ""),
        ({"map_flags": "0x100"}, "programs may not read it"),
        ({"map_flags": "0x80"}, ""),
    ],
)
def test_a_map_has_one_shape(tmp_path, monkeypatch, facts, fault):
    """Type, sizes of key and value, and that programs may read it; how many entries it has is its maker's choice."""
    sound = {"map_type": "9", "key_size": "8", "value_size": "24", "max_entries": "16384", "map_flags": "0x0"}
    lines = {"pos": "0", "flags": "02000000", **sound, **facts}
    (tmp_path / "7").write_text("".join(f"{name}:\t{value}\n" for name, value in lines.items()))
    monkeypatch.setattr(contextmap, "_FDINFO", tmp_path)

    assert contextmap._fault(7) == fault
