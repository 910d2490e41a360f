"""The scripts that everything begins with, in a project of their own where Python only notes what it is asked to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHONS = ("python3.13", "python3.12", "python3.11")
# Notes how it is called; fails where FAILS says; is Python 3.10 where OLD says, else 3.11; a virtual environment that
# it makes, well or not, has itself in it.
PYTHON = r"""#!/usr/bin/env bash
called="${0##*/}"
for argument in "$@"; do
    called+=" ${argument:-''}"
done
case "$called" in
    *" -c "*)
        version="3, 11"
        if [[ "${0##*/}" =~ ^($OLD)$ ]]; then
            version="3, 10"
        fi
        exec "$REAL" -c "import sys; sys.version_info = ($version); $2"
        ;;
    *--version) echo "Python" ;;
    *)
        [ -f setup.cfg ] || called+=", elsewhere"
        echo "$called" >>"$CALLS"
        ;;
esac
if [[ "$called" == *" -m venv "* ]]; then
    mkdir -p "${@: -1}/bin"
    for name in python mjumbe ruff mypy; do
        cp "$0" "${@: -1}/bin/$name"
    done
fi
[[ ! "$called" =~ ${FAILS:-^$} ]]
"""
VENV = "python3 -m venv {root}/.venv"
PIP = "python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable "
RUN, DEV = f"{PIP}.", f"{PIP}.[dev]"
TESTS = "python -m pytest --numprocesses 4 --dist worksteal"


class Project:
    """A copy of the scripts; `run` is told what to run in it, and where."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "a project"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copytree(ROOT / ".ci", self.root / ".ci")
        for name in ("setup.cfg", "constraints.txt", "pyproject.toml"):
            (self.root / name).write_text("as it is\n")
        self._bin, self._calls = folder / "bin", folder / "calls"
        self._bin.mkdir()
        for name in ("mjumbe", "python", "python3", *PYTHONS):
            (self._bin / name).write_text(PYTHON)
            (self._bin / name).chmod(0o755)

    def run(self, command: str, *, fails: str = "", old: str = "", **environment: str) -> tuple[int, str, list[str]]:
        """Exit code, what it said, and what was called."""
        self._calls.write_text("")
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=self.root,
            env=environment
            | {"PATH": f"{self._bin}:{os.defpath}", "CALLS": str(self._calls), "REAL": sys.executable}
            | {"FAILS": fails, "OLD": old},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=60,
        )
        calls = self._calls.read_text().replace(str(self.root), "{root}")
        return done.returncode, done.stdout, calls.splitlines()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_what_is_missing_is_installed_once(project: Project) -> None:
    for purpose, calls in [("run", [VENV, RUN]), ("run", []), ("dev", [DEV]), ("dev", []), ("run", [])]:
        code, says, called = project.run(f". scripts/env.sh {purpose} && command -v mjumbe")
        assert (code, called) == (0, calls), says
        assert says.splitlines()[len(calls) :] == [f"{project.root}/.venv/bin/mjumbe"]


def test_what_serves_the_checks_serves_for_running(project: Project) -> None:
    assert project.run(". scripts/env.sh dev")[2] == [VENV, DEV]
    assert project.run(". scripts/env.sh run")[2] == []


@pytest.mark.parametrize("name", ["setup.cfg", "constraints.txt", "pyproject.toml"])
@pytest.mark.parametrize(("purpose", "install"), [("run", RUN), ("dev", DEV)])
def test_other_versions_are_installed_into_what_is_there(
    project: Project, name: str, purpose: str, install: str
) -> None:
    project.run(f". scripts/env.sh {purpose}")
    (project.root / name).write_text("otherwise\n")
    assert project.run(f". scripts/env.sh {purpose}")[2] == [install]


@pytest.mark.parametrize(
    ("trouble", "says", "left"),
    [
        ({"fails": "-m venv"}, "apt-get install python3-venv", False),
        ({"fails": "-m pip"}, "Installing mjumbe", True),
        ({"old": ".*"}, "mjumbe needs Python 3.11 or newer; set PYTHON to one.", False),
    ],
)
def test_what_fails_ends_no_terminal_and_is_tried_again(
    project: Project, trouble: dict[str, str], says: str, left: bool
) -> None:
    code, said, _ = project.run(". scripts/env.sh run; echo status $?", **trouble)
    assert code == 0
    assert says in said.splitlines()[-2]
    assert said.splitlines()[-1] == "status 1"
    assert (project.root / ".venv").exists() is left
    for script in ("scripts/demo", "scripts/bench", "scripts/test", ".ci/run"):
        code, _, calls = project.run(f"bash {script}", **trouble)
        assert code == 1
        assert set(calls) <= {VENV, RUN, DEV}, "nothing runs without it"
    assert project.run(". scripts/env.sh run")[2][-1] == RUN


@pytest.mark.parametrize(
    ("wanted", "old", "taken"),
    [
        ("", "", "python3"),
        ("python3.11", "", "python3.11"),
        ("", "python3", "python3.13"),
        ("", "python3|python3.13", "python3.12"),
        ("python3.13", "python3|python3.1[23]", "python3.11"),
        ("/no/python", "", "python3.13"),
    ],
)
def test_a_python_that_is_new_enough_is_found(project: Project, wanted: str, old: str, taken: str) -> None:
    environment = {"PYTHON": wanted} if wanted else {}
    assert project.run(". scripts/env.sh run", old=old, **environment)[2][0].split()[0] == taken


@pytest.mark.parametrize(
    ("command", "install", "called"),
    [
        ("scripts/demo", RUN, "mjumbe up --demo"),
        ("scripts/demo --once", RUN, "mjumbe up --demo --once"),
        ("scripts/bench --only polls", RUN, "python -m bench --only polls"),
        ("scripts/test", DEV, TESTS),
        ("scripts/test tests/unit -k 'a  b'", DEV, f"{TESTS} tests/unit -k a  b"),
        ("scripts/test --long tests/faults", DEV, f"{TESTS} -m '' tests/faults"),
        ("cd / && {root}/scripts/test", DEV, TESTS),
    ],
)
def test_what_a_script_runs(project: Project, command: str, install: str, called: str) -> None:
    code, says, calls = project.run(command.replace("{root}", f"'{project.root}'"))
    assert (code, calls) == (0, [VENV, install, called]), says


CHECKS = ["ruff check .", "ruff format --check .", "mypy", TESTS]


@pytest.mark.parametrize("last", range(len(CHECKS)))
def test_a_change_passes_only_what_all_checks_pass(project: Project, last: int) -> None:
    assert project.run(f"cd / && bash '{project.root}/.ci/run'")[::2] == (0, [VENV, DEV, *CHECKS])
    code, _, calls = project.run("bash .ci/run", fails=f"^{CHECKS[last]}$")
    assert code != 0
    assert calls == CHECKS[: last + 1]
