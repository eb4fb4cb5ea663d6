"""Who is traced: selectors and exclusions decide at attach, and in the kernel at fork and exec."""

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

NOBODY = 65534
# What the programs do by themselves and at command: enough to see who is traced, and little enough of --all.
# All of them: on a busy machine the default rate would be exceeded.
CALLS = ("--syscalls", "getppid,getuid,execve", "--max-rate", "none")


class Program:
    """The program `obedient`, which ticks with getppid and does what it is told, under any name."""

    def __init__(self, process):
        self.process = process
        self.output = b""
        self.pid = self.wait_for("image")["pid"]

    def wait_for(self, key: str) -> dict:
        """Return the next fact that it reports with this key."""
        while True:
            line = self.process.stdout.readline()
            assert line, f"it ended before it said {key!r}"
            self.output += line
            fact = json.loads(line)
            if key in fact:
                return fact

    def tell(self, letter: str) -> dict:
        """Let it do one thing and return the last fact that it reports of it."""
        self.process.stdin.write(letter.encode())
        self.process.stdin.flush()
        facts = [self.wait_for(key) for key in {"f": ["born"], "e": ["image"]}.get(letter, ["call"] * 3)]
        return facts[-1]

    def end(self) -> None:
        """Let it end by itself."""
        self.output += self.process.communicate(timeout=60)[0]


@pytest.fixture
def install(build):
    """Return a function that copies `obedient` to a file of another name, which everyone may execute."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)

        def copy(name: str) -> Path:
            path = Path(folder).resolve() / name
            if not path.exists():
                shutil.copy(build("obedient"), path)
                path.chmod(0o755)
            return path

        yield copy


@pytest.fixture
def launch(start, install):
    """Return a function that starts `obedient` under the first name; the others are what it can execute later."""

    def start_program(*names: str, **more) -> Program:
        return Program(start(*(install(name) for name in names), **more))

    return start_program


@pytest.fixture
def attach(start_agent, tmp_path, eventually, make_trace):
    """
    Return a function that attaches with these options and comes back when the first tick has been printed.

    It returns a function that detaches and gives the `Trace`.
    """

    def attach_with(*options: str):
        output, printed = tmp_path / "spans.jsonl", tmp_path / "stderr"
        with printed.open("wb") as stderr:
            agent = start_agent(
                "attach", "--live", "-o", output, *CALLS, *options, stderr=stderr, stdin=subprocess.DEVNULL
            )

        def has_begun() -> bool:
            assert agent.poll() is None, printed.read_text()
            return b"getppid(" in printed.read_bytes()

        eventually(has_begun, "the first tick to be printed")

        def detach():
            agent.terminate()
            status = agent.wait(timeout=60)
            trace = make_trace(status, b"", printed.read_text(), output)
            assert agent.pid not in {span.pid for span in trace.calls()}, "we trace ourselves"
            return trace

        return detach

    return attach_with


def traced(trace) -> set[int]:
    """Return the processes that calls were recorded of."""
    return {span.pid for span in trace.calls()}


# --- what is chosen ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        ("--comm", "wanted"),
        ("--exe", "{folder}/wanted"),
        ("--exe", "*/want?d"),
        ("--exe", "{folder}/link"),
        ("--uid", str(NOBODY)),
        ("--comm", "absent", "--comm", "wanted"),
        ("--comm", "wanted", "--uid", str(NOBODY), "--exe", "*/wanted"),
        ("--exe", "{folder}/*", "--not-comm", "other"),
        ("--exe", "{folder}/*", "--not-exe", "*/other"),
        ("--exe", "{folder}/*", "--not-uid", "0"),
        ("--exe", "{folder}/*", "--not-pid", "{other}"),
        ("--exe", "{folder}/*", "--not-tid", "{ticking}", "--not-tid", "{other}"),
        ("--exe", "{folder}/wanted", "--exe", "{folder}/other", "--not-comm", "other"),
    ],
)
def test_what_runs_is_chosen_by_its_properties(launch, install, attach, options):
    """Of two programs that run, the one that the selectors fit is traced from attach on, the other is not."""
    wanted, other = launch("wanted", user=NOBODY), launch("other")
    folder = install("wanted").parent
    (folder / "link").symlink_to("wanted")
    names = {"folder": folder, "other": other.pid, "ticking": other.wait_for("ticking")["ticking"]}
    detach = attach(*(option.format(**names) for option in options))
    for program in (wanted, other):
        program.tell("c")
    trace = detach()

    assert traced(trace) == {wanted.pid}
    assert len(trace.calls("getuid")) == 3


@pytest.mark.each_kernel
def test_a_thread_is_chosen_alone(launch, attach):
    """With --tid the thread's own process-mates stay strangers."""
    program = launch("wanted")
    tid = program.wait_for("ticking")["ticking"]
    detach = attach("--tid", str(tid))
    program.tell("c")
    program.tell("t")

    assert {(span.pid, span.tid) for span in detach().calls()} == {(program.pid, tid)}


def test_all_takes_everyone_but_the_excluded(launch, attach):
    """With --all whoever makes a call is traced, from its next call on: what ran before and what starts later."""
    running, excluded = launch("running"), launch("excluded")
    detach = attach("--all", "--not-comm", "excluded")
    late = launch("late")
    for program in (running, excluded, late):
        program.tell("c")
    trace = detach()

    assert {running.pid, late.pid} <= traced(trace)
    assert excluded.pid not in traced(trace)
    assert len(trace.calls("getuid", pid=running.pid)) == len(trace.calls("getuid", pid=late.pid)) == 3


def test_no_thread_is_missed_that_is_born_during_the_scan(start, build, attach):
    """A process that starts thread after thread while we attach is traced with all of them."""
    program = start(build("spawning"))
    assert b"pid" in program.stdout.readline()
    detach = attach("--exe", str(build("spawning").resolve()))
    program.stdin.write(b"x")
    program.stdin.flush()
    called = []
    while "threads" not in (fact := json.loads(program.stdout.readline())):
        called.append(fact["called"])
    trace = detach()

    assert len(called) == fact["threads"] < fact["may be"], (
        "it had started its last thread before we were attached"
    )
    assert sorted(span.tid for span in trace.calls("getuid")) == sorted(called)


# --- children ---------------------------------------------------------------------------------------------------------


def test_a_child_is_followed(launch, attach):
    """A child of a target is a target, whatever it executes."""
    program = launch("wanted", "other")
    detach = attach("--comm", "wanted")
    child = program.tell("f")["born"]
    program.tell("e")
    program.tell("c")

    assert len(detach().calls("getuid", pid=child)) == 3


def test_a_child_is_left_out_with_no_follow(launch, attach):
    """With --no-follow a child of the chosen process is a stranger; its own threads are not."""
    program = launch("wanted")
    detach = attach("--pid", str(program.pid), "--no-follow")
    program.tell("t")
    child = program.tell("f")["born"]
    program.tell("c")
    trace = detach()

    assert len(trace.calls("getuid", pid=program.pid)) == 3
    assert child not in traced(trace)


def test_a_child_of_what_is_left_out_is_traced(launch, attach):
    """An exclusion leaves out the chosen process as it is now; the child that executes something else is traced."""
    parent, beacon = launch("middle", "last"), launch("beacon")
    detach = attach("--pid", str(parent.pid), "--pid", str(beacon.pid), "--not-exe", "*/middle")
    child = parent.tell("f")["born"]
    parent.tell("c")
    parent.tell("e")
    parent.tell("c")
    trace = detach()

    assert traced(trace) == {beacon.pid, child}
    assert len(trace.calls("getuid", pid=child)) == 3


# --- exec -------------------------------------------------------------------------------------------------------------


@pytest.mark.each_kernel
@pytest.mark.parametrize("option", [("--comm", "wanted"), ("--exe", "*/wanted")])
def test_who_becomes_a_match_by_exec_is_traced_from_then_on(launch, attach, option):
    """What it did as another program is not there; what it does after the exec is, from its first call."""
    program, _beacon = launch("other", "wanted"), launch("wanted")
    detach = attach(*option)
    program.tell("c")
    program.tell("e")
    program.wait_for("ticking")
    program.tell("c")
    trace = detach()

    assert len(trace.calls("getuid", pid=program.pid)) == 3
    assert trace.calls(pid=program.pid)[0].name in {"execve", "getppid", "getuid"}
    assert trace.calls("getppid", pid=program.pid)


def test_who_is_started_later_is_traced(launch, attach):
    """A program that a stranger starts after attach is found by its exec."""
    launch("wanted")
    detach = attach("--exe", "*/wanted")
    late = launch("wanted")
    late.tell("c")

    assert len(detach().calls("getuid", pid=late.pid)) == 3


def test_who_is_no_match_after_an_exec_is_not_traced_any_more(launch, attach):
    """Without following, the program that was chosen by its executable is left when it executes another."""
    program, _beacon = launch("wanted", "other"), launch("wanted")
    detach = attach("--exe", "*/wanted", "--no-follow")
    program.tell("e")
    program.tell("c")

    assert detach().calls("getuid", pid=program.pid) == []


def test_attach_waits_for_a_program_yet_to_come(launch, install, start_agent, tmp_path, eventually):
    """With nothing that matches now, attach does not end; the program that comes is traced."""
    printed = tmp_path / "stderr"
    with printed.open("wb") as stderr:
        agent = start_agent("attach", "--live", *CALLS, "--exe", str(install("late")), stderr=stderr)

    def is_traced() -> bool:
        assert agent.poll() is None, printed.read_text()
        program = launch("late")
        program.tell("c")
        program.end()
        return b"getuid(" in printed.read_bytes()

    eventually(is_traced, "a call of the program that came later")


# --- control groups ---------------------------------------------------------------------------------------------------


@pytest.fixture
def make_cgroup(eventually):
    """Return a function that makes a cgroup with these processes in the first hierarchy that lets us; it is removed."""
    made: list[tuple[Path, list[Path]]] = []
    roots = [
        Path(line.split()[1])
        for line in Path("/proc/mounts").read_text().splitlines()
        if line.split()[2] == "cgroup2"
        or (line.split()[2] == "cgroup" and "pids" in line.split()[3].split(","))
    ]

    def make(path: str, *pids: int) -> tuple[str, Path]:
        for root in roots:
            directory = root / path
            try:
                directory.mkdir(parents=True)
            except OSError:
                continue
            made.append((root, [directory, *directory.parents]))
            for pid in pids:
                (directory / "cgroup.procs").write_text(str(pid))
            return f"/{path}", directory
        pytest.skip("no cgroup can be made here")

    yield make
    for root, directories in made:
        for pid in (directories[0] / "cgroup.procs").read_text().split():
            (root / "cgroup.procs").write_text(pid)
        for directory in directories[: directories.index(root)]:
            eventually(lambda place=directory: _is_removed(place), "an empty cgroup")


def _is_removed(directory: Path) -> bool:
    try:
        directory.rmdir()
    except FileNotFoundError:
        return True
    except OSError:  # its last process is ending still
        return False
    return True


@pytest.mark.each_kernel
@pytest.mark.parametrize("is_full_path", [False, True])
def test_a_cgroup_is_chosen_with_all_below_it(launch, attach, make_cgroup, is_full_path):
    """A process in a cgroup below the chosen one is traced, one outside is not."""
    inside, outside = launch("inside"), launch("outside")
    name = f"otel-sysexit-{secrets.token_hex(4)}"
    path, directory = make_cgroup(f"{name}/below", inside.pid)
    detach = attach("--cgroup", str((directory if is_full_path else Path(path)).parent))
    for program in (inside, outside):
        program.tell("c")
    trace = detach()

    assert traced(trace) == {inside.pid}
    assert len(trace.calls("getuid")) == 3


def test_a_cgroup_can_be_left_out(launch, attach, make_cgroup):
    """With --not-cgroup what is in it is left out."""
    inside, outside = launch("inside"), launch("outside")
    path, _ = make_cgroup(f"otel-sysexit-{secrets.token_hex(4)}", inside.pid)
    detach = attach("--pid", str(inside.pid), "--pid", str(outside.pid), "--not-cgroup", path)
    for program in (inside, outside):
        program.tell("c")

    assert traced(detach()) == {outside.pid}


def test_a_container_is_chosen_by_the_beginning_of_its_id(launch, attach, make_cgroup):
    """A runtime names a cgroup after the container; the first digits are enough."""
    inside, outside = launch("inside"), launch("outside")
    container = secrets.token_hex(32)
    make_cgroup(f"docker-{container}.scope", inside.pid)
    detach = attach("--container", container[:12])
    for program in (inside, outside):
        program.tell("c")

    assert traced(detach()) == {inside.pid}


def test_a_container_that_does_not_exist_is_told_from_those_that_do(launch, invoke, make_cgroup):
    """One line names the containers that run; the status is 2."""
    inside = launch("inside")
    container = secrets.token_hex(32)
    make_cgroup(f"docker-{container}.scope", inside.pid)
    finished = invoke("attach", "--container", "ffffffff")

    assert finished.returncode == 2
    assert finished.stderr.count(b"\n") == 1
    assert container[:12] in finished.stderr.decode()


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_leaves_out_a_parent_and_traces_its_child(run_traced, install):
    """What a command's child executes can be left out; its own child that executes something else is traced."""
    run = run_traced(
        *(install(name) for name in ("first", "middle", "last")),
        options=("--not-exe", "*/middle"),
        input=b"cfecfec",
    )
    by_name = {os.path.basename(fact["image"]): fact["pid"] for fact in run.facts_of("image")}  # noqa: PTH119
    calls = {name: len(run.calls("getuid", pid=pid)) for name, pid in by_name.items()}

    assert calls == {"first": 3, "middle": 0, "last": 3}


# --- what cannot be ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "--pid"),
        (("--all", "--uid", "0"), "--uid"),
        (("--all", "--no-follow"), "--no-follow"),
        (("--pid", "4194303"), "4194303"),
        (("--tid", "4194303"), "4194303"),
        (("--pid", "1", "--tid", "2"), "2"),
        (("--comm", "a", "--not-comm", "a"), "--not-comm"),
        (("--exe", "nginx"), "*/nginx"),
        (("--uid", "no such user"), "no such user"),
        (("--cgroup", "/no/such/cgroup"), "/no/such/cgroup"),
        (("--container", "web"), "web"),
    ],
)
def test_what_cannot_be_attached_to_is_refused(invoke, options, words):
    """Contradictions and what does not exist are one line, and status 2."""
    finished = invoke("attach", *options)

    assert finished.returncode == 2
    assert finished.stderr.count(b"\n") == 1
    assert words in finished.stderr.decode()
