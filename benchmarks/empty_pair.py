"""
Attaches two programs that do nothing to sys_enter and sys_exit, until its standard input ends.

What they add to a call is the least that any tool of this kind can add. To be run by the Python that has bcc, with the
folder of the BPF sources as its argument.
"""

import os
import sys

from bcc import BPF

os.environ["BCC_KERNEL_SOURCE"] = sys.argv[1]
_TEXT = b"""
int on_sys_enter(void *ctx) { return 0; }
int on_sys_exit(void *ctx) { return 0; }
"""

module = BPF(text=_TEXT)
for tracepoint in (b"sys_enter", b"sys_exit"):
    module.attach_raw_tracepoint(tp=tracepoint, fn_name=b"on_" + tracepoint)
print("attached", flush=True)
sys.stdin.read()
