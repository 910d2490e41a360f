"""TextBee: its routes and its answers, with any device id; what phones send is in the inbox of every device."""

from __future__ import annotations

import secrets
import time
from collections import OrderedDict, deque
from typing import Any

from aiohttp import web

from simulator.callbacks import Callback, Kind
from simulator.exchange import REMEMBERED, Exchange, as_json, remember
from simulator.record import AcceptedMessage, ServiceRequest, iso
from simulator.twin import Quirk, Twin, json_body, signature

_API = "/api/v1/gateway"
_PAGE = 100
_UNAUTHORIZED = {"error": "Unauthorized"}
_BLANK = {"success": False, "error": "Message cannot be blank"}
_NO_RECIPIENTS = {"success": False, "error": "Invalid recipients"}
_DISABLED = {"success": False, "error": "Device does not exist or is not enabled"}
_NO_TOKEN = {
    "success": False,
    "message": "Failed to send SMS",
    "additionalInfo": {"code": "messaging/registration-token-not-registered"},
}


def _used_up(period: str, daily: int, monthly: int) -> dict[str, Any]:
    return {
        "message": f"You have reached your {period} limit, you only have 0 remaining",
        "hasReachedLimit": True,
        "dailyLimit": 50,
        "dailyRemaining": daily,
        "monthlyRemaining": monthly,
        "bulkSendLimit": 50,
        "monthlyLimit": 300,
    }


QUIRKS = (
    Quirk("99400", "HTTP 400, the message is refused", (400, _BLANK)),
    Quirk("99410", "HTTP 400, the device does not exist or is not enabled", (400, _DISABLED)),
    Quirk("99411", "HTTP 400, the device's Firebase token is not registered", (400, _NO_TOKEN)),
    Quirk("99420", "HTTP 429, the day's messages are used up", (429, _used_up("daily", 0, 120))),
    Quirk("99421", "HTTP 429, the month's messages are used up", (429, _used_up("monthly", 20, 0))),
    Quirk("99422", "HTTP 400, the day's messages are used up (older installations)", (400, _used_up("daily", 0, 120))),
    Quirk("99430", "HTTP 200 without success", (200, {"data": {"success": False}})),
    Quirk("99601", "sent, and no more", steps=("sent",)),
    Quirk("99602", "dispatched, which only the batch tells", steps=("dispatched",)),
    Quirk("99604", "delivered, without having been sent", steps=("delivered",)),
    Quirk("99605", "failed, NO_SERVICE", steps=("failed NO_SERVICE",)),
    Quirk("99606", "failed, RADIO_OFF", steps=("failed RADIO_OFF",)),
    Quirk("99607", "failed, SHORT_CODE_NOT_ALLOWED", steps=("failed SHORT_CODE_NOT_ALLOWED",)),
    Quirk("99608", "failed, PERMISSION_DENIED", steps=("failed PERMISSION_DENIED",)),
    Quirk("99609", "UNKNOWN_STATE", steps=("unknown",)),
    Quirk("99700", "nothing more is heard of it", steps=()),
    Quirk("99702", "delivered, told five times", steps=("delivered",) * 5),
    Quirk("99703", "delivered, then sent", steps=("delivered", "sent")),
)

_EVENTS = {
    "sent": "MESSAGE_SENT",
    "delivered": "MESSAGE_DELIVERED",
    "failed": "MESSAGE_FAILED",
    "unknown": "UNKNOWN_STATE",
}


class TextBee(Twin):
    """One customer's account."""

    kind = Kind.TEXTBEE
    quirks = QUIRKS
    usual_steps = ("sent", "delivered")

    def __init__(self, exchange: Exchange) -> None:
        super().__init__(exchange)
        self._batches: OrderedDict[str, tuple[AcceptedMessage, str]] = OrderedDict()
        self._inbox: deque[tuple[int, dict[str, Any]]] = deque(maxlen=REMEMBERED)
        self._inbox_total = 0

    def routes(self) -> list[web.RouteDef]:
        """The service's routes."""
        carried = self.exchange.carried
        return [
            web.get(f"{_API}/devices", carried(self.devices), allow_head=False),
            web.post(f"{_API}/devices/{{device}}/send-sms", carried(self.send)),
            web.get(f"{_API}/devices/{{device}}/sms-batch/{{batch}}", carried(self.batch), allow_head=False),
            web.get(f"{_API}/devices/{{device}}/messages", carried(self.latest), allow_head=False),
            web.get(f"{_API}/messages", carried(self.messages), allow_head=False),
        ]

    async def devices(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /gateway/devices: one device, `simulated`."""
        self._admit(request, entry)
        device = {"_id": "simulated", "enabled": True, "model": "simulator", "lastHeartbeat": iso(time.time())}
        return as_json({"data": [device]})

    async def send(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """POST /gateway/devices/<id>/send-sms `{message, recipients: [one]}`."""
        body = await json_body(request)
        self._admit(request, entry)
        text, recipients = body.get("message"), body.get("recipients")
        if not isinstance(text, str) or not text.strip():
            return as_json(_BLANK, 400)
        if not isinstance(recipients, list) or len(recipients) != 1 or not isinstance(recipients[0], str):
            return as_json(_NO_RECIPIENTS, 400)
        batch = secrets.token_hex(12)
        message, steps = self.take(entry, recipients[0], text, batch)
        sms_id = secrets.token_hex(12)
        remember(self._batches, batch, (message, sms_id))
        device = request.match_info["device"]
        self.tell(steps, lambda step: self._step(message, device, sms_id, step))
        self.drop_if_told(entry)
        words = "SMS added to queue for processing"
        return as_json({"data": {"success": True, "message": words, "smsBatchId": batch, "recipientCount": 1}}, 201)

    def _step(self, message: AcceptedMessage, device: str, sms_id: str, step: str) -> Callback:
        status, _, code = step.partition(" ")
        if status not in _EVENTS:
            return self.untold(message, step)
        fields = {
            "smsId": sms_id,
            "smsBatchId": message.message_id,
            "recipient": message.to,
            "message": message.message,
            "deviceId": device,
            "webhookEvent": _EVENTS[status],
            "idempotencyKey": f"{sms_id}:{_EVENTS[status]}",
        }
        if code:
            fields |= {"errorCode": code, "errorMessage": f"The phone said {code}"}
        return self.event(fields, message, step)

    async def batch(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /gateway/devices/<id>/sms-batch/<batch>: the batch and its message, with its status."""
        self._admit(request, entry)
        batch = request.match_info["batch"]
        if batch not in self._batches:
            return as_json({"error": "SMS batch not found"}, 404)
        message, sms_id = self._batches[batch]
        status, _, code = message.status.lower().partition(" ")
        row = {"_id": sms_id, "recipient": message.to, "message": message.message, "status": status}
        if code:
            row["errorCode"] = code.upper()
        return as_json({"data": {"batch": {"_id": batch, "recipientCount": 1}, "messages": [row]}})

    # -- what comes from phones

    def incoming(self, sender: str, text: str, message_id: str | None) -> tuple[str, Callback]:
        """Put a message into the inbox; returns its id and the webhook."""
        sms_id = message_id or secrets.token_hex(12)
        received = iso(time.time())
        self._inbox_total += 1
        row = {"_id": sms_id, "sender": sender, "message": text, "receivedAt": received, "type": "RECEIVED"}
        self._inbox.append((self._inbox_total, row))
        fields = {
            "smsId": sms_id,
            "sender": sender,
            "message": text,
            "receivedAt": received,
            "deviceId": "simulated",
            "webhookEvent": "MESSAGE_RECEIVED",
            "idempotencyKey": f"{sms_id}:MESSAGE_RECEIVED",
        }
        return sms_id, self.event(fields)

    async def messages(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /gateway/messages?cursor=: what was received, oldest first; `from` and the device are not looked at."""
        self._admit(request, entry)
        cursor = request.query.get("cursor", "")
        after = int(cursor) if cursor.isdecimal() else 0
        newer = [numbered for numbered in self._inbox if numbered[0] > after][:_PAGE]
        meta = {"nextCursor": str(newer[-1][0]) if len(newer) == _PAGE else None}
        return as_json({"data": [row for _, row in newer], "meta": meta})

    async def latest(self, request: web.Request, entry: ServiceRequest) -> web.Response:
        """GET /gateway/devices/<id>/messages: the older call, newest first."""
        self._admit(request, entry)
        rows = [row for _, row in reversed(self._inbox)][:_PAGE]
        return as_json({"data": rows, "meta": {"page": 1, "limit": _PAGE, "total": len(self._inbox)}})

    # -- who may ask, and how callbacks are proved

    def _admit(self, request: web.Request, entry: ServiceRequest) -> None:
        self.admit(entry, request.headers.get("x-api-key"), as_json(_UNAUTHORIZED, 401))

    def _prove(self, body: bytes) -> dict[str, str]:
        return {"X-Signature": signature(self._secret(self.exchange.config.textbee_secret), body)}
