"""Sampling: what is kept says truly what it stands for."""

import re
from fractions import Fraction
from math import sqrt

import pytest

SIGMAS = 5
WHOLE = 1 << 56


def threshold(span) -> int:
    """Return T, 56 bits, of a span's trace state."""
    (digits,) = re.fullmatch(r"ot=th:([0-9a-f]{1,14})", span.trace_state).groups()
    return int(digits.ljust(14, "0"), 16)


def adjusted_count(spans) -> Fraction:
    """Return how many calls *spans* stand for (tracestate-probability-sampling.md)."""
    return sum((Fraction(WHOLE, WHOLE - threshold(span)) for span in spans), Fraction(0))


def assert_rule_holds(spans) -> None:
    """Assert that the randomness of each span's trace reaches its threshold: R >= T."""
    assert [span for span in spans if int(span.trace_id[-14:], 16) < threshold(span)] == []


@pytest.mark.parametrize(
    ("rate", "count"), [("1/2", 20_000), ("0.1", 50_000), ("1/100", 300_000), ("1/1000", 2_000_000)]
)
def test_counts_can_be_extrapolated(run_traced, build, rate, count):
    """What the kept calls stand for is the true number, within the binomial bound; R >= T for each."""
    run = run_traced(build("getppid"), str(count), options=("--syscalls", "getppid", "--sample", rate))
    probability = Fraction(rate)
    spans = run.calls("getppid")
    deviation = sqrt(count * probability * (1 - probability)) / probability

    assert abs(adjusted_count(spans) - count) < SIGMAS * deviation
    assert run.ledger.seen == count == run.ledger.sampled_out + len(spans)
    assert_rule_holds(spans)


def test_the_threshold_is_exact_and_beside_it_the_probability(run_traced, build):
    """1/2 is th:8, and the attribute says 0.5."""
    run = run_traced(build("getppid"), "200", options=("--syscalls", "getppid", "--sample", "1/2"))

    assert {span.trace_state for span in run.calls()} == {"ot=th:8"}
    assert {span.attributes["syscall.sampling.probability"] for span in run.calls()} == {0.5}


def test_without_sampling_all_are_here(run_traced, build):
    """Every span says th:0, and none has a probability."""
    run = run_traced(build("getppid"), "23")

    assert {span.trace_state for span in run.spans} == {"ot=th:0"}
    assert not [span for span in run.spans if "syscall.sampling.probability" in span.attributes]


def test_a_sampled_out_call_is_not_taken_for_a_skipped_one(run_traced, build):
    """Where enters are sampled out, no exit looks like that of a call that seccomp skipped."""
    run = run_traced(build("fork_storm"), options=("--sample", "1/3"))

    assert not [span for span in run.calls() if not span.is_executed]


def test_errors_are_kept(run_traced):
    """With --keep-errors each failure is here, as itself, while successes are sampled."""
    program = "import os\nfor i in range(3000):\n  os.getppid()\n  try: os.rmdir('/nonexistent')\n  except OSError: pass"
    options = ("--syscalls", "rmdir,getppid", "--sample", "1/50", "--keep-errors")
    run = run_traced("/usr/bin/python3", "-c", program, options=options)

    assert len(run.calls("rmdir")) == 3000
    assert {span.trace_state for span in run.calls("rmdir")} == {"ot=th:0"}
    assert 0 < len(run.calls("getppid")) < 300
    assert_rule_holds(run.calls())


def test_benign_errors_are_not_kept(run_traced):
    """EAGAIN, which happens every day, is sampled like a success."""
    program = (
        "import os\nr, w = os.pipe()\nos.set_blocking(r, False)\n"
        "for i in range(3000):\n  try: os.read(r, 1)\n  except BlockingIOError: pass"
    )
    options = ("--syscalls", "read", "--errno", "EAGAIN", "--sample", "1/50", "--keep-errors")
    run = run_traced("/usr/bin/python3", "-c", program, options=options)

    assert 0 < len(run.calls("read")) < 300


def test_slow_calls_are_kept(run_traced):
    """With --keep-slow each sleep is here though hardly any other call is."""
    program = (
        "import os, time\nfor i in range(20):\n  time.sleep(0.006)\n  [os.getppid() for _ in range(100)]"
    )
    options = ("--syscalls", "clock_nanosleep,getppid", "--sample", "1/1000000", "--keep-slow", "5ms")
    run = run_traced("/usr/bin/python3", "-c", program, options=options)

    assert len(run.calls("clock_nanosleep")) == 20
    assert run.ledger.sampled_out >= 1990


def test_slow_can_mean_another_time_for_a_call(run_traced):
    """By call, too: what is not named is not kept."""
    program = "import os, time\nfor i in range(20):\n  time.sleep(0.006)\n  os.getppid()"
    options = ("--syscalls", "clock_nanosleep,getppid", "--sample", "1/1000000", "--keep-slow", "getppid=1ns")
    run = run_traced("/usr/bin/python3", "-c", program, options=options)

    assert (len(run.calls("getppid")), len(run.calls("clock_nanosleep"))) == (20, 0)


def test_a_rate_is_kept(run_traced, build):
    """Ten times as many calls as are wanted, and more, for some seconds: none is dropped, and the counts stay right."""
    options = ("--syscalls", "getppid", "--max-rate", "2000")
    run = run_traced(build("getppid_paced"), "4", "30000", options=options)
    true = run.fact("calls")["calls"]
    spans = run.calls("getppid")

    assert run.ledger.seen == true
    # Before the first look a few times the rate, then the rate.
    assert 2000 < len(spans) < 4 * 2000 * 1.75
    # Of a kept call's weight w the variance is w(w - 1).
    variance = sum(weight * (weight - 1) for weight in (adjusted_count([span]) for span in spans))
    assert abs(adjusted_count(spans) - true) < SIGMAS * sqrt(variance)
    assert_rule_holds(spans)


def test_a_rate_is_of_what_passes_the_filters(run_traced):
    """A few errors among very many successes are far below the rate: all of them are here."""
    program = (
        "import os, time\nfor i in range(20):\n  [os.getppid() for _ in range(5000)]\n"
        "  time.sleep(0.1)\n  try: os.rmdir('/nonexistent')\n  except OSError: pass"
    )
    options = ("--syscalls", "rmdir,getppid", "--errors-only", "--max-rate", "1000")
    run = run_traced("/usr/bin/python3", "-c", program, options=options)

    assert len(run.calls("rmdir")) == 20
    assert run.ledger.sampled_out == 0


def test_a_window_has_one_threshold(run_traced, build):
    """In a trace all calls that were sampled have the same threshold."""
    run = run_traced(
        build("getppid_paced"), "3", "30000", options=("--syscalls", "getppid", "--max-rate", "500")
    )
    states: dict[str, set[str]] = {}
    for span in run.calls():
        states.setdefault(span.trace_id, set()).add(span.trace_state)

    assert {len(found) for found in states.values()} == {1}
    assert len({state for found in states.values() for state in found}) > 1


def test_kept_classes_have_a_budget_of_their_own(run_traced):
    """With --max-rate even errors that are kept always come in bounded number: those refused are sampled, and said."""
    program = "import os, time\nend = time.time() + 2\nwhile time.time() < end:\n  try: os.rmdir('/nonexistent')\n  except OSError: pass"
    options = ("--syscalls", "rmdir", "--max-rate", "1000", "--keep-errors")
    run = run_traced("/usr/bin/python3", "-c", program, options=options)
    kept = [span for span in run.calls() if span.trace_state == "ot=th:0"]

    assert 1000 <= len(kept) < 10_000 < run.ledger.seen
    assert "calls to be kept always were sampled: --max-rate was used up" in run.stderr
    assert_rule_holds(run.calls())
