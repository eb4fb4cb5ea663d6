"""W3C trace context in environment variables: what is taken, what is refused, what counts as absent."""

import pytest

from otel_sysexit.propagation import TraceContext, parse_trace_context

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
PARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def context(flags: int = 1, state: str = "") -> TraceContext:
    """Return what PARENT says, with other flags and a state."""
    return TraceContext(bytes.fromhex(TRACE_ID), int(SPAN_ID, 16), flags, state)


def test_the_parent_is_taken_from_the_environment():
    """Ids, flags and state are what TRACEPARENT and TRACESTATE say, whatever else there is."""
    environ = {"PATH": "/bin", "TRACEPARENT": PARENT, "TRACESTATE": "a=1,b=2", "BAGGAGE": "c=3"}

    assert parse_trace_context(environ) == context(state="a=1,b=2")


@pytest.mark.parametrize(
    ("parent", "flags"),
    [
        (f"00-{TRACE_ID}-{SPAN_ID}-00", 0),
        (f"00-{TRACE_ID}-{SPAN_ID}-03", 3),
        (f"00-{TRACE_ID}-{SPAN_ID}-ff", 3),
        (f"00-{TRACE_ID}-{SPAN_ID}-fc", 0),
        (f"01-{TRACE_ID}-{SPAN_ID}-01", 1),
        (f"01-{TRACE_ID}-{SPAN_ID}-01-", 1),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what the future will be like", 1),
        (f"fe-{TRACE_ID}-{SPAN_ID}-09-09", 1),
        (f" \t{PARENT}\t ", 1),
    ],
)
def test_a_valid_parent_is_taken(parent, flags):
    """Versions to come may have more behind a dash; flags that are not defined are no flags; blanks around do not count."""
    assert parse_trace_context({"TRACEPARENT": parent}) == context(flags)


@pytest.mark.parametrize(
    "parent",
    [
        "garbage",
        " ",
        "-",
        f"00-{TRACE_ID}-{SPAN_ID}",
        f"00-{TRACE_ID}-{SPAN_ID}-",
        f"00-{TRACE_ID}-{SPAN_ID}-1",
        f"00-{TRACE_ID}-{SPAN_ID}-0x",
        f"00-{TRACE_ID}--01",
        f"00--{SPAN_ID}-01",
        f"{TRACE_ID}-{SPAN_ID}-01",
        f"0-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
        f"00-{TRACE_ID}0-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}0-01",
        f"00-{'0' * 32}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID.upper()}-01",
        f"0A-{TRACE_ID}-{SPAN_ID}-01",
        f"00-{TRACE_ID}-{SPAN_ID}-0A",
        f"ff-{TRACE_ID}-{SPAN_ID}-01",
        f"{PARENT}-",
        f"{PARENT}-more",
        f"{PARENT}more",
        f"01-{TRACE_ID}-{SPAN_ID}-01more",
        f"01-{TRACE_ID}-{SPAN_ID}-01-ä",
        f"01-{TRACE_ID}-{SPAN_ID}-01-\x1b[2J",
        f"01-{TRACE_ID}-{SPAN_ID}-01-\udcff",
        f"01-{TRACE_ID}-{SPAN_ID}-01-{'x' * 500}",
        f"{PARENT}\n",
        f"\n{PARENT}",
        f"{PARENT},{PARENT}",
        f"\N{ARABIC-INDIC DIGIT ZERO}0-{TRACE_ID}-{SPAN_ID}-01",
    ],
)
def test_what_is_no_parent_is_refused(parent):
    """The reason is one line that names the variable, and has no character that a terminal would obey."""
    with pytest.raises(ValueError, match="no W3C trace context") as caught:
        parse_trace_context({"TRACEPARENT": parent, "TRACESTATE": "a=1"})

    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"TRACESTATE": "a=1"},
        {"TRACEPARENT": ""},
        {"TRACEPARENT": "", "TRACESTATE": "a=1"},
        {"traceparent": PARENT},
        {"Traceparent": PARENT},
        {"OTEL_TRACEPARENT": PARENT},
    ],
)
def test_no_parent_is_no_error(environ):
    """Without a TRACEPARENT, of just that name, or with an empty one, there is no context and nothing to refuse."""
    assert parse_trace_context(environ) is None


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("", ""),
        ("a=1", "a=1"),
        ("ot=th:8;rv:0123456789abcd,congo=t61rcWkgMzE", "ot=th:8;rv:0123456789abcd,congo=t61rcWkgMzE"),
        (" a=1 ,\tb=2 ", "a=1,b=2"),
        ("a=1,,b=2,", "a=1,b=2"),
        ("fw529a3039@dt=FfD", "fw529a3039@dt=FfD"),
        ("a=b c", "a=b c"),
        (",".join(f"k{index}=1" for index in range(32)), ",".join(f"k{index}=1" for index in range(32))),
    ],
)
def test_a_valid_state_goes_with_the_parent(state, expected):
    """Members stay in their order; blanks around them and empty ones are left out."""
    assert parse_trace_context({"TRACEPARENT": PARENT, "TRACESTATE": state}) == context(state=expected)


@pytest.mark.parametrize(
    "state",
    [
        "a",
        "a=",
        "=1",
        "A=1",
        "a=1;b=2=3",
        "a=1,a=2",
        "a=1,b",
        "a=ä",
        "a=\udcff",
        "a=1\n",
        "a=\x1b[2J",
        f"a={'x' * 257}",
        f"{'a' * 257}=1",
        ",".join(f"k{index}=1" for index in range(33)),
        ",".join(f"k{index}={'x' * 250}" for index in range(32)) + "," * 9000,
    ],
)
def test_an_invalid_state_is_discarded_alone(state):
    """Whoever cannot parse the state discards all of it and still takes the parent (W3C, tracestate)."""
    assert parse_trace_context({"TRACEPARENT": PARENT, "TRACESTATE": state}) == context()
