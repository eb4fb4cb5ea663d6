"""The process context's payload: whatever a process publishes, attributes or nothing come out."""

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue, KeyValueList
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans

from otel_sysexit.otlp.resources import key_value
from otel_sysexit.processcontext import ATTRIBUTES_MAX, ELEMENTS_MAX, TEXT_BYTES_MAX, decode_attributes

texts = st.one_of(
    st.text(max_size=8),
    st.integers(TEXT_BYTES_MAX - 2, TEXT_BYTES_MAX + 2).map(lambda length: "x" * length),
)
scalars = st.one_of(
    st.builds(AnyValue),
    st.builds(AnyValue, string_value=texts),
    st.builds(AnyValue, bool_value=st.booleans()),
    st.builds(AnyValue, int_value=st.integers(-(2**63), 2**63 - 1)),
    st.builds(AnyValue, double_value=st.floats()),
    st.builds(AnyValue, bytes_value=st.binary(max_size=8)),
)
nested = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.builds(lambda one: AnyValue(array_value=ArrayValue(values=one)), st.lists(inner, max_size=4)),
        inner.map(lambda one: AnyValue(kvlist_value=KeyValueList(values=[KeyValue(key="x", value=one)]))),
    ),
    max_leaves=4,
)
long_arrays = st.builds(
    lambda one, count: AnyValue(array_value=ArrayValue(values=[one] * count)),
    scalars,
    st.integers(ELEMENTS_MAX - 1, ELEMENTS_MAX + 1),
)
values = st.one_of(nested, long_arrays)
key_values = st.lists(st.builds(KeyValue, key=texts, value=values), max_size=6)
# The Resource is the first field, as it is that of ResourceSpans.
payloads = key_values.map(
    lambda attributes: ResourceSpans(resource=Resource(attributes=attributes)).SerializeToString()
)
damaged_payloads = st.builds(
    lambda payload, at, length, more: payload[:at] + more + payload[at + length :],
    payloads,
    st.integers(0, 80),
    st.integers(0, 3),
    st.binary(max_size=3),
)


@given(st.one_of(st.binary(max_size=300), payloads, damaged_payloads))
def test_any_payload_is_attributes_or_none(payload):
    """No bytes raise; what comes out is within the limits, and OTLP can say it again."""
    found = decode_attributes(payload)

    if found is not None:
        assert len(found) <= ATTRIBUTES_MAX
        for key, value in found.items():
            parts = value if isinstance(value, tuple) else [value]
            assert all(
                len(part.encode()) <= TEXT_BYTES_MAX for part in [key, *parts] if isinstance(part, str)
            )
            assert len(parts) <= ELEMENTS_MAX
            assert key_value(key, value).SerializeToString()


@given(payloads)
def test_any_resource_is_attributes(payload):
    """What protobuf has written is never malformed."""
    assert decode_attributes(payload) is not None


@given(
    st.dictionaries(
        st.text(min_size=1, max_size=8), st.one_of(st.text(max_size=8), st.booleans(), st.integers(-9, 9))
    )
)
def test_attributes_come_out_as_they_were(attributes):
    """Any text, truth and number goes through."""
    resource = Resource(attributes=[key_value(key, value) for key, value in attributes.items()])

    assert decode_attributes(ResourceSpans(resource=resource).SerializeToString()) == attributes
