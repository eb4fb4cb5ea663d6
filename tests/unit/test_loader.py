"""The loader child: what it says, how it ends, and what it does to others."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import otel_sysexit
from otel_sysexit.errors import AgentError
from otel_sysexit.kernel import handover, loader
from otel_sysexit.kernel.handover import Loader
from otel_sysexit.kernel.objects import MapSpecification, Object
from otel_sysexit.kernel.probes import LoadError
from otel_sysexit.kernel.request import Request

CHECKOUT = Path(otel_sysexit.__file__).parents[1]
REQUEST = Request(calls_bytes=1 << 20, syscall_table=np.zeros(8, np.uint32))


@pytest.fixture
def keeps_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the child keep what it inherits: pipes by which it tells the test."""
    monkeypatch.setattr(loader, "close_all_but", lambda *_: None)


def says(monkeypatch: pytest.MonkeyPatch, load: object) -> str:
    """Start a child that does *load* instead of its work, in vain; return what is said of it."""
    monkeypatch.setattr(loader, "load", load)
    with Loader(REQUEST) as child, pytest.raises(AgentError) as caught:
        child.descriptors()

    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_why_nothing_was_loaded_is_said(monkeypatch):
    """The child's words are the agent's."""

    def load(*_: object) -> list[int]:
        raise LoadError("no-btf", "this kernel is too old")

    assert says(monkeypatch, load) == "this kernel is too old"


def test_a_bug_in_the_child_stays_in_it(monkeypatch):
    """A copy of the agent never goes on as the agent: whatever happens in it is one line here."""

    def load(*_: object) -> list[int]:
        raise KeyError("pending")

    assert says(monkeypatch, load) == "the loader failed: KeyError('pending')"


def test_a_child_that_cannot_begin_does_not_go_on_as_the_agent(monkeypatch):
    """Whatever goes wrong before its work, the copy ends, and none of the agent's own clean-up runs in it."""

    def serve(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loader, "serve", serve)
    pid = os.getpid()
    with Loader(REQUEST) as child, pytest.raises(AgentError, match=r"the loader died \(exit status 1\)"):
        child.descriptors()

    assert os.getpid() == pid


def test_what_the_agent_was_given_is_not_held_by_its_loader(monkeypatch):
    """A lock or a pipe of who started us is given up when we end, however long the loader takes."""
    reading, writing = os.pipe()

    def load(*_: object) -> list[int]:
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(writing)
        return []

    monkeypatch.setattr(loader, "load", load)
    with Loader(REQUEST) as child:
        assert child.descriptors() == []
    os.close(reading)
    os.close(writing)


AGENT = """
import sys, time
from pathlib import Path
from otel_sysexit.kernel import loader
from otel_sysexit.kernel.handover import Loader
from otel_sysexit.kernel.request import Request

def load(request):
    Path(sys.argv[1]).write_text(Path("/proc/self/stat").read_text().split()[0])
    time.sleep(60)

loader.load = load
Loader(Request(4096, []))
time.sleep(60)
"""


def test_a_loader_ends_with_the_agent(tmp_path):
    """An agent that is killed while it loads leaves nothing behind that loads on."""
    told = tmp_path / "pid"
    agent = subprocess.Popen(
        [sys.executable, "-c", AGENT, told], env={**os.environ, "PYTHONPATH": str(CHECKOUT)}
    )
    try:
        pid = wait_for(lambda: told.exists() and told.read_text())
        child = psutil.Process(int(pid))
    finally:
        agent.kill()
        agent.wait()
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE)


def wait_for(condition: Callable[[], Any]) -> Any:
    """Return the condition's first true value; fail when there is none for 20 s."""
    end = time.monotonic() + 20
    while not (value := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return value


def test_who_ignores_the_ends_of_children_has_a_loader(monkeypatch):
    """Started with SIGCHLD ignored, as by some supervisors, the agent has no child to wait for, and no need to."""
    monkeypatch.setattr(loader, "load", lambda *_: [])
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        with Loader(REQUEST) as child:
            assert child.descriptors() == []
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_a_child_that_dies_is_said(monkeypatch):
    """A child that ends without an answer is reported with how it ended."""
    assert says(monkeypatch, lambda *_: os._exit(3)) == "the loader died (exit status 3)"


def test_a_child_that_hangs_is_ended(monkeypatch):
    """A child that does not answer in time is killed, and that is said."""
    monkeypatch.setattr(handover, "_LOADER_SECONDS", 0.3)

    assert "did not finish within" in says(monkeypatch, lambda *_: time.sleep(60))


@pytest.mark.usefixtures("keeps_descriptors")
def test_leaving_ends_the_child_and_its_compiler(monkeypatch):
    """A loader that is not needed any more is gone afterwards, with what it has started."""
    out, into = os.pipe()

    def load(*_: object) -> list[int]:
        if os.fork():
            os.write(into, b"!")
        time.sleep(60)
        return []

    monkeypatch.setattr(loader, "load", load)
    with Loader(REQUEST) as child:
        pid = child._pid
        os.read(out, 1)
    os.close(into)

    assert os.read(out, 1) == b""  # all who could write are gone
    assert not Path(f"/proc/{pid}").exists()
    os.close(out)


@pytest.mark.usefixtures("keeps_descriptors")
def test_a_ctrl_c_is_not_for_the_child(monkeypatch):
    """The child is in no group that a terminal's signals go to."""
    out, into = os.pipe()

    def load(*_: object) -> list[int]:
        os.write(into, str(os.getsid(0) == os.getpid()).encode())
        return []

    monkeypatch.setattr(loader, "load", load)
    with Loader(REQUEST):
        assert os.read(out, 8) == b"True"
    for fd in (out, into):
        os.close(fd)


@pytest.mark.usefixtures("keeps_descriptors")
def test_the_childs_streams_are_not_the_agents(monkeypatch):
    """Who reads what the agent writes sees its end when the agent ends, whatever the child does."""
    out, into = os.pipe()

    def load(*_: object) -> list[int]:
        os.write(
            into, " ".join(str(Path(f"/proc/self/fd/{stream}").readlink()) for stream in range(3)).encode()
        )
        return []

    monkeypatch.setattr(loader, "load", load)
    with Loader(REQUEST):
        assert os.read(out, 99) == b"/dev/null /dev/null /dev/null"
    for fd in (out, into):
        os.close(fd)


def test_descriptors_are_the_agents_own(monkeypatch):
    """What the child opens is the agent's afterwards, and no command inherits it."""
    monkeypatch.setattr(loader, "load", lambda *_: [os.open("/dev/null", os.O_RDONLY)] * 3)
    with Loader(REQUEST) as child:
        given = child.descriptors()

    assert [os.get_inheritable(fd) for fd in given] == [False] * 3
    for fd in given:
        os.close(fd)


# --- what is loaded ---------------------------------------------------------------------------------------------------


def test_the_bpf_sources_are_found():
    """In a checkout they lie beside the package."""
    assert loader.find_bpf_dir() == CHECKOUT / "bpf"


def test_the_bpf_sources_of_a_wheel_are_found(tmp_path):
    """In an installed package they lie in it, and those count first."""
    package = tmp_path / "otel_sysexit"
    for folder in (package / "bpf", tmp_path / "bpf"):
        folder.mkdir(parents=True)
        (folder / "calls.bpf.c").touch()

    assert loader.find_bpf_dir(package) == package / "bpf"


def test_missing_bpf_sources_are_said(tmp_path):
    """A package without them is broken: that is said."""
    with pytest.raises(LoadError, match="reinstall otel-sysexit"):
        loader.find_bpf_dir(tmp_path)


def test_a_map_that_cannot_be_filled_is_said():
    """A refusal by the kernel is an error of loading, with its reason."""
    with Path("/dev/null").open() as no_map, pytest.raises(LoadError, match="cannot fill a map: ") as caught:
        loader.fill(no_map.fileno(), bytes(4), bytes(4), 1)

    assert caught.value.kind == "load"


def test_a_map_that_cannot_be_created_is_said(monkeypatch):
    """A refusal by the kernel is an error of loading, with the map's name; what was created before is closed again."""
    opened = []

    def create_map(*_: int, name: str, **__: int) -> int:
        if name == "second":
            raise OSError(12, "Cannot allocate memory")
        opened.append(os.open("/dev/null", os.O_RDONLY))
        return opened[-1]

    monkeypatch.setattr(loader, "create_map", create_map)
    maps = tuple(MapSpecification(name, 1, 4, 4, 1, 0) for name in ("first", "second"))
    with pytest.raises(LoadError, match="cannot create the BPF map second: Cannot allocate memory"):
        loader.put_into_kernel(Object("GPL", maps, ()), {}, {})

    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened[0])


def test_sizes_of_maps_are_those_that_are_asked_for(monkeypatch):
    """A map has the size of the request, or else the one that it was compiled with."""
    created = {}

    def create_map(_type: int, *sizes: int, name: str, **__: int) -> int:
        created[name] = sizes
        return -1

    monkeypatch.setattr(loader, "create_map", create_map)
    maps = tuple(MapSpecification(name, 27, 0, 0, 4096, 0) for name in ("calls", "other"))
    loader.put_into_kernel(Object("GPL", maps, ()), {"calls": 1 << 20}, {})

    assert created == {"calls": (0, 0, 1 << 20), "other": (0, 0, 4096)}
