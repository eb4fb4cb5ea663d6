"""What people see of calls in flight."""

import pytest
from made_calls import START_UNIX_NS, make_process

from otel_sysexit import view
from otel_sysexit.config import Config
from otel_sysexit.identity import Thread
from otel_sysexit.kernel.records import Ledger
from otel_sysexit.ledger import Account
from otel_sysexit.messages import say
from otel_sysexit.stuck import CallInFlight
from otel_sysexit.syscalls import Kinds
from otel_sysexit.view import View


@pytest.fixture
def shown() -> View:
    """Return a view without a summary."""
    return View(Config(exporter="none"), "")


def make_call(name: str = "postgres") -> CallInFlight:
    """Return a read in flight for 31 s."""
    process = make_process(812, name)
    return CallInFlight(Thread(812, name, process.image), Kinds()[0], START_UNIX_NS, 31 * 10**9)


def test_each_call_in_flight_is_a_line(shown, capsys):
    """It says who says so, which call it is, whose, and for how long."""
    shown.report_in_flight([make_call(), make_call("sh")])

    assert capsys.readouterr().err == (
        "otel-sysexit: read in postgres[812] for 31 s\notel-sysexit: read in sh[812] for 31 s\n"
    )


def test_names_cannot_draw_on_the_terminal(shown, capsys):
    """A program's name is text of its own choice: nothing in it reaches the terminal as a control character."""
    shown.report_in_flight([make_call("a\x1b[2Jb\nc\u202e")])

    assert capsys.readouterr().err == ("otel-sysexit: read in a\\x1b[2Jb\\nc\\xe2\\x80\\xae[812] for 31 s\n")


def test_words_of_others_cannot_either(capsys):
    """What a collector answers, or a file is called, is one line without control characters; backslashes stay."""
    say("https://c: evil\n\x1b[31mred \udcff \u202e über C:\\temp")

    assert capsys.readouterr().err == (
        "otel-sysexit: https://c: evil\\n\\x1b[31mred \\xff \\xe2\\x80\\xae über C:\\temp\n"
    )


def test_a_terminal_without_columns_has_a_summary(monkeypatch, capsys):
    """COLUMNS=0 means that nobody knows, not that there is no room."""
    monkeypatch.setenv("COLUMNS", "0")
    View(Config(exporter="terminal"), "true").finish(Account([0] * len(Ledger), 0, ()))

    assert "ledger: seen 0" in capsys.readouterr().err


def test_very_many_calls_are_not_all_shown(shown, capsys):
    """The longest are, and how many more there are."""
    shown.report_in_flight([make_call()] * (view._IN_FLIGHT_LINES_MAX + 23))
    lines = capsys.readouterr().err.splitlines()

    assert len(lines) == view._IN_FLIGHT_LINES_MAX + 1
    assert lines[-1] == "otel-sysexit: and 23 more calls in flight"


def test_none_in_flight_is_said(shown, capsys):
    """Who asks gets an answer."""
    shown.report_in_flight([])

    assert capsys.readouterr().err == "otel-sysexit: no call is in flight\n"
