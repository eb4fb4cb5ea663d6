"""
Offsets of structure members in the running kernel, from its BTF.

In goes the kernel's type information (`/sys/kernel/btf/vmlinux`), out come byte offsets. The format is
Documentation/bpf/btf.rst. No package on PyPI reads raw BTF (checked 2026-11), hence this small reader; it knows
structures, unions and enumerations only. The compiler's Python imports it, too, so it needs the standard library only.
"""

import struct
from pathlib import Path

VMLINUX = Path("/sys/kernel/btf/vmlinux")

_STRUCT, _UNION, _ENUM = 4, 5, 6
_MODIFIERS = frozenset({8, 9, 10, 11, 18})  # typedef, volatile, const, restrict, type tag
# Kind -> bytes after the 12-byte struct btf_type: (fixed, for each of vlen).
_TAIL = {
    0: (0, 0), 1: (4, 0), 2: (0, 0), 3: (12, 0), 4: (0, 12), 5: (0, 12), 6: (0, 8), 7: (0, 0), 8: (0, 0), 9: (0, 0),
    10: (0, 0), 11: (0, 0), 12: (0, 0), 13: (0, 8), 14: (4, 0), 15: (0, 12), 16: (0, 0), 17: (4, 0), 18: (0, 0), 19: (0, 12),
}  # fmt: skip


class Btf:
    """Type information of one kernel."""

    def __init__(self, data: bytes) -> None:
        """
        Index *data*, the raw content of a BTF file.

        Raises:
            ValueError: *data* is not BTF, or has a kind of type that this reader does not know.
        """
        self._data = data
        self._order = "<" if data[:2] == b"\x9f\xeb" else ">"
        self._type = struct.Struct(self._order + "III")
        if len(data) < 24 or struct.unpack_from(self._order + "H", data)[0] != 0xEB9F:
            raise ValueError("not BTF")
        header, types, length, strings = struct.unpack_from(self._order + "4xIIII", data)
        self._strings = header + strings
        self._offsets = [0]
        self._structs: dict[int, int] = {}  # offset of the name -> type
        self._index(header + types, header + types + length)

    def _index(self, at: int, end: int) -> None:
        """Note where each type is; the first definition of a structure's name wins."""
        data, unpack, append = self._data, struct.Struct(self._order + "II").unpack_from, self._offsets.append
        structs = self._structs
        try:
            while at < end:
                name, info = unpack(data, at)
                kind = info >> 24 & 0x1F
                if kind in (_STRUCT, _UNION, _ENUM) and name not in structs:
                    structs[name] = len(self._offsets)
                append(at)
                fixed, each = _TAIL[kind]
                at += 12 + fixed + each * (info & 0xFFFF)
        except KeyError as error:
            raise ValueError(f"BTF has types of kind {error}, which this reader does not know") from error

    def offset_of(self, structure: str, path: str) -> int:
        """
        Return the byte offset of the dotted member *path* in *structure*, anonymous members looked through.

        Raises:
            KeyError: there is no such structure or member.
        """
        kind, bits = self._named(structure, _STRUCT, _UNION), 0
        for name in path.split("."):
            found = self._find(self._strip(kind), name)
            if found is None:
                raise KeyError(f"{structure}.{path}")
            bits, kind = bits + found[0], found[1]
        return bits // 8

    def enumerator(self, enumeration: str, name: str) -> int:
        """
        Return the value of *name* in *enumeration*.

        Raises:
            KeyError: there is no such enumeration or name in it.
        """
        at = self._offsets[self._named(enumeration, _ENUM)]
        _, info, _ = self._type.unpack_from(self._data, at)
        for index in range(info & 0xFFFF):
            label, value = struct.unpack_from(self._order + "Ii", self._data, at + 12 + 8 * index)
            if self._string(label) == name:
                return int(value)
        raise KeyError(f"{enumeration}.{name}")

    def _named(self, name: str, *kinds: int) -> int:
        """Return the type of a name; raises KeyError where there is none of *kinds*."""
        found_name = self._data.find(b"\0" + name.encode() + b"\0", self._strings)
        found = self._structs[found_name + 1 - self._strings]
        if self._kind(found) not in kinds:
            raise KeyError(name)
        return found

    def _find(self, kind: int, name: str) -> tuple[int, int] | None:
        """Return (bit offset, type) of a member of the structure *kind*."""
        _, info, _ = self._type.unpack_from(self._data, self._offsets[kind])
        for member in range(info & 0xFFFF):
            label, member_kind, offset = self._type.unpack_from(
                self._data, self._offsets[kind] + 12 + 12 * member
            )
            bits = offset & 0xFFFFFF if info >> 31 else offset
            if label and self._string(label) == name:
                return bits, member_kind
            if not label:
                inner = self._strip(member_kind)
                if self._kind(inner) in (_STRUCT, _UNION):
                    found = self._find(inner, name)
                    if found:
                        return bits + found[0], found[1]
        return None

    def _strip(self, kind: int) -> int:
        """Look through typedefs and qualifiers."""
        while self._kind(kind) in _MODIFIERS:
            kind = self._type.unpack_from(self._data, self._offsets[kind])[2]
        return kind

    def _kind(self, kind: int) -> int:
        return int(self._type.unpack_from(self._data, self._offsets[kind])[1] >> 24 & 0x1F)

    def _string(self, offset: int) -> str:
        start = self._strings + offset
        return self._data[start : self._data.index(b"\0", start)].decode()
