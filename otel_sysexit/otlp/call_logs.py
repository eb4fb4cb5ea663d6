"""
Calls → ExportLogsServiceRequest bodies: a log record for each call, made as its span is (spans.py), from the same templates.

Its time is the call's start, as strace prints it, its observed time the call's end, when the kernel side saw it. Where the call has
a span, the record is in its trace.
"""

from collections.abc import Iterator
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_ERROR,
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_WARN,
    LogRecord,
    ScopeLogs,
)

from otel_sysexit import attributes as names
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.otlp.columns import ATTRIBUTE_COLUMNS, prepare_calls
from otel_sysexit.otlp.layout import Heads, lay_out
from otel_sysexit.otlp.request import REQUEST_BYTES_MAX, Request, Signal
from otel_sysexit.otlp.resources import DEFAULT_RULES, ResourceRules
from otel_sysexit.otlp.shapes import Shape
from otel_sysexit.otlp.stamp import Mark, Rows, Stamp, Stamps, random_mark, write_columns
from otel_sysexit.otlp.templates import Template, make_template
from otel_sysexit.propagation import TraceContext
from otel_sysexit.syscalls import Kind, errno_name
from otel_sysexit.traces import Placement, trace_flags

_IN_BODY: Final = {name: f"{name}_in_body" for name in ("path0", "file0", "file1", "address")}
"""Texts that a body can show, the first that there is, and how the column is called there."""
_COLUMNS: Final = ("start", "end", "duration", "trace_id", "span_id", *_IN_BODY.values(), *ATTRIBUTE_COLUMNS)


class CallLogEncoder:
    """Encodes batches; keeps templates and Resources it made before."""

    def __init__(
        self,
        rules: ResourceRules = DEFAULT_RULES,
        starter: TraceContext | None = None,
        *,
        has_spans: bool = True,
    ) -> None:
        """
        Make nothing yet.

        Args:
            rules: What Resources are to have; their selection of attributes is that of log records, too.
            starter: What calls in the trace of who started the command have of it.
            has_spans: Whether the calls have spans, too: records name them then, and are counted as log records beside these.
        """
        self._selection = rules.attributes
        self._starter = starter
        self._has_spans = has_spans
        self._stamps = Stamps(len(_COLUMNS))
        self._heads = Heads(rules)

    def encode(
        self, calls: Calls, placement: Placement, bytes_max: int = REQUEST_BYTES_MAX
    ) -> Iterator[Request]:
        """Yield requests of about *bytes_max* bytes at most."""
        if not len(calls):
            return
        ours = prepare_calls(calls, placement, self._stamps, lambda shape: self._make_stamp(shape, calls))
        messages, places = ours.templates
        layout = lay_out(messages, ours.which, self._heads.of(ours.images), ours.program, bytes_max)
        by_name = ours.columns | {in_body: ours.columns[name] for name, in_body in _IN_BODY.items()}
        rows = Rows(layout.at, ours.which, ours.order)
        write_columns(layout.out, rows, places, [by_name[name] for name in _COLUMNS])
        for body, first, end in layout.cut():
            if self._has_spans:
                yield Request(body, Signal.LOGS, log_records=end - first)
            else:
                yield Request(body, Signal.LOGS, calls=end - first)

    def _make_stamp(self, shape: Shape, calls: Calls) -> Stamp:
        """Serialize one record of *shape* with marks where calls differ."""
        kind = calls.kinds[shape.kind]
        template = make_template(shape, kind, calls.argument_texts[shape.argument_text], self._selection)
        template.add_double(names.SYSCALL_DURATION, "duration")
        start, end, trace_id, span_id = random_mark(8), random_mark(8), random_mark(16), random_mark(8)
        body, marks = _make_body(shape, kind, template)
        record = LogRecord(
            time_unix_nano=int.from_bytes(start, "little"),
            observed_time_unix_nano=int.from_bytes(end, "little"),
            severity_number=_severity(shape),  # type: ignore[arg-type]  # protobuf's stubs have a class for each enumeration
            event_name=names.CALL.name,
            body=AnyValue(string_value=body),
            attributes=template.attributes,
        )
        marks |= template.marks | {"start": Mark(start, 8), "end": Mark(end, 8)}
        if self._has_spans:
            record.trace_id, record.span_id = trace_id, span_id
            record.flags = trace_flags(shape.owner, self._starter)
            marks |= {"trace_id": Mark(trace_id, 16), "span_id": Mark(span_id, 8)}
        return Stamp(ScopeLogs(log_records=[record]).SerializeToString(), marks, _COLUMNS)


def _severity(shape: Shape) -> int:
    if shape.outcome == Outcome.FAILED:
        return SEVERITY_NUMBER_ERROR
    return SEVERITY_NUMBER_INFO if shape.is_executed else SEVERITY_NUMBER_WARN


def _make_body(shape: Shape, kind: Kind, template: Template) -> tuple[str, dict[str, Mark]]:
    """Return the call in words: ``openat /etc/hosts failed: ENOENT``; and the mark of the text in it, if there is one."""
    words = f"{kind.name} of {kind.restarts}" if kind.restarts else kind.name
    marks = {}
    widths = {name: template.marks[name].width for name in _IN_BODY if name in template.marks}
    shown = next((name for name, width in widths.items() if width), None)
    if shown is not None:
        width = widths[shown]
        words += " " + "x" * width
        marks[_IN_BODY[shown]] = Mark(words.encode(), width)
    return words + _outcome_in_words(shape), marks


def _outcome_in_words(shape: Shape) -> str:
    if not shape.is_executed:
        return " was not executed"
    if shape.outcome == Outcome.INTERRUPTED:
        return " was interrupted"
    return f" failed: {errno_name(shape.errno)}" if shape.errno else ""
