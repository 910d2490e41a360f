"""TextBee: what goes out and comes in byte for byte, what every answer means, and what is made of callbacks."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import responses

from mjumbe import settings
from mjumbe.documents import DeliveryReport, IncomingMessage
from mjumbe.gateways import SERVICES, missing
from mjumbe.gateways.base import (
    BadCallbackError,
    Batch,
    CallbackRequest,
    Check,
    Failure,
    Inbox,
    Matches,
    Outcome,
    SendError,
    Wiring,
)
from mjumbe.gateways.textbee import CALLBACKS, DEFINITION, FIRST_LOOK, TextBee, limit_ends
from mjumbe.settings import SettingsError
from mjumbe.states import State
from tests.unit.gateways.conftest import refused

KEY = "1f0c2e5a-key"
API = "https://api.textbee.dev/api/v1"
DEVICE = f"{API}/gateway/devices/dev1"
SENDING = f"{DEVICE}/send-sms"
NUMBER = "+254711000001"
ACCEPTED = (
    b'{"data":{"success":true,"message":"SMS added to queue for processing","smsBatchId":"b1","recipientCount":1}}'
)


def gateway(key: str | None = KEY, **changes: Any) -> TextBee:
    values = {"sms": {"textbee": {"device_id": "dev1", **changes}}}
    return TextBee(Wiring(settings.parse(values), lambda _: key))


# ---- sending


def test_the_request_and_its_outcome(service: responses.RequestsMock) -> None:
    service.post(SENDING, body=ACCEPTED, status=201)
    outcomes = gateway().send(Batch("Habari 😀", (NUMBER,)))
    assert outcomes == [Outcome("accepted", State.RECEIVED_BY_GATEWAY, ref="b1")]
    request = service.calls[0].request
    assert request.body == b'{"message": "Habari \\ud83d\\ude00", "recipients": ["+254711000001"]}'
    assert (request.headers["x-api-key"], request.headers["Content-Type"]) == (KEY, "application/json")


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        (
            {"base_url": "https://sms.example.org/api/v1/"},
            "https://sms.example.org/api/v1/gateway/devices/dev1/send-sms",
        ),
        ({"device_id": "a/b?c"}, f"{API}/gateway/devices/a%2Fb%3Fc/send-sms"),
    ],
)
def test_the_address(service: responses.RequestsMock, changes: dict[str, str], url: str) -> None:
    service.post(url, body=ACCEPTED, status=200)
    assert gateway(**changes).send(Batch("Habari", (NUMBER,)))[0].ref == "b1"


def test_a_request_has_one_recipient() -> None:
    assert DEFINITION.section(settings.parse({})).batch_size == 1
    with pytest.raises(SettingsError, match="expected a whole number from 1 to 1"):
        settings.parse({"sms": {"textbee": {"batch_size": 2}}})


def test_nothing_is_sent_without_a_key() -> None:
    details = "no credential textbee:outgoing; PUT it to /api/v1/credentials/textbee:outgoing"
    assert refused(gateway(key=None), NUMBER) == Outcome(details, failure=Failure.CONFIGURATION)


UNKNOWN = Outcome("an answer that is none of TextBee's", failure=Failure.AMBIGUOUS)


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"data":{"success":true}}', Outcome("accepted", State.RECEIVED_BY_GATEWAY)),
        (b'{"data":{"success":true,"smsBatchId":""}}', Outcome("accepted", State.RECEIVED_BY_GATEWAY)),
        (b'{"data":{"success":false,"smsBatchId":"b1"}}', Outcome("an answer without success", failure=Failure.RETRY)),
        (b'{"data":{"success":"true"}}', UNKNOWN),
        (b'{"data":{}}', UNKNOWN),
        (b'{"data":[]}', UNKNOWN),
        (b"{}", UNKNOWN),
        (b"[]", UNKNOWN),
        (b'"OK"', UNKNOWN),
        (b"null", UNKNOWN),
    ],
)
def test_odd_answers(service: responses.RequestsMock, body: bytes, outcome: Outcome) -> None:
    service.post(SENDING, body=body)
    assert gateway().send(Batch("Habari", (NUMBER,))) == [outcome]


DISABLED = b'{"success":false,"error":"Device does not exist or is not enabled"}'
NO_TOKEN = (
    b'{"success":false,"message":"Failed to send SMS","additionalInfo":'
    b'{"code":"messaging/registration-token-not-registered"}}'
)


@pytest.mark.parametrize(
    ("status", "body", "failure", "state", "details"),
    [
        (400, DISABLED, Failure.CONFIGURATION, None, "HTTP 400: Device does not exist or is not enabled"),
        (400, NO_TOKEN, Failure.CONFIGURATION, None, "HTTP 400: Failed to send SMS"),
        (400, b'{"error":"PERMISSION_DENIED"}', Failure.CONFIGURATION, None, "HTTP 400: PERMISSION_DENIED"),
        (
            *(400, b'{"success":false,"error":"Message cannot be blank"}', Failure.PERMANENT, State.FAILED),
            "HTTP 400: Message cannot be blank",
        ),
        (
            *(400, b'{"message":["recipients must be an array","too few"]}', Failure.PERMANENT, State.FAILED),
            "HTTP 400: recipients must be an array; too few",
        ),
        (400, b"<html>", Failure.PERMANENT, State.FAILED, "HTTP 400"),
        (401, b'{"error":"Unauthorized"}', Failure.CONFIGURATION, None, "HTTP 401"),
        (403, b"", Failure.CONFIGURATION, None, "HTTP 403"),
        (
            *(404, b"", Failure.CONFIGURATION, None),
            "HTTP 404: nothing is at this address; check the service's settings",
        ),
        (429, b"{}", Failure.RETRY, None, "HTTP 429"),
        (500, b"", Failure.RETRY, None, "HTTP 500"),
        (503, b"", Failure.RETRY, None, "HTTP 503"),
        (200, b"<html>", Failure.AMBIGUOUS, None, "HTTP 200 with a body that is no JSON"),
    ],
)
def test_refusals(
    service: responses.RequestsMock, status: int, body: bytes, failure: Failure, state: State | None, details: str
) -> None:
    service.post(SENDING, body=body, status=status, content_type="application/json")
    outcome = refused(gateway(), NUMBER)
    assert (outcome.failure, outcome.state, outcome.details) == (failure, state, details)


def test_too_many_requests_hold_the_service_until_it_says(service: responses.RequestsMock) -> None:
    service.post(SENDING, body=b"{}", status=429, headers={"Retry-After": "60"})
    before = datetime.now(UTC)
    outcome = refused(gateway(), NUMBER)
    assert (outcome.failure, outcome.details) == (Failure.QUOTA, "HTTP 429: too many requests")
    assert outcome.retry_at is not None
    assert before <= outcome.retry_at - timedelta(seconds=60) <= datetime.now(UTC)


@pytest.mark.parametrize("status", [429, 400])  # 400 on installations that are older
def test_a_used_up_plan_holds_the_service(service: responses.RequestsMock, status: int) -> None:
    body = b'{"message":"You have reached your daily limit, you only have 0 remaining","hasReachedLimit":true,'
    body += b'"dailyLimit":50,"dailyRemaining":0,"monthlyLimit":300,"monthlyRemaining":120,"bulkSendLimit":50}'
    service.post(SENDING, body=body, status=status)
    outcome = refused(gateway(), NUMBER)
    assert (outcome.failure, outcome.state) == (Failure.QUOTA, None)
    assert outcome.details == f"HTTP {status}: You have reached your daily limit, you only have 0 remaining"
    assert outcome.retry_at is not None
    assert timedelta(0) < outcome.retry_at - datetime.now(UTC) <= timedelta(hours=1), "it may be paid up"


@pytest.mark.parametrize(
    ("body", "now", "ends"),
    [
        ({"monthlyLimit": 300, "monthlyRemaining": 10}, "2026-01-31T23:59:59", "2026-02-01T00:00:00"),
        ({"monthlyLimit": 300, "monthlyRemaining": 10}, "2026-01-15T00:00:00", "2026-01-16T00:00:00"),
        ({"monthlyLimit": 300, "monthlyRemaining": 0}, "2026-01-15T12:00:00", "2026-02-01T00:00:00"),
        ({"monthlyLimit": 300, "monthlyRemaining": 0}, "2026-01-31T12:00:00", "2026-02-01T00:00:00"),
        ({"monthlyLimit": 300, "monthlyRemaining": -3}, "2026-12-31T12:00:00", "2027-01-01T00:00:00"),
        ({"monthlyLimit": -1, "monthlyRemaining": -500}, "2026-01-15T12:00:00", "2026-01-16T00:00:00"),
        ({"message": "You have reached your monthly limit"}, "2026-02-10T12:00:00", "2026-03-01T00:00:00"),
        ({"message": "You have reached your daily limit"}, "2026-02-28T12:00:00", "2026-03-01T00:00:00"),
        ({}, "2026-02-10T12:00:00", "2026-02-11T00:00:00"),
    ],
)
def test_when_a_limit_ends(body: dict[str, Any], now: str, ends: str) -> None:
    read = [datetime.fromisoformat(moment).replace(tzinfo=UTC) for moment in (now, ends)]
    assert limit_ends(body, read[0]) == read[1]


# ---- the account


OURS = {"_id": "dev1", "enabled": True, "lastHeartbeat": "2026-01-01T08:00:00.000Z"}


@pytest.mark.parametrize(
    ("status", "body", "ok", "says"),
    [
        (
            *(200, {"data": [{"_id": "other"}, OURS]}, True),
            "TextBee took the API key; the device was last heard of at 2026-01-01T08:00:00.000Z",
        ),
        (
            *(200, {"data": [{"_id": "dev1", "enabled": True}]}, True),
            "TextBee took the API key; the device was last heard of never",
        ),
        (
            *(200, {"data": [OURS | {"enabled": False}]}, False),
            "TextBee took the API key, but the device is not enabled; enable it in the app",
        ),
        (
            *(200, {"data": [{"_id": "other", "enabled": True}]}, False),
            "TextBee took the API key, but has no device with the id in sms.textbee.device_id",
        ),
        (
            *(200, [], False),
            "TextBee took the API key, but has no device with the id in sms.textbee.device_id",
        ),
        (401, {}, False, "TextBee did not take the API key: HTTP 401"),
        (500, {}, False, "TextBee did not take the API key: HTTP 500"),
    ],
)
def test_check(service: responses.RequestsMock, status: int, body: Any, ok: bool, says: str) -> None:
    service.get(f"{API}/gateway/devices", json=body, status=status)
    assert gateway().check() == Check(ok, says)


def test_what_is_missing() -> None:
    nothing = missing("textbee", settings.parse({}), lambda _: None)
    assert nothing == [
        "sms.textbee.device_id is not set; set it in /api/v1/settings",
        "no API key; PUT it to /api/v1/credentials/textbee:outgoing",
    ]
    configured = settings.parse({"sms": {"textbee": {"device_id": "dev1"}}})
    assert missing("textbee", configured, lambda _: KEY) == []
    assert SERVICES["textbee"] is DEFINITION


# ---- asking for statuses


def batch_url(ref: str) -> str:
    return f"{DEVICE}/sms-batch/{ref}"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("accepted", State.RECEIVED_BY_GATEWAY),
        ("pending", State.RECEIVED_BY_GATEWAY),
        ("dispatched", State.FORWARDED_BY_GATEWAY),
        ("sent", State.SENT),
        ("delivered", State.DELIVERED),
        ("Delivered", State.DELIVERED),
        ("failed", State.FAILED),
        ("unknown", None),
        ("teleported", None),
    ],
)
def test_polled_statuses(service: responses.RequestsMock, status: str, state: State | None) -> None:
    messages = [{"_id": "s1", "recipient": NUMBER, "status": status}]
    service.get(batch_url("b1"), json={"data": {"batch": {"_id": "b1"}, "messages": messages}})
    [report] = gateway().statuses(["b1"])
    assert report == DeliveryReport("textbee", "b1", status.lower(), state, phone=NUMBER)
    assert service.calls[0].request.headers["x-api-key"] == KEY


def test_polling_passes_over_what_is_unknown_and_keeps_what_it_learned(service: responses.RequestsMock) -> None:
    service.get(batch_url("gone"), status=404)
    service.get(batch_url("none"), json={"data": {"messages": []}})
    service.get(batch_url("b1"), json={"data": {"messages": [{"status": "sent"}]}})
    service.get(batch_url("b2"), status=500)
    assert [report.ref for report in gateway().statuses(["gone", "none", "b1", "b2", "b3"])] == ["b1"]


def test_polling_in_vain_says_why(service: responses.RequestsMock) -> None:
    service.get(batch_url("b1"), status=401)
    with pytest.raises(SendError, match="HTTP 401"):
        gateway().statuses(["b1", "b2"])


# ---- the inbox


def received(number: int) -> dict[str, Any]:
    return {"_id": f"s{number}", "sender": NUMBER, "message": f"m{number}", "receivedAt": "2026-01-01T08:00:00.000Z"}


def incoming(number: int) -> IncomingMessage:
    return IncomingMessage("textbee", f"s{number}", NUMBER, f"m{number}", sent_timestamp="2026-01-01T08:00:00.000Z")


INBOX = f"{API}/gateway/messages"


def test_the_inbox_is_read_to_its_end(service: responses.RequestsMock) -> None:
    service.get(INBOX, json={"data": [received(1), received(2)], "meta": {"nextCursor": "c2"}})
    service.get(INBOX, json={"data": [received(3)], "meta": {"nextCursor": "c3"}})
    service.get(INBOX, json={"data": [], "meta": {"nextCursor": None}})
    assert gateway().inbox("c1") == Inbox([incoming(1), incoming(2), incoming(3)], "c3")
    query = {"deviceIds": "dev1", "direction": "received", "order": "asc", "limit": "100"}
    assert [call.request.params for call in service.calls] == [
        query | {"cursor": cursor} for cursor in ("c1", "c2", "c3")
    ]


def test_the_first_look_into_the_inbox_is_a_day_back(service: responses.RequestsMock) -> None:
    service.get(INBOX, json={"data": [received(1)]})
    before = datetime.now(UTC) - FIRST_LOOK - timedelta(seconds=1)
    assert gateway().inbox(None) == Inbox([incoming(1)], None)
    params = service.calls[0].request.params
    assert "cursor" not in params
    assert before <= datetime.fromisoformat(params["from"]) <= datetime.now(UTC) - FIRST_LOOK


def test_an_installation_without_cursors(service: responses.RequestsMock) -> None:
    service.get(INBOX, status=404)
    rows = [received(2), {"_id": "s9"}, {"sender": NUMBER}, "odd", received(1) | {"message": None}]
    service.get(f"{DEVICE}/messages", json={"data": rows, "meta": {"page": 1}})
    read = gateway().inbox("c1")
    assert [(message.ref, message.text) for message in read.messages] == [("s2", "m2"), ("s1", "")]
    assert read.cursor == "c1"
    assert service.calls[1].request.params == {"type": "received", "page": "1", "limit": "100"}


def test_an_inbox_that_cannot_be_read(service: responses.RequestsMock) -> None:
    service.get(INBOX, status=503)
    with pytest.raises(SendError, match="HTTP 503"):
        gateway().inbox(None)


@pytest.mark.parametrize("status", [404, 500])
def test_a_page_of_the_inbox_that_fails_hides_none_before_it(service: responses.RequestsMock, status: int) -> None:
    service.get(INBOX, json={"data": [received(1)], "meta": {"nextCursor": "c2"}})
    service.get(INBOX, json={"data": [received(2)], "meta": {"nextCursor": "c3"}})
    service.get(INBOX, status=status)
    assert gateway().inbox("c1") == Inbox([incoming(1), incoming(2)], "c3")


# ---- callbacks


RECEIVED = (
    b'{"smsId":"s1","sender":"+254711000001","message":"Habari \xf0\x9f\x98\x80",'
    b'"receivedAt":"2026-01-01T08:00:00.000Z","deviceId":"dev1","webhookSubscriptionId":"w1","webhookEvent":"MESSAGE_RECEIVED","idempotencyKey":"k1"}'
)
SECRET = "0123456789abcdef0123456789abcdef"
SIGNATURE = "0d3583b12a436ca36f9b7bd06f35594dd23ab0f94657c2eb03e4817365535053"


@pytest.mark.parametrize(
    ("body", "signature", "right"),
    [
        (RECEIVED, SIGNATURE, True),
        (RECEIVED + b" ", SIGNATURE, False),
        (RECEIVED.replace(b'","', b'", "'), SIGNATURE, False),  # the same JSON, written otherwise
        (RECEIVED, SIGNATURE.upper(), False),
        (RECEIVED, f"sha256={SIGNATURE}", False),
        (RECEIVED, SIGNATURE[:-1], False),
        (RECEIVED, "", False),
    ],
)
def test_signatures_are_over_the_raw_bytes(
    posted: Callable[..., CallbackRequest], vault: Callable[..., Matches], body: bytes, signature: str, right: bool
) -> None:
    request = posted(body, X_Signature=signature)
    assert CALLBACKS.authenticate(request, vault({"textbee:incoming": SECRET})) is right
    assert not CALLBACKS.authenticate(request, vault({"textbee:outgoing": SECRET}))
    assert (CALLBACKS.refusal, CALLBACKS.paths()) == (401, {"/api/v1/sms/textbee/events": "events"})


def test_a_callback_without_a_signature(posted: Callable[..., CallbackRequest], vault: Callable[..., Matches]) -> None:
    assert not CALLBACKS.authenticate(posted(RECEIVED), vault({"textbee:incoming": SECRET}))


EVENT = {"smsId": "s1", "deviceId": "dev1", "idempotencyKey": "k1", "smsBatchId": "b1", "recipient": NUMBER}
FAILED_BY = [
    ("NO_SERVICE", Failure.RETRY),
    ("RADIO_OFF", Failure.RETRY),
    ("NETWORK", Failure.RETRY),
    ("NETWORK_ERROR", Failure.RETRY),
    ("LIMIT_EXCEEDED", Failure.RETRY),
    ("RESULT_ERROR_LIMIT_EXCEEDED", Failure.RETRY),
    ("SHORT_CODE_NOT_ALLOWED", Failure.PERMANENT),
    ("RESULT_ERROR_SHORT_CODE_NEVER_ALLOWED", Failure.PERMANENT),
    ("NULL_PDU", Failure.PERMANENT),
    ("PERMISSION_DENIED", Failure.CONFIGURATION),
    ("FCM_TOKEN_INVALID", Failure.CONFIGURATION),
    ("messaging/registration-token-not-registered", Failure.CONFIGURATION),
    ("GENERIC_FAILURE", None),
    ("", None),
]


def parse(posted: Callable[..., CallbackRequest], body: bytes) -> Any:
    return CALLBACKS.parsers["events"](posted(body))


def test_an_incoming_message(posted: Callable[..., CallbackRequest]) -> None:
    [message] = parse(posted, RECEIVED)
    expected = IncomingMessage("textbee", "s1", NUMBER, "Habari 😀", sent_timestamp="2026-01-01T08:00:00.000Z")
    assert message == expected


@pytest.mark.parametrize(
    ("event", "status", "state"),
    [
        ("MESSAGE_SENT", "sent", State.SENT),
        ("MESSAGE_DELIVERED", "delivered", State.DELIVERED),
        ("MESSAGE_FAILED", "failed", State.FAILED),
        ("UNKNOWN_STATE", "unknown", None),
    ],
)
def test_reports(posted: Callable[..., CallbackRequest], event: str, status: str, state: State | None) -> None:
    body = json.dumps(EVENT | {"webhookEvent": event}).encode()
    assert parse(posted, body) == [DeliveryReport("textbee", "b1", status, state, phone=NUMBER)]


@pytest.mark.parametrize(("code", "failure"), FAILED_BY)
def test_failed_messages(posted: Callable[..., CallbackRequest], code: str, failure: Failure | None) -> None:
    event = EVENT | {"webhookEvent": "MESSAGE_FAILED", "errorCode": code, "errorMessage": "It failed."}
    [report] = parse(posted, json.dumps(event).encode())
    reason = f"{code}: It failed." if code else "It failed."
    assert (report.state, report.reason, report.failure) == (State.FAILED, reason, failure)


@pytest.mark.parametrize(
    "body",
    [
        b'{"webhookEvent":"MESSAGE_TELEPORTED","smsBatchId":"b1"}',
        b'{"webhookEvent":"MESSAGE_SENT","smsId":"s1"}',  # sent by somebody else, in no batch
        b'{"webhookEvent":7}',
        b"{}",
    ],
)
def test_what_nobody_knows_is_nothing_to_store(posted: Callable[..., CallbackRequest], body: bytes) -> None:
    assert parse(posted, body) == []


@pytest.mark.parametrize("field", ["smsId", "sender"])
def test_a_message_that_cannot_be_stored(posted: Callable[..., CallbackRequest], field: str) -> None:
    event = {name: value for name, value in json.loads(RECEIVED).items() if name != field}
    with pytest.raises(BadCallbackError) as caught:
        parse(posted, json.dumps(event).encode())
    assert caught.value.field == field


def test_a_message_without_text_is_a_message(posted: Callable[..., CallbackRequest]) -> None:
    [message] = parse(posted, b'{"webhookEvent":"MESSAGE_RECEIVED","smsId":"s1","sender":"MPESA","message":null}')
    assert message == IncomingMessage("textbee", "s1", "MPESA", "")
