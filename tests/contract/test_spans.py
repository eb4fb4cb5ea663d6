"""Calls ↔ OTLP: one exhaustive batch made by hand, encoded by us and by the SDK's own classes."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from contract import reference_encoder
from made_calls import START_UNIX_NS, Made, make_calls, make_process
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_sysexit import attributes, syscalls
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image, Thread
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.syscalls import Abi
from otel_sysexit.traces import Link, Placement, Span

AGENT_ATTRIBUTES = {
    "deployment.environment.name": "test",
    "service.version": "never: it is the agent's own",
    "process.pid": "never: it was observed",
}
SERVER = make_process(4242, "nginx", make_process(1, "init"))
SERVER.image = Image(
    SERVER,
    "nginx",
    "/usr/sbin/nginx",
    "nginx: master",
    "www-data",
    "shop",
    {"service.version": "3", "deployment.environment.name": "live", "host.name": "never"},
)
SHELL = make_process(4243, "sh", SERVER, exit_code=3, end_unix_ns=START_UNIX_NS + 9)
KILLED = make_process(4244, "déjà vu", SHELL, exit_signal=9, end_unix_ns=START_UNIX_NS + 9)
HUGE_POINTER = 0xFFFF_8000_DEAD_BEEF

MADE = {
    "succeeded": Made("openat", (-100, 0x7FFF_0000, 0o101, 0o644), 3, paths=(b"/etc/hosts",)),
    "zero": Made("close", (3,), 0),
    "failed": Made("openat", (-100, 0x1000, 0, 0), -2, Outcome.FAILED, (b"/nowhere",), duration_ns=1),
    "failed without a name": Made("ioctl", (0, 1, 2), -4095, Outcome.FAILED),
    "benign": Made("read", (5, 0x2000, 4096), -11, Outcome.BENIGN),
    "interrupted": Made("nanosleep", (0x10, 0x20), -516, Outcome.INTERRUPTED),
    "restarted": Made("restart_syscall", (), 0, restarted=35),
    "restarted by nobody knows what": Made("restart_syscall", (), -4, Outcome.BENIGN),
    "exit": Made("exit_group", (3,), 0, Outcome.NO_RETURN, process=SHELL),
    "rt_sigreturn": Made("rt_sigreturn", (), 77, Outcome.NO_VALUE),
    "not executed": Made("getpid", (), -1, Outcome.FAILED, is_executed=False),
    "trapped": Made("getpid", (), 39, Outcome.NO_VALUE, is_executed=False),
    "cut path": Made("chdir", (0x30,), -36, Outcome.FAILED, (b"/" + b"x" * 254,), is_cut=True),
    "path that just fits": Made("chdir", (0x30,), 0, paths=(b"/" + b"y" * 254,)),
    "empty path": Made("fstatat64", (4, 0x30, 0x40, 0x1000), 0, paths=(b"",), abi=Abi.I386),
    "unreadable path": Made("chdir", (1,), -14, Outcome.FAILED),
    "two paths": Made("rename", (0x1, 0x2), 0, paths=(b"/a", "/ü".encode())),
    "one of two paths": Made("renameat2", (-100, 0x1, 5, 0x2, 1), -14, Outcome.FAILED, (b"/a",)),
    "successful exec": Made("execve", (), 0, paths=(b"/bin/true",), has_args=False, process=SHELL),
    "i386": Made("mmap2", (2**32 - 4096, 1, 2, 3, 2**32 - 1, 5), 0xF7F0_0000, abi=Abi.I386),
    "x32": Made("read", (1, HUGE_POINTER, 2), 2, abi=Abi.X32),
    "arm": Made("chown32", (0x30, 2**32 - 1, 7), 0, paths=(b"/z",), abi=Abi.ARM),
    "unknown number": Made(9999, (1, 2**64 - 1, 3, 4, 5, HUGE_POINTER), -38, Outcome.FAILED),
    "negative number": Made(-1, (), -38, Outcome.FAILED),
    "unknown number of x32": Made(9999, (), -38, Outcome.FAILED, abi=Abi.X32),
    "negative arguments": Made("lseek", (-1, -(2**63), -5), -9, Outcome.FAILED),
    "huge result": Made("mmap", (HUGE_POINTER,), 2**63 - 1),
    "smallest result": Made("mmap", (0,), -(2**63)),
    "largest tid": Made("gettid", (), 1, tid=2**32 - 1),
    "first tid": Made("gettid", (), 1, tid=0),
    "long ago": Made("read", start_ns=-START_UNIX_NS, duration_ns=2**62),
}
THREAD_NAMES = ["", "x" * 15, "déjà vu", "日本語", r"\xff\xfe" * 7, "a b\n\x01"]


def make_batch() -> tuple[Calls, Placement, list[Span]]:
    """Return `MADE` with thread names of all sorts, in two traces, and spans of processes and windows."""
    calls = make_calls(*MADE.values())
    threads = [
        Thread(
            thread.tid,
            THREAD_NAMES[row % len(THREAD_NAMES)],
            SERVER.image if row % 3 else thread.image,
        )
        for row, thread in enumerate(calls.threads)
    ]
    placement = Placement(
        span_id=np.arange(1, len(calls) + 1, dtype=np.uint64) << np.uint64(56),
        context=np.arange(len(calls), dtype=np.uint32) % 2,
        trace_id=np.array([[*range(16)], [*range(16, 0, -1)]], np.uint8),
        parent_span_id=np.array([2**64 - 1, 1], np.uint64),
    )
    return replace(calls, threads=threads), placement, make_spans()


def make_spans() -> list[Span]:
    """Return a process that failed, one that was killed, and a window with a link to the one before."""
    trace_id = bytes(range(16))
    facts = {"trace_id": trace_id, "start_unix_ns": START_UNIX_NS, "end_unix_ns": START_UNIX_NS + 9}
    window = {"otel_sysexit.window.calls": 2_000, "otel_sysexit.window.errors": 0}
    link = Link(bytes(15) + b"\x07", 2**63, {"otel_sysexit.link.type": "previous_window"})
    return [
        Span(
            "sh",
            span_id=1001,
            parent_span_id=1000,
            image=SHELL.image,
            attributes={"process.exit.code": 3, "error.type": "3"},
            is_error=True,
            **facts,
        ),
        Span(
            "déjà vu",
            span_id=2**64 - 1,
            parent_span_id=1001,
            image=KILLED.image,
            attributes={"error.type": "SIGKILL"},
            is_error=True,
            **facts,
        ),
        Span(
            "nginx",
            span_id=1002,
            parent_span_id=0,
            image=SERVER.image,
            attributes=window,
            links=[link],
            **facts,
        ),
    ]


@pytest.fixture(scope="module")
def request_of_ours() -> ExportTraceServiceRequest:
    """The batch, encoded by the product and decoded by the official classes."""
    (request,) = SpanEncoder(AGENT_ATTRIBUTES).encode(*make_batch())
    return ExportTraceServiceRequest.FromString(request.body)


def spans_of(request: ExportTraceServiceRequest) -> list:
    """Return the spans of a request."""
    return [
        span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
    ]


def attribute_names(request: ExportTraceServiceRequest) -> set[str]:
    """Return the names of all attributes of a request, those of arguments under one."""
    messages = [found.resource for found in request.resource_spans]
    for span in spans_of(request):
        messages += [span, *span.links]
    keys = {attribute.key for message in messages for attribute in message.attributes}
    prefix = "syscall.argument."
    return {f"{prefix}<name>" if key.startswith(prefix) else key for key in keys}


def test_both_encoders_say_the_same_of_the_batch(request_of_ours):
    """Our bytes decode to the message that the SDK's encoder makes."""
    reference = reference_encoder.encode(*make_batch(), AGENT_ATTRIBUTES)

    assert reference_encoder.merge([request_of_ours]) == reference_encoder.merge([reference])


def test_the_batch_has_every_attribute(request_of_ours):
    """The batch shows every attribute that spans have by the table, and no other but what environments bring."""
    given = {"deployment.environment.name", "service.version"}
    known = {one.name for one in attributes.ATTRIBUTES if one.level != "log"}

    assert attribute_names(request_of_ours) - given == known


def test_the_batch_has_every_outcome():
    """The batch shows every way a call can end."""
    assert {made.outcome for made in MADE.values()} == set(Outcome)


def test_every_known_call_is_encoded_alike():
    """Each call of each ABI, failed with all its arguments, is the same in both encodings."""
    made = [
        Made(name, (1, 2**64 - 1, 3, HUGE_POINTER, 5, 6), -22, Outcome.FAILED, abi=abi)
        for abi in Abi
        for name in syscalls.numbers(abi)
    ]
    calls = make_calls(*made)
    count = len(calls)
    placement = Placement(
        np.arange(1, count + 1, dtype=np.uint64),
        np.zeros(count, np.uint32),
        np.full((1, 16), 1, np.uint8),
        np.array([7], np.uint64),
    )
    ours = [
        ExportTraceServiceRequest.FromString(part.body)
        for part in SpanEncoder({}).encode(calls, placement, [])
    ]
    reference = reference_encoder.encode(calls, placement, [], {})

    assert reference_encoder.merge(ours) == reference_encoder.merge([reference])


def test_each_program_has_one_resource(request_of_ours):
    """The spans of a program in a process stand under one Resource."""
    resources = Counter(
        found.resource.SerializeToString(deterministic=True) for found in request_of_ours.resource_spans
    )

    assert set(resources.values()) == {1}
    assert len(resources) == 4


def test_the_agents_service_is_nobody_elses(request_of_ours):
    """Of the agent's own OTEL_RESOURCE_ATTRIBUTES no process gets what says who it is."""
    for found in request_of_ours.resource_spans:
        values = {each.key: each.value.string_value for each in found.resource.attributes}

        assert not [value for value in values.values() if value.startswith("never")]


def test_a_failed_call_in_full(request_of_ours):
    """One span, spelt out: what both encoders might have wrong together."""
    row = list(MADE).index("failed")
    (span,) = [found for found in spans_of(request_of_ours) if found.span_id == bytes(7) + bytes([row + 1])]
    values = {
        each.key: each.value.string_value if each.value.HasField("string_value") else each.value.int_value
        for each in span.attributes
    }

    assert (span.name, span.kind, span.flags, span.trace_state) == ("openat", 1, 0x103, "ot=th:0")
    assert (span.status.code, span.status.message, span.dropped_attributes_count) == (2, "", 0)
    assert (span.trace_id, span.parent_span_id) == (bytes(range(16)), b"\xff" * 8)
    assert (span.start_time_unix_nano, span.end_time_unix_nano) == (START_UNIX_NS, START_UNIX_NS + 1)
    assert values == {
        "syscall.name": "openat",
        "syscall.number": 257,
        "syscall.abi": "x86_64",
        "thread.id": 1,
        "thread.name": THREAD_NAMES[row % len(THREAD_NAMES)],
        "syscall.return_value": -2,
        "syscall.errno": 2,
        "error.type": "ENOENT",
        "file.path": "/nowhere",
        "syscall.argument.dfd": -100,
        "syscall.argument.flags": 0,
        "syscall.argument.mode": 0,
    }


def test_an_unset_status_is_not_there(request_of_ours):
    """A call that did not fail has no status at all: unset, never OK."""
    row = list(MADE).index("succeeded")
    (span,) = [found for found in spans_of(request_of_ours) if found.span_id == bytes(7) + bytes([row + 1])]

    assert not span.HasField("status")


def test_an_empty_batch_makes_no_request():
    """Nothing to say is not said."""
    calls = make_calls()
    nowhere = Placement(
        np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty((0, 16), np.uint8), np.empty(0, np.uint64)
    )

    assert list(SpanEncoder({}).encode(calls, nowhere, [])) == []
