"""Small numbers, as indices are: which of them are in a column. Counting takes a tenth of the time that sorting does."""

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
