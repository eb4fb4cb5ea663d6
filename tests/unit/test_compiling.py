"""The compiler's ways to fail, each with the words that help: no bcc, another bcc, a child that dies, sources that do not compile."""

import sys
from pathlib import Path

import pytest

import otel_sysexit
from otel_sysexit.kernel import compiler, compiling
from otel_sysexit.kernel.probes import LoadError

CHECKOUT = Path(otel_sysexit.__file__).parents[1]
# What the unrelated project of that name on PyPI does when it is imported.
FOREIGN = "import pytest_that_is_not_installed\n"


def put_bcc(folder: Path, text: str) -> None:
    """Make a module bcc."""
    (folder / "bcc").mkdir()
    (folder / "bcc" / "__init__.py").write_text(text)


@pytest.fixture
def no_bcc_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget bcc, should it have been imported; what tests import instead is forgotten afterwards."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "bcc"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "bcc", None)
    monkeypatch.delitem(sys.modules, "bcc")


@pytest.mark.usefixtures("no_bcc_yet")
def test_bcc_is_what_has_bpf(tmp_path, monkeypatch):
    """A module bcc with BPF in it is taken."""
    put_bcc(tmp_path, "class BPF: pass\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert compiler.import_bcc().BPF


@pytest.mark.usefixtures("no_bcc_yet")
def test_a_missing_bcc_is_said(monkeypatch):
    """Without bcc the distributions' packages are named, and PyPI's is warned of."""
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(LoadError, match="has no bcc") as caught:
        compiler.import_bcc()

    assert caught.value.kind == "no-bcc"
    assert "python3-bpfcc" in str(caught.value)
    assert "PyPI" in str(caught.value)


@pytest.mark.usefixtures("no_bcc_yet")
@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("", "wrong-bcc"),
        (FOREIGN, "wrong-bcc"),
        ("from numpy import nothing_of_that_name\n", "wrong-bcc"),
        ("from bcc.libbcc import lib\n", "no-bcc"),
        ("raise OSError('libbcc.so.0: cannot open shared object file')\n", "no-bcc"),
    ],
)
def test_another_bcc_is_said(tmp_path, monkeypatch, text, kind):
    """A bcc without BPF, or that fails on what the real one does not use, is the wrong one; half of it is none."""
    put_bcc(tmp_path, text)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LoadError) as caught:
        compiler.import_bcc()

    assert caught.value.kind == kind
    assert "install the distribution's package" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- the child --------------------------------------------------------------------------------------------------------


def make_python(folder: Path, head: str, name: str = "python") -> Path:
    """Make an interpreter that runs *head* before what it is told to."""
    head_file = folder / f"{name}-head.py"
    head_file.write_text(head)
    python = folder / name
    # Called as: python -I -c CODE ...
    python.write_text(
        f"#!/bin/sh\nisolation=$1 code=$3\nshift 3\n"
        f'exec {sys.executable} "$isolation" -c "exec(open(\'{head_file}\').read());$code" "$@"\n'
    )
    python.chmod(0o755)
    return python


def compile_by(*pythons: Path | str, macros: tuple[str, ...] = ()) -> str:
    """Have children compile in vain; return what is said of it."""
    with pytest.raises(LoadError) as caught:
        compiling.compile_programs(list(map(str, pythons)), "/some/bpf", lambda: list(macros), ["sys_enter"])

    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def answer(kind: str, message: str) -> str:
    """Return code of a child that answers with an error and ends."""
    return f"import json, os; os.write(1, json.dumps(dict(error={kind!r}, message={message!r})).encode()); os._exit(1)\n"


def test_the_wrong_bcc_is_said_by_the_child(tmp_path):
    """What the child finds instead of bcc reaches the user, with its place."""
    put_bcc(tmp_path, FOREIGN)
    python = make_python(tmp_path, f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n")

    assert "is not the BPF compiler's: uninstall it" in compile_by(python)


def test_a_missing_bcc_is_said_by_the_child(tmp_path):
    """A child without bcc says so, with the cure."""
    python = make_python(tmp_path, "import sys; sys.modules['bcc'] = None\n")

    assert "python3-bpfcc" in compile_by(python)


def test_the_next_python_is_asked(tmp_path):
    """When an interpreter has no bcc, the next one is tried before anything is said."""
    first = make_python(tmp_path, answer("no-bcc", "first"), "first")
    second = make_python(tmp_path, answer("load", "second"), "second")

    assert compile_by(first, second) == "second (exit status 1)"


def test_a_next_python_that_is_not_there_is_not_asked(tmp_path):
    """Who has one interpreter only hears of that one."""
    first = make_python(tmp_path, answer("no-bcc", "first"))

    assert compile_by(first, "/nowhere/python") == "first"


def test_our_own_python_is_asked_before_the_systems():
    """Without a choice these two may have bcc."""
    assert compiling.interpreters(None) == [sys.executable, "/usr/bin/python3"]


def test_a_chosen_python_is_the_only_one():
    """Who names an interpreter gets no other."""
    assert compiling.interpreters("/opt/python") == ["/opt/python"]


def test_the_kernel_is_asked_once(tmp_path):
    """What the macros are does not depend on which interpreter compiles."""
    first = make_python(tmp_path, answer("no-bcc", "first"), "first")
    second = make_python(tmp_path, answer("no-bcc", "second"), "second")
    asked = []
    with pytest.raises(LoadError, match="second"):
        compiling.compile_programs([str(first), str(second)], "/bpf", lambda: asked.append(1) or [], [])

    assert asked == [1]


def test_what_the_kernel_lacks_ends_the_child(tmp_path):
    """When macros cannot be found, that is said, and no child is left behind."""
    python = make_python(
        tmp_path, f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid()))\n"
    )

    def find_macros() -> list[str]:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            pass
        raise LoadError("bad-btf", "no such member")

    with pytest.raises(LoadError, match="no such member"):
        compiling.compile_programs([str(python)], "/bpf", find_macros, [])

    assert not Path("/proc", (tmp_path / "pid").read_text()).exists()


def test_what_the_compiler_says_is_passed_on(tmp_path):
    """When the programs do not compile, the first complaint on the child's standard error is part of the line."""
    log = "import sys; sys.stderr.write('note\\ncalls.bpf.c:7:1: error: no such thing\\n1 error generated.\\n')\n"
    python = make_python(tmp_path, log + answer("load", "they do not compile"))

    assert compile_by(python) == "they do not compile (calls.bpf.c:7:1: error: no such thing)"


@pytest.mark.parametrize(
    ("head", "words"),
    [
        ("import os; os._exit(3)\n", "exit status 3"),
        ("import os; os.kill(os.getpid(), 9)\n", "exit status -9"),
        ("raise MemoryError('too much')\n", "MemoryError: too much"),
    ],
)
def test_a_child_that_dies_is_said(tmp_path, head, words):
    """A child that ends without an answer is reported with whose it was and how it ended."""
    python = make_python(tmp_path, head)

    assert (
        compile_by(python)
        == f"the compiler died under {python}, which should be a Python that has bcc ({words})"
    )


def test_a_python_that_is_not_there_is_said():
    """An interpreter that cannot be started is named."""
    assert "cannot start /nowhere/python, which should have bcc: No such" in compile_by("/nowhere/python")


def test_the_users_environment_does_not_reach_the_child(tmp_path, monkeypatch):
    """Variables that tell Python what to import are not heard: the child runs with privileges."""
    put_bcc(tmp_path, "class BPF: pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    head = f"import sys; found = str({str(tmp_path)!r} in sys.path)\n"
    python = make_python(tmp_path, head + answer("x", "@").replace("'@'", "found"))

    assert compile_by(python) == "False"


def test_a_request_of_any_size_arrives(tmp_path):
    """More than a pipe holds reaches a child that reads late, word for word."""
    head = "import json, sys; asked = json.load(sys.stdin)\n"
    told = "f\"{len(asked['macros'])} {asked['bpf_dir']} {asked['programs']}\""
    python = make_python(tmp_path, head + answer("x", "@").replace("'@'", told))

    said = compile_by(python, macros=("-DA",) * 100_000)

    assert said == "100000 /some/bpf {'sys_enter': False}"


def test_a_child_may_complain_at_length(tmp_path):
    """A compiler's complaints are longer than a pipe holds: the child is not stopped by it, and the first one is found."""
    log = "import sys; sys.stderr.write('note\\n' * 100_000 + 'error: at last\\n')\n"
    python = make_python(tmp_path, log + answer("load", "they do not compile"))

    assert compile_by(python) == "they do not compile (error: at last)"


def test_the_last_child_is_the_one_that_is_told_of(tmp_path):
    """What the first interpreter complained of is no reason of the second one's."""
    complaint = "import sys; sys.stderr.write('error: no such module\\n')\n"
    first = make_python(tmp_path, complaint + answer("no-bcc", "none"), "first")
    second = make_python(tmp_path, answer("load", "second"), "second")

    assert compile_by(first, second) == "second (exit status 1)"


def test_perf_calls_programs_where_the_macros_say_so():
    """With PERF_EVENTS those that have an event are perf's, and the others stay on raw tracepoints."""
    tracepoints = ["sys_enter", "task_rename"]

    assert compiling.ways_of_calling(["-DARGS=2"], tracepoints) == {"sys_enter": False, "task_rename": False}
    assert compiling.ways_of_calling(["-DPERF_EVENTS"], tracepoints) == {
        "sys_enter": True,
        "task_rename": False,
    }
