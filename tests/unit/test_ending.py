"""The kernel is asked whether targets are left when there is reason to, and the answer counts until there is again."""

from types import SimpleNamespace

import pytest

from otel_sysexit.ending import TargetsLeft


class Kernel:
    """A capture of which only tasks and targets are known; counts how often it is asked."""

    def __init__(self) -> None:
        self.tasks = SimpleNamespace(consumed=0)
        self.has_any = True
        self.asked = 0
        self.now_s = 100.0

    def has_targets(self) -> bool:
        """Answer, and count."""
        self.asked += 1
        return self.has_any


@pytest.fixture
def kernel() -> Kernel:
    """A kernel with targets."""
    return Kernel()


@pytest.fixture
def left(kernel: Kernel) -> TargetsLeft:
    """What was asked once."""
    left = TargetsLeft(kernel, lambda: kernel.now_s)
    assert left.has_any()
    return left


def test_without_news_the_kernel_is_not_asked(kernel, left):
    """Ten rounds within a second are one question."""
    for _ in range(9):
        kernel.now_s += 0.1
        assert left.has_any()

    assert kernel.asked == 1


def test_an_end_that_a_record_tells_of_is_noticed_at_once(kernel, left):
    """When a task record was read, the kernel is asked again."""
    kernel.has_any = False
    kernel.tasks.consumed = 64

    assert not left.has_any()


def test_an_end_that_no_record_tells_of_is_noticed_after_a_second(kernel, left):
    """The answer is never older than that."""
    kernel.has_any = False
    before = left.has_any()
    kernel.now_s += 1.0

    assert (before, left.has_any()) == (True, False)


def test_while_there_are_none_the_kernel_is_asked_each_time(kernel, left):
    """Whoever becomes a target while others are waited for counts at once."""
    kernel.has_any = False
    kernel.tasks.consumed = 64
    first = left.has_any()
    kernel.has_any = True

    assert (first, left.has_any()) == (False, True)
