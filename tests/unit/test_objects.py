"""Programs and maps between the compiler and the kernel: what is written is read, what is no object is refused."""

import json
import struct

import pytest

from otel_sysexit.kernel.objects import MapSpecification, Object, Program, take_out_maps


def instruction(code: int, registers: int = 0, offset: int = 0, value: int = 0) -> bytes:
    """Return a struct bpf_insn."""
    return struct.pack("=BBhi", code, registers, offset, value)


RETURN = instruction(0xB7) + instruction(0x95)


def load_map(fd: int) -> bytes:
    """Return the instruction, two long, that has a map's descriptor: r1 = the map."""
    return instruction(0x18, 0x11, 0, fd) + instruction(0)


MAPS = (MapSpecification("calls", 27, 0, 0, 4096, 0), MapSpecification("pending", 2, 4, 64, 8, 0x400))
PROGRAM = Program("sys_enter", True, load_map(0) + RETURN, ((0, "pending"),))
OBJECT = Object("Dual BSD/GPL", MAPS, (PROGRAM,))


def test_what_is_written_is_read():
    """An object comes back as it was."""
    assert Object.from_json(OBJECT.to_json()) == OBJECT


def test_descriptors_become_names():
    """Where an instruction has a map's descriptor, the object has the map's name, whatever the descriptor was."""
    code = instruction(0xB7) + load_map(7) + load_map(12) + load_map(7) + RETURN
    found, references = take_out_maps(code, {7: "calls", 12: "pending"})

    assert references == ((1, "calls"), (3, "pending"), (5, "calls"))
    assert found == instruction(0xB7) + load_map(0) * 3 + RETURN


def test_names_become_descriptors():
    """What was taken out is put in again, with the descriptors of another process."""
    code = load_map(7) + load_map(12) + RETURN
    program = Program("x", False, *take_out_maps(code, {7: "calls", 12: "pending"}))

    assert program.relocated({"calls": 300, "pending": 4}) == load_map(300) + load_map(4) + RETURN


def test_a_large_number_is_no_map():
    """A 64-bit value that only looks like a descriptor stays, and so does its second half, whatever that looks like."""
    code = instruction(0x18, 0x01, 0, 7) + instruction(0x18, 0x11, 0, 7) + RETURN

    assert take_out_maps(code, {7: "calls"}) == (code, ())


@pytest.mark.parametrize("registers", [0x11, 0x21, 0x31])
def test_what_is_no_map_of_ours_is_refused(registers):
    """A reference to an unknown descriptor, or to something else than a map, is not taken for a number."""
    with pytest.raises(ValueError, match="refers to no map of ours"):
        take_out_maps(instruction(0x18, registers, 0, 9) + instruction(0) + RETURN, {7: "calls"})


def test_a_program_has_the_name_of_its_function():
    """Functions in bpf/ are called after their tracepoints."""
    assert PROGRAM.name == "on_sys_enter"


def changed(*path: str | int, to: object) -> str:
    """Return the object's text with another value at *path*."""
    found = json.loads(OBJECT.to_json())
    place = found
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = to
    return json.dumps(found)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{}",
        OBJECT.to_json()[:-1],
        "[" * 100_000,
        changed("licence", to=7),
        changed("maps", to=[]),
        changed("maps", 0, "name", to="a\0b"),
        changed("maps", 0, "name", to="x" * 65),
        changed("maps", 0, "max_entries", to=-1),
        changed("maps", 0, "max_entries", to=1 << 32),
        changed("maps", 0, "max_entries", to=4096.0),
        changed("maps", 0, "key_size", to=True),
        changed("programs", 0, "instructions", to="AAAA"),
        changed("programs", 0, "instructions", to=""),
        changed("programs", 0, "instructions", to="?"),
        changed("programs", 0, "references", to=[[4, "pending"]]),
        changed("programs", 0, "references", to=[[0, "missing"]]),
        changed("programs", 0, "references", to=[0]),
        changed("programs", to={"a": 1}),
    ],
)
def test_what_is_no_object_is_refused(text):
    """Text that `to_json` has not written is a ValueError, and nothing else."""
    with pytest.raises(ValueError):
        Object.from_json(text)
