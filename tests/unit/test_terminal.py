import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
from made_calls import START_UNIX_NS, Made, make_calls, make_process
from rich.console import Console

from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Process
from otel_sysexit.summary import PROCESSES_MAX
from otel_sysexit.syscalls import Abi
from otel_sysexit.terminal import Summary, format_duration

LEDGER = (
    "otel-sysexit: ledger: seen 1234 = filtered 0 + emitted 1230 + dropped 0 + in flight 4; "
    "emitted 1230 = delivered 1230 + undelivered 0; unpaired 3"
)
HINT = "to send the calls to a collector: --endpoint http://localhost:4317"


def batch(durations_ns: Iterable[int], call: str | int = "read", **facts: Any) -> Calls:
    """Return calls of one sort that differ in their durations."""
    return make_calls(*(Made(call, duration_ns=int(duration), **facts) for duration in durations_ns))


def render(
    *batches: Calls, width: int = 100, command: str = "", encoding: str = "utf-8", hint: str = HINT
) -> str:
    """Return a summary as plain text."""
    run = Summary(command)
    for one in batches:
        run.add(one)
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, encoding=encoding)
    run.render(Console(file=stream, width=width), LEDGER, hint)
    stream.flush()
    return raw.getvalue().decode(encoding)


def line_of(text: str, word: str) -> str:
    """Return the first line that has a word."""
    return next(line for line in text.splitlines() if word in line)


# --- words ---


@pytest.mark.parametrize(
    ("duration_ns", "text"),
    [
        (0, "0 ns"),
        (850, "850 ns"),
        (999, "999 ns"),
        (1000, "1.00 µs"),
        (12_345, "12.3 µs"),
        (99_960, "100 µs"),
        (999_400, "999 µs"),
        (999_960, "1.00 ms"),
        (1_234_567_890, "1.23 s"),
        (59_940_000_000, "59.9 s"),
        (59_960_000_000, "1 min 00 s"),
        (125_000_000_000, "2 min 05 s"),
        (3_599_900_000_000, "1 h 00 min"),
        (90_061_000_000_000, "25 h 01 min"),
    ],
)
def test_a_duration_has_three_digits_and_a_unit(duration_ns: int, text: str) -> None:
    """Rounding up to a thousand takes the next unit."""
    assert format_duration(duration_ns) == text


# --- the page ---


@dataclass(frozen=True)
class Family:
    """Processes of a small run."""

    make: Process
    compiler: Process
    killed: Process


@pytest.fixture
def family() -> Family:
    """Return a command that failed, a child that succeeded and a grandchild that was killed."""
    make = make_process(100, "make", end_unix_ns=START_UNIX_NS + 2_000_000_100, exit_code=2)
    compiler = make_process(101, "cc", make, end_unix_ns=START_UNIX_NS + 500_000_101, exit_code=0)
    killed = make_process(102, "as", compiler, exit_signal=9, end_unix_ns=START_UNIX_NS + 1000)
    return Family(make, compiler, killed)


def batches_of(family: Family) -> list[Calls]:
    """Return some calls of each of them."""
    return [
        batch([2_000_000_000], "wait4", process=family.make),
        *(
            batch([duration], process=family.compiler, start_ns=start)
            for duration, start in ((1000, 0), (2000, 10**9), (3000, 19 * 10**8))
        ),
        batch([700], "openat", process=family.killed, ret=-2, outcome=Outcome.FAILED),
    ]


def test_the_header_names_the_command_and_counts(family: Family) -> None:
    """What ran, how long, how many calls and processes."""
    text = render(*batches_of(family), command="make -j4")
    assert text.strip().splitlines()[0] == "make -j4  2.00 s, 5 calls, 3 processes"


def test_the_header_says_what_is_an_estimate() -> None:
    """Sampled calls are told as what they stand for, with how many there really are."""
    text = render(batch([10, 10], threshold=3 << 30), batch([7]), command="make")

    assert "about 9 calls (all figures estimated from 3 that sampling kept), 1 process" in line_of(
        text, "make"
    )
    assert line_of(text, "read  ").split()[:2] == ["read", "9"]


def test_without_a_command_the_header_names_the_processes(family: Family) -> None:
    """Attached processes were started by others."""
    assert render(*batches_of(family)).strip().startswith("make  2.00 s")


def test_processes_stand_below_their_parents(family: Family) -> None:
    """With lifetime, exit code or signal, calls and time in calls."""
    lines = render(*batches_of(family)).splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("processes"))
    assert [line.split() for line in lines[first : first + 4]] == [
        ["processes", "lifetime", "exit", "calls", "in", "calls"],
        ["make", "(100)", "2.00", "s", "2", "1", "2.00", "s"],
        ["└─", "cc", "(101)", "500", "ms", "0", "3", "6.00", "µs"],
        ["└─", "as", "(102)", "898", "ns", "SIGKILL", "1", "700", "ns"],
    ]


def test_a_parent_without_calls_is_in_the_tree(family: Family) -> None:
    """Filters may leave it none, but it holds its children."""
    text = render(batch([1], process=family.killed))
    assert line_of(text, "make (100)").split()[-3:] == ["0", "0", "ns"]


def test_a_process_without_calls_can_be_made_known() -> None:
    """A process whose calls were all filtered is in the tree too."""
    run = Summary()
    run.see(make_process(5, "silent"))
    stream = io.StringIO()
    run.render(Console(file=stream, width=80), LEDGER, HINT)
    assert "silent (5)" in stream.getvalue()


def test_a_process_that_lives_is_running() -> None:
    """After an attach, targets go on."""
    assert "running" in line_of(render(batch([1], process=make_process(9))), "worker (9)")


def test_a_real_time_signal_has_a_number() -> None:
    """Signals without a name of their own are shown all the same."""
    process = make_process(9, exit_signal=40, end_unix_ns=START_UNIX_NS + 10**9)
    assert "signal 40" in line_of(render(batch([1], process=process)), "worker (9)")


def test_a_large_family_is_folded() -> None:
    """The busiest processes have a line; their siblings are summed up below the same parent."""
    make = make_process(1, "make")
    children = [make_process(pid, "cc", make) for pid in range(2, 202)]
    text = render(batch([1], process=make), *(batch([child.pid], process=child) for child in children))
    assert "cc (201)" in text
    assert "cc (2)" not in text
    folded = line_of(text, "more processes").split()
    assert folded[:4] == ["└─", "170", "more", "processes"]
    assert folded[4] == "170"


def test_processes_beyond_those_kept_are_mentioned() -> None:
    """Their number, not their names."""
    batches = [batch([1], process=make_process(pid)) for pid in range(1, PROCESSES_MAX + 6)]
    assert "and 5 more" in render(*batches)


def test_a_chain_of_a_thousand_processes_is_shown() -> None:
    """Depth is no limit to the tree."""
    process = None
    for pid in range(1, 1000):
        process = make_process(pid, "sh", process)
    assert process is not None
    assert "sh (1)" in render(batch([1], process=process))


def test_the_longest_calls_are_a_waterfall(family: Family) -> None:
    """In the order of their starts, each bar at its place in the whole run."""
    text = render(*batches_of(family))
    whole = line_of(text, "wait4(0")
    late = next(line for line in text.splitlines() if line.startswith("read(0") and "1.90 s" in line)
    column = whole.index("━")
    assert whole.count("━") == 25
    assert late.count("━") == 1
    assert column + 22 <= late.index("━") <= column + 24


def test_bars_stay_inside_the_run() -> None:
    """A call that ends last does not reach beyond the edge."""
    text = render(batch([10]), batch([10], start_ns=10**9), width=100)
    assert max(len(line) for line in text.splitlines() if "━" in line) <= 100


def test_calls_are_counted_by_name(family: Family) -> None:
    """Count, errors, total, percentiles and maximum of each."""
    row = line_of(render(*batches_of(family)), "openat  ").split()
    assert row == ["openat", "1", "1", *["700", "ns"] * 5]


def test_the_table_ends_with_the_rest() -> None:
    """Twenty-five names, then all others in one line."""
    text = render(*(batch([1000], number) for number in range(600, 640)))
    assert line_of(text, "15 others").split()[:4] == ["15", "others", "15", "15.0"]


def test_calls_of_another_abi_are_marked() -> None:
    """The usual ABI needs no mark."""
    text = render(batch([1] * 3), batch([1], abi=Abi.I386))
    assert line_of(text, "read (i386)").split()[2] == "1"
    assert "read (x86_64)" not in text


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_tables_fit_the_width(width: int, family: Family) -> None:
    """Nothing wraps but what the caller passes as a line."""
    text = render(*batches_of(family), width=width)
    lines = [line for line in text.splitlines() if line not in (LEDGER, HINT)]
    assert max(map(len, lines)) <= width


def test_a_narrow_terminal_keeps_what_matters(family: Family) -> None:
    """Forty columns show who, what, how long and where in the run."""
    text = render(*batches_of(family), width=40)
    assert "2.00 s" in line_of(text, "make (100)")
    assert "━" in line_of(text, "wait4(")
    assert "max" in next(line for line in text.splitlines() if line.startswith("calls"))


def test_a_wide_terminal_shows_whole_calls(family: Family) -> None:
    """Two hundred columns cut nothing."""
    text = render(*batches_of(family), width=200)
    assert "openat(0, NULL, O_RDONLY) = -1 ENOENT (No such file or directory)" in text
    assert "…" not in text


def test_a_tiny_terminal_is_no_error(family: Family) -> None:
    """Ten columns show little, but show it."""
    assert "calls" in render(*batches_of(family), width=10)


def test_the_ledger_and_the_hint_are_one_line_each(family: Family) -> None:
    """They are searched for and copied: no width breaks them."""
    assert render(*batches_of(family), width=40).splitlines()[-2:] == [LEDGER, HINT]


def test_without_a_hint_the_ledger_is_last(family: Family) -> None:
    """Those who send calls already need none."""
    assert render(*batches_of(family), hint="").splitlines()[-1] == LEDGER


def test_a_run_without_calls_has_a_header_and_a_ledger() -> None:
    """Nothing is made up."""
    assert render(command="true").strip().splitlines() == [
        "true  0 ns, 0 calls, 0 processes",
        "",
        LEDGER,
        HINT,
    ]


def test_an_ascii_terminal_gets_ascii(family: Family) -> None:
    """Bars, guides, units and dots have plain forms."""
    text = render(*batches_of(family), encoding="ascii", width=80)
    assert "`- cc (101)" in text
    assert "6.00 us" in text
    assert "#" in line_of(text, "wait4(")


def test_names_cannot_command_the_terminal() -> None:
    """Control characters of a program's name are shown, its markup is text."""
    process = make_process(3, "[red]x[/red]\x1b[2J\n")
    text = render(batch([1], process=process), command="\x1b[2J[bold]")
    assert "\x1b" not in text
    assert "[red]x[/red]\\x1b[2J\\n (3)" in text
    assert text.strip().startswith("\\x1b[2J[bold]")


class Terminal(io.StringIO):
    """What is written on a terminal."""

    def isatty(self) -> bool:
        """Say that it is one."""
        return True


def colours(monkeypatch: pytest.MonkeyPatch, no_color: str | None, *, is_terminal: bool) -> bool:
    """Return whether a summary has colours."""
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    if no_color is not None:
        monkeypatch.setenv("NO_COLOR", no_color)
    stream = Terminal() if is_terminal else io.StringIO()
    run = Summary("x")
    run.add(batch([5], ret=-2, outcome=Outcome.FAILED))
    run.render(Console(file=stream, width=80), LEDGER, HINT)
    return "\x1b[31m" in stream.getvalue()


def test_a_terminal_gets_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors are red there."""
    assert colours(monkeypatch, None, is_terminal=True)


def test_a_file_gets_no_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is redirected is plain text."""
    assert not colours(monkeypatch, None, is_terminal=False)


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal too."""
    assert not colours(monkeypatch, "1", is_terminal=True)
