"""The loader's ways to fail, each with the words that help: no bcc, another bcc, a child that dies, a kernel that refuses."""

import sys
from pathlib import Path

import numpy as np
import pytest

import otel_sysexit
from otel_sysexit.errors import AgentError
from otel_sysexit.kernel import capture, loader
from otel_sysexit.kernel.capture import Loader
from otel_sysexit.kernel.loader import LoadError
from otel_sysexit.kernel.request import Request

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

    assert loader.import_bcc().BPF


@pytest.mark.usefixtures("no_bcc_yet")
def test_a_missing_bcc_is_said(monkeypatch):
    """Without bcc the distributions' packages are named, and PyPI's is warned of."""
    monkeypatch.setitem(sys.modules, "bcc", None)
    with pytest.raises(LoadError, match="has no bcc") as caught:
        loader.import_bcc()

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
        loader.import_bcc()

    assert caught.value.kind == kind
    assert "install the distribution's package" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


# --- the child --------------------------------------------------------------------------------------------------------

CHECKOUT = Path(otel_sysexit.__file__).parents[1]


def request(python: Path | str | None = None, **choices: object) -> Request:
    """Return a request to the interpreter *python*."""
    facts = {
        "calls_bytes": 1 << 20,
        "syscall_table": np.zeros(8, np.uint32),
    }
    return Request(**(facts | choices), bcc_python=None if python is None else str(python))


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


def load(python: Path | None, **choices: object) -> str:
    """Start a loader child that is to fail; return what is said of it."""
    with Loader(request(python, **choices)) as child, pytest.raises(AgentError) as caught:
        child.capture()

    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


# Code of a child that is asked nothing but for bcc: who may not use BPF, and where there is no BTF, hears of that first.
ASK_BCC_ONLY = f"""
import sys
sys.path.append({str(CHECKOUT)!r})
from otel_sysexit.kernel import loader
loader.check_kernel = lambda: None
loader.offset_flags = lambda subsystem, has_cgroups: []
"""


def answer(text: str) -> str:
    """Return code of a child that answers *text* and ends."""
    return f"import os, sys; os.write(int(sys.argv[1]), {text.encode()!r}); os._exit(1)\n"


def test_the_wrong_bcc_is_said_by_the_agent(tmp_path):
    """What the child finds instead of bcc reaches the user, with its place."""
    put_bcc(tmp_path, FOREIGN)
    python = make_python(tmp_path, f"{ASK_BCC_ONLY}sys.path.insert(0, {str(tmp_path)!r})\n")

    assert "is not the BPF compiler's: uninstall it" in load(python)


def test_a_missing_bcc_is_said_by_the_agent(tmp_path):
    """A child without bcc says so, with the cure."""
    python = make_python(tmp_path, f"{ASK_BCC_ONLY}sys.modules['bcc'] = None\n")

    assert "python3-bpfcc" in load(python)


def test_the_systems_python_is_asked_next(tmp_path, monkeypatch):
    """When our own interpreter has no bcc, the system's is tried before anything is said."""
    first = make_python(tmp_path, answer('{"error": "no-bcc", "message": "first"}'), "first")
    second = make_python(tmp_path, answer('{"error": "no-ring-buffer", "message": "second"}'), "second")
    monkeypatch.setattr(capture.sys, "executable", str(first))
    monkeypatch.setattr(capture, "_SYSTEM_PYTHON", str(second))

    assert load(None) == "second"


def test_a_chosen_python_is_the_only_one(tmp_path, monkeypatch):
    """Who names an interpreter gets no other."""
    chosen = make_python(tmp_path, answer('{"error": "wrong-bcc", "message": "chosen"}'), "chosen")
    monkeypatch.setattr(capture, "_SYSTEM_PYTHON", sys.executable)

    assert load(chosen) == "chosen"


def test_what_the_compiler_says_is_passed_on(tmp_path):
    """When the programs do not load, the first complaint on the child's standard error is part of the line."""
    log = "import sys; sys.stderr.write('note\\ncalls.bpf.c:7:1: error: no such thing\\n1 error generated.\\n')\n"
    python = make_python(tmp_path, log + answer('{"error": "load", "message": "they do not load"}'))

    assert load(python) == "they do not load (calls.bpf.c:7:1: error: no such thing)"


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

    assert load(python) == f"the loader died under {python}, which should be a Python that has bcc ({words})"


def test_a_child_that_hangs_is_ended(tmp_path, monkeypatch):
    """A child that does not answer in time is killed, and that is said."""
    monkeypatch.setattr(capture, "_LOADER_SECONDS", 0.3)

    assert "did not finish within" in load(make_python(tmp_path, "import time; time.sleep(60)\n"))


def test_a_python_that_is_not_there_is_said():
    """An interpreter that cannot be started is named."""
    with pytest.raises(AgentError, match="cannot start /nowhere/python, which should have bcc"):
        Loader(request("/nowhere/python"))


def test_leaving_ends_the_child(tmp_path):
    """A loader that is not needed any more is gone afterwards."""
    with Loader(request(make_python(tmp_path, "import time; time.sleep(60)\n"))) as child:
        pass

    assert child._child.returncode == -9


def test_the_users_environment_does_not_reach_the_child(tmp_path, monkeypatch):
    """Variables that tell Python what to import are not heard: the child runs with privileges."""
    put_bcc(tmp_path, "class BPF: pass\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    python = make_python(
        tmp_path,
        f'import sys, os; os.write(int(sys.argv[1]), b\'{{"error": "x", "message": "%d"}}\' % '
        f"({str(tmp_path)!r} in sys.path)); os._exit(1)\n",
    )

    assert load(python) == "0"


def test_a_request_of_any_size_arrives(tmp_path):
    """More than a pipe holds reaches a child that reads late, word for word."""
    head = """
import json, os, sys
asked = json.load(sys.stdin)
keys, values, count = asked["contents"]["syscall_table"]
message = f"{len(keys)} {count} {' '.join(sorted(asked))}"
os.write(int(sys.argv[1]), json.dumps({"error": "x", "message": message}).encode())
os._exit(1)
"""
    table = np.full(100_000, 7, np.uint32)

    said = load(make_python(tmp_path, head), syscall_table=table)

    assert said == f"{(400_000 + 2) // 3 * 4} 100000 bpf_dir cflags contents substitutes"


def test_a_child_may_complain_at_length(tmp_path):
    """A verifier's log is longer than a pipe holds: the child is not stopped by it, and the first complaint is found."""
    log = "import sys; sys.stderr.write('note\\n' * 100_000 + 'error: at last\\n')\n"
    python = make_python(tmp_path, log + answer('{"error": "load", "message": "they do not load"}'))

    assert load(python) == "they do not load (error: at last)"


def test_the_last_child_is_the_one_that_is_told_of(tmp_path, monkeypatch):
    """What the first interpreter complained of is no reason of the second one's."""
    complaint = "import sys; sys.stderr.write('error: no such module\\n')\n"
    first = make_python(tmp_path, complaint + answer('{"error": "no-bcc", "message": "none"}'), "first")
    second = make_python(tmp_path, answer('{"error": "load", "message": "second"}'), "second")
    monkeypatch.setattr(capture.sys, "executable", str(first))
    monkeypatch.setattr(capture, "_SYSTEM_PYTHON", str(second))

    assert load(None) == "second (exit status 1)"


# --- what is asked of the compiler ------------------------------------------------------------------------------------


def test_the_bpf_sources_are_found():
    """In a checkout they lie beside the package."""
    assert capture.find_bpf_dir() == CHECKOUT / "bpf"


def test_the_bpf_sources_of_a_wheel_are_found(tmp_path, monkeypatch):
    """In an installed package they lie in it, and those count first."""
    package = tmp_path / "otel_sysexit"
    for folder in (package / "bpf", tmp_path / "bpf"):
        folder.mkdir(parents=True)
        (folder / "calls.bpf.c").touch()
    monkeypatch.setattr(capture, "files", lambda _: package)

    assert capture.find_bpf_dir() == package / "bpf"


def test_missing_bpf_sources_are_said(tmp_path, monkeypatch):
    """A package without them is broken: that is said."""
    monkeypatch.setattr(capture, "files", lambda _: tmp_path)

    with pytest.raises(AgentError, match="reinstall otel-sysexit"):
        capture.find_bpf_dir()


class FakeBtf:
    """A kernel that has everything that is asked for, at offset 7."""

    def __init__(self, _: bytes) -> None:
        pass

    def offset_of(self, _structure: str, _member: str) -> int:
        """Return any number."""
        return 7

    def enumerator(self, enumeration: str, name: str) -> int:
        """Return 3 for the CPU controller, and nothing for what no kernel has."""
        return {("cgroup_subsys_id", "cpu_cgrp_id"): 3}[enumeration, name]


@pytest.fixture
def fake_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A kernel whose BTF is `FakeBtf`, and that can do nothing more."""
    (tmp_path / "vmlinux").touch()
    monkeypatch.setattr(loader, "VMLINUX", tmp_path / "vmlinux")
    monkeypatch.setattr(loader, "Btf", FakeBtf)
    monkeypatch.setattr(loader, "has_task_btf", lambda: False)


@pytest.mark.parametrize(
    ("has_task_btf", "is_preemptible", "expected"),
    [
        (False, True, []),
        (True, False, ["-DHAVE_TASK_BTF"]),
        (True, True, ["-DHAVE_TASK_BTF", "-DPERF_EVENTS"]),
    ],
)
def test_what_the_kernel_can_do_becomes_macros(monkeypatch, has_task_btf, is_preemptible, expected):
    """Perf calls the programs where they could be preempted, and can say who is at work without raw arguments."""
    monkeypatch.setattr(loader, "has_task_btf", lambda: has_task_btf)
    monkeypatch.setattr(loader, "is_preemptible", lambda _offset: is_preemptible)

    assert loader.ability_flags(FakeBtf(b"")) == expected


def test_a_kernel_that_cannot_forbid_migration_preempts_nothing(monkeypatch):
    """Where a task has no such member, programs are as they always were."""
    monkeypatch.setattr(loader, "has_task_btf", lambda: True)
    monkeypatch.setattr(FakeBtf, "offset_of", lambda *_: {}["migration_disabled"])

    assert loader.ability_flags(FakeBtf(b"")) == ["-DHAVE_TASK_BTF"]


@pytest.mark.usefixtures("fake_kernel")
@pytest.mark.parametrize(
    ("macros", "has_cgroups", "subsystem"),
    [
        ([], False, []),
        (["-DSELECT_PID"], False, []),
        (["-DSELECT_CGROUP"], True, []),
        (["-DEXCLUDE_CGROUP", "-DCGROUP_SUBSYSTEM=cpu"], True, ["-DCGROUP_SUBSYSTEM=3"]),
    ],
)
def test_the_kernel_is_asked_for_what_is_needed(macros, has_cgroups, subsystem):
    """Members of cgroups are looked for where cgroups are; a controller's name becomes the index that this kernel gave it."""
    flags = loader.kernel_flags(macros)

    assert "-DTASK_STRUCT_TGID=7" in flags
    assert ("-DCSS_SET_DFL_CGRP=7" in flags) == has_cgroups
    assert [flag for flag in flags if flag.startswith("-DCGROUP_SUBSYSTEM=")] == subsystem


@pytest.mark.usefixtures("fake_kernel")
def test_a_kernel_without_a_member_is_said(monkeypatch):
    """What is missing is named, in one line."""

    def offset_of(_self: FakeBtf, structure: str, member: str) -> int:
        raise KeyError(f"{structure}.{member}")

    monkeypatch.setattr(FakeBtf, "offset_of", offset_of)
    with pytest.raises(LoadError, match=r"lacks what is needed: 'task_struct\.tgid'") as caught:
        loader.kernel_flags([])

    assert caught.value.kind == "bad-btf"


def test_a_failure_in_parallel_is_the_callers():
    """What goes wrong in the forked child is raised where its result is asked for; what goes well is returned."""

    def fail() -> list[str]:
        raise LoadError("bad-btf", "no such member")

    assert loader.in_parallel(lambda: ["-DA", "-DB=1"])() == ["-DA", "-DB=1"]
    with pytest.raises(LoadError, match="no such member") as caught:
        loader.in_parallel(fail)()
    assert caught.value.kind == "bad-btf"


def test_a_map_that_cannot_be_filled_is_said():
    """A refusal by the kernel is an error of loading, with its reason."""
    with Path("/dev/null").open() as no_map, pytest.raises(LoadError, match="cannot fill a map: ") as caught:
        loader.fill(no_map.fileno(), bytes(4), bytes(4), 1)

    assert caught.value.kind == "load"
