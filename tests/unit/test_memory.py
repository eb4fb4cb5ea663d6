"""The C library keeps what a batch has freed; what is not in use is given back from time to time."""

import subprocess
import sys

from otel_sysexit import memory


def test_freed_memory_is_kept():
    """What a batch takes is there for the next one without a page fault."""
    code = """
import resource
from otel_sysexit.memory import keep_freed_memory
keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(4 << 20)
before = faults()
for _ in range(20):
    bytearray(4 << 20)
print(faults() - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)

    assert int(done.stdout) < 1000  # each time anew it would be more than 20,000


def test_code_that_ran_once_is_given_back():
    """A third of it at least, here of numpy's import; what is called again runs."""
    code = """
import numpy, pathlib
from otel_sysexit.memory import release_unused
def file_pages():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))
before = file_pages()
release_unused()
print(before, file_pages(), int(numpy.arange(1000).sum()))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, after, total = map(int, done.stdout.split())

    assert after < before * 2 / 3
    assert total == 499_500


def test_what_a_batch_freed_is_given_back_when_it_is_asked_for():
    """After a burst, nearly all of what it took goes back to the kernel."""
    code = """
import pathlib
from otel_sysexit.memory import keep_freed_memory, release_unused
keep_freed_memory()
def resident_kib():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))
burst = [bytearray(1 << 20) for _ in range(12)]
burst.clear()
before = resident_kib()
release_unused()
print(before, resident_kib())
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, after = map(int, done.stdout.split())

    assert before - after > 10 << 10


def test_it_is_given_back_after_batches_and_not_during_a_rest(monkeypatch):
    """3 s after the start, and once 5 s after the first of any number of batches."""
    now, given_back = [0.0], []
    monkeypatch.setattr(memory.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(memory, "release_unused", lambda: given_back.append(now[0]))
    unused = memory.Unused()
    unused.note_start()
    for now[0] in map(float, range(30)):
        if 10 <= now[0] < 17:
            unused.note_batch()
        unused.tick()

    assert given_back == [3, 15, 21]
