"""
A small world of processes for tests: what happens in it, who made each call, and the records that the kernel side writes.

Every event takes a nanosecond of the boot clock. Process ids are above what Linux gives out, so that /proc knows none of
them.
"""

from dataclasses import dataclass, field

import numpy as np
from hypothesis import strategies as st

from otel_sysexit.addresses import NO_ADDRESSES
from otel_sysexit.arguments import ArgumentTexts
from otel_sysexit.calls import Calls
from otel_sysexit.kernel import records
from otel_sysexit.kernel.records import TaskKind
from otel_sysexit.strings import ExecStrings
from otel_sysexit.syscalls import Kinds
from otel_sysexit.texts import NO_TEXTS

FIRST_PID = 10_000_000
ROOT_PARENT = 9_999_999
_KINDS = Kinds()
_ARGUMENT_TEXTS = ArgumentTexts()


@dataclass(eq=False)
class Task:
    """A thread that lives."""

    tid: int
    name: str


@dataclass(eq=False)
class Life:
    """A process from its start to its end."""

    pid: int
    start_ns: int
    parent: "Life | None"
    program: str
    threads: list[Task]
    wait_status: int | None = None

    @property
    def leader(self) -> Task:
        """The first of its threads that lives."""
        return self.threads[0]


@dataclass(frozen=True)
class Call:
    """A call that ended, and what is true of it."""

    end_ns: int
    tid: int
    life: Life
    program: str
    thread_name: str


@dataclass
class World:
    """Everything that happened, as records in the order of the rings."""

    now_ns: int = 1 << 60
    alive: list[Life] = field(default_factory=list)
    dead: list[Life] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    tasks: list[np.ndarray] = field(default_factory=list)
    exec_strings: dict[int, ExecStrings] = field(default_factory=dict)
    _free: list[int] = field(default_factory=list)
    _next_pid: int = FIRST_PID

    def begin(self) -> Life:
        """The command is there; what it will run, its exec says."""
        root = Life(self._new_id(), self.now_ns, None, "", [])
        root.threads.append(Task(root.pid, ""))
        self.alive.append(root)
        return root

    def fork(self, life: Life, thread: Task) -> Life:
        """A process is born with its parent's program and its creator's name."""
        start_ns = self._tick()
        child = Life(self._new_id(), start_ns, life, life.program, [])
        child.threads.append(Task(child.pid, thread.name))
        self.alive.append(child)
        self._record(TaskKind.PROCESS_START, child, child.leader, previous_tid=thread.tid)
        return child

    def clone(self, life: Life, thread: Task) -> None:
        """A thread is born."""
        self._tick()
        life.threads.append(Task(self._new_id(), thread.name))
        self._record(TaskKind.THREAD_START, life, life.threads[-1], previous_tid=thread.tid)

    def rename(self, life: Life, thread: Task, name: str) -> None:
        """A thread gets another name."""
        self._tick()
        thread.name = name
        self._record(TaskKind.RENAME, life, thread)

    def execute(self, life: Life, thread: Task, program: str) -> None:
        """The process runs another program; of its threads only this one is left, as its leader."""
        for other in [one for one in life.threads if one is not thread]:
            self.end_thread(life, other)
        previous_tid, thread.tid = thread.tid, life.pid
        if previous_tid != life.pid:
            self._free.append(previous_tid)
        self.rename(life, thread, program[:15])
        self._tick()
        life.program = program
        self._record(TaskKind.EXEC, life, thread, previous_tid=previous_tid)
        self.exec_strings[len(self.tasks) - 1] = ExecStrings(f"/bin/{program}", program, f"/bin/{program}")

    def end_thread(self, life: Life, thread: Task) -> None:
        """One of several threads ends."""
        self._tick()
        life.threads.remove(thread)
        self._record(TaskKind.END, life, thread)
        if thread.tid != life.pid:  # the leader's stays taken
            self._free.append(thread.tid)

    def end(self, life: Life, wait_status: int) -> None:
        """A process ends, with its last thread."""
        while len(life.threads) > 1:
            self.end_thread(life, life.threads[-1])
        self._tick()
        life.wait_status = wait_status
        self._record(TaskKind.END, life, life.leader, is_last=True)
        self.alive.remove(life)
        self.dead.append(life)
        self._free += {life.pid, life.leader.tid}

    def call(self, life: Life, thread: Task) -> None:
        """A call ends."""
        self._tick()
        self.calls.append(Call(self.now_ns, thread.tid, life, life.program, thread.name))

    def batch(self, first: int, last: int) -> Calls:
        """Return some calls as calls.py would."""
        made = self.calls[first:last]
        count = len(made)
        ends = np.array([call.end_ns for call in made], np.uint64)
        return Calls(
            start_unix_ns=ends,
            duration_ns=np.zeros(count, np.uint64),
            end_boot_ns=ends,
            tgid=np.array([call.life.pid for call in made], np.uint32),
            tid=np.array([call.tid for call in made], np.uint32),
            ret=np.zeros(count, np.int64),
            args=np.zeros((count, 6), np.int64),
            has_args=np.zeros(count, np.bool_),
            argument_text=np.zeros(count, np.uint16),
            kind=np.zeros(count, np.uint16),
            outcome=np.zeros(count, np.uint8),
            is_executed=np.ones(count, np.bool_),
            errno=np.zeros(count, np.uint16),
            threshold=np.zeros(count, np.uint32),
            path_row=np.full((count, 2), -1, np.int32),
            paths=NO_TEXTS,
            file_row=np.full((count, 2), -1, np.int32),
            files=NO_TEXTS,
            address_row=np.full(count, -1, np.int32),
            addresses=NO_ADDRESSES,
            kinds=_KINDS,
            argument_texts=_ARGUMENT_TEXTS,
        )

    def _tick(self) -> int:
        self.now_ns += 1
        return self.now_ns

    def _new_id(self) -> int:
        """Return an id; one that was used before where there is one: the worst case."""
        if self._free:
            return self._free.pop()
        self._next_pid += 1
        return self._next_pid

    def _record(
        self, kind: TaskKind, life: Life, thread: Task, *, previous_tid: int = 0, is_last: bool = False
    ) -> None:
        record = np.zeros(1, records.TASK)
        record["time_ns"], record["start_ns"] = self.now_ns, life.start_ns
        record["tgid"], record["tid"] = life.pid, thread.tid
        record["parent_tgid"] = life.parent.pid if life.parent else ROOT_PARENT
        record["previous_tid"] = previous_tid or thread.tid
        record["wait_status"] = life.wait_status or 0
        record["kind"], record["is_last"] = kind, is_last
        name = thread.name.encode()
        record["comm"][0, : len(name)] = np.frombuffer(name, np.uint8)
        self.tasks.append(record)


# What happens next: (event, which process, which of its threads, a name).
events = st.tuples(
    st.sampled_from(["call"] * 5 + ["fork", "clone", "rename", "exec", "end thread", "end", "read", "learn"]),
    st.integers(0, 99),
    st.integers(0, 99),
    st.sampled_from(["sh", "make", "gcc", "ld", "a program of a long name"]),
)


def happen(world: World, event: str, process: int, thread: int, name: str) -> None:
    """Let one event happen to whom the numbers choose, where it can."""
    if not world.alive:
        return
    life = world.alive[process % len(world.alive)]
    task = life.threads[thread % len(life.threads)]
    match event:
        case "call":
            world.call(life, task)
        case "fork":
            world.fork(life, task)
        case "clone":
            world.clone(life, task)
        case "rename":
            world.rename(life, task, name[:15])
        case "exec":
            world.execute(life, task, name)
        case "end thread" if len(life.threads) > 1:
            world.end_thread(life, task)
        case "end":
            world.end(life, 9 if thread % 2 else thread << 8)
