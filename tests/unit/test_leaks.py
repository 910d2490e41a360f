"""The check of the logs itself: it must find what is there, and fail the run for it."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.leaks import Used, leaks_in

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def used() -> Used:
    used = Used()
    used.secret("s3cr3t/käy+")
    used.text("Your test was positive, come on Monday")
    used.text("YES")
    used.number("+254711000111")
    return used


@pytest.mark.parametrize(
    "line",
    [
        "the key is s3cr3t/käy+.",
        '{"reason": "s3cr3t/k\\u00e4y+"}',
        "GET /x?key=s3cr3t%2Fk%C3%A4y%2B HTTP/1.1",
        "sent Your test was positive, come on Monday to somebody",
        "GET /x?text=Your+test+was+positive%2C+come+on+Monday",
        "to=+254711000111",
        "incoming:x:%2B254711000111",
        "0711000111",
        "a stranger's +255700000222",
        "Authorization: Basic YWRtaW46cGFzc3dvcmQ=",
    ],
)
def test_what_a_log_must_not_show_is_found_with_its_place_and_hidden(tmp_path: Path, used: Used, line: str) -> None:
    path = tmp_path / "output"
    path.write_text(f"a good line\n{line}\nanother\n")
    (leak,) = leaks_in(path, used)
    assert leak.startswith(f"{path}:2: ")
    assert "<SECRET>" in leak
    assert not list(used.found(leak.removeprefix(f"{path}:2: ")))


@pytest.mark.parametrize(
    "line", ["YES", "to=**********111", '{"timestamp": "2026-01-31T08:30:00.123456Z"}', "s3cr3t", "Basic realm"]
)
def test_other_lines_are_good(tmp_path: Path, used: Used, line: str) -> None:
    path = tmp_path / "output"
    path.write_text(line)
    assert leaks_in(path, used) == []


A_RUN = """
import subprocess, sys
import requests
from tests.integration.processes import Process

def test_it(tmp_path):
    request = requests.Request(
        "POST", "http://127.0.0.1:9/x?key=the-key-of-this-test", auth=("admin", "pass-w0rd"),
        json={"to": "+254711000111", "message": "a text that nobody may see"},
    )
    try:
        requests.Session().send(request.prepare())
    except requests.ConnectionError:
        pass
    with (tmp_path / "output").open("wb") as stream:
        popen = subprocess.Popen([sys.executable, "-c", "print('WORDS')"], stdout=stream)
    Process(popen, tmp_path / "output")
    popen.wait()
"""


WORDS = ["the-key-of-this-test", "pass-w0rd", "YWRtaW46cGFzcy13MHJk", "a text that nobody may see", "711000111"]


@pytest.mark.parametrize("words", [WORDS, []], ids=["all", "none"])
@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_run_fails_for_what_its_processes_wrote(tmp_path: Path, words: list[str], workers: str) -> None:
    """A run of its own, of one test that passes and whose process writes `words`, a line each."""
    (tmp_path / "conftest.py").write_text("from tests.conftest import *\n")
    (tmp_path / "test_it.py").write_text(A_RUN.replace("WORDS", "\\\\n".join(["nothing", *words])))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-n",
        workers,
        "--rootdir",
        str(tmp_path),
    ]
    done = subprocess.run(
        [*command, "-c", "/dev/null", str(tmp_path / "test_it.py"), "--basetemp", str(tmp_path / "base")],
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert done.returncode == bool(words), done.stdout + done.stderr
    assert [f"output:{line}: <SECRET>" in done.stdout for line in range(1, 7)] == [
        1 < line < len(words) + 2 for line in range(1, 7)
    ]
    assert "pass-w0rd" not in done.stdout
