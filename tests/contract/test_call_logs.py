"""Calls as log records, beside the same calls as spans: whatever is a span's is the record's."""

import pytest
from contract.test_spans import AGENT_ATTRIBUTES, JOINED, RULES, make_batch
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from otel_sysexit import attributes
from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.otlp.call_logs import CallLogEncoder
from otel_sysexit.otlp.request import Request, Signal
from otel_sysexit.otlp.resources import ResourceRules
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.syscalls import errno_name
from otel_sysexit.traces import Spans

INFO, WARN, ERROR = 9, 13, 17


def encode(
    rules: ResourceRules = RULES, bytes_max: int = 1 << 20, *, has_spans: bool = True
) -> list[Request]:
    """Return the requests of the batch's calls."""
    calls, placement, _ = make_batch()
    return list(CallLogEncoder(rules, JOINED, has_spans=has_spans).encode(calls, placement, bytes_max))


def records_of(requests: list[Request]) -> list[tuple[Resource, LogRecord]]:
    """Return every record with the Resource that it is below."""
    messages = [ExportLogsServiceRequest.FromString(request.body) for request in requests]
    return [
        (found.resource, record)
        for message in messages
        for found in message.resource_logs
        for scope in found.scope_logs
        for record in scope.log_records
    ]


def spans_of_calls() -> list[tuple[Resource, Span]]:
    """Return the spans of the same calls, in the same order."""
    calls, placement, _ = make_batch()
    (request,) = SpanEncoder(RULES, JOINED).encode(calls, placement, Spans())
    return [
        (found.resource, span)
        for found in ExportTraceServiceRequest.FromString(request.body).resource_spans
        for span in found.scope_spans[0].spans
    ]


@pytest.fixture(scope="module")
def pairs() -> list[tuple[LogRecord, Span]]:
    """Each call, told both ways."""
    records, spans = records_of(encode()), spans_of_calls()
    assert [resource for resource, _ in records] == [resource for resource, _ in spans]
    return [(record, span) for (_, record), (_, span) in zip(records, spans, strict=True)]


def values(message: LogRecord | Span) -> dict[str, object]:
    """Return the attributes."""
    return {one.key: value_of(one.value) for one in message.attributes}


def value_of(found: AnyValue) -> object:
    """Return what an AnyValue holds."""
    return getattr(found, found.WhichOneof("value"))


def expected_severity(span: Span) -> int:
    """Return how severe it is what a span tells of."""
    if span.status.code == Status.STATUS_CODE_ERROR:
        return ERROR
    return INFO if values(span).get("syscall.executed", True) else WARN


def expected_body(span: Span) -> str:
    """Return what a span tells of, in words."""
    found = values(span)
    words = [span.name]
    if "syscall.restarts" in found:
        words += ["of", found["syscall.restarts"]]
    descriptors = [name for name in found if name.startswith("syscall.descriptor.")]
    shown = ["file.path", *descriptors[:1], "network.peer.address", "network.local.address"]
    words += [found[name] for name in shown if found.get(name)][:1]
    if not found.get("syscall.executed", True):
        words.append("was not executed")
    elif found.get("syscall.interrupted"):
        words.append("was interrupted")
    elif "syscall.errno" in found:
        words += ["failed:", errno_name(found["syscall.errno"])]
    return " ".join(words)


def test_a_record_has_the_attributes_of_the_span_and_its_length(pairs):
    """Nothing is told in one way that is not told in the other; a record has no end, so it has a duration."""
    for record, span in pairs:
        found = values(record)
        duration = found.pop("syscall.duration")

        assert found == values(span)
        assert duration == (span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


def test_a_record_is_where_its_span_is_in_time_and_trace(pairs):
    """Start, end, ids, and whether the trace is sampled."""
    for record, span in pairs:
        assert (record.time_unix_nano, record.observed_time_unix_nano) == (
            span.start_time_unix_nano,
            span.end_time_unix_nano,
        )
        assert (record.trace_id, record.span_id) == (span.trace_id, span.span_id)
        assert record.flags == span.flags & 0xFF


def test_severity_is_by_outcome(pairs):
    """ERROR where the span has that status, WARN where nothing was executed, else INFO; each of them is in the batch."""
    found = [record.severity_number for record, _ in pairs]

    assert found == [expected_severity(span) for _, span in pairs]
    assert set(found) == {INFO, WARN, ERROR}


def test_a_body_says_the_call_in_words(pairs):
    """Its name, the first text that there is, and how it failed."""
    assert [record.body.string_value for record, _ in pairs] == [expected_body(span) for _, span in pairs]


def test_a_record_is_an_event(pairs):
    """Its name says what the attributes mean."""
    assert {record.event_name for record, _ in pairs} == {attributes.CALL.name}


def test_without_spans_a_record_names_none():
    """Ids of spans that nobody sends would lead nowhere."""
    for _, record in records_of(encode(has_spans=False)):
        assert (record.trace_id, record.span_id, record.flags) == (b"", b"", 0)


def test_records_are_calls_where_they_are_all_there_is():
    """Beside spans they are counted apart from these, so that each call is counted once."""
    count = len(spans_of_calls())
    beside, alone = encode(bytes_max=2_000), encode(bytes_max=2_000, has_spans=False)

    assert len(beside) > 1
    assert {request.signal for request in beside + alone} == {Signal.LOGS}
    assert counts_of(beside) == (0, count)
    assert counts_of(alone) == (count, 0)


def counts_of(requests: list[Request]) -> tuple[int, int]:
    """Return how many calls and log records requests count."""
    return sum(request.calls for request in requests), sum(request.log_records for request in requests)


def test_what_is_switched_off_is_in_no_body_either():
    """Who does not want paths does not want them in words."""
    rules = ResourceRules(
        AGENT_ATTRIBUTES,
        AttributeSelection((("file.path", False), ("syscall.descriptor.*", False), ("network.*", False))),
    )
    bodies = [record.body.string_value for _, record in records_of(encode(rules))]

    assert not [body for body in bodies if "/" in body]
