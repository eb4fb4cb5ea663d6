"""
Templates and fields of texts, each made once.

A message consists of a template, which is its shape's, and of the fields behind it that hold a text each: protobuf lets
fields come in any order, and what follows belongs to the message as long as its length says so. So how long texts are decides no
shape, and there are few of these.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from otel_sysexit.distinct import index_distinct
from otel_sysexit.growing import grown
from otel_sysexit.hashing import HashTable
from otel_sysexit.otlp.parts import Store
from otel_sysexit.otlp.stamp import Mark

PARTS_MAX: Final = 16_384
"""Templates and fields that are kept; a batch may add its own."""
_BYTES_MAX: Final = 4 << 20
"""Of them together, and of the table of those with texts."""
_TEMPLATES_AT_FIRST: Final = 256
_FIELDS_AT_FIRST: Final = (64, 64)
_TABLE_BITS: Final = 14
_NO_SHAPE: Final = np.uint64(2**64 - 1)
_Key = TypeVar("_Key", bound=Hashable)


class TextField(NamedTuple):
    """A field of a message that holds a text: an attribute, or with other words around it something else."""

    name: str
    before: str = ""
    after: str = ""


class Stamp:
    """A serialized message with places to write columns to, and what fields of texts are to follow it."""

    def __init__(
        self,
        message: bytes,
        marks: Mapping[str, Mark],
        columns: Sequence[str],
        texts: Mapping[str, TextField],
        slots: Sequence[str],
    ) -> None:
        """
        Find each mark's place in *message*.

        Args:
            message: The template.
            marks: By column.
            columns: The names of all columns; *message* may have no mark for some.
            texts: By slot.
            slots: The names of all texts that a message can have.

        Raises:
            ValueError: a mark is not in *message* exactly once.
        """
        self.message = message
        self.places = np.zeros((len(columns), 2), np.int64)
        """i8[columns, 2]: where a column's place begins, and its width; 0 where there is none."""
        self.texts = [texts.get(slot) for slot in slots]
        for name, mark in marks.items():
            if message.count(mark.anchor) != 1:
                raise ValueError(f"the mark of {name} is in the message {message.count(mark.anchor)} times")
            end = message.index(mark.anchor) + len(mark.anchor)
            self.places[columns.index(name)] = (end - mark.width, mark.width)


class Chosen(NamedTuple):
    """Templates that a batch needs, k of them."""

    which: npt.NDArray[np.intp]
    """intp[n]: which of them each message is made of."""
    part: npt.NDArray[np.intp]
    """intp[k]: index in `Stamps.parts` of the message of each."""
    places: npt.NDArray[np.int64]
    """i8[k, columns, 2], as `Stamp` has them."""
    fields: npt.NDArray[np.intp]
    """intp[k, slots]: of each text the number of its field for `Stamps.text_parts`; 0: there is none."""


class Stamps(Generic[_Key]):
    """Templates with the same columns and slots, by what they are templates of, and the fields that follow them."""

    def __init__(
        self,
        columns: int,
        slots: int = 0,
        serialize: Callable[[TextField, str], bytes] = lambda _field, text: text.encode(),
    ) -> None:
        """
        Have nothing yet.

        Args:
            columns: How many there are.
            slots: How many texts a message can have.
            serialize: Where there are slots: makes a field with a text in it, so that the text's bytes are the last ones but for the words *after*.
        """
        self._sizes = columns, slots
        self._serialize = serialize
        self._clear()

    def _clear(self) -> None:
        columns, slots = self._sizes
        self.parts = Store()
        """Serialized templates, and fields of texts."""
        self.parts.add(b"")  # of what has no template
        self._index: dict[_Key, int] = {}
        """Of templates, which are counted from 1."""
        self._part = np.zeros(_TEMPLATES_AT_FIRST, np.intp)
        self._places = np.zeros((_TEMPLATES_AT_FIRST, columns, 2), np.int64)
        self._fields = np.zeros((_TEMPLATES_AT_FIRST, slots), np.intp)
        self._shapes = np.full(_TEMPLATES_AT_FIRST, _NO_SHAPE, np.uint64)
        self._table = HashTable(_TABLE_BITS)
        """The template of each shape."""
        self._known: list[TextField] = []
        self._numbers: dict[TextField, int] = {}
        self._text_parts = np.zeros(_FIELDS_AT_FIRST, np.intp)
        """intp[fields, lengths]: index in `parts`, and 1 more; 0: not made yet."""
        self._texts: dict[int, dict[str, int]] = {}
        """By number and text: index in `parts` of fields that are made with their text."""

    def make_room(self) -> None:
        """Forget everything if it is too much; all that was found before, too."""
        if len(self.parts) > PARTS_MAX or self.parts.size + self._text_parts.nbytes > _BYTES_MAX:
            self._clear()

    def find(self, key: _Key, make: Callable[[_Key], Stamp]) -> int:
        """Return the number of the template of *key*, from *make* if it is new."""
        return self._index.get(key) or self._add(key, make(key))

    def find_shapes(
        self: "Stamps[int]", shapes: npt.NDArray[np.uint64], make: Callable[[int], Stamp]
    ) -> npt.NDArray[np.intp]:
        """Return the numbers, intp[n], of the templates of *shapes*, u8[n], those that are new from *make*."""

        def look_up(new: npt.NDArray[np.uint64]) -> npt.NDArray[np.intp]:
            numbers = np.array([self.find(shape, make) for shape in new.tolist()], np.intp)
            self._shapes[numbers] = new
            return numbers

        return self._table.find(shapes, self._shapes, look_up)

    def choose(self, found: npt.NDArray[np.intp]) -> Chosen:
        """Return those templates that are *found*, intp[n], numbers of templates."""
        used, which = index_distinct(found)
        return Chosen(
            which,
            self._part.take(used),
            self._places.take(used, axis=0),
            self._fields.take(used, axis=0),
        )

    def text_parts(
        self, fields: npt.NDArray[np.intp], length: npt.NDArray[np.uint16]
    ) -> npt.NDArray[np.intp]:
        """
        Return the index in `parts` of fields that hold texts.

        Args:
            fields: intp[n]: as `Chosen` has them, none of them 0.
            length: u2[n]: bytes of each text.
        """
        self._text_parts = grown(self._text_parts, int(length.max(initial=0)) + 1, axis=1)
        found = self._text_parts[fields, length]
        is_new = found == 0
        if is_new.any():
            new = set(zip(fields[is_new].tolist(), length[is_new].tolist(), strict=True))
            for number, count in sorted(new):
                part = self._serialize(self._known[number - 1], "x" * count)
                self._text_parts[number, count] = 1 + self.parts.add(part)
            found = self._text_parts[fields, length]
        return found - 1

    def parts_with_texts(self, number: int, texts: Sequence[str]) -> list[int]:
        """Return the indices in `parts` of a field, which has a *number*, with each of *texts* in it."""
        known = self._texts.setdefault(number, {})
        found = [known.get(text, 0) for text in texts]
        if not all(found):
            for at in [at for at, part in enumerate(found) if not part]:
                text = texts[at]
                if text not in known:
                    known[text] = self.parts.add(self._serialize(self._known[number - 1], text))
                found[at] = known[text]
        return found

    def words_after(self) -> npt.NDArray[np.int64]:
        """Return i8[fields]: how many bytes follow the text in each field."""
        return np.array([0, *(len(known.after) for known in self._known)], np.int64)

    def _add(self, key: _Key, stamp: Stamp) -> int:
        index = self._index[key] = 1 + len(self._index)
        if index == len(self._part):
            self._part, self._places, self._fields, self._shapes = (
                grown(array, index + 1) for array in (self._part, self._places, self._fields, self._shapes)
            )
            self._shapes[index:] = _NO_SHAPE
        self._part[index] = self.parts.add(stamp.message)
        self._places[index] = stamp.places
        self._fields[index] = [0 if text is None else self._number(text) for text in stamp.texts]
        return index

    def _number(self, text: TextField) -> int:
        number = self._numbers.setdefault(text, 1 + len(self._known))
        if number > len(self._known):
            self._known.append(text)
        self._text_parts = grown(self._text_parts, number + 1)
        return number
