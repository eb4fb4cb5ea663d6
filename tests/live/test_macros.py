"""Every combination of macros that options can produce compiles, and the kernel's verifier takes it."""

import itertools
import json
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from otel_sysexit.kernel.loader import find_bpf_dir
from otel_sysexit.kernel.request import Request, Selection, Thresholds
from otel_sysexit.selections import kernel_table

# Compiles and loads what each line of standard input says, under the Python that has bcc; attaches nothing.
LOAD = """
import json, os, sys
sys.path.append(sys.argv[1])
from otel_sysexit.kernel import compiler, compiling, loader, macros, names, objects
loader.lift_memory_limit()
bcc = compiler.import_bcc()
offsets = macros.kernel_flags(["-DSELECT_CGROUP"])
for line in sys.stdin:
    asked = json.loads(line)
    by_controller = macros.kernel_flags(asked) if "-DCGROUP_SUBSYSTEM=memory" in asked else []
    all_macros = [*asked, *offsets, *by_controller]
    ways = compiling.ways_of_calling(all_macros, names.LINKS)
    try:
        compiled = compiler.compile_programs(bcc, sys.argv[2], all_macros, ways)
        stored = objects.Object.from_json(compiled.to_json())
        for fds in loader.put_into_kernel(stored, {}, {}):
            for fd in fds.values():
                os.close(fd)
    except Exception as error:
        print(json.dumps([asked, str(error)]))
print(json.dumps("done"))
"""
BPF_DIR = find_bpf_dir()
TABLE = kernel_table(None)
ERRNOS = np.ones(4096, np.uint8)
FOR_ALL = Thresholds(1_000)
BY_CALL = Thresholds(1_000, np.ones(len(TABLE), np.uint64))
KINDS = ("PID", "TID", "UID", "COMM", "CGROUP")


def requests(**choices: tuple) -> Iterator[Request]:
    """Yield a request for each combination of *choices*, values by field of Request."""
    for values in itertools.product(*choices.values()):
        yield Request(calls_bytes=1 << 20, syscall_table=TABLE, **dict(zip(choices, values, strict=True)))


def call_requests() -> Iterator[Request]:
    """Yield every combination of what is asked of calls."""
    outcomes = {
        "has_set": (False, True),
        "errors_only": (False, True),
        "wanted_errnos": (None, ERRNOS),
        "min_duration": (None, FOR_ALL, BY_CALL),
        "args": (0, 1, 2),
    }
    kept = {"kept_errnos": (None, ERRNOS), "keep_slow": (None, FOR_ALL, BY_CALL)}
    yield from requests(**outcomes)
    yield from requests(**outcomes, **kept, sample_threshold=(1 << 31,))
    yield from requests(**outcomes, **kept, has_max_rate=(True,))
    yield from requests(**outcomes, has_max_rate=(True,), reports_stuck=(True,))


def string_requests() -> Iterator[Request]:
    """Yield every combination of what is asked of strings."""
    yield from requests(
        args=(0, 1, 2), has_command_args=(False, True), string_limit=(128, 256, 504, 512, 4096)
    )
    yield from requests(has_set=(True,), wants_unknown=(False, True))
    yield from requests(cgroup_subsystem=("", "memory"))
    yield from requests(cpus=(8,), calls_rings_max=(2, 3, 8), args=(0, 2))


def span_requests() -> Iterator[Request]:
    """Yield the extremes of what is asked of calls, that say which span they were made in."""
    yield from requests(
        current_spans_fd=(0,),  # whose map it is does not matter: ours has the same shape
        has_set=(False, True),
        args=(0, 1, 2),
        sample_threshold=(0, 1 << 31),
        selection=(Selection(), Selection(["-DPERF_EVENTS", "-DSELECT_ALL"])),
    )


def properties(prefix: str, glob_macro: str) -> Iterator[list[str]]:
    """Yield the macros for every set of properties that threads are chosen or left out by."""
    macros = [*(f"-D{prefix}_{kind}" for kind in KINDS), f"-D{glob_macro}=2"]
    for length in range(len(macros) + 1):
        yield from map(list, itertools.combinations(macros, length))


def target_requests() -> Iterator[Request]:
    """Yield every set of properties to choose by, followed or not, and every set to leave out by beside the extremes of those."""
    chosen = list(properties("SELECT", "EXE_GLOBS"))
    sets = [["-DSELECT_ALL"], *chosen, *([*one, "-DNO_FOLLOW"] for one in chosen)]
    # Patterns alone: with nothing before them, nothing shortens the loops that compare them.
    extremes = ([], ["-DSELECT_ALL"], ["-DEXE_GLOBS=2"], [*chosen[-1], "-DNO_FOLLOW"])
    sets += [
        [*one, *excluded] for excluded in properties("EXCLUDE", "EXE_GLOBS_EXCLUDED") for one in extremes
    ]
    sets += [[*one, "-DCGROUP_SUBSYSTEM=memory"] for one in sets if "CGROUP" in str(one)][::8]
    for macros in sets:
        yield from requests(args=(0,), selection=(Selection(macros),))


def perf_requests() -> Iterator[Request]:
    """Yield the extremes of what is asked of calls and of execs, for programs that perf calls."""
    yield from requests(
        has_set=(False, True),
        args=(0, 1, 2),
        keep_slow=(None, BY_CALL),
        sample_threshold=(0, 1 << 31),
        selection=(Selection(["-DPERF_EVENTS"]), Selection(["-DPERF_EVENTS", "-DSELECT_ALL"])),
    )
    chosen = list(properties("SELECT", "EXE_GLOBS"))[-1]
    excluded = list(properties("EXCLUDE", "EXE_GLOBS_EXCLUDED"))[-1]
    yield from requests(
        has_command_args=(False, True),
        string_limit=(128, 4096),
        selection=tuple(
            Selection(["-DPERF_EVENTS", *macros])
            for macros in (chosen, [*chosen, "-DNO_FOLLOW"], [*chosen, *excluded])
        ),
    )


def largest_requests() -> Iterator[Request]:
    """Yield requests with everything in them, at which a verifier may give up that follows more ways than others do."""
    excluded = list(properties("EXCLUDE", "EXE_GLOBS_EXCLUDED"))[-1]
    yield from requests(
        cpus=(8,),
        calls_rings_max=(8,),
        has_set=(True,),
        has_command_args=(True,),
        string_limit=(4096,),
        cgroup_subsystem=("memory",),
        errors_only=(True,),
        wanted_errnos=(ERRNOS,),
        min_duration=(BY_CALL,),
        kept_errnos=(ERRNOS,),
        keep_slow=(BY_CALL,),
        has_max_rate=(True,),
        reports_stuck=(True,),
        current_spans_fd=(0,),
        selection=(
            Selection(["-DSELECT_ALL", *excluded]),
            Selection([*list(properties("SELECT", "EXE_GLOBS"))[-1], *excluded]),
            Selection(["-DEXE_GLOBS=2", "-DEXE_GLOBS_EXCLUDED=2"]),
        ),
    )


def refused(found: list[Request]) -> list[list]:
    """Return the macros that do not load, each with the reason; half of the requests on each of two CPUs."""
    command = [
        os.environ.get("BCC_PYTHON", "/usr/bin/python3"),
        "-I",
        "-c",
        LOAD,
        str(BPF_DIR.parent),
        str(BPF_DIR),
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    loaders = [subprocess.Popen(command, **pipes) for _ in range(2)]

    def feed(loader: subprocess.Popen, part: list[Request]) -> bytes:
        return loader.communicate(b"".join(json.dumps(one.cflags()).encode() + b"\n" for one in part))[0]

    with ThreadPoolExecutor() as pool:
        printed = pool.map(feed, loaders, (found[::2], found[1::2]))
        answers = [json.loads(line) for text in printed for line in text.splitlines()]
    assert [loader.returncode for loader in loaders] == [0, 0]
    assert answers.count("done") == 2
    return [answer for answer in answers if answer != "done"]


@pytest.mark.parametrize(
    "make",
    [
        *(call_requests, string_requests, span_requests, target_requests, perf_requests),
        pytest.param(largest_requests, marks=pytest.mark.each_kernel),
    ],
)
def test_every_combination_loads(make):
    """Whatever is asked for together, the programs load."""
    assert refused(list(make())) == []
