"""Heads of programs: made once, and forgotten with them."""

import gc

from made_calls import make_process

from otel_sysexit.otlp.layout import Heads
from otel_sysexit.otlp.resources import DEFAULT_RULES


def test_a_head_is_made_once():
    """What stands before a program's spans is the same object each time."""
    heads, image = Heads(DEFAULT_RULES), make_process(7).image

    assert heads.of([image])[0] is heads.of([image])[0]


def test_a_head_is_forgotten_with_its_program():
    """They are known by id(), which the next program may have: it must not get another one's Resource."""
    heads, process = Heads(DEFAULT_RULES), make_process(7)
    heads.of([process.image])
    assert len(heads._known) == 1
    del process
    gc.collect()

    assert heads._known == {}
