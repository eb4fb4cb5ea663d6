"""
All ways out: the file, the collector for spans, the one for log records.

In: batches of calls, requests of log records. Out: what became of them, by way. Each has an Exporter, a queue with a thread, so that no
way waits for another one, but for the calls that all of them are to get.
"""

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from otel_sysexit.config import Config
from otel_sysexit.ledger import Delivery
from otel_sysexit.otlp.export import QUEUE_CALLS_MAX, Batch, Exporter
from otel_sysexit.otlp.request import Request
from otel_sysexit.otlp.transport import Transport, make_transport

if TYPE_CHECKING:
    from otel_sysexit.otlp.jsonl import JsonLinesFile


class Sinks:
    """The ways out that are asked for."""

    def __init__(self, config: Config) -> None:
        """Open and start nothing yet."""
        self._config = config
        self._file: JsonLinesFile | None = None
        self._counting: list[Exporter] = []
        """Those by which calls are counted."""
        self._beside: list[Exporter] = []
        """Those that tell of calls, if at all, that are counted by others."""
        self._for_logs: list[Exporter] = []
        """Those that take log records that are no calls."""

    def open_file(self) -> None:
        """
        Open the file to write, if there is one.

        Raises:
            AgentError: it cannot be written.
        """
        if self._config.output is not None:
            from otel_sysexit.otlp.jsonl import JsonLinesFile  # noqa: PLC0415 (seldom needed)

            self._file = JsonLinesFile(self._config.output)

    def start(self) -> None:
        """Start the threads that deliver: after any fork, and when nothing waits for us that their imports could delay."""
        file, config = self._file, self._config
        if file is not None:
            to_file = Exporter(str(config.output), lambda: file, config, file.line_bytes_max)
            self._counting.append(to_file)
            self._for_logs.append(to_file)
        if config.exporter == "otlp":
            self._start_sending()

    def _start_sending(self) -> None:
        """Start what sends to collectors: to that for log records apart, so that no signal has to wait for the other's."""
        config = self._config

        def make() -> Transport:
            return make_transport(config)

        if "traces" not in config.signals:
            to_logs = Exporter(_shown(config.logs_endpoint), make, config)
            self._counting.append(to_logs)
            self._for_logs.append(to_logs)
            return
        self._counting.append(Exporter(_shown(config.endpoint), make, config, signals=frozenset({"traces"})))
        if config.logs_endpoint is not None:
            signals = config.signals - {"traces"}
            to_logs = Exporter(_shown(config.logs_endpoint), make, config, signals=signals, is_beside=True)
            self._beside.append(to_logs)
            self._for_logs.append(to_logs)

    @property
    def takes_logs(self) -> bool:
        """Whether log records go anywhere."""
        return bool(self._for_logs)

    def room(self) -> int:
        """Return how many more calls every way takes by which they are counted."""
        return min((exporter.room() for exporter in self._counting), default=QUEUE_CALLS_MAX)

    def is_stalled(self) -> bool:
        """Whether one of these has not delivered anything for a while."""
        return any(exporter.is_stalled() for exporter in self._counting)

    def add(self, batch: Batch) -> None:
        """Queue *batch* for all; never blocks."""
        for exporter in self._telling():
            exporter.add(batch)

    def add_logs(self, request: Request) -> None:
        """Queue log records that are no calls; never blocks."""
        for exporter in self._for_logs:
            exporter.add_logs(request)

    def refuse(self, count: int) -> None:
        """Count calls that came to none of them."""
        for exporter in self._telling():
            exporter.refuse(count)

    def _telling(self) -> list[Exporter]:
        """Return those that tell of calls."""
        return [*self._counting, *(self._beside if self._config.has_both_signals else ())]

    def close(self) -> None:
        """Deliver what is queued, as long as any is delivered within the flush timeout."""
        for exporter in (*self._counting, *self._beside):
            exporter.close()

    def abort(self) -> None:
        """End at once; may be called from another thread."""
        for exporter in (*self._counting, *self._beside):
            exporter.abort()

    def deliveries(self, unread: int) -> list[Delivery]:
        """Return what became of all calls, by way; *unread*: of those that came to none."""
        found = {"not read in time": unread} if unread else {}
        return [_delivery_of(exporter, found) for exporter in self._counting]

    def deliveries_beside(self) -> Sequence[Delivery]:
        """Return what became of log records beside."""
        return [_delivery_of(exporter, {}) for exporter in self._beside]


def _shown(endpoint: str | None) -> str:
    """Return an endpoint as it may be shown to anybody: without a password."""
    return re.sub(r"(//[^/@]*):[^/@]*@", r"\1:***@", str(endpoint))


def _delivery_of(exporter: Exporter, unread: dict[str, int]) -> Delivery:
    return Delivery(
        exporter.name,
        exporter.calls.delivered,
        {**exporter.calls.undelivered, **unread},
        exporter.log_records.undelivered,
        exporter.other_spans.undelivered,
    )
