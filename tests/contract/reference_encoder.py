"""
A second, slow encoder: calls and spans → OTLP through the OpenTelemetry SDK's own classes.

It follows docs/attributes.md row by row and shares no code with `otel_sysexit.otlp`: names and rules are written out
here. What the SDK cannot express is corrected in `_correct`, each gap with its name.
"""

import errno
import platform
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

import otel_sysexit
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image
from otel_sysexit.traces import Placement, Span

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = InstrumentationScope("otel_sysexit", otel_sysexit.__version__, SCHEMA_URL)
FLAGS = 0x103  # sampled, random trace id, the parent is known to be local
# Names that Python's table has otherwise, or not at all.
ERRNO_NAMES = {35: "EDEADLK", 95: "EOPNOTSUPP", 133: "EHWPOISON", 524: "ENOTSUPP"}
OBSERVED = ("process.", "host.", "os.", "telemetry.", "container.", "k8s.")


def encode(
    calls: Calls, placement: Placement, spans: Sequence[Span], agent_attributes: Mapping[str, str]
) -> ExportTraceServiceRequest:
    """Return everything in one request; *agent_attributes* is the agent's own OTEL_RESOURCE_ATTRIBUTES."""
    resources: dict[Image, Resource] = {}

    def resource_of(image: Image) -> Resource:
        if image not in resources:
            resources[image] = Resource(_resource_attributes(image, agent_attributes), SCHEMA_URL)
        return resources[image]

    readable = [_call_span(calls, placement, row, resource_of) for row in range(len(calls))]
    readable += [_other_span(span, resource_of(span.image)) for span in spans]
    return _correct(encode_spans(readable))


def merge(requests: Iterable[ExportTraceServiceRequest]) -> ExportTraceServiceRequest:
    """
    Return what *requests* say together in one order: Resources and attributes by content, spans by id.

    Raises:
        ValueError: a span or an attribute is there twice.
    """
    found: dict[bytes, tuple] = {}
    for request in requests:
        for resource_spans in request.resource_spans:
            _sort_attributes(resource_spans.resource)
            key = resource_spans.resource.SerializeToString(deterministic=True)
            for scope_spans in resource_spans.scope_spans:
                scope = (
                    scope_spans.scope.SerializeToString(),
                    scope_spans.schema_url,
                    resource_spans.schema_url,
                )
                known = found.setdefault(key + repr(scope).encode(), (resource_spans, scope_spans, {}))
                _collect(scope_spans.spans, known[2])
    merged = ExportTraceServiceRequest()
    for _, (resource_spans, scope_spans, spans) in sorted(found.items()):
        out = merged.resource_spans.add(
            resource=resource_spans.resource, schema_url=resource_spans.schema_url
        )
        out.scope_spans.add(
            scope=scope_spans.scope,
            schema_url=scope_spans.schema_url,
            spans=[span for _, span in sorted(spans.items())],
        )
    return merged


def _collect(spans: Iterable, known: dict[bytes, object]) -> None:
    for span in spans:
        if span.span_id in known:
            raise ValueError(f"the span {span.span_id.hex()} is there twice")
        known[span.span_id] = span
        for part in (span, *span.links):
            _sort_attributes(part)


def _sort_attributes(message: object) -> None:
    keys = [attribute.key for attribute in message.attributes]
    if len(set(keys)) != len(keys):
        raise ValueError(f"a key is there twice: {sorted(keys)}")
    message.attributes.sort(key=lambda attribute: attribute.key)


def _correct(request: ExportTraceServiceRequest) -> ExportTraceServiceRequest:
    """Say what the SDK's encoder does not."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                span.flags = FLAGS  # it leaves out the trace flags
                for link in span.links:
                    link.flags = FLAGS
                    link.trace_state = "ot=th:0"  # it leaves out a link's
                if not span.status.code:
                    span.ClearField("status")  # it writes an empty message for "unset"
    return request


def _context(trace_id: bytes, span_id: int) -> SpanContext:
    """Return a context; our ids are numbers whose little-endian bytes are the span's id."""
    return SpanContext(
        trace_id=int.from_bytes(trace_id, "big"),
        span_id=int.from_bytes(span_id.to_bytes(8, "little"), "big"),
        is_remote=False,
        trace_flags=TraceFlags(0x03),
        trace_state=TraceState([("ot", "th:0")]),
    )


def _call_span(calls: Calls, placement: Placement, row: int, resource_of) -> ReadableSpan:
    thread = calls.threads[calls.thread[row]]
    context = int(placement.context[row])
    trace_id = placement.trace_id[context].tobytes()
    start = int(calls.start_unix_ns[row])
    has_failed = calls.outcome[row] == Outcome.FAILED
    return ReadableSpan(
        name=calls.kinds[calls.kind[row]].name,
        context=_context(trace_id, int(placement.span_id[row])),
        parent=_context(trace_id, int(placement.parent_span_id[context])),
        resource=resource_of(thread.image),
        attributes=dict(_call_attributes(calls, row)),
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if has_failed else StatusCode.UNSET),
        start_time=start,
        end_time=start + int(calls.duration_ns[row]),
        instrumentation_scope=SCOPE,
    )


def _call_attributes(calls: Calls, row: int) -> Iterator[tuple[str, str | int | bool]]:
    kind = calls.kinds[calls.kind[row]]
    yield "syscall.name", kind.name
    yield "syscall.number", kind.number
    yield "syscall.abi", ("x86_64", "i386", "x32", "aarch64", "arm")[kind.abi]
    yield "thread.id", int(calls.tid[row])
    yield "thread.name", calls.threads[calls.thread[row]].name
    yield from _outcome_attributes(calls, row)
    if kind.restarts is not None:
        yield "syscall.restarts", kind.restarts
    if not calls.is_executed[row]:
        yield "syscall.executed", False
    yield from _argument_attributes(calls, row)


def _outcome_attributes(calls: Calls, row: int) -> Iterator[tuple[str, str | int | bool]]:
    outcome = Outcome(calls.outcome[row])
    code = int(calls.errno[row])
    if outcome in (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.BENIGN):
        yield "syscall.return_value", int(calls.ret[row])
    if outcome in (Outcome.FAILED, Outcome.BENIGN):
        yield "syscall.errno", code
    if outcome == Outcome.FAILED:
        yield "error.type", ERRNO_NAMES.get(code) or errno.errorcode.get(code) or str(code)
    if outcome == Outcome.INTERRUPTED:
        yield "syscall.interrupted", True


def _argument_attributes(calls: Calls, row: int) -> Iterator[tuple[str, str | int | bool]]:
    arguments = calls.kinds[calls.kind[row]].arguments
    path_places = [place for place, argument in enumerate(arguments) if argument.is_path]
    texts: dict[int, str] = {}
    is_cut = False
    for column, path_row in enumerate(calls.path_row[row].tolist()):
        if path_row < 0:
            continue
        length = int(calls.paths.length[path_row])
        text = calls.paths.text[path_row, :length].tobytes().decode()
        is_cut |= bool(calls.paths.is_cut[path_row])
        # A call that hands over a path without an argument of that kind has none to name it after.
        texts[path_places[column] if path_places else -1] = text
        yield "file.path" if column == 0 else f"syscall.argument.{arguments[path_places[1]].name}", text
    if is_cut:
        yield "syscall.truncated", True
    if calls.has_args[row]:
        for place, argument in enumerate(arguments):
            if place not in texts:
                yield f"syscall.argument.{argument.name}", int(calls.args[row, place])


def _other_span(span: Span, resource: Resource) -> ReadableSpan:
    """Return a process's or a window's span."""
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id),
        parent=_context(span.trace_id, span.parent_span_id) if span.parent_span_id else None,
        resource=resource,
        attributes=dict(span.attributes),
        links=[Link(_context(link.trace_id, link.span_id), dict(link.attributes)) for link in span.links],
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if span.is_error else StatusCode.UNSET),
        start_time=span.start_unix_ns,
        end_time=span.end_unix_ns,
        instrumentation_scope=SCOPE,
    )


def _resource_attributes(image: Image, agent_attributes: Mapping[str, str]) -> dict[str, str | int]:
    given = {key: value for key, value in agent_attributes.items() if not key.startswith("service.")}
    given |= image.environment_attributes
    found: dict[str, str | int] = {key: value for key, value in given.items() if not key.startswith(OBSERVED)}
    process = image.process
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=process.start_unix_ns // 10**9)
    found |= {
        "service.name": image.service_name or image.executable_name,
        "process.pid": process.pid,
        "process.creation.time": f"{start:%Y-%m-%dT%H:%M:%S}.{process.start_unix_ns % 10**9:09d}Z",
        "process.executable.name": image.executable_name,
        "host.name": socket.gethostname(),
        "host.arch": {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()],
        "os.type": "linux",
        "telemetry.distro.name": "otel_sysexit",
        "telemetry.distro.version": otel_sysexit.__version__,
    }
    optional = {
        "process.parent_pid": process.parent_pid,
        "process.executable.path": image.executable_path,
        "process.command": image.command,
        "process.owner": image.owner,
        "host.id": _machine_id(),
    }
    return found | {key: value for key, value in optional.items() if value is not None}


def _machine_id() -> str | None:
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        if path.is_file() and path.read_text().strip():
            return path.read_text().strip()
    return None
