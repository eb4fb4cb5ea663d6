"""
What strace and we say of one and the same execution, call by call: `find_difference` of a thread.

In: a `Log` of strace's and the `Trace` of the strace that wrote it. Both saw each call between the same two stops: the
kernel stops the thread for strace, then calls us (sys_enter), runs the call, calls us (sys_exit), and stops the thread for
strace. So everything agrees but for what one of the two cannot know. Each such case is a rule here, and says why.
"""

import errno
import re
from collections import defaultdict
from dataclasses import dataclass
from itertools import chain, repeat, zip_longest

from live.strace_log import Log, StracedCall
from otlp_json import Span

_VALUE = re.compile(r"-?\d+|0x[0-9a-f]+")
_UNKNOWN_NAME = re.compile(r"syscall_0x(?P<number>[0-9a-f]+)")

_SIGRETURNS = {"rt_sigreturn", "sigreturn"}
_EXITS = {"exit", "exit_group"}
_WIDTHS = {"i386": 32, "arm": 32}
_CONTEXT = 3  # calls shown before and after the first difference


@dataclass
class Ours:
    """Of a trace, what strace's first process and its descendants did: not strace itself, nor what it tries out."""

    calls: dict[int, list[Span]]
    """By thread, in order."""
    processes: dict[int, Span]
    parents: dict[int, int]
    """Process: the one it is below, for all but the first."""


def of_first_process(spans: list[Span], first: int) -> Ours:
    """Return what we have of the process *first* from its first execve on, and of all below it."""
    by_id = {span.span_id: span for span in spans if not span.is_call}
    parents = {span.pid: by_id[span.parent_id].pid for span in by_id.values() if span.parent_id}
    processes = {span.pid: span for span in by_id.values() if first in _line_of(span.pid, parents)}
    calls = defaultdict(list)
    for span in sorted(spans, key=lambda span: (span.start, span.end)):
        # Rule: strace's log begins with the execve of the program. What its child does before is its own.
        is_before_program = span.tid == first and not calls[first] and span.name != "execve"
        if span.is_call and span.pid in processes and not is_before_program:
            calls[span.tid].append(span)
    return Ours(calls, processes, {pid: parents[pid] for pid in processes if pid != first})


def _line_of(pid: int, parents: dict[int, int]) -> list[int]:
    line = [pid]
    while line[-1] in parents:
        line.append(parents[line[-1]])
    return line


def find_difference(log: Log, ours: Ours, tid: int) -> str | None:
    """Return where strace and we first differ about a thread, with what stands around it; None where they agree."""
    theirs, own = log.calls.get(tid, []), ours.calls.get(tid, [])
    for index, (call, span) in enumerate(zip_longest(theirs, own)):
        reason = _say_missing(call, span, log.ends.get(tid)) or (
            call and span and _say_difference(call, span)
        )
        if reason:
            return f"thread {tid}, call {index}: {reason}\n{_show(theirs, own, index)}"
    return None


def _say_missing(call: StracedCall | None, span: Span | None, end: str | None) -> str | None:
    if span is None:
        return "we do not have it"
    # Rule: a thread that is killed in the stop before a call leaves that stop at once, and the kernel skips the call. If
    # strace has not asked about the stop by then, it never learns of it; we are called at the skipped call's end.
    if call is None and not (end and not span.is_executed):
        return "strace does not have it"
    return None


def _say_difference(call: StracedCall, span: Span) -> str | None:
    if _was_killed_before(call, span):
        return None
    name = _name(call)
    if span.name != name or span.attributes["syscall.name"] != name:
        return f"strace names it {name}, we {span.name}"
    # Rule: strace shows numbers without their sign, and none for -1, whose name has told it.
    if call.number is not None and span.number != _signed(call.number, 64):
        return f"strace has number {call.number}, we {span.number}"
    return _say_other_end(call, span) if call.result is None else _say_other_result(call, span)


def _was_killed_before(call: StracedCall, span: Span) -> bool:
    # Rule: if strace asks about the stop before a call when its thread has been killed and has left it (the call is skipped),
    # it reads the registers of a thread on its way out, or none: any name or `???`, any number, and some time later.
    return call.is_last and call.result is None and not span.is_executed


def _name(call: StracedCall) -> str:
    # Rule: a call that no table knows is called by its number, which strace writes in hex, and we as a signed decimal.
    unknown = _UNKNOWN_NAME.fullmatch(call.name)
    return f"syscall_{_signed(int(unknown['number'], 16), 64)}" if unknown else call.name


def _signed(value: int, bits: int) -> int:
    value %= 1 << bits
    return value - (1 << bits) if value >> (bits - 1) else value


def _say_other_result(call: StracedCall, span: Span) -> str | None:
    # Rule: what stands in the register after a sigreturn is the interrupted code's. strace shows it, we do not.
    if call.name in _SIGRETURNS:
        return _expect(span, None, None)
    if call.is_interrupted:
        return _expect(span, None, None) or (
            None if span.is_interrupted else "strace says interrupted, we do not"
        )
    if call.error:
        number = getattr(errno, call.error)
        return _expect(span, -number, number)
    assert _VALUE.fullmatch(call.result), call
    bits = _WIDTHS.get(span.abi, 64)
    value = _signed(int(call.result, 0), bits)
    # Rule: where seccomp traps a call, the kernel puts its number back into the register. strace shows it as a result.
    if not span.is_executed and value == span.number:
        return _expect(span, None, None)
    # Rule: a 32-bit program's values have 32 bits; how they are widened is nobody's claim.
    return _expect(span, value, None, bits)


def _say_other_end(call: StracedCall, span: Span) -> str | None:
    if not call.is_last:
        return "strace does not know its end, though its thread went on"
    # Rule: exit and exit_group never return.
    if call.name in _EXITS:
        return _expect(span, None, None)
    # Rule: where its thread dies there is no stop after a call, so strace knows nothing of its end. We may: that a signal
    # interrupted it, that it was skipped, or its value, as of the kill(2) that killed the caller.
    return _expect(span, None, None) if span.is_interrupted else None


def _expect(span: Span, value: int | None, error: int | None, bits: int = 64) -> str | None:
    got = None if span.return_value is None else _signed(span.return_value, bits)
    if (got, span.errno) != (value, error):
        return f"strace says value {value} and errno {error}, we {got} and {span.errno}"
    # `error.type` is absent of benign failures, so it may be less than strace has, never something else.
    if span.error_type and getattr(errno, span.error_type) != error:
        return f"strace says errno {error}, we {span.error_type}"
    return None


def find_other_time(log: Log, ours: Ours, tid: int, tolerance_ns: int) -> str | None:
    """
    Return the first call of a thread that we say was where it cannot have been, by strace's clock; None if there is none.

    A call begins after strace wrote its beginning, ends before strace wrote the thread's next one, and takes no longer than
    strace measures, from letting the thread go to the stop after the call. The two clocks are read apart, hence *tolerance_ns*;
    lengths are measured by clocks of one rate.
    """
    theirs, own = log.calls.get(tid, []), ours.calls.get(tid, [])
    following = chain((call.stopped for call in theirs[1:]), repeat(float("inf")))
    for index, (call, span, next_stop) in enumerate(zip(theirs, own, following, strict=False)):
        begins_after = call.stopped - tolerance_ns <= span.start or _was_killed_before(call, span)
        lies_between = begins_after and span.end <= next_stop + tolerance_ns
        if not lies_between or (call.took is not None and span.duration > call.took):
            return (
                f"thread {tid}, call {index}: {span.start}, {span.duration} ns\n{_show(theirs, own, index)}"
            )
    return None


def _show(theirs: list[StracedCall], own: list[Span], index: int) -> str:
    rows = range(max(0, index - _CONTEXT), index + _CONTEXT + 1)
    lines = [f"  {'->' if row == index else '  '} {row:5} {_told(theirs, own, row)}" for row in rows]
    return "\n".join(lines)


def _told(theirs: list[StracedCall], own: list[Span], row: int) -> str:
    call = theirs[row] if row < len(theirs) else None
    span = own[row] if row < len(own) else None
    strace = f"{call.name} [{call.number}] = {call.result}, {call.stopped} {call.took}" if call else "-"
    we = "-"
    if span:
        ended = "interrupted" if span.is_interrupted else "" if span.is_executed else "not executed"
        we = f"{span.name} [{span.number}] = {span.return_value} {ended}, {span.start} {span.duration}"
    return f"strace: {strace:60} we: {we}"
