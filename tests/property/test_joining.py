"""Joining: in every structure, calls made in a span of their application are below it, and all others are where they were."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_calls import START_UNIX_NS, Made, make_calls, make_process

from otel_sysexit.calls import Calls
from otel_sysexit.flat import Flat
from otel_sysexit.joining import join
from otel_sysexit.propagation import TraceContext
from otel_sysexit.traces import Owner, Placement
from otel_sysexit.trees import Tree
from otel_sysexit.windows import Windows

TRACE_ID, SPAN_ID = bytes(range(1, 17)), bytes.fromhex("00f067aa0ba902b7")
NO_TRACE_ID, NO_SPAN_ID = bytes(16), bytes(8)
STARTER = TraceContext(bytes(range(16)), 7, 1, "ot=th:8")
STRUCTURES = {
    "tree": Tree,
    "a tree that is cut": lambda: Tree(spans_max=100),
    "a tree below its starter": lambda: Tree(context=STARTER),
    "window": Windows,
    "flat": Flat,
}
ids = st.tuples(st.sampled_from([TRACE_ID, NO_TRACE_ID]), st.sampled_from([SPAN_ID, NO_SPAN_ID]))
spans = st.one_of(st.none(), ids, st.just((TRACE_ID, SPAN_ID)))


def parents_of(placement: Placement) -> list[tuple[bytes, bytes]]:
    """Return trace id and parent span id of each call, as they are sent."""
    return [
        (placement.trace_id[context].tobytes(), int(placement.parent_span_id[context]).to_bytes(8, "little"))
        for context in placement.context.tolist()
    ]


def owners_of(placement: Placement) -> list[int]:
    """Return whose trace each call is in."""
    owner = np.zeros(len(placement.parent_span_id), np.uint8) if placement.owner is None else placement.owner
    return owner[placement.context].tolist()


def calls_in(*made: tuple[bytes, bytes] | None, **facts: object) -> Calls:
    """Return a call made in each of these spans."""
    return make_calls(*(Made("getpid", span=span, **facts) for span in made))


@pytest.mark.parametrize("structure", STRUCTURES)
@settings(max_examples=20)
@given(made=st.lists(st.tuples(spans, st.sampled_from([0, 1, 1 << 31]), st.integers(1, 60)), max_size=8))
def test_calls_are_below_the_span_they_were_made_in(structure, made):
    """A call that is all of its kind and has both ids is in that trace, below that span; any other is in a trace of ours."""
    rows = [(span, threshold) for span, threshold, count in made for _ in range(count)]
    calls = make_calls(*(Made("getpid", span=span, threshold=threshold) for span, threshold in rows))
    placement = STRUCTURES[structure]().place(calls)
    is_joined = [span == (TRACE_ID, SPAN_ID) and threshold == 0 for span, threshold in rows]

    assert [owner == Owner.APPLICATION for owner in owners_of(placement)] == is_joined
    assert [place == (TRACE_ID, SPAN_ID) for place in parents_of(placement)] == is_joined
    assert len(set(placement.span_id.tolist()) - {0}) == len(rows)


@pytest.mark.parametrize("structure", STRUCTURES)
def test_nothing_is_joined_where_nobody_tells_of_spans(structure):
    """Without the map, and where a thread is in no span, places are the structure's own."""
    for calls in (calls_in(None, None), calls_in((NO_TRACE_ID, NO_SPAN_ID))):
        placement = STRUCTURES[structure]().place(calls)

        assert Owner.APPLICATION not in owners_of(placement)
        assert join(calls, placement) is placement


def test_a_window_counts_calls_that_are_elsewhere():
    """Its root counts all calls of its program, those below the application's spans, too, and covers them."""
    windows = Windows()
    windows.place(calls_in(None, (TRACE_ID, SPAN_ID), (TRACE_ID, SPAN_ID), start_ns=5, duration_ns=7))
    windows.finish([], START_UNIX_NS + 100)
    (root,) = windows.take_spans()

    assert root.attributes["otel_sysexit.window.calls"] == 3
    assert root.attributes["otel_sysexit.window.call_count.getpid"] == 3
    assert (root.start_unix_ns, root.end_unix_ns) == (START_UNIX_NS + 5, START_UNIX_NS + 12)


def test_a_tree_has_room_for_its_own_spans_only():
    """Calls that are in other traces fill no part; the process has its span all the same."""
    tree, process = Tree(spans_max=100), make_process(1, end_unix_ns=START_UNIX_NS + 9)
    tree.set_root(process)
    for _ in range(3):
        tree.place(calls_in(*[(TRACE_ID, SPAN_ID)] * 99, None, process=process))
    tree.end([process])

    assert [span.name for span in tree.take_spans()] == [process.name]
