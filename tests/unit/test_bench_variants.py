"""What the agent says at its end is read right."""

import pytest
from variants import Ledger

KERNEL = "seen 10 = filtered 1 (succeeded 1, errno 0) + sampled out 2 + emitted 5 + dropped 1 + in flight 1"


def test_the_ledger_is_read():
    """With reasons in parentheses; it adds up."""
    ledger = Ledger.parse(
        f"otel-sysexit: ledger: {KERNEL}; emitted 5 = delivered 4 + undelivered 1; unpaired 0".encode()
    )
    assert ledger == Ledger(10, 1, 2, 5, 1, 1, 4, 1)
    assert ledger.adds_up


def test_a_ledger_without_deliveries_is_read():
    """Where there is nowhere to deliver to, nothing was delivered."""
    assert Ledger.parse(f"otel-sysexit: ledger: {KERNEL}; unpaired 0".encode()) == Ledger(
        10, 1, 2, 5, 1, 1, 0, 0
    )


def test_no_ledger_is_a_mistake():
    """Else figures would be of something else."""
    with pytest.raises(RuntimeError, match="no ledger"):
        Ledger.parse(b"otel-sysexit: cannot load")
