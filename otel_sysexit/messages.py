"""What is said about ourselves, on stderr, which is not the command's output."""

import sys
import traceback
from contextlib import suppress
from pathlib import Path


def write(text: str) -> None:
    """Write on stderr; if nobody listens, the traced program must not suffer."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def say(message: str) -> None:
    """Write one line about ourselves."""
    write(f"otel-sysexit: {message}\n")


def explain_bug(error: BaseException) -> None:
    """Say that something went wrong that never should, with where it did."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    say(f"internal error, please report it: {type(error).__name__}: {error}{where}")
