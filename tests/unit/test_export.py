"""The queue and its thread, with transports made here: nothing blocks the agent, and every call is counted once."""

import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_calls import START_UNIX_NS, Made, make_calls, make_process

from otel_sysexit.config import Config
from otel_sysexit.otlp import export
from otel_sysexit.otlp.export import (
    QUEUE_BESIDE_CALLS_MAX,
    QUEUE_CALLS_MAX,
    QUEUE_LOG_RECORDS_MAX,
    QUEUE_SPANS_MAX,
    Batch,
    Exporter,
)
from otel_sysexit.otlp.request import Request, Signal
from otel_sysexit.otlp.spans import SpanEncoder
from otel_sysexit.otlp.transport import Answer
from otel_sysexit.traces import Spans
from otel_sysexit.trees import Tree

DELIVERED = Answer(is_delivered=True)
REFUSED = Answer(is_delivered=False, reason="HTTP 400")
BUSY = Answer(is_delivered=False, is_retryable=True, reason="HTTP 503")
DEADLINE_S = 20


@pytest.fixture(autouse=True, scope="module")
def short_pauses() -> Iterator[None]:
    """Have little time lie between two exports of one request."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export, "_PAUSE_SECONDS", 0.01)
        yield


@dataclass
class Scripted:
    """A transport that answers as it is told, and at the end as always."""

    answers: Iterable[Answer | Callable[[], Answer]] = ()
    always: Answer | Callable[[], Answer] = DELIVERED
    requests: list[Request] = field(default_factory=list)
    is_closed: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self.answers = iter(self.answers)

    def send(self, request: Request) -> Answer:
        """Take down the request and answer."""
        self.requests.append(request)
        answer = next(self.answers, self.always)
        return answer() if callable(answer) else answer

    def close(self) -> None:
        """Take note."""
        self.is_closed.set()


def make_batch(calls: int = 1) -> Batch:
    """Return a batch of calls of one process."""
    made = make_calls(*[Made("getpid")] * calls)
    return Batch(made, Tree().place(made), Spans())


def make_exporter(
    transport: Scripted, flush_s: float = DEADLINE_S, signals: tuple[str, ...] = ("traces",), **choices: int
) -> Exporter:
    """Return an exporter that sends through *transport*."""
    config = Config(flush_timeout_ns=round(flush_s * 1e9), signals=frozenset(signals))
    return Exporter("collector", lambda: transport, config, **choices)


def account(exporter: Exporter) -> tuple[int, dict[str, int]]:
    """Return what became of the calls."""
    return exporter.calls.delivered, dict(exporter.calls.undelivered)


def test_calls_can_be_told_in_both_ways():
    """As spans, by which they are counted, and as log records, counted beside these."""
    transport = Scripted()
    exporter = make_exporter(transport, signals=("traces", "logs"))
    exporter.add(make_batch(3))
    exporter.close()

    assert [request.signal for request in transport.requests] == [Signal.TRACES, Signal.LOGS]
    assert account(exporter) == (3, {})
    assert exporter.log_records.delivered == 3


def test_calls_can_be_told_as_log_records_only():
    """Then these are what is counted."""
    transport = Scripted()
    exporter = make_exporter(transport, signals=("logs",))
    exporter.add(make_batch(3))
    exporter.close()

    assert [request.signal for request in transport.requests] == [Signal.LOGS]
    assert account(exporter) == (3, {})
    assert exporter.log_records.delivered == 0


def test_spans_of_processes_that_are_lost_are_counted():
    """Beside the calls, which the ledger's equation is about, those that they hang below."""
    transport = Scripted(always=REFUSED)
    exporter = make_exporter(transport)
    process = make_process(7, end_unix_ns=START_UNIX_NS + 9)
    tree = Tree()
    tree.set_root(process)
    calls = make_calls(Made("getpid", process=process))
    placement = tree.place(calls)
    tree.end([process])
    exporter.add(Batch(calls, placement, tree.take_spans()))
    exporter.close()

    assert account(exporter) == (0, {"HTTP 400": 1})
    assert dict(exporter.other_spans.undelivered) == {"HTTP 400": 1}


@pytest.mark.parametrize(("rejected", "calls", "spans"), [(1, 1, 0), (3, 2, 1), (9, 2, 1)])
def test_what_a_collector_rejects_are_calls_first(rejected, calls, spans):
    """It says how many, not which: no more than there are."""
    transport = Scripted(always=Answer(is_delivered=True, rejected=rejected, reason="no"))
    exporter = make_exporter(transport)
    process = make_process(7, end_unix_ns=START_UNIX_NS + 9)
    tree = Tree()
    tree.set_root(process)
    made = make_calls(*[Made("getpid", process=process)] * 2)
    placement = tree.place(made)
    tree.end([process])
    exporter.add(Batch(made, placement, tree.take_spans()))
    exporter.close()

    assert sum(exporter.calls.undelivered.values()) == calls
    assert sum(exporter.other_spans.undelivered.values()) == spans


def test_log_records_that_are_refused_are_told_apart():
    """The spans of the calls are delivered; what became of their records is said beside that."""
    transport = Scripted(answers=[DELIVERED, REFUSED])
    exporter = make_exporter(transport, signals=("traces", "logs"))
    exporter.add(make_batch(3))
    exporter.close()

    assert account(exporter) == (3, {})
    assert dict(exporter.log_records.undelivered) == {"HTTP 400": 3}


def test_records_beside_spans_hold_up_nobody():
    """A collector for log records that is down fills its own queue; what comes on top is lost there, and counted."""
    transport = Scripted(always=BUSY)
    config = Config(flush_timeout_ns=50_000_000, signals=frozenset({"traces", "logs"}))
    exporter = Exporter("logs", lambda: transport, config, signals=frozenset({"logs"}), is_beside=True)
    count = QUEUE_BESIDE_CALLS_MAX // 4
    for _ in range(6):
        exporter.add(make_batch(count))
    refused = exporter.log_records.undelivered["queue full"]
    exporter.close()

    assert refused >= count
    assert sum(exporter.log_records.undelivered.values()) == 6 * count
    assert account(exporter) == (0, {})


def test_what_is_given_up_is_counted_in_both_ways():
    """Calls that wait when patience is at an end are lost as spans and as log records."""
    transport = Scripted(always=BUSY)
    exporter = make_exporter(transport, flush_s=0.05, signals=("traces", "logs"))
    exporter.add(make_batch(2))
    exporter.add(make_batch(3))
    exporter.close()

    assert sum(exporter.calls.undelivered.values()) == 5
    assert sum(exporter.log_records.undelivered.values()) == 5


def test_what_is_added_is_delivered():
    """Batches go out in their order, and count."""
    transport = Scripted()
    exporter = make_exporter(transport)
    for calls in (1, 2, 3):
        exporter.add(make_batch(calls))
    exporter.close()

    assert [request.calls for request in transport.requests] == [1, 2, 3]
    assert account(exporter) == (6, {})
    assert transport.is_closed.is_set()


def test_the_queue_has_room_for_so_many_calls():
    """What waits and what is being sent takes room; adding never blocks, also when there is none left."""
    go_on = threading.Event()
    transport = Scripted(always=lambda: DELIVERED if go_on.wait(DEADLINE_S) else REFUSED)
    exporter = make_exporter(transport)
    rooms = [exporter.room()]
    batch = make_batch(QUEUE_CALLS_MAX - 10)
    for one in (batch, make_batch(10), make_batch(1)):
        exporter.add(one)
        rooms.append(exporter.room())
    go_on.set()
    exporter.close()

    assert rooms == [QUEUE_CALLS_MAX, 10, 0, 0]
    assert exporter.room() == QUEUE_CALLS_MAX
    assert account(exporter) == (QUEUE_CALLS_MAX + 1, {})


def test_spans_of_processes_take_room_and_have_a_bound():
    """Beside a collector that is away nobody can fork us out of memory: what is lost of processes is counted."""
    go_on = threading.Event()
    transport = Scripted(always=lambda: DELIVERED if go_on.wait(DEADLINE_S) else REFUSED)
    exporter = make_exporter(transport)
    many = QUEUE_SPANS_MAX // 10 + 1
    for _ in range(15):
        exporter.add(Batch(make_calls(), Tree().place(make_calls()), make_spans(many)))
    room, stored = exporter.room(), sum(len(batch) for batch in exporter._queue)
    go_on.set()
    exporter.close()

    assert room == 0
    assert stored <= QUEUE_SPANS_MAX + many
    assert exporter.other_spans.undelivered == {"queue full": 15 * many - exporter.other_spans.delivered}
    assert 0 < exporter.other_spans.delivered < 15 * many


def make_spans(count: int) -> Spans:
    """Return spans of processes."""
    tree, process = Tree(spans_max=10 * QUEUE_SPANS_MAX), make_process(1)
    tree.set_root(process)
    tree.end([make_process(7, parent=process, end_unix_ns=START_UNIX_NS + 9) for _ in range(count)])
    return tree.take_spans()


def test_log_records_have_no_spans_of_processes():
    """Where calls are told as log records only, spans of processes neither take room nor are lost."""
    exporter = make_exporter(Scripted(), signals=("logs",))
    exporter.add(Batch(make_calls(), Tree().place(make_calls()), make_spans(3)))
    exporter.close()

    assert (exporter.other_spans.delivered, dict(exporter.other_spans.undelivered)) == (0, {})


def test_a_collector_is_not_stalled_before_it_was_asked(monkeypatch):
    """Only from when there was something to deliver; a long time without calls does not count."""
    monkeypatch.setattr(export, "_STALLED_SECONDS", 0.2)
    go_on = threading.Event()
    exporter = make_exporter(Scripted(always=lambda: DELIVERED if go_on.wait(DEADLINE_S) else REFUSED))
    time.sleep(0.25)
    exporter.add(make_batch(QUEUE_CALLS_MAX))
    at_once = exporter.is_stalled()
    deadline = time.monotonic() + DEADLINE_S
    while not exporter.is_stalled() and time.monotonic() < deadline:
        time.sleep(0.01)
    later = exporter.is_stalled()
    go_on.set()
    exporter.close()

    assert (at_once, later) == (False, True)


def test_a_busy_collector_is_asked_again():
    """What may be tried again is, with the same bytes, until it is delivered."""
    transport = Scripted([BUSY, BUSY, BUSY])
    exporter = make_exporter(transport)
    exporter.add(make_batch(5))
    exporter.close()

    assert len({request.body for request in transport.requests}) == 1
    assert len(transport.requests) == 4
    assert account(exporter) == (5, {})


def test_a_collector_is_left_alone_as_long_as_it_wants(monkeypatch):
    """Between two exports of a request lies what the collector asked for, or a little where it did not."""
    pauses = []
    monkeypatch.setattr(Exporter, "_pause", lambda _, seconds: pauses.append(seconds))
    busy_for_long = replace(BUSY, retry_after=60)
    exporter = make_exporter(Scripted([BUSY, busy_for_long]))
    exporter.add(make_batch())
    exporter.close()

    assert pauses == [export._PAUSE_SECONDS, 60]


def test_a_pause_ends_with_the_flush_timeout():
    """A collector that wants an hour does not hold up the end."""
    exporter = make_exporter(Scripted(always=replace(BUSY, retry_after=3600)), flush_s=0.1)
    exporter.add(make_batch(5))
    exporter.close()

    assert not exporter._thread.is_alive()
    assert sum(exporter.calls.undelivered.values()) == 5


def test_a_pause_ends_when_it_is_aborted():
    """Nor does it after a second Ctrl-C."""
    exporter = make_exporter(Scripted(always=replace(BUSY, retry_after=3600)))
    exporter.add(make_batch(5))
    exporter.abort()

    assert not exporter._thread.is_alive()
    assert sum(exporter.calls.undelivered.values()) == 5


def test_what_is_refused_is_lost_once():
    """A refusal for good is not tried again; what comes after it goes out."""
    transport = Scripted([REFUSED])
    exporter = make_exporter(transport)
    exporter.add(make_batch(5))
    exporter.add(make_batch(3))
    exporter.close()

    assert len(transport.requests) == 2
    assert account(exporter) == (3, {"HTTP 400": 5})


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(is_delivered=True, rejected=2, reason="too old"), (3, {"rejected: too old": 2})),
        (Answer(is_delivered=True, rejected=99, reason="too old"), (0, {"rejected: too old": 5})),
        (Answer(is_delivered=True, rejected=0, reason="deprecated"), (5, {})),
    ],
)
def test_rejected_spans_are_undelivered(answer, expected):
    """Of a request that was taken in part, what was rejected is lost, and no more than there were calls."""
    exporter = make_exporter(Scripted([answer]))
    exporter.add(make_batch(5))
    exporter.close()

    assert account(exporter) == expected


def test_each_request_of_a_batch_counts_for_itself():
    """A batch that takes several requests is lost only where one is refused."""
    transport = Scripted([DELIVERED, REFUSED])
    exporter = make_exporter(transport, bytes_max=1)
    exporter.add(make_batch(5))
    exporter.close()

    assert [request.calls for request in transport.requests] == [1] * 5
    assert account(exporter) == (4, {"HTTP 400": 1})


def test_spans_alone_are_no_calls():
    """A refused request without calls loses none: there is nothing to report."""
    process = make_process(1, exit_code=0, end_unix_ns=START_UNIX_NS + 9)
    tree = Tree()
    tree.end([process])
    empty = make_calls()
    exporter = make_exporter(Scripted([REFUSED]))
    exporter.add(Batch(empty, tree.place(empty), tree.take_spans()))
    exporter.close()

    assert account(exporter) == (0, {})


def test_closing_gives_up_after_the_flush_timeout():
    """When nothing can be delivered, it ends after the flush timeout: tried and untried are told apart."""
    is_tried = threading.Event()

    def be_busy() -> Answer:
        is_tried.set()
        return BUSY

    exporter = make_exporter(Scripted(always=be_busy), flush_s=0.1)
    exporter.add(make_batch(5))
    exporter.add(make_batch(3))
    is_tried.wait(DEADLINE_S)
    exporter.close()

    assert account(exporter) == (0, {"HTTP 503": 5, "not sent in time": 3})


def test_closing_goes_on_while_something_is_delivered():
    """A slow collector gets everything: the flush timeout begins anew with each delivery."""
    pause = threading.Event()
    transport = Scripted(always=lambda: DELIVERED if not pause.wait(0.1) else REFUSED)
    exporter = make_exporter(transport, flush_s=0.3)
    for _ in range(6):
        exporter.add(make_batch())
    exporter.close()

    assert account(exporter) == (6, {})


def test_aborting_does_not_wait():
    """abort() gives up what is being sent by closing the transport, and counts all that is left."""
    transport = Scripted(always=lambda: REFUSED if transport.is_closed.wait(DEADLINE_S) else DELIVERED)
    exporter = make_exporter(transport)
    exporter.add(make_batch(5))
    exporter.add(make_batch(3))
    exporter.abort()

    assert sum(exporter.calls.undelivered.values()) == 8
    assert exporter.calls.delivered == 0


def test_a_library_that_hangs_costs_no_count():
    """A transport that does not hear close() is left behind; its calls are counted, and only once."""
    go_on = threading.Event()
    transport = Scripted(always=lambda: DELIVERED if go_on.wait(DEADLINE_S) else REFUSED)
    exporter = make_exporter(transport, flush_s=0.1)
    exporter.add(make_batch(5))
    exporter.add(make_batch(3))
    exporter.close()
    at_the_end = account(exporter)
    go_on.set()
    exporter._thread.join(DEADLINE_S)

    assert at_the_end == account(exporter) == (0, {"not sent in time": 8})


def test_a_transport_that_cannot_be_made_is_said():
    """Whatever a library refuses at its start: its words are the reason, for every call."""

    def make() -> Scripted:
        raise ValueError("certificate: not in PEM format")

    exporter = Exporter("collector", make, Config())
    exporter.add(make_batch(5))
    exporter.close()

    assert account(exporter) == (0, {"certificate: not in PEM format": 5})


def test_a_bug_costs_one_batch(monkeypatch):
    """A batch that cannot be encoded is lost with a reason; what comes after it is delivered."""
    encode = SpanEncoder.encode
    fail = iter([True])

    def encode_badly(self: SpanEncoder, *arguments: object) -> Iterable[Request]:
        if next(fail, False):
            raise KeyError("columns")
        return encode(self, *arguments)

    monkeypatch.setattr(export.SpanEncoder, "encode", encode_badly)
    exporter = make_exporter(Scripted())
    exporter.add(make_batch(5))
    exporter.add(make_batch(3))
    exporter.close()

    assert account(exporter) == (3, {"internal error: KeyError: 'columns'": 5})


def test_closing_twice_is_closing_once():
    """abort() after close(), as a second Ctrl-C does, changes no figure."""
    exporter = make_exporter(Scripted([REFUSED]))
    exporter.add(make_batch(5))
    exporter.close()
    before = account(exporter)
    exporter.abort()

    assert account(exporter) == before == (0, {"HTTP 400": 5})


# --- log records ------------------------------------------------------------------------------------------------------


def make_logs(count: int = 1) -> Request:
    """Return a request with log records, whose bytes nobody reads here."""
    return Request(b"logs", Signal.LOGS, log_records=count)


def account_of_logs(exporter: Exporter) -> tuple[int, dict[str, int]]:
    """Return what became of the log records."""
    return exporter.log_records.delivered, dict(exporter.log_records.undelivered)


def test_log_records_go_behind_the_calls_before_them():
    """They go out in their turn, and are counted apart from calls."""
    transport = Scripted()
    exporter = make_exporter(transport)
    exporter.add(make_batch(5))
    exporter.add_logs(make_logs(2))
    exporter.add(make_batch(3))
    exporter.close()

    assert [(request.calls, request.log_records) for request in transport.requests] == [
        (5, 0),
        (0, 2),
        (3, 0),
    ]
    assert (account(exporter), account_of_logs(exporter)) == ((8, {}), (2, {}))


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (REFUSED, (0, {"HTTP 400": 3})),
        (Answer(is_delivered=True, rejected=2, reason="too old"), (1, {"rejected: too old": 2})),
        (Answer(is_delivered=True, rejected=9, reason="too old"), (0, {"rejected: too old": 3})),
    ],
)
def test_refused_log_records_are_undelivered(answer, expected):
    """What was refused is asked once and lost with its reason; no call is."""
    transport = Scripted([answer])
    exporter = make_exporter(transport)
    exporter.add_logs(make_logs(3))
    exporter.add(make_batch(5))
    exporter.close()

    assert len(transport.requests) == 2
    assert (account(exporter), account_of_logs(exporter)) == ((5, {}), expected)


def test_log_records_that_find_no_room_are_counted():
    """A collector that is away holds up nobody who reports; what does not fit into the queue is lost with a reason."""
    go_on = threading.Event()
    transport = Scripted(always=lambda: DELIVERED if go_on.wait(DEADLINE_S) else REFUSED)
    exporter = make_exporter(transport)
    for count in (QUEUE_LOG_RECORDS_MAX - 1, 2, 1):
        exporter.add_logs(make_logs(count))
    rooms = exporter.room()
    go_on.set()
    exporter.close()

    assert rooms == QUEUE_CALLS_MAX
    assert account_of_logs(exporter) == (QUEUE_LOG_RECORDS_MAX, {"queue full": 2})


def test_aborting_counts_log_records():
    """What was being sent and what waited is counted as not sent, each once."""
    transport = Scripted(always=lambda: BUSY if transport.is_closed.wait(DEADLINE_S) else DELIVERED)
    exporter = make_exporter(transport)
    exporter.add_logs(make_logs(5))
    exporter.add(make_batch(2))
    exporter.add_logs(make_logs(3))
    exporter.abort()

    assert exporter.log_records.delivered == exporter.calls.delivered == 0
    assert sum(exporter.log_records.undelivered.values()) == 8
    assert sum(exporter.calls.undelivered.values()) == 2


ANSWERS = st.sampled_from(
    [
        DELIVERED,
        REFUSED,
        BUSY,
        Answer(is_delivered=True, rejected=1, reason="one"),
        Answer(is_delivered=True, rejected=7, reason="seven"),
    ]
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), max_size=6), st.lists(ANSWERS, max_size=20), st.sampled_from([1, 1 << 20]))
def test_every_call_is_counted_once(sizes, answers, bytes_max):
    """Whatever is answered, delivered and undelivered are together what was added."""
    exporter = make_exporter(Scripted(answers), bytes_max=bytes_max)
    for calls in sizes:
        exporter.add(make_batch(calls))
    exporter.close()

    assert exporter.calls.delivered + sum(exporter.calls.undelivered.values()) == sum(sizes)
    assert 0 not in exporter.calls.undelivered.values()


@pytest.mark.parametrize("signal", ["traces", "logs"])
def test_a_batch_is_let_go_before_it_is_sent(signal):
    """Sending takes as long as it likes, and a batch is megabytes: only bytes wait for the answer."""
    columns, seen = [], []

    def add(exporter: Exporter) -> None:
        batch = make_batch(3)
        columns.append(weakref.ref(batch.calls.start_unix_ns))
        exporter.add(batch)

    def answer() -> Answer:
        end = time.monotonic() + DEADLINE_S  # who has added it may not be back yet
        while columns[0]() is not None and time.monotonic() < end:
            time.sleep(0.001)
        seen.append(columns[0]())
        return DELIVERED

    exporter = make_exporter(Scripted(always=answer), signals=(signal,))
    add(exporter)
    exporter.close()

    assert seen == [None]
