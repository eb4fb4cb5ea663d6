"""Small numbers, as indices are: which of them are in a column, and where. Counting takes a tenth of the time that sorting does."""

from typing import Any

import numpy as np
import numpy.typing as npt


def find_distinct(numbers: npt.NDArray[np.integer[Any]]) -> npt.NDArray[np.intp]:
    """Return which of the small numbers from 0 on are among *numbers*, [n], ascending."""
    return np.flatnonzero(np.bincount(numbers))


def index_distinct(numbers: npt.NDArray[np.intp]) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Return which of the small numbers from 0 on are among *numbers*, intp[n], ascending; and intp[n], which of these each one is: *numbers* itself where none is left out."""
    counts = np.bincount(numbers)
    distinct = np.flatnonzero(counts)
    if len(distinct) == len(counts):
        return distinct, numbers
    index = np.empty(len(counts), np.intp)
    index[distinct] = np.arange(len(distinct))
    return distinct, index.take(numbers)


def sort_stably(numbers: npt.NDArray[np.intp], count: int) -> npt.NDArray[np.intp]:
    """Return the order that sorts *numbers*, [n], from 0 to *count* - 1, equal ones as they come."""
    # Of 16-bit numbers numpy's stable sort is its fastest.
    return np.argsort(numbers.astype(np.uint16) if count <= 1 << 16 else numbers, kind="stable")
