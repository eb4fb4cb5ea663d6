"""
Every attribute that this program writes: name, type, where it stands, what it means; and which of them are wanted.

`docs/attributes.md` is made from this table. Names follow the semantic conventions 1.44.0 where those have one; what
they do not have (they know no system calls) stands below `syscall.` and `otel_sysexit.`.
"""

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.44.0"


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute. Types and requirement levels are called as the semantic conventions call them."""

    name: str
    """`syscall.argument.<name>` and the like: one for each name."""
    type: str
    level: str
    """`resource`, `call`, `process` (span of a process), `window` (root of a window), `link` or `log`."""
    note: str
    example: str
    requirement: str = "recommended"
    """`required`: always there; `recommended`: where it is known, unless switched off; `opt_in`: only if switched on."""
    unit: str = ""
    """UCUM; empty: it is no quantity."""
    is_convention: bool = True
    """Whether OpenTelemetry's semantic conventions define it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One kind of log record, by its event name."""

    name: str
    note: str


SERVICE_NAME: Final = "service.name"
PROCESS_PID: Final = "process.pid"
PROCESS_PARENT_PID: Final = "process.parent_pid"
PROCESS_CREATION_TIME: Final = "process.creation.time"
PROCESS_EXECUTABLE_NAME: Final = "process.executable.name"
PROCESS_EXECUTABLE_PATH: Final = "process.executable.path"
PROCESS_COMMAND: Final = "process.command"
PROCESS_OWNER: Final = "process.owner"
PROCESS_USER_ID: Final = "process.user.id"
PROCESS_REAL_USER_ID: Final = "process.real_user.id"
PROCESS_GROUP_ID: Final = "otel_sysexit.process.group.id"
PROCESS_REAL_GROUP_ID: Final = "otel_sysexit.process.real_group.id"
PROCESS_VPID: Final = "process.vpid"
SERVICE_INSTANCE_ID: Final = "service.instance.id"
PROCESS_EXIT_CODE: Final = "process.exit.code"
PROCESS_LINUX_CGROUP: Final = "process.linux.cgroup"
CONTAINER_ID: Final = "container.id"
K8S_POD_UID: Final = "k8s.pod.uid"
HOST_NAME: Final = "host.name"
HOST_ARCH: Final = "host.arch"
HOST_ID: Final = "host.id"
OS_TYPE: Final = "os.type"
DISTRO_NAME: Final = "telemetry.distro.name"
DISTRO_VERSION: Final = "telemetry.distro.version"
THREAD_ID: Final = "thread.id"
THREAD_NAME: Final = "thread.name"
ERROR_TYPE: Final = "error.type"
FILE_PATH: Final = "file.path"
SYSCALL_NAME: Final = "syscall.name"
SYSCALL_NUMBER: Final = "syscall.number"
SYSCALL_ABI: Final = "syscall.abi"
SYSCALL_RETURN_VALUE: Final = "syscall.return_value"
SYSCALL_ERRNO: Final = "syscall.errno"
SYSCALL_INTERRUPTED: Final = "syscall.interrupted"
SYSCALL_RESTARTS: Final = "syscall.restarts"
SYSCALL_EXECUTED: Final = "syscall.executed"
SYSCALL_TRUNCATED: Final = "syscall.truncated"
SYSCALL_ELAPSED: Final = "syscall.elapsed"
SYSCALL_DURATION: Final = "syscall.duration"
SYSCALL_START_TIME: Final = "syscall.start_time"
SYSCALL_ARGUMENT: Final = "syscall.argument."
SYSCALL_DESCRIPTOR: Final = "syscall.descriptor."
SAMPLING_PROBABILITY: Final = "syscall.sampling.probability"
NETWORK_TRANSPORT: Final = "network.transport"
NETWORK_TYPE: Final = "network.type"
NETWORK_PEER_ADDRESS: Final = "network.peer.address"
NETWORK_PEER_PORT: Final = "network.peer.port"
NETWORK_LOCAL_ADDRESS: Final = "network.local.address"
NETWORK_LOCAL_PORT: Final = "network.local.port"
PROCESS_COMMAND_ARGS: Final = "process.command_args"
WINDOW_CALLS: Final = "otel_sysexit.window.calls"
WINDOW_ERRORS: Final = "otel_sysexit.window.errors"
WINDOW_CALLS_BY_NAME: Final = "otel_sysexit.window.call_count."
WINDOW_FILTERED: Final = "otel_sysexit.window.filtered"
WINDOW_SAMPLED_OUT: Final = "otel_sysexit.window.sampled_out"
WINDOW_DROPPED: Final = "otel_sysexit.window.dropped"
TRACE_PART: Final = "otel_sysexit.trace.part"
LINK_TYPE: Final = "otel_sysexit.link.type"

ATTRIBUTES: Final = (
    Attribute(SERVICE_NAME, "string", "resource", "What the process publishes (process context, OTEP 4719), else its own OTEL_SERVICE_NAME, else service.name of its OTEL_RESOURCE_ATTRIBUTES, else what `--service-name` says of its executable, else that one's bare name (behind `unknown_service:` with `--unknown-service`).", "nginx", requirement="required"),
    Attribute(PROCESS_PID, "int", "resource", "Thread group id, as the initial pid namespace has it.", "1234"),
    Attribute(PROCESS_CREATION_TIME, "string", "resource", "ISO 8601; with the pid it identifies a process.", "2026-11-25T10:00:00.000000000Z"),
    Attribute(PROCESS_PARENT_PID, "int", "resource", "At its start.", "1"),
    Attribute(PROCESS_EXECUTABLE_NAME, "string", "resource", "Bare name of the file that runs; of a script: its interpreter.", "nginx"),
    Attribute(PROCESS_EXECUTABLE_PATH, "string", "resource", "Absolute path of that file; a longer one than --string-limit only as long as the process lives.", "/usr/sbin/nginx"),
    Attribute(PROCESS_COMMAND, "string", "resource", "argv[0].", "nginx"),
    Attribute(PROCESS_COMMAND_ARGS, "string[]", "resource", "argv (`--command-args`); it may hold secrets. `...` stands at the end of what was cut off.", '["nginx", "-g", "daemon off;"]', requirement="opt_in"),
    Attribute(PROCESS_OWNER, "string", "resource", "Name of the effective user; the number as text where it has none.", "www-data"),
    Attribute(PROCESS_USER_ID, "int", "resource", "Effective user id.", "33"),
    Attribute(PROCESS_REAL_USER_ID, "int", "resource", "Real user id, where it is another one (set-user-id programs).", "1000"),
    Attribute(PROCESS_GROUP_ID, "int", "resource", "Effective group id.", "33", is_convention=False),
    Attribute(PROCESS_REAL_GROUP_ID, "int", "resource", "Real group id, where it is another one (set-group-id programs).", "1000", is_convention=False),
    Attribute(PROCESS_VPID, "int", "resource", "Thread group id in the process's own pid namespace, where it is another one.", "7"),
    Attribute(SERVICE_INSTANCE_ID, "string", "resource", "UUID (version 5, in the namespace that the conventions give) of `host.id:boot id:pid:start in clock ticks`; what it publishes, or its OTEL_RESOURCE_ATTRIBUTES, may say another.", "627cc493-f310-47de-96bd-71410b7dec09"),
    Attribute(PROCESS_LINUX_CGROUP, "string", "resource", "When the program began or was first seen, as /proc/PID/cgroup has it; of several hierarchies the one that runtimes use.", "0::/system.slice/nginx.service", requirement="opt_in"),
    Attribute(CONTAINER_ID, "string", "resource", "The innermost container's, by the name of the process's cgroup when the program began or was first seen.", "a3bf90e006b2…"),
    Attribute(K8S_POD_UID, "string", "resource", "The pod's, by the same; of a static pod the hash that the kubelet calls it by.", "275ecb36-5aa8-4c2a-9c47-d8bb681b9aff"),
    Attribute(HOST_NAME, "string", "resource", "As uname(2) gives it.", "web-1"),
    Attribute(HOST_ID, "string", "resource", "From /etc/machine-id.", "fdbf79e8af94cb7f9e8df36789187052"),
    Attribute(HOST_ARCH, "string", "resource", "amd64 or arm64.", "amd64"),
    Attribute(OS_TYPE, "string", "resource", "linux.", "linux"),
    Attribute(DISTRO_NAME, "string", "resource", "otel_sysexit.", "otel_sysexit"),
    Attribute(DISTRO_VERSION, "string", "resource", "Version of this program.", "0.1.0"),
    Attribute(SYSCALL_NAME, "string", "call", "As in the kernel's tables; `syscall_<number>` when they have none. Also the span's name.", "openat", requirement="required", is_convention=False),
    Attribute(SYSCALL_NUMBER, "int", "call", "As given by the program, in its ABI.", "257", is_convention=False),
    Attribute(SYSCALL_ABI, "string", "call", "x86_64, i386, x32, aarch64 or arm.", "x86_64", is_convention=False),
    Attribute(SYSCALL_RETURN_VALUE, "int", "call", "Absent where user space sees none: exit, rt_sigreturn, an interrupted or trapped call.", "3", is_convention=False),
    Attribute(SYSCALL_ERRNO, "int", "call", "Of calls that failed.", "2", is_convention=False),
    Attribute(ERROR_TYPE, "string", "call", "The errno's name (ENOENT); absent for benign failures. On a process: the signal that killed it, or its exit code.", "ENOENT"),
    Attribute(SYSCALL_INTERRUPTED, "boolean", "call", "True: a signal interrupted it; the kernel restarts it or makes it fail with EINTR.", "true", is_convention=False),
    Attribute(SYSCALL_RESTARTS, "string", "call", "On restart_syscall: the call that it goes on with.", "nanosleep", is_convention=False),
    Attribute(SYSCALL_EXECUTED, "boolean", "call", "False: seccomp or a tracer skipped it; the span has no length.", "false", is_convention=False),
    Attribute(SYSCALL_TRUNCATED, "boolean", "call", "True: a path was longer than what is kept (--string-limit).", "true", is_convention=False),
    Attribute(SYSCALL_ARGUMENT + "<name>", "int or string", "call", "By the kernel's name for the argument: numbers and pointers as int; flags, names of signals and the like as string (`O_RDONLY|O_CLOEXEC`), and so a path after the first. A first path that could not be read: the pointer.", "O_RDONLY|O_CLOEXEC", is_convention=False),
    Attribute(FILE_PATH, "string", "call", "The first path argument, as given; of a call that has none, or an empty one, the path of its first descriptor. Bytes that are no UTF-8 as \\xNN.", "/etc/hosts"),
    Attribute(SYSCALL_DESCRIPTOR + "<name>", "string", "call", "What a descriptor was at the time of the call, as /proc/PID/fd shows it: a path, `socket:[42]`, `pipe:[43]`, `anon_inode:[eventpoll]`. Absent where file.path says it.", "socket:[42]", is_convention=False),
    Attribute(NETWORK_PEER_ADDRESS, "string", "call", "The other end of connect, accept, sendto, recvfrom, getpeername: an IP address, a unix socket's path, `@` and the name of an abstract one.", "192.0.2.1"),
    Attribute(NETWORK_PEER_PORT, "int", "call", "Of an IP address.", "443"),
    Attribute(NETWORK_LOCAL_ADDRESS, "string", "call", "The own end, of bind and getsockname.", "192.0.2.2"),
    Attribute(NETWORK_LOCAL_PORT, "int", "call", "Of an IP address.", "8080"),
    Attribute(NETWORK_TYPE, "string", "call", "ipv4 or ipv6.", "ipv4"),
    Attribute(NETWORK_TRANSPORT, "string", "call", "unix, for unix sockets.", "unix"),
    Attribute(SAMPLING_PROBABILITY, "double", "call", "With which the call was kept: it stands for 1 / this many. Absent where every such call is here. The trace state has the same, exactly (`ot=th`).", "0.01", unit="1", is_convention=False),
    Attribute(THREAD_ID, "int", "call", "The thread's id at sys_enter, as the initial pid namespace has it.", "1235"),
    Attribute(THREAD_NAME, "string", "call", "The thread's comm when the call ended.", "worker"),
    Attribute(PROCESS_EXIT_CODE, "int", "process", "0 to 255; absent when a signal killed it or it still lives. Also on the last window of a process.", "127"),
    Attribute(WINDOW_CALLS, "int", "window", "Calls in this window.", "2000", unit="{call}", is_convention=False),
    Attribute(WINDOW_ERRORS, "int", "window", "Of those, calls with error.type.", "3", unit="{call}", is_convention=False),
    Attribute(WINDOW_CALLS_BY_NAME + "<name>", "int", "window", "Of those, calls of that name; the 50 most frequent ones, and `_OTHER`.", "812", unit="{call}", is_convention=False),
    Attribute(WINDOW_FILTERED, "int", "window", "Calls of all targets that were filtered while it was open; absent: none.", "90000", unit="{call}", is_convention=False),
    Attribute(WINDOW_SAMPLED_OUT, "int", "window", "The same, sampled out.", "12000", unit="{call}", is_convention=False),
    Attribute(WINDOW_DROPPED, "int", "window", "The same, lost.", "17", unit="{call}", is_convention=False),
    Attribute(TRACE_PART, "int", "process", "On the root of a part of a tree that is closed before the command ended, and of those that follow: which one it is, from 1.", "2", is_convention=False),
    Attribute(LINK_TYPE, "string", "link", "`previous_window`, `parent_window` (of the process that started this one), `previous_part`, or `started_by`: the span in the TRACEPARENT of the process's environment.", "previous_window", requirement="required", is_convention=False),
    Attribute(SYSCALL_DURATION, "double", "log", "Of the call, in seconds. Only of `otel_sysexit.call`.", "0.000012", unit="s", is_convention=False),
    Attribute(SYSCALL_ELAPSED, "double", "log", "Seconds since the call began. Only of `otel_sysexit.call.in_flight`.", "31.2", unit="s", is_convention=False),
    Attribute(SYSCALL_START_TIME, "string", "log", "ISO 8601; the start of the span that follows. Only of `otel_sysexit.call.in_flight`.", "2026-11-25T10:00:00.000000000Z", is_convention=False),
)  # fmt: skip

CALL: Final = Event(
    "otel_sysexit.call",
    "A call has returned (`--signals logs`). Its time is the call's start, its observed time the end. Severity ERROR (17) where its span would have that status, WARN (13) where it was not executed, "
    "INFO (9) else. With `--signals traces,logs` it has its span's ids.",
)
CALL_IN_FLIGHT: Final = Event(
    "otel_sysexit.call.in_flight",
    "A call has not returned yet. Severity WARN (13) when `--stuck-after` reports it, INFO (9) when SIGUSR1 asked for it.",
)
EVENTS: Final = (CALL, CALL_IN_FLIGHT)

_REQUIRED: Final = frozenset(one.name for one in ATTRIBUTES if one.requirement == "required")
_OPT_IN: Final = frozenset(one.name for one in ATTRIBUTES if one.requirement == "opt_in")


@dataclass(frozen=True, slots=True)
class AttributeSelection:
    """Which attributes are written: those that are not opt-in, but for what is switched."""

    switches: tuple[tuple[str, bool], ...] = ()
    """Names or patterns, and whether on or off; the last that matches a name counts."""

    def has(self, name: str) -> bool:
        """Whether the attribute *name* is written."""
        if name in _REQUIRED:
            return True
        found = (is_on for pattern, is_on in reversed(self.switches) if fnmatchcase(name, pattern))
        return next(found, name not in _OPT_IN)


DEFAULT_ATTRIBUTES: Final = AttributeSelection()


def parse_switches(text: str) -> list[tuple[str, bool]]:
    """
    Return what `NAME=on,PATTERN=off` switches.

    Raises:
        ValueError: it is written in another way, no attribute has that name, or one cannot be without it.
    """
    switches = []
    for item in text.split(","):
        name, _, state = (part.strip() for part in item.partition("="))
        if not name or state.lower() not in ("on", "off"):
            raise ValueError(f"{item.strip()!r} is not NAME=on or NAME=off")
        if "*" not in name and not _is_known(name):
            raise ValueError(
                f"there is no attribute {name!r}; for those of others write a pattern: 'deployment.*'"
            )
        if name in _REQUIRED and state.lower() == "off":
            raise ValueError(f"{name} is always there")
        switches.append((name, state.lower() == "on"))
    return switches


def _is_known(name: str) -> bool:
    return any(fnmatchcase(name, one.name.replace("<name>", "?*")) for one in ATTRIBUTES)
