"""
What the compiler makes and the loader loads: programs, and the maps that they refer to.

An object holds nothing of the process that made it: where an instruction needs a map it has the map's name. It is written as JSON
and read with all its parts checked. The compiler's Python may be another one, so this imports the standard library only.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

INSTRUCTION_SIZE: Final = 8
"""Of struct bpf_insn: code, registers (source << 4 | destination), offset, immediate value."""
LOAD_64_BITS: Final = 0x18
"""Code of the instruction with a 64-bit value, the only one that is two long: BPF_LD | BPF_DW | BPF_IMM."""
PSEUDO_MAP_FD: Final = 1
"""Its source register where the value is a map's descriptor."""
_NAME_LENGTH_MAX: Final = 64


@dataclass(frozen=True, slots=True)
class MapSpecification:
    """How to create a map: `union bpf_attr` of BPF_MAP_CREATE."""

    name: str
    map_type: int
    key_size: int
    value_size: int
    max_entries: int
    map_flags: int


@dataclass(frozen=True, slots=True)
class Program:
    """A program that is not loaded yet."""

    tracepoint: str
    is_event: bool
    """Whether perf calls it; it is on the raw tracepoint otherwise."""
    instructions: bytes
    """Of struct bpf_insn; 0 where a map's descriptor is to be."""
    references: tuple[tuple[int, str], ...]
    """Index of an instruction that needs a map's descriptor, name of the map."""

    @property
    def name(self) -> str:
        """The function's, in bpf/."""
        return f"on_{self.tracepoint}"

    def relocated(self, fds: Mapping[str, int]) -> bytes:
        """Return the instructions with the descriptors of maps, by their names, in their places."""
        code = bytearray(self.instructions)
        for index, name in self.references:
            at = index * INSTRUCTION_SIZE + 4
            code[at : at + 4] = fds[name].to_bytes(4, "little")
        return bytes(code)


@dataclass(frozen=True, slots=True)
class Object:
    """All programs and maps of one compilation."""

    licence: str
    maps: tuple[MapSpecification, ...]
    programs: tuple[Program, ...]

    def to_json(self) -> str:
        """Return it as text."""
        programs = [
            {
                "tracepoint": program.tracepoint,
                "is_event": program.is_event,
                "instructions": base64.b64encode(program.instructions).decode(),
                "references": program.references,
            }
            for program in self.programs
        ]
        maps = [asdict(one) for one in self.maps]
        return json.dumps({"licence": self.licence, "maps": maps, "programs": programs})

    @classmethod
    def from_json(cls, text: str | bytes) -> "Object":
        """
        Return what `to_json` wrote.

        Raises:
            ValueError: it did not write that.
        """
        try:
            found = json.loads(text)
            maps = tuple(_read_map(one) for one in found["maps"])
            names = {one.name for one in maps}
            programs = tuple(_read_program(one, names) for one in found["programs"])
            return cls(_text(found["licence"]), maps, programs)
        except (KeyError, TypeError, AttributeError, binascii.Error, RecursionError) as error:
            raise ValueError(f"no object: {error!r}") from error


def take_out_maps(instructions: bytes, names: Mapping[int, str]) -> tuple[bytes, tuple[tuple[int, str], ...]]:
    """
    Return `Program.instructions` and `.references` of *instructions* that have descriptors of maps in them, whose *names* are given.

    Raises:
        ValueError: an instruction refers to something that is no such map.
    """
    code, references = bytearray(instructions), []
    at = 0
    while at < len(code):
        is_long = code[at] == LOAD_64_BITS
        pseudo = code[at + 1] >> 4
        if is_long and pseudo:
            value = int.from_bytes(code[at + 4 : at + 8], "little", signed=True)
            if pseudo != PSEUDO_MAP_FD or value not in names:
                raise ValueError(f"instruction {at // INSTRUCTION_SIZE} refers to no map of ours")
            references.append((at // INSTRUCTION_SIZE, names[value]))
            code[at + 4 : at + 8] = bytes(4)
        at += 2 * INSTRUCTION_SIZE if is_long else INSTRUCTION_SIZE
    return bytes(code), tuple(references)


def _read_map(found: Any) -> MapSpecification:
    numbers = ("map_type", "key_size", "value_size", "max_entries", "map_flags")
    return MapSpecification(_text(found["name"]), *(_number(found[name], 1 << 32) for name in numbers))


def _read_program(found: Any, maps: set[str]) -> Program:
    instructions = base64.b64decode(found["instructions"], validate=True)
    count, rest = divmod(len(instructions), INSTRUCTION_SIZE)
    if not count or rest:
        raise ValueError("no object: instructions are cut off")
    references = tuple((_number(index, count), _text(name)) for index, name in found["references"])
    if not maps.issuperset(name for _, name in references):
        raise ValueError("no object: it lacks a map")
    return Program(_text(found["tracepoint"]), found["is_event"] is True, instructions, references)


def _text(found: Any) -> str:
    if not isinstance(found, str) or len(found) > _NAME_LENGTH_MAX or "\0" in found:
        raise ValueError("no object: bad text")
    return found


def _number(found: Any, limit: int) -> int:
    if type(found) is not int or not 0 <= found < limit:
        raise ValueError("no object: bad number")
    return found
