"""
An OTLP receiver inside the test process, over gRPC or HTTP/protobuf, on a free loopback port.

It decodes with the official protobuf classes, keeps every request with its headers, and answers as the test
scripts it: takes the request, refuses it, takes a part, waits, or cuts the connection.

    with Receiver("grpc", answers=[Answer(status=grpc.StatusCode.UNAVAILABLE)]) as receiver:
        ...  # send something to receiver.endpoint
        receiver.wait_for(23)
        for resource, scope, span in receiver.spans():
            ...

Clients do not talk to the server itself but to a small relay in front of it. The relay can cut connections as a
network does, vanish and come back on the same port, and see whether a gRPC message was compressed, which grpcio
does not tell its handlers.
"""

import gzip
import http.server
import itertools
import ssl
import threading
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NamedTuple, Self

import grpc
from backends.certificates import Certificates
from backends.relay import Relay
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1 import logs_service_pb2
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Answer:
    """
    What the receiver does with one request; `Answer()` takes it at once.

    Args:
        status: refuse with this: an HTTP status (int) or a `grpc.StatusCode`. None takes the request.
        message: the text in the refusal, or in the partial success.
        retry_after: with `status`: seconds after which to come back. The header `Retry-After` over HTTP (a text
            is sent as it is, such as an HTTP date), `RetryInfo` in the status details over gRPC.
        rejected: take the request but report this many spans, log records or data points as rejected.
        delay: seconds to wait before anything else.
        close: cut the connection instead of answering.
    """

    status: int | grpc.StatusCode | None = None
    message: str = ""
    retry_after: float | str | None = None
    rejected: int = 0
    delay: float = 0.0
    close: bool = False

    @property
    def takes(self) -> bool:
        """Whether the request counts as delivered (a part may be rejected)."""
        return self.status is None and not self.close


@dataclass(frozen=True)
class Request:
    """
    One request as it came in.

    Attributes:
        signal: `traces`, `logs` or `metrics`.
        message: the decoded `Export…ServiceRequest`.
        headers: HTTP headers or gRPC metadata, names in lower case.
        encoding: `gzip`, `deflate` or `identity`; None for gRPC over TLS, where it cannot be seen.
        size: length of the message in bytes, uncompressed.
        received_at: `time.monotonic()` of its arrival, in seconds.
    """

    signal: str
    message: Any
    headers: dict[str, str]
    encoding: str | None
    size: int
    received_at: float


class ReceivedSpan(NamedTuple):
    """A span with what it stood under."""

    resource: Resource
    scope: InstrumentationScope
    span: Span


class _Signal(NamedTuple):
    """What differs between the signals of OTLP."""

    name: str
    method: str
    request: type[Message]
    response: Callable[..., Message]
    rejected_field: str


_SIGNALS = (
    _Signal(
        "traces",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        trace_service_pb2.ExportTraceServiceRequest,
        trace_service_pb2.ExportTraceServiceResponse,
        "rejected_spans",
    ),
    _Signal(
        "logs",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        logs_service_pb2.ExportLogsServiceRequest,
        logs_service_pb2.ExportLogsServiceResponse,
        "rejected_log_records",
    ),
    _Signal(
        "metrics",
        "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export",
        metrics_service_pb2.ExportMetricsServiceRequest,
        metrics_service_pb2.ExportMetricsServiceResponse,
        "rejected_data_points",
    ),
)

Script = Iterable[Answer | Callable[[Request], Answer]]


class Receiver:
    """
    The receiver; a context manager, started on entry and gone on exit. Every method may be called from any thread.

    Args:
        protocol: `grpc` or `http/protobuf`.
        tls: certificates to serve TLS with (`backends.certificates.make_certificates`); None serves plain text.
        mutual_tls: also demand a client certificate of the same authority.
        answers: what to do with the requests, in their order: an `Answer`, or a function from the request to one.
            It may be endless (`itertools.repeat`). Requests beyond its end are taken.
        max_bytes: the largest message taken over gRPC, in bytes; larger ones end as RESOURCE_EXHAUSTED.

    Attributes:
        endpoint: what an exporter is to be given, such as `http://127.0.0.1:40001`. Over HTTP it is the base address.
    """

    def __init__(
        self,
        protocol: str = "grpc",
        *,
        tls: Certificates | None = None,
        mutual_tls: bool = False,
        answers: Script = (),
        max_bytes: int = 4 << 20,
    ):
        if protocol not in {"grpc", "http/protobuf"}:
            raise ValueError(f"unknown protocol {protocol!r}")
        self.protocol = protocol
        self._answers = itertools.chain(answers, itertools.repeat(Answer()))
        self._changed = threading.Condition(threading.RLock())
        self._taken: list[tuple[Request, Answer]] = []
        self._span_count = 0  # of the requests taken; counting again at each request would take too long
        self._stopping = threading.Event()
        server = _GrpcServer if protocol == "grpc" else _HttpServer
        self._server = server(self, tls, mutual_tls, max_bytes)
        # Compression is visible in plain HTTP/2 only; over HTTP/1.1 a header tells it.
        self._relay = Relay(self._server.port, is_http2=protocol == "grpc" and tls is None)
        self.endpoint = f"{'https' if tls else 'http'}://{LOOPBACK}:{self._relay.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._relay.close()
        self._server.close()

    def start(self) -> None:
        """Listen on the port of `endpoint`; also again, after `stop`."""
        self._relay.start()

    def stop(self) -> None:
        """Be gone: connections are cut and new ones refused, until `start`. What was received is kept."""
        self._relay.stop()

    @property
    def requests(self) -> list[Request]:
        """All requests in the order of their arrival, also those that were refused."""
        with self._changed:
            return [request for request, _ in self._taken]

    @property
    def accepted(self) -> list[Request]:
        """The requests that were taken, wholly or in part; also when the answer came too late for the client."""
        with self._changed:
            return [request for request, answer in self._taken if answer.takes]

    def spans(self) -> list[ReceivedSpan]:
        """All spans of the requests that were taken, in the order of their arrival."""
        return [
            ReceivedSpan(resource_spans.resource, scope_spans.scope, span)
            for request in self.accepted
            if request.signal == "traces"
            for resource_spans in request.message.resource_spans
            for scope_spans in resource_spans.scope_spans
            for span in scope_spans.spans
        ]

    def wait_for(self, wanted: int | Callable[[Self], object], deadline: float = 10.0) -> None:
        """
        Wait until enough has come in.

        Args:
            wanted: so many spans; or a function of the receiver that returns something true when it is enough.
                It is asked again after every request.
            deadline: seconds to wait at most.

        Raises:
            TimeoutError: it did not come in time; the text says what did.
        """

        def is_enough() -> object:
            return wanted(self) if callable(wanted) else self._span_count >= wanted

        with self._changed:
            if not self._changed.wait_for(is_enough, deadline):
                raise TimeoutError(
                    f"after {deadline} s there are {self._span_count} spans in {len(self._taken)} requests,"
                    f" {len(self.accepted)} of them taken"
                )

    def _take(self, request: Request) -> Answer:
        """Keep a request, find its answer and wait as long as that one says."""
        with self._changed:
            answer = next(self._answers)
            if callable(answer):
                answer = answer(request)
            self._taken.append((request, answer))
            if answer.takes and request.signal == "traces":
                self._span_count += sum(
                    len(scope_spans.spans)
                    for resource_spans in request.message.resource_spans
                    for scope_spans in resource_spans.scope_spans
                )
            self._changed.notify_all()
        self._stopping.wait(answer.delay)
        return answer


def _refusal(answer: Answer, code: int) -> bytes:
    """The `google.rpc.Status` of a refusal, serialized."""
    status = Status(code=code, message=answer.message)
    if isinstance(answer.retry_after, (int, float)):
        info = RetryInfo()
        info.retry_delay.FromNanoseconds(round(answer.retry_after * 1e9))
        status.details.add().Pack(info)
    return status.SerializeToString()


def _success(answer: Answer, signal: _Signal) -> bytes:
    """The response to a request that was taken, serialized."""
    if not answer.rejected and not answer.message:
        return signal.response().SerializeToString()
    partial = {signal.rejected_field: answer.rejected, "error_message": answer.message}
    return signal.response(partial_success=partial).SerializeToString()


class _GrpcServer(grpc.GenericRpcHandler):
    """The OTLP services over gRPC on a port of its own."""

    def __init__(self, receiver: Receiver, tls: Certificates | None, mutual_tls: bool, max_bytes: int):
        self._receiver = receiver
        self._pool = ThreadPoolExecutor(8)
        self._server = grpc.server(self._pool, options=[("grpc.max_receive_message_length", max_bytes)])
        self._server.add_generic_rpc_handlers((self,))
        address = f"{LOOPBACK}:0"
        if tls is None:
            self.port = self._server.add_insecure_port(address)
        else:
            credentials = grpc.ssl_server_credentials(
                [(tls.server_key.read_bytes(), tls.server.read_bytes())],
                tls.authority.read_bytes() if mutual_tls else None,
                mutual_tls,
            )
            self.port = self._server.add_secure_port(address, credentials)
        self._server.start()

    def service(self, handler_call_details):
        """Find the handler of a method, as grpcio asks for it."""
        for signal in _SIGNALS:
            if handler_call_details.method == signal.method:
                return grpc.unary_unary_rpc_method_handler(
                    lambda body, context, signal=signal: self._export(signal, body, context)
                )
        return None

    def _export(self, signal: _Signal, body: bytes, context: grpc.ServicerContext) -> bytes:
        client_port = int(context.peer().rpartition(":")[2])
        request = Request(
            signal=signal.name,
            message=signal.request.FromString(body),
            headers={key.lower(): value for key, value in context.invocation_metadata()},
            encoding=self._receiver._relay.next_encoding(client_port),
            size=len(body),
            received_at=time.monotonic(),
        )
        answer = self._receiver._take(request)
        if answer.close:
            self._receiver._relay.cut(client_port)
            context.abort(grpc.StatusCode.CANCELLED, "cut")
        if answer.status is not None:
            details = _refusal(answer, answer.status.value[0])
            context.set_trailing_metadata((("grpc-status-details-bin", details),))
            context.abort(answer.status, answer.message)
        return _success(answer, signal)

    def close(self) -> None:
        """End the server and its threads."""
        self._server.stop(None).wait()
        self._pool.shutdown()


class _HttpServer(http.server.ThreadingHTTPServer):
    """OTLP/HTTP with protobuf bodies on a port of its own; follows the specification's status codes."""

    daemon_threads = False  # closing waits for the handlers, so that no socket is left behind

    def __init__(self, receiver: Receiver, tls: Certificates | None, mutual_tls: bool, _max_bytes: int):
        super().__init__((LOOPBACK, 0), _HttpHandler)
        self.receiver = receiver
        self.port = self.server_port
        self._tls = None
        if tls is not None:
            self._tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.authority)
            self._tls.load_cert_chain(tls.server, tls.server_key)
            self._tls.verify_mode = ssl.CERT_REQUIRED if mutual_tls else ssl.CERT_NONE
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def get_request(self):
        """Accept a connection; its TLS handshake happens in the handler's thread, at the first read."""
        connection, address = super().get_request()
        if self._tls is not None:
            connection = self._tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, request, client_address):
        """Say nothing of clients that went away or failed the handshake: that is what tests make them do."""

    def close(self) -> None:
        """End the server and its threads."""
        self.shutdown()
        self._thread.join()
        self.server_close()


class _HttpHandler(http.server.BaseHTTPRequestHandler):
    """Takes POST requests to `/v1/traces`, `/v1/logs` and `/v1/metrics`."""

    protocol_version = "HTTP/1.1"  # connections stay open, as a real collector's do
    server: _HttpServer

    def do_POST(self) -> None:
        """Answer one export."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        signal = next((one for one in _SIGNALS if self.path == f"/v1/{one.name}"), None)
        encoding = self.headers.get("Content-Encoding", "identity")
        unpack = {"identity": bytes, "gzip": gzip.decompress, "deflate": zlib.decompress}.get(encoding)
        if signal is None:
            return self._reply(HTTPStatus.NOT_FOUND, b"")
        if unpack is None or self.headers.get("Content-Type") != "application/x-protobuf":
            return self._reply(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, b"")
        try:
            body = unpack(body)
            message = signal.request.FromString(body)
        except (OSError, zlib.error, DecodeError):
            return self._reply(HTTPStatus.BAD_REQUEST, b"")
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(signal.name, message, headers, encoding, len(body), time.monotonic())
        answer = self.server.receiver._take(request)
        if answer.close:
            self.close_connection = True
            return self.server.receiver._relay.cut(self.client_address[1])
        if answer.status is not None:
            return self._reply(answer.status, _refusal(answer, 0), answer.retry_after)
        return self._reply(HTTPStatus.OK, _success(answer, signal))

    def _reply(self, status: int, body: bytes, retry_after: float | str | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", str(len(body)))
        if retry_after is not None:
            self.send_header("Retry-After", str(retry_after))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Print nothing."""
