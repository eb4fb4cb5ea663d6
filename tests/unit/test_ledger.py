from otel_sysexit.kernel.records import Ledger
from otel_sysexit.ledger import Account, Delivery


def make_account(*deliveries: Delivery, in_flight: int = 0, **counters: int) -> Account:
    """Return an account; counters that are not given are 0."""
    return Account(
        {entry: counters.get(entry.name.lower(), 0) for entry in Ledger}, in_flight, list(deliveries)
    )


def test_the_line_adds_up():
    """Each figure stands where it belongs: both filters, both drops, both reasons for unpaired exits."""
    account = make_account(
        Delivery("the terminal", 90, {"rejected": 4, "not sent in time": 6}),
        in_flight=9,
        seen=160,
        filtered_succeeded=20,
        filtered_short=30,
        emitted=100,
        dropped_ring_full=1,
        dropped_overwritten=0,
        unpaired_start=5,
        unpaired_attach=7,
    )

    assert account.line() == (
        "ledger: seen 160 = filtered 50 + emitted 100 + dropped 1 + in flight 9; "
        "emitted 100 = delivered 90 + undelivered 10; unpaired 12"
    )


def test_overwritten_calls_are_dropped_ones():
    """Both kinds of drops are counted as dropped."""
    assert make_account(dropped_ring_full=3, dropped_overwritten=4).dropped == 7


def test_each_way_out_has_its_equation():
    """With several ways out each has a name and its own figures."""
    account = make_account(Delivery("a.jsonl", 3), Delivery("http://c", 1, {"refused": 2}), emitted=3)

    assert "emitted 3 = delivered 3 + undelivered 0 (a.jsonl); " in account.line()
    assert "emitted 3 = delivered 1 + undelivered 2 (http://c); " in account.line()


def test_nothing_lost_is_no_line():
    """When all was delivered there is nothing to warn of; what was filtered is no loss."""
    account = make_account(
        Delivery("the terminal", 1), seen=3, emitted=1, filtered_short=2, unpaired_start=1, unpaired_attach=1
    )

    assert account.losses() == []


def test_lost_log_records_are_told_apart_from_calls():
    """A log record that was not delivered is a line of its own, and no part of the equation."""
    delivery = Delivery("http://c", 1, undelivered_log_records={"HTTP 400": 2})
    account = make_account(delivery, emitted=1)

    assert "emitted 1 = delivered 1 + undelivered 0" in account.line()
    assert account.losses() == ["2 log records were not delivered to http://c: HTTP 400"]


def test_every_loss_is_a_line():
    """Each kind of loss is told with its number, the first with what to do about it."""
    account = make_account(
        Delivery("http://c", 0, {"HTTP 400": 21, "not sent in time": 22}),
        dropped_ring_full=1,
        dropped_overwritten=2,
        threads_unfollowed=3,
        tasks_dropped=4,
        strings_dropped=5,
    )
    losses = account.losses()

    assert [int(line.split()[0]) for line in losses] == [1, 2, 3, 4, 5, 21, 22]
    assert "--ring-size" in losses[0]
    assert losses[-2:] == [
        "21 calls were not delivered to http://c: HTTP 400",
        "22 calls were not delivered to http://c: not sent in time",
    ]
    assert not [line for line in losses if "\n" in line]
