"""
A batch of calls → columns of bytes, by the names under which templates mark their places, and the shapes of the calls.

What spans and log records of calls have in common; both are laid out in the order of their programs.
"""

from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from otel_sysexit.calls import Calls
from otel_sysexit.otlp.shapes import distinct, pack_shapes
from otel_sysexit.otlp.stamp import VARINT_WIDTH, Column, encode_fixed, encode_varints
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


class Order(NamedTuple):
    """The calls of a batch, those of one program next to each other."""

    call: npt.NDArray[np.intp]
    """intp[n]: index of the call."""
    program: npt.NDArray[np.intp]
    """intp[n]: index of its program."""


def order_by_program(of_call: npt.NDArray[np.intp], programs: int) -> Order:
    """Return the order of calls of which *of_call*, intp[n], says the program, one of so many."""
    # Of 16-bit numbers numpy's stable sort is its fastest.
    order = np.argsort(of_call.astype(np.uint16) if programs < 1 << 16 else of_call, kind="stable")
    return Order(order, of_call[order])


class CallColumns:
    """Columns of one batch."""

    def __init__(self, calls: Calls, placement: Placement) -> None:
        """Make nothing yet; *placement*: where the calls stand."""
        self._calls = calls
        self._placement = placement
        self._names = _thread_names(calls)
        self._thresholds = Thresholds(calls.threshold)

    def shapes(self, order: Order) -> tuple[list[tuple[int, ...]], npt.NDArray[np.intp]]:
        """Return the distinct shapes, packed, and intp[n]: which of them each call's is, in *order*."""
        placement = self._placement
        is_root = (placement.parent_span_id == 0)[placement.context]
        owner = (
            np.zeros(len(self._calls), np.uint8)
            if placement.owner is None
            else placement.owner[placement.context]
        )
        name_length = self._names.length[self._names.row[self._calls.thread]]
        packed = pack_shapes(self._calls, name_length, self._thresholds, is_root, owner)
        return distinct([word[order.call] for word in packed])

    def by_name(self) -> dict[str, Column]:
        """Return every column: the bytes of the calls asked for."""
        # Of rows of bytes, take() is ten times as fast as an index.
        calls, placement, names, thresholds = self._calls, self._placement, self._names, self._thresholds
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
