"""What is said about ourselves, on stderr, which is not the command's output, and how text of others is written there."""

import re
import sys
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Final

_UNSAFE: Final = re.compile(r"\\(?!x[0-9a-f]{2})|[^\\ -~]")
_NOT_ASCII_PRINTABLE: Final = re.compile(r"[^ -~]")
_ESCAPES: Final = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


def write(text: str) -> None:
    """Write on stderr; if nobody listens, the traced program must not suffer."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def escape(text: str) -> str:
    r"""
    Return text that is safe on any terminal: one line, no control characters, nothing invisible.

    Backslash, newline, tab and carriage return are written as in C, other characters that do not print as ``\xNN`` for
    each byte. What already reads ``\xNN`` stays: calls and identities write bytes that way that are no valid UTF-8.
    """
    return _UNSAFE.sub(_escape_character, text)


def _escape_character(match: re.Match[str]) -> str:
    character = match[0]
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    errors = "surrogateescape" if "\udc80" <= character <= "\udcff" else "surrogatepass"
    return "".join(f"\\x{byte:02x}" for byte in character.encode("utf-8", errors))


def say(message: str) -> None:
    """Write one line about ourselves, also where it has words of others that do not print."""
    write(f"otel-sysexit: {_NOT_ASCII_PRINTABLE.sub(_escape_character, message)}\n")


def explain_bug(error: BaseException) -> None:
    """Say that something went wrong that never should, with where it did."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    say(f"internal error, please report it: {type(error).__name__}: {error}{where}")
