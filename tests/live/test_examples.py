"""The scenarios of examples/ run as their READMEs say, and show what these promise."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from receiver import Receiver

EXAMPLES = Path(__file__).parents[2] / "examples"
LEDGER = re.compile(r"ledger: seen (\d+) = filtered (\d+) \+ sampled out 0 \+ emitted (\d+)")
PATIENCE = 60  # seconds after which an example has gone wrong


@pytest.fixture(scope="module")
def run_example(environment):
    """Return a function that runs an example's script and gives what it did; its output and errors are one text."""

    def run(name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [EXAMPLES / name / "run.sh", *arguments],
            check=False,
            env={**environment, "PYTHON": sys.executable, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )

    return run


@pytest.fixture(scope="module")
def slow_start(run_example):
    """What the example slow-start printed: before its second look, and from there on."""
    done = run_example("slow-start")
    assert done.returncode == 0, done.stdout
    return done.stdout.split("\n2. ")


@pytest.fixture(scope="module")
def to_jaeger(run_example):
    """What the example to-jaeger printed, and what the collector got."""
    with Receiver("http/protobuf") as receiver:
        done = run_example("to-jaeger", OTEL_EXPORTER_OTLP_ENDPOINT=receiver.endpoint)
    assert done.returncode == 0, done.stdout
    return done.stdout, receiver


def test_every_example_has_a_readme_and_a_script():
    """Each folder says what it shows, and has a script that can be run."""
    folders = [path for path in EXAMPLES.iterdir() if path.is_dir()]

    assert len(folders) >= 2
    for folder in folders:
        assert (folder / "README.md").is_file()
        assert (folder / "run.sh").stat().st_mode & 0o111


def test_slow_start_shows_the_search(slow_start):
    """The first look's table has thousands of `newfstatat`, most of them errors."""
    (row,) = re.findall(r"^newfstatat +([\d,]+) +([\d,]+) ", slow_start[0], re.MULTILINE)
    count, errors = (int(number.replace(",", "")) for number in row)

    assert count > errors > 2_000


def test_slow_start_shows_the_late_file(slow_start):
    """The second look leaves the `openat` that took 200 ms; thousands were filtered out."""
    ((seen, filtered, emitted),) = LEDGER.findall(slow_start[1])
    calls = re.findall(r"^(\w+)\(.* (2\d\d ms) ", slow_start[1], re.MULTILINE)

    assert [name for name, _ in calls] == ["openat"]
    assert int(seen) == int(filtered) + int(emitted)
    assert int(filtered) > 2_000


def test_to_jaeger_sends_one_trace_of_one_service(to_jaeger):
    """All spans are of one trace, under the service that the script names."""
    _, receiver = to_jaeger
    spans = receiver.spans()
    services = {
        attribute.value.string_value
        for found in spans
        for attribute in found.resource.attributes
        if attribute.key == "service.name"
    }

    assert len({found.span.trace_id for found in spans}) == 1
    assert services == {"to-jaeger"}


def test_to_jaeger_has_the_failure_it_speaks_of(to_jaeger):
    """The open of /nonexistent is among the spans, as an error."""
    _, receiver = to_jaeger
    failed = [
        found.span
        for found in receiver.spans()
        if any(attribute.value.string_value == "/nonexistent" for attribute in found.span.attributes)
    ]

    assert [(span.name, span.status.code) for span in failed] == [("openat", 2)]


def test_to_jaeger_says_where_to_look(to_jaeger):
    """The last line has the address of Jaeger's page for that service."""
    printed, receiver = to_jaeger
    last = printed.splitlines()[-1]

    assert receiver.endpoint in last
    assert last.endswith("http://localhost:16686/search?service=to-jaeger")


def test_to_jaeger_runs_a_command_of_ones_own(run_example):
    """The script's status is the command's, also when there is no collector."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_SYSEXIT_FLUSH_TIMEOUT": "200ms"}
    done = run_example("to-jaeger", "sh", "-c", "exit 7", **variables)

    assert done.returncode == 7
