"""The command's way in: a Ctrl-C while it is still being imported, streams that it was started without."""

import os
import signal
import subprocess
import sys
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path

ROOT = Path(__file__).parents[2]
CTRL_C = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"


def run(folder: Path) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "mjumbe", "--version"]
    return subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=partial(
            signal.signal, signal.SIGINT, signal.SIG_DFL
        ),  # it is ignored where tests run in the background
    )


def test_ctrl_c_during_the_imports_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text(CTRL_C)  # what mjumbe/cli.py imports first
    done = run(tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


def test_streams_that_are_closed_are_opened_under_their_numbers() -> None:
    """Else the next file to be opened, a database for instance, would have one of these numbers."""
    source = """
import os, sys
from mjumbe.__main__ import _open_streams
_open_streams()
numbers = [stream.fileno() for stream in (sys.stdin, sys.stdout, sys.stderr)]
sys.exit(numbers != [0, 1, 2] or not all(os.get_inheritable(number) for number in numbers))
"""
    command = ["sh", "-c", 'exec <&- >&- 2>&-; exec "$@"', "sh", sys.executable, "-c", source]
    assert subprocess.run(command, cwd=ROOT, check=False, timeout=60).returncode == 0


def test_what_a_terminal_cannot_show_ends_no_command() -> None:
    source = "from mjumbe.__main__ import _open_streams\n_open_streams()\nprint('caf\\xe9 \\U0001f600')"
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([sys.executable, "-c", source], cwd=ROOT, env=environment, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"caf\xe9 \\U0001f600\n")


def test_the_command(tmp_path: Path) -> None:
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "version" in done.stdout
    assert [entry.value for entry in entry_points(group="console_scripts", name="mjumbe")] == ["mjumbe.__main__:main"]
