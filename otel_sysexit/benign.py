"""
Failures that are no errors.

In: what the user has written. Out: for errnos and calls, whether it happens every day.
"""

import errno
import fnmatch
from typing import Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.distinct import find_distinct
from otel_sysexit.syscalls import Kinds

_ERRNOS: Final = {name: number for name, number in vars(errno).items() if isinstance(number, int)}


class BenignErrors:
    """Which failures are no errors: `ERRNO` for every call, or `GLOB:ERRNO` for calls of that name."""

    def __init__(self, text: str) -> None:
        """
        Parse a comma list.

        Raises:
            ValueError: an errno has no name here; the message is one line.
        """
        self._everywhere = np.zeros(4096, np.bool_)
        self._by_name: list[tuple[str, int]] = []
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, _, code = item.rpartition(":")
            number = _ERRNOS.get(code.upper())
            if number is None:
                raise ValueError(f"unknown errno {code!r}")
            if name:
                self._by_name.append((name, number))
            else:
                self._everywhere[number] = True

    def everywhere(self) -> npt.NDArray[np.bool_]:
        """Return bool[4096]: which errnos are benign whatever the call."""
        return self._everywhere.copy()

    def match(
        self, codes: npt.NDArray[np.uint16], kind: npt.NDArray[np.uint16], kinds: Kinds
    ) -> npt.NDArray[np.bool_]:
        """Return bool[n]: whether the failure *codes* of calls of *kind* are benign."""
        benign = self._everywhere[codes]
        for pattern, number in self._by_name:
            rows = np.flatnonzero(codes == number)
            if not len(rows):
                continue
            for index in find_distinct(kind[rows]).tolist():
                if fnmatch.fnmatchcase(kinds[index].restarts or kinds[index].name, pattern):
                    benign[rows[kind[rows] == index]] = True
        return benign
