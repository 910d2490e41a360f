"""Connections to services: a fence before each write, and an end to every answer."""

import http.client
import io
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any, cast

from requests import Response
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.exceptions import NewConnectionError, ProtocolError

LARGEST_ANSWER = 8 * 1024 * 1024  # bytes: as they come, with the head, and as they are when nothing is compressed

INTERIM = 101  # a switch of protocols, which nobody asks for, is the last answer; what is between it and 200 is not


class FencedAdapter(HTTPAdapter):
    """Connections that ask `fence` before each write. The body is written last, so a request cut short is none.

    An answer has the time of one read, and LARGEST_ANSWER bytes: one that comes byte by byte, each in time, would hold
    its request's place for as long as the service likes.
    """

    def __init__(self, fence: Callable[[], None], pool: int) -> None:
        self._fence = fence
        super().__init__(pool_connections=4, pool_maxsize=pool)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _fenced_pools(self._fence)

    def build_response(self, req: Any, resp: Any) -> Response:
        return super().build_response(req, cast(Any, _Unpacked(resp)))

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> Any:
        manager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _fenced_pools(self._fence)
        return manager


def _fenced_pools(fence: Callable[[], None]) -> dict[str, type[HTTPConnectionPool]]:
    class Plain(HTTPConnection):
        response_class = _Answer

        def send(self, data: Any) -> None:
            fence()
            super().send(data)

    class Secure(HTTPSConnection):
        response_class = _Answer

        def connect(self) -> None:
            try:
                super().connect()
            except OSError as error:  # of the handshake, for instance: nothing of the request is written yet
                raise NewConnectionError(self, f"no TLS: {error}") from error

        def send(self, data: Any) -> None:
            fence()
            super().send(data)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    return {"http": PlainPool, "https": SecurePool}


class _Answer(http.client.HTTPResponse):
    """An answer that must be whole within the timeout that its socket has."""

    def __init__(self, sock: socket.socket, *args: Any, **kwargs: Any) -> None:
        super().__init__(sock, *args, **kwargs)
        self.fp.close()
        self.fp = io.BufferedReader(_Bounded(sock))

    def begin(self) -> None:
        """Goes on to the answer itself behind interim ones (RFC 9110, 15.2), of which http.client knows only 100."""
        super().begin()
        while INTERIM < self.status < 200:
            self.headers = self.msg = cast(Any, None)  # what tells that nothing was read yet
            super().begin()


class _Unpacked:
    """An answer that has LARGEST_ANSWER bytes after decompression: a megabyte can be a thousand of spaces.

    We ask for nothing compressed; a server between us and the service may not care.
    """

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def stream(self, *arguments: Any, **options: Any) -> Iterator[bytes]:
        """The body's pieces. Raises ProtocolError when there are too many."""
        size = 0
        for piece in self._answer.stream(*arguments, **options):
            size += len(piece)
            if size > LARGEST_ANSWER:
                self._answer.close()
                raise ProtocolError(f"the answer has more than {LARGEST_ANSWER} bytes")
            yield piece

    def __getattr__(self, name: str) -> Any:
        return getattr(self._answer, name)


class _Bounded(io.RawIOBase):
    """What comes from a socket, until its timeout, counted from now, is over or there is too much."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._raw = sock.makefile("rb", buffering=0)
        seconds = sock.gettimeout()
        self._deadline = time.monotonic() + seconds if seconds is not None else None
        self._left = LARGEST_ANSWER

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Raises TimeoutError, or OSError when the answer is too large."""
        if self._deadline is not None:
            seconds = self._deadline - time.monotonic()
            if seconds <= 0:
                raise TimeoutError("the answer was not whole in time")
            self._socket.settimeout(seconds)
        count = self._raw.readinto(buffer)
        self._left -= count or 0
        if self._left < 0:
            raise OSError(f"the answer has more than {LARGEST_ANSWER} bytes")
        return count

    def close(self) -> None:
        self._raw.close()
        super().close()
