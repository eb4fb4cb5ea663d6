"""
Measures what otel-sysexit costs, beside other tools and in one run; writes results/*.json and docs/overhead.md.

    make bench                                all groups, minutes
    make bench GROUPS=application,scale       these; docs/overhead.md keeps what it has of the others
    make bench GROUPS=scale QUICK=1           each thing briefly, nothing is written: to try the benchmarks themselves

Needs root, BPF and a C compiler, and no network where the tools and servers to compare with are there.
"""

import argparse
import importlib
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

# Before numpy is loaded, as the agent does it.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import report
from bench import Bench
from machine import ROOT, compile_program, describe, install_tools
from plots import PLOTS, draw

GROUPS: Final = ("kernel", "pipeline", "application", "scale", "agent", "profile")
"""Modules in groups/, each with `measure(bench) -> Results`; in the order in which their goals are shown."""
_DOCUMENT: Final = ROOT / "docs" / "overhead.md"


def _groups(text: str) -> list[str]:
    """Return the groups that are asked for; empty text: all."""
    names = text.split(",") if text else list(GROUPS)
    if unknown := set(names).difference(GROUPS):
        raise argparse.ArgumentTypeError(f"no group {', '.join(sorted(unknown))}: {', '.join(GROUPS)}")
    return names


def _commit() -> str:
    command = ["git", "-C", ROOT, "describe", "--always", "--dirty"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


def _measure(group: str, bench: Bench) -> None:
    """Measure one group, print what it found, and keep it."""
    print(f"\n# {group}\n", flush=True)
    began = time.monotonic()
    results = importlib.import_module(f"groups.{group}").measure(bench)
    before = report.read(group)
    tables = [*results.tables.values()]
    if results.goals:
        tables.append(report.goals_table(results.goals, before.results.goals if before else ()))
    for text in (*results.facts.values(), *(table.markdown() for table in tables)):
        print(f"{text}\n")
    print(f"{group} took {time.monotonic() - began:.0f} s", flush=True)
    if not bench.is_quick:
        report.Run(describe(), f"{datetime.now(UTC):%Y-%m-%d}", _commit(), results).write(group)


def _is_measured(group: str, bench: Bench) -> bool:
    """Measure one group; say what went wrong, and whether nothing did: the others shall be measured all the same."""
    try:
        _measure(group, bench)
    except Exception:  # noqa: BLE001 (whatever it is, minutes of other measurements are not to be lost)
        traceback.print_exc()
        return False
    if not bench.is_quick:
        _write_document()  # after each: a run that is cut short leaves what it has
    return True


def _write_document() -> None:
    runs = {group: run for group in GROUPS if (run := report.read(group))}
    for run in runs.values():
        for name, table in run.results.tables.items():
            if name in PLOTS:
                draw(name, table, _DOCUMENT.parent)
    _DOCUMENT.write_text(report.overview(runs), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is asked for, print it and write it."""
    parser = argparse.ArgumentParser(description="Measure what otel-sysexit costs.")
    parser.add_argument("--groups", type=_groups, default="", help=f"of {','.join(GROUPS)}; default: all")
    parser.add_argument("--quick", action="store_true", help="each thing briefly; nothing is written")
    options = parser.parse_args(arguments)
    if os.geteuid() != 0:
        sys.exit("make bench needs root: the programs in the kernel do")
    install_tools()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        programs = [compile_program(program, folder) for program in ("getppid", "storm")]
        bench = Bench(folder, *programs, is_quick=options.quick)
        failed = [group for group in options.groups if not _is_measured(group, bench)]
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
