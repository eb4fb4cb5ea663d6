"""Which arguments each call has: as shipped, and as the running kernel declares them."""

from pathlib import Path

import pytest

from otel_sysexit import signatures
from otel_sysexit.signatures import Declared, shipped_signature, signature

HEADER = """name: sys_enter_openat
ID: 700
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;
"""
FOOTER = '\nprint fmt: "dfd: 0x%08lx", ((unsigned long)(REC->dfd))\n'


def field(declaration: str, size: int = 8) -> str:
    """Return the line of one field."""
    return f"\tfield:{declaration};\toffset:16;\tsize:{size};\tsigned:0;\n"


@pytest.fixture
def declare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Return a function that makes a kernel declare a call, on a machine that is x86_64."""
    monkeypatch.setattr(signatures, "_TRACEFS", (tmp_path / "absent", tmp_path))
    monkeypatch.setattr(signatures.platform, "machine", lambda: "x86_64")

    def write(call: str, text: str) -> None:
        folder = tmp_path / "events" / "syscalls" / f"sys_enter_{call}"
        folder.mkdir(parents=True)
        (folder / "format").write_bytes(text.encode("utf-8"))

    return write


def test_the_running_kernel_says_how_arguments_are_called(declare) -> None:
    """Names and types are the kernel's, paths are where the shipped table has them."""
    fields = "".join(
        map(field, ("int where", "const char * what", "unsigned int how", "umode_t mode", "long more"))
    )
    declare("openat", HEADER + fields + FOOTER)
    assert signature("openat", "x86_64") == (
        Declared("int", "where"),
        Declared("const char *", "what", is_path=True),
        Declared("unsigned int", "how"),
        Declared("umode_t", "mode"),
        Declared("long", "more"),
    )


def test_other_abis_have_the_shipped_signature(declare) -> None:
    """Tracefs speaks of the native ABI."""
    declare("openat", HEADER + field("int where") + field("const char * what") + FOOTER)
    assert signature("openat", "i386") == shipped_signature("openat", "i386")


@pytest.mark.parametrize(
    ("call", "function"), [("stat", "newstat"), ("umount2", "umount"), ("sendfile", "sendfile64")]
)
def test_a_call_is_found_under_its_functions_name(declare, call: str, function: str) -> None:
    """The kernel calls some functions otherwise than their calls."""
    declare(function, HEADER + field("char * first") + FOOTER)
    assert [argument.name for argument in signature(call, "x86_64")] == ["first"]


def test_a_call_without_arguments_has_none(declare) -> None:
    """An empty list is an answer."""
    declare("read", HEADER + FOOTER)
    assert signature("read", "x86_64") == ()


def test_copies_of_user_memory_are_no_arguments(declare) -> None:
    """Newer kernels append what a pointer points to: four bytes that say where it stands."""
    declare("write", HEADER + field("unsigned int fd") + field("__data_loc char[] __buf_val", 4) + FOOTER)
    assert signature("write", "x86_64") == (Declared("unsigned int", "fd"),)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        field("int dfd"),
        HEADER + 7 * field("int a"),
        HEADER + field("int where") + field("int what"),
        HEADER + field("int where"),
        HEADER + field("dfd"),
        "\N{SNOWMAN}",
    ],
)
def test_an_odd_declaration_is_ignored(declare, text: str) -> None:
    """No number of the call, too many arguments, a path that is no pointer, a field without a type, no text."""
    declare("openat", text)
    assert signature("openat", "x86_64") == shipped_signature("openat", "x86_64")


@pytest.mark.usefixtures("declare")
def test_a_kernel_that_shows_nothing_leaves_the_shipped_table() -> None:
    """No tracefs is no error."""
    assert signature("openat", "x86_64") == shipped_signature("openat", "x86_64") is not None


def test_a_call_nobody_knows_has_no_signature() -> None:
    """Neither the table nor a kernel has heard of it."""
    assert signature("syscall_9999", "x86_64") is None


@pytest.mark.parametrize(
    ("declared", "expected"),
    [
        (Declared("unsigned int", "fd"), True),
        (Declared("unsigned long", "fd"), True),
        (Declared("int", "newdfd"), True),
        (Declared("mqd_t", "mqdes"), True),
        (Declared("int *", "fd"), False),
        (Declared("unsigned int", "max_fd"), False),
        (Declared("int", "wd"), False),
    ],
)
def test_descriptors_are_known_by_name(declared: Declared, *, expected: bool) -> None:
    """Types do not tell: the kernel declares them as int, unsigned int and long."""
    assert declared.is_descriptor == expected
