"""
Who made a call: plain facts about processes, the programs they run and their threads.

Types only: processes.py fills them in; calls, traces, otlp and the terminal read them.
"""

from dataclasses import dataclass, field
from itertools import count
from typing import TypeAlias

from otel_sysexit.propagation import TraceContext

Value: TypeAlias = str | bool | int | float | tuple[str, ...]
"""Of an attribute."""


@dataclass(slots=True, eq=False, weakref_slot=True)
class Process:
    """One process from its start to its end, whatever programs it runs meanwhile; pid and start time identify it."""

    pid: int
    """Thread group id in the initial pid namespace."""
    start_unix_ns: int
    """When it was forked."""
    parent_pid: int | None = None
    parent: "Process | None" = None
    """The traced process that started it; None if that one is not traced."""
    start_ticks: int = 0
    """The same on the boot clock in hundredths of a second, as /proc has it: it does not change with the wall clock."""
    vpid: int | None = None
    """Thread group id in its own pid namespace."""
    image: "Image | None" = None
    """The program it runs now, or ran last."""
    begin_unix_ns: int = 0
    """From when on it is of interest: its start; for a command that we launched, its execve."""
    end_unix_ns: int | None = None
    exit_code: int | None = None
    """0 to 255; None while it lives, and when a signal killed it."""
    exit_signal: int | None = None
    number: int = field(init=False, default_factory=count(1).__next__)
    """Of all processes: none has it ever again."""

    def __post_init__(self) -> None:
        self.begin_unix_ns = self.begin_unix_ns or self.start_unix_ns

    @property
    def name(self) -> str:
        """The bare name of its executable."""
        return self.image.executable_name if self.image else "unknown"

    @property
    def command(self) -> str | None:
        """argv[0] of the program it runs."""
        return self.image.command if self.image else None


@dataclass(slots=True, eq=False, weakref_slot=True)
class Image:
    """A program in a process, from one exec to the next: what an OTLP Resource describes."""

    process: Process
    executable_name: str
    executable_path: str | None = None
    command: str | None = None
    command_args: tuple[str, ...] = ()
    """argv, where it was asked for."""
    owner: str | None = None
    """Name of the user it runs as; the number as text if there is no name."""
    user_id: int | None = None
    """Effective user id: of the user it runs as."""
    real_user_id: int | None = None
    group_id: int | None = None
    """Effective group id."""
    real_group_id: int | None = None
    service_name: str | None = None
    """As its own environment says (OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES)."""
    environment_attributes: dict[str, str] = field(default_factory=dict)
    """OTEL_RESOURCE_ATTRIBUTES of its own environment."""
    context_attributes: dict[str, Value] = field(default_factory=dict)
    """Of the Resource that it publishes itself (process context, OTEP 4719)."""
    trace_context: TraceContext | None = None
    """Of who started it, as its own environment says (TRACEPARENT)."""
    executed_by: Process | None = None
    """The process that executed the program, where this one was forked and goes on with it; None: this one."""
    cgroup: int = 0
    """Inode number of the cgroup it began in, of one hierarchy; 0: unknown."""
    cgroup_line: str | None = None
    """Of /proc/PID/cgroup, that hierarchy's, where it was asked for."""
    container_id: str | None = None
    """Of the innermost container that it runs in."""
    pod_uid: str | None = None
    """Of the Kubernetes pod that it runs in."""
    number: int = field(init=False, default_factory=count(1).__next__)
    """Of all programs: none has it ever again."""


@dataclass(frozen=True, slots=True, eq=False)
class Thread:
    """A thread as it was when a call ended."""

    tid: int
    name: str
    """Its comm, at most 15 bytes; bytes that are no UTF-8 as \\xNN."""
    image: Image

    @property
    def process(self) -> Process:
        """The process it belongs to."""
        return self.image.process
