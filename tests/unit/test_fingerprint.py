"""What was compiled counts as long as nothing that decides how it comes out has changed."""

import os
import shutil
from pathlib import Path

import pytest

from otel_sysexit.kernel import fingerprint as module
from otel_sysexit.kernel.fingerprint import fingerprint, stamps

BPF = Path(__file__).parents[2] / "bpf"


@pytest.fixture(autouse=True)
def vmlinux(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The running kernel's BTF."""
    path = tmp_path / "vmlinux"
    path.write_bytes(b"\x9f\xeb...")
    monkeypatch.setattr(module, "VMLINUX", path)
    return path


@pytest.fixture
def bpf_dir(tmp_path: Path) -> Path:
    """A copy of the sources."""
    return Path(shutil.copytree(BPF, tmp_path / "bpf"))


def key(bpf_dir: Path, *macros: str, python: str = "/usr/bin/python3") -> str:
    """Return the key of a compilation."""
    return fingerprint(str(bpf_dir), macros, [python])


def test_the_same_is_the_same(bpf_dir, tmp_path):
    """The key does not depend on where the sources are, nor on when it is asked for."""
    moved = Path(shutil.copytree(bpf_dir, tmp_path / "moved"))

    assert key(bpf_dir, "-DARGS=2") == key(moved, "-DARGS=2")
    assert len(key(bpf_dir)) == 64


@pytest.mark.parametrize("name", sorted(str(path.relative_to(BPF)) for path in BPF.rglob("*.[ch]")))
def test_every_source_counts(bpf_dir, name):
    """A change in any file that the compiler reads makes another key."""
    before = key(bpf_dir)
    with (bpf_dir / name).open("a") as file:
        file.write("\n")

    assert key(bpf_dir) != before


def test_every_choice_counts(bpf_dir):
    """Macros, their order and the interpreter make another key."""
    keys = {
        key(bpf_dir),
        key(bpf_dir, "-DA"),
        key(bpf_dir, "-DA", "-DB"),
        key(bpf_dir, "-DB", "-DA"),
        key(bpf_dir, "-DA-DB"),
        key(bpf_dir, python="/opt/python"),
    }

    assert len(keys) == 6


def test_the_kernel_counts(bpf_dir, vmlinux, monkeypatch):
    """Another kernel, or one that says something else of its structures, makes another key."""
    before = key(bpf_dir)
    vmlinux.write_bytes(b"\x9f\xeb..!")
    changed = key(bpf_dir)
    here = os.uname()
    other = os.uname_result((here.sysname, here.nodename, here.release, "#2 SMP", here.machine))
    monkeypatch.setattr(os, "uname", lambda: other)

    assert len({before, changed, key(bpf_dir)}) == 3


def test_the_hosts_name_does_not_count(bpf_dir, monkeypatch):
    """Images with entries in them serve every host of one kernel."""
    before = key(bpf_dir)
    here = os.uname()
    other = os.uname_result((here.sysname, "another", here.release, here.version, here.machine))
    monkeypatch.setattr(os, "uname", lambda: other)

    assert key(bpf_dir) == before


def test_a_file_that_changes_has_another_stamp(tmp_path):
    """Size or time of a file of the compiler tell an upgrade; a file that is gone is an error."""
    library = tmp_path / "libbcc.so"
    library.write_bytes(b"1")
    os.utime(library, ns=(5, 5))
    found = [stamps([str(library)])]
    os.utime(library, ns=(6, 6))
    found.append(stamps([str(library)]))
    library.write_bytes(b"22")
    os.utime(library, ns=(6, 6))
    found.append(stamps([str(library)]))

    assert found == [[[str(library), 1, 5]], [[str(library), 1, 6]], [[str(library), 2, 6]]]
    library.unlink()
    with pytest.raises(FileNotFoundError):
        stamps([str(library)])
