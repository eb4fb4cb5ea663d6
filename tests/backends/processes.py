"""Back ends as child processes of the tests: found, started on free loopback ports, awaited, ended by pid."""

import contextlib
import json
import os
import socket
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from backends.comparison import described, from_json
from receiver import Receiver

HERE = Path(__file__).parent
LOOPBACK = "127.0.0.1"
DEADLINE = 30.0  # seconds for a back end to be ready, or to show what it was sent


class MissingError(Exception):
    """A back end is not there; the text says why and what to do."""


def find_binary(name: str) -> Path:
    """
    Find a back end that `make backends` built.

    Args:
        name: `otelcol` or `jaeger`.

    Raises:
        MissingError: there is none.
    """
    script = subprocess.run([HERE / "build.sh", "--print"], capture_output=True, text=True, check=False)
    if script.returncode != 0:
        raise MissingError(script.stderr.strip() or f"build.sh --print ended with {script.returncode}")
    path = Path(script.stdout.strip(), name)
    if not path.exists():
        raise MissingError(f"{name} is not built: run `make backends` (needs a new enough Go)")
    return path


def free_ports(count: int) -> list[int]:
    """Choose ports that nobody uses on loopback at this moment, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def wait_until(condition: Callable[[], Any], what: str, deadline: float = DEADLINE) -> Any:
    """
    Ask until the answer is true, and return it.

    Args:
        condition: what to ask; more and more rarely, up to four times a second.
        what: what is awaited, for the error.
        deadline: seconds.

    Raises:
        TimeoutError: it did not come true.
    """
    end = time.monotonic() + deadline
    pause = 0.01
    while not (answer := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what}: not within {deadline} s")
        time.sleep(pause)
        pause = min(2 * pause, 0.25)
    return answer


@contextlib.contextmanager
def running(
    command: Sequence[str | Path],
    ports: Sequence[int],
    log: Path,
    environment: Mapping[str, str] | None = None,
) -> Iterator[int]:
    """
    Run a server for the duration of a `with` block.

    Args:
        command: what to run.
        ports: the ports it is to listen on; the block begins when it does on all.
        log: where its standard output and error go.
        environment: added to that of the tests, less all `OTEL_…`.

    Yields:
        Its pid.

    Raises:
        RuntimeError: it ended or was not ready in time; the text ends with the end of its log.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=inherited | dict(environment or {}),
        )
    try:
        try:
            wait_until(
                lambda: process.poll() is not None or all(map(_is_listening, ports)), f"{command[0]} listens"
            )
        except TimeoutError as error:
            raise RuntimeError(f"{error}\n{_tail(log)}") from error
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} ended with {process.returncode}\n{_tail(log)}")
        yield process.pid
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _is_listening(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), 1):
            return True
    except OSError:
        return False


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:]


def kept(back_end: "Collector | Jaeger", spans: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """
    Wait until a back end shows as many spans of the same traces as were sent, and describe them.

    Args:
        back_end: where they were sent.
        spans: what was sent, as `comparison.described` tells it.

    Raises:
        TimeoutError: it shows fewer even after a while.
    """
    trace_ids = {span["trace_id"] for span in spans.values()}
    wait_until(lambda: len(back_end.found(trace_ids)) >= len(spans), f"{len(spans)} spans found again")
    return back_end.found(trace_ids)


@dataclass(frozen=True)
class Collector:
    """
    A running collector that forwards what it takes.

    Attributes:
        ports: from protocol to the port it takes OTLP on.
        sink: the receiver that it forwards to.
    """

    ports: Mapping[str, int]
    sink: Receiver

    def endpoint(self, protocol: str) -> str:
        """Return where to send to, by `grpc` or `http/protobuf`."""
        return f"http://{LOOPBACK}:{self.ports[protocol]}"

    def found(self, trace_ids: AbstractSet[str]) -> dict[str, dict[str, Any]]:
        """Describe what it has forwarded of some traces."""
        spans = described(request.message for request in self.sink.accepted if request.signal == "traces")
        return {key: span for key, span in spans.items() if span["trace_id"] in trace_ids}

    @classmethod
    @contextlib.contextmanager
    def official(cls, binary: Path, folder: Path) -> Iterator[Self]:
        """Run the OpenTelemetry Collector; its log is written into *folder*."""
        grpc_port, http_port = free_ports(2)
        with Receiver("http/protobuf") as sink:
            environment = {
                "OTLP_GRPC_PORT": str(grpc_port),
                "OTLP_HTTP_PORT": str(http_port),
                "SINK": sink.endpoint,
            }
            command = [binary, "--config", HERE / "collector" / "otelcol.yaml"]
            with running(command, [grpc_port, http_port], folder / "otelcol.log", environment):
                yield cls({"grpc": grpc_port, "http/protobuf": http_port}, sink)

    @classmethod
    @contextlib.contextmanager
    def rotel(cls, binary: Path, folder: Path) -> Iterator[Self]:
        """Run rotel, the small collector from a Python wheel; its log is written into *folder*."""
        grpc_port, http_port = free_ports(2)
        with Receiver("grpc") as sink:
            command = [
                *(
                    binary,
                    "start",
                    "--pid-file",
                    folder / "rotel.pid",
                    "--log-file",
                    folder / "rotel-agent.log",
                ),
                *("--otlp-grpc-endpoint", f"{LOOPBACK}:{grpc_port}"),
                *("--otlp-http-endpoint", f"{LOOPBACK}:{http_port}"),
                *("--exporter", "otlp", "--otlp-exporter-endpoint", sink.endpoint),
            ]
            with running(command, [grpc_port, http_port], folder / "rotel.log"):
                yield cls({"grpc": grpc_port, "http/protobuf": http_port}, sink)


@dataclass(frozen=True)
class Jaeger:
    """
    A running Jaeger v2 that keeps traces in memory.

    Attributes:
        ports: from protocol to the port it takes OTLP on.
        query: the base address of its query API.
    """

    ports: Mapping[str, int]
    query: str

    def endpoint(self, protocol: str) -> str:
        """Return where to send to, by `grpc` or `http/protobuf`."""
        return f"http://{LOOPBACK}:{self.ports[protocol]}"

    @classmethod
    @contextlib.contextmanager
    def started(cls, binary: Path, folder: Path) -> Iterator[Self]:
        """Run Jaeger; its log is written into *folder*."""
        names = ["OTLP_GRPC_PORT", "OTLP_HTTP_PORT", "QUERY_HTTP_PORT", "QUERY_GRPC_PORT"]
        ports = free_ports(len(names))
        environment = {name: str(port) for name, port in zip(names, ports, strict=True)}
        command = [binary, "--config", HERE / "jaeger" / "jaeger.yaml"]
        with running(command, ports, folder / "jaeger.log", environment):
            yield cls({"grpc": ports[0], "http/protobuf": ports[1]}, f"http://{LOOPBACK}:{ports[2]}")

    def found(self, trace_ids: AbstractSet[str]) -> dict[str, dict[str, Any]]:
        """Describe what it has stored of some traces, in full precision."""
        return described(from_json(part) for trace_id in trace_ids for part in self.trace(trace_id))

    def search(self, service: str) -> list[dict[str, Any]]:
        """Search for a service's traces, as the web page does: in microseconds, each with its `traceID`."""
        query = urllib.parse.urlencode({"service": service, "limit": 1000, "lookback": "1h"})
        found = self._get(f"/api/traces?{query}")
        return found["data"] if found else []

    def trace(self, trace_id: str) -> list[dict[str, Any]]:
        """
        Get a trace through the v3 API, in full precision and as it is stored.

        Without `raw_traces` Jaeger would write its warnings (of a parent that has not come yet, say) into what it
        stores in memory, and every later answer would have them.

        Args:
            trace_id: in hexadecimal.

        Returns:
            OTLP JSON objects, each with `resourceSpans`; none where Jaeger does not know the trace.
        """
        found = self._get(f"/api/v3/traces/{trace_id}?raw_traces=true")
        return [found["result"]] if found else []

    def _get(self, path: str) -> dict[str, Any] | None:
        try:
            with urllib.request.urlopen(self.query + path, timeout=DEADLINE) as response:  # noqa: S310
                return json.load(response)
        except urllib.error.HTTPError as error:
            with error:
                if error.code == 404:
                    return None
                raise
