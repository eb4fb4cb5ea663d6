"""A real collector that throws spans away: the OpenTelemetry Collector where `make backends` built it, else rotel."""

import contextlib
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests
from machine import ROOT, wait_until

LOOPBACK: Final = "127.0.0.1"
_ACCEPTED_SPANS: Final = re.compile(r"^otelcol_receiver_accepted_spans\S* (\S+)$", re.MULTILINE)
_CONFIGURATION: Final = """
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: {grpc}
      http:
        endpoint: {http}
exporters:
  nop:
service:
  telemetry:
    metrics:
      level: basic
      readers:
        - pull:
            exporter:
              prometheus:
                host: {host}
                port: {metrics}
  pipelines:
    traces:
      receivers: [otlp]
      exporters: [nop]
"""


@dataclass(frozen=True)
class Collector:
    """A running one."""

    name: str
    endpoint: str
    """For gRPC."""
    http_endpoint: str
    pid: int
    metrics: str
    """Where it tells of itself, for Prometheus; "": it does not."""

    def accepted_spans(self) -> int | None:
        """Return how many spans it has taken; None if it does not say."""
        if not self.metrics:
            return None
        text = requests.get(self.metrics, timeout=10).text
        # Not by a parser of the format: these are the only lines of it that are read.
        return sum(int(float(number)) for number in _ACCEPTED_SPANS.findall(text))


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Collector]:
    """Run a collector for the duration of a `with` block; its files lie in *folder*."""
    grpc, http, metrics = free_ports(3)
    name, command, tells = _choose(folder, f"{LOOPBACK}:{grpc}", f"{LOOPBACK}:{http}", metrics)
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(
            lambda: process.poll() is not None or (is_listening(grpc) and is_listening(http)),
            f"{name} listens",
            20,
        )
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended: {(folder / 'collector.log').read_text(errors='replace')}")
        where = f"http://{LOOPBACK}:{metrics}/metrics" if tells else ""
        yield Collector(name, f"http://{LOOPBACK}:{grpc}", f"http://{LOOPBACK}:{http}", process.pid, where)
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback interface that nobody listens at."""
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(socket.create_server((LOOPBACK, 0))) for _ in range(count)]
        return [server.getsockname()[1] for server in servers]


def _choose(folder: Path, grpc: str, http: str, metrics: int) -> tuple[str, Sequence[str | Path], bool]:
    """Return a collector's name, its command, and whether it tells of itself at the port *metrics*."""
    script = subprocess.run(
        [ROOT / "tests/backends/build.sh", "--print"], check=False, capture_output=True, text=True
    )
    official = Path(script.stdout.strip() or folder, "otelcol")
    if official.is_file():
        configuration = folder / "otelcol.yaml"
        text = _CONFIGURATION.format(grpc=grpc, http=http, host=LOOPBACK, metrics=metrics)
        configuration.write_text(text, encoding="utf-8")
        return "OpenTelemetry Collector, `nop` exporter", [official, "--config", configuration], True
    import rotel  # noqa: PLC0415 (only where it is needed)

    files = ("--pid-file", folder / "rotel.pid", "--log-file", folder / "rotel-agent.log")
    command = [
        Path(rotel.__file__).with_name("rotel-agent"),
        *("start", *files, "--exporter", "blackhole"),
        *("--otlp-grpc-endpoint", grpc, "--otlp-http-endpoint", http),
    ]
    return "rotel, `blackhole` exporter", command, False


def is_listening(port: int) -> bool:
    """Whether somebody accepts connections there."""
    try:
        with socket.create_connection((LOOPBACK, port), 1):
            return True
    except OSError:
        return False
