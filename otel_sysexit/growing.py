"""Arrays that get longer as there is more to keep."""

from typing import Any

import numpy as np
import numpy.typing as npt


def grown(array: npt.NDArray[Any], size: int, axis: int = 0) -> npt.NDArray[Any]:
    """Return *array*, if it is not *size* long along *axis* with more zeros behind it, twice as long at least."""
    if size <= array.shape[axis]:
        return array
    shape = list(array.shape)
    shape[axis] = max(2 * array.shape[axis], size)
    out = np.zeros(shape, array.dtype)
    out[tuple(map(slice, array.shape))] = array
    return out
