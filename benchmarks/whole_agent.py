"""The whole agent: under load to a collector, its CPU time and memory; how soon it captures; what it takes when idle."""

import contextlib
import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil
from collector import Collector
from machine import ENVIRONMENT, links, loop_cpu, run, wait_until
from variants import AGENT, LINKS_OF_THE_AGENT, Ledger, running

CALLS: Final = 1_000_000
_IDLE_SECONDS: Final = 1.5
"""Longer than few calls wait for others."""
_IDLE_CPU_SECONDS: Final = 0.03
"""Less CPU than this in that time: it has nothing left to do but to look ten times a second."""
_IDLE_PATIENCE_SECONDS: Final = 30.0
_SAMPLE_SECONDS: Final = 1.0
_ATTACH_CALLS_A_SECOND: Final = 20_000
_ATTACH_SECONDS: Final = 60
"""Longer than any start takes: then the calls are ended."""
_ATTACH_TRACED_SECONDS: Final = 3
_MEMORY: Final = ("VmHWM", "VmRSS", "RssAnon", "RssFile", "RssShmem")
_IMPORTS: Final = (
    ("Python", "sys"),
    ("numpy", "numpy"),
    ("click, psutil", "click, psutil"),
    ("OTLP messages", "opentelemetry.proto.collector.trace.v1.trace_service_pb2"),
    ("otel_sysexit", "otel_sysexit.agent"),
    ("exporter for gRPC", "opentelemetry.exporter.otlp.proto.grpc.trace_exporter"),
)


@dataclass(frozen=True)
class Traced:
    """What came out of a run under the agent."""

    ledger: Ledger
    printed: bytes
    """The command's last line."""
    spans: int | None
    """How many the collector took meanwhile, those of processes included; None: it does not say."""
    cpu_seconds: float
    """Of the whole agent, user and system, from the first of the calls until it idles again."""
    collector_cpu_seconds: float
    start_cpu_seconds: float
    """Of the agent until then, the births of the command's processes included."""
    end_cpu_seconds: float
    """What it took when the command's processes, but the first, ended."""
    memory: Mapping[str, int]
    """KiB, from /proc/PID/status, when all was delivered."""
    idle_memory: Mapping[str, int]
    """The same before the first of the calls."""
    resident: Sequence[int]
    """KiB, second by second while calls were made."""
    rest_resident: int
    """KiB, when it has had a rest after that."""


def trace(
    command: Sequence[str], sink: Collector, options: Sequence[str] = (), rest_seconds: float = 0.0
) -> Traced:
    """Trace *command*, which makes its calls when it gets a line, says something then, and ends with its input, *rest_seconds* after it was idle again."""
    where = ("--endpoint", sink.endpoint, "--protocol", "grpc")
    receiver = psutil.Process(sink.pid)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(
        [*AGENT, "run", *where, *options, "--", *command], env=ENVIRONMENT, **pipes
    ) as process:
        agent = psutil.Process(process.pid)
        name = Path(command[0]).name
        wait_until(lambda: any(_is_called(child, name) for child in agent.children()), f"{name} runs")
        has_processes = name == "storm"
        if has_processes:
            process.stdout.readline()  # all of them are there
        cpu_before, receiver_before = wait_for_idle(agent), cpu_seconds(receiver)
        spans_before, idle_memory = sink.accepted_spans(), _memory(process.pid)
        _tell(process, b"go\n")
        resident = list(_watch_memory(process))
        printed = process.stdout.readline()
        cpu_after = wait_for_idle(agent)
        receiver_cpu = cpu_seconds(receiver) - receiver_before
        spans_after, memory = sink.accepted_spans(), _memory(process.pid)
        time.sleep(rest_seconds)
        rest_resident = _memory(process.pid)["VmRSS"]
        end_cpu = 0.0
        if has_processes:
            _tell(process, b"end\n")
            process.stdout.readline()
            end_cpu = wait_for_idle(agent) - cpu_after
        _, stderr = process.communicate()
    return Traced(
        ledger=Ledger.parse(stderr),
        printed=printed,
        spans=None if spans_before is None or spans_after is None else spans_after - spans_before,
        cpu_seconds=cpu_after - cpu_before,
        collector_cpu_seconds=receiver_cpu,
        start_cpu_seconds=cpu_before,
        end_cpu_seconds=end_cpu,
        memory=memory,
        idle_memory=idle_memory,
        resident=resident,
        rest_resident=rest_resident,
    )


def _tell(process: "subprocess.Popen[bytes]", line: bytes) -> None:
    process.stdin.write(line)
    process.stdin.flush()


def run_million(program: Path, sink: Collector) -> Traced:
    """Trace *CALLS* calls at full speed."""
    return trace([str(program), "-w", str(loop_cpu()), "1", str(CALLS), "0"], sink)


def _watch_memory(process: "subprocess.Popen[bytes]") -> Iterator[int]:
    """Yield the resident memory every second, until the command says something."""
    while True:
        yield _memory(process.pid)["VmRSS"]
        if select.select([process.stdout], [], [], _SAMPLE_SECONDS)[0]:
            return


def _is_called(process: psutil.Process, name: str) -> bool:
    try:
        return bool(process.name() == name)
    except psutil.NoSuchProcess:
        return False


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU that *process* has had, user and system."""
    times = process.cpu_times()
    return float(times.user + times.system)


def wait_for_idle(process: psutil.Process) -> float:
    """Wait until *process* does next to nothing, or not for ever; return the CPU seconds it took until then."""
    before = cpu_seconds(process)
    deadline = time.monotonic() + _IDLE_PATIENCE_SECONDS
    while True:
        time.sleep(_IDLE_SECONDS)
        now = cpu_seconds(process)
        if now - before <= _IDLE_CPU_SECONDS or time.monotonic() > deadline:
            return before
        before = now


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) for name in _MEMORY}


def idle_share(seconds: float) -> float:
    """Return the share of one CPU that the agent takes which traces a process that sleeps."""
    with running(["sleep", "600"]) as sleeper:
        options = ("--quiet", "--exporter", "none", "--pid", str(sleeper.pid))
        with running([*AGENT, "attach", *options]) as process:
            wait_until(lambda: links(process.pid) == LINKS_OF_THE_AGENT, "attached")
            agent = psutil.Process(process.pid)
            before = wait_for_idle(agent)
            time.sleep(seconds)
            return (cpu_seconds(agent) - before) / seconds


@dataclass(frozen=True)
class AttachTimes:
    """Seconds from starting the agent, with many processes alive that it is to trace."""

    processes: int
    first: float
    """Until the first call that was captured began."""
    all: float
    """Until each process had had a call captured."""
    captured: int
    """How many processes that were, in the time there was."""


def attach_times(storm: Path, processes: int) -> AttachTimes:
    """Attach to so many processes, each of which makes some calls a second."""
    command = [str(storm), str(processes), "1", "1", str(_ATTACH_CALLS_A_SECOND), str(_ATTACH_SECONDS)]
    with tempfile.TemporaryDirectory() as folder, _storming(command):
        output = Path(folder, "spans.jsonl")
        options = (
            "--max-rate",
            "none",
            "--duration",
            f"{_ATTACH_TRACED_SECONDS}s",
            "--exporter",
            "none",
            "--quiet",
        )
        before = time.time_ns()
        run([*AGENT, "attach", "--comm", "storm", *options, "--output", str(output)])
        first: dict[str, int] = {}
        for pid, span in _spans(output):
            if span["name"] == "getppid":
                first[pid] = min(first.get(pid, sys.maxsize), int(span["startTimeUnixNano"]))
    times = [(at - before) / 1e9 for at in first.values()]
    return AttachTimes(processes, min(times), max(times), len(times))


@contextlib.contextmanager
def _storming(command: Sequence[str]) -> Iterator[None]:
    """Run storm for the duration of a `with` block; its children die with it."""
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, **pipes) as storm:
        try:
            storm.stdout.readline()
            storm.stdin.write(b"go\n")
            storm.stdin.flush()
            yield
        finally:
            storm.kill()


@dataclass(frozen=True)
class Starts:
    """Seconds of each repetition."""

    compiling: list[float]
    """From starting the agent to the start of its command's execve, the first call captured."""
    kept: list[float]
    """The same with programs that an earlier start has compiled."""
    helping: list[float]
    """Of --help, from start to end."""


def measure_starts(endpoint: str, repetitions: int) -> Starts:
    """Start the agent in each of these ways, in turns."""
    starts = Starts([], [], [])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _start_seconds(endpoint, folder, str(folder / "cache"))
        for _ in range(repetitions):
            starts.compiling.append(_start_seconds(endpoint, folder, "off"))
            starts.kept.append(_start_seconds(endpoint, folder, str(folder / "cache")))
            before = time.perf_counter()
            run([*AGENT, "--help"])
            starts.helping.append(time.perf_counter() - before)
    return starts


def _start_seconds(endpoint: str, folder: Path, cache: str) -> float:
    output = folder / "spans.jsonl"
    options = (
        "--endpoint",
        endpoint,
        "--protocol",
        "grpc",
        "--output",
        str(output),
        "--quiet",
        "--cache",
        cache,
    )
    before = time.time_ns()
    run([*AGENT, "run", *options, "--", "/bin/true"])
    return (_first_call_ns(output) - before) / 1e9


def _first_call_ns(output: Path) -> int:
    return min(int(span["startTimeUnixNano"]) for _, span in _spans(output) if span["name"] == "execve")


def _spans(output: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the pid and the span of everything in a file of OTLP JSON lines."""
    with output.open(encoding="utf-8") as lines:
        for line in lines:
            for resource in json.loads(line)["resourceSpans"]:
                attributes = {one["key"]: one["value"] for one in resource["resource"]["attributes"]}
                for scope in resource["scopeSpans"]:
                    for span in scope["spans"]:
                        yield attributes["process.pid"]["intValue"], span


def import_costs() -> Iterator[tuple[str, int]]:
    """Yield what each import adds to resident memory, in KiB, one after the other in a new interpreter."""
    code = """
import os, re, sys
os.environ["OPENBLAS_NUM_THREADS"] = "1"
for modules in sys.argv[1:]:
    exec(f"import {modules}")
    print(re.search(r"VmRSS:\\s*(\\d+)", open("/proc/self/status").read())[1])
"""
    done = run([sys.executable, "-c", code, *(modules for _, modules in _IMPORTS)])
    before = 0
    for (title, _), resident in zip(_IMPORTS, map(int, done.stdout.split()), strict=True):
        yield title, resident - before
        before = resident
