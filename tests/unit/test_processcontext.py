"""The process context: which mappings are looked at, what of a header is believed, which attributes are kept."""

import struct
from dataclasses import dataclass
from pathlib import Path

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from otel_sysexit import processcontext
from otel_sysexit.processcontext import (
    ATTRIBUTES_MAX,
    ELEMENTS_MAX,
    TEXT_BYTES_MAX,
    ProcessContext,
    decode_attributes,
    read_process_context,
)

PID = 7
HEADER_AT, PAYLOAD_AT = 0x5000, 0x9000
MEMFD = "/memfd:OTEL_CTX (deleted)"


def text(value: str) -> AnyValue:
    """Return a text as OTLP has it."""
    return AnyValue(string_value=value)


def array(*values: AnyValue) -> AnyValue:
    """Return an array as OTLP has it."""
    return AnyValue(array_value=ArrayValue(values=values))


def field(number: int, content: bytes) -> bytes:
    """Return a field of a message: its tag, and the length and bytes as another field has them."""
    return bytes([number << 3 | 2]) + AnyValue(bytes_value=content).SerializeToString()[1:]


def make_payload(*attributes: tuple[str, AnyValue]) -> bytes:
    """Return a serialized ProcessContext: its Resource is the first field, as it is that of ResourceSpans."""
    resource = Resource(attributes=[KeyValue(key=key, value=value) for key, value in attributes])
    return ResourceSpans(resource=resource).SerializeToString()


PAYLOAD = make_payload(("service.name", text("shop")))
CONTEXT = ProcessContext({"service.name": "shop"}, 1234)


@dataclass
class FakeProcess:
    """A process with an address space in a file: what was never written is not mapped, or zero."""

    proc: Path

    def __post_init__(self):
        self.folder = self.proc / str(PID)
        self.folder.mkdir()
        (self.folder / "mem").touch()
        (self.folder / "maps").write_text("4000-5000 r-xp 00000000 08:01 42      /bin/shop\n")

    def map(self, name: str, start: int = HEADER_AT, permissions: str = "rw-p") -> None:
        """Add a line to maps."""
        with (self.folder / "maps").open("a") as maps:
            maps.write(f"{start:x}-{start + 0x1000:x} {permissions} 00000000 00:01 1035       {name}\n")

    def write(self, raw: bytes, at: int) -> None:
        """Change memory."""
        with (self.folder / "mem").open("r+b") as memory:
            memory.seek(at)
            memory.write(raw)

    def publish(
        self,
        payload: bytes = PAYLOAD,
        *,
        at: int = HEADER_AT,
        signature: bytes = b"OTEL_CTX",
        version: int = 2,
        size: int | None = None,
        published_ns: int = 1234,
        pointer: int = PAYLOAD_AT,
    ) -> None:
        """Write a header and a payload."""
        size = len(payload) if size is None else size
        self.write(struct.pack("=8sIIQQ", signature, version, size, published_ns, pointer), at)
        self.write(payload, PAYLOAD_AT)

    def read(self) -> ProcessContext | None:
        """Read what it publishes."""
        return read_process_context(PID, self.proc)


@pytest.fixture
def process(tmp_path: Path) -> FakeProcess:
    """Return a process that has published nothing."""
    return FakeProcess(tmp_path)


@pytest.fixture
def publisher(process: FakeProcess) -> FakeProcess:
    """Return a process that has published CONTEXT."""
    process.map(MEMFD)
    process.publish()
    return process


class Reads(list[tuple[int, int]]):
    """The reads of memory, address and size, and what the process does meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.before = {}
        """What to call before the read of this number, the first being 0."""


@pytest.fixture
def reads(monkeypatch) -> Reads:
    """Return the reads that are made from now on."""
    made = Reads()
    read_memory = processcontext._read_memory

    def read(memory: int, address: int, size: int) -> bytes | None:
        made.before.get(len(made), lambda: None)()
        made.append((address, size))
        return read_memory(memory, address, size)

    monkeypatch.setattr(processcontext, "_read_memory", read)
    return made


# --- mappings ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["[anon_shmem:OTEL_CTX]", "[anon:OTEL_CTX]", "/memfd:OTEL_CTX", MEMFD, "/memfd:OTEL_CTX_2"]
)
@pytest.mark.parametrize("permissions", ["rw-p", "r--p", "rw-s"])
def test_a_context_is_found_by_its_mappings_name(process, name, permissions):
    """A readable mapping whose name begins as the OTEP says is looked at."""
    process.map(name, permissions=permissions)
    process.publish()

    assert process.read() == CONTEXT


@pytest.mark.parametrize(
    ("name", "permissions"),
    [
        ("", "rw-p"),
        ("[stack]", "rw-p"),
        ("[anon:OTEL_CTX", "rw-p"),
        ("[anon:OTEL]", "rw-p"),
        ("/memfd:otel_ctx (deleted)", "rw-p"),
        ("/tmp/memfd:OTEL_CTX", "rw-p"),
        ("/tmp/a /memfd:OTEL_CTX", "rw-p"),
        (MEMFD, "r-xp"),
        (MEMFD, "rwxp"),
        (MEMFD, "---p"),
        (MEMFD, "-w-p"),
    ],
)
def test_other_mappings_are_not_looked_at(process, reads, name, permissions):
    """No other name, nothing executable and nothing that is not readable."""
    process.map(name, permissions=permissions)
    process.publish()

    assert process.read() is None
    assert reads == []


def test_a_mapping_without_a_context_does_not_hide_the_next(process):
    """What only has the name is skipped."""
    process.map(MEMFD, start=0x4000)
    process.map(MEMFD, start=HEADER_AT)
    process.publish()

    assert process.read() == CONTEXT


def test_few_mappings_are_looked_at(process, reads):
    """A process that has the name everywhere is not searched for long."""
    for start in range(0x100000, 0x200000, 0x1000):
        process.map(MEMFD, start=start)
    process.publish()

    assert process.read() is None
    assert len(reads) == 4


def test_maps_are_read_up_to_a_limit(publisher, monkeypatch):
    """What stands behind the limit is not found."""
    size = (publisher.folder / "maps").stat().st_size
    monkeypatch.setattr(processcontext, "_MAPS_BYTES_MAX", size - len(MEMFD))

    assert publisher.read() is None


@pytest.mark.parametrize("missing", ["maps", "mem"])
def test_a_process_that_cannot_be_read_has_no_context(publisher, missing):
    """It is gone, or not ours to read."""
    (publisher.folder / missing).unlink()

    assert publisher.read() is None


# --- headers ----------------------------------------------------------------------------------------------------------


def test_only_the_header_and_the_payload_are_read(publisher, reads):
    """Header, payload, and the header again: nothing else of the process's memory."""
    publisher.read()

    assert reads == [(HEADER_AT, 32), (PAYLOAD_AT, len(PAYLOAD)), (HEADER_AT, 32)]


def test_the_payload_may_follow_its_header(publisher):
    """It is where the header points to, also within the same mapping."""
    publisher.publish(pointer=HEADER_AT + 32)
    publisher.write(PAYLOAD, HEADER_AT + 32)

    assert publisher.read() == CONTEXT


@pytest.mark.parametrize(("size", "is_read"), [(2, True), (65536, True), (65538, False)])
def test_a_payload_has_a_limit(publisher, size, is_read):
    """It may be short, here fields that nobody knows, and as long as the limit."""
    publisher.publish(b"\x1a\x00" * (size // 2))

    assert publisher.read() == (ProcessContext({}, 1234) if is_read else None)


@pytest.mark.parametrize(
    "fault",
    [
        {"signature": b"OTEL_CTY"},
        {"signature": bytes(8)},
        {"version": 0},
        {"version": 1},
        {"version": 3},
        {"version": 2 << 24},
        {"published_ns": 0},
        {"size": 0},
        {"size": 65537},
        {"size": 2**32 - 1},
        {"size": len(PAYLOAD) - 1},
        {"size": len(PAYLOAD) + 1},
        {"pointer": 0},
        {"pointer": PAYLOAD_AT + 1},
        {"pointer": 2**40},
        {"pointer": 2**63 - 1},
        {"pointer": 2**63},
        {"pointer": 2**64 - 1},
    ],
    ids=str,
)
def test_an_invalid_header_is_no_context(publisher, fault):
    """One thing is wrong with it, and nothing comes out."""
    publisher.publish(**fault)

    assert publisher.read() is None


def test_a_header_must_be_mapped_whole(process):
    """At the end of what can be read there is none."""
    process.map(MEMFD)
    process.write(b"OTEL_CTX" + bytes(23), HEADER_AT)

    assert process.read() is None


# --- changes ----------------------------------------------------------------------------------------------------------

CHANGED = make_payload(("service.name", text("shop")), ("service.version", text("2")))
CHANGED_CONTEXT = ProcessContext({"service.name": "shop", "service.version": "2"}, 5678)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_context_that_changes_is_read_anew(publisher, reads, number):
    """Whenever it changes between the first read and the last, the new one comes out."""
    reads.before[number] = lambda: publisher.publish(CHANGED, published_ns=5678)

    assert publisher.read() == CHANGED_CONTEXT


def test_a_context_that_is_being_changed_is_waited_for(publisher, reads):
    """A timestamp of 0 says that there will be another one soon."""
    publisher.publish(published_ns=0)
    reads.before[1] = lambda: publisher.publish(CHANGED, published_ns=5678)

    assert publisher.read() == CHANGED_CONTEXT


def test_what_is_invalid_while_it_changes_is_read_anew(publisher, reads):
    """A pointer that leads nowhere any more is no fault of a context that has another one by then."""
    publisher.publish(pointer=2**40)
    reads.before[2] = lambda: publisher.publish(CHANGED, published_ns=5678)

    assert publisher.read() == CHANGED_CONTEXT


def test_a_context_that_never_rests_is_given_up(publisher, reads):
    """After three attempts nothing comes out."""
    for number in range(100):
        reads.before[number] = lambda number=number: publisher.publish(published_ns=number + 1)

    assert publisher.read() is None
    assert [address for address, _ in reads] == [HEADER_AT, PAYLOAD_AT, HEADER_AT] * 3


def test_a_context_that_stays_unfinished_is_given_up(publisher, reads):
    """A publisher may have ended in the middle of a change; its payload is not read."""
    publisher.publish(published_ns=0)

    assert publisher.read() is None
    assert [address for address, _ in reads] == [HEADER_AT] * 3


# --- attributes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (text("shop"), "shop"),
        (text(""), ""),
        (text("ä\0\n"), "ä\0\n"),
        (AnyValue(bool_value=False), False),
        (AnyValue(int_value=-(2**63)), -(2**63)),
        (AnyValue(int_value=0), 0),
        (AnyValue(double_value=0.5), 0.5),
        (array(text("a"), text("b")), ("a", "b")),
        (array(), ()),
        (text("x" * TEXT_BYTES_MAX), "x" * TEXT_BYTES_MAX),
        (array(*[text("")] * ELEMENTS_MAX), ("",) * ELEMENTS_MAX),
    ],
)
def test_scalars_and_arrays_of_texts_are_kept(value, expected):
    """They come out as what they are in Python, bool and int told apart."""
    found = decode_attributes(make_payload(("a", value)))

    assert found == {"a": expected}
    assert type(found["a"]) is type(expected)


@pytest.mark.parametrize(
    "attribute",
    [
        ("b", AnyValue()),
        ("b", AnyValue(bytes_value=b"x")),
        ("b", AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="x", value=text("y"))]))),
        ("b", array(AnyValue(int_value=1))),
        ("b", array(text("x"), AnyValue())),
        ("b", array(array(text("x")))),
        ("b", text("x" * (TEXT_BYTES_MAX + 1))),
        ("b", text("ä" * (TEXT_BYTES_MAX // 2) + "x")),
        ("b", array(text("x" * (TEXT_BYTES_MAX + 1)))),
        ("b", array(*[text("")] * (ELEMENTS_MAX + 1))),
        ("", text("x")),
        ("b" * (TEXT_BYTES_MAX + 1), text("x")),
    ],
    ids=lambda attribute: str(attribute)[:60],
)
def test_other_attributes_are_left_out(attribute):
    """What has another type, no name or too much text is not there; its neighbours are."""
    payload = make_payload(("a", text("1")), attribute, ("c", text("3")))

    assert decode_attributes(payload) == {"a": "1", "c": "3"}


def test_there_are_not_too_many_attributes():
    """The first ones are kept."""
    payload = make_payload(*[(f"{number}", text("x")) for number in range(ATTRIBUTES_MAX + 1)])

    assert list(decode_attributes(payload)) == [f"{number}" for number in range(ATTRIBUTES_MAX)]


def test_the_last_of_equal_keys_counts():
    """OTLP does not allow them; protobuf's rule is taken."""
    assert decode_attributes(make_payload(("a", text("1")), ("a", text("2")))) == {"a": "2"}


def test_a_resource_in_two_pieces_is_one():
    """Protobuf lets a message come in pieces."""
    payload = make_payload(("a", text("1"))) + make_payload(("b", text("2")))

    assert decode_attributes(payload) == {"a": "1", "b": "2"}


def test_other_fields_are_not_the_resource():
    """Attributes beside it, fields that are not known yet, and a first field that is no message are passed over."""
    attribute = KeyValue(key="threadlocal.schema_version", value=text("x")).SerializeToString()
    others = field(2, attribute) + field(3, b"abc") + b"\x08\x01"

    assert decode_attributes(others + PAYLOAD) == CONTEXT.attributes


@pytest.mark.parametrize(
    "payload",
    [
        b"\xff" * 20,
        PAYLOAD[:-1],
        PAYLOAD + b"\x0a",
        PAYLOAD.replace(b"shop", b"sh\xffp"),
        PAYLOAD.replace(b"service", b"s\xed\xa0\x80ice"),
        b"\x0a\xff\xff\xff\xff\x0f",
        b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
        bytes(2),
        bytes(1000),
        b"\x0b" * 1000,
        b"\x0c",
    ],
    ids=repr,
)
def test_a_malformed_payload_has_no_attributes(payload):
    """Of what is no protobuf, or has texts that are no UTF-8, nothing is believed."""
    assert decode_attributes(payload) is None


def test_endless_nesting_has_no_attributes():
    """Arrays in arrays end where protobuf ends them."""
    value = text("x").SerializeToString()
    for _ in range(5000):
        value = field(5, field(1, value))

    assert decode_attributes(field(1, field(1, field(1, b"a") + field(2, value)))) is None
