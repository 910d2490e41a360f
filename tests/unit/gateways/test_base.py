"""HTTP to services: what each way of failing means, with real sockets where a mock would decide the question."""

import gzip
import json
import queue
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

from mjumbe.gateways import base, connections
from mjumbe.gateways.base import (
    Failure,
    FencedError,
    Http,
    Outcome,
    SendError,
    Wiring,
)
from mjumbe.settings import Settings

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SOON = 30.0


@contextmanager
def server(talk: Callable[[socket.socket], None]) -> Iterator[str]:
    """A server that does with its connections what `talk` says, one after the other."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def run() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    talk(connection)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(SOON)


def read_request(connection: socket.socket) -> bytes:
    """One POST of this module: it ends with `end`."""
    data = b""
    while not data.endswith(b"end"):
        piece = connection.recv(65536)
        if not piece:
            break
        data += piece
    return data


def http(read_timeout: float = SOON, fence: Callable[[], None] = lambda: None) -> Http:
    return Http(connect_timeout=5.0, read_timeout=read_timeout, pool=2, fence=fence)


def failed(client: Http, url: str) -> Outcome:
    with pytest.raises(SendError) as caught:
        client.json("POST", url, data="the end")
    return caught.value.outcome


# ---- no answer


def test_nobody_listens() -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        outcome = failed(http(), f"http://127.0.0.1:{closed.getsockname()[1]}")
    assert outcome == Outcome("no connection (Connection refused)", failure=Failure.RETRY, spent=False)


def test_a_name_that_nobody_has() -> None:
    assert failed(http(), "http://nobody.invalid").failure is Failure.RETRY


def test_closed_after_the_request_was_written() -> None:
    requests_seen: list[bytes] = []
    with server(lambda connection: requests_seen.append(read_request(connection))) as url:
        outcome = failed(http(), url)
    assert outcome == Outcome("the connection broke before the answer", failure=Failure.AMBIGUOUS)
    assert len(requests_seen) == 1, "a request whose answer is lost is not written again"


def test_closed_within_the_answer() -> None:
    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 201 Created\r\nContent-Length: 100\r\n\r\n{")

    with server(talk) as url:
        assert failed(http(), url).failure is Failure.AMBIGUOUS


def test_no_answer_in_time() -> None:
    done = threading.Event()

    def talk(connection: socket.socket) -> None:
        read_request(connection)
        done.wait(SOON)

    with server(talk) as url:
        outcome = failed(http(read_timeout=0.2), url)
        done.set()
    assert outcome == Outcome("no answer in time (ReadTimeout)", failure=Failure.AMBIGUOUS)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX-Slow: ", b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n"])
def test_an_answer_that_comes_byte_by_byte_ends(head: bytes) -> None:
    pause = threading.Event()

    def drip(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(head)
        with suppress(OSError):
            while not pause.wait(0.05):  # each within the timeout
                connection.sendall(b"1")

    with server(drip) as url:
        outcome = failed(http(read_timeout=1.0), url)
        pause.set()
    assert outcome.failure is Failure.AMBIGUOUS


def test_an_answer_without_end_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "LARGEST_ANSWER", 1_000_000)
    sent = 0

    def flood(connection: socket.socket) -> None:
        nonlocal sent
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        with suppress(OSError):
            while True:
                sent += connection.send(b"1" * 65_536)

    with server(flood) as url:
        outcome = failed(http(), url)
    assert outcome.failure is Failure.AMBIGUOUS
    assert sent < 100_000_000


def compressed(body: bytes, *, chunked: bool, times: int = 1) -> bytes:
    for _ in range(times):
        body = gzip.compress(body)
    encoding = ", ".join(["gzip"] * times)
    head = f"HTTP/1.1 201 Created\r\nContent-Encoding: {encoding}\r\n"
    if chunked:
        return f"{head}Transfer-Encoding: chunked\r\n\r\n{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("times", [1, 2])
def test_an_answer_that_is_large_when_it_is_unpacked_is_not_kept(
    monkeypatch: pytest.MonkeyPatch, chunked: bool, times: int
) -> None:
    monkeypatch.setattr(connections, "LARGEST_ANSWER", 1_000_000)
    answer = compressed(b" " * 100_000_000, chunked=chunked, times=times)
    assert len(answer) < 200_000
    with server(answering(answer)) as url:
        tracemalloc.start()
        outcome = failed(http(), url)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert outcome.failure is Failure.AMBIGUOUS
    assert peak < 20_000_000


@pytest.mark.parametrize("chunked", [False, True])
def test_nothing_compressed_is_asked_for_and_what_is_all_the_same_is_read(chunked: bool) -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        for _ in range(2):
            seen.append(read_request(connection))
            connection.sendall(compressed(b'{"a": 1}', chunked=chunked))

    client = http()
    with server(talk) as url:
        assert [client.json("POST", url, data="the end") for _ in range(2)] == [{"a": 1}] * 2
    assert b"Accept-Encoding: identity\r\n" in seen[0]
    assert len(seen) == 2, "by one connection"


def test_a_connection_serves_again() -> None:
    """With the time of its next request whole again, whatever the one before has used."""
    requests_seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        for _ in range(3):
            requests_seen.append(read_request(connection))
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    client = http()
    with server(talk) as url:
        assert [client.json("POST", url, data="the end") for _ in range(3)] == [{}] * 3
    assert len(requests_seen) == 3


def test_a_question_beside_the_messages_has_a_connection_of_its_own(caplog: pytest.LogCaptureFixture) -> None:
    """Thrown away and made again, it would cost a handshake each time, and a warning."""
    both = threading.Barrier(2)

    class Service(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            both.wait(SOON)
            self.send_response(200)
            self.send_header("Content-Length", "2")
            self.end_headers()
            self.wfile.write(b"{}")

        def log_message(self, *_: object) -> None:
            """Nothing."""

    section = Settings().sms.africas_talking.model_copy(update={"concurrency": 1})
    http = Wiring(Settings(), {}.get).http(section)
    with ThreadingHTTPServer(("127.0.0.1", 0), Service) as served, ThreadPoolExecutor() as threads:
        threads.submit(served.serve_forever)
        url = f"http://127.0.0.1:{served.server_port}"
        assert list(threads.map(lambda _: http.json("GET", url), range(2))) == [{}, {}]
        served.shutdown()
    assert "pool is full" not in caplog.text


def test_connecting_takes_too_long() -> None:
    # A listener whose queue is full leaves further connections unanswered.
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for client in waiting:
            client.setblocking(False)
            client.connect_ex(address)
        slow = Http(connect_timeout=0.3, read_timeout=SOON, pool=1)
        outcome = failed(slow, f"http://127.0.0.1:{address[1]}")
        for client in waiting:
            client.close()
    assert outcome == Outcome("no connection (ConnectTimeout)", failure=Failure.RETRY, spent=False)


def test_what_answers_is_no_http() -> None:
    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"220 mail.example ESMTP\r\n")

    with server(talk) as url:
        assert failed(http(), url).failure is Failure.AMBIGUOUS


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://", "http://[::1"])
def test_addresses_that_are_no_urls(url: str) -> None:
    assert failed(http(), url).failure is Failure.CONFIGURATION


# ---- answers


def answering(answer: bytes) -> Callable[[socket.socket], None]:
    def talk(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(answer)

    return talk


def test_an_answer() -> None:
    with server(answering(b'HTTP/1.1 201 Created\r\nContent-Length: 9\r\n\r\n{"a": 1}\n')) as url:
        assert http().json("POST", url, data="the end") == {"a": 1}


@pytest.mark.parametrize("headers", ["", "Content-Type: application/json\r\n", "Content-Type: text/html\r\n"])
def test_a_byte_order_mark_before_an_answer_is_none_of_it(headers: str) -> None:
    body = b'\xef\xbb\xbf{"a": "\xc3\xa9"}'
    answer = f"HTTP/1.1 201 Created\r\n{headers}Content-Length: {len(body)}\r\n\r\n".encode() + body
    with server(answering(answer)) as url:
        assert http().json("POST", url, data="the end") == {"a": "é"}


@pytest.mark.parametrize(
    "interim",
    ["103 Early Hints\r\nLink: </a>; rel=preload", "102 Processing", "100 Continue", "102 P\r\n\r\nHTTP/1.1 103 E"],
)
def test_the_answer_itself_comes_behind_an_interim_one(interim: str) -> None:
    """It was taken for the whole answer, and what came behind it for that of the connection's next request."""

    def talk(connection: socket.socket) -> None:
        for number in range(2):
            read_request(connection)
            connection.sendall(f"HTTP/1.1 {interim}\r\n\r\n".encode())
            connection.sendall(f"HTTP/1.1 201 Created\r\nContent-Length: 1\r\n\r\n{number}".encode())

    with server(talk) as url:
        client = http()
        assert [client.json("POST", url, data="the end") for _ in range(2)] == [0, 1]


def test_a_switch_of_protocols_is_no_interim_answer() -> None:
    with server(answering(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")) as url:
        assert failed(http(), url).details == "HTTP 101"


@pytest.mark.parametrize(("exempt", "asked"), [("", "proxy"), ("service.example", None)])
def test_the_environments_proxy_is_asked_but_for_whom_it_exempts(
    monkeypatch: pytest.MonkeyPatch, exempt: str, asked: str | None
) -> None:
    heads: list[bytes] = []

    def proxy(connection: socket.socket) -> None:
        heads.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    base._proxies.cache_clear()
    with server(proxy) as url:
        monkeypatch.setenv("http_proxy", url)
        monkeypatch.setenv("no_proxy", exempt)
        if asked:
            assert http().json("POST", "http://service.example/x", data="the end") == {}
            assert heads[0].startswith(b"POST http://service.example/x HTTP/1.1")
        else:
            assert failed(http(), "http://service.example/x").failure is Failure.RETRY
            assert heads == []
    base._proxies.cache_clear()


def test_a_proxy_that_nobody_is_at_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    base._proxies.cache_clear()
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{closed.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        outcome = failed(http(), "https://service.example/x")
    assert outcome == Outcome("no connection (by the proxy: Connection refused)", failure=Failure.RETRY, spent=False)
    base._proxies.cache_clear()


def test_no_netrc_takes_the_place_of_our_own_login(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    heads: list[bytes] = []

    def answer(connection: socket.socket) -> None:
        heads.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    (tmp_path / "netrc").write_text("default login somebody password else\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    with server(answer) as url:
        http().json("POST", url, data="the end", headers={"Authorization": "Token ours"})
    assert b"Authorization: Token ours" in heads[0]


def test_a_text_that_couchdb_would_refuse_is_made_one_that_it_takes() -> None:
    body = b'{"text": "half a \\ud83d"}'
    with server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))) as url:
        assert http().json("POST", url, data="the end") == {"text": "half a \ufffd"}


@pytest.mark.parametrize("body", [b"<html>", b"[" * 200_000 + b"]" * 200_000])
def test_a_success_that_is_no_json(body: bytes) -> None:
    with server(answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))) as url:
        outcome = failed(http(), url)
    assert outcome == Outcome("HTTP 200 with a body that is no JSON", failure=Failure.AMBIGUOUS)


def test_redirects_are_not_followed() -> None:
    seen: list[bytes] = []

    def talk(connection: socket.socket) -> None:
        seen.append(read_request(connection))
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n")

    with server(talk) as url:
        outcome = failed(http(), url)
    assert (outcome.failure, outcome.state) == (Failure.CONFIGURATION, None)
    assert "base_url" in outcome.details
    assert len(seen) == 1


def test_each_piece_of_an_answer_has_what_time_is_left_of_one_read(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, service = socket.socketpair()
    with ours, service:
        ours.settimeout(10.0)
        answer = connections._Bounded(ours)
        later = time.monotonic() + 6.0
        monkeypatch.setattr(connections, "time", SimpleNamespace(monotonic=lambda: later))
        service.sendall(b"x")
        assert answer.readinto(bytearray(1)) == 1
        assert ours.gettimeout() == pytest.approx(4.0, abs=1.0)
        answer.close()


# ---- the fence


def test_nothing_is_written_behind_the_fence() -> None:
    seen: list[bytes] = []

    def fence() -> None:
        raise FencedError("this sentinel no longer leads")

    with server(lambda connection: seen.append(read_request(connection))) as url, pytest.raises(FencedError):
        http(fence=fence).json("POST", url, data="the end")
    assert seen in ([], [b""])


def test_nothing_is_written_to_a_proxy_behind_the_fence(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bytes] = []

    def fence() -> None:
        raise FencedError("this sentinel no longer leads")

    with server(lambda connection: seen.append(read_request(connection))) as url:
        monkeypatch.setattr(base, "_proxies", lambda origin: {"http": url})
        with pytest.raises(FencedError):
            http(fence=fence).json("POST", "http://service.example", data="the end")
    assert seen in ([], [b""])


def test_a_request_cut_short_by_the_fence_is_none() -> None:
    """The lease runs out between the head and the body: the service never has a whole request."""
    seen: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    pieces: list[None] = []

    def fence() -> None:
        pieces.append(None)
        if len(pieces) > 1:
            raise FencedError("this sentinel no longer leads")

    with server(lambda connection: seen.put(read_request(connection))) as url:
        with pytest.raises(FencedError):
            http(fence=fence).json("POST", url, data="the end")
        assert b"the end" not in seen.get(timeout=SOON), "and the connection was closed, or this would wait"


# ---- secrets


@pytest.mark.parametrize("value", [None, ""])
def test_a_credential_that_nobody_stored(value: str | None) -> None:
    with pytest.raises(SendError) as caught:
        Wiring(Settings(), lambda _: value).secret("example.com:outgoing")
    assert caught.value.outcome == Outcome(
        "no credential example.com:outgoing; PUT it to /api/v1/credentials/example.com:outgoing",
        failure=Failure.CONFIGURATION,
    )


@pytest.mark.parametrize("value", ["k\ney", "ключ", "k\r\nX-Other: 1", "\x00"])
def test_a_credential_that_no_header_takes(value: str) -> None:
    with pytest.raises(SendError) as caught:
        Wiring(Settings(), lambda _: value).secret("example.com:outgoing")
    assert caught.value.outcome.failure is Failure.CONFIGURATION
    assert value not in caught.value.outcome.details


KEY = "an/out-key_1a2b"
SAID = {"message": f"the key {KEY} is wrong", KEY: [f"{KEY}{KEY}"]}
WITHOUT = {"message": "the key *** is wrong", "***": ["******"]}


@pytest.mark.parametrize("status", [200, 400, 401, 500])
@pytest.mark.parametrize("body", [json.dumps(SAID), json.dumps(SAID).replace("/", "\\/").replace("k", "\\u006b")])
def test_no_answer_tells_our_own_key(status: int, body: str) -> None:
    """Whichever way its JSON spells it."""
    wiring = Wiring(Settings(), lambda _: KEY)
    client = wiring.http(Settings().sms.textbee)
    heard: list[object] = []

    def refusal(_: requests.Response, body: object) -> Outcome:
        heard.append(body)
        return Outcome("no")

    head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n\r\n"
    with server(answering((head + body).encode())) as url:
        headers = {"X-Key": wiring.secret("example.com:outgoing")}
        with suppress(SendError):
            heard.append(client.json("POST", url, data="the end", headers=headers, refusal=refusal))
    assert heard == [WITHOUT]


def test_a_key_that_is_part_of_words_takes_nothing_out_of_them() -> None:
    wiring = Wiring(Settings(), lambda _: "key")
    wiring.secret("example.com:outgoing")
    with server(answering(b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n"the keyboard"')) as url:
        assert wiring.http(Settings().sms.textbee).json("POST", url, data="the end") == "the keyboard"
