"""Calls below the application's own spans, as a map tells of them that another program has pinned."""

import subprocess
import sys
from pathlib import Path

import pytest

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
LRU_HASH, HASH = "9", "1"
SHAPE = (LRU_HASH, "8", "24")
IN_SPAN = {"in", "in, failing", "serving"}
ELSEWHERE = {"before", "without a span id", "without a trace id", "after", "waiting"}
# In a mount namespace of its own: whatever is in the real place is not touched. The program, its shape, then the command.
WITH_MAP = """
mount -t bpf bpf /sys/fs/bpf && mkdir /sys/fs/bpf/otel &&
"$1" pin /sys/fs/bpf/otel/traces_ctx_v1 $2 && shift 2 && exec "$@"
"""
DEFAULT_PATH = "/sys/fs/bpf/otel/traces_ctx_v1"


@pytest.fixture(scope="module")
def spans(build):
    """The program that knows which spans it is in."""
    return build("spans")


@pytest.fixture
def pin(spans, tmp_path):
    """Return a function that pins a map of a shape and gives its path."""
    folder = tmp_path / "bpf"
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)

    def make(*shape: str) -> Path:
        path = folder / "map"
        subprocess.run([spans, "pin", path, *shape], check=True)
        return path

    yield make
    subprocess.run(["umount", folder], check=True)


def assert_joined(trace, labels=IN_SPAN, others=ELSEWHERE):
    """Assert that calls made in the span are below it, and no others."""
    facts, joined = trace.facts_of("call"), {}
    for fact in facts:
        # In their order: emulated clocks do not tell apart what follows each other that closely.
        alike = [one for one in facts if all(one[key] == fact[key] for key in ("tid", "nr", "ret"))]
        made = trace.calls(tid=fact["tid"], number=fact["nr"])
        made = sorted((one for one in made if one.return_value == fact["ret"]), key=lambda one: one.start)
        joined[fact["call"]] = made[alike.index(fact) - len(alike)]

    assert set(joined) == labels | others
    for label, span in joined.items():
        assert ((span.trace_id, span.parent_id) == (TRACE_ID, SPAN_ID)) == (label in labels), (label, span)
        assert (span.trace_id == TRACE_ID) == (label in labels), (label, span)


@pytest.mark.parametrize("structure", [pytest.param("tree", marks=pytest.mark.each_kernel), "window", "flat"])
def test_calls_are_below_the_span_they_were_made_in(spans, pin, run_traced, structure):
    """In every structure: those made while the thread's entry is there, not those before and after, nor with half an entry."""
    path = pin(*SHAPE)
    options = ("--trace-context-map", str(path), "--trace-structure", structure)
    run = run_traced(spans, "use", path, options=options, is_one_trace=False, parent=SPAN_ID)

    assert_joined(run)
    # On Linux 7 it is said, too, that programs were skipped while this one wrote to the map.
    assert "map of trace contexts" not in run.stderr


def test_a_joined_call_claims_no_more_than_is_known(spans, pin, run_traced):
    """It is all of its kind, of a trace that is kept, whose id may be random or not, and of a parent in its own program."""
    path = pin(*SHAPE)
    run = run_traced(
        *(spans, "use", path),
        options=("--trace-context-map", str(path)),
        is_one_trace=False,
        parent=SPAN_ID,
    )
    joined = [span for span in run.calls() if span.trace_id == TRACE_ID]

    assert {(span.trace_state, span.flags) for span in joined} == {("ot=th:0", 0x101)}
    assert {span.resource["process.executable.name"] for span in joined} == {"spans"}


def test_a_window_counts_what_is_elsewhere(spans, pin, run_traced):
    """A window's root counts the calls below the application's spans, too: all that there are."""
    path = pin(*SHAPE)
    options = ("--trace-context-map", str(path), "--trace-structure", "window")
    run = run_traced(spans, "use", path, options=options, is_one_trace=False, parent=SPAN_ID)

    assert len(run.calls()) == run.ledger.emitted
    assert run.ledger.emitted == sum(
        span.attributes.get("otel_sysexit.window.calls", 0) for span in run.processes()
    )


def test_what_was_sampled_stays_with_its_process(spans, pin, run_traced):
    """The application's trace was not chosen at our threshold: only calls that are always kept are below its span."""
    path = pin(*SHAPE)
    options = ("--trace-context-map", str(path), "--sample", "0.999999", "--keep-errors")
    run = run_traced(spans, "use", path, options=options, is_one_trace=False, parent=SPAN_ID)

    assert_joined(run, {"in, failing"}, (IN_SPAN | ELSEWHERE) - {"in, failing"})


@pytest.fixture
def attach(start_agent, make_trace, eventually, tmp_path):
    """Return a function that attaches to a process until its end; it gives one that waits for that, and gives the `Trace`."""
    output, printed = tmp_path / "spans.jsonl", tmp_path / "stderr"

    def attach_to(pid: int, *options: str | Path):
        with printed.open("wb") as stderr:
            agent = start_agent("attach", "--pid", str(pid), "--live", "-o", output, *options, stderr=stderr)
        eventually(lambda: b"getppid(" in printed.read_bytes(), "the first call to be printed")

        def finish(stdout: bytes):
            status = agent.wait(timeout=60)
            return make_trace(status, stdout, printed.read_text(), output, parent=SPAN_ID)

        return finish

    return attach_to


@pytest.mark.each_kernel
def test_a_running_program_is_joined(spans, pin, start, attach):
    """`attach` knows the spans of threads that ran before it came, also while it keeps a rate."""
    path = pin(*SHAPE)
    program = start(spans, "use", path, "wait")
    ready = program.stdout.readline()
    # In an emulated guest the file's thread is still starting when the program ends.
    finish = attach(
        program.pid, "--trace-context-map", path, "--max-rate", "1000000", "--flush-timeout", "60s"
    )

    assert_joined(finish(ready + program.communicate(b"x", timeout=60)[0]))


def run_with_map(spans: Path, shape: tuple[str, ...], environment: dict[str, str], *command: str | Path):
    """Run a command where a map of this shape is in the usual place."""
    return subprocess.run(
        ["unshare", "--mount", "sh", "-c", WITH_MAP, "sh", spans, " ".join(shape), *command],
        check=False,
        capture_output=True,
        env=environment,
        timeout=120,
    )


def test_the_map_is_found_in_its_usual_place(spans, environment, make_trace, tmp_path):
    """Without an option."""
    output = tmp_path / "spans.jsonl"
    ours = (sys.executable, "-m", "otel_sysexit", "run", "-o", output, "--")
    run = run_with_map(spans, SHAPE, environment, *ours, spans, "use", DEFAULT_PATH)

    assert_joined(make_trace(run.returncode, run.stdout, run.stderr.decode(), output, parent=SPAN_ID))
    assert "warning" not in run.stderr.decode()


@pytest.mark.parametrize("shape", [(HASH, "8", "24"), (LRU_HASH, "4", "24"), (LRU_HASH, "8", "32")])
def test_a_map_of_another_shape_is_ignored(spans, environment, make_trace, tmp_path, shape):
    """In the usual place it is one warning, and everything is as without it."""
    output = tmp_path / "spans.jsonl"
    ours = (sys.executable, "-m", "otel_sysexit", "run", "-o", output, "--", "true")
    run = run_with_map(spans, shape, environment, *ours)
    trace = make_trace(run.returncode, run.stdout, run.stderr.decode(), output)

    assert (trace.status, trace.stderr.count("warning: ")) == (0, 1)
    assert f"{DEFAULT_PATH!r} is no map of trace contexts" in trace.stderr


def test_a_map_that_was_asked_for_must_fit(pin, invoke, tmp_path):
    """With its path given, one of another shape, and none at all, end with one line and status 2; the command does not run."""
    made = tmp_path / "made"
    for path, words in (
        (pin(HASH, "8", "24"), "no map of trace contexts"),
        (tmp_path / "none", "cannot open"),
    ):
        done = invoke("run", "--trace-context-map", path, "--", "touch", made)

        assert (done.returncode, done.stderr.decode().count("\n"), made.exists()) == (2, 1, False)
        assert words in done.stderr.decode()


def test_nothing_of_ours_is_pinned(spans, pin, run_traced):
    """The map stays as it is, the only one in its folder."""
    path = pin(*SHAPE)
    before = path.stat()
    run_traced(
        *(spans, "use", path),
        options=("--trace-context-map", str(path)),
        is_one_trace=False,
        parent=SPAN_ID,
    )

    assert {entry.name for entry in path.parent.iterdir() if not entry.name.endswith(".debug")} == {"map"}
    assert path.stat().st_ino == before.st_ino
