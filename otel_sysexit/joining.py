"""
Calls below the spans of the program that made them.

In: a batch of calls, of which some say which span of their application they were made in, and their places in one of our
structures. Out: the same places, but that such calls are in the application's trace, children of its span.
"""

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls
from otel_sysexit.traces import Owner, Placement


def is_joined(calls: Calls) -> npt.NDArray[np.bool_]:
    """
    Return bool[n]: which of *calls* are in their application's trace.

    Not those that were sampled: their trace's randomness must reach their threshold, and that trace was not chosen so. An id that is zero is
    none (W3C Trace Context, 3.2.2).
    """
    if calls.span is None:
        return np.zeros(len(calls), np.bool_)
    has_span = calls.span["trace_id"].any(axis=1) & (calls.span["span_id"] != 0)
    return np.asarray(has_span & (calls.threshold == 0))


def join(calls: Calls, placement: Placement) -> Placement:
    """Return *placement* with the joined ones of *calls* below their application's spans."""
    rows = np.flatnonzero(is_joined(calls))
    if calls.span is None or not len(rows):
        return placement
    spans, ours = calls.span[rows], len(placement.parent_span_id)
    context = placement.context.copy()
    context[rows] = ours + np.arange(len(rows))
    owner = np.zeros(ours, np.uint8) if placement.owner is None else placement.owner
    trace_id = np.ascontiguousarray(spans["trace_id"]).view(np.uint8)
    return Placement(
        span_id=placement.span_id,
        context=context,
        trace_id=np.concatenate((placement.trace_id, trace_id)),
        parent_span_id=np.concatenate((placement.parent_span_id, spans["span_id"])),
        owner=np.concatenate((owner, np.full(len(rows), Owner.APPLICATION, np.uint8))),
    )
