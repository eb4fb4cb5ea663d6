"""The kernel's glob matcher, modelled: it and what user space does with the same pattern must agree."""

import fnmatch
import os
from itertools import chain

from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit.targets import glob_matches, parse_exe

# Few bytes, so that much matches; among them all that are special to one side.
BYTES = [bytes([value]) for value in b"/ab*?[]!\\\n\xff"]
# One place of a pattern: as the kernel reads it, as fnmatch does.
WILDCARDS = [(b"*", b"*"), (b"?", b"?")]
QUOTED = [(b"\\" + byte, b"[" + byte + b"]" if byte in b"*?[" else byte) for byte in BYTES]
PLAIN = [(byte, byte) for byte in BYTES if byte not in b"*?[\\"]
patterns = st.lists(st.sampled_from([*WILDCARDS, *QUOTED, *PLAIN]), max_size=12)
paths = st.lists(st.sampled_from(BYTES), max_size=12).map(b"".join)


def kernel_matches(glob: bytes, path: bytes) -> bool:
    """Match as the kernel's side does: one loop, and the last star is tried again one byte further on."""
    at = here = 0
    star, retry = -1, 0
    while here < len(path):
        byte = glob[at : at + 1]
        is_quote = byte == b"\\"
        if byte == b"*":
            star, retry = at, here
            at += 1
        elif byte and ((byte == b"?") or glob[at + is_quote : at + is_quote + 1] == path[here : here + 1]):
            at += 1 + is_quote
            here += 1
        elif star >= 0:
            retry += 1
            at, here = star + 1, retry
        else:
            return False
    return not glob[at:].strip(b"*")


@given(patterns, paths)
def test_the_kernels_matcher_agrees_with_fnmatch(pattern, path):
    """Star, question mark and quoting mean what fnmatch(3) means by star, question mark and brackets around one byte."""
    kernel, python = map(b"".join, zip(*pattern, strict=True)) if pattern else (b"", b"")

    assert kernel_matches(kernel, path) == fnmatch.fnmatchcase(path, python)


@given(patterns, paths)
def test_user_space_agrees_with_the_kernels_matcher(pattern, path):
    """Whether a running process matches is decided as at its exec."""
    glob = b"".join(kernel for kernel, _ in pattern)

    assert glob_matches(glob, path) == kernel_matches(glob, path)


@given(patterns, paths)
def test_a_parsed_glob_means_what_was_written(pattern, path):
    """Stars in a row become one; nothing else changes."""
    written = b"".join(chain([b"/"], (kernel for kernel, _ in pattern)))

    assert kernel_matches(parse_exe(os.fsdecode(written)), path) == kernel_matches(written, path)
