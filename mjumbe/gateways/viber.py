"""Viber, a bot's messages: https://developers.viber.com/docs/api/rest-bot-api/

A bot writes to a person by the person's id with this bot, not by phone number. The map between the two is made of what
people send to the bot: this module tells of it in notices, and asks for it through `Wiring.address_of`.
"""

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from mjumbe import text as texts
from mjumbe.documents import DeliveryReport, IncomingMessage, Notice
from mjumbe.gateways.base import (
    BadCallbackError,
    Batch,
    CallbackRecord,
    CallbackRequest,
    Callbacks,
    Check,
    Definition,
    Failure,
    Gateway,
    Matches,
    Outcome,
    SendError,
    Wiring,
    dig,
    failed_check,
    hmac_sha256,
    sending_outcome,
)
from mjumbe.settings import Settings
from mjumbe.states import State

NAME = "viber"
CREDENTIAL = "viber:outgoing"  # the bot's token: it sends, and it signs what Viber posts

API = "https://chatapi.viber.com/pa"

# An answer is always HTTP 200; its `status` says what it is worth.
OK = 0
CODES: Mapping[int, tuple[str, Failure]] = {
    1: ("invalidUrl", Failure.PERMANENT),
    2: ("invalidAuthToken", Failure.CONFIGURATION),
    3: ("badData", Failure.PERMANENT),
    4: ("missingData", Failure.PERMANENT),
    5: ("receiverNotRegistered", Failure.PERMANENT),
    6: ("receiverNotSubscribed", Failure.PERMANENT),
    7: ("publicAccountBlocked", Failure.CONFIGURATION),
    8: ("publicAccountNotFound", Failure.CONFIGURATION),
    9: ("publicAccountSuspended", Failure.CONFIGURATION),
    10: ("webhookNotSet", Failure.CONFIGURATION),
    11: ("receiverNoSuitableDevice", Failure.PERMANENT),
    12: ("tooManyRequests", Failure.QUOTA),
    13: ("apiVersionNotSupported", Failure.PERMANENT),
    14: ("incompatibleWithVersion", Failure.PERMANENT),
    15: ("publicAccountNotAuthorized", Failure.CONFIGURATION),
    16: ("inchatReplyMessageNotAllowed", Failure.PERMANENT),
    17: ("publicAccountIsNotInline", Failure.PERMANENT),
    18: ("noPublicChat", Failure.PERMANENT),
    19: ("cannotSendBroadcast", Failure.PERMANENT),
    20: ("broadcastNotAllowed", Failure.PERMANENT),
    21: ("unsupportedCountry", Failure.PERMANENT),
    22: ("paymentUnsupported", Failure.CONFIGURATION),
    23: ("freeMessagesExceeded", Failure.CONFIGURATION),
    24: ("noBalance", Failure.CONFIGURATION),
}
NOT_SUBSCRIBED = frozenset({5, 6})  # the person left the bot, and the event that said so was lost
# Nobody was asked: the person left while the message was on its way here, so that another service may take it.
NOT_REGISTERED = Outcome("the recipient has not registered with the bot", failure=Failure.RETRY, spent=False)
TOO_MANY_LASTS = timedelta(hours=1)
MOST_ATTEMPTS = 3  # at a message that is answered with a status that nobody knows

# The event that tells what became of a message.
REPORT_STATES: Mapping[str, State] = {
    "delivered": State.DELIVERED,
    "seen": State.DELIVERED,
    "failed": State.FAILED,
}

# What `set_webhook` asks for; `message` and `webhook` come by themselves.
EVENT_TYPES = ("delivered", "seen", "failed", "subscribed", "unsubscribed", "conversation_started")

REGISTRATION = re.compile(r"\s*([^\s+:]+)\s*[\s+:]\s*(\S.*)", re.DOTALL)  # register+4711, Register: 4711


class Viber(Gateway):
    """One bot."""

    def __init__(self, wiring: Wiring) -> None:
        section = wiring.settings.sms.viber
        self._wiring = wiring
        self._api = section.base_url or API
        self._sender_name = section.sender_name
        self._http = wiring.http(section)

    def reaches(self, number: str) -> bool:
        """Whether the person with this number wrote to the bot and told who they are."""
        return self._wiring.address_of(number) is not None

    def send(self, batch: Batch) -> list[Outcome]:
        """One request a recipient; sms.viber.batch_size is 1."""
        return [self._send(number, batch.text) for number in batch.recipients]

    def _send(self, number: str, text: str) -> Outcome:
        receiver = self._wiring.address_of(number)
        if receiver is None:
            return NOT_REGISTERED
        body = {"receiver": receiver, "type": "text", "text": text, "sender": {"name": self._sender_name}}
        return read_answer(self._post("send_message", body), datetime.now(UTC))

    def check(self) -> Check:
        """The account, which only the right token gets."""
        try:
            answer = self._post("get_account_info", {})
        except SendError as error:
            return failed_check("Viber", "the token", self._api, error)
        if dig(answer, "status") != OK:
            return Check(False, f"Viber did not take the token: {_words(answer)}")
        if not dig(answer, "webhook"):
            return Check(False, f"Viber took the token of {dig(answer, 'name')}, but the bot has no webhook; set it")
        return Check(True, f"Viber took the token of {dig(answer, 'name')}; its webhook is {dig(answer, 'webhook')}")

    def set_webhook(self, url: str) -> Check:
        """Tell Viber where to post the bot's events. It asks `url` before it answers, so the API must be reachable."""
        body = {"url": url, "event_types": list(EVENT_TYPES), "send_name": True}
        try:
            answer = self._post("set_webhook", body)
        except SendError as error:
            return Check(False, f"Viber did not set the webhook: {error}")
        if dig(answer, "status") != OK:
            return Check(False, f"Viber did not set the webhook: {_words(answer)}")
        return Check(True, f"Viber posts the bot's events to {url}")

    def _post(self, call: str, body: Mapping[str, Any]) -> Any:
        headers = {"X-Viber-Auth-Token": self._wiring.secret(CREDENTIAL)}
        return self._http.json("POST", f"{self._api}/{call}", json=body, headers=headers, refusal=sending_outcome)


def read_answer(answer: Any, now: datetime) -> Outcome:
    """The outcome of a send request from the JSON that answered it. `now` in UTC."""
    status = _status(answer)
    if status is None:
        return Outcome(_words(answer), failure=Failure.AMBIGUOUS)
    if status == OK:
        token = dig(answer, "message_token")
        return Outcome("ok", State.FORWARDED_BY_GATEWAY, ref=str(token) if token else None)
    details, code = _words(answer), str(status)
    if status not in CODES:
        return Outcome(details, failure=Failure.RETRY, code=code, most_attempts=MOST_ATTEMPTS)
    _, failure = CODES[status]
    if failure is Failure.PERMANENT:
        left = status in NOT_SUBSCRIBED
        return Outcome(details, State.DENIED if left else State.FAILED, failure, code=code, left=left)
    return Outcome(
        details, failure=failure, code=code, retry_at=now + TOO_MANY_LASTS if failure is Failure.QUOTA else None
    )


def _status(answer: Any) -> int | None:
    status = dig(answer, "status")
    return status if isinstance(status, int) and not isinstance(status, bool) else None


def _words(answer: Any) -> str:
    """A refusal as Viber names it, its own sentence behind it."""
    status = _status(answer)
    if status is None:
        return "an answer without status"
    name = CODES[status][0] if status in CODES else f"status {status}"
    message = dig(answer, "status_message")
    return f"{name}: {message}" if message and message != name else name


def authenticate(request: CallbackRequest, matches: Matches) -> bool:
    """The signature is over the body's bytes as they came, by the bot's token."""
    given = request.headers.get("x-viber-content-signature", "")
    return matches(CREDENTIAL, given, hmac_sha256(request.body))


def parse_event(request: CallbackRequest) -> list[CallbackRecord]:
    """One event: https://developers.viber.com/docs/api/rest-bot-api/#callbacks. Many need only a 200."""
    event = request.form.get("event", "")
    if event in REPORT_STATES:
        state = REPORT_STATES[event]
        reason = request.form.get("desc") if state is State.FAILED else None
        return [DeliveryReport(NAME, request.required("message_token"), event, state, reason=reason)]
    if event == "message":
        return _message(request)
    if event == "subscribed":
        user = request.inner("user")
        return [_notice(request, str(user.get("id") or ""), event, name=str(user.get("name") or ""))]
    if event == "unsubscribed":
        return [_notice(request, request.required("user_id"), event)]
    return []


def _message(request: CallbackRequest) -> list[CallbackRecord]:
    """What a person wrote is a message, and perhaps a registration too; a contact that they shared is only that."""
    sender, message = request.inner("sender"), request.inner("message")
    user, name = str(sender.get("id") or ""), str(sender.get("name") or "")
    phone = dig(message, "contact", "phone_number")
    if message.get("type") == "contact" and phone:
        return [_notice(request, user, "registered", phone=str(phone), name=name)]
    text = str(message.get("text") or message.get("media") or "")
    incoming = IncomingMessage(
        gateway=NAME,
        ref=request.required("message_token"),
        sender=_given(user),
        text=text,
        sent_timestamp=request.form.get("timestamp"),
    )
    customer = customer_of(text, request.settings.sms.viber.register_words)
    if customer is None:
        return [incoming]
    return [incoming, _notice(request, user, "registered", name=name, customer=customer)]


def customer_of(text: str, words: Sequence[str]) -> str | None:
    """What is written behind one of the register `words`: `4711` in `register+4711`. None when there is none."""
    match = REGISTRATION.fullmatch(text)
    if match is None or texts.first_word(match[1]) not in {texts.first_word(word) for word in words}:
        return None
    return match[2].strip()


def _notice(request: CallbackRequest, user: str, update: str, phone: str = "", **facts: str) -> Notice:
    """Repeats of an event have its token, and so are one notice."""
    known = {"user": _given(user), "update": update, **{name: value for name, value in facts.items() if value}}
    return Notice(NAME, "viber-user", phone, request.required("message_token"), known)


def _given(user: str) -> str:
    if not user:
        raise BadCallbackError("sender", "an object with the id of a Viber user")
    return user


def missing(settings: Settings) -> list[str]:
    """Viber takes no message without its sender's name."""
    if settings.sms.viber.sender_name:
        return []
    return ["sms.viber.sender_name is not set; set it in /api/v1/settings"]


CALLBACKS = Callbacks(
    slug="viber",
    credential=CREDENTIAL,
    authenticate=authenticate,
    parsers={"events": parse_event},
    proof="the header X-Viber-Content-Signature",
    refusal=401,
)


def set_webhook(wiring: Wiring) -> Check:
    """Tell Viber to post the bot's events to this server, by its address in the settings."""
    public_url = wiring.settings.public_url
    if not public_url:
        return Check(False, "public_url is not set; set it in /api/v1/settings to this server's address from outside")
    [path] = CALLBACKS.paths()
    return Viber(wiring).set_webhook(public_url + path)


DEFINITION = Definition(
    name=NAME,
    outgoing_credential=CREDENTIAL,
    section=lambda settings: settings.sms.viber,
    missing=missing,
    build=Viber,
    callbacks=CALLBACKS,
)
