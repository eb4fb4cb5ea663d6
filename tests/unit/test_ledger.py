from otel_sysexit.kernel.records import Ledger
from otel_sysexit.ledger import Account, Delivery


def make_account(
    *deliveries: Delivery, in_flight: int = 0, skipped_runs: int = 0, **counters: int
) -> Account:
    """Return an account; counters that are not given are 0."""
    return Account(
        {entry: counters.get(entry.name.lower(), 0) for entry in Ledger},
        in_flight,
        list(deliveries),
        skipped_runs,
    )


def test_the_line_adds_up():
    """Each figure stands where it belongs; a sum of several reasons has them in brackets, unpaired exits are one figure."""
    account = make_account(
        Delivery("the terminal", 90, {"rejected": 4, "not sent in time": 6}),
        in_flight=9,
        seen=214,
        filtered_succeeded=20,
        filtered_short=30,
        sampled_out=52,
        emitted=100,
        dropped_ring_full=3,
        unpaired_start=5,
        unpaired_attach=7,
    )

    assert account.line() == (
        "ledger: seen 214 = filtered 50 (succeeded 20, short 30) + sampled out 52 + emitted 100 + dropped 3 "
        "+ in flight 9; emitted 100 = delivered 90 + undelivered 10; unpaired 12"
    )


def test_a_figure_of_one_reason_needs_no_brackets():
    """Where there is one reason, or none, the sum says it all."""
    account = make_account(seen=5, filtered_errno=2, dropped_pending_full=3)

    assert account.line() == (
        "ledger: seen 5 = filtered 2 + sampled out 0 + emitted 0 + dropped 3 + in flight 0; unpaired 0"
    )


FILTERED = {
    "filtered_succeeded": "succeeded",
    "filtered_errno": "errno",
    "filtered_short": "short",
    "filtered_excluded": "excluded",
}
DROPPED = {
    "dropped_ring_full": "ring full",
    "dropped_pending_full": "pending full",
    "dropped_overwritten": "end not seen",
}


def test_every_reason_has_its_word():
    """Of everything that is filtered or dropped the line tells how much, each by its own reason."""
    counters = {name: 10**place for place, name in enumerate([*FILTERED, *DROPPED])}
    account = make_account(**counters)
    filtered = ", ".join(f"{word} {counters[name]}" for name, word in FILTERED.items())
    dropped = ", ".join(f"{word} {counters[name]}" for name, word in DROPPED.items())

    assert f" = filtered 1111 ({filtered}) + " in account.line()
    assert f" + dropped 1110000 ({dropped}) + " in account.line()
    assert (account.filtered, account.dropped) == (1111, 1110000)


def test_no_counter_of_the_kernel_is_left_out():
    """Each entry of the ledger is in the equation, or is a loss, or unpaired, or is the same loss seen from another side."""
    shown = {
        name for name in Ledger if make_account(**{name.name.lower(): 77}).line() != make_account().line()
    }
    lost = {name for name in Ledger if make_account(**{name.name.lower(): 77}).losses()}

    # A string that could not be read is a bad pointer of the program's: the call failed with EFAULT.
    assert set(Ledger) - shown - lost == {Ledger.STRINGS_UNREADABLE}


def test_each_way_out_has_its_equation():
    """With several ways out each has a name and its own figures."""
    account = make_account(Delivery("a.jsonl", 3), Delivery("http://c", 1, {"refused": 2}), emitted=3)

    assert "emitted 3 = delivered 3 + undelivered 0 (a.jsonl); " in account.line()
    assert "emitted 3 = delivered 1 + undelivered 2 (http://c); " in account.line()


def test_nothing_lost_is_no_line():
    """When all was delivered there is nothing to warn of; what was filtered or sampled out is no loss."""
    account = make_account(
        Delivery("the terminal", 1),
        seen=7,
        emitted=1,
        filtered_short=2,
        sampled_out=4,
        unpaired_start=1,
        unpaired_attach=1,
    )

    assert account.losses() == []


def test_lost_log_records_and_other_spans_are_told_apart_from_calls():
    """What was not delivered beside calls is a line of its own, and no part of the equation."""
    delivery = Delivery(
        "http://c", 1, undelivered_log_records={"HTTP 400": 2}, undelivered_spans={"HTTP 503": 3}
    )
    account = make_account(delivery, emitted=1)

    assert "emitted 1 = delivered 1 + undelivered 0" in account.line()
    assert account.losses() == [
        "3 spans of processes or windows were not delivered to http://c: HTTP 503",
        "2 log records were not delivered to http://c: HTTP 400",
    ]


def test_every_loss_is_a_line():
    """Each kind of loss is told with its number, the first with what to do about it."""
    account = make_account(
        Delivery("http://c", 0, {"HTTP 400": 21, "not sent in time": 22}),
        dropped_ring_full=1,
        dropped_pending_full=2,
        dropped_overwritten=3,
        threads_unfollowed=4,
        tasks_dropped=5,
        strings_dropped=6,
        keep_refused=7,
        skipped_runs=8,
    )
    losses = account.losses()

    assert [int(line.split()[0]) for line in losses] == [1, 2, 3, 4, 5, 6, 7, 8, 21, 22]
    assert "--ring-size" in losses[0]
    assert losses[-2:] == [
        "21 calls were not delivered to http://c: HTTP 400",
        "22 calls were not delivered to http://c: not sent in time",
    ]
    assert not [line for line in losses if "\n" in line]
