"""A real collector that throws spans away: the OpenTelemetry Collector where `make backends` built it, else rotel."""

import contextlib
import socket
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from machine import ROOT, wait_until

_LOOPBACK: Final = "127.0.0.1"
_CONFIGURATION: Final = """
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: {address}
exporters:
  nop:
service:
  telemetry:
    metrics:
      level: none
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


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Collector]:
    """Run a collector for the duration of a `with` block; its files lie in *folder*."""
    with socket.create_server((_LOOPBACK, 0)) as free:
        port = free.getsockname()[1]
    address = f"{_LOOPBACK}:{port}"
    name, command = _choose(folder, address)
    with (folder / "collector.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        wait_until(lambda: process.poll() is not None or _is_listening(port), f"{name} listens", 20)
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended: {(folder / 'collector.log').read_text(errors='replace')}")
        yield Collector(name, f"http://{address}")
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _choose(folder: Path, address: str) -> tuple[str, Sequence[str | Path]]:
    script = subprocess.run(
        [ROOT / "tests/backends/build.sh", "--print"], check=False, capture_output=True, text=True
    )
    official = Path(script.stdout.strip() or folder, "otelcol")
    if official.is_file():
        configuration = folder / "otelcol.yaml"
        configuration.write_text(_CONFIGURATION.format(address=address), encoding="utf-8")
        return "OpenTelemetry Collector, `nop` exporter", [official, "--config", configuration]
    import rotel  # noqa: PLC0415 (only where it is needed)

    files = ("--pid-file", folder / "rotel.pid", "--log-file", folder / "rotel-agent.log")
    http = f"{_LOOPBACK}:0"
    command = [
        Path(rotel.__file__).with_name("rotel-agent"),
        *("start", *files, "--exporter", "blackhole"),
        *("--otlp-grpc-endpoint", address, "--otlp-http-endpoint", http),
    ]
    return "rotel, `blackhole` exporter", command


def _is_listening(port: int) -> bool:
    try:
        with socket.create_connection((_LOOPBACK, port), 1):
            return True
    except OSError:
        return False
