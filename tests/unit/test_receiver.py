"""The receiver that other tests rely on: what it hears, what it answers, how it fails on demand."""

import contextlib
import gzip
import http.client
import itertools
import ssl
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from backends.certificates import Certificates, make_certificates
from backends.relay import GrpcCompression
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from receiver import Answer, Receiver

PATIENCE = 10.0  # seconds after which a client gives up
GRPC_METHOD = "/opentelemetry.proto.collector.{}.v1.{}Service/Export"
METHODS = {"traces": ("trace", "Trace"), "logs": ("logs", "Logs"), "metrics": ("metrics", "Metrics")}

both = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])

# Clients of one address share its connection otherwise, and how long it waits after a failure.
_OWN_CONNECTION = [("grpc.use_local_subchannel_pool", 1)]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates of one authority."""
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def some_spans(count: int = 1) -> ExportTraceServiceRequest:
    """Make a request with spans of different ids."""
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    resource_spans.resource.attributes.add(key="service.name").value.string_value = "unit"
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "otel_sysexit"
    for number in range(1, count + 1):
        scope_spans.spans.add(name="openat", trace_id=bytes(15) + b"\1", span_id=number.to_bytes(8))
    return request


class Grpc:
    """A client that sends one message and tells what came back; over a connection of its own."""

    failure = grpc.RpcError

    def __init__(self, receiver: Receiver, credentials: Certificates | None = None, identify: bool = False):
        target = receiver.endpoint.partition("//")[2]
        if credentials is None:
            self._channel = grpc.insecure_channel(target, _OWN_CONNECTION)
        else:
            self._channel = grpc.secure_channel(
                target,
                grpc.ssl_channel_credentials(
                    credentials.authority.read_bytes(),
                    credentials.client_key.read_bytes() if identify else None,
                    credentials.client.read_bytes() if identify else None,
                ),
                _OWN_CONNECTION,
            )

    def send(self, message=None, signal="traces", headers=(), compress=False, patience=PATIENCE):
        """Send; return the response's bytes or raise `grpc.RpcError`."""
        call = self._channel.unary_unary(GRPC_METHOD.format(*METHODS[signal]))
        return call(
            (message or some_spans()).SerializeToString(),
            metadata=headers,
            compression=grpc.Compression.Gzip if compress else grpc.Compression.NoCompression,
            timeout=patience,
        )

    def close(self):
        """Close the connection."""
        self._channel.close()


class Http:
    """The same over HTTP."""

    failure = OSError

    def __init__(self, receiver: Receiver, credentials: Certificates | None = None, identify: bool = False):
        self._address = receiver.endpoint.partition("//")[2]
        self._tls = None
        if credentials is not None:
            self._tls = ssl.create_default_context(cafile=credentials.authority)
            if identify:
                self._tls.load_cert_chain(credentials.client, credentials.client_key)

    def send(self, message=None, signal="traces", headers=(), compress=False, patience=PATIENCE):
        """Send; return the response's bytes, raise an OSError for a refusal as for a lost connection."""
        status, _, body = self.post(
            f"/v1/{signal}",
            (message or some_spans()).SerializeToString(),
            dict(headers),
            compress=compress,
            patience=patience,
        )
        if status != 200:
            raise OSError(status)
        return body

    def post(self, path, body, headers, *, compress=False, patience=PATIENCE):
        """Post bytes; return status, headers and body."""
        headers = {"Content-Type": "application/x-protobuf"} | headers
        if compress:
            body = gzip.compress(body)
            headers["Content-Encoding"] = "gzip"
        if self._tls is None:
            connection = http.client.HTTPConnection(self._address, timeout=patience)
        else:
            connection = http.client.HTTPSConnection(self._address, timeout=patience, context=self._tls)
        with contextlib.closing(connection):
            connection.request("POST", path, body, headers)
            response = connection.getresponse()
            return response.status, dict(response.getheaders()), response.read()

    def close(self):
        """Do nothing: each message has a connection of its own."""


def client_of(receiver: Receiver, *arguments) -> contextlib.closing:
    """Make the client that speaks the receiver's protocol, to be closed by `with`."""
    return contextlib.closing((Grpc if receiver.protocol == "grpc" else Http)(receiver, *arguments))


@both
def test_spans_arrive_equal(protocol):
    """A span comes out with its resource and scope, equal to what was sent."""
    sent = some_spans()
    with Receiver(protocol) as receiver, client_of(receiver) as client:
        client.send(sent)

        assert receiver.requests[0].message == sent
        resource_spans = sent.resource_spans[0]
        scope_spans = resource_spans.scope_spans[0]
        assert receiver.spans() == [(resource_spans.resource, scope_spans.scope, scope_spans.spans[0])]


@both
@pytest.mark.parametrize(
    ("signal", "message"), [("logs", ExportLogsServiceRequest()), ("metrics", ExportMetricsServiceRequest())]
)
def test_other_signals_are_told_apart(protocol, signal, message):
    """Logs and metrics are received under their own names."""
    with Receiver(protocol) as receiver, client_of(receiver) as client:
        client.send(message, signal)

        assert [request.signal for request in receiver.requests] == [signal]


@both
def test_headers_are_recorded_in_lower_case(protocol):
    """A header that the client sent stands under its lower-case name."""
    name = "x-scope-orgid" if protocol == "grpc" else "X-Scope-OrgID"
    with Receiver(protocol) as receiver, client_of(receiver) as client:
        client.send(headers=[(name, "Tenant 7")])

        assert receiver.requests[0].headers["x-scope-orgid"] == "Tenant 7"


@both
@pytest.mark.parametrize(("compress", "encoding"), [(True, "gzip"), (False, "identity")])
def test_compression_is_seen(protocol, compress, encoding):
    """A compressed request is decoded and known as one, a plain one too."""
    sent = some_spans(100)
    with Receiver(protocol) as receiver, client_of(receiver) as client:
        client.send(sent, compress=compress)

        request = receiver.requests[0]
        assert (request.encoding, request.size, request.message) == (encoding, sent.ByteSize(), sent)


def test_grpc_refusal_has_status_and_retry_info():
    """A scripted gRPC refusal reaches the client with its code, text and RetryInfo."""
    answer = Answer(status=grpc.StatusCode.UNAVAILABLE, message="come back", retry_after=1.5)
    with Receiver("grpc", answers=[answer]) as receiver, client_of(receiver) as client:
        with pytest.raises(grpc.RpcError) as refusal:
            client.send()

        assert (refusal.value.code(), refusal.value.details()) == (grpc.StatusCode.UNAVAILABLE, "come back")
        details = dict(refusal.value.trailing_metadata())["grpc-status-details-bin"]
        info = RetryInfo()
        assert Status.FromString(details).details[0].Unpack(info)
        assert info.retry_delay.ToNanoseconds() == 1_500_000_000


@pytest.mark.parametrize("retry_after", [7, "Wed, 21 Oct 2037 07:28:00 GMT"])
def test_http_refusal_has_status_and_retry_after(retry_after):
    """A scripted HTTP refusal reaches the client with its status, Retry-After and a Status message."""
    answer = Answer(status=503, message="come back", retry_after=retry_after)
    with Receiver("http/protobuf", answers=[answer]) as receiver, client_of(receiver) as client:
        status, headers, body = client.post("/v1/traces", b"", {})

        assert (status, headers["Retry-After"]) == (503, str(retry_after))
        assert Status.FromString(body).message == "come back"


@both
def test_refused_spans_do_not_count(protocol):
    """A refused request is among the requests, its spans are not among the spans."""
    refusal = Answer(status=grpc.StatusCode.UNAVAILABLE if protocol == "grpc" else 503)
    with Receiver(protocol, answers=[refusal]) as receiver, client_of(receiver) as client:
        with pytest.raises(client.failure):
            client.send()

        assert (len(receiver.requests), receiver.accepted, receiver.spans()) == (1, [], [])


@both
def test_script_ends_in_success(protocol):
    """After the scripted answers every request is taken."""
    refusal = Answer(status=grpc.StatusCode.UNAVAILABLE if protocol == "grpc" else 503)
    with Receiver(protocol, answers=[refusal, refusal]) as receiver, client_of(receiver) as client:
        for _ in range(2):
            with pytest.raises(client.failure):
                client.send()
        client.send()

        assert len(receiver.spans()) == 1


@both
def test_answer_may_depend_on_the_request(protocol):
    """A function in the script decides by looking at the request."""
    refusal = Answer(status=grpc.StatusCode.RESOURCE_EXHAUSTED if protocol == "grpc" else 413)

    def small_only(request):
        return refusal if request.size > 500 else Answer()

    with Receiver(protocol, answers=itertools.repeat(small_only)) as receiver, client_of(receiver) as client:
        client.send(some_spans(3))
        with pytest.raises(client.failure):
            client.send(some_spans(300))

        assert len(receiver.spans()) == 3


@both
def test_partial_success_is_reported(protocol):
    """A partial success carries the number of rejected spans and the reason."""
    answers = [Answer(rejected=2, message="too old")]
    with Receiver(protocol, answers=answers) as receiver, client_of(receiver) as client:
        response = ExportTraceServiceResponse.FromString(client.send(some_spans(5)))

        assert response.partial_success.rejected_spans == 2
        assert response.partial_success.error_message == "too old"


@both
def test_delay_outlasts_an_impatient_client(protocol):
    """A delayed answer comes too late for a client with a shorter timeout, though the request was heard."""
    with Receiver(protocol, answers=[Answer(delay=60)]) as receiver, client_of(receiver) as client:
        with pytest.raises(client.failure):
            client.send(patience=0.2)

        assert len(receiver.requests) == 1


@both
def test_cut_connection_is_an_error_and_the_next_is_served(protocol):
    """A connection cut instead of an answer fails that request only."""
    with Receiver(protocol, answers=[Answer(close=True)]) as receiver:
        with client_of(receiver) as client, pytest.raises(client.failure):
            client.send()
        with client_of(receiver) as client:
            client.send()

        assert (len(receiver.requests), len(receiver.spans())) == (2, 1)


@both
def test_stopped_receiver_refuses_connections_and_returns(protocol):
    """Between stop and start nobody answers; afterwards the same address does."""
    with Receiver(protocol) as receiver:
        receiver.stop()
        with client_of(receiver) as client, pytest.raises(client.failure):
            client.send(patience=2)
        assert receiver.requests == []

        receiver.start()
        with client_of(receiver) as client:
            client.send()

        assert len(receiver.spans()) == 1


@both
def test_stop_cuts_a_request_under_way(protocol):
    """A request that waits for its delayed answer fails when the receiver is stopped."""
    with (
        Receiver(protocol, answers=[Answer(delay=60)]) as receiver,
        client_of(receiver) as client,
        ThreadPoolExecutor(1) as pool,
    ):
        pending = pool.submit(client.send)
        receiver.wait_for(lambda heard: heard.requests)
        receiver.stop()

        with pytest.raises(client.failure):
            pending.result(PATIENCE)


@both
def test_tls_with_the_trusted_authority(protocol, certificates):
    """A client that trusts the authority delivers over TLS."""
    with Receiver(protocol, tls=certificates) as receiver, client_of(receiver, certificates) as client:
        client.send()

        assert receiver.endpoint.startswith("https://")
        assert len(receiver.spans()) == 1


@both
def test_tls_with_another_authority(protocol, certificates, tmp_path):
    """A client that trusts another authority delivers nothing."""
    others = make_certificates(tmp_path)
    with Receiver(protocol, tls=certificates) as receiver, client_of(receiver, others) as client:
        with pytest.raises(client.failure):
            client.send(patience=2)

        assert receiver.requests == []


@both
@pytest.mark.parametrize("identify", [True, False])
def test_mutual_tls_wants_a_client_certificate(protocol, certificates, identify):
    """Under mutual TLS only a client with a certificate of the authority is heard."""
    with (
        Receiver(protocol, tls=certificates, mutual_tls=True) as receiver,
        client_of(receiver, certificates, identify) as client,
        contextlib.nullcontext() if identify else pytest.raises(client.failure),
    ):
        client.send(patience=PATIENCE if identify else 2)
    assert len(receiver.requests) == identify


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/v1/trace", {}, 404),
        ("/v1/traces", {"Content-Type": "application/json"}, 415),
        ("/v1/traces", {"Content-Encoding": "br"}, 415),
        ("/v1/traces", {"Content-Encoding": "gzip"}, 400),
        ("/v1/traces", {}, 400),
    ],
)
def test_http_mistakes_have_their_status(path, headers, status):
    """A wrong path, type, encoding or body is answered as the specification says and not recorded."""
    with Receiver("http/protobuf") as receiver, client_of(receiver) as client:
        answered, _, _ = client.post(path, b"\xff not protobuf", headers)

        assert (answered, receiver.requests) == (status, [])


def test_grpc_message_over_the_limit():
    """A message longer than `max_bytes` ends as RESOURCE_EXHAUSTED, as in a real collector."""
    with Receiver("grpc", max_bytes=1000) as receiver, client_of(receiver) as client:
        with pytest.raises(grpc.RpcError) as refusal:
            client.send(some_spans(100))

        assert refusal.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


@both
def test_many_clients_at_once(protocol):
    """Nothing is lost or doubled when many threads send at the same time."""
    with Receiver(protocol) as receiver, ThreadPoolExecutor(13) as pool:

        def send(count):
            with client_of(receiver) as client:
                client.send(some_spans(count))

        list(pool.map(send, range(1, 98)))

        assert sorted(
            len(r.message.resource_spans[0].scope_spans[0].spans) for r in receiver.requests
        ) == list(range(1, 98))


@both
def test_wait_for_returns_when_enough_came(protocol):
    """A wait begun before the spans came ends when they did."""
    with Receiver(protocol) as receiver, client_of(receiver) as client:
        waiting = threading.Thread(target=receiver.wait_for, args=(5,))
        waiting.start()
        client.send(some_spans(5))
        waiting.join(PATIENCE)

        assert not waiting.is_alive()


def test_wait_for_says_what_came_instead():
    """A wait in vain raises with the numbers of what did come."""
    with Receiver("grpc") as receiver, client_of(receiver) as client:
        client.send(some_spans(5))

        with pytest.raises(TimeoutError, match="there are 5 spans in 1 requests, 1 of them taken"):
            receiver.wait_for(6, deadline=0.05)


def test_unknown_protocol_is_refused():
    """A protocol that the receiver does not speak is an error at once."""
    with pytest.raises(ValueError, match="unknown protocol 'http/json'"):
        Receiver("http/json")


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Make one HTTP/2 frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


@given(
    messages=st.lists(st.tuples(st.booleans(), st.booleans(), st.binary(max_size=20)), max_size=5),
    size=st.integers(1, 50),
)
def test_compression_flags_do_not_depend_on_the_cuts(messages, size):
    """However the stream is cut into pieces, each message's flag is read once and right."""
    stream = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, b"settings")
    for number, (compressed, padded, content) in enumerate(messages):
        start = bytes([compressed]) + len(content).to_bytes(4)
        stream += frame(1, 4, 2 * number + 1, b"headers")
        stream += (
            frame(0, 8, 2 * number + 1, b"\2" + start + b"\0\0")
            if padded
            else frame(0, 0, 2 * number + 1, start)
        )
        stream += frame(0, 1, 2 * number + 1, content)
    reader = GrpcCompression()

    for position in range(0, len(stream), size):
        reader.feed(stream[position : position + size])

    assert list(reader.flags) == [compressed for compressed, _, _ in messages]
