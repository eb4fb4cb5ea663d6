"""Trace context in environment variables: any text is a context, none, or refused."""

import re

from hypothesis import given
from hypothesis import strategies as st

from otel_sysexit.propagation import parse_trace_context

HEX = "0123456789abcdef"
# Variables hold bytes, which Python reads with surrogates for what is no UTF-8; NUL ends them.
raw_variables = st.binary(max_size=80).map(
    lambda raw: raw.replace(b"\0", b"").decode(errors="surrogateescape")
)
variables = st.one_of(raw_variables, st.text(max_size=80))
parents = st.builds(
    "{:02x}-{:032x}-{:016x}-{:02x}{}".format,
    st.sampled_from([0, 0, 1, 254, 255]),
    st.integers(0, 2**128 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(0, 255),
    st.one_of(st.just(""), st.just("-09"), st.just(" "), st.just("\n"), variables.map("-{}".format)),
)
damaged_parents = st.builds(
    lambda parent, at, length, more: parent[:at] + more + parent[at + length :],
    parents,
    st.integers(0, 60),
    st.integers(0, 2),
    st.one_of(st.text("0aAgf- \t", max_size=2), st.text(max_size=2)),
)
members = st.builds("{}={}".format, st.text("ab@_1", min_size=1, max_size=3), st.text("x ;", min_size=1))
states = st.one_of(variables, st.lists(members, max_size=34).map(",".join))


def is_w3c(parent: str) -> bool:
    """Whether *parent* is what W3C calls a valid traceparent, blanks around it aside; in other words than the library's."""
    version, *parts = parent.strip("\t ").split("-", 4)
    if not re.fullmatch(r"[0-9a-f]{2}", version) or version == "ff" or (version == "00" and len(parts) > 3):
        return False
    if [len(part) for part in parts[:3]] != [32, 16, 2] or not set("".join(parts[:3])) <= set(HEX):
        return False
    has_ids = parts[0].strip("0") and parts[1].strip("0")
    return bool(has_ids) and parent.isascii() and parent.replace("\t", "").isprintable()


@given(st.one_of(parents, damaged_parents, variables), states)
def test_any_variables_are_a_context_or_refused(parent, state):
    """What is no W3C trace context is a ValueError, never another one; what is one comes out as it could be sent on."""
    try:
        found = parse_trace_context({"TRACEPARENT": parent, "TRACESTATE": state})
    except ValueError:
        assert not is_w3c(parent)
        return
    assert (found is None) == (not parent)
    if found is not None:
        assert is_w3c(parent)
        assert (len(found.trace_id), any(found.trace_id), 0 < found.span_id < 2**64) == (16, True, True)
        assert found.trace_flags in range(4)
        assert found.trace_state.isascii()
