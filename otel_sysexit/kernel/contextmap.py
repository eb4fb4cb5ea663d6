"""
The map in which OpenTelemetry eBPF Instrumentation (OBI) says which span each thread is in.

In: the path where it is pinned. Out: a descriptor for the loader, which puts it in the place of bpf/spans.bpf.c's `current_spans`. The
map is OBI's: it is opened for reading, and nothing is ever pinned. OBI fills it where it is told that somebody reads it
(OTEL_EBPF_BPF_POPULATE_TRACE_CONTEXT=true; its devdocs/trace-profile-correlation.md has the layout).
"""

import ctypes
import os
import struct
from pathlib import Path
from typing import Final

from otel_sysexit.kernel.bpf import Command, bpf
from otel_sysexit.kernel.records import SPAN_CONTEXT

DEFAULT_PATH: Final = "/sys/fs/bpf/otel/traces_ctx_v1"
_FDINFO: Final = Path("/proc/self/fdinfo")
_MAP_TYPE_LRU_HASH: Final = 9
_F_RDONLY: Final = 1 << 3
"""For this descriptor's owner; what programs may do is not touched by it."""
_F_WRONLY_PROG: Final = 1 << 8
"""Of a map: programs cannot look anything up."""


def open_context_map(path: str) -> int:
    """
    Return a descriptor of the map that is pinned at *path*.

    Raises:
        ValueError: there is none, it is not ours to open, or it has another shape; the message is one line.
    """
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        # pathname, bpf_fd, file_flags of union bpf_attr.
        fd = bpf(Command.OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, _F_RDONLY))
    except OSError as error:
        raise ValueError(f"cannot open the map {path!r}: {error.strerror}") from error
    fault = _fault(fd)
    if fault:
        os.close(fd)
        raise ValueError(f"{path!r} is no map of trace contexts: {fault}")
    return fd


def _fault(fd: int) -> str:
    """Return what is wrong with the BPF object *fd*, as the kernel shows it; empty: nothing."""
    lines = (_FDINFO / str(fd)).read_text(encoding="ascii").splitlines()
    facts = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    if "map_type" not in facts:
        return "no map at all"
    wanted = {"map_type": _MAP_TYPE_LRU_HASH, "key_size": 8, "value_size": SPAN_CONTEXT.itemsize}
    for fact, value in wanted.items():
        if int(facts[fact]) != value:
            return f"its {fact} is {facts[fact]}, not {value}"
    return "programs may not read it" if int(facts["map_flags"], 16) & _F_WRONLY_PROG else ""
