"""Traces: whatever comes, each call has one parent that is told in the end, and windows keep their bounds."""

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_calls import START_UNIX_NS, Made, make_calls, make_process

from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.figures import WINDOW_BYTES_MAX, WINDOW_SPANS_MAX
from otel_sysexit.flat import Flat
from otel_sysexit.identity import Image, Process
from otel_sysexit.propagation import TraceContext
from otel_sysexit.traces import Owner, Placement, Span, Structure, Totals, span_id_of
from otel_sysexit.trees import PART_SECONDS_MAX, Tree
from otel_sysexit.windows import JOINED_CALLS_MAX, WINDOW_SECONDS_MAX, Windows

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
        told.structure.tick(START_UNIX_NS + now, Totals())
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
    """A window has a root without a parent, covers its calls, counts them, by name, too, and their errors; at most 2,000."""
    told = Told(Windows())
    processes, now = follow(made, told)
    told.finish(processes, now)
    of_window = Counter((call.trace_id, call.parent) for call in told.calls)

    assert of_window == {
        key: span.attributes["otel_sysexit.window.calls"] for key, span in told.roots.items()
    }
    assert all(count <= WINDOW_SPANS_MAX for count in of_window.values())
    assert of_window == {
        key: span.attributes["otel_sysexit.window.call_count.getpid"] for key, span in told.roots.items()
    }
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
    windows.tick(START_UNIX_NS + WINDOW_SECONDS_MAX * SECOND_NS - 1, Totals())
    before = windows.take_spans()
    windows.tick(START_UNIX_NS + WINDOW_SECONDS_MAX * SECOND_NS, Totals())

    assert (len(before), len(windows.take_spans())) == (0, 1)


@pytest.mark.parametrize(
    ("structure", "seconds_max"), [(Windows, WINDOW_SECONDS_MAX), (Tree, PART_SECONDS_MAX)]
)
def test_a_clock_that_is_set_back_keeps_nothing_open(structure, seconds_max):
    """What was open then ends when it is as old as it may get, counted from then on; not when the clock has caught up."""
    traces, process = structure(), make_process(1)
    traces.set_root(process)
    traces.place(make_calls(Made("getpid", process=process)))
    traces.tick(START_UNIX_NS + SECOND_NS, Totals())
    back = START_UNIX_NS - 3_600 * SECOND_NS
    traces.tick(back, Totals())
    traces.tick(back + seconds_max * SECOND_NS - 1, Totals())
    before = traces.take_spans()
    traces.tick(back + seconds_max * SECOND_NS, Totals())

    assert (len(before), len(traces.take_spans())) == (0, 1)


def test_a_late_call_of_the_program_before_makes_no_first_window():
    """Calls of two rings may be read in another order than they were made: what a program does first is that once."""
    windows, process = Windows(), make_process(7)
    process.image.trace_context = CONTEXT
    before, now = process.image, replace(process.image, executable_name="next")
    for image in (before, now, before, now):
        process.image = image
        windows.place(make_calls(Made("getpid", process=process)))
    windows.end([process])

    assert [root.trace_id == CONTEXT.trace_id for root in windows.take_spans()] == [True, True, False, False]


def test_a_window_ends_with_its_process():
    """When a process ended, its window is told, and nothing of it is kept."""
    windows, process = Windows(), make_process(7)
    windows.place(make_calls(Made("getpid", process=process)))
    windows.end([process])

    assert [span.image for span in windows.take_spans()] == [process.image]
    assert not windows._windows
    assert not windows._previous


def test_a_window_ends_with_its_program():
    """An exec begins a new window: a root tells of one program, and links to that of the program before."""
    windows, process = Windows(), make_process(7, "sh")
    windows.place(make_calls(Made("getpid", process=process)))
    before = process.image
    process.image = Image(process, "ls")
    windows.place(make_calls(Made("getuid", process=process)))
    windows.finish([process], START_UNIX_NS)
    first, second = windows.take_spans()

    assert [(span.name, span.image) for span in (first, second)] == [("sh", before), ("ls", process.image)]
    assert [link.span_id for link in second.links] == [first.span_id]


def test_a_window_links_to_one_of_the_process_above():
    """The first window of a child links to its parent's that is open; the parent's own does not."""
    windows, parent = Windows(), make_process(7)
    child = make_process(8, parent=parent)
    windows.place(make_calls(Made("getpid", process=parent)))
    windows.place(make_calls(Made("getpid", process=child)))
    windows.finish([], START_UNIX_NS)
    above, below = windows.take_spans()

    assert above.links == []
    assert [(link.span_id, link.trace_id, link.attributes) for link in below.links] == [
        (above.span_id, above.trace_id, {"otel_sysexit.link.type": "parent_window"})
    ]


def test_the_last_window_says_how_its_process_ended():
    """The exit code stands on the root that the end closes, and on none before."""
    windows, process = Windows(), make_process(7)
    windows.place(make_calls(Made("getpid", process=process)))
    windows.tick(START_UNIX_NS + WINDOW_SECONDS_MAX * SECOND_NS, Totals())
    windows.place(make_calls(Made("getpid", process=process)))
    process.exit_code, process.end_unix_ns = 3, START_UNIX_NS + 1
    windows.end([process])
    first, last = windows.take_spans()

    assert ("process.exit.code" in first.attributes, first.is_error) == (False, False)
    assert (last.attributes["process.exit.code"], last.attributes["error.type"], last.is_error) == (
        3,
        "3",
        True,
    )


def test_a_window_of_large_spans_ends_earlier():
    """Long paths fill a window by their bytes: half a MiB or so."""
    windows = Windows()
    long = [Made("openat", (-100, 1, 0, 0), 3, paths=(b"/" + b"x" * 4000,))] * 300
    windows.place(make_calls(*long))
    windows.finish([], START_UNIX_NS)
    counts = [span.attributes["otel_sysexit.window.calls"] for span in windows.take_spans()]

    assert sum(counts) == 300
    assert all(count * 4000 <= WINDOW_BYTES_MAX for count in counts)
    assert counts[0] * 4500 > WINDOW_BYTES_MAX * 0.9


def test_a_window_says_what_is_not_in_it():
    """A root says how many calls of all targets were filtered, sampled out and lost while it was open, where there were any."""
    windows = Windows()
    windows.tick(START_UNIX_NS, Totals(filtered=5, sampled_out=7))
    windows.place(make_calls(Made("getpid")))
    windows.tick(START_UNIX_NS + WINDOW_SECONDS_MAX * SECOND_NS, Totals(filtered=9, sampled_out=7, dropped=1))
    (root,) = windows.take_spans()
    told = {key: value for key, value in root.attributes.items() if "call" not in key}

    assert told == {
        "otel_sysexit.window.errors": 0,
        "otel_sysexit.window.filtered": 4,
        "otel_sysexit.window.dropped": 1,
    }


@settings(max_examples=30)
@given(st.lists(st.sampled_from(THRESHOLDS), max_size=50))
def test_a_flat_call_is_its_own_trace(thresholds):
    """Each call is a root in a trace of its own, whose randomness reaches its threshold; nothing else has a span."""
    told = Told(Flat())
    told.place(make_calls(*(Made("getpid", threshold=threshold) for threshold in thresholds)))
    told.finish([], START_UNIX_NS)

    assert len({call.trace_id for call in told.calls}) == len(thresholds)
    assert all(call.parent == 0 for call in told.calls)
    assert all(int.from_bytes(call.trace_id[-7:], "big") >= call.threshold << 24 for call in told.calls)
    check_ids(told)


CONTEXT = TraceContext(bytes(range(1, 17)), 0x0102030405060708, 1, "ot=th:8,a=b")


def test_a_part_full_of_processes_has_its_times():
    """Where processes come and go without a call that is shown, a part ends with the latest of them, not in 1970."""
    tree, command = Tree(spans_max=100), make_process(1)
    tree.set_root(command)
    tree.end([make_process(pid, parent=command, end_unix_ns=START_UNIX_NS + pid) for pid in range(2, 152)])
    tree.finish([command], START_UNIX_NS + 200)
    spans = tree.take_spans()
    roots = [span for span in spans if not span.parent_span_id]

    assert len(spans) == 150 + len(roots)
    assert [root.end_unix_ns - START_UNIX_NS for root in roots] == [100, 200]
    assert all(START_UNIX_NS <= span.start_unix_ns <= span.end_unix_ns for span in spans)


@given(st.integers(3, 60), st.integers(1, 120), st.integers(0, 3), st.integers(1, 4))
def test_parts_are_filled(spans_max, at_work, height, calls_each):
    """However many processes are in a batch, parts are as few as the calls and the spans above them need, or nearly."""
    tree, command = Tree(spans_max=spans_max), make_process(1)
    tree.set_root(command)
    callers = []
    for pid in range(2, 2 + at_work):
        caller = command
        for _ in range(height + 1):
            caller = make_process(pid, parent=caller)
        callers.append(caller)
    told = Told(tree)
    told.place(make_calls(*(Made("getpid", process=caller) for caller in callers for _ in range(calls_each))))
    told.finish([], START_UNIX_NS)
    spans = Counter(call.trace_id for call in told.calls) + Counter(span.trace_id for span in told.spans)

    # A call does not fit with what is above it: that much is free in a part, but where one alone is more than a part.
    needs = height + 2
    assert all(count >= spans_max - needs for count in list(spans.values())[:-1])
    assert max(spans.values()) <= max(spans_max, needs + 1)


def test_a_process_that_spans_parts_ends_once():
    """The exit code and its error stand on the last span of a process, though its end is known while its calls still come."""
    tree, command = Tree(spans_max=100), make_process(1)
    failing = make_process(2, parent=command, end_unix_ns=START_UNIX_NS + 10, exit_code=1)
    tree.set_root(command)
    tree.place(make_calls(*(Made("getpid", start_ns=5, process=failing) for _ in range(150))))
    tree.end([failing])
    tree.finish([command], START_UNIX_NS + 20)
    of_failing = [span for span in tree.take_spans() if span.image is failing.image]

    assert [(span.is_error, "process.exit.code" in span.attributes) for span in of_failing] == [
        (False, False),
        (True, True),
    ]


def test_a_tree_is_below_the_span_that_started_it():
    """With a sampled context the command's span is its child, remotely, in its trace and with its trace state."""
    tree, process = Tree(context=CONTEXT), make_process(1, end_unix_ns=START_UNIX_NS + 9)
    tree.set_root(process)
    placement = tree.place(make_calls(Made("getpid", process=process)))
    tree.end([process])
    (root,) = tree.take_spans()

    assert (root.trace_id, root.parent_span_id.to_bytes(8, "little").hex()) == (
        CONTEXT.trace_id,
        "0102030405060708",
    )
    assert (root.is_parent_remote, root.trace_state, root.links) == (True, CONTEXT.trace_state, [])
    assert (placement.trace_id[0].tobytes(), placement.owner.tolist()) == (CONTEXT.trace_id, [Owner.STARTER])


def test_a_part_after_one_that_was_joined_says_whose_trace_that_is():
    """The link to it has the trace state and the flags of who started the command: nobody knows whether that trace's id is random."""
    tree, process = Tree(spans_max=100, context=CONTEXT), make_process(1)
    tree.set_root(process)
    tree.place(make_calls(*(Made("getpid", process=process) for _ in range(150))))
    tree.finish([process], START_UNIX_NS + 10**6)
    (link,) = [link for span in tree.take_spans() for link in span.links]

    assert (link.trace_id, link.trace_state, link.trace_flags) == (
        CONTEXT.trace_id,
        CONTEXT.trace_state,
        CONTEXT.trace_flags,
    )


def test_an_early_call_is_below_all_that_are_above_it():
    """Of a long chain of processes each span begins no later than the last one's call, which began before the part did."""
    tree, processes = Tree(spans_max=300), [make_process(1)]
    for pid in range(2, 102):
        processes.append(make_process(pid, parent=processes[-1]))
    tree.set_root(processes[0])
    made = [Made("getpid", start_ns=10**6, process=processes[0]) for _ in range(400)]
    tree.place(make_calls(*made, Made("getpid", start_ns=5, duration_ns=2 * 10**6, process=processes[-1])))
    tree.finish(processes, START_UNIX_NS + 10**7)
    last = [span for span in tree.take_spans() if span.trace_id == tree.trace_id]

    assert len(last) == len(processes)
    assert all(span.start_unix_ns <= START_UNIX_NS + 5 for span in last)


@pytest.mark.parametrize(
    ("context", "threshold"),
    [(replace(CONTEXT, trace_flags=0), 0), (CONTEXT, 1 << 31)],
    ids=["not sampled", "sampling"],
)
def test_a_tree_that_cannot_be_below_a_span_links_to_it(context, threshold):
    """Where that trace is not kept, or its randomness is not ours to have, the tree is its own, and its root has a link."""
    tree, process = Tree(threshold, context=context), make_process(1, end_unix_ns=START_UNIX_NS + 9)
    tree.set_root(process)
    tree.end([process])
    (root,) = tree.take_spans()
    (link,) = root.links

    assert (root.parent_span_id, root.is_parent_remote, root.trace_id == context.trace_id) == (
        0,
        False,
        False,
    )
    assert (link.trace_id, link.attributes) == (context.trace_id, {"otel_sysexit.link.type": "started_by"})
    assert (link.trace_flags, link.is_remote) == (context.trace_flags, True)


def test_a_process_with_a_context_of_its_own_links_to_it():
    """A process whose environment names another span than the command's has a link; the others need none."""
    tree, command = Tree(context=CONTEXT), make_process(1, end_unix_ns=2)
    same, other = (make_process(pid, parent=command, end_unix_ns=2) for pid in (2, 3))
    command.image.trace_context = same.image.trace_context = CONTEXT
    other.image.trace_context = replace(CONTEXT, span_id=9)
    tree.set_root(command)
    tree.end([same, other, command])

    assert [len(span.links) for span in tree.take_spans()] == [0, 1, 0]


def windows_of(process: Process, count: int, threshold: int = 0) -> tuple[list[Span], Placement]:
    """Return the roots of so many windows of a process, and where the calls of the first are."""
    windows = Windows()
    places = []
    for _ in range(count):
        places.append(windows.place(make_calls(Made("getpid", process=process, threshold=threshold))))
        windows.tick(START_UNIX_NS + 3_600 * 10**9, Totals())
    return windows.take_spans(), places[0]


def test_what_a_program_does_first_is_below_the_span_that_started_it():
    """The first window is a remote child in that trace, and links to nothing; the next ones are traces of their own, with a link."""
    process = make_process(7)
    process.image.trace_context = CONTEXT
    (first, second), placement = windows_of(process, 2)
    before, starter = second.links

    assert (first.trace_id, first.parent_span_id) == (CONTEXT.trace_id, span_id_of(CONTEXT))
    assert (first.is_parent_remote, first.links) == (True, [])
    assert (first.trace_flags, first.trace_state) == (CONTEXT.trace_flags, CONTEXT.trace_state)
    assert placement.trace_id.tobytes() == CONTEXT.trace_id
    assert placement.parent_span_id.tolist() == [first.span_id]
    assert placement.owner.tolist() == [Owner.APPLICATION]
    assert (second.parent_span_id, second.is_parent_remote, second.trace_flags) == (0, False, 0x03)
    assert second.trace_id != CONTEXT.trace_id
    assert (before.span_id, before.trace_flags) == (first.span_id, CONTEXT.trace_flags)
    assert (starter.trace_id, starter.trace_state) == (CONTEXT.trace_id, CONTEXT.trace_state)
    assert starter.attributes == {"otel_sysexit.link.type": "started_by"}


@pytest.mark.parametrize(
    ("context", "threshold", "age_ns"),
    [
        (replace(CONTEXT, trace_flags=0), 0, 0),
        (CONTEXT, 1 << 31, 0),
        (CONTEXT, 0, 11 * 10**9),
    ],
    ids=["not sampled", "sampling", "old"],
)
def test_a_window_that_cannot_be_below_a_span_links_to_it(context, threshold, age_ns):
    """Where that trace is not kept, its randomness is not ours to have, or the process has been running on for long."""
    process = make_process(7, begin_unix_ns=START_UNIX_NS - age_ns)
    process.image.trace_context = context
    (root,), placement = windows_of(process, 1, threshold)
    (link,) = root.links

    assert (root.parent_span_id, root.is_parent_remote) == (0, False)
    assert root.trace_id != context.trace_id
    assert placement.owner.tolist() == [Owner.US]
    assert (link.trace_id, link.trace_flags) == (context.trace_id, context.trace_flags)


def test_who_forks_for_itself_starts_nothing_in_anybodys_span():
    """The workers of a server that has been running for a week are no part of the trace in which somebody started it."""
    server, process = make_process(6, begin_unix_ns=START_UNIX_NS - 11 * 10**9), make_process(7)
    process.image.trace_context, process.image.executed_by = CONTEXT, server
    (root,), placement = windows_of(process, 1)

    assert (root.parent_span_id, placement.owner.tolist()) == (0, [Owner.US])
    assert [link.trace_id for link in root.links] == [CONTEXT.trace_id]


def test_a_trace_of_others_gets_so_many_calls():
    """A build of thousands of processes does not all lie in the trace of the job that started it."""
    windows = Windows()
    for pid in range(1, 20):
        process = make_process(pid)
        process.image.trace_context = CONTEXT
        windows.place(make_calls(*[Made("getpid", process=process)] * 1_000))
        windows.end([process])
    is_joined = [root.trace_id == CONTEXT.trace_id for root in windows.take_spans()]

    assert is_joined == [True] * (JOINED_CALLS_MAX // 1_000) + [False] * (19 - JOINED_CALLS_MAX // 1_000)


def test_a_program_that_publishes_what_it_is_has_one_first_window():
    """Its Resource is another from then on, but it is the same program."""
    windows, process = Windows(), make_process(7)
    process.image.trace_context = CONTEXT
    windows.place(make_calls(Made("getpid", process=process)))
    process.image = replace(process.image, context_attributes={"service.name": "shop"})
    windows.place(make_calls(Made("getpid", process=process)))
    windows.finish([process], START_UNIX_NS)

    assert [root.trace_id == CONTEXT.trace_id for root in windows.take_spans()] == [True, False]


def family(parents: list[int]) -> list[Process]:
    """Return processes whose parents are among those before them; the first one is the command."""
    processes = [make_process(1, exit_code=0)]
    for pid, parent in enumerate(parents, 2):
        processes.append(make_process(pid, parent=processes[parent % len(processes)]))
    return processes


@settings(max_examples=50)
@given(
    st.lists(st.integers(0, 2**16), max_size=6),
    st.lists(
        st.tuples(st.lists(st.integers(0, 6), max_size=60), st.integers(0, 50), st.integers(0, 7)),
        max_size=12,
    ),
)
def test_a_tree_goes_on_in_parts(parents, steps):
    """Each trace of a tree has one root, linked to the one before, and every parent; none has too many calls, or is too old."""
    spans_max = 40
    tree = Tree(spans_max=spans_max)
    processes = family(parents)
    tree.set_root(processes[0])
    told = Told(tree)
    living, now = list(processes), 0
    for callers, pause, ending in steps:
        now += pause * SECOND_NS
        at_work = [living[caller % len(living)] for caller in callers]
        told.place(make_calls(*(Made("getpid", start_ns=now, process=process) for process in at_work)))
        if 0 < ending < len(living):
            ended = living.pop(ending)
            ended.end_unix_ns, ended.exit_code = START_UNIX_NS + now, 1
            tree.end([ended])
        tree.tick(START_UNIX_NS + now, Totals())
        told.spans += tree.take_spans()
    told.finish(living, START_UNIX_NS + now)
    roots = [span for span in told.spans if span.parent_span_id == 0]
    ids = {(span.trace_id, span.span_id) for span in told.spans}
    calls_of = Counter(call.trace_id for call in told.calls)

    assert len({root.trace_id for root in roots}) == len(roots) == len({span.trace_id for span in told.spans})
    assert all(root.image.process is processes[0] for root in roots)
    assert [[link.span_id for link in root.links] for root in roots] == [
        [] if before is None else [before.span_id] for before in [None, *roots][: len(roots)]
    ]
    if len(roots) > 1:
        numbers = [root.attributes["otel_sysexit.trace.part"] for root in roots]
        assert numbers == [*range(1, len(roots) + 1)]
    assert ids >= {(call.trace_id, call.parent) for call in told.calls}
    assert ids >= {(span.trace_id, span.parent_span_id) for span in told.spans if span.parent_span_id}
    assert all(
        count <= spans_max for count in (calls_of + Counter(span.trace_id for span in told.spans)).values()
    )
    for span in told.spans:
        assert span.start_unix_ns <= span.end_unix_ns
    starts: dict[bytes, list[int]] = {}
    for call in told.calls:
        starts.setdefault(call.trace_id, []).append(call.start)
    assert all(max(times) - min(times) < (PART_SECONDS_MAX + 50) * SECOND_NS for times in starts.values())
    check_ids(told)


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
