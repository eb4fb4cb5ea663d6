"""A program in a process → an OTLP Resource, serialized."""

import platform
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from uuid import UUID, uuid5

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

from otel_sysexit import __version__
from otel_sysexit import attributes as names
from otel_sysexit.attributes import DEFAULT_ATTRIBUTES, AttributeSelection
from otel_sysexit.config import Config
from otel_sysexit.identity import Image, Process, Value
from otel_sysexit.imports import without
from otel_sysexit.targets import ServiceRule

if (
    find_spec("_md5") and find_spec("_sha1") and (find_spec("_sha2") or find_spec("_sha256"))
):  # not all Pythons have their own
    with without("_hashlib"):  # which will do for a UUID
        import hashlib  # noqa: F401 (uuid5 imports it)

_GO_ARCHITECTURES: Final = {"x86_64": "amd64", "aarch64": "arm64"}
_ATTRIBUTES_MAX: Final = 1_024
"""Attributes of Resources, with their values, that are kept serialized."""
_INSTANCE_NAMESPACE: Final = UUID("4d63009a-8d0f-11ee-aad7-4c796ed8e320")
# What was observed is never overridden by anybody's OTEL_RESOURCE_ATTRIBUTES.
_OBSERVED: Final = ("process.", "otel_sysexit.", "host.", "os.", "telemetry.", "container.", "k8s.")


def key_value(key: str, value: Value) -> KeyValue:
    """Return an attribute as OTLP has it; texts must be valid UTF-8."""
    if isinstance(value, tuple):
        return KeyValue(
            key=key,
            value=AnyValue(array_value=ArrayValue(values=[AnyValue(string_value=text) for text in value])),
        )
    if isinstance(value, bool):
        return KeyValue(key=key, value=AnyValue(bool_value=value))
    if isinstance(value, int):
        return KeyValue(key=key, value=AnyValue(int_value=value))
    if isinstance(value, float):
        return KeyValue(key=key, value=AnyValue(double_value=value))
    return KeyValue(key=key, value=AnyValue(string_value=value))


@cache
def host_attributes() -> Mapping[str, str]:
    """Return what is the same for every process of this host."""
    found = {
        names.HOST_NAME: socket.gethostname(),
        names.HOST_ARCH: _GO_ARCHITECTURES.get(platform.machine(), platform.machine()),
        names.OS_TYPE: "linux",
        names.DISTRO_NAME: "otel_sysexit",
        names.DISTRO_VERSION: __version__,
    }
    for path in (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id")):
        try:
            found[names.HOST_ID] = path.read_text(encoding="ascii").strip()
            break
        except OSError:
            continue
    return {key: value for key, value in found.items() if value}


@dataclass(frozen=True, slots=True)
class ResourceRules:
    """What the user wants of Resources."""

    extra: Mapping[str, str] = field(default_factory=dict)
    """The agent's own OTEL_RESOURCE_ATTRIBUTES: lowest priority, never service.*, never over what was observed."""
    attributes: AttributeSelection = DEFAULT_ATTRIBUTES
    service_rules: Sequence[ServiceRule] = ()
    """Names of services by executable, the first that matches counts."""
    is_unknown_service: bool = False
    """Whether a service without a name is called as SDKs call it: `unknown_service:nginx`."""


DEFAULT_RULES: Final = ResourceRules()


def rules_of(config: Config) -> ResourceRules:
    """Return what was asked for."""
    return ResourceRules(
        config.resource_attributes, config.attributes, config.service_rules, config.unknown_service
    )


def image_attributes(image: Image, rules: ResourceRules) -> dict[str, Value]:
    """Return the Resource attributes of *image*."""
    process = image.process
    given = {key: value for key, value in rules.extra.items() if not key.startswith("service.")}
    found: dict[str, Value] = {
        key: value
        for key, value in {**given, **image.environment_attributes, **image.context_attributes}.items()
        if not key.startswith(_OBSERVED)
    }
    found.setdefault(names.SERVICE_INSTANCE_ID, instance_id(process))
    found[names.SERVICE_NAME] = _service_name(image, rules)
    found[names.PROCESS_PID] = process.pid
    found[names.PROCESS_CREATION_TIME] = iso_8601(process.start_unix_ns)
    if process.parent_pid is not None:
        found[names.PROCESS_PARENT_PID] = process.parent_pid
    found[names.PROCESS_EXECUTABLE_NAME] = image.executable_name
    known = {
        names.PROCESS_EXECUTABLE_PATH: image.executable_path,
        names.PROCESS_COMMAND: image.command,
        names.PROCESS_COMMAND_ARGS: image.command_args,
        names.PROCESS_OWNER: image.owner,
        names.PROCESS_LINUX_CGROUP: image.cgroup_line,
        names.CONTAINER_ID: image.container_id,
        names.K8S_POD_UID: image.pod_uid,
    }
    found |= {key: value for key, value in known.items() if value}
    for effective_key, effective, real_key, real in (
        (names.PROCESS_USER_ID, image.user_id, names.PROCESS_REAL_USER_ID, image.real_user_id),
        (names.PROCESS_GROUP_ID, image.group_id, names.PROCESS_REAL_GROUP_ID, image.real_group_id),
    ):
        if effective is not None:
            found[effective_key] = effective
        if real is not None and real != effective:
            found[real_key] = real
    if process.vpid and process.vpid != process.pid:
        found[names.PROCESS_VPID] = process.vpid
    found |= host_attributes()
    return {key: value for key, value in found.items() if rules.attributes.has(key)}


def _service_name(image: Image, rules: ResourceRules) -> Value:
    """Return what it says itself, in the order of docs/attributes.md; else what the user says of it, else what runs."""
    said = image.context_attributes.get(names.SERVICE_NAME) or image.service_name
    if said:
        return said
    for rule in rules.service_rules:
        if rule.matches(image.executable_path or ""):
            return rule.name
    return f"unknown_service:{image.executable_name}" if rules.is_unknown_service else image.executable_name


def instance_id(process: Process) -> str:
    """Return the UUID of a process: the same whenever it is observed (semantic conventions, registry of service)."""
    host_id = host_attributes().get(names.HOST_ID, "")
    inherent = f"{host_id}:{_boot_id()}:{process.pid}:{process.start_ticks}"
    return str(uuid5(_INSTANCE_NAMESPACE, inherent))


@cache
def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def iso_8601(unix_ns: int) -> str:
    """Return a wall-clock time as text, in UTC with ns."""
    seconds, ns = divmod(unix_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09d}Z"


def encode_resource(image: Image, rules: ResourceRules) -> bytes:
    """Return the serialized Resource of *image*."""
    return b"".join(_encode_attribute(key, value) for key, value in image_attributes(image, rules).items())


@lru_cache(_ATTRIBUTES_MAX, typed=True)
def _encode_attribute(key: str, value: Value) -> bytes:
    """Return a Resource of one attribute, serialized: several one behind the other are one of all (protobuf's encoding). Most are those of many processes."""
    return Resource(attributes=[key_value(key, _with_valid_text(value))]).SerializeToString()


def _with_valid_text(value: Value) -> Value:
    """Return *value* with texts made valid UTF-8."""
    if isinstance(value, tuple):
        return tuple(text.encode(errors="backslashreplace").decode() for text in value)
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value
