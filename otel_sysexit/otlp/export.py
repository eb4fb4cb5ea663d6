"""
Batches and log records → a transport: a bounded queue, a thread that encodes and sends, exact counts of what became of them.

What waits for a slow collector waits as columns and is encoded when it is sent.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final

from otel_sysexit.calls import Calls
from otel_sysexit.config import Config
from otel_sysexit.otlp.call_logs import CallLogEncoder
from otel_sysexit.otlp.request import REQUEST_BYTES_MAX, Request
from otel_sysexit.otlp.resources import rules_of
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.otlp.transport import NOT_SENT, Answer, Transport
from otel_sysexit.traces import Placement, Spans

QUEUE_CALLS_MAX: Final = 16_384
"""Calls, and spans of processes beside them, that wait in memory; further calls wait in the kernel's ring, where dropping is counted."""
QUEUE_SPANS_MAX: Final = 32_768
"""Where so much waits, no more spans of processes are taken, which have no other place to wait in: they are lost, and counted."""
QUEUE_BESIDE_CALLS_MAX: Final = 32_768
"""The same for an exporter beside another; what comes on top is lost to it, and counted."""
QUEUE_LOG_RECORDS_MAX: Final = 4_096
"""Log records that wait in memory; there is no other place for them, so what comes on top is lost and counted."""
_PAUSE_SECONDS: Final = 1.0
"""At least this long lies between two exports of one request; within an export the exporters have their own back-off."""
_REASONS_MAX: Final = 20
_STALLED_SECONDS: Final = 5.0
_QUEUE_FULL: Final = "queue full"


@dataclass(frozen=True, slots=True)
class Batch:
    """What one round of the agent has to deliver."""

    calls: Calls
    placement: Placement
    spans: Spans

    def __len__(self) -> int:
        """Return how much it is: calls, and spans beside them."""
        return len(self.calls) + len(self.spans)


@dataclass(slots=True)
class Tally:
    """What became of calls, of other spans or of log records; guarded by the exporter's lock."""

    delivered: int = 0
    undelivered: Counter[str] = field(default_factory=Counter)
    """By reason."""
    unsent: int = 0
    """Of what is under way: not counted yet."""

    def lose(self, count: int, reason: str) -> None:
        """Count what is not delivered."""
        if count:
            # The words are the collector's: however many it has, what is kept is bounded.
            is_known = reason in self.undelivered or len(self.undelivered) < _REASONS_MAX
            self.undelivered[reason if is_known else "other reasons"] += count

    def lose_unsent(self, reason: str) -> None:
        """Give up what is under way."""
        self.lose(self.unsent, reason)
        self.unsent = 0

    def settle(self, count: int, answer: Answer) -> None:
        """Count what was sent: none when it was given up meanwhile."""
        count = min(count, self.unsent)
        self.unsent -= count
        if not answer.is_delivered:
            self.lose(count, answer.reason)
            return
        lost = min(answer.rejected, count)
        self.delivered += count - lost
        self.lose(lost, f"rejected: {answer.reason}")


class BatchEncoder:
    """Batches → requests of the signals that are asked for; with both, calls are counted as spans, and as log records beside them."""

    def __init__(self, config: Config, signals: frozenset[str], bytes_max: int) -> None:
        """*signals*: those to make, of all that are asked for; *bytes_max*: size of a request."""
        rules, starter = rules_of(config), config.trace_context
        has_spans = "traces" in config.signals
        self._spans = SpanEncoder(rules, starter) if "traces" in signals else None
        self._logs = CallLogEncoder(rules, starter, has_spans=has_spans) if "logs" in signals else None
        self._bytes_max = bytes_max

    def encode(self, batch: Batch) -> Iterator[Request]:
        """Return the requests of *batch*, of which no more is kept alive than is needed still: sending takes its time, and a batch megabytes."""
        spans: Iterator[Request] = iter(())
        if self._spans is not None:
            spans = self._spans.encode(batch.calls, batch.placement, batch.spans, self._bytes_max)
        if self._logs is None:
            return spans
        return chain(spans, self._encode_logs(self._logs, batch.calls, batch.placement))

    def _encode_logs(self, logs: CallLogEncoder, calls: Calls, placement: Placement) -> Iterator[Request]:
        """Encode when the first request is asked for, and yield them."""
        requests = logs.encode(calls, placement, self._bytes_max)
        del calls, placement
        yield from requests


class Exporter:
    """A bounded queue with a thread behind it that encodes and sends."""

    def __init__(
        self,
        name: str,
        make_transport: Callable[[], Transport],
        config: Config,
        bytes_max: int = REQUEST_BYTES_MAX,
        *,
        signals: frozenset[str] | None = None,
        is_beside: bool = False,
    ) -> None:
        """
        Start the thread.

        Args:
            name: Where it goes, for people.
            make_transport: Called in the thread: what is slow to make delays nothing.
            config: Deadlines and the attributes of every Resource.
            bytes_max: Size of a request.
            signals: How it tells of calls; None: in all ways that are asked for.
            is_beside: Whether calls are counted elsewhere. Then nobody has to wait for this one: what it has no room for is lost.
        """
        self.name = name
        self.calls = Tally()
        self.other_spans = Tally()
        self.log_records = Tally()
        self._make_transport = make_transport
        self._config = config
        self._bytes_max = bytes_max
        self._signals = config.signals if signals is None else signals
        self._is_beside = is_beside
        self._queue: deque[Batch | Request] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        """Calls and spans beside them."""
        self._waiting_log_records = 0
        self._is_busy = False
        self._is_closing = False
        self._give_up_at = float("inf")
        self._delivered_at = time.monotonic()
        self._transport: Transport | None = None
        self._thread = threading.Thread(target=self._work, name="export", daemon=True)
        self._thread.start()

    def room(self) -> int:
        """Return how many more calls the queue takes."""
        return max(QUEUE_CALLS_MAX - self._waiting, 0)

    def add(self, batch: Batch) -> None:
        """Queue *batch*; never blocks."""
        with self._changed:
            if "traces" not in self._signals:
                batch = replace(batch, spans=Spans())
            elif self._waiting > QUEUE_SPANS_MAX:
                self.other_spans.lose(len(batch.spans), _QUEUE_FULL)
                batch = replace(batch, spans=Spans())
            if not len(batch):
                return
            if self._is_beside and self._waiting + len(batch) > QUEUE_BESIDE_CALLS_MAX:
                self.log_records.lose(len(batch), _QUEUE_FULL)
                return
            if not self._queue and not self._is_busy:
                self._delivered_at = time.monotonic()  # until now there was nothing to deliver
            self._queue.append(batch)
            self._waiting += len(batch)
            self._changed.notify()

    def add_logs(self, request: Request) -> None:
        """Queue a request of log records, or count them as lost where there is no room; never blocks."""
        with self._changed:
            if self._waiting_log_records + request.log_records > QUEUE_LOG_RECORDS_MAX:
                self.log_records.lose(request.log_records, _QUEUE_FULL)
                return
            self._queue.append(request)
            self._waiting_log_records += request.log_records
            self._changed.notify()

    def is_stalled(self) -> bool:
        """Whether nothing was delivered for a while though there was something to deliver."""
        return self.room() == 0 and time.monotonic() - self._delivered_at > _STALLED_SECONDS

    def refuse(self, count: int) -> None:
        """Count calls that never came here because there was no room."""
        with self._changed:
            if not self._is_beside:
                self.calls.lose(count, _QUEUE_FULL)
            if self._counts_records:
                self.log_records.lose(count, _QUEUE_FULL)

    def close(self) -> None:
        """Deliver what is queued, until nothing was for the flush timeout; what is left then counts as undelivered."""
        with self._changed:
            self._is_closing = True
            self._extend()
            self._changed.notify_all()
            while (self._queue or self._is_busy) and time.monotonic() < self._give_up_at:
                self._changed.wait(max(self._give_up_at - time.monotonic(), 0))
        self.abort()

    def _extend(self) -> None:
        self._give_up_at = time.monotonic() + self._config.flush_timeout_ns / 1e9

    def abort(self) -> None:
        """End at once; count what is left."""
        with self._changed:
            self._give_up_at = 0.0
            self._is_closing = True
            self._changed.notify_all()
        if self._transport is not None:
            self._transport.close()
        self._thread.join(timeout=1)
        with self._changed:
            self._lose_unsent(NOT_SENT)  # should the thread hang in a library still
            for item in self._queue:
                self._begin(item)
                self._lose_unsent(NOT_SENT)
            self._queue.clear()

    @property
    def _counts_records(self) -> bool:
        """Whether records of calls are counted beside the calls."""
        return self._config.has_both_signals and "logs" in self._signals

    def _begin(self, item: Batch | Request) -> None:
        if isinstance(item, Batch):
            self.calls.unsent = 0 if self._is_beside else len(item.calls)
            self.other_spans.unsent = len(item.spans) if "traces" in self._signals else 0
            self.log_records.unsent = len(item.calls) if self._counts_records else 0
        else:
            self.calls.unsent, self.other_spans.unsent, self.log_records.unsent = 0, 0, item.log_records

    def _lose_unsent(self, reason: str) -> None:
        self.calls.lose_unsent(reason)
        self.other_spans.lose_unsent(reason)
        self.log_records.lose_unsent(reason)

    def _work(self) -> None:
        encoder = BatchEncoder(self._config, self._signals, self._bytes_max)
        reason = bug = ""
        try:
            self._transport = self._make_transport()
        except Exception as error:  # noqa: BLE001 (whatever a library refuses: its words, and every call counted)
            reason = str(error) or type(error).__name__
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._is_closing)
                if not self._queue:
                    return
                item = self._queue.popleft()
                self._is_busy = True
                self._begin(item)
            waiting, log_records = (len(item), 0) if isinstance(item, Batch) else (0, item.log_records)
            try:
                requests = iter((item,)) if isinstance(item, Request) else encoder.encode(item)
                del item
                self._send_all(requests, reason)
            except Exception as error:  # noqa: BLE001 (a bug of ours must not end delivery)
                bug = f"internal error: {type(error).__name__}: {error}"
            finally:
                requests = iter(())
                with self._changed:
                    self._lose_unsent(bug)
                    self._is_busy = False
                    self._waiting -= waiting
                    self._waiting_log_records -= log_records
                    self._changed.notify_all()

    def _send_all(self, requests: Iterator[Request], reason: str) -> None:
        """Send them, and count what became of them; *reason*: why they cannot be sent, if they cannot."""
        for request in requests:
            if self._transport is None:
                self._count(request, Answer(is_delivered=False, reason=reason))
            else:
                self._count(request, self._send(self._transport, request))
            del request  # before the next one is made: each is a megabyte

    def _send(self, transport: Transport, request: Request) -> Answer:
        """Send until delivered, refused for good, or out of time."""
        answer = Answer(is_delivered=False, reason=NOT_SENT)
        while time.monotonic() < self._give_up_at:
            answer = transport.send(request)
            if answer.is_delivered or not answer.is_retryable:
                break
            self._pause(max(answer.retry_after, _PAUSE_SECONDS))
        return answer

    def _pause(self, seconds: float) -> None:
        """Wait, at most until it is time to give up."""
        end = time.monotonic() + seconds
        with self._changed:
            while (left := min(end, self._give_up_at) - time.monotonic()) > 0:
                self._changed.wait(left)

    def _count(self, request: Request, answer: Answer) -> None:
        with self._changed:
            self.calls.settle(request.calls, answer)
            # Which spans were rejected is not said: calls are by far the most.
            beyond_calls = replace(answer, rejected=max(answer.rejected - request.calls, 0))
            self.other_spans.settle(request.spans, beyond_calls)
            self.log_records.settle(request.log_records, answer)
            if answer.is_delivered:
                self._delivered_at = time.monotonic()
                if self._is_closing and self._give_up_at:
                    self._extend()
