"""Containers of a real runtime: found by id, named by their Resources, and from the inside of one."""

import subprocess
import sys
from pathlib import Path

import pytest
from live.docker import SHELL, Docker, MissingError
from otlp_json import read_spans

import otel_sysexit

# It waits, then makes calls, and starts a program that does: over and over.
TICKING = (SHELL, "sh", "-c", f"while {SHELL} sleep 0.1; do :; done")
CHECKOUT = Path(otel_sysexit.__file__).parents[1]
# SYS_ADMIN stands for BPF and PERFMON, which not every version of Docker knows.
CAPABILITIES = ("SYS_ADMIN", "SYS_PTRACE", "DAC_READ_SEARCH")
RIGHTS = (
    *(f"--cap-add={name}" for name in CAPABILITIES),
    *(f"--security-opt={profile}=unconfined" for profile in ("apparmor", "seccomp")),
)


@pytest.fixture(scope="module")
def docker(tmp_path_factory):
    """Return a Docker that runs; skip where it cannot, with the reason."""
    try:
        with Docker(tmp_path_factory.mktemp("docker")) as running:
            yield running
    except MissingError as error:
        pytest.skip(str(error))


@pytest.fixture
def attach(start_agent, tmp_path, eventually, make_trace):
    """Return a function that attaches with these options, waits for an exec, detaches and gives the `Trace`."""

    def attach_with(*options: str):
        output, printed = tmp_path / "spans.jsonl", tmp_path / "stderr"
        with printed.open("wb") as stderr:
            agent = start_agent(
                "attach", "--live", "-o", output, *options, stderr=stderr, stdin=subprocess.DEVNULL
            )

        def has_begun() -> bool:
            assert agent.poll() is None, printed.read_text()
            return b"execve(" in printed.read_bytes()

        eventually(has_begun, "an exec to be printed", 60)
        agent.terminate()
        return make_trace(agent.wait(timeout=60), b"", printed.read_text(), output)

    return attach_with


def test_a_container_is_chosen_by_its_id_and_named_in_full(docker, attach):
    """With the digits that `docker ps` shows, what runs in there is traced, and the Resource has the whole id."""
    docker.run(*TICKING)
    chosen = docker.run(*TICKING)
    trace = attach("--container", chosen[:12])

    assert trace.calls("execve")
    assert {span.resource["container.id"] for span in trace.spans} == {chosen}
    assert "k8s.pod.uid" not in trace.spans[0].resource


@pytest.mark.parametrize("namespace", ["host", "private"])
def test_the_agent_knows_the_container_that_it_runs_in(docker, tmp_path, namespace):
    """A command that the agent runs inside a container is in that container, whether its cgroup is seen by its path or as `/`."""
    output = tmp_path / "spans.jsonl"
    volumes = {"/usr", str(CHECKOUT), sys.prefix}
    container = docker.run(
        *(sys.executable, "-m", "otel_sysexit", "run", "-o", output, "--", SHELL, "true"),
        options=(
            f"--cgroupns={namespace}",
            "--pid=host",
            *RIGHTS,
            *(f"--volume={path}:{path}:ro" for path in sorted(volumes)),
            *("--volume=/sys/kernel/btf:/sys/kernel/btf:ro", f"--volume={tmp_path}:{tmp_path}"),
            f"--env=PYTHONPATH={CHECKOUT}",
        ),
    )

    assert docker.call("wait", container) == "0\n", docker.call("logs", container, stderr=subprocess.STDOUT)
    assert {span.resource["container.id"] for span in read_spans(output)} == {container}
