"""What must hold when things go badly: backlogs, busy targets, readers that go away, strange places to run in."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest

STATS = "import os\nfor i in range(60000):\n    try: os.stat(f'/nonexistent/{i}')\n    except OSError: pass"
BUSY = "import os\nprint('ready', flush=True)\nwhile True: os.getppid()"


def test_calls_that_wait_keep_their_paths(run_traced):
    """Far more calls than a batch holds each have their own path, in the order in which they were made."""
    run = run_traced("python3", "-c", STATS, options=("--syscalls", "%file"))
    paths = [span.attributes.get("file.path") for span in run.calls()]

    assert [path for path in paths if path and path.startswith("/nonexistent/")] == [
        f"/nonexistent/{i}" for i in range(60000)
    ]


def test_a_busy_target_does_not_keep_us(invoke, start):
    """Attached to a process that calls without a pause, we end when the duration is over."""
    busy = start("python3", "-c", BUSY)
    busy.stdout.readline()
    began = time.monotonic()
    finished = invoke("attach", "--pid", str(busy.pid), "--duration", "1s", "--exporter", "none")

    assert finished.returncode == 0
    assert b"ledger:" in finished.stderr
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("option", ["--live", "--exporter=terminal"])
def test_the_exit_status_survives_a_reader_that_leaves(invoke, option):
    """Nobody reads our stderr: the command's exit status is still the answer."""
    reading, writing = os.pipe()
    os.close(reading)
    finished = invoke(
        "run", option, "--", "sh", "-c", "sleep 0.2; exit 7", capture_output=False, stderr=writing
    )
    os.close(writing)

    assert finished.returncode == 7


def test_a_short_child_has_its_familys_service_name(run_traced, environment):
    """A child that is gone before /proc can be asked is of the service that its parent is of."""
    run = run_traced("sh", "-c", "/bin/true; /bin/true; :", env={**environment, "OTEL_SERVICE_NAME": "shop"})

    assert {span.resource["service.name"] for span in run.spans} == {"shop"}


def test_a_call_that_seccomp_killed_passes_errors_only(run_traced, build):
    """The one call that mattered is not filtered as a success."""
    run = run_traced(build("seccomp"), "kill_process", options=("--errors-only",))

    assert [span for span in run.calls() if not span.is_executed]


def test_a_zombie_is_no_target(invoke, start, eventually):
    """A process that ended already is one clear line, not a wait for ever."""
    parent = start(sys.executable, "-c", "import os, time\nif os.fork() == 0: os._exit(0)\ntime.sleep(60)")
    children = f"/proc/{parent.pid}/task/{parent.pid}/children"

    def zombie() -> str:
        with open(children) as file:  # noqa: PTH123
            return file.read().strip()

    pid = eventually(zombie, "the child")
    finished = invoke("attach", "--pid", pid, "--exporter", "none")

    assert finished.returncode == 2
    assert finished.stderr.decode().count("\n") == 1
    assert "ended before" in finished.stderr.decode()


def test_a_foreign_pid_namespace_is_refused(environment):
    """Where pids are not the kernel's, wrong processes would be traced: one line instead."""
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-m", "otel_sysexit"]
    finished = subprocess.run(
        [*command, "run", "--", "true"], check=False, capture_output=True, env=environment, timeout=60
    )

    assert finished.returncode == 125
    assert "pid namespace" in finished.stderr.decode()


def test_a_ctrl_c_after_the_commands_end_stops_the_delivery(start_agent, eventually):
    """A collector that takes everything and answers nothing is left at once; the status is the command's."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}"
        agent = start_agent(
            "run", "--endpoint", endpoint, "--flush-timeout", "60s", "--", "sh", "-c", "echo over; exit 5"
        )
        agent.stdout.readline()
        children = f"/proc/{agent.pid}/task/{agent.pid}/children"

        def is_over() -> bool:
            with open(children) as file:  # noqa: PTH123
                return not file.read().strip()

        eventually(is_over, "the command's end")
        time.sleep(0.5)  # at once it may be the one that the command died of
        agent.send_signal(signal.SIGINT)

        assert agent.wait(timeout=20) == 5
