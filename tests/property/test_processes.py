"""Who made a call: in any order of births, execs, renames and ends, with ids used again, the model's answer."""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from property.world import Call, Life, World, events, happen

from otel_sysexit.identity import Process, Thread
from otel_sysexit.kernel import records
from otel_sysexit.processes import Processes

BOOT_TO_UNIX_NS = 5


@dataclass
class Reader:
    """The agent's side of a world: reads its rings as the agent does, and keeps what it found."""

    world: World
    processes: Processes = field(default_factory=lambda: Processes(BOOT_TO_UNIX_NS))
    found: list[tuple[Call, Thread]] = field(default_factory=list)
    ended: list[Process] = field(default_factory=list)
    _tasks_read: int = 0
    _calls_read: int = 0
    _calls_identified: int = 0

    def begin(self) -> Process:
        """Start the world's first process, as the agent does a command."""
        root = self.world.begin()
        process = self.processes.add_launched(root.pid, root.start_ns + BOOT_TO_UNIX_NS, 1, {})
        self.world.execute(root, root.leader, "command")
        return process

    def read(self) -> None:
        """Read the calls that are there; first of what a round does."""
        self._calls_read = len(self.world.calls)

    def learn(self) -> None:
        """Read everything else; second of what a round does, when more may have happened."""
        tasks = self.world.tasks[self._tasks_read :]
        strings = {
            row - self._tasks_read: text
            for row, text in self.world.exec_strings.items()
            if row >= self._tasks_read
        }
        self._tasks_read = len(self.world.tasks)
        produced = len(self.world.calls)
        self.processes.learn(np.concatenate([np.empty(0, records.TASK), *tasks]), strings, produced)
        first, last = self._calls_identified, self._calls_read
        calls = self.processes.identify(self.world.batch(first, last))
        self._calls_identified = last
        threads = [calls.threads[index] for index in calls.thread.tolist()]
        self.found += zip(self.world.calls[first:last], threads, strict=True)
        self.ended += self.processes.take_ended(last)

    def follow(self, happened: list[tuple[str, int, int, str]]) -> None:
        """Let things happen, reading in between where the events say so; then read the rest."""
        for event, process, thread, name in happened:
            if event == "read":
                self.read()
            elif event == "learn":
                self.learn()
            else:
                happen(self.world, event, process, thread, name)
        self.read()
        self.learn()


def follow(happened: list[tuple[str, int, int, str]]) -> Reader:
    """Return a reader that followed a world in which all this happened."""
    reader = Reader(World())
    reader.begin()
    reader.follow(happened)
    return reader


histories = st.lists(events, max_size=60)


@settings(max_examples=200)
@given(histories)
def test_every_call_is_identified(happened):
    """A call belongs to the process, program and thread name that were in force when it ended."""
    for call, thread in follow(happened).found:
        assert thread.tid == call.tid
        assert thread.process.pid == call.life.pid
        assert thread.image.executable_name == call.program
        assert thread.name == call.thread_name


@settings(max_examples=200)
@given(histories)
def test_a_process_is_one_object_and_no_other_process(happened):
    """The calls of a process have one Process, also after an exec; processes with the same id have different ones."""
    processes: dict[Life, Process] = {}
    for call, thread in follow(happened).found:
        assert processes.setdefault(call.life, thread.process) is thread.process
        assert thread.process.start_unix_ns == call.life.start_ns + BOOT_TO_UNIX_NS

    assert len({id(process) for process in processes.values()}) == len(processes)
    for life, process in processes.items():
        if life.parent in processes:
            assert process.parent is processes[life.parent]


@settings(max_examples=200)
@given(histories)
def test_the_ended_are_told_once_with_their_ends(happened):
    """Each process that ended is told once, in order, with its exit code or its signal."""
    reader = follow(happened)

    assert [(one.pid, one.exit_code, one.exit_signal) for one in reader.ended] == [
        (
            life.pid,
            None if life.wait_status & 0x7F else life.wait_status >> 8,
            life.wait_status & 0x7F or None,
        )
        for life in reader.world.dead
    ]


@settings(max_examples=200)
@given(histories)
def test_a_process_is_told_after_its_last_call(happened):
    """When a process is said to have ended, all its calls were identified before."""
    reader = Reader(World())
    reader.begin()
    for event in happened:
        reader.follow([event])
        identified = {call.life for call in reader.world.calls[reader._calls_identified :]}
        told = {(process.pid, process.start_unix_ns) for process in reader.ended}

        assert not [life for life in identified if (life.pid, life.start_ns + BOOT_TO_UNIX_NS) in told]


@settings(max_examples=100)
@given(histories)
def test_the_living_are_known(happened):
    """Those who did not end are the living."""
    reader = follow(happened)

    assert {process.pid for process in reader.processes.living()} == {life.pid for life in reader.world.alive}


@settings(max_examples=100)
@given(histories)
def test_the_dead_are_forgotten(happened):
    """What is kept is as much as lives: a program a process, a name a thread, or two after an exec by a thread."""
    reader = follow(happened)
    kept = reader.processes._timelines
    threads = {life.pid: {thread.tid for thread in life.threads} for life in reader.world.alive}

    assert not reader.processes._dying
    assert {pid: len(timeline.images) for pid, timeline in kept.items()} == dict.fromkeys(threads, 1)
    assert {pid: set(timeline.names) for pid, timeline in kept.items()} == threads
    assert {len(names) for timeline in kept.values() for names in timeline.names.values()} <= {1, 2}


@given(st.integers(1, 3))
def test_the_last_thread_counts_once(threads):
    """Two threads that end at once may both look like the last: the process ends once, with the first."""
    reader = Reader(World())
    root = reader.begin()
    life = reader.world.alive[0]
    reader.world.end(life, 3 << 8)
    reader.world.tasks += [reader.world.tasks[-1]] * threads
    reader.follow([])

    assert reader.ended == [root]
    assert (root.exit_code, root.end_unix_ns) == (3, reader.world.now_ns + BOOT_TO_UNIX_NS)


def test_threads_that_end_at_once_end_their_process_together():
    """When the first of two that look like the last is read early, the other's last call still is the process's."""
    reader = Reader(World())
    root = reader.begin()
    world = reader.world
    life = world.alive[0]
    world.clone(life, life.leader)
    leader, other = life.threads
    world.end_thread(life, leader)
    world.tasks[-1]["is_last"] = 1
    reader.follow([])
    told_early = list(reader.ended)
    world.call(life, other)
    world.end_thread(life, other)
    world.tasks[-1]["is_last"] = 1
    reader.follow([])
    ((_, thread),) = reader.found

    assert told_early == []
    assert reader.ended == [root]
    assert thread.process is root
    assert root.end_unix_ns == world.now_ns + BOOT_TO_UNIX_NS


def test_a_call_of_nobody_is_still_a_call():
    """A call whose process's start was lost has a process of its id and an unknown program, as old as the call."""
    reader = Reader(World())
    reader.begin()
    stranger = reader.world.fork(reader.world.alive[0], reader.world.alive[0].leader)
    reader.world.tasks.pop()
    reader.world.call(stranger, stranger.leader)
    reader.follow([])
    ((_, thread),) = reader.found

    assert (thread.process.pid, thread.image.executable_name) == (stranger.pid, "unknown")
    assert thread.process.start_unix_ns == reader.world.calls[0].end_ns
