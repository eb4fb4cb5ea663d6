"""The house: who imports whom, who may know what, and how large rooms may be."""

import ast
import re
import sys
import tomllib
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
PACKAGE = CHECKOUT / "otel_sysexit"
SOURCES = {
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path for path in sorted(PACKAGE.rglob("*.py"))
}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in SOURCES.items()}
FILE_LINES_MAX = 500
FUNCTION_LINES_MAX = 60
CATCH_ALLS = ("util", "utils", "helper", "helpers", "misc", "common")

modules = pytest.mark.parametrize("name", SOURCES)


def imported(name: str) -> set[str]:
    """Return the full names of everything that a module imports, wherever in it."""
    found = set()
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def imported_modules(name: str) -> set[str]:
    """Return the modules of this package that a module imports, without the package's name."""
    return {
        full.removeprefix("otel_sysexit.")
        for full in imported(name)
        if full.startswith("otel_sysexit.") and full.removeprefix("otel_sysexit.") in SOURCES
    }


def table_of_imports() -> dict[str, set[str]]:
    """Return the table in ARCHITECTURE.md."""
    text = (CHECKOUT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    table = re.search(r"^\| module \| imports \|\n\|[ |:-]+\|\n((?:\|.*\|\n)+)", text, re.MULTILINE)
    assert table is not None, "ARCHITECTURE.md has no table of imports"
    rows = {}
    for line in table[1].splitlines():
        module, imports = (cell.strip() for cell in line.strip("|").split("|"))
        assert imports == "\N{EN DASH}" or re.fullmatch(r"`[\w.]+`(, `[\w.]+`)*", imports), line
        rows[module.strip("`")] = set(re.findall(r"`([\w.]+)`", imports))
    return rows


def test_the_table_has_every_module():
    """ARCHITECTURE.md names each module once; only packages' own files are left out."""
    expected = {name for name in SOURCES if not name.endswith("__init__")}

    assert set(table_of_imports()) == expected


@modules
def test_the_table_of_imports_is_true(name):
    """A module imports what ARCHITECTURE.md says, no more and no less."""
    assert imported_modules(name) == table_of_imports().get(name, set())


def test_imports_go_one_way():
    """No module imports itself by way of others."""
    imports = {name: imported_modules(name) for name in SOURCES}
    done: set[str] = set()
    while ready := {name for name in imports if name not in done and imports[name] <= done}:
        done |= ready

    assert set(imports) - done == set()


@modules
def test_only_the_compiler_knows_bcc(name):
    """Bcc and its compiler stay in the child process that they end with."""
    knows_bcc = any(full.partition(".")[0] == "bcc" for full in imported(name))

    assert knows_bcc == (name == "kernel.compiler")


def test_the_compiler_imports_little():
    """The compiler runs under whichever Python has bcc: it needs the standard library only, and so do its parts."""
    parts = ("kernel.compiler", "kernel.objects", "kernel.probes", "kernel.bpf", "kernel.btf")
    found = {full.partition(".")[0] for name in parts for full in imported(name)}

    assert found - sys.stdlib_module_names == {"bcc", "otel_sysexit"}
    assert set().union(*map(imported_modules, parts)) <= set(parts)


@modules
def test_only_the_entry_point_reads_the_environment(name):
    """The environment is read at the entry, and changed there and in the compiler's process, which bcc wants told."""
    reads = [
        node.attr
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv")
        if isinstance(node.value, ast.Name) and node.value.id == "os"
    ]
    reads += [full for full in imported(name) if full in ("os.environ", "os.getenv")]

    assert not reads or name in ("__main__", "kernel.compiler")


@modules
def test_private_names_of_other_packages_stay_in_one_room(name):
    """Nobody but otlp/transport.py reaches for another object's private attributes."""
    foreign = [
        ast.unparse(node)
        for node in ast.walk(TREES[name])
        if isinstance(node, ast.Attribute) and re.match(r"_[a-z]", node.attr)
        if not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
    ]

    # What an operating system calls private, too: the end of a process without clean-up.
    assert name == "otlp.transport" or set(foreign) <= {"os._exit"}


@modules
def test_a_file_is_not_too_long(name):
    """A file has fewer than 500 lines."""
    assert len(SOURCES[name].read_text(encoding="utf-8").splitlines()) < FILE_LINES_MAX


@modules
def test_a_function_fits_a_screen(name):
    """A function has at most 60 lines, its decorators and its docstring included."""
    functions = (
        node for node in ast.walk(TREES[name]) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    )

    assert [node.name for node in functions if node.end_lineno - node.lineno >= FUNCTION_LINES_MAX] == []


def test_no_file_is_for_everything():
    """No module is called after having no subject."""
    files = [*PACKAGE.rglob("*.py"), *(CHECKOUT / "tests").rglob("*.py")]

    assert [path.name for path in files if path.stem.strip("_") in CATCH_ALLS] == []


def test_every_bpf_file_says_its_licence():
    """Each C file begins with its SPDX line: the kernel refuses programs of another kind."""
    files = [*(CHECKOUT / "bpf").glob("*.c"), *(CHECKOUT / "bpf").glob("*.h")]

    assert files
    assert [
        path.name for path in files if "SPDX-License-Identifier: GPL-2.0" not in path.read_text()[:80]
    ] == []


# --- dependencies -----------------------------------------------------------------------------------------------------

PROJECT = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
GROUPS = {"run": PROJECT["project"]["dependencies"]} | {
    name: [one for one in group if isinstance(one, str)]
    for name, group in PROJECT["dependency-groups"].items()
}
REQUIREMENTS = [
    (group, requirement) for group, requirements in GROUPS.items() for requirement in requirements
]
LOCKS = sorted((CHECKOUT / "requirements").glob("*.txt"))


def name_of(requirement: str) -> str:
    """Return the normalised name of a requirement."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement)[0]).lower()


@pytest.mark.parametrize(("group", "requirement"), REQUIREMENTS)
def test_a_dependency_has_both_bounds(group, requirement):
    """Each dependency says from which version on it is known to work, and up to which."""
    specifiers = requirement.partition(";")[0]

    assert re.search(r">=\d", specifiers), group
    assert re.search(r"<\d", specifiers), group


def test_bcc_is_no_dependency():
    """The package of that name on PyPI is another project: it is neither listed nor locked."""
    locked = [re.findall(r"^([\w.-]+)==", path.read_text(), re.MULTILINE) for path in LOCKS]
    names = [requirement for _, requirement in REQUIREMENTS] + [name for names in locked for name in names]

    assert "bcc" not in {name_of(name) for name in names}


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_locks_name_no_index(path):
    """Locked files work with whatever index the user has."""
    text = path.read_text(encoding="utf-8")

    assert "--index" not in text
    assert "://" not in text


@pytest.mark.parametrize("path", LOCKS, ids=lambda path: path.name)
def test_every_locked_package_has_hashes(path):
    """Each package is pinned to one version, with the hashes of its files."""
    entries = re.split(r"\n(?=\S)", path.read_text(encoding="utf-8").strip())
    packages = [entry for entry in entries if not entry.startswith("#")]

    assert packages
    assert [entry for entry in packages if not re.match(r"[\w.-]+==\S+.*\\\n\s+--hash=sha256:", entry)] == []


@pytest.mark.parametrize(("lock", "groups"), [("run.txt", ["run"]), ("dev.txt", [*GROUPS])])
def test_a_lock_has_every_dependency(lock, groups):
    """What pyproject.toml asks for is locked."""
    locked = re.findall(r"^([\w.-]+)==", (CHECKOUT / "requirements" / lock).read_text(), re.MULTILINE)
    wanted = {name_of(requirement) for group, requirement in REQUIREMENTS if group in groups}

    assert wanted - {name_of(name) for name in locked} == set()
