"""The process context that a real process publishes: found and read as the running kernel shows it, whatever is wrong with it."""

import json

import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans
from otlp_json import read_spans

from otel_sysexit.processcontext import read_process_context

pytestmark = pytest.mark.each_kernel

PAYLOAD_BYTES_MAX = 65536


def make_payload(**attributes: str) -> bytes:
    """Return a serialized ProcessContext: its Resource is the first field, as it is that of ResourceSpans."""
    resource = Resource(
        attributes=[KeyValue(key=key, value=AnyValue(string_value=text)) for key, text in attributes.items()]
    )
    return ResourceSpans(resource=resource).SerializeToString()


def with_more_attributes(payload: bytes, size: int) -> bytes:
    """Return *payload* with attributes beside the Resource that make it *size* bytes long."""
    length = size - len(payload) - 4
    return (
        payload + bytes([0x12, length & 0x7F | 0x80, length >> 7 & 0x7F | 0x80, length >> 14]) + bytes(length)
    )


PAYLOAD = make_payload(service="shop")


@pytest.fixture
def publish(build, start, tmp_path):
    """Return a function that starts a process with such a context and gives its id; skip where the kernel names no memory."""

    def start_publisher(memory: str, fault: str = "none", payload: bytes = PAYLOAD) -> int:
        path = tmp_path / "payload"
        path.write_bytes(payload)
        process = start(build("publisher"), memory, fault, path)
        fact = json.loads(process.stdout.readline())
        if "lacks" in fact:
            pytest.skip(f"the kernel lacks {fact['lacks']}")
        return fact["published"]

    return start_publisher


@pytest.mark.parametrize("memory", ["memfd", "anonymous"])
def test_a_published_context_is_read(publish, memory):
    """Attributes come out as they were published, from a memfd's mapping or from anonymous memory with a name."""
    context = read_process_context(publish(memory))

    assert context.attributes == {"service": "shop"}
    assert context.published_boot_ns > 0


@pytest.mark.parametrize(("size", "is_read"), [(PAYLOAD_BYTES_MAX, True), (PAYLOAD_BYTES_MAX + 1, False)])
def test_a_context_has_a_limit(publish, size, is_read):
    """The longest payload that readers take is taken, one byte more is not."""
    payload = with_more_attributes(PAYLOAD, size)

    assert len(payload) == size
    assert (read_process_context(publish("memfd", payload=payload)) is not None) == is_read


@pytest.mark.parametrize("fault", ["signature", "version", "timestamp", "empty", "pointer"])
def test_an_invalid_header_is_no_context(publish, fault):
    """One thing is wrong with it, and nothing comes out."""
    assert read_process_context(publish("memfd", fault)) is None


@pytest.mark.parametrize("payload", [b"\xff" * 100, PAYLOAD[:-1]], ids=["garbage", "truncated"])
def test_an_invalid_payload_is_no_context(publish, payload):
    """What is no protobuf gives nothing."""
    assert read_process_context(publish("memfd", payload=payload)) is None


def test_a_process_without_a_context_has_none(start):
    """Most processes publish nothing."""
    assert read_process_context(start("sleep", "60").pid) is None


def test_a_context_ends_with_its_process(start):
    """Of a process that is gone nothing comes out, and no error either."""
    process = start("true")
    process.wait()

    assert read_process_context(process.pid) is None


def test_updates_without_end_are_never_mixed(publish, eventually):
    """While a context changes between two all the time, each of them is seen, and nothing that is half of each."""
    one, other = ({f"{number}": letter * 4000 for number in range(16)} for letter in "xy")
    pid = publish("memfd", "updates", make_payload(**one) + make_payload(**other))
    seen = []

    def has_seen_both() -> bool:
        contexts = [context for _ in range(200) if (context := read_process_context(pid))]
        assert all(context.attributes in (one, other) for context in contexts)
        seen.extend(context.attributes for context in contexts)
        return one in seen and other in seen

    eventually(has_seen_both, "both contexts")


def test_a_published_context_names_the_service(publish, start_agent, eventually, tmp_path):
    """What a process publishes is in its Resource a moment later, but for what was observed."""
    payload = make_payload(**{"service.name": "shop", "team": "till", "process.pid": "0"})
    pid, output = publish("memfd", payload=payload), tmp_path / "spans.jsonl"
    agent = start_agent("attach", "--pid", str(pid), "--max-rate", "none", "-o", output)

    def has_name() -> bool:
        assert agent.poll() is None
        return output.exists() and '"shop"' in output.read_text()

    eventually(has_name, "the published name in the file")
    agent.terminate()
    agent.wait(timeout=60)
    last = max((span for span in read_spans(output) if span.is_call), key=lambda span: span.start)

    assert (last.resource["service.name"], last.resource["team"], last.resource["process.pid"]) == (
        "shop",
        "till",
        pid,
    )
