"""Spans in Jaeger v2: found by search, and through its v3 API equal to what the agent wrote."""

import contextlib
import subprocess
import sys

import pytest
from backends.comparison import described, differences, spans_of
from backends.processes import Jaeger, kept
from backends.runs import COMMANDS, PROTOCOLS, STUCK, Run, run_agent
from backends.specimen import full_request, send
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

pytestmark = pytest.mark.backends
runs = pytest.mark.usefixtures("live")

# Jaeger has no place for the schema URLs.
LOST = ["resource.schema_url", "scope.schema_url"]

# 4,000 calls a second: a window of 2,000 spans is full after half a second.
BUSY = "import os, time\nwhile True:\n    for _ in range(200): os.getppid()\n    time.sleep(0.05)"


@pytest.fixture(scope="module", params=PROTOCOLS)
def protocol(request) -> str:
    """Each protocol in turn."""
    return request.param


@pytest.fixture(scope="module", params=COMMANDS)
def sent(request, jaeger: Jaeger, protocol, tmp_path_factory) -> Run:
    """A run of each command, sent to Jaeger."""
    command = ["run", "--", *COMMANDS[request.param]]
    return run_agent(command, jaeger.endpoint(protocol), protocol, tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def attached(jaeger: Jaeger, tmp_path_factory) -> Run:
    """Two seconds of a busy process, attached to and sent to Jaeger."""
    target = subprocess.Popen([sys.executable, "-c", BUSY])
    with contextlib.ExitStack() as stack:
        stack.callback(target.wait)
        stack.callback(target.kill)
        command = ["attach", "--duration", "2s", "--pid", str(target.pid)]
        return run_agent(command, jaeger.endpoint("grpc"), "grpc", tmp_path_factory.mktemp("attach"))


def test_jaeger_stores_everything(jaeger, protocol):
    """Of a span with every field set Jaeger loses and changes nothing but the schema URLs."""
    specimen = full_request("specimen")
    send(specimen, jaeger.endpoint(protocol), protocol)

    spans = described([specimen], without=LOST)
    assert differences(spans, described_in_full(jaeger, spans)) == {}


def test_looking_at_half_a_trace_does_not_change_it(jaeger, protocol):
    """A trace that was read before its root had come is stored like any other."""
    whole = full_request("in halves")
    spans = described([whole], without=LOST)
    for span in reversed(spans_of([whole])):
        half = ExportTraceServiceRequest()
        half.CopyFrom(whole)
        del half.resource_spans[0].scope_spans[0].spans[:]
        half.resource_spans[0].scope_spans[0].spans.append(span)
        send(half, jaeger.endpoint(protocol), protocol)
        kept(jaeger, {key: spans[key] for key in [span.span_id.hex()]})

    assert differences(spans, described_in_full(jaeger, spans)) == {}


def described_in_full(jaeger: Jaeger, spans: dict) -> dict:
    """Describe what Jaeger stored of the spans' traces, less what it has no place for."""
    return {
        key: {name: field for name, field in span.items() if name not in LOST}
        for key, span in kept(jaeger, spans).items()
    }


@pytest.mark.live
@runs
def test_spans_equal_what_was_written(jaeger, sent):
    """Each span is stored with the ids, ns times, attributes, parent, status, resource and scope of the file."""
    spans = described(sent.written, without=LOST)

    assert differences(spans, described_in_full(jaeger, spans)) == {}


@pytest.mark.live
@runs
def test_search_finds_the_trace_by_each_service(jaeger, sent):
    """Searching for any service of the run finds its trace."""
    kept(jaeger, described(sent.written))

    for service in sent.services:
        assert sent.trace_ids <= {trace["traceID"] for trace in jaeger.search(service)}


@pytest.mark.live
@runs
def test_a_run_is_one_tree(jaeger, sent):
    """Jaeger has one trace, whose only span without a parent is the command's."""
    found = kept(jaeger, described(sent.written))

    assert len(sent.trace_ids) == 1
    roots = [span for span in found.values() if not span["parent_span_id"]]
    assert len(roots) == 1
    assert "syscall.name" not in roots[0]["attributes"]
    assert {span["parent_span_id"] for span in found.values()} - {""} <= set(found)


@pytest.mark.live
@runs
def test_count_equals_the_ledger(jaeger, sent):
    """Jaeger has exactly the calls that the ledger calls delivered, and that is all of them."""
    found = kept(jaeger, described(sent.written))

    calls = [span for span in found.values() if "syscall.name" in span["attributes"]]
    assert len(calls) == sent.ledger["delivered"] == sent.ledger["emitted"] > 0


@pytest.mark.live
@runs
def test_failed_call_is_an_error(jaeger, protocol, tmp_path):
    """A call that failed is stored as an error of its name, with the path that was not there."""
    command = ["run", "--", *COMMANDS["sh"]]
    run = run_agent(command, jaeger.endpoint(protocol), protocol, tmp_path)

    found = kept(jaeger, described(run.written))
    (failed,) = [
        span
        for span in found.values()
        if span["attributes"].get("file.path") == ("string_value", "/nonexistent")
    ]
    assert failed["status"] == (2, "")
    assert failed["attributes"]["error.type"] == ("string_value", "ENOENT")
    assert failed["attributes"]["syscall.return_value"] == ("int_value", -2)


@pytest.mark.live
@runs
def test_windows_equal_what_was_written(jaeger, attached):
    """The windows of an attached process are stored as they were written, links included."""
    spans = described(attached.written, without=LOST)

    assert len(attached.trace_ids) > 1
    assert differences(spans, described_in_full(jaeger, spans)) == {}


@pytest.mark.live
@runs
def test_each_window_links_to_the_one_before(jaeger, attached):
    """In Jaeger a window's root links to the root of the window before; only the first has no link."""
    found = kept(jaeger, described(attached.written))

    roots = {key: span for key, span in found.items() if not span["parent_span_id"]}
    in_order = sorted(roots, key=lambda key: roots[key]["start"])
    links = [[link[:2] for link in roots[key]["links"]] for key in in_order]
    assert links == [[], *([(roots[key]["trace_id"], key)] for key in in_order[:-1])]


@pytest.mark.live
@runs
def test_log_records_are_not_for_jaeger(jaeger, protocol, tmp_path):
    """Jaeger takes no log records: one warning says so, and the spans are delivered all the same."""
    sent = run_agent(STUCK, jaeger.endpoint(protocol), protocol, tmp_path)
    warnings = [line for line in sent.stderr.splitlines() if "warning" in line]

    assert len(warnings) == 1
    assert "1 log records were not delivered" in warnings[0]
    assert "takes no log records" in warnings[0]
    assert sent.ledger["delivered"] == sent.ledger["emitted"] == 1
