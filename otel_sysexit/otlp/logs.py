"""
Calls in flight → ExportLogsServiceRequest bodies: an event for each, below the Resource of the program that made it.

They are few, so the official protobuf classes make them one by one.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope
from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_WARN,
    LogRecord,
    ResourceLogs,
    ScopeLogs,
)
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_sysexit import __version__
from otel_sysexit import attributes as names
from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.identity import Image
from otel_sysexit.otlp.request import Request, Signal
from otel_sysexit.otlp.resources import ResourceRules, encode_resource, iso_8601, key_value
from otel_sysexit.stuck import CallInFlight

_REQUEST_BYTES_MAX: Final = 128 << 10
"""As JSON a line that the Collector's file receiver still reads, and far below what gRPC servers accept."""

_PIECE_RECORDS_MAX: Final = 100


def encode_in_flight(
    calls: Sequence[CallInFlight], now_unix_ns: int, rules: ResourceRules, *, is_stuck: bool
) -> Iterator[Request]:
    """
    Yield requests of about 128 KiB at most.

    Args:
        calls: What to report.
        now_unix_ns: When they were in flight.
        rules: As for spans.
        is_stuck: Whether they take too long, which is a warning, or were asked for.
    """
    severity = SEVERITY_NUMBER_WARN if is_stuck else SEVERITY_NUMBER_INFO
    records: dict[Image, list[LogRecord]] = {}
    for call in calls:
        records.setdefault(call.thread.image, []).append(
            _log_record(call, now_unix_ns, severity, rules.attributes)
        )
    request, size, count = ExportLogsServiceRequest(), 0, 0
    for piece in _pieces(records, rules):
        if count and size + piece.ByteSize() > _REQUEST_BYTES_MAX:
            yield Request(request.SerializeToString(), Signal.LOGS, log_records=count)
            request, size, count = ExportLogsServiceRequest(), 0, 0
        request.resource_logs.append(piece)
        size += piece.ByteSize()
        count += len(piece.scope_logs[0].log_records)
    if count:
        yield Request(request.SerializeToString(), Signal.LOGS, log_records=count)


def _pieces(records: Mapping[Image, Sequence[LogRecord]], rules: ResourceRules) -> Iterator[ResourceLogs]:
    """Yield the records of each program behind its Resource, not too many at a time."""
    for image, all_of_image in records.items():
        resource = Resource.FromString(encode_resource(image, rules))
        for first in range(0, len(all_of_image), _PIECE_RECORDS_MAX):
            below = ScopeLogs(
                scope=InstrumentationScope(name="otel_sysexit", version=__version__),
                log_records=all_of_image[first : first + _PIECE_RECORDS_MAX],
                schema_url=names.SCHEMA_URL,
            )
            yield ResourceLogs(resource=resource, scope_logs=[below], schema_url=names.SCHEMA_URL)


def _log_record(
    call: CallInFlight, now_unix_ns: int, severity: int, selection: AttributeSelection
) -> LogRecord:
    found: dict[str, str | int | float] = {
        names.SYSCALL_NAME: call.kind.name,
        names.SYSCALL_NUMBER: call.kind.number,
        names.SYSCALL_ABI: call.kind.abi.label,
        names.SYSCALL_ELAPSED: call.elapsed_ns / 1e9,
        names.SYSCALL_START_TIME: iso_8601(call.start_unix_ns),
        names.THREAD_ID: call.thread.tid,
        names.THREAD_NAME: call.thread.name,
    }
    if call.kind.restarts:
        found[names.SYSCALL_RESTARTS] = call.kind.restarts
    return LogRecord(
        time_unix_nano=now_unix_ns,
        observed_time_unix_nano=now_unix_ns,
        severity_number=severity,  # type: ignore[arg-type]  # protobuf's stubs have a class for each enumeration
        event_name=names.CALL_IN_FLIGHT.name,
        body=AnyValue(string_value=call.line()),
        attributes=[key_value(key, value) for key, value in found.items() if selection.has(key)],
    )
