"""
The loader's side of the compiler: start the child, say what to compile, take the object.

In: macros. Out: an `Object` and the files of the compiler that made it. It knows no bcc: that lives in the child.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from otel_sysexit.kernel.macros import PERF_EVENTS
from otel_sysexit.kernel.objects import Object
from otel_sysexit.kernel.probes import LoadError
from otel_sysexit.kernel.tracepoints import EVENTS

_SYSTEM_PYTHON: Final = "/usr/bin/python3"
"""May have the distribution's bcc, after our own."""


@dataclass(frozen=True, slots=True)
class Compilation:
    """What came out."""

    compiled: Object
    compiler_files: Sequence[str]


def interpreters(chosen: str | None) -> list[str]:
    """Return the Pythons to ask for bcc, in this order; *chosen* is the only one."""
    return [chosen] if chosen else [sys.executable, _SYSTEM_PYTHON]


def ways_of_calling(macros: Collection[str], tracepoints: Sequence[str]) -> dict[str, bool]:
    """Return whether perf calls the programs of *tracepoints*, as *macros* have it."""
    return {name: PERF_EVENTS in macros and name in EVENTS for name in tracepoints}


def compile_programs(
    pythons: Sequence[str], bpf_dir: str, find_macros: Callable[[], list[str]], tracepoints: Sequence[str]
) -> Compilation:
    """
    Compile.

    Args:
        pythons: Interpreters; one without bcc gives way to the next.
        bpf_dir: The folder of the sources.
        find_macros: Called while the first child loads its libraries.
        tracepoints: Whose programs to compile.

    Raises:
        LoadError: it was in vain, with the reason.
    """
    macros: list[str] | None = None
    for index, python in enumerate(pythons):
        with _start(python) as child:
            try:
                macros = find_macros() if macros is None else macros
                programs = ways_of_calling(macros, tracepoints)
                request = json.dumps({"bpf_dir": bpf_dir, "macros": macros, "programs": programs})
                output, complaints = child.communicate(request.encode())
            except BaseException:
                child.kill()
                raise
        answer: dict[str, Any] | None = json.loads(output) if output else None
        if answer is not None and answer["error"] is None:
            return Compilation(Object.from_json(answer["object"]), answer["files"])
        lacks_bcc = answer is not None and answer["error"] in ("no-bcc", "wrong-bcc")
        if not (lacks_bcc and any(Path(another).exists() for another in pythons[index + 1 :])):
            break
    raise _explain(python, answer, complaints.decode(errors="replace"), child.returncode)


def _start(python: str) -> "subprocess.Popen[bytes]":
    # Appended: a distribution's bcc is found before anything beside our package. Isolated: nothing that the
    # user's environment says about Python reaches a program that runs as root.
    code = (
        f"import sys; sys.path.append({str(Path(__file__).parents[2])!r});"
        "from otel_sysexit.kernel.compiler import main; main()"
    )
    pipe = subprocess.PIPE
    try:
        return subprocess.Popen([python, "-I", "-c", code], stdin=pipe, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise LoadError(
            "no-bcc", f"cannot start {python}, which should have bcc: {error.strerror}"
        ) from error


def _explain(python: str, answer: dict[str, Any] | None, complaints: str, status: int) -> LoadError:
    """Return one line: the child's own words, and the compiler's first complaint when there is one."""
    if answer is not None and answer["error"] != "load":
        return LoadError(answer["error"], answer["message"])
    died = f"the compiler died under {python}, which should be a Python that has bcc"
    message = died if answer is None else str(answer["message"])
    lines = [line.strip() for line in complaints.splitlines() if "error" in line.lower()]
    return LoadError("load", f"{message} ({lines[0] if lines else f'exit status {status}'})")
