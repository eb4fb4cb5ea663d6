"""Calls as log records: `--signals`."""

import signal

import pytest
from otlp_json import read_log_records, read_spans

CALL = "otel_sysexit.call"
COMMAND = ("cat", "/etc/hosts", "/nonexistent")


@pytest.fixture
def told(invoke, tmp_path):
    """Return a function that runs a command with these signals; it returns spans, log records and the ledger's line."""

    def run(signals: str, *options: str):
        path = tmp_path / "out.jsonl"
        finished = invoke("run", "--signals", signals, "-o", path, *options, "--", *COMMAND)
        (ledger,) = [line for line in finished.stderr.decode().splitlines() if "ledger:" in line]
        return read_spans(path), read_log_records(path), ledger

    return run


@pytest.mark.each_kernel
def test_each_call_is_a_span_and_a_record(told):
    """Both, with the same ids, times and attributes; and nothing is counted twice."""
    spans, records, ledger = told("traces,logs")
    calls = {span.span_id: span for span in spans if span.is_call}

    assert len(records) == len(calls) > 0
    for record in records:
        span = calls[record.span_id]
        attributes = {key: value for key, value in record.attributes.items() if key != "syscall.duration"}
        assert (record.event, record.trace_id, record.time) == (CALL, span.trace_id, span.start)
        assert attributes == span.attributes
        assert record.resource == span.resource
    assert f"delivered {len(calls)} + undelivered 0" in ledger


def test_log_records_alone_are_all_calls(told):
    """No span is sent then, not of the process either, and a record names none."""
    spans, records, ledger = told("logs")

    assert spans == []
    assert {record.event for record in records} == {CALL}
    assert {(record.trace_id, record.span_id) for record in records} == {("", "")}
    assert f"delivered {len(records)} + undelivered 0" in ledger


def test_a_failure_is_an_error_in_words(told):
    """Who reads logs sees what failed, and why."""
    _, records, _ = told("logs", "--syscalls", "open,openat")
    severities = {record.body: record.severity for record in records}

    assert severities["openat /etc/hosts"] == 9
    assert severities["openat /nonexistent failed: ENOENT"] == 17


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_collector_gets_both(invoke, protocol):
    """Spans and log records go to their own endpoints, each complete."""
    from receiver import Receiver  # noqa: PLC0415 (a guest has no certificates to make)

    with Receiver(protocol) as receiver:
        finished = invoke(
            *(
                "run",
                "--signals",
                "traces,logs",
                "--protocol",
                protocol,
                "--endpoint",
                receiver.endpoint,
                "--",
            ),
            *COMMAND,
        )
        signals = [request.signal for request in receiver.accepted]
        records = [
            record
            for request in receiver.accepted
            if request.signal == "logs"
            for of_resource in request.message.resource_logs
            for scope in of_resource.scope_logs
            for record in scope.log_records
        ]
        spans = [found.span for found in receiver.spans()]

    assert finished.returncode == 1  # cat's
    assert set(signals) == {"traces", "logs"}
    assert {record.span_id for record in records} == {span.span_id for span in spans} - {
        span.span_id for span in spans if not any(one.key == "syscall.name" for one in span.attributes)
    }


def test_windows_have_records_too(invoke, start, tmp_path):
    """`attach` tells of calls in the same two ways."""
    path = tmp_path / "out.jsonl"
    target = start("sh", "-c", "while :; do /bin/true; done")
    options = ("--signals", "logs,traces", "--max-rate", "none", "--duration", "1s", "-o", path)
    invoke("attach", "--pid", str(target.pid), *options)
    target.send_signal(signal.SIGKILL)
    calls = {span.span_id for span in read_spans(path) if span.is_call}

    assert {record.span_id for record in read_log_records(path)} == calls != set()
