"""What is optional and large stays out; what is asked for later is there."""

import subprocess
import sys

import pytest

from otel_sysexit.imports import without


def modules_after(code: str) -> set[str]:
    """Return the names of all modules that a new interpreter has after *code*."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
    )
    return set(done.stdout.split())


def test_a_module_that_is_left_out_is_none():
    """Within the block, importing it says that there is none."""
    with without("otel_sysexit_absent"), pytest.raises(ModuleNotFoundError):
        __import__("otel_sysexit_absent")


def test_a_module_that_was_left_out_can_be_imported_later():
    """After the block nothing of it is left."""
    code = "from otel_sysexit.imports import without\nwith without('colorsys'): pass\nimport colorsys"

    assert "colorsys" in modules_after(code)


def test_a_module_that_is_there_stays():
    """What was imported before may be imported within the block, too."""
    with without("subprocess"):
        assert __import__("subprocess") is subprocess

    assert sys.modules["subprocess"] is subprocess


def test_the_agent_has_neither_openssl_nor_numpys_random():
    """Both are large; ids of traces, spans and services need none of them."""
    ids = "from otel_sysexit.otlp.resources import uuid5, UUID\nuuid5(UUID(int=0), '')"

    assert not {"_hashlib", "_ssl", "numpy.random"} & modules_after(f"import otel_sysexit.agent\n{ids}")


def test_exporting_by_grpc_takes_no_second_tls():
    """Python's own TLS stays out: gRPC has one."""
    code = (
        "from otel_sysexit.config import resolve\n"
        "from otel_sysexit.otlp.transport import make_transport\n"
        "make_transport(resolve('run', {'endpoint': 'http://localhost:4317', 'protocol': 'grpc'}, {}))"
    )

    assert not {"_hashlib", "_ssl", "ssl"} & modules_after(code)
