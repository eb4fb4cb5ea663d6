"""
Consistent probability sampling: the kernel side's thresholds in OpenTelemetry's words, and the rate that is kept.

A call is kept if a random number reaches the rejection threshold T (56 bits; specification,
trace/tracestate-probability-sampling.md). The kernel side decides with T's upper 32 bits and leaves the others 0. Calls of one
trace share its randomness, R, the last 56 bits of the trace id: so a trace has one T, and an R that reaches it.
"""

import os
import random
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

WHOLE: Final = 1 << 32
"""What thresholds are parts of."""
_HEX_DIGITS: Final = 8
_SYSTEM: Final = random.SystemRandom()
"""As `secrets` has it, which imports OpenSSL, too: 3 MB."""


def threshold_of(probability: float) -> int:
    """Return the threshold for a probability above 0 and up to 1."""
    return min(WHOLE - round(probability * WHOLE), WHOLE - 1)


def trace_state(threshold_text: str) -> str:
    """Return the W3C trace state that says at what threshold a span was sampled."""
    return f"ot=th:{threshold_text}"


ALL_ARE_HERE: Final = trace_state("0")
"""Of spans that stand for themselves only."""


def threshold_text(threshold: int) -> str:
    """Return a threshold as trace states have it: hexadecimal digits without the zeros at the end."""
    return f"{threshold:08x}".rstrip("0") or "0"


def make_trace_id(threshold: int) -> bytes:
    """Return a random trace id whose randomness reaches *threshold*, whatever it is with equal probability."""
    randomness = _SYSTEM.randrange(threshold << 24, 1 << 56)
    return os.urandom(9) + randomness.to_bytes(7, "big")


@dataclass(frozen=True, slots=True, init=False)
class Thresholds:
    """The thresholds of a batch of n calls, as text and number; k distinct ones."""

    row: npt.NDArray[np.intp]
    """intp[n]: index into *text* and *probability*."""
    text: npt.NDArray[np.uint8]
    """u1[k, 8]: hexadecimal digits, zero padded."""
    length: npt.NDArray[np.uint8]
    """u1[n]: how many digits of it count; 0 where all calls are here."""
    probability: npt.NDArray[np.float64]
    """f8[k]"""

    def __init__(self, threshold: npt.NDArray[np.uint32]) -> None:
        """*threshold*: u4[n], as in call records."""
        distinct, row = (
            np.unique(threshold, return_inverse=True) if threshold.any() else _all_are_here(len(threshold))
        )
        texts = [threshold_text(value).encode() if value else b"" for value in distinct.tolist()]
        padded = b"".join(text.ljust(_HEX_DIGITS, b"\0") for text in texts)
        length = np.array([len(text) for text in texts], np.uint8)
        object.__setattr__(self, "row", row)
        object.__setattr__(self, "text", np.frombuffer(padded, np.uint8).reshape(-1, _HEX_DIGITS))
        object.__setattr__(self, "length", length[row])
        object.__setattr__(self, "probability", 1 - distinct / WHOLE)


def _all_are_here(count: int) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.intp]]:
    return np.zeros(1, np.uint32), np.zeros(count, np.intp)
