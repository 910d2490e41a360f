"""mjumbe as pip installs it: everything it needs is in the package, and nothing needs the repository."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.processes import ROOT

ROOMS = ("api", "config", "ddocs", "embedded", "mjumbe", "sentinel", "simulator")
NOT_OURS = shutil.ignore_patterns("__pycache__")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with mjumbe in it, installed from a copy: the builder writes beside what it builds."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=NOT_OURS)
    for name in ("setup.cfg", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--no-build-isolation", "--target", str(target), str(source)], check=True, timeout=120)
    return target


def test_every_file_is_in_it(installed: Path) -> None:
    files = {path.relative_to(ROOT) for room in ROOMS for path in (ROOT / room).rglob("*") if path.is_file()}
    ours = {path for path in files if "__pycache__" not in path.parts}
    assert Path("mjumbe/translations.json") in ours
    assert sorted(path for path in ours if not (installed / path).is_file()) == []


def test_the_demonstration_runs_from_anywhere(installed: Path, tmp_path: Path) -> None:
    """With the embedded store, as `scripts/demo --once` does; nothing is left of it."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MJUMBE_", "COUCH_"))}
    done = subprocess.run(
        [sys.executable, str(installed / "bin" / "mjumbe"), "up", "--demo", "--once"],
        cwd=tmp_path,
        env=clean | {"PYTHONPATH": str(installed), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stderr
    steps = [line.split()[2] for line in done.stdout.splitlines() if " ms  " in line]
    assert steps == ["received", "linked", "answered", "claimed", "sent", "delivered"]
    assert "to Amina Otieno, document demo-amina" in done.stdout
    assert list(tmp_path.iterdir()) == []
