"""The page with a phone: HTML from the server, and a little script that keeps it fresh. It works without the script."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from simulator.africas_talking import AfricasTalking
from simulator.callbacks import Callback, Kind
from simulator.desk import Desk, integer
from simulator.exchange import Exchange, json_text
from simulator.phones import Message, TypedMessage
from simulator.record import ServiceRequest, iso

_STATIC = Path(__file__).parent / "static"
_DEFAULT_NUMBER = "+254711000001"
_NUMBERS_SHOWN = 20
_REQUESTS_SHOWN = 10
_RECIPIENTS_SHOWN = 3
_MAX_WAIT_MS = 60_000
_SWITCHES = {
    "down": "down: connections are closed at once",
    "unauthorized": "every key is wrong (401)",
    "no_balance": "no balance (405 for every recipient)",
    "never_answer": "never answers",
    "drop_after_accept": "accepts, then drops the connection",
    "reports": "makes delivery reports",
}
_POLICY = "default-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


class Page:
    """The page with the phone of one simulator."""

    def __init__(self, exchange: Exchange, service: AfricasTalking, desk: Desk) -> None:
        self.exchange = exchange
        self.service = service
        self.desk = desk
        self._template = Template((_STATIC / "phone.html").read_text("utf-8"))

    def routes(self) -> list[web.AbstractRouteDef]:
        """The page, its form, what its script asks for, and its script and style."""
        return [
            web.get("/", self.show),
            web.post("/", self.send),
            web.get("/phone", self.follow),
            web.static("/static", _STATIC),
        ]

    async def show(self, request: web.Request) -> web.Response:
        """GET /?number=: the phone with that number."""
        state = self._state(request.query.get("number") or _DEFAULT_NUMBER)
        html = self._template.substitute(
            version=state["version"],
            number=escape(state["number"]),
            short_code=escape(self.exchange.config.short_code),
            username=escape(self.exchange.config.username),
            numbers="".join(f'<option value="{escape(number)}"></option>' for number in state["numbers"]),
            messages="".join(map(_message_item, state["messages"])),
            switches="\n".join(_switch(name, words, state["control"][name]) for name, words in _SWITCHES.items()),
            latency_ms=state["control"]["latency_ms"],
            counts=escape(state["counts"]),
            requests="".join(map(_request_item, state["requests"])),
        )
        body = html.encode(errors="replace")
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    async def follow(self, request: web.Request) -> web.Response:
        """GET /phone?number=&after=&timeout_ms=: what the page shows, as soon as its version is not `after`."""
        after = integer(request.query, "after", -1, -1, 2**53)
        timeout_ms = integer(request.query, "timeout_ms", 0, 0, _MAX_WAIT_MS)
        await self.exchange.wait_until(lambda: self.exchange.bell.version != after, timeout_ms / 1000)
        return json_text(self._state(request.query.get("number", "")))

    async def send(self, request: web.Request) -> web.Response:
        """POST / with `number` and `text`: the phone sends an SMS; back to the page."""
        form = await request.post()
        number, text = str(form.get("number", "")).strip(), str(form.get("text", ""))
        if number:
            message, fields = self.service.receive(number, text)
            typed = self.exchange.phones.typed(number, message.to, text)
            await self.desk.deliver(typed, Callback(Kind.INCOMING, fields))
        raise web.HTTPSeeOther(f"/?{urlencode({'number': number})}")

    def _state(self, number: str) -> dict[str, Any]:
        exchange = self.exchange
        return {
            "version": exchange.bell.version,
            "number": number,
            "numbers": exchange.phones.numbers(_NUMBERS_SHOWN),
            "messages": [_message(message) for message in exchange.phones.conversation(number)],
            "requests": [_request(entry) for entry in reversed(exchange.record.requests.last(_REQUESTS_SHOWN))],
            "counts": _counts(exchange.record.counts()),
            "control": exchange.control.shown(),
        }


def _message(message: Message) -> dict[str, Any]:
    if isinstance(message, TypedMessage):
        mine, text, at = True, message.text, message.typed
        words = ("to", message.to, "at", iso(at)[11:19], "·", message.status)
    else:
        mine, text, at = False, message.message, message.accepted
        sender = ("from", message.sender) if message.sender else ()
        words = (*sender, "at", iso(at)[11:19], "·", message.status)
    return {"mine": mine, "text": text, "words": " ".join(words)}


def _request(entry: ServiceRequest) -> dict[str, str]:
    more = len(entry.to) - _RECIPIENTS_SHOWN
    return {
        "line": f"{iso(entry.received)[11:23]} {entry.method} {entry.path}",
        "status": str(entry.status) if entry.status is not None else (entry.fault or "…"),
        "to": ", ".join(entry.to[:_RECIPIENTS_SHOWN]) + (f" and {more} more" if more > 0 else ""),
    }


def _counts(counts: dict[str, Any]) -> str:
    posted = sum(kind["posted"] for kind in counts["callbacks"].values())
    return f"{counts['requests']} requests · {counts['accepted']} messages accepted · {posted} callbacks posted"


def _message_item(message: dict[str, Any]) -> str:
    side = "mine" if message["mine"] else "theirs"
    return f'<li class="{side}"><p>{escape(message["text"])}</p><small>{escape(message["words"])}</small></li>'


def _request_item(row: dict[str, str]) -> str:
    return f"<li><code>{escape(row['line'])}</code><b>{escape(row['status'])}</b><span>{escape(row['to'])}</span></li>"


def _switch(name: str, words: str, on: bool) -> str:
    checked = " checked" if on else ""
    return f'<label><input type="checkbox" name="{name}"{checked}> {escape(words)}</label>'
