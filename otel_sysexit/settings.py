"""
What can be set: a table of settings, and how each one's text becomes a value.

The command line, config.py and docs/environment.md are made from `SETTINGS`. A parser raises ValueError with one line; it reads
nothing but the files that are named in it.
"""

import mmap
import re
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from enum import IntEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from otel_sysexit.attributes import parse_switches
from otel_sysexit.benign import BenignErrors
from otel_sysexit.environment import parse_boolean, parse_headers, parse_milliseconds_ns
from otel_sysexit.kernel.contextmap import DEFAULT_PATH
from otel_sysexit.selections import (
    Durations,
    parse_duration_ns,
    parse_durations,
    parse_errnos,
    parse_selection,
)
from otel_sysexit.targets import (
    parse_cgroup,
    parse_comm,
    parse_container,
    parse_exe,
    parse_pid,
    parse_service_rule,
    parse_tid,
    parse_uid,
)

PREFIX: Final = "OTEL_SYSEXIT_"
BENIGN_ERRORS: Final = "EAGAIN,EINPROGRESS,EALREADY,EINTR,futex*:ETIMEDOUT,mq_timed*:ETIMEDOUT"
RING_BYTES: Final = {"run": 64 << 20, "attach": 16 << 20}
"""A command is over soon and may be fast; an agent stays on its host."""
MAX_RATE: Final = {"run": 0, "attach": 5_000}
MAX_RATE_MAX: Final = 10_000_000
SIGNALS: Final = frozenset({"traces", "logs"})
TREE_SPANS_MAX: Final = 10_000
TRACE_SPANS_MAX: Final = range(100, 1_000_001)
PROBABILITY_MIN: Final = Decimal(2) ** -32
STRING_LIMIT_MIN: Final = 128
STRING_LIMIT_MAX: Final = 4_096
_PAGE_SIZE: Final = mmap.PAGESIZE
_UNITS_BYTES: Final = {"": 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}


class Args(IntEnum):
    """What is recorded of arguments."""

    NONE = 0
    NUMBERS = 1
    DECODED = 2


def parse_ring_bytes(text: str) -> int:
    """
    Return the size of a ring such as `16MiB` in bytes: a power of two, 4 KiB to 1 GiB.

    Raises:
        ValueError: it is none.
    """
    found = re.fullmatch(r"(\d+)\s*([KMG]iB|B|)", text)
    size = int(found[1]) * _UNITS_BYTES[found[2]] if found else 0
    if size & (size - 1) or not _PAGE_SIZE <= size <= 1 << 30:
        raise ValueError(f"{text!r} is no ring size: write a power of two from 4KiB to 1GiB")
    return size


def parse_rings(text: str) -> int:
    """
    Return a number of rings, 1 to 8.

    Raises:
        ValueError: it is none.
    """
    if not re.fullmatch("[1-8]", text):
        raise ValueError(f"{text!r} is no number from 1 to 8")
    return int(text)


def parse_probability(text: str) -> float:
    """
    Return a probability such as `1/100`, `0.01`.

    Raises:
        ValueError: it is none above 0, or so small that no call would ever be kept.
    """
    numerator, slash, denominator = text.partition("/")
    try:  # a Fraction of 1e-99999999 has a hundred million digits
        probability = Decimal(numerator) / Decimal(denominator if slash else 1)
        is_rate = 0 < probability <= 1
    except ArithmeticError:
        is_rate = False
    if not is_rate:
        raise ValueError(f"{text!r} is no rate above 0 and up to 1: write 1/100 or 0.01")
    if probability < PROBABILITY_MIN:
        raise ValueError(f"{text!r} is too small a rate: at least 1/{1 << 32}")
    return float(probability)


def parse_kept_durations(text: str) -> Durations:
    """Return from when on calls are slow; raises ValueError."""
    durations = parse_durations(text)
    if (not durations.default_ns and not durations.by_call_ns) or 0 in durations.by_call_ns.values():
        raise ValueError(f"{text!r}: every call takes that long")
    return durations


def parse_period_ns(text: str) -> int:
    """Return a duration that is not 0, in ns; raises ValueError."""
    duration_ns = parse_duration_ns(text)
    if not duration_ns:
        raise ValueError(f"{text!r} is no time at all")
    return duration_ns


def parse_max_rate(text: str) -> int:
    """Return how many spans a second, 0 for `none`; raises ValueError."""
    if text.lower() == "none":
        return 0
    if not (text.isascii() and text.isdigit() and 0 < int(text) <= MAX_RATE_MAX):
        raise ValueError(f"{text!r} is no number of spans a second from 1 to {MAX_RATE_MAX}, nor none")
    return int(text)


def parse_spans_per_trace(text: str) -> int:
    """Return how many spans a trace of a tree has; raises ValueError."""
    if not (text.isascii() and text.isdigit() and int(text) in TRACE_SPANS_MAX):
        raise ValueError(f"{text!r} is no number of spans from {TRACE_SPANS_MAX[0]} to {TRACE_SPANS_MAX[-1]}")
    return int(text)


def parse_context_map(text: str) -> str:
    """Return `auto`, `none` or the path of a pinned map; raises ValueError."""
    if text.lower() in ("auto", "none"):
        return text.lower()
    if "/" not in text or "\0" in text:
        raise ValueError(f"{text!r} is neither auto nor none nor a path")
    return text


def parse_string_limit(text: str) -> int:
    """Return how many bytes of a string are kept; raises ValueError."""
    if not (text.isascii() and text.isdigit() and STRING_LIMIT_MIN <= int(text) <= STRING_LIMIT_MAX):
        raise ValueError(f"{text!r} is no number of bytes from {STRING_LIMIT_MIN} to {STRING_LIMIT_MAX}")
    return int(text)


def parse_signals(text: str) -> frozenset[str]:
    """Return which of OTLP's signals tell of calls; raises ValueError."""
    found = frozenset(word.strip().lower() for word in text.split(","))
    if not found <= SIGNALS:
        raise ValueError(f"{text!r} is not traces, logs or traces,logs")
    return found


def parse_endpoint(text: str) -> str:
    """Return *text* if it can be an endpoint; raises ValueError."""
    try:
        parts = urlsplit(text if "://" in text else f"//{text}")
        is_fine = bool(parts.hostname) and parts.scheme in ("http", "https", "") and parts.port != 0
    except ValueError:
        is_fine = False
    if not is_fine or re.search(r"\s", text):
        raise ValueError(f"{text!r} is no endpoint: write http://host:4318 or https://host:4317")
    return text


def parse_file(text: str) -> str:
    """Return the path of a file that can be read; raises ValueError."""
    try:
        Path(text).read_bytes()
    except OSError as error:
        raise ValueError(f"cannot read {text!r}: {error.strerror}") from error
    return text


def parse_pem(text: str) -> str:
    """Return the path of a file of certificates or keys that can be read; raises ValueError."""
    if b"-----BEGIN " not in Path(parse_file(text)).read_bytes():
        raise ValueError(f"{text!r} is no PEM file")
    return text


def parse_output(text: str) -> str:
    """Return the path of a file to write; raises ValueError."""
    if text == "-":
        raise ValueError("the command has standard output; for ours write /dev/stdout")
    return text


def parse_cache_dir(text: str) -> str | None:
    """Return the absolute path of a folder, None for `off`; raises ValueError."""
    if text.lower() == "off":
        return None
    if not text.startswith("/"):
        raise ValueError(f"{text!r} is neither an absolute path nor off")
    return text


def one_of(*choices: str) -> Callable[[str], str]:
    """Return a parser for one word of *choices*, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"{text!r} is not one of {', '.join(choices)}")
        return text.lower()

    return parse


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set."""

    name: str
    """Field of Config, and with dashes the option."""
    parse: Callable[[str], Any]
    help: str
    metavar: str = ""
    """Empty: a flag."""
    default: str = ""
    """For people."""
    otel: tuple[str, ...] = ()
    """OTEL_* variables, the first has precedence."""
    parse_otel: Callable[[str], Any] | None = None
    """Where an OTEL_* variable is written in another way."""
    commands: tuple[str, ...] = ("run", "attach")
    is_list: bool = False
    option: str = ""
    short: str = ""

    @property
    def flag(self) -> str:
        """The option, with its dashes."""
        return "--" + (self.option or self.name.replace("_", "-"))

    @property
    def variable(self) -> str:
        """Our own environment variable."""
        return PREFIX + (self.option or self.name).replace("-", "_").upper()


def _otlp(name: str) -> tuple[str, str]:
    return (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}")


SETTINGS: Final = (
    Setting("exporter", one_of("terminal", "otlp", "none"), "Where calls go. With an endpoint: otlp; with --output alone: none.", "KIND", "terminal", ("OTEL_TRACES_EXPORTER",), one_of("otlp", "console", "none")),
    Setting("endpoint", parse_endpoint, "Collector to send to; /v1/traces is added for HTTP.", "URL", "http://localhost:4318, gRPC: http://localhost:4317", _otlp("ENDPOINT")),
    Setting("protocol", one_of("grpc", "http/protobuf"), "OTLP's transport.", "NAME", "http/protobuf; grpc if the endpoint's port is 4317", _otlp("PROTOCOL")),
    Setting("headers", parse_headers, "Header to send with each request; may be repeated.", "K=V", "", _otlp("HEADERS"), is_list=True, option="header"),
    Setting("compression", one_of("none", "gzip"), "Of requests.", "NAME", "none", _otlp("COMPRESSION")),
    Setting("timeout_ns", parse_duration_ns, "Of an export, its retries included.", "DURATION", "10s", _otlp("TIMEOUT"), parse_milliseconds_ns, option="timeout"),
    Setting("insecure", parse_boolean, "No TLS for a gRPC endpoint without a scheme.", otel=_otlp("INSECURE")),
    Setting("certificate", parse_pem, "CA certificates to trust (PEM).", "FILE", "the system's", _otlp("CERTIFICATE")),
    Setting("client_key", parse_pem, "Private key for mutual TLS (PEM).", "FILE", "", _otlp("CLIENT_KEY")),
    Setting("client_certificate", parse_pem, "Certificate for mutual TLS (PEM).", "FILE", "", _otlp("CLIENT_CERTIFICATE")),
    Setting("output", parse_output, "Write OTLP JSON lines to FILE, and no summary.", "FILE", short="-o"),
    Setting("live", parse_boolean, "Print each call as it happens, one line."),
    Setting("quiet", parse_boolean, "Print nothing at the end but errors.", short="-q"),
    Setting("syscalls", parse_selection, "Only these: names, globs, classes, '!' takes away: 'openat,read*,%net,!futex'.", "SET", "all"),
    Setting("min_duration", parse_durations, "Only calls that took at least this long; for some another time: '1ms,read=10ms'. Without a first time all others are recorded.", "LIST", "0s"),
    Setting("errors_only", parse_boolean, "Only calls that failed, benignly or not."),
    Setting("errnos", parse_errnos, "Only calls that failed with one of these: 'ENOENT,EACCES'; '!EAGAIN': all but those that failed so.", "LIST", option="errno"),
    Setting("sample", parse_probability, "Keep a random part of the calls: 1/100 or 0.01. Each says what it stands for.", "RATE", "1"),
    Setting("max_rate", parse_max_rate, "Keep about so many calls a second, by sampling; none: all.", "N", "none; attach: 5000"),
    Setting("keep_errors", parse_boolean, "Never sample out calls that failed (but for what --benign-errors says of every call)."),
    Setting("keep_slow", parse_kept_durations, "Never sample out calls that took at least this long; '10ms,fsync=1ms'.", "LIST"),
    Setting("args", lambda text: Args[one_of(*(args.name.lower() for args in Args))(text).upper()], "Arguments: none, numbers, or decoded: paths, addresses, descriptors, flags by name.", "KIND", "decoded"),
    Setting("command_args", parse_boolean, "Record the whole command line of each program. It may hold secrets. Short for --attributes process.command_args=on."),
    Setting("attributes", parse_switches, "Switch attributes on or off, by name or pattern: 'process.owner=off,host.*=off,process.linux.cgroup=on'; may be repeated.", "LIST", "all but opt-in ones", is_list=True),
    Setting("service_rules", parse_service_rule, "Name of services that do not name themselves, by the executable's path or a pattern: '/usr/lib/postgresql/*=orders-db'; may be repeated, the first that matches counts.", "PATH=NAME", is_list=True, option="service-name"),
    Setting("unknown_service", parse_boolean, "Call a service without a name unknown_service:<executable>, as SDKs do, instead of <executable>."),
    Setting("string_limit", parse_string_limit, "Bytes of a path that are kept, 128 to 4096.", "BYTES", "256"),
    Setting("benign_errors", BenignErrors, "Failures that are no errors: ERRNO or GLOB:ERRNO.", "LIST", BENIGN_ERRORS),
    Setting("signals", parse_signals, "How calls are told: traces (a span each), logs (a record each), or both: 'traces,logs'.", "LIST", "traces"),
    Setting("trace_structure", one_of("auto", "tree", "window", "flat"), "One trace of the command and all its processes (tree); a trace for each process and window of time (window); one for each call (flat); or what fits (auto).", "KIND", "tree; with --max-rate, and for attach: window"),
    Setting("spans_per_trace", parse_spans_per_trace, "A larger tree goes on in further, linked traces.", "N", str(TREE_SPANS_MAX), commands=("run",), option="max-spans-per-trace"),
    Setting("trace_context_map", parse_context_map, f"Pinned map in which OpenTelemetry eBPF Instrumentation says which span each thread is in: calls go below it. auto: {DEFAULT_PATH}, if it is there; none: they do not.", "PATH", "auto"),
    Setting("stuck_after_ns", parse_duration_ns, "Report each call that has not returned after this long, and again at twice, four times, ...", "DURATION", "never", option="stuck-after"),
    Setting("ring_bytes", parse_ring_bytes, "Buffer for calls between kernel and agent, a power of two.", "SIZE", "64MiB; attach: 16MiB", option="ring-size"),
    Setting("rings", parse_rings, "Buffers that CPUs write calls to in groups, 1 to 8; each has its part of that size.", "NUMBER", "one for 16 CPUs"),
    Setting("schedule_delay_ns", parse_duration_ns, "How long calls are gathered for a batch while they are few; with --live not at all.", "DURATION", "1s", ("OTEL_BSP_SCHEDULE_DELAY",), parse_milliseconds_ns, option="schedule-delay"),
    Setting("flush_timeout_ns", parse_duration_ns, "After the end, how long to wait while nothing can be delivered.", "DURATION", "5s", option="flush-timeout"),
    Setting("bcc_python", str, "Python interpreter that has bcc.", "FILE", "this one, else /usr/bin/python3"),
    Setting("cache_dir", parse_cache_dir, "Where compiled programs are kept, for a faster next start; off: nowhere.", "DIR", "/var/cache/otel-sysexit; without root: below XDG_CACHE_HOME, else ~/.cache", option="cache"),
    *(
        Setting(f"{side}{name}", parse, text, metavar, commands=commands, is_list=True, option=f"{side}{name}".replace("_", "-"))
        for side, commands in (("", ("attach",)), ("not_", ("run", "attach")))
        for name, parse, text, metavar in (
            ("pid", parse_pid, "Process, with all its threads.", "PID"),
            ("tid", parse_tid, "Thread.", "TID"),
            ("comm", parse_comm, "Name of a thread, or of its process's main thread; 15 bytes count.", "NAME"),
            ("exe", parse_exe, "Executable: its path, or a pattern with * and ?.", "PATH"),
            ("uid", parse_uid, "Real user, by id or name.", "USER"),
            ("cgroup", parse_cgroup, "Cgroup, with all below it.", "PATH"),
            ("container", parse_container, "Container, by its id or the beginning of it.", "ID"),
        )
    ),
    Setting("is_all", parse_boolean, "Every process of the host, but us.", commands=("attach",), option="all"),
    Setting("no_follow", parse_boolean, "Leave out children, unless they are chosen themselves."),
    Setting("duration_ns", parse_period_ns, "Detach after this time.", "DURATION", "until the last target ends", commands=("attach",), option="duration"),
)  # fmt: skip
