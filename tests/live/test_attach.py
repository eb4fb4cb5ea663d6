"""`attach` joins running programs in the middle of their calls: it invents nothing and misses nothing after."""

import json
import signal
import subprocess
from pathlib import Path

import pytest
from live.native import own_name


class Target:
    """The program `midcall`, with each of its threads blocked or ticking."""

    def __init__(self, process, eventually):
        self.process = process
        self.output = b"".join(process.stdout.readline() for _ in range(3))
        facts = {}
        for line in self.output.splitlines():
            facts.update(json.loads(line))
        self.pid = process.pid
        self.ticking, self.reading, self.pausing = facts["ticking"], facts["reading"], facts["pausing"]
        self.read_number = facts["nr"]
        eventually(lambda: self.is_in_call(self.reading, self.read_number), "the reader to block")
        eventually(lambda: self.is_in_call(self.pausing, facts["pause"]), "the leader to pause")

    def is_in_call(self, tid: int, number: int) -> bool:
        """Return whether a thread is blocked in this call."""
        return Path(f"/proc/{self.pid}/task/{tid}/syscall").read_text().startswith(f"{number} ")

    def obey_once(self):
        """Let the reader make its three calls; return when it has."""
        self.process.stdin.write(b"x")
        self.process.stdin.flush()
        self.output += b"".join(self.process.stdout.readline() for _ in range(3))

    def end(self) -> int:
        """Let the program end by itself; return its status."""
        self.process.stdin.close()
        self.process.stdin = None
        return self.process.wait(timeout=60)


@pytest.fixture
def target(start, build, eventually):
    """Start the program to attach to."""
    return Target(start(build("midcall")), eventually)


@pytest.fixture
def attach(start_agent, tmp_path, eventually):
    """
    Return a function that attaches to processes and comes back when the first call has been printed.

    It returns the agent and a function that waits for the agent's end and gives (stderr, output file).
    """

    def attach_to(*pids: int, options=()):
        output, printed = tmp_path / "spans.jsonl", tmp_path / "stderr"
        chosen = [word for pid in pids for word in ("--pid", str(pid))]
        with printed.open("wb") as stderr:
            agent = start_agent(
                *("attach", "--max-rate", "none", "--live", "-o", output, *chosen, *options),
                stderr=stderr,
                stdin=subprocess.DEVNULL,
            )
        try:
            eventually(lambda: b"getppid(" in printed.read_bytes(), "the first call to be printed")
        except AssertionError as error:
            said, ended = printed.read_text(), agent.poll()
            raise AssertionError(f"the agent said {said!r}; its status is {ended}") from error

        def finish():
            status = agent.wait(timeout=60)
            return status, printed.read_text(), output

        return agent, finish

    return attach_to


@pytest.fixture
def judge(make_trace):
    """Return a function that makes a checked `Trace` of an attach that has ended."""

    def make(target, finish):
        status, stderr, output = finish()
        return make_trace(status, target.output, stderr, output)

    return make


@pytest.mark.each_kernel
def test_a_call_in_progress_is_no_span(target, attach, judge):
    """The read that was blocked at attach is none of ours when it returns; the next one is."""
    _, finish = attach(target.pid)
    target.obey_once()
    target.end()
    run = judge(target, finish)
    (span,) = run.calls("read", tid=target.reading)

    assert span.return_value == 0
    assert run.calls(own_name("pause"), tid=target.pausing) == []


@pytest.mark.each_kernel
def test_a_call_in_progress_is_unpaired(target, attach, judge):
    """The ledger calls the returns of the blocked read and the blocked pause unpaired."""
    _, finish = attach(target.pid)
    target.obey_once()
    target.end()

    # The ticking thread may have been in a call of its own.
    assert judge(target, finish).ledger.unpaired in {2, 3}


@pytest.mark.each_kernel
def test_calls_after_attach_are_right(target, attach, judge):
    """The reader's three calls after attach have their results and lie within its readings."""
    _, finish = attach(target.pid)
    target.obey_once()
    target.end()
    run = judge(target, finish)

    assert len(run.calls("getuid", tid=target.reading)) == 3
    for fact in run.facts_of("call", "after attach"):
        run.assert_returned(fact, "getuid")


def test_all_threads_are_attached(target, attach, judge):
    """By the process's id its other threads are attached too."""
    _, finish = attach(target.pid)
    target.obey_once()
    target.end()
    run = judge(target, finish)

    assert {target.ticking, target.reading} <= {span.tid for span in run.calls()}
    assert {span.pid for span in run.calls()} == {target.pid}


def test_attach_ends_with_its_last_target(target, attach, judge):
    """When the target ends, attach does, with status 0 and no call in flight."""
    _, finish = attach(target.pid)
    assert target.end() == 0
    run = judge(target, finish)

    assert run.status == 0
    assert run.ledger.in_flight == 0
    assert run.calls()[-1].name == "exit_group"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_attach(target, attach, judge, number):
    """SIGTERM and SIGINT end attach with status 0; the target runs on."""
    agent, finish = attach(target.pid)
    target.obey_once()
    agent.send_signal(number)
    run = judge(target, finish)

    assert run.status == 0
    assert target.process.poll() is None
    assert target.end() == 0


@pytest.mark.each_kernel
def test_a_call_in_progress_at_the_end_is_in_flight(target, attach, judge, eventually):
    """The read that the reader is blocked in when attach ends is counted as in flight, and is no span."""
    agent, finish = attach(target.pid)
    target.obey_once()
    eventually(lambda: target.is_in_call(target.reading, target.read_number), "the reader to block again")
    agent.send_signal(signal.SIGTERM)
    run = judge(target, finish)

    # The ticking thread may be in a call of its own.
    assert run.ledger.in_flight in {1, 2}
    assert run.calls("read", tid=target.reading) == []


def test_a_duration_ends_attach(target, attach, judge):
    """With --duration attach ends by itself, not before that time; the target runs on."""
    _, finish = attach(target.pid, options=("--duration", "1s"))
    run = judge(target, finish)
    ticks = run.calls("getppid")

    assert run.status == 0
    assert target.process.poll() is None
    assert ticks[-1].end - ticks[0].start > 500_000_000


def test_windows_are_roots_of_one_process(target, attach, judge):
    """Each window is a root without a parent; the calls below it are of its trace and process."""
    _, finish = attach(target.pid)
    target.obey_once()
    target.end()
    run = judge(target, finish)
    windows = run.processes()

    assert windows
    assert {window.parent_id for window in windows} == {""}
    assert len({window.trace_id for window in windows}) == len(windows)
    for window in windows:
        assert window.pid == target.pid


def test_two_targets_are_attached(start, build, eventually, attach, judge):
    """Several --pid attach to each; attach goes on until the last of them ends."""
    first, second = (Target(start(build("midcall")), eventually) for _ in range(2))
    agent, finish = attach(first.pid, second.pid)
    first.end()
    second.obey_once()
    assert agent.poll() is None
    second.end()
    run = judge(second, finish)

    assert {span.pid for span in run.calls()} == {first.pid, second.pid}
    assert len(run.calls("getuid", pid=second.pid)) == 3


def test_future_children_are_followed(start, target, attach, judge):
    """A child that the target makes after attach is there with all its calls."""
    shell = start("/bin/sh")
    _, finish = attach(shell.pid, target.pid)
    shell.communicate(b"/bin/true & echo $!; wait\n")
    target.end()
    run = judge(target, finish)
    (execve,) = run.calls("execve", return_value=0)

    assert execve.pid != shell.pid
    assert execve.attributes["file.path"] == "/bin/true"
    assert run.calls(pid=execve.pid)[-1].name == "exit_group"


def test_our_death_leaves_the_target_alone(target, attach):
    """When we are killed the target goes on as if we had never been there."""
    agent, _ = attach(target.pid)
    agent.kill()
    agent.wait(timeout=60)
    target.obey_once()

    assert target.end() == 0
    assert target.output.count(b"after attach") == 3


@pytest.mark.parametrize("pid", ["4194305", "0", "-1", "self"])
def test_a_pid_that_is_none_is_refused(invoke, pid):
    """A process that does not exist gives one explanation that names it, and a failure."""
    finished = invoke("attach", "--pid", pid)

    assert finished.returncode != 0
    assert pid in finished.stderr.decode()
    assert "Traceback" not in finished.stderr.decode()
