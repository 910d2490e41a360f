"""The telephone exchange: what the twins of all services share, and how each of their requests is carried."""

from __future__ import annotations

import asyncio
import json
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from aiohttp import web

from simulator.bell import Bell
from simulator.callbacks import Callbacks
from simulator.config import SimulatorConfig
from simulator.control import Control
from simulator.number_faults import RETRY_AFTER_S, NumberFault, Way
from simulator.phones import Phones
from simulator.record import Record, ServiceRequest

CLIENT_LEFT = "the client closed the connection"
SERVER_ERROR = "There was an internal server error."
TOO_MANY = "Too many requests"
NOT_JSON = "<html><head><title>502 Bad Gateway</title></head><body><h1>502 Bad Gateway</h1></body></html>"

Answer = Callable[[web.Request, ServiceRequest], Awaitable[web.Response]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

Key = TypeVar("Key")
Value = TypeVar("Value")

REMEMBERED = 10_000  # of what a service was told, of each kind
_ROUNDING = 1e-9
_SECRET_HEADERS = frozenset({"apikey", "x-api-key", "authorization", "x-viber-auth-token", "cookie"})


class Refused(Exception):
    """The request is answered with `response` and goes no further."""

    def __init__(self, response: web.Response) -> None:
        super().__init__(response.status)
        self.response = response


class Dropped(Exception):
    """The connection is closed without an answer; the argument says why."""


class Held(Exception):
    """The connection is held open and never answered; the argument says why."""


class Exchange:
    """The state of one simulator. `control` is replaced as a whole when a switch changes."""

    def __init__(self, config: SimulatorConfig) -> None:
        self.config = config
        self.control = Control.at_start(config)
        self.bell = Bell()
        self.record = Record(config.record_size, self.bell)
        self.phones = Phones()
        self.stopping = asyncio.Event()
        self.callbacks = Callbacks(
            self.record,
            lambda: self.control,
            config.callback_timeout_ms / 1000,
            [milliseconds / 1000 for milliseconds in config.callback_retries_ms],
            config.record_size,
        )
        self._error_share = 0.0

    def carried(self, answer: Answer) -> Handler:
        """Make a route's handler of `answer`: recorded, counted, delayed, and dropped or held as the faults say."""

        async def handler(request: web.Request) -> web.StreamResponse:
            headers = tuple((n, v) for n, v in request.headers.items() if n.lower() not in _SECRET_HEADERS)
            entry = self.record.arrived(request.method, request.path, headers)
            with self.record.in_flight():
                try:
                    if self.control.down:
                        raise Dropped("down")
                    response = await self._answered(answer, request, entry)
                    if self.control.latency_ms:
                        await asyncio.sleep(self.control.latency_ms / 1000)
                except Dropped as fault:
                    self.record.unanswered(entry, str(fault))
                    return _closed(request)
                except Held as fault:
                    self.record.unanswered(entry, str(fault))
                    await self.stopping.wait()
                    return _closed(request)
                except asyncio.CancelledError:
                    self.record.unanswered(entry, CLIENT_LEFT)
                    raise
            self.record.answered(entry, response.status)
            return response

        return handler

    def fail_as_told(self) -> None:
        """Raise what the switches `never_answer` and `error_rate` ask for, once a request was read."""
        control = self.control
        if control.never_answer:
            raise Held("never_answer")
        self._error_share += control.error_rate
        if self._error_share > 1 - _ROUNDING:
            self._error_share -= 1
            raise Refused(plain(control.error_status, SERVER_ERROR))

    def knows(self, key: str) -> bool:
        """Whether a customer's key is right."""
        return key in self.config.keys if self.config.keys else not key.startswith("wrong")

    async def wait_until(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Whether `reached()` held within `timeout_s` seconds; returns early when the simulator stops."""
        await self.bell.wait_until(lambda: reached() or self.stopping.is_set(), timeout_s)
        return reached()

    async def _answered(self, answer: Answer, request: web.Request, entry: ServiceRequest) -> web.Response:
        try:
            return await answer(request, entry)
        except Refused as refused:
            return refused.response
        except web.HTTPRequestEntityTooLarge as error:
            return plain(error.status, error.text or error.reason)


def refuse(fault: NumberFault) -> None:
    """Raise the way in which `fault` leaves a request without an answer, before anything is accepted."""
    match fault.way:
        case Way.NEVER:
            raise Held(fault.name)
        case Way.DROP_BEFORE:
            raise Dropped(fault.name)
        case Way.ERROR_500:
            raise Refused(plain(500, SERVER_ERROR))
        case Way.TOO_MANY_429:
            raise Refused(plain(429, TOO_MANY, {"Retry-After": str(RETRY_AFTER_S)}))
        case Way.NOT_JSON:
            raise Refused(web.Response(status=200, text=NOT_JSON, content_type="text/html"))


def remember(values: OrderedDict[Key, Value], key: Key, value: Value) -> None:
    """Keep a value among the newest REMEMBERED."""
    values[key] = value
    if len(values) > REMEMBERED:
        values.popitem(last=False)


def _closed(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()  # goes nowhere: aiohttp wants something to write to the closed connection


def plain(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    """An answer in plain text."""
    return web.Response(status=status, text=text, headers=headers)


def as_json(value: Any, status: int = 200) -> web.Response:
    """A service's answer in compact JSON."""
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    return web.Response(status=status, body=body, content_type="application/json")


def json_text(value: Any, status: int = 200) -> web.Response:
    """An answer in JSON, escaped to ASCII so that a lone surrogate in a recorded text cannot break it."""
    return web.json_response(value, status=status)
