"""
Calls and spans → ExportTraceServiceRequest bodies.

In: a batch of calls with their placement, and process or window spans. Out: serialized requests of bounded size, one
ResourceSpans for each program in a process. Templates of calls are laid out in the order of their programs, behind
ready-made Resources (layout.py), and stamped (stamp.py), all of a batch at once; so the cost hardly grows with processes.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple
from weakref import finalize

import numpy as np
import numpy.typing as npt
from opentelemetry.proto.trace.v1 import trace_pb2

from otel_sysexit.attributes import AttributeSelection
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image
from otel_sysexit.otlp.layout import lay_out, make_head
from otel_sysexit.otlp.other_spans import OtherSpans, span_flags
from otel_sysexit.otlp.request import Request
from otel_sysexit.otlp.resources import DEFAULT_RULES, ResourceRules, encode_resource
from otel_sysexit.otlp.shapes import Shape, distinct, pack_shapes, unpack_shape
from otel_sysexit.otlp.stamp import (
    VARINT_WIDTH,
    Chosen,
    Column,
    Mark,
    Rows,
    Stamp,
    Stamps,
    encode_fixed,
    encode_varints,
    random_mark,
    write_columns,
)
from otel_sysexit.otlp.templates import PORT_WIDTH, TID_WIDTH, make_template
from otel_sysexit.propagation import TraceContext
from otel_sysexit.sampling import Thresholds, trace_state
from otel_sysexit.syscalls import Kind
from otel_sysexit.texts import Texts
from otel_sysexit.traces import OWN_TRACE_FLAGS, SAMPLED, Owner, Placement, Span

REQUEST_BYTES_MAX: Final = 1 << 20
"""Size of a request, but for its last process's Resource: well below the 4 MiB that gRPC servers accept by default."""
_COLUMNS: Final = (
    *("trace_id", "span_id", "parent_span_id", "start", "end", "tid", "thread_name", "ret"),
    *("arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "path0", "path1", "file0", "file1"),
    *("address", "port", "threshold", "probability"),
)
_NAME_WIDTH: Final = 63


class _ThreadNames(NamedTuple):
    """Names of the threads of a batch, k distinct ones."""

    row: npt.NDArray[np.intp]
    """intp[t]: the name of each of `Calls.threads`."""
    text: npt.NDArray[np.uint8]
    """u1[k, 63], zero padded."""
    length: npt.NDArray[np.uint64]
    """u8[k], bytes."""


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
        self._heads: dict[int, bytes] = {}
        """What stands before the spans of a program, by the id() of its image, as long as that exists."""

    def encode(
        self, calls: Calls, placement: Placement, spans: Sequence[Span], bytes_max: int = REQUEST_BYTES_MAX
    ) -> Iterator[Request]:
        """Yield requests of about *bytes_max* bytes at most."""
        if not len(calls) and not spans:
            return
        images, of_call = calls.by_program()
        # Of 16-bit numbers numpy's stable sort is its fastest.
        order = np.argsort(of_call.astype(np.uint16) if len(images) < 1 << 16 else of_call, kind="stable")
        thread_names = _thread_names(calls)
        thresholds = Thresholds(calls.threshold)
        (messages, places), which = self._stamps_of(calls, placement, thread_names, thresholds, order)
        others = self._other_spans.prepare(spans)
        row_of = {image: row for row, image in enumerate(images)} if spans else {}
        of_other = [row_of.setdefault(span.image, len(row_of)) for span in spans]
        owner = np.concatenate((of_call[order], np.array(of_other, np.intp)))
        # Those of one program lie together.
        together = np.argsort(owner, kind="stable")
        layout = lay_out(
            messages + others.templates.messages,
            np.concatenate((which, len(messages) + others.which))[together],
            self._heads_of(list(row_of) or images),
            owner[together],
            bytes_max,
        )
        is_call = together < len(calls)
        rows = Rows(layout.at[is_call], which, order)
        write_columns(layout.out, rows, places, _columns(calls, placement, thread_names, thresholds))
        other = together[~is_call] - len(calls)
        rows = Rows(layout.at[~is_call], others.which[other], other)
        write_columns(layout.out, rows, others.templates.places, others.columns)
        calls_before = np.append(0, np.cumsum(is_call))[layout.firsts].tolist()
        out = memoryview(layout.out)
        bodies, firsts = layout.bodies.tolist(), layout.firsts.tolist()
        for at in range(len(firsts) - 1):
            count = calls_before[at + 1] - calls_before[at]
            yield Request(
                out[bodies[at] : bodies[at + 1]].tobytes(),
                calls=count,
                spans=firsts[at + 1] - firsts[at] - count,
            )

    def _heads_of(self, images: Sequence[Image]) -> list[bytes]:
        """Return what stands before the spans of each of *images*."""
        known = self._heads
        heads = [known.get(one, b"") for one in map(id, images)]
        if not all(heads):
            for row in [row for row, head in enumerate(heads) if not head]:
                image = images[row]
                heads[row] = known[id(image)] = make_head(encode_resource(image, self._rules))
                finalize(image, known.pop, id(image)).atexit = False
        return heads

    def _stamps_of(
        self,
        calls: Calls,
        placement: Placement,
        thread_names: _ThreadNames,
        thresholds: Thresholds,
        order: npt.NDArray[np.intp],
    ) -> tuple[Chosen, npt.NDArray[np.intp]]:
        """Return the templates of *calls*, and intp[n]: which of them each call's is, in their *order*."""
        is_root = (placement.parent_span_id == 0)[placement.context]
        owners = (
            np.zeros(len(calls), np.uint8) if placement.owner is None else placement.owner[placement.context]
        )
        name_length = thread_names.length[thread_names.row[calls.thread]]
        packed = pack_shapes(calls, name_length, thresholds, is_root, owners)
        shapes, which = distinct([word[order] for word in packed])
        return self._stamps.find(shapes, lambda shape: self._make_stamp(unpack_shape(shape), calls)), which

    def _make_stamp(self, shape: Shape, calls: Calls) -> Stamp:
        texts = calls.argument_texts[shape.argument_text]
        starter = self._starter if shape.owner == Owner.STARTER else None
        return _make_stamp(shape, calls.kinds[shape.kind], texts, starter, self._rules.attributes)


def _thread_names(calls: Calls) -> _ThreadNames:
    """Return the names of `calls.threads`."""
    names = [thread.name for thread in calls.threads]
    row = {name: row for row, name in enumerate(dict.fromkeys(names))}
    texts = [name.encode()[:_NAME_WIDTH] for name in row]
    padded = b"".join(text.ljust(_NAME_WIDTH, b"\0") for text in texts)
    return _ThreadNames(
        np.array([row[name] for name in names], np.intp),
        np.frombuffer(padded, np.uint8).reshape(-1, _NAME_WIDTH),
        np.array([len(text) for text in texts], np.uint64),
    )


def _columns(
    calls: Calls,
    placement: Placement,
    thread_names: _ThreadNames,
    thresholds: Thresholds,
) -> list[Column]:
    """Return the bytes of each of `_COLUMNS` for the calls asked for."""
    # Of rows of bytes, take() is ten times as fast as an index.
    addresses = calls.addresses

    def number(values: npt.NDArray[Any], width: int = VARINT_WIDTH) -> Column:
        return lambda rows: encode_varints(values[rows], width)

    def text(texts: Texts, row: npt.NDArray[np.int32]) -> Column:
        return lambda rows: texts.text.take(row[rows], axis=0)

    return [
        lambda rows: placement.trace_id.take(placement.context[rows], axis=0),
        lambda rows: encode_fixed(placement.span_id[rows]),
        lambda rows: encode_fixed(placement.parent_span_id[placement.context[rows]]),
        lambda rows: encode_fixed(calls.start_unix_ns[rows]),
        lambda rows: encode_fixed(calls.start_unix_ns[rows] + calls.duration_ns[rows]),
        number(calls.tid, TID_WIDTH),
        lambda rows: thread_names.text.take(thread_names.row[calls.thread[rows]], axis=0),
        number(calls.ret),
        *(number(calls.args[:, index]) for index in range(6)),
        text(calls.paths, calls.path_row[:, 0]),
        text(calls.paths, calls.path_row[:, 1]),
        text(calls.files, calls.file_row[:, 0]),
        text(calls.files, calls.file_row[:, 1]),
        text(addresses.texts, calls.address_row),
        lambda rows: encode_varints(addresses.port[calls.address_row[rows]], PORT_WIDTH),
        lambda rows: thresholds.text.take(thresholds.row[rows], axis=0),
        lambda rows: encode_fixed(thresholds.probability[thresholds.row[rows]].view(np.uint64)),
    ]


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
        flags=span_flags(_trace_flags(shape, starter), is_remote=False),
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


def _trace_flags(shape: Shape, starter: TraceContext | None) -> int:
    """Return W3C's flags of a call's span. Whether an application's trace id is random, nobody says."""
    if starter is not None:
        return starter.trace_flags
    return SAMPLED if shape.owner == Owner.APPLICATION else OWN_TRACE_FLAGS
