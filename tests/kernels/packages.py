"""
What the machines are made of, from Debian's packages, in a cache outside the clone.

Kernels of several releases, root folder and cross compiler for aarch64, a static busybox for each architecture.
Each is unpacked (no package's script runs, so nothing is installed) into a folder that appears when it is complete,
and is found there the next time without asking the network. The archive's signatures are checked by apt as usual, with a
configuration of its own: the system's stays as it is. The mirrors are those of the system's apt sources.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-sysexit" / "kernels"
CLONE = Path(__file__).resolve().parents[2]
# Names of one architecture: Debian's, uname's.
DEBIAN_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
KEYS = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
# Programs of the host's: the emulators, and the server of shared folders that comes with them.
TOOLS = {"x86_64": "qemu-system-x86", "aarch64": "qemu-system-arm"}
# Of a kernel only what a guest loads; what is not there is built in.
KERNEL_FILES = ("*/vmlinuz*", "*/virtio*.ko*", "*/fuse/*.ko*", "*/overlay.ko*", "*/crc32c*.ko*")
ROOT_PACKAGES = ("python3-bpfcc", "bash", "coreutils", "procps", "util-linux", "mount", "grep", "sed", "mawk")
TEST_PACKAGES = ("iniconfig", "packaging", "pluggy", "pytest")


@dataclass(frozen=True)
class Release:
    """Where a kernel comes from: the newest cloud kernel of this version in a suite."""

    version: str
    """Such as "6.1"; only its first number where any second one will do ("7")."""
    suite: str


def run(*command: str | Path, **settings) -> str:
    """Run a program that must succeed; return its output."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **settings).stdout


def made(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of this name in the cache; *make* fills an empty one if it is not there."""
    folder = CACHE / name
    if not folder.exists():
        print(f"kernels: making {name}", flush=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE, prefix=".new-") as new:
            Path(new, "done").mkdir()
            make(Path(new, "done"))
            Path(new, "done").rename(folder)
    return folder


def install_tools(architectures: set[str]) -> None:
    """Install the emulators that are missing."""
    missing = [TOOLS[name] for name in sorted(architectures) if not shutil.which(f"qemu-system-{name}")]
    if missing:
        print(f"kernels: installing {' '.join(missing)}", flush=True)
        run("apt-get", "update", "-qq")
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
        run(*command, env={**os.environ, "DEBIAN_FRONTEND": "noninteractive"})


@cache
def mirrors() -> dict[str, str]:
    """Return the addresses of Debian's archives that the system's apt sources name, by suite."""
    lines = run("apt-get", "indextargets", "--format", "$(REPO_URI) $(CODENAME)", "Created-By: Packages")
    found = {suite: address for address, suite in (line.split() for line in lines.splitlines())}
    release = re.search(r"^VERSION_CODENAME=(\w+)", Path("/etc/os-release").read_text(), re.MULTILINE)
    if not release or not {release[1], f"{release[1]}-security"} <= found.keys():
        raise SystemExit(
            "kernels: this needs Debian: no archive of it and its security updates in apt's sources"
        )
    return {"": release[1], "main": found[release[1]], "security": found[f"{release[1]}-security"]}


class Archive:
    """apt with a configuration of its own, for some suites and one architecture."""

    def __init__(self, architecture: str, *suites: str) -> None:
        self.debian_name = DEBIAN_NAMES[architecture]
        self._folder = folder = Path(tempfile.mkdtemp(prefix="otel-sysexit-apt-"))
        weakref.finalize(self, shutil.rmtree, folder)
        for name in ("lists/partial", "archives/partial", "none"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "sources.list").write_text(
            "".join(
                f"deb [signed-by={KEYS}] {mirrors()['security' if suite.endswith('-security') else 'main']} {suite} main\n"
                for suite in suites
            )
        )
        settings = {
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": folder / "none",
            "Dir::Etc::preferencesparts": folder / "none",
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder,
            "APT::Architecture": self.debian_name,
            "APT::Architectures": self.debian_name,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
            "Acquire::Retries": "3",
        }
        self._options = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        run("apt-get", *self._options, "-qq", "update")

    def search(self, pattern: str) -> list[str]:
        """Return the names of the packages that match a pattern."""
        lines = run("apt-cache", *self._options, "--names-only", "search", pattern).splitlines()
        return [line.partition(" ")[0] for line in lines]

    def dependencies(self, *packages: str) -> list[str]:
        """Return the names of these packages and of all that they depend on, directly or not."""
        kinds = ("recommends", "suggests", "conflicts", "breaks", "replaces", "enhances")
        command = ["depends", "--recurse", *(f"--no-{kind}" for kind in kinds), *packages]
        lines = run("apt-cache", *self._options, *command).splitlines()
        return sorted({line for line in lines if not line.startswith((" ", "<"))})

    def download(self, *packages: str) -> list[Path]:
        """Download these packages; return their files."""
        folder = Path(tempfile.mkdtemp(dir=self._folder))
        run("apt-get", *self._options, "-qq", "download", *packages, cwd=folder)
        return sorted(folder.glob("*.deb"))

    def download_with_dependencies(self, *packages: str) -> list[Path]:
        """Download these packages and all that they depend on; return their files."""
        run("apt-get", *self._options, "-qq", "-y", "--download-only", "install", *packages)
        return sorted((self._folder / "archives").glob("*.deb"))


def unpack(packages: list[Path], folder: Path, *patterns: str) -> None:
    """Unpack packages into a folder, all files or those that match."""
    for package in packages:
        content = subprocess.Popen(["dpkg-deb", "--fsys-tarfile", package], stdout=subprocess.PIPE)
        chosen = ["--wildcards", *patterns] if patterns else ["--keep-directory-symlink"]
        # tar fails when one of the patterns matches nothing, as is the rule here.
        subprocess.run(
            ["tar", "-x", "-C", folder, *chosen],
            check=not patterns,
            stdin=content.stdout,
            stderr=subprocess.DEVNULL if patterns else None,
        )
        content.stdout.close()
        if content.wait() not in (0, -13):
            raise SystemExit(f"kernels: {package.name} cannot be unpacked")


def kernel(release: Release, architecture: str) -> Path:
    """Return a folder with a kernel and its modules."""

    def make(folder: Path) -> None:
        archive = Archive(architecture, release.suite)
        version = re.escape(release.version)
        found = archive.search(rf"^linux-(image|binary)-{version}\.[0-9].*-cloud-{archive.debian_name}$")
        if not found:
            raise SystemExit(f"kernels: {release.suite} has no Linux {release.version} for {architecture}")
        versions = {re.sub("^linux-(image|binary)-", "", name) for name in found}
        newest = max(versions, key=lambda name: [int(number) for number in re.findall(r"\d+", name)])
        if (
            f"linux-binary-{newest}" in found
        ):  # since 7: linux-image is an empty package that depends on these
            packages = [f"linux-{part}-{newest}" for part in ("binary", "modules", "base")]
        else:
            packages = [f"linux-image-{newest}"]
        unpack(archive.download(*packages), folder, *KERNEL_FILES)
        if not list(folder.rglob("vmlinuz*")):
            raise SystemExit(f"kernels: no kernel in {', '.join(packages)}")

    return made(f"linux-{release.version}-{architecture}", make)


def busybox(architecture: str) -> Path:
    """Return a static busybox."""

    def make(folder: Path) -> None:
        archive = Archive(architecture, mirrors()[""])
        unpack(archive.download("busybox-static"), folder, "*/bin/busybox")

    (found,) = made(f"busybox-{architecture}", make).rglob("busybox")
    return found


def root(architecture: str) -> Path:
    """Return a root folder of the system's own release, with the Python that has bcc; all of it Debian's."""

    def make(folder: Path) -> None:
        release = mirrors()[""]
        archive = Archive(architecture, release, f"{release}-security")
        for name in ("bin", "sbin", "lib"):
            (folder / "usr" / name).mkdir(parents=True)
            (folder / name).symlink_to(f"usr/{name}")
        unpack(archive.download_with_dependencies(*ROOT_PACKAGES), folder)
        if not (folder / "usr/bin/sh").exists():  # made by a script of dash
            (folder / "usr/bin/sh").symlink_to("bash")
        (folder / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
        (folder / "etc/group").write_text("root:x:0:\n")

    return made(f"root-{architecture}", make)


def wheels(architecture: str) -> Path:
    """Return a folder with the Python packages that the agent and pytest need, as requirements/ locks them."""
    locked = re.findall(
        r"^\S.*?(?=^\S|\Z)", (CLONE / "requirements/dev.txt").read_text(), re.MULTILINE | re.DOTALL
    )
    chosen = (CLONE / "requirements/run.txt").read_text() + "".join(
        entry for entry in locked if entry.partition("==")[0] in TEST_PACKAGES
    )

    def make(folder: Path) -> None:
        platforms = [f"manylinux_2_{minor}_{architecture}" for minor in range(28, 16, -1)]
        with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
            requirements.write(chosen)
            requirements.flush()
            run(
                *(
                    sys.executable,
                    "-m",
                    "pip",
                    "install",
                    "--quiet",
                    "--disable-pip-version-check",
                    "--no-compile",
                ),
                *("--target", folder, "--only-binary=:all:", "--require-hashes", "-r", requirements.name),
                *("--python-version", f"{sys.version_info.major}.{sys.version_info.minor}"),
                *(word for name in platforms for word in ("--platform", name)),
            )

    return made(f"wheels-{architecture}-{hashlib.sha256(chosen.encode()).hexdigest()[:16]}", make)


def cross_compiler() -> Path:
    """Return a folder with a C compiler for aarch64 and an assembler for 32-bit arm, as Debian has them."""

    def make(folder: Path) -> None:
        archive = Archive("x86_64", mirrors()[""])
        # Not by apt-get install: they cannot be installed beside gcc-multilib. What else they need, cc needs too.
        wanted = ("gcc-aarch64-linux-gnu", "libc6-dev-arm64-cross", "binutils-arm-linux-gnueabihf")
        names = [
            name
            for name in archive.dependencies(*wanted)
            if re.search("aarch64-linux|arm64-cross|arm-linux", name)
        ]
        unpack(archive.download(*names), folder)

    return made("cross-aarch64", make)
