"""
The same spans made and sent in two ways: by our exporter, and by the OpenTelemetry SDK's tracer.

The SDK has a BatchSpanProcessor and the official exporters. CPU time is this whole process's; the collector is another one.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from unittest.mock import patch

import grpc
import numpy as np
import pipeline
from collector import Collector
from machine import wait_until
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpanExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpanExporter
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter

from otel_sysexit.config import resolve
from otel_sysexit.otlp.export import Batch, Exporter
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.otlp.transport import make_transport

WAYS: Final = tuple(
    (protocol, compression) for protocol in ("grpc", "http/protobuf") for compression in ("none", "gzip")
)
_CASE: Final = pipeline.Case("30 kinds with paths, 1 process", pipeline.MIX, 1)
_RESENT: Final = 2
"""How often ours are sent, in one measurement: there are too few otherwise."""
_SDK_SPANS: Final = 8_192
"""Of these the SDK gets the first: they take it long enough."""


@dataclass(frozen=True)
class Given:
    """A span as an application would tell it to the SDK."""

    name: str
    start_ns: int
    end_ns: int
    attributes: Mapping[str, Any]
    is_error: bool


@dataclass
class Way:
    """One protocol, with or without gzip; ns of CPU a span, by round."""

    protocol: str
    compression: str
    ours: list[float] = field(default_factory=list)
    sdk: list[float] = field(default_factory=list)


class _Recorder(SpanEncoder):
    """Notes what it encodes."""

    batches: Final[list[Batch]] = []
    bodies: Final[list[bytes]] = []

    def encode(self, calls: Any, placement: Any, spans: Any, *sizes: Any) -> Iterator[Any]:
        self.batches.append(Batch(calls, placement, spans))
        for request in super().encode(calls, placement, spans, *sizes):
            self.bodies.append(request.body)
            yield request


def _make() -> tuple[list[Batch], list[Given]]:
    """Return the same spans for both sides; what the pipeline's benchmark encodes."""
    with patch.object(pipeline, "SpanEncoder", _Recorder):
        pipeline.Pipeline(_CASE).run()
    requests = map(ExportTraceServiceRequest.FromString, _Recorder.bodies)
    spans = [
        _tell(span)
        for request in requests
        for resource in request.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
    return list(_Recorder.batches), spans[:_SDK_SPANS]


def _tell(span: Span) -> Given:
    values = {one.key: _value(one.value) for one in span.attributes}
    is_error = span.status.code == span.status.STATUS_CODE_ERROR
    return Given(span.name, span.start_time_unix_nano, span.end_time_unix_nano, values, is_error)


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    return (
        [_value(one) for one in value.array_value.values] if kind == "array_value" else getattr(value, kind)
    )


def measure(sink: Collector, rounds: int) -> list[Way]:
    """Send all spans in every way, *rounds* times in turn; the time before is for connections and caches."""
    batches, spans = _make()
    ways = [Way(*way) for way in WAYS]
    senders: list[tuple[list[float], Callable[[], float], Callable[[], None]]] = []
    for way in ways:
        senders += [(way.ours, *_ours(sink, way, batches)), (way.sdk, *_sdk(sink, way, spans))]
    chance = np.random.default_rng()
    for number in range(1 + rounds):
        for index in chance.permutation(len(senders)).tolist():
            taken, send, _ = senders[index]
            ns = send()
            if number:
                taken.append(ns)
    for _, _, close in senders:
        close()
    return ways


def _ours(
    sink: Collector, way: Way, batches: Sequence[Batch]
) -> tuple[Callable[[], float], Callable[[], None]]:
    """Return what sends all once, giving ns of CPU a span, and what ends it."""
    endpoint = sink.endpoint if way.protocol == "grpc" else sink.http_endpoint
    options = {"endpoint": endpoint, "protocol": way.protocol, "compression": way.compression}
    config = resolve("attach", options, {})
    exporter = Exporter(endpoint, lambda: make_transport(config), config)
    count = _RESENT * sum(len(batch.calls) for batch in batches)

    def send() -> float:
        done = exporter.calls.delivered + count
        before = time.process_time_ns()
        for batch in (*batches,) * _RESENT:
            exporter.add(batch)
        wait_until(lambda: exporter.calls.delivered == done or exporter.calls.undelivered, "delivered")
        if exporter.calls.undelivered:
            raise RuntimeError(f"not delivered: {dict(exporter.calls.undelivered)}")
        return (time.process_time_ns() - before) / count

    return send, exporter.close


def _sdk(sink: Collector, way: Way, spans: Sequence[Given]) -> tuple[Callable[[], float], Callable[[], None]]:
    """Return what makes and sends all once, giving ns of CPU a span, and what ends it."""
    # Its own queue of 2,048 would lose most of them.
    processor = BatchSpanProcessor(_sdk_exporter(sink, way), max_queue_size=2 * len(spans))
    provider = TracerProvider(resource=Resource.create({"service.name": "worker"}), shutdown_on_exit=False)
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("benchmarks")
    parent = trace.SpanContext(1, 1, is_remote=False, trace_flags=trace.TraceFlags(1))
    context = trace.set_span_in_context(trace.NonRecordingSpan(parent))

    def send() -> float:
        before = time.process_time_ns()
        for one in spans:
            span = tracer.start_span(one.name, context, attributes=one.attributes, start_time=one.start_ns)
            if one.is_error:
                span.set_status(trace.StatusCode.ERROR)
            span.end(one.end_ns)
        provider.force_flush(60_000)
        return (time.process_time_ns() - before) / len(spans)

    return send, provider.shutdown


def _sdk_exporter(sink: Collector, way: Way) -> SpanExporter:
    has_gzip = way.compression == "gzip"
    if way.protocol == "grpc":
        compression = grpc.Compression.Gzip if has_gzip else grpc.Compression.NoCompression
        return GrpcSpanExporter(sink.endpoint, insecure=True, compression=compression)
    compression = Compression.Gzip if has_gzip else Compression.NoCompression
    return HttpSpanExporter(f"{sink.http_endpoint}/v1/traces", compression=compression)
