"""
Socket addresses: struct sockaddr as bytes → columns.

In: what connect, bind, accept and their like were given or gave. Out: `Addresses`. Layouts: include/linux/socket.h,
include/uapi/linux/{in,in6,un}.h. An address is made into text once, however many calls have it.
"""

import enum
import socket
import struct
import sys
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.texts import NO_TEXTS, Texts, clean_text, pack_texts

SOCKADDR_BYTES_MAX: Final = 128
_UNIX_LIMIT: Final = 255
"""Bytes of a unix address as text: its 108, some of them escaped."""


class Family(enum.IntEnum):
    """What kind of address it is, as far as attributes can say."""

    NONE = 0
    IPV4 = 1
    IPV6 = 2
    UNIX = 3


@dataclass(frozen=True, slots=True)
class Addresses:
    """Distinct addresses, m of them."""

    family: npt.NDArray[np.uint8]
    """u1[m]: `Family`."""
    port: npt.NDArray[np.uint16]
    """u2[m]: 0 where there is none."""
    texts: Texts
    """m rows: 127.0.0.1, ::1, a unix socket's path; of an abstract one: @ and its name."""


NO_ADDRESSES: Final = Addresses(np.empty(0, np.uint8), np.empty(0, np.uint16), NO_TEXTS)


@lru_cache(maxsize=4096)
def decode_address(raw: bytes) -> tuple[Family, bytes, int]:
    """Return the family of a struct sockaddr, its text (UTF-8), and its port; NONE for what is not understood."""
    if len(raw) < 2:
        return Family.NONE, b"", 0
    family = int.from_bytes(raw[:2], sys.byteorder)
    if family == socket.AF_INET and len(raw) >= 8:
        port, address = struct.unpack_from(">H4s", raw, 2)
        return Family.IPV4, str(IPv4Address(address)).encode(), port
    if family == socket.AF_INET6 and len(raw) >= 24:
        port, address = struct.unpack_from(">H4x16s", raw, 2)
        return Family.IPV6, str(IPv6Address(address)).encode(), port
    if family == socket.AF_UNIX:
        path = raw[2:]
        # An abstract name begins with a NUL and may have more; a path ends at its first (unix(7)).
        name = b"@" + path[1:] if path[:1] == b"\0" and len(path) > 1 else path.partition(b"\0")[0]
        text, _ = clean_text(name.replace(b"\0", b"@"), _UNIX_LIMIT)
        return (Family.UNIX, text, 0) if text else (Family.NONE, b"", 0)
    return Family.NONE, b"", 0


def make_addresses(strings: npt.NDArray[Any]) -> tuple[npt.NDArray[np.int32], Addresses]:
    """
    Return what the *strings* (dtype STRING, role ADDRESS) say.

    Returns:
        i4[len(strings)], the row of each one's address, -1 where it is none; and the addresses.
    """
    length = strings["length"].clip(0, SOCKADDR_BYTES_MAX).astype(np.intp)
    raw = strings["text"][:, :SOCKADDR_BYTES_MAX].tobytes()
    width = min(strings["text"].shape[1], SOCKADDR_BYTES_MAX)
    rows: dict[tuple[Family, bytes, int], int] = {}
    # An object for each connect or accept, of which there are few: their text is cached, what remains is a look-up.
    found = [decode_address(raw[at * width : at * width + size]) for at, size in enumerate(length.tolist())]
    row = [rows.setdefault(address, len(rows)) if address[0] != Family.NONE else -1 for address in found]
    return np.array(row, np.int32), Addresses(
        family=np.array([family for family, _, _ in rows], np.uint8),
        port=np.array([port for _, _, port in rows], np.uint16),
        texts=pack_texts([text for _, text, _ in rows]),
    )
