"""The configuration that docker-compose.yml gives to the Collector, judged by the Collector itself."""

import subprocess
from pathlib import Path

import pytest
from backends.conftest import binary

pytestmark = pytest.mark.backends
CONFIGURATION = Path(__file__).parents[2] / "deploy/compose/otelcol.yaml"


def validate(configuration: Path) -> subprocess.CompletedProcess[str]:
    """Let the Collector check a configuration without starting."""
    command = [binary("otelcol"), "validate", "--config", configuration]
    return subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)


def test_the_collector_accepts_its_configuration():
    """The real Collector, of the version that the file names, finds nothing wrong."""
    checked = validate(CONFIGURATION)

    assert checked.returncode == 0, checked.stderr


def test_the_collector_would_notice_a_mistake(tmp_path):
    """The check can fail: a processor that does not exist is refused."""
    wrong = tmp_path / "otelcol.yaml"
    wrong.write_text(CONFIGURATION.read_text(encoding="utf-8").replace("batch", "batsch"), encoding="utf-8")

    assert validate(wrong).returncode != 0
