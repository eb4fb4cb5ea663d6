"""Who made a call: what the kernel says of a process at its birth and exec, /proc or no /proc."""

import os
import shutil
import sys
import uuid

import pytest
from otlp_json import read_spans

NOBODY = 65534
# Has an agent attached to itself for a second, and makes calls meanwhile.
WATCHED = """
import os, subprocess, sys, time
options = "--pid", str(os.getpid()), "--syscalls", "getppid", "--duration", "1s", "--quiet", "-o", sys.argv[1]
agent = subprocess.Popen([sys.executable, "-m", "otel_sysexit", "attach", *options])
while agent.poll() is None:
    os.getppid()
    time.sleep(0.01)
"""
pytestmark = pytest.mark.each_kernel


def resource_of(run, name):
    """Return the Resource of the only program of that name."""
    (found,) = {
        tuple(sorted(span.resource.items()))
        for span in run.calls()
        if span.resource["process.executable.name"] == name
    }
    return dict(found)


def test_users_are_told(run_traced):
    """A program that another user runs says so by id and name."""
    run = run_traced("setpriv", "--reuid", str(NOBODY), "--clear-groups", "/bin/true")
    found = resource_of(run, "true")

    assert (found["process.user.id"], found["process.owner"]) == (NOBODY, "nobody")
    assert "process.real_user.id" not in found


def test_a_set_user_id_program_has_two_users(run_traced, tmp_path):
    """The effective user is who owns the file, the real one who started it."""
    program = tmp_path / "suid"
    shutil.copy("/bin/true", program)
    os.chown(program, NOBODY, -1)
    program.chmod(0o4755)
    tmp_path.chmod(0o755)
    found = resource_of(run_traced(program), "suid")

    assert (found["process.user.id"], found["process.real_user.id"]) == (NOBODY, 0)


def test_a_process_in_a_pid_namespace_has_two_ids(run_traced):
    """process.pid is the host's, process.vpid the process's own: 1 for the first in its namespace."""
    run = run_traced("unshare", "--pid", "--fork", "/bin/true")
    found = resource_of(run, "true")

    assert found["process.vpid"] == 1 != found["process.pid"]
    assert "process.vpid" not in resource_of(run_traced("/bin/true"), "true")


def test_an_instance_is_the_same_however_it_is_found(run_traced, tmp_path):
    """A process has one service.instance.id, whether its start was seen or read in /proc; another has another."""
    output = tmp_path / "attached.jsonl"
    run = run_traced(sys.executable, "-c", WATCHED, output, options=("--syscalls", "getppid,execve"))
    born = run.calls("getppid")[-1].resource["service.instance.id"]
    found = {span.resource["service.instance.id"] for span in read_spans(output)}

    assert found == {born}
    assert uuid.UUID(born).version == 5
