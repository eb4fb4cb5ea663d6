"""Traces: whatever comes, each call has one parent that is told in the end, and windows keep their bounds."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

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


class Placed(NamedTuple):
    """A call and its place; times in ns since 1970."""

    process: Process
    start: int
    end: int
    trace_id: bytes
    parent: int
    span_id: int
    threshold: int


@dataclass
class Told:
    """What a structure said of some batches of calls: each call with its place, and every span."""

    structure: Structure
    calls: list[Placed] = field(default_factory=list)
    spans: list[Span] = field(default_factory=list)

    def place(self, calls: Calls) -> Placement:
        """Have the structure place a batch, and keep what it says."""
        placement = self.structure.place(calls)
        for row, context in enumerate(placement.context.tolist()):
            start = int(calls.start_unix_ns[row])
            self.calls.append(
                Placed(
                    calls.threads[calls.thread[row]].process,
                    start,
                    start + int(calls.duration_ns[row]),
                    placement.trace_id[context].tobytes(),
                    int(placement.parent_span_id[context]),
                    int(placement.span_id[row]),
                    int(calls.threshold[row]),
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


THRESHOLDS = [0, 1 << 31, 0xFD70_A3D7, 2**32 - 1]


def batches_at(thresholds: list[int]) -> st.SearchStrategy[list]:
    """Return batches: how many calls of which of three processes at which threshold, with which pause before it (seconds)."""
    parts = st.tuples(st.integers(0, 2), st.sampled_from(thresholds), st.integers(1, 900))
    return st.lists(st.tuples(st.lists(parts, max_size=4), st.integers(0, 6)), max_size=8)


batches = batches_at(THRESHOLDS)


def follow(made: list, told: Told) -> tuple[list[Process], int]:
    """Place batches of calls, a tick after each; return the processes and the time at the end."""
    processes = [make_process(pid) for pid in (1, 2, 3)]
    now = 0
    for parts, pause in made:
        now += pause * SECOND_NS
        rows = []
        for which, threshold, count in parts:
            for _ in range(count):
                now += 1
                outcome = Outcome.FAILED if now % 3 == 0 else Outcome.SUCCEEDED
                rows.append(
                    Made(
                        "getpid",
                        (),
                        -1,
                        outcome,
                        start_ns=now,
                        duration_ns=7,
                        process=processes[which],
                        threshold=threshold,
                    )
                )
        told.place(make_calls(*rows))
        told.structure.tick(START_UNIX_NS + now)
        told.spans += told.structure.take_spans()
    return processes, START_UNIX_NS + now


def check_ids(told: Told) -> None:
    """Assert that no id is 0 and none is there twice."""
    ids = [call.span_id for call in told.calls] + [span.span_id for span in told.spans]

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
    of_window = Counter((call.trace_id, call.parent) for call in told.calls)

    assert of_window == {
        key: span.attributes["otel_sysexit.window.calls"] for key, span in told.roots.items()
    }
    assert all(count <= WINDOW_SPANS_MAX for count in of_window.values())
    assert sum(span.attributes["otel_sysexit.window.errors"] for span in told.spans) == sum(
        (call.start - START_UNIX_NS) % 3 == 0 for call in told.calls
    )
    for call in told.calls:
        root = told.roots[call.trace_id, call.parent]
        assert root.image.process is call.process
        assert (root.parent_span_id, root.name) == (0, call.process.name)
        assert root.start_unix_ns <= call.start <= call.end <= root.end_unix_ns
    check_ids(told)


@settings(max_examples=30)
@given(batches)
def test_a_window_has_one_threshold(made):
    """All calls of a trace were sampled at one threshold, which its randomness reaches; its root claims no other."""
    told = Told(Windows())
    told.finish(*follow(made, told))
    thresholds: dict[bytes, set[int]] = {}
    for call in told.calls:
        thresholds.setdefault(call.trace_id, set()).add(call.threshold)
    found = {trace_id: threshold for trace_id, (threshold,) in thresholds.items()}

    for trace_id, threshold in found.items():
        assert int.from_bytes(trace_id[-7:], "big") >= threshold << 24
    for span in told.spans:
        # Its root was not sampled, which a trace state could only say where the randomness is free.
        assert span.trace_state == ("" if found[span.trace_id] else "ot=th:0")


@settings(max_examples=30)
@given(batches)
def test_a_window_that_is_full_makes_no_other_end(made):
    """Windows of a process at different thresholds are open at once, and each is filled before it ends by count."""
    told = Told(Windows())
    processes, now = follow(made, told)
    full = sum(span.attributes["otel_sysexit.window.calls"] == WINDOW_SPANS_MAX for span in told.spans)
    told.finish(processes, now)
    per_window = Counter((call.process, call.threshold) for call in told.calls)
    pauses = sum(pause > 0 for _, pause in made)

    assert len(told.spans) <= full + len(per_window) * (1 + pauses)


@settings(max_examples=30)
@given(batches)
def test_a_link_points_to_a_window_that_was_told_before(made):
    """Windows link to earlier ones of their process, with what those say of their sampling; only the first lack a link."""
    told = Told(Windows())
    told.finish(*follow(made, told))
    before: dict[Process, dict[tuple[bytes, int], str]] = {}
    for span in told.spans:
        earlier = before.setdefault(span.image.process, {})
        for link in span.links:
            assert earlier[link.trace_id, link.span_id] == link.trace_state
        assert len(span.links) <= 1
        earlier[span.trace_id, span.span_id] = span.trace_state
    without = Counter(span.image.process for span in told.spans if not span.links)

    assert all(count <= len(THRESHOLDS) for count in without.values())


@settings(max_examples=30)
@given(batches_at([0]))
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
    for call in told.calls:
        if (call.trace_id, call.parent) not in closed:
            open_since.setdefault((call.trace_id, call.parent), call.end)

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
    for call in told.calls:
        span = span_of[call.process]
        assert (call.trace_id, call.parent) == (tree.trace_id, span.span_id)
        assert span.start_unix_ns <= call.start <= call.end <= span.end_unix_ns
    check_ids(told)


@given(st.sampled_from(THRESHOLDS))
def test_a_tree_of_sampled_calls_has_the_randomness_for_it(threshold):
    """The one trace of a command reaches the threshold of its calls; what is always kept (0) may lie there, too."""
    tree, process = Tree(threshold), make_process(1, end_unix_ns=START_UNIX_NS + 9)
    tree.set_root(process)
    told = Told(tree)
    told.place(
        make_calls(*(Made("getpid", process=process, threshold=each) for each in (0, threshold, threshold)))
    )
    tree.end([process])
    (root,) = tree.take_spans()

    assert {call.trace_id for call in told.calls} == {root.trace_id}
    assert int.from_bytes(root.trace_id[-7:], "big") >= threshold << 24
    assert root.trace_state == ("" if threshold else "ot=th:0")


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
