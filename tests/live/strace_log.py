"""
strace's log as small dataclasses: calls by thread, who started whom, how each thread ended.

In: a log written with OPTIONS. Out: a `Log`. Whatever line has another form than expected here raises, so that nothing
is compared by being overlooked.

Arguments are raw numbers but for those of calls that start something, whose flags tell a thread from a process. Numbers
cannot look like the end of a line, as a text that a program writes could.
"""

import re
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

STARTS = ("clone", "clone3", "fork", "vfork")
# -ttt and -T, in nanoseconds; the call's number; no alignment; whole lines of one form.
OPTIONS = (
    "-f",
    "--absolute-timestamps=format:unix,precision:ns",
    "--syscall-times=ns",
    "--syscall-number",
    "--columns=1",
    f"--raw=!{','.join(STARTS)}",
)

_LINE = re.compile(r"(?P<tid>\d+) +(?P<s>\d+)\.(?P<ns>\d{9}) \[ *(?P<number>\d+|\?+)\] (?P<text>.*)")
_SUPERSEDED = re.compile(r"\+\+\+ superseded by execve in pid (?P<by>\d+) \+\+\+")
_END = re.compile(r"\+\+\+ (?P<how>(exited with|killed by) \w+)( \(core dumped\))? \+\+\+")
_SIGNAL = re.compile(r"--- .* ---")
_RESUMED = re.compile(r"<\.\.\. (?P<name>[\w?]+) resumed>(?P<rest>.*)")
_UNFINISHED = re.compile(r"(?P<name>[\w?]+)\((?P<rest>.*) <unfinished \.\.\.>")
_FINISHED = re.compile(r"(?P<name>\w+)\((?P<rest>.*)")
# `?` of a call that never returned. The others are what strace reads of a thread that was killed in the stop after a call,
# and is gone, or on its way: there is no such errno, but a register with something else in it.
_UNKNOWN = re.compile(r"\?( <unavailable>)?|-1 \(errno \d+\)")
# The last of a line that has the form, as what a clone was given may have it, too.
_RESULT = re.compile(r"(?P<text>.*)\) = (?P<result>.*?)( <(?P<s>\d+)\.(?P<ns>\d{9})>)?")
_ERROR = re.compile(r"-1 (?P<name>E\w+) \(.*\)")
_RESTART = re.compile(r"(\?|-1) ERESTART\w+ \(.*\)")


@dataclass
class StracedCall:
    """One call as strace saw it, between the thread's stop before it and the one after it."""

    tid: int
    name: str
    number: int | None
    """None where strace shows none: a number that no call can have."""
    stopped: int
    """When strace wrote the stop before it, in ns since the epoch: it had not begun then."""
    text: str
    result: str | None = None
    """As it is written after the equals sign; None where strace does not know it."""
    took: int | None = None
    """From the last moment before strace let it go to the stop after it, in ns."""
    is_last: bool = False
    """Whether its thread, or with an execve by another thread its program, ended in it."""

    def finish(self, text: str):
        """Take the rest of the line, from behind the arguments that are known."""
        found = _RESULT.fullmatch(text)
        assert found, f"no result in {text!r}"
        self.text += found["text"]
        self.result = None if _UNKNOWN.fullmatch(found["result"]) else found["result"]
        self.took = _nanoseconds(found) if found["ns"] else None

    @property
    def error(self) -> str | None:
        """The errno's name where it failed, else None; an interruption that user space does not see is none."""
        found = _ERROR.fullmatch(self.result or "")
        return found["name"] if found and not self.is_interrupted else None

    @property
    def is_interrupted(self) -> bool:
        """Whether a signal interrupted it, and the kernel has still to decide what user space sees of that."""
        return bool(_RESTART.fullmatch(self.result or ""))

    @property
    def starts_thread(self) -> bool:
        """Whether what it starts belongs to the caller's process."""
        return "CLONE_THREAD" in self.text


@dataclass
class Log:
    """What strace wrote."""

    first: int = 0
    """The first process."""
    calls: dict[int, list[StracedCall]] = field(default_factory=lambda: defaultdict(list))
    """By thread, in order; the thread is the one that made the call."""
    ends: dict[int, str] = field(default_factory=dict)
    """By thread: `exited with 0`, `killed by SIGKILL`."""
    in_flight: dict[int, StracedCall] = field(default_factory=dict)
    superseded: dict[int, int] = field(default_factory=dict)
    """Process: its thread whose execve is about to return, as the leader."""

    def processes(self) -> dict[int, int]:
        """Return thread: process."""
        found = {self.first: self.first}
        for call, child in self._starts():
            found[child] = found[call.tid] if call.starts_thread else child
        return found

    def parents(self) -> dict[int, int]:
        """Return process: the process that started it, for all but the first."""
        processes = self.processes()
        return {child: processes[call.tid] for call, child in self._starts() if processes[child] == child}

    def _starts(self) -> list[tuple[StracedCall, int]]:
        """Return the calls that started something, and what each did, in order."""
        calls = [call for calls in self.calls.values() for call in calls if call.name in STARTS]
        starts = [(call, int(call.result)) for call in calls if call.result and call.result.isdecimal()]
        # Whose caller died in it returned to nobody; then the one thread that no other call returned is the one it started.
        lost = [call for call in calls if call.is_last and call.result is None]
        unknown = self.calls.keys() - {child for _, child in starts} - {self.first}
        if len(lost) == len(unknown) == 1:
            starts.append((lost[0], unknown.pop()))
        return sorted(starts, key=lambda start: start[0].stopped)


def read_log(path: Path) -> Log:
    """Read a whole log."""
    log = Log()
    for line in path.read_text().splitlines():
        found = _LINE.fullmatch(line)
        assert found, f"no line of strace's: {line!r}"
        _read_line(log, int(found["tid"]), found)
    return log


def _read_line(log: Log, tid: int, line: re.Match):
    text = line["text"]
    log.first = log.first or tid
    if superseded := _SUPERSEDED.fullmatch(text):
        log.superseded[tid] = int(superseded["by"])
        _end(log, tid)
    elif end := _END.fullmatch(text):
        log.ends[tid] = end["how"]
        _end(log, tid)
    elif resumed := _RESUMED.fullmatch(text):
        caller = log.superseded.pop(tid, tid)
        call = log.in_flight.pop(caller)
        assert call.name == resumed["name"], line
        call.finish(resumed["rest"])
    elif not _SIGNAL.fullmatch(text):
        _begin(log, tid, line)


def _begin(log: Log, tid: int, line: re.Match):
    unfinished = _UNFINISHED.fullmatch(line["text"])
    found = unfinished or _FINISHED.fullmatch(line["text"])
    assert found, line
    number = int(line["number"]) if line["number"].isdecimal() else None
    call = StracedCall(tid, found["name"], number, _nanoseconds(line), found["rest"] if unfinished else "")
    log.calls[tid].append(call)
    if unfinished:
        log.in_flight[tid] = call
    else:
        call.finish(found["rest"])


def _end(log: Log, tid: int):
    log.in_flight.pop(tid, None)
    if log.calls[tid]:
        log.calls[tid][-1].is_last = True


def _nanoseconds(found: re.Match) -> int:
    return int(found["s"]) * 1_000_000_000 + int(found["ns"])
