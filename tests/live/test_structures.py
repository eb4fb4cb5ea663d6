"""How calls become traces: trees in parts, windows that link to others, calls alone."""

from collections import Counter

PARENT = "b7ad6b7169203331"
TRACEPARENT = f"00-0af7651916cd43dd8448eb211c80319c-{PARENT}-01"
SHELL = ("sh", "-c", "/bin/true; ls / > /dev/null; exit 3")


def test_a_large_tree_goes_on_in_parts(run_traced):
    """With at most 100 spans a trace, each part has one root, linked to the part before, and every span's parent."""
    run = run_traced(*SHELL, options=("--max-spans-per-trace", "100"), is_one_trace=False)
    roots = [span for span in run.spans if not span.parent_id]
    roots.sort(key=lambda root: root.attributes["otel_sysexit.trace.part"])
    ids = {(span.trace_id, span.span_id) for span in run.spans}

    assert len(roots) >= 3
    assert max(Counter(span.trace_id for span in run.spans).values()) <= 100
    assert [root.attributes["otel_sysexit.trace.part"] for root in roots] == [*range(1, len(roots) + 1)]
    assert [[(link.trace_id, link.span_id) for link in root.links] for root in roots] == [
        [(before.trace_id, before.span_id)] if before else [] for before in [None, *roots[:-1]]
    ]
    assert all((span.trace_id, span.parent_id) in ids for span in run.spans if span.parent_id)
    assert roots[-1].attributes["process.exit.code"] == run.status == 3


def test_parts_lose_no_call(run_traced):
    """The parts together have every call that the kernel side emitted."""
    run = run_traced(*SHELL, options=("--max-spans-per-trace", "100"), is_one_trace=False)

    assert len(run.calls()) == run.ledger.emitted > 200


def test_windows_end_with_their_programs_and_link_to_others(run_traced):
    """In windows each program has a root with its name; a child's links to its parent's, a later one to the one before."""
    run = run_traced(*SHELL, options=("--trace-structure", "window"), is_one_trace=False)
    roots = [span for span in run.spans if not span.parent_id]
    names = {span.trace_id: span.resource["process.executable.name"] for span in roots}
    links = {
        root.name: {(link.attributes["otel_sysexit.link.type"], names[link.trace_id]) for link in root.links}
        for root in roots
        if root.name in ("true", "ls")
    }
    shell = min(roots, key=lambda root: root.start).name

    assert links == {name: {("previous_window", shell), ("parent_window", shell)} for name in ("true", "ls")}
    for root in roots:
        calls = [span for span in run.calls() if span.trace_id == root.trace_id]
        assert root.attributes["otel_sysexit.window.calls"] == len(calls)
        assert {span.resource["process.executable.name"] for span in calls} == {root.name}


def test_flat_calls_are_alone(run_traced):
    """Each call is the only span of its trace, and nothing else is told."""
    run = run_traced(*SHELL, options=("--trace-structure", "flat"), is_one_trace=False)

    assert len(run.spans) == len({span.trace_id for span in run.spans}) == run.ledger.emitted
    assert not any(span.parent_id for span in run.spans)


def test_a_command_is_below_the_span_that_started_us(run_traced, environment):
    """With TRACEPARENT, as a CI job sets it, the command's span is its child, and everything is in its trace."""
    run = run_traced(
        *SHELL,
        env={**environment, "TRACEPARENT": TRACEPARENT, "TRACESTATE": "ot=th:8"},
        is_one_trace=False,
        parent=PARENT,
    )

    assert {span.trace_id for span in run.spans} == {"0af7651916cd43dd8448eb211c80319c"}
    assert {span.trace_state for span in run.spans} == {"ot=th:8"}
    (root,) = [span for span in run.spans if span.parent_id == PARENT]
    assert (root.pid, root.flags & 0x300) == (min(span.pid for span in run.spans), 0x300)


def test_a_context_that_is_none_is_warned_of(run_traced, environment):
    """Garbage is ignored, and said once: the command has what we have."""
    run = run_traced("/bin/true", env={**environment, "TRACEPARENT": "00-0-0-00"})

    assert run.stderr.count("TRACEPARENT is ignored: no W3C trace context") == 1
    assert not any(span.links for span in run.spans)


def test_a_short_command_in_windows_is_below_the_span_that_started_it(run_traced, environment):
    """Where windows are asked for, too: what each program of the command does first is in the trace of TRACEPARENT."""
    run = run_traced(
        *SHELL,
        options=("--trace-structure", "window"),
        env={**environment, "TRACEPARENT": TRACEPARENT},
        is_one_trace=False,
        parent=PARENT,
    )

    assert {span.trace_id for span in run.spans} == {TRACEPARENT.split("-")[1]}
    assert {span.parent_id for span in run.processes()} == {PARENT}
    assert len(run.processes()) > 1
