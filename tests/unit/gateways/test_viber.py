"""Viber: what goes out and comes in byte for byte, every status, Viber's own check vector, and who is who."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import responses

from mjumbe import settings
from mjumbe.documents import DeliveryReport, IncomingMessage, Notice, notice_document
from mjumbe.gateways import SERVICES, missing
from mjumbe.gateways.base import (
    BadCallbackError,
    Batch,
    CallbackRequest,
    Check,
    Failure,
    Matches,
    Outcome,
    Wiring,
)
from mjumbe.gateways.viber import CALLBACKS, DEFINITION, Viber, customer_of, read_answer
from mjumbe.settings import SettingsError
from mjumbe.states import State
from tests.unit.gateways.conftest import refused

TOKEN = "44b935abea139fd6-53fa53b32559c4a6-12dbd3d883b06835"
API = "https://chatapi.viber.com/pa"
SENDING = f"{API}/send_message"
NUMBER, USER = "+254711000001", "KMMqtlNTDxIm/5bZhdQ5uA=="
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
ACCEPTED = b'{"status":0,"status_message":"ok","message_token":5741311803571721087,"chat_hostname":"SN-CHAT-01_"}'


def gateway(token: str | None = TOKEN, **changes: Any) -> Viber:
    values = {"sms": {"viber": {"sender_name": "Mtandao", **changes}}}
    return Viber(Wiring(settings.parse(values), lambda _: token, address_of={NUMBER: USER}.get))


# ---- sending


def test_the_request_and_its_outcome(service: responses.RequestsMock) -> None:
    service.post(SENDING, body=ACCEPTED)
    outcomes = gateway().send(Batch("Habari", (NUMBER,)))
    assert outcomes == [Outcome("ok", State.FORWARDED_BY_GATEWAY, ref="5741311803571721087")]
    request = service.calls[0].request
    assert request.headers["X-Viber-Auth-Token"] == TOKEN
    assert request.body == (
        b'{"receiver": "KMMqtlNTDxIm/5bZhdQ5uA==", "type": "text", "text": "Habari", "sender": {"name": "Mtandao"}}'
    )


def test_another_address(service: responses.RequestsMock) -> None:
    service.post("http://127.0.0.1:8080/pa/send_message", body=ACCEPTED)
    assert gateway(base_url="http://127.0.0.1:8080/pa").send(Batch("Habari", (NUMBER,)))[0].failure is None


def test_who_can_be_written_to() -> None:
    assert gateway().reaches(NUMBER)
    assert not gateway().reaches("+254711000002")
    [outcome] = gateway().send(Batch("Habari", ("+254711000002",)))
    details = "the recipient has not registered with the bot"
    assert outcome == Outcome(details, failure=Failure.RETRY, spent=False), "another service may reach them"


def test_a_request_has_one_recipient() -> None:
    assert DEFINITION.section(settings.parse({})).batch_size == 1
    with pytest.raises(SettingsError, match="expected a whole number from 1 to 1"):
        settings.parse({"sms": {"viber": {"batch_size": 100}}})


def test_nothing_is_sent_without_a_token() -> None:
    assert refused(gateway(token=None), NUMBER).failure is Failure.CONFIGURATION


PERMANENT, CONFIGURATION, FAILED, DENIED = Failure.PERMANENT, Failure.CONFIGURATION, State.FAILED, State.DENIED


@pytest.mark.parametrize(
    ("status", "name", "failure", "state"),
    [
        (1, "invalidUrl", PERMANENT, FAILED),
        (2, "invalidAuthToken", CONFIGURATION, None),
        (3, "badData", PERMANENT, FAILED),
        (4, "missingData", PERMANENT, FAILED),
        (5, "receiverNotRegistered", PERMANENT, DENIED),
        (6, "receiverNotSubscribed", PERMANENT, DENIED),
        (7, "publicAccountBlocked", CONFIGURATION, None),
        (8, "publicAccountNotFound", CONFIGURATION, None),
        (9, "publicAccountSuspended", CONFIGURATION, None),
        (10, "webhookNotSet", CONFIGURATION, None),
        (11, "receiverNoSuitableDevice", PERMANENT, FAILED),
        (13, "apiVersionNotSupported", PERMANENT, FAILED),
        (14, "incompatibleWithVersion", PERMANENT, FAILED),
        (15, "publicAccountNotAuthorized", CONFIGURATION, None),
        (16, "inchatReplyMessageNotAllowed", PERMANENT, FAILED),
        (17, "publicAccountIsNotInline", PERMANENT, FAILED),
        (18, "noPublicChat", PERMANENT, FAILED),
        (19, "cannotSendBroadcast", PERMANENT, FAILED),
        (20, "broadcastNotAllowed", PERMANENT, FAILED),
        (21, "unsupportedCountry", PERMANENT, FAILED),
        (22, "paymentUnsupported", CONFIGURATION, None),
        (23, "freeMessagesExceeded", CONFIGURATION, None),
        (24, "noBalance", CONFIGURATION, None),
    ],
)
def test_statuses(status: int, name: str, failure: Failure, state: State | None) -> None:
    assert read_answer({"status": status, "status_message": name}, NOW) == Outcome(
        name, state, failure, code=str(status), left=state is DENIED
    )


def test_too_many_requests_hold_the_bot_for_an_hour() -> None:
    outcome = read_answer({"status": 12, "status_message": "rate control breach"}, NOW)
    hour = NOW + timedelta(hours=1)
    details = "tooManyRequests: rate control breach"
    assert outcome == Outcome(details, failure=Failure.QUOTA, code="12", retry_at=hour)


@pytest.mark.parametrize(
    ("answer", "details", "code"),
    [
        ({"status": 99, "status_message": "general error"}, "status 99: general error", "99"),
        ({"status": 25}, "status 25", "25"),
    ],
)
def test_statuses_that_nobody_knows_are_tried_three_times(answer: Any, details: str, code: str) -> None:
    assert read_answer(answer, NOW) == Outcome(details, failure=Failure.RETRY, code=code, most_attempts=3)


@pytest.mark.parametrize("answer", [{"status": "0"}, {"status": []}, {"status": True}, {}, [], "OK", None])
def test_an_answer_that_is_none_of_vibers_leaves_it_in_doubt_what_became_of_the_message(answer: Any) -> None:
    assert read_answer(answer, NOW) == Outcome("an answer without status", failure=Failure.AMBIGUOUS)


def test_a_success_without_a_token() -> None:
    assert read_answer({"status": 0}, NOW) == Outcome("ok", State.FORWARDED_BY_GATEWAY)


@pytest.mark.parametrize(
    ("status", "body", "failure"),
    [
        (401, b"", Failure.CONFIGURATION),
        (404, b"", Failure.CONFIGURATION),
        (400, b"", Failure.PERMANENT),
        (429, b"", Failure.RETRY),
        (500, b"", Failure.RETRY),
        (200, b"<html>", Failure.AMBIGUOUS),
    ],
)
def test_answers_that_are_not_vibers(
    service: responses.RequestsMock, status: int, body: bytes, failure: Failure
) -> None:
    service.post(SENDING, body=body, status=status)
    assert refused(gateway(), NUMBER).failure is failure


# ---- the account


HOOK = "https://sms.example.org/api/v1/sms/viber/events"
ACCOUNT = {"status": 0, "status_message": "ok", "name": "Mtandao", "webhook": HOOK}


@pytest.mark.parametrize(
    ("status", "body", "ok", "says"),
    [
        (200, ACCOUNT, True, f"Viber took the token of Mtandao; its webhook is {HOOK}"),
        (
            *(200, ACCOUNT | {"webhook": ""}, False),
            "Viber took the token of Mtandao, but the bot has no webhook; set it",
        ),
        (
            *(200, {"status": 2, "status_message": "invalidAuthToken"}, False),
            "Viber did not take the token: invalidAuthToken",
        ),
        (200, [], False, "Viber did not take the token: an answer without status"),
        (500, {}, False, "Viber did not take the token: HTTP 500"),
    ],
)
def test_check(service: responses.RequestsMock, status: int, body: Any, ok: bool, says: str) -> None:
    service.post(f"{API}/get_account_info", json=body, status=status)
    assert gateway().check() == Check(ok, says)
    assert service.calls[0].request.body == b"{}"


@pytest.mark.parametrize(
    ("status", "body", "ok", "says"),
    [
        (200, {"status": 0, "status_message": "ok"}, True, f"Viber posts the bot's events to {HOOK}"),
        (
            *(200, {"status": 1, "status_message": "Result code is not HTTP_OK"}, False),
            "Viber did not set the webhook: invalidUrl: Result code is not HTTP_OK",
        ),
        (503, {}, False, "Viber did not set the webhook: HTTP 503"),
    ],
)
def test_set_webhook(service: responses.RequestsMock, status: int, body: Any, ok: bool, says: str) -> None:
    service.post(f"{API}/set_webhook", json=body, status=status)
    assert gateway().set_webhook(HOOK) == Check(ok, says)
    assert service.calls[0].request.body == (
        b'{"url": "https://sms.example.org/api/v1/sms/viber/events", "event_types": ["delivered", "seen", "failed",'
        b' "subscribed", "unsubscribed", "conversation_started"], "send_name": true}'
    )


def test_what_is_missing() -> None:
    assert missing("viber", settings.parse({}), lambda _: None) == [
        "sms.viber.sender_name is not set; set it in /api/v1/settings",
        "no API key; PUT it to /api/v1/credentials/viber:outgoing",
    ]
    configured = settings.parse({"sms": {"viber": {"sender_name": "Mtandao"}}})
    assert missing("viber", configured, lambda _: TOKEN) == []
    assert SERVICES["viber"] is DEFINITION


# ---- signatures


# https://developers.viber.com/docs/api/rest-bot-api/#callbacks
VECTOR = (
    b'{"event":"unsubscribed","timestamp":1516678387902,"user_id":"KMMqtlNTDxIm/5bZhdQ5uA==",'
    b'"message_token":5136431130449316903}'
)
SIGNATURE = "d84d8648b402a2737838fea4da41d903d1af1aed92466b1758828ad27e31a9f9"


@pytest.mark.parametrize(
    ("body", "signature", "right"),
    [
        (VECTOR, SIGNATURE, True),
        (VECTOR + b"\n", SIGNATURE, False),
        (VECTOR, SIGNATURE.upper(), False),
        (VECTOR, SIGNATURE[:-1] + "8", False),
        (VECTOR, "", False),
    ],
)
def test_signatures(
    posted: Callable[..., CallbackRequest], vault: Callable[..., Matches], body: bytes, signature: str, right: bool
) -> None:
    request = posted(body, X_Viber_Content_Signature=signature)
    assert CALLBACKS.authenticate(request, vault({"viber:outgoing": TOKEN})) is right
    assert not CALLBACKS.authenticate(request, vault({"viber:outgoing": TOKEN[:-1]}))
    assert not CALLBACKS.authenticate(request, vault({}))


def test_where_events_come_and_what_a_wrong_signature_gets() -> None:
    assert (CALLBACKS.refusal, CALLBACKS.paths()) == (401, {"/api/v1/sms/viber/events": "events"})


# ---- events


def parse(posted: Callable[..., CallbackRequest], body: bytes, **changes: Any) -> Any:
    request = replace(posted(body), settings=settings.parse({"sms": {"viber": changes}}))
    return CALLBACKS.parsers["events"](request)


def message(**content: Any) -> bytes:
    """A person wrote to the bot."""
    event = {
        "event": "message",
        "timestamp": 1457764197627,
        "message_token": 4912661846655238145,
        "sender": {"id": USER, "name": "Asha", "language": "sw"},
        "message": content,
    }
    return json.dumps(event).encode()


WRITTEN = IncomingMessage("viber", "4912661846655238145", USER, "Habari 😀", sent_timestamp="1457764197627")
TOLD = ("viber", "viber-user")
KEY = "4912661846655238145"


def registered(phone: str = "", **facts: str) -> Notice:
    return Notice(*TOLD, phone, KEY, {"user": USER, "update": "registered", "name": "Asha", **facts})


@pytest.mark.parametrize(
    ("body", "records"),
    [
        (message(type="text", text="Habari 😀"), [WRITTEN]),
        (message(type="text", text=""), [replace(WRITTEN, text="")]),
        (
            message(type="picture", text="", media="https://dl.example/1.jpg"),
            [replace(WRITTEN, text="https://dl.example/1.jpg")],
        ),
        (message(type="sticker", sticker_id=46105), [replace(WRITTEN, text="")]),
        (
            message(type="text", text="register+4711"),
            [replace(WRITTEN, text="register+4711"), registered(customer="4711")],
        ),
        (
            message(type="contact", contact={"name": "Asha", "phone_number": "254711000001"}),
            [registered(phone="254711000001")],
        ),
        (message(type="contact", contact={}), [replace(WRITTEN, text="")]),
        (
            VECTOR,
            [Notice(*TOLD, "", "5136431130449316903", {"user": USER, "update": "unsubscribed"})],
        ),
        (
            b'{"event":"subscribed","timestamp":1,"user":{"id":"u1","name":"Asha"},"message_token":4912661846655238145}',
            [Notice(*TOLD, "", KEY, {"user": "u1", "update": "subscribed", "name": "Asha"})],
        ),
        (
            b'{"event":"delivered","timestamp":1,"message_token":4912661846655238145,"user_id":"u1"}',
            [DeliveryReport("viber", KEY, "delivered", State.DELIVERED)],
        ),
        (
            b'{"event":"seen","timestamp":1,"message_token":4912661846655238145,"user_id":"u1"}',
            [DeliveryReport("viber", KEY, "seen", State.DELIVERED)],
        ),
        (
            b'{"event":"failed","timestamp":1,"message_token":4912661846655238145,"user_id":"u1","desc":"no device"}',
            [DeliveryReport("viber", KEY, "failed", State.FAILED, reason="no device")],
        ),
        (b'{"event":"webhook","timestamp":1457764197627,"message_token":241256543215}', []),
        (b'{"event":"conversation_started","user":{"id":"u1"},"subscribed":false,"context":"register+4711"}', []),
        (b'{"event":"client_status","message_token":1}', []),
        (b"{}", []),
    ],
)
def test_events(posted: Callable[..., CallbackRequest], body: bytes, records: list[Any]) -> None:
    assert parse(posted, body) == records


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"event":"delivered","user_id":"u1"}', "message_token"),
        (b'{"event":"message","sender":{"id":"u1"},"message":{"text":"Habari"}}', "message_token"),
        (b'{"event":"message","message_token":1,"message":{"text":"Habari"}}', "sender"),
        (b'{"event":"message","message_token":1,"sender":"u1","message":{"text":"Habari"}}', "sender"),
        (b'{"event":"unsubscribed","message_token":1}', "user_id"),
        (b'{"event":"subscribed","message_token":1,"user":{}}', "sender"),
    ],
)
def test_events_that_cannot_be_stored(posted: Callable[..., CallbackRequest], body: bytes, field: str) -> None:
    with pytest.raises(BadCallbackError) as caught:
        parse(posted, body)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("text", "words", "customer"),
    [
        ("register+4711", ["register"], "4711"),
        ("REGISTER + 4711 ", ["register"], "4711"),
        ("Register: 4711", ["register"], "4711"),
        ("register 0711 000 001", ["register"], "0711 000 001"),
        ("register++254711000001", ["register"], "+254711000001"),
        ("jisajili 4711", ["register", "Jisajili"], "4711"),
        ("jisajili 4711", ["register"], None),
        ("register", ["register"], None),
        ("register+", ["register"], None),
        ("registered 4711", ["register"], None),
        ("please register 4711", ["register"], None),
        ("", ["register"], None),
        ("register+4711", [], None),
    ],
)
def test_registrations(text: str, words: Sequence[str], customer: str | None) -> None:
    assert customer_of(text, words) == customer


def test_the_register_words_are_the_operators(posted: Callable[..., CallbackRequest]) -> None:
    records = parse(posted, message(type="text", text="jisajili+4711"), register_words=["jisajili"])
    assert [type(record) for record in records] == [IncomingMessage, Notice]
    assert parse(posted, message(type="text", text="register+1"), register_words=["jisajili"])[1:] == []


def test_a_notice_as_a_document() -> None:
    doc = notice_document(registered(customer="4711"), 1000)
    assert (doc["_id"], doc["type"]) == (f"viber-user:viber:{KEY}", "viber_user")
    assert (doc["user"], doc["customer"], doc["update"], doc["name"]) == (USER, "4711", "registered", "Asha")
