"""Options and environment → Config: who wins, what counts as unset, what is refused and what is only warned of."""

import os
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from otel_sysexit.benign import BenignErrors
from otel_sysexit.config import Config, resolve
from otel_sysexit.errors import UsageError
from otel_sysexit.selections import Durations, ErrnoSet, parse_selection
from otel_sysexit.settings import SETTINGS, Args, Setting
from otel_sysexit.syscalls import Abi
from otel_sysexit.targets import Selectors, ServiceRule

WHOLE_ENDPOINT = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
FILES = ("one.pem", "two.pem")


@dataclass(frozen=True)
class Sample:
    """One value of a setting: as we write it, as an OTEL_* variable does where that differs, and in the Config."""

    text: str
    value: Any
    otel: str = ""


# By setting: two values that differ, and a text that is wrong ("": none is).
SELECTORS: dict[str, tuple[Sample, Sample, str]] = {
    "pid": (Sample("1", [1]), Sample("2, 3", [2, 3]), "zero"),
    "tid": (Sample("1", [1]), Sample("2,3", [2, 3]), "0"),
    "comm": (Sample("sh", [b"sh"]), Sample("a,0123456789abcdefg", [b"a", b"0123456789abcde"]), ""),
    "exe": (Sample("/bin/sh", [b"/bin/sh"]), Sample("*/a?,/b", [b"*/a?", b"/b"]), "bin/sh"),
    "uid": (Sample("0", [0]), Sample("root,7", [0, 7]), "nobody of that name"),
    "cgroup": (Sample("/a/b/", ["/a/b"]), Sample("c,/d", ["/c", "/d"]), "/a/../b"),
    "container": (Sample("ABCD", ["abcd"]), Sample("docker://0123,45678", ["0123", "45678"]), "web"),
}
SAMPLES: dict[str, tuple[Sample, Sample, str]] = {
    "exporter": (Sample("terminal", "terminal", "console"), Sample("none", "none"), "zipkin"),
    "endpoint": (
        Sample("http://one:1", "http://one:1/v1/traces"),
        Sample("http://two:2", "http://two:2/v1/traces"),
        "ftp://one",
    ),
    "protocol": (Sample("grpc", "grpc"), Sample("http/protobuf", "http/protobuf"), "http/json"),
    "headers": (Sample("a=1", {"a": "1"}), Sample("b=2", {"b": "2"}), "nothing"),
    "compression": (Sample("gzip", "gzip"), Sample("none", "none"), "brotli"),
    "timeout_ns": (Sample("1s", 10**9, "1000"), Sample("2ms", 2 * 10**6, "2"), "soon"),
    "insecure": (Sample("true", True), Sample("false", False), "yes"),
    "certificate": (Sample(FILES[0], FILES[0]), Sample(FILES[1], FILES[1]), "missing.pem"),
    "client_key": (Sample(FILES[0], FILES[0]), Sample(FILES[1], FILES[1]), "missing.pem"),
    "client_certificate": (Sample(FILES[0], FILES[0]), Sample(FILES[1], FILES[1]), "missing.pem"),
    "output": (Sample("one.jsonl", "one.jsonl"), Sample("two.jsonl", "two.jsonl"), ""),
    "live": (Sample("true", True), Sample("false", False), "1"),
    "quiet": (Sample("true", True), Sample("false", False), "1"),
    "syscalls": (
        Sample("openat", parse_selection("openat")),
        Sample("%net", parse_selection("%net")),
        "opennat",
    ),
    "min_duration": (
        Sample("1ms", Durations(10**6)),
        Sample("1.5us,read@x32=2s", Durations(1500, {(Abi.X32, "read"): 2 * 10**9})),
        "1",
    ),
    "errors_only": (Sample("true", True), Sample("false", False), "on"),
    "errnos": (
        Sample("enoent,EACCES", ErrnoSet(frozenset({2, 13}), includes_successes=False)),
        Sample("!EAGAIN", ErrnoSet(frozenset(range(1, 4096)) - {11}, includes_successes=True)),
        "EWHAT",
    ),
    "sample": (Sample("1/100", 0.01), Sample("0.5", 0.5), "0"),
    "max_rate": (Sample("none", 0), Sample("100", 100), "0"),
    "keep_errors": (Sample("true", True), Sample("false", False), "TRUE!"),
    "keep_slow": (Sample("10ms", Durations(10**7)), Sample("1s", Durations(10**9)), "read=1"),
    "args": (Sample("none", Args.NONE), Sample("Numbers", Args.NUMBERS), "some"),
    "command_args": (Sample("true", True), Sample("false", False), "y"),
    "attributes": (
        Sample("process.owner=off", (("process.owner", False),)),
        Sample("host.*=OFF,process.linux.cgroup=on", (("host.*", False), ("process.linux.cgroup", True))),
        "process.owner",
    ),
    "service_rules": (
        Sample("/usr/bin/*=tools", [ServiceRule(b"/usr/bin/*", "tools")]),
        Sample("*/a=b=c,*=d", [ServiceRule(b"*/a=b", "c"), ServiceRule(b"*", "d")]),
        "nginx=edge",
    ),
    "unknown_service": (Sample("true", True), Sample("false", False), "nobody"),
    "string_limit": (Sample("128", 128), Sample("4096", 4096), "127"),
    "benign_errors": (Sample("EIO", [5]), Sample("EPERM,ENOENT", [1, 2]), "EWHAT"),
    "signals": (
        Sample("logs", frozenset({"logs"})),
        Sample("Traces,logs", frozenset({"traces", "logs"})),
        "metrics",
    ),
    "trace_structure": (Sample("flat", "flat"), Sample("Window", "window"), "star"),
    "spans_per_trace": (Sample("100", 100), Sample("1000000", 1_000_000), "99"),
    "trace_context_map": (Sample("none", "none"), Sample("/bpf/map", "/bpf/map"), "off"),
    "stuck_after_ns": (Sample("30s", 30 * 10**9), Sample("0s", 0), "30"),
    "ring_bytes": (Sample("4KiB", 4096), Sample("1MiB", 1 << 20), "5000"),
    "rings": (Sample("2", 2), Sample("8", 8), "9"),
    "schedule_delay_ns": (Sample("1m", 60 * 10**9, "60000"), Sample("0s", 0, "0"), "soon"),
    "flush_timeout_ns": (Sample("1m", 60 * 10**9), Sample("0s", 0), "never"),
    "bcc_python": (Sample("/one", "/one"), Sample("/two", "/two"), ""),
    "cache_dir": (Sample("/one", "/one"), Sample("Off", None), "one/two"),
    **{f"{side}{name}": samples for side in ("", "not_") for name, samples in SELECTORS.items()},
    "is_all": (Sample("true", True), Sample("false", False), "everybody"),
    "no_follow": (Sample("true", True), Sample("false", False), "no"),
    "duration_ns": (Sample("1h", 3600 * 10**9), Sample("3ns", 3), "forever"),
}
DEFAULTS = {
    "exporter": "terminal",
    "endpoint": "http://localhost:4318/v1/traces",
    "protocol": "http/protobuf",
    "headers": {},
    "compression": "none",
    "timeout_ns": 10 * 10**9,
    "insecure": False,
    "certificate": None,
    "client_key": None,
    "client_certificate": None,
    "output": None,
    "live": False,
    "quiet": False,
    "syscalls": None,
    "min_duration": None,
    "errors_only": False,
    "errnos": None,
    "sample": 1.0,
    "max_rate": 5_000,
    "keep_errors": False,
    "keep_slow": None,
    "args": Args.DECODED,
    "command_args": False,
    "attributes": (),
    "service_rules": (),
    "unknown_service": False,
    "string_limit": 256,
    "benign_errors": [4, 11, 114, 115],
    "signals": {"traces"},
    "trace_structure": "window",
    "spans_per_trace": 10_000,
    "trace_context_map": "auto",
    "stuck_after_ns": 0,
    "ring_bytes": 16 << 20,
    "rings": 0,
    "schedule_delay_ns": 10**9,
    "flush_timeout_ns": 5 * 10**9,
    "bcc_python": None,
    "cache_dir": None,
    **{f"{side}{name}": () for side in ("", "not_") for name in SELECTORS},
    "is_all": False,
    "no_follow": False,
    "duration_ns": None,
}

each_setting = pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)


def sources(setting: Setting) -> list[str]:
    """Return where a setting can come from, the first has precedence: its option, then variables."""
    return [setting.flag, setting.variable, *setting.otel]


def resolve_from(setting: Setting, given: dict[str, str], *, is_wrong: bool = False) -> Config:
    """Resolve with texts by source; half of a pair gets its other half, unless it is wrong."""
    options: dict[str, Any] = {}
    environ = {source: text for source, text in given.items() if source != setting.flag}
    if setting.flag in given:
        text = given[setting.flag]
        options[setting.name] = True if not setting.metavar else text.split(",") if setting.is_list else text
    command = setting.commands[-1]  # attach has nearly all
    other_half = {"client_key": "client_certificate", "client_certificate": "client_key"}
    if setting.name in other_half and not is_wrong:
        options[other_half[setting.name]] = FILES[0]
    return resolve(command, options, environ)


def text_for(setting: Setting, source: str, sample: Sample) -> str:
    """Return a sample as a source writes it."""
    return (source in setting.otel and sample.otel) or sample.text


def seen(found: Config, name: str) -> Any:
    """Return a value of a Config, to be compared."""
    if name == "no_follow":
        return not found.follows_children
    if name == "command_args":
        return found.has_command_args
    if name == "attributes":
        return found.attributes.switches
    kind = name.removeprefix("not_")
    if kind in SELECTORS:
        return getattr(found.chosen if kind == name else found.excluded, f"{kind}s")
    value = getattr(found, name)
    return value._everywhere.nonzero()[0].tolist() if isinstance(value, BenignErrors) else value


def expected(source: str, sample: Sample) -> Any:
    """Return what a sample is in a Config: an endpoint for traces alone is whole, others get a path."""
    return sample.text if source == WHOLE_ENDPOINT else sample.value


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that samples name, for a user who is not root."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.chdir(tmp_path)
    for name in FILES:
        (tmp_path / name).write_text("-----BEGIN CERTIFICATE-----\n")


def test_every_setting_has_samples():
    """The tables of this file know every setting; its name is a field of Config, or one of the selectors that have one."""
    names = {setting.name for setting in SETTINGS}
    of_selectors = {f"{side}{name}" for side in ("", "not_") for name in SELECTORS}

    assert names == set(SAMPLES) == set(DEFAULTS)
    assert names - of_selectors - {"no_follow", "command_args"} <= set(Config.__slots__)


@pytest.mark.parametrize(
    ("uid", "environ", "expected"),
    [
        (0, {}, "/var/cache/otel-sysexit"),
        (0, {"HOME": "/home/me", "XDG_CACHE_HOME": "/home/me/cache"}, "/var/cache/otel-sysexit"),
        (1000, {"HOME": "/home/me"}, "/home/me/.cache/otel-sysexit"),
        (1000, {"HOME": "/home/me", "XDG_CACHE_HOME": "/cache"}, "/cache/otel-sysexit"),
        (1000, {"HOME": "/home/me", "XDG_CACHE_HOME": "cache"}, "/home/me/.cache/otel-sysexit"),
        (1000, {}, None),
        (1000, {"OTEL_SYSEXIT_CACHE": "off", "HOME": "/home/me"}, None),
    ],
)
def test_programs_are_kept_where_their_user_keeps_such_things(monkeypatch, uid, environ, expected):
    """Root has the host's folder, whatever home sudo left it; others theirs, and none without a home."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)

    assert resolve("run", {}, environ).cache_dir == expected


def test_names_of_settings_are_unique():
    """No two settings share an option or a variable."""
    options = [setting.flag for setting in SETTINGS] + [one.short for one in SETTINGS if one.short]
    variables = [variable for setting in SETTINGS for variable in (setting.variable, *setting.otel)]

    assert len(set(options)) == len(options)
    assert len(set(variables)) == len(variables)


@each_setting
def test_a_variable_of_ours_is_named_as_its_option(setting):
    """--flush-timeout is OTEL_SYSEXIT_FLUSH_TIMEOUT."""
    assert setting.variable == "OTEL_SYSEXIT_" + setting.flag.removeprefix("--").replace("-", "_").upper()


@each_setting
def test_without_anything_the_default_holds(setting):
    """An empty environment and no option give the documented default."""
    assert seen(resolve(setting.commands[-1], {}, {}), setting.name) == DEFAULTS[setting.name]


@each_setting
def test_each_source_is_read(setting):
    """A setting can be made by its option and by each of its variables alone."""
    for source in sources(setting):
        for sample in SAMPLES[setting.name][:2]:
            if source == setting.flag and not setting.metavar and sample.text == "false":
                continue  # a flag is there or not
            found = resolve_from(setting, {source: text_for(setting, source, sample)})

            assert seen(found, setting.name) == expected(source, sample), source
            assert found.warnings == ()


@each_setting
def test_the_first_source_wins(setting):
    """Option, then our variable, then OTEL_* variables in their order."""
    one, other, _ = SAMPLES[setting.name]
    for higher, lower in combinations(sources(setting), 2):
        found = resolve_from(
            setting, {higher: text_for(setting, higher, one), lower: text_for(setting, lower, other)}
        )

        assert seen(found, setting.name) == expected(higher, one), (higher, lower)


@each_setting
def test_an_empty_variable_is_unset(setting):
    """An empty variable hides no other and warns of nothing."""
    one = SAMPLES[setting.name][0]
    for higher, lower in combinations(sources(setting)[1:], 2):
        found = resolve_from(setting, {higher: "", lower: text_for(setting, lower, one)})

        assert (seen(found, setting.name), found.warnings) == (expected(lower, one), ()), (higher, lower)


@each_setting
def test_a_wrong_value_of_ours_is_an_error(setting):
    """What is wrong in an option or in a variable of ours is named in one line."""
    wrong = SAMPLES[setting.name][2]
    for source in (setting.flag, setting.variable) if wrong else ():
        if source == setting.flag and not setting.metavar:
            continue
        with pytest.raises(UsageError) as caught:
            resolve_from(setting, {source: wrong})

        assert str(caught.value).startswith(f"{source}: ")
        assert "\n" not in str(caught.value)


@each_setting
def test_a_wrong_otel_variable_is_warned_of(setting):
    """What is wrong in an OTEL_* variable is ignored with a warning; the next source counts."""
    one, _, wrong = SAMPLES[setting.name]
    for source in setting.otel:
        found = resolve_from(setting, {source: wrong}, is_wrong=True)
        (warning,) = found.warnings

        assert seen(found, setting.name) == DEFAULTS[setting.name]
        assert warning.startswith(f"{source} is ignored: ")
        assert "\n" not in warning

    if len(setting.otel) == 2:
        first, second = setting.otel
        found = resolve_from(setting, {first: wrong, second: text_for(setting, second, one)})

        assert seen(found, setting.name) == expected(second, one)


def test_run_and_attach_have_their_own_settings():
    """What only attach has is no setting of run, so a variable for it means nothing there; leaving out is for both."""
    wrong = {"PID", "TID", "EXE", "UID", "CGROUP", "CONTAINER", "DURATION", "ALL"}
    environ = {f"OTEL_SYSEXIT_{name}": "!" for name in wrong} | {"OTEL_SYSEXIT_NOT_COMM": "sh"}
    found = resolve("run", {}, environ)

    assert (found.chosen, found.is_all, found.duration_ns) == (Selectors(), False, None)
    assert found.excluded == Selectors(comms=[b"sh"])


def test_a_command_is_not_sampled_unless_asked():
    """Only an agent that stays keeps a rate by itself; `none` switches it off there, too."""
    assert resolve("run", {}, {}).max_rate == 0
    assert resolve("attach", {}, {"OTEL_SYSEXIT_MAX_RATE": "NONE"}).max_rate == 0


def test_a_command_has_a_larger_ring():
    """A command is over soon and may be fast: its ring is larger than that of an agent that stays."""
    assert resolve("run", {}, {}).ring_bytes == 64 << 20


# --- where spans go ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "protocol", "endpoint"),
    [
        ({}, "http/protobuf", "http://localhost:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "grpc", "http://localhost:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, "grpc", "http://c:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c:4317"}, "grpc", "https://c:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "c:4317"}, "grpc", "c:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://[::1]:4317"}, "grpc", "http://[::1]:4317"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318"}, "http/protobuf", "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4318/"}, "http/protobuf", "http://c:4318/v1/traces"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://c/otlp"}, "http/protobuf", "https://c/otlp/v1/traces"),
        ({WHOLE_ENDPOINT: "http://c:4318"}, "http/protobuf", "http://c:4318"),
        ({WHOLE_ENDPOINT: "http://c/x"}, "http/protobuf", "http://c/x"),
        (
            {WHOLE_ENDPOINT: "http://c/x", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"},
            "http/protobuf",
            "http://c/x",
        ),
        (
            {WHOLE_ENDPOINT: "", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://d"},
            "http/protobuf",
            "http://d/v1/traces",
        ),
        (
            {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            "http/protobuf",
            "http://c:4317/v1/traces",
        ),
        (
            {"OTEL_SYSEXIT_ENDPOINT": "http://c", WHOLE_ENDPOINT: "http://c"},
            "http/protobuf",
            "http://c/v1/traces",
        ),
    ],
)
def test_endpoints_follow_the_specification(environ, protocol, endpoint):
    """Port 4317 means gRPC; HTTP gets its path, but for the endpoint of traces alone; gRPC's stays as it is."""
    found = resolve("run", {}, environ)

    assert (found.protocol, found.endpoint) == (protocol, endpoint)


def test_an_option_gets_its_path_whatever_the_environment_says():
    """Only the variable for traces alone is a whole URL, not an option that happens to be equal."""
    found = resolve("run", {"endpoint": "http://c:4318"}, {WHOLE_ENDPOINT: "http://c:4318"})

    assert found.endpoint == "http://c:4318/v1/traces"


LOGS_ENDPOINT = "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"
BASE_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"


@pytest.mark.parametrize(
    ("options", "environ", "endpoint"),
    [
        ({}, {}, "http://localhost:4318/v1/logs"),
        ({"protocol": "grpc"}, {}, "http://localhost:4317"),
        ({"endpoint": "http://c:4318"}, {}, "http://c:4318/v1/logs"),
        ({"endpoint": "http://c/x/v1/traces"}, {}, "http://c/x/v1/logs"),
        ({"endpoint": "https://c:4317"}, {}, "https://c:4317"),
        ({"endpoint": "http://c"}, {LOGS_ENDPOINT: "http://d/y"}, "http://c/v1/logs"),
        ({}, {BASE_ENDPOINT: "http://c/x"}, "http://c/x/v1/logs"),
        ({}, {BASE_ENDPOINT: "http://c", WHOLE_ENDPOINT: "http://d/y"}, "http://c/v1/logs"),
        ({}, {BASE_ENDPOINT: "http://c", LOGS_ENDPOINT: "http://d/y"}, "http://d/y"),
        ({}, {WHOLE_ENDPOINT: "http://d/v1/traces"}, "http://d/v1/logs"),
        ({}, {WHOLE_ENDPOINT: "http://d/y"}, None),
        ({}, {WHOLE_ENDPOINT: "http://d/y", LOGS_ENDPOINT: "http://d/z"}, "http://d/z"),
        ({}, {WHOLE_ENDPOINT: "http://d:4317"}, "http://d:4317"),
        ({}, {BASE_ENDPOINT: "http://c", "OTEL_LOGS_EXPORTER": "none"}, None),
        ({}, {BASE_ENDPOINT: "http://c", "OTEL_LOGS_EXPORTER": "otlp"}, "http://c/v1/logs"),
    ],
)
def test_log_records_go_beside_spans(options, environ, endpoint):
    """To their own endpoint as it stands, else below the common one, else beside the spans' where that can be told."""
    found = resolve("run", options, environ)

    assert (found.logs_endpoint, found.warnings) == (endpoint, ())


def test_calls_as_log_records_need_an_endpoint_for_them():
    """An endpoint for spans alone does not tell where log records go: that is a mistake when they are asked for."""
    with pytest.raises(UsageError, match=LOGS_ENDPOINT):
        resolve("run", {"signals": "logs"}, {WHOLE_ENDPOINT: "http://d/y"})


def test_an_exporter_of_logs_that_is_none_is_warned_of():
    """As every variable of OpenTelemetry's is."""
    found = resolve("run", {}, {"OTEL_LOGS_EXPORTER": "foo"})

    assert list(found.warnings) == ["OTEL_LOGS_EXPORTER is ignored: 'foo' is not one of otlp, console, none"]


def test_calls_as_log_records_go_where_log_records_go():
    """An endpoint for these alone means that a collector is sent to; what is asked for outweighs a variable against it."""
    environ = {LOGS_ENDPOINT: "http://d/z", "OTEL_LOGS_EXPORTER": "none"}
    found = resolve("run", {"signals": "logs"}, environ)

    assert (found.exporter, found.logs_endpoint) == ("otlp", "http://d/z")


def test_what_is_said_of_spans_is_not_said_of_calls_as_log_records():
    """OTEL_TRACES_EXPORTER=none keeps spans from a collector, not records that were asked for instead."""
    environ = {"OTEL_TRACES_EXPORTER": "none", BASE_ENDPOINT: "http://c"}

    assert resolve("run", {"signals": "logs"}, environ).exporter == "otlp"
    assert resolve("run", {"signals": "traces,logs"}, environ).exporter == "none"


def test_what_cannot_be_set_of_log_records_alone_is_warned_of():
    """A protocol of their own would be for naught, and nobody would know."""
    environ = {BASE_ENDPOINT: "http://c", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "grpc"}

    (warning,) = resolve("run", {"signals": "logs"}, environ).warnings
    assert warning.startswith("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL is ignored")
    assert resolve("run", {}, environ).warnings == ()


@pytest.mark.parametrize("text", ["c:4318/v1/logs", "ftp://c"])
def test_a_wrong_endpoint_for_logs_is_warned_of(text):
    """It is ignored, as every wrong variable of OpenTelemetry is."""
    found = resolve("run", {}, {BASE_ENDPOINT: "http://c", LOGS_ENDPOINT: text})

    assert found.logs_endpoint == "http://c/v1/logs"
    assert [warning.partition(" is ignored")[0] for warning in found.warnings] == [LOGS_ENDPOINT]


def test_a_wrong_common_endpoint_is_warned_of_once():
    """Spans and log records ask for it; one warning is enough."""
    assert len(resolve("run", {}, {BASE_ENDPOINT: "ftp://c"}).warnings) == 1


def test_log_records_that_have_nowhere_to_go_are_warned_of():
    """Who wants stuck calls reported learns that an endpoint for spans alone does not tell where log records go."""
    found = resolve("run", {"stuck_after_ns": "1s"}, {WHOLE_ENDPOINT: "http://d/y"})

    assert found.warnings == (f"log records go to no collector: set {LOGS_ENDPOINT}",)


@pytest.mark.parametrize(
    ("options", "environ", "headers"),
    [
        ({"headers": ["a=1"]}, {"LOGS_HEADERS": "b=2", "ENDPOINT": "http://c"}, {"a": "1"}),
        ({}, {"LOGS_HEADERS": "b=2", "HEADERS": "c=3"}, {"b": "2"}),
        ({}, {"HEADERS": "c=3", "ENDPOINT": "http://c", "TRACES_HEADERS": "a=1"}, {"c": "3"}),
        ({}, {"LOGS_ENDPOINT": "http://c", "TRACES_HEADERS": "a=1"}, {}),
        ({}, {"TRACES_ENDPOINT": "http://c/v1/traces", "TRACES_HEADERS": "a=1"}, {"a": "1"}),
        ({"endpoint": "http://c"}, {"TRACES_HEADERS": "a=1"}, {"a": "1"}),
        ({}, {}, {}),
    ],
)
def test_headers_of_log_records(options, environ, headers):
    """Their own, else the common ones; those for spans alone only where the spans go."""
    found = resolve("run", options, {f"OTEL_EXPORTER_OTLP_{name}": text for name, text in environ.items()})

    assert found.logs_headers == headers


@pytest.mark.parametrize("text", ["c:4318", "localhost"])
def test_http_wants_a_scheme(text):
    """An endpoint over HTTP without http:// or https:// is refused in one line."""
    with pytest.raises(UsageError, match="needs http:// or https://"):
        resolve("run", {"endpoint": text}, {})


@pytest.mark.parametrize(
    "text",
    ["http://", "://c", "ftp://c", "http://c d", "http://c:port", "http://c:99999", "http://[::1", "/v1"],
)
def test_what_is_no_endpoint_is_refused(text):
    """A host is needed, and a scheme of the web or none."""
    with pytest.raises(UsageError, match=r"--endpoint: .* is no endpoint"):
        resolve("run", {"endpoint": text}, {})


@pytest.mark.parametrize(
    ("options", "environ", "exporter"),
    [
        ({}, {}, "terminal"),
        ({"endpoint": "http://c"}, {}, "otlp"),
        ({}, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "otlp"),
        ({"output": "f"}, {}, "none"),
        ({"output": "f", "endpoint": "http://c"}, {}, "otlp"),
        ({"exporter": "terminal", "endpoint": "http://c"}, {}, "terminal"),
        ({"exporter": "TERMINAL", "output": "f"}, {}, "terminal"),
        ({"exporter": "otlp"}, {}, "otlp"),
        ({}, {"OTEL_TRACES_EXPORTER": "otlp"}, "otlp"),
        ({}, {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "none"),
        ({}, {"OTEL_TRACES_EXPORTER": "console"}, "terminal"),
        ({}, {"OTEL_TRACES_EXPORTER": "zipkin", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c"}, "otlp"),
        ({"exporter": "otlp"}, {"OTEL_SDK_DISABLED": "TRUE"}, "otlp"),
        ({"endpoint": "http://c"}, {"OTEL_SDK_DISABLED": "TRUE"}, "none"),
        ({}, {"OTEL_SDK_DISABLED": "true"}, "none"),
        ({}, {"OTEL_SDK_DISABLED": "false"}, "terminal"),
        ({}, {"OTEL_SDK_DISABLED": "1"}, "terminal"),
        ({}, {"OTEL_SDK_DISABLED": ""}, "terminal"),
    ],
)
def test_where_spans_go(options, environ, exporter):
    """An endpoint means otlp, a file alone means no terminal view, OTEL_SDK_DISABLED nowhere if not asked."""
    assert resolve("run", options, environ).exporter == exporter


@pytest.mark.parametrize("name", ["client_key", "client_certificate"])
def test_mutual_tls_needs_both_halves(name):
    """A key without its certificate, or the other way round, is refused."""
    with pytest.raises(UsageError, match="both --client-key and --client-certificate"):
        resolve("run", {name: FILES[0]}, {})


def test_a_configuration_file_is_refused():
    """OTEL_CONFIG_FILE would make every other variable void: half of that is not offered."""
    with pytest.raises(UsageError, match="OTEL_CONFIG_FILE is set"):
        resolve("run", {}, {"OTEL_CONFIG_FILE": "otel.yaml"})


def test_an_empty_configuration_file_is_none():
    """Empty is unset here, too."""
    assert resolve("run", {}, {"OTEL_CONFIG_FILE": ""}).exporter == "terminal"


@pytest.mark.parametrize(
    ("text", "attributes"), [("a=1,b=%20", {"a": "1", "b": " "}), ("a=1,b", {}), ("", {})]
)
def test_resource_attributes_are_read(text, attributes):
    """OTEL_RESOURCE_ATTRIBUTES is taken as a whole or not at all."""
    assert resolve("run", {}, {"OTEL_RESOURCE_ATTRIBUTES": text}).resource_attributes == attributes


def test_headers_are_percent_decoded():
    """Headers are written as the specification wants them, in options as in variables."""
    text = "authorization=Basic%20dTpw,x-a=1%2C2"
    decoded = {"authorization": "Basic dTpw", "x-a": "1,2"}

    assert resolve("run", {"headers": text.split(",")}, {}).headers == decoded
    assert resolve("run", {}, {"OTEL_EXPORTER_OTLP_HEADERS": text}).headers == decoded
