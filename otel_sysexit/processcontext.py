"""
The process context: Resource attributes that a process publishes in its own memory (OTEP 4719, version 2).

In: a process id. Out: what its SDK published and when, or None. All of it is the word of a stranger: how much is read is
bounded, what is malformed is left out, and nothing that stands there raises an error.
"""

import os
import re
import struct
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_sysexit.identity import Value
from otel_sysexit.procfs import PROC

ATTRIBUTES_MAX: Final = 128
ELEMENTS_MAX: Final = 128
"""Of an array."""
TEXT_BYTES_MAX: Final = 4096
"""Of a key and of a text."""
PAYLOAD_BYTES_MAX: Final = 65536
"""As other readers have it; the OTEP sets no limit."""
_MAPS_BYTES_MAX: Final = 4 << 20
_MAPPINGS_MAX: Final = 4
"""Looked at; one is there to be published."""
_ATTEMPTS: Final = 3

# A line of maps (proc_pid_maps(5)) is a readable mapping that is not executable: shared memory or anonymous memory that
# prctl(2) has named, or, where the kernel gives no names, the file of memfd_create(2).
_MAPPING: Final = re.compile(
    rb"^([0-9a-f]+)-[0-9a-f]+ r.-. \S+ \S+ \d+ +(?:\[anon_shmem:OTEL_CTX\]|\[anon:OTEL_CTX\]|/memfd:OTEL_CTX)",
    re.MULTILINE,
)
_SIGNATURE: Final = b"OTEL_CTX"
_VERSION: Final = 2
_HEADER: Final = struct.Struct("=8sIIQQ")
# message ProcessContext { Resource resource = 1; repeated KeyValue attributes = 2; }
_RESOURCE_FIELD: Final = 1
_LENGTH_DELIMITED: Final = 2  # the wire type of messages
_SCALARS: Final = ("string_value", "bool_value", "int_value", "double_value")


@dataclass(frozen=True, slots=True)
class ProcessContext:
    """What a process says of itself."""

    attributes: dict[str, Value]
    """Of its Resource."""
    published_boot_ns: int
    """On the boot clock, as the process has it; a context that was changed has another time."""


class _Header(NamedTuple):
    """Where the context is and of what length, in the order of the mapping."""

    signature: bytes
    version: int
    payload_bytes: int
    published_boot_ns: int
    """0: it is being changed."""
    payload_address: int


def read_process_context(pid: int, proc: Path = PROC) -> ProcessContext | None:
    """
    Return what the process publishes now; None: nothing, nothing that is valid, or nothing that we may read.

    If its header or payload lies in a file whose file system does not answer, this waits, as reading its environment would.
    """
    addresses = _find_headers(f"{proc}/{pid}/maps")
    if not addresses:
        return None
    try:
        memory = os.open(f"{proc}/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        contexts = (_read_context(memory, address) for address in addresses)
        return next((context for context in contexts if context), None)
    finally:
        os.close(memory)


def _find_headers(maps_path: str) -> list[int]:
    """Return the addresses of the mappings that are called as the OTEP wants it."""
    try:
        with open(maps_path, "rb") as file:  # noqa: PTH123 (pathlib reads without a limit)
            maps = file.read(_MAPS_BYTES_MAX)
    except OSError:
        return []
    if _SIGNATURE not in maps:  # nearly all; the pattern takes longer than the kernel takes to write the file
        return []
    return [int(found[1], 16) for found in islice(_MAPPING.finditer(maps), _MAPPINGS_MAX)]


def _read_context(memory: int, address: int) -> ProcessContext | None:
    """Return the context whose header is at *address*; None: there is none, or it changed as often as we looked."""
    for _ in range(_ATTEMPTS):
        header = _read_header(memory, address)
        if header is None:
            return None
        if header.published_boot_ns:
            payload = _read_payload(memory, header)
            # What was read while it changed proves nothing, not even that it is malformed.
            if _read_header(memory, address) == header:
                attributes = None if payload is None else decode_attributes(payload)
                return None if attributes is None else ProcessContext(attributes, header.published_boot_ns)
    return None


def _read_header(memory: int, address: int) -> _Header | None:
    raw = _read_memory(memory, address, _HEADER.size)
    if raw is None:
        return None
    header = _Header(*_HEADER.unpack(raw))
    return header if (header.signature, header.version) == (_SIGNATURE, _VERSION) else None


def _read_payload(memory: int, header: _Header) -> bytes | None:
    if not 0 < header.payload_bytes <= PAYLOAD_BYTES_MAX:
        return None
    return _read_memory(memory, header.payload_address, header.payload_bytes)


def _read_memory(memory: int, address: int, size: int) -> bytes | None:
    """Return so many bytes of a process's memory; None: not all of them are mapped."""
    try:
        found = os.pread(memory, size, address)
    except (OSError, OverflowError):  # an address above all that files, and processes, can have
        return None
    return found if len(found) == size else None


def decode_attributes(payload: bytes) -> dict[str, Value] | None:
    """
    Return the Resource attributes of a serialized ProcessContext; None: it is malformed.

    Scalars and arrays of texts are kept, within the limits above. A text that is too long takes its attribute with it: half an
    identity would be another one.
    """
    try:
        resource = Resource.FromString(_split_resource(payload))
    except (DecodeError, UnicodeDecodeError):  # the second where protobuf has no compiled parser
        return None
    found: dict[str, Value] = {}
    for attribute in resource.attributes:
        value = _plain_value(attribute.value)
        if attribute.key and value is not None and _is_short(attribute.key):
            found[attribute.key] = value
        if len(found) == ATTRIBUTES_MAX:
            break
    return found


def _split_resource(payload: bytes) -> bytes:
    """
    Return the serialized Resource of a serialized ProcessContext, a message that opentelemetry-proto does not have yet.

    To an empty message all fields are unknown. A message in several pieces is their concatenation (protobuf's encoding,
    last one wins).
    """
    unknown = UnknownFieldSet(Empty.FromString(payload))
    fields = [unknown[index] for index in range(len(unknown))]
    if any(field.field_number == 0 for field in fields):  # no protobuf, but let pass: memory that is zero
        raise DecodeError
    return b"".join(
        field.data
        for field in fields
        if (field.field_number, field.wire_type) == (_RESOURCE_FIELD, _LENGTH_DELIMITED)
    )


def _plain_value(value: AnyValue) -> Value | None:
    """Return a value that we keep; None: it is empty, of another kind, or too long."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        elements = value.array_value.values
        kinds = {element.WhichOneof("value") for element in elements}
        texts = tuple(element.string_value for element in elements)
        is_kept = kinds <= {"string_value"} and len(texts) <= ELEMENTS_MAX and all(map(_is_short, texts))
        return texts if is_kept else None
    if kind not in _SCALARS:
        return None
    found: Value = getattr(value, kind)
    return None if isinstance(found, str) and not _is_short(found) else found


def _is_short(text: str) -> bool:
    return len(text.encode()) <= TEXT_BYTES_MAX
