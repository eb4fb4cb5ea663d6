"""
Arguments as text, for columns of calls.

In come kinds and arguments, out comes a small index for each call; the index stands for six texts, so no Python object
is made for a call. How an argument is written is notation.py's.
"""

from collections.abc import Sequence
from functools import reduce
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from otel_sysexit.distinct import find_distinct
from otel_sysexit.hashing import HashTable
from otel_sysexit.notation import Placed, placed_sorts
from otel_sysexit.signatures import shipped_signature
from otel_sysexit.syscalls import KINDS_MAX, Form, Kind, Kinds

U2: TypeAlias = npt.NDArray[np.uint16]
I8: TypeAlias = npt.NDArray[np.int64]
U8: TypeAlias = npt.NDArray[np.uint64]
Texts: TypeAlias = tuple[str | None, str | None, str | None, str | None, str | None, str | None]

COMBINATIONS_MAX: Final = 60_000
"""How many combinations of arguments one run can tell apart."""
COMBINATIONS_OF_KIND_MAX: Final = 256
_NOTHING: Final[Texts] = (None, None, None, None, None, None)
_WIDTH: Final = {Form.SIGNED_32: 32, Form.UNSIGNED_32: 32, Form.POINTER_32: 32, Form.UNSIGNED_16: 16}
_FACTORS: Final = np.uint64(0x9E3779B97F4A7C15) ** np.arange(1, 8, dtype=np.uint64)
"""Of six arguments and a kind. The first is 2^64 divided by the golden ratio: odd, without a pattern."""
_TABLE_BITS: Final = 16
_Condition: TypeAlias = tuple[int, frozenset[int], int]  # an argument's place, its values, its bits
_Rule: TypeAlias = tuple[int, tuple[_Condition, ...]]  # a place, and the conditions of which one must hold


class ArgumentTexts:
    """
    Every combination of arguments seen that can be told by text, each with a small index that columns can hold.

    What is not text (descriptors, addresses, sizes) is no part of a combination. There are never more than
    COMBINATIONS_OF_KIND_MAX for a kind, COMBINATIONS_MAX in all: the arguments of what comes after stay numbers.
    """

    def __init__(self) -> None:
        self._texts: list[Texts] = [_NOTHING]
        self._sorts: dict[int, Sequence[Placed]] = {}  # by kind
        self._masks = np.zeros((KINDS_MAX, 6), np.int64)  # -1 where an argument is part of the combination
        self._rules: list[tuple[_Rule, ...]] = [()]
        self._rule = np.zeros(KINDS_MAX, np.uint16)  # index into _rules
        self._is_known = np.zeros(KINDS_MAX, np.bool_)
        self._takes_part = np.zeros(KINDS_MAX, np.bool_)
        self._is_full = np.zeros(KINDS_MAX, np.bool_)
        self._count = np.zeros(KINDS_MAX, np.uint16)
        # A combination's row is its index; that of nothing is 0. Memory that was not written yet takes no room.
        self._kind = np.zeros(COMBINATIONS_MAX + 1, np.uint16)
        self._kind[0] = KINDS_MAX  # no call is of it
        self._values = np.zeros((COMBINATIONS_MAX + 1, 6), np.int64)
        self._shown = np.zeros(COMBINATIONS_MAX + 1, np.uint16)  # the index, or 0 if all its texts are None
        self._keys = np.array([2**64 - 1], np.uint64)  # sorted, so that this one ends every search
        self._rows = np.zeros(1, np.uint16)  # the combination of each
        self._table = HashTable(_TABLE_BITS)  # the combination of each, too

    def __getitem__(self, index: int) -> Texts:
        """Return the text of each argument; None where it is a number."""
        return self._texts[index]

    def index(self, kind: U2, args: I8, kinds: Kinds) -> U2:
        """
        Return the index of each call's texts, shape (n,); 0 where no argument is text.

        Args:
            kind: As *kinds* gave it, shape (n,).
            args: As convert_arguments returns them, shape (n, 6).
            kinds: Where the kinds are from: the same object each time.
        """
        index = np.zeros(len(kind), np.uint16)
        is_known = self._is_known.take(kind)
        if not is_known.all():
            for new in find_distinct(kind[~is_known]).tolist():
                self._learn(new, kinds[new])
        calls = np.flatnonzero(self._takes_part.take(kind))
        if not len(calls):
            return index
        kind = kind.take(calls)
        values = self._canonical(kind, args.take(calls, axis=0))
        keys = _keys(kind, values)
        rows = self._table.guess(keys).astype(np.uint16)
        others = self._differing(rows, kind, values)
        if len(others):
            rows[others] = self._look_up(
                kind.take(others), values.take(others, axis=0), keys.take(others), kinds
            )
        index[calls] = self._shown.take(rows)
        return index

    def _differing(self, rows: U2, kind: U2, values: I8) -> npt.NDArray[np.intp]:
        """Return which calls are not of the combination that *rows* says."""
        is_other = self._kind.take(rows) != kind
        differs = self._values.take(rows, axis=0) != values
        if differs.any():
            is_other |= differs.any(axis=1)
        return np.flatnonzero(is_other)

    def _look_up(self, kind: U2, values: I8, keys: U8, kinds: Kinds) -> U2:
        """Return the combination of each call, a new one where there is room for it, else 0."""
        rows = self._find(keys)
        is_new = (rows == 0) & ~self._is_full[kind]
        if is_new.any() and self._add(kind, values, keys, np.flatnonzero(is_new), kinds):
            rows = self._find(keys)
        # Two combinations with one key are as good as impossible, and then the second stays numbers.
        rows[self._differing(rows, kind, values)] = 0
        known = np.flatnonzero(rows)
        distinct, firsts = np.unique(keys.take(known), return_index=True)
        self._table.put(distinct, rows.take(known).take(firsts))
        return rows

    def _learn(self, index: int, kind: Kind) -> None:
        """Prepare for calls of a kind."""
        self._is_known[index] = True
        count = len(kind.arguments)
        found = placed_sorts(kind.name, shipped_signature(kind.name, kind.abi.label) or ())
        sorts = [placed for placed in found if placed.place < count and placed.controls < count]
        self._takes_part[index] = bool(sorts)
        self._sorts[index] = sorts
        conditions: dict[int, dict[int, tuple[frozenset[int], int]]] = {}
        is_always = set()
        for placed in sorts:
            self._masks[index, placed.place] = -1
            when = placed.sort.when
            if when is None:
                is_always.add(placed.place)
            else:
                of = conditions.setdefault(placed.place, {})
                values, bits = of.get(placed.controls, (frozenset(), 0))
                of[placed.controls] = values.union(when.values), bits | when.bits
        rules = tuple(
            (place, tuple((controls, *wanted) for controls, wanted in of.items()))
            for place, of in conditions.items()
            if place not in is_always
        )
        if rules not in self._rules:
            self._rules.append(rules)
        self._rule[index] = self._rules.index(rules)

    def _canonical(self, kind: U2, values: I8) -> I8:
        """Return *values*, which are changed: 0 where an argument is no part of the combination."""
        values &= self._masks.take(kind, axis=0)
        rule = self._rule.take(kind)
        ruled = np.flatnonzero(rule != 0)
        rule = rule.take(ruled)
        for number in find_distinct(rule).tolist():
            calls = ruled[rule == number]
            for place, conditions in self._rules[number]:
                met: list[npt.NDArray[np.bool_]] = []
                for controls, wanted, bits in conditions:
                    control = values[calls, controls]
                    met += [control == value for value in wanted]
                    if bits:
                        met.append((control & bits) != 0)
                values[calls[~reduce(np.bitwise_or, met)], place] = 0
        return values

    def _find(self, keys: U8) -> U2:
        """Return the combination that each key is of, 0 for those that are new."""
        at = np.searchsorted(self._keys, keys)
        return np.where(self._keys[at] == keys, self._rows[at], np.uint16(0))

    def _add(self, kind: U2, values: I8, keys: U8, new: npt.NDArray[np.intp], kinds: Kinds) -> bool:
        """Add the combinations of the calls that are *new*, in their order, as far as there is room for them."""
        added, rows = [], []
        for call in new[np.sort(np.unique(keys[new], return_index=True)[1])].tolist():
            of, row = int(kind[call]), len(self._texts)
            if self._count[of] == COMBINATIONS_OF_KIND_MAX or row > COMBINATIONS_MAX:
                self._is_full[of] = True
                continue
            self._count[of] += 1
            self._kind[row], self._values[row] = of, values[call]
            texts = self._write(of, kinds[of], values[call].tolist())
            self._texts.append(texts)
            self._shown[row] = 0 if texts == _NOTHING else row
            added.append(keys[call])
            rows.append(row)
        if not rows:
            return False
        all_keys = np.concatenate((self._keys, np.array(added, np.uint64)))
        order = np.argsort(all_keys)
        self._keys = all_keys[order]
        self._rows = np.concatenate((self._rows, np.array(rows, np.uint16)))[order]
        return True

    def _write(self, index: int, kind: Kind, args: Sequence[int]) -> Texts:
        """Return the texts of one combination."""
        texts: dict[int, str | None] = {}
        for placed in self._sorts[index]:
            if placed.place not in texts and placed.holds(args):
                value = args[placed.place]
                width = _WIDTH.get(kind.arguments[placed.place].form, 64)
                texts[placed.place] = placed.sort.text(value, value % (1 << width), kind.abi)
        first, second, third, fourth, fifth, sixth = map(texts.get, range(6))
        return first, second, third, fourth, fifth, sixth


def _keys(kind: U2, values: I8) -> U8:
    """Return a number for each combination that hardly two have in common."""
    bits = values.view(np.uint64)
    mixed = bits ^ (bits >> np.uint64(32))  # of the highest bits hardly anything gets into a product
    mixed *= _FACTORS[0]
    mixed ^= mixed >> np.uint64(29)
    keys: U8 = mixed @ _FACTORS[:6]
    keys += kind * _FACTORS[6]
    return keys
