"""The back ends as fixtures: each started once for all tests, on free loopback ports, and ended after them."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from backends.processes import Collector, Jaeger, MissingError, find_binary


def binary(name: str) -> Path:
    """Find a back end, or skip the test; where the back ends are mandatory the lack is a failure."""
    try:
        return find_binary(name)
    except MissingError as error:
        reason = str(error)
    if os.environ.get("OTEL_SYSEXIT_BACKENDS") == "1":
        pytest.fail(f"back ends are mandatory (OTEL_SYSEXIT_BACKENDS=1), but {reason}", pytrace=False)
    pytest.skip(f"{reason}; OTEL_SYSEXIT_BACKENDS=1 makes this a failure")


@pytest.fixture(scope="session")
def live() -> None:
    """Skip, or fail, as the live tests do where BPF cannot be used."""
    from live.conftest import _why_impossible  # noqa: PLC0415 (only these tests need the live tests' machinery)

    reason = _why_impossible()
    if reason and os.environ.get("OTEL_SYSEXIT_LIVE_TESTS") == "1":
        pytest.fail(f"live tests are mandatory (OTEL_SYSEXIT_LIVE_TESTS=1), but {reason}", pytrace=False)
    if reason:
        pytest.skip(f"{reason}; OTEL_SYSEXIT_LIVE_TESTS=1 makes this a failure")


@pytest.fixture(scope="session")
def collector(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Collector]:
    """The official OpenTelemetry Collector, forwarding to a receiver of ours."""
    with Collector.official(binary("otelcol"), tmp_path_factory.mktemp("otelcol")) as started:
        yield started


@pytest.fixture(scope="session")
def jaeger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jaeger]:
    """Jaeger v2, empty at first."""
    with Jaeger.started(binary("jaeger"), tmp_path_factory.mktemp("jaeger")) as started:
        yield started
