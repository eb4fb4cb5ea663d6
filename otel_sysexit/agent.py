"""
Wires the stages, owns the loop and the exit status.

Data goes one way: the rings are read, records become calls, calls get their process and their place in a trace, and
batches go to the sinks. Everything slow (sending, writing) happens in the exporters' threads.
"""

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy.typing as npt
import psutil

from otel_sysexit.attributes import PROCESS_LINUX_CGROUP
from otel_sysexit.calls import Calls, Decoder
from otel_sysexit.command import Command, Inherited, find_executable
from otel_sysexit.config import Config
from otel_sysexit.containers import CgroupIndex
from otel_sysexit.ending import TargetsLeft
from otel_sysexit.errors import AgentError, UsageError
from otel_sysexit.flat import Flat
from otel_sysexit.gathering import BATCH_CALLS_MAX, Gathering
from otel_sysexit.identity import Process, Thread
from otel_sysexit.kernel.capture import Capture
from otel_sysexit.kernel.handover import Loader
from otel_sysexit.kernel.records import Ledger
from otel_sysexit.ledger import Account, Delivery
from otel_sysexit.memory import Unused, keep_freed_memory
from otel_sysexit.messages import explain_bug, say
from otel_sysexit.otlp.export import Batch
from otel_sysexit.otlp.resources import rules_of
from otel_sysexit.processes import Processes
from otel_sysexit.rate import RateKeeper
from otel_sysexit.reading import Reader
from otel_sysexit.sampling import threshold_of
from otel_sysexit.scan import Scan, Standing, take_up
from otel_sysexit.settings import Args
from otel_sysexit.signals import REPORT, Signals
from otel_sysexit.sinks import Sinks
from otel_sysexit.stuck import StuckCalls, all_in_flight, describe
from otel_sysexit.targets import Targets
from otel_sysexit.traces import NO_PLACES, Structure, Totals
from otel_sysexit.trees import Tree
from otel_sysexit.view import View
from otel_sysexit.windows import Windows

_ROUND_SECONDS: Final = 0.1
"""How often to look what is there; many calls force a wake-up."""
_LOOK_SECONDS: Final = 1.0
"""How often stuck calls are looked for, if at all."""
_TOTALS_SECONDS: Final = 1.0
"""How old the figures may be that windows say of calls that are not in them."""
_NEARLY_FULL: Final = 7 / 8
"""Of a ring: what cannot be delivered is given up from then on."""
_KEPT_IN_MIND_MAX: Final = 32_768
"""Of what happened to tasks, for calls that were not read yet; given up as well then."""
_EAGER_PROCESSES_MAX: Final = 256
"""As many processes are looked up in /proc before anything is read."""
_INITIAL_PID_NAMESPACE: Final = 0xEFFFFFFC
_SECOND_SIGNAL_SECONDS: Final = 0.2
_LEAVE_SECONDS: Final = 5.0
"""More than ending at once takes."""
_INTERRUPTED: Final = 128 + signal.SIGINT


def make_structure(config: Config) -> Structure:
    """Return the structure of traces that is asked for."""
    match config.trace_structure:
        case "tree":
            return Tree(threshold_of(config.sample), config.spans_per_trace, config.trace_context)
        case "flat":
            return Flat()
        case _:
            return Windows()


def _boot_ns() -> int:
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class _Round(NamedTuple):
    """What one look at the rings brought."""

    calls: int
    """How many were read."""
    is_more: bool
    """Whether as many as were asked for: there may be others."""


class Agent:
    """One run of the pipeline, from the loader's start to the last line on the terminal."""

    def __init__(self, config: Config, title: str) -> None:
        """Prepare everything that needs no kernel; *title* names the run for people."""
        keep_freed_memory()
        self._config = config
        self._structure = make_structure(config)
        self._totals = Totals()
        self._next_totals = 0.0
        self._decoder = Decoder(
            config.benign_errors, config.string_limit, has_argument_texts=config.args == Args.DECODED
        )
        self.processes = Processes(
            self._decoder.clock.offset_ns(),
            has_command_args=config.has_command_args,
            has_cgroup=config.attributes.has(PROCESS_LINUX_CGROUP),
        )
        self._view = View(config, title)
        self._sinks = Sinks(config)
        self._poll = select.epoll()
        self._capture: Capture | None = None
        self._reader: Reader | None = None
        self._rate: RateKeeper | None = None
        self._unused = Unused()
        self.gathering = Gathering(0.0 if config.live else config.schedule_delay_ns / 1e9)
        self._stuck = StuckCalls(config.stuck_after_ns, _boot_ns()) if config.stuck_after_ns else None
        self._next_look = time.monotonic() + _LOOK_SECONDS if self._stuck else float("inf")
        self._is_report_asked = False
        self._lost_at_end = 0
        self._shed_calls = 0
        self.is_aborted = False
        self.is_quiet = config.quiet

    def open_output(self) -> None:
        """Open the file to write, if there is one; raises AgentError."""
        self._sinks.open_file()

    def start_exporters(self) -> None:
        """Start what delivers: after any fork, and when nothing waits for us that its imports could delay."""
        self._sinks.start()

    def watch(self, fd: int) -> None:
        """Let *fd* end a wait each time it becomes readable."""
        self._poll.register(fd, select.EPOLLIN | select.EPOLLET)

    def connect(self, capture: Capture) -> None:
        """Take over *capture*; nothing is a target yet."""
        self._capture = capture
        self._reader = Reader(capture, self._decoder, self.processes)
        if capture.cgroup_subsystem is not None:
            self.processes.cgroups = CgroupIndex(capture.cgroup_subsystem)
        if self._config.max_rate:
            self._rate = RateKeeper(capture, self._config.max_rate, threshold_of(self._config.sample))
        # Edge-triggered: without, epoll would report records that were put there without a wake-up, and each poll
        # would bring a small batch.
        for fd in capture.calls_fds:
            self.watch(fd)

    @property
    def capture(self) -> Capture:
        """The kernel side, once connected."""
        if self._capture is None:
            raise AssertionError("not connected")
        return self._capture

    @property
    def reader(self) -> Reader:
        """What reads the rings, once connected."""
        if self._reader is None:
            raise AssertionError("not connected")
        return self._reader

    def loop(self, is_done: Callable[[], bool]) -> None:
        """Deliver until *is_done* or aborted."""
        self._unused.note_start()
        while not is_done() and not self.is_aborted:
            is_look_due = self._is_report_asked or time.monotonic() >= self._next_look
            done = self._look() if is_look_due else self._round()
            if not done.is_more:
                self._poll.poll(_ROUND_SECONDS)

    def ask_for_report(self) -> None:
        """Have all calls in flight reported with the next round; may be called from another thread."""
        self._is_report_asked = True

    def _look(self) -> _Round:
        """Do a round, and report calls in flight: those that are stuck, and all if asked for."""
        now_ns = _boot_ns()
        slots = self.capture.in_flight()
        done = self._round()  # whose they are was said before they began, so it has been read now
        if self._stuck is not None and time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + _LOOK_SECONDS
            self._report(self._stuck.due(slots, now_ns), now_ns, is_stuck=True)
        if self._is_report_asked:
            self._is_report_asked = False
            self._report(all_in_flight(slots), now_ns, is_stuck=False)
        return done

    def _report(self, slots: npt.NDArray[Any], now_ns: int, *, is_stuck: bool) -> None:
        """Say that calls are in flight: on the terminal, and in log records."""
        offset_ns = self._decoder.clock.offset_ns()

        def find_thread(tgid: int, tid: int) -> Thread | None:
            return self.processes.thread_at(tgid, tid, now_ns)

        calls = describe(slots, now_ns, offset_ns, self._decoder.kinds, find_thread)
        if calls or not is_stuck:
            self._view.report_in_flight(calls)
        if calls and self._sinks.takes_logs:
            from otel_sysexit.otlp.logs import encode_in_flight  # noqa: PLC0415 (seldom needed)

            rules = rules_of(self._config)
            for request in encode_in_flight(calls, now_ns + offset_ns, rules, is_stuck=is_stuck):
                self._sinks.add_logs(request)

    def set_root(self, process: Process) -> None:
        """Name the process of the command that is run."""
        self._structure.set_root(process)

    def _sum_up(self) -> Totals:
        """Return what became of calls that are not passed on, at most a second old."""
        if time.monotonic() >= self._next_totals:
            self._next_totals = time.monotonic() + _TOTALS_SECONDS
            self.processes.learn_contexts(_boot_ns(), self.capture.calls.produced)
            account = Account(self.capture.ledger(), 0, ())
            self._totals = Totals(account.filtered, account.sampled_out, account.dropped)
        return self._totals

    def _round(self) -> _Round:
        """Read what is there and pass it on."""
        capture = self.capture
        self._unused.tick()
        is_full = capture.calls.share_used() > _NEARLY_FULL or self.processes.waiting() > _KEPT_IN_MIND_MAX
        if is_full and self._sinks.is_stalled():
            self._shed()
        waiting, share = capture.calls.waiting(), capture.share_used()
        is_due = self.gathering.is_due(waiting, share, self.processes.waiting())
        limit = min(self._sinks.room(), BATCH_CALLS_MAX) if is_due else 0
        calls = self.reader.read(limit)
        if len(calls):
            self.gathering.note_read()
            self._unused.note_batch()
        self._pass_on(calls, capture.calls.consumed)
        if self._rate is not None:
            self._rate.keep()
        self._view.progress(capture)
        return _Round(len(calls), 0 < limit == len(calls))

    def _shed(self) -> None:
        """Give up the oldest calls: nothing is sent, and who made the calls in the ring cannot be kept in mind for ever."""
        count = len(self.capture.calls.read(BATCH_CALLS_MAX))
        self._shed_calls += count
        self._sinks.refuse(count)

    def _pass_on(self, calls: Calls, consumed: int, *, is_last: bool = False) -> None:
        placement = self._structure.place(calls) if len(calls) else NO_PLACES  # most rounds of an idle agent
        ended = self.processes.take_ended(consumed)
        self._structure.end(ended)
        now = time.time_ns()
        self._structure.tick(now, self._sum_up())
        if is_last:
            self._structure.finish(self.processes.living(), now)
        self._view.add(calls, ended)
        spans = self._structure.take_spans()
        if len(calls) or spans:
            self._sinks.add(Batch(calls, placement, spans))

    def finish(self) -> None:
        """Detach, deliver the rest, and say what became of everything."""
        self.capture.close_links()
        self.gathering.finish()
        patience = self._config.flush_timeout_ns / 1e9
        deadline = time.monotonic() + patience
        while self.capture.calls.waiting() and not self.is_aborted and time.monotonic() < deadline:
            if self._round().calls:
                deadline = time.monotonic() + patience
            else:
                time.sleep(0.01)  # the queue is full, or a record is being written still
        self._round()  # tasks that ended after the last call
        self._lost_at_end = self.capture.calls.waiting()
        self._view.see_living(self.processes.living())
        self._pass_on(self._decoder.no_calls, sys.maxsize, is_last=True)
        if self.is_aborted or self._lost_at_end:  # patience has been had
            self._sinks.abort()
        else:
            self._sinks.close()
        self._view.finish(self._account())

    def abort(self) -> None:
        """Stop everything as soon as possible; may be called from another thread."""
        self.is_aborted = True
        self._sinks.abort()

    def _account(self) -> Account:
        kernel = self.capture.ledger()
        emitted = kernel[Ledger.EMITTED]
        deliveries = self._sinks.deliveries(self._lost_at_end)
        if self._config.exporter == "terminal":
            reasons = {"not read in time": self._lost_at_end, "queue full": self._shed_calls}
            unshown = {reason: count for reason, count in reasons.items() if count}
            deliveries.append(Delivery("the terminal", emitted - sum(unshown.values()), unshown))
        return Account(
            kernel,
            len(self.capture.in_flight()),
            deliveries,
            self.capture.skipped_runs(),
            self._sinks.deliveries_beside(),
            self.processes.bad_trace_contexts,
        )


def check_pid_namespace() -> None:
    """
    Make sure that our pids are the kernel's.

    Raises:
        AgentError: we are in another pid namespace than the initial one (its inode: PROC_PID_INIT_INO, linux/proc_ns.h).
    """
    if Path("/proc/self/ns/pid").stat().st_ino != _INITIAL_PID_NAMESPACE:
        raise AgentError(
            "not in the initial pid namespace: give the container the host's (docker run --pid=host)"
        )


def run(config: Config, loader: Loader, argv: Sequence[str], inherited: Inherited) -> int:
    """
    Run a command and trace it with what *loader* loads; return its exit status.

    Raises:
        CommandError: it cannot be started.
        AgentError: we cannot.
    """
    check_pid_namespace()
    # A slip of the pen need not wait for the compiler.
    find_executable(argv[0], inherited.environ.get("PATH", os.defpath))
    agent = Agent(config, " ".join(argv))
    agent.open_output()
    capture = Capture(loader.request, loader.descriptors())  # a Ctrl-C until now just ends us
    signals = Signals()
    command = Command(argv, inherited.environ, inherited.signal_mask)
    try:
        agent.connect(capture)
        root = agent.processes.add_launched(command.pid, time.time_ns(), os.getpid(), inherited.environ)
        agent.set_root(root)
        capture.launch_thread(command.pid)
    except BaseException:
        command.discard()
        raise
    early = signals.pending()
    if early is not None:  # told to end before it began
        command.discard()
        return 128 + early
    root.begin_unix_ns = time.time_ns()  # until now it waited for us
    command.release()
    _pass_signals(signals, command, agent)
    agent.start_exporters()
    return _see_to_the_end(command, agent)


def _pass_signals(signals: Signals, command: Command, agent: Agent) -> None:
    """Let the command have its signals; SIGUSR1, a second Ctrl-C, and a Ctrl-C after its end are for us."""
    repeat = _Repeat()

    def handle(number: signal.Signals, is_for_group: bool) -> None:
        if number == REPORT:
            agent.ask_for_report()
        elif not is_for_group:
            command.send_signal(number)
        # A first one that the command died of is no word on what is to be delivered.
        if number == signal.SIGINT and (repeat.is_second() or command.has_ended_for(_SECOND_SIGNAL_SECONDS)):
            _leave_in_any_case(lambda: command.send_signal(signal.SIGKILL))
            agent.abort()

    signals.watch(handle)
    agent.watch(signals.fd)
    agent.watch(command.pidfd)


def _see_to_the_end(command: Command, agent: Agent) -> int:
    """Trace *command* until it ends and return its exit status, whatever happens to us."""
    try:
        agent.loop(command.has_ended)
    except Exception as error:  # noqa: BLE001 (a bug of ours must not cost the command's exit status)
        explain_bug(error)
        return command.reap()
    if agent.is_aborted and not command.has_ended():
        command.discard()
        status = _INTERRUPTED
    else:
        status = command.reap()
    try:
        agent.finish()
    except Exception as error:  # noqa: BLE001 (as above)
        explain_bug(error)
    return status


def _leave_in_any_case(last: Callable[[], None] = lambda: None) -> None:
    """End soon, with *last* done before, also where we wait for somebody to read what we write."""

    def leave() -> None:
        last()
        os._exit(_INTERRUPTED)

    timer = threading.Timer(_LEAVE_SECONDS, leave)
    timer.daemon = True
    timer.start()


class _Repeat:
    """Tells a second signal from the first one's echo: who signals us and then our group, as timeout(1) does, means one."""

    def __init__(self) -> None:
        self._first_at = float("inf")

    def is_second(self) -> bool:
        """Take note of a signal; return whether it came a while after the first."""
        now = time.monotonic()
        is_second = now - self._first_at > _SECOND_SIGNAL_SECONDS
        self._first_at = min(self._first_at, now)
        return is_second


def attach(config: Config, targets: Targets, loader: Loader) -> int:
    """
    Trace the threads that are *targets* with what *loader* loads; return 0.

    That ends with a signal, or when the time is over, or when nothing can be a target any more.

    Raises:
        UsageError: what was named ended meanwhile.
        AgentError: we cannot start.
    """
    check_pid_namespace()
    agent = Agent(config, "")
    agent.open_output()
    capture = Capture(loader.request, loader.descriptors())  # a Ctrl-C until now just ends us
    signals = Signals()
    agent.connect(capture)
    agent.gathering.expect_strangers()
    scan = Scan(targets, {os.getpid()})
    if not targets.is_all:  # there, a thread becomes a target with its first call
        _follow(agent, scan)
    agent.start_exporters()
    repeat = _Repeat()
    stops: list[signal.Signals] = []

    def handle(number: signal.Signals, is_for_group: bool) -> None:  # noqa: ARG001 (of the callback's form)
        if number == REPORT:
            agent.ask_for_report()
        if number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            stops.append(number)
            if repeat.is_second():
                _leave_in_any_case()
                agent.abort()

    signals.watch(handle)
    agent.watch(signals.fd)
    left = TargetsLeft(capture)
    end = time.monotonic() + config.duration_ns / 1e9 if config.duration_ns is not None else float("inf")
    agent.loop(
        lambda: (
            bool(stops)
            or time.monotonic() >= end
            or not (left.has_any() or targets.is_all or scan.may_grow())
        )
    )
    agent.finish()
    return _INTERRUPTED if agent.is_aborted else 0


def _follow(agent: Agent, scan: Scan) -> None:
    """
    Make targets of what runs already.

    Raises:
        UsageError: nothing does, and nothing can come.
    """
    taken = [thread for thread in take_up(scan, agent.capture) if thread.standing is Standing.TARGET]
    pids = {thread.tgid for thread in taken}
    if len(pids) <= _EAGER_PROCESSES_MAX:  # of more it is asked when they make their first call
        known = {pid for pid in pids if _take_in(agent.processes, pid)}
        for thread in taken:
            if thread.tgid in known:
                agent.processes.add_thread(thread.tgid, thread.tid)
    if not taken and not scan.may_grow():
        raise UsageError("what was to be followed ended before it could be")
    if not taken and not agent.is_quiet:
        say("nothing that runs matches: waiting for what does")


def _take_in(processes: Processes, pid: int) -> bool:
    try:
        processes.add_running(pid)
    except psutil.Error:  # gone, though its last calls may still come; or not ours to read
        return False
    return True
