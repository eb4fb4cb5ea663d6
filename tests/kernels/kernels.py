"""
Runs the live tests on other kernels, each booted in QEMU, and prints one table.

    kernels.py                 all kernels
    kernels.py 5.10 arm64      these
    kernels.py --ci            the oldest, the newest and aarch64
    kernels.py 6.1 -- tests/live/test_exec.py -k thread    what comes after -- is pytest's, instead of the tests marked `each_kernel`

The exit status is 1 if a test failed or a kernel gave no result. What the guests printed is in the cache's `logs/`.
"""

import argparse
import os
import shlex
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import machine
import packages

CLONE = packages.CLONE
PROGRAMS = CLONE / "tests" / "live" / "programs"
# Where a guest finds the test programs that were compiled outside.
BUILT = Path("/srv/programs")
DEADLINE_S = 3600
# Emulation is slow: the tests' deadlines, and the programs' own, are this many times longer.
PATIENCE = 10


@dataclass(frozen=True)
class Kernel:
    """A kernel to test on."""

    architecture: str
    release: packages.Release
    in_ci: bool = False


KERNELS = {
    "5.10": Kernel("x86_64", packages.Release("5.10", "bullseye"), in_ci=True),
    "6.1": Kernel("x86_64", packages.Release("6.1", "bookworm-security")),
    "6.12": Kernel("x86_64", packages.Release("6.12", "bookworm-security")),
    "6.18": Kernel("x86_64", packages.Release("6.18", "trixie-backports")),
    "7": Kernel("x86_64", packages.Release("7", "trixie-backports"), in_ci=True),
    "arm64": Kernel("aarch64", packages.Release("6.1", "bookworm-security"), in_ci=True),
}


@dataclass
class Result:
    """What the tests did on one kernel."""

    name: str
    release: str = "-"
    """As `uname -r` says it."""
    seconds: float = 0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """How many tests of each group "passed", "failed", or were "skipped"."""
    skips: Counter[str] = field(default_factory=Counter)
    """How many tests were skipped for each reason."""
    failures: list[str] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        """Whether a test failed or none ran."""
        return bool(self.failures) or not self.counts


def compile_programs(architecture: str, folder: Path) -> None:
    """
    Compile the live tests' programs for the guests.

    One that does not compile for another architecture than x86_64 leaves the compiler's words instead, in NAME.why-not.
    """
    flags = ["-O1", "-Wall", "-Werror", "-pthread", f"-DWATCHDOG_S={30 * PATIENCE}"]
    if architecture == "x86_64":
        compilers = {"": ["cc", *flags], "32": ["cc", *flags, "-m32", "-static"]}
        environment = None
    else:
        cross = packages.cross_compiler()
        (gcc,) = cross.glob("usr/bin/aarch64-linux-gnu-gcc-[0-9]*")
        compilers = {"": [gcc, f"--sysroot={cross}", *flags, "-static"]}
        environment = {**os.environ, "LD_LIBRARY_PATH": f"{cross}/usr/lib/x86_64-linux-gnu"}
        assembler = f"{cross}/usr/bin/arm-linux-gnueabihf-"
        packages.run(f"{assembler}as", "-o", folder / "arm.o", PROGRAMS / "arm.s", env=environment)
        packages.run(f"{assembler}ld", "-o", folder / "arm", folder / "arm.o", env=environment)
    for source in sorted(PROGRAMS.glob("*.c")):
        for suffix, compiler in compilers.items():
            binary = folder / f"{source.stem}{suffix}"
            command = [*compiler, "-o", binary, source]
            done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
            if done.returncode:
                errors = [
                    line.partition("error: ")[2] for line in done.stderr.splitlines() if "error: " in line
                ]
                binary.with_name(f"{binary.name}.why-not").write_text(errors[0] if errors else done.stderr)


def script(kernel: Kernel, words: list[str]) -> str:
    """Return what the guest runs: pytest over the live tests."""
    python = CLONE / ".venv/bin/python" if kernel.architecture == "x86_64" else "/usr/bin/python3"
    settings = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "OTEL_SYSEXIT_GUEST": "1",
        "OTEL_SYSEXIT_LIVE_TESTS": "1",
        "OTEL_SYSEXIT_TEST_PROGRAMS": BUILT,
        "OTEL_SYSEXIT_TEST_PATIENCE": PATIENCE,
    }
    exports = "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in settings.items())
    random = "-p no:randomly" if kernel.architecture == "x86_64" else ""
    return (
        f"{exports}cd {shlex.quote(str(CLONE))} || exit 125\n"
        f"uname -r\n"
        f"{python} -m pytest -p no:cacheprovider {random} --junitxml=/run/report"
        f" {shlex.join(words or marked_tests())}\n"
    )


def marked_tests() -> list[str]:
    """Return the words by which pytest finds the tests that are to run on each kernel, and reads no other files."""
    files = [
        path for path in sorted((CLONE / "tests/live").glob("test_*.py")) if "each_kernel" in path.read_text()
    ]
    return ["-m", "each_kernel", *(str(path.relative_to(CLONE)) for path in files)]


def guest(kernel: Kernel, built: Path) -> machine.Guest:
    """Return what a machine with this kernel consists of; *built* has the test programs."""
    shares = [(built, BUILT), (CLONE, CLONE)]
    root = Path("/")
    if kernel.architecture != "x86_64":
        root = packages.root(kernel.architecture)
        (python,) = root.glob("usr/lib/python3.[0-9]*")
        shares.append(
            (packages.wheels(kernel.architecture), Path("/usr/local/lib", python.name, "dist-packages"))
        )
    return machine.Guest(
        architecture=kernel.architecture,
        kernel=packages.kernel(kernel.release, kernel.architecture),
        root=root,
        busybox=packages.busybox(kernel.architecture),
        shares=tuple(shares),
    )


def run_on(name: str, guest: machine.Guest, words: list[str]) -> Result:
    """Boot a kernel and run the tests on it."""
    logs = packages.CACHE / "logs"
    logs.mkdir(exist_ok=True)
    result = Result(name)
    try:
        outcome = machine.run(guest, script(KERNELS[name], words), DEADLINE_S)
    except machine.BootError as error:
        (logs / name).write_text(str(error))
        result.failures.append(f"no result:\n{error}")
        return result
    (logs / name).write_text(outcome.output)
    result.release = outcome.output.partition("\n")[0]
    result.seconds = outcome.seconds
    if outcome.report:
        read_report(outcome.report, result)
    if outcome.status and not result.failures:
        result.failures.append(f"pytest's status is {outcome.status}:\n{outcome.output[-3000:]}")
    print(f"kernels: {name}: done in {outcome.seconds:.0f} s", flush=True)
    return result


def read_report(report: bytes, result: Result) -> None:
    """Count the tests of a JUnit report, which is our own guest's."""
    for case in ET.fromstring(report).iter("testcase"):
        group = case.get("classname", "").rpartition("test_")[2]
        broken = [*case.iter("failure"), *case.iter("error")]
        skipped = case.find("skipped")
        if broken:
            result.counts[group]["failed"] += 1
            result.failures.append(
                f"{group}: {case.get('name')}\n{broken[0].text or broken[0].get('message')}"
            )
        elif skipped is not None:
            result.counts[group]["skipped"] += 1
            result.skips[skipped.get("message", "")] += 1
        else:
            result.counts[group]["passed"] += 1


def table(results: list[Result]) -> str:
    """Return the summary: a line a kernel, a column a group of tests."""
    groups = sorted({group for result in results for group in result.counts})
    lines = [["kernel", "release", *groups, "all", "s"]]
    for result in results:
        total = sum(result.counts.values(), Counter[str]())
        cells = [_cell(result.counts[group]) if group in result.counts else "-" for group in groups]
        lines.append([result.name, result.release, *cells, _cell(total), f"{result.seconds:.0f}"])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)) for line in lines
    )


def _cell(counts: Counter[str]) -> str:
    return "/".join(str(counts[outcome]) for outcome in ("passed", "failed", "skipped"))


def report(results: list[Result]) -> None:
    """Print what failed, why tests were skipped, and the table."""
    for result in results:
        for failure in result.failures:
            print(f"\n== {result.name}: {failure}")
    for result in results:
        for reason, count in sorted(result.skips.items()):
            print(f"{result.name}: {count} skipped: {reason}")
    print(f"\n{table(results)}\n\npassed/failed/skipped; outputs in {packages.CACHE / 'logs'}")


def parse() -> tuple[list[str], list[str]]:
    """Return the kernels chosen and the words for pytest."""
    own, _, words = " ".join(map(shlex.quote, sys.argv[1:])).partition(" -- ")
    parser = argparse.ArgumentParser(description=__doc__.strip().partition("\n")[0])
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=", ".join(KERNELS))
    parser.add_argument("--ci", action="store_true", help="the oldest, the newest and aarch64")
    options = parser.parse_args(shlex.split(own))
    unknown = set(options.kernels) - KERNELS.keys()
    if unknown:
        parser.error(f"no such kernel: {', '.join(sorted(unknown))} (there are {', '.join(KERNELS)})")
    chosen = [name for name, kernel in KERNELS.items() if kernel.in_ci] if options.ci else options.kernels
    return chosen or list(KERNELS), shlex.split(words)


def main() -> int:
    """Run the chosen kernels, as many at once as there are processors."""
    chosen, words = parse()
    if os.geteuid() != 0:
        sys.exit("kernels: this needs root (it shares the root folder with the guests)")
    architectures = {KERNELS[name].architecture for name in chosen}
    packages.install_tools(architectures)
    with tempfile.TemporaryDirectory(prefix="otel-sysexit-programs-") as folder:
        for architecture in architectures:
            Path(folder, architecture).mkdir()
            compile_programs(architecture, Path(folder, architecture))
        guests = {name: guest(KERNELS[name], Path(folder, KERNELS[name].architecture)) for name in chosen}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(run_on, name, guests[name], words) for name in chosen]
            results = [job.result() for job in jobs]
    report(results)
    return int(any(result.has_failed for result in results))


if __name__ == "__main__":
    sys.exit(main())
