"""Imports that leave out what is optional and large."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """
    For the duration of a `with` block, tell whoever imports module *name* that there is none; nothing changes if it is here already.

    It is for Python's own OpenSSL, 5 MB, which the standard library can do without and imports wherever there is one.
    """
    is_free = sys.modules.get(name) is None
    if is_free:
        sys.modules[name] = None  # type: ignore[assignment]  # the documented way to say so
    try:
        yield
    finally:
        if is_free and sys.modules.get(name) is None:  # else it came all the same, in another thread
            sys.modules.pop(name, None)
