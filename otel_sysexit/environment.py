"""Text formats of OTEL_* variables, as the specification has them (configuration/sdk-environment-variables.md)."""

import re
from typing import Final
from urllib.parse import unquote

# A W3C baggage list member without properties; values may be percent-encoded.
# What HTTP/2, and so gRPC, can carry of a name; in values, what every receiver reads as text.
_HEADER_NAME: Final = re.compile(r"[0-9A-Za-z_.-]+")
_HEADER_VALUE: Final = re.compile(r"[ -~]*")
_MEMBER: Final = re.compile(r"\s*([^\s=,;]+)\s*=\s*([^,;]*?)\s*")


def parse_pairs(text: str) -> dict[str, str]:
    """
    Return `k=v,k=v` as a mapping, values percent-decoded.

    Raises:
        ValueError: a member is none; the message is one line.
    """
    pairs: dict[str, str] = {}
    for member in text.split(","):
        if not member.strip():
            continue
        found = _MEMBER.fullmatch(member)
        if found is None:
            raise ValueError(f"{member.strip()!r} is not name=value")
        try:
            member.encode()
            pairs[found[1]] = unquote(found[2], errors="strict")
        except UnicodeError as error:
            raise ValueError(f"{member.strip()!r} is no UTF-8") from error
    return pairs


def parse_headers(text: str) -> dict[str, str]:
    """Return `k=v,k=v` as headers that can be sent; raises ValueError as `parse_pairs` does."""
    return check_headers(parse_pairs(text))


def check_headers(headers: dict[str, str]) -> dict[str, str]:
    """Return *headers* if they can be sent; raises ValueError, which says nothing of a value: it may be a secret."""
    for name, value in headers.items():
        if not _HEADER_NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of a header")
        if name.lower().endswith("-bin"):
            raise ValueError(f"{name!r} is a name of binary metadata, which are not supported")
        if not _HEADER_VALUE.fullmatch(value):
            raise ValueError(f"the value of {name!r} has characters that a header cannot have")
    return headers


def parse_resource_attributes(text: str) -> dict[str, str]:
    """Return OTEL_RESOURCE_ATTRIBUTES; any error discards the entire value (resource/sdk.md)."""
    try:
        return parse_pairs(text)
    except ValueError:
        return {}


def parse_boolean(text: str) -> bool:
    """Return whether *text* is `true`; raises ValueError for anything but true and false."""
    if text.lower() not in ("true", "false"):
        raise ValueError(f"{text!r} is neither true nor false")
    return text.lower() == "true"


def parse_milliseconds_ns(text: str) -> int:
    """Return the milliseconds of a timeout in ns; raises ValueError."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{text!r} is no number of milliseconds")
    return int(text) * 10**6
