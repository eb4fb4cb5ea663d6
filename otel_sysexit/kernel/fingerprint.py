"""
What decides how programs come out of the compiler, as one number: if nothing of it has changed, they need not be compiled again.

In: the sources, what was asked for, and the running kernel. Out: a key for `Cache`. What the kernel says of itself is taken whole, not what
is looked up in it, since looking costs more than a start has.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from otel_sysexit.kernel.btf import VMLINUX


def fingerprint(bpf_dir: str, asked: Sequence[str], pythons: Sequence[str]) -> str:
    """
    Return 64 hexadecimal digits for a compilation.

    Args:
        bpf_dir: The folder of the sources.
        asked: The macros of the request. Those that say what the kernel is like follow from its build, version and BTF.
        pythons: The interpreters that may have the compiler, whose files `stamps` tells of.

    Raises:
        OSError: sources or BTF cannot be read.
    """
    kernel = os.uname()
    facts = [kernel.sysname, kernel.release, kernel.version, kernel.machine, *pythons, "", *asked]
    # Our own modules, too: they decide what is asked of the kernel, and how an object is written.
    sources = [*Path(bpf_dir).rglob("*.[ch]"), *Path(__file__).parent.glob("*.py")]
    parts = [json.dumps(facts).encode(), VMLINUX.read_bytes()]
    for path in sorted(sources):
        parts += [path.name.encode(), path.read_bytes()]
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part)
    return total.hexdigest()


def stamps(paths: Iterable[str]) -> list[list[str | int]]:
    """Return path, size and time of the last change (ns) of each file; raises OSError where one is gone."""
    found = ((path, Path(path).stat()) for path in paths)
    return [[path, status.st_size, status.st_mtime_ns] for path, status in found]
