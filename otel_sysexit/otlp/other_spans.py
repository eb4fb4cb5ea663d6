"""
Spans of processes and windows → messages to be laid out and stamped, as those of calls are.

Most of them are alike: the spans of all processes that a part of a tree ends with differ in names, ids and times only. Of these there
is a template a kind; those that have links, or much to say, are serialized one by one.
"""

from dataclasses import replace
from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.trace.v1 import trace_pb2

from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.otlp.resources import key_value
from otel_sysexit.otlp.stamp import Column, Mark, Rows, encode_fixed, random_mark, write_columns
from otel_sysexit.otlp.stamps import Chosen, Stamp, Stamps
from otel_sysexit.traces import AlikeSpans, Span, Spans

_IS_REMOTE_KNOWN: Final = 0x100
"""Of Span.flags: whether the parent is another program's is known (trace.proto)."""
_IS_REMOTE: Final = 0x200
_COLUMNS: Final = ("trace_id", "span_id", "parent_span_id", "start", "end")
_ATTRIBUTES_MAX: Final = 2
"""Of a span with a template: how a process ended has no more."""


class _Kind(NamedTuple):
    """What spans of one template have in common."""

    name: str
    is_root: bool
    trace_state: str
    trace_flags: int
    is_parent_remote: bool
    is_error: bool
    attributes: tuple[tuple[str, str | int], ...]


class Prepared(NamedTuple):
    """What it takes to lay out and stamp n spans."""

    messages: list[bytes]
    """Distinct ones."""
    message: npt.NDArray[np.intp]
    """intp[n]: index in *messages* of each span's."""
    templates: Chosen
    columns: list[Column]

    def write(self, out: bytearray, at: npt.NDArray[np.int64], spans: npt.NDArray[np.intp]) -> None:
        """Write what *spans*, intp[k], differ in to *out*, where they begin *at*, i8[k]."""
        if len(spans):
            rows = Rows(at, self.templates.which[spans], spans)
            write_columns(out, rows, self.templates.places, self.columns)


class OtherSpans:
    """Makes spans that are no calls; keeps the templates."""

    def __init__(self, selection: AttributeSelection) -> None:
        """Have no templates yet; attributes that *selection* has not are left out."""
        self._selection = selection
        self._stamps: Stamps[_Kind] = Stamps(len(_COLUMNS))
        nobody = np.empty(0, np.intp)
        self._nothing = Prepared([], nobody, self._stamps.choose(nobody), [])

    def prepare(self, spans: Spans) -> Prepared:
        """Return templates and columns of *spans*, in their order."""
        if not len(spans):  # most batches
            return self._nothing
        self._stamps.make_room()
        found = [self._find_all(alike) for alike in spans.alike]
        found.append(np.array([self._find(span) for span in spans.alone], np.intp))
        found_of_all = np.concatenate(found)
        templates = self._stamps.choose(found_of_all)
        messages = [self._stamps.parts[part] for part in templates.part.tolist()]
        message = templates.which.copy()
        # Those without a template are among the last.
        without = np.flatnonzero(found_of_all == 0)
        message[without] = len(messages) + np.arange(len(without))
        first = len(spans) - len(spans.alone)
        messages += [_serialize(spans.alone[index - first], self._selection) for index in without.tolist()]
        return Prepared(messages, message, templates, _columns(spans))

    def _find(self, span: Span) -> int:
        """Return the number of the template of *span*; 0: it has none."""
        if span.links or len(span.attributes) > _ATTRIBUTES_MAX:
            return 0
        return self._stamps.find(_kind(span), partial(_make_stamp, span, self._selection))

    def _find_all(self, alike: AlikeSpans) -> npt.NDArray[np.intp]:
        """Return the number of the template of each: they differ in their names, which are few, and in whether they are roots."""
        kinds: list[Any] = [image.executable_name for image in alike.images]
        if not alike.parent_span_id.all():
            kinds = [*zip(kinds, (alike.parent_span_id == 0).tolist(), strict=True)]
        examples = dict(zip(kinds, range(len(kinds)), strict=True))
        number = {kind: self._find(alike.span(index)) for kind, index in examples.items()}
        return np.fromiter(map(number.__getitem__, kinds), np.intp, len(kinds))


def _kind(span: Span) -> _Kind:
    return _Kind(
        span.name,
        not span.parent_span_id,
        span.trace_state,
        span.trace_flags,
        span.is_parent_remote,
        span.is_error,
        tuple(span.attributes.items()),
    )


def _columns(spans: Spans) -> list[Column]:
    """Return the bytes of each of `_COLUMNS` for the spans asked for."""
    alone, alike = spans.alone, spans.alike
    trace_ids = [one.trace_id for one in alike for _ in one.images] + [span.trace_id for span in alone]
    trace_id = np.frombuffer(b"".join(trace_ids), np.uint8).reshape(-1, 16)

    def fixed(of_alike: list[npt.NDArray[np.uint64]], of_alone: list[int]) -> Column:
        values = encode_fixed(np.concatenate([*of_alike, np.array(of_alone, np.uint64)]))
        return lambda rows: values.take(rows, axis=0)

    return [
        lambda rows: trace_id.take(rows, axis=0),
        fixed([one.span_id for one in alike], [span.span_id for span in alone]),
        fixed([one.parent_span_id for one in alike], [span.parent_span_id for span in alone]),
        fixed([one.start_unix_ns for one in alike], [span.start_unix_ns for span in alone]),
        fixed(
            [np.full(len(one), one.end_unix_ns, np.uint64) for one in alike],
            [span.end_unix_ns for span in alone],
        ),
    ]


def _make_stamp(span: Span, selection: AttributeSelection, _: _Kind) -> Stamp:
    """Return the template of spans like *span*."""
    trace_id = random_mark(16)
    span_id, start, end = (random_mark(8) for _ in range(3))
    marks = {"trace_id": trace_id, "span_id": span_id, "start": start, "end": end}
    parent_span_id = bytes(8)
    if span.parent_span_id:
        marks["parent_span_id"] = parent_span_id = random_mark(8)
    marked = replace(
        span,
        trace_id=trace_id,
        span_id=int.from_bytes(span_id, "little"),
        parent_span_id=int.from_bytes(parent_span_id, "little"),
        start_unix_ns=int.from_bytes(start, "little"),
        end_unix_ns=int.from_bytes(end, "little"),
    )
    return Stamp(
        _serialize(marked, selection),
        {name: Mark(mark, len(mark)) for name, mark in marks.items()},
        _COLUMNS,
        {},
        (),
    )


def span_flags(trace_flags: int, *, is_remote: bool) -> int:
    """Return Span.flags, or Link.flags: W3C's, and whether the parent, or the span that is linked to, is another program's."""
    return trace_flags | _IS_REMOTE_KNOWN | (_IS_REMOTE if is_remote else 0)


def _serialize(span: Span, selection: AttributeSelection) -> bytes:
    """Return *span* as the `spans` field of a ScopeSpans."""
    message = trace_pb2.Span(
        trace_id=span.trace_id,
        span_id=span.span_id.to_bytes(8, "little"),
        parent_span_id=span.parent_span_id.to_bytes(8, "little") if span.parent_span_id else b"",
        trace_state=span.trace_state,
        flags=span_flags(span.trace_flags, is_remote=span.is_parent_remote),
        name=span.name,
        kind=trace_pb2.Span.SPAN_KIND_INTERNAL,
        start_time_unix_nano=span.start_unix_ns,
        end_time_unix_nano=span.end_unix_ns,
        attributes=[key_value(key, value) for key, value in span.attributes.items() if selection.has(key)],
    )
    for link in span.links:
        message.links.add(
            trace_id=link.trace_id,
            span_id=link.span_id.to_bytes(8, "little"),
            attributes=[key_value(key, value) for key, value in link.attributes.items()],
            trace_state=link.trace_state,
            flags=span_flags(link.trace_flags, is_remote=link.is_remote),
        )
    if span.is_error:
        message.status.code = trace_pb2.Status.STATUS_CODE_ERROR
    return trace_pb2.ScopeSpans(spans=[message]).SerializeToString()
