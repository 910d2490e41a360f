"""`mjumbe up`: all processes in one terminal, also when that terminal is lost."""

import errno
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from mjumbe.commands import up
from mjumbe.commands.demo import Demo
from mjumbe.commands.up import PASSWORD_FILE, Supervisor, _admin_password
from mjumbe.couch import Couch
from tests import leaks
from tests.faults.rig import INCOMING, incoming, kill_alone
from tests.integration.processes import ROOT, Process, eventually, family, runs, start
from tests.integration.sentinel.world import INCOMING_KEY, OUTGOING_KEY, SOON, Simulator, number

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


def test_what_cannot_be_started_again_now_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever the kernel ended for want of memory may find none to begin with."""
    supervisor, stop, popen, refused = Supervisor(), threading.Event(), subprocess.Popen, list[object]()

    def start_second_time(*arguments: Any, **options: Any) -> "subprocess.Popen[str]":
        if not refused:
            refused.append(arguments)
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        stop.set()
        return popen(*arguments, **options)

    process = supervisor.start("embedded", ["--help"], os.environ)
    assert process.popen is not None
    first = process.popen.pid
    process.popen.wait(SOON)
    monkeypatch.setattr(subprocess, "Popen", start_second_time)
    monkeypatch.setattr(up, "AGAIN_SECONDS", 0.01)
    try:
        supervisor.watch(stop)
        assert (len(refused), process.popen.pid != first) == (1, True)
    finally:
        supervisor.stop()


def test_an_output_that_takes_nothing_stops_nobody(tmp_path: Path) -> None:
    """A log on a disk that is full."""
    command = [sys.executable, "-m", "mjumbe.cli", "up"]
    environment = {key: value for key, value in os.environ.items() if key != "COUCH_URL"} | {
        "MJUMBE_DATA": str(tmp_path)
    }
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=full, stderr=full)
    try:
        eventually(lambda: names(family(process.pid)[1:]) == NAMES, 60)
        first = family(process.pid)[1:]
        for pid in first:
            os.kill(pid, signal.SIGKILL)
        # It looks after them only once it has said where it is up.
        eventually(lambda: not set(family(process.pid)) & set(first) and names(family(process.pid)[1:]) == NAMES, 180)
    finally:
        process.terminate()
        process.wait(60)


def test_a_port_that_is_taken_after_it_was_looked_at(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor, free_port = Supervisor(), up.free_port
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = int(other.getsockname()[1])
        looks = iter([taken])
        monkeypatch.setitem(up.PORTS, "simulator", taken)
        monkeypatch.setattr(up, "free_port", lambda wanted: next(looks, None) or free_port(wanted))
        try:
            url = supervisor.listen("simulator", [], os.environ)
            assert requests.get(url, timeout=60).ok
        finally:
            supervisor.stop()
    assert f"Port {taken} is taken, so simulator listens on port {urlsplit(url).port}." in capsys.readouterr().out
    assert len(supervisor._processes) == 1, "what could not start is not started again"


def test_a_port_that_is_taken_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another `mjumbe up` had it, and was killed."""
    supervisor, free_port = Supervisor(), up.free_port
    other = socket.create_server(("127.0.0.1", 0))
    taken = int(other.getsockname()[1])
    looks = iter([taken])

    def look(wanted: int) -> int:
        if first := next(looks, None):
            return first
        other.close()
        return free_port(wanted)

    monkeypatch.setitem(up.PORTS, "simulator", taken)
    monkeypatch.setattr(up, "free_port", look)
    try:
        assert requests.get(supervisor.listen("simulator", [], os.environ), timeout=60).ok
    finally:
        supervisor.stop()
        other.close()


def test_what_started_last_is_stopped_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentinel stores what became of its last requests in a store that is still there."""
    supervisor, stopped, stop = Supervisor(), list[tuple[str, bool, int]](), up.Process.stop

    def note(process: up.Process) -> None:
        assert process.popen is not None
        assert os.getpgid(process.popen.pid) == process.popen.pid, "a terminal's Ctrl-C would end all of them at once"
        stop(process)
        still = [other for other in supervisor._processes if other.popen and other.popen.poll() is None]
        stopped.append((str(process.url), bool(still), process.popen.returncode))

    monkeypatch.setattr(up.Process, "stop", note)
    try:
        urls = [supervisor.listen("simulator", [], os.environ) for _ in range(2)]
    finally:
        supervisor.stop()
    assert stopped == [(urls[1], True, 0), (urls[0], False, 0)]


def test_what_is_under_way_is_stored_where_all_are_told_to_end_at_once(terminal: Terminal, tmp_path: Path) -> None:
    """By a machine that goes down, or by systemd: without its store the sentinel would leave the message in doubt."""
    process = start(["simulator", "--port", "0"], tmp_path / "simulator")
    terminal.processes.append(process)
    simulator = Simulator(process)
    simulator.control(latency_ms=3000, reports=False)
    up = terminal.up()
    admin = requests.Session()
    admin.auth = ("admin", (terminal.folder / PASSWORD_FILE).read_text())
    admin.put(f"{up.url}/api/v1/credentials/africastalking.com:outgoing", data=OUTGOING_KEY).raise_for_status()
    sms = {"outgoing_service": "africas-talking", "africas_talking": {"base_url": simulator.url, "username": "sandbox"}}
    admin.put(f"{up.url}/api/v1/settings", json={"sms": sms}).raise_for_status()
    text = leaks.text("the machine goes down")
    admin.post(f"{up.url}/api/v1/messages", json={"to": number(), "message": text}).raise_for_status()
    eventually(lambda: simulator.messages(text), SOON)
    for pid in family(up.popen.pid):
        os.kill(pid, signal.SIGTERM)
    assert up.popen.wait(SOON) == 0
    with sqlite3.connect(terminal.folder / "couch" / "databases" / "medic.sqlite") as stored:
        bodies = [json.loads(body) for (body,) in stored.execute("SELECT body FROM bodies")]
    assert [task["state"] for body in bodies for task in body.get("tasks", [])] == ["sent"]


def test_a_terminal_that_is_gone_stops_them_all(terminal: Terminal) -> None:
    """The sentinel finishes its requests; killed, it would leave their messages in doubt."""
    up = terminal.up()
    others = family(up.popen.pid)[1:]
    assert up.stop(signal.SIGHUP) == 0
    assert not any(map(runs, others))


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    """A `mjumbe up` that ends by itself. What it shows to whoever plays with it is no log, and not kept."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MJUMBE_", "COUCH_"))}
    command = [sys.executable, "-m", "mjumbe.cli", "up", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=False, timeout=180
    )


def refusal(*arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and last line of one that cannot start."""
    done = run(*arguments, **environment)
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr.splitlines()[-1]


@pytest.mark.parametrize(("data", "reason"), [("/proc/nope", "No such file or directory"), ("file", "File exists")])
def test_data_that_cannot_be_made_is_said(data: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, says = refusal(MJUMBE_DATA=str(tmp_path / data))
    assert code == 1
    assert f"{tmp_path / data}/admin-password with the admin's password cannot be made or read ({reason})" in says


def test_what_is_wrong_with_the_command_is_said() -> None:
    assert refusal("--once") == (2, "Error: --once is for the demo message: say --demo as well")
    code, says = refusal(REQUESTS_CA_BUNDLE="/nope")
    assert (code, says.split(";")[0]) == (1, "Error: REQUESTS_CA_BUNDLE is /nope: there is no such file")


def test_a_password_file_that_a_full_disk_left_empty_gets_a_password(tmp_path: Path) -> None:
    (tmp_path / PASSWORD_FILE).touch()
    password = _admin_password(tmp_path)
    assert password
    assert _admin_password(tmp_path) == password


@pytest.mark.parametrize("content", [bytes(24), b"abc\xff\xfe"], ids=["zeros", "no-utf-8"])
def test_a_password_file_of_which_a_broken_disk_left_no_text_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / PASSWORD_FILE).write_bytes(content)
    assert refusal(MJUMBE_DATA=str(tmp_path)) == (
        1,
        f"mjumbe cannot start: the file {tmp_path / PASSWORD_FILE} holds no password that can be typed; remove it, and "
        "a new one is made",
    )


def test_the_password_is_for_our_user_alone_in_a_directory_that_all_may_read(tmp_path: Path) -> None:
    umask = os.umask(0)
    try:
        assert _admin_password(tmp_path) == (tmp_path / PASSWORD_FILE).read_text()
    finally:
        os.umask(umask)
    assert (tmp_path / PASSWORD_FILE).stat().st_mode & 0o777 == 0o600


def test_the_store_is_ours_where_couch_url_is_blank(terminal: Terminal) -> None:
    terminal.up(COUCH_URL=" ")
    assert (terminal.folder / PASSWORD_FILE).exists()


def test_a_demonstration_that_is_stopped_says_so(
    couch_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    simulator = start(["simulator", "--port", "0"], tmp_path / "output")
    demo = Demo({"COUCH_URL": couch_url, "MJUMBE_DATA": str(tmp_path)})
    stop = threading.Event()
    stop.set()
    try:
        demo.configure(simulator.url)
        assert not demo.play(simulator.url, stop)
    finally:
        simulator.stop()
    assert "Stopped before the answer was delivered" in capsys.readouterr().err


def test_a_demonstration_beside_a_database_whose_url_ends_with_a_slash(server_url: str) -> None:
    done = run("--demo", "--once", COUCH_URL=f"{server_url}/slashed/")
    assert done.returncode == 0, done.stderr
    assert not [name for name in Couch(f"{server_url}/x").request("GET", "/_all_dbs") if "slashed" in name]


def test_a_couch_url_that_leads_nowhere_is_said(terminal: Terminal) -> None:
    says = (
        "CouchDB at http://127.0.0.1:1 cannot be reached (Connection refused): start it, correct COUCH_URL, or unset it"
    )
    assert says in terminal.up(COUCH_URL="http://admin:x@127.0.0.1:1/medic").log()
