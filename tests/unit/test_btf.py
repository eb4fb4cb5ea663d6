"""Offsets from type information: a small BTF made by hand, and the running kernel's."""

import struct

import pytest

from otel_sysexit.kernel.btf import _TAIL, VMLINUX, Btf
from otel_sysexit.kernel.macros import _MEMBERS

INT, POINTER, ARRAY, STRUCT, UNION, ENUM, FORWARD, TYPEDEF, VOLATILE, CONST = range(1, 11)
DECLARATION_TAG, TYPE_TAG, ENUM64 = 17, 18, 19


class Blob:
    """BTF in the making: types are numbered from 1 in the order they are added."""

    def __init__(self, order: str = "<") -> None:
        self.order = order
        self.strings = bytearray(b"\0")
        self.types: list[bytes] = []

    def name(self, text: str) -> int:
        """Return the offset of a name."""
        if not text:
            return 0
        self.strings += text.encode() + b"\0"
        return len(self.strings) - len(text) - 1

    def add(
        self, kind: int, name: str = "", members: int = 0, *, size: int = 0, tail: bytes = b"", flag: int = 0
    ) -> int:
        """Add a type; *size* is its size or the type it refers to. Return its number."""
        info = flag << 31 | kind << 24 | members
        self.types.append(struct.pack(self.order + "III", self.name(name), info, size) + tail)
        return len(self.types)

    def structure(self, name: str, *members: tuple[str, int, int], kind: int = STRUCT, flag: int = 0) -> int:
        """Add a structure of (name, type, bit offset)."""
        tail = b"".join(
            struct.pack(self.order + "III", self.name(label), member, offset)
            for label, member, offset in members
        )
        return self.add(kind, name, len(members), size=64, tail=tail, flag=flag)

    def enumeration(self, name: str, **values: int) -> int:
        """Add an enumeration of 32 bits."""
        tail = b"".join(
            struct.pack(self.order + "Ii", self.name(label), value) for label, value in values.items()
        )
        return self.add(ENUM, name, len(values), size=4, tail=tail)

    def build(self, header: int = 24) -> Btf:
        """Return the finished blob, read; *header* is the size of its header."""
        types = b"".join(self.types)
        head = struct.pack(
            self.order + "HBBIIIII", 0xEB9F, 1, 0, header, 0, len(types), len(types), len(self.strings)
        )
        return Btf(head.ljust(header, b"\0") + types + bytes(self.strings))


@pytest.fixture(params=["<", ">"], ids=["little-endian", "big-endian"])
def btf(request: pytest.FixtureRequest) -> Btf:
    """Types of all kinds around the structures that are asked for."""
    blob = Blob(request.param)
    number = blob.add(INT, "int", size=4, tail=bytes(4))
    blob.enumeration("colour", red=0, blue=-5)
    blob.enumeration("empty")
    blob.add(ENUM64, "large", 2, size=8, tail=bytes(24))
    blob.add(ARRAY, tail=bytes(12))
    blob.add(FORWARD, "later")
    blob.add(DECLARATION_TAG, "tag", size=number, tail=bytes(4))
    blob.add(13, "", 2, size=number, tail=bytes(16))  # a function's prototype
    blob.add(12, "function", size=7)
    blob.add(14, "variable", size=number, tail=bytes(4))
    blob.add(15, ".data", 1, size=4, tail=bytes(12))
    blob.add(16, "float", size=4)
    inner = blob.structure("inner", ("first", number, 0), ("second", number, 32))
    anonymous = blob.structure("", ("hidden", number, 0), ("deep", inner, 64), kind=UNION)
    const = blob.add(CONST, size=anonymous)
    volatile = blob.add(VOLATILE, size=inner)
    alias = blob.add(TYPEDEF, "inner_t", size=volatile)
    tagged = blob.add(TYPE_TAG, "user", size=alias)
    pointer = blob.add(POINTER, size=inner)
    blob.structure(
        "outer",
        ("a", number, 0),
        ("b", tagged, 64),
        ("", const, 192),
        ("p", pointer, 320),
    )
    # Bit fields: the offset's upper byte is the width.
    blob.structure("bits", ("low", number, 3 << 24 | 8), ("high", number, 5 << 24 | 24), flag=1)
    blob.structure("outer", ("a", number, 960))  # another of that name: the first one counts
    return blob.build()


@pytest.mark.parametrize(
    ("structure", "path", "expected"),
    [
        ("inner", "first", 0),
        ("inner", "second", 4),
        ("outer", "a", 0),
        ("outer", "b", 8),
        ("outer", "b.second", 12),
        ("outer", "hidden", 24),
        ("outer", "deep.second", 36),
        ("outer", "p", 40),
        ("bits", "low", 1),
        ("bits", "high", 3),
    ],
)
def test_a_member_has_its_offset(btf, structure, path, expected):
    """Members are found by dotted paths, through typedefs, qualifiers and members without a name."""
    assert btf.offset_of(structure, path) == expected


@pytest.mark.parametrize(
    ("structure", "path"),
    [
        ("outer", "nothing"),
        ("nothing", "a"),
        ("outer", "b.nothing"),
        ("out", "a"),
        ("int", "a"),
        ("colour", "a"),
    ],
)
def test_what_is_not_there_is_a_key_error(btf, structure, path):
    """A structure or a member that this kernel does not have is told as such."""
    with pytest.raises(KeyError):
        btf.offset_of(structure, path)


@pytest.mark.parametrize(("name", "value"), [("red", 0), ("blue", -5)])
def test_an_enumerator_has_its_value(btf, name, value):
    """A name in an enumeration is found, with the value that this kernel gave it."""
    assert btf.enumerator("colour", name) == value


@pytest.mark.parametrize(
    ("enumeration", "name"), [("colour", "green"), ("empty", "red"), ("color", "red"), ("int", "red")]
)
def test_an_enumerator_that_is_not_there_is_a_key_error(btf, enumeration, name):
    """An enumeration or a name in it that this kernel does not have is told as such."""
    with pytest.raises(KeyError):
        btf.enumerator(enumeration, name)


def test_a_longer_header_is_skipped():
    """Later formats may have more in the header: its size says where it ends."""
    blob = Blob()
    number = blob.add(INT, "int", size=4, tail=bytes(4))
    blob.structure("one", ("member", number, 64))

    assert blob.build(header=32).offset_of("one", "member") == 8


@pytest.mark.parametrize("data", [b"", b"\x9f\xeb", b"\x7fELF" + bytes(60), bytes(64)])
def test_what_is_no_btf_is_refused(data):
    """Other files are not read as types."""
    with pytest.raises(ValueError, match="not BTF"):
        Btf(data)


def test_a_kind_that_is_not_known_is_refused():
    """A type of a later format cannot be skipped: where the next one begins is not known."""
    blob = Blob()
    blob.add(max(_TAIL) + 1, "later")

    with pytest.raises(ValueError, match=f"kind {max(_TAIL) + 1}"):
        blob.build()


@pytest.mark.skipif(not VMLINUX.exists(), reason="the running kernel has no BTF")
def test_the_running_kernel_has_what_bpf_reads():
    """Each member that the BPF programs read is found in the running kernel, each at a place of its own."""
    btf = Btf(VMLINUX.read_bytes())
    for structure, members in _MEMBERS.items():
        offsets = [btf.offset_of(structure, member) for member in members]

        assert len(set(offsets)) == len(offsets)
        assert all(0 <= offset < 1 << 15 for offset in offsets)
