"""All ways out: how they are called."""

import pytest

from otel_sysexit.config import Config
from otel_sysexit.sinks import Sinks


@pytest.mark.parametrize(
    ("endpoint", "shown"),
    [
        ("http://user:secret@localhost:1/v1/traces", "http://user:***@localhost:1/v1/traces"),
        ("http://user@localhost:1/v1/traces", "http://user@localhost:1/v1/traces"),
        ("http://localhost:1/v1/a:b@c", "http://localhost:1/v1/a:b@c"),
        ("localhost:1", "localhost:1"),
    ],
)
def test_a_password_is_not_shown(endpoint, shown):
    """Everything of an endpoint is there for people but the secret in it."""
    protocol = "http/protobuf" if "://" in endpoint else "grpc"
    sinks = Sinks(Config(exporter="otlp", endpoint=endpoint, protocol=protocol))
    sinks.start()
    sinks.abort()

    assert [delivery.name for delivery in sinks.deliveries(0)] == [shown]
