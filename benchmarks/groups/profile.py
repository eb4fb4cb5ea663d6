"""
Where the agent's CPU goes under full load: by thread (the kernel), by Python function (py-spy), by library (perf, if it is there).

A sample of py-spy belongs to the innermost function of ours that is on the stack: what numpy, gRPC and the kernel do for it counts as its own.
"""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil
from bench import Bench
from machine import ENVIRONMENT
from report import Results, Table
from tools import PERF
from variants import AGENT
from whole_agent import wait_for_idle

_STORM: Final = ("1", "1", "30", "0")
"""Processes, threads, kinds of calls, as many as they can."""
_SAMPLES_A_SECOND: Final = 200
_FRAME: Final = re.compile(r"(?P<function>\S+) \((?P<file>[^()]*?)(?::\d+)?\)$")
_THREAD: Final = re.compile(r"thread \((?P<tid>\d+)\)(?:: (?P<name>[^;]*))?")
_WAITS: Final = ("_UnaryUnaryMultiCallable._blocking", "Agent.loop", "Condition.wait")
"""Functions that do next to nothing in Python but wait."""
_LEAST: Final = 0.001
_FUNCTIONS: Final = 20
_STAGES: Final = {
    "kernel/ring.py": "ring → arrays",
    "kernel/maps.py": "counters and maps",
    "kernel/capture.py": "counters and maps",
    "reading.py": "ring → arrays",
    "calls.py": "records → columns",
    "strings.py": "records → columns",
    "files.py": "records → columns",
    "addresses.py": "records → columns",
    "texts.py": "records → columns",
    "arguments.py": "records → columns",
    "syscalls.py": "records → columns",
    "processes.py": "processes",
    "traces.py": "traces",
    "trees.py": "traces",
    "windows.py": "traces",
    "otlp/spans.py": "columns → OTLP bytes",
    "otlp/stamp.py": "columns → OTLP bytes",
    "otlp/shapes.py": "columns → OTLP bytes",
    "otlp/templates.py": "columns → OTLP bytes",
    "otlp/resources.py": "columns → OTLP bytes",
    "otlp/request.py": "columns → OTLP bytes",
    "otlp/transport.py": "sending",
    "otlp/export.py": "sending",
}
"""Files of ours → what they are for; the others are the agent's loop and the rest."""
_REST: Final = "the agent's loop and the rest"
_OTHERS: Final = "threads of libraries"


@dataclass(frozen=True)
class Sampled:
    """What was seen of the agent."""

    stacks: Sequence[str]
    """Lines of py-spy's raw format: thread and frames, outermost first, and how often that was seen."""
    cpu_seconds: Mapping[int, float]
    """By tid."""
    names: Mapping[int, str]
    """Of threads, by tid, as the kernel has them."""
    perf_report: str
    """perf's table by library; empty: there is no perf."""


def measure(bench: Bench) -> Results:
    """Sample the agent while it gets more calls than it can take."""
    seconds = bench.times(20, 4)
    with bench.collector() as sink:
        sampled = _sample(bench, sink.endpoint, seconds)
    shares = list(weigh(sampled))
    total = sum(sampled.cpu_seconds.values())
    stages, threads, functions = Counter[str](), Counter[str](), Counter[str]()
    for thread, file, function, share in shares:
        threads[thread] += share
        stages[_STAGES.get(file, _REST) if file else _OTHERS] += share
        if file:
            functions[f"`{file}`: `{function}`"] += share
    return Results(
        tables={
            "threads": _table("thread", threads),
            "stages": _table("stage", stages),
            "libraries": _table("library", parse_perf(sampled.perf_report)),
            "functions": _table("function, with what it calls that is not ours", functions, _FUNCTIONS),
        },
        facts={"busy": f"In {seconds} s of full load the agent took {total:.1f} s of CPU."},
    )


def _table(title: str, shares: Counter[str], most: int | None = None) -> Table:
    rows = [[what, share] for what, share in shares.most_common(most) if share >= _LEAST]
    return Table({title: "", "of the CPU": ".1%"}, rows)


def weigh(sampled: Sampled) -> Iterator[tuple[str, str, str, float]]:
    """
    Yield thread, file below our package, function, and its share of all the CPU that the agent took.

    A thread's CPU is spread over what it was seen in, but for where it waits: a thread that was woken, and has no CPU yet, looks busy.
    File and function are empty for threads of libraries, and where nothing of ours runs.
    """
    seen = Counter[tuple[int, str, str, str]]()
    by_tid = Counter[int]()
    for line in sampled.stacks:
        frames, _, count = line.rpartition(" ")
        found = _THREAD.match(frames)
        if found is not None and not frames.rpartition(";")[2].startswith(_WAITS):
            tid = int(found["tid"])
            seen[tid, found["name"] or "?", *_owner(frames.split(";"))] += int(count)
            by_tid[tid] += int(count)
    total = sum(sampled.cpu_seconds.values())
    for (tid, name, file, function), count in seen.items():
        yield name, file, function, sampled.cpu_seconds.get(tid, 0.0) / total * count / by_tid[tid]
    for tid in sampled.cpu_seconds.keys() - by_tid.keys():
        yield f"of libraries: {sampled.names[tid]}", "", "", sampled.cpu_seconds[tid] / total


def _owner(frames: Sequence[str]) -> tuple[str, str]:
    """Return the file and the name of the innermost function of ours."""
    for frame in reversed(frames):
        found = _FRAME.search(frame)
        if found is not None and "otel_sysexit/" in found["file"]:
            return found["file"].rpartition("otel_sysexit/")[2], found["function"]
    return "", ""


def parse_perf(report: str) -> Counter[str]:
    """Read what `perf report --fields overhead,dso` prints."""
    found = re.finditer(r"^ +([\d.]+)% +(\S+)", report, re.MULTILINE)
    return Counter({line[2].partition(".cpython")[0]: float(line[1]) / 100 for line in found})


def _sample(bench: Bench, endpoint: str, seconds: int) -> Sampled:
    """Look at the agent while it gets more calls than it can take."""
    storm = [str(bench.storm), *_STORM, str(2 * seconds + 4)]
    command = [*AGENT, "run", "--quiet", "--endpoint", endpoint, "--protocol", "grpc", "--", *storm]
    pipes = dict.fromkeys(("stdin", "stdout"), subprocess.PIPE)
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as agent:
        agent.stdout.readline()
        wait_for_idle(psutil.Process(agent.pid))
        agent.stdin.write(b"go\n")
        agent.stdin.flush()
        before = _cpu_seconds(agent.pid)
        stacks = _spy(agent.pid, seconds, bench.folder / "stacks")
        cpu = {tid: now - before.get(tid, 0.0) for tid, now in _cpu_seconds(agent.pid).items()}
        names = {tid: _name(agent.pid, tid) for tid in cpu}
        perf_report = _perf(agent.pid, seconds, bench.folder / "perf.data") if PERF.is_installed else ""
        agent.communicate()
    return Sampled(stacks, cpu, names, perf_report)


def _spy(pid: int, seconds: int, output: Path) -> list[str]:
    # Not blocking: else threads that wait would be woken by each look, and be taken for busy.
    how = ("--nonblocking", "--threads", "--function", "--format", "raw", "--rate", str(_SAMPLES_A_SECOND))
    spy = [
        Path(sys.executable).with_name("py-spy"),
        "record",
        "--pid",
        str(pid),
        *how,
        "--duration",
        str(seconds),
    ]
    subprocess.run([*spy, "--output", output], check=True, capture_output=True)
    return output.read_text(encoding="utf-8").splitlines()


def _perf(pid: int, seconds: int, output: Path) -> str:
    what = ("-e", "cpu-clock", "-F", str(_SAMPLES_A_SECOND), "-p", str(pid), "-o", str(output))
    subprocess.run(["perf", "record", *what, "--", "sleep", str(seconds)], check=True, capture_output=True)
    command = ["perf", "report", "-i", output, "--stdio", "--fields", "overhead,dso"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _cpu_seconds(pid: int) -> dict[int, float]:
    return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process(pid).threads()}


def _name(pid: int, tid: int) -> str:
    return Path(f"/proc/{pid}/task/{tid}/comm").read_text(encoding="utf-8").strip()
