"""Settings of all property tests: no deadline, because a slow machine is no error; nothing written beside the tests."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "otel_sysexit", deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("otel_sysexit")
