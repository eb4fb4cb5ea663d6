"""
The machinery of the live tests: real programs under the real command line, judged from outside.

A program in `programs/` prints what it knows to be true about itself (its *facts*: programs/facts.h).
The fixture `trace` runs it under `otel-sysexit run` and returns a `Trace`: exit status, facts, spans,
ledger. Every trace is checked once by `Trace.assert_sound` for what must hold whatever the program does.
Equal runs are made once in a session; the tests that look at them make one claim each.

In a guest of tests/kernels, where a start of ours takes ten seconds, programs that need no options of ours run under
one agent (shared_agent.py).
"""

import ctypes
import errno
import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from live.native import ABI, BPF_NUMBERS, BUILT, IS_GUEST, MACHINE, PATIENCE
from live.shared_agent import SharedAgent
from otlp_json import STATUS_ERROR, STATUS_UNSET, Span, read_spans

import otel_sysexit
from otel_sysexit.settings import TREE_SPANS_MAX
from otel_sysexit.trees import PART_SECONDS_MAX

PROGRAMS = Path(__file__).parent / "programs"
CFLAGS = ["-O1", "-Wall", "-Werror", "-pthread"]
OTEL_SYSEXIT = [sys.executable, "-m", "otel_sysexit"]
DEADLINE_S = 60 * PATIENCE

# The offset between the clocks is sampled once a second; the real-time clock may be slewed meanwhile.
CLOCK_TOLERANCE_NS = 1_000_000

LEDGER = re.compile(
    r"^otel-sysexit: ledger: seen (?P<seen>\d+) = filtered (?P<filtered>\d+)(?: \([^)]*\))? "
    r"\+ sampled out (?P<sampled_out>\d+) \+ emitted (?P<emitted>\d+) "
    r"\+ dropped (?P<dropped>\d+)(?: \([^)]*\))? \+ in flight (?P<in_flight>\d+); "
    r"emitted \d+ = delivered (?P<delivered>\d+) \+ undelivered (?P<undelivered>\d+); "
    r"unpaired (?P<unpaired>\d+)$",
    re.MULTILINE,
)
BENIGN = {errno.EAGAIN, errno.EINPROGRESS, errno.EALREADY, errno.EINTR}


def pytest_collection_modifyitems(items):
    """Mark every test of this folder as live."""
    for item in items:
        if PROGRAMS.parent in item.path.parents:
            item.add_marker(pytest.mark.live)


@pytest.fixture(scope="session", autouse=True)
def default_signals():
    """Let what tests start have signals as a terminal gives them: nohup, and a script's background, have some ignored."""
    for number in (signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def live():
    """Skip what needs root and BPF where these are missing; fail there when live tests are mandatory."""
    reason = _why_impossible()
    if reason and is_mandatory():
        pytest.fail(f"live tests are mandatory (OTEL_SYSEXIT_LIVE_TESTS=1), but {reason}")
    if reason:
        pytest.skip(f"{reason}; OTEL_SYSEXIT_LIVE_TESTS=1 makes this a failure")


def is_mandatory() -> bool:
    """Whether a live test that cannot run here fails."""
    return os.environ.get("OTEL_SYSEXIT_LIVE_TESTS") == "1"


def _why_impossible() -> str | None:
    """Return why BPF programs cannot be run here, None if they can."""
    if platform.system() != "Linux" or MACHINE not in BPF_NUMBERS:
        return "the programs are written for Linux on x86_64 and aarch64"
    if os.geteuid() != 0:
        return "live tests need root"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "the kernel has no BTF"
    bcc = [python for python in (sys.executable, "/usr/bin/python3") if _has_bcc(python)]
    return None if bcc and _can_create_ring() else "bcc is not installed" if not bcc else "BPF is refused"


def _has_bcc(python: str) -> bool:
    question = [python, "-c", "from bcc import BPF"]
    try:
        return subprocess.run(question, check=False, stderr=subprocess.DEVNULL).returncode == 0
    except FileNotFoundError:
        return False


def _can_create_ring() -> bool:
    """Return whether bpf(2) creates a small ring buffer (BPF_MAP_CREATE, BPF_MAP_TYPE_RINGBUF)."""
    attributes = (ctypes.c_uint32 * 32)(27, 0, 0, os.sysconf("SC_PAGESIZE"))
    number = BPF_NUMBERS[MACHINE]
    descriptor = ctypes.CDLL(None).syscall(number, 0, ctypes.byref(attributes), ctypes.sizeof(attributes))
    if descriptor >= 0:
        os.close(descriptor)
    return descriptor >= 0


@dataclass(frozen=True)
class Ledger:
    """The numbers of the line that ends every run."""

    seen: int
    filtered: int
    sampled_out: int
    emitted: int
    dropped: int
    in_flight: int
    delivered: int
    undelivered: int
    unpaired: int

    @classmethod
    def parse(cls, stderr: str) -> "Ledger":
        """Read the one ledger line of what was printed on stderr."""
        lines = list(LEDGER.finditer(stderr))
        assert len(lines) == 1, f"expected one ledger line in:\n{stderr}"
        return cls(**{name: int(value) for name, value in lines[0].groupdict().items()})


@dataclass
class Trace:
    """What came out of one run: facts by the program, spans by us; no ledger where the agent runs on."""

    status: int
    stdout: bytes
    stderr: str
    spans: list[Span]
    is_run: bool = True
    is_flat: bool = False
    remote_parent: str = ""
    has_ledger: bool = True

    def __post_init__(self):
        if self.has_ledger:
            self.ledger = Ledger.parse(self.stderr)
        self.clock_offset_ns = clock_offset_ns()
        self.facts = [json.loads(line) for line in self.stdout.splitlines() if line.startswith(b'{"')]

    def assert_sound(self):
        """Check what holds for every trace, whatever the program did."""
        if self.has_ledger:
            self._assert_accounts()
        self._assert_tree()
        self._assert_one_call_at_a_time()
        assert not [fact for fact in self.facts if "failed" in fact], "the program itself failed"

    def _assert_accounts(self):
        ledger = self.ledger
        outcomes = ledger.filtered + ledger.sampled_out + ledger.emitted + ledger.dropped + ledger.in_flight
        assert ledger.seen == outcomes, ledger
        assert ledger.emitted == ledger.delivered + ledger.undelivered, ledger
        assert ledger.delivered == len(self.calls()), ledger

    def _assert_tree(self):
        by_id = {span.span_id: span for span in self.spans}
        assert len(by_id) == len(self.spans), "a span id is used twice"
        for span in self.spans:
            assert span.end >= span.start > 0, span
            assert span.trace_id.strip("0"), span
            assert span.parent_id or self.is_flat or not span.is_call, span
            if span.parent_id and span.parent_id != self.remote_parent:
                parent = by_id[span.parent_id]
                assert parent.trace_id == span.trace_id, span
                assert not parent.is_call, span
                assert span.start >= parent.start - CLOCK_TOLERANCE_NS, (span, parent)
                assert not span.is_call or span.pid == parent.pid, (span, parent)
                assert not span.is_call or span.end <= parent.end + CLOCK_TOLERANCE_NS, (span, parent)
        if self.is_run:
            traces = Counter(span.trace_id for span in self.spans)
            roots = Counter(span.trace_id for span in self.spans if not span.parent_id)
            assert roots == dict.fromkeys(traces, 1), "a trace has one root"
            if not self.has_ledger:  # of a shared agent, whose parts were joined
                return
            assert max(traces.values()) <= TREE_SPANS_MAX, "a trace has no more spans than it may"
            took_ns = max(span.end for span in self.spans) - min(span.start for span in self.spans)
            fits = len(self.spans) <= TREE_SPANS_MAX and took_ns < PART_SECONDS_MAX * 10**9
            assert len(traces) == 1 or not fits, "a run that fits is one trace"

    def _assert_one_call_at_a_time(self):
        threads = defaultdict(list)
        for span in self.calls():
            threads[span.pid, span.tid].append(span)
        for spans in threads.values():
            for earlier, later in pairwise(spans):
                assert earlier.end <= later.start, f"a thread in two calls at once: {earlier} {later}"

    def calls(self, name: str | None = None, **wanted: Any) -> list[Span]:
        """Return the call spans in order of their start, those of this name and these properties only."""
        chosen = [span for span in self.spans if span.is_call and name in {None, span.name}]
        chosen = [span for span in chosen if all(getattr(span, key) == wanted[key] for key in wanted)]
        return sorted(chosen, key=lambda span: (span.start, span.end))

    def processes(self, **wanted: Any) -> list[Span]:
        """Return the process spans in order of their start, those with these properties only."""
        chosen = [span for span in self.spans if not span.is_call]
        chosen = [span for span in chosen if all(getattr(span, key) == wanted[key] for key in wanted)]
        return sorted(chosen, key=lambda span: span.start)

    def facts_of(self, key: str, value: Any = None) -> list[dict[str, Any]]:
        """Return the facts that have this key, with this value if one is given."""
        return [fact for fact in self.facts if key in fact and value in {None, fact[key]}]

    def fact(self, key: str, value: Any = None, **more: Any) -> dict[str, Any]:
        """Return the only fact that has this key, with this value if one is given."""
        (fact,) = [
            fact for fact in self.facts_of(key, value) if all(fact[name] == more[name] for name in more)
        ]
        return fact

    def span_of(self, fact: dict[str, Any], number: int | None = None) -> Span:
        """
        Return the span of the call that a fact reports.

        It is the one of the fact's thread and number (or the number given) that lies within the readings,
        and there ends nearest to the program's reading after it; or begins nearest to the one before it
        where there is no other.
        """
        number = fact["nr"] if number is None else number
        before = fact["before"] + self.clock_offset_ns
        after = fact["after"] + self.clock_offset_ns if "after" in fact else None
        candidates = self.calls(tid=fact["tid"], number=number)
        assert candidates, f"no span for {fact}"
        if after is None:
            span = min(candidates, key=lambda span: abs(span.start - before))
        else:
            span = min(
                candidates, key=lambda span: (span.end > after + CLOCK_TOLERANCE_NS, abs(span.end - after))
            )
            assert span.end <= after + CLOCK_TOLERANCE_NS, (fact, span)
        assert span.start >= before - CLOCK_TOLERANCE_NS, (fact, span)
        return span

    def assert_returned(self, fact: dict[str, Any], name: str, abi: str = ABI, number: int | None = None):
        """Check that the span of a finished call says what the program saw; return the span."""
        span = self.span_of(fact, number)
        ret = fact["ret"]
        assert (span.name, span.attributes["syscall.name"], span.abi) == (name, name, abi)
        assert span.return_value == ret
        assert span.is_executed
        assert not span.is_interrupted
        assert span.errno == (-ret if -4096 < ret < 0 else None)
        if span.errno is None or is_benign(name, span.errno):
            assert (span.status, span.error_type) == (STATUS_UNSET, None), span
        else:
            assert (span.status, span.error_type) == (STATUS_ERROR, errno.errorcode[span.errno]), span
        return span


def is_benign(name: str, error: int) -> bool:
    """Return whether a failure is one that happens every day and is no error."""
    return error in BENIGN or (error == errno.ETIMEDOUT and name == "futex")


def assert_without_result(span: Span):
    """Check that a span claims no result: neither a value nor an error."""
    assert (span.return_value, span.errno, span.error_type) == (None, None, None), span
    assert span.status != STATUS_ERROR, span


def clock_offset_ns() -> int:
    """Return CLOCK_REALTIME minus CLOCK_BOOTTIME in ns: of many readings the one that nothing came between."""
    readings = []
    for _ in range(50):
        before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
        after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        readings.append((after - before, wall - (before + after) // 2))
    return min(readings)[1]


def wait_until(condition, what: str, deadline_s: float = 20):
    """Return the condition's first true value; fail when none comes before the deadline (later where it is slow)."""
    deadline_s *= PATIENCE
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"waited {deadline_s} s in vain for {what}"
        time.sleep(0.005)


@pytest.fixture(scope="session")
def eventually():
    """Give tests `wait_until(condition, what, deadline_s)`."""
    return wait_until


@pytest.fixture(scope="session")
def without_result():
    """Give tests `assert_without_result(span)`."""
    return assert_without_result


@pytest.fixture(scope="session")
def environment(tmp_path_factory):
    """
    Return the environment for agents and programs: nothing in it configures OpenTelemetry or us.

    What agents compile they keep for each other, but only in this session: no test depends on what a user has in a cache.
    """
    chosen = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    # Whether installed or not: the agent of a test in another folder is the one that pytest would import.
    return {
        **chosen,
        "PYTHONPATH": str(Path(otel_sysexit.__file__).parents[1]),
        "OTEL_SYSEXIT_CACHE": str(tmp_path_factory.mktemp("cache")),
    }


@pytest.fixture(scope="session")
def build(tmp_path_factory):
    """
    Return a function that compiles a program of `programs/`, once a session, and gives its path.

    In a guest it is there already, or the compiler's reason why not, for which the test is skipped.
    """
    folder = tmp_path_factory.mktemp("programs")

    def find_program(name: str, *, is_32_bit: bool = False) -> Path:
        binary = BUILT / (f"{name}32" if is_32_bit else name)
        why_not = binary.with_name(f"{binary.name}.why-not")
        if why_not.exists():
            pytest.skip(f"{name}.c does not compile for {MACHINE}: {why_not.read_text()}")
        return binary

    def compile_program(name: str, *, is_32_bit: bool = False) -> Path:
        binary = folder / (f"{name}32" if is_32_bit else name)
        if not binary.exists():
            flags = [*CFLAGS, *(["-m32", "-static"] if is_32_bit else [])]
            subprocess.run(["cc", *flags, "-o", binary, PROGRAMS / f"{name}.c"], check=True)
        return binary

    return find_program if BUILT else compile_program


@pytest.fixture(scope="session")
def build32(build, tmp_path_factory):
    """Return a function that compiles a static i386 program; skip where the compiler cannot."""
    if MACHINE != "x86_64":
        pytest.skip("i386 programs run on x86_64 only")
    if BUILT:
        return lambda name: build(name, is_32_bit=True)
    source = tmp_path_factory.mktemp("probe") / "probe.c"
    source.write_text("#include <stdio.h>\nint main(void) { return 0; }\n")
    command = ["cc", "-m32", "-static", "-o", source.with_suffix(""), source]
    if subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode:
        reason = "the compiler makes no static i386 programs: install gcc-multilib"
        pytest.fail(reason) if is_mandatory() else pytest.skip(reason)
    return lambda name: build(name, is_32_bit=True)


@pytest.fixture(scope="session")
def run_traced(tmp_path_factory, environment):
    """
    Return a function that runs a command line under `otel-sysexit run` and gives its `Trace`.

    Further options of ours come as `options`, with *is_one_trace* where they let that be untrue; what else is given goes to
    `subprocess.run`.
    """
    folder = tmp_path_factory.mktemp("traces")

    def run(
        *command: str | Path,
        options: tuple[str, ...] = (),
        is_one_trace: bool = True,
        parent: str = "",
        agent: Sequence[str] = OTEL_SYSEXIT,
        **more: Any,
    ) -> Trace:
        output = folder / f"{len(list(folder.iterdir()))}.jsonl"
        finished = subprocess.run(
            [*agent, "run", "-o", output, *options, "--", *command],
            check=False,
            capture_output=True,
            timeout=DEADLINE_S,
            **{"env": environment, **more},
        )
        stderr = finished.stderr.decode()
        assert output.exists(), f"no output; status {finished.returncode}, stderr:\n{stderr}"
        is_run = (
            is_one_trace and "--max-rate" not in options
        )  # what is sampled at changing rates comes in windows
        found = Trace(
            *(finished.returncode, finished.stdout, stderr, read_spans(output)),
            is_run=is_run,
            is_flat="flat" in options,
            remote_parent=parent,
        )
        ledger = found.ledger
        assert (ledger.dropped, ledger.undelivered, ledger.in_flight) == (0, 0, 0), stderr
        return _checked(found)

    return run


def _checked(trace: Trace) -> Trace:
    trace.assert_sound()
    return trace


@pytest.fixture(scope="session")
def make_trace():
    """Return a function that makes a checked `Trace` of what an `attach` left: status, texts, file; *parent*: another program's."""
    return lambda status, stdout, stderr, output, parent="": _checked(
        Trace(status, stdout, stderr, read_spans(output), is_run=False, remote_parent=parent)
    )


@pytest.fixture(scope="session")
def run_program(run_traced, shared_agent):
    """
    Return a function that runs a binary of `programs/` under us and gives its `Trace`.

    The same binary with the same arguments is run once in a session.
    """
    traces: dict[Any, Trace] = {}

    def run(
        program: Path, *arguments: str | Path, options: tuple[str, ...] = (), alone: bool = False
    ) -> Trace:
        key = (program, arguments, options, alone)
        if key not in traces:
            if shared_agent and not (options or alone):
                traces[key] = _checked(Trace(*shared_agent.run(program, *arguments), has_ledger=False))
            else:
                traces[key] = run_traced(program, *arguments, options=options)
        for fact in traces[key].facts_of("lacks"):
            pytest.skip(f"the kernel lacks {fact['lacks']}")
        return traces[key]

    return run


@pytest.fixture(scope="session")
def shared_agent(tmp_path_factory, environment):
    """In a guest, the agent that programs share; judged as a whole at the session's end. Elsewhere None."""
    if not IS_GUEST:
        yield None
        return
    with SharedAgent(tmp_path_factory.mktemp("shared"), OTEL_SYSEXIT, environment, wait_until) as agent:
        yield agent
        _checked(Trace(*agent.finish()))


@pytest.fixture(scope="session")
def trace(build, run_program):
    """
    Return a function that runs a program of `programs/` under us and gives its `Trace`.

    With `alone` it has an agent of its own in any case: for what the ledger says.
    """
    return lambda program, *arguments, **more: run_program(build(program), *arguments, **more)


@pytest.fixture(scope="session")
def trace32(build32, run_program):
    """Return the same as `trace` for programs compiled as static i386 ones."""
    return lambda program, *arguments, **more: run_program(build32(program), *arguments, **more)


@pytest.fixture
def invoke(environment, tmp_path):
    """Return a function that runs one command line of ours to its end, in an empty folder."""

    def run(*arguments: str | Path, **more: Any) -> subprocess.CompletedProcess:
        settings = {"capture_output": True, "cwd": tmp_path, "env": environment, **more}
        return subprocess.run([*OTEL_SYSEXIT, *arguments], check=False, timeout=DEADLINE_S, **settings)

    return run


@pytest.fixture
def start(environment):
    """Return a function that starts a process with pipes; what still runs at the test's end is killed."""
    started = []

    def start_process(*command: str | Path, **more: Any) -> subprocess.Popen:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(command, **{**pipes, "env": environment, **more})
        started.append(process)
        return process

    yield start_process
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()


@pytest.fixture
def start_agent(start):
    """Return the same as `start` for a command line of ours."""
    return lambda *arguments, **more: start(*OTEL_SYSEXIT, *arguments, **more)
