"""Programs that were compiled once are loaded again without a compiler, and tell the same; what cannot be trusted is not loaded."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from otel_sysexit.kernel.cache import Cache

PYTHON = os.environ.get("BCC_PYTHON", "/usr/bin/python3")


class Starts:
    """Agents with a cache and a compiler of their own."""

    def __init__(self, invoke, folder: Path) -> None:
        self._invoke = invoke
        self._log = folder / "compiled"
        self._python = folder / "python"
        self._python.write_text(f'#!/bin/sh\necho >> {self._log}\nexec {PYTHON} "$@"\n')
        self._python.chmod(0o755)
        self.cache = folder / "cache"

    def options(self) -> tuple[str, ...]:
        """Return the options by which an agent has them."""
        return ("--bcc-python", str(self._python), "--cache", str(self.cache))

    def compilations(self) -> int:
        """Return how often the compiler was started until now."""
        return len(self._log.read_text()) if self._log.exists() else 0

    def start(self, *options: str) -> int:
        """Trace a program that makes few calls; return how often the compiler was started for it."""
        before = self.compilations()
        done = self._invoke("run", *self.options(), *options, "--", "/bin/true")
        assert done.returncode == 0, done.stderr
        assert b"ledger: seen " in done.stderr
        return self.compilations() - before

    def entry(self) -> Path:
        """Return the only entry."""
        (found,) = self.cache.iterdir()
        return found


@pytest.fixture
def starts(invoke, tmp_path) -> Starts:
    """Agents that have not compiled anything yet."""
    return Starts(invoke, tmp_path)


@pytest.mark.each_kernel
def test_the_second_start_needs_no_compiler(starts):
    """What the first start has compiled is loaded by the next ones, whatever differs in maps only."""
    assert starts.start() == 1
    assert starts.start() == 0
    assert starts.start("--ring-size", "1MiB") == 0
    assert starts.start("--not-comm", "nobody") == 1
    assert starts.start("--not-comm", "somebody") == 0
    assert len(list(starts.cache.iterdir())) == 2


def test_off_means_off(starts):
    """Without a cache every start compiles, and nothing is stored."""
    assert [starts.start("--cache", "off") for _ in range(2)] == [1, 1]
    assert not starts.cache.exists()


@pytest.mark.parametrize(
    ("program", "options"),
    [
        pytest.param(("getppid", "997"), (), marks=pytest.mark.each_kernel),
        (("calls",), ("--args", "none")),
        (("fork",), ("--command-args",)),
        (("exec_path", "/bin/true"), ()),
        (("calls",), ("--errors-only", "--min-duration", "0s,read=1ns")),
    ],
)
def test_kept_programs_tell_the_same(run_traced, build, starts, program, options):
    """As many spans of each name and outcome with what was compiled now, and with what was kept."""
    name, *arguments = program
    traces = [run_traced(build(name), *arguments, options=(*starts.options(), *options)) for _ in range(2)]
    new, kept = (
        Counter((span.name, span.abi, span.attributes.get("error.type")) for span in trace.calls())
        for trace in traces
    )

    assert starts.compilations() == 1
    assert kept == new


def truncate(entry: Path) -> None:
    """Cut an entry off."""
    os.truncate(entry, entry.stat().st_size // 2)


def change(entry: Path) -> None:
    """Change an instruction's bits."""
    data = bytearray(entry.read_bytes())
    data[len(data) // 2] ^= 1
    entry.write_bytes(data)


def make_void(entry: Path) -> None:
    """Replace a program by one that the verifier refuses, in an entry that is sound by itself."""
    cache = Cache(str(entry.parent))
    found = json.loads(cache.read(entry.stem))
    compiled = json.loads(found["object"])
    compiled["programs"][-1] |= {"instructions": "AAAAAAAAAAA=", "references": []}
    cache.write(entry.stem, json.dumps({**found, "object": json.dumps(compiled)}).encode())


def make_strange(entry: Path) -> None:
    """Replace an entry by one that is sound, and no object."""
    Cache(str(entry.parent)).write(entry.stem, b'{"compiler": [], "object": "{}"}')


def outdate(entry: Path) -> None:
    """Make the compiler that the entry tells of another one."""
    cache = Cache(str(entry.parent))
    found = json.loads(cache.read(entry.stem))
    found["compiler"][0][2] -= 1
    cache.write(entry.stem, json.dumps(found).encode())


@pytest.mark.parametrize("spoil", [truncate, change, make_void, make_strange, outdate])
def test_a_spoilt_entry_is_replaced(starts, spoil):
    """It is compiled anew, once: the next start has a good entry again."""
    starts.start()
    spoil(starts.entry())

    assert [starts.start(), starts.start()] == [1, 0]


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o777), lambda path: os.chown(path, 65534, -1)])
def test_a_folder_of_others_is_not_used(starts, spoil):
    """What somebody else can write is neither loaded nor written."""
    starts.start()
    before = starts.entry().stat()
    spoil(starts.cache)

    assert starts.start() == 1
    assert starts.entry().stat() == before


# Runs the command line behind the first two words, the options of mount(8) and a folder to mount on, where nobody else sees it.
IN_A_MOUNT = 'mount -t tmpfs -o "$0" none "$1" && shift && exec "$@"'


@pytest.mark.parametrize("kind", ["ro", "size=4k"])
def test_a_read_only_or_full_folder_is_no_error(starts, environment, kind):
    """Where nothing can be stored, the start compiles, and says nothing of it."""
    starts.cache.mkdir()
    agent = [sys.executable, "-m", "otel_sysexit", "run", "-q", *starts.options(), "--", "/bin/true"]
    command = ["unshare", "--mount", "sh", "-c", IN_A_MOUNT, f"{kind},mode=700", starts.cache, *agent]
    done = subprocess.run(command, check=False, capture_output=True, env=environment, timeout=120)

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert starts.compilations() == 1
