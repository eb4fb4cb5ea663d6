"""
What became of every call, in one line that adds up.

In: the kernel's counters, the calls still in flight, and what each exporter delivered. Out: text. Filtered is on
purpose, dropped and undelivered are losses, each with its reason.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from otel_sysexit.kernel.records import Ledger

_FILTERED: Final = {
    Ledger.FILTERED_SUCCEEDED: "succeeded",
    Ledger.FILTERED_ERRNO: "errno",
    Ledger.FILTERED_SHORT: "short",
    Ledger.FILTERED_EXCLUDED: "excluded",
}
_DROPPED: Final = {
    Ledger.DROPPED_RING_FULL: "ring full",
    Ledger.DROPPED_PENDING_FULL: "pending full",
    Ledger.DROPPED_OVERWRITTEN: "end not seen",
}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one way out did with the calls that the kernel side emitted."""

    name: str
    delivered: int
    undelivered: Mapping[str, int] = field(default_factory=dict)
    """By reason."""
    undelivered_log_records: Mapping[str, int] = field(default_factory=dict)
    """By reason; no part of the equation."""
    undelivered_spans: Mapping[str, int] = field(default_factory=dict)
    """Those that are no calls, likewise."""


@dataclass(frozen=True, slots=True)
class Account:
    """The figures at the end."""

    kernel: Mapping[Ledger, int]
    in_flight: int
    deliveries: Sequence[Delivery]
    skipped_runs: int = 0
    """How often the kernel did not run a program of ours that it should have; no part of the equation."""
    beside: Sequence[Delivery] = ()
    """Ways out that tell of calls that are counted elsewhere."""
    bad_trace_contexts: int = 0
    """Programs whose environment had a TRACEPARENT that is none."""

    @property
    def filtered(self) -> int:
        """Calls left out on purpose."""
        return self._sum(_FILTERED)

    @property
    def sampled_out(self) -> int:
        """Calls left out at random."""
        return self.kernel[Ledger.SAMPLED_OUT]

    @property
    def dropped(self) -> int:
        """Calls lost in the kernel."""
        return self._sum(_DROPPED)

    @property
    def unpaired(self) -> int:
        """Exits whose enter was not ours to see."""
        return self.kernel[Ledger.UNPAIRED_START] + self.kernel[Ledger.UNPAIRED_ATTACH]

    def _sum(self, reasons: Mapping[Ledger, str]) -> int:
        return sum(self.kernel[entry] for entry in reasons)

    def _reasons(self, reasons: Mapping[Ledger, str]) -> str:
        """Return the sum, and behind it what it consists of if that is more than one thing."""
        parts = [f"{words} {self.kernel[entry]}" for entry, words in reasons.items() if self.kernel[entry]]
        return f"{self._sum(reasons)} ({', '.join(parts)})" if len(parts) > 1 else str(self._sum(reasons))

    def line(self) -> str:
        """Return the equation."""
        emitted = self.kernel[Ledger.EMITTED]
        outcomes = (
            f"filtered {self._reasons(_FILTERED)} + sampled out {self.sampled_out} + emitted {emitted} "
            f"+ dropped {self._reasons(_DROPPED)} + in flight {self.in_flight}"
        )
        parts = [f"seen {self.kernel[Ledger.SEEN]} = {outcomes}"]
        for delivery in self.deliveries:
            lost = sum(delivery.undelivered.values())
            where = f" ({delivery.name})" if len(self.deliveries) > 1 else ""
            parts.append(f"emitted {emitted} = delivered {delivery.delivered} + undelivered {lost}{where}")
        parts.append(f"unpaired {self.unpaired}")
        return "ledger: " + "; ".join(parts)

    def losses(self) -> list[str]:
        """Return a line for each kind of loss, with what to do about it; empty when nothing was lost."""
        lines = []
        if self.kernel[Ledger.DROPPED_RING_FULL]:
            lines.append(
                f"{self.kernel[Ledger.DROPPED_RING_FULL]} calls were dropped because the ring was full: "
                "record fewer (--syscalls, --min-duration, --max-rate) or raise --ring-size"
            )
        for entry, words in (
            (Ledger.DROPPED_PENDING_FULL, "calls were dropped because too many threads run at once"),
            (Ledger.DROPPED_OVERWRITTEN, "calls were dropped because their end was not seen"),
            (
                Ledger.THREADS_UNFOLLOWED,
                "threads were not followed: too many at once, or an --exe pattern takes too long",
            ),
            (Ledger.TASKS_DROPPED, "starts, execs or ends of tasks were dropped: some names may be wrong"),
            (Ledger.STRINGS_DROPPED, "paths and addresses were dropped; their calls are there"),
            (Ledger.KEEP_REFUSED, "calls to be kept always were sampled: --max-rate was used up"),
        ):
            if self.kernel[entry]:
                lines.append(f"{self.kernel[entry]} {words}")
        if self.skipped_runs:
            lines.append(
                f"{self.skipped_runs} runs of our programs were skipped by the kernel, which was busy with BPF on that CPU: up to as "
                "many calls may be missing or told as not executed, or births, execs and ends of threads be missing"
            )
        if self.bad_trace_contexts:
            lines.append(
                f"{self.bad_trace_contexts} programs had a TRACEPARENT that is no W3C trace context: not linked to"
            )
        for delivery in (*self.deliveries, *self.beside):
            for reason, count in delivery.undelivered.items():
                lines.append(f"{count} calls were not delivered to {delivery.name}: {reason}")
            for reason, count in delivery.undelivered_spans.items():
                lines.append(
                    f"{count} spans of processes or windows were not delivered to {delivery.name}: {reason}"
                )
            for reason, count in delivery.undelivered_log_records.items():
                lines.append(f"{count} log records were not delivered to {delivery.name}: {reason}")
        return lines
