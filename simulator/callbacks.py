"""Posting callbacks: forms or signed JSON, later or at once, and again when the receiver is down."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from sys import intern
from typing import Any
from urllib.parse import urlencode

import aiohttp

from simulator.control import Control, mask_url
from simulator.record import AcceptedMessage, CallbackPost, Record

log = logging.getLogger(__name__)

_AT_ONCE = 64  # posts under way, of those that were scheduled
_ANSWER_KEPT = 500  # characters of an answer that are recorded
_CHUNK = 4096


class Kind(StrEnum):
    """What a callback is about, and so which URL it goes to."""

    INCOMING = "incoming"
    REPORT = "report"
    OPT_OUT = "opt-out"
    SUBSCRIPTION = "subscription"
    TEXTBEE = "textbee"
    VIBER = "viber"
    RAPIDPRO = "rapidpro"
    UNTOLD = "untold"  # goes nowhere


_URL_FIELD = {
    Kind.INCOMING: "incoming_url",
    Kind.REPORT: "reports_url",
    Kind.OPT_OUT: "opt_out_url",
    Kind.SUBSCRIPTION: "subscription_url",
    Kind.TEXTBEE: "textbee_url",
    Kind.VIBER: "viber_url",
    Kind.RAPIDPRO: "rapidpro_url",
}


Prove = Callable[[bytes], dict[str, str]]
"""Makes of a body the headers that prove who posts it."""


@dataclass(frozen=True)
class Callback:
    """Something to tell the service's customer: a form, or JSON when there is something to `prove` it with."""

    kind: Kind
    fields: dict[str, Any]
    about: AcceptedMessage | None = None  # the message whose status this tells
    says: str | None = None  # that status
    url: str | None = None  # instead of the kind's own
    prove: Prove | None = None

    def encoded(self) -> tuple[bytes, dict[str, str]]:
        """The body and its headers."""
        if self.prove is None:
            body = urlencode(self.fields, errors="replace").encode()
            return body, {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
        body = json.dumps(self.fields, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
        return body, {"Content-Type": "application/json", **self.prove(body)}


@dataclass(frozen=True)
class Step:
    """A callback and how long to wait before it."""

    delay_s: float
    callback: Callback


class NoUrl(Exception):
    """There is nowhere to post this kind of callback."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(f"no {_URL_FIELD[kind]} is set: start with one, or PUT it to /control")


class Callbacks:
    """The callbacks of one simulator.

    At most `max_waiting` sequences wait for their time; what is scheduled beyond that is dropped, counted in `dropped`,
    and logged.
    """

    def __init__(
        self,
        record: Record,
        control: Callable[[], Control],
        timeout_s: float,
        retries_s: Sequence[float],
        max_waiting: int,
    ) -> None:
        self.waiting = 0
        self.dropped = 0
        self._record = record
        self._control = control
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)
        self._retries_s = tuple(retries_s)
        self._max_waiting = max_waiting
        self._round = 0  # what was scheduled in an earlier round is forgotten
        self._due: asyncio.Queue[tuple[int, tuple[Step, ...], int]] = asyncio.Queue()
        self._workers: list[asyncio.Task[None]] = []
        self._http: aiohttp.ClientSession

    async def start(self) -> None:
        """Be ready to post. Must run in the event loop that posts."""
        self._http = aiohttp.ClientSession(timeout=self._timeout, connector=aiohttp.TCPConnector(limit=0))
        self._workers = [asyncio.create_task(self._work()) for _ in range(_AT_ONCE)]

    async def stop(self) -> None:
        """Give up what is waiting or under way."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        await self._http.close()

    def forget(self) -> None:
        """Drop everything that waits for its time."""
        self._round += 1
        self.waiting = 0
        self.dropped = 0

    def schedule(self, steps: Sequence[Step]) -> None:
        """Post `steps` one after the other, each after its delay, counted from the end of the one before."""
        if not steps:
            return
        if self.waiting >= self._max_waiting:
            self.dropped += 1
            if self.dropped == 1:
                log.warning("more than %d callbacks wait to be posted: further ones are dropped", self._max_waiting)
            return
        self._after(steps[0].delay_s, tuple(steps), 1)

    async def post(self, callback: Callback) -> CallbackPost:
        """Post `callback` now and return what came of it; if that failed, it is tried again later.

        Raises NoUrl when there is nowhere to post it.
        """
        url = self._url(callback)
        if url is None:
            raise NoUrl(callback.kind)
        return await self._attempt(callback, url, 1)

    def _url(self, callback: Callback) -> str | None:
        if callback.url is not None or callback.kind not in _URL_FIELD:
            return callback.url
        url: str | None = getattr(self._control(), _URL_FIELD[callback.kind])
        return url

    def _after(self, delay_s: float, steps: tuple[Step, ...], attempt: int) -> None:
        self.waiting += 1
        item = (self._round, steps, attempt)
        asyncio.get_running_loop().call_later(delay_s, self._due.put_nowait, item)

    async def _work(self) -> None:
        while True:
            scheduled_in, steps, attempt = await self._due.get()
            if scheduled_in != self._round:
                continue
            self.waiting -= 1
            try:
                await self._run(steps, attempt)
            except Exception as error:  # the worker must go on; the error's words may hold a key
                log.error("a %s callback could not be posted: %s", steps[0].callback.kind.value, type(error).__name__)

    async def _run(self, steps: tuple[Step, ...], attempt: int) -> None:
        callback, rest = steps[0].callback, steps[1:]
        if callback.about is not None and callback.says is not None and attempt == 1:
            self._record.reported(callback.about, callback.says)
        url = self._url(callback)
        if url is not None:
            await self._attempt(callback, url, attempt)
        if rest:
            self._after(rest[0].delay_s, rest, 1)

    async def _attempt(self, callback: Callback, url: str, attempt: int) -> CallbackPost:
        posted_in = self._round
        sent, started = time.time(), time.perf_counter()
        status, answer, error = await self._request(callback, url)
        took_ms = (time.perf_counter() - started) * 1000
        post = CallbackPost(
            0, sent, callback.kind.value, mask_url(url), callback.fields, attempt, status, answer, error, took_ms
        )
        failed = status is None or status >= 500
        if posted_in == self._round:
            self._record.posted(post)
            if failed and attempt <= len(self._retries_s):
                self._after(self._retries_s[attempt - 1], (Step(0, callback),), attempt + 1)
        return post

    async def _request(self, callback: Callback, url: str) -> tuple[int | None, str | None, str | None]:
        body, headers = callback.encoded()
        headers["User-Agent"] = "simulator"
        try:
            async with self._http.post(url, data=body, headers=headers, allow_redirects=False) as response:
                answer = await response.content.read(_CHUNK)
                # Most answers are equal, and the record holds many.
                return response.status, intern(answer.decode(errors="replace")[:_ANSWER_KEPT]), None
        except TimeoutError:
            return None, None, f"no answer within {self._timeout.total} s"
        except (aiohttp.ClientError, OSError) as error:
            return None, None, f"{type(error).__name__}: {mask_url(str(error))}"
