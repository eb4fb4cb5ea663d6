"""A request with every field of a span set, sent without the agent: what a back end keeps of it, it can keep of ours."""

import contextlib
import http.client
import secrets
import time

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

SCHEMA = "https://opentelemetry.io/schemas/1.44.0"


def full_request(service: str) -> ExportTraceServiceRequest:
    """
    Make a trace of two spans, child and parent, of new ids and of this moment.

    Args:
        service: the resource's `service.name`.
    """
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add(schema_url=SCHEMA)
    resource_spans.resource.attributes.add(key="service.name").value.string_value = service
    resource_spans.resource.attributes.add(key="process.pid").value.int_value = 4242
    arguments = resource_spans.resource.attributes.add(key="process.command_args").value.array_value
    for argument in ("ls", "-l"):
        arguments.values.add(string_value=argument)
    scope_spans = resource_spans.scope_spans.add(schema_url=SCHEMA)
    scope_spans.scope.name, scope_spans.scope.version = "otel_sysexit", "0.1"
    parent = _span("ls", secrets.token_bytes(16))
    child = _span("openat", parent.trace_id, parent.span_id)
    parent.end_time_unix_nano = child.end_time_unix_nano + 1
    child.links.add(
        trace_id=secrets.token_bytes(16), span_id=secrets.token_bytes(8), trace_state="ot=th:8"
    ).attributes.add(key="link").value.string_value = "previous"
    child.events.add(time_unix_nano=child.start_time_unix_nano + 1, name="signal").attributes.add(
        key="signal"
    ).value.int_value = 17
    child.status.code, child.status.message = Status.STATUS_CODE_ERROR, "No such file or directory"
    scope_spans.spans.extend([parent, child])
    return request


def _span(name: str, trace_id: bytes, parent_span_id: bytes = b"") -> Span:
    """Make a span of 501 ns that carries attributes of all types the agent uses, at their limits."""
    start = time.time_ns()
    span = Span(
        name=name,
        trace_id=trace_id,
        span_id=secrets.token_bytes(8),
        parent_span_id=parent_span_id,
        trace_state="ot=th:0",
        flags=0x103,
        kind=Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=start,
        end_time_unix_nano=start + 501,
    )
    for number in (-(2**63), -2, -1, 0, 1, 2**53 + 1, 2**63 - 1):
        span.attributes.add(key=f"int.{number}").value.int_value = number
    for text in ("", "/etc/hosts", "naïve \U0001f40d \N{REPLACEMENT CHARACTER}", "x" * 4096):
        span.attributes.add(key=f"text.{len(text)}").value.string_value = text
    span.attributes.add(key="yes").value.bool_value = True
    span.attributes.add(key="no").value.bool_value = False
    span.attributes.add(key="third").value.double_value = 1 / 3
    return span


def send(request: ExportTraceServiceRequest, endpoint: str, protocol: str) -> None:
    """Send a request by `grpc` or `http/protobuf`; raise what the library raises, or an OSError for a refusal."""
    body = request.SerializeToString()
    address = endpoint.partition("//")[2]
    if protocol == "grpc":
        with grpc.insecure_channel(address) as channel:
            channel.unary_unary("/opentelemetry.proto.collector.trace.v1.TraceService/Export")(
                body, timeout=10
            )
        return
    with contextlib.closing(http.client.HTTPConnection(address, timeout=10)) as connection:
        connection.request("POST", "/v1/traces", body, {"Content-Type": "application/x-protobuf"})
        status = connection.getresponse().status
    if status != 200:
        raise OSError(status)
