"""Spans through rotel, a real collector that comes as a Python wheel: the quick proof of both protocols."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import rotel as rotel_wheel
from backends.comparison import described
from backends.processes import Collector, kept
from backends.runs import COMMANDS, PROTOCOLS, Run, run_agent
from backends.specimen import full_request, send


@pytest.fixture(scope="module")
def rotel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """The wheel's collector, forwarding to a receiver of ours."""
    binary = Path(rotel_wheel.__file__).with_name("rotel-agent")
    with Collector.rotel(binary, tmp_path_factory.mktemp("rotel")) as started:
        yield started


@pytest.fixture(scope="module", params=PROTOCOLS)
def protocol(request) -> str:
    """Each protocol in turn."""
    return request.param


@pytest.fixture(scope="module", params=COMMANDS)
def sent(request, rotel: Collector, protocol, tmp_path_factory) -> Run:
    """A run of each command, sent to rotel."""
    command = ["run", "--", *COMMANDS[request.param]]
    return run_agent(command, rotel.endpoint(protocol), protocol, tmp_path_factory.mktemp("run"))


def test_rotel_passes_everything_on(rotel, protocol):
    """Of a span with every field set rotel loses and changes nothing."""
    specimen = full_request("specimen")
    send(specimen, rotel.endpoint(protocol), protocol)

    spans = described([specimen])
    assert kept(rotel, spans) == spans


def test_spans_equal_what_was_written(rotel, sent):
    """Each span comes through with the ids, times, attributes, status, resource and scope that the file has."""
    spans = described(sent.written)

    assert kept(rotel, spans) == spans


def test_count_equals_the_ledger(rotel, sent):
    """Rotel got exactly the calls that the ledger calls delivered, and that is all of them."""
    found = kept(rotel, described(sent.written))

    calls = [span for span in found.values() if "syscall.name" in span["attributes"]]
    assert len(calls) == sent.ledger["delivered"] == sent.ledger["emitted"] > 0
