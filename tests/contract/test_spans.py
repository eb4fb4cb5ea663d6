"""Calls ↔ OTLP: one exhaustive batch made by hand, encoded by us and by the SDK's own classes."""

import re
from collections import Counter
from dataclasses import replace
from fnmatch import fnmatchcase

import numpy as np
import pytest
from contract import reference_encoder
from made_calls import START_UNIX_NS, Made, make_calls, make_process
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

from otel_sysexit import attributes, syscalls
from otel_sysexit.addresses import Family
from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image, Thread
from otel_sysexit.otlp.resources import ResourceRules
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.propagation import TraceContext
from otel_sysexit.syscalls import Abi
from otel_sysexit.traces import AlikeSpans, Link, Owner, Placement, Span, Spans

AGENT_ATTRIBUTES = {
    "deployment.environment.name": "test",
    "service.version": "never: it is the agent's own",
    "process.pid": "never: it was observed",
}
RULES = ResourceRules(AGENT_ATTRIBUTES, AttributeSelection((("*", True),)))
SERVER = make_process(4242, "nginx", make_process(1, "init"), vpid=7, start_ticks=99)
SERVER.image = Image(
    SERVER,
    "nginx",
    executable_path="/usr/sbin/nginx",
    command="nginx: master",
    command_args=("nginx: master", "-c", "/ü", ""),
    owner="www-data",
    user_id=33,
    real_user_id=0,
    group_id=33,
    real_group_id=1000,
    service_name="shop",
    environment_attributes={
        "service.version": "3",
        "deployment.environment.name": "live",
        "host.name": "never",
        "container.id": "never",
    },
    context_attributes={"service.name": "shop-api", "service.version": "4", "process.pid": 0},
    cgroup_line="0::/system.slice/nginx.service",
    container_id="7be92808767a667f35c8505cbf40d14e931ef6db5b0210329cf193b15ba9d605",
    pod_uid="05869489-8c7f-45dc-9abd-1b1620787bb1",
)
SHELL = make_process(4243, "sh", SERVER, exit_code=3, end_unix_ns=START_UNIX_NS + 9)
KILLED = make_process(4244, "déjà vu", SHELL, exit_signal=9, end_unix_ns=START_UNIX_NS + 9)
JOINED = TraceContext(bytes(16), 1, 0x01, "ot=th:8,congo=t61")
HUGE_POINTER = 0xFFFF_8000_DEAD_BEEF
HALF, ONE_IN_100, ONE_IN_1000 = 0x8000_0000, 0xFD70_A3D7, 0xFFBE_76C9
LEAST, MOST = 1, 2**32 - 1
UNIX_PATH = b"/run/" + b"u" * 102

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
    # Thresholds: of one digit, of all eight, of all but one; the least and the most.
    "one in two": Made("getpid", threshold=HALF),
    "one in a hundred": Made("getpid", threshold=ONE_IN_100),
    "one in a thousand": Made("openat", (-100, 1, 0, 0), -2, Outcome.FAILED, (b"/x",), threshold=ONE_IN_1000),
    "seven digits": Made("getpid", threshold=0xFD70_A3D0),
    "nearly all": Made("getpid", threshold=LEAST),
    "nearly none": Made("exit_group", (3,), 0, Outcome.NO_RETURN, threshold=MOST),
    # Arguments as text.
    "flags": Made("mmap", (0, 4096, 3, 0x22, 2**64 - 1, 0), 0x7F00_0000_0000),
    "signal": Made("kill", (1, 15), 0),
    "flags of i386": Made("openat", (2**32 - 100, 0x1000, 0o2000101, 0o600), 3, paths=(b"/i",), abi=Abi.I386),
    "text of sampled": Made("lseek", (3, 0, 2), 0, files=(b"/f",), threshold=HALF),
    "flags nobody saw": Made("mmap", (0, 4096, 3, 0x22, 3, 0), 1, files=(b"/f",), has_args=False),
    # Descriptors: the file where there is no path, or an empty one; else beside it.
    "read of a file": Made("read", (5, 0x2000, 4096), 12, files=(b"/var/log/syslog",)),
    "read of a socket": Made("read", (5, 0x2000, 4096), 12, files=(b"socket:[42]",)),
    "both descriptors": Made("copy_file_range", (3, 0, 4, 0, 9, 0), 9, files=(b"/from", b"/to")),
    "path and pipe": Made("sendfile", (4, 3, 0, 9), 9, files=(b"pipe:[7]", b"/from")),
    "second descriptor alone": Made("sendfile", (4, 3, 0, 9), 9, files=(None, b"/from")),
    "below a directory": Made("openat", (5, 0x1000, 0, 0), 6, paths=(b"hosts",), files=(b"/etc",)),
    "two of each": Made("renameat2", (5, 1, 6, 2, 1), paths=(b"a", b"b"), files=(b"/from", b"/to")),
    "empty path, a file": Made("newfstatat", (5, 1, 2, 0x1000), paths=(b"",), files=(b"/etc/hosts",)),
    "empty path, a socket": Made("newfstatat", (5, 1, 2, 0x1000), paths=(b"",), files=(b"socket:[42]",)),
    "unreadable path, a directory": Made("openat", (5, 1), -14, Outcome.FAILED, files=(b"/etc",)),
    "the root": Made("fchdir", (5,), files=(b"/",)),
    "no name": Made("close", (5,), files=(b"",)),
    "cut file": Made("read", (5,), files=(b"/" + b"f" * 254,), is_file_cut=True),
    "cut file beside a path": Made("openat", (5, 1), 6, paths=(b"a",), files=(b"/f",), is_file_cut=True),
    # Addresses: of the other end, and one's own.
    "peer, IPv4": Made("connect", (3, 1, 16), address=(Family.IPV4, b"127.0.0.1", 80)),
    "peer, IPv6": Made("sendto", (3, 1, 9, 0, 2, 28), 9, address=(Family.IPV6, b"fe80::1", 65535)),
    "peer, unix": Made(
        "accept4", (3, 1, 2, 0), 4, files=(b"socket:[1]",), address=(Family.UNIX, UNIX_PATH, 0)
    ),
    "peer, abstract": Made("getpeername", (3, 1, 2), address=(Family.UNIX, "@ü".encode(), 0)),
    "peer of a failure": Made(
        "connect", (3, 1, 16), -111, Outcome.FAILED, address=(Family.IPV4, b"10.0.0.1", 1), threshold=HALF
    ),
    "peer, another ABI": Made("recvfrom", (3,), 1, abi=Abi.ARM, address=(Family.IPV4, b"10.0.0.10", 0)),
    "own, IPv4": Made("bind", (3, 1, 16), address=(Family.IPV4, b"0.0.0.0", 0)),
    "own, IPv6": Made("getsockname", (3, 1, 2), address=(Family.IPV6, b"::", 8080)),
    "own, unix": Made("bind", (3, 1, 9), address=(Family.UNIX, b"/run/s", 0)),
    "own, nothing else asked for": Made("bind", has_args=False, address=(Family.IPV6, b"::1", 22)),
    # Limits of texts.
    "cut path of 64 bytes": Made("chdir", (1,), paths=(b"/" + b"s" * 63,), is_cut=True),
    "cut path of 4096 bytes": Made("chdir", (1,), paths=(b"/" + b"l" * 4095,), is_cut=True),
    "two paths of 4096 bytes": Made("rename", (1, 2), paths=(b"p" * 4096, "ü".encode() * 2048)),
    "two files of 4096 bytes": Made("sendfile", (4, 3), files=(b"/" * 4096, b"/f" * 2048)),
}
THREAD_NAMES = ["", "x" * 15, "déjà vu", "日本語", r"\xff\xfe" * 7, "a b\n\x01"]


def make_batch() -> tuple[Calls, Placement, list[Span]]:
    """Return `MADE` with thread names of all sorts, in two traces, as roots and in two other programs' traces, and spans of processes and windows."""
    calls = make_calls(*MADE.values())
    threads = [
        Thread(
            thread.tid,
            THREAD_NAMES[row % len(THREAD_NAMES)],
            SERVER.image if row % 3 else thread.image,
        )
        for row, thread in enumerate(calls.threads)
    ]
    rows = np.arange(len(calls))
    is_whole = calls.threshold == 0  # what is sampled is in no other program's trace
    placement = Placement(
        span_id=np.arange(1, len(calls) + 1, dtype=np.uint64) << np.uint64(56),
        context=np.select(
            [rows % 7 == 6, is_whole & (rows % 11 == 10), is_whole & (rows % 5 == 4)], [2, 3, 4], rows % 2
        ).astype(np.uint32),
        trace_id=np.array([[*range(16)], [*range(16, 0, -1)], [7] * 16, [8] * 16, [9] * 16], np.uint8),
        parent_span_id=np.array([2**64 - 1, 1, 0, 7, 5], np.uint64),
        owner=np.array([*[Owner.US] * 3, Owner.STARTER, Owner.APPLICATION], np.uint8),
    )
    return calls.made_by(rows, threads), placement, make_spans()


def make_spans() -> Spans:
    """Return a process that failed, one that was killed, windows with links to others, and what a part of a tree ends with."""
    trace_id = bytes(range(16))
    facts = {"trace_id": trace_id, "start_unix_ns": START_UNIX_NS, "end_unix_ns": START_UNIX_NS + 9}
    window = {
        "otel_sysexit.window.calls": 2_000,
        "otel_sysexit.window.errors": 0,
        "otel_sysexit.window.call_count.read": 1_999,
        "otel_sysexit.window.call_count._OTHER": 1,
        "otel_sysexit.window.filtered": 1,
        "otel_sysexit.window.sampled_out": 2,
        "otel_sysexit.window.dropped": 3,
    }
    link = Link(bytes(15) + b"\x07", 2**63, {"otel_sysexit.link.type": "previous_window"})
    alone = [
        Span(
            "sh",
            span_id=1001,
            parent_span_id=1000,
            image=SHELL.image,
            attributes={"process.exit.code": 3, "error.type": "3", "otel_sysexit.trace.part": 2},
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
            links=[link, replace(link, span_id=1, trace_state="", trace_flags=0, is_remote=True)],
            **facts,
        ),
        # Of sampled calls: that this one was sampled, the trace state cannot say.
        Span(
            "nginx",
            span_id=1003,
            parent_span_id=0,
            image=SERVER.image,
            attributes=window,
            links=[link],
            trace_state="",
            **facts,
        ),
    ]
    alike = AlikeSpans(
        images=[SHELL.image, KILLED.image, SERVER.image],
        trace_id=trace_id[::-1],
        span_id=np.array([1004, 1005, 2**64 - 2], np.uint64),
        parent_span_id=np.array([1001, 2**63, 0], np.uint64),
        start_unix_ns=np.array([0, START_UNIX_NS, 2**63], np.uint64),
        end_unix_ns=START_UNIX_NS + 9,
        trace_state=JOINED.trace_state,
        trace_flags=JOINED.trace_flags,
    )
    return Spans([alike, replace(alike, span_id=alike.span_id - np.uint64(100), trace_state="")], alone)


@pytest.fixture(scope="module")
def request_of_ours() -> ExportTraceServiceRequest:
    """The batch, encoded by the product and decoded by the official classes."""
    (request,) = SpanEncoder(RULES, JOINED).encode(*make_batch())
    return ExportTraceServiceRequest.FromString(request.body)


def spans_of(request: ExportTraceServiceRequest) -> list:
    """Return the spans of a request."""
    return [
        span for resource in request.resource_spans for scope in resource.scope_spans for span in scope.spans
    ]


def attributed(request: ExportTraceServiceRequest) -> list:
    """Return everything of a request that has attributes: Resources, spans and links."""
    messages = [found.resource for found in request.resource_spans]
    for span in spans_of(request):
        messages += [span, *span.links]
    return messages


def attribute_names(request: ExportTraceServiceRequest) -> set[str]:
    """Return the names of all attributes of a request, those of arguments under one."""
    keys = {attribute.key for message in attributed(request) for attribute in message.attributes}
    return {
        re.sub(r"^(syscall\.(argument|descriptor)|otel_sysexit\.window\.call_count)\..*", r"\1.<name>", key)
        for key in keys
    }


def test_both_encoders_say_the_same_of_the_batch(request_of_ours):
    """Our bytes decode to the message that the SDK's encoder makes."""
    reference = reference_encoder.encode(*make_batch(), AGENT_ATTRIBUTES, JOINED)

    assert reference_encoder.merge([request_of_ours]) == reference_encoder.merge([reference])


def test_the_batch_has_every_attribute(request_of_ours):
    """The batch shows every attribute that spans have by the table, and no other but what environments bring."""
    given = {"deployment.environment.name", "service.version"}
    known = {one.name for one in attributes.ATTRIBUTES if one.level != "log"}

    assert attribute_names(request_of_ours) - given == known


@pytest.mark.parametrize(
    "off",
    [
        "process.owner",
        "host.*",
        "thread.*",
        "syscall.argument.*",
        "syscall.sampling.probability",
        "network.*",
        "otel_sysexit.*",
    ],
)
def test_what_is_switched_off_is_nowhere(request_of_ours, off):
    """Without some attributes everything else is the same: in Resources, spans of calls and others, and links."""
    rules = replace(RULES, attributes=AttributeSelection((("*", True), (off, False))))
    (request,) = SpanEncoder(rules, JOINED).encode(*make_batch())
    expected = ExportTraceServiceRequest.FromString(request_of_ours.SerializeToString())
    for message in attributed(expected):
        kept = [one for one in message.attributes if not is_off(one.key, off)]
        del message.attributes[:]
        message.attributes.extend(kept)

    ours = reference_encoder.merge([ExportTraceServiceRequest.FromString(request.body)])
    assert ours == reference_encoder.merge([expected])
    assert expected != reference_encoder.merge([request_of_ours])


def is_off(name: str, pattern: str) -> bool:
    """Whether a pattern takes an attribute away; a link's type is always there."""
    return fnmatchcase(name, pattern) and name != "otel_sysexit.link.type"


def test_the_batch_has_every_outcome():
    """The batch shows every way a call can end."""
    assert {made.outcome for made in MADE.values()} == set(Outcome)


@pytest.mark.parametrize("is_known", [False, True])
def test_every_known_call_is_encoded_alike(is_known):
    """Each call of each ABI is the same in both encodings, with numbers alone and with all that is known of it."""
    made = []
    for abi in Abi:
        for name in syscalls.numbers(abi):
            one = Made(name, (1, 2**64 - 1, 3, HUGE_POINTER, 5, 6), -22, Outcome.FAILED, abi=abi)
            if is_known:
                paths = (b"", b"/second") if len(made) % 2 else (b"first", b"/second")
                count = sum(argument.is_path for argument in one.kind.arguments)
                files = (b"/some/file", b"pipe:[7]")[: len(one.kind.descriptors)]
                address = (Family.UNIX, b"/run/socket", 0)
                one = replace(one, paths=paths[:count], files=files, address=address, threshold=ONE_IN_100)
            made.append(one)
    calls = make_calls(*made)
    ours = [
        ExportTraceServiceRequest.FromString(part.body)
        for part in SpanEncoder().encode(calls, place_together(calls), Spans())
    ]
    reference = reference_encoder.encode(calls, place_together(calls), Spans(), {})

    assert reference_encoder.merge(ours) == reference_encoder.merge([reference])


def place_together(calls: Calls) -> Placement:
    """Return a place below one parent for each call."""
    count = len(calls)
    return Placement(
        np.arange(1, count + 1, dtype=np.uint64),
        np.zeros(count, np.uint32),
        np.full((1, 16), 1, np.uint8),
        np.array([7], np.uint64),
    )


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


def span_of(request: ExportTraceServiceRequest, name: str) -> trace_pb2.Span:
    """Return the span of the call that `MADE` has under a name."""
    span_id = bytes(7) + bytes([list(MADE).index(name) + 1])
    (span,) = [found for found in spans_of(request) if found.span_id == span_id]
    return span


def attributes_of(span: trace_pb2.Span) -> dict[str, object]:
    """Return a span's attributes but for those that say which call and which thread it is."""
    values = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}
    return {
        key: value
        for key, value in values.items()
        if key not in ("syscall.name", "syscall.number", "syscall.abi", "thread.id", "thread.name")
    }


def test_a_failed_call_in_full(request_of_ours):
    """One span, spelt out: what both encoders might have wrong together."""
    row = list(MADE).index("failed")
    span = span_of(request_of_ours, "failed")
    values = {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}

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
        "syscall.argument.dfd": "AT_FDCWD",
        "syscall.argument.flags": "O_RDONLY",
        "syscall.argument.mode": 0,
    }


@pytest.mark.parametrize(
    ("name", "trace_state", "probability"),
    [
        ("one in two", "ot=th:8", 0.5),
        ("one in a hundred", "ot=th:fd70a3d7", 42949673 / 2**32),
        ("one in a thousand", "ot=th:ffbe76c9", 4294967 / 2**32),
        ("seven digits", "ot=th:fd70a3d", 42949680 / 2**32),
        ("nearly all", "ot=th:00000001", 1 - 2**-32),
        ("nearly none", "ot=th:ffffffff", 2**-32),
    ],
)
def test_a_sampled_call_says_what_it_stands_for(request_of_ours, name, trace_state, probability):
    """The threshold has up to 14 digits, those at the end left out that are 0; the probability is exact."""
    span = span_of(request_of_ours, name)

    assert span.trace_state == trace_state
    assert attributes_of(span)["syscall.sampling.probability"] == probability


DESCRIBED = {
    "read of a file": {"file.path": "/var/log/syslog"},
    "read of a socket": {"syscall.descriptor.fd": "socket:[42]"},
    "both descriptors": {"file.path": "/from", "syscall.descriptor.fd_out": "/to"},
    "path and pipe": {"syscall.descriptor.out_fd": "pipe:[7]", "syscall.descriptor.in_fd": "/from"},
    "second descriptor alone": {"syscall.descriptor.in_fd": "/from"},
    "below a directory": {"file.path": "hosts", "syscall.descriptor.dfd": "/etc"},
    "two of each": {
        "file.path": "a",
        "syscall.argument.newname": "b",
        "syscall.descriptor.olddfd": "/from",
        "syscall.descriptor.newdfd": "/to",
    },
    "empty path": {"file.path": ""},
    "empty path, a file": {"file.path": "/etc/hosts"},
    "empty path, a socket": {"file.path": "", "syscall.descriptor.dfd": "socket:[42]"},
    "unreadable path, a directory": {"syscall.descriptor.dfd": "/etc", "syscall.argument.filename": 1},
    "the root": {"file.path": "/"},
    "cut file": {"file.path": "/" + "f" * 254, "syscall.truncated": True},
    "peer, IPv4": {
        "network.peer.address": "127.0.0.1",
        "network.peer.port": 80,
        "network.type": "ipv4",
    },
    "peer, IPv6": {
        "network.peer.address": "fe80::1",
        "network.peer.port": 65535,
        "network.type": "ipv6",
    },
    "peer, abstract": {"network.peer.address": "@ü", "network.transport": "unix"},
    "own, IPv4": {
        "network.local.address": "0.0.0.0",
        "network.local.port": 0,
        "network.type": "ipv4",
    },
    "own, unix": {"network.local.address": "/run/s", "network.transport": "unix"},
    "flags": {
        "syscall.argument.prot": "PROT_READ|PROT_WRITE",
        "syscall.argument.flags": "MAP_PRIVATE|MAP_ANONYMOUS",
    },
    "signal": {"syscall.argument.sig": "SIGTERM"},
    "flags of i386": {
        "file.path": "/i",
        "syscall.argument.dfd": "AT_FDCWD",
        "syscall.argument.flags": "O_WRONLY|O_CREAT|O_CLOEXEC",
        "syscall.argument.mode": "0600",
    },
}
MEANINGS = ("file.", "network.", "syscall.descriptor.", "syscall.truncated")


@pytest.mark.parametrize("name", DESCRIBED)
def test_what_arguments_mean_is_told(request_of_ours, name):
    """Files, descriptors and addresses, spelt out: these attributes, and nothing else of their sort; texts among arguments."""
    found = attributes_of(span_of(request_of_ours, name))
    expected = DESCRIBED[name]

    assert {
        key: value for key, value in found.items() if key in expected or key.startswith(MEANINGS)
    } == expected


def test_without_arguments_there_are_none(request_of_ours):
    """Of a call whose registers were gone, or not asked for, no argument is told, and what it means still is."""
    found = attributes_of(span_of(request_of_ours, "own, nothing else asked for"))

    assert [key for key in found if key.startswith("syscall.argument.")] == []
    assert found["network.local.address"] == "::1"


def test_a_link_has_the_trace_state_of_the_other_span(request_of_ours):
    """Whatever the span itself says, a link says what the linked one does."""
    (first, second) = [
        span
        for span in spans_of(request_of_ours)
        if span.span_id in (n.to_bytes(8, "little") for n in (1002, 1003))
    ]

    assert (first.trace_state, [link.trace_state for link in first.links]) == ("ot=th:0", ["ot=th:0", ""])
    assert (second.trace_state, [link.trace_state for link in second.links]) == ("", ["ot=th:0"])


def test_an_unset_status_is_not_there(request_of_ours):
    """A call that did not fail has no status at all: unset, never OK."""
    assert not span_of(request_of_ours, "succeeded").HasField("status")


def test_an_empty_batch_makes_no_request():
    """Nothing to say is not said."""
    calls = make_calls()
    nowhere = Placement(
        np.empty(0, np.uint64), np.empty(0, np.uint32), np.empty((0, 16), np.uint8), np.empty(0, np.uint64)
    )

    assert list(SpanEncoder().encode(calls, nowhere, Spans())) == []
