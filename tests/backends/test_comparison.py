"""The comparison that the back-end tests rest on: it sees every difference, and only those."""

import json

import pytest
from backends.comparison import NOTHING, attributes_of, described, differences, from_json, from_json_lines
from backends.specimen import full_request
from google.protobuf.json_format import ParseError
from opentelemetry.proto.common.v1.common_pb2 import KeyValue

CHANGES = {
    "trace_id": lambda spans: setattr(spans.scope_spans[0].spans[1], "trace_id", bytes(16)),
    "parent_span_id": lambda spans: spans.scope_spans[0].spans[1].ClearField("parent_span_id"),
    "trace_state": lambda spans: spans.scope_spans[0].spans[1].ClearField("trace_state"),
    "flags": lambda spans: setattr(spans.scope_spans[0].spans[1], "flags", 0x101),
    "name": lambda spans: setattr(spans.scope_spans[0].spans[1], "name", "open"),
    "kind": lambda spans: setattr(spans.scope_spans[0].spans[1], "kind", 3),
    "start": lambda spans: setattr(spans.scope_spans[0].spans[1], "start_time_unix_nano", 1),
    "end": lambda spans: setattr(spans.scope_spans[0].spans[1], "end_time_unix_nano", 1),
    "attributes": lambda spans: setattr(
        spans.scope_spans[0].spans[1].attributes[0].value, "string_value", "-1"
    ),
    "events": lambda spans: spans.scope_spans[0].spans[1].events[0].ClearField("attributes"),
    "links": lambda spans: spans.scope_spans[0].spans[1].links[0].ClearField("attributes"),
    "status": lambda spans: spans.scope_spans[0].spans[1].status.ClearField("message"),
    "resource": lambda spans: setattr(spans.resource.attributes[1].value, "int_value", 4243),
    "resource.schema_url": lambda spans: spans.ClearField("schema_url"),
    "scope": lambda spans: spans.scope_spans[0].scope.ClearField("version"),
    "scope.attributes": lambda spans: spans.scope_spans[0].scope.attributes.add(key="new"),
    "scope.schema_url": lambda spans: spans.scope_spans[0].ClearField("schema_url"),
}


@pytest.fixture(params=CHANGES)
def changed(request) -> tuple[str, str, dict, dict]:
    """A field's name, the id of the one span it is changed in, and the description of all before and after."""
    specimen = full_request("specimen")
    before = described([specimen])
    span_id = specimen.resource_spans[0].scope_spans[0].spans[1].span_id.hex()
    CHANGES[request.param](specimen.resource_spans[0])
    return request.param, span_id, before, described([specimen])


def test_each_field_is_compared(changed):
    """A change in one field shows in the description of that field and in no other."""
    field, span_id, before, after = changed

    assert [name for name in before[span_id] if before[span_id][name] != after[span_id][name]] == [field]


def test_every_described_field_has_a_change():
    """The list of changes above leaves no described field out."""
    (fields,) = {tuple(span) for span in described([full_request("specimen")]).values()}

    assert sorted(fields) == sorted(CHANGES)


def test_a_change_is_the_only_difference(changed):
    """Of two descriptions the differences tell the one field of the one span that changed, and equal ones have none."""
    field, span_id, before, after = changed
    paths = {" ".join(path.split()[:2]) for path in differences(before, after) if path.startswith(span_id)}

    assert paths == {f"{span_id} {field}"}
    assert differences(before, before) == {}


def test_a_missing_span_is_a_difference():
    """A span that only one side has is told from either side."""
    spans = described([full_request("specimen")])
    (key, *_) = spans
    fewer = {other: span for other, span in spans.items() if other != key}

    assert differences(spans, fewer) == {key: (spans[key], NOTHING)}
    assert differences(fewer, spans) == {key: (NOTHING, spans[key])}


def test_a_field_can_be_left_out():
    """What a back end has no place for is left out of the description."""
    (span, _) = described([full_request("specimen")], without=["resource.schema_url"]).values()

    assert "resource.schema_url" not in span


def test_a_span_that_is_there_twice_is_an_error():
    """A span delivered twice does not hide behind its id."""
    request = full_request("specimen")

    with pytest.raises(ValueError, match="is there twice"):
        described([request, request])


def test_a_key_that_is_there_twice_is_an_error():
    """Two attributes of one key do not hide behind each other."""
    with pytest.raises(ValueError, match="is there twice"):
        attributes_of([KeyValue(key="fd"), KeyValue(key="fd")])


def test_json_lines_mean_the_same_as_protobuf(tmp_path):
    """OTLP JSON, with hexadecimal ids and 64-bit numbers as text, is read as the equal protobuf message."""
    attribute = {"key": "syscall.return_value", "value": {"intValue": "-9223372036854775808"}}
    span = {
        "traceId": "0af7651916cd43dd8448eb211c80319c",
        "spanId": "b7ad6b7169203331",
        "name": "read",
        "kind": 1,
        "startTimeUnixNano": "1800000000000000001",
        "attributes": [attribute],
    }
    file = tmp_path / "spans.jsonl"
    file.write_text(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}) + "\n")

    (found,) = from_json_lines(file)[0].resource_spans[0].scope_spans[0].spans
    assert (found.trace_id.hex(), found.span_id.hex()) == (span["traceId"], span["spanId"])
    assert (found.name, found.kind, found.start_time_unix_nano) == ("read", 1, 1_800_000_000_000_000_001)
    assert attributes_of(found.attributes) == {"syscall.return_value": ("int_value", -(2**63))}


def test_json_with_an_unknown_field_is_refused():
    """A field that OTLP does not have is an error, not overlooked."""
    with pytest.raises(ParseError, match="spanName"):
        from_json({"resourceSpans": [{"scopeSpans": [{"spans": [{"spanName": "read"}]}]}]})
