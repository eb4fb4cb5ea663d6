"""A serialized export: what the encoders make and the transports send."""

import enum
from dataclasses import dataclass
from typing import Final

REQUEST_BYTES_MAX: Final = 1 << 20
"""
Size of a request, but for its last process's Resource: well below the 4 MiB that gRPC servers accept by default.

Each costs gRPC's threads 0.2 ms of CPU beside its bytes, or up to 1 ms where they have to be woken for it: twice as many, of half the size, would
take a third more for each megabyte.
"""


class Signal(enum.Enum):
    """OTLP's kinds of telemetry, by their names in URLs."""

    TRACES = "traces"
    LOGS = "logs"


@dataclass(frozen=True, slots=True)
class Request:
    """A serialized Export<signal>ServiceRequest, whose bytes are those of TracesData or LogsData, too."""

    body: bytes
    signal: Signal = Signal.TRACES
    calls: int = 0
    spans: int = 0
    """Process and window spans beside the calls."""
    log_records: int = 0
