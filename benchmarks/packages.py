"""
Servers and what puts load on them: those that are installed, else taken out of Debian's packages without installing these.

An installed package of a server would start it, for everybody and after each boot. So packages are only unpacked into a folder.
"""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

_UNPACKED: Final = Path("/var/cache/otel-sysexit-benchmarks")
"""Everybody may read it: the servers run as nobody."""
_PATHS: Final = ("usr/bin", "usr/sbin")
_PACKAGES: Final = {
    "redis-server": "redis-server",
    "redis-benchmark": "redis-tools",
    "nginx": "nginx",
    "wrk": "wrk",
    "initdb": "postgresql",
    "postgres": "postgresql",
    "pg_isready": "postgresql",
    "pgbench": "postgresql",
    "tar": "tar",
}


def environment() -> Mapping[str, str]:
    """Return the environment for these programs: where their libraries lie."""
    libraries = _UNPACKED / "usr/lib" / f"{platform.machine()}-linux-gnu"
    return {"PATH": os.environ["PATH"], "LC_ALL": "C", "LD_LIBRARY_PATH": str(libraries)}


def find(program: str) -> str | None:
    """Return where *program* lies; None: nowhere."""
    folders = [*(_UNPACKED / path for path in _PATHS)]
    for root in (Path("/"), _UNPACKED):  # Debian keeps most of PostgreSQL's programs, by version, out of PATH
        folders = [*sorted(root.glob("usr/lib/postgresql/*/bin"), reverse=True), *folders]
    paths = [*map(str, folders), "/usr/sbin", os.environ["PATH"]]
    return shutil.which(program, path=os.pathsep.join(paths))


def provide(programs: Sequence[str]) -> str:
    """Try to make *programs* available; return what is missing still, for people."""
    missing = [program for program in programs if not find(program)]
    if missing and shutil.which("apt-get"):
        packages = sorted({_PACKAGES[program] for program in missing})
        print(f"unpacking {' '.join(packages)}", flush=True)
        _unpack(packages)
        missing = [program for program in missing if not find(program)]
    return f"not found: {', '.join(missing)}" if missing else ""


def _unpack(packages: Sequence[str]) -> None:
    """Unpack *packages* and what they need that is not installed; what cannot be had stays missing."""
    simulated = ["apt-get", "install", "--simulate", "--no-install-recommends", *packages]
    plan = subprocess.run(simulated, check=False, capture_output=True, text=True)
    names = [line.split()[1] for line in plan.stdout.splitlines() if line.startswith("Inst ")]
    archives = _UNPACKED / "archives"
    archives.mkdir(parents=True, exist_ok=True)
    subprocess.run(["apt-get", "download", "-qq", *names], check=False, capture_output=True, cwd=archives)
    for archive in archives.glob("*.deb"):
        subprocess.run(["dpkg-deb", "--extract", archive, _UNPACKED], check=False)
        archive.unlink()
    _UNPACKED.chmod(0o755)
