"""
What was sent against what a back end has: every field of every span, as plain values that pytest can show.

Both sides become protobuf messages of the official classes first, so neither the agent's JSON nor a back end's is
taken at its word about types.
"""

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from google.protobuf import json_format
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, TracesData

NOTHING = "nothing"  # what `differences` has for a field that one side lacks; no description has a bare text
_IDS = {"traceId", "spanId", "parentSpanId"}


def from_json(document: Mapping[str, Any]) -> TracesData:
    """
    Parse one OTLP JSON object with `resourceSpans`.

    Protobuf's own parser knows all of OTLP's JSON but the ids, which are hexadecimal instead of base64.

    Raises:
        google.protobuf.json_format.ParseError: a field is unknown or of a wrong type.
        ValueError: an id is not hexadecimal.
    """
    return json_format.ParseDict(_with_base64_ids(document), TracesData())


def from_json_lines(path: Path) -> list[TracesData]:
    """Parse the spans of a file of OTLP JSON objects, one a line."""
    objects = map(json.loads, path.read_text().splitlines())
    return [from_json(one) for one in objects if "resourceLogs" not in one]


def logs_from_json_lines(path: Path) -> list[LogsData]:
    """Parse the log records of such a file."""
    objects = map(json.loads, path.read_text().splitlines())
    return [json_format.ParseDict(one, LogsData()) for one in objects if "resourceLogs" in one]


def _with_base64_ids(node: Any) -> Any:
    if isinstance(node, list):
        return [_with_base64_ids(item) for item in node]
    if isinstance(node, dict):
        return {
            key: base64.b64encode(bytes.fromhex(value)).decode() if key in _IDS else _with_base64_ids(value)
            for key, value in node.items()
        }
    return node


def described(messages: Iterable[Any], without: Iterable[str] = ()) -> dict[str, dict[str, Any]]:
    """
    Describe spans in plain values, each complete with its resource and scope.

    Args:
        messages: `TracesData`, or `ExportTraceServiceRequest` (which has the same shape).
        without: fields of the description to leave out.

    Returns:
        From span id (hexadecimal) to the description. Times are nanoseconds since the epoch.

    Raises:
        ValueError: a span is there twice.
    """
    found: dict[str, dict[str, Any]] = {}
    for span, surroundings in _walk(messages):
        span_id = span.span_id.hex()
        if span_id in found:
            raise ValueError(f"span {span_id} ({span.name}) is there twice")
        fields = _span(span) | surroundings
        found[span_id] = {name: field for name, field in fields.items() if name not in set(without)}
    return found


def differences(sent: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """
    Tell what is not the same in two descriptions; pytest takes minutes to show two that have thousands of spans.

    Returns:
        From span id, and the path of fields under it, to what was sent and what was found, or `NOTHING`. Empty when they
        are equal.
    """
    told: dict[str, Any] = {}
    for key in [*sent, *(key for key in found if key not in sent)]:
        one, other = sent.get(key, NOTHING), found.get(key, NOTHING)
        if isinstance(one, dict) and isinstance(other, dict):
            told |= {f"{key} {path}": pair for path, pair in differences(one, other).items()}
        elif one != other:
            told[key] = (one, other)
    return told


def spans_of(messages: Iterable[Any]) -> list[Span]:
    """Return the spans of messages, in their order."""
    return [span for span, _ in _walk(messages)]


def _walk(messages: Iterable[Any]) -> Iterator[tuple[Span, dict[str, Any]]]:
    for message in messages:
        for resource_spans in message.resource_spans:
            resource = {
                "resource": attributes_of(resource_spans.resource.attributes),
                "resource.schema_url": resource_spans.schema_url,
            }
            for scope_spans in resource_spans.scope_spans:
                scope = {
                    "scope": (scope_spans.scope.name, scope_spans.scope.version),
                    "scope.attributes": attributes_of(scope_spans.scope.attributes),
                    "scope.schema_url": scope_spans.schema_url,
                }
                for span in scope_spans.spans:
                    yield span, resource | scope


def _span(span: Span) -> dict[str, Any]:
    return {
        "trace_id": span.trace_id.hex(),
        "parent_span_id": span.parent_span_id.hex(),
        "trace_state": span.trace_state,
        "flags": span.flags,
        "name": span.name,
        "kind": span.kind,
        "start": span.start_time_unix_nano,
        "end": span.end_time_unix_nano,
        "attributes": attributes_of(span.attributes),
        "events": [
            (event.time_unix_nano, event.name, attributes_of(event.attributes)) for event in span.events
        ],
        "links": [
            (link.trace_id.hex(), link.span_id.hex(), link.trace_state, attributes_of(link.attributes))
            for link in span.links
        ],
        "status": (span.status.code, span.status.message),
    }


def attributes_of(attributes: Iterable[KeyValue]) -> dict[str, tuple[str | None, Any]]:
    """
    Describe attributes as a dict from the key to the type's name and the value.

    Raises:
        ValueError: a key is there twice.
    """
    pairs = [(attribute.key, _value(attribute.value)) for attribute in attributes]
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError(f"a key is there twice in {[key for key, _ in pairs]}")
    return result


def _value(value: AnyValue) -> tuple[str | None, Any]:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return kind, [_value(item) for item in value.array_value.values]
    if kind == "kvlist_value":
        return kind, attributes_of(value.kvlist_value.values)
    return kind, None if kind is None else getattr(value, kind)
