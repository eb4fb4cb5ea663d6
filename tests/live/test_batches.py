"""Calls are gathered for a batch while they are few, and not for longer than was asked for; many do not wait."""

import sys

import pytest

# 20 calls in a second.
FEW = "import os, time\nfor _ in range(20): os.getppid(); time.sleep(0.05)"
# 20,000 calls at once; then nothing, until standard input ends.
MANY = "import os, sys\nfor _ in range(20_000): os.getppid()\nsys.stdin.read()"


@pytest.fixture
def count_batches(invoke, environment, tmp_path):
    """Return a function that says in how many batches the few calls are written: each is a line."""

    def count(*options: str, **variables: str) -> int:
        output = tmp_path / "spans.jsonl"
        done = invoke(
            *("run", "--syscalls", "getppid", "-o", output, *options, "--", sys.executable, "-c", FEW),
            env={**environment, **variables},
        )
        assert done.returncode == 0, done.stderr
        return len(output.read_text().splitlines())

    return count


@pytest.mark.parametrize(
    ("options", "variables"),
    [
        (("--schedule-delay", "1m"), {}),
        ((), {"OTEL_BSP_SCHEDULE_DELAY": "60000"}),
        (("--schedule-delay", "1m"), {"OTEL_BSP_SCHEDULE_DELAY": "0"}),
    ],
    ids=["option", "variable", "option before variable"],
)
def test_few_calls_wait_for_others(count_batches, options, variables):
    """A batch is as old as was asked for, at most; the end brings what is left."""
    assert count_batches(*options, **variables) == 1


def test_calls_that_are_not_to_wait_are_sent_as_they_come(count_batches):
    """Without a delay each look at the ring, ten a second, makes a batch."""
    assert count_batches("--schedule-delay", "0s") >= 5


def test_lines_on_the_terminal_do_not_wait(count_batches):
    """Who watches calls wants to see them now."""
    assert count_batches("--live", "--schedule-delay", "1m") >= 5


def test_many_calls_do_not_wait(start_agent, eventually, tmp_path):
    """A batch that is full is sent, however long others may wait."""
    output = tmp_path / "spans.jsonl"
    agent = start_agent(
        *("run", "--syscalls", "getppid", "--schedule-delay", "1m", "-o", output),
        *("--", sys.executable, "-c", MANY),
    )
    eventually(lambda: output.exists() and output.read_text().count('"getppid"') >= 8_192, "a full batch")
    agent.communicate(timeout=20)

    assert output.read_text().count('"getppid"') >= 20_000
