"""
OTLP JSON lines (`-o FILE.jsonl`) as small dataclasses, for tests: spans and log records.

Read with the standard library only, so that a test judges the product's output by itself. Each line
is one `ExportTraceServiceRequest` or `ExportLogsServiceRequest` in OTLP's JSON form: ids in hex, 64-bit integers as strings,
enumerations as integers. Whatever is of another type than the format says raises here.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

STATUS_UNSET = 0
STATUS_ERROR = 2


@dataclass(frozen=True)
class Link:
    """A span's link to a span of another trace."""

    trace_id: str
    span_id: str
    attributes: dict[str, Any]


@dataclass(frozen=True)
class Span:
    """
    One span with the resource and scope it came under.

    `start` and `end` are nanoseconds since the epoch; ids are lower-case hex, `parent_id` is empty
    for a root.
    """

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    kind: int
    flags: int
    trace_state: str
    status: int
    status_message: str
    attributes: dict[str, Any]
    links: tuple[Link, ...]
    resource: dict[str, Any] = field(repr=False)
    resource_schema: str = field(repr=False)
    scope: str = field(repr=False)
    scope_schema: str = field(repr=False)

    @property
    def is_call(self) -> bool:
        """Whether this is a system call's span, and not a process's or a window's."""
        return "syscall.name" in self.attributes

    @property
    def duration(self) -> int:
        """The span's length in nanoseconds."""
        return self.end - self.start

    @property
    def number(self) -> int | None:
        """The call's number in its ABI's table."""
        return self.attributes.get("syscall.number")

    @property
    def abi(self) -> str | None:
        """The name of the ABI that the call was made for."""
        return self.attributes.get("syscall.abi")

    @property
    def tid(self) -> int | None:
        """The id of the thread that made the call, as it was at the call's enter."""
        return self.attributes.get("thread.id")

    @property
    def pid(self) -> int | None:
        """The process's id, from the resource."""
        return self.resource.get("process.pid")

    @property
    def return_value(self) -> int | None:
        """What the call returned, or None where user space could not see a value."""
        return self.attributes.get("syscall.return_value")

    @property
    def errno(self) -> int | None:
        """The failed call's positive errno, else None."""
        return self.attributes.get("syscall.errno")

    @property
    def error_type(self) -> str | None:
        """The attribute `error.type`: an errno's or a signal's name."""
        return self.attributes.get("error.type")

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal interrupted the call."""
        return self.attributes.get("syscall.interrupted", False)

    @property
    def is_executed(self) -> bool:
        """Whether the kernel ran the call at all."""
        return self.attributes.get("syscall.executed", True)

    def argument(self, name: str) -> Any:
        """Return the call's argument of this kernel name, None if there is none."""
        return self.attributes.get(f"syscall.argument.{name}")


@dataclass(frozen=True)
class LogRecord:
    """One log record with the resource and scope it came under; times are nanoseconds since the epoch."""

    event: str
    time: int
    observed: int
    severity: int
    body: str
    attributes: dict[str, Any]
    resource: dict[str, Any] = field(repr=False)
    resource_schema: str = field(repr=False)
    scope: str = field(repr=False)
    scope_schema: str = field(repr=False)
    trace_id: str = ""
    span_id: str = ""


def read_spans(path: Path) -> list[Span]:
    """Read all spans of a file of OTLP JSON lines, in the file's order."""
    requests = map(json.loads, path.read_text().splitlines())
    return [span for request in requests if "resourceLogs" not in request for span in parse_spans(request)]


def read_log_records(path: Path) -> list[LogRecord]:
    """Read all log records of a file of OTLP JSON lines, in the file's order; half a line at its end is none yet."""
    lines = [line for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
    requests = map(json.loads, lines)
    return [
        record for request in requests if "resourceLogs" in request for record in parse_log_records(request)
    ]


def parse_log_records(request: dict[str, Any]) -> Iterable[LogRecord]:
    """Yield the log records of one decoded `ExportLogsServiceRequest`."""
    for of_resource in request["resourceLogs"]:
        resource = parse_attributes(of_resource["resource"]["attributes"])
        for of_scope in of_resource["scopeLogs"]:
            for record in of_scope["logRecords"]:
                yield LogRecord(
                    event=record["eventName"],
                    time=_integer(record["timeUnixNano"]),
                    observed=_integer(record["observedTimeUnixNano"]),
                    severity=record["severityNumber"],
                    body=_value(record["body"]),
                    attributes=parse_attributes(record["attributes"]),
                    resource=resource,
                    resource_schema=of_resource["schemaUrl"],
                    scope=of_scope["scope"]["name"],
                    scope_schema=of_scope["schemaUrl"],
                    trace_id=_id(record.get("traceId", ""), 16),
                    span_id=_id(record.get("spanId", ""), 8),
                )


def parse_spans(request: dict[str, Any]) -> Iterable[Span]:
    """Yield the spans of one decoded `ExportTraceServiceRequest`."""
    for of_resource in request["resourceSpans"]:
        resource = parse_attributes(of_resource["resource"]["attributes"])
        for of_scope in of_resource["scopeSpans"]:
            for span in of_scope["spans"]:
                yield _parse_span(span, resource, of_resource, of_scope)


def _parse_span(span, resource, of_resource, of_scope) -> Span:
    status = span.get("status", {})
    return Span(
        name=span["name"],
        trace_id=_id(span["traceId"], 16),
        span_id=_id(span["spanId"], 8),
        parent_id=_id(span.get("parentSpanId", ""), 8),
        start=_integer(span["startTimeUnixNano"]),
        end=_integer(span["endTimeUnixNano"]),
        kind=span["kind"],
        flags=span.get("flags", 0),
        trace_state=span.get("traceState", ""),
        status=status.get("code", STATUS_UNSET),
        status_message=status.get("message", ""),
        attributes=parse_attributes(span.get("attributes", [])),
        links=tuple(
            Link(
                _id(link["traceId"], 16), _id(link["spanId"], 8), parse_attributes(link.get("attributes", []))
            )
            for link in span.get("links", [])
        ),
        resource=resource,
        resource_schema=of_resource.get("schemaUrl", ""),
        scope=of_scope.get("scope", {}).get("name", ""),
        scope_schema=of_scope.get("schemaUrl", ""),
    )


def parse_attributes(attributes: list[dict[str, Any]]) -> dict[str, Any]:
    """Return OTLP key-values as a dict; a key that comes twice is an error."""
    parsed = {each["key"]: _value(each["value"]) for each in attributes}
    if len(parsed) != len(attributes):
        raise ValueError(f"a key comes twice in {[each['key'] for each in attributes]}")
    return parsed


def _value(value: dict[str, Any]) -> Any:
    """Return an OTLP `AnyValue` as the Python value it stands for."""
    ((kind, content),) = value.items()
    if kind == "intValue":
        return _integer(content)
    if kind == "arrayValue":
        return [_value(each) for each in content.get("values", [])]
    if kind == "kvlistValue":
        return parse_attributes(content.get("values", []))
    expected = {"stringValue": str, "boolValue": bool, "doubleValue": float}[kind]
    if not isinstance(content, expected):
        raise TypeError(f"{kind} holds {content!r}")
    return content


def _integer(text: Any) -> int:
    """Return a 64-bit integer, which OTLP's JSON writes as a string."""
    if not isinstance(text, str):
        raise TypeError(f"a 64-bit integer must be a string, not {text!r}")
    return int(text)


def _id(text: str, size: int) -> str:
    """Check an id's form: so many bytes in hex, or nothing at all."""
    if text and (len(bytes.fromhex(text)) != size or text != text.lower()):
        raise ValueError(f"{text!r} is no id of {size} bytes")
    return text
