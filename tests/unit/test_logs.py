"""Calls in flight as log records: what they say, whose they are, and how large requests get."""

from itertools import pairwise

import pytest
from made_calls import START_UNIX_NS, make_process
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from otel_sysexit import attributes
from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.identity import Image, Thread
from otel_sysexit.otlp import logs
from otel_sysexit.otlp.logs import encode_in_flight
from otel_sysexit.otlp.request import Request, Signal
from otel_sysexit.otlp.resources import ResourceRules, image_attributes
from otel_sysexit.stuck import CallInFlight
from otel_sysexit.syscalls import Abi, Kind

RULES = ResourceRules({"deployment.environment.name": "test"})
NOW = START_UNIX_NS + 31_500_000_000


def make_call(image: Image | None = None, name: str = "fsync", **facts: object) -> CallInFlight:
    """Return a call of the leader's of postgres, in flight since START_UNIX_NS."""
    image = image or make_process(812, "postgres").image
    kind = Kind(name, 74, Abi.X86_64, (), facts.pop("restarts", None))
    thread = Thread(facts.pop("tid", image.process.pid), "walwriter", image)
    return CallInFlight(thread, kind, START_UNIX_NS, NOW - START_UNIX_NS)


def encode(*calls: CallInFlight, is_stuck: bool = True) -> list[Request]:
    """Return the requests."""
    return list(encode_in_flight(calls, NOW, RULES, is_stuck=is_stuck))


def decode(request: Request) -> ExportLogsServiceRequest:
    """Return the message; a request of log records counts them and nothing else."""
    message = ExportLogsServiceRequest.FromString(request.body)
    count = sum(len(below.log_records) for one in message.resource_logs for below in one.scope_logs)
    assert (request.signal, request.log_records, request.calls, request.spans) == (Signal.LOGS, count, 0, 0)
    return message


def value(found: AnyValue) -> object:
    """Return what an AnyValue holds."""
    return getattr(found, found.WhichOneof("value"))


def test_a_record_says_what_is_in_flight():
    """The body is the line for people; name, number, ABI, thread, start and seconds so far are attributes."""
    (request,) = encode(make_call(tid=830))
    (of_resource,) = decode(request).resource_logs
    (below,) = of_resource.scope_logs
    (record,) = below.log_records

    assert record.event_name == attributes.CALL_IN_FLIGHT.name
    assert record.time_unix_nano == record.observed_time_unix_nano == NOW
    assert record.body.string_value == "fsync in postgres[812] (thread 830) for 31 s"
    assert {one.key: value(one.value) for one in record.attributes} == {
        "syscall.name": "fsync",
        "syscall.number": 74,
        "syscall.abi": "x86_64",
        "syscall.elapsed": 31.5,
        "syscall.start_time": "2023-11-14T22:13:20.000000000Z",
        "thread.id": 830,
        "thread.name": "walwriter",
    }
    assert not record.severity_text
    assert below.scope.name == "otel_sysexit"
    assert of_resource.schema_url == below.schema_url == attributes.SCHEMA_URL


@pytest.mark.parametrize(("is_stuck", "severity"), [(True, 13), (False, 9)])
def test_only_stuck_calls_are_warnings(is_stuck, severity):
    """WARN when it takes too long, INFO when somebody asked."""
    (request,) = encode(make_call(), is_stuck=is_stuck)

    assert decode(request).resource_logs[0].scope_logs[0].log_records[0].severity_number == severity


def test_the_resource_is_the_programs():
    """Each program in a process has its Resource, as its spans have, and its records are below that one."""
    postgres, worker = make_process(812, "postgres").image, make_process(9).image
    (request,) = encode(make_call(postgres), make_call(worker), make_call(postgres, name="read"))
    found = [
        (
            {one.key: value(one.value) for one in of_resource.resource.attributes},
            [record.attributes[0].value.string_value for record in of_resource.scope_logs[0].log_records],
        )
        for of_resource in decode(request).resource_logs
    ]

    assert found == [
        (image_attributes(postgres, RULES), ["fsync", "read"]),
        (image_attributes(worker, RULES), ["fsync"]),
    ]


def test_a_restarted_call_is_an_attribute():
    """What restart_syscall goes on with is said as on its span."""
    (request,) = encode(make_call(name="restart_syscall", restarts="nanosleep"))
    (record,) = decode(request).resource_logs[0].scope_logs[0].log_records

    assert {one.key: value(one.value) for one in record.attributes}["syscall.restarts"] == "nanosleep"


def test_what_is_switched_off_is_not_there():
    """A selection of attributes counts for log records and their Resources, too."""
    rules = ResourceRules(attributes=AttributeSelection((("thread.*", False), ("host.*", False))))
    (request,) = encode_in_flight([make_call()], NOW, rules, is_stuck=True)
    (of_resource,) = decode(request).resource_logs
    (record,) = of_resource.scope_logs[0].log_records

    names = {one.key for one in (*record.attributes, *of_resource.resource.attributes)}
    assert {"syscall.name", "process.pid"} <= names
    assert not [name for name in names if name.startswith(("thread.", "host."))]


def test_nothing_in_flight_is_no_request():
    """Nothing is sent for nothing."""
    assert encode() == []


def test_requests_are_bounded():
    """Thousands of calls, of one process or of as many, come in several requests, each record once."""
    one = make_process(1).image
    calls = [make_call(one, tid=tid) for tid in range(2, 1500)]
    calls += [make_call(make_process(pid).image) for pid in range(2000, 2500)]
    requests = encode(*calls)
    tids = [
        next(one.value.int_value for one in record.attributes if one.key == "thread.id")
        for request in requests
        for of_resource in decode(request).resource_logs
        for record in of_resource.scope_logs[0].log_records
    ]

    assert tids == [call.thread.tid for call in calls]
    assert max(len(request.body) for request in requests) < 2 * logs._REQUEST_BYTES_MAX
    assert all(
        len(first.body) + len(second.body) > logs._REQUEST_BYTES_MAX for first, second in pairwise(requests)
    )
