"""
A second, slow encoder: calls and spans → OTLP through the OpenTelemetry SDK's own classes.

It follows docs/attributes.md row by row and shares no code with `otel_sysexit.otlp`: names and rules are written out
here. What the SDK cannot express is corrected in `_correct`, each gap with its name.
"""

import errno
import platform
import re
import socket
import uuid
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

import otel_sysexit
from otel_sysexit.addresses import Family
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image
from otel_sysexit.propagation import TraceContext
from otel_sysexit.texts import Texts
from otel_sysexit.traces import Owner, Placement, Span, Spans

Attribute: TypeAlias = tuple[str, str | int | float | bool]

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SCOPE = InstrumentationScope("otel_sysexit", otel_sysexit.__version__, SCHEMA_URL)
# Names that Python's table has otherwise, or not at all.
ERRNO_NAMES = {35: "EDEADLK", 95: "EOPNOTSUPP", 133: "EHWPOISON", 524: "ENOTSUPP"}
OBSERVED = ("process.", "otel_sysexit.", "host.", "os.", "telemetry.", "container.", "k8s.")


def encode(
    calls: Calls,
    placement: Placement,
    spans: Spans,
    agent_attributes: Mapping[str, str],
    starter: TraceContext | None = None,
) -> ExportTraceServiceRequest:
    """
    Return everything in one request.

    *agent_attributes* is the agent's own OTEL_RESOURCE_ATTRIBUTES, *starter* what calls in the trace of who started the command
    have of it.
    """
    resources: dict[Image, Resource] = {}

    def resource_of(image: Image) -> Resource:
        if image not in resources:
            resources[image] = Resource(_resource_attributes(image, agent_attributes), SCHEMA_URL)
        return resources[image]

    readable = [_call_span(calls, placement, row, resource_of, starter) for row in range(len(calls))]
    readable += [_other_span(span, resource_of(span.image)) for span in spans]
    flags = {
        int(span_id).to_bytes(8, "little"): 0x103 for span_id in placement.span_id
    }  # sampled, random, known to be local
    for span_id, context in zip(placement.span_id, placement.context, strict=True):
        owner = _owner(placement, context)
        if owner == Owner.STARTER and starter:
            flags[int(span_id).to_bytes(8, "little")] = 0x100 | starter.trace_flags
        elif owner == Owner.APPLICATION:  # whether its trace's id is random is not known
            flags[int(span_id).to_bytes(8, "little")] = 0x101
    for span in spans:
        flags[span.span_id.to_bytes(8, "little")] = 0x100 | span.trace_flags | 0x200 * span.is_parent_remote
    others = {span.span_id.to_bytes(8, "little"): span for span in spans}
    return _correct(encode_spans(readable), others, flags)


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


def _correct(
    request: ExportTraceServiceRequest, others: Mapping[bytes, Span], flags: Mapping[bytes, int]
) -> ExportTraceServiceRequest:
    """Say what the SDK's encoder does not; *others* are the spans that are no calls, *flags* those of all, by id."""
    for resource_spans in request.resource_spans:
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                span.flags = flags[span.span_id]  # it leaves out the trace flags
                given = others[span.span_id].links if span.links else ()
                for link, known in zip(span.links, given, strict=True):
                    link.flags = 0x100 | known.trace_flags | 0x200 * known.is_remote
                    link.trace_state = known.trace_state  # it leaves out a link's
                if not span.status.code:
                    span.ClearField("status")  # it writes an empty message for "unset"
    return request


def _context(trace_id: bytes, span_id: int, trace_state: str) -> SpanContext:
    """Return a context; our ids are numbers whose little-endian bytes are the span's id."""
    return SpanContext(
        trace_id=int.from_bytes(trace_id, "big"),
        span_id=int.from_bytes(span_id.to_bytes(8, "little"), "big"),
        is_remote=False,
        trace_flags=TraceFlags(0x03),
        trace_state=TraceState.from_header([trace_state]),
    )


def _owner(placement: Placement, context: int) -> Owner:
    return Owner.US if placement.owner is None else Owner(placement.owner[context])


def _call_span(
    calls: Calls, placement: Placement, row: int, resource_of, starter: TraceContext | None
) -> ReadableSpan:
    thread = calls.threads[calls.thread[row]]
    context = int(placement.context[row])
    is_starters = starter is not None and _owner(placement, context) == Owner.STARTER
    state = starter.trace_state if is_starters else f"ot=th:{_threshold_digits(calls, row)}"
    trace_id = placement.trace_id[context].tobytes()
    parent = int(placement.parent_span_id[context])
    start = int(calls.start_unix_ns[row])
    has_failed = calls.outcome[row] == Outcome.FAILED
    return ReadableSpan(
        name=calls.kinds[calls.kind[row]].name,
        context=_context(trace_id, int(placement.span_id[row]), state),
        parent=_context(trace_id, parent, state) if parent else None,
        resource=resource_of(thread.image),
        attributes=dict(_call_attributes(calls, row)),
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if has_failed else StatusCode.UNSET),
        start_time=start,
        end_time=start + int(calls.duration_ns[row]),
        instrumentation_scope=SCOPE,
    )


def _threshold_digits(calls: Calls, row: int) -> str:
    """Return the 56-bit threshold as specified: 14 hexadecimal digits, those at the end left out that are 0."""
    rejected = int(calls.threshold[row]) << 24
    return "0" if rejected == 0 else re.sub("0*$", "", f"{rejected:014x}")


def _call_attributes(calls: Calls, row: int) -> Iterator[Attribute]:
    kind = calls.kinds[calls.kind[row]]
    yield "syscall.name", kind.name
    yield "syscall.number", kind.number
    yield "syscall.abi", ("x86_64", "i386", "x32", "aarch64", "arm")[kind.abi]
    yield "thread.id", int(calls.tid[row])
    yield "thread.name", calls.threads[calls.thread[row]].name
    yield from _outcome_attributes(calls, row)
    if calls.threshold[row]:
        yield "syscall.sampling.probability", float(1 - Fraction(int(calls.threshold[row]), 2**32))
    if kind.restarts is not None:
        yield "syscall.restarts", kind.restarts
    if not calls.is_executed[row]:
        yield "syscall.executed", False
    yield from _path_attributes(calls, row)
    yield from _argument_attributes(calls, row)
    yield from _address_attributes(calls, row)


def _outcome_attributes(calls: Calls, row: int) -> Iterator[Attribute]:
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


def _text_of(texts: Texts, row: int) -> str | None:
    return None if row < 0 else texts.text[row, : texts.length[row]].tobytes().decode()


def _path_attributes(calls: Calls, row: int) -> Iterator[Attribute]:
    """Yield what is known of paths and descriptors."""
    arguments = calls.kinds[calls.kind[row]].arguments
    path_names = [argument.name for argument in arguments if argument.is_path]
    descriptor_names = [argument.name for argument in arguments if argument.is_descriptor]
    first, second = (_text_of(calls.paths, found) for found in calls.path_row[row].tolist())
    files = [_text_of(calls.files, found) for found in calls.file_row[row].tolist()]
    means_descriptor = first == "" or not path_names
    if means_descriptor and files[0] is not None and files[0].startswith("/"):
        yield "file.path", files[0]
        files[0] = None
    elif first is not None:
        yield "file.path", first
    if second is not None:
        yield f"syscall.argument.{path_names[1]}", second
    for name, file in zip(descriptor_names, files, strict=False):
        if file is not None:
            yield f"syscall.descriptor.{name}", file
    named = [(calls.paths, found) for found in calls.path_row[row].tolist()]
    named += [(calls.files, found) for found in calls.file_row[row].tolist()]
    if any(texts.is_cut[found] for texts, found in named if found >= 0):
        yield "syscall.truncated", True


def _argument_attributes(calls: Calls, row: int) -> Iterator[Attribute]:
    """Yield the arguments but for paths that were read: as text where there is one, else as numbers."""
    if not calls.has_args[row]:
        return
    arguments = calls.kinds[calls.kind[row]].arguments
    path_places = [place for place, argument in enumerate(arguments) if argument.is_path]
    read = {
        place for place, found in zip(path_places, calls.path_row[row].tolist(), strict=False) if found >= 0
    }
    texts = calls.argument_texts[calls.argument_text[row]]
    for place, argument in enumerate(arguments):
        text = texts[place]
        if place not in read:
            yield f"syscall.argument.{argument.name}", int(calls.args[row, place]) if text is None else text


def _address_attributes(calls: Calls, row: int) -> Iterator[Attribute]:
    found = int(calls.address_row[row])
    if found < 0:
        return
    family = Family(calls.addresses.family[found])
    end = "local" if calls.kinds[calls.kind[row]].name in ("bind", "getsockname") else "peer"
    yield f"network.{end}.address", _text_of(calls.addresses.texts, found)
    if family == Family.UNIX:
        yield "network.transport", "unix"
    else:
        yield f"network.{end}.port", int(calls.addresses.port[found])
        yield "network.type", {Family.IPV4: "ipv4", Family.IPV6: "ipv6"}[family]


def _other_span(span: Span, resource: Resource) -> ReadableSpan:
    """Return a process's or a window's span."""
    return ReadableSpan(
        name=span.name,
        context=_context(span.trace_id, span.span_id, span.trace_state),
        parent=_context(span.trace_id, span.parent_span_id, "") if span.parent_span_id else None,
        resource=resource,
        attributes=dict(span.attributes),
        links=[
            Link(_context(link.trace_id, link.span_id, link.trace_state), dict(link.attributes))
            for link in span.links
        ],
        kind=SpanKind.INTERNAL,
        status=Status(StatusCode.ERROR if span.is_error else StatusCode.UNSET),
        start_time=span.start_unix_ns,
        end_time=span.end_unix_ns,
        instrumentation_scope=SCOPE,
    )


def _resource_attributes(
    image: Image, agent_attributes: Mapping[str, str]
) -> dict[str, str | int | tuple[str, ...]]:
    given = {key: value for key, value in agent_attributes.items() if not key.startswith("service.")}
    given |= image.environment_attributes | image.context_attributes
    found: dict[str, str | int | tuple[str, ...]] = {
        key: value for key, value in given.items() if not key.startswith(OBSERVED)
    }
    process = image.process
    start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=process.start_unix_ns // 10**9)
    found |= {
        "service.name": image.context_attributes.get("service.name")
        or image.service_name
        or image.executable_name,
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
        "process.command_args": image.command_args or None,
        "process.linux.cgroup": image.cgroup_line,
        "process.owner": image.owner,
        "process.user.id": image.user_id,
        "process.real_user.id": None if image.real_user_id == image.user_id else image.real_user_id,
        "otel_sysexit.process.group.id": image.group_id,
        "otel_sysexit.process.real_group.id": None
        if image.real_group_id == image.group_id
        else image.real_group_id,
        "process.vpid": None if process.vpid == process.pid else process.vpid,
        "container.id": image.container_id,
        "k8s.pod.uid": image.pod_uid,
        "host.id": _machine_id(),
    }
    found.setdefault("service.instance.id", _instance_id(image))
    return found | {key: value for key, value in optional.items() if value is not None}


def _instance_id(image: Image) -> str:
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    name = ":".join(map(str, (_machine_id() or "", boot_id, image.process.pid, image.process.start_ticks)))
    return str(uuid.uuid5(uuid.UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320"), name))


def _machine_id() -> str | None:
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        if path.is_file() and path.read_text().strip():
            return path.read_text().strip()
    return None
