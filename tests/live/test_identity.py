"""Who made a call: what the kernel says of a process at its birth and exec, /proc or no /proc."""

import os
import pwd
import secrets
import shutil
import sys
import uuid
from pathlib import Path

import pytest
from otlp_json import read_spans

from otel_sysexit.cgroups import main_hierarchy, read_mounts

NOBODY = 65534
CONTAINER = "0123456789abcdef" * 4
# Runs a program for 2 ms or so in the cgroup whose folder is given.
MOVE = 'echo 0 > "$0/cgroup.procs"; /bin/true'
# Has an agent attached to itself for a second, and makes calls meanwhile.
WATCHED = """
import os, subprocess, sys, time
options = "--pid", str(os.getpid()), "--syscalls", "getppid", "--duration", "1s", "--quiet", "-o", sys.argv[1]
agent = subprocess.Popen([sys.executable, "-m", "otel_sysexit", "attach", *options])
while agent.poll() is None:
    os.getppid()
    time.sleep(0.01)
"""


def name_of(uid):
    """Return what a user is called here; the number where there is no name."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def resource_of(run, name):
    """Return the Resource of the only program of that name."""
    (found,) = {
        tuple(sorted(span.resource.items()))
        for span in run.calls()
        if span.resource["process.executable.name"] == name
    }
    return dict(found)


@pytest.mark.each_kernel
def test_users_are_told(run_traced):
    """A program that another user runs says so by id and name."""
    run = run_traced("setpriv", "--reuid", str(NOBODY), "--clear-groups", "/bin/true")
    found = resource_of(run, "true")

    assert (found["process.user.id"], found["process.owner"]) == (NOBODY, name_of(NOBODY))
    assert "process.real_user.id" not in found


@pytest.mark.each_kernel
def test_a_program_is_its_file_however_it_was_called(run_traced, tmp_path):
    """By a symbolic link, from its folder, by a script: the path is the file's, though /proc cannot be asked any more."""
    program, deep = tmp_path / "program", tmp_path.joinpath(*["d" * 100] * 3)
    deep.mkdir(parents=True)
    for copy in (program, deep / "far"):
        shutil.copy("/bin/true", copy)
    (tmp_path / "link").symlink_to(program)
    script = tmp_path / "script"
    script.write_text(f"#!{program}\n")
    script.chmod(0o755)
    run = run_traced("sh", "-c", './link; ./program; "$PWD/link"; ./script; "$0"', deep / "far", cwd=tmp_path)
    found = [span.resource for span in run.calls("exit_group")]
    paths = [
        (resource["process.executable.name"], resource.get("process.executable.path"))
        for resource in found
        if resource["process.executable.name"] in ("program", "far")
    ]

    assert [path for path in paths if path[0] == "program"] == [("program", str(program.resolve()))] * 4
    assert paths[-1] in [
        ("far", None),
        ("far", str((deep / "far").resolve())),
    ]  # longer than 256 bytes: as long as it lives


@pytest.mark.each_kernel
def test_a_set_user_id_program_has_two_users(run_traced, tmp_path):
    """The effective user is who owns the file, the real one who started it."""
    program = tmp_path / "suid"
    shutil.copy("/bin/true", program)
    os.chown(program, NOBODY, -1)
    program.chmod(0o4755)
    tmp_path.chmod(0o755)
    found = resource_of(run_traced(program), "suid")

    assert (found["process.user.id"], found["process.real_user.id"]) == (NOBODY, 0)


@pytest.mark.each_kernel
def test_a_set_group_id_program_has_two_groups(run_traced, tmp_path):
    """As it is with users; a program without the bit has one."""
    program = tmp_path / "sgid"
    shutil.copy("/bin/true", program)
    os.chown(program, -1, 7)
    program.chmod(0o2755)
    group = "otel_sysexit.process.group.id"
    real_group = "otel_sysexit.process.real_group.id"
    found = resource_of(run_traced(program), "sgid")

    assert (found[group], found[real_group]) == (7, 0)
    assert real_group not in resource_of(run_traced("/bin/true"), "true")


def test_a_cgroup_is_told_if_asked_for(run_traced):
    """The line of /proc/PID/cgroup, of a program that was gone long before anybody could have read it."""
    lines = Path("/proc/self/cgroup").read_text().splitlines()
    controllers = main_hierarchy(read_mounts())
    (expected,) = [line for line in lines if line.split(":")[1] == controllers]
    run = run_traced("/bin/true", options=("--attributes", "process.linux.cgroup=on"))

    assert resource_of(run, "true")["process.linux.cgroup"] == expected
    assert "process.linux.cgroup" not in resource_of(run_traced("/bin/true"), "true")


def test_attributes_can_be_switched_off(run_traced):
    """Of Resources and of calls, and nothing else is lost by it."""
    run = run_traced("/bin/true", options=("--attributes", "process.owner=off,host.*=off,thread.name=off"))
    found = resource_of(run, "true")

    assert "process.user.id" in found
    assert not [name for name in found if name.startswith("host.") or name == "process.owner"]
    assert not [span for span in run.calls() if "thread.name" in span.attributes]


def test_services_can_be_named(run_traced):
    """By a rule for the executable; what has no rule is called after it, or as SDKs call it."""
    true = shutil.which("true")
    rule = ("--service-name", f"{os.path.realpath(true)}=truth", "--unknown-service")
    run = run_traced("sh", "-c", f"{true}; :", options=rule)
    names = {span.resource["process.executable.name"]: span.resource["service.name"] for span in run.calls()}
    shell = Path(shutil.which("sh")).resolve().name

    assert names == {shell: f"unknown_service:{shell}", "true": "truth"}


@pytest.mark.each_kernel
def test_a_process_in_a_pid_namespace_has_two_ids(run_traced):
    """process.pid is the host's, process.vpid the process's own: 1 for the first in its namespace."""
    run = run_traced("unshare", "--pid", "--fork", "/bin/true")
    found = resource_of(run, "true")

    assert found["process.vpid"] == 1 != found["process.pid"]
    assert "process.vpid" not in resource_of(run_traced("/bin/true"), "true")


@pytest.mark.each_kernel
def test_an_instance_is_the_same_however_it_is_found(run_traced, tmp_path):
    """A process has one service.instance.id, whether its start was seen or read in /proc; another has another."""
    output = tmp_path / "attached.jsonl"
    run = run_traced(sys.executable, "-c", WATCHED, output, options=("--syscalls", "getppid,execve"))
    born = run.calls("getppid")[-1].resource["service.instance.id"]
    found = {span.resource["service.instance.id"] for span in read_spans(output)}

    assert found == {born}
    assert uuid.UUID(born).version == 5


@pytest.fixture
def container():
    """Return the folder of a cgroup that is named as a container's is, in the hierarchy that tells containers apart."""
    mounts = read_mounts()
    hierarchy = main_hierarchy(mounts)
    if hierarchy is None:
        pytest.skip("no cgroups are mounted")
    mount = next(mount for mount in mounts if mount.controllers == hierarchy)
    folder = Path(mount.mountpoint, f"otel-sysexit-{secrets.token_hex(4)}")
    (folder / CONTAINER).mkdir(parents=True)
    yield folder / CONTAINER
    (folder / CONTAINER).rmdir()
    folder.rmdir()


@pytest.mark.each_kernel
def test_a_short_lived_process_is_in_its_container(run_traced, container):
    """What lives for 2 ms has the container that the kernel side says, though /proc cannot be asked any more."""
    run = run_traced("sh", "-c", MOVE, container)

    assert resource_of(run, "true")["container.id"] == CONTAINER
    assert "container.id" not in run.calls()[0].resource


def test_short_lived_processes_are_complete(run_traced, container):
    """Of 5,000 processes that live for about a millisecond, none lacks executable, parent, start, user and container."""
    loop = 'echo 0 > "$0/cgroup.procs"; i=0; while [ $i -lt 5000 ]; do /bin/true; i=$((i + 1)); done'
    run = run_traced("sh", "-c", loop, container, options=("--syscalls", "exit_group"))
    found = [span.resource for span in run.calls() if span.resource["process.executable.name"] == "true"]
    needed = {
        "process.executable.path",
        "process.parent_pid",
        "process.creation.time",
        "process.owner",
        "container.id",
    }

    assert len({resource["process.pid"] for resource in found}) == len(found) == 5000
    assert all(needed <= resource.keys() and resource["container.id"] == CONTAINER for resource in found)
