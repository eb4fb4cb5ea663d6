"""
The trace context that a program was started with, in its environment.

In: environment variables, as the specification names them (context/env-carriers.md). Out: the span that whoever started the
program says it belongs to. The values are W3C Trace Context; OpenTelemetry's own propagator parses them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

# What a header field may hold (RFC 9110, 5.5), which env-carriers.md asks of variables, too; no obs-text.
_FIELD: Final = re.compile(r"[\t\x20-\x7e]*")
# sampled and random-trace-id: the others are reserved, and to be set to zero by whoever passes them on (W3C, trace-flags).
_FLAGS: Final = 0x03
_SHOWN_MAX: Final = 64
"""Characters of a refused value that its message shows."""


@dataclass(frozen=True, slots=True)
class TraceContext:
    """A span of somebody else's trace."""

    trace_id: bytes
    span_id: int
    trace_flags: int
    """Those that W3C has defined."""
    trace_state: str
    """Members without blanks between them; empty if TRACESTATE is missing or invalid, which W3C discards by itself."""


def parse_trace_context(environ: Mapping[str, str]) -> TraceContext | None:
    """
    Return the trace context that *environ* carries; None: it carries none.

    An empty variable is none (configuration/sdk-environment-variables.md). Names in other cases of letters are other variables.

    Raises:
        ValueError: TRACEPARENT is no W3C trace context; the message is one line.
    """
    parent = environ.get("TRACEPARENT")
    if not parent:
        return None
    # Late, as few programs have one, and a start is waited for.
    from opentelemetry.trace import get_current_span  # noqa: PLC0415
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    carrier = {"traceparent": parent, "tracestate": environ.get("TRACESTATE", "")}
    found = get_current_span(TraceContextTextMapPropagator().extract(carrier)).get_span_context()
    # The propagator alone takes a line feed at the end, and anything in what versions to come may append.
    if not (found.is_valid and _FIELD.fullmatch(parent)):
        raise ValueError(f"no W3C trace context: {parent[:_SHOWN_MAX]!r}")
    return TraceContext(
        trace_id=found.trace_id.to_bytes(16, "big"),
        span_id=found.span_id,
        trace_flags=found.trace_flags & _FLAGS,
        trace_state=found.trace_state.to_header(),
    )
