"""
A folder of what was compiled, kept from start to start.

In: a key, content. Out: content that was stored under the key, or nothing. What is read is loaded into the kernel by whoever runs us, root
as a rule; so nothing is read from a folder or a file that belongs to, or can be written by, anybody else, and what is not whole
counts as missing. Where nothing can be stored (a read-only file system, a full one) nothing is.
"""

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

ENTRIES_MAX: Final = 16
"""Those that were not used for the longest time go. A host has a few: one for each set of options that it is traced with."""
_ENTRY_BYTES_MAX: Final = 4 << 20
_SUFFIX: Final = ".bpf"
_NAME: Final = re.compile(r"[0-9a-f]{64}\.bpf(\.\d+\.new)?")
_DIGEST_LENGTH: Final = 64


class Cache:
    """The entries in one folder."""

    def __init__(self, folder: str) -> None:
        """Use *folder*, which is made when something is stored."""
        self._folder = Path(folder)

    def read(self, key: str) -> bytes | None:
        """Return what was stored under *key*, 64 hexadecimal digits; None: nothing, or nothing that can be trusted."""
        try:
            with self._open_folder() as folder:
                data = _read_own(key + _SUFFIX, folder)
        except OSError:
            return None
        digest, content = data[:_DIGEST_LENGTH], data[_DIGEST_LENGTH:]
        return content if digest == _digest(key, content) else None

    def write(self, key: str, content: bytes) -> None:
        """Store *content* under *key*, in one step; what cannot be stored is not."""
        with suppress(OSError):
            missing = [path for path in (self._folder, *self._folder.parents) if not path.exists()]
            for path in reversed(missing):  # those above it are everybody's
                path.mkdir(mode=0o700 if path == self._folder else 0o755, exist_ok=True)
            with self._open_folder() as folder:
                _write_own(key + _SUFFIX, _digest(key, content) + content, folder)
                _forget_oldest(folder)

    @contextmanager
    def _open_folder(self) -> Iterator[int]:
        """Open the folder; raises OSError, also if it is not ours alone."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            _check_owner(folder)
            yield folder
        finally:
            os.close(folder)


def _digest(key: str, content: bytes) -> bytes:
    return hashlib.sha256(key.encode() + content).hexdigest().encode()


def _check_owner(fd: int) -> os.stat_result:
    found = os.fstat(fd)
    if found.st_uid != os.geteuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError
    return found


def _read_own(name: str, folder: int) -> bytes:
    """Return a file's content, and mark it as used; raises OSError."""
    # Without O_NONBLOCK, what is no file could keep us waiting.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=folder), "rb") as file:
        found = _check_owner(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_size > _ENTRY_BYTES_MAX:
            raise PermissionError
        with suppress(OSError):
            os.utime(file.fileno())
        return file.read()


def _write_own(name: str, data: bytes, folder: int) -> None:
    """Create or replace a file in one step; raises OSError, and leaves nothing half done."""
    fresh = f"{name}.{os.getpid()}.new"
    with suppress(FileNotFoundError):  # of one that had our pid and was killed
        os.unlink(fresh, dir_fd=folder)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(fresh, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.rename(fresh, name, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(fresh, dir_fd=folder)
        raise


def _forget_oldest(folder: int) -> None:
    """Remove all but the newest entries; files that are not ours stay."""
    names = [name for name in os.listdir(folder) if _NAME.fullmatch(name)]
    times = {name: os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime_ns for name in names}
    for name in sorted(names, key=times.__getitem__)[:-ENTRIES_MAX]:
        os.unlink(name, dir_fd=folder)
