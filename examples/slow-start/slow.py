"""
A program that starts slowly, for two reasons that its author does not know of.

It looks for its plugins in every folder of a long search path, under every name they could have; and it reads settings
from a place that answers late.
"""

import os
import subprocess
import tempfile
from pathlib import Path

FOLDERS = 40
PLUGINS = 12
ENDINGS = (".so", ".abi3.so", ".py", ".pyc", "/__init__.py")
LATE_SECONDS = 0.2


def find_plugins(search_path: list[Path]) -> list[Path]:
    """Return the files of all plugins: the first match in *search_path* for each."""
    found = []
    for number in range(PLUGINS):
        candidates = (folder / f"plugin{number}{ending}" for folder in search_path for ending in ENDINGS)
        found += [path for path in candidates if path.exists()][:1]
    return found


def read_settings(folder: Path) -> str:
    """Read settings that come late, as from a network file system: here from a pipe whose writer sleeps first."""
    settings = folder / "settings.conf"
    os.mkfifo(settings)
    with subprocess.Popen(["sh", "-c", f'sleep {LATE_SECONDS}; echo "colour = blue" > "$0"', settings]):
        return settings.read_text(encoding="utf-8")


def main() -> None:
    """Start."""
    with tempfile.TemporaryDirectory() as name:
        search_path = [Path(name, f"plugins.{number}") for number in range(FOLDERS)]
        for folder in search_path:
            folder.mkdir()
        for number in range(PLUGINS):
            (search_path[-1] / f"plugin{number}.py").touch()
        print(f"{len(find_plugins(search_path))} plugins, {read_settings(Path(name)).strip()}: ready")


if __name__ == "__main__":
    main()
