"""A signal sets the event whatever the main thread is at; a lost terminal's does so but for who is to outlive it."""

import signal
import subprocess
import sys

import pytest

# The main thread holds the event's lock, as for moments in every wait, and is interrupted then.
INTERRUPTED = """
import os, sys
from mjumbe.stopping import stop_event

stop = stop_event()
with stop._cond:
    os.kill(os.getpid(), int(sys.argv[1]))
sys.exit(0 if stop.wait(60) else 1)
"""


NOHUP = """
import os, signal
from mjumbe.stopping import stop_event

signal.signal(signal.SIGHUP, signal.SIG_IGN)
stop_event()
assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_in_the_middle_of_a_wait(number: signal.Signals) -> None:
    command = [sys.executable, "-c", INTERRUPTED, str(int(number))]
    assert subprocess.run(command, check=False, timeout=120).returncode == 0


def test_what_nohup_started_outlives_its_terminal() -> None:
    assert subprocess.run([sys.executable, "-c", NOHUP], check=False, timeout=120).returncode == 0
