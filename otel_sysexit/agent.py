"""
Wires the stages, owns the loop and the exit status.

Data goes one way: the rings are read, records become calls, calls get their process and their place in a trace, and
batches go to the sinks. Everything slow (sending, writing) happens in the exporters' threads.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np
import psutil

from otel_sysexit.calls import Calls, Decoder
from otel_sysexit.command import Command
from otel_sysexit.config import Config
from otel_sysexit.errors import AgentError
from otel_sysexit.kernel import records
from otel_sysexit.kernel.capture import Capture, Loader
from otel_sysexit.kernel.records import Ledger, SlotState
from otel_sysexit.ledger import Account, Delivery
from otel_sysexit.otlp.export import Batch, Exporter, make_transport
from otel_sysexit.processes import Processes
from otel_sysexit.signals import Signals
from otel_sysexit.traces import Structure, Tree, Windows
from otel_sysexit.view import View, explain_bug

_ROUND_SECONDS: Final = 0.1
"""How long calls may wait in the ring when few are made; many force a wake-up."""
_ROUND_CALLS_MAX: Final = 8_192
"""Calls in one batch: what is worked on at once decides the agent's memory."""
_RING_RECORDS_MAX: Final = 1 << 30
_INTERRUPTED: Final = 128 + signal.SIGINT


def make_exporters(config: Config) -> list[Exporter]:
    """
    Start what *config* wants spans to go to.

    Raises:
        AgentError: an output file cannot be written.
    """
    exporters = []
    if config.output is not None:
        from otel_sysexit.otlp.jsonl import LINE_BYTES_MAX, JsonLinesFile  # noqa: PLC0415 (seldom needed)

        file = JsonLinesFile(config.output)
        exporters.append(Exporter(config.output, lambda: file, config, bytes_max=LINE_BYTES_MAX))
    if config.exporter == "otlp":
        exporters.append(Exporter(str(config.endpoint), lambda: make_transport(config), config))
    return exporters


class Agent:
    """One run of the pipeline, from the loader's start to the last line on the terminal."""

    def __init__(self, config: Config, structure: Structure, title: str) -> None:
        """Prepare everything that needs no kernel; *title* names the run for people."""
        self._config = config
        self._structure = structure
        self._decoder = Decoder(config.benign_errors)
        self.processes = Processes(self._decoder.clock.offset_ns())
        self._no_calls = self._decoder.decode(np.empty(0, records.CALL))
        self._view = View(config, title)
        self._exporters: list[Exporter] = []
        self._poll = select.epoll()
        self._capture: Capture | None = None
        self._lost_at_end = 0
        self.is_aborted = False

    def start_exporters(self) -> None:
        """Start the threads that deliver; after any fork."""
        self._exporters = make_exporters(self._config)

    def watch(self, fd: int) -> None:
        """Let *fd* end a wait."""
        self._poll.register(fd, select.EPOLLIN)

    def connect(self, capture: Capture) -> None:
        """Take over *capture*; nothing is a target yet."""
        self._capture = capture
        # Edge-triggered: without, epoll would report records that were put there without a wake-up, and each poll
        # would bring a small batch.
        self._poll.register(capture.calls_fd, select.EPOLLIN | select.EPOLLET)

    @property
    def capture(self) -> Capture:
        """The kernel side, once connected."""
        if self._capture is None:
            raise AssertionError("not connected")
        return self._capture

    def loop(self, is_done: Callable[[], bool]) -> None:
        """Deliver until *is_done* or aborted."""
        while not is_done() and not self.is_aborted:
            self._poll.poll(_ROUND_SECONDS)
            while self._round() == _ROUND_CALLS_MAX and not self.is_aborted:
                pass  # there is more

    def _room(self) -> int:
        return min((exporter.room() for exporter in self._exporters), default=_ROUND_CALLS_MAX)

    def _round(self) -> int:
        """Read what is there and pass it on; return how many calls that were."""
        capture = self.capture
        # In this order: what a call or a task refers to is submitted before it, so it is read after it.
        raw_calls = capture.calls.read(min(self._room(), _ROUND_CALLS_MAX))
        tasks = capture.tasks.read(_RING_RECORDS_MAX)
        produced = capture.calls.produced
        self._decoder.add_strings(capture.strings.read(_RING_RECORDS_MAX))
        if len(tasks):
            self.processes.learn(tasks, self._decoder.exec_strings(tasks), produced)
        calls = self.processes.identify(self._decoder.decode(raw_calls)) if len(raw_calls) else self._no_calls
        self._pass_on(calls, capture.calls.consumed)
        self._view.progress(capture)
        return len(calls)

    def _pass_on(self, calls: Calls, consumed: int, *, is_last: bool = False) -> None:
        placement = self._structure.place(calls)
        ended = self.processes.take_ended(consumed)
        self._structure.end(ended)
        now = time.time_ns()
        self._structure.tick(now)
        if is_last:
            self._structure.finish(self.processes.living(), now)
        self._view.add(calls, ended)
        spans = self._structure.take_spans()
        if len(calls) or spans:
            for exporter in self._exporters:
                exporter.add(Batch(calls, placement, spans))

    def finish(self) -> None:
        """Detach, deliver the rest, and say what became of everything."""
        self.capture.close_links()
        patience = self._config.flush_timeout_ns / 1e9
        deadline = time.monotonic() + patience
        while self.capture.calls.waiting() and not self.is_aborted and time.monotonic() < deadline:
            if self._round():
                deadline = time.monotonic() + patience
            else:
                time.sleep(0.01)  # the queue is full, or a record is being written still
        self._round()  # tasks that ended after the last call
        self._lost_at_end = self.capture.calls.waiting()
        self._view.see_living(self.processes.living())
        self._pass_on(self._no_calls, sys.maxsize, is_last=True)
        for exporter in self._exporters:
            if self.is_aborted:
                exporter.abort()
            else:
                exporter.close()
        self._view.finish(self._account())

    def abort(self) -> None:
        """Stop everything as soon as possible; may be called from another thread."""
        self.is_aborted = True
        for exporter in self._exporters:
            exporter.abort()

    def _account(self) -> Account:
        kernel = self.capture.ledger()
        emitted = kernel[Ledger.EMITTED]
        unread = {"not read in time": self._lost_at_end} if self._lost_at_end else {}
        deliveries = [
            Delivery(exporter.name, exporter.delivered, {**exporter.undelivered, **unread})
            for exporter in self._exporters
        ] or [Delivery("the terminal", emitted - self._lost_at_end, unread)]
        return Account(kernel, len(self.capture.in_flight()), deliveries)


def run(config: Config, loader: Loader, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """
    Run a command and trace it with what *loader* loads; return its exit status.

    Raises:
        CommandError: it cannot be started.
        AgentError: we cannot.
    """
    signals = Signals()
    command = Command(argv, environ, signals.original_mask)
    tree = Tree()
    try:
        agent = Agent(config, tree, " ".join(argv))
        agent.start_exporters()
        agent.connect(loader.capture())
        tree.set_root(agent.processes.add_launched(command.pid, time.time_ns(), os.getpid()))
        agent.capture.add_thread(command.pid, SlotState.LAUNCHING)
    except BaseException:
        command.discard()
        raise
    interrupts: list[signal.Signals] = []

    def handle(number: signal.Signals, is_for_group: bool) -> None:
        if not is_for_group:
            command.send_signal(number)
        if number == signal.SIGINT:
            interrupts.append(number)
            if len(interrupts) == 2:
                agent.abort()

    early = signals.pending()
    if early is not None:  # told to end before it began
        command.discard()
        return 128 + early
    command.release()
    signals.watch(handle)
    agent.watch(signals.fd)
    agent.watch(command.pidfd)
    ended = select.poll()
    ended.register(command.pidfd, select.POLLIN)
    try:
        agent.loop(lambda: bool(ended.poll(0)))
    except Exception as error:  # noqa: BLE001 (a bug of ours must not cost the command's exit status)
        explain_bug(error)
        return command.reap()
    if agent.is_aborted:
        command.send_signal(signal.SIGKILL)
    status = command.reap()
    try:
        agent.finish()
    except Exception as error:  # noqa: BLE001 (as above)
        explain_bug(error)
    return _INTERRUPTED if agent.is_aborted else status


def attach(config: Config, loader: Loader) -> int:
    """
    Trace running processes with what *loader* loads until they end, a signal comes or the time is over; return 0.

    Raises:
        AgentError: a process does not exist, or we cannot start.
    """
    if not config.pids:
        raise AgentError("say what to attach to: --pid PID")
    for pid in config.pids:
        if pid == os.getpid():
            raise AgentError(f"{pid} is this program itself")
        if not psutil.pid_exists(pid):
            raise AgentError(f"there is no process {pid}")
    signals = Signals()
    agent = Agent(config, Windows(), "")
    agent.start_exporters()
    agent.connect(loader.capture())
    for pid in config.pids:
        _follow(agent, pid)
    stops: list[signal.Signals] = []

    def handle(number: signal.Signals, is_for_group: bool) -> None:  # noqa: ARG001 (of the callback's form)
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            stops.append(number)
            if len(stops) == 2:
                agent.abort()

    signals.watch(handle)
    agent.watch(signals.fd)
    end = time.monotonic() + config.duration_ns / 1e9 if config.duration_ns is not None else float("inf")
    has_targets = _seldom(agent.capture.targets)
    agent.loop(lambda: bool(stops) or time.monotonic() >= end or not has_targets())
    agent.finish()
    return _INTERRUPTED if agent.is_aborted else 0


def _seldom(count: Callable[[], int]) -> Callable[[], int]:
    """Return *count* asked at most five times a second: counting the threads costs a system call for each."""
    asked_at, answer = float("-inf"), 0

    def ask() -> int:
        nonlocal asked_at, answer
        if time.monotonic() - asked_at >= 0.2:
            asked_at, answer = time.monotonic(), count()
        return answer

    return ask


def _follow(agent: Agent, pid: int) -> None:
    try:
        tids = agent.capture.add_process(pid)
        agent.processes.add_running(pid)
        for tid in tids:
            agent.processes.add_thread(pid, tid)
    except (ProcessLookupError, psutil.NoSuchProcess) as error:
        raise AgentError(f"process {pid} ended before it could be followed") from error
