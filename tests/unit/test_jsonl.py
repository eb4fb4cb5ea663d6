import base64
import json
from pathlib import Path

import pytest
from contract import reference_encoder
from google.protobuf.json_format import ParseDict
from made_calls import START_UNIX_NS, Made, make_calls, make_process
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from otlp_json import STATUS_ERROR, STATUS_UNSET, read_log_records, read_spans

from otel_sysexit.calls import Outcome
from otel_sysexit.config import Config
from otel_sysexit.errors import AgentError
from otel_sysexit.otlp.export import Batch, Exporter
from otel_sysexit.otlp.jsonl import LINE_BYTES_MAX, JsonLinesFile
from otel_sysexit.otlp.logs import encode_in_flight
from otel_sysexit.otlp.request import Request
from otel_sysexit.otlp.resources import ResourceRules
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.otlp.transport import NOT_SENT, Answer
from otel_sysexit.stuck import CallInFlight
from otel_sysexit.syscalls import Kinds
from otel_sysexit.traces import Spans
from otel_sysexit.trees import Tree
from otel_sysexit.windows import Windows

LINE_LIMIT = 1 << 20  # what the Collector's file receiver reads by default
MADE = [
    Made("openat", (-100, 2**64 - 1, 0, 0), -2, Outcome.FAILED, ('/ä\n\x01"\\'.encode(),)),
    Made("mmap", (0,), -(2**63)),
    Made("read", (3,), 2**63 - 1, duration_ns=7),
]


def make_requests(*made: Made, bytes_max: int = LINE_BYTES_MAX) -> list[Request]:
    """Return requests with calls, and with windows that are linked."""
    windows = Windows()
    for _ in range(2):
        calls = make_calls(*made)
        placement = windows.place(calls)
        windows.finish([], START_UNIX_NS)
    return list(SpanEncoder().encode(calls, placement, windows.take_spans(), bytes_max))


def write(path: Path, requests: list[Request]) -> None:
    """Write *requests* to a file."""
    file = JsonLinesFile(str(path))
    assert all(file.send(request).is_delivered for request in requests)
    file.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where to write."""
    return tmp_path / "spans.jsonl"


def to_message(line: str) -> ExportTraceServiceRequest:
    """Return what a line says, by protobuf's own JSON, which has ids in base64."""

    def with_base64(value: object) -> object:
        if isinstance(value, dict):
            return {
                key: base64.b64encode(bytes.fromhex(item)).decode()
                if key in ("traceId", "spanId", "parentSpanId")
                else with_base64(item)
                for key, item in value.items()
            }
        return [with_base64(item) for item in value] if isinstance(value, list) else value

    return ParseDict(with_base64(json.loads(line)), ExportTraceServiceRequest())


def test_a_line_says_what_the_request_says(path):
    """Each request is one line, which means the same message."""
    requests = make_requests(*MADE, bytes_max=100)
    write(path, requests)
    lines = path.read_text().splitlines()
    messages = [ExportTraceServiceRequest.FromString(request.body) for request in requests]

    assert len(lines) == len(requests) > 1
    assert reference_encoder.merge(map(to_message, lines)) == reference_encoder.merge(messages)


def test_the_form_is_otlps(path):
    """Ids are hex, enums are integers, 64-bit integers are strings, names are in lower camel case."""
    write(path, make_requests(*MADE))
    (resource_spans,) = json.loads(path.read_text())["resourceSpans"]
    (scope_spans,) = resource_spans["scopeSpans"]
    failed = next(span for span in scope_spans["spans"] if span["name"] == "openat")
    values = {each["key"]: each["value"] for each in failed["attributes"]}

    assert set(resource_spans) == {"resource", "scopeSpans", "schemaUrl"}
    assert (len(failed["traceId"]), len(failed["spanId"]), len(failed["parentSpanId"])) == (32, 16, 16)
    assert (failed["kind"], failed["status"], failed["flags"]) == (1, {"code": 2}, 0x103)
    assert failed["startTimeUnixNano"] == str(START_UNIX_NS)
    assert values["syscall.return_value"] == {"intValue": "-2"}
    assert values["syscall.errno"] == {"intValue": "2"}
    assert values["file.path"] == {"stringValue": '/ä\n\x01"\\'}


def test_another_reader_understands_it(path):
    """Spans come back with ids, times, results, status and links."""
    write(path, make_requests(*MADE))
    spans = {span.name: span for span in read_spans(path) if span.is_call}
    roots = [span for span in read_spans(path) if not span.is_call]

    assert set(spans) == {made.call for made in MADE}
    assert (spans["mmap"].return_value, spans["read"].return_value) == (-(2**63), 2**63 - 1)
    assert (spans["openat"].status, spans["read"].status) == (STATUS_ERROR, STATUS_UNSET)
    assert spans["read"].duration == 7
    assert spans["openat"].argument("dfd") == "AT_FDCWD"
    assert spans["openat"].argument("mode") == 0
    assert roots[1].links[0].span_id == roots[0].span_id
    assert spans["openat"].parent_id == roots[1].span_id


def test_log_records_are_lines_of_their_own(path):
    """A request of log records is one line beside those of spans, and means the same message."""
    thread = make_calls(Made("read")).threads[0]
    call = CallInFlight(thread, Kinds()[0], START_UNIX_NS, 1_500_000_000)
    (request,) = encode_in_flight([call], START_UNIX_NS + 1_500_000_000, ResourceRules(), is_stuck=True)
    requests = make_requests(*MADE)
    write(path, [request, *requests])
    line = path.read_text().splitlines()[0]
    (record,) = read_log_records(path)

    assert ParseDict(json.loads(line), ExportLogsServiceRequest()) == ExportLogsServiceRequest.FromString(
        request.body
    )
    assert (record.severity, record.time, record.attributes["syscall.elapsed"]) == (
        13,
        START_UNIX_NS + 1_500_000_000,
        1.5,
    )
    assert len(read_spans(path)) == sum(one.calls + one.spans for one in requests)


def test_text_is_utf_8(path):
    """What is not ASCII stays readable."""
    process = make_process(7, "déjà vu", end_unix_ns=START_UNIX_NS)
    tree = Tree()
    tree.end([process])
    calls = make_calls()
    write(path, list(SpanEncoder().encode(calls, tree.place(calls), tree.take_spans())))

    assert "déjà vu".encode() in path.read_bytes()


def test_an_old_file_is_replaced(path):
    """A run's file holds that run only."""
    path.write_text("old")
    write(path, [])

    assert path.read_text() == ""


def test_lines_are_short_enough_for_the_collector(path):
    """A request of the size that is used for files is a line of less than 1 MiB, whatever its texts."""
    worst = Made("rename", (1, 2), 0, paths=(b"\x01" * 255, b"\x02" * 255))
    write(path, make_requests(*[worst] * 1000))
    lines = path.read_bytes().splitlines()

    assert len(lines) > 1
    assert max(map(len, lines)) < LINE_LIMIT


def test_what_cannot_be_opened_is_said(tmp_path):
    """A file that cannot be written is an error of one line, before anything is traced."""
    with pytest.raises(AgentError, match=r"cannot write .*: Is a directory"):
        JsonLinesFile(str(tmp_path))


def test_a_full_disk_is_said_for_every_request():
    """What did not fit on the disk is not delivered; closing is no trouble."""
    file = JsonLinesFile("/dev/full")
    answers = [file.send(request) for request in make_requests(*MADE, bytes_max=100)]
    file.close()

    assert {(answer.is_delivered, answer.is_retryable, answer.reason) for answer in answers} == {
        (False, False, "No space left on device")
    }


def test_after_closing_nothing_is_written(path):
    """A request that comes too late is not delivered."""
    file = JsonLinesFile(str(path))
    file.close()
    (request,) = make_requests(*MADE)

    assert not file.send(request).is_delivered
    assert path.read_text() == ""


def test_the_ledger_counts_a_full_disk():
    """Through the exporter, every call that found no room on the disk is accounted for."""
    calls = make_calls(*MADE)
    exporter = Exporter("/dev/full", lambda: JsonLinesFile("/dev/full"), Config(), bytes_max=LINE_BYTES_MAX)
    exporter.add(Batch(calls, Tree().place(calls), Spans()))
    exporter.close()

    assert (exporter.calls.delivered, dict(exporter.calls.undelivered)) == (0, {"No space left on device": 3})


def test_what_comes_after_the_end_was_not_sent(tmp_path):
    """A line that is still being made when the file is closed has a reason that says so, not what Python says of files."""
    file = JsonLinesFile(str(tmp_path / "spans.jsonl"))
    file.close()

    assert file.send(Request(b"")) == Answer(is_delivered=False, reason=NOT_SENT)
