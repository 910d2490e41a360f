"""The load generator and the client against a server: what is counted, and what is said of a server that fails."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from bench.client import Client, RefusedError
from bench.generator import Run
from bench.load import Generator, Job, Kind, LoadError

ROOT = Path(__file__).parents[3]
STORED, REFUSED, OTHER, BROKEN = (201, b'{"ok":true}'), (507, b'{"ok":true}'), (201, b"[]"), (0, b"")


class Server(ThreadingHTTPServer):
    """Answers each request with what `answers` says of how many came before; BROKEN breaks the connection."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: dict[int, tuple[int, bytes]] = {}
        self.requests: list[tuple[str, str, int]] = []  # method, path, the client's port
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one piece: the second would wait for the first to be acknowledged

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            status, body = self.server.answers.get(len(self.server.requests), STORED)
            self.server.requests.append((self.command, self.path, self.client_address[1]))
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT

    def log_message(self, *_: object) -> None:
        """Nothing: every request is counted."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def generator() -> Iterator[Generator]:
    command = [sys.executable, "-m", "bench.generator"]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as popen:
        yield Generator(popen)
        assert popen.stdin is not None
        popen.stdin.close()
        assert popen.wait(60) == 0


def job(server: Server, connections: int, most: int) -> Job:
    return Job("put", f"{server.url}/db", connections, most, seconds=60.0, tag="t")


def test_every_request_is_sent_once_over_so_many_connections(server: Server, generator: Generator) -> None:
    answered = generator.run(job(server, connections=3, most=60))
    assert (answered.good, answered.wrong, answered.first_wrong) == (60, 0, "")
    assert 0 < answered.p50_ms <= answered.p99_ms
    assert answered.rate > 0
    assert len({path for _, path, _ in server.requests}) == len(server.requests) == 60
    assert len({port for _, _, port in server.requests}) == 3


def test_what_is_not_stored_is_counted_and_its_first_answer_told(server: Server, generator: Generator) -> None:
    server.answers = {30: REFUSED, 35: OTHER, 40: BROKEN}
    answered = generator.run(job(server, connections=2, most=60))
    assert (answered.good, answered.wrong, answered.first_wrong) == (57, 3, '507 {"ok":true}')
    server.requests.clear()
    server.answers = dict.fromkeys((30, 31), BROKEN)
    answered = generator.run(job(server, connections=2, most=60))
    assert (answered.good, answered.wrong) == (30, 2), "nobody is left to send more"
    assert answered.first_wrong == "the connection broke before the answer: closed"


def test_a_load_that_measured_nothing_is_no_result(server: Server, generator: Generator) -> None:
    with pytest.raises(LoadError, match="20 answers, which is no more than the warm-up"):
        generator.run(job(server, connections=1, most=20))
    nobody = Job("put", "http://127.0.0.1:1/db", 1, 60, 60.0, "t")
    with pytest.raises(LoadError, match="Connect call failed"):
        generator.run(nobody)
    assert generator.run(job(server, connections=1, most=21)).good == 21, "it goes on with the next"


@pytest.mark.parametrize(("kind", "connections", "warm"), [("put", 1, 20), ("put", 32, 64), ("bulk", 1, 1)])
def test_what_is_measured_begins_after_the_warm_up(
    monkeypatch: pytest.MonkeyPatch, kind: Kind, connections: int, warm: int
) -> None:
    """Of a hundred answers behind it the first ten come one a second, the others one a tenth of a second."""
    now, used = 0.0, 0.0
    monkeypatch.setattr("bench.generator.time.perf_counter", lambda: now)
    monkeypatch.setattr("bench.generator.time.process_time", lambda: used)
    run = Run(Job(kind, "http://127.0.0.1/db", connections, most=1_000, seconds=1_000.0, tag="t"))
    for n in range(-warm, 100):
        now += 1.0 if n < 10 else 0.1
        used += 0.9 if n < 0 else 0.038
        took = 5.0 if n < 0 else 1.0 if n > 97 else 0.02
        run.answered(507 if n == 98 else 201, b'{"ok":true}', now - took)
    answered = run.result()
    assert (answered.good, answered.wrong) == (warm + 99, 1)
    assert answered.rate == pytest.approx(100 / 19)
    assert answered.p50_ms == pytest.approx(20.0)
    assert answered.p99_ms == pytest.approx(1_000.0)
    assert answered.cpu_percent == pytest.approx(20.0)


def test_a_load_ends_with_its_time(server: Server, generator: Generator) -> None:
    with pytest.raises(LoadError, match="0 answers"):
        generator.run(Job("put", f"{server.url}/db", 1, 1_000, seconds=0.0, tag="t"))
    assert not server.requests


def test_a_client_keeps_its_connection_and_tells_what_is_refused(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.answers = {2: REFUSED, 3: BROKEN}
    client = Client(server.url)
    assert [client.json("PUT", "/x", {"a": 1}), client.json("GET", "/x")] == [{"ok": True}] * 2
    with pytest.raises(RefusedError, match=r"GET /x was answered 507: b'\{\"ok\":true\}'"):
        client.json("GET", "/x?key=secret")
    with pytest.raises(OSError):
        client.json("GET", "/x")
    assert client.json("GET", "/x") == {"ok": True}
    monkeypatch.setattr("bench.client.IDLE_SECONDS", 0.0)
    assert client.json("GET", "/x") == {"ok": True}
    ports = [port for _, _, port in server.requests]
    assert [ports.index(port) for port in ports] == [0, 0, 0, 0, 4, 5], "a new connection after a break, and a pause"
