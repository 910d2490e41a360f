"""The simulator's own endpoints, in JSON: the switches, the record, and what to post to the customer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiohttp import web

from simulator.africas_talking import AfricasTalking
from simulator.africas_talking_wire import subscription_fields
from simulator.callbacks import Callback, Kind, NoUrl
from simulator.control import BadField, changed, is_url
from simulator.exchange import Exchange, Handler, json_text
from simulator.phones import TypedMessage
from simulator.record import CallbackPost, Ring
from simulator.twin import Twin

_LIMIT = 1_000
_MAX_LIMIT = 100_000
_WAIT_MS = 10_000
_MAX_WAIT_MS = 120_000
_MAX_REPEAT = 10_000


class Desk:
    """The operator's desk of one simulator."""

    def __init__(self, exchange: Exchange, service: AfricasTalking, twins: Sequence[Twin]) -> None:
        self.exchange = exchange
        self.service = service
        self._twins = {twin.kind.value: twin for twin in twins}

    def routes(self) -> list[web.RouteDef]:
        """The routes, none of them recorded or counted."""
        return [
            web.get("/control", self.show_control),
            web.put("/control", self.change_control),
            web.get("/requests", self.requests),
            web.delete("/requests", self.forget),
            web.get("/messages", self.messages),
            web.get("/callbacks", self.callbacks),
            web.get("/counts", self.counts),
            web.post("/incoming", self.incoming),
            web.post("/incoming/{service}", self.incoming_elsewhere),
            web.post("/events/{service}", self.event),
            web.post("/reports", self.report),
            web.post("/opt-out", self.opt_out),
            web.post("/subscription", self.subscription),
        ]

    # -- switches

    async def show_control(self, request: web.Request) -> web.Response:
        """GET /control: every switch; secrets in URLs are masked."""
        return json_text(self.exchange.control.shown())

    async def change_control(self, request: web.Request) -> web.Response:
        """PUT /control: the switches to change; answers with all of them."""
        self.exchange.control = changed(self.exchange.control, await _body(request))
        self.exchange.bell.ring()
        return json_text(self.exchange.control.shown())

    # -- record

    async def requests(self, request: web.Request) -> web.Response:
        """GET /requests?since=&limit=&last=&wait_for=&timeout_ms="""
        return await self._listed(request, "requests", self.exchange.record.requests)

    async def messages(self, request: web.Request) -> web.Response:
        """GET /messages with the same parameters: what was accepted, one entry a recipient."""
        return await self._listed(request, "messages", self.exchange.record.messages)

    async def callbacks(self, request: web.Request) -> web.Response:
        """GET /callbacks with the same parameters: what was posted, one entry an attempt."""
        return await self._listed(request, "callbacks", self.exchange.record.callbacks)

    async def forget(self, request: web.Request) -> web.Response:
        """DELETE /requests: forgets the record and the counts, and drops callbacks that wait for their time."""
        self.exchange.callbacks.forget()
        self.exchange.record.clear()
        return json_text({"ok": True})

    async def counts(self, request: web.Request) -> web.Response:
        """GET /counts."""
        callbacks = self.exchange.callbacks
        waiting = {"callbacks_waiting": callbacks.waiting, "callbacks_dropped": callbacks.dropped}
        return json_text(self.exchange.record.counts() | waiting)

    async def _listed(self, request: web.Request, name: str, ring: Ring[Any]) -> web.Response:
        query = request.query
        limit = integer(query, "limit", _LIMIT, 1, _MAX_LIMIT)
        wait_for = integer(query, "wait_for", 0, 0, 2**53)
        timeout_s = integer(query, "timeout_ms", _WAIT_MS, 0, _MAX_WAIT_MS) / 1000
        reached = await self.exchange.wait_until(lambda: ring.total >= wait_for, timeout_s)
        if "last" in query:
            entries = ring.last(integer(query, "last", _LIMIT, 1, _MAX_LIMIT))
        else:
            entries = ring.since(integer(query, "since", 0, 0, 2**53), limit)
        return json_text({name: [entry.shown() for entry in entries], "total": ring.total, "reached": reached})

    # -- callbacks

    async def incoming(self, request: web.Request) -> web.Response:
        """POST /incoming `{from, text, to?, linkId?, id?, date?, repeat?, concurrency?, url?}`."""
        body = await _body(request)
        sender, text = _text(body, "from"), _text(body, "text", empty=True)
        message, fields = self.service.receive(
            sender,
            text,
            to=_optional(body, "to"),
            link_id=_optional(body, "linkId"),
            message_id=_optional(body, "id"),
            date=_optional(body, "date"),
        )
        typed = self.exchange.phones.typed(sender, message.to, text)
        answers = await self.deliver(typed, Callback(Kind.INCOMING, fields, url=_url(body)), *_times(body))
        return json_text({"id": message.id, "link_id": message.link_id, "answers": answers})

    async def incoming_elsewhere(self, request: web.Request) -> web.Response:
        """POST /incoming/textbee, /viber or /rapidpro `{from, text, id?, repeat?, concurrency?, url?}`."""
        twin, body = self._twin(request), await _body(request)
        sender, text = _text(body, "from"), _text(body, "text", empty=True)
        message_id, callback = twin.incoming(sender, text, _optional(body, "id"))
        typed = self.exchange.phones.typed(sender, twin.kind.value, text)
        answers = await self.deliver(typed, replace(callback, url=_url(body)), *_times(body))
        return json_text({"id": message_id, "answers": answers})

    async def event(self, request: web.Request) -> web.Response:
        """POST /events/textbee, /viber or /rapidpro `{event: {…}, repeat?, concurrency?, url?}`: posts it, proved."""
        twin, body = self._twin(request), await _body(request)
        fields = body.get("event")
        if not isinstance(fields, dict):
            raise BadField("event", "a JSON object, as the service posts it")
        return await self._posted(replace(twin.event(fields), url=_url(body)), body)

    def _twin(self, request: web.Request) -> Twin:
        name = request.match_info["service"]
        if name not in self._twins:
            raise BadField("service", f"one of {', '.join(self._twins)}, in the path")
        return self._twins[name]

    async def deliver(
        self, typed: TypedMessage, callback: Callback, repeat: int = 1, concurrency: int = 1
    ) -> list[dict[str, Any]]:
        """Post an incoming message, if there is somewhere to post it, and show on its phone what became of it.

        Without an incoming_url it is only in the inbox, and there are no answers.
        """
        self.exchange.bell.ring()
        try:
            posts = await self._post(callback, repeat, concurrency)
        except NoUrl:
            posts = []
        _settle(typed, posts)
        self.exchange.bell.ring()
        return [_outcome(post) for post in posts]

    async def report(self, request: web.Request) -> web.Response:
        """POST /reports `{id, status, phoneNumber?, networkCode?, failureReason?, retryCount?, repeat?, …}`."""
        body = await _body(request)
        number = _optional(body, "phoneNumber") or ""
        fields = {
            "phoneNumber": number,
            "retryCount": _optional(body, "retryCount") or "0",
            "id": _text(body, "id"),
            "status": _text(body, "status"),
            "networkCode": _optional(body, "networkCode") or self.service.network_of(number),
        }
        if (reason := _optional(body, "failureReason")) is not None:
            fields["failureReason"] = reason
        return await self._posted(Callback(Kind.REPORT, fields, url=_url(body)), body)

    async def opt_out(self, request: web.Request) -> web.Response:
        """POST /opt-out `{phoneNumber, senderId?, repeat?, …}`."""
        body = await _body(request)
        fields = {
            "senderId": _optional(body, "senderId") or self.exchange.config.short_code,
            "phoneNumber": _text(body, "phoneNumber"),
        }
        return await self._posted(Callback(Kind.OPT_OUT, fields, url=_url(body)), body)

    async def subscription(self, request: web.Request) -> web.Response:
        """POST /subscription `{phoneNumber, keyword, shortCode?, updateType?, repeat?, …}`."""
        body = await _body(request)
        fields = subscription_fields(
            _text(body, "phoneNumber"),
            _optional(body, "shortCode") or self.exchange.config.short_code,
            _text(body, "keyword"),
            _optional(body, "updateType") or "addition",
        )
        return await self._posted(Callback(Kind.SUBSCRIPTION, fields, url=_url(body)), body)

    async def _posted(self, callback: Callback, body: Mapping[str, Any]) -> web.Response:
        posts = await self._post(callback, *_times(body))
        return json_text({"answers": [_outcome(post) for post in posts]})

    async def _post(self, callback: Callback, repeat: int, concurrency: int) -> list[CallbackPost]:
        """Post the same callback `repeat` times, `concurrency` of them at once."""
        turn = asyncio.Semaphore(concurrency)

        async def once() -> CallbackPost:
            async with turn:
                return await self.exchange.callbacks.post(callback)

        return list(await asyncio.gather(*(once() for _ in range(repeat))))


def _settle(typed: TypedMessage, posts: list[CallbackPost]) -> None:
    if not posts:
        typed.status = "in the inbox: there is no URL to post it to"
    elif posts[0].status is None:
        typed.status = "no answer"
    else:
        typed.status = f"answered {posts[0].status}"


def _outcome(post: CallbackPost) -> dict[str, Any]:
    return {"status": post.status, "answer": post.answer, "error": post.error, "took_ms": round(post.took_ms, 3)}


@web.middleware
async def errors_in_json(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer bad fields with 400 and a callback that has no URL with 409; refuse what another site's page sends."""
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        return json_text({"error": f"a page of {origin} may not use this simulator"}, 403)
    try:
        return await handler(request)
    except BadField as error:
        return json_text({"error": str(error), "field": error.field, "expected": error.expected}, 400)
    except NoUrl as error:
        return json_text({"error": str(error)}, 409)


async def _body(request: web.Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise BadField("body", "a JSON object") from None
    if not isinstance(body, dict):
        raise BadField("body", "a JSON object")
    return body


def _text(body: Mapping[str, Any], name: str, *, empty: bool = False) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not (value or empty):
        raise BadField(name, "a string" if empty else "a string that is not empty")
    return value


def _optional(body: Mapping[str, Any], name: str) -> str | None:
    return None if body.get(name) is None else _text(body, name, empty=True)


def _url(body: Mapping[str, Any]) -> str | None:
    url = _optional(body, "url")
    if url is not None and not is_url(url):
        raise BadField("url", "an http:// or https:// URL with its whole key")
    return url


def _times(body: Mapping[str, Any]) -> tuple[int, int]:
    times = []
    for name in ("repeat", "concurrency"):
        value = body.get(name, 1)
        if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_REPEAT:
            raise BadField(name, f"a whole number from 1 to {_MAX_REPEAT}")
        times.append(value)
    return times[0], times[1]


def integer(query: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    """The query parameter `name` as a whole number, or BadField."""
    try:
        value = int(query.get(name, default))
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise BadField(name, f"a whole number from {least} to {most}")
    return value
