"""
Docker, started by hand for the tests: Debian's, without a network, in folders of its own, with nothing left behind.

What is not installed is unpacked from Debian's packages (tests/kernels/packages.py), so no service starts by itself. The daemon
has a mount namespace of its own, and all its containers are in cgroups below one of ours.
"""

import contextlib
import io
import os
import secrets
import shutil
import signal
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from kernels import packages
from live.native import MACHINE, PATIENCE

DEADLINE_S = 60 * PATIENCE
PACKAGES = ("docker.io", "docker-cli", "containerd", "runc", "libdevmapper1.02.1", "libseccomp2")
IMAGE = "busybox"
SHELL = "/busybox"
# What is in /usr, where the distribution has that.
MERGED = ("bin", "sbin", "lib", "lib64")


class MissingError(Exception):
    """Docker cannot run here; the message says why."""


def _programs() -> dict[str, str]:
    """Return the environment in which dockerd and what it starts are found."""
    if shutil.which("dockerd") and shutil.which("docker"):
        return dict(os.environ)
    root = _attempt(packages.made, f"docker-{MACHINE}", _unpack)
    folders = [str(root / "usr" / name) for name in ("sbin", "bin")]
    libraries = {str(path.parent) for path in root.rglob("lib*.so.*")}
    return {
        **os.environ,
        "PATH": ":".join([*folders, os.environ["PATH"]]),
        "LD_LIBRARY_PATH": ":".join(sorted(libraries)),
    }


def _unpack(folder: Path) -> None:
    release = packages.mirrors()[""]
    archive = packages.Archive(MACHINE, release, f"{release}-security")
    # Not every release has all of them: the client was a part of docker.io once.
    wanted = [name for name in PACKAGES if archive.search(f"^{name.replace('.', '[.]')}$")]
    packages.unpack(archive.download(*wanted), folder)


def _attempt(make, *arguments):
    """Return what comes from Debian's archive; what goes wrong there is no failure of the test."""
    try:
        return make(*arguments)
    except (SystemExit, OSError, subprocess.CalledProcessError) as error:
        raise MissingError(f"docker is not installed, and cannot be had: {error}") from error


def _image() -> bytes:
    """Return the tarball of an image: a static busybox, and links to where /usr will be mounted."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        archive.add(_attempt(packages.busybox, MACHINE), SHELL)
        for name in MERGED:
            if Path("/", name).is_symlink():
                archive.add(Path("/", name), name)
    return content.getvalue()


class Docker:
    """A daemon that runs, as a context manager; `run` starts containers in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._cgroup = f"otel-sysexit-{secrets.token_hex(4)}"
        self._environment = {**_programs(), "DOCKER_CONFIG": str(folder)}
        self._log = folder / "log"

    def __enter__(self) -> Self:
        folder = self._folder
        command = [
            *(
                "unshare",
                "--mount",
                "--",
                "dockerd",
                "--iptables=false",
                "--ip6tables=false",
                "--bridge=none",
            ),
            *(f"--data-root={folder}/data", f"--exec-root={folder}/exec", f"--pidfile={folder}/pid"),
            *("-H", f"unix://{folder}/socket", "--log-level=warn", "--raw-logs"),
            *("--exec-opt=native.cgroupdriver=cgroupfs", f"--cgroup-parent=/{self._cgroup}"),
        ]
        try:
            self._start(command)
            self.call("import", "-", IMAGE, input=_image())
        except BaseException:
            self.__exit__()
            raise
        return self

    def _start(self, command: list[str]) -> None:
        """Start the daemon; where its favourite storage fails, with the one that needs nothing of the kernel."""
        for storage in ([], ["--storage-driver=vfs"]):
            with self._log.open("wb") as log:
                self._daemon = subprocess.Popen(
                    [*command, *storage],
                    env=self._environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                )
            if self._is_up():
                return
            self._end_daemon()
        raise MissingError(self._last_words())

    def _is_up(self) -> bool:
        deadline = time.monotonic() + DEADLINE_S
        while self._daemon.poll() is None and time.monotonic() < deadline:
            if self._docker("info").returncode == 0:
                return True
            time.sleep(0.1)
        return False

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").splitlines()
        return f"docker cannot run here: {lines[-1] if lines else 'it does not say why'}"

    def _docker(self, *arguments: str | Path, **more) -> subprocess.CompletedProcess:
        command = ["docker", "-H", f"unix://{self._folder}/socket", *arguments]
        path = shutil.which("docker", path=self._environment["PATH"])
        settings = {"capture_output": True, "timeout": DEADLINE_S, "env": self._environment, **more}
        return subprocess.run(command, check=False, executable=path, **settings)

    def call(self, *arguments: str | Path, **more) -> str:
        """Run a command of the client's that must succeed; return what it prints."""
        done = self._docker(*arguments, **more)
        assert done.returncode == 0, f"docker {' '.join(map(str, arguments))}: {done.stderr.decode()}"
        return done.stdout.decode()

    def run(self, *command: str | Path, options: tuple[str, ...] = ()) -> str:
        """Start a container without a network; return its id."""
        return self.call("run", "--detach", "--network=none", *options, IMAGE, *command).strip()

    def __exit__(self, *_: object) -> None:
        if self._daemon.poll() is None:
            containers = self._docker("ps", "-aq").stdout.decode().split()
            if containers:
                self._docker("rm", "-f", *containers)
        self._end_daemon()
        for hierarchy in _hierarchies():
            for folder, _, _ in os.walk(hierarchy / self._cgroup, topdown=False):
                Path(folder).rmdir()

    def _end_daemon(self) -> None:
        """End the daemon, and what it has left behind if it did not end in peace."""
        self._daemon.terminate()
        try:
            self._daemon.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            self._daemon.wait()
        deadline = time.monotonic() + DEADLINE_S
        while left := list(self._left_behind()):
            assert time.monotonic() < deadline, f"docker has left processes behind: {left}"
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _left_behind(self) -> Iterator[int]:
        """Yield the processes that are ours by their command lines (containerd, a shim for each container) or cgroups."""
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_ours = (
                    f"{self._folder}/exec/" in (process / "cmdline").read_text(errors="replace")
                    or f"/{self._cgroup}/" in (process / "cgroup").read_text()
                )
            except OSError:  # it has ended
                continue
            if is_ours:
                yield int(process.name)


def _hierarchies() -> list[Path]:
    """Return where cgroups are mounted."""
    fields = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    return [Path(mountpoint) for _, mountpoint, kind, *_ in fields if kind in {"cgroup", "cgroup2"}]
