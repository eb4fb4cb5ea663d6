"""Batches of calls made by hand, for tests of what reads them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from otel_sysexit.addresses import Addresses, Family
from otel_sysexit.arguments import ArgumentTexts
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image, Process, Thread
from otel_sysexit.kernel.records import SPAN_CONTEXT
from otel_sysexit.syscalls import Abi, Kind, Kinds, convert_arguments, number_of
from otel_sysexit.texts import Texts

START_UNIX_NS = 1_700_000_000_000_000_000
_KINDS = Kinds()
_ARGUMENT_TEXTS = ArgumentTexts()
_FAILURES = (Outcome.FAILED, Outcome.BENIGN)


def make_process(
    pid: int, name: str = "worker", parent: Process | None = None, **facts: int | None
) -> Process:
    """Return a process that runs a program of a name, *pid* ns younger than START_UNIX_NS."""
    process = Process(pid, START_UNIX_NS + pid, parent.pid if parent else None, parent, **facts)
    process.image = Image(process, name)
    return process


_WORKER = make_process(1)


@dataclass(frozen=True)
class Made:
    """One call, with registers as the program passed them; of paths, files and addresses what the kernel side told."""

    call: str | int = "read"
    args: tuple[int, ...] = ()
    ret: int = 0
    outcome: Outcome = Outcome.SUCCEEDED
    paths: tuple[bytes | None, ...] = ()
    files: tuple[bytes | None, ...] = ()
    address: tuple[Family, bytes, int] | None = None
    abi: Abi = Abi.X86_64
    start_ns: int = 0  # after START_UNIX_NS
    duration_ns: int = 0
    process: Process = _WORKER
    tid: int = 1
    restarted: int = -1
    threshold: int = 0
    is_cut: bool = False
    is_file_cut: bool = False
    is_executed: bool = True
    has_args: bool = True
    span: tuple[bytes, bytes] | None = None  # trace id and span id, where the application is in one

    @property
    def number(self) -> int:
        """The call's number in its ABI."""
        number = number_of(self.call, self.abi) if isinstance(self.call, str) else self.call
        assert number is not None, f"{self.abi.label} has no {self.call}"
        return number

    @property
    def kind(self) -> Kind:
        """What is known of such calls."""
        return _KINDS[int(_index_of((self,))[0])]


def _index_of(made: Sequence[Made]) -> np.ndarray:
    """Return u2[n]: the index of each call's kind."""
    return _KINDS.index(
        np.array([one.abi for one in made], np.uint8),
        np.array([one.number for one in made], np.int32),
        np.array([one.restarted for one in made], np.int32),
    )


def make_texts(texts: Sequence[tuple[bytes, bool]]) -> Texts:
    """Return texts and whether each was cut as columns."""
    table = np.zeros((len(texts), max((len(text) for text, _ in texts), default=0)), np.uint8)
    for row, (text, _) in enumerate(texts):
        table[row, : len(text)] = np.frombuffer(text, np.uint8)
    return Texts(
        table,
        np.array([len(text) for text, _ in texts], np.uint16),
        np.array([is_cut for _, is_cut in texts], np.bool_),
    )


def _place(given: Sequence[tuple[tuple[bytes | None, ...], bool]]) -> tuple[np.ndarray, Texts]:
    """Return i4[n, 2], the row of each of the two texts that n calls may have (-1: none), and the texts."""
    row = np.full((len(given), 2), -1, np.int32)
    texts: list[tuple[bytes, bool]] = []
    for call, (of_call, is_cut) in enumerate(given):
        for column, text in enumerate(of_call):
            if text is not None:
                row[call, column] = len(texts)
                texts.append((text, is_cut))
    return row, make_texts(texts)


def make_addresses(given: Sequence[tuple[Family, bytes, int] | None]) -> tuple[np.ndarray, Addresses]:
    """Return i4[n], the row of each call's address (-1: none), and the addresses."""
    found = [address for address in given if address is not None]
    row = np.cumsum([address is not None for address in given], dtype=np.int32) - 1
    row[[at for at, address in enumerate(given) if address is None]] = -1
    return row, Addresses(
        np.array([family for family, _, _ in found], np.uint8),
        np.array([port for _, _, port in found], np.uint16),
        make_texts([(text, False) for _, text, _ in found]),
    )


def _make_spans(made: Sequence[Made]) -> np.ndarray | None:
    """Return the spans that calls were made in (dtype SPAN_CONTEXT), as the kernel side tells of them; None: of none."""
    if not any(one.span for one in made):
        return None
    raw = b"".join(b"".join(one.span or (bytes(16), bytes(8))) for one in made)
    return np.frombuffer(raw, SPAN_CONTEXT)


def make_calls(*made: Made) -> Calls:
    """Return the columns of some calls; every call has a thread of its own in *threads*."""
    kind = _index_of(made)
    registers = np.zeros((len(made), 6), np.uint64)
    for row, one in enumerate(made):
        for column, register in enumerate(one.args):
            registers[row, column] = register % 2**64
    args = convert_arguments(registers, _KINDS.forms(kind))
    has_args = np.array([one.has_args for one in made], np.bool_)
    path_row, paths = _place([(one.paths, one.is_cut) for one in made])
    file_row, files = _place([(one.files, one.is_file_cut) for one in made])
    address_row, addresses = make_addresses([one.address for one in made])
    start = np.array([START_UNIX_NS + one.start_ns for one in made], np.uint64)
    duration = np.array([one.duration_ns for one in made], np.uint64)
    return Calls(
        start_unix_ns=start,
        duration_ns=duration,
        end_boot_ns=start + duration,
        tgid=np.array([one.process.pid for one in made], np.uint32),
        tid=np.array([one.tid for one in made], np.uint32),
        ret=np.array([one.ret for one in made], np.int64),
        args=args,
        has_args=has_args,
        argument_text=np.where(has_args, _ARGUMENT_TEXTS.index(kind, args, _KINDS), 0).astype(np.uint16),
        kind=kind,
        outcome=np.array([one.outcome for one in made], np.uint8),
        is_executed=np.array([one.is_executed for one in made], np.bool_),
        errno=np.array([-one.ret if one.outcome in _FAILURES else 0 for one in made], np.uint16),
        threshold=np.array([one.threshold for one in made], np.uint32),
        path_row=path_row,
        paths=paths,
        file_row=file_row,
        files=files,
        address_row=address_row,
        addresses=addresses,
        kinds=_KINDS,
        argument_texts=_ARGUMENT_TEXTS,
        span=_make_spans(made),
    ).made_by(
        np.arange(len(made)),
        [Thread(one.tid, one.process.name, one.process.image or Image(one.process, "?")) for one in made],
    )
