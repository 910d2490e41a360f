"""TextBee, an Android phone as gateway: https://api.textbee.dev and installations of its own.

An answer has no id for each recipient, only one for the whole request: so a request has one recipient, and the
request's `smsBatchId` is the message's reference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from typing import Any
from urllib.parse import quote

import requests

from mjumbe.documents import DeliveryReport, IncomingMessage
from mjumbe.gateways.base import (
    Batch,
    CallbackRecord,
    CallbackRequest,
    Callbacks,
    Check,
    Definition,
    Failure,
    Gateway,
    Inbox,
    Matches,
    Outcome,
    SendError,
    Wiring,
    ask_each,
    dig,
    failed_check,
    hmac_sha256,
    objects,
    sending_outcome,
)
from mjumbe.settings import Settings
from mjumbe.states import State

NAME = "textbee"
OUTGOING_CREDENTIAL = "textbee:outgoing"  # the API key
INCOMING_CREDENTIAL = "textbee:incoming"  # the webhook's signing secret

API = "https://api.textbee.dev/api/v1"

# What a message's `status` says. Any other keeps the state.
STATES: Mapping[str, State] = {
    "accepted": State.RECEIVED_BY_GATEWAY,
    "pending": State.RECEIVED_BY_GATEWAY,
    "dispatched": State.FORWARDED_BY_GATEWAY,
    "sent": State.SENT,
    "delivered": State.DELIVERED,
    "failed": State.FAILED,
}

# The status that a webhook's event tells of. Any other event says nothing to us.
RECEIVED = "MESSAGE_RECEIVED"
EVENTS: Mapping[str, str] = {
    "MESSAGE_SENT": "sent",
    "MESSAGE_DELIVERED": "delivered",
    "MESSAGE_FAILED": "failed",
    "UNKNOWN_STATE": "unknown",
}

# A failed message's errorCode, by its beginning, without Android's own "RESULT_ERROR_".
ERRORS: Mapping[str, Failure] = {
    "NO_SERVICE": Failure.RETRY,
    "RADIO_OFF": Failure.RETRY,
    "NETWORK": Failure.RETRY,
    "LIMIT_EXCEEDED": Failure.RETRY,
    "SHORT_CODE_": Failure.PERMANENT,
    "NULL_PDU": Failure.PERMANENT,
    "PERMISSION_DENIED": Failure.CONFIGURATION,
    "FCM": Failure.CONFIGURATION,
    "MESSAGING/": Failure.CONFIGURATION,  # Firebase's words: messaging/registration-token-not-registered
}

# A 400 whose body has one of these, in lower case, is the device's trouble and not the message's.
DEVICE_TROUBLE = ("does not exist or is not enabled", "fcm", "messaging/", "registration-token", "permission_denied")

UNLIMITED = -1
PAGE = 100
MOST_PAGES = 20  # of one look into the inbox
# Without a cursor: not the whole history of a phone, whose messages would all be answered.
FIRST_LOOK = timedelta(days=1)
PAID_UP = timedelta(hours=1)  # after which an exhausted plan may be a larger one


class TextBee(Gateway):
    """One device."""

    def __init__(self, wiring: Wiring) -> None:
        section = wiring.settings.sms.textbee
        self._wiring = wiring
        self._api = section.base_url or API
        self._device_id = section.device_id
        self._device = f"{self._api}/gateway/devices/{quote(section.device_id, safe='')}"
        self._http = wiring.http(section)

    def send(self, batch: Batch) -> list[Outcome]:
        """One request; sms.textbee.batch_size is 1."""
        body = {"message": batch.text, "recipients": list(batch.recipients)}
        url = f"{self._device}/send-sms"
        answer = self._http.json("POST", url, json=body, headers=self._headers(), refusal=refused)
        return [read_answer(answer)] * len(batch.recipients)

    def check(self) -> Check:
        """The list of devices, in which ours must be, and enabled."""
        try:
            answer = self._get(f"{self._api}/gateway/devices")
        except SendError as error:
            return failed_check("TextBee", "the API key", self._api, error)
        device = next((row for row in objects(dig(answer, "data")) if row.get("_id") == self._device_id), None)
        if device is None:
            return Check(False, "TextBee took the API key, but has no device with the id in sms.textbee.device_id")
        if not device.get("enabled"):
            return Check(False, "TextBee took the API key, but the device is not enabled; enable it in the app")
        return Check(True, f"TextBee took the API key; the device was last heard of {_heard_of(device)}")

    def statuses(self, refs: Sequence[str]) -> list[DeliveryReport]:
        """One request a reference."""
        return ask_each(refs, self._status)

    def _status(self, ref: str) -> list[DeliveryReport]:
        answer = self._get(f"{self._device}/sms-batch/{quote(ref, safe='')}")
        rows = objects(dig(answer, "data", "messages"))
        return [_report(ref, str(row["status"]).lower(), row) for row in rows if row.get("status")]

    def inbox(self, cursor: str | None) -> Inbox:
        """What the device received, oldest first; from the last day when there is no cursor.

        The ids are those of the webhooks, so what came by both is one message. Installations from before the call
        that has a cursor show the latest messages each time. The pages before one that fails are read.
        """
        messages: list[IncomingMessage] = []
        for page in range(MOST_PAGES):
            try:
                answer = self._get(f"{self._api}/gateway/messages", self._after(cursor))
            except SendError as error:
                if page > 0:
                    break
                if error.outcome.code != "404":
                    raise
                query = {"type": "received", "page": "1", "limit": str(PAGE)}
                return Inbox(_received(self._get(f"{self._device}/messages", query)), cursor)
            messages += _received(answer)
            following = dig(answer, "meta", "nextCursor")
            if not following or str(following) == cursor:
                break
            cursor = str(following)
        return Inbox(messages, cursor)

    def _after(self, cursor: str | None) -> dict[str, str]:
        query = {"deviceIds": self._device_id, "direction": "received", "order": "asc", "limit": str(PAGE)}
        if cursor:
            return query | {"cursor": cursor}
        return query | {"from": (datetime.now(UTC) - FIRST_LOOK).strftime("%Y-%m-%dT%H:%M:%SZ")}

    def _get(self, url: str, query: Mapping[str, str] | None = None) -> Any:
        return self._http.json("GET", url, params=query, headers=self._headers())

    def _headers(self) -> dict[str, str]:
        return {"x-api-key": self._wiring.secret(OUTGOING_CREDENTIAL)}


def read_answer(answer: Any) -> Outcome:
    """The outcome of a send request that was answered with a 2xx."""
    success = dig(answer, "data", "success")
    if success is False:
        return Outcome("an answer without success", failure=Failure.RETRY)
    if success is not True:
        return Outcome("an answer that is none of TextBee's", failure=Failure.AMBIGUOUS)
    ref = dig(answer, "data", "smsBatchId")
    return Outcome("accepted", State.RECEIVED_BY_GATEWAY, ref=str(ref) if ref else None)


def refused(response: requests.Response, body: Any) -> Outcome:
    """The outcome of a send request that was answered with another status; its body says more than the status."""
    outcome = sending_outcome(response)
    if dig(body, "hasReachedLimit") is True:
        now = datetime.now(UTC)
        again = min(limit_ends(body, now), now + PAID_UP)
        return replace(outcome, details=_reason(response, body), state=None, failure=Failure.QUOTA, retry_at=again)
    if response.status_code == 400:
        text = response.text.lower()
        if any(words in text for words in DEVICE_TROUBLE):
            return replace(outcome, details=_reason(response, body), state=None, failure=Failure.CONFIGURATION)
        return replace(outcome, details=_reason(response, body))
    return outcome


def limit_ends(body: Any, now: datetime) -> datetime:
    """When an exhausted plan takes messages again: the next month when the month's are used up, else the next day.

    `now` and the result are in UTC.
    """
    limit, remaining = dig(body, "monthlyLimit"), dig(body, "monthlyRemaining")
    if isinstance(limit, int) and isinstance(remaining, int):
        month_is_over = limit != UNLIMITED and remaining < 1
    else:
        month_is_over = "monthly" in str(dig(body, "message")).lower()
    if month_is_over:
        return datetime.combine((now.date().replace(day=1) + timedelta(days=32)).replace(day=1), time(), UTC)
    return datetime.combine(now.date() + timedelta(days=1), time(), UTC)


def _reason(response: requests.Response, body: Any) -> str:
    """The service's error messages are a text or a list of texts."""
    message = dig(body, "message") or dig(body, "error")
    words = "; ".join(map(str, message)) if isinstance(message, list) else str(message or "")
    return f"HTTP {response.status_code}: {words}" if words else f"HTTP {response.status_code}"


def failure_of(code: str) -> Failure | None:
    """What a failed message's errorCode lets us do, None for one that nobody knows."""
    known = code.upper().removeprefix("RESULT_").removeprefix("ERROR_")
    return next((failure for beginning, failure in ERRORS.items() if known.startswith(beginning)), None)


def _report(ref: str, status: str, facts: Mapping[str, Any]) -> DeliveryReport:
    code = str(facts.get("errorCode") or "")
    message = str(facts.get("errorMessage") or "")
    failed = status == "failed"
    return DeliveryReport(
        gateway=NAME,
        ref=ref,
        status=status,
        state=STATES.get(status),
        phone=str(facts["recipient"]) if facts.get("recipient") else None,
        reason=(": ".join(filter(None, (code, message))) or None) if failed else None,
        failure=failure_of(code) if failed else None,
    )


def _received(answer: Any) -> list[IncomingMessage]:
    return [
        IncomingMessage(
            gateway=NAME,
            ref=str(row["_id"]),
            sender=str(row["sender"]),
            text=str(row.get("message") or ""),
            sent_timestamp=str(row["receivedAt"]) if row.get("receivedAt") else None,
        )
        for row in objects(dig(answer, "data"))
        if row.get("_id") and row.get("sender")
    ]


def _heard_of(device: Mapping[str, Any]) -> str:
    return f"at {device['lastHeartbeat']}" if device.get("lastHeartbeat") else "never"


def authenticate(request: CallbackRequest, matches: Matches) -> bool:
    """The signature is over the body's bytes as they came."""
    given = request.headers.get("x-signature", "")
    return matches(INCOMING_CREDENTIAL, given, hmac_sha256(request.body))


def parse_event(request: CallbackRequest) -> list[CallbackRecord]:
    """One webhook. What is not about a message of ours, or an event that nobody knows, is nothing to store.

    A 4xx would end TextBee's attempts to deliver the event, so it is for what will never be right.
    """
    event = request.form.get("webhookEvent", "")
    if event == RECEIVED:
        return [
            IncomingMessage(
                gateway=NAME,
                ref=request.required("smsId"),
                sender=request.required("sender"),
                text=request.form.get("message", ""),
                sent_timestamp=request.form.get("receivedAt"),
            )
        ]
    ref = request.form.get("smsBatchId")
    if event not in EVENTS or not ref:
        return []
    return [_report(ref, EVENTS[event], request.form)]


def missing(settings: Settings) -> list[str]:
    """Without a device there is nothing that sends."""
    if settings.sms.textbee.device_id:
        return []
    return ["sms.textbee.device_id is not set; set it in /api/v1/settings"]


CALLBACKS = Callbacks(
    slug="textbee",
    credential=INCOMING_CREDENTIAL,
    authenticate=authenticate,
    parsers={"events": parse_event},
    proof="the header X-Signature",
    refusal=401,
)

DEFINITION = Definition(
    name=NAME,
    outgoing_credential=OUTGOING_CREDENTIAL,
    section=lambda settings: settings.sms.textbee,
    missing=missing,
    build=TextBee,
    callbacks=CALLBACKS,
)
