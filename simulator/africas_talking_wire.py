"""What Africa's Talking reads and writes: the forms, the JSON, the XML, the plain-text errors.

Facts are from its public documentation. The plain-text errors are those of the HTTP toolkit it is built with.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from urllib.parse import parse_qsl
from xml.sax.saxutils import escape

from aiohttp import web

from simulator.exchange import Refused, as_json, plain
from simulator.record import ServiceRequest

MISSING_KEY = "Request is missing required HTTP header 'apiKey'"
WRONG_KEY = "The supplied authentication is invalid"
NOT_FOUND = "The requested resource could not be found."

SANDBOX_NETWORK = "99999"
NETWORKS = {  # the first network of each country, by country code
    "+254": "63902",
    "+256": "64110",
    "+255": "64004",
    "+250": "63510",
    "+234": "62130",
    "+265": "65001",
}
_NUMBER = re.compile(r"\+[1-9]\d{6,14}", re.ASCII)
_BARE_NUMBER = re.compile(r"[1-9]\d{8,14}", re.ASCII)  # international, its plus lost
_NOT_IN_XML = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\ufffe\uffff]")
SHOWN = frozenset({"username", "to", "message", "from", "linkId"})  # what the record shows by names of its own
_FORM = "application/x-www-form-urlencoded"


@dataclass(frozen=True)
class Send:
    """A request to send `message` to every number of `to`. `options` are the form's other fields."""

    to: tuple[str, ...]
    message: str
    sender: str | None
    link_id: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipient:
    """One row of a send answer."""

    status_code: int
    number: str
    status: str
    cost: str = "0"
    message_id: str = "None"
    parts: int = 0

    def shown(self) -> dict[str, str | int]:
        """The row with Africa's Talking's names and order."""
        return {
            "statusCode": self.status_code,
            "number": self.number,
            "status": self.status,
            "cost": self.cost,
            "messageId": self.message_id,
            "messageParts": self.parts,
        }


@dataclass(frozen=True)
class IncomingMessage:
    """A message from a phone, as the inbox and the webhook tell it. `number` is the inbox's id."""

    number: int
    id: str
    sender: str
    to: str
    text: str
    date: str
    link_id: str | None


# -- reading


def is_number(number: str) -> bool:
    """Whether `number` is `+` and 7 to 15 digits."""
    return _NUMBER.fullmatch(number) is not None


def normalised(number: str) -> str:
    """`number` with its plus, where only that is missing (an unescaped + in a form arrives as a space)."""
    number = number.strip()
    return f"+{number}" if _BARE_NUMBER.fullmatch(number) else number


async def form(request: web.Request) -> dict[str, str]:
    """The fields of a form-urlencoded body in UTF-8; the last of equal names wins. Refuses another type with 415."""
    if request.content_type != _FORM:
        raise Refused(plain(415, f"The request's Content-Type is not supported. Expected:\n{_FORM}"))
    text = (await request.read()).decode("ascii", errors="replace")
    return dict(parse_qsl(text, keep_blank_values=True, errors="replace"))


async def bulk_body(request: web.Request) -> dict[str, Any]:
    """The body of /bulk: `username`, `message`, `phoneNumbers` and perhaps `senderId`. Refuses another with 400."""
    try:
        body = json.loads(await request.read())
    except ValueError:
        raise Refused(plain(400, "The request content was malformed:\nnot JSON")) from None
    if not isinstance(body, dict):
        raise Refused(plain(400, "The request content was malformed:\nObject expected"))
    for name in ("username", "message"):
        if not isinstance(body.get(name), str):
            raise Refused(plain(400, f"The request content was malformed:\nObject is missing required member '{name}'"))
    numbers = body.get("phoneNumbers")
    if not isinstance(numbers, list) or not numbers or not all(isinstance(number, str) for number in numbers):
        reason = "Object is missing required member 'phoneNumbers'"
        raise Refused(plain(400, f"The request content was malformed:\n{reason}"))
    return body


def require(fields: Mapping[str, str], *names: str, kind: str = "form field") -> None:
    """Refuse with 400 when one of `names` is missing or empty."""
    for name in names:
        if not fields.get(name):
            raise Refused(plain(400, f"Request is missing required {kind} '{name}'"))


def integer(text: str, name: str) -> int:
    """The query parameter `name` as a whole number. Refuses another value with 400."""
    try:
        return int(text)
    except ValueError:
        reason = f"The query parameter '{name}' was malformed:\n'{text}' is not a valid 64-bit signed integer value"
        raise Refused(plain(400, reason)) from None


def describe(entry: ServiceRequest, send: Send) -> None:
    """Put what was asked for into the record."""
    entry.to, entry.message, entry.sender, entry.link_id = send.to, send.message, send.sender, send.link_id
    entry.options = send.options


# -- writing


def summary(recipients: list[Recipient], asked: int, cost: Decimal) -> str:
    """The `Message` of a send answer, e.g. `Sent to 1/2 Total Cost: KES 0.8000`."""
    sent = sum(recipient.message_id != "None" for recipient in recipients)
    return f"Sent to {sent}/{asked} Total Cost: {f'KES {cost:.4f}' if sent else '0'}"


def answer(request: web.Request, value: dict[str, Any], status: int) -> web.Response:
    """`value` as XML, or as JSON when the request's Accept names it."""
    if "application/json" in request.headers.get("Accept", "").lower():
        return as_json(value, status)
    text = f"<AfricasTalkingResponse>{_xml(value)}</AfricasTalkingResponse>"
    body = text.encode(errors="replace")
    return web.Response(status=status, body=body, content_type="application/xml", charset="utf-8")


def _xml(value: Any) -> str:
    if isinstance(value, dict):
        return "".join(f"<{name}>{_xml_items(name, item)}</{name}>" for name, item in value.items())
    return escape(_NOT_IN_XML.sub("\N{REPLACEMENT CHARACTER}", str(value)))


def _xml_items(name: str, value: Any) -> str:
    """The inside of an element: a list `Recipients` holds elements `Recipient`."""
    if isinstance(value, list):
        return "".join(f"<{name[:-1]}>{_xml(item)}</{name[:-1]}>" for item in value)
    return _xml(value)


def utc(seconds: float) -> str:
    """Seconds since the epoch as Africa's Talking writes dates: `2017-05-03T06:04:45Z`."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def subscription_fields(number: str, short_code: str, keyword: str, update: str) -> dict[str, str]:
    """The subscription webhook's fields; `update` is `addition` or `deletion`."""
    return {"phoneNumber": number, "shortCode": short_code, "keyword": keyword, "updateType": update}
