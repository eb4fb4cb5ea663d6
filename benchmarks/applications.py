"""
Real programs under load: redis, nginx, PostgreSQL, tar.

Each runs as nobody, from a configuration of its own in a folder of its own, and listens at loopback or a Unix socket only.
"""

import csv
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import numpy as np
import packages
from collector import LOOPBACK, free_ports, is_listening
from machine import wait_until

NOBODY: Final = 65_534
_AS_NOBODY: Final = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")
_CLIENTS: Final = 20
_FILES: Final = 5_000
_FILE_BYTES: Final = 4_096
_PROBE_REQUESTS: Final = 2_000
_NGINX: Final = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
events {{ worker_connections 512; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen {loopback}:{port};
        root {folder};
    }}
}}
"""


@dataclass(frozen=True)
class Load:
    """What the program did."""

    throughput: float
    """A second."""
    p99_ms: float | None
    """Time until an answer, of all but the slowest hundredth; None: nobody waits for answers."""


Starter = Callable[[Sequence[str]], subprocess.Popen[bytes]]
"""Starts a command line, traced or not."""


class Application(Protocol):
    """One program with what loads it."""

    title: str
    unit: str
    programs: Sequence[str]

    def prepare(self, folder: Path) -> None:
        """Make what it needs, once, in *folder*, which is nobody's."""

    def visit(self, start: Starter, stop: Callable[[subprocess.Popen[bytes]], None], seconds: float) -> Load:
        """Have it started, load it about so long, have it stopped."""


def as_nobody(command: Sequence[str]) -> list[str]:
    """Return the command line that runs *command* without any privileges."""
    return [*_AS_NOBODY, *command]


def give_to_nobody(path: Path) -> None:
    """Make *path* nobody's."""
    shutil.chown(path, NOBODY, NOBODY)


def _run(command: Sequence[str]) -> str:
    """
    Run a client to its end; return what it printed.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run(
        [packages.find(command[0]) or command[0], *command[1:]],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=packages.environment(),
        timeout=120,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


class _Server:
    """A server, found by its port or its socket."""

    title = unit = ""
    programs: Sequence[str] = ()

    def prepare(self, folder: Path) -> None:
        """Take note of the folder, and of a port that is free."""
        self.folder = folder
        [self.port] = free_ports(1)

    def command(self) -> list[str]:
        """Return its command line."""
        raise NotImplementedError

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        return is_listening(self.port)

    def load(self, seconds: float) -> Load:
        """Put load on it."""
        raise NotImplementedError

    @contextmanager
    def running(self, start: Starter, stop: Callable[[subprocess.Popen[bytes]], None]) -> Iterator[None]:
        """Run it for the duration of a `with` block."""
        process = start(as_nobody([packages.find(self.programs[0]) or "", *self.command()]))
        try:
            wait_until(lambda: process.poll() is not None or self.is_ready(), f"{self.title} is ready")
            if process.poll() is not None:
                raise RuntimeError(f"{self.title} ended at once")
            yield
        finally:
            stop(process)

    def visit(self, start: Starter, stop: Callable[[subprocess.Popen[bytes]], None], seconds: float) -> Load:
        """Run and load it."""
        with self.running(start, stop):
            return self.load(seconds)


class Redis(_Server):
    """Small answers, a system call or two for each."""

    title = f"redis (`redis-benchmark -t get -c {_CLIENTS}`)"
    unit = "requests"
    programs = ("redis-server", "redis-benchmark")

    def command(self) -> list[str]:
        """Keep all in memory."""
        options = {"port": str(self.port), "bind": LOOPBACK, "save": "", "dir": str(self.folder)}
        return [word for name, value in options.items() for word in (f"--{name}", value)]

    def load(self, seconds: float) -> Load:
        """First find out how fast it is: the client wants a number of requests."""
        rate = self._request(_PROBE_REQUESTS).throughput
        return self._request(max(int(rate * seconds), _PROBE_REQUESTS))

    def _request(self, count: int) -> Load:
        where = ("-h", LOOPBACK, "-p", str(self.port), "-c", str(_CLIENTS))
        return parse_redis(_run(["redis-benchmark", *where, "-t", "get", "-n", str(count), "--csv"]))


def parse_redis(printed: str) -> Load:
    """Read what `redis-benchmark --csv` prints."""
    [row] = csv.DictReader(printed.splitlines())
    return Load(float(row["rps"]), float(row["p99_latency_ms"]))


class Nginx(_Server):
    """A small file over HTTP, again and again."""

    title = f"nginx (`wrk -t1 -c{_CLIENTS}`)"
    unit = "requests"
    programs = ("nginx", "wrk")

    def prepare(self, folder: Path) -> None:
        """Write its configuration and the file."""
        super().prepare(folder)
        text = _NGINX.format(folder=folder, loopback=LOOPBACK, port=self.port)
        (folder / "nginx.conf").write_text(text, encoding="utf-8")
        (folder / "index.html").write_text("x" * 1_000, encoding="utf-8")

    def command(self) -> list[str]:
        """Let it stay in the foreground."""
        return ["-p", str(self.folder), "-c", "nginx.conf", "-e", str(self.folder / "error.log")]

    def load(self, seconds: float) -> Load:
        """Ask for the file."""
        url = f"http://{LOOPBACK}:{self.port}/index.html"
        return parse_wrk(_run(["wrk", "-t1", f"-c{_CLIENTS}", f"-d{seconds:.0f}s", "--latency", url]))


_MS: Final = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


def parse_wrk(printed: str) -> Load:
    """Read what `wrk --latency` prints."""
    rate = re.search(r"^Requests/sec: +([\d.]+)$", printed, re.MULTILINE)
    latency = re.search(r"^ +99% +([\d.]+)(us|ms|s|m)$", printed, re.MULTILINE)
    if rate is None or latency is None:
        raise RuntimeError(f"wrk printed no result: {printed}")
    return Load(float(rate[1]), float(latency[1]) * _MS[latency[2]])


class PostgreSql(_Server):
    """Queries that find one row; a process for each client."""

    title = "PostgreSQL (`pgbench -S -c 4`)"
    unit = "transactions"
    programs = ("postgres", "initdb", "pg_isready", "pgbench")

    def prepare(self, folder: Path) -> None:
        """Make a database of half a million rows."""
        super().prepare(folder)
        initdb = [
            packages.find("initdb") or "",
            "-D",
            str(folder / "data"),
            "-U",
            "nobody",
            "-A",
            "trust",
            "--no-sync",
        ]
        _run(as_nobody(initdb))
        with self.running(_start, _stop):
            self._pgbench("--initialize", "--scale=5", "--quiet")

    def command(self) -> list[str]:
        """Let it listen at a socket in the folder, nowhere else."""
        settings = ("listen_addresses=", f"unix_socket_directories={self.folder}", f"port={self.port}")
        return ["-D", str(self.folder / "data"), *(word for one in settings for word in ("-c", one))]

    def is_ready(self) -> bool:
        """Whether it answers: it listens a while before."""
        try:
            _run(["pg_isready", *self._where])
        except RuntimeError:
            return False
        return True

    def load(self, seconds: float) -> Load:
        """Look rows up, and write down how long each took."""
        prefix = self.folder / "latencies"
        printed = self._pgbench("-n", "-S", "-c", "4", "-T", f"{seconds:.0f}", "-l", f"--log-prefix={prefix}")
        logs = list(self.folder.glob("latencies.*"))
        load = parse_pgbench(printed, "".join(log.read_text(encoding="utf-8") for log in logs))
        for log in logs:
            log.unlink()
        return load

    @property
    def _where(self) -> list[str]:
        return ["-h", str(self.folder), "-p", str(self.port)]

    def _pgbench(self, *options: str) -> str:
        return _run(["pgbench", *self._where, "-U", "nobody", *options, "postgres"])


def parse_pgbench(printed: str, log: str) -> Load:
    """Read what `pgbench -l` prints and what it logs: client, number, microseconds, ..."""
    rate = re.search(r"^tps = ([\d.]+)", printed, re.MULTILINE)
    if rate is None:
        raise RuntimeError(f"pgbench printed no result: {printed}")
    latencies_us = np.array([int(line.split()[2]) for line in log.splitlines()])
    return Load(float(rate[1]), float(np.percentile(latencies_us, 99)) / 1e3)


def _start(command: Sequence[str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait()


class Tar:
    """Small files into an archive: nothing but file calls."""

    title = f"`tar`, {_FILES:,} files of 4 KiB"
    unit = "files"
    programs = ("tar",)

    def prepare(self, folder: Path) -> None:
        """Write the files."""
        self._folder = folder
        (folder / "files").mkdir()
        for number in range(_FILES):
            (folder / "files" / f"{number:05}").write_bytes(os.urandom(_FILE_BYTES))

    def visit(self, start: Starter, stop: Callable[[subprocess.Popen[bytes]], None], seconds: float) -> Load:  # noqa: ARG002
        """Archive them a few times; only what happens between two times counts, not the start of a tracer."""
        times = self._folder / "times"
        archive = f"tar -cf {self._folder}/archive.tar -C {self._folder} files"
        script = f"date +%s%N >{times}; {archive}; {archive}; {archive}; date +%s%N >>{times}"
        process = start(as_nobody(["sh", "-c", script]))
        try:
            process.wait(120)
        finally:
            stop(process)
        began, ended = map(int, times.read_text(encoding="utf-8").split())
        return Load(3 * _FILES / ((ended - began) / 1e9), None)


APPLICATIONS: Final[Sequence[Application]] = (Redis(), Nginx(), PostgreSql(), Tar())
