"""
Texts as columns: what a string record holds, made valid UTF-8.

In: STRING records. Out: `Texts`. It does not know whose texts they are.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Texts:
    """Texts of m rows."""

    text: npt.NDArray[np.uint8]
    """u1[m, w], valid UTF-8, zero padded; w is the longest one's length at least."""
    length: npt.NDArray[np.uint16]
    """u2[m], bytes."""
    is_cut: npt.NDArray[np.bool_]
    """bool[m]: longer than what was captured."""

    def __len__(self) -> int:
        return len(self.length)


NO_TEXTS: Final = Texts(np.empty((0, 0), np.uint8), np.empty(0, np.uint16), np.empty(0, np.bool_))


def look_up(of_text: npt.NDArray[Any], row: npt.NDArray[np.int32]) -> npt.NDArray[Any]:
    """Return what *of_text*, of some texts, says of those at *row*, and 0 where that is -1."""
    return np.append(of_text, of_text.dtype.type(0)).take(row)  # -1 is the last


def make_texts(strings: npt.NDArray[Any], limit: int) -> Texts:
    """Return the texts of *strings* (dtype STRING, lengths not negative) as they were captured: *limit* bytes at most."""
    is_cut = strings["length"] > limit
    length = kept_lengths(strings, limit)
    text = strings["text"][:, : int(length.max(initial=0))]
    if text.max(initial=0) < 0x80:
        return Texts(text, length, is_cut)
    odd = np.flatnonzero((text >= 0x80).any(axis=1)).tolist()
    text = np.pad(text, ((0, 0), (0, limit - text.shape[1])))  # may become longer
    for row in odd:
        clean, was_cut = clean_text(text[row, : length[row]].tobytes(), limit)
        text[row] = 0
        text[row, : len(clean)] = np.frombuffer(clean, np.uint8)
        length[row] = len(clean)
        is_cut[row] |= was_cut
    return Texts(text, length, is_cut)


def kept_lengths(strings: npt.NDArray[Any], limit: int) -> npt.NDArray[np.uint16]:
    """Return how many bytes of each text of *strings* (dtype STRING) are there, *limit* at most."""
    given = np.ascontiguousarray(strings["length"])
    length: npt.NDArray[np.uint16] = np.minimum(np.maximum(given, 0), limit).astype(np.uint16)
    cut = np.flatnonzero(given > limit)
    if len(cut):  # what was cut may be shorter: a path of too many names, a character of several bytes
        length[cut] = np.count_nonzero(strings["text"][cut, :limit], axis=1)
    return length


def pack_texts(texts: list[bytes]) -> Texts:
    """Return valid UTF-8 *texts* as columns, none cut."""
    length = np.array([len(text) for text in texts], np.uint16)
    width = int(length.max(initial=0))
    padded = b"".join(text.ljust(width, b"\0") for text in texts)
    table = np.frombuffer(padded, np.uint8).reshape(len(texts), width)
    return Texts(table, length, np.zeros(len(texts), np.bool_))


def clean_text(raw: bytes, limit: int) -> tuple[bytes, bool]:
    r"""Return *raw* as valid UTF-8 of at most *limit* bytes, what is none as \xNN, and whether that cut it."""
    text = raw.decode(errors="backslashreplace").encode()
    if len(text) <= limit:
        return text, False
    return text[:limit].decode(errors="ignore").encode(), True
