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

from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.otlp.columns import ATTRIBUTE_COLUMNS, prepare_calls
from otel_sysexit.otlp.layout import Heads, lay_out
from otel_sysexit.otlp.other_spans import OtherSpans, span_flags
from otel_sysexit.otlp.request import REQUEST_BYTES_MAX, Request
from otel_sysexit.otlp.resources import DEFAULT_RULES, ResourceRules
from otel_sysexit.otlp.shapes import Shape
from otel_sysexit.otlp.stamp import Mark, Rows, Stamp, Stamps, random_mark, write_columns
from otel_sysexit.otlp.templates import make_template
from otel_sysexit.propagation import TraceContext
from otel_sysexit.sampling import trace_state
from otel_sysexit.syscalls import Kind
from otel_sysexit.traces import Owner, Placement, Span, trace_flags

_COLUMNS: Final = ("trace_id", "span_id", "parent_span_id", "start", "end", "threshold", *ATTRIBUTE_COLUMNS)


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
        self._stamps = Stamps(len(_COLUMNS))
        self._other_spans = OtherSpans(rules.attributes)
        self._heads = Heads(rules)

    def encode(
        self, calls: Calls, placement: Placement, spans: Sequence[Span], bytes_max: int = REQUEST_BYTES_MAX
    ) -> Iterator[Request]:
        """Yield requests of about *bytes_max* bytes at most."""
        if not len(calls) and not spans:
            return
        ours = prepare_calls(calls, placement, self._stamps, lambda shape: self._make_stamp(shape, calls))
        messages, places = ours.templates
        others = self._other_spans.prepare(spans)
        row_of = {image: row for row, image in enumerate(ours.images)} if spans else {}
        of_other = [row_of.setdefault(span.image, len(row_of)) for span in spans]
        owner = np.concatenate((ours.program, np.array(of_other, np.intp)))
        # Those of one program lie together.
        together = np.argsort(owner, kind="stable")
        layout = lay_out(
            messages + others.templates.messages,
            np.concatenate((ours.which, len(messages) + others.which))[together],
            self._heads.of(list(row_of) or ours.images),
            owner[together],
            bytes_max,
        )
        is_call = together < len(calls)
        rows = Rows(layout.at[is_call], ours.which, ours.order)
        write_columns(layout.out, rows, places, [ours.columns[name] for name in _COLUMNS])
        other = together[~is_call] - len(calls)
        rows = Rows(layout.at[~is_call], others.which[other], other)
        write_columns(layout.out, rows, others.templates.places, others.columns)
        calls_before = np.append(0, np.cumsum(is_call)).tolist()
        for body, first, end in layout.cut():
            count = calls_before[end] - calls_before[first]
            yield Request(body, calls=count, spans=end - first - count)

    def _make_stamp(self, shape: Shape, calls: Calls) -> Stamp:
        texts = calls.argument_texts[shape.argument_text]
        starter = self._starter if shape.owner == Owner.STARTER else None
        return _make_stamp(shape, calls.kinds[shape.kind], texts, starter, self._rules.attributes)


def _make_stamp(
    shape: Shape,
    kind: Kind,
    argument_texts: tuple[str | None, ...],
    starter: TraceContext | None,
    selection: AttributeSelection,
) -> Stamp:
    """Serialize one span of *shape* with marks where calls differ; *starter*: of the command, where they are in that trace."""
    trace_id, span_id, parent_span_id = random_mark(16), random_mark(8), random_mark(8)
    start, end = random_mark(8), random_mark(8)
    template = make_template(shape, kind, argument_texts, selection)
    span = trace_pb2.Span(
        trace_id=trace_id,
        span_id=span_id,
        parent_span_id=b"" if shape.is_root else parent_span_id,
        trace_state=starter.trace_state if starter else trace_state("x" * shape.threshold_length or "0"),
        flags=span_flags(trace_flags(shape.owner, starter), is_remote=False),
        name=kind.name,
        kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=int.from_bytes(start, "little"),
        end_time_unix_nano=int.from_bytes(end, "little"),
        attributes=template.attributes,
    )
    if shape.outcome == Outcome.FAILED:
        span.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    marks = template.marks | {
        "trace_id": Mark(trace_id, 16),
        "span_id": Mark(span_id, 8),
        "start": Mark(start, 8),
        "end": Mark(end, 8),
    }
    if not shape.is_root:
        marks["parent_span_id"] = Mark(parent_span_id, 8)
    if shape.threshold_length:
        marks["threshold"] = Mark(span.trace_state.encode(), shape.threshold_length)
    return Stamp(trace_pb2.ScopeSpans(spans=[span]).SerializeToString(), marks, _COLUMNS)
