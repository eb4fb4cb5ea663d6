"""What py-spy and perf print is read right."""

import pytest
from groups.profile import Sampled, parse_perf, weigh

STACKS = [
    "thread (7): export;_bootstrap (threading.py);_work (otel_sysexit/otlp/export.py);notify (threading.py) 30",
    "thread (7): export;send (otel_sysexit/otlp/transport.py);_UnaryUnaryMultiCallable._blocking (grpc/_channel.py) 99",
    "thread (7): export;_bootstrap (threading.py);encode (otel_sysexit/otlp/spans.py) 10",
    "thread (8): MainThread;main (otel_sysexit/__main__.py);read (otel_sysexit/kernel/ring.py:114) 5",
    "thread (8): MainThread;shutdown (atexit.py) 5",
]
PERF = """\
# Overhead  Shared Object
# ........  .......................
#
    34.74%  _multiarray_umath.cpython-311-x86_64-linux-gnu.so
    24.91%  [kernel.kallsyms]
     0.18%  libc.so.6
"""


def test_a_threads_cpu_is_spread_over_what_it_was_seen_in():
    """But for where it waits; by the innermost function of ours. Threads that have no Python count as the libraries'."""
    sampled = Sampled(STACKS, {7: 6.0, 8: 2.0, 9: 2.0}, {7: "python", 8: "python", 9: "event_engine"}, "")
    assert {(thread, file, function): share for thread, file, function, share in weigh(sampled)} == {
        ("export", "otlp/export.py", "_work"): pytest.approx(0.45),
        ("export", "otlp/spans.py", "encode"): pytest.approx(0.15),
        ("MainThread", "kernel/ring.py", "read"): pytest.approx(0.1),
        ("MainThread", "", ""): pytest.approx(0.1),
        ("of libraries: event_engine", "", ""): pytest.approx(0.2),
    }


def test_perfs_table_is_read():
    """Libraries of Python by their names alone."""
    assert parse_perf(PERF) == {
        "_multiarray_umath": pytest.approx(0.3474),
        "[kernel.kallsyms]": pytest.approx(0.2491),
        "libc.so.6": pytest.approx(0.0018),
    }
