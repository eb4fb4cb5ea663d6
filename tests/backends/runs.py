"""Runs of the agent on real commands, sent to a back end and written to a file at the same time."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from backends.comparison import described, from_json_lines, logs_from_json_lines, spans_of
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

AGENT = [sys.executable, "-m", "otel_sysexit"]
PATIENCE = 60  # seconds after which a run has gone wrong
COMMANDS = {
    "ls": ["/bin/ls", "-l", "/etc"],
    "sh": ["sh", "-c", "cat /etc/hostname; cat /nonexistent; true"],
}
# A call that is stuck, once: it is looked for after a second.
STUCK = ["run", "--stuck-after", "900ms", "--syscalls", "clock_nanosleep", "--", "sleep", "1.6"]
PROTOCOLS = ["grpc", "http/protobuf"]


@dataclass(frozen=True)
class Run:
    """
    What one run of the agent said of itself.

    Attributes:
        stderr: what it and the command printed there.
        written: the spans of its `-o` file.
        written_logs: the log records of that file.
        endpoint: where it sent to.
    """

    stderr: str
    written: list[TracesData]
    written_logs: list[LogsData]
    endpoint: str

    @property
    def ledger(self) -> dict[str, int]:
        """
        The numbers of its last word by their names there (`seen`, `emitted`, `in flight` and so on).

        Of the destinations' numbers (`delivered`, `undelivered`) it has those of the endpoint.
        """
        (line,) = re.findall(r"^otel-sysexit: ledger: (.*)$", self.stderr, re.MULTILINE)
        seen, *deliveries, unpaired = line.split("; ")
        (delivery,) = [one for one in deliveries if len(deliveries) == 1 or f"({self.endpoint}" in one]
        numbers = f"{seen} {delivery} {unpaired}"
        return {name: int(number) for name, number in re.findall(r"([a-z][a-z ]*?) (\d+)", numbers)}

    @property
    def trace_ids(self) -> set[str]:
        """The written traces, in hexadecimal."""
        return {span.trace_id.hex() for span in spans_of(self.written)}

    @property
    def services(self) -> set[str]:
        """The written names of services."""
        return {span["resource"]["service.name"][1] for span in described(self.written).values()}


def run_agent(arguments: Sequence[str], endpoint: str, protocol: str, folder: Path) -> Run:
    """
    Run the agent to its end, sending to a collector and writing a file; it must end with status 0.

    Args:
        arguments: the subcommand and what follows the options common to all: `run -- ls`.
        endpoint: where to send to.
        protocol: `grpc` or `http/protobuf`.
        folder: where to put the file.
    """
    file = folder / "spans.jsonl"
    subcommand, *rest = arguments
    environment = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
    environment["OTEL_SYSEXIT_CACHE"] = "off"  # what a user has in one is not to be used, nor to be added to
    done = subprocess.run(
        [*AGENT, subcommand, "--endpoint", endpoint, "--protocol", protocol, "--output", str(file), *rest],
        capture_output=True,
        check=False,
        env=environment,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, f"the agent ended with {done.returncode}, stderr:\n{done.stderr}"
    return Run(done.stderr, from_json_lines(file), logs_from_json_lines(file), endpoint)
