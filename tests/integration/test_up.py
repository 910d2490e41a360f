"""`mjumbe up`: all processes in one terminal, also when that terminal is lost."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from tests.faults.rig import INCOMING, incoming, kill_alone
from tests.integration.processes import Process, eventually, family, runs, start
from tests.integration.sentinel.world import INCOMING_KEY, number

NAMES = ["api", "embedded", "sentinel"]


class Terminal:
    """Somebody who types `mjumbe up` again and again, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes: list[Process] = []

    def up(self, **environment: str) -> Process:
        output = self.folder.with_name(f"output-{len(self.processes)}")
        environment = {"MJUMBE_DATA": str(self.folder), **environment}
        process = start(["mjumbe.cli", "up"], output, environment, says="mjumbe is up at")
        self.processes.append(process)
        return process


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    one = Terminal(tmp_path / "data")
    yield one
    for process in one.processes:
        process.stop()


def names(pids: list[int]) -> list[str]:
    """The commands that processes run, a command's workers counted once; "" for one that is about to begin, or gone."""
    return sorted({name(pid) for pid in pids})


def name(pid: int) -> str:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except OSError:
        return ""
    return words[words.index("mjumbe.cli") + 1] if "mjumbe.cli" in words else ""


def saved(process: Process, message_id: str, sender: str) -> int:
    form = incoming(message_id, sender, "HELP")
    answer = requests.post(process.url + INCOMING, params={"key": INCOMING_KEY}, data=form, timeout=60)
    answer.raise_for_status()
    return int(answer.json()["saved"])


def test_after_kill_9_nothing_runs_on_and_the_next_start_has_all(terminal: Terminal) -> None:
    first = terminal.up()
    login = ("admin", (terminal.folder / "admin-password").read_text())
    key = f"{first.url}/api/v1/credentials/africastalking.com:incoming"
    requests.put(key, auth=login, data=INCOMING_KEY, timeout=60).raise_for_status()
    sender = number()
    assert saved(first, "before", sender) == 1
    _, *others = family(first.popen.pid)
    assert names(others) == NAMES
    kill_alone(first)
    eventually(lambda: not any(map(runs, others)))
    second = terminal.up()
    assert saved(second, "before", sender) == 0, "it is there"
    assert saved(second, "after", sender) == 1


def test_what_ends_is_started_again(terminal: Terminal) -> None:
    up = terminal.up().popen.pid
    ended = family(up)[1:]
    for pid in ended:
        os.kill(pid, signal.SIGKILL)
    # Another test's `mjumbe up` may take a port meanwhile: then it is started again until that one has gone.
    eventually(lambda: not set(family(up)) & set(ended) and names(family(up)[1:]) == NAMES, 180)


def test_a_couch_url_that_leads_nowhere_is_said(terminal: Terminal) -> None:
    says = "CouchDB at http://127.0.0.1:1 cannot be reached (ConnectionError): start it, correct COUCH_URL, or unset it"
    assert says in terminal.up(COUCH_URL="http://admin:x@127.0.0.1:1/medic").log()
