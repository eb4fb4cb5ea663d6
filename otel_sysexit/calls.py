"""
Records of the kernel → calls, as columns.

In: arrays of CALL and STRING records. Out: `Calls`: wall-clock times, kinds, outcomes, converted arguments, paths. It
does not know who made a call (processes.py) nor what becomes of it. No Python object is made for a call.
"""

import enum
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from otel_sysexit.addresses import Addresses
from otel_sysexit.arguments import ArgumentTexts
from otel_sysexit.benign import BenignErrors
from otel_sysexit.files import Files
from otel_sysexit.identity import Image, Thread
from otel_sysexit.kernel import records
from otel_sysexit.strings import Strings
from otel_sysexit.syscalls import X32_BIT, Abi, Kinds, convert_arguments
from otel_sysexit.texts import Texts

_ERRNO_MAX: Final = 4_095
_IS_INTERRUPTION: Final = np.isin(np.arange(_ERRNO_MAX + 1), (512, 513, 514, 516))
"""By errno."""


class Outcome(enum.IntEnum):
    """How a call ended, as user space sees it."""

    SUCCEEDED = 0
    FAILED = 1
    BENIGN = 2
    """Returned an errno that is no error: nothing to read yet, a wait that timed out."""
    INTERRUPTED = 3
    """By a signal: restarted by the kernel, or made to fail with EINTR when a handler ran."""
    NO_RETURN = 4
    """The thread ended in it: exit, exit_group."""
    NO_VALUE = 5
    """It ended, and what the kernel shows as its result is not one: rt_sigreturn, trapped by seccomp."""


@dataclass(frozen=True, slots=True)
class Calls:
    """A batch of finished calls: n rows, in the order they came from the kernel."""

    start_unix_ns: npt.NDArray[np.uint64]
    duration_ns: npt.NDArray[np.uint64]
    end_boot_ns: npt.NDArray[np.uint64]
    """CLOCK_BOOTTIME at the end, the clock of task records."""
    tgid: npt.NDArray[np.uint32]
    tid: npt.NDArray[np.uint32]
    ret: npt.NDArray[np.int64]
    args: npt.NDArray[np.int64]
    """i8[n, 6], as the argument's type says: an int is signed, a pointer's bits are kept."""
    has_args: npt.NDArray[np.bool_]
    """False where the registers were gone, after a successful exec, or were not asked for."""
    argument_text: npt.NDArray[np.uint16]
    """Index into *argument_texts*: arguments that are better read as text."""
    kind: npt.NDArray[np.uint16]
    """Index into *kinds*."""
    outcome: npt.NDArray[np.uint8]
    """`Outcome`."""
    is_executed: npt.NDArray[np.bool_]
    """False for a call that seccomp or a tracer skipped; its duration is 0."""
    errno: npt.NDArray[np.uint16]
    """0 unless it failed, benignly or not."""
    threshold: npt.NDArray[np.uint32]
    """u4[n]: upper half of OpenTelemetry's rejection threshold T (56 bits); 0: every such call is here."""
    path_row: npt.NDArray[np.int32]
    """i4[n, 2]: rows of *paths* with the first and second path argument; -1: none."""
    paths: Texts
    file_row: npt.NDArray[np.int32]
    """i4[n, 2]: rows of *files* with what the first and second descriptor argument is; -1: none."""
    files: Texts
    address_row: npt.NDArray[np.int32]
    """i4[n]: row of *addresses* with the socket address it was given or gave; -1: none."""
    addresses: Addresses
    kinds: Kinds
    argument_texts: ArgumentTexts
    span: npt.NDArray[Any] | None = None
    """dtype SPAN_CONTEXT[n]: the application's span that the thread was in when it made the call; zeros: none; None: nobody says."""
    thread: npt.NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    """Index into *threads*; this and what follows is filled in by processes.py."""
    threads: Sequence[Thread] = ()
    program: npt.NDArray[np.intp] = field(default_factory=lambda: np.empty(0, np.intp))
    """Index into *programs*."""
    programs: Sequence[Image] = ()
    """Of *threads*, each once."""
    process_number: npt.NDArray[np.uint64] = field(default_factory=lambda: np.empty(0, np.uint64))
    """u8[programs]: `Process.number` of whom each program runs in."""

    def __len__(self) -> int:
        return len(self.start_unix_ns)

    def made_by(
        self,
        thread: npt.NDArray[np.intp],
        threads: Sequence[Thread],
        owners: npt.NDArray[np.uint64] | None = None,
    ) -> "Calls":
        """
        Return the same calls with who made them.

        Args:
            thread: intp[n]: which of *threads* made each.
            threads: t of them.
            owners: u8[t, 2], as `number_owners` returns them; None: they are asked for.
        """
        if owners is None:
            owners = number_owners(threads)
        programs, program, processes = [one.image for one in threads], thread, owners[:, 1]
        numbers = np.sort(owners[:, 0])
        if (numbers[1:] == numbers[:-1]).any():  # several threads run one program
            _, firsts, row = np.unique(owners[:, 0], return_index=True, return_inverse=True)
            programs, program = [programs[index] for index in firsts.tolist()], row.take(thread)
            processes = processes.take(firsts)
        return replace(
            self,
            thread=thread.astype(np.uint32),
            threads=threads,
            program=program,
            programs=programs,
            process_number=processes,
        )


def number_owners(threads: Sequence[Thread]) -> npt.NDArray[np.uint64]:
    """Return u8[n, 2]: the number of the program, and of the process, that each of *threads* belongs to."""
    numbers = [(one.image.number, one.image.process.number) for one in threads]
    return np.array(numbers, np.uint64).reshape(-1, 2)


class Clock:
    """Wall-clock time of boot-clock times; the distance of the two clocks is sampled again once a second."""

    def __init__(self) -> None:
        self._sampled_at = -1.0
        self._offset_ns = 0

    def offset_ns(self) -> int:
        """Return CLOCK_REALTIME - CLOCK_BOOTTIME in ns, at most a second old."""
        now = time.monotonic()
        if self._sampled_at < 0 or now - self._sampled_at >= 1:
            self._offset_ns = self._sample()
            self._sampled_at = now
        return self._offset_ns

    @staticmethod
    def _sample() -> int:
        """Read one clock between two readings of the other; the closest of five pairs is the least disturbed."""
        best, offset = 1 << 62, 0
        for _ in range(5):
            before = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            wall = time.clock_gettime_ns(time.CLOCK_REALTIME)
            after = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
            if after - before < best:
                best, offset = after - before, wall - (before + after) // 2
        return offset


class Decoder:
    """Turns batches of records into batches of calls."""

    def __init__(
        self,
        benign_errors: BenignErrors,
        string_limit: int = records.STRING_LIMIT_DEFAULT,
        *,
        has_argument_texts: bool = True,
    ) -> None:
        """
        Prepare for a capture.

        Args:
            benign_errors: Which failures are no errors.
            string_limit: Bytes of a string that the kernel side keeps.
            has_argument_texts: Whether arguments are given by name where they have one.
        """
        string_dtype = records.string_dtype(string_limit)
        self.kinds = Kinds()
        self.clock = Clock()
        self.strings = Strings(string_dtype, string_limit)
        self.files = Files(string_limit)
        self._argument_texts = ArgumentTexts()
        self._has_argument_texts = has_argument_texts
        self._benign_errors = benign_errors
        # Made now: what numpy imports with the first batch it has while the programs are loaded.
        self.no_calls = self.decode(np.empty(0, records.CALL))

    def decode(self, calls: npt.NDArray[Any]) -> Calls:
        """
        Decode *calls* (dtype CALL); the strings and files read after them must have been added.

        Returns:
            One row a call, in the same order.
        """
        nr, restarted_nr = np.ascontiguousarray(calls["nr"]), np.ascontiguousarray(calls["restarted_nr"])
        kind = self.kinds.index(calls["abi"], nr, restarted_nr)
        ret = np.ascontiguousarray(calls["ret"])
        flags = np.ascontiguousarray(calls["kind_flags"])
        call_kind = flags & 0x0F
        outcome, codes = self._judge(calls, ret, call_kind, kind)
        texts = self.strings.join(calls)
        file_row, files = self.files.find(records.copy_field(calls, "files"))
        has_args = (flags & records.HAS_ARGS) != 0
        args = convert_arguments(records.copy_field(calls, "args"), self.kinds.forms(kind))
        start_ns, duration_ns = calls["start_ns"], np.ascontiguousarray(calls["duration_ns"])
        offset_ns = np.uint64(self.clock.offset_ns() % 2**64)  # negative on a host whose clock is not set yet
        return Calls(
            start_unix_ns=start_ns + offset_ns,
            duration_ns=duration_ns,
            end_boot_ns=start_ns + duration_ns,
            tgid=np.ascontiguousarray(calls["tgid"]),
            tid=np.ascontiguousarray(calls["tid"]),
            ret=ret,
            args=args,
            has_args=has_args,
            argument_text=self._index_texts(kind, args, has_args),
            kind=kind,
            outcome=outcome,
            is_executed=call_kind != records.CallKind.NOT_EXECUTED,
            errno=codes,
            threshold=np.ascontiguousarray(calls["threshold"]),
            path_row=texts.path_row,
            paths=texts.paths,
            file_row=file_row,
            files=files,
            address_row=texts.address_row,
            addresses=texts.addresses,
            kinds=self.kinds,
            argument_texts=self._argument_texts,
            span=np.ascontiguousarray(calls["span"]) if "span" in (calls.dtype.names or ()) else None,
        )

    def _index_texts(
        self, kind: npt.NDArray[np.uint16], args: npt.NDArray[np.int64], has_args: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.uint16]:
        if self._has_argument_texts and has_args.all():
            return self._argument_texts.index(kind, args, self.kinds)
        index = np.zeros(len(kind), np.uint16)
        rows = np.flatnonzero(has_args)
        if self._has_argument_texts and len(rows):
            index[rows] = self._argument_texts.index(kind.take(rows), args.take(rows, axis=0), self.kinds)
        return index

    def _judge(
        self,
        calls: npt.NDArray[Any],
        ret: npt.NDArray[np.int64],
        call_kind: npt.NDArray[Any],
        kind: npt.NDArray[np.uint16],
    ) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint16]]:
        """Return the outcome and the errno of each call."""
        outcome = np.zeros(len(calls), np.uint8)  # Outcome.SUCCEEDED
        codes = np.zeros(len(calls), np.uint16)
        failed = np.flatnonzero(ret < 0)
        failed = failed[ret[failed] >= -_ERRNO_MAX]
        errno = -ret[failed]
        outcome[failed] = np.where(_IS_INTERRUPTION[errno], Outcome.INTERRUPTED, Outcome.FAILED)
        has_no_value = self.kinds.have_no_value(kind)
        if has_no_value.any():
            outcome[has_no_value] = Outcome.NO_VALUE
        if call_kind.any():
            skipped = np.flatnonzero(call_kind == records.CallKind.NOT_EXECUTED)
            outcome[skipped[_may_be_rolled_back(calls[skipped])]] = Outcome.NO_VALUE
            outcome[call_kind == records.CallKind.NEVER_RETURNED] = Outcome.NO_RETURN
        has_failed = outcome[failed] == Outcome.FAILED
        failed = failed[has_failed]
        codes[failed] = errno[has_failed]
        is_benign = self._benign_errors.match(codes[failed], kind[failed], self.kinds)
        outcome[failed[is_benign]] = Outcome.BENIGN
        return outcome, codes


def _may_be_rolled_back(calls: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """
    Return where the result of *calls* (dtype CALL) may be what its register held before the call: where seccomp traps a call, the kernel puts it back.

    On x86 the number has one register with the result, on arm the first argument.
    """
    given_nr = np.where(calls["abi"] == Abi.X32, calls["nr"] | X32_BIT, calls["nr"])
    is_arm = np.isin(calls["abi"], (Abi.AARCH64, Abi.ARM))
    return np.asarray(calls["ret"] == np.where(is_arm, calls["args"][:, 0].astype(np.int64), given_nr))
