"""Whatever the calls and spans are, the encoder says of them what the SDK's own classes say."""

from contract import reference_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from property.strategies import KEYS, MadeBatch, batches, texts

from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.otlp.request import Request
from otel_sysexit.otlp.resources import ResourceRules
from otel_sysexit.otlp.spans import SpanEncoder

# What stands around the spans of one Resource: the scope, two schema URLs, keys and lengths.
ENVELOPE_BYTES = 200


def encode(batch: MadeBatch, bytes_max: int, **resource_attributes: str) -> list[Request]:
    """Encode with a new encoder."""
    rules = ResourceRules(resource_attributes, AttributeSelection((("*", True),)))
    encoder = SpanEncoder(rules)
    return list(encoder.encode(batch.calls, batch.placement, batch.spans, bytes_max))


def decode(requests: list[Request]) -> list[ExportTraceServiceRequest]:
    """Return the messages of *requests*."""
    return [ExportTraceServiceRequest.FromString(request.body) for request in requests]


@settings(max_examples=80)
@given(batches(), st.dictionaries(KEYS, texts(20), max_size=2))
def test_both_encoders_say_the_same(batch, resource_attributes):
    """The requests decode to the messages that the SDK's encoder makes of the same batch."""
    ours = decode(encode(batch, 1 << 20, **resource_attributes))
    theirs = reference_encoder.encode(batch.calls, batch.placement, batch.spans, resource_attributes)

    assert reference_encoder.merge(ours) == reference_encoder.merge([theirs])


@settings(max_examples=40)
@given(batches(), st.integers(1, 4096))
def test_small_requests_are_complete_in_sum(batch, bytes_max):
    """However small requests have to be, together they say the same, and each counts what it holds."""
    whole, parts = encode(batch, 1 << 20), encode(batch, bytes_max)
    spans = [
        sum(len(scope.spans) for resource in message.resource_spans for scope in resource.scope_spans)
        for message in decode(parts)
    ]

    assert reference_encoder.merge(decode(parts)) == reference_encoder.merge(decode(whole))
    assert sum(part.calls for part in parts) == len(batch.calls)
    assert [part.calls + part.spans for part in parts] == spans


@settings(max_examples=40)
@given(batches(), st.integers(1, 4096))
def test_a_request_has_its_size(batch, bytes_max):
    """A request is within the limit but for its last Resource and the envelopes, or it holds one span."""
    for request, message in zip((parts := encode(batch, bytes_max)), decode(parts), strict=True):
        resources = [len(found.resource.SerializeToString()) for found in message.resource_spans]
        limit = bytes_max + resources[-1] + ENVELOPE_BYTES * len(resources)

        assert request.calls + request.spans == 1 or len(request.body) <= limit


@settings(max_examples=20)
@given(batches(), batches())
def test_an_encoder_has_no_memory_of_content(first, second):
    """What an encoder made before changes nothing in what it makes next."""
    encoder = SpanEncoder(ResourceRules(attributes=AttributeSelection((("*", True),))))
    list(encoder.encode(first.calls, first.placement, first.spans))
    again = list(encoder.encode(second.calls, second.placement, second.spans))

    assert reference_encoder.merge(decode(again)) == reference_encoder.merge(decode(encode(second, 1 << 20)))
