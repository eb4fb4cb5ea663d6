"""Hypothesis strategies for what the stages hand to each other: processes, calls, placements, spans."""

from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from hypothesis import strategies as st
from made_calls import Made, make_calls

from otel_sysexit import syscalls
from otel_sysexit.addresses import Family
from otel_sysexit.calls import Calls, Outcome
from otel_sysexit.identity import Image, Process, Thread
from otel_sysexit.traces import AlikeSpans, Link, Placement, Span, Spans

U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
I64 = st.integers(-(2**63), 2**63 - 1)
# Far enough from both ends for a duration to be added.
TIMES_NS = st.integers(0, 2**62)
DURATIONS_NS = st.one_of(st.just(0), st.integers(0, 2**62))
SPAN_IDS = st.integers(1, 2**64 - 1)
TRACE_IDS = st.binary(min_size=16, max_size=16).filter(any)
TRACE_STATES = st.sampled_from(["", "ot=th:0"])  # of spans that are no calls
# An attribute's name, as OTEL_RESOURCE_ATTRIBUTES may bring one.
KEYS = st.sampled_from(
    ["deployment.environment.name", "service.namespace", "process.pid", "host.name", "ä.ö"]
)


def texts(bytes_max: int) -> st.SearchStrategy[str]:
    """Return texts of at most so many bytes of UTF-8."""
    return st.text(max_size=bytes_max).map(lambda text: text.encode()[:bytes_max].decode(errors="ignore"))


def images() -> st.SearchStrategy[Image]:
    """Return programs, each in a process of its own."""
    processes = st.builds(
        Process,
        pid=st.integers(1, 2**22),
        start_unix_ns=st.integers(0, 2**61),
        parent_pid=st.none() | st.integers(0, 2**22),
    )
    return st.builds(
        Image,
        process=processes,
        executable_name=texts(40),
        executable_path=st.none() | texts(80).filter(bool),
        command=st.none() | texts(80).filter(bool),
        command_args=st.lists(texts(20), max_size=3).map(tuple),
        owner=st.none() | texts(20).filter(bool),
        service_name=st.none() | texts(20).filter(bool),
        environment_attributes=st.dictionaries(KEYS, texts(20), max_size=2),
    )


@dataclass(frozen=True)
class MadeBatch:
    """What the encoder gets at once."""

    calls: Calls
    placement: Placement
    spans: Spans


# At which calls are sampled: none, round ones, one of seven and of eight digits, the least and the most.
THRESHOLDS = st.sampled_from([0, 0, 2**31, 0xFC << 24, 0xFFBE76D0, 0xFFBE76D1, 1, 2**32 - 1]) | U32
# What descriptors are.
FILES = st.one_of(
    st.sampled_from([b"/", b"/etc/hosts", b"socket:[42]", b"pipe:[4026531840]", b"anon_inode:[eventpoll]"]),
    texts(255).map(str.encode),
    st.just(b"/" + b"f" * 4095),
)
PATHS = st.one_of(
    texts(255).map(str.encode), st.just(b""), st.just(b"p" * 4096), st.just("ü".encode() * 2048)
)
ADDRESSES = st.one_of(
    st.none(),
    st.tuples(
        st.sampled_from([Family.IPV4, Family.IPV6]),
        st.ip_addresses().map(lambda address: str(address).encode()),
        st.integers(0, 2**16 - 1),
    ),
    st.tuples(st.just(Family.UNIX), texts(255).filter(bool).map(str.encode), st.just(0)),
)


@st.composite
def made_calls(draw: st.DrawFn) -> Made:
    """Return one call of any kind and any end."""
    abi = draw(st.sampled_from(syscalls.Abi))
    names = st.sampled_from(sorted(syscalls.numbers(abi)))
    numbers = st.integers(-(2**31), 2**31 - 1) | st.integers(syscalls.NUMBERS - 1, syscalls.NUMBERS + 1)
    call = draw(st.one_of(names, names, names, numbers))
    outcome = draw(st.sampled_from(Outcome))
    ret = -draw(st.integers(1, 4095)) if outcome in (Outcome.FAILED, Outcome.BENIGN) else draw(I64)
    kind = Made(call, abi=abi).kind
    # The first path's memory may be unreadable where the second's is not; of descriptors any may be unknown.
    path_count = min(sum(argument.is_path for argument in kind.arguments), 2)
    paths = draw(st.lists(st.none() | PATHS, max_size=path_count))
    files = draw(st.lists(st.none() | FILES, max_size=len(kind.descriptors)))
    return Made(
        call=call,
        # Bit patterns, and numbers that mean something.
        args=tuple(draw(st.lists(U64 | st.integers(-1, 2**10), max_size=6))),
        ret=ret,
        outcome=outcome,
        paths=tuple(paths),
        files=tuple(files),
        address=draw(ADDRESSES),
        abi=abi,
        start_ns=draw(TIMES_NS) - 2**60,
        duration_ns=draw(DURATIONS_NS),
        tid=draw(U32),
        restarted=draw(st.integers(0, 600)) if call == "restart_syscall" else -1,
        threshold=draw(THRESHOLDS),
        is_cut=draw(st.booleans()),
        is_file_cut=draw(st.booleans()),
        is_executed=draw(st.booleans()),
        has_args=draw(st.booleans()),
    )


@st.composite
def batches(draw: st.DrawFn) -> MadeBatch:
    """Return calls of several threads in several processes, in several traces, and some spans beside them."""
    programs = draw(st.lists(images(), min_size=1, max_size=3))
    threads = draw(
        st.lists(st.builds(Thread, tid=U32, name=texts(60), image=st.sampled_from(programs)), min_size=1)
    )
    calls = make_calls(*draw(st.lists(made_calls(), max_size=10)))
    count = len(calls)
    rows = draw(st.lists(st.integers(0, len(threads) - 1), min_size=count, max_size=count))
    calls = calls.made_by(np.array(rows, np.intp), threads)
    spans = Spans(
        draw(st.lists(alike_spans(programs), max_size=2)), draw(st.lists(other_spans(programs), max_size=3))
    )
    total = count + len(spans)
    ids = draw(st.lists(SPAN_IDS, min_size=total, max_size=total, unique=True))
    return MadeBatch(calls, draw(placements(ids[:count])), renumber(spans, ids[count:]))


@st.composite
def placements(draw: st.DrawFn, span_ids: list[int]) -> Placement:
    """Return places for calls with these ids."""
    contexts = draw(st.lists(st.tuples(TRACE_IDS, SPAN_IDS), min_size=1, max_size=3))
    of_calls = st.lists(st.integers(0, len(contexts) - 1), min_size=len(span_ids), max_size=len(span_ids))
    return Placement(
        span_id=np.array(span_ids, np.uint64),
        context=np.array(draw(of_calls), np.uint32),
        trace_id=np.array([list(trace_id) for trace_id, _ in contexts], np.uint8),
        parent_span_id=np.array([parent for _, parent in contexts], np.uint64),
    )


def renumber(spans: Spans, span_ids: list[int]) -> Spans:
    """Return the same spans with these ids."""
    fresh = iter(span_ids)
    alike = [replace(one, span_id=np.array([*islice(fresh, len(one))], np.uint64)) for one in spans.alike]
    alone = [replace(span, span_id=next(fresh)) for span in spans.alone]
    return Spans(alike, alone)


@st.composite
def alike_spans(draw: st.DrawFn, programs: list[Image]) -> AlikeSpans:
    """Return spans of processes that run some of *programs* and have nothing else to say."""
    found = draw(st.lists(st.sampled_from(programs), min_size=1, max_size=4))
    numbers = st.lists(U64, min_size=len(found), max_size=len(found)).map(
        lambda drawn: np.array(drawn, np.uint64)
    )
    return AlikeSpans(
        images=found,
        trace_id=draw(TRACE_IDS),
        span_id=np.zeros(len(found), np.uint64),
        parent_span_id=draw(numbers),
        start_unix_ns=draw(numbers),
        end_unix_ns=draw(U64),
        trace_state=draw(TRACE_STATES),
        trace_flags=draw(st.sampled_from([0, 1, 3])),
    )


def other_spans(programs: list[Image]) -> st.SearchStrategy[Span]:
    """Return spans of processes and windows that run one of *programs*."""
    links = st.builds(
        Link,
        trace_id=TRACE_IDS,
        span_id=SPAN_IDS,
        attributes=st.just({"otel_sysexit.link.type": "previous_window"}),
        trace_state=TRACE_STATES,
    )
    noted = st.fixed_dictionaries(
        {},
        optional={
            "process.exit.code": st.integers(0, 255),
            "error.type": st.sampled_from(["SIGKILL", "1"]),
            "otel_sysexit.window.calls": st.integers(0, 2**63 - 1),
        },
    )
    return st.builds(
        Span,
        name=texts(40),
        trace_id=TRACE_IDS,
        span_id=SPAN_IDS,
        parent_span_id=st.just(0) | SPAN_IDS,
        start_unix_ns=U64,
        end_unix_ns=U64,
        image=st.sampled_from(programs),
        attributes=noted,
        links=st.lists(links, max_size=2),
        is_error=st.booleans(),
        trace_state=TRACE_STATES,
    )
