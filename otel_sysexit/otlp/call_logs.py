"""
Calls → ExportLogsServiceRequest bodies: a log record for each call, made as its span is (spans.py), from the same templates.

Its time is the call's start, as strace prints it, its observed time the call's end, when the kernel side saw it. Where the call has
a span, the record is in its trace.
"""

from collections.abc import Iterator
from functools import partial
from itertools import starmap
from typing import Final

from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_ERROR,
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_WARN,
    LogRecord,
)

from otel_sysexit import attributes as names
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Value
from otel_sysexit.otlp.columns import ATTRIBUTE_COLUMNS, TEXTS, prepare_calls
from otel_sysexit.otlp.layout import Heads, lay_out
from otel_sysexit.otlp.request import REQUEST_BYTES_MAX, Request, Signal
from otel_sysexit.otlp.resources import DEFAULT_RULES, ResourceRules, key_value
from otel_sysexit.otlp.shapes import Shape, Text
from otel_sysexit.otlp.stamp import Mark
from otel_sysexit.otlp.stamps import Stamp, Stamps, TextField
from otel_sysexit.otlp.templates import BEGINNING, Beginning, Template, make_template
from otel_sysexit.propagation import TraceContext
from otel_sysexit.syscalls import Kind, errno_name
from otel_sysexit.traces import Placement, trace_flags

_IN_BODY: Final = {name: f"{name}_in_body" for name in ("path0", "file0", "file1", "address")}
"""Texts that a body can show, the first that there is, and what the slot is called there."""
_BODY: Final = ""
"""The name of a text's field that is no attribute."""
_COLUMNS: Final = (BEGINNING, *ATTRIBUTE_COLUMNS)
_SLOTS: Final = {**{name: name for name in TEXTS}, **{in_body: name for name, in_body in _IN_BODY.items()}}


def _with_attribute(name: str, value: Value) -> LogRecord:
    return LogRecord(attributes=[key_value(name, value)])


def _serialize_text(field: TextField, text: str) -> bytes:
    if field.name == _BODY:
        words = field.before + text + field.after
        return LogRecord(body=AnyValue(string_value=words)).SerializeToString()
    return _with_attribute(field.name, text).SerializeToString()


_TIMES: Final = (
    (LogRecord(time_unix_nano=1), "start", 8),
    (LogRecord(observed_time_unix_nano=1), "end", 8),
)
_DURATION: Final = (_with_attribute(names.SYSCALL_DURATION, 0.5), "duration", 8)
_IDS: Final = ((LogRecord(trace_id=bytes(16)), "trace_id", 16), (LogRecord(span_id=bytes(8)), "span_id", 8))
"""What log records begin with, as `Beginning` wants it; ids where there are spans, too."""


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
        self._stamps: Stamps[int] = Stamps(len(_COLUMNS), len(_SLOTS), _serialize_text)
        duration = (_DURATION,) if self._selection.has(names.SYSCALL_DURATION) else ()
        leads = (*_TIMES, *(_IDS if has_spans else ()), *duration)
        self._beginning = Beginning(leads, _with_attribute, rules.attributes)
        self._heads = Heads(rules)

    def encode(
        self, calls: Calls, placement: Placement, bytes_max: int = REQUEST_BYTES_MAX
    ) -> Iterator[Request]:
        """Return requests of about *bytes_max* bytes at most; they need nothing any more of what they were made of."""
        if not len(calls):
            return iter(())
        ours = prepare_calls(
            calls, placement, self._stamps, lambda shape: self._make_stamp(shape, calls), _SLOTS
        )
        heads = self._heads.of(ours.images)
        layout = lay_out(self._stamps.parts.get(heads), ours.messages, len(heads), ours.program, bytes_max)
        ours.write(layout.out, layout.at, layout.ends, self._beginning.block, _COLUMNS)
        return starmap(partial(_make_request, self._has_spans), layout.bodies())

    def _make_stamp(self, shape: Shape, calls: Calls) -> Stamp:
        """Serialize one record of *shape* with marks where calls differ."""
        kind = calls.kinds[shape.kind]
        template = make_template(shape, kind, calls.argument_texts[shape.argument_text], self._selection)
        body, shown = _make_body(shape, kind, template)
        record = LogRecord(
            severity_number=_severity(shape),  # type: ignore[arg-type]  # protobuf's stubs have a class for each enumeration
            event_name=names.CALL.name,
            attributes=template.attributes,
        )
        if shown is None:
            record.body.string_value = body.before
        else:
            template.texts[shown] = body
        if self._has_spans:
            record.flags = trace_flags(shape.owner, self._starter)
        beginning = self._beginning.of(shape)
        marks = template.marks | {BEGINNING: Mark(beginning, len(beginning))}
        message = beginning + record.SerializeToString()
        return Stamp(message, marks, _COLUMNS, template.texts, tuple(_SLOTS))


def _make_request(has_spans: bool, body: bytes, first: int, end: int) -> Request:
    """Return the request that holds the records from *first* on, up to *end*: they count as calls if nothing else tells of these."""
    if has_spans:
        return Request(body, Signal.LOGS, log_records=end - first)
    return Request(body, Signal.LOGS, calls=end - first)


def _severity(shape: Shape) -> int:
    if shape.outcome == Outcome.FAILED:
        return SEVERITY_NUMBER_ERROR
    return SEVERITY_NUMBER_INFO if shape.is_executed else SEVERITY_NUMBER_WARN


def _make_body(shape: Shape, kind: Kind, template: Template) -> tuple[TextField, str | None]:
    """Return the call in words, ``openat /etc/hosts failed: ENOENT``, and the slot of the text in it, if there is one."""
    words = f"{kind.name} of {kind.restarts}" if kind.restarts else kind.name
    outcome = _outcome_in_words(shape)
    texts = {"path0": shape.first_path, "file0": shape.first_file, "file1": shape.second_file}
    empty = {name for name, text in texts.items() if text == Text.EMPTY}
    shown = next((name for name in _IN_BODY if name in template.texts and name not in empty), None)
    if shown is None:
        return TextField(_BODY, words + outcome), None
    return TextField(_BODY, f"{words} ", outcome), _IN_BODY[shown]


def _outcome_in_words(shape: Shape) -> str:
    if not shape.is_executed:
        return " was not executed"
    if shape.outcome == Outcome.INTERRUPTED:
        return " was interrupted"
    return f" failed: {errno_name(shape.errno)}" if shape.errno else ""
