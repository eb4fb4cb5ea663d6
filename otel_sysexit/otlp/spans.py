"""
Calls and spans → ExportTraceServiceRequest bodies.

In: a batch of calls with their placement, and process or window spans. Out: serialized requests of bounded size, one
ResourceSpans for each program in a process. Templates of calls are laid out in the order of their programs, behind
ready-made Resources (layout.py), and stamped (stamp.py), all of a batch at once; so the cost hardly grows with processes.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from itertools import starmap
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.trace.v1 import trace_pb2

from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image, Value
from otel_sysexit.otlp.columns import ATTRIBUTE_COLUMNS, TEXTS, PreparedCalls, prepare_calls
from otel_sysexit.otlp.layout import Heads, lay_out
from otel_sysexit.otlp.other_spans import OtherSpans, span_flags
from otel_sysexit.otlp.request import REQUEST_BYTES_MAX, Request
from otel_sysexit.otlp.resources import DEFAULT_RULES, ResourceRules, key_value
from otel_sysexit.otlp.shapes import Shape
from otel_sysexit.otlp.stamp import Mark, random_mark
from otel_sysexit.otlp.stamps import Stamp, Stamps, TextField
from otel_sysexit.otlp.templates import BEGINNING, Beginning, make_template
from otel_sysexit.propagation import TraceContext
from otel_sysexit.sampling import trace_state
from otel_sysexit.traces import Owner, Placement, Spans, trace_flags

_COLUMNS: Final = (BEGINNING, "parent_span_id", "threshold", *ATTRIBUTE_COLUMNS)
_SLOTS: Final = {name: name for name in TEXTS}


def _with_attribute(name: str, value: Value) -> trace_pb2.Span:
    return trace_pb2.Span(attributes=[key_value(name, value)])


def _serialize_text(field: TextField, text: str) -> bytes:
    return _with_attribute(field.name, text).SerializeToString()


_LEADS: Final = (
    (trace_pb2.Span(trace_id=bytes(16)), "trace_id", 16),
    (trace_pb2.Span(span_id=bytes(8)), "span_id", 8),
    (trace_pb2.Span(start_time_unix_nano=1), "start", 8),
    (trace_pb2.Span(end_time_unix_nano=1), "end", 8),
)
"""What all spans have, as `Beginning` wants it."""


class SpanEncoder:
    """Encodes batches; keeps templates and Resources it made before."""

    def __init__(self, rules: ResourceRules = DEFAULT_RULES, starter: TraceContext | None = None) -> None:
        """
        Make nothing yet.

        Args:
            rules: What Resources are to have; their selection of attributes is that of spans, too.
            starter: What calls in the trace of who started the command have of it.
        """
        self._rules = rules
        self._starter = starter
        self._stamps: Stamps[int] = Stamps(len(_COLUMNS), len(_SLOTS), _serialize_text)
        self._beginning = Beginning(_LEADS, _with_attribute, rules.attributes)
        self._other_spans = OtherSpans(rules.attributes)
        self._heads = Heads(rules)

    def encode(
        self, calls: Calls, placement: Placement, spans: Spans, bytes_max: int = REQUEST_BYTES_MAX
    ) -> Iterator[Request]:
        """Return requests of about *bytes_max* bytes at most; they need nothing any more of what they were made of."""
        if not len(calls) and not len(spans):
            return iter(())
        ours = prepare_calls(
            calls, placement, self._stamps, lambda shape: self._make_stamp(shape, calls), _SLOTS
        )
        others = self._other_spans.prepare(spans)
        order = _put_together(ours, spans, len(self._stamps.parts) + others.message)
        heads = self._heads.of(order.images)
        parts = self._stamps.parts.get([*others.messages, *heads])
        layout = lay_out(parts, order.messages, len(heads), order.owner, bytes_max)
        at, ends = layout.at[order.calls], layout.ends[:, order.calls]
        ours.write(layout.out, at, ends, self._beginning.block, _COLUMNS)
        others.write(layout.out, layout.at[order.spans], order.span)
        return starmap(partial(_make_request, order.spans), layout.bodies())

    def _make_stamp(self, shape: Shape, calls: Calls) -> Stamp:
        """Serialize one span of *shape* with marks where calls differ."""
        kind = calls.kinds[shape.kind]
        template = make_template(
            shape, kind, calls.argument_texts[shape.argument_text], self._rules.attributes
        )
        starter = self._starter if shape.owner == Owner.STARTER else None
        parent_span_id = random_mark(8)
        span = trace_pb2.Span(
            parent_span_id=b"" if shape.is_root else parent_span_id,
            trace_state=starter.trace_state if starter else trace_state("x" * shape.threshold_length or "0"),
            flags=span_flags(trace_flags(shape.owner, starter), is_remote=False),
            name=kind.name,
            kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
            attributes=template.attributes,
        )
        if shape.outcome == Outcome.FAILED:
            span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
        beginning = self._beginning.of(shape)
        marks = template.marks | {BEGINNING: Mark(beginning, len(beginning))}
        if not shape.is_root:
            marks["parent_span_id"] = Mark(parent_span_id, 8)
        if shape.threshold_length:
            marks["threshold"] = Mark(span.trace_state.encode(), shape.threshold_length)
        return Stamp(beginning + span.SerializeToString(), marks, _COLUMNS, template.texts, tuple(_SLOTS))


def _make_request(spans: npt.NDArray[np.intp], body: bytes, first: int, end: int) -> Request:
    """Return the request that holds the messages from *first* on, up to *end*; *spans*, intp[k]: which of all messages are no calls."""
    spans_before, spans_until = np.searchsorted(spans, (first, end)).tolist()
    count = spans_until - spans_before
    return Request(body, calls=end - first - count, spans=count)


class _Order(NamedTuple):
    """How n calls and spans are laid out: those of one program together."""

    images: Sequence[Image]
    """The programs."""
    owner: npt.NDArray[np.intp]
    """intp[n]: whose each message is."""
    messages: npt.NDArray[np.intp]
    """intp[s, n], as `lay_out` wants them."""
    calls: slice | npt.NDArray[np.intp]
    """Where the calls are, as they are prepared."""
    spans: npt.NDArray[np.intp]
    """intp[k]: where the spans are."""
    span: npt.NDArray[np.intp]
    """intp[k]: and which they are."""


def _put_together(ours: PreparedCalls, spans: Spans, parts: npt.NDArray[np.intp]) -> _Order:
    """Return where prepared calls and *spans*, which consist of one of the *parts* each, intp[k], are to be."""
    count = len(ours.program)
    if not len(spans):  # calls are prepared in the order of their programs
        nobody = np.empty(0, np.intp)
        return _Order(ours.images, ours.program, ours.messages, slice(count), nobody, nobody)
    row_of = dict(zip(ours.images, range(len(ours.images)), strict=True))
    of_span = [row_of.setdefault(image, len(row_of)) for image in spans.images()]
    owner = np.concatenate((ours.program, np.array(of_span, np.intp)))
    messages = np.full((len(ours.messages), len(owner)), -1, np.intp)
    messages[:, :count] = ours.messages
    messages[0, count:] = parts
    order = np.argsort(owner, kind="stable")
    is_call = order < count
    at = np.flatnonzero(~is_call)
    return _Order(
        list(row_of),
        owner.take(order),
        messages.take(order, axis=1),
        np.flatnonzero(is_call),
        at,
        order.take(at) - count,
    )
