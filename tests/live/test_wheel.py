"""The package as a user installs it: a wheel in an environment of its own, without the checkout and without bcc beside it."""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
SYSTEM_PYTHON = "/usr/bin/python3"
# Without a cache: what a user has in one is not to be used, nor to be added to.
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "OTEL_SYSEXIT_CACHE": "off"}
LEDGER = re.compile(
    r"^otel-sysexit: ledger: seen [1-9]\d* = .*; emitted (\d+) = delivered \1 \+ undelivered 0;", re.MULTILINE
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, CHECKOUT]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    (found,) = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def scripts(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """
    The scripts of an environment with the wheel and what requirements/run.txt locks, and no other packages.

    Where no package index can be reached, the dependencies are those of the environment that runs the tests.
    """
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([SYSTEM_PYTHON, "-m", "venv", "--without-pip", folder], check=True)
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        folder,
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ]
    locked = [*pip, "--require-hashes", "-r", CHECKOUT / "requirements" / "run.txt"]
    if subprocess.run(locked, check=False, timeout=300).returncode != 0:
        (packages,) = folder.glob("lib/python3*/site-packages")
        ours = [entry for entry in sys.path if entry.endswith("site-packages")]
        (packages / "borrowed.pth").write_text("\n".join(ours))
    subprocess.run([*pip, "--no-deps", wheel], check=True, timeout=120)
    return folder / "bin"


def run(scripts: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the installed program in an empty folder with a clean environment."""
    return subprocess.run(
        [scripts / "otel-sysexit", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=CLEAN,
    )


def test_the_wheel_has_what_it_needs(wheel):
    """BPF sources, their headers and licences, tables and the type marker are in it; tests are not."""
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    bpf = {
        f"otel_sysexit/{path.relative_to(CHECKOUT)}"
        for path in (CHECKOUT / "bpf").rglob("*")
        if path.is_file()
    }

    assert (
        bpf
        | {"otel_sysexit/data/constants.toml", "otel_sysexit/data/syscall_args.json", "otel_sysexit/py.typed"}
        <= names
    )
    assert [name for name in names if name.startswith("tests/") or "__pycache__" in name] == []
    assert [name for name in names if name.endswith("licenses/LICENSE")] != []


def test_the_wheel_does_not_ask_for_bcc(wheel):
    """Its metadata name no package that would be the wrong bcc."""
    with zipfile.ZipFile(wheel) as archive:
        (metadata,) = (name for name in archive.namelist() if name.endswith("/METADATA"))
        text = archive.read(metadata).decode()

    assert "Requires-Dist: click" in text
    assert re.findall(r"^Requires-Dist: bcc\b", text, re.MULTILINE) == []


def test_the_installed_program_traces(scripts, tmp_path):
    """Installed without bcc, it finds its sources in the wheel and bcc in the system's Python."""
    alone = subprocess.run([scripts / "python", "-c", "import bcc"], check=False, capture_output=True)
    done = run(scripts, tmp_path, "run", "--", "/bin/true")

    assert alone.returncode != 0
    assert (done.returncode, done.stdout) == (0, "")
    assert LEDGER.search(done.stderr), done.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_installed_program_writes(scripts, tmp_path):
    """Its file of spans is there at the end, with the command's status as its own."""
    done = run(scripts, tmp_path, "run", "-o", "spans.jsonl", "--", "/bin/sh", "-c", "exit 7")

    assert done.returncode == 7
    assert '"execve"' in (tmp_path / "spans.jsonl").read_text()
