"""
A batch of calls → columns of bytes, by the names under which templates mark their places, their texts, and their shapes.

What spans and log records of calls have in common; both are laid out in the order of their programs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls
from otel_sysexit.distinct import sort_stably
from otel_sysexit.identity import Image
from otel_sysexit.otlp.shapes import Shape, pack_shapes, unpack_shape
from otel_sysexit.otlp.stamp import (
    LENGTH_WIDTH,
    VARINT_WIDTH,
    Block,
    Column,
    Rows,
    encode_fixed,
    encode_varints,
    write_columns,
    write_numbers,
    write_texts,
)
from otel_sysexit.otlp.stamps import Chosen, Stamp, Stamps
from otel_sysexit.otlp.templates import BEGINNING, PORT_WIDTH, TID_WIDTH
from otel_sysexit.sampling import Thresholds
from otel_sysexit.traces import Placement

ARGUMENTS: Final = ("arg0", "arg1", "arg2", "arg3", "arg4", "arg5")
"""Numbers, to be written together."""
ATTRIBUTE_COLUMNS: Final = (*ARGUMENTS, "probability", "port")
"""Those that templates.py marks."""
THREAD_NAME: Final = "thread_name"
TEXTS: Final = (THREAD_NAME, "path0", "path1", "file0", "file1", "address")
"""Those that templates.py knows."""


class _Source(NamedTuple):
    """A text that calls can have."""

    table: npt.NDArray[np.uint8]
    """u1[m, w], contiguous, zero padded."""
    length: npt.NDArray[np.uint16]
    """u2[m], bytes."""
    row: npt.NDArray[np.integer[Any]]
    """[n]: index into these of each call's."""


class _Text(NamedTuple):
    """A text that k of the messages show, in a part of their own."""

    table: npt.NDArray[np.uint8]
    message: npt.NDArray[np.intp]
    """intp[k]: which messages."""
    part: int
    """Which of their parts."""
    row: npt.NDArray[np.intp]
    """intp[k]: index into *table*."""
    length: npt.NDArray[np.uint16]
    """u2[k], bytes."""
    after: npt.NDArray[np.int64]
    """i8[k]: how many bytes of the part follow it."""


class PreparedCalls(NamedTuple):
    """What it takes to lay out and write the n calls of a batch, those of one program next to each other."""

    images: Sequence[Image]
    """The programs, in their order."""
    order: npt.NDArray[np.intp]
    """intp[n]: index of each call in the batch."""
    program: npt.NDArray[np.intp]
    """intp[n]: index in *images* of each call's program."""
    messages: npt.NDArray[np.intp]
    """intp[s, n]: what each message consists of, as `lay_out` wants it."""
    templates: Chosen
    texts: list[_Text]
    args: npt.NDArray[np.int64]
    """i8[n, 6], in the order of the batch."""
    columns: dict[str, Column]
    """By name, each from indices in the batch to bytes."""

    def write(
        self,
        out: bytearray,
        at: npt.NDArray[np.int64],
        ends: npt.NDArray[np.int64],
        block: Block,
        columns: Sequence[str],
    ) -> None:
        """
        Write everything that calls differ in.

        Args:
            out: Where the messages lie.
            at: i8[n]: where each begins.
            ends: i8[s, n]: where each of its parts ends.
            block: What messages begin with.
            columns: The names of the columns that templates were made with.
        """
        length = np.empty(len(at), np.int64)
        length[self.order] = ends[-1] - at - 1 - LENGTH_WIDTH
        parts = {**self.columns, "length": lambda rows: encode_varints(length[rows], LENGTH_WIDTH)}
        # Not in one dictionary: a cycle would keep batches alive until the collector of garbage comes.
        own = {**self.columns, BEGINNING: block.column(parts)}
        rows = Rows(at, self.templates.which, self.order)
        places = self.templates.places
        others = [index for index, name in enumerate(columns) if name not in ARGUMENTS]
        write_columns(out, rows, places[:, others], [own[columns[index]] for index in others])
        arguments = [columns.index(name) for name in ARGUMENTS]
        write_numbers(out, rows, places[:, arguments, 0], self.args)
        self._write_texts(out, ends)

    def _write_texts(self, out: bytearray, ends: npt.NDArray[np.int64]) -> None:
        if not self.texts:
            return
        table_ends = np.cumsum([text.table.size for text in self.texts])
        at, begin, length = [], [], []
        for text, table_end in zip(self.texts, table_ends.tolist(), strict=True):
            at.append(ends[text.part].take(text.message) - text.after - text.length)
            begin.append(text.row * text.table.shape[1] + (table_end - text.table.size))
            length.append(text.length)
        write_texts(
            out,
            np.concatenate(at),
            np.concatenate([text.table.reshape(-1) for text in self.texts]),
            np.concatenate(begin),
            np.concatenate(length),
        )


def prepare_calls(
    calls: Calls,
    placement: Placement,
    stamps: Stamps[int],
    make_stamp: Callable[[Shape], Stamp],
    slots: Mapping[str, str],
) -> PreparedCalls:
    """
    Return the parts and columns of a batch.

    Args:
        calls: n of them.
        placement: Where they stand.
        stamps: The templates that there are, by shapes as `pack_shapes` returns them.
        make_stamp: Makes one that is missing.
        slots: By the names that templates have for their texts, each in `TEXTS`.
    """
    images, of_call = calls.programs, calls.program
    order = sort_stably(of_call, len(images))
    thresholds = Thresholds(calls.threshold)
    is_root = (placement.parent_span_id == 0)[placement.context]
    owner = np.zeros(len(calls), np.uint8) if placement.owner is None else placement.owner[placement.context]
    shapes = pack_shapes(calls, thresholds, is_root, owner).take(order)
    stamps.make_room()
    templates = stamps.choose(stamps.find_shapes(shapes, lambda shape: make_stamp(unpack_shape(shape))))
    messages, texts = _add_texts(calls, order, templates, stamps, tuple(slots.values()))
    columns = _columns(calls, placement, thresholds)
    return PreparedCalls(images, order, of_call[order], messages, templates, texts, calls.args, columns)


def _add_texts(
    calls: Calls,
    order: npt.NDArray[np.intp],
    templates: Chosen,
    stamps: Stamps[int],
    slots: Sequence[str],
) -> tuple[npt.NDArray[np.intp], list[_Text]]:
    """Return what messages consist of, intp[s, n], and the texts that are to be written to them."""
    messages, texts = [templates.part.take(templates.which)], []
    sources = _sources(calls)
    words_after = stamps.words_after()
    for slot, name in enumerate(slots):
        of_template = templates.fields[:, slot]
        if not of_template.any():
            continue
        field = of_template.take(templates.which)
        if name == THREAD_NAME:
            messages.append(_name_parts(calls, stamps, int(of_template.max())).take(order))
            continue
        source = sources[name]
        some = np.flatnonzero(field)
        field = field.take(some)
        row = source.row.take(order.take(some)).astype(np.intp)
        length = source.length.take(row)
        part = np.full(len(order), -1, np.intp)
        part[some] = stamps.text_parts(field, length)
        texts.append(_Text(source.table, some, len(messages), row, length, words_after.take(field)))
        messages.append(part)
    return np.stack(messages), texts


def _name_parts(calls: Calls, stamps: Stamps[int], field: int) -> npt.NDArray[np.intp]:
    """Return the part, intp[n], that names each call's thread: they are few, so each is made with its name in it."""
    parts = stamps.parts_with_texts(field, [thread.name for thread in calls.threads])
    return np.fromiter(parts, np.intp, len(parts)).take(calls.thread)


def _columns(calls: Calls, placement: Placement, thresholds: Thresholds) -> dict[str, Column]:
    """Return every column."""

    def number(values: npt.NDArray[Any], width: int = VARINT_WIDTH) -> Column:
        return lambda rows: encode_varints(values[rows], width)

    # Of rows of bytes, take() is ten times as fast as an index.
    return {
        "trace_id": lambda rows: placement.trace_id.take(placement.context[rows], axis=0),
        "span_id": lambda rows: encode_fixed(placement.span_id[rows]),
        "parent_span_id": lambda rows: encode_fixed(placement.parent_span_id[placement.context[rows]]),
        "start": lambda rows: encode_fixed(calls.start_unix_ns[rows]),
        "end": lambda rows: encode_fixed(calls.start_unix_ns[rows] + calls.duration_ns[rows]),
        "duration": lambda rows: encode_fixed((calls.duration_ns[rows] / 1e9).view(np.uint64)),
        "tid": number(calls.tid, TID_WIDTH),
        "ret": number(calls.ret),
        "port": lambda rows: encode_varints(calls.addresses.port[calls.address_row[rows]], PORT_WIDTH),
        "threshold": lambda rows: thresholds.text.take(thresholds.row[rows], axis=0),
        "probability": lambda rows: encode_fixed(
            thresholds.probability[thresholds.row[rows]].view(np.uint64)
        ),
    }


def _sources(calls: Calls) -> dict[str, _Source]:
    """Return every text."""
    paths, files = np.ascontiguousarray(calls.paths.text), np.ascontiguousarray(calls.files.text)
    return {
        **{
            f"path{index}": _Source(paths, calls.paths.length, calls.path_row[:, index]) for index in range(2)
        },
        **{
            f"file{index}": _Source(files, calls.files.length, calls.file_row[:, index]) for index in range(2)
        },
        "address": _Source(calls.addresses.texts.text, calls.addresses.texts.length, calls.address_row),
    }
