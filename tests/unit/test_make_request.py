"""Config → Request: what options mean for the kernel side."""

import os

import numpy as np
import pytest

from otel_sysexit import startup
from otel_sysexit.config import Config, resolve
from otel_sysexit.errors import UsageError
from otel_sysexit.kernel.request import Request
from otel_sysexit.sampling import threshold_of
from otel_sysexit.settings import SETTINGS
from otel_sysexit.startup import find_context_map, make_request
from otel_sysexit.syscalls import NUMBERS, Abi, number_of
from otel_sysexit.targets import Targets

NEVER_NS = 1 << 63


def ask(command: str = "run", **options: str | bool) -> Request:
    """Return what options ask for, by their names in SETTINGS."""
    assert set(options) <= {setting.name for setting in SETTINGS}
    return make_request(resolve(command, options, {}), Targets())


def index_of(name: str, abi: Abi = Abi.X86_64) -> int:
    """Return a call's place in tables."""
    return abi * NUMBERS + number_of(name, abi)


def test_nothing_is_asked_for_by_default():
    """A command without options: every call, decoded, nothing sampled; never ourselves."""
    request = ask()

    assert (request.has_set, request.wants_unknown, request.args, request.string_limit) == (
        False,
        True,
        2,
        256,
    )
    assert (request.errors_only, request.wanted_errnos, request.min_duration) == (False, None, None)
    assert (request.sample_threshold, request.has_max_rate) == (0, False)
    assert (request.kept_errnos, request.keep_slow) == (None, None)
    assert request.own_tgid == os.getpid()


def test_an_agent_keeps_a_rate_by_default():
    """`attach` is told its threshold at run time."""
    assert ask("attach").has_max_rate


def test_what_does_not_return_is_seen_whatever_is_sampled():
    """--stuck-after has sampling wait for the end of a call."""
    assert [ask("attach", **chosen).reports_stuck for chosen in ({}, {"stuck_after_ns": "1s"})] == [
        False,
        True,
    ]


def test_a_part_is_kept_by_a_threshold():
    """--sample alone is compiled in."""
    assert ask(sample="1/100").sample_threshold == threshold_of(0.01)


def test_a_rate_has_the_last_word():
    """With --max-rate the threshold changes: what --sample asks for is where it begins, and is not compiled in."""
    request = ask(sample="1/100", max_rate="50")

    assert (request.sample_threshold, request.has_max_rate) == (0, True)


@pytest.mark.parametrize(
    ("name", "none_ns"), [("min_duration", 0), ("keep_slow", NEVER_NS)], ids=["min_duration", "keep_slow"]
)
def test_durations_by_call(name, none_ns):
    """A call has its own duration or the common one; where there is none, nothing is too short, and nothing is slow."""
    only = getattr(ask(**{name: "fsync=1ms"}), name)
    both = getattr(ask(**{name: "5ms,fsync@i386=1ms"}), name)
    alone = getattr(ask(**{name: "5ms"}), name)

    assert (only.default_ns, only.by_call_ns[index_of("fsync")], only.by_call_ns[index_of("read")]) == (
        none_ns,
        10**6,
        none_ns,
    )
    assert (both.default_ns, both.by_call_ns[index_of("fsync", Abi.I386)]) == (5 * 10**6, 10**6)
    assert both.by_call_ns[index_of("fsync")] == 5 * 10**6
    assert (alone.default_ns, alone.by_call_ns) == (5 * 10**6, None)


def test_errors_that_are_kept_are_those_that_are_none_of_the_benign_ones():
    """With --keep-errors every errno is kept but those that are benign whatever the call; a success is none."""
    found = ask(keep_errors=True, benign_errors="EAGAIN,futex:ETIMEDOUT").kept_errnos

    assert set(np.flatnonzero(found == 0).tolist()) == {0, 11}


def test_errnos_that_are_wanted():
    """Only these, or all but these and the successes with them."""
    assert np.flatnonzero(ask(errnos="ENOENT,EACCES").wanted_errnos).tolist() == [2, 13]
    assert np.flatnonzero(ask(errnos="!ENOENT").wanted_errnos == 0).tolist() == [2]


@pytest.mark.parametrize(
    ("syscalls", "wants_unknown"), [("openat", False), ("!openat", True), ("syscall_*", True), ("*", True)]
)
def test_a_set_says_what_becomes_of_numbers_without_a_name(syscalls, wants_unknown):
    """They are in the set if it takes away from everything, or names them."""
    request = ask(syscalls=syscalls)

    assert (request.has_set, request.wants_unknown) == (True, wants_unknown)


@pytest.mark.parametrize(("args", "expected"), [("none", 0), ("numbers", 1), ("decoded", 2)])
def test_arguments_are_a_number_for_the_compiler(args, expected):
    """The kinds of arguments have the numbers that the macro ARGS has."""
    assert int(ask(args=args).args) == expected
    assert f"-DARGS={expected}" in ask(args=args).cflags()


@pytest.fixture
def no_map(monkeypatch):
    """A machine on which no map of trace contexts is found."""
    monkeypatch.setattr(startup, "DEFAULT_PATH", "/nonexistent/traces_ctx_v1")


@pytest.fixture
def bad_map(monkeypatch, tmp_path):
    """A machine with something else in its place; return its path."""
    path = tmp_path / "traces_ctx_v1"
    path.touch()
    monkeypatch.setattr(startup, "DEFAULT_PATH", str(path))
    return str(path)


@pytest.mark.usefixtures("no_map")
@pytest.mark.parametrize("wanted", ["auto", "none"])
def test_without_a_map_nothing_is_said_and_nothing_compiled(wanted):
    """A missing map of trace contexts costs nothing."""
    config, context_map = find_context_map(Config(trace_context_map=wanted))

    assert (config.warnings, context_map) == ((), None)
    assert "-DCURRENT_SPANS" not in make_request(config, Targets(), context_map).cflags()


def test_a_map_is_compiled_in_and_handed_over():
    """With a descriptor, calls have room for a span, and it goes in the place of the map of ours."""
    request = make_request(Config(), Targets(), 7)

    assert "-DCURRENT_SPANS" in request.cflags()
    assert request.substitutes == {"current_spans": 7}


def test_what_is_no_map_is_warned_of(bad_map):
    """What lies in the map's usual place and is none is one warning, and ignored."""
    config, context_map = find_context_map(Config())

    assert context_map is None
    assert [warning.splitlines()[0] for warning in config.warnings] == list(config.warnings)
    assert bad_map in config.warnings[0]


@pytest.mark.usefixtures("bad_map")
def test_what_is_no_map_is_not_looked_at_when_nobody_wants_it():
    """`none` is none."""
    config, context_map = find_context_map(Config(trace_context_map="none"))

    assert (config.warnings, context_map) == ((), None)


def test_a_map_that_was_asked_for_must_be_there(bad_map):
    """A path that is no map is a mistake, said in one line."""
    for path in (bad_map, "/nonexistent/map"):
        with pytest.raises(UsageError, match=f"--trace-context-map: cannot open the map '{path}': .*"):
            find_context_map(Config(trace_context_map=path))
