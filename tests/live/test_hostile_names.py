"""Names that were chosen to break something: in paths, arguments, environments, and of threads, programs and control groups."""

import os
import re
import shutil
import sys
from pathlib import Path

import pytest

from otel_sysexit.cgroups import main_hierarchy, read_mounts

NAMES = {
    "newlines": b"a\nb\r\n",
    "invalid UTF-8": b"\xff\xc0\x80\xed\xa0\x80",
    "half a character": "ü".encode()[:1],
    "escapes": b"\x1b[2J\x1b]0;title\x07\x9b31m",
    "right to left": "\u202eabc\u2066".encode(),
    "separators": b'",;=%0A{}[]|\\x41\\',
    "127 bytes": b"n" * 127,
    "128 bytes": b"n" * 128,
    "255 bytes": b"\xfe" * 255,
}
# Names its thread, looks for a file and spawns a program, all by the name that it reads.
PROGRAM = """
import os, sys
folder, name = sys.argv[1], bytes.fromhex(sys.argv[2])
with open("/proc/self/comm", "wb") as file:
    file.write(name[:15])
try:
    os.stat(b"/nonexistent/" + name)
except OSError:
    pass
variables = {b"OTEL_SERVICE_NAME": name, b"OTEL_RESOURCE_ATTRIBUTES": b"team=" + name, b"TRACEPARENT": name}
pid = os.posix_spawn(os.fsencode(folder) + b"/" + name, [name, b"", name * 8], variables)
os.waitpid(pid, 0)
"""
# What moves a cursor, colours text or turns its direction; the line's end is ours.
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

each_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)


def shown(name: bytes) -> str:
    """Return a name as telemetry has it."""
    return name.decode(errors="backslashreplace")


@pytest.fixture
def command(tmp_path: Path, name: bytes) -> tuple[str, ...]:
    """The command line that uses the name everywhere."""
    shutil.copy("/bin/true", os.fsencode(tmp_path) + b"/" + name)
    return (sys.executable, "-S", "-c", PROGRAM, str(tmp_path), name.hex())


@each_name
def test_names_arrive_as_they_are(run_traced, command, name):
    r"""Every text is there, what is no UTF-8 as \xNN; what makes no sense as a context is said; nothing is lost."""
    run = run_traced(*command, options=("--command-args", "--string-limit", "4096"))
    (looked,) = [
        span for span in run.calls() if span.attributes.get("file.path", "").startswith("/nonexistent/")
    ]
    (resource,) = {
        id(span.resource): span.resource
        for span in run.processes()
        if span.resource.get("process.command") == shown(name)
    }.values()

    assert looked.attributes["file.path"] == "/nonexistent/" + shown(name)
    assert looked.attributes["thread.name"] == shown(name[:15].partition(b"\n")[0]) or b"\n" in name
    assert resource["process.executable.name"] == shown(name)
    assert resource["process.command_args"] == [shown(name), "", shown(name * 8)]
    assert resource["process.executable.path"].endswith("/" + shown(name))


@each_name
def test_names_do_nothing_to_a_terminal(invoke, command):
    """Neither in the lines of calls nor in the summary is anything that a terminal would obey."""
    finished = invoke("run", "--live", "--", *command)

    assert finished.returncode == 0
    assert not CONTROLS.findall(finished.stderr.decode())


@each_name
def test_a_cgroup_may_be_called_anything(run_traced, name):
    """The path of a control group is a text as others are; the kernel allows all but newlines."""
    if b"\n" in name:
        name = name.replace(b"\n", b"")
    controllers = main_hierarchy(read_mounts())
    (mount,) = [mount for mount in read_mounts() if mount.controllers == controllers][:1]
    folder = os.fsencode(mount.mountpoint) + b"/otel-sysexit-" + name[:200]
    os.mkdir(folder)  # noqa: PTH102 (bytes)
    try:
        move = f"import os; open(bytes.fromhex('{folder.hex()}') + b'/cgroup.procs', 'w').write('0'); os.execv('/bin/true', ['true'])"
        run = run_traced(
            sys.executable, "-S", "-c", move, options=("--attributes", "process.linux.cgroup=on")
        )
        found = {span.resource["process.linux.cgroup"] for span in run.calls("exit_group")}
    finally:
        os.rmdir(folder)  # noqa: PTH106

    assert {line.partition("otel-sysexit-")[2] for line in found} == {shown(name[:200])}
