"""The page with a phone: HTML from the server, a little script to keep it fresh. It works without the script too."""

from __future__ import annotations

from html import escape
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import urlencode

from aiohttp import web

from simulator.africas_talking import AfricasTalking
from simulator.callbacks import Callback, Kind
from simulator.desk import Desk
from simulator.exchange import Exchange

_STATIC = Path(__file__).parent / "static"
_DEFAULT_NUMBER = "+254711000001"
_SWITCHES = {
    "down": "down: connections are closed at once",
    "unauthorized": "every key is wrong (401)",
    "no_balance": "no balance (405 for every recipient)",
    "never_answer": "never answers",
    "drop_after_accept": "accepts, then drops the connection",
    "reports": "makes delivery reports",
}
_POLICY = "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'"


class Page:
    """The page with the phone of one simulator."""

    def __init__(self, exchange: Exchange, service: AfricasTalking, desk: Desk) -> None:
        self.exchange = exchange
        self.service = service
        self.desk = desk
        self._template = Template((_STATIC / "phone.html").read_text("utf-8"))

    def routes(self) -> list[web.AbstractRouteDef]:
        """The page, its form, and its script and style."""
        return [web.get("/", self.show), web.post("/", self.send), web.static("/static", _STATIC)]

    async def show(self, request: web.Request) -> web.Response:
        """GET /?number=: the phone with that number."""
        state = self.desk.phone_state(request.query.get("number") or _DEFAULT_NUMBER)
        html = self._template.substitute(
            number=escape(state["number"]),
            short_code=escape(self.exchange.config.short_code),
            username=escape(self.exchange.config.username),
            numbers="".join(f'<option value="{escape(number)}"></option>' for number in state["numbers"]),
            messages="".join(map(_message, state["messages"])),
            switches="".join(_switch(name, words, state["control"][name]) for name, words in _SWITCHES.items()),
            latency_ms=state["control"]["latency_ms"],
            requests="".join(map(_request, state["requests"])),
        )
        body = html.encode(errors="replace")
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-store"}
        return web.Response(body=body, content_type="text/html", charset="utf-8", headers=headers)

    async def send(self, request: web.Request) -> web.Response:
        """POST / with `number` and `text`: the phone sends an SMS; back to the page."""
        form = await request.post()
        number, text = str(form.get("number", "")).strip(), str(form.get("text", ""))
        if number:
            _, fields = self.service.receive(number, text, to=None, link_id=None, message_id=None, date=None)
            await self.desk.deliver_typed(Callback(Kind.INCOMING, fields))
        raise web.HTTPSeeOther(f"/?{urlencode({'number': number})}")


def _message(message: dict[str, Any]) -> str:
    side = "mine" if message["mine"] else "theirs"
    words = " · ".join(filter(None, (message["other"], message["at"][11:19], message["status"])))
    return f'<li class="{side}"><p>{escape(message["text"])}</p><small>{escape(words)}</small></li>'


def _switch(name: str, words: str, on: bool) -> str:
    checked = " checked" if on else ""
    return f'<label><input type="checkbox" name="{name}"{checked}> {escape(words)}</label>'


def _request(entry: dict[str, Any]) -> str:
    status = entry["status"] if entry["status"] is not None else (entry["fault"] or "…")
    to = ", ".join(entry["to"][:3]) + (f" and {len(entry['to']) - 3} more" if len(entry["to"]) > 3 else "")
    line = f"{entry['at'][11:23]} {entry['method']} {entry['path']}"
    return f"<li><code>{escape(line)}</code> <b>{escape(str(status))}</b> <span>{escape(to)}</span></li>"
