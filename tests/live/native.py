"""The machine that the live tests run on: what its own ABI calls things, and what only another one has."""

import os
import platform
from pathlib import Path

import pytest

# What tests/kernels says to the tests in its guests: that this is one, how many times slower it is, and the folder of
# the programs that were compiled outside.
IS_GUEST = os.environ.get("OTEL_SYSEXIT_GUEST") == "1"
PATIENCE = int(os.environ.get("OTEL_SYSEXIT_TEST_PATIENCE", "1"))
BUILT = Path(os.environ["OTEL_SYSEXIT_TEST_PROGRAMS"]) if IS_GUEST else None

MACHINE = platform.machine()
# What the BPF side calls the ABI of a 64-bit program: as `uname -m` does.
ABI = MACHINE
BPF_NUMBERS = {"x86_64": 321, "aarch64": 280}
RESTART_SYSCALL_NUMBERS = {"x86_64": 219, "aarch64": 128}
# How many sys_exits a child's return from fork is; on aarch64 it begins behind their tracing.
CHILD_RETURNS = {"x86_64": 1, "aarch64": 0}
OPENAT_NUMBERS = {"x86_64": 257, "aarch64": 56}
CLONE_NUMBERS = {"x86_64": 56, "aarch64": 220}

# Calls that younger architectures do not have, and how the C library makes them there (programs/facts.h).
_MADE_BY = {"fork": "clone", "vfork": "clone", "pause": "ppoll", "poll": "ppoll"}

x86_64_only = pytest.mark.skipif(MACHINE != "x86_64", reason="the claim is about x86_64's numbers")


def own_name(name: str) -> str:
    """Return what the kernel calls the call that makes this one here."""
    return name if MACHINE == "x86_64" else _MADE_BY.get(name, name)
