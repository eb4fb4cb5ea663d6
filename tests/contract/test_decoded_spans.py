"""Records ↔ OTLP: what the kernel side wrote, decoded and encoded, at every limit of texts and for every kind of arguments."""

import socket
import stat

import numpy as np
import pytest
from contract import reference_encoder
from made_calls import make_process
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from otel_sysexit import syscalls
from otel_sysexit.benign import BenignErrors
from otel_sysexit.calls import Calls, Decoder
from otel_sysexit.identity import Thread
from otel_sysexit.kernel import records
from otel_sysexit.kernel.records import StringRole
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.settings import STRING_LIMIT_MAX, STRING_LIMIT_MIN
from otel_sysexit.traces import Spans
from otel_sysexit.windows import Windows

LIMITS = [STRING_LIMIT_MIN, records.STRING_LIMIT_DEFAULT, STRING_LIMIT_MAX]
FILE_NUMBERS = (1 << 20 | 1, 2 << 20 | 7)
SOCKADDR = socket.AF_INET.to_bytes(2, "little") + (443).to_bytes(2, "big") + bytes([192, 0, 2, 1]) + bytes(8)


def call_record(name: str, **fields: object) -> np.ndarray:
    """Return a record of a call that returned 0."""
    made = np.zeros(1, records.CALL)
    made["nr"], made["restarted_nr"] = syscalls.number_of(name, syscalls.Abi.X86_64), -1
    made["start_ns"] = 1
    for field, value in fields.items():
        made[field] = value
    return made


def string_record(limit: int, role: StringRole, text: bytes, **fields: int) -> np.ndarray:
    """Return a record as the kernel side writes it: one byte more than is kept tells that a text was cut."""
    made = np.zeros(1, records.string_dtype(limit))
    made["role"], made["length"] = role, min(len(text), limit + 1)
    kept = text[: limit + 1]
    made["text"][0, : len(kept)] = np.frombuffer(kept, np.uint8)
    for field, value in fields.items():
        made[field] = value
    return made


def encode(calls: Calls) -> ExportTraceServiceRequest:
    """Return what is sent of *calls*, as both encoders have it."""
    process = make_process(7)
    count = len(calls)
    calls = calls.made_by(np.zeros(count, np.intp), [Thread(7, "worker", process.image)])
    placement = Windows().place(calls)
    (request,) = SpanEncoder().encode(calls, placement, Spans())
    message = ExportTraceServiceRequest.FromString(request.body)
    reference = reference_encoder.encode(calls, placement, Spans(), {})

    assert reference_encoder.merge([message]) == reference_encoder.merge([reference])

    return message


def attributes_of(message: ExportTraceServiceRequest) -> dict[str, object]:
    """Return the attributes of its one span."""
    (span,) = message.resource_spans[0].scope_spans[0].spans
    return {each.key: getattr(each.value, each.value.WhichOneof("value")) for each in span.attributes}


def described(limit: int, text: bytes, role: StringRole) -> dict[str, object]:
    """Return the attributes of a call that has one text: the path of chdir, or what read's descriptor is."""
    decoder = Decoder(BenignErrors(""), limit)
    string = string_record(limit, role, text, seq=FILE_NUMBERS[0], mode=stat.S_IFREG)
    if role == StringRole.FILE:
        decoder.files.add(string)
        call = call_record("read", files=(FILE_NUMBERS[0], 0), kind_flags=records.HAS_ARGS)
    else:
        decoder.strings.add(string)
        flags = records.HAS_STRING | records.HAS_ARGS
        call = call_record("chdir", string_seq=FILE_NUMBERS[0], kind_flags=flags)
    return attributes_of(encode(decoder.decode(call)))


@pytest.mark.parametrize("role", [StringRole.FIRST_PATH, StringRole.FILE])
@pytest.mark.parametrize("limit", LIMITS)
def test_a_text_that_just_fits_is_whole(limit, role):
    """A text of as many bytes as are kept is told whole, and nothing says that it was cut."""
    found = described(limit, b"/" * (limit - 1) + b"z", role)

    assert found["file.path"] == "/" * (limit - 1) + "z"
    assert "syscall.truncated" not in found


@pytest.mark.parametrize("role", [StringRole.FIRST_PATH, StringRole.FILE])
@pytest.mark.parametrize("limit", LIMITS)
@pytest.mark.parametrize("more", [1, 2, 5000])
def test_a_longer_text_is_cut_and_says_so(limit, role, more):
    """Of a longer text so many bytes are told, with a mark."""
    found = described(limit, b"/" + b"x" * (limit - 1 + more), role)

    assert found["file.path"] == "/" + "x" * (limit - 1)
    assert found["syscall.truncated"] is True


@pytest.mark.parametrize("role", [StringRole.FIRST_PATH, StringRole.FILE])
@pytest.mark.parametrize("limit", LIMITS)
def test_no_character_is_cut_in_two(limit, role):
    """Where the limit falls into a character, the text ends before it."""
    found = described(limit, b"/" + "ü".encode() * limit, role)
    whole = found["file.path"]

    assert whole.startswith("/ü")
    assert len(whole.encode()) <= limit
    assert "\0" not in whole
    assert found["syscall.truncated"] is True


@pytest.mark.parametrize("limit", LIMITS)
def test_a_path_of_too_many_names_is_no_longer_than_it_is(limit):
    """A file's path that the kernel side gave up on is marked as cut, however short it is."""
    decoder = Decoder(BenignErrors(""), limit)
    file = string_record(limit, StringRole.FILE, b"/a/b", seq=9, mode=stat.S_IFREG, length=limit + 1)
    decoder.files.add(file)
    found = attributes_of(encode(decoder.decode(call_record("read", files=(9, 0)))))

    assert (found["file.path"], found["syscall.truncated"]) == ("/a/b", True)


@pytest.mark.parametrize("limit", LIMITS)
def test_addresses_are_whole_at_every_limit(limit):
    """The least limit has room for the addresses of IP, whose layout is fixed."""
    decoder = Decoder(BenignErrors(""), limit)
    decoder.strings.add(string_record(limit, StringRole.ADDRESS, SOCKADDR, seq=3))
    found = attributes_of(
        encode(decoder.decode(call_record("connect", string_seq=3, kind_flags=records.HAS_STRING)))
    )

    assert (found["network.peer.address"], found["network.peer.port"]) == ("192.0.2.1", 443)


def test_of_arguments_nothing_is_told_where_nothing_was_recorded():
    """With `--args none` a call has neither arguments nor what they mean."""
    found = attributes_of(encode(Decoder(BenignErrors("")).decode(call_record("openat", args=range(6)))))

    assert set(found) == {
        *("syscall.name", "syscall.number", "syscall.abi", "syscall.return_value"),
        *("thread.id", "thread.name"),
    }


@pytest.mark.parametrize(
    ("has_texts", "dfd", "flags"), [(True, "AT_FDCWD", "O_RDONLY|O_CLOEXEC"), (False, -100, 0o2000000)]
)
def test_numbers_alone_stay_numbers(has_texts, dfd, flags):
    """With `--args numbers` no argument has a text; pointers are numbers in any case."""
    args = (2**64 - 100, 0x7000, 0o2000000, 0, 0, 0)
    call = call_record("openat", args=args, kind_flags=records.HAS_ARGS)
    decoder = Decoder(BenignErrors(""), has_argument_texts=has_texts)
    found = attributes_of(encode(decoder.decode(call)))

    assert {key: value for key, value in found.items() if key.startswith(("syscall.arg", "file."))} == {
        "syscall.argument.dfd": dfd,
        "syscall.argument.filename": 0x7000,
        "syscall.argument.flags": flags,
        "syscall.argument.mode": 0,
    }


def test_texts_are_of_their_own_call():
    """Calls with and without arguments lie together in a batch: each has the texts of its own."""
    kill = call_record("kill", args=(1, 9, 0, 0, 0, 0))
    calls = np.concatenate([kill, call_record("kill", args=(1, 15, 0, 0, 0, 0)), kill, kill])
    calls["kind_flags"] = 0, records.HAS_ARGS, 0, records.HAS_ARGS
    decoded = Decoder(BenignErrors("")).decode(calls)
    texts = [decoded.argument_texts[index][1] for index in decoded.argument_text.tolist()]

    assert texts == [None, "SIGTERM", None, "SIGKILL"]


def test_calls_of_several_thresholds_are_told_together():
    """In one batch each call has its own threshold, and the trace state and the probability that go with it."""
    thresholds = [0, 1 << 31, 0xC000_0000, 0, 0xFFFF_FFFF, 1 << 31]
    calls = np.concatenate([call_record("getpid", threshold=threshold) for threshold in thresholds])
    message = encode(Decoder(BenignErrors("")).decode(calls))
    spans = [span for scope in message.resource_spans[0].scope_spans for span in scope.spans]
    probabilities = [
        [each.value.double_value for each in span.attributes if each.key == "syscall.sampling.probability"]
        for span in spans
    ]

    assert [span.trace_state for span in spans] == [
        *("ot=th:0", "ot=th:8", "ot=th:c", "ot=th:0", "ot=th:ffffffff", "ot=th:8")
    ]
    assert probabilities == [[], [0.5], [0.25], [], [2**-32], [0.5]]
    for span, threshold in zip(spans, thresholds, strict=True):
        assert int.from_bytes(span.trace_id[-7:], "big") >= threshold << 24
