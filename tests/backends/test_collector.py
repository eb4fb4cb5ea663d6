"""Spans through the official OpenTelemetry Collector: what it passes on equals what the agent wrote."""

import pytest
from backends.comparison import described, differences
from backends.processes import Collector, kept, wait_until
from backends.runs import COMMANDS, PROTOCOLS, STUCK, Run, run_agent
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
    assert differences(spans, kept(collector, spans)) == {}


@pytest.mark.live
@runs
def test_spans_equal_what_was_written(collector, sent):
    """Each span comes through with the ids, times, attributes, status, resource and scope that the file has."""
    spans = described(sent.written)
    assert differences(spans, kept(collector, spans)) == {}


@pytest.mark.live
@runs
def test_count_equals_the_ledger(collector, sent):
    """The Collector got exactly the calls that the ledger calls delivered, and that is all of them."""
    found = kept(collector, described(sent.written))

    calls = [span for span in found.values() if "syscall.name" in span["attributes"]]
    assert len(calls) == sent.ledger["delivered"] == sent.ledger["emitted"] > 0


@pytest.mark.live
@runs
def test_log_records_equal_what_was_written(collector, protocol, tmp_path):
    """The report of a stuck call comes through as the file has it, and does not disturb the count of calls."""
    sent = run_agent(STUCK, collector.endpoint(protocol), protocol, tmp_path)
    (written,) = (of_resource for message in sent.written_logs for of_resource in message.resource_logs)

    def found() -> list:
        return [
            of_resource
            for request in collector.sink.accepted
            if request.signal == "logs"
            for of_resource in request.message.resource_logs
            if of_resource.resource == written.resource
        ]

    wait_until(found, "the log record to be passed on")
    assert found() == [written]
    assert (sent.ledger["delivered"], "warning" in sent.stderr) == (1, False)
