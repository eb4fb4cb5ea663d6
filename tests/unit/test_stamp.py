"""Columns of bytes: numbers as varints, blocks, and texts of any length."""

import numpy as np
import pytest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue

from otel_sysexit.otlp.stamp import (
    VARINT_WIDTH,
    Block,
    Rows,
    encode_varints,
    write_numbers,
    write_texts,
)

NUMBERS = [0, 1, 127, 128, 1 << 28, (1 << 35) - 1, 1 << 55, 1 << 56, (1 << 63) - 1, -1, -4095, -(1 << 63)]


@pytest.mark.parametrize("number", NUMBERS)
def test_a_padded_varint_is_what_protobuf_reads(number):
    """Any 64-bit number in ten bytes, and negative ones as their two's complement."""
    (encoded,) = encode_varints(np.array([number], np.int64), VARINT_WIDTH)

    assert AnyValue.FromString(b"\x18" + encoded.tobytes()).int_value == number


@pytest.mark.parametrize("width", range(1, 9))
def test_a_narrow_varint_holds_what_fits(width):
    """The largest number of so many bytes, and 0."""
    largest = (1 << 7 * width) - 1
    encoded = encode_varints(np.array([largest, 0], np.uint64), width)

    assert encoded.shape == (2, width)
    assert [AnyValue.FromString(b"\x18" + each.tobytes()).int_value for each in encoded] == [largest, 0]


def test_a_block_is_constants_and_columns():
    """What is constant stands between the values of each row."""
    block = Block([b"<", ("a", 2), b"|", ("b", 1), b">"])
    values = {
        "a": np.frombuffer(b"aabbcc", np.uint8).reshape(3, 2),
        "b": np.frombuffer(b"xyz", np.uint8).reshape(3, 1),
    }
    column = block.column({name: values[name].__getitem__ for name in values})

    assert [row.tobytes() for row in column(np.array([2, 0]))] == [b"<cc|z>", b"<aa|x>"]


def test_only_numbers_with_a_place_are_written():
    """Of two numbers a template may have the second only; another has none."""
    out = bytearray(40)
    rows = Rows(np.array([0, 20]), np.array([1, 0]), np.array([1, 0]))
    write_numbers(out, rows, np.array([[0, 0], [0, 5]]), np.array([[1, 2], [3, 4]]))

    assert out[5:15] == encode_varints(np.array([4]), VARINT_WIDTH).tobytes()
    assert not any(out[:5] + out[15:])


def test_texts_of_all_lengths_are_copied():
    """From 0 bytes to 300, each to its place and not a byte further."""
    lengths = np.arange(301)
    texts = np.random.default_rng(1).integers(1, 256, (len(lengths), 300), np.uint8)
    at = np.cumsum(lengths + 1) - lengths - 1
    out = bytearray(int(at[-1]) + 302)
    write_texts(out, at, texts.reshape(-1), lengths * 300, lengths)
    expected = b"".join(
        text[:length].tobytes() + b"\0" for text, length in zip(texts, lengths.tolist(), strict=True)
    )

    assert out.rstrip(b"\0") == expected.rstrip(b"\0")
