"""The web server: connections, signals, ports, several workers."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from base64 import b64encode
from contextlib import closing, suppress
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests

from api import server
from api.headers import SECURITY_HEADERS
from api.server import CONNECTIONS
from mjumbe.couch import Couch
from tests.faults.rig import INCOMING, Form, incoming, kill_alone, numbers, post_all, stored
from tests.integration.conftest import StartApi
from tests.integration.processes import ROOT, VAULT_KEY, Process, eventually, family, runs


def connect(api: Process) -> socket.socket:
    return socket.create_connection(("127.0.0.1", api.port), timeout=30)


def healthy(api: Process, seconds: float = 30.0) -> bool:
    return requests.get(f"{api.url}/healthz", timeout=seconds).status_code == 200


def test_silent_connections_hold_up_nobody(api: Process) -> None:
    silent = [connect(api) for _ in range(80)]
    try:
        assert healthy(api)
    finally:
        for one in silent:
            one.close()


def test_many_idle_connections_are_kept(api: Process) -> None:
    idle = [http.client.HTTPConnection("127.0.0.1", api.port, timeout=30) for _ in range(200)]
    try:
        for _ in range(2):
            for one in idle:
                one.request("GET", "/healthz")
                answer = one.getresponse()
                answer.read()
                assert (answer.status, answer.getheader("Connection")) == (200, "keep-alive")
    finally:
        for one in idle:
            one.close()


HALVES = {
    "of a head": b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Le",
    "of a body": b"POST " + INCOMING.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nid=",
    "of nothing": b"",
}


@pytest.mark.parametrize("half", HALVES.values(), ids=HALVES)
def test_more_connections_than_we_keep_hold_up_nobody(start_api: StartApi, couch_url: str, half: bytes) -> None:
    """Who is silent longest makes room, wherever in a request."""
    api = start_api(couch_url)
    silent = []
    try:
        for _ in range(CONNECTIONS + 200):
            silent.append(connect(api))
            silent[-1].sendall(half)
        assert healthy(api)
    finally:
        for one in silent:
            one.close()
    eventually(lambda: keeps_an_idle_one(api))
    assert "Traceback" not in api.log()


def test_few_files_mean_few_connections(couch_url: str, tmp_path: Path) -> None:
    """One connection more than there are files for was a traceback a second, and nobody was answered."""
    environment = os.environ | {"COUCH_URL": couch_url, "MJUMBE_DATA": str(tmp_path), "MJUMBE_VAULT_KEY": VAULT_KEY}
    command = ["sh", "-c", 'ulimit -n 128; exec "$@"', "sh", sys.executable, "-m", "mjumbe.cli", "api", "--port", "0"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=pipe, stderr=pipe, text=True) as process:
        assert process.stdout is not None
        url = urlsplit(process.stdout.readline().removeprefix("API listening on ").strip())
        silent = []
        try:
            for _ in range(200):
                silent.append(socket.create_connection(("127.0.0.1", url.port or 0), timeout=30))
            assert requests.get(f"{url.geturl()}readyz", timeout=30).json()["checks"][0]["ok"]
        finally:
            for one in silent:
                one.close()
            process.terminate()
        _, errors = process.communicate(timeout=30)
    assert "few files may be open at once" in errors
    assert "Traceback" not in errors


def keeps_an_idle_one(api: Process) -> bool:
    """Whether a connection stays while another comes: there is room again."""
    with closing(http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)) as idle, suppress(OSError):
        for _ in range(2):
            idle.request("GET", "/healthz")
            idle.getresponse().read()
            assert healthy(api)
        return True
    return False


def test_half_a_request_holds_up_nobody(api: Process) -> None:
    halves = [connect(api) for _ in range(100)]
    try:
        for half in halves:
            half.sendall(b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Le")
        assert healthy(api)
    finally:
        for half in halves:
            half.close()
    assert "Traceback" not in api.log()


def raw(api: Process, request: bytes) -> bytes:
    """The answer to exact bytes, after which the client sends no more."""
    with closing(connect(api)) as client:
        client.sendall(request)
        client.shutdown(socket.SHUT_WR)
        answer = b""
        while chunk := client.recv(65536):
            answer += chunk
    return answer


CALLBACK = b"/api/v1/sms/africastalking/incoming-messages?key=the-key-in-the-url"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"POST " + CALLBACK + b" HTTP/9.9\r\n\r\n",
        b"POST " + CALLBACK + b" \r\n\r\n",
        b"POST " + CALLBACK + b"&x=" + b"y" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PO ST " + CALLBACK + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST " + CALLBACK + b" HTTP/1.1\r\nHost: x\r\nBad Header: x\r\n\r\n",
        b"POST " + CALLBACK + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\n",
    ],
)
def test_broken_requests_leak_no_key_and_end_nothing(api: Process, request_bytes: bytes) -> None:
    assert b" 200 " not in raw(api, request_bytes).split(b"\r\n")[0]
    assert healthy(api)
    assert "the-key-in-the-url" not in api.log()


GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
HEAD = b"HEAD /healthz HTTP/1.1\r\nHost: x\r\n\r\n"
CLOSING = b"HEAD /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


ASKED = b"GET /healthz HTTP/1.1\r\nHost: x\r\n"


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"nonsense\r\n\r\n", 400),
        (b"GET /" + b"x" * 9_000 + b" HTTP/1.1\r\n\r\n", 414),
        (ASKED + b"Expect: a miracle\r\n\r\n", 417),
        (ASKED + b"A: b\r\n" * 101 + b"\r\n", 431),
        (ASKED + b"Transfer-Encoding: braille\r\n\r\n", 501),
    ],
)
def test_what_is_no_request_is_answered_as_all_errors_are(api: Process, request_: bytes, status: int) -> None:
    head, _, body = raw(api, request_).partition(b"\r\n\r\n")
    line, *headers = head.decode().split("\r\n")
    assert line.startswith(f"HTTP/1.1 {status} ")
    assert json.loads(body).keys() == {"error", "reason"}
    assert {f"{name}: {value}" for name, value in SECURITY_HEADERS.items()} <= set(headers)


@pytest.mark.parametrize("request_bytes", [GET, HEAD, CLOSING], ids=["with a body", "without", "without, the last"])
def test_an_answer_comes_in_one_piece(api: Process, request_bytes: bytes) -> None:
    with closing(connect(api)) as client:
        client.sendall(request_bytes)
        head, _, body = client.recv(65536).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert bool(body) is (request_bytes == GET)


def test_requests_that_come_at_once_are_answered_in_their_order(api: Process) -> None:
    answers = raw(api, HEAD + HEAD + GET + HEAD + GET)
    heads = answers.split(b"HTTP/1.1 200 OK\r\n")
    assert heads.pop(0) == b""
    assert [one.partition(b"\r\n\r\n")[2] != b"" for one in heads] == [False, False, True, False, True]


@pytest.mark.parametrize(
    "tail",
    [
        b"Content-Length: 24\r\n\r\n" + b'{"phone":"254711000111"}',
        b"Transfer-Encoding: chunked\r\n\r\n18\r\n" + b'{"phone":"254711000111"}' + b"\r\n0\r\n\r\n",
    ],
)
def test_a_delete_may_have_a_body(api: Process, admin: tuple[str, str], tail: bytes) -> None:
    login = b64encode(":".join(admin).encode())
    head = b"DELETE /api/v1/opt-outs HTTP/1.1\r\nHost: x\r\nAuthorization: Basic " + login + b"\r\n"
    answer = raw(api, head + tail)
    assert b" 202 " in answer.split(b"\r\n")[0]
    assert b"+254711000111" in answer


@pytest.mark.parametrize(
    "tail",
    [
        b"Content-Length: 60\r\n\r\nid=cut-off-1&from=%2B254711000111&te",
        b"Transfer-Encoding: chunked\r\n\r\n24\r\nid=cut-off-1&from=%2B254711000111&te\r\n",
    ],
)
def test_a_body_that_is_cut_off_is_not_stored(api: Process, couch: Couch, admin: tuple[str, str], tail: bytes) -> None:
    """Stored, the whole message would be taken for a repetition when the service sends it again."""
    url = f"{api.url}/api/v1/credentials/africastalking.com:incoming"
    requests.put(url, auth=admin, data="the-key-in-the-url", timeout=30).raise_for_status()
    answer = raw(api, b"POST " + CALLBACK + b" HTTP/1.1\r\nHost: x\r\n" + tail)
    assert b" 200 " not in answer.split(b"\r\n")[0]
    assert couch.main.get("incoming:africas-talking:cut-off-1") is None


def test_sigterm_finishes_what_is_under_way(start_api: StartApi, couch_url: str) -> None:
    api = start_api(couch_url)
    with closing(http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)) as client:
        client.request("GET", "/healthz")
        client.getresponse().read()
        client.sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\n")
        api.popen.send_signal(signal.SIGTERM)
        client.sock.sendall(b"\r\n")
        assert client.sock.recv(65536).startswith(b"HTTP/1.1 200")
    assert api.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_it_stops_at_once_when_idle(start_api: StartApi, couch_url: str, number: signal.Signals) -> None:
    api = start_api(couch_url)
    with closing(http.client.HTTPConnection("127.0.0.1", api.port, timeout=30)) as kept:
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        began = time.monotonic()
        assert api.stop(number) == 0
    assert time.monotonic() - began < server.GRACEFUL
    assert "Traceback" not in api.log()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_kill_9_ends_its_workers_and_frees_its_port(start_api: StartApi, couch_url: str, workers: str) -> None:
    api = start_api(couch_url, "--workers", workers)
    assert healthy(api)
    _, *others = family(api.popen.pid)
    assert len(others) == int(workers)
    for pid in others:
        os.kill(pid, signal.SIGSTOP)  # it cannot notice by itself
    kill_alone(api)
    eventually(lambda: not any(map(runs, others)))
    assert healthy(start_api(couch_url, "--port", str(api.port), "--workers", workers))
    assert not counters(api), "what it left is removed"


def test_a_start_waits_shortly_for_its_port(start_api: StartApi, couch_url: str) -> None:
    """The process before it may be ending."""
    before = socket.create_server(("127.0.0.1", 0))
    threading.Timer(1.0, before.close).start()
    assert healthy(start_api(couch_url, "--port", str(before.getsockname()[1])))


def test_a_stop_under_webhooks_loses_nothing_that_it_acknowledged(
    start_api: StartApi, couch_url: str, couch: Couch, admin: tuple[str, str]
) -> None:
    api = start_api(couch_url)
    url = f"{api.url}/api/v1/credentials/africastalking.com:incoming"
    requests.put(url, auth=admin, data="the-key-in-the-url", timeout=30).raise_for_status()
    forms = [incoming(f"stop-{n}", sender, "HELP") for n, sender in enumerate(numbers(2_000))]
    acknowledged: list[str] = []

    def each(form: Form, status: int) -> None:
        if status == 200:
            acknowledged.append(form["id"])
            if len(acknowledged) == 100:
                api.popen.terminate()

    assert set(post_all(api.url + INCOMING, forms, 200, each, "the-key-in-the-url")) == {0, 200}
    assert api.popen.wait(30) == 0
    assert set(acknowledged) <= stored(couch.main, forms)
    assert "Traceback" not in api.log()


def counters(api: Process) -> list[Path]:
    """Where several workers count: in memory, for a file on a disk that is full would end them."""
    return list(Path("/dev/shm").glob(f"mjumbe-metrics-{api.popen.pid}-*"))


def test_several_workers_count_together(start_api: StartApi, couch_url: str) -> None:
    api = start_api(couch_url, "--workers", "2")
    [directory] = counters(api)
    assert directory.stat().st_mode & 0o777 == 0o700
    for _ in range(20):
        assert healthy(api)

    def counted() -> float:
        lines = requests.get(f"{api.url}/metrics", timeout=30).text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith("mjumbe_http_requests_total"))

    assert counted() >= 20
    assert counted() >= 21


def test_memory_that_is_full_holds_no_counters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(server.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv(server.METRICS_DIRECTORY, "")  # set anew, and taken back at the end
    monkeypatch.setattr(server.shutil, "disk_usage", lambda _: SimpleNamespace(free=0))
    server._share_metrics({})
    assert [Path(os.environ[server.METRICS_DIRECTORY])] == list(tmp_path.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT, signal.SIGKILL])
def test_a_worker_that_ends_is_replaced(start_api: StartApi, couch_url: str, number: signal.Signals) -> None:
    api = start_api(couch_url, "--workers", "2")
    assert healthy(api)
    parent, first, second = family(api.popen.pid)
    os.kill(first, number)
    eventually(lambda: len({*family(api.popen.pid)} - {first}) == 3)
    os.kill(second, number)
    eventually(lambda: len({*family(api.popen.pid)} - {first, second}) == 3)
    for _ in range(10):
        assert healthy(api)
    assert requests.get(f"{api.url}/metrics", timeout=30).ok
    assert family(api.popen.pid)[0] == parent
    assert "Traceback" not in api.log()


def ignores(pid: int, number: signal.Signals) -> bool:
    ignored = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("SigIgn:"))
    return bool(int(ignored.split()[1], 16) & 1 << number - 1)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_the_terminals_end_reach_the_workers_too_and_only_their_parent_acts(
    start_api: StartApi, couch_url: str, number: signal.Signals
) -> None:
    api = start_api(couch_url)
    assert healthy(api)  # the worker has come so far
    parent, *workers = family(api.popen.pid)
    assert [ignores(pid, number) for pid in (parent, *workers)] == [False, True]
    for pid in (*workers, parent):
        os.kill(pid, number)
    assert api.popen.wait(30) == 0
    assert "Traceback" not in api.log()


def test_sigusr2_starts_no_second_server(start_api: StartApi, couch_url: str) -> None:
    api = start_api(couch_url)
    assert ignores(api.popen.pid, signal.SIGUSR2)


def test_nohup_keeps_it_on(couch_url: str, tmp_path: Path) -> None:
    environment = os.environ | {"COUCH_URL": couch_url, "MJUMBE_DATA": str(tmp_path), "MJUMBE_VAULT_KEY": VAULT_KEY}
    command = ["nohup", sys.executable, "-m", "mjumbe.cli", "api", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("API listening on ")
        assert ignores(process.pid, signal.SIGHUP)
        process.terminate()
        process.communicate(timeout=30)
    assert process.returncode == 0


def test_an_address_of_ipv6_is_shown_as_a_url_has_it(couch_url: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this machine has no IPv6")
    environment = os.environ | {"COUCH_URL": couch_url, "MJUMBE_DATA": str(tmp_path), "MJUMBE_VAULT_KEY": VAULT_KEY}
    command = [sys.executable, "-m", "mjumbe.cli", "api", "--host", "::1", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().removeprefix("API listening on ").strip()
            assert requests.get(f"{url}healthz", timeout=30).status_code == 200
        finally:
            process.terminate()
            process.communicate(timeout=30)


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "mjumbe.cli", "api", *arguments],
        check=False,
        cwd=ROOT,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )


AWAY = {"COUCH_URL": "http://admin:pw@127.0.0.1:1/medic", "MJUMBE_VAULT_KEY": VAULT_KEY}


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        ("", {}, "COUCH_URL is not set"),
        ("--port 0", {"COUCH_URL": "nonsense"}, "COUCH_URL must be"),
        ("--port 0", AWAY | {"MJUMBE_VAULT_KEY": "short"}, "MJUMBE_VAULT_KEY"),
        ("--port {taken}", AWAY, "in use"),
        ("--port 0 --host 300.1.1.1", AWAY, "choose another --host"),
        ("--port 0 --host 192.0.2.1", AWAY, "choose another --host"),
        ("--port 70000", AWAY, "choose another --port"),
        ("--port 0 --host=", AWAY, "--host is empty"),
        ("--workers 0", AWAY, "--workers is 0; expected 1 or more"),
    ],
)
def test_what_is_wrong_at_the_start_is_said_in_a_sentence(
    api: Process, arguments: str, environment: dict[str, str], says: str
) -> None:
    result = run(*arguments.format(taken=api.port).split(), **environment)
    assert result.returncode != 0
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_an_output_that_takes_nothing_keeps_nobody_out(couch_url: str, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"COUCH_URL": couch_url, "MJUMBE_DATA": str(tmp_path), "MJUMBE_VAULT_KEY": VAULT_KEY}
    command = [sys.executable, "-m", "mjumbe.cli", "api", "--port", str(port)]
    with Path("/dev/full").open("w") as full:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=full, stderr=full)

    def answers() -> bool:
        assert process.poll() is None, "it ended"
        with suppress(requests.ConnectionError):
            return requests.get(f"http://127.0.0.1:{port}/healthz", timeout=30).status_code == 200
        return False

    try:
        eventually(answers)
    finally:
        process.terminate()
        process.wait(30)
