"""RapidPro: broadcasts, their messages to ask for, and what a flow posts for an incoming message."""

from __future__ import annotations

from collections import OrderedDict
from uuid import uuid4

from aiohttp import web

from simulator.callbacks import Callback, Kind
from simulator.exchange import Exchange, as_json, remember
from simulator.record import AcceptedMessage, ServiceRequest, iso
from simulator.twin import Quirk, Twin, json_body

_DENIED = {"detail": "Invalid token"}
_SCHEME = "tel:"
_FIRST = 1_000_000  # the first broadcast's id

QUIRKS = (
    Quirk("99400", "HTTP 400, the URN is refused", (400, {"urns": ["Invalid URN"]})),
    Quirk("99403", "HTTP 403", (403, _DENIED)),
    Quirk("99601", "stays wired", steps=("wired",)),
    Quirk("99602", "wired, then sent", steps=("wired", "sent")),
    Quirk("99603", "sent, then resent", steps=("sent", "resent")),
    Quirk("99604", "delivered at once", steps=("delivered",)),
    Quirk("99605", "errored, which RapidPro would send again", steps=("errored",)),
    Quirk("99606", "failed", steps=("failed",)),
    Quirk("99607", "read", steps=("wired", "delivered", "read")),
    Quirk("99609", "teleported, which nobody knows", steps=("teleported",)),
    Quirk("99700", "stays queued", steps=()),
)


class RapidPro(Twin):
    """One workspace. It tells nobody what becomes of messages: it is asked."""

    kind = Kind.RAPIDPRO
    quirks = QUIRKS
    usual_steps = ("wired", "sent", "delivered")

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._broadcasts: OrderedDict[int, AcceptedMessage] = OrderedDict()
        self._total = 0

    def routes(self) -> list[web.RouteDef]:
        """The service's routes."""
        carried = self.exchange.carried
        return [
            web.post("/api/v2/broadcasts.json", carried(self.send)),
            web.get("/api/v2/messages.json", carried(self.messages), allow_head=False),
            web.get("/api/v2/workspace.json", carried(self.workspace), allow_head=False),
        ]

    async def send(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /api/v2/broadcasts.json `{urns: [one], text}`; an `@@` in the text comes out as one `@`."""
        body = await json_body(request)
        self._admit(request, entry)
        urns, template = body.get("urns"), body.get("text")
        if not isinstance(urns, list) or len(urns) != 1 or not str(urns[0]).startswith(_SCHEME):
            return as_json({"urns": ["Invalid URN"]}, 400)
        if not isinstance(template, str) or not template:
            return as_json({"text": ["This field is required."]}, 400)
        broadcast = _FIRST + self._total
        number, text = str(urns[0]).removeprefix(_SCHEME), template.replace("@@", "@")
        message, steps = self.take(entry, number, text, str(broadcast))
        self._total += 1
        remember(self._broadcasts, broadcast, message)
        self.tell(steps, lambda step: self.untold(message, step))
        self.drop_if_told(entry)
        created = {"uuid": str(uuid4()), "id": broadcast, "urns": urns, "text": {"eng": template}, "status": "queued"}
        return as_json(created | {"contacts": [], "groups": [], "created_on": iso(message.accepted)}, 201)

    async def messages(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /api/v2/messages.json?broadcast=: its message, with the status."""
        self._admit(request, entry)
        broadcast = request.query.get("broadcast", "")
        message = self._broadcasts.get(int(broadcast)) if broadcast.isdecimal() else None
        results = []
        if message is not None:
            status = "queued" if message.status == "Accepted" else message.status
            results = [
                {
                    "id": message.n,
                    "broadcast": int(broadcast),
                    "urn": f"{_SCHEME}{message.to}",
                    "direction": "out",
                    "status": status,
                    "text": message.message,
                    "labels": [],
                    "attachments": [],
                    "quick_replies": [],
                    "created_on": iso(message.accepted),
                }
            ]
        return as_json({"next": None, "previous": None, "results": results})

    async def workspace(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /api/v2/workspace.json."""
        self._admit(request, entry)
        return as_json({"uuid": "6a44ca78-a4c2-4862-a7d3-2932f9b3a7c3", "name": "Simulator", "country": "KE"})

    def incoming(self, sender: str, text: str, message_id: str | None) -> tuple[str, Callback]:
        """What a flow posts for a message from a phone."""
        known = message_id or str(uuid4())
        return known, self.event({"id": known, "from": sender, "content": text})

    def _admit(self, request: web.Request, entry: ServiceRequest) -> None:
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        self.admit(entry, key if scheme == "Token" else None, as_json(_DENIED, 403))

    def _prove(self, body: bytes) -> dict[str, str]:
        return {"Authorization": f"Token {self._secret(self.exchange.config.rapidpro_key)}"}
