"""The whole agent: a million calls at full speed to a collector, its CPU time and memory, and how soon it captures."""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from collector import Collector
from machine import ENVIRONMENT, loop_cpu, numbers, run, wait_until
from variants import AGENT, Ledger

CALLS: Final = 1_000_000
_IDLE_SECONDS: Final = 0.5
_IDLE_CPU_SECONDS: Final = 0.02
"""Less CPU than this in that time: it has nothing left to do but to look ten times a second."""
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
class Million:
    """What came out of the long run."""

    ledger: Ledger
    wall_ns_a_call: float
    cpu_ns_a_span: float
    """Of the whole agent, user and system, from the first of these calls until it idles again."""
    collector: str
    collector_cpu_ns_a_span: float
    memory: Mapping[str, int]
    """KiB, from /proc/PID/status, when all was delivered."""
    idle_memory: Mapping[str, int]
    """The same before the first of these calls."""


def run_million(program: Path, sink: Collector) -> Million:
    """Trace *CALLS* calls at full speed."""
    loop = [str(program), "-w", str(loop_cpu()), "1", str(CALLS), "0"]
    command = [*AGENT, "run", "--endpoint", sink.endpoint, "--protocol", "grpc", "--", *loop]
    receiver = psutil.Process(sink.pid)
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as process:
        agent = psutil.Process(process.pid)
        wait_until(lambda: any(_is_loop(child) for child in agent.children()), "the loop runs")
        cpu_before = _wait_for_idle(agent)
        idle_memory = _memory(process.pid)
        receiver_before = _cpu_seconds(receiver)
        process.stdin.write(b"go\n")
        process.stdin.flush()
        printed = process.stdout.readline()
        cpu = _wait_for_idle(agent) - cpu_before
        receiver_cpu = _cpu_seconds(receiver) - receiver_before
        memory = _memory(process.pid)
        _, stderr = process.communicate()
    ledger = Ledger.parse(stderr)
    return Million(
        ledger=ledger,
        wall_ns_a_call=numbers(printed)[0],
        cpu_ns_a_span=cpu * 1e9 / ledger.delivered,
        collector=sink.name,
        collector_cpu_ns_a_span=receiver_cpu * 1e9 / ledger.delivered,
        memory=memory,
        idle_memory=idle_memory,
    )


def _is_loop(process: psutil.Process) -> bool:
    try:
        return bool(process.name() == "getppid")
    except psutil.NoSuchProcess:
        return False


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _wait_for_idle(process: psutil.Process) -> float:
    """Wait until *process* does next to nothing; return the CPU seconds it took until then."""
    before = _cpu_seconds(process)
    while True:
        time.sleep(_IDLE_SECONDS)
        now = _cpu_seconds(process)
        if now - before <= _IDLE_CPU_SECONDS:
            return before
        before = now


def _memory(pid: int) -> dict[str, int]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(found[name].split()[0]) for name in _MEMORY}


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
    with output.open(encoding="utf-8") as lines:
        spans = [
            span
            for line in lines
            for resource in json.loads(line)["resourceSpans"]
            for scope in resource["scopeSpans"]
            for span in scope["spans"]
        ]
    return min(int(span["startTimeUnixNano"]) for span in spans if span["name"] == "execve")


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
