"""Processes of ours: started with their output in a file, known by their own pid, stopped by it."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
START_SECONDS = 60.0
STOP_SECONDS = 15.0
LISTENING = re.compile(r"listening on (http://\S+?)/?\s")


class StartError(RuntimeError):
    """A process did not start; the message has the end of what it said."""


class Process:
    """One `python -m …` process."""

    def __init__(self, name: str, arguments: Sequence[str], environ: Mapping[str, str], folder: Path) -> None:
        self.name = name
        self._log = folder / f"{name}-{time.monotonic_ns()}.log"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MJUMBE_", "COUCH_"))}
        with self._log.open("wb") as output:
            # A session of its own: Ctrl-C reaches us alone, and we stop the processes in order.
            self._popen = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**inherited, **environ},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._popen.pid

    def url(self) -> str:
        """Where it listens, once it says so. Raises StartError."""
        deadline = time.monotonic() + START_SECONDS
        while not (found := LISTENING.search(self._log.read_text(errors="replace"))):
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} does not listen after {START_SECONDS:.0f} s")
            self.check()
            time.sleep(0.05)
        return found[1]

    def check(self) -> None:
        """Raises StartError when the process has ended."""
        if self._popen.poll() is not None:
            said = self._log.read_text(errors="replace")[-2000:]
            raise StartError(f"{self.name} ended with {self._popen.returncode}:\n{said}")

    def stop(self) -> None:
        """End it; killed when it takes too long."""
        if self._popen.poll() is None:
            self._popen.send_signal(signal.SIGTERM)
            try:
                self._popen.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                os.killpg(self._popen.pid, signal.SIGKILL)
                self._popen.wait()
