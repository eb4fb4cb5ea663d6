"""Calls that do not return: reported while they last, as a line and a log record, and a span when they end."""

import re
import signal
import subprocess
from math import log2
from pathlib import Path

import pytest
from otlp_json import read_log_records, read_spans

from otel_sysexit.signals import HANDLED

EVENT = "otel_sysexit.call.in_flight"
WARN, INFO = 13, 9
LINE = re.compile(
    r"^otel-sysexit: (?P<call>\w+) in (?P<name>\S+)\[(?P<pid>\d+)\].* for (?P<time>[\d.]+) (?P<unit>m?s)$"
)


class Agent:
    """One of ours at work, with what it wrote so far."""

    def __init__(self, process, folder):
        self.process = process
        self._printed, self._output = folder / "stderr", folder / "out.jsonl"

    @property
    def printed(self) -> str:
        """What is on its stderr."""
        return self._printed.read_text()

    def lines(self, call: str) -> list[re.Match]:
        """Return the lines that report this call."""
        found = map(LINE.match, self.printed.splitlines())
        return [line for line in found if line and line["call"] == call]

    def records(self, call: str) -> list:
        """Return the log records of this call that are in the file."""
        records = read_log_records(self._output) if self._output.exists() else []
        return [record for record in records if record.attributes["syscall.name"] == call]

    def end(self) -> tuple[int, str, object]:
        """Wait for its end; return its status, its stderr and its file."""
        return self.process.wait(timeout=60), self.printed, self._output


@pytest.fixture
def start_reporting(start_agent, tmp_path):
    """Return a function that starts a command line of ours, whose stderr and -o file the test can look into."""

    def start(command: str, *arguments, **more) -> Agent:
        with (tmp_path / "stderr").open("wb") as stderr:
            words = (command, "-o", tmp_path / "out.jsonl", *arguments)
            return Agent(start_agent(*words, stderr=stderr, **more), tmp_path)

    return start


@pytest.fixture
def attach_to_cat(start, start_reporting, eventually):
    """Return a function that attaches to a cat that waits for a line, and has it wait for the next, seen from its start."""

    def attach(*options) -> tuple[subprocess.Popen, Agent]:
        cat = start("cat")
        agent = start_reporting("attach", "--live", "--pid", str(cat.pid), *options, stdin=subprocess.DEVNULL)

        def echoes() -> bool:
            cat.stdin.write(b"x\n")
            cat.stdin.flush()
            cat.stdout.readline()
            return " write(" in agent.printed

        eventually(echoes, "a call of cat to be seen")
        syscall = Path(f"/proc/{cat.pid}/syscall")
        eventually(lambda: syscall.read_text().startswith("0 "), "cat to wait in read")
        return cat, agent

    return attach


@pytest.mark.each_kernel
def test_a_call_that_is_stuck_is_reported_at_doubling_times(start_reporting, eventually):
    """A read that waits for a pipe is reported after the threshold, after twice and four times that, and no more often."""
    agent = start_reporting("run", "--stuck-after", "1s", "--", "cat")
    eventually(lambda: len(agent.lines("read")) >= 3, "three reports", 30)
    agent.process.stdin.close()
    agent.process.stdin = None
    status, _, output = agent.end()
    elapsed = [record.attributes["syscall.elapsed"] for record in agent.records("read")]

    assert status == 0
    assert len(elapsed) == len(agent.lines("read"))
    doublings = [int(log2(seconds)) for seconds in elapsed]
    assert doublings == sorted(set(doublings))
    assert doublings[0] >= 0
    assert {record.severity for record in agent.records("read")} == {WARN}
    assert {line["name"] for line in agent.lines("read")} == {"cat"}
    (span,) = [span for span in read_spans(output) if span.name == "read" and span.duration > 4 * 10**9]
    assert (span.return_value, span.pid) == (0, int(agent.lines("read")[0]["pid"]))


def test_the_log_record_says_what_the_span_will(start_reporting, eventually):
    """Resource, scope, thread, number, ABI and start are those of the span that follows when the call returns."""
    agent = start_reporting("run", "--stuck-after", "1s", "--", "cat")
    eventually(lambda: agent.records("read"), "a log record", 30)
    agent.process.stdin.close()
    agent.process.stdin = None
    _, _, output = agent.end()
    record = agent.records("read")[0]
    (span,) = [span for span in read_spans(output) if span.name == "read" and span.duration > 10**9]
    same = ("syscall.name", "syscall.number", "syscall.abi", "thread.id", "thread.name")

    assert (record.event, record.body) == (EVENT, agent.lines("read")[0][0].removeprefix("otel-sysexit: "))
    assert record.resource == span.resource
    assert (record.resource_schema, record.scope, record.scope_schema) == (
        span.resource_schema,
        span.scope,
        span.scope_schema,
    )
    assert [record.attributes[name] for name in same] == [span.attributes[name] for name in same]
    assert record.attributes["syscall.elapsed"] == pytest.approx((record.time - span.start) / 1e9, abs=0.01)
    assert span.start < record.time < span.end


def test_a_call_that_sampling_leaves_out_is_reported_too(start_reporting, eventually):
    """What hangs is looked for among all calls: of a busy program hardly any are kept."""
    agent = start_reporting("run", "--sample", "1/1000000", "--stuck-after", "1s", "--", "sleep", "600")
    eventually(lambda: agent.lines("clock_nanosleep"), "a report", 30)
    agent.process.send_signal(signal.SIGTERM)
    agent.end()

    assert {line["name"] for line in agent.lines("clock_nanosleep")} == {"sleep"}


def test_a_call_that_ends_in_time_is_not_reported(start_reporting):
    """Calls below the threshold, however many and in a program that lives longer, give neither line nor record."""
    script = "for _ in 1 2 3; do sleep 0.7; done"
    agent = start_reporting("run", "--stuck-after", "2s", "--syscalls", "!wait4", "--", "sh", "-c", script)
    agent.end()

    assert agent.printed.count(" for ") == 0
    assert agent.records("clock_nanosleep") == []


def test_the_span_follows_when_the_thread_dies(start_reporting, eventually):
    """A call that never returns is reported while it lasts, and is a span without a result when its thread is killed."""
    agent = start_reporting("run", "--stuck-after", "1s", "--", "sleep", "600")
    eventually(lambda: agent.records("clock_nanosleep"), "a log record", 30)
    agent.process.send_signal(signal.SIGTERM)
    status, _, output = agent.end()
    (span,) = [span for span in read_spans(output) if span.name == "clock_nanosleep"]

    assert status == 128 + signal.SIGTERM
    assert span.duration >= 10**9
    assert (span.return_value, span.errno) == (None, None)


def test_sigusr1_reports_at_once(attach_to_cat, eventually):
    """SIGUSR1 to attach reports the call in flight, however short it has lasted, as INFO; and again when asked again."""
    cat, agent = attach_to_cat()
    for count in (1, 2):
        agent.process.send_signal(signal.SIGUSR1)
        eventually(lambda count=count: len(agent.lines("read")) == count, "the report on the terminal")
        eventually(lambda count=count: len(agent.records("read")) == count, "the report in the file")
    cat.stdin.close()
    cat.stdin = None
    agent.end()

    assert {(record.severity, record.resource["process.pid"]) for record in agent.records("read")} == {
        (INFO, cat.pid)
    }
    assert len(agent.lines("read")) == 2


def test_sigusr1_is_answered_when_nothing_is_in_flight(start, start_reporting, eventually):
    """Of a process that is in a call since before attach nothing is known; the answer says so."""
    cat = start("cat")
    agent = start_reporting("attach", "--pid", str(cat.pid), stdin=subprocess.DEVNULL)

    def is_answered() -> bool:
        return "otel-sysexit: no call is in flight" in agent.printed

    # Until it has taken its signals over, SIGUSR1 would end it. (While it starts a process, all are blocked for a moment.)
    taken_over = sum(1 << number - 1 for number in HANDLED)
    eventually(lambda: _blocked_signals(agent.process.pid) == taken_over, "the agent to be ready")
    agent.process.send_signal(signal.SIGUSR1)
    eventually(is_answered, "the answer")
    cat.stdin.close()
    cat.stdin = None
    agent.end()

    assert agent.records("read") == []


def _blocked_signals(pid: int) -> int:
    """Return a process's mask of blocked signals (proc(5), status, SigBlk)."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"^SigBlk:\s+(\w+)$", status, re.MULTILINE)[1], 16)


def test_who_asks_while_we_start_is_answered(start_reporting, eventually):
    """SIGUSR1 before anything is traced ends nobody: the report comes when there is something to report."""
    agent = start_reporting("run", "--quiet", "--", "sleep", "2")
    status = Path(f"/proc/{agent.process.pid}/status")

    def holds_report() -> bool:
        (mask,) = re.findall(r"^SigBlk:\s(\w+)$", status.read_text(), re.MULTILINE)
        return bool(int(mask, 16) >> signal.SIGUSR1 - 1 & 1)

    eventually(holds_report, "our code runs")
    agent.process.send_signal(signal.SIGUSR1)
    code, printed, _ = agent.end()

    assert code == 0
    assert "in sleep[" in printed or "no call is in flight" in printed
