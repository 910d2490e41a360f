"""The simulator as a process: its first line, its exit, and what it says when it cannot start."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def start(*arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "simulator", "--port", "0", *arguments]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_start_and_stop(number: signal.Signals) -> None:
    with start("--username", "mine", "--key", "s3cret") as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.fullmatch(r"simulator listening on (http://127\.0\.0\.1:\d+/)\n", line)
            assert found, line
            request = urllib.request.Request(f"{found[1]}version1/user?username=mine", headers={"apiKey": "s3cret"})
            with urllib.request.urlopen(request, timeout=30) as response:
                assert response.status == 200
        finally:
            process.send_signal(number)
        output, errors = process.communicate(timeout=30)
    assert (process.returncode, output, errors) == (0, "", "")


def test_the_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with start("--port", str(port)) as process:
            _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert errors.startswith(f"simulator: cannot listen on 127.0.0.1:{port}: ")
    assert errors.endswith("; choose another --port\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--reports-url", "example.org"), 1, "simulator: reports_url: expected null or an http:// or https:// URL"),
        (("--latency-ms", "-5"), 1, "simulator: latency_ms: expected a whole number"),
        (("--port", "99999"), 2, "mjumbe simulator: error: argument --port: expected a port, 0 to 65535, got 99999"),
        (("--port", "-1"), 2, "expected a port, 0 to 65535, got -1"),
        (("--host", "300.1.1.1"), 1, "; choose another --host"),
        (("--balance", "much"), 2, "expected an amount such as 1785.50, got 'much'"),
    ],
)
def test_bad_arguments(arguments: tuple[str, ...], code: int, words: str) -> None:
    with start(*arguments) as process:
        _, errors = process.communicate(timeout=30)
    assert process.returncode == code
    assert words in errors
