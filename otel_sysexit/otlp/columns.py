"""
A batch of calls → columns of bytes, by the names under which templates mark their places, and the shapes of the calls.

What spans and log records of calls have in common; both are laid out in the order of their programs.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls
from otel_sysexit.identity import Image
from otel_sysexit.otlp.shapes import Shape, distinct, pack_shapes, unpack_shape
from otel_sysexit.otlp.stamp import (
    VARINT_WIDTH,
    Chosen,
    Column,
    Stamp,
    Stamps,
    encode_fixed,
    encode_varints,
)
from otel_sysexit.otlp.templates import PORT_WIDTH, TID_WIDTH
from otel_sysexit.sampling import Thresholds
from otel_sysexit.texts import Texts
from otel_sysexit.traces import Placement

ATTRIBUTE_COLUMNS: Final = (
    *("tid", "thread_name", "ret", "probability"),
    *("arg0", "arg1", "arg2", "arg3", "arg4", "arg5", "path0", "path1", "file0", "file1"),
    *("address", "port"),
)
"""Those that templates.py marks."""
_NAME_WIDTH: Final = 63


class _ThreadNames(NamedTuple):
    """Names of the threads of a batch, k distinct ones."""

    row: npt.NDArray[np.intp]
    """intp[t]: the name of each of `Calls.threads`."""
    text: npt.NDArray[np.uint8]
    """u1[k, 63], zero padded."""
    length: npt.NDArray[np.uint64]
    """u8[k], bytes."""


class PreparedCalls(NamedTuple):
    """What it takes to lay out and stamp the n calls of a batch, those of one program next to each other."""

    images: Sequence[Image]
    """The programs, in their order."""
    order: npt.NDArray[np.intp]
    """intp[n]: index of each call in the batch."""
    program: npt.NDArray[np.intp]
    """intp[n]: index in *images* of each call's program."""
    templates: Chosen
    which: npt.NDArray[np.intp]
    """intp[n]: the template of each call."""
    columns: dict[str, Column]
    """By name, each from indices in the batch to bytes."""


def prepare_calls(
    calls: Calls, placement: Placement, stamps: Stamps, make_stamp: Callable[[Shape], Stamp]
) -> PreparedCalls:
    """
    Return the templates and columns of a batch.

    Args:
        calls: n of them.
        placement: Where they stand.
        stamps: The templates that there are.
        make_stamp: Makes one that is missing.
    """
    images, of_call = calls.by_program()
    # Of 16-bit numbers numpy's stable sort is its fastest.
    order = np.argsort(of_call.astype(np.uint16) if len(images) < 1 << 16 else of_call, kind="stable")
    names, thresholds = _thread_names(calls), Thresholds(calls.threshold)
    is_root = (placement.parent_span_id == 0)[placement.context]
    owner = np.zeros(len(calls), np.uint8) if placement.owner is None else placement.owner[placement.context]
    packed = pack_shapes(calls, names.length[names.row[calls.thread]], thresholds, is_root, owner)
    shapes, which = distinct([word[order] for word in packed])
    templates = stamps.find(shapes, lambda shape: make_stamp(unpack_shape(shape)))
    columns = _columns(calls, placement, names, thresholds)
    return PreparedCalls(images, order, of_call[order], templates, which, columns)


def _columns(
    calls: Calls, placement: Placement, names: _ThreadNames, thresholds: Thresholds
) -> dict[str, Column]:
    """Return every column."""
    # Of rows of bytes, take() is ten times as fast as an index.
    addresses = calls.addresses

    def number(values: npt.NDArray[Any], width: int = VARINT_WIDTH) -> Column:
        return lambda rows: encode_varints(values[rows], width)

    def text(texts: Texts, row: npt.NDArray[np.int32]) -> Column:
        return lambda rows: texts.text.take(row[rows], axis=0)

    return {
        "trace_id": lambda rows: placement.trace_id.take(placement.context[rows], axis=0),
        "span_id": lambda rows: encode_fixed(placement.span_id[rows]),
        "parent_span_id": lambda rows: encode_fixed(placement.parent_span_id[placement.context[rows]]),
        "start": lambda rows: encode_fixed(calls.start_unix_ns[rows]),
        "end": lambda rows: encode_fixed(calls.start_unix_ns[rows] + calls.duration_ns[rows]),
        "duration": lambda rows: encode_fixed((calls.duration_ns[rows] / 1e9).view(np.uint64)),
        "tid": number(calls.tid, TID_WIDTH),
        "thread_name": lambda rows: names.text.take(names.row[calls.thread[rows]], axis=0),
        "ret": number(calls.ret),
        **{f"arg{index}": number(calls.args[:, index]) for index in range(6)},
        **{f"path{index}": text(calls.paths, calls.path_row[:, index]) for index in range(2)},
        **{f"file{index}": text(calls.files, calls.file_row[:, index]) for index in range(2)},
        "address": text(addresses.texts, calls.address_row),
        "port": lambda rows: encode_varints(addresses.port[calls.address_row[rows]], PORT_WIDTH),
        "threshold": lambda rows: thresholds.text.take(thresholds.row[rows], axis=0),
        "probability": lambda rows: encode_fixed(
            thresholds.probability[thresholds.row[rows]].view(np.uint64)
        ),
    }


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
