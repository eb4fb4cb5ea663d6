"""What a setting can be: every form of a value, and what is refused in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit import settings
from otel_sysexit.config import resolve
from otel_sysexit.errors import UsageError
from otel_sysexit.settings import SETTINGS


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4096", 4096), ("4096B", 4096), ("4KiB", 4096), ("16 MiB", 16 << 20), ("1GiB", 1 << 30)],
)
def test_ring_sizes(text, expected):
    """Bytes, or powers of 1024."""
    assert settings.parse_ring_bytes(text) == expected


@pytest.mark.parametrize(
    "text", ["", "0", "2048", "5000", "3MiB", "2GiB", "16MB", "16M", "-4KiB", "9" * 5000]
)
def test_what_is_no_ring_size_is_refused(text):
    """The kernel wants powers of two of whole pages."""
    with pytest.raises(ValueError):
        settings.parse_ring_bytes(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1", 1.0), ("1.0", 1.0), ("1/2", 0.5), (" 1/4 ", 0.25), ("1e-3", 0.001), ("1/4294967296", 2**-32)],
)
def test_probabilities(text, expected):
    """A fraction or a decimal number, above 0 and up to 1."""
    assert settings.parse_probability(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "0/1",
        "-0.1",
        "-1/2",
        "1.01",
        "2",
        "101/100",
        "1/0",
        "1%",
        "nan",
        "inf",
        "1/2/3",
        "half",
        "1/",
        "1e99999999",
        "1e-99999999",
        "1/1e99999999",
    ],
)
def test_what_is_no_probability_is_refused(text):
    """A rate of 0, above 1, or that is no number."""
    with pytest.raises(ValueError, match=r"is no rate above 0 and up to 1: write 1/100 or 0.01"):
        settings.parse_probability(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("AUTO", "auto"), ("none", "none"), ("/bpf/Otel/map", "/bpf/Otel/map"), ("./m", "./m")],
)
def test_context_maps(text, expected):
    """A word, or a path as it is."""
    assert settings.parse_context_map(text) == expected


@pytest.mark.parametrize("text", ["", "off", "on", "map", "/a\0b"])
def test_what_is_no_path_of_a_map_is_refused(text):
    """A word that means nothing is not taken for the name of a file."""
    with pytest.raises(ValueError, match="neither auto nor none nor a path"):
        settings.parse_context_map(text)


@pytest.mark.parametrize("text", ["1/4294967297", "1e-10", "1e-400", f"0.{'0' * 100}1"])
def test_a_probability_that_keeps_nothing_is_refused(text):
    """The kernel's random numbers have 32 bits: what is rarer than one in 2^32 would never be kept."""
    with pytest.raises(ValueError, match="too small a rate: at least 1/4294967296"):
        settings.parse_probability(text)


# By setting: all sorts of values that it cannot have.
IMPOSSIBLE = {
    "min_duration": [
        "5",
        "-1ms",
        "1 ms",
        "read",
        "read=",
        "=1ms",
        "nosuch=1ms",
        "1ms,,2ms",
        "300y",
        "999999h" * 9,
    ],
    "keep_slow": ["0.5", "read=fast", "%nosuch=1ms", "read@mips=1ms"],
    "errnos": ["EWHAT", "0", "-2", "4096", "99999999", "ENOENT,", "!", "ENOENT,!ENOENT", "<0"],
    "syscalls": ["opennat", "%nosuch", "read@mips", "read,", "!", "read,!read", "zz*", "syscall_9999"],
    "sample": ["0", "1.5", "-1", "1/0", "x", "1e-10"],
    "max_rate": ["0", "-5", "1.5", "5k", "10000001", "9" * 30, "²", "all"],
    "args": ["all", "decode", "2"],
    "headers": ["a b=1", "a-bin=1", "a=b%0Ac", "a=\u2603", "ü=1", "=1", "a"],
    "certificate": ["/nosuch", "/etc/hosts", "/"],
    "string_limit": ["127", "4097", "0", "-128", "256B", "2²", "1e3"],
    "rings": ["0", "9", "-1", "2.0", "all", "²"],
    "ring_bytes": ["0", "5000", "2GiB", "4KB"],
    "benign_errors": ["EWHAT", "read:", "11"],
    "pid": ["0", "-1", "4194304", "self", "1.0", "²"],
    "tid": ["0", "x"],
    "exe": ["ls", "./ls", "[ab]", "/a[", "trailing\\", "/" + "x" * 255, "/a\\"],
    "uid": ["-1", "4294967295", "no such user", "a\0b"],
    "cgroup": ["..", "a/../b"],
    "container": ["abc", "web-1", "z" * 12, "a" * 65],
    "not_pid": ["0"],
    "not_exe": ["ls"],
    "stuck_after_ns": ["30", "soon", "-1s"],
    "duration_ns": ["1d", ""],
}


@pytest.mark.parametrize(
    ("name", "text"), [(name, text) for name in IMPOSSIBLE for text in IMPOSSIBLE[name] if text]
)
def test_a_value_that_cannot_be_is_one_line(name, text):
    """Every value out of range, of another form or that names nothing is refused: one line that names the option."""
    (setting,) = [one for one in SETTINGS if one.name == name]
    with pytest.raises(UsageError) as caught:
        resolve("attach", {name: [text] if setting.is_list else text}, {})

    assert str(caught.value).startswith(f"{setting.flag}: ")
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_status == 2


@given(st.text(max_size=20), st.sampled_from(SETTINGS))
def test_any_text_is_taken_or_refused(text, setting):
    """Whatever is given, a parser returns or raises ValueError with a message of one line."""
    for parse in filter(None, (setting.parse, setting.parse_otel)):
        try:
            parse(text)
        except ValueError as error:
            assert len(str(error).splitlines()) == 1, repr(error)  # noqa: PT017 (it may also succeed)
