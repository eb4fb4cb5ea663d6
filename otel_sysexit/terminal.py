"""
The human's view of a run: its progress, and a summary at the end.

In come batches of Calls, out goes text on a terminal, or plain text elsewhere. Figures are kept by summary.py; here
they are laid out to fit the width there is: columns that do not fit are left out, the least telling first.
"""

import signal
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rich.console import Console
from rich.text import Text

from otel_sysexit.calls import Calls
from otel_sysexit.identity import Process
from otel_sysexit.messages import escape
from otel_sysexit.summary import KindFigures, ProcessFigures, Statistics
from otel_sysexit.syscalls import Kind, errno_name

_KINDS_SHOWN = 25
_FAILURES_SHOWN = 10
_PROCESSES_SHOWN = 30  # and the ancestors of these
_GAP = 2
_UNITS = (("ns", 1), ("µs", 1e3), ("ms", 1e6), ("s", 1e9))


def format_duration(duration_ns: float) -> str:
    """Return a duration in nanoseconds with three digits and a unit: ``850 ns``, ``12.3 µs``, ``2 min 05 s``."""
    for unit, scale in _UNITS:
        value = duration_ns / scale
        digits = 0 if unit == "ns" or value >= 99.95 else 1 if value >= 9.995 else 2
        text = f"{value:.{digits}f}"
        if float(text) < (60 if unit == "s" else 1000):
            return f"{text} {unit}"
    minutes, seconds = divmod(round(duration_ns / 1e9), 60)
    if minutes < 60:
        return f"{minutes} min {seconds:02} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes:02} min"


def _plural(count: int, word: str) -> str:
    return f"{count:,} {word}" if count == 1 else f"{count:,} {word}{'es' if word.endswith('s') else 's'}"


# --- layout -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Column:
    """One column of a table; the least important are left out first, None never is."""

    header: str
    cells: Sequence[Text]
    importance: int | None = None
    justify: Literal["left", "right"] = "right"
    minimum: int | None = None  # what it may be cut to before others are left out; None: it is never cut

    @property
    def width(self) -> int:
        return max(len(self.header), *(cell.cell_len for cell in self.cells))


def _fit(columns: Sequence[_Column], width: int) -> list[tuple[_Column, int]]:
    """Return the columns that fit into a width, each with its own; the one with a minimum gives way first."""
    kept = list(columns)
    while True:
        gaps = _GAP * (len(kept) - 1)
        least = gaps + sum(min(column.width, column.minimum or column.width) for column in kept)
        droppable = [column for column in kept if column.importance is not None]
        if least <= width or not droppable:
            break
        kept.remove(min(droppable, key=lambda column: column.importance or 0))
    left = max(width - gaps - sum(column.width for column in kept if column.minimum is None), 1)
    return [(column, column.width if column.minimum is None else min(column.width, left)) for column in kept]


class _Page:
    """Writes titles, lines and tables to a console; knows what its encoding can show."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.width = console.width
        self.is_ascii = console.options.ascii_only
        self.bar, self.tee, self.elbow, self.pipe = (
            ("#", "|- ", "`- ", "|  ") if self.is_ascii else ("━", "├─ ", "└─ ", "│  ")
        )

    def line(self, text: Text) -> None:
        """Write one line, however long it is."""
        if self.is_ascii:
            text = Text(text.plain.replace("µ", "u"))
        text.rstrip()
        self.console.print(text, soft_wrap=True, highlight=False)

    def table(self, title: str, columns: Sequence[_Column]) -> None:
        """Write a table as wide as the console at most; the first column's header is the title."""
        self.line(Text())
        fitted = _fit(columns, self.width)
        headers = [Text(title, "bold"), *(Text(column.header, "dim") for column, _ in fitted[1:])]
        self._row(fitted, headers)
        for cells in zip(*(column.cells for column, _ in fitted), strict=True):
            self._row(fitted, cells)

    def _row(self, columns: Sequence[tuple[_Column, int]], cells: Sequence[Text]) -> None:
        row = Text()
        for i, ((column, width), cell) in enumerate(zip(columns, cells, strict=True)):
            fitted = cell.copy()
            fitted.truncate(width, overflow="crop" if self.is_ascii else "ellipsis")
            fitted.align(column.justify, width)
            row.append(" " * _GAP if i else "")
            row.append_text(fitted)
        self.line(row)


# --- the summary ------------------------------------------------------------------------------------------------------


class Summary:
    """What a run did, shown once at its end; memory does not grow with the number of calls."""

    def __init__(self, command: str = "") -> None:
        """Begin a summary of a command, as the user wrote it; without one it is named after its processes."""
        self._command = command
        self._statistics = Statistics()

    def add(self, calls: Calls) -> None:
        """Take a batch in."""
        self._statistics.add(calls)

    def see(self, process: Process) -> None:
        """Take note of a process whether or not it has made a call that is recorded."""
        self._statistics.see(process)
        if self._command and process.parent is None and process.begin_unix_ns:
            self._statistics.cover(process)

    def render(self, console: Console, ledger_line: str, hint: str) -> None:
        """
        Write the summary.

        Args:
            console: Where to; its width, encoding and colours are respected.
            ledger_line: What became of all calls, in one line.
            hint: How to send the calls to a collector, in one line; "" for none.
        """
        page = _Page(console)
        page.line(Text())
        page.line(self._header())
        if self._statistics.processes:
            _write_processes(page, self._statistics)
        if self._statistics.longest:
            _write_longest(page, self._statistics)
        if self._statistics.calls:
            _write_kinds(page, self._statistics)
        if self._statistics.failures(1):
            _write_failures(page, self._statistics)
        page.line(Text())
        page.line(Text(escape(ledger_line)))
        if hint:
            page.line(Text(escape(hint), "dim"))

    def _header(self) -> Text:
        statistics = self._statistics
        more, _ = statistics.more_processes
        processes = [figures.process for figures in statistics.processes.values()]
        names = list(dict.fromkeys(process.name for process in processes if process.parent is None))
        name = self._command or ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
        duration = format_duration(statistics.end_unix_ns - statistics.start_unix_ns)
        calls = _plural(statistics.calls, "call")
        if statistics.is_sampled:
            calls = f"about {calls} (all figures estimated from {statistics.kept:,} that sampling kept)"
        facts = [duration, calls, _plural(len(processes) + more, "process")]
        return Text.assemble((escape(name), "bold"), "  " if name else "", ", ".join(facts))


def _exit_cell(process: Process) -> Text:
    if process.exit_signal is not None:
        try:
            return Text(signal.Signals(process.exit_signal).name, "red")
        except ValueError:
            return Text(f"signal {process.exit_signal}", "red")
    if process.exit_code is None:
        return Text()
    return Text(str(process.exit_code), "red" if process.exit_code else "")


def _lifetime(process: Process) -> str:
    if process.end_unix_ns is None:
        return "running"
    return (
        format_duration(process.end_unix_ns - process.begin_unix_ns) if process.begin_unix_ns else "unknown"
    )


# --- processes --------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Hidden:
    """Processes that a tree leaves out."""

    processes: int = 0
    calls: float = 0
    total_ns: float = 0


class _Tree:
    """The processes worth a line, below their parents; the others as sums."""

    def __init__(self, processes: Iterable[ProcessFigures]) -> None:
        figures = {id(one.process): one for one in processes}
        for one in list(figures.values()):
            for ancestor in _ancestors(one.process):
                figures.setdefault(id(ancestor), ProcessFigures(ancestor))
        by_time = sorted(figures.values(), key=lambda one: -one.total_ns)
        shown = {id(one.process) for one in by_time[:_PROCESSES_SHOWN]}
        for one in by_time[:_PROCESSES_SHOWN]:
            shown.update(id(ancestor) for ancestor in _ancestors(one.process))
        self.children: dict[int | None, list[ProcessFigures]] = {}
        self.hidden: dict[int | None, _Hidden] = {}
        for key, one in figures.items():
            above = [id(ancestor) for ancestor in _ancestors(one.process)]
            if key in shown:
                self.children.setdefault(above[0] if above else None, []).append(one)
                continue
            hidden = self.hidden.setdefault(next((key for key in above if key in shown), None), _Hidden())
            hidden.processes += 1
            hidden.calls += one.calls
            hidden.total_ns += one.total_ns
        for siblings in self.children.values():
            siblings.sort(key=lambda one: (one.process.begin_unix_ns, one.process.pid))

    def rows(self, page: _Page) -> Iterable[tuple[str, ProcessFigures | _Hidden]]:
        """Yield each line's guides and what stands on it, parents first."""
        stack: list[tuple[str, str, ProcessFigures | _Hidden]] = []
        self._push(stack, None, "", page)
        while stack:
            guide, below, one = stack.pop()
            yield guide, one
            if isinstance(one, ProcessFigures):
                self._push(stack, id(one.process), below, page)

    def _push(
        self,
        stack: list[tuple[str, str, ProcessFigures | _Hidden]],
        parent: int | None,
        above: str,
        page: _Page,
    ) -> None:
        members: list[ProcessFigures | _Hidden] = [*self.children.get(parent, ())]
        if parent in self.hidden:
            members.append(self.hidden[parent])
        for i, member in enumerate(reversed(members)):
            if parent is None:
                stack.append(("", "", member))
            elif i == 0:
                stack.append((above + page.elbow, above + "   ", member))
            else:
                stack.append((above + page.tee, above + page.pipe, member))


def _ancestors(process: Process) -> Iterable[Process]:
    parent = process.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def _write_processes(page: _Page, statistics: Statistics) -> None:
    rows = []
    for guide, one in _Tree(statistics.processes.values()).rows(page):
        if isinstance(one, _Hidden):
            name, lifetime, ended = Text(f"{_plural(one.processes, 'more process')}", "dim"), "", Text()
        else:
            name = Text.assemble((escape(one.process.name), "bold"), (f" ({one.process.pid})", "dim"))
            lifetime, ended = _lifetime(one.process), _exit_cell(one.process)
        label = Text.assemble((guide, "dim"), name)
        rows.append(
            (label, Text(lifetime), ended, Text(f"{one.calls:,.0f}"), Text(format_duration(one.total_ns)))
        )
    more, is_more = statistics.more_processes
    if more:
        text = f"and {'more than ' if is_more else ''}{more:,} more"
        rows.append((Text(text, "dim"), Text(), Text(), Text(), Text()))
    names, lifetimes, exits, calls, totals = zip(*rows, strict=True)
    page.table(
        "processes",
        [
            _Column("processes", names, justify="left", minimum=20),
            _Column("lifetime", lifetimes),
            _Column("exit", exits, importance=3),
            _Column("calls", calls, importance=2),
            _Column("in calls", totals, importance=1),
        ],
    )


# --- the longest calls ------------------------------------------------------------------------------------------------


def _write_longest(page: _Page, statistics: Statistics) -> None:
    calls = sorted(statistics.longest, key=lambda call: call.start_unix_ns)
    run_ns = max(statistics.end_unix_ns - statistics.start_unix_ns, 1)
    width = max(8, min(40, page.width // 4))

    def bar(start_ns: int, duration_ns: int, style: str) -> Text:
        left = min(start_ns * width // run_ns, width - 1)
        length = max(1, min(round(duration_ns * width / run_ns), width - left))
        return Text.assemble(" " * left, (page.bar * length, style), " " * (width - left - length))

    offsets = [call.start_unix_ns - statistics.start_unix_ns for call in calls]
    styles = ["red" if call.is_failed else "cyan" for call in calls]
    texts = [Text(call.text, "red" if call.is_failed else "") for call in calls]
    makers = [Text(f"{escape(call.process.name)} ({call.process.pid})") for call in calls]
    bars = [
        bar(offset, call.duration_ns, style)
        for offset, call, style in zip(offsets, calls, styles, strict=True)
    ]
    columns = [
        _Column("longest calls", texts, justify="left", minimum=min(32, page.width // 3)),
        _Column("process", makers, importance=1, justify="left"),
        _Column("start", [Text(format_duration(offset)) for offset in offsets], importance=2),
        _Column("took", [Text(format_duration(call.duration_ns)) for call in calls]),
        _Column("whole run", bars, importance=3, justify="left"),
    ]
    if len(statistics.processes) == 1:
        del columns[1]
    page.table("longest calls", columns)


# --- calls by name ----------------------------------------------------------------------------------------------------


def _label(kind: Kind, usual_abi: str) -> str:
    notes = ([kind.abi.label] if kind.abi.label != usual_abi else []) + (
        [kind.restarts] if kind.restarts else []
    )
    return f"{kind.name} ({', '.join(notes)})" if notes else kind.name


def _write_kinds(page: _Page, statistics: Statistics) -> None:
    figures, rest = statistics.by_kind(_KINDS_SHOWN)
    abis: Counter[str] = Counter()
    for one in figures:
        abis[one.kinds[0].abi.label] += one.count
    usual_abi = abis.most_common(1)[0][0]
    labels = [Text(_label(one.kinds[0], usual_abi)) for one in figures]
    if rest is not None:
        labels.append(Text(f"{len(rest.kinds)} others", "dim"))
        figures.append(rest)

    def cells(text: Callable[[KindFigures], str]) -> list[Text]:
        return [Text(text(one)) for one in figures]

    def percentile(i: int) -> list[Text]:
        return cells(lambda one: format_duration(one.percentiles_ns[i]) if one.percentiles_ns else "")

    page.table(
        "calls",
        [
            _Column("calls", labels, justify="left", minimum=12),
            _Column("count", cells(lambda one: f"{one.count:,}"), importance=7),
            _Column(
                "errors",
                [Text(f"{one.errors:,}" if one.errors else "", "red") for one in figures],
                importance=5,
            ),
            _Column("total", cells(lambda one: format_duration(one.total_ns))),
            _Column("p50", percentile(0), importance=3),
            _Column("p95", percentile(1), importance=2),
            _Column("p99", percentile(2), importance=4),
            _Column("max", cells(lambda one: format_duration(one.max_ns)), importance=6),
        ],
    )


def _write_failures(page: _Page, statistics: Statistics) -> None:
    failures = statistics.failures(_FAILURES_SHOWN)
    columns = [
        _Column(
            "failures",
            [Text(f"{one.kind.name} {errno_name(one.errno)}", "red") for one in failures],
            justify="left",
        ),
        _Column("count", [Text(f"{one.count:,.0f}") for one in failures]),
        _Column(
            "the last one", [Text(one.example) for one in failures], importance=1, justify="left", minimum=24
        ),
    ]
    page.table("failures", columns)
