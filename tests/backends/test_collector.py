"""Spans through the official OpenTelemetry Collector: what it passes on equals what the agent wrote."""

import pytest
from backends.comparison import described
from backends.processes import Collector, kept
from backends.runs import COMMANDS, PROTOCOLS, Run, run_agent
from backends.specimen import full_request, send

pytestmark = pytest.mark.backends
runs = pytest.mark.usefixtures("live")


@pytest.fixture(scope="module", params=PROTOCOLS)
def protocol(request) -> str:
    """Each protocol in turn."""
    return request.param


@pytest.fixture(scope="module", params=COMMANDS)
def sent(request, collector: Collector, protocol, tmp_path_factory) -> Run:
    """A run of each command, sent to the Collector."""
    command = ["run", "--", *COMMANDS[request.param]]
    return run_agent(command, collector.endpoint(protocol), protocol, tmp_path_factory.mktemp("run"))


def test_collector_passes_everything_on(collector, protocol):
    """Of a span with every field set the Collector loses and changes nothing."""
    specimen = full_request("specimen")
    send(specimen, collector.endpoint(protocol), protocol)

    spans = described([specimen])
    assert kept(collector, spans) == spans


@pytest.mark.live
@runs
def test_spans_equal_what_was_written(collector, sent):
    """Each span comes through with the ids, times, attributes, status, resource and scope that the file has."""
    spans = described(sent.written)
    assert kept(collector, spans) == spans


@pytest.mark.live
@runs
def test_count_equals_the_ledger(collector, sent):
    """The Collector got exactly the calls that the ledger calls delivered, and that is all of them."""
    found = kept(collector, described(sent.written))

    calls = [span for span in found.values() if "syscall.name" in span["attributes"]]
    assert len(calls) == sent.ledger["delivered"] == sent.ledger["emitted"] > 0
