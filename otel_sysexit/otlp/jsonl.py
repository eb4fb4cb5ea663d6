"""
Requests → a file of OTLP JSON lines (specification, protocol/file-exporter.md), which Jaeger's page and the collector read.

One TracesData or LogsData a line; ids in hex and enums as numbers, as OTLP/JSON has them and protobuf's own JSON has not.
"""

import base64
import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from otel_sysexit.errors import AgentError
from otel_sysexit.otlp.request import Request, Signal
from otel_sysexit.otlp.transport import NOT_SENT, Answer

LINE_BYTES_MAX: Final = 128 << 10
"""Protobuf bytes in a line: below 1 MiB as JSON, the longest line that the collector's file receiver reads by default."""
_MESSAGES: Final[dict[Signal, type[TracesData | LogsData]]] = {
    Signal.TRACES: TracesData,
    Signal.LOGS: LogsData,
}
_IDS: Final = frozenset({"traceId", "spanId", "parentSpanId"})


class JsonLinesFile:
    """A transport that writes."""

    line_bytes_max = LINE_BYTES_MAX

    def __init__(self, path: str) -> None:
        """
        Open *path* anew.

        Raises:
            AgentError: it cannot be written.
        """
        try:
            self._file = open(path, "wb", buffering=0)  # noqa: SIM115, PTH123 (open until closed)
        except OSError as error:
            raise AgentError(f"cannot write {path}: {error.strerror}") from error
        self._size = 0

    def send(self, request: Request) -> Answer:
        """Write *request* as one line; a disk that is full is no reason to try again, and gets no half line."""
        message = _MESSAGES[request.signal].FromString(request.body)
        text = json.dumps(to_otlp_json(message), separators=(",", ":"), ensure_ascii=False)
        line = text.encode() + b"\n"
        written = 0
        try:
            while written < len(line):
                written += self._file.write(line[written:])
        except ValueError:  # closed by another thread: patience is at an end
            return Answer(is_delivered=False, reason=NOT_SENT)
        except OSError as error:
            with suppress(OSError, ValueError):
                self._file.truncate(self._size)
                self._file.seek(self._size)
            return Answer(is_delivered=False, reason=error.strerror or str(error))
        self._size += len(line)
        return Answer(is_delivered=True)

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):  # what could not be written was counted line by line
            self._file.close()


def to_otlp_json(message: TracesData | LogsData) -> Any:
    """Return *message* as OTLP/JSON wants it, for json.dumps: ids in hex, where protobuf's JSON has base64."""
    found = MessageToDict(message, use_integers_for_enums=True)
    for identified in _identified(found):
        for key in _IDS & identified.keys():
            identified[key] = base64.b64decode(identified[key]).hex()
    return found


def _identified(found: Any) -> Iterator[Any]:
    """Yield everything that may have ids."""
    for resource_spans in found.get("resourceSpans", ()):
        for scope_spans in resource_spans["scopeSpans"]:
            for span in scope_spans["spans"]:
                yield from (span, *span.get("links", ()))
    for resource_logs in found.get("resourceLogs", ()):
        for scope_logs in resource_logs["scopeLogs"]:
            yield from scope_logs["logRecords"]
