"""Viber: a bot's calls and events. A person's id is their number in base64, so that both sides can be tried."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from typing import Any

from aiohttp import web

from simulator.callbacks import Callback, Kind
from simulator.control import changed, is_url
from simulator.exchange import as_json
from simulator.record import AcceptedMessage, ServiceRequest
from simulator.twin import Quirk, Twin, json_body, signature

_STATUSES = {
    1: "invalidUrl",
    2: "invalidAuthToken",
    3: "badData",
    4: "missingData",
    5: "receiverNotRegistered",
    6: "receiverNotSubscribed",
    7: "publicAccountBlocked",
    8: "publicAccountNotFound",
    9: "publicAccountSuspended",
    10: "webhookNotSet",
    11: "receiverNoSuitableDevice",
    12: "tooManyRequests",
    13: "apiVersionNotSupported",
    14: "incompatibleWithVersion",
    15: "publicAccountNotAuthorized",
    16: "inchatReplyMessageNotAllowed",
    17: "publicAccountIsNotInline",
    18: "noPublicChat",
    19: "cannotSendBroadcast",
    20: "broadcastNotAllowed",
    21: "unsupportedCountry",
    22: "paymentUnsupported",
    23: "freeMessagesExceeded",
    24: "noBalance",
    99: "generalError",  # of ours: a status that nobody knows
}


def _refused(status: int) -> dict[str, Any]:
    return {"status": status, "status_message": _STATUSES[status]}


QUIRKS = (
    *(
        Quirk(f"999{status:02}", f"status {status} {name}", (200, _refused(status)))
        for status, name in _STATUSES.items()
    ),
    Quirk("99601", "delivered, and never seen", steps=("delivered",)),
    Quirk("99606", "failed", steps=("failed",)),
    Quirk("99700", "nothing more is heard of it", steps=()),
    Quirk("99702", "delivered, told five times", steps=("delivered",) * 5),
)


class Viber(Twin):
    """One bot. Whoever is asked for `set_webhook` gets a `webhook` event first, as Viber does."""

    kind = Kind.VIBER
    quirks = QUIRKS
    usual_steps = ("delivered", "seen")

    def routes(self) -> list[web.RouteDef]:
        """The service's routes."""
        carried = self.exchange.carried
        return [
            web.post("/pa/send_message", carried(self.send)),
            web.post("/pa/get_account_info", carried(self.account)),
            web.post("/pa/set_webhook", carried(self.set_webhook)),
        ]

    async def send(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /pa/send_message."""
        body = await self._admitted(request, entry)
        receiver, text = body.get("receiver"), body.get("text")
        if body.get("type") != "text" or not isinstance(receiver, str) or not isinstance(text, str) or not text:
            return as_json(_refused(4))
        sender = body.get("sender")
        name = sender.get("name") if isinstance(sender, dict) else None
        if not isinstance(name, str) or not name or len(text) > 7000 or len(name) > 28:
            return as_json(_refused(3))
        number = number_of(receiver)
        if number is None:
            return as_json(_refused(5))
        token = new_token()
        message, steps = self.take(entry, number, text, str(token), name)
        self.tell(steps, lambda step: self._step(message, step))
        self.drop_if_told(entry)
        return as_json({"status": 0, "status_message": "ok", "message_token": token, "billing_status": 1})

    def _step(self, message: AcceptedMessage, step: str) -> Callback:
        fields = {
            "event": step,
            "timestamp": _now(),
            "message_token": int(message.message_id),
            "user_id": user_of(message.to),
        }
        if step == "failed":
            fields["desc"] = "the client did not take it"
        return self.event(fields, message, step)

    async def account(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /pa/get_account_info."""
        await self._admitted(request, entry)
        webhook = self.exchange.control.viber_url or ""
        return as_json({"status": 0, "status_message": "ok", "id": "pa:1", "name": "Simulator", "webhook": webhook})

    async def set_webhook(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /pa/set_webhook `{url}`: posts a `webhook` event there, and keeps it when the answer is 200. An empty
        one takes the webhook away."""
        body = await self._admitted(request, entry)
        url = body.get("url")
        if url == "":
            self.exchange.control = changed(self.exchange.control, {"viber_url": None})
            return as_json({"status": 0, "status_message": "ok"})
        if not is_url(url):
            return as_json(_refused(1))
        event = self.event({"event": "webhook", "timestamp": _now(), "message_token": new_token()})
        post = await self.exchange.callbacks.post(Callback(event.kind, event.fields, url=url, prove=event.prove))
        if post.status != 200:
            return as_json({"status": 1, "status_message": "Result code is not HTTP_OK"})
        self.exchange.control = changed(self.exchange.control, {"viber_url": url})
        return as_json({"status": 0, "status_message": "ok", "event_types": body.get("event_types") or []})

    def incoming(self, sender: str, text: str, message_id: str | None) -> tuple[str, Callback]:
        """What a person writes to the bot; `message_id` is a token, a whole number."""
        token = int(message_id) if message_id and message_id.isdecimal() else new_token()
        fields = {
            "event": "message",
            "timestamp": _now(),
            "message_token": token,
            "sender": {"id": user_of(sender), "name": f"Person {sender[-3:]}", "language": "en", "api_version": 1},
            "message": {"type": "text", "text": text},
        }
        return str(token), self.event(fields)

    async def _admitted(self, request: web.Request, entry: ServiceRequest) -> dict[str, Any]:
        """The body of a request with a right token, in the header or, as Viber's own Python client has it, the body."""
        body = await json_body(request)
        token = request.headers.get("X-Viber-Auth-Token") or body.get("auth_token")
        self.admit(entry, token if isinstance(token, str) else None, as_json(_refused(2)))
        return body

    def _prove(self, body: bytes) -> dict[str, str]:
        return {"X-Viber-Content-Signature": signature(self._secret(self.exchange.config.viber_token), body)}


def user_of(number: str) -> str:
    """The bot's id of the person with this number."""
    return base64.b64encode(number.encode()).decode("ascii")


def number_of(user: str) -> str | None:
    """The number of the person with this id, None for an id that was never given."""
    try:
        return base64.b64decode(user, validate=True).decode()
    except (binascii.Error, ValueError):
        return None


def new_token() -> int:
    """A message token; they exceed 2^53, and programs that read them as floating point lose digits."""
    return 2**62 + secrets.randbits(60) | 1


def _now() -> int:
    return int(time.time() * 1000)
