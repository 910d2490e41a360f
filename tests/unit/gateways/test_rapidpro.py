"""RapidPro: what goes out and comes in byte for byte, every status and refusal, and CHT's paths for what comes in."""

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
from mjumbe.gateways.rapidpro import CALLBACKS, DEFINITION, RapidPro
from mjumbe.settings import SettingsError
from mjumbe.states import State
from tests.unit.gateways.conftest import refused

KEY = "0123456789abcdef0123456789abcdef01234567"
URL = "https://rapidpro.example.org"
SENDING = f"{URL}/api/v2/broadcasts.json"
ASKING = f"{URL}/api/v2/messages.json"
NUMBER = "+254711000001"
CREATED = b'{"uuid":"0199bb93","id":1234567,"urns":["tel:+254711000001"],"text":{"eng":"Habari"},"status":"queued"}'


def gateway(key: str | None = KEY, **changes: Any) -> RapidPro:
    values = {"sms": {"rapidpro": {"url": URL, **changes}}}
    return RapidPro(Wiring(settings.parse(values), lambda _: key))


# ---- sending


@pytest.mark.parametrize(
    ("text", "body"),
    [
        ("Habari", b'{"urns": ["tel:+254711000001"], "text": "Habari"}'),
        ("a@b @contact @@", b'{"urns": ["tel:+254711000001"], "text": "a@@b @@contact @@@@"}'),
        ("Ça va\n\xe9", b'{"urns": ["tel:+254711000001"], "text": "\\u00c7a va\\n\\u00e9"}'),
    ],
)
def test_the_request_and_its_outcome(service: responses.RequestsMock, text: str, body: bytes) -> None:
    service.post(SENDING, body=CREATED, status=201)
    outcomes = gateway().send(Batch(text, (NUMBER,)))
    assert outcomes == [Outcome("queued", State.RECEIVED_BY_GATEWAY, ref="1234567")]
    request = service.calls[0].request
    assert (request.body, request.headers["Authorization"]) == (body, f"Token {KEY}")


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({"url": "https://textit.com/"}, "https://textit.com/api/v2/broadcasts.json"),
        ({"base_url": "http://127.0.0.1:8080"}, "http://127.0.0.1:8080/api/v2/broadcasts.json"),
    ],
)
def test_the_address(service: responses.RequestsMock, changes: dict[str, str], url: str) -> None:
    service.post(url, body=CREATED, status=201)
    assert gateway(**changes).send(Batch("Habari", (NUMBER,)))[0].failure is None


def test_a_request_has_one_recipient() -> None:
    assert DEFINITION.section(settings.parse({})).batch_size == 1
    with pytest.raises(SettingsError, match="expected a whole number from 1 to 1"):
        settings.parse({"sms": {"rapidpro": {"batch_size": 100}}})


def test_nothing_is_sent_without_a_key() -> None:
    assert refused(gateway(key=None), NUMBER).failure is Failure.CONFIGURATION


@pytest.mark.parametrize(
    ("body", "outcome"),
    [
        (b'{"uuid":"0199bb93","status":"sent"}', Outcome("sent", State.RECEIVED_BY_GATEWAY, ref="0199bb93")),
        (b'{"id":7}', Outcome("queued", State.RECEIVED_BY_GATEWAY, ref="7")),
        (b"{}", Outcome("an answer without a broadcast", failure=Failure.AMBIGUOUS)),
        (b"[]", Outcome("an answer without a broadcast", failure=Failure.AMBIGUOUS)),
    ],
)
def test_odd_answers(service: responses.RequestsMock, body: bytes, outcome: Outcome) -> None:
    service.post(SENDING, body=body, status=201)
    assert gateway().send(Batch("Habari", (NUMBER,))) == [outcome]


@pytest.mark.parametrize(
    ("status", "body", "failure", "state", "details"),
    [
        (400, b'{"urns":["Invalid URN"]}', Failure.PERMANENT, State.FAILED, "HTTP 400: urns: Invalid URN"),
        (
            *(400, b'{"urns":{"0":["x"]},"text":[]}', Failure.PERMANENT, State.FAILED),
            "HTTP 400: urns: {'0': ['x']}; text: []",
        ),
        (400, b'["Invalid"]', Failure.PERMANENT, State.FAILED, "HTTP 400"),
        (400, b"<html>", Failure.PERMANENT, State.FAILED, "HTTP 400"),
        (401, b"", Failure.CONFIGURATION, None, "HTTP 401"),
        (403, b'{"detail":"Invalid token"}', Failure.CONFIGURATION, None, "HTTP 403"),
        (
            *(404, b"", Failure.CONFIGURATION, None),
            "HTTP 404: nothing is at this address; check the service's settings",
        ),
        (429, b"", Failure.RETRY, None, "HTTP 429"),
        (500, b"", Failure.RETRY, None, "HTTP 500"),
        (502, b"<html>", Failure.RETRY, None, "HTTP 502"),
        (201, b"<html>", Failure.AMBIGUOUS, None, "HTTP 201 with a body that is no JSON"),
    ],
)
def test_refusals(
    service: responses.RequestsMock, status: int, body: bytes, failure: Failure, state: State | None, details: str
) -> None:
    service.post(SENDING, body=body, status=status, content_type="application/json")
    outcome = refused(gateway(), NUMBER)
    assert (outcome.failure, outcome.state, outcome.details) == (failure, state, details)


def test_the_rate_limit_holds_the_service_until_it_says(service: responses.RequestsMock) -> None:
    service.post(SENDING, status=429, headers={"Retry-After": "1800"})
    before = datetime.now(UTC)
    outcome = refused(gateway(), NUMBER)
    assert outcome.failure is Failure.QUOTA
    assert outcome.retry_at is not None
    assert before <= outcome.retry_at - timedelta(seconds=1800) <= datetime.now(UTC)


# ---- the account


@pytest.mark.parametrize(
    ("status", "body", "ok", "says"),
    [
        (200, {"uuid": "w1", "name": "Afya"}, True, "RapidPro took the key; its workspace is Afya"),
        (200, [], False, "RapidPro gave an answer without a workspace; check sms.rapidpro.url"),
        (401, {}, False, "RapidPro did not take the key: HTTP 401"),
        (403, {}, False, "RapidPro did not take the key: HTTP 403"),
        (503, {}, False, "RapidPro did not take the key: HTTP 503"),
    ],
)
def test_check(service: responses.RequestsMock, status: int, body: Any, ok: bool, says: str) -> None:
    service.get(f"{URL}/api/v2/workspace.json", json=body, status=status)
    assert gateway().check() == Check(ok, says)
    assert service.calls[0].request.headers["Authorization"] == f"Token {KEY}"


def test_what_is_missing() -> None:
    assert missing("rapidpro", settings.parse({}), lambda _: None) == [
        "sms.rapidpro.url is not set; set it in /api/v1/settings",
        "no API key; PUT it to /api/v1/credentials/rapidpro:outgoing",
    ]
    for configured in ({"url": URL}, {"base_url": URL}):
        assert missing("rapidpro", settings.parse({"sms": {"rapidpro": configured}}), lambda _: KEY) == []
    assert SERVICES["rapidpro"] is DEFINITION


# ---- asking for statuses


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("queued", State.RECEIVED_BY_GATEWAY),
        ("wired", State.FORWARDED_BY_GATEWAY),
        ("sent", State.SENT),
        ("resent", State.SENT),
        ("delivered", State.DELIVERED),
        ("read", State.DELIVERED),
        ("errored", State.RECEIVED_BY_GATEWAY),
        ("failed", State.FAILED),
        ("teleported", None),
    ],
)
def test_polled_statuses(service: responses.RequestsMock, status: str, state: State | None) -> None:
    row = {"id": 9, "broadcast": 1234567, "urn": "tel:+254711000001", "status": status, "direction": "out"}
    service.get(ASKING, json={"next": None, "previous": None, "results": [row]})
    assert gateway().statuses(["1234567"]) == [DeliveryReport("rapidpro", "1234567", status, state, phone=NUMBER)]
    request = service.calls[0].request
    assert (request.params, request.headers["Authorization"]) == ({"broadcast": "1234567"}, f"Token {KEY}")


def test_why_a_message_failed(service: responses.RequestsMock) -> None:
    row = {"broadcast": 1, "urn": "facebook:1", "status": "failed", "failed_reason": "no_destination"}
    service.get(ASKING, json={"results": [row]})
    [report] = gateway().statuses(["1"])
    assert report == DeliveryReport("rapidpro", "1", "failed", State.FAILED, reason="no_destination")


@pytest.mark.parametrize(
    "row",
    [
        {"broadcast": 1234568, "urn": "tel:+254711000001", "status": "failed"},
        {"broadcast": None, "urn": "tel:+254711000001", "status": "handled", "direction": "in"},
        {"uuid": "0199bb94", "urn": "tel:+254711000001", "status": "delivered", "direction": "out"},
    ],
)
def test_other_messages_than_the_one_asked_for_say_nothing_of_it(
    service: responses.RequestsMock, row: dict[str, Any]
) -> None:
    """RapidPro ignores filters that it does not know, and newer ones know no `broadcast`."""
    service.get(ASKING, json={"results": [row]})
    assert gateway().statuses(["1234567"]) == []


def test_polling_stops_at_the_rate_limit_and_keeps_what_it_learned(service: responses.RequestsMock) -> None:
    service.get(ASKING, json={"results": []})  # not sent yet
    service.get(ASKING, status=404)
    service.get(ASKING, json={"results": [{"broadcast": 3, "status": "wired"}, "odd", {}]})
    service.get(ASKING, status=429, headers={"Retry-After": "60"})
    assert [report.ref for report in gateway().statuses(["1", "2", "3", "4", "5"])] == ["3"]
    service.get(ASKING, status=429)
    with pytest.raises(SendError, match="HTTP 429"):
        gateway().statuses(["4", "5"])


def test_there_is_no_inbox() -> None:
    assert gateway().inbox("c1") == Inbox([], "c1")


# ---- callbacks


BODY = b'{"id":"48c3","from":"+254711000001","content":"Habari @ \xc3\xa9"}'


@pytest.mark.parametrize(
    ("authorization", "right"),
    [
        (f"Token {KEY}", True),
        (f"Token   {KEY}", True),
        (f"Token {KEY[:-1]}", False),
        (f"Token {KEY}0", False),
        (f"token {KEY}", False),  # as in CHT
        (f"Bearer {KEY}", False),
        (KEY, False),
        ("Token ", False),
        ("", False),
    ],
)
def test_authentication(
    posted: Callable[..., CallbackRequest], vault: Callable[..., Matches], authorization: str, right: bool
) -> None:
    request = posted(BODY, Authorization=authorization)
    assert CALLBACKS.authenticate(request, vault({"rapidpro:incoming": KEY})) is right
    assert not CALLBACKS.authenticate(request, vault({"rapidpro:outgoing": KEY}))


def test_where_messages_come_and_what_a_wrong_key_gets() -> None:
    assert CALLBACKS.refusal == 403
    assert CALLBACKS.paths() == {
        "/api/v1/sms/rapidpro/incoming-messages": "incoming-messages",
        "/api/v2/sms/rapidpro/incoming-messages": "incoming-messages",
        "/api/v1/sms/radpidpro/incoming-messages": "incoming-messages",
    }


@pytest.mark.parametrize(
    ("body", "content_type", "message"),
    [
        (BODY, "application/json", IncomingMessage("rapidpro", "48c3", NUMBER, "Habari @ é")),
        (
            *(b'{"id":7,"from":"tel:+254711000001","content":""}', "application/json"),
            IncomingMessage("rapidpro", "7", NUMBER, ""),
        ),
        (
            *(b'{"id":"7","from":"254711000001"}', "application/json; charset=utf-8"),
            IncomingMessage("rapidpro", "7", "254711000001", ""),
        ),
        (
            *(b"id=7&from=%2B254711000001&content=Habari", "application/x-www-form-urlencoded"),
            IncomingMessage("rapidpro", "7", NUMBER, "Habari"),
        ),
    ],
)
def test_incoming_messages(
    posted: Callable[..., CallbackRequest], body: bytes, content_type: str, message: IncomingMessage
) -> None:
    assert CALLBACKS.parsers["incoming-messages"](posted(body, content_type)) == [message]


@pytest.mark.parametrize(
    ("body", "field"),
    [(b'{"from":"+254711000001","content":"x"}', "id"), (b'{"id":"7","from":null,"content":"x"}', "from")],
)
def test_messages_that_cannot_be_stored(posted: Callable[..., CallbackRequest], body: bytes, field: str) -> None:
    with pytest.raises(BadCallbackError) as caught:
        CALLBACKS.parsers["incoming-messages"](posted(body))
    assert caught.value.field == field
