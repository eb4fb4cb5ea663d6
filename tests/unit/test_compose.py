"""docker-compose.yml and what it refers to: the agent, a collector and Jaeger, found and wired to each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
PINNED = re.compile(r".+:v?\d+\.\d+\.\d+")
SERVICES = ["agent", "collector", "jaeger"]


def load(path: str) -> dict[str, Any]:
    """Read a YAML file of the checkout."""
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services of docker-compose.yml."""
    return load("docker-compose.yml")["services"]


@pytest.fixture(scope="module")
def collector() -> dict[str, Any]:
    """The Collector's configuration."""
    return load("deploy/compose/otelcol.yaml")


def mounts(service: dict[str, Any]) -> list[list[str]]:
    """Return source, target and mode of what is mounted into a service."""
    return [volume.split(":") for volume in service.get("volumes", [])]


def test_the_services_are_there(services):
    """There are an agent, a collector and Jaeger, and nothing else."""
    assert sorted(services) == SERVICES


@pytest.mark.parametrize("name", SERVICES)
def test_versions_are_pinned(services, name):
    """An image from elsewhere has a full version; ours is built from a Dockerfile that is there."""
    service = services[name]
    if "build" in service:
        assert (ROOT / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
    else:
        assert PINNED.fullmatch(service["image"])


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_on_loopback(services, name):
    """No port is open to other machines."""
    assert all(port.startswith("127.0.0.1:") for port in services[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_what_is_mounted_is_there_and_read_only(services, name):
    """Files of the checkout that are mounted exist; nothing of the host can be written."""
    for source, _, mode in mounts(services[name]):
        assert mode == "ro"
        assert not source.startswith(".") or (ROOT / source).is_file()


def test_the_agent_has_what_it_needs_and_no_more(services):
    """The agent sees the host's processes and BTF, and has four capabilities, not all."""
    agent = services["agent"]

    assert agent["pid"] == "host"
    assert agent["cap_drop"] == ["ALL"]
    assert sorted(agent["cap_add"]) == ["BPF", "DAC_READ_SEARCH", "PERFMON", "SYS_PTRACE"]
    assert not agent.get("privileged")
    assert ["/sys/kernel/btf", "/sys/kernel/btf", "ro"] in mounts(agent)


def test_the_agent_sends_to_a_published_port_of_the_collector(services, collector):
    """The agent's default endpoint is where the collector's HTTP receiver is published."""
    endpoint = services["agent"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]
    (default,) = re.findall(r":-http://(127\.0\.0\.1:\d+)\}", endpoint)
    port = collector["receivers"]["otlp"]["protocols"]["http"]["endpoint"].rpartition(":")[2]

    assert f"{default}:{port}" in services["collector"]["ports"]


def test_the_collector_reads_the_mounted_configuration(services):
    """The collector is told to read the file that is mounted."""
    _, target, _ = mounts(services["collector"])[0]

    assert services["collector"]["command"] == ["--config", target]


def test_the_collector_sends_to_jaeger(services, collector):
    """Each exporter of a pipeline sends to a service of the file; each component of a pipeline is configured."""
    for pipeline in collector["service"]["pipelines"].values():
        for kind in ("receivers", "processors", "exporters"):
            assert set(pipeline[kind]) <= set(collector[kind])
        for name in pipeline["exporters"]:
            assert collector["exporters"][name]["endpoint"].partition(":")[0] in services


def test_the_collector_is_the_version_that_the_tests_build(services):
    """What is shipped is what the tests against the real Collector run."""
    modules = (ROOT / "tests/backends/collector/builder.yaml").read_text(encoding="utf-8")
    version = services["collector"]["image"].rpartition(":")[2]

    assert f"go.opentelemetry.io/collector/receiver/otlpreceiver v{version}" in modules


def test_the_image_installs_by_hash():
    """Whatever comes from a package index into the image is checked against a hash."""
    text = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    installs = [line for line in re.split(r"\n|&&", text) if "pip install" in line]

    assert installs
    assert all("--require-hashes" in line or "--no-index" in line for line in installs)


def test_the_image_gets_what_the_wheel_is_made_from():
    """What .dockerignore lets through is there, and has all that the wheel and the Dockerfile need."""
    lines = (ROOT / "deploy/Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    wanted = {line[1:] for line in lines if line.startswith("!")}

    assert wanted >= {"bpf", "otel_sysexit", "requirements", "pyproject.toml", "README.md", "LICENSE"}
    assert all((ROOT / name).exists() for name in wanted)
