"""An HTTP server in the place of every SMS service, which answers at random. What it says comes from wires.py.

Here is what may happen to any answer on its way: statuses of all kinds, broken JSON, cut-off bodies, silence.
"""

import json
import random
import socket
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.generated.services.books import Books, Deed, Said

# A status → what it says of the messages in the request. 504 and 524 are a proxy's, which got no answer.
STATUSES = {
    400: Said.FINAL,
    **dict.fromkeys((401, 403, 404, 405, 407, 410), Said.HELD),
    **dict.fromkeys((408, 429, 500, 501, 502, 503), Said.PASSING),
    **dict.fromkeys((504, 524), Said.UNCLEAR),
    **dict.fromkeys((301, 302, 307, 418), Said.ODD),
}
# How an answer to a message that was perhaps taken gets lost. "late": only when who asked has gone.
LOSSES = ("closed", "cut", "late", "drips", "no JSON", "half", "empty", "null", "list", "text", "no gzip", "no UTF-8")
GARBLED = {
    "no JSON": b"<html><body>Welcome to the captive portal</body></html>",
    "empty": b"",
    "null": b"null",
    "list": b"[]",
    "text": b'"accepted"',
    "no UTF-8": b'{"a": "\xff\xfe',
}


@dataclass(frozen=True)
class Request:
    """What was asked."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def form(self) -> dict[str, str]:
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    """What is answered, and how it comes through."""

    content: Any = None
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None  # in place of `content` in JSON
    way: str = "whole"  # whole, slow, or one of LOSSES
    deeds: tuple[Deed, ...] = ()  # what it tells of


@dataclass(frozen=True)
class Trouble:
    """What comes in the place of a good answer, what that says, and whether the service took the messages."""

    said: Said
    taken: bool
    status: int | None = None
    retry_after: int | None = None
    way: str = "whole"

    def spoil(self, good: Answer) -> Answer:
        if self.status is None:
            return replace(good, way=self.way)
        headers = {"Location": "/elsewhere"} if 300 <= self.status < 400 else {}
        if self.retry_after is not None:
            headers["Retry-After"] = str(self.retry_after)
        return replace(good, content={"message": "no"}, status=self.status, headers=headers)


def trouble(chance: random.Random, rate: float = 0.3) -> Trouble | None:
    """What befalls a request, if anything: a status, or a lost answer."""
    if chance.random() > rate:
        return None
    if chance.random() < 0.5:
        return Trouble(Said.UNCLEAR, chance.random() < 0.6, way=chance.choice(LOSSES))
    kind = chance.choice((Said.FINAL, Said.HELD, Said.PASSING, Said.PASSING, Said.PASSING, Said.UNCLEAR, Said.ODD))
    status = chance.choice([status for status, said in STATUSES.items() if said is kind])
    waits = chance.randrange(3) if status in (429, 503) and chance.random() < 0.5 else None
    taken = kind is Said.UNCLEAR and chance.random() < 0.5
    return Trouble(Said.ODD if waits is not None else kind, taken, status, waits)


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked is gone, killed perhaps; anything else is in the books."""


class Server:
    """All services at one address, each below its own path. `read_timeout`: how long who asks waits for an answer."""

    def __init__(self, books: Books, services: "Mapping[str, Any]", read_timeout: float) -> None:
        self.books = books
        handler = type("Handler", (_Handler,), {"books": books, "services": services, "read_timeout": read_timeout})
        self._server = _Listener(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    books: Books
    services: Mapping[str, Any]
    read_timeout: float
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        began = time.monotonic()
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, parts.path, dict(parse_qsl(parts.query)), headers, body)
        name = parts.path.split("/")[1]
        service = self.services.get(name)
        if service is None:
            self.books.wonder(f"nobody is at {parts.path}")
            self._write(Answer({}, 404))
            return
        try:
            answer = service.answer(replace(request, path=parts.path.removeprefix(f"/{name}")))
        except Exception as error:  # a request that no service would understand
            self.books.wonder(f"{name} was asked what it cannot read: {error!r}")
            raise
        try:
            self._write(answer)
        except OSError:
            self._is_unclear(answer)
        if time.monotonic() - began > self.read_timeout / 2:
            self._is_unclear(answer)  # who asked may have gone: a slow machine's fault

    do_POST = do_GET

    def _is_unclear(self, answer: Answer) -> None:
        for deed in answer.deeds:
            deed.said = Said.UNCLEAR

    def _write(self, answer: Answer) -> None:
        body = json.dumps(answer.content).encode() if answer.body is None else answer.body
        headers = dict(answer.headers)
        if answer.way in GARBLED:
            body = GARBLED[answer.way]
        if answer.way == "half":
            body = body[: len(body) // 2]
        if answer.way == "no gzip":
            headers["Content-Encoding"] = "gzip"
        if answer.way == "late":
            self._wait_until_gone()
        if answer.way in ("closed", "late"):
            self.close_connection = True
            return
        if answer.way == "slow":
            time.sleep(0.3)
        head = [f"HTTP/1.1 {answer.status} Whatever", f"Content-Length: {len(body)}", "Content-Type: application/json"]
        head += [f"{name}: {value}" for name, value in headers.items()]
        self.wfile.write("\r\n".join([*head, "", ""]).encode())
        if answer.way == "cut":
            self.wfile.write(body[:-1])
            self.close_connection = True
        elif answer.way == "drips":
            self._drip(body)
        else:
            self.wfile.write(body)

    def _wait_until_gone(self) -> None:
        """Until who asked has closed the connection, weary of waiting."""
        self.connection.settimeout(60)
        try:
            self.connection.recv(1)
        except OSError:
            return

    def _drip(self, body: bytes) -> None:
        """Byte by byte, each in time, and never the last ones."""
        self.close_connection = True
        ends = time.monotonic() + 3 * self.read_timeout
        for byte in body[:-1]:
            self.wfile.write(bytes([byte]))
            time.sleep(self.read_timeout / 10)
            if time.monotonic() > ends:
                break
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the books have it all."""
