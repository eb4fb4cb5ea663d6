from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
from made_calls import START_UNIX_NS, Made, make_calls, make_process

from otel_sysexit import summary
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Process
from otel_sysexit.summary import LONGEST, PERCENTILE_ERROR, PROCESSES_MAX, Statistics


def batch(durations_ns: Iterable[int], call: str | int = "read", **facts: Any) -> Calls:
    """Return calls of one sort that differ in their durations."""
    return make_calls(*(Made(call, duration_ns=int(duration), **facts) for duration in durations_ns))


def statistics_of(*batches: Calls) -> Statistics:
    """Return the figures of some batches."""
    statistics = Statistics()
    for one in batches:
        statistics.add(one)
    return statistics


@pytest.mark.parametrize("seed", range(5))
def test_percentiles_are_within_the_stated_error(seed: int) -> None:
    """The nearest-rank percentile of the durations themselves is at most PERCENTILE_ERROR away."""
    durations = np.exp(np.random.default_rng(seed).normal(9, 3, 10_001)).astype(np.uint64) + 1
    (figures,), _ = statistics_of(batch(durations[:5000]), batch(durations[5000:])).by_kind(1)
    assert figures.percentiles_ns is not None
    exact = np.percentile(durations, [50, 95, 99], method="inverted_cdf")
    assert np.abs(np.array(figures.percentiles_ns) / exact - 1).max() <= PERCENTILE_ERROR


def test_the_stated_error_is_small() -> None:
    """What a reader takes for the percentile is right to a hundredth."""
    assert PERCENTILE_ERROR <= 0.011


@pytest.mark.parametrize("duration_ns", [0, 1, 2, 63, 64, 100, 127])
def test_short_durations_are_exact(duration_ns: int) -> None:
    """Up to 127 ns each nanosecond has its own bucket."""
    (figures,), _ = statistics_of(batch([duration_ns] * 3 + [2**40])).by_kind(1)
    assert figures.percentiles_ns is not None
    assert figures.percentiles_ns[0] == duration_ns


def test_a_percentile_never_exceeds_the_maximum() -> None:
    """The middle of a bucket may; what is shown does not."""
    (figures,), _ = statistics_of(batch([1_000_001])).by_kind(1)
    assert figures.percentiles_ns == (1_000_001,) * 3


def test_absurd_durations_are_taken() -> None:
    """Whatever the clocks say, the figures hold."""
    (figures,), _ = statistics_of(batch([2**62])).by_kind(1)
    assert figures.max_ns == 2**62


def test_counts_errors_totals_and_maxima_add_up_over_batches() -> None:
    """A benign failure is no error."""
    (figures,), rest = statistics_of(
        batch([10, 20]),
        batch([30], ret=-2, outcome=Outcome.FAILED),
        batch([5], ret=-11, outcome=Outcome.BENIGN),
        batch([]),
    ).by_kind(5)
    assert (figures.count, figures.errors, figures.total_ns, figures.max_ns) == (4, 1, 65, 30)
    assert rest is None


def test_kinds_come_with_the_largest_total_first() -> None:
    """Where the time went is on top."""
    figures, _ = statistics_of(batch([1] * 50, "read"), batch([100], "write"), batch([70], "close")).by_kind(
        5
    )
    assert [one.kinds[0].name for one in figures] == ["write", "close", "read"]


def test_the_rest_is_summed_up() -> None:
    """What does not fit the table is not lost."""
    figures, rest = statistics_of(batch([100]), batch([20], "write"), batch([3, 4], "close")).by_kind(1)
    assert [one.kinds[0].name for one in figures] == ["read"]
    assert rest is not None
    assert (len(rest.kinds), rest.count, rest.total_ns, rest.max_ns) == (2, 3, 27, 20)
    assert rest.percentiles_ns == (4, 20, 20)


def test_memory_for_distributions_is_bounded() -> None:
    """A program that makes up numbers gets counts for all of them, distributions for the first ones."""
    statistics = statistics_of(*(batch([5], number) for number in range(600, 1000)))
    figures, _ = statistics.by_kind(400)
    with_distribution = [one for one in figures if one.percentiles_ns]
    assert (len(figures), len(with_distribution)) == (400, summary._HISTOGRAMS_MAX)
    assert len(statistics._histograms) <= summary._HISTOGRAMS_MAX


def test_distributions_survive_the_growth_of_their_table() -> None:
    """Rows are moved with what they hold."""
    statistics = statistics_of(batch([77]), *(batch([5], number) for number in range(600, 700)), batch([77]))
    (read, *_), _ = statistics.by_kind(200)
    assert read.percentiles_ns == (77, 77, 77)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_longest_calls_are_the_longest_of_all_batches(size: int) -> None:
    """However calls are cut into batches, the same are kept."""
    durations = np.random.default_rng(1).permutation(1000) + 1
    statistics = statistics_of(*(batch(durations[i : i + size]) for i in range(0, 1000, size)))
    assert [call.duration_ns for call in statistics.longest] == list(range(1000, 1000 - LONGEST, -1))


def test_a_long_call_keeps_what_is_needed_to_show_it() -> None:
    """Time, process, text and failure stay together."""
    process = make_process(77, "server")
    (call,) = statistics_of(
        batch([500], "close", process=process, start_ns=40, ret=-2, tid=77, outcome=Outcome.FAILED)
    ).longest
    assert (call.start_unix_ns - START_UNIX_NS, call.duration_ns, call.tid) == (40, 500, 77)
    assert (call.process, call.is_failed) == (process, True)
    assert call.text == "close(0) = -1 ENOENT (No such file or directory)"


def test_calls_that_took_no_time_are_not_among_the_longest() -> None:
    """A skipped call has a length of zero."""
    assert statistics_of(batch([0, 0])).longest == []


def test_calls_and_time_are_counted_for_each_process() -> None:
    """Over all its batches."""
    one, other = make_process(1), make_process(2)
    statistics = statistics_of(
        batch([10], process=one), batch([1, 2], process=other), batch([5], process=one)
    )
    assert [(f.process, f.calls, f.total_ns) for f in statistics.processes.values()] == [
        (one, 2, 15),
        (other, 2, 3),
    ]


def test_a_reused_pid_is_another_process() -> None:
    """Pid and start time tell processes apart."""
    first, second = make_process(1), Process(1, START_UNIX_NS + 10**9)
    assert len(statistics_of(batch([1], process=first), batch([1], process=second)).processes) == 2


def test_processes_are_bounded_and_the_others_counted() -> None:
    """Each of the others is counted once, however often it is seen."""
    processes = [make_process(pid) for pid in range(1, PROCESSES_MAX + 24)]
    statistics = statistics_of(*(batch([1], process=process) for process in processes * 2))
    assert len(statistics.processes) == PROCESSES_MAX
    assert statistics.more_processes == (23, False)
    assert statistics.calls == 2 * len(processes)


def test_no_calls_have_no_figures() -> None:
    """A run may record nothing."""
    statistics = statistics_of(batch([]))
    assert (statistics.calls, statistics.by_kind(5), statistics.longest) == (0, ([], None), [])


def test_failures_are_counted_by_call_and_errno_with_the_last_one() -> None:
    """Failures of one call and errno are one line, over batches; benign ones are none; the most frequent come first."""
    statistics = Statistics()
    failed, benign = {"ret": -2, "outcome": Outcome.FAILED}, {"ret": -11, "outcome": Outcome.BENIGN}
    statistics.add(make_calls(Made("open", paths=(b"/a",), **failed), Made("read", **benign)))
    statistics.add(
        make_calls(Made("open", paths=(b"/b",), **failed), Made("unlink", paths=(b"/c",), **failed))
    )
    found = statistics.failures(10)

    assert [(one.kind.name, one.errno, one.count) for one in found] == [("open", 2, 2), ("unlink", 2, 1)]
    assert "/b" in found[0].example


def test_the_time_shown_covers_the_command() -> None:
    """However few calls pass the filters, the scale is the command's whole life."""
    statistics = Statistics()
    statistics.add(make_calls(Made(start_ns=500, duration_ns=10)))
    statistics.cover(make_process(7, begin_unix_ns=START_UNIX_NS + 100, end_unix_ns=START_UNIX_NS + 900))

    assert (statistics.start_unix_ns, statistics.end_unix_ns) == (START_UNIX_NS + 100, START_UNIX_NS + 900)


def test_a_sampled_call_counts_for_all_that_it_stands_for() -> None:
    """Counts, errors, sums, processes and failures are estimates of the whole; what is not sampled counts once."""
    quarter = {"threshold": 3 << 30, "outcome": Outcome.FAILED, "ret": -2}
    statistics = statistics_of(batch([10, 10], **quarter), batch([7], "write"))
    figures = {one.kinds[0].name: one for one in statistics.by_kind(2)[0]}

    assert (figures["read"].count, figures["read"].errors, figures["read"].total_ns) == (8, 8, 80)
    assert (figures["write"].count, figures["write"].total_ns) == (1, 7)
    assert sum(one.calls for one in statistics.processes.values()) == 9
    assert [one.count for one in statistics.failures(1)] == [8]
    assert (statistics.calls, statistics.kept, statistics.is_sampled) == (9, 3, True)


def test_percentiles_are_of_the_whole() -> None:
    """One call that stands for a hundred weighs more than ten that were all kept."""
    (figures,), _ = statistics_of(
        batch([100], threshold=(1 << 32) - (1 << 32) // 100), batch([50] * 10)
    ).by_kind(1)

    assert figures.percentiles_ns == (100, 100, 100)


def test_calls_that_are_all_here_are_no_estimate() -> None:
    """Without sampling the figures are what they say."""
    statistics = statistics_of(batch([1, 2]))

    assert (statistics.kept, statistics.is_sampled) == (2, False)
