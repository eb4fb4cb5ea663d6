"""
Calls and spans → ExportTraceServiceRequest bodies.

In: a batch of calls with their placement, and process or window spans. Out: serialized requests of bounded size, one
ResourceSpans for each program in a process. Templates of calls are laid out in the order of their programs, behind
ready-made Resources (layout.py), and stamped (stamp.py), all of a batch at once; so the cost hardly grows with processes.
"""

from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
from opentelemetry.proto.trace.v1 import trace_pb2

from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Value
from otel_sysexit.otlp.columns import ATTRIBUTE_COLUMNS, TEXTS, prepare_calls
from otel_sysexit.otlp.layout import Heads, lay_out
from otel_sysexit.otlp.other_spans import OtherSpans, span_flags
from otel_sysexit.otlp.request import REQUEST_BYTES_MAX, Request
from otel_sysexit.otlp.resources import DEFAULT_RULES, ResourceRules, key_value
from otel_sysexit.otlp.shapes import Shape
from otel_sysexit.otlp.stamp import Mark, Rows, random_mark, write_columns
from otel_sysexit.otlp.stamps import Stamp, Stamps, TextField
from otel_sysexit.otlp.templates import BEGINNING, Beginning, make_template
from otel_sysexit.propagation import TraceContext
from otel_sysexit.sampling import trace_state
from otel_sysexit.traces import Owner, Placement, Span, trace_flags

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
        self, calls: Calls, placement: Placement, spans: Sequence[Span], bytes_max: int = REQUEST_BYTES_MAX
    ) -> Iterator[Request]:
        """Yield requests of about *bytes_max* bytes at most."""
        if not len(calls) and not spans:
            return
        ours = prepare_calls(
            calls, placement, self._stamps, lambda shape: self._make_stamp(shape, calls), _SLOTS
        )
        if not spans:
            heads = self._heads.of(ours.images)
            parts = self._stamps.parts.get(heads)
            layout = lay_out(parts, ours.messages, len(heads), ours.program, bytes_max)
            ours.write(layout.out, layout.at, layout.ends, self._beginning.block, _COLUMNS)
            yield from (Request(body, calls=end - first) for body, first, end in layout.cut())
            return
        others = self._other_spans.prepare(spans)
        messages = np.full((len(ours.messages), len(calls) + len(spans)), -1, np.intp)
        messages[:, : len(calls)] = ours.messages
        messages[0, len(calls) :] = len(self._stamps.parts) + others.message
        row_of = {image: row for row, image in enumerate(ours.images)}
        of_other = [row_of.setdefault(span.image, len(row_of)) for span in spans]
        owner = np.concatenate((ours.program, np.array(of_other, np.intp)))
        # Those of one program lie together.
        together = np.argsort(owner, kind="stable")
        layout = lay_out(
            self._stamps.parts.get([*others.messages, *self._heads.of(list(row_of))]),
            messages.take(together, axis=1),
            len(row_of),
            owner.take(together),
            bytes_max,
        )
        is_call = together < len(calls)
        ours.write(layout.out, layout.at[is_call], layout.ends[:, is_call], self._beginning.block, _COLUMNS)
        other = together[~is_call] - len(calls)
        rows = Rows(layout.at[~is_call], others.templates.which[other], other)
        write_columns(layout.out, rows, others.templates.places, others.columns)
        calls_before = np.append(0, np.cumsum(is_call)).tolist()
        for body, first, end in layout.cut():
            count = calls_before[end] - calls_before[first]
            yield Request(body, calls=count, spans=end - first - count)

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
