"""Pages of libraries that only starting needed are given back, and nothing else is."""

import json
import mmap
import subprocess
import sys
from pathlib import Path

from otel_sysexit.resident import constant_segments


def mappings() -> list[tuple[int, int, str, str]]:
    """Return start, end, permissions and file of every mapping of ours."""
    lines = Path("/proc/self/maps").read_text(encoding="utf-8").splitlines()
    fields = [line.split(maxsplit=5) for line in lines]
    return [
        (*(int(address, 16) for address in found[0].split("-")), found[1], "".join(found[5:]).strip())
        for found in fields
    ]


def test_nothing_that_may_be_written_to_is_given_back():
    """What is found lies in no mapping that is writable, or was until relocations were done."""
    writable = [(start, end) for start, end, permissions, _ in mappings() if "w" in permissions]
    overlapping = [
        found
        for found in constant_segments()
        if any(found[0] < end and start < found[1] for start, end in writable)
    ]

    assert overlapping == []


def test_whole_pages_are_given_back():
    """Segments begin and end at pages."""
    assert all(address % mmap.PAGESIZE == 0 for segment in constant_segments() for address in segment)


def test_code_is_found():
    """Some of the interpreter's own, and of libraries', is among what is found."""
    libraries = {
        file
        for start, end, permissions, file in mappings()
        for first, last in constant_segments()
        if "x" in permissions and start < last and first < end
    }

    assert any("python" in file for file in libraries)
    assert any("libc" in file for file in libraries)


def test_after_giving_back_all_works_with_less_memory():
    """Half of the libraries' pages are gone at first; what was imported computes as before, and more can be imported."""
    code = """
import numpy as np
from otel_sysexit.resident import give_back_libraries
def resident():
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith("RssFile"))
before = resident()
give_back_libraries()
after = resident()
import json, decimal
print(json.dumps([before, after, int(np.arange(10).sum()), str(decimal.Decimal("0.1") * 3)]))
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    before, after, *computed = json.loads(done.stdout)

    assert after < before / 2
    assert computed == [45, "0.3"]


def test_freed_memory_is_kept():
    """What a batch takes is there for the next one without a page fault."""
    code = """
import resource
from otel_sysexit.resident import keep_freed_memory
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
