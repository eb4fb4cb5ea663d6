"""What other tools print is counted right: it decides what docs/overhead.md says that they lost."""

import tools

STRACE = """\
18687 execve("./loop", ["./loop"], 0x7ffd /* 20 vars */) = 0 <0.000512>
18687 getppid()                         = 18600 <0.000004>
18687 futex(0x7f, FUTEX_WAIT, 2, NULL <unfinished ...>
18688 getppid()                         = 18600 <0.000004>
18687 <... futex resumed>)              = 0 <0.104000>
18687 --- SIGCHLD {si_signo=SIGCHLD} ---
18687 exit_group(0)                     = ?
18687 +++ exited with 0 +++
"""
STRACE_SUMS = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ------------------
 90.37    0.001436           1      1200           getppid
  3.96    0.000063           7         8         3 openat
------ ----------- ----------- --------- --------- ------------------
100.00    0.001589           1      1208         3 total
"""
PERF = """\
         ? (         ): loop/1  ... [continued]: execve())                   = 0
     0.048 ( 0.019 ms): loop/1 brk()                                         = 0x55e06d5c8000
     0.758 (         ): loop/1 getppid() ...
LOST 12 events!
     0.758 ( 0.024 ms): loop/1  ... [continued]: getppid())                  = 1
LOST 3 events!
 10029.248 (         ): loop/1 exit_group()                                  = ?
"""
PERF_SUMS = """\

 Summary of events:

 loop (18802), 200469 events, 100.0%

   syscall            calls  errors  total       min       avg       max       stddev
                                     (msec)    (msec)    (msec)    (msec)        (%)
   --------------- --------  ------ -------- --------- --------- ---------     ------
   getppid           100199      0  1872.446     0.017     0.019     0.234      0.07%
   access                 1      1     0.021     0.021     0.021     0.021      0.00%
"""
BPFTRACE = """\
Attaching 2 probes...
18892 262 0 2743
18892 110 1 90
18892 110 -4 90
Lost 17 events
@start[18892]: 37801199700768
"""
BPFTRACE_HIST = """\
@calls[110]: 100200
@calls[262]: 3
@ns[110]:
[128, 256)         99911 |@@@@@@@@@@@@@@@|
"""


def test_lines_of_strace_are_calls_each_once():
    """A call that is told in two lines counts once; signals and ends do not."""
    assert tools.STRACE.count_calls(STRACE) == 5
    assert tools.STRACE.count_calls(STRACE, "getppid") == 2
    assert tools.STRACE.count_calls('execve("./loop") = 0\n') == 1  # without -f there is no pid


def test_sums_of_strace_are_added_up():
    """With and without errors; the line of the total does not count twice."""
    assert tools.STRACE_SUMS.count_calls(STRACE_SUMS) == 1_208
    assert tools.STRACE_SUMS.count_calls(STRACE_SUMS, "getppid") == 1_200


def test_lines_of_perf_trace_are_calls_each_once():
    """What continues was begun before; with what it says that it lost."""
    assert tools.PERF.count_calls(PERF) == 3
    assert tools.PERF.count_calls(PERF, "getppid") == 1
    assert tools.PERF.count_lost(PERF) == 15


def test_sums_of_perf_trace_are_added_up():
    """Its table has a row for each call."""
    assert tools.PERF_SUMS.count_calls(PERF_SUMS) == 100_200
    assert tools.PERF_SUMS.count_calls(PERF_SUMS, "getppid") == 100_199
    assert tools.PERF_SUMS.count_lost(PERF_SUMS) == 0


def test_lines_and_sums_of_bpftrace_are_counted():
    """Of the program that prints each call, and of the one that counts in the kernel."""
    assert tools.BPFTRACE.count_calls(BPFTRACE) == 3
    assert tools.BPFTRACE.count_calls(BPFTRACE, nr=110) == 2
    assert tools.BPFTRACE.count_lost(BPFTRACE) == 17
    assert tools.BPFTRACE_HIST.count_calls(BPFTRACE_HIST) == 100_203
    assert tools.BPFTRACE_HIST.count_calls(BPFTRACE_HIST, nr=110) == 100_200
