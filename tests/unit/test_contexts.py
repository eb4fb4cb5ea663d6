"""Process contexts are looked for in programs that run on, by a thread, and not for ever."""

import threading
import time

from made_calls import make_process

from otel_sysexit import contexts
from otel_sysexit.contexts import ContextWatch
from otel_sysexit.processcontext import ProcessContext

FOUND = ProcessContext({"service.name": "shop"}, 1)


def take_soon(watch: ContextWatch, seconds: float = 5.0) -> list:
    """Return what is found within *seconds*, or the first time that something is."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = list(watch.take())
        if found:
            return found
        time.sleep(0.005)
    return []


def test_a_context_is_found_though_it_comes_late(monkeypatch):
    """A program without one is looked at again."""
    monkeypatch.setattr(contexts, "_LOOKS_SECONDS", (0.0, 0.01, 0.01))
    answers = iter([None, None, FOUND])
    watch, image = ContextWatch(lambda _pid: next(answers)), make_process(7).image
    watch.add(image)

    assert take_soon(watch) == [(image, FOUND)]


def test_who_has_none_is_left_alone_in_the_end(monkeypatch):
    """After three looks a program is not looked at any more."""
    monkeypatch.setattr(contexts, "_LOOKS_SECONDS", (0.0, 0.0, 0.0))
    asked = []
    watch = ContextWatch(asked.append)
    watch.add(make_process(7).image)

    assert take_soon(watch, seconds=0.3) == []
    assert asked == [7, 7, 7]


def test_who_has_ended_or_runs_something_else_is_not_looked_at(monkeypatch):
    """What a pid shows by now would be another program's."""
    monkeypatch.setattr(contexts, "_LOOKS_SECONDS", (0.0, 0.0, 0.0))
    asked = []
    watch, ended, changed = ContextWatch(asked.append), make_process(7, end_unix_ns=1), make_process(8)
    watch.add(ended.image)
    watch.add(changed.image)
    changed.image = make_process(8).image

    assert take_soon(watch, seconds=0.1) == []
    assert asked == []


def test_all_that_are_due_are_looked_at_together(monkeypatch):
    """Taking comes once a second: 500 programs do not wait for one another."""
    monkeypatch.setattr(contexts, "_LOOKS_SECONDS", (0.0, 60.0, 60.0))
    watch, images = ContextWatch(lambda _pid: FOUND), [make_process(pid).image for pid in range(1, 501)]
    for image in images:
        watch.add(image)
    watch.take()
    asked = watch._asked
    assert asked is not None
    asked[1].result(timeout=30)

    assert [image for image, _ in watch.take()] == images


def test_nobody_waits_for_a_process_that_does_not_answer(monkeypatch):
    """While a look takes for ever, taking returns at once."""
    monkeypatch.setattr(contexts, "_LOOKS_SECONDS", (0.0, 0.0, 0.0))
    answer = threading.Event()
    watch = ContextWatch(lambda _pid: FOUND if answer.wait(30) else None)
    image = make_process(7).image
    watch.add(image)
    nothing = [list(watch.take()) for _ in range(3)]
    answer.set()

    assert nothing == [[], [], []]
    assert take_soon(watch) == [(image, FOUND)]
