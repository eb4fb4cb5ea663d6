"""
Options and environment → one frozen Config.

The only reader of the environment. For each setting (settings.py) the order is: option, OTEL_SYSEXIT_<OPTION>, the OTEL_* variables
named with it, default. An empty variable is an unset one (specification, configuration/common.md). What is wrong in an
option or in a variable of ours is an error; what is wrong in an OTEL_* variable is warned of and ignored, as the
specification wants.
"""

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote, urlsplit, urlunsplit

from otel_sysexit.attributes import DEFAULT_ATTRIBUTES, PROCESS_COMMAND_ARGS, AttributeSelection
from otel_sysexit.benign import BenignErrors
from otel_sysexit.environment import check_headers, parse_headers, parse_pairs
from otel_sysexit.errors import UsageError
from otel_sysexit.kernel.records import STRING_LIMIT_DEFAULT
from otel_sysexit.propagation import TraceContext, parse_trace_context
from otel_sysexit.selections import Durations, ErrnoSet, Selection
from otel_sysexit.settings import (
    BENIGN_ERRORS,
    MAX_RATE,
    RING_BYTES,
    SETTINGS,
    TREE_SPANS_MAX,
    Args,
    Setting,
    parse_endpoint,
)
from otel_sysexit.targets import Selectors, ServiceRule

_TRACES_PATH: Final = "/v1/traces"
_NOT_OF_LOGS: Final = (
    *("PROTOCOL", "TIMEOUT", "COMPRESSION", "INSECURE"),
    *("CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"),
)
_LOGS_ENDPOINT: Final = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that was asked for, checked."""

    exporter: str = "terminal"
    """`terminal`, `otlp` or `none`."""
    endpoint: str | None = None
    """Full URL of the traces endpoint for HTTP; scheme, host and port for gRPC."""
    protocol: str = "http/protobuf"
    headers: Mapping[str, str] = field(default_factory=dict)
    logs_endpoint: str | None = None
    """As `endpoint`, for log records; None: they go to no collector."""
    logs_headers: Mapping[str, str] = field(default_factory=dict)
    compression: str = "none"
    timeout_ns: int = 10 * 10**9
    insecure: bool = False
    certificate: str | None = None
    client_key: str | None = None
    client_certificate: str | None = None
    output: str | None = None
    live: bool = False
    quiet: bool = False
    syscalls: Selection | None = None
    min_duration: Durations | None = None
    errors_only: bool = False
    errnos: ErrnoSet | None = None
    sample: float = 1.0
    """Probability with which a call is kept."""
    max_rate: int = 0
    """Spans a second, about; 0: as many as there are."""
    keep_errors: bool = False
    keep_slow: Durations | None = None
    args: Args = Args.DECODED
    attributes: AttributeSelection = DEFAULT_ATTRIBUTES
    service_rules: Sequence[ServiceRule] = ()
    """Names of services by executable, the first that matches counts."""
    unknown_service: bool = False
    string_limit: int = STRING_LIMIT_DEFAULT
    """Bytes."""
    benign_errors: BenignErrors = field(default_factory=lambda: BenignErrors(BENIGN_ERRORS))
    signals: frozenset[str] = frozenset({"traces"})
    """How calls are told: `traces`, `logs` or both."""
    trace_structure: str = "auto"
    """`tree`, `window` or `flat`; `auto` until it is resolved."""
    spans_per_trace: int = TREE_SPANS_MAX
    """Of a tree."""
    trace_context_map: str = "auto"
    """`auto`, `none`, or where the map is pinned that must be there."""
    stuck_after_ns: int = 0
    """0: never."""
    ring_bytes: int = RING_BYTES["attach"]
    rings: int = 0
    """For calls; 0: as many as are good for the CPUs that there are."""
    schedule_delay_ns: int = 10**9
    """How long calls may wait for others."""
    flush_timeout_ns: int = 5 * 10**9
    bcc_python: str | None = None
    cache_dir: str | None = None
    """Folder of compiled programs; None: none are kept."""
    chosen: Selectors = field(default_factory=Selectors)
    excluded: Selectors = field(default_factory=Selectors)
    is_all: bool = False
    follows_children: bool = True
    duration_ns: int | None = None
    resource_attributes: Mapping[str, str] = field(default_factory=dict)
    trace_context: TraceContext | None = None
    """Of who starts us, and so the command (TRACEPARENT)."""
    warnings: Sequence[str] = ()

    @property
    def has_both_signals(self) -> bool:
        """Whether calls are told as spans and as log records."""
        return len(self.signals) > 1

    @property
    def has_command_args(self) -> bool:
        """Whether whole command lines are wanted."""
        return self.attributes.has(PROCESS_COMMAND_ARGS)


def resolve(command: str, options: Mapping[str, Any], environ: Mapping[str, str]) -> Config:
    """
    Return the Config for *command* (`run` or `attach`).

    Args:
        command: Which settings count.
        options: By Setting.name what the command line gave: text, a list of texts, or True for a flag.
        environ: The environment.

    Raises:
        UsageError: one line: which option or variable is wrong, and how.
    """
    given: dict[str, Any] = {}
    warnings: list[str] = []
    for setting in SETTINGS:
        if command in setting.commands:
            found, value = _look_up(setting, options, environ, warnings)
            if found:
                given[setting.name] = value
    if environ.get("OTEL_CONFIG_FILE"):
        raise UsageError(
            "OTEL_CONFIG_FILE is set, which would make all other OTEL_* variables void, and is not supported: unset it"
        )
    given["resource_attributes"] = _own_resource_attributes(environ, warnings)
    given["trace_context"] = _own_trace_context(environ, warnings) if command == "run" else None
    given.setdefault("ring_bytes", RING_BYTES[command])
    given.setdefault("max_rate", MAX_RATE[command])
    given.setdefault("cache_dir", _default_cache_dir(environ))
    given["trace_structure"] = _settle_structure(command, given)
    given["chosen"], given["excluded"] = _take_selectors(given, ""), _take_selectors(given, "not_")
    given["attributes"] = _take_attributes(given)
    given["follows_children"] = not given.pop("no_follow", False)

    ours = {
        setting.name for setting in SETTINGS if options.get(setting.name) or environ.get(setting.variable)
    }
    _settle_exporter(given, environ, is_ours="exporter" in ours)
    _settle_endpoint(given, environ, is_ours="endpoint" in ours)
    _settle_logs(given, environ, warnings, ours)
    is_asked = given["exporter"] == "otlp" or not ours.isdisjoint(("client_key", "client_certificate"))
    if is_asked and ("client_key" in given) != ("client_certificate" in given):
        raise UsageError("mutual TLS needs both --client-key and --client-certificate")
    return Config(**given, warnings=tuple(warnings))


def _default_cache_dir(environ: Mapping[str, str]) -> str | None:
    """Root has the host's folder, as its home may be a user's (sudo); others have theirs, if they have a home."""
    if os.geteuid() == 0:
        return "/var/cache/otel-sysexit"
    base, home = environ.get("XDG_CACHE_HOME", ""), environ.get("HOME", "")
    if base.startswith("/"):  # others are to be ignored (XDG Base Directory Specification)
        return f"{base}/otel-sysexit"
    return f"{home}/.cache/otel-sysexit" if home.startswith("/") else None


def _settle_structure(command: str, given: Mapping[str, Any]) -> str:
    """A tree needs a command as its root, and is one trace, which has one sampling threshold."""
    structure: str = given.get("trace_structure", "auto")
    if structure == "tree" and command != "run":
        raise UsageError("--trace-structure tree needs a command as its root: write window or flat")
    if structure == "tree" and given["max_rate"]:
        raise UsageError(
            "--trace-structure tree cannot be sampled at changing rates (--max-rate): write window or flat"
        )
    if structure == "auto":
        return "tree" if command == "run" and not given["max_rate"] else "window"
    return structure


def _take_selectors(given: dict[str, Any], side: str) -> Selectors:
    names = ("pid", "tid", "comm", "exe", "uid", "cgroup", "container")
    return Selectors(**{f"{name}s": given.pop(f"{side}{name}", ()) for name in names})


def _take_attributes(given: dict[str, Any]) -> AttributeSelection:
    switches = [switch for switches in given.pop("attributes", ()) for switch in switches]
    if given.pop("command_args", False):
        switches.insert(0, (PROCESS_COMMAND_ARGS, True))
    return AttributeSelection(tuple(switches))


def _own_resource_attributes(environ: Mapping[str, str], warnings: list[str]) -> dict[str, str]:
    try:
        return parse_pairs(environ.get("OTEL_RESOURCE_ATTRIBUTES", ""))
    except ValueError as error:
        warnings.append(f"OTEL_RESOURCE_ATTRIBUTES is ignored: {error}")
        return {}


def _own_trace_context(environ: Mapping[str, str], warnings: list[str]) -> TraceContext | None:
    try:
        return parse_trace_context(environ)
    except ValueError as error:
        warnings.append(f"TRACEPARENT is ignored: {error}")
        return None


def _look_up(
    setting: Setting, options: Mapping[str, Any], environ: Mapping[str, str], warnings: list[str]
) -> tuple[bool, Any]:
    """Return whether *setting* was given, and its value by precedence."""
    option = options.get(setting.name)
    if option:
        texts = list(option) if setting.is_list else ["true" if option is True else option]
        return True, _parse_own(setting, setting.flag, texts)
    own = environ.get(setting.variable)
    if own:
        return True, _parse_own(setting, setting.variable, own.split(",") if setting.is_list else [own])
    value = _look_up_otel(setting.otel, setting.parse_otel or setting.parse, environ, warnings)
    return value is not None, value


def _look_up_otel(
    variables: Sequence[str], parse: Callable[[str], Any], environ: Mapping[str, str], warnings: list[str]
) -> Any:
    """Return the value of the first of OTEL_* *variables* that has a valid one; None: none has."""
    for variable in variables:
        text = environ.get(variable)
        if text:
            try:
                return parse(text)
            except ValueError as error:
                warning = f"{variable} is ignored: {error}"
                if warning not in warnings:
                    warnings.append(warning)
    return None


def _parse_own(setting: Setting, source: str, texts: list[str]) -> Any:
    try:
        if setting.name == "headers":
            return _parse_headers(source, texts)
        values = [setting.parse(text.strip() if setting.is_list else text) for text in texts]
    except ValueError as error:
        raise UsageError(f"{source}: {error}") from error
    return values if setting.is_list else values[0]


def _parse_headers(source: str, texts: list[str]) -> dict[str, str]:
    """Return headers: an option is one, so commas are its own; a variable is a list. Values are percent-decoded."""
    if not source.startswith("--"):
        return parse_headers(",".join(texts))
    headers = {}
    for text in texts:
        name, is_pair, value = text.partition("=")
        if not is_pair or not name.strip():
            raise ValueError(f"{text!r} is not name=value")
        headers[name.strip()] = unquote(value.strip())
    return check_headers(headers)


def _settle_exporter(given: dict[str, Any], environ: Mapping[str, str], *, is_ours: bool) -> None:
    """An endpoint means otlp; OTEL_SDK_DISABLED means none; a file alone means no terminal view."""
    if environ.get("OTEL_SDK_DISABLED", "").lower() == "true" and not is_ours:
        given["exporter"] = "none"
    if given.get("signals") == {"logs"} and not is_ours and "exporter" in given:
        # What OTEL_TRACES_EXPORTER says is said of spans.
        del given["exporter"]
        if environ.get("OTEL_LOGS_EXPORTER", "").lower() in ("otlp", "console"):
            given["exporter"] = environ["OTEL_LOGS_EXPORTER"].lower()
    if given.get("exporter") == "console":
        given["exporter"] = "terminal"
    if "exporter" not in given:
        is_for_logs = "logs" in given.get("signals", ()) and environ.get(_LOGS_ENDPOINT)
        is_sent = "endpoint" in given or is_for_logs
        given["exporter"] = "otlp" if is_sent else "none" if "output" in given else "terminal"


def _settle_endpoint(given: dict[str, Any], environ: Mapping[str, str], *, is_ours: bool) -> None:
    """Protocol by port, endpoint by protocol, path by where the endpoint came from."""
    endpoint = given.get("endpoint")
    if "protocol" not in given:
        port = urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").port if endpoint else None
        given["protocol"] = "grpc" if port == 4317 else "http/protobuf"
    is_http = given["protocol"] == "http/protobuf"
    if endpoint is None:
        endpoint = "http://localhost:4318" if is_http else "http://localhost:4317"
    if is_http and "://" not in endpoint and given["exporter"] == "otlp":
        raise UsageError(f"the endpoint {endpoint!r} needs http:// or https:// before it")
    is_whole = not is_ours and endpoint == environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    given["endpoint"] = _with_path(endpoint, "traces") if is_http and not is_whole else endpoint


def _settle_logs(
    given: dict[str, Any], environ: Mapping[str, str], warnings: list[str], ours: Collection[str]
) -> None:
    """Log records go where spans go, unless a variable for logs, or for all signals, says otherwise."""
    wants_logs = "logs" in given.get("signals", ())
    if wants_logs:
        warnings += [
            f"{variable} is ignored: log records are sent as spans are, but for endpoint and headers"
            for variable in (f"OTEL_EXPORTER_OTLP_LOGS_{name}" for name in _NOT_OF_LOGS)
            if environ.get(variable)
        ]
    exporter = environ.get("OTEL_LOGS_EXPORTER", "").lower()
    if exporter not in ("", "otlp", "console", "none"):
        warnings.append(f"OTEL_LOGS_EXPORTER is ignored: {exporter!r} is not one of otlp, console, none")
    if exporter == "none" and not wants_logs:
        return
    is_http = given["protocol"] == "http/protobuf"
    whole = base = None
    if "endpoint" not in ours:
        whole = _look_up_otel([_LOGS_ENDPOINT], _parser_of_endpoints(is_http=is_http), environ, warnings)
        base = _look_up_otel(["OTEL_EXPORTER_OTLP_ENDPOINT"], parse_endpoint, environ, warnings)
    endpoint = whole or base or given["endpoint"]
    if is_http and not whole:
        if not base and not urlsplit(endpoint).path.endswith(_TRACES_PATH):
            if wants_logs and given["exporter"] == "otlp":
                raise UsageError(f"--signals: log records have no endpoint: set {_LOGS_ENDPOINT}")
            if given.get("stuck_after_ns"):
                warnings.append(f"log records go to no collector: set {_LOGS_ENDPOINT}")
            return
        endpoint = _with_path(endpoint, "logs")
    given["logs_endpoint"] = endpoint
    # Headers for spans alone may hold a secret that only their collector is to know.
    is_same = "headers" in ours or not (whole or base)
    fallback = given.get("headers", {}) if is_same else {}
    variables = ["OTEL_EXPORTER_OTLP_LOGS_HEADERS", *([] if is_same else ["OTEL_EXPORTER_OTLP_HEADERS"])]
    found = None if "headers" in ours else _look_up_otel(variables, parse_headers, environ, warnings)
    given["logs_headers"] = fallback if found is None else found


def _parser_of_endpoints(*, is_http: bool) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if is_http and "://" not in text:
            raise ValueError(f"{text!r} needs http:// or https:// before it")
        return parse_endpoint(text)

    return parse


def _with_path(endpoint: str, signal: str) -> str:
    """Return the URL of a signal below the base *endpoint*, or beside that for traces (specification, protocol/exporter.md)."""
    parts = urlsplit(endpoint)
    path = parts.path.rstrip("/").removesuffix(_TRACES_PATH)
    return urlunsplit((parts.scheme, parts.netloc, f"{path}/v1/{signal}", parts.query, ""))
