"""What /proc says of processes that run already; who made which call is in tests/property/test_processes.py."""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from fake_proc import FakeProc
from made_calls import Made, make_calls
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_sysexit import images as images_module
from otel_sysexit import processes as processes_module
from otel_sysexit.cgroups import Membership
from otel_sysexit.containers import CgroupIndex
from otel_sysexit.identity import Process
from otel_sysexit.images import read_start_boot_ns
from otel_sysexit.kernel.records import TASK, TaskKind
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.processes import Processes
from otel_sysexit.strings import ExecStrings
from otel_sysexit.windows import Windows

DEADLINE_S = 20


def _read(pid: int, name: str) -> bytes:
    return Path(f"/proc/{pid}/{name}").read_bytes()


@contextlib.contextmanager
def running(
    executable: bytes | str = "sleep", command: bytes | str = "sleep", **environ: bytes | str
) -> Iterator[int]:
    """Run a process that sleeps; give its pid when it has become what it is to be."""
    found = executable if b"/" in os.fsencode(executable) else shutil.which(executable)
    given = b"".join(os.fsencode(name) + b"=" + os.fsencode(value) + b"\0" for name, value in environ.items())
    with subprocess.Popen([command, "60"], executable=found, env=environ) as child:
        try:
            deadline = time.monotonic() + DEADLINE_S
            # The kernel gives a process its arguments and its environment as the last steps of an exec.
            while [_read(child.pid, "cmdline"), _read(child.pid, "environ")] != [
                os.fsencode(command) + b"\0" + b"60\0",
                given,
            ]:
                assert time.monotonic() < deadline
                time.sleep(0.005)
            yield child.pid
        finally:
            child.kill()


def test_a_running_process_is_described():
    """Pid, start, parent, program, argv[0] and user of a process that runs come from /proc."""
    with running(command="a name of its own") as pid:
        image = Processes(0).add_running(pid).image
        started = psutil.Process(pid).create_time() - psutil.boot_time()

    assert (image.process.pid, image.process.parent_pid) == (pid, os.getpid())
    assert abs(image.process.start_unix_ns / 1e9 - started) < 1.1
    assert Path(image.executable_path).name == image.executable_name
    assert image.executable_path == os.path.realpath(shutil.which("sleep"))
    assert image.command == "a name of its own"
    assert image.owner == psutil.Process().username()


@pytest.mark.parametrize(
    ("environ", "service_name", "attributes"),
    [
        ({}, None, {}),
        ({"OTEL_SERVICE_NAME": "shop"}, "shop", {}),
        ({"OTEL_SERVICE_NAME": ""}, None, {}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,b=c"}, "a", {"service.name": "a", "b": "c"}),
        (
            {"OTEL_SERVICE_NAME": "shop", "OTEL_RESOURCE_ATTRIBUTES": "service.name=a"},
            "shop",
            {"service.name": "a"},
        ),
        ({"OTEL_RESOURCE_ATTRIBUTES": "a=1,b"}, None, {}),
        ({"OTEL_RESOURCE_ATTRIBUTES": b"a\xff=1"}, None, {}),
        ({"OTEL_SERVICE_NAME": b"sh\xffp"}, r"sh\xffp", {}),
    ],
)
def test_a_process_names_its_service_itself(environ, service_name, attributes):
    """OTEL_SERVICE_NAME of the process, else its OTEL_RESOURCE_ATTRIBUTES; the latter as a whole or not at all."""
    with running(**environ) as pid:
        image = Processes(0).add_running(pid).image

    assert (image.service_name, image.environment_attributes) == (service_name, attributes)


@pytest.fixture
def contain(monkeypatch):
    """Return a function that lets a process be where it says; the others are gone, as far as containers go."""
    known = {}
    for module in (processes_module, images_module):
        monkeypatch.setattr(module, "read_membership", known.get)
    return known.__setitem__


def made_task(kind: TaskKind, pid: int, **fields: int) -> np.ndarray:
    """Return the record of what happened to a process's only thread."""
    task = np.zeros(1, TASK)
    for name, value in {"kind": kind, "tid": pid, "previous_tid": pid, "tgid": pid, **fields}.items():
        task[name] = value
    return task


def test_a_running_process_is_in_its_container(contain):
    """Where a process is that is taken up, its image says."""
    with running() as pid:
        contain(pid, Membership("c" * 64, "the pod"))
        image = Processes(0).add_running(pid).image

    assert (image.container_id, image.pod_uid) == ("c" * 64, "the pod")


def test_a_child_is_where_its_parent_is(contain):
    """A child begins in its parent's container, and is still there when its exec is read after its end."""
    gone = 10_000_000
    with running() as pid:
        contain(pid, Membership("c" * 64, "the pod"))
        processes = Processes(0)
        processes.add_running(pid)
        processes.learn(made_task(TaskKind.PROCESS_START, gone, parent_tgid=pid), {}, 0)
        child = processes.thread_at(gone, gone, 1).image
        processes.learn(
            made_task(TaskKind.EXEC, gone, time_ns=2), {0: ExecStrings("/bin/true", "true", "/bin/true")}, 0
        )
        executed = processes.thread_at(gone, gone, 2).image

    assert executed.executable_name == "true"
    assert [(image.container_id, image.pod_uid) for image in (child, executed)] == [("c" * 64, "the pod")] * 2


def test_a_process_that_was_moved_is_where_its_exec_finds_it(contain):
    """What a runtime starts is moved into the container first; the exec that follows tells."""
    with running() as pid:
        contain(pid, Membership())
        processes = Processes(0)
        process = processes.add_running(pid)
        contain(pid, Membership("c" * 64))
        processes.learn(made_task(TaskKind.EXEC, pid, time_ns=2), {0: ExecStrings("", "", "sleep")}, 0)

    assert [processes.thread_at(pid, pid, time_ns).image.container_id for time_ns in (1, 2)] == [
        None,
        "c" * 64,
    ]
    assert process.image.container_id == "c" * 64


def test_a_process_that_moves_after_its_exec_was_not_there_before(contain, tmp_path):
    """Its exec is read late, and /proc shows a container that it moved itself to: the kernel side's word is the older one."""
    with running() as pid:
        proc = FakeProc(tmp_path / "proc")
        proc.mount("", tmp_path / "hierarchy")
        proc.add(pid, cgroup=f"0::/{'c' * 64}")
        contain(pid, Membership())
        processes = Processes(0)
        processes.cgroups = CgroupIndex("", proc.root)
        processes.add_launched(pid, 1, os.getpid(), {})
        contain(pid, Membership("c" * 64))
        start_ns, root = read_start_boot_ns(pid), (tmp_path / "hierarchy").stat().st_ino
        exec_task = made_task(TaskKind.EXEC, pid, time_ns=2, start_ns=start_ns, cgroup=root)
        processes.learn(exec_task, {0: ExecStrings("", "", "sleep")}, 0)

    assert processes.thread_at(pid, pid, 2).image.container_id is None


def test_another_process_of_the_pid_is_not_asked(contain):
    """Of a process that is gone, /proc shows another one's container when its pid was used again."""
    with running() as pid:
        contain(pid, Membership("c" * 64))
        processes = Processes(0)
        processes.learn(made_task(TaskKind.PROCESS_START, pid, start_ns=1), {}, 0)

        assert processes.thread_at(pid, pid, 1).image.container_id is None


def test_the_command_is_in_our_container(contain):
    """A command that waits for its exec is where it will be; an exec that is read too late changes nothing."""
    gone = 10_000_000
    contain(gone, Membership("c" * 64))
    processes = Processes(0)
    command = processes.add_launched(gone, 1, os.getpid(), {})
    processes.learn(
        made_task(TaskKind.EXEC, gone, time_ns=2), {0: ExecStrings("/bin/ls", "ls", "/bin/ls")}, 0
    )

    assert (command.image.executable_name, command.image.container_id) == ("ls", "c" * 64)


def test_names_that_are_no_text_can_be_sent(tmp_path):
    r"""A program whose name is no UTF-8 is described, and encoded, with those bytes as \xNN."""
    executable = os.fsencode(tmp_path) + b"/sl\xff\xc3ep"
    shutil.copy(shutil.which("sleep"), executable)
    with running(executable, b"arg\xfe") as pid:
        process = Processes(0).add_running(pid)
    windows = Windows()
    calls = make_calls(Made("getpid", process=process))
    placement = windows.place(calls)
    windows.finish([], 0)
    (request,) = SpanEncoder().encode(calls, placement, windows.take_spans())
    (resource_spans,) = ExportTraceServiceRequest.FromString(request.body).resource_spans
    values = {each.key: each.value.string_value for each in resource_spans.resource.attributes}

    assert values["process.executable.name"] == values["service.name"] == r"sl\xff\xc3ep"
    assert values["process.executable.path"] == rf"{tmp_path}/sl\xff\xc3ep"
    assert values["process.command"] == r"arg\xfe"


def test_threads_have_their_names():
    """Every thread that runs is known by its comm."""
    done = threading.Event()
    thread = threading.Thread(target=done.wait)
    thread.start()
    Path(f"/proc/self/task/{thread.native_id}/comm").write_text("worker of mine")
    processes = Processes(0)
    process = processes.add_running(os.getpid())
    made = [Made("getpid", process=process, tid=tid) for tid in (os.getpid(), thread.native_id)]
    calls = processes.identify(make_calls(*made))
    names = [calls.threads[index].name for index in calls.thread.tolist()]
    done.set()
    thread.join()

    assert names == [Path("/proc/self/comm").read_text().strip(), "worker of mine"]


def test_a_process_that_is_gone_is_said():
    """Taking up a process that does not exist raises what psutil raises."""
    with subprocess.Popen([sys.executable, "-c", ""]) as child:
        pass

    with pytest.raises(psutil.NoSuchProcess):
        Processes(0).add_running(child.pid)
    assert read_start_boot_ns(child.pid) is None


def test_the_start_is_on_the_boot_clock():
    """A process that was just started started just now."""
    before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    with running() as pid:
        start = read_start_boot_ns(pid)

    assert before - 20_000_000 <= start <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


@pytest.mark.parametrize(
    ("executable", "path", "name"),
    [
        ("/usr/bin/env", "/usr/bin/env", "env"),
        ("env", None, "env"),
        ("memfd:program", None, "memfd:program"),
        ("", None, ""),
    ],
)
def test_what_was_executed_has_a_name_and_perhaps_a_path(executable, path, name):
    """The kernel says the path of the file, or its bare name where that is too long or there is none."""
    strings = ExecStrings("./link", "argv0", executable)

    assert (strings.executable_path, strings.executable_name) == (path, name)


def test_a_process_has_a_name_before_it_has_a_program():
    """Until its program is known it is called unknown."""
    assert (Process(1, 2).name, Process(1, 2).command) == ("unknown", None)


def test_a_thread_is_found_at_a_time():
    """A process that is known gives its thread's name and its program; one that is not is looked up in /proc."""
    with running() as pid:
        processes = Processes(0)
        found = processes.thread_at(pid, pid, 1)
        again = processes.thread_at(pid, pid, 2)

    assert (found.tid, found.name, found.process.pid) == (pid, "sleep", pid)
    assert found.image is again.image


def test_a_thread_of_a_process_that_is_gone_is_none():
    """Nothing is made up, and nothing is kept of it."""
    with running() as pid:
        pass
    processes = Processes(0)

    assert processes.thread_at(pid, pid, 1) is None
    assert list(processes.living()) == []


STRANGER = 1 << 23  # no pid is that high: /proc knows nobody of it


def learn_end(processes: Processes, produced: int, pid: int = STRANGER) -> None:
    """Tell the end of a process, which nobody may have heard of, at a position of the ring of calls."""
    task = made_task(TaskKind.END, pid, is_last=1, wait_status=3 << 8, time_ns=50)
    processes.learn(task, {}, produced)


def identify_call(processes: Processes) -> Process:
    """Return the process of a call that the stranger made."""
    calls = processes.identify(make_calls(Made("getpid", process=Process(STRANGER, 0), tid=STRANGER)))
    return calls.threads[0].process


def test_an_end_that_is_read_before_the_calls_is_that_of_their_process():
    """Calls wait in their ring while ends are read: the process ends with its last call, and is kept no longer."""
    processes = Processes(0)
    learn_end(processes, 10)
    early = processes.take_ended(9)
    process = identify_call(processes)

    assert (early, processes.take_ended(10), process.exit_code) == ([], [process], 3)
    assert (list(processes.living()), processes._timelines, processes._strays) == ([], {}, {})


def test_an_end_that_no_call_asks_for_is_forgotten():
    """Once the ring was read up to there; the next process of the pid has nothing to do with it."""
    processes = Processes(0)
    learn_end(processes, 10)
    processes.take_ended(10)
    process = identify_call(processes)

    assert (processes._strays, list(processes.living())) == ({}, [process])


@contextlib.contextmanager
def zombie() -> Iterator[int]:
    """Give the pid of a process that has ended and that nobody waited for."""
    child = os.fork()
    if not child:
        os._exit(3)
    try:
        os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)
        yield child
    finally:
        os.waitpid(child, 0)


def look_at_thread(processes: Processes, pid: int) -> Process:
    """Return whose call is in flight, as a report asks for it."""
    return processes.thread_at(pid, pid, 60).process


def look_at_call(processes: Processes, pid: int) -> Process:
    """Return who made a call."""
    calls = processes.identify(make_calls(Made("getpid", process=Process(pid, 0), tid=pid)))
    return calls.threads[0].process


@pytest.mark.parametrize("look", [look_at_thread, look_at_call])
def test_a_zombie_whose_end_was_told_ends_at_once(look):
    """However it is met after its end was read, /proc knows it still: it is not taken for one that lives."""
    processes = Processes(0)
    with zombie() as pid:
        learn_end(processes, 10, pid)
        process = look(processes, pid)

    assert (processes.take_ended(10), process.exit_code) == ([process], 3)
    assert list(processes.living()) == []


def test_who_forks_and_ends_again_and_again_keeps_no_ancestors():
    """Of a chain of processes, each of which the next one survives, a few are kept in mind, and who was first."""
    processes = Processes(0)
    for pid in range(1, 200):
        processes.learn(
            made_task(TaskKind.PROCESS_START, STRANGER + pid, parent_tgid=STRANGER + pid - 1), {}, pid
        )
        if pid > 2:
            learn_end(processes, pid, STRANGER + pid - 1)
            processes.take_ended(pid)
    last = processes.thread_at(STRANGER + 199, STRANGER + 199, 60).process
    ancestors = []
    while last.parent is not None:
        last = last.parent
        ancestors.append(last.pid - STRANGER)

    assert ancestors[-1] == 1
    assert len(ancestors) <= 4


def test_whose_pid_another_process_has_is_over():
    """Where the record of an end was lost, the next start with that pid tells of it; the same start again does not."""
    processes = Processes(0)
    tick_ns = 10**7

    def learn_start(start_ns: int, produced: int) -> Process:
        task = made_task(TaskKind.PROCESS_START, STRANGER, start_ns=start_ns, time_ns=start_ns)
        processes.learn(task, {}, produced)
        return processes.thread_at(STRANGER, STRANGER, start_ns).process

    first = learn_start(5 * tick_ns, 1)
    learn_start(5 * tick_ns, 2)
    before_the_next = processes.take_ended(2)
    second = learn_start(9 * tick_ns, 10)

    assert before_the_next == []
    assert processes.take_ended(9) == []
    assert len(processes.take_ended(10)) == 1
    assert first.pid == second.pid
    assert [process is second for process in processes.living()] == [True]
