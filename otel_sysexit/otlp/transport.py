"""
Requests → a collector, over gRPC or HTTP.

Connections, TLS, headers, compression, proxies and the retries within one export are those of
opentelemetry-exporter-otlp. This is the only module that touches private names of those packages;
tests/unit/test_export_seams.py notices when they change.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, Final, NamedTuple, Protocol

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from otel_sysexit.config import Config
from otel_sysexit.errors import AgentError
from otel_sysexit.imports import without
from otel_sysexit.otlp.request import Request, Signal

NOT_SENT: Final = "not sent in time"
_RETRYABLE_STATUSES: Final = (429, 502, 503, 504)
_NO_LIMIT_SECONDS: Final = 86_400.0
"""What a timeout of 0 means (specification, configuration/common.md); the exporters take it for their own default."""
_NO_SUCH_SERVICE: Final = ("HTTP 404", "UNIMPLEMENTED")
"""How the reasons begin that a collector gives which does not take a signal."""


class _Service(NamedTuple):
    """What differs between the signals."""

    method: str
    """Of gRPC."""
    response: Any
    """Class of its messages."""
    rejected: str
    """Field of a partial success."""


_SERVICES: Final = {
    Signal.TRACES: _Service(
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        ExportTraceServiceResponse,
        "rejected_spans",
    ),
    Signal.LOGS: _Service(
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        ExportLogsServiceResponse,
        "rejected_log_records",
    ),
}


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one request."""

    is_delivered: bool
    rejected: int = 0
    """Spans or log records that a delivered request lost (OTLP partial success)."""
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
    """One signal over gRPC: the channel and retries of the exporter for spans, our bytes, whatever the signal."""

    def __init__(self, config: Config, signal: Signal) -> None:
        with without("ssl"):  # grpc has a TLS of its own; asyncio, which it imports, would like another one
            import grpc  # noqa: PLC0415 (0.1 s and 20 MB that HTTP users need not pay)
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        transport = self
        self._service = _SERVICES[signal]

        class RawExporter(OTLPSpanExporter):
            """Sends requests that are serialized already."""

            _client: Any

            def _translate_data(self, data: Any) -> Any:
                return data

            def _count_data(self, data: Any) -> int:  # noqa: ARG002
                return 0

            def _initialize_channel_and_stub(self) -> None:
                make_channel: Callable[[], None] = super()._initialize_channel_and_stub
                make_channel()
                self._client = SimpleNamespace(Export=transport.wrap(self._channel))

        self._note(None, None)
        self._grpc = grpc
        is_insecure = (
            config.insecure if "://" not in str(config.endpoint) else str(config.endpoint).startswith("http:")
        )
        self._exporter = RawExporter(
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
            self._service.method,
            request_serializer=None,
            response_deserializer=self._service.response.FromString,
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
            return Answer(is_delivered=False, reason=NOT_SENT)
        if self._error is None:
            return _partial_success(self._response, self._service)
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
    """
    One signal over HTTP with protobuf bodies.

    The session and retries are those of the exporter for spans, the bytes ours, whatever the signal.
    """

    def __init__(self, config: Config, signal: Signal) -> None:
        import requests  # noqa: PLC0415 (only this transport needs it)
        from opentelemetry.exporter.otlp.proto.http import Compression  # noqa: PLC0415
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        transport = self

        class NotingSession(requests.Session):
            """Notes each answer: the exporter looks into none of them, and forgets the error when it gives up."""

            def request(self, *args: Any, **kwargs: Any) -> requests.Response:
                # The exporter's last pause lasted to the end of its time, of which urllib3 wants some.
                if not kwargs.get("timeout", 1) > 0:
                    raise requests.Timeout
                try:
                    # Said with the request, or REQUESTS_CA_BUNDLE would count for more than our option.
                    response = super().request(*args, **({"verify": self.verify} | kwargs))
                except requests.RequestException as error:
                    transport.reason = _plain(error)
                    raise
                transport.note(response)
                return response

        self._service = _SERVICES[signal]
        self._forget()
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

    def _forget(self) -> None:
        """Begin anew: nothing was answered."""
        self._response: Any = None
        self._retry_after = 0.0
        self.reason = "no answer"

    def note(self, response: Any) -> None:
        """Take down what the collector said."""
        seconds = response.headers.get("Retry-After", "")
        self._retry_after = float(seconds) if seconds.isdecimal() else 0.0  # a date is left to the exporter
        self.reason = f"HTTP {response.status_code} {response.reason or ''}".strip()
        if response.status_code < 300:
            self._note_success(response)

    def _note_success(self, response: Any) -> None:
        """Take down what came with a success; a page for people is none: some other server, or a login, is in the way."""
        sort = response.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if sort == "text/html":
            self.reason += ", but a page for people: this is no OTLP receiver"
            return
        self._response = self._service.response()
        try:
            if sort == "application/json":  # not what was asked for, but understood
                from google.protobuf import json_format  # noqa: PLC0415 (seldom needed)

                json_format.Parse(response.content, self._response, ignore_unknown_fields=True)
            else:
                self._response.MergeFromString(response.content)
        except Exception:  # noqa: BLE001 (two libraries' words for bytes that are none: a receiver may answer with text)
            self._response.Clear()

    def send(self, request: Request) -> Answer:
        """Export; transient failures were retried until the timeout when this says so."""
        self._forget()
        result = self._exporter._client.export(request.body)  # noqa: SLF001 (this module's business)
        if result.success and self._response is not None:
            return _partial_success(self._response, self._service)
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
        self._exporter.shutdown()


def _plain(error: Exception) -> str:
    """Return the innermost words of a connection error: requests wraps urllib3 wraps the system's."""
    inner = error
    while inner.args and isinstance(inner.args[0], Exception):
        inner = inner.args[0]
    words = str(getattr(inner, "reason", inner))
    if "[Errno" in words:
        before, errno, after = words.rpartition("[Errno")
        words = errno + (after.removesuffix(")") if before.endswith("(") else after)
    elif " object at 0x" in words:
        words = words.partition(": ")[2]
    return words or "no connection"


def _partial_success(response: Any, service: _Service) -> Answer:
    if response is None or not response.HasField("partial_success"):
        return Answer(is_delivered=True)
    partial = response.partial_success
    rejected = max(getattr(partial, service.rejected), 0)
    return Answer(is_delivered=True, rejected=rejected, reason=partial.error_message)


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


class CollectorTransport:
    """All signals to one collector: a transport for each, which connects when it is first used."""

    def __init__(self, config: Config) -> None:
        """Make them; without `config.logs_endpoint` there is none for logs."""
        make = GrpcTransport if config.protocol == "grpc" else HttpTransport
        self._logs_endpoint = config.logs_endpoint
        self._transports: dict[Signal, Transport] = {Signal.TRACES: make(config, Signal.TRACES)}
        if config.logs_endpoint is not None:
            for_logs = replace(config, endpoint=config.logs_endpoint, headers=config.logs_headers)
            self._transports[Signal.LOGS] = make(for_logs, Signal.LOGS)

    def send(self, request: Request) -> Answer:
        """Deliver *request*; a collector that does not take its signal says so for good."""
        answer = self._transports[request.signal].send(request)
        if request.signal is Signal.LOGS and answer.reason.startswith(_NO_SUCH_SERVICE):
            return replace(answer, reason=f"{self._logs_endpoint} takes no log records ({answer.reason})")
        return answer

    def close(self) -> None:
        """Close them all."""
        for transport in self._transports.values():
            transport.close()


def make_transport(config: Config) -> Transport:
    """Return the transport to the collector of *config*."""
    return CollectorTransport(config)
