"""
One agent for many programs: it traces a shell that starts them one after the other.

In: a program with its arguments. Out: what `otel-sysexit run` would have left of it: status, output, spans. Each
program's spans are those of its own process and of the processes below it, from its own execve on.
"""

import json
import shlex
import signal
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from otlp_json import Span, parse_spans


class SharedAgent:
    """An agent at work, with the shell that it traces."""

    def __init__(
        self, folder: Path, command: list[str], environment: dict[str, str], wait_until: Callable[..., Any]
    ) -> None:
        self._folder = folder
        self._output = folder / "spans.jsonl"
        self._wait_until = wait_until
        self._spans: list[Span] = []
        self._read_bytes = 0
        self._first = 0  # of the spans, the first that no earlier program has to do with
        self._count = 0
        with (folder / "stderr").open("wb") as stderr:
            self._agent = subprocess.Popen(
                [*command, "run", "-o", self._output, "--", "/bin/sh"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                env=environment,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End the agent if it still runs."""
        if self._agent.poll() is None:
            self._agent.send_signal(signal.SIGKILL)
        self._agent.communicate()

    def run(self, program: Path, *arguments: str | Path) -> tuple[int, bytes, str, list[Span]]:
        """Run a program to its end; return its status as a shell tells it, what it printed, its spans."""
        pid, status, stdout, stderr = self._start(program, *arguments)
        process = self._wait_for_process(pid)
        # The rest of its batch may be written after this span. What begins now is in a later batch.
        self._wait_for_process(self._start("/bin/true")[0])
        spans = self._spans_of(process, str(program))
        self._first = len(self._spans)
        return status, stdout.read_bytes(), stderr.read_text(), spans

    def _start(self, *command: str | Path) -> tuple[int, int, Path, Path]:
        """Run a command to its end; return its pid, its status, and the files of what it printed."""
        self._count += 1
        pid, stdout, stderr = (self._folder / f"{self._count}.{name}" for name in ("pid", "stdout", "stderr"))
        inner = shlex.join(["/bin/sh", "-c", f'echo $$ >{pid}; exec "$@"', "sh", *map(str, command)])
        self._agent.stdin.write(f"{inner} </dev/null >{stdout} 2>{stderr}; echo $?\n".encode())
        self._agent.stdin.flush()
        status = self._agent.stdout.readline()
        assert status, f"the shared agent ended: {(self._folder / 'stderr').read_text()}"
        return int(pid.read_text()), int(status), stdout, stderr

    def finish(self) -> tuple[int, bytes, str, list[Span]]:
        """Let the shell and so the agent end; return the same as `run` for all together."""
        stdout, _ = self._agent.communicate()
        self._read()
        return self._agent.returncode, stdout, (self._folder / "stderr").read_text(), self._spans

    def _read(self) -> None:
        """Read the lines that have been completed since the last time."""
        with self._output.open("rb") as file:
            file.seek(self._read_bytes)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                self._read_bytes += len(line)
                self._spans += parse_spans(json.loads(line))

    def _wait_for_process(self, pid: int) -> Span:
        """Return the span of a process when it is there."""

        def ended() -> Span | None:
            self._read()
            found = [span for span in self._spans[self._first :] if not span.is_call and span.pid == pid]
            # In parts of the trace that are closed before its end, it has no end.
            ended = [span for span in found if span.attributes.keys() & {"process.exit.code", "error.type"}]
            return ended[0] if ended else None

        return self._wait_until(ended, f"the span of process {pid}")

    def _spans_of(self, process: Span, path: str) -> list[Span]:
        """Return the spans of the program of this path in a process, and of the processes below it."""
        own = {
            span.span_id
            for span in self._spans[self._first :]
            if not span.is_call and span.pid == process.pid
        }
        new = [
            replace(span, parent_id="") if span.span_id in own else span
            for span in self._spans[self._first :]
        ]
        began = min(
            span.start for span in new if span.pid == process.pid and span.attributes.get("file.path") == path
        )
        processes: set[str] = set()
        below = own
        while below:  # a child's span may come before its parent's
            processes |= below
            below = {span.span_id for span in new if not span.is_call and span.parent_id in below}
        return join_parts(
            [
                span
                for span in new
                if span.span_id in processes
                or (
                    span.is_call
                    and span.parent_id in processes
                    and (span.pid != process.pid or span.start >= began)
                )
            ]
        )


def join_parts(spans: list[Span]) -> list[Span]:
    """
    Return the spans of a program as one trace.

    The shared agent's trace goes on in parts, between which a program may lie: of a process with several spans there is the
    last one, from the start of the first.
    """
    first: dict[tuple[Any, ...], Span] = {}
    last: dict[tuple[Any, ...], Span] = {}
    of_span: dict[str, tuple[Any, ...]] = {}
    for span in sorted((span for span in spans if not span.is_call), key=lambda span: span.end):
        key = of_span[span.span_id] = (span.pid, span.resource["process.creation.time"])
        first[key] = min(first.get(key, span), span, key=lambda one: one.start)
        last[key] = span
    kept = {key: replace(span, start=first[key].start) for key, span in last.items()}
    trace_id = next((span.trace_id for span in kept.values() if not span.parent_id), "")

    def place(span: Span) -> Span:
        parent = of_span.get(span.parent_id)
        return replace(span, trace_id=trace_id, parent_id=last[parent].span_id if parent else span.parent_id)

    return [place(span) for span in (*(one for one in spans if one.is_call), *kept.values())]
