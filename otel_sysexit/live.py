"""
One line of text for each call, in strace's habit.

In come batches of Calls, out go lines for a person. This is the only place where calls become Python objects one by
one; a line costs a few microseconds. Everything that comes from traced programs is escaped here.
"""

import os
import re
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np

from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.syscalls import Argument, Form, Kind, errno_name

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
_UNSAFE = re.compile(r"\\(?!x[0-9a-f]{2})|[^\\ -~]")
_ESCAPES = {"\n": "\\n", "\t": "\\t", "\r": "\\r", "\\": "\\\\"}


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
def _writers(arguments: tuple[Argument, ...]) -> tuple[tuple[Callable[[int], str], int], ...]:
    """Return for each argument its writer, and which of the two captured paths it is (-1: none)."""
    writers = []
    paths = 0
    for argument in arguments:
        is_captured = argument.is_path and paths < 2
        writers.append((_writer(argument), paths if is_captured else -1))
        paths += is_captured
    return tuple(writers)


def _arguments(kind: Kind, args: Sequence[int] | None, paths: tuple[str | None, str | None]) -> str:
    if args is None:  # the registers were gone: a successful exec
        return ", ".join([path for path in paths if path] + ["..."])
    if kind.restarts is not None:
        return f"<... resuming interrupted {kind.restarts} ...>"
    if kind.name.startswith("syscall_"):
        return ", ".join(_hexadecimal(value) for value in args)
    writers = _writers(kind.arguments)
    if kind.name in ("open", "openat") and not args[len(writers) - 2] & _O_CREAT_OR_TMPFILE:
        writers = writers[:-1]  # the register of mode holds whatever was there
    return ", ".join(
        [
            (paths[path] if path >= 0 else None) or write(value)
            for value, (write, path) in zip(args, writers, strict=False)
        ]
    )


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
    path_rows = calls.path_row[chosen].tolist()
    columns = zip(
        calls.kind[chosen].tolist(),
        calls.args[chosen].tolist(),
        calls.has_args[chosen].tolist(),
        path_rows,
        calls.outcome[chosen].tolist(),
        calls.ret[chosen].tolist(),
        calls.errno[chosen].tolist(),
        calls.is_executed[chosen].tolist(),
        strict=True,
    )
    kinds = calls.kinds
    texts = _paths(calls, {row for pair in path_rows for row in pair if row >= 0})
    lines = []
    for index, args, has_args, (first, second), outcome, ret, errno, is_executed in columns:
        kind = kinds[index]
        arguments = _arguments(kind, args if has_args else None, (texts.get(first), texts.get(second)))
        result = _result(kind, outcome, ret, errno)
        lines.append(f"{kind.name}({arguments}) = {result}{'' if is_executed else ' (not executed)'}")
    return lines


def _paths(calls: Calls, rows: set[int]) -> dict[int, str]:
    paths = calls.paths
    return {
        row: _quote(paths.text[row, : paths.length[row]].tobytes(), bool(paths.is_cut[row])) for row in rows
    }


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
