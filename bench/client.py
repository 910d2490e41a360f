"""One keep-alive connection for requests that are made one at a time: it costs less than what it measures."""

import http.client
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 120.0
IDLE_SECONDS = 30.0  # servers keep an idle connection for a minute or so


class RefusedError(RuntimeError):
    """An answer that is no success."""


@dataclass(frozen=True, slots=True)
class Timed:
    """A body with when its request was begun (s since epoch) and how long the answer took (s)."""

    body: bytes
    began: float
    seconds: float


class Client:
    """Not for several threads."""

    def __init__(self, url: str, headers: Mapping[str, str] | None = None) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.netloc, timeout=TIMEOUT_SECONDS)
        self._headers = dict(headers or {})
        self._used = time.monotonic()

    def send(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> Timed:
        """One request. Raises RefusedError for an answer that is not 2xx, OSError without an answer."""
        if time.monotonic() - self._used > IDLE_SECONDS:
            self._connection.close()  # the next request opens it again
        headers = {**self._headers, **({"Content-Type": kind} if body is not None else {})}
        began, clock = time.time(), time.perf_counter()
        try:
            self._connection.request(method, path, body, headers)
            response = self._connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            raise
        seconds = time.perf_counter() - clock
        self._used = time.monotonic()
        if not 200 <= response.status < 300:
            raise RefusedError(f"{method} {path.partition('?')[0]} was answered {response.status}: {answer[:300]!r}")
        return Timed(answer, began, seconds)

    def json(self, method: str, path: str, body: Any = None) -> Any:
        """The decoded answer to a JSON request."""
        return json.loads(self.timed_json(method, path, body).body)

    def timed_json(self, method: str, path: str, body: Any = None) -> Timed:
        """A JSON request; its body is made before the time begins."""
        return self.send(method, path, None if body is None else json.dumps(body).encode())
