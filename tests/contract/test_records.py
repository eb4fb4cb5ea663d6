"""C ↔ numpy: bpf/records.h, asked through the host's compiler, and its Python twin say the same."""

import mmap
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from otel_sysexit import selections, syscalls, targets
from otel_sysexit.addresses import SOCKADDR_BYTES_MAX
from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.cgroups import Cgroup
from otel_sysexit.config import Config
from otel_sysexit.kernel import compiler, macros, records
from otel_sysexit.kernel.names import CALLS_RINGS, CALLS_RINGS_MAX, LINKS
from otel_sysexit.kernel.request import Request
from otel_sysexit.settings import STRING_LIMIT_MAX, STRING_LIMIT_MIN
from otel_sysexit.startup import make_request
from otel_sysexit.targets import Targets

BPF = Path(__file__).parents[2] / "bpf"
HEADER = (BPF / "records.h").read_text(encoding="utf-8")
SOURCES = "".join((BPF / name).read_text(encoding="utf-8") for name in (*compiler.SOURCES, "registers.h"))
LIMITS = [STRING_LIMIT_MIN, 257, STRING_LIMIT_MAX]

STRUCTURES = {
    "call_record": records.CALL,
    "string_record": records.STRING,
    "task_record": records.TASK,
    "slot": records.SLOT,
    "place": records.PLACE,
    "selector_key": records.SELECTOR_KEY,
    "rate": records.RATE,
    "span_context": records.SPAN_CONTEXT,
}
# The same with the macro CURRENT_SPANS.
WITH_SPANS = {
    "call_record": records.call_dtype(has_span=True),
    "slot": records.place_dtype(has_span=True)["slot"],
    "place": records.place_dtype(has_span=True),
}
# C enumeration -> prefix of its members, Python twin, members that only C has.
ENUMERATIONS = {
    "abi": ("ABI_", syscalls.Abi, {"ABI_COUNT"}),
    "call_kind": ("CALL_", records.CallKind, set()),
    "string_role": ("STRING_", records.StringRole, set()),
    "task_kind": ("TASK_", records.TaskKind, set()),
    "ledger": ("LEDGER_", records.Ledger, {"LEDGER_COUNT"}),
    "slot_state": ("SLOT_", records.SlotState, set()),
    "selector": ("SELECTOR_", records.Selector, set()),
}
# C expression -> what Python has for it.
CONSTANTS = {
    "STRING_LIMIT": records.STRING_LIMIT_DEFAULT,
    "STRING_SIZE": records.STRING["text"].itemsize,
    "EXEC_STRINGS": records.EXEC_STRINGS,
    "SAMPLED_OUT_AT_ENTER": records.SAMPLED_OUT_AT_ENTER,
    "SELECTOR_EXCLUDED": records.SELECTOR_EXCLUDED,
    "GLOB_SIZE": records.GLOB_SIZE,
    "GLOB_LENGTH_MAX": records.GLOB_LENGTH_MAX,
    "NR_LIMIT": records.NR_LIMIT,
    "ABI_COUNT": records.ABI_COUNT,
    "LEDGER_COUNT": len(records.Ledger),
    "CALL_HAS_STRING << 4": records.HAS_STRING,
    "CALL_HAS_ARGS << 4": records.HAS_ARGS,
    **{f"ENTRY_{bit.name}": bit.value for bit in records.Entry},
}
# The same for what other files of bpf/ define.
LITERALS = {
    "ERRNO_IS_WANTED": records.ERRNO_IS_WANTED,
    "ERRNO_IS_KEPT": records.ERRNO_IS_KEPT,
    "ADDRESS_SIZE": SOCKADDR_BYTES_MAX,
}
# Macros that the loader sets by what machine and kernel it is on, and those that are for experiments alone.
OF_THE_KERNEL = {"HAVE_TASK_BTF", "PERF_EVENTS", *(macro for macro, _ in macros._ARCHITECTURES.values())}
FOR_EXPERIMENTS = {"WAKE_EVERY", "SELECTION_ENTRIES"}


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


def questions_about(structure: str, dtype: np.dtype) -> list[str]:
    """Return C statements that print a structure's size, and of each field the offset, the size and the sign."""
    asked = [f'printf("{structure} %zu\\n", sizeof(struct {structure}));']
    for field in dtype.names:
        member = f"((struct {structure} *)0)->{field}"
        element = member + "[0]" if dtype[field].shape else member
        is_signed = "0" if dtype[field].names else f"(__typeof__({element}))-1 < 0"
        asked.append(
            f'printf("{structure}.{field} %zu %zu %d\\n", offsetof(struct {structure}, {field}),'
            f" sizeof({member}), {is_signed});"
        )
    return asked


def ask_c(folder: Path, statements: list[str], *macros: str) -> dict[str, list[int]]:
    """Return what a C program prints of the header: a list of numbers for each name."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        pytest.skip("no C compiler")
    source, program = folder / "records.c", folder / "records"
    headers = "#include <stddef.h>\n#include <stdio.h>\n#include <records.h>\n"
    source.write_text(headers + "int main(void) {\n" + "\n".join(statements) + "\nreturn 0;\n}\n")
    flags = ["-Wall", "-Werror", "-funsigned-char", f"-I{BPF}", *macros]
    subprocess.run([compiler, *flags, "-o", program, source], check=True)
    answer = subprocess.run([program], check=True, capture_output=True, text=True).stdout
    lines = (line.split() for line in answer.splitlines())
    return {name: [int(number) for number in numbers] for name, *numbers in lines}


@pytest.fixture(scope="module")
def in_c(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[int]]:
    """What C has of everything that is compared, with the macros' own defaults."""
    asked = [line for structure, dtype in STRUCTURES.items() for line in questions_about(structure, dtype)]
    names = [*CONSTANTS, *(member for name in ENUMERATIONS for member in members_in_c(name))]
    asked += [f'printf("{name.replace(" ", "")} %lld\\n", (long long)({name}));' for name in names]
    return ask_c(tmp_path_factory.mktemp("records"), asked)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_structure_has_one_size(in_c, structure):
    """A record is as long in Python as in C."""
    assert [STRUCTURES[structure].itemsize] == in_c[structure]


@pytest.mark.parametrize("structure", STRUCTURES)
def test_fields_lie_where_c_has_them(in_c, structure):
    """Every field has C's offset, size and sign."""
    dtype = STRUCTURES[structure]

    assert fields_of(dtype) == {name: tuple(in_c[f"{structure}.{name}"]) for name in dtype.names}


@pytest.mark.parametrize("structure", WITH_SPANS)
def test_what_has_a_span_has_cs_layout(tmp_path, structure):
    """Compiled with room for a span, a structure is as long as its twin, fields in the same places."""
    dtype = WITH_SPANS[structure]
    in_c = ask_c(tmp_path, questions_about(structure, dtype), "-DCURRENT_SPANS")

    assert in_c.pop(structure) == [dtype.itemsize]
    assert in_c == {f"{structure}.{name}": list(facts) for name, facts in fields_of(dtype).items()}


@pytest.mark.parametrize("has_span", [False, True])
def test_no_place_lies_on_two_pages(has_span):
    """The agent maps the one page that a place is on."""
    assert mmap.PAGESIZE % records.place_dtype(has_span=has_span).itemsize == 0


@pytest.mark.parametrize("limit", LIMITS)
def test_a_string_has_cs_layout_at_every_limit(tmp_path, limit):
    """A string record compiled for a limit is as long as its twin for it, fields in the same places, room for one byte more."""
    dtype = records.string_dtype(limit)
    in_c = ask_c(tmp_path, questions_about("string_record", dtype), f"-DSTRING_LIMIT={limit}")

    assert in_c.pop("string_record") == [dtype.itemsize]
    assert in_c == {f"string_record.{name}": list(facts) for name, facts in fields_of(dtype).items()}
    assert dtype["text"].itemsize >= limit + 2  # the byte that tells of a cut, and a NUL


@pytest.mark.parametrize(
    "dtype", [*STRUCTURES.values(), *WITH_SPANS.values(), *map(records.string_dtype, LIMITS)]
)
def test_every_byte_belongs_to_a_field(dtype):
    """The fields follow each other without a hole, to a multiple of 8 bytes."""
    end = 0
    for offset, size, _ in fields_of(dtype).values():
        assert offset == end
        end += size

    assert (end, end % 8) == (dtype.itemsize, 0)


def test_every_limit_has_room_for_an_address():
    """A string record that may be asked for takes the longest socket address."""
    assert records.string_dtype(STRING_LIMIT_MIN)["text"].itemsize >= SOCKADDR_BYTES_MAX


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


@pytest.mark.parametrize("name", LITERALS)
def test_a_literal_has_one_value(name):
    """What only one file of bpf/ needs is the same number there."""
    assert re.findall(rf"^#define {name} (\d+)", SOURCES, re.MULTILINE) == [str(LITERALS[name])]


def test_the_tables_of_calls_have_the_kernels_shape():
    """The tables of syscalls.py hold as many numbers and ABIs as the kernel's table."""
    assert (records.NR_LIMIT, records.ABI_COUNT) == (syscalls.NUMBERS, syscalls.ABIS)


WANTED, BIRTH, OUT = records.Entry.IS_WANTED, records.Entry.IS_BIRTH, records.Entry.IS_ADDRESS_OUT


def places(**places: int) -> int:
    """Return an entry's places of arguments, 1 + index, by the header's names of where they stand."""
    shift = {
        name: int(number) for name, number in re.findall(r"^#define ENTRY_(\w+) (\d+)$", HEADER, re.MULTILINE)
    }
    return sum(place << shift[name.upper()] for name, place in places.items())


@pytest.mark.parametrize(
    ("abi", "name", "entry"),
    [
        (syscalls.Abi.X86_64, "openat", WANTED | places(first_path=2, first_file=1)),
        (syscalls.Abi.I386, "openat", WANTED | places(first_path=2, first_file=1)),
        (syscalls.Abi.X86_64, "renameat2", places(first_path=2, second_path=4, first_file=1, second_file=3)),
        (syscalls.Abi.X32, "read", places(first_file=1)),
        (syscalls.Abi.ARM, "chdir", places(first_path=1)),
        (syscalls.Abi.X86_64, "copy_file_range", places(first_file=1, second_file=3)),
        (syscalls.Abi.X86_64, "execve", BIRTH | places(first_path=1)),
        (syscalls.Abi.AARCH64, "clone3", BIRTH),
        (syscalls.Abi.X86_64, "connect", places(first_file=1, address=2, address_length=3)),
        (syscalls.Abi.X86_64, "sendto", places(first_file=1, address=5, address_length=6)),
        (syscalls.Abi.X86_64, "accept4", OUT | places(first_file=1, address=2, address_length=3)),
        (syscalls.Abi.AARCH64, "recvfrom", OUT | places(first_file=1, address=5, address_length=6)),
        (syscalls.Abi.X86_64, "getpid", 0),
    ],
)
def test_the_table_is_packed_as_the_kernel_reads_it(abi, name, entry):
    """The entry of a call says where its paths, descriptors and address are, what it gives birth to, and if it is wanted."""
    request = make_request(Config(syscalls=selections.parse_selection("openat")), Targets())
    number = syscalls.number_of(name, abi)

    assert request.syscall_table.shape == (records.ABI_COUNT * records.NR_LIMIT,)
    assert request.syscall_table[abi * records.NR_LIMIT + number] == entry


def test_every_bit_of_an_entry_has_a_meaning():
    """No entry has a bit that the header does not name."""
    named = int(WANTED | BIRTH | OUT) | places(
        first_path=7, second_path=7, first_file=7, second_file=7, address=7, address_length=7
    )

    assert np.bitwise_or.reduce(selections.kernel_table(None)) & ~np.uint32(named) == 0


def macros_of(*requests: Request) -> set[str]:
    """Return the names of all macros of some requests."""
    return {flag.removeprefix("-D").partition("=")[0] for request in requests for flag in request.cflags()}


def everything_asked_for() -> list[Request]:
    """Return requests for all that can be asked for; what excludes each other is in different ones."""
    durations = selections.parse_durations("1ms,read=10ms")
    config = Config(
        syscalls=selections.parse_selection("openat"),
        errors_only=True,
        errnos=selections.parse_errnos("ENOENT"),
        min_duration=durations,
        keep_slow=durations,
        keep_errors=True,
        attributes=AttributeSelection((("process.command_args", True),)),
        sample=0.5,
        stuck_after_ns=10**9,
    )
    criteria = targets.Criteria(
        pids=frozenset([1]),
        tids=frozenset([1]),
        comms=frozenset([b"sh"]),
        exe_globs=(b"/bin/*",),
        uids=frozenset([0]),
        cgroups=frozenset([Cgroup("cpu", "/a", 1)]),
    )
    chosen = Targets(criteria, criteria, follows_children=False)
    of_spans = replace(make_request(Config(max_rate=5), Targets(is_all=True)), current_spans_fd=0)
    of_rings = replace(of_spans, cpus=2, calls_rings_max=2)
    return [make_request(config, chosen), of_spans, of_rings]


def choices_in_c() -> set[str]:
    """Return the macros that the BPF sources ask for and do not make up by themselves."""
    code = re.sub(r"\\\n", " ", _code(SOURCES + HEADER))
    conditions = re.findall(r"^#\s*(?:el)?if(?:n?def)?\b(.*)$", code, re.MULTILINE)
    asked = {name for condition in conditions for name in re.findall(r"[A-Z]\w+", condition)}
    # A default stands below #ifndef; anything else that is defined is no choice.
    defaults = set(re.findall(r"^#ifndef (\w+)\n#define \1 ", code, re.MULTILINE))
    defined = set(re.findall(r"^#define (\w+)", code, re.MULTILINE)) - defaults
    return asked - defined


def test_the_macros_of_requests_are_the_choices_of_the_sources():
    """What can be asked for is what bpf/ asks about: no macro is misspelt, none is left without an option."""
    assert macros_of(*everything_asked_for()) == choices_in_c() - OF_THE_KERNEL - FOR_EXPERIMENTS


def test_every_choice_is_explained():
    """The comments of bpf/ tell of each macro, of those for properties of threads together."""
    comments = " ".join(re.findall(r"/\*.*?\*/", SOURCES, re.DOTALL))
    unexplained = [name for name in choices_in_c() if not re.search(rf"\b{name}\b", comments)]

    assert [name for name in unexplained if not name.startswith("EXCLUDE_")] == []


def test_every_offset_that_the_loader_finds_is_used():
    """No member of a kernel structure is looked for in vain."""
    wanted = [*macros._MEMBERS.items(), *macros._CGROUP_MEMBERS.items()]
    offsets = [
        f"{structure}_{member}".replace(".", "_").upper()
        for structure, members in wanted
        for member in members
    ]

    assert [name for name in offsets if not re.search(rf"\b{name}\b", _code(SOURCES))] == []


def test_every_map_and_program_that_the_loader_names_exists():
    """The loader asks for maps and programs that the BPF sources define."""
    code = _code(SOURCES)
    rings = Request(0, np.zeros(0, np.uint32), cpus=8, calls_rings_max=CALLS_RINGS_MAX)
    made_by_the_loader = rings.calls_rings[1:]
    asked_for = {*rings.maps, CALLS_RINGS} - {*made_by_the_loader}
    maps = [name for name in asked_for if not re.search(rf"^BPF_\w+\((.* )?{name},", code, re.MULTILINE)]
    programs = [name for name in LINKS if f"int on_{name}(" not in code]

    assert (maps, programs) == ([], [])


def test_there_are_as_many_rings_as_the_sources_have_room_for():
    """Their map has a place for each."""
    assert f"#define CALLS_RINGS_MAX {CALLS_RINGS_MAX}\n" in SOURCES


def _code(text: str) -> str:
    """Return C text without its comments."""
    return re.sub(r"/\*.*?\*/", "", text, flags=re.DOTALL)


@pytest.mark.parametrize("name", ["args", "files"])
def test_a_copied_field_is_the_field(name: str) -> None:
    """Its values, type and shape are those of the records, one behind the other."""
    calls = np.frombuffer(bytes(range(224)), records.CALL)
    field = records.copy_field(calls, name)
    assert field.flags.c_contiguous
    assert field.dtype == calls[name].dtype
    np.testing.assert_array_equal(field, calls[name])
