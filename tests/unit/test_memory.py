"""The C library keeps what a batch has freed."""

import subprocess
import sys


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
