"""
The exporters' private names that otlp/transport.py touches, and what comes out: real exports to a receiver on loopback.

When a new release of opentelemetry-exporter-otlp moves one of these names, the first tests here say which.
"""

import inspect
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer

import grpc
import pytest
from backends.certificates import Certificates, make_certificates
from made_calls import START_UNIX_NS, Made, make_calls
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from receiver import Answer, Receiver

from otel_sysexit.config import resolve
from otel_sysexit.errors import AgentError
from otel_sysexit.otlp import export
from otel_sysexit.otlp.export import Batch, Exporter
from otel_sysexit.otlp.logs import encode_in_flight
from otel_sysexit.otlp.request import Request, Signal
from otel_sysexit.otlp.resources import ResourceRules
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.otlp.transport import HttpTransport, Transport, make_transport
from otel_sysexit.stuck import CallInFlight
from otel_sysexit.syscalls import Kinds
from otel_sysexit.traces import Spans
from otel_sysexit.trees import Tree

PROTOCOLS = ("grpc", "http/protobuf")
both = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture(autouse=True)
def no_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the exporters and us try again at once."""
    monkeypatch.setattr(random, "uniform", lambda *_: 0.001)
    monkeypatch.setattr(export, "_PAUSE_SECONDS", 0.01)


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the exporters go straight to loopback, whatever this machine's way out is."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of one authority."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def request_of_calls() -> Request:
    """A request with three calls."""
    calls = make_calls(Made("getpid"), Made("openat", (-100, 1), -2), Made("read"))
    (request,) = SpanEncoder().encode(calls, Tree().place(calls), Spans())
    return request


class Sending:
    """A transport to an endpoint, closed at the end; options are named as in Config."""

    def __init__(self, endpoint: str, protocol: str, **options: object) -> None:
        self.config = resolve("run", {"endpoint": endpoint, "protocol": protocol} | options, {})

    def __enter__(self) -> Transport:
        self._transport = make_transport(self.config)
        return self._transport

    def __exit__(self, *_: object) -> None:
        self._transport.close()


def free_port() -> int:
    """Return a port where nobody listens."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "parameters"),
    [
        (GrpcExporter._export, ["self", "data"]),
        (GrpcExporter._translate_data, ["self", "data"]),
        (GrpcExporter._count_data, ["self", "data"]),
        (GrpcExporter._initialize_channel_and_stub, ["self"]),
    ],
)
def test_the_grpc_exporter_has_its_seams(function, parameters):
    """The methods that we call or override are there, with their parameters."""
    found = list(inspect.signature(function).parameters)

    assert [name if name == "self" else parameters[at] for at, name in enumerate(found)] == parameters


def test_the_grpc_exporter_calls_export_by_name():
    """It exports through self._client.Export(request=, metadata=, timeout=), made from self._channel."""
    exporter = GrpcExporter(endpoint="http://localhost:1", insecure=True)
    asked = {}

    class Client:
        """Notes how it is called."""

        def Export(self, **arguments: object) -> None:  # noqa: N802 (the service's name)
            asked.update(arguments)

    exporter._client = Client()
    exporter._export([])
    channel = exporter._channel
    exporter.shutdown()

    assert set(asked) == {"request", "metadata", "timeout"}
    assert isinstance(channel, grpc.Channel)
    assert grpc.StatusCode.UNAVAILABLE in exporter._retryable_error_codes


def test_the_http_exporter_has_its_seams():
    """It exports bytes through self._client.export(), whose answer has these parts; its transport knows lost connections."""
    exporter = HttpExporter(endpoint=f"http://127.0.0.1:{free_port()}")
    result = exporter._client.export(b"")
    exporter.shutdown()

    assert (result.success, result.status_code) == (False, None)
    assert exporter._client._transport.is_connection_error(result.error)
    assert not exporter._client._transport.is_connection_error(ValueError())
    assert not exporter._client._transport.is_connection_error(None)


# --- what arrives -----------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_our_bytes_arrive(protocol, compression, request_of_calls):
    """What we encoded is what the receiver decodes, compressed or not."""
    with (
        Receiver(protocol) as receiver,
        Sending(receiver.endpoint, protocol, compression=compression) as transport,
    ):
        answer = transport.send(request_of_calls)
        (received,) = receiver.requests

    assert (answer.is_delivered, answer.rejected) == (True, 0)
    assert received.message == ExportTraceServiceRequest.FromString(request_of_calls.body)
    assert received.encoding == {"none": "identity", "gzip": "gzip"}[compression]


@both
def test_headers_arrive(protocol, request_of_calls):
    """Headers go with every request, their names in lower case."""
    with (
        Receiver(protocol) as receiver,
        Sending(
            receiver.endpoint, protocol, headers=["X-Tenant=a%20b", "authorization=Basic%20dTpw"]
        ) as transport,
    ):
        transport.send(request_of_calls)
        headers = receiver.requests[0].headers

    assert (headers["x-tenant"], headers["authorization"]) == ("a b", "Basic dTpw")


@both
def test_tls_trusts_the_given_authority(protocol, certificates, request_of_calls):
    """With the authority's certificate a TLS endpoint is delivered to."""
    with (
        Receiver(protocol, tls=certificates) as receiver,
        Sending(receiver.endpoint, protocol, certificate=str(certificates.authority)) as transport,
    ):
        assert transport.send(request_of_calls).is_delivered


def test_our_certificate_counts_for_more_than_requests_own(
    certificates, request_of_calls, tmp_path, monkeypatch
):
    """A variable of the library that is under HTTP does not replace the authority that was asked for."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(make_certificates(tmp_path).authority))
    with (
        Receiver("http/protobuf", tls=certificates) as receiver,
        Sending(receiver.endpoint, "http/protobuf", certificate=str(certificates.authority)) as transport,
    ):
        assert transport.send(request_of_calls).is_delivered


@both
def test_tls_trusts_nobody_else(protocol, certificates, request_of_calls):
    """Without the authority's certificate nothing is delivered, and the reason names TLS."""
    with (
        Receiver(protocol, tls=certificates) as receiver,
        Sending(receiver.endpoint, protocol, timeout_ns="2s") as transport,
    ):
        answer = transport.send(request_of_calls)
        assert not receiver.requests

    assert not answer.is_delivered
    assert "certificate" in answer.reason.lower()


@both
def test_mutual_tls_shows_the_clients_certificate(protocol, certificates, request_of_calls):
    """A receiver that demands a client certificate gets ours."""
    ours = {
        "certificate": str(certificates.authority),
        "client_key": str(certificates.client_key),
        "client_certificate": str(certificates.client),
    }
    with Receiver(protocol, tls=certificates, mutual_tls=True) as receiver:
        with Sending(receiver.endpoint, protocol, **ours) as transport:
            assert transport.send(request_of_calls).is_delivered
        with Sending(
            receiver.endpoint, protocol, certificate=ours["certificate"], timeout_ns="2s"
        ) as stranger:
            assert not stranger.send(request_of_calls).is_delivered


def test_grpc_without_a_scheme_is_tls(certificates, request_of_calls):
    """A host and a port alone mean TLS, unless it is said to be insecure."""
    with Receiver("grpc", tls=certificates) as receiver:
        address = receiver.endpoint.partition("//")[2]
        with Sending(address, "grpc", certificate=str(certificates.authority)) as transport:
            assert transport.send(request_of_calls).is_delivered
    with Receiver("grpc") as receiver:
        address = receiver.endpoint.partition("//")[2]
        with Sending(address, "grpc", insecure=True) as transport:
            assert transport.send(request_of_calls).is_delivered


# --- what comes back --------------------------------------------------------------------------------------------------

REFUSALS = [
    ("http/protobuf", Answer(status=400), "HTTP 400 Bad Request"),
    ("http/protobuf", Answer(status=401), "HTTP 401 Unauthorized"),
    ("http/protobuf", Answer(status=404), "HTTP 404 Not Found"),
    ("http/protobuf", Answer(status=413), "HTTP 413"),
    ("http/protobuf", Answer(status=500), "HTTP 500 Internal Server Error"),
    ("http/protobuf", Answer(status=302), "HTTP 302 Found"),
    ("grpc", Answer(status=grpc.StatusCode.INVALID_ARGUMENT, message="no"), "INVALID_ARGUMENT: no"),
    ("grpc", Answer(status=grpc.StatusCode.UNAUTHENTICATED, message="who?"), "UNAUTHENTICATED: who?"),
    ("grpc", Answer(status=grpc.StatusCode.UNIMPLEMENTED, message="what?"), "UNIMPLEMENTED: what?"),
]


@pytest.mark.parametrize(("protocol", "refusal", "reason"), REFUSALS)
def test_a_refusal_is_final(protocol, refusal, reason, request_of_calls):
    """What the collector refuses is sent once, and the reason says how it did; a redirection is a refusal, too."""
    with (
        Receiver(protocol, answers=[refusal]) as receiver,
        Sending(receiver.endpoint, protocol) as transport,
    ):
        answer = transport.send(request_of_calls)

        assert len(receiver.requests) == 1
    assert (answer.is_delivered, answer.is_retryable) == (False, False)
    assert answer.reason.startswith(reason)


RETRIES = [
    ("http/protobuf", Answer(status=429, retry_after="0")),
    ("http/protobuf", Answer(status=503, retry_after="0")),
    ("http/protobuf", Answer(status=502)),
    ("http/protobuf", Answer(status=504)),
    ("http/protobuf", Answer(close=True)),
    ("grpc", Answer(status=grpc.StatusCode.UNAVAILABLE)),
    ("grpc", Answer(status=grpc.StatusCode.ABORTED)),
    ("grpc", Answer(status=grpc.StatusCode.DEADLINE_EXCEEDED)),
    ("grpc", Answer(close=True)),
]


@pytest.mark.parametrize(("protocol", "trouble"), RETRIES)
def test_trouble_passes(protocol, trouble, request_of_calls):
    """What may pass is tried again within the export, with the same bytes."""
    with (
        Receiver(protocol, answers=[trouble, trouble]) as receiver,
        Sending(receiver.endpoint, protocol) as transport,
    ):
        answer = transport.send(request_of_calls)
        messages = [request.message for request in receiver.requests]

    assert answer.is_delivered
    assert len(messages) >= 2
    assert all(message == messages[0] for message in messages)


@pytest.mark.parametrize(
    ("protocol", "trouble", "reason"),
    [
        ("http/protobuf", Answer(status=503), "HTTP 503"),
        ("grpc", Answer(status=grpc.StatusCode.UNAVAILABLE, message="away"), "UNAVAILABLE: away"),
    ],
)
def test_trouble_that_stays_may_be_tried_again(protocol, trouble, reason, request_of_calls):
    """When an export gave up over what may pass, we may try another one."""
    with (
        Receiver(protocol, answers=[trouble] * 50) as receiver,
        Sending(receiver.endpoint, protocol) as transport,
    ):
        answer = transport.send(request_of_calls)

    assert (answer.is_delivered, answer.is_retryable) == (False, True)
    assert answer.reason.startswith(reason)


def test_a_collector_that_wants_to_be_left_alone_is(request_of_calls):
    """A Retry-After beyond the export's time ends the export, and is passed on."""
    with (
        Receiver("http/protobuf", answers=[Answer(status=503, retry_after=60)]) as receiver,
        Sending(receiver.endpoint, "http/protobuf") as transport,
    ):
        answer = transport.send(request_of_calls)

        assert len(receiver.requests) == 1
    assert (answer.is_retryable, answer.retry_after) == (True, 60)


def test_what_a_collector_asked_for_is_not_asked_for_ever(request_of_calls):
    """A Retry-After counts for the export that it was the answer to, not for one that found nobody."""
    with (
        Receiver("http/protobuf", answers=[Answer(status=503, retry_after=60)]) as receiver,
        Sending(receiver.endpoint, "http/protobuf") as transport,
    ):
        first = transport.send(request_of_calls)
        receiver.stop()
        second = transport.send(request_of_calls)

    assert (first.retry_after, second.retry_after) == (60, 0)
    assert "onnection refused" in second.reason


def test_an_export_without_time_left_may_be_tried_again(request_of_calls):
    """Where the exporter's last pause ends with its time, it is as if nobody had answered in time."""
    options = {"endpoint": f"http://127.0.0.1:{free_port()}/v1/traces", "protocol": "http/protobuf"}
    transport = HttpTransport(resolve("run", options, {}), Signal.TRACES)
    transport._exporter._client._timeout = 0.0
    answer = transport.send(request_of_calls)
    transport.close()

    assert (answer.is_delivered, answer.is_retryable) == (False, True)


@pytest.mark.parametrize(
    ("sort", "content", "is_delivered", "rejected"),
    [
        ("text/html; charset=utf-8", b"<html>Jaeger</html>", False, 0),
        (
            "application/json",
            b'{"partialSuccess": {"rejectedSpans": "2", "errorMessage": "too old"}}',
            True,
            2,
        ),
        ("application/json", b"{}", True, 0),
        ("text/plain", b"ok", True, 0),
        (None, b"", True, 0),
    ],
)
def test_an_answer_that_is_no_protobuf_is_read_for_what_it_is(
    request_of_calls, sort, content, is_delivered, rejected
):
    """A page for people acknowledges nothing; what a receiver says in JSON counts, and any other success is one."""

    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(200)
            if sort:
                self.send_header("Content-Type", sort)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        with Sending(f"http://127.0.0.1:{server.server_port}", "http/protobuf") as transport:
            answer = transport.send(request_of_calls)
        server.shutdown()
        thread.join()

    assert (answer.is_delivered, answer.is_retryable, answer.rejected) == (is_delivered, False, rejected)
    assert is_delivered or "no OTLP receiver" in answer.reason


def test_nobody_rejects_less_than_nothing(request_of_calls):
    """A number below zero adds nothing to what was delivered."""
    with (
        Receiver("grpc", answers=[Answer(rejected=-7, message="what?")]) as receiver,
        Sending(receiver.endpoint, "grpc") as transport,
    ):
        answer = transport.send(request_of_calls)

    assert (answer.is_delivered, answer.rejected) == (True, 0)


def test_an_exhausted_grpc_collector_is_final(request_of_calls):
    """RESOURCE_EXHAUSTED without word of when to come back means the request, not the moment."""
    exhausted = Answer(status=grpc.StatusCode.RESOURCE_EXHAUSTED, message="too large")
    with (
        Receiver("grpc", answers=[exhausted] * 50) as receiver,
        Sending(receiver.endpoint, "grpc") as transport,
    ):
        answer = transport.send(request_of_calls)

    assert (answer.is_delivered, answer.is_retryable) == (False, False)
    assert answer.reason == "RESOURCE_EXHAUSTED: too large"


@both
def test_nobody_there_may_be_tried_again(protocol, request_of_calls):
    """A port where nobody listens is no reason to give up for good; the reason says what the system said."""
    with Sending(f"http://127.0.0.1:{free_port()}", protocol) as transport:
        answer = transport.send(request_of_calls)

    assert (answer.is_delivered, answer.is_retryable) == (False, True)
    assert "onnection refused" in answer.reason


@both
def test_partial_success_is_counted(protocol, request_of_calls):
    """A collector that took the request but rejected spans says how many, and why."""
    partly = Answer(rejected=2, message="too old")
    with (
        Receiver(protocol, answers=[partly]) as receiver,
        Sending(receiver.endpoint, protocol) as transport,
    ):
        answers = [transport.send(request_of_calls), transport.send(request_of_calls)]

    assert [(answer.is_delivered, answer.rejected) for answer in answers] == [(True, 2), (True, 0)]
    assert [answer.reason for answer in answers] == ["too old", ""]


@both
def test_no_timeout_is_no_limit(protocol, request_of_calls):
    """A timeout of 0 means that there is none, not that there is no time."""
    with Receiver(protocol) as receiver, Sending(receiver.endpoint, protocol, timeout_ns="0s") as transport:
        of_spans = transport._transports[Signal.TRACES]
        limited = of_spans._exporter if protocol == "grpc" else of_spans._exporter._client

        assert transport.send(request_of_calls).is_delivered
        assert limited._timeout > 3600


@both
def test_a_timeout_ends_an_export(protocol, request_of_calls):
    """A collector that does not answer in time is given up, for now."""
    with (
        Receiver(protocol, answers=[Answer(delay=30)] * 10) as receiver,
        Sending(receiver.endpoint, protocol, timeout_ns="300ms") as transport,
    ):
        answer = transport.send(request_of_calls)

    assert (answer.is_delivered, answer.is_retryable) == (False, True)


def test_what_cannot_be_sent_is_final(request_of_calls):
    """A header that HTTP does not allow is not tried for ever."""
    with Receiver("http/protobuf") as receiver:
        config = replace(Sending(receiver.endpoint, "http/protobuf").config, headers={"a": "b\nc"})
        transport = make_transport(config)
        answer = transport.send(request_of_calls)
        transport.close()

    assert (answer.is_delivered, answer.is_retryable) == (False, False)
    assert "header" in answer.reason


@both
def test_after_closing_nothing_counts_as_delivered(protocol, request_of_calls):
    """A closed transport does not take the answer to an earlier request for one to this."""
    with Receiver(protocol) as receiver:
        transport = make_transport(Sending(receiver.endpoint, protocol).config)
        transport.send(request_of_calls)
        transport.close()
        answer = transport.send(request_of_calls)
        arrived = len(receiver.requests)

    assert answer.is_delivered == (arrived == 2)


# --- log records ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def request_of_logs() -> Request:
    """A request with a log record."""
    (made,) = make_calls(Made("read")).threads
    call = CallInFlight(made, Kinds()[0], START_UNIX_NS, 31 * 10**9)
    (request,) = encode_in_flight([call], START_UNIX_NS + 31 * 10**9, ResourceRules(), is_stuck=True)
    return request


@both
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_both_signals_arrive(protocol, compression, request_of_calls, request_of_logs):
    """Through one transport, spans go to the service for traces and log records to that for logs, with the headers."""
    with (
        Receiver(protocol) as receiver,
        Sending(receiver.endpoint, protocol, compression=compression, headers=["a=1"]) as transport,
    ):
        answers = [transport.send(request) for request in (request_of_logs, request_of_calls)]
        received = receiver.requests

    assert [answer.is_delivered for answer in answers] == [True, True]
    assert [one.signal for one in received] == ["logs", "traces"]
    assert received[0].message == ExportLogsServiceRequest.FromString(request_of_logs.body)
    assert [one.headers["a"] for one in received] == ["1", "1"]
    assert {one.encoding for one in received} == {{"none": "identity", "gzip": "gzip"}[compression]}


@both
def test_log_records_may_go_elsewhere(protocol, request_of_calls, request_of_logs):
    """With an endpoint of their own they go there, and the headers for spans alone do not."""
    with Receiver(protocol) as of_spans, Receiver(protocol) as of_logs:
        path = "/v1/logs" if protocol != "grpc" else ""
        environ = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": of_spans.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "secret=1",
            "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": of_logs.endpoint + path,
        }
        transport = make_transport(resolve("run", {}, environ))
        answers = [transport.send(request) for request in (request_of_logs, request_of_calls)]
        transport.close()
        (spans,), (logs,) = of_spans.requests, of_logs.requests

    assert [answer.is_delivered for answer in answers] == [True, True]
    assert (spans.signal, logs.signal) == ("traces", "logs")
    assert (spans.headers["secret"], logs.headers.get("secret")) == ("1", None)


@pytest.mark.parametrize(
    ("protocol", "status", "path", "words"),
    [
        ("http/protobuf", 404, "/v1/logs", "HTTP 404 Not Found"),
        ("grpc", grpc.StatusCode.UNIMPLEMENTED, "", "UNIMPLEMENTED: what?"),
    ],
)
def test_a_collector_that_knows_no_logs_is_said(protocol, status, path, words, request_of_logs):
    """Who takes traces only is asked once for each request, and the reason says what is the matter."""
    with (
        Receiver(protocol, answers=[Answer(status=status, message="what?")]) as receiver,
        Sending(receiver.endpoint, protocol) as transport,
    ):
        answer = transport.send(request_of_logs)

        assert len(receiver.requests) == 1
    assert (answer.is_delivered, answer.is_retryable) == (False, False)
    assert answer.reason == f"{receiver.endpoint}{path} takes no log records ({words})"


@both
def test_rejected_log_records_are_counted(protocol, request_of_logs):
    """A partial success of logs says how many, in a field of its own."""
    partly = Answer(rejected=1, message="too old")
    with Receiver(protocol, answers=[partly]) as receiver, Sending(receiver.endpoint, protocol) as transport:
        answer = transport.send(request_of_logs)

    assert (answer.is_delivered, answer.rejected, answer.reason) == (True, 1, "too old")


# --- the whole --------------------------------------------------------------------------------------------------------


@pytest.fixture
def calls() -> Iterator[Batch]:
    """A batch of 23 calls."""
    made = make_calls(*[Made("getppid")] * 23)
    return Batch(made, Tree().place(made), Spans())


@both
def test_a_batch_reaches_the_collector(protocol, calls):
    """Through queue, encoder and transport, every call arrives and counts."""
    with Receiver(protocol, answers=[Answer(close=True)]) as receiver:
        config = Sending(receiver.endpoint, protocol).config
        exporter = Exporter("collector", lambda: make_transport(config), config)
        exporter.add(calls)
        exporter.close()
        spans = receiver.spans()

    assert len(spans) >= 23
    assert (exporter.calls.delivered, dict(exporter.calls.undelivered)) == (23, {})


@both
def test_a_silent_collector_does_not_hold_up_the_end(protocol, calls):
    """When the collector hangs, closing ends after the flush timeout, and all is accounted for."""
    with Receiver(protocol, answers=[Answer(delay=60)] * 9) as receiver:
        config = resolve(
            "run", {"endpoint": receiver.endpoint, "protocol": protocol, "flush_timeout_ns": "200ms"}, {}
        )
        exporter = Exporter("collector", lambda: make_transport(config), config)
        exporter.add(calls)
        receiver.wait_for(lambda found: found.requests)
        exporter.close()

    assert exporter.calls.delivered + sum(exporter.calls.undelivered.values()) == 23
    assert exporter.calls.delivered == 0


def test_a_certificate_that_goes_away_is_said(tmp_path):
    """A file that was readable at the start and is not any more is named."""
    path = tmp_path / "authority.pem"
    path.write_text("-----BEGIN CERTIFICATE-----")
    config = Sending("https://localhost:4317", "grpc", certificate=str(path)).config
    path.unlink()

    with pytest.raises(AgentError, match=r"cannot read .*authority\.pem: No such file"):
        make_transport(config)
