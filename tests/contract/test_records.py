"""C ↔ numpy: bpf/records.h, asked through the host's compiler, and its Python twin say the same."""

import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from otel_sysexit import selections, syscalls
from otel_sysexit.cli import make_request
from otel_sysexit.config import Config
from otel_sysexit.kernel import loader, records

BPF = Path(__file__).parents[2] / "bpf"
HEADER = (BPF / "records.h").read_text(encoding="utf-8")
SOURCES = "".join((BPF / name).read_text(encoding="utf-8") for name in (*loader.SOURCES, "registers.h"))

STRUCTURES = {
    "call_record": records.CALL,
    "string_record": records.STRING,
    "task_record": records.TASK,
    "slot": records.SLOT,
}
# C enumeration -> prefix of its members, Python twin, members that only C has.
ENUMERATIONS = {
    "abi": ("ABI_", syscalls.Abi, {"ABI_COUNT"}),
    "call_kind": ("CALL_", records.CallKind, set()),
    "string_role": ("STRING_", records.StringRole, set()),
    "task_kind": ("TASK_", records.TaskKind, set()),
    "ledger": ("LEDGER_", records.Ledger, {"LEDGER_COUNT"}),
    "slot_state": ("SLOT_", records.SlotState, set()),
}
# C expression -> what Python has for it.
CONSTANTS = {
    "RECORDS_VERSION": records.VERSION,
    "STRING_LIMIT": records.STRING_LIMIT,
    "STRING_SIZE": records.STRING["text"].itemsize,
    "NR_LIMIT": records.NR_LIMIT,
    "ABI_COUNT": records.ABI_COUNT,
    "LEDGER_COUNT": len(records.Ledger),
    "CALL_HAS_STRING << 4": records.HAS_STRING,
    "CALL_HAS_ARGS << 4": records.HAS_ARGS,
}


def members_in_c(name: str) -> set[str]:
    """Return the names in `enum name` of the header."""
    body = re.search(rf"enum {name} \{{(.*?)\}};", HEADER, re.DOTALL)
    assert body is not None, f"records.h has no enum {name}"
    return set(re.findall(r"^\s*([A-Z]\w*)", body[1], re.MULTILINE))


def members_in_python(name: str) -> dict[str, int]:
    """Return what the Python twin of `enum name` has, by the names that C would use."""
    prefix, twin, _ = ENUMERATIONS[name]
    return {prefix + member.name: member.value for member in twin}


def fields_of(dtype: np.dtype) -> dict[str, tuple[int, int, int]]:
    """Return (offset, size in bytes, whether an element is signed) of each field."""
    return {
        name: (offset, field.itemsize, int(field.base.kind == "i"))
        for name, (field, offset) in dtype.fields.items()
    }


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """Numbers that a C program prints of the header: a list for each thing that is asked of it."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    asked = [f'printf("{structure} %zu\\n", sizeof(struct {structure}));' for structure in STRUCTURES]
    for structure, dtype in STRUCTURES.items():
        for field in dtype.names:
            member = f"((struct {structure} *)0)->{field}"
            element = member + "[0]" if dtype[field].shape else member
            asked.append(
                f'printf("{structure}.{field} %zu %zu %d\\n", offsetof(struct {structure}, {field}),'
                f" sizeof({member}), (__typeof__({element}))-1 < 0);"
            )
    names = [*CONSTANTS, *(member for name in ENUMERATIONS for member in members_in_c(name))]
    asked += [f'printf("{name.replace(" ", "")} %d\\n", (int)({name}));' for name in names]
    folder = tmp_path_factory.mktemp("records")
    source, program = folder / "records.c", folder / "records"
    headers = "#include <stddef.h>\n#include <stdio.h>\n#include <records.h>\n"
    source.write_text(headers + "int main(void) {\n" + "\n".join(asked) + "\nreturn 0;\n}\n")
    flags = ["-Wall", "-Werror", "-funsigned-char", f"-I{BPF}"]
    subprocess.run([compiler, *flags, "-o", program, source], check=True)
    answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    lines = (line.split() for line in answer.splitlines())
    return {name: [int(number) for number in numbers] for name, *numbers in lines}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_structure_has_one_size(in_c, structure):
    """A record is as long in Python as in C."""
    assert [STRUCTURES[structure].itemsize] == in_c[structure]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_fields_lie_where_c_has_them(in_c, structure):
    """Every field has C's offset, size and sign."""
    dtype = STRUCTURES[structure]

    assert fields_of(dtype) == {name: tuple(in_c[f"{structure}.{name}"]) for name in dtype.names}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_every_byte_belongs_to_a_field(structure):
    """The fields follow each other without a hole, to a multiple of 8 bytes."""
    end = 0
    for offset, size, _ in fields_of(STRUCTURES[structure]).values():
        assert offset == end
        end += size

    assert (end, end % 8) == (STRUCTURES[structure].itemsize, 0)


def test_no_structure_of_the_header_is_left_out():
    """Each structure of the header has a Python twin."""
    assert set(re.findall(r"^struct (\w+) \{", HEADER, re.MULTILINE)) == set(STRUCTURES)


def test_no_enumeration_of_the_header_is_left_out():
    """Each enumeration of the header has a Python twin."""
    assert set(re.findall(r"^enum (\w+) \{", HEADER, re.MULTILINE)) == set(ENUMERATIONS)


@pytest.mark.parametrize("name", ENUMERATIONS)
def test_an_enumeration_has_the_same_members(in_c, name):
    """An enumeration's twin has C's members with C's values, and no others."""
    only_in_c = ENUMERATIONS[name][2]
    expected = {member: in_c[member][0] for member in members_in_c(name) - only_in_c}

    assert expected == members_in_python(name)


@pytest.mark.parametrize("name", CONSTANTS)
def test_a_constant_has_one_value(in_c, name):
    """A limit or a flag is the same number in C and in Python."""
    assert in_c[name.replace(" ", "")] == [CONSTANTS[name]]


def test_the_tables_of_calls_have_the_kernels_shape():
    """The tables of syscalls.py hold as many numbers and ABIs as the kernel's table."""
    assert (records.NR_LIMIT, records.ABI_COUNT) == (syscalls.NUMBERS, syscalls.ABIS)


@pytest.mark.parametrize(
    ("abi", "name", "entry"),
    [
        (syscalls.Abi.X86_64, "openat", 0x80 | 2),
        (syscalls.Abi.X86_64, "renameat2", 2 | 4 << 3),
        (syscalls.Abi.I386, "openat", 0x80 | 2),
        (syscalls.Abi.X32, "read", 0),
        (syscalls.Abi.ARM, "chdir", 1),
    ],
)
def test_the_table_is_packed_as_the_kernel_reads_it(abi, name, entry):
    """The entry of a call has bit 7 for "in the set", 1 + the first path's index below, the second's in bits 3-5."""
    request = make_request(Config(syscalls=selections.parse_selection("openat")))
    number = syscalls.number_of(name, abi)

    assert request.syscall_table.shape == (records.ABI_COUNT * records.NR_LIMIT,)
    assert request.syscall_table[abi * records.NR_LIMIT + number] == entry


def test_every_macro_that_the_agent_sets_is_used():
    """No -D of the agent is misspelt: the BPF sources test or use each of them."""
    config = Config(syscalls=selections.parse_selection("openat"), errors_only=True, min_duration_ns=1)
    macros = [flag.removeprefix("-D").partition("=")[0] for flag in make_request(config).cflags()]
    offsets = [
        f"{structure}_{member}".replace(".", "_").upper()
        for structure, members in loader._MEMBERS.items()
        for member in members
    ]
    names = [*macros, *offsets, *(macro for macro, _ in loader._ARCHITECTURES.values()), "HAVE_TASK_BTF"]

    assert [name for name in names if not re.search(rf"\b{name}\b", _code(SOURCES))] == []


def test_every_map_and_program_that_the_loader_names_exists():
    """The loader asks for maps and programs that the BPF sources define."""
    code = _code(SOURCES)
    maps = [name for name in loader.MAPS if not re.search(rf"^BPF_\w+\({name},", code, re.MULTILINE)]
    programs = [name for name in loader.LINKS if f"int on_{name}(" not in code]

    assert (maps, programs) == ([], [])


def _code(text: str) -> str:
    """Return C text without its comments."""
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)
