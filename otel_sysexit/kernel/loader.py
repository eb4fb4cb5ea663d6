"""
The child process that loads and attaches the BPF programs, hands them over and ends.

In: a `Request`. Out, over a socket: one JSON object, with the descriptors of maps, links and programs beside it when all went well.

There is one way: programs are compiled to an `Object`, by another child, and an `Object` is put into the kernel, here. An object that is
kept from an earlier start saves the first half.
"""

import ctypes
import json
import os
import resource
import signal
import socket
import struct
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from otel_sysexit.kernel.bpf import (
    RAW_TRACEPOINT,
    TRACEPOINT,
    Command,
    bpf,
    create_map,
    load_program,
    put_map,
)
from otel_sysexit.kernel.cache import Cache
from otel_sysexit.kernel.compiling import Compilation, compile_programs, interpreters
from otel_sysexit.kernel.fingerprint import fingerprint, stamps
from otel_sysexit.kernel.macros import kernel_flags
from otel_sysexit.kernel.names import CALLS, CALLS_RINGS, CALLS_RINGS_MAX, LINKS
from otel_sysexit.kernel.objects import MapSpecification, Object, Program
from otel_sysexit.kernel.probes import LoadError, check_kernel
from otel_sysexit.kernel.tracepoints import attach, mount_tracefs

if TYPE_CHECKING:
    from otel_sysexit.kernel.request import Request

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h
PACKAGE: Final = Path(__file__).parents[1]


def lift_memory_limit() -> None:
    """
    Let maps be as large as they must be.

    Until Linux 5.11 (commit "bpf: Eliminate rlimit-based memory accounting") they count as locked memory, all of a
    user's together: a second agent, or any other BPF program, would leave none for us.
    """
    with suppress(OSError, ValueError):  # without CAP_SYS_RESOURCE: what there is may be enough
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def find_bpf_dir(package: Path = PACKAGE) -> Path:
    """
    Return the folder of the BPF sources: in the installed *package*, or in the checkout beside it.

    Raises:
        LoadError: neither is there.
    """
    for folder in (package / "bpf", package.parent / "bpf"):
        if (folder / "calls.bpf.c").is_file():
            return folder
    raise LoadError("no-sources", f"the BPF sources are missing from {package}: reinstall otel-sysexit")


def load(request: "Request") -> list[int]:
    """
    Load and attach; return the descriptors of the *request*'s maps, of `LINKS`, and of the programs of `LINKS`.

    Raises:
        LoadError: it was in vain, with the reason.
    """
    lift_memory_limit()
    check_kernel()
    compiled, maps, programs = load_kept_or_new(request, str(find_bpf_dir()))
    for name, (keys, values, count) in request.contents().items():
        fill(maps[name], keys, values, count)
    return [
        *(maps[name] for name in request.maps),
        *attach_all(compiled, programs),
        *programs.values(),
    ]


def load_kept_or_new(request: "Request", bpf_dir: str) -> tuple[Object, dict[str, int], dict[str, int]]:
    """
    Return what `put_into_kernel` returns, behind the object: a kept one, or else one that is compiled now, and kept.

    Raises:
        LoadError: it does not compile, or the kernel refuses what was compiled now.
    """
    pythons, asked, sizes = interpreters(request.bcc_python), request.cflags(), request.sizes()
    cache = Cache(request.cache_dir) if request.cache_dir is not None else None
    key = _key(bpf_dir, asked, pythons) if cache is not None else ""
    kept = read_kept(cache, key) if cache is not None else None
    if kept is not None:
        with suppress(LoadError):  # what counts is what the kernel says of a new one
            return kept, *put_into_kernel(kept, sizes, request.substitutes, request.calls_rings)

    def find_macros() -> list[str]:
        return [*asked, *kernel_flags(asked)]

    new = compile_programs(pythons, bpf_dir, find_macros, LINKS)
    loaded = put_into_kernel(new.compiled, sizes, request.substitutes, request.calls_rings)
    if cache is not None:
        keep(cache, key, new)
    return new.compiled, *loaded


def _key(bpf_dir: str, asked: list[str], pythons: list[str]) -> str:
    try:
        return fingerprint(bpf_dir, asked, pythons)
    except OSError as error:
        raise LoadError("unreadable", f"cannot read {error.filename}: {error.strerror}") from error


def read_kept(cache: Cache, key: str) -> Object | None:
    """Return the object under *key*; None: there is none, or its compiler is not the one that there is now."""
    content = cache.read(key)
    if content is None:
        return None
    try:
        found = json.loads(content)
        is_current = found["compiler"] == stamps(path for path, *_ in found["compiler"])
        return Object.from_json(found["object"]) if is_current else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def keep(cache: Cache, key: str, new: Compilation) -> None:
    """Store what was compiled, with what tells whether the compiler has changed since."""
    with suppress(OSError):
        entry = {"compiler": stamps(new.compiler_files), "object": new.compiled.to_json()}
        cache.write(key, json.dumps(entry).encode())


def put_into_kernel(
    compiled: Object,
    sizes: Mapping[str, int],
    substitutes: Mapping[str, int],
    calls_rings: Sequence[str] = (CALLS,),
) -> tuple[dict[str, int], dict[str, int]]:
    """
    Create all maps and load all programs, none attached yet.

    Args:
        compiled: What to load.
        sizes: Of maps, by their names, that have others than they were compiled with: elements, of a ring bytes.
        substitutes: Descriptors of maps that others have made, by the names of ours that they take the place of.
        calls_rings: Names of the rings of calls; those behind the first are made as that one is.

    Returns:
        Descriptors of maps by their names, and of programs by their tracepoints.

    Raises:
        LoadError: the kernel refuses one; none is left then.
    """
    with ExitStack() as stack:
        maps: dict[str, int] = {}
        for one in _with_rings(compiled.maps, calls_rings):
            theirs = substitutes.get(one.name)
            inner = maps[CALLS] if one.name == CALLS_RINGS else 0
            maps[one.name] = _create(one, sizes, inner) if theirs is None else os.dup(theirs)
            stack.callback(os.close, maps[one.name])
        if CALLS_RINGS in maps:
            _put_rings(maps[CALLS_RINGS], [maps[name] for name in calls_rings])
        # The kernel verifies each on the CPU of its thread. One takes longer than all others together.
        with ThreadPoolExecutor(max_workers=2) as pool:
            loads = [pool.submit(_load, one, maps, compiled.licence) for one in compiled.programs]
        for load in loads:
            if load.exception() is None:
                stack.callback(os.close, load.result())
        programs = {one.tracepoint: load.result() for one, load in zip(compiled.programs, loads, strict=True)}
        stack.pop_all()
    return maps, programs


def _with_rings(maps: Sequence[MapSpecification], calls_rings: Sequence[str]) -> Iterator[MapSpecification]:
    """Yield *maps*, and behind the first ring of calls the others, which are as that one is."""
    for one in maps:
        names = calls_rings if one.name == CALLS else [one.name]
        yield from (replace(one, name=name) for name in names)


def _put_rings(outer: int, rings: Sequence[int]) -> None:
    """Put *rings* into the map of them, again and again: a CPU may have any number."""
    chosen = [rings[index % len(rings)] for index in range(CALLS_RINGS_MAX)]
    keys, values = (struct.pack(f"={len(chosen)}I", *numbers) for numbers in (range(len(chosen)), chosen))
    try:
        fill(outer, keys, values, len(chosen))  # each by itself would wait for all CPUs, some 8 ms
    except LoadError:  # this kernel has no batches for maps of maps
        try:
            for index, ring in enumerate(chosen):
                put_map(outer, index, ring)
        except OSError as error:
            raise LoadError("load", f"cannot choose among rings: {error.strerror}") from error


def _create(one: MapSpecification, sizes: Mapping[str, int], inner_map_fd: int = 0) -> int:
    numbers = one.map_type, one.key_size, one.value_size, sizes.get(one.name, one.max_entries)
    try:
        return create_map(*numbers, map_flags=one.map_flags, inner_map_fd=inner_map_fd, name=one.name)
    except OSError as error:
        raise LoadError("load", f"cannot create the BPF map {one.name}: {error.strerror}") from error


def _load(program: Program, maps: Mapping[str, int], licence: str) -> int:
    kind = TRACEPOINT if program.is_event else RAW_TRACEPOINT
    try:
        return load_program(kind, program.relocated(maps), licence, program.name)
    except OSError as error:
        raise LoadError(
            "load", f"the BPF program {program.name} does not load on this kernel: {error.strerror}"
        ) from error


def fill(fd: int, keys: bytes, values: bytes, count: int) -> None:
    """Write *count* elements to the map *fd* (BPF_MAP_UPDATE_BATCH, since 5.6)."""
    key_buffer, value_buffer = ctypes.create_string_buffer(keys), ctypes.create_string_buffer(values)
    # in_batch, out_batch, keys, values, count, map_fd, elem_flags, flags of union bpf_attr.
    buffers = ctypes.addressof(key_buffer), ctypes.addressof(value_buffer)
    try:
        bpf(Command.MAP_UPDATE_BATCH, struct.pack("=QQQQIIQQ", 0, 0, *buffers, count, fd, 0, 0))
    except OSError as error:
        raise LoadError("load", f"cannot fill a map: {error.strerror}") from error


def attach_all(compiled: Object, programs: Mapping[str, int]) -> list[int]:
    """Attach the programs, in the order of `LINKS`; return the descriptors that keep them attached."""
    events = {program.tracepoint for program in compiled.programs if program.is_event}
    if events:
        mount_tracefs()
    return [attach(tracepoint, programs[tracepoint], is_event=tracepoint in events) for tracepoint in LINKS]


def end_with_the_agent(agent_pid: int) -> None:
    """Have the kernel kill us when the agent ends before we do."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != agent_pid:  # it has ended meanwhile
        os._exit(1)


def close_all_but(*kept: int) -> None:
    """Close what the agent's caller has left open, locks and pipes that others wait for; standard streams are seen to elsewhere."""
    below = 3
    for fd in sorted(kept):
        os.closerange(below, fd)
        below = max(fd + 1, below)
    os.closerange(below, resource.getrlimit(resource.RLIMIT_NOFILE)[0])


def serve(request: "Request", channel: socket.socket, agent_pid: int) -> None:
    """Load and attach what is asked for, and hand it over."""
    descriptors: list[int] = []
    try:
        end_with_the_agent(agent_pid)
        close_all_but(channel.fileno(), *request.substitutes.values())
        os.setsid()  # a Ctrl-C is for the command
        for stream in range(3):  # who reads what the agent writes must not wait for us
            os.dup2(os.open(os.devnull, os.O_RDWR), stream)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored by some that start us, and then inherited
        descriptors = load(request)
        answer: dict[str, str | None] = {"error": None}
    except LoadError as error:
        answer = {"error": error.kind, "message": str(error)}
    except Exception as error:  # noqa: BLE001 (one line for the agent)
        answer = {"error": "bug", "message": f"the loader failed: {error!r}"}
    with suppress(OSError):  # the agent is gone
        socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)
