"""Templates and fields of texts: made once, found again, forgotten when they are too many."""

import numpy as np
import pytest

from otel_sysexit.otlp import stamps as module
from otel_sysexit.otlp.stamp import Mark
from otel_sysexit.otlp.stamps import Stamp, Stamps, TextField

FIELD = TextField("a", after="!")


@pytest.fixture
def stamps():
    """Return stamps of one column and one slot, whose fields are in brackets."""
    return Stamps(1, 1, lambda field, text: f"[{field.name}:{text}{field.after}]".encode())


def make(key: int) -> Stamp:
    """Return a template that says its key."""
    return Stamp(b"<%d mark>" % key, {"column": Mark(b"mark", 2)}, ["column"], {"slot": FIELD}, ["slot"])


def test_shapes_find_their_templates(stamps):
    """Each is made once, and found by every call that has its shape."""
    made = []
    shapes = np.array([7, 9, 7, 2**63], np.uint64)
    for _ in range(2):
        found = stamps.find_shapes(shapes, lambda key: made.append(key) or make(key))
    chosen = stamps.choose(found)

    assert sorted(made) == [7, 9, 2**63]
    assert [stamps.parts[part] for part in chosen.part[chosen.which]] == [
        b"<7 mark>",
        b"<9 mark>",
        b"<7 mark>",
        b"<%d mark>" % 2**63,
    ]


def test_shapes_that_share_a_hash_are_told_apart(stamps, monkeypatch):
    """However few hashes there are, a shape is never taken for another."""
    monkeypatch.setattr(module, "_TABLE_BITS", 1)
    stamps._clear()
    shapes = np.array([1, 2, 3, 4, 5, 1, 2], np.uint64)
    for _ in range(3):
        chosen = stamps.choose(stamps.find_shapes(shapes, make))

        assert [stamps.parts[part] for part in chosen.part[chosen.which]] == [
            b"<%d mark>" % shape for shape in shapes
        ]


def test_a_template_knows_its_places(stamps):
    """The last bytes of a mark are a column's."""
    chosen = stamps.choose(stamps.find_shapes(np.array([7], np.uint64), make))

    assert chosen.places.tolist() == [[[5, 2]]]


def test_a_field_is_made_for_each_length(stamps):
    """The same part for the same length; what follows the text is known."""
    chosen = stamps.choose(stamps.find_shapes(np.array([7], np.uint64), make))
    fields = chosen.fields[:, 0].repeat(3)
    parts = stamps.text_parts(fields, np.array([200, 0, 200], np.uint16))

    assert [stamps.parts[part] for part in parts] == [b"[a:%s!]" % (b"x" * n) for n in (200, 0, 200)]
    assert parts[0] == parts[2]
    assert stamps.words_after()[fields].tolist() == [1, 1, 1]


def test_parts_can_have_their_texts(stamps):
    """One is made for each text."""
    number = int(stamps.choose(stamps.find_shapes(np.array([7], np.uint64), make)).fields[0, 0])
    parts = [stamps.parts_with_texts(number, texts) for texts in (["main", "io", "main"], ["io"])]

    assert [[stamps.parts[part] for part in found] for found in parts] == [
        [b"[a:main!]", b"[a:io!]", b"[a:main!]"],
        [b"[a:io!]"],
    ]
    assert parts[0][0] == parts[0][2]
    assert parts[1] == [parts[0][1]]


def test_too_many_are_forgotten(stamps, monkeypatch):
    """Between batches, all of them; they are made again."""
    monkeypatch.setattr(module, "PARTS_MAX", 3)
    for first in range(1, 30, 3):
        stamps.make_room()
        shapes = np.arange(first, first + 3, dtype=np.uint64)
        chosen = stamps.choose(stamps.find_shapes(shapes, make))

        assert len(stamps.parts) <= 4
        assert [stamps.parts[part] for part in chosen.part[chosen.which]] == [
            b"<%d mark>" % shape for shape in shapes
        ]
