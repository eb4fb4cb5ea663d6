"""
Batches → a collector: a bounded queue, workers that encode and send, and exact counts of what became of each call.

What waits for a slow collector waits as columns and is encoded when it is sent. Connections, TLS, headers,
compression, proxies and the retries within one export are those of opentelemetry-exporter-otlp. This is the only module
that touches private names of those packages; tests/unit/test_export_seams.py notices when they change.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final, Protocol

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_sysexit.calls import Calls
from otel_sysexit.config import Config
from otel_sysexit.errors import AgentError
from otel_sysexit.otlp.spans import REQUEST_BYTES_MAX, Request, SpanEncoder
from otel_sysexit.traces import Placement, Span

QUEUE_CALLS_MAX: Final = 16_384
"""Calls that wait in memory; what comes on top waits in the kernel's ring, where dropping is counted."""
_RETRYABLE_STATUSES: Final = (429, 502, 503, 504)
_NO_LIMIT_SECONDS: Final = 86_400.0
"""What a timeout of 0 means (specification, configuration/common.md); the exporters take it for their own default."""
_PAUSE_SECONDS: Final = 1.0
"""At least this long lies between two exports of one request; within an export the exporters have their own back-off."""
_REASONS_MAX: Final = 20
_STALLED_SECONDS: Final = 5.0
_NOT_SENT: Final = "not sent in time"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one round of the agent has to deliver."""

    calls: Calls
    placement: Placement
    spans: list[Span]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    is_delivered: bool
    rejected: int = 0
    """Spans that a delivered request lost (OTLP partial success)."""
    is_retryable: bool = False
    retry_after: float = 0.0
    """Seconds that the collector wants to be left alone."""
    reason: str = ""
    """For people, one line, when anything was not delivered."""


class Transport(Protocol):
    """One way out."""

    def send(self, request: Request) -> Answer:
        """Deliver *request*, or say why not; may block until `close` is called from another thread."""

    def close(self) -> None:
        """Give up what is being sent, and free everything."""


class GrpcTransport:
    """OTLP over gRPC: the exporter's channel and retries, our bytes."""

    def __init__(self, config: Config) -> None:
        import grpc  # noqa: PLC0415 (0.1 s and 20 MB that HTTP users need not pay)
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        transport = self

        class RawSpanExporter(OTLPSpanExporter):
            """Sends requests that are serialized already."""

            def _translate_data(self, data: Any) -> Any:
                return data

            def _count_data(self, data: Any) -> int:  # noqa: ARG002
                return 0

            def _initialize_channel_and_stub(self) -> None:
                super()._initialize_channel_and_stub()  # type: ignore[no-untyped-call]
                self._client = SimpleNamespace(Export=transport.wrap(self._channel))  # type: ignore[assignment]

        self._note(None, None)
        self._grpc = grpc
        is_insecure = (
            config.insecure if "://" not in str(config.endpoint) else str(config.endpoint).startswith("http:")
        )
        self._exporter = RawSpanExporter(
            endpoint=config.endpoint,
            insecure=is_insecure,
            credentials=None if is_insecure else grpc.ssl_channel_credentials(*_read_certificates(config)),
            headers=tuple((key.lower(), value) for key, value in config.headers.items()) or "",
            timeout=config.timeout_ns / 1e9 or _NO_LIMIT_SECONDS,
            compression=grpc.Compression.Gzip
            if config.compression == "gzip"
            else grpc.Compression.NoCompression,
        )

    def wrap(self, channel: Any) -> Callable[..., Any]:
        """Return an Export that takes bytes and notes what came back."""
        call = channel.unary_unary(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            request_serializer=None,
            response_deserializer=ExportTraceServiceResponse.FromString,
        )

        def export(request: bytes, metadata: Any = None, timeout: float | None = None) -> Any:
            try:
                response = call(request, metadata=metadata, timeout=timeout)
            except self._grpc.RpcError as error:
                self._note(None, error)
                raise
            self._note(response, None)
            return response

        return export

    def _note(self, response: Any, error: Any) -> None:
        self._response, self._error = response, error

    def send(self, request: Request) -> Answer:
        """Export; transient failures were retried until the timeout when this says so."""
        self._note(None, None)
        try:
            self._exporter._export(request.body)  # type: ignore[arg-type]  # noqa: SLF001 (this module's business)
        except ValueError as error:  # grpc's word for a channel that was closed meanwhile
            return Answer(is_delivered=False, reason=str(error))
        if self._error is None and self._response is None:  # closed meanwhile: nothing was sent
            return Answer(is_delivered=False, reason=_NOT_SENT)
        if self._error is None:
            return _partial_success(self._response)
        code = self._error.code()
        # Without RetryInfo a server that says RESOURCE_EXHAUSTED means it (OTLP specification, "Failures").
        retryable: Any = self._exporter._retryable_error_codes  # noqa: SLF001
        is_retryable = code in retryable and code.name != "RESOURCE_EXHAUSTED"
        return Answer(
            is_delivered=False, is_retryable=is_retryable, reason=f"{code.name}: {self._error.details()}"
        )

    def close(self) -> None:
        """Cancel what is in flight."""
        self._exporter.shutdown()


class HttpTransport:
    """OTLP over HTTP with protobuf bodies: the exporter's session and retries, our bytes."""

    def __init__(self, config: Config) -> None:
        import requests  # noqa: PLC0415 (only this transport needs it)
        from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        transport = self

        class NotingSession(requests.Session):
            """Notes each answer: the exporter looks into none of them, and forgets the error when it gives up."""

            def request(self, *args: Any, **kwargs: Any) -> requests.Response:
                try:
                    # Said with the request, or REQUESTS_CA_BUNDLE would count for more than our option.
                    response = super().request(*args, **({"verify": self.verify} | kwargs))
                except requests.RequestException as error:
                    transport.reason = _plain(error)
                    raise
                transport.note(response)
                return response

        self._response: ExportTraceServiceResponse | None = None
        self._status = 0
        self._retry_after = 0.0
        self.reason = "no answer"
        self._exporter = OTLPSpanExporter(
            endpoint=config.endpoint,
            certificate_file=config.certificate,
            client_key_file=config.client_key,
            client_certificate_file=config.client_certificate,
            headers=dict(config.headers),
            timeout=config.timeout_ns / 1e9 or _NO_LIMIT_SECONDS,
            compression=Compression.Gzip if config.compression == "gzip" else Compression.NoCompression,
            session=NotingSession(),
        )

    def note(self, response: Any) -> None:
        """Take down what the collector said."""
        self._status = response.status_code
        seconds = response.headers.get("Retry-After", "")
        self._retry_after = float(seconds) if seconds.isdecimal() else 0.0  # a date is left to the exporter
        self.reason = f"HTTP {response.status_code} {response.reason or ''}".strip()
        self._response = None
        if response.status_code < 300:
            try:
                self._response = ExportTraceServiceResponse.FromString(response.content)
            except Exception:  # noqa: BLE001 (protobuf's DecodeError is not public; a receiver may answer with text)
                self._response = ExportTraceServiceResponse()

    def send(self, request: Request) -> Answer:
        """Export; transient failures were retried until the timeout when this says so."""
        result = self._exporter._client.export(request.body)  # noqa: SLF001 (this module's business)
        if result.success and self._status < 300:
            return _partial_success(self._response)
        status = result.status_code
        # No answer at all, in time or ever: the collector may be back soon.
        is_lost = status is None and self._is_lost(result.error)
        is_retryable = is_lost or status in _RETRYABLE_STATUSES
        return Answer(False, is_retryable=is_retryable, retry_after=self._retry_after, reason=self.reason)

    def _is_lost(self, error: Exception | None) -> bool:
        from requests import Timeout  # noqa: PLC0415 (only this transport needs it)

        return isinstance(error, Timeout) or self._exporter._client._transport.is_connection_error(error)  # noqa: SLF001

    def close(self) -> None:
        """Give up retrying."""
        self._exporter.shutdown()  # type: ignore[no-untyped-call]


def _plain(error: Exception) -> str:
    """Return the innermost words of a connection error: requests wraps urllib3 wraps the system's."""
    inner = error
    while inner.args and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    words = str(getattr(inner, "reason", inner))
    if "Errno" in words:
        words = words[words.rindex("[Errno") :]
    elif " object at 0x" in words:
        words = words.partition(": ")[2]
    return words or "no connection"


def _partial_success(response: Any) -> Answer:
    if response is None or not response.HasField("partial_success"):
        return Answer(is_delivered=True)
    partial = response.partial_success
    return Answer(is_delivered=True, rejected=partial.rejected_spans, reason=partial.error_message)


def _read_certificates(config: Config) -> tuple[bytes | None, bytes | None, bytes | None]:
    """Return root certificates, private key and certificate chain, as gRPC wants them."""

    def read(path: str | None) -> bytes | None:
        if path is None:
            return None
        try:
            with open(path, "rb") as file:  # noqa: PTH123
                return file.read()
        except OSError as error:
            raise AgentError(f"cannot read {path}: {error.strerror}") from error

    return read(config.certificate), read(config.client_key), read(config.client_certificate)


class Exporter:
    """A bounded queue with a thread behind it that encodes and sends."""

    def __init__(
        self,
        name: str,
        make_transport: Callable[[], Transport],
        config: Config,
        bytes_max: int = REQUEST_BYTES_MAX,
    ) -> None:
        """
        Start the thread.

        Args:
            name: Where it goes, for people.
            make_transport: Called in the thread: what is slow to make delays nothing.
            config: Deadlines and the attributes of every Resource.
            bytes_max: Size of a request.
        """
        self.name = name
        self.delivered = 0
        self.undelivered: Counter[str] = Counter()
        self._make_transport = make_transport
        self._config = config
        self._bytes_max = bytes_max
        self._batches: deque[Batch] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._unsent = 0  # calls of the batch under way that are not counted yet
        self._is_busy = False
        self._is_closing = False
        self._give_up_at = float("inf")
        self._delivered_at = time.monotonic()
        self._transport: Transport | None = None
        self._thread = threading.Thread(target=self._work, name="export", daemon=True)
        self._thread.start()

    def room(self) -> int:
        """Return how many more calls the queue takes."""
        return max(QUEUE_CALLS_MAX - self._waiting, 0)

    def add(self, batch: Batch) -> None:
        """Queue *batch*; never blocks."""
        with self._changed:
            self._batches.append(batch)
            self._waiting += len(batch.calls)
            self._changed.notify()

    def is_stalled(self) -> bool:
        """Whether nothing was delivered for a while though there was something to deliver."""
        return self.room() == 0 and time.monotonic() - self._delivered_at > _STALLED_SECONDS

    def refuse(self, count: int) -> None:
        """Count calls that never came here because there was no room."""
        with self._changed:
            self._lose(count, "queue full")

    def close(self) -> None:
        """Deliver what is queued, until nothing was for the flush timeout; what is left then counts as undelivered."""
        with self._changed:
            self._is_closing = True
            self._extend()
            self._changed.notify_all()
            while (self._batches or self._is_busy) and time.monotonic() < self._give_up_at:
                self._changed.wait(max(self._give_up_at - time.monotonic(), 0))
        self.abort()

    def _extend(self) -> None:
        self._give_up_at = time.monotonic() + self._config.flush_timeout_ns / 1e9

    def abort(self) -> None:
        """End at once; count what is left."""
        self._give_up_at = 0.0
        with self._changed:
            self._is_closing = True
            self._changed.notify_all()
        if self._transport is not None:
            self._transport.close()
        self._thread.join(timeout=1)
        with self._changed:
            self._lose(self._unsent + sum(len(batch.calls) for batch in self._batches), _NOT_SENT)
            self._unsent = 0  # should the thread hang in a library still
            self._batches.clear()

    def _lose(self, calls: int, reason: str) -> None:
        if calls:
            # The words are the collector's: however many it has, what is kept is bounded.
            is_known = reason in self.undelivered or len(self.undelivered) < _REASONS_MAX
            self.undelivered[reason if is_known else "other reasons"] += calls

    def _work(self) -> None:
        encoder = SpanEncoder(self._config.resource_attributes)
        reason = bug = ""
        try:
            self._transport = self._make_transport()
        except Exception as error:  # noqa: BLE001 (whatever a library refuses: its words, and every call counted)
            reason = str(error) or type(error).__name__
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._batches or self._is_closing)
                if not self._batches:
                    return
                batch = self._batches.popleft()
                self._is_busy = True
                self._unsent = len(batch.calls)
            try:
                for request in encoder.encode(batch.calls, batch.placement, batch.spans, self._bytes_max):
                    if self._transport is None:
                        self._count(request, Answer(is_delivered=False, reason=reason))
                    else:
                        self._count(request, self._send(self._transport, request))
            except Exception as error:  # noqa: BLE001 (a bug of ours must not end delivery)
                bug = f"internal error: {type(error).__name__}: {error}"
            finally:
                with self._changed:
                    self._lose(self._unsent, bug)
                    self._unsent = 0
                    self._is_busy = False
                    self._waiting -= len(batch.calls)
                    self._changed.notify_all()

    def _send(self, transport: Transport, request: Request) -> Answer:
        """Send until delivered, refused for good, or out of time."""
        answer = Answer(is_delivered=False, reason=_NOT_SENT)
        while time.monotonic() < self._give_up_at:
            answer = transport.send(request)
            if answer.is_delivered or not answer.is_retryable:
                break
            self._pause(max(answer.retry_after, _PAUSE_SECONDS))
        return answer

    def _pause(self, seconds: float) -> None:
        """Wait, at most until it is time to give up."""
        end = time.monotonic() + seconds
        with self._changed:
            while (left := min(end, self._give_up_at) - time.monotonic()) > 0:
                self._changed.wait(left)

    def _count(self, request: Request, answer: Answer) -> None:
        with self._changed:
            calls = min(request.calls, self._unsent)  # 0 when it was given up meanwhile
            self._unsent -= calls
            if not answer.is_delivered:
                self._lose(calls, answer.reason)
                return
            self._delivered_at = time.monotonic()
            if self._is_closing and self._give_up_at:
                self._extend()
            # Which spans were rejected is not said: calls are by far the most.
            lost = min(answer.rejected, calls)
            self.delivered += calls - lost
            self._lose(lost, f"rejected: {answer.reason}")


def make_transport(config: Config) -> Transport:
    """Return the transport for the protocol of *config*."""
    return GrpcTransport(config) if config.protocol == "grpc" else HttpTransport(config)
