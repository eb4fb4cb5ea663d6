"""
One line of text for each call, in strace's habit.

In come batches of Calls, out go lines for a person. This is the only place where calls become Python objects one by
one; a line costs a few microseconds. Everything that comes from traced programs is escaped here.
"""

import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from otel_sysexit.addresses import Addresses, Family
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.messages import escape
from otel_sysexit.syscalls import Argument, Form, Kind, errno_name
from otel_sysexit.texts import Texts

_INTERRUPTIONS = {
    -512: "ERESTARTSYS",
    -513: "ERESTARTNOINTR",
    -514: "ERESTARTNOHAND",
    -516: "ERESTART_RESTARTBLOCK",
}
_AT_FDCWD = -100
_O_CREAT_OR_TMPFILE = 0o20000100
_RETURN_ADDRESSES = frozenset(("mmap", "mmap2", "mremap", "brk", "shmat"))
_BITS = ("clone_flags", "flag", "flags", "mask", "oflag", "prot")
_ADDRESSES = ("addr", "brk", "end", "new_addr", "newsp", "start", "tls")
_SOCKET_ADDRESSES = frozenset(("addr", "umyaddr", "upeer_sockaddr", "usockaddr", "uservaddr"))


@lru_cache(maxsize=4096)
def _quote(path: bytes, is_cut: bool) -> str:
    text = escape(path.decode(errors="backslashreplace")).replace('"', '\\"')
    return f'"{text}"...' if is_cut else f'"{text}"'


@lru_cache(maxsize=256)
def _failure(errno: int) -> str:
    return f"-1 {errno_name(errno)} ({os.strerror(errno)})"


# --- arguments --------------------------------------------------------------------------------------------------------


def _decimal(value: int) -> str:
    # An address or a bit pattern far more often than a count: user space starts above this but for static programs.
    return str(value) if -(2**40) < value < 2**40 else hex(value & 0xFFFFFFFFFFFFFFFF)


def _hexadecimal(value: int) -> str:
    return hex(value & 0xFFFFFFFFFFFFFFFF) if value else "0"


def _pointer(value: int) -> str:
    return hex(value & 0xFFFFFFFFFFFFFFFF) if value else "NULL"


def _bits(value: int) -> str:
    return hex(value & 0xFFFFFFFF) if value else "0"


def _command(value: int) -> str:
    return (
        str(value) if value < 1000 else hex(value)
    )  # those of ioctl are bit patterns, those of others small


def _mode(value: int) -> str:
    return f"0{value:o}" if value else "0"


def _directory(value: int) -> str:
    return "AT_FDCWD" if value == _AT_FDCWD else str(value)


def _writer(argument: Argument) -> Callable[[int], str]:
    """
    Return how an argument is written.

    Numbers are decimal but for what reads better otherwise: pointers, addresses and flags are hexadecimal (NULL and 0
    for zero), a mode is octal, AT_FDCWD has its name, and values from 2**40 on are taken for addresses.
    """
    if argument.form in (Form.POINTER_64, Form.POINTER_32):
        return _pointer
    if argument.form == Form.UNSIGNED_16:
        return _mode
    if argument.name == "cmd":
        return _command
    if "dfd" in argument.name:
        return _directory
    if argument.name in _BITS or argument.name in _ADDRESSES:
        return _hexadecimal if argument.form == Form.SIGNED_64 else _bits
    return _decimal


@lru_cache(maxsize=1024)
def _writers(arguments: tuple[Argument, ...]) -> tuple[tuple[Callable[[int], str], int, int], ...]:
    """Return for each argument its writer, and which of the two captured paths and of the two descriptors it is (-1: none)."""
    writers = []
    paths = descriptors = 0
    for argument in arguments:
        is_path, is_descriptor = argument.is_path and paths < 2, argument.is_descriptor and descriptors < 2
        writers.append((_writer(argument), paths if is_path else -1, descriptors if is_descriptor else -1))
        paths += is_path
        descriptors += is_descriptor
    return tuple(writers)


class _Meanings(NamedTuple):
    """What is known of the arguments of one call beside their numbers."""

    texts: Sequence[str | None]
    """Of each argument."""
    paths: tuple[str | None, str | None]
    """Quoted."""
    files: tuple[str | None, str | None]
    """Of descriptors."""
    address: str | None


def _arguments(kind: Kind, args: Sequence[int] | None, meanings: _Meanings) -> str:
    if args is None:  # the registers were gone, after a successful exec, or were not asked for
        return ", ".join([path for path in meanings.paths if path] + ["..."])
    if kind.restarts is not None:
        return f"<... resuming interrupted {kind.restarts} ...>"
    if kind.name.startswith("syscall_"):
        return ", ".join(_hexadecimal(value) for value in args)
    writers = _writers(kind.arguments)
    if kind.name in ("open", "openat") and not args[len(writers) - 2] & _O_CREAT_OR_TMPFILE:
        writers = writers[:-1]  # the register of mode holds whatever was there
    written = []
    for value, text, argument, (write, path, descriptor) in zip(
        args, meanings.texts, kind.arguments, writers, strict=False
    ):
        if path >= 0 and meanings.paths[path]:
            written.append(meanings.paths[path] or "")
        elif argument.name in _SOCKET_ADDRESSES and meanings.address:
            written.append(meanings.address)
        elif descriptor >= 0 and meanings.files[descriptor]:
            written.append(f"{value}<{meanings.files[descriptor]}>")
        else:
            written.append(text or write(value))
    return ", ".join(written)


def _result(kind: Kind, outcome: int, ret: int, errno: int) -> str:
    if outcome == Outcome.SUCCEEDED:
        return hex(ret & 0xFFFFFFFFFFFFFFFF) if kind.name in _RETURN_ADDRESSES else str(ret)
    if outcome in (Outcome.FAILED, Outcome.BENIGN):
        return _failure(errno)
    if outcome == Outcome.INTERRUPTED:
        return f"? {_INTERRUPTIONS.get(ret, str(ret))}"
    return "?"


# --- calls ------------------------------------------------------------------------------------------------------------


def describe(calls: Calls, rows: Sequence[int]) -> list[str]:
    """Return ``name(arguments) = result`` for each of some rows of a batch, in their order."""
    chosen = np.asarray(rows, dtype=np.intp)
    columns = zip(
        calls.kind[chosen].tolist(),
        calls.args[chosen].tolist(),
        calls.has_args[chosen].tolist(),
        calls.argument_text[chosen].tolist(),
        calls.path_row[chosen].tolist(),
        calls.file_row[chosen].tolist(),
        calls.address_row[chosen].tolist(),
        calls.outcome[chosen].tolist(),
        calls.ret[chosen].tolist(),
        calls.errno[chosen].tolist(),
        calls.is_executed[chosen].tolist(),
        strict=True,
    )
    lines = []
    for index, args, has_args, text, paths, files, address, outcome, ret, errno, is_executed in columns:
        kind = calls.kinds[index]
        meanings = _Meanings(
            calls.argument_texts[text],
            (_path(calls.paths, paths[0]), _path(calls.paths, paths[1])),
            (_file(calls.files, files[0]), _file(calls.files, files[1])),
            _address(calls.addresses, address),
        )
        arguments = _arguments(kind, args if has_args else None, meanings)
        result = _result(kind, outcome, ret, errno)
        lines.append(f"{kind.name}({arguments}) = {result}{'' if is_executed else ' (not executed)'}")
    return lines


def _raw(texts: Texts, row: int) -> bytes:
    return texts.text[row, : texts.length[row]].tobytes()


def _path(paths: Texts, row: int) -> str | None:
    return _quote(_raw(paths, row), bool(paths.is_cut[row])) if row >= 0 else None


def _file(files: Texts, row: int) -> str | None:
    if row < 0:
        return None
    return escape(_raw(files, row).decode()) + ("..." if files.is_cut[row] else "")


def _address(addresses: Addresses, row: int) -> str | None:
    """Return an address as people write it: 127.0.0.1:80, [::1]:80, the quoted path of a unix socket."""
    if row < 0:
        return None
    text = _raw(addresses.texts, row)
    family, port = addresses.family[row], addresses.port[row]
    if family == Family.UNIX:
        return _quote(text, is_cut=False)
    return f"[{text.decode()}]:{port}" if family == Family.IPV6 else f"{text.decode()}:{port}"


def format_lines(calls: Calls, origin_unix_ns: int, show_threads: bool) -> list[str]:
    """
    Return one line for each call: seconds since the origin, the call, what it returned, seconds it took.

    Args:
        calls: A batch; lines come in the order in which its calls began.
        origin_unix_ns: What times are counted from, in nanoseconds since 1970.
        show_threads: Whether each line begins with ``[pid TID]``.
    """
    order = np.argsort(calls.start_unix_ns, kind="stable")
    offsets = (calls.start_unix_ns[order].astype(np.int64) - np.int64(origin_unix_ns)) / 1e9
    durations = calls.duration_ns[order] / 1e9
    described = describe(calls, order.tolist())
    if not show_threads:
        return [
            f"{offset:.6f} {call} <{duration:.6f}>"
            for offset, call, duration in zip(offsets.tolist(), described, durations.tolist(), strict=True)
        ]
    tids = [thread.tid for thread in calls.threads]
    return [
        f"[pid {tids[thread]}] {offset:.6f} {call} <{duration:.6f}>"
        for thread, offset, call, duration in zip(
            calls.thread[order].tolist(), offsets.tolist(), described, durations.tolist(), strict=True
        )
    ]
