"""Traces: whatever comes, each call has one parent that is told in the end, and windows keep their bounds."""

from collections import Counter
from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from made_calls import START_UNIX_NS, Made, make_calls, make_process

from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Process
from otel_sysexit.traces import (
    WINDOW_SECONDS_MAX,
    WINDOW_SPANS_MAX,
    Placement,
    Span,
    Structure,
    Tree,
    Windows,
)

SECOND_NS = 10**9


@dataclass
class Told:
    """What a structure said of some batches of calls: each call with its place, and every span."""

    structure: Structure
    calls: list[tuple[Process, int, int, bytes, int, int]] = field(default_factory=list)
    """(process, start, end, trace id, parent span id, span id), times in ns since 1970."""
    spans: list[Span] = field(default_factory=list)

    def place(self, calls: Calls) -> Placement:
        """Have the structure place a batch, and keep what it says."""
        placement = self.structure.place(calls)
        for row, context in enumerate(placement.context.tolist()):
            start = int(calls.start_unix_ns[row])
            self.calls.append(
                (
                    calls.threads[calls.thread[row]].process,
                    start,
                    start + int(calls.duration_ns[row]),
                    placement.trace_id[context].tobytes(),
                    int(placement.parent_span_id[context]),
                    int(placement.span_id[row]),
                )
            )
        self.spans += self.structure.take_spans()
        return placement

    def finish(self, living: list[Process], now_unix_ns: int) -> None:
        """End everything."""
        self.structure.finish(living, now_unix_ns)
        self.spans += self.structure.take_spans()

    @property
    def roots(self) -> dict[tuple[bytes, int], Span]:
        """The spans by their ids."""
        return {(span.trace_id, span.span_id): span for span in self.spans}


# Batches: how many calls of which of three processes, with which pause before it (seconds).
batches = st.lists(
    st.tuples(st.lists(st.tuples(st.integers(0, 2), st.integers(1, 900)), max_size=4), st.integers(0, 6)),
    max_size=8,
)


def follow(made: list, told: Told) -> tuple[list[Process], int]:
    """Place batches of calls, a tick after each; return the processes and the time at the end."""
    processes = [make_process(pid) for pid in (1, 2, 3)]
    now = 0
    for parts, pause in made:
        now += pause * SECOND_NS
        rows = []
        for which, count in parts:
            for _ in range(count):
                now += 1
                outcome = Outcome.FAILED if now % 3 == 0 else Outcome.SUCCEEDED
                rows.append(
                    Made("getpid", (), -1, outcome, start_ns=now, duration_ns=7, process=processes[which])
                )
        told.place(make_calls(*rows))
        told.structure.tick(START_UNIX_NS + now)
        told.spans += told.structure.take_spans()
    return processes, START_UNIX_NS + now


def check_ids(told: Told) -> None:
    """Assert that no id is 0 and none is there twice."""
    ids = [call[5] for call in told.calls] + [span.span_id for span in told.spans]

    assert 0 not in ids
    assert len(set(ids)) == len(ids)
    assert all(any(span.trace_id) for span in told.spans)


@settings(max_examples=30)
@given(batches)
def test_windows_keep_their_bounds(made):
    """A window has a root without a parent, covers its calls, counts them and their errors, and has at most 2,000."""
    told = Told(Windows())
    processes, now = follow(made, told)
    told.finish(processes, now)
    of_window = Counter((trace_id, parent) for *_, trace_id, parent, _ in told.calls)

    assert of_window == {
        key: span.attributes["otel_sysexit.window.calls"] for key, span in told.roots.items()
    }
    assert all(count <= WINDOW_SPANS_MAX for count in of_window.values())
    assert sum(span.attributes["otel_sysexit.window.errors"] for span in told.spans) == sum(
        (start - START_UNIX_NS) % 3 == 0 for _, start, *_ in told.calls
    )
    for process, start, end, trace_id, parent, _ in told.calls:
        root = told.roots[trace_id, parent]
        assert root.image.process is process
        assert (root.parent_span_id, root.name) == (0, process.name)
        assert root.start_unix_ns <= start <= end <= root.end_unix_ns
    check_ids(told)


@settings(max_examples=30)
@given(batches)
def test_windows_of_a_process_form_a_chain(made):
    """Each window is a trace of its own, and links to the one before it of the same process."""
    told = Told(Windows())
    told.finish(*follow(made, told))
    previous: dict[Process, Span] = {}
    for span in told.spans:
        process = span.image.process
        expected = [previous[process]] if process in previous else []

        assert [(link.trace_id, link.span_id) for link in span.links] == [
            (before.trace_id, before.span_id) for before in expected
        ]
        assert [link.attributes for link in span.links] == [
            {"otel_sysexit.link.type": "previous_window"} for _ in expected
        ]

        previous[process] = span
    assert len({span.trace_id for span in told.spans}) == len(told.spans)


@settings(max_examples=30)
@given(batches)
def test_a_window_is_closed_by_time(made):
    """After a tick no window is older than 10 s, however few calls came."""
    told = Told(Windows())
    _, now = follow(made, told)
    closed = {(span.trace_id, span.span_id) for span in told.spans}
    open_since = {}
    for _, _, end, trace_id, parent, _ in told.calls:
        if (trace_id, parent) not in closed:
            open_since.setdefault((trace_id, parent), end)

    assert all(now - since < WINDOW_SECONDS_MAX * SECOND_NS for since in open_since.values())


def test_a_window_stays_open_until_its_time():
    """A tick before 10 s ends nothing; one after does."""
    windows = Windows()
    windows.place(make_calls(Made("getpid")))
    windows.tick(START_UNIX_NS + WINDOW_SECONDS_MAX * SECOND_NS - 1)
    before = windows.take_spans()
    windows.tick(START_UNIX_NS + WINDOW_SECONDS_MAX * SECOND_NS)

    assert (before, len(windows.take_spans())) == ([], 1)


def test_a_window_ends_with_its_process():
    """When a process ended, its window is told, and nothing of it is kept."""
    windows, process = Windows(), make_process(7)
    windows.place(make_calls(Made("getpid", process=process)))
    windows.end([process])

    assert [span.image for span in windows.take_spans()] == [process.image]
    assert not windows._windows
    assert not windows._previous


@settings(max_examples=30)
@given(
    st.lists(st.integers(0, 2**16), min_size=1, max_size=12),
    st.lists(st.integers(0, 11), max_size=40),
    st.sets(st.integers(0, 11)),
)
def test_a_tree_is_one_trace(parents, callers, still_living):
    """Each process hangs below its parent's span, each call below its process's, and the command below nothing."""
    processes = [make_process(1, exit_code=0, end_unix_ns=START_UNIX_NS + 10**6)]
    for pid, parent in enumerate(parents, 2):
        processes.append(
            make_process(pid, parent=processes[parent % len(processes)], end_unix_ns=START_UNIX_NS + 10**6)
        )
    tree = Tree()
    tree.set_root(processes[0])
    told = Told(tree)
    callers = [processes[caller % len(processes)] for caller in callers]
    told.place(make_calls(*(Made("getpid", start_ns=10**3, process=caller) for caller in callers)))
    living = [process for process in processes[1:] if process.pid in still_living]
    for process in living:
        process.end_unix_ns = None
    tree.end([process for process in processes if process not in living])
    told.finish(living, START_UNIX_NS + 10**7)
    span_of = {span.image.process: span for span in told.spans}

    assert {span.trace_id for span in told.spans} == {tree.trace_id}
    assert len(told.spans) == len(processes) == len(span_of)
    for process, span in span_of.items():
        assert span.parent_span_id == (span_of[process.parent].span_id if process.parent else 0)
        assert span.start_unix_ns == process.start_unix_ns
        assert span.end_unix_ns == (process.end_unix_ns or START_UNIX_NS + 10**7)
    for process, start, end, trace_id, parent, _ in told.calls:
        span = span_of[process]
        assert (trace_id, parent) == (tree.trace_id, span.span_id)
        assert span.start_unix_ns <= start <= end <= span.end_unix_ns
    check_ids(told)


def test_a_process_without_a_known_parent_hangs_below_the_command():
    """In a tree there is one root, also when a process's parent is not known."""
    tree, command, stranger = Tree(), make_process(1, end_unix_ns=2), make_process(2, end_unix_ns=2)
    tree.set_root(command)
    tree.end([stranger, command])
    of_stranger, root = tree.take_spans()

    assert (of_stranger.parent_span_id, root.parent_span_id) == (root.span_id, 0)


def test_a_process_span_says_how_the_process_ended():
    """Exit code, error and signal: of a success, a failure, a kill, a real-time signal, and of one that goes on."""
    tree = Tree()
    ends = [
        {"exit_code": 0},
        {"exit_code": 3},
        {"exit_signal": 9},
        {"exit_signal": 40},
    ]
    tree.end([make_process(pid, end_unix_ns=START_UNIX_NS + 99, **end) for pid, end in enumerate(ends)])
    tree.finish([make_process(5)], START_UNIX_NS + 99)

    assert [(span.attributes, span.is_error) for span in tree.take_spans()] == [
        ({"process.exit.code": 0}, False),
        ({"process.exit.code": 3, "error.type": "3"}, True),
        ({"error.type": "SIGKILL"}, True),
        ({"error.type": "SIG40"}, True),
        ({}, False),
    ]
