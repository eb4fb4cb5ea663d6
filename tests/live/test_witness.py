"""
strace as an independent witness: of the same execution, it and we say the same, call by call.

strace runs the program, and we trace strace and all below it, so both see each call of one execution (witness.py).
"""

import errno
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from live.conftest import CLOCK_TOLERANCE_NS, DEADLINE_S, PROGRAMS, is_mandatory
from live.strace_log import OPTIONS, Log, read_log
from live.witness import Ours, find_difference, find_other_time, of_first_process
from otlp_json import Span

HELLO = '#include <stdio.h>\nint main(void) { puts("hello"); return 0; }\n'
MAKEFILE = "all: a b c d\na b c d: Makefile\n\tsort -r < Makefile | head -2 > $@\n"
IMPORTS = "import concurrent.futures, decimal, email, json, sqlite3, ssl, xml.dom"
SPAWN = """
import subprocess
for command in ("/nonexistent/program", "/dev/null", "true"):
    try:
        subprocess.run([command])
    except OSError as error:
        print(error)
"""
THREADS = """
package main

import (
	"os"
	"os/exec"
	"sync"
)

func read(done *sync.WaitGroup) {
	defer done.Done()
	for i := 0; i < 100; i++ {
		if _, err := os.ReadFile("/proc/self/stat"); err != nil {
			panic(err)
		}
	}
}

func main() {
	var done sync.WaitGroup
	for i := 0; i < 8; i++ {
		done.Add(1)
		go read(&done)
	}
	done.Wait()
	if err := exec.Command("true").Run(); err != nil {
		panic(err)
	}
}
"""
# strace makes several calls for each of the program's, so much is left to write at the end.
PATIENT = ("--flush-timeout", "30s")
GIT_NAMES = ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL")
INSERTS = """
create table numbers (n integer, square integer);
with recursive n(i) as (select 1 union all select i + 1 from n where i < 1000)
insert into numbers select i, i * i from n;
insert into numbers values (0, 0);
select count(*), sum(square) from numbers;
"""


@dataclass(frozen=True)
class Program:
    """What is run, in an empty folder with these files; and what it is that makes the comparison worth it."""

    command: tuple[str, ...]
    files: dict[str, str] = field(default_factory=dict)
    prepare: tuple[str, ...] = ()
    """A command that makes the program, untraced."""
    tool: str = ""
    """What must be installed for it, beside a shell and a compiler."""
    processes: int = 1
    """At least."""
    threads: int = 1
    """At least, of all processes together."""
    status: int = 0


def _shell(script: str, **more: Any) -> Program:
    return Program(("sh", "-ec", script), **more)


REAL = {
    "a shell pipeline": _shell("seq 1000 | sort -r | head -3 | wc -l", processes=5, threads=5),
    "python": Program((sys.executable, "-c", IMPORTS)),
    "git": _shell(
        "git init -q .; git add a; git commit -qm one; echo two > a; git commit -qam two; git log --stat",
        files={"a": "one\n"},
        tool="git",
        processes=6,
        threads=6,
    ),
    "tar": Program(("tar", "czf", "archive.tar.gz", "-C", str(PROGRAMS), "."), processes=2, threads=2),
    "find": _shell(
        f"find {PROGRAMS} -name '*.c' -print0 | xargs -0 -n 15 -P 2 wc -l", processes=4, threads=4
    ),
    "gcc": Program(("gcc", "-O1", "-o", "hello", "hello.c"), {"hello.c": HELLO}, processes=4, threads=4),
    "sqlite": _shell(
        "sqlite3 base < inserts; sqlite3 base 'pragma integrity_check'",
        files={"inserts": INSERTS},
        tool="sqlite3",
        processes=3,
        threads=3,
    ),
    "curl": Program(("curl", "-sSf", "http://127.0.0.1:{port}/test_witness.py", "-o", "copy"), tool="curl"),
    "go": Program(
        ("./threads",),
        {"threads.go": THREADS},
        ("go", "build", "-o", "threads", "threads.go"),
        "go",
        processes=2,
        threads=4,
    ),
    "java": Program(("java", "-version"), tool="java", threads=8),
    "make": Program(("make", "-j2"), {"Makefile": MAKEFILE}, tool="make", processes=9, threads=9),
    "a spawn that fails": Program((sys.executable, "-c", SPAWN), processes=4, threads=4),
    "a shell that kills itself": _shell("sleep 0.05 & kill -9 $$", processes=2, threads=2, status=137),
    "a sleep that is stopped": _shell(
        "sleep 0.3 & sleep 0.1; kill -STOP $!; sleep 0.05; kill -CONT $!; wait", processes=4, threads=4
    ),
    "a shell that has a signal handled": _shell(
        "trap 'echo handled' TERM; (sleep 0.05; kill $$) & wait || true", processes=3, threads=3
    ),
}
# Of programs/, those that tell strace from us if anything does: threads that exec and die, signals, seccomp, i386.
NASTY = (
    "exec",
    "exec_fail",
    "exec_thread",
    "exit_busy",
    "exit_group thread",
    "exit_leader",
    "exit_thread",
    "fork",
    "getppid 997 5",
    "i386",
    "interrupted",
    "invalid",
    "rt_sigreturn",
    "seccomp errno",
    "seccomp kill_process",
    "seccomp trap",
    "sigkill",
    "vfork",
)
# Programs of one thread that make the same calls each time.
STEADY = {
    "ls": ("ls", "-lR", str(PROGRAMS)),
    "find": ("find", str(PROGRAMS), "-size", "+2"),
    "sqlite": ("sqlite3", ":memory:", INSERTS),
    "sh": ("sh", "-c", "cd /nonexistent; test -e /nonexistent; exec /nonexistent"),
}
each_program = pytest.mark.parametrize("name", [*REAL, *NASTY])


@dataclass(frozen=True)
class Witnessed:
    """One execution, as strace and as we saw it."""

    status: int
    log: Log
    ours: Ours


@pytest.fixture(scope="session", autouse=True)
def strace():
    """Skip all of this where strace is not installed; fail there when live tests are mandatory."""
    _need("strace")


def _need(tool: str):
    """Skip without this tool; where live tests are mandatory, fail if it is one that scripts/setup.sh installs."""
    if not shutil.which(tool):
        is_optional = tool in {"go", "java"} or not is_mandatory()
        (pytest.skip if is_optional else pytest.fail)(f"{tool} is not installed")


@pytest.fixture(scope="session")
def port():
    """Return the port of a server on loopback that has this folder's files."""
    handler = partial(_QuietHandler, directory=Path(__file__).parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: Any):
        """Say nothing of requests."""


@pytest.fixture(scope="session")
def witness(run_traced, environment, tmp_path_factory):
    """Return a function that runs a command under strace under us."""

    def run(*command: str | Path, folder: Path | None = None) -> Witnessed:
        folder = folder or tmp_path_factory.mktemp("witness")
        path = tmp_path_factory.mktemp("strace") / "log"
        variables = {**environment, **dict.fromkeys(GIT_NAMES, "nobody"), "HOME": str(folder)}
        trace = run_traced(
            "strace", *OPTIONS, "-o", path, *command, options=PATIENT, cwd=folder, env=variables
        )
        log = read_log(path)
        return Witnessed(trace.status, log, of_first_process(trace.spans, log.first))

    return run


@pytest.fixture(scope="session")
def execution(witness, build, build32, port, tmp_path_factory):
    """Return a function that gives the execution of a program of REAL or NASTY; each is run once in a session."""
    executions: dict[str, Witnessed] = {}

    def run(name: str) -> Witnessed:
        if name in REAL:
            return witness(
                *_prepared(REAL[name], folder := tmp_path_factory.mktemp("real"), port), folder=folder
            )
        program, *arguments = name.split()
        return witness((build32 if program == "i386" else build)(program), *arguments)

    return lambda name: executions[name] if name in executions else executions.setdefault(name, run(name))


def _prepared(program: Program, folder: Path, port: int) -> list[str]:
    """Fill the folder, and return the command to run in it."""
    for name, text in program.files.items():
        (folder / name).write_text(text)
    if program.tool:
        _need(program.tool)
    if program.prepare:
        subprocess.run(program.prepare, cwd=folder, check=True)
    return [word.replace("{port}", str(port)) for word in program.command]


def _threads(execution: Witnessed) -> list[int]:
    """Return the threads that either has calls of."""
    return sorted(execution.log.calls.keys() | execution.ours.calls.keys())


@each_program
def test_each_call_is_the_one_that_strace_saw(execution, name):
    """Each thread has the same calls in the same order, with the same value or errno, or end without one."""
    seen = execution(name)
    differences = [find_difference(seen.log, seen.ours, tid) for tid in _threads(seen)]

    assert not any(differences), "\n".join(filter(None, differences))


@each_program
def test_each_call_is_when_strace_saw_it(execution, name):
    """Each call lies between strace's stops around it, and takes no longer than from stop to stop."""
    seen = execution(name)
    differences = [find_other_time(seen.log, seen.ours, tid, CLOCK_TOLERANCE_NS) for tid in _threads(seen)]

    assert not any(differences), "\n".join(filter(None, differences))


@each_program
def test_each_thread_is_in_the_process_that_strace_saw(execution, name):
    """A thread's calls are its process's, which strace knows by CLONE_THREAD."""
    seen = execution(name)
    theirs = seen.log.processes()
    ours = {tid: {span.pid for span in calls} for tid, calls in seen.ours.calls.items()}

    assert ours == {tid: {theirs[tid]} for tid in ours}


@each_program
def test_the_tree_of_processes_is_the_one_that_strace_saw(execution, name):
    """The processes are those whose ids strace saw returned, each below the one that it was returned to."""
    seen = execution(name)
    parents = seen.log.parents()
    said = {pid: span.resource["process.parent_pid"] for pid, span in seen.ours.processes.items()}

    assert seen.ours.parents == parents
    assert {pid: said[pid] for pid in said if pid != seen.log.first} == parents


@each_program
def test_each_process_ends_as_strace_saw_it(execution, name):
    """A process has the exit code, or the signal that killed it, that strace was told."""
    seen = execution(name)
    ours = {pid: _end(span) for pid, span in seen.ours.processes.items()}

    assert ours == {pid: seen.log.ends[pid] for pid in ours}


def _end(span: Span) -> str:
    """Return how a process ended in strace's words."""
    code = span.attributes.get("process.exit.code")
    return f"killed by {span.error_type}" if code is None else f"exited with {code}"


@pytest.mark.parametrize("name", STEADY)
def test_the_calls_are_the_same_without_strace_beside_us(run_traced, environment, tmp_path, name):
    """What strace saw of a program, and what we see of another run of it, has the same calls with the same errors."""
    _need(STEADY[name][0])
    command = ["strace", *OPTIONS, "-o", tmp_path / "log", *STEADY[name]]
    subprocess.run(command, check=False, capture_output=True, timeout=DEADLINE_S, env=environment)
    log = read_log(tmp_path / "log")
    calls = run_traced(*STEADY[name]).calls()

    theirs = [(call.name, call.error and getattr(errno, call.error)) for call in log.calls[log.first]]
    assert [(span.name, span.errno) for span in calls] == theirs


@pytest.mark.parametrize("name", REAL)
def test_what_is_compared_is_no_less_than_the_program(execution, name):
    """Each program came to its end, with as many processes and threads as it is chosen for."""
    seen = execution(name)
    processes = seen.log.processes()

    assert seen.status == REAL[name].status
    assert len(set(processes.values())) >= REAL[name].processes
    assert len(processes) >= REAL[name].threads


@pytest.mark.parametrize(
    ("attribute", "other"), [("name", "openat2"), ("number", 9999), ("result", "0x7fff"), ("result", None)]
)
def test_one_wrong_word_is_noticed(execution, attribute, other):
    """The comparison finds a single call of which strace says something else, and tells which it is."""
    seen = execution("python")
    calls = seen.log.calls[seen.log.first]
    changed = [*calls[:100], replace(calls[100], **{attribute: other}), *calls[101:]]
    log = replace(seen.log, calls={seen.log.first: changed})

    assert "call 100: strace" in find_difference(log, seen.ours, seen.log.first)


@pytest.mark.parametrize("error", ["-1 EPERM (Operation not permitted)", "? ERESTARTSYS (To be restarted)"])
def test_a_wrong_error_is_noticed(execution, error):
    """The comparison finds a single call that strace says failed in another way."""
    seen = execution("python")
    calls = seen.log.calls[seen.log.first]
    index = [call.error for call in calls].index("ENOENT")
    changed = [*calls[:index], replace(calls[index], result=error), *calls[index + 1 :]]
    log = replace(seen.log, calls={seen.log.first: changed})

    assert f"call {index}: strace says" in find_difference(log, seen.ours, seen.log.first)


@pytest.mark.parametrize("index", [0, 50, -1])
def test_one_missing_call_is_noticed(execution, index):
    """The comparison finds that we lack a single call, be it the last."""
    seen = execution("python")
    own = list(seen.ours.calls[seen.log.first])
    del own[index]

    assert find_difference(seen.log, replace(seen.ours, calls={seen.log.first: own}), seen.log.first)
