"""What services say of us: their words, with our own key in them and without end, as each gateway passes them on."""

import json
from dataclasses import replace
from typing import Any

import pytest
import responses

from mjumbe import settings
from mjumbe.gateways import SERVICES
from mjumbe.gateways.base import Batch, Check, Outcome, SendError, Wiring
from mjumbe.states import State

KEY = "out-key-1a2b3c4d5e"
NUMBER = "+254711000001"
ECHO = f"the supplied key {KEY} is not valid"
SAID = "the supplied key *** is not valid"
ENDLESS = "w" * 3_000_000
VALUES = {
    "sms": {
        "africas_talking": {"username": "mtandao"},
        "textbee": {"device_id": "dev1"},
        "viber": {"sender_name": "Mtandao"},
        "rapidpro": {"url": "https://rapidpro.example.org"},
    }
}
URLS = {
    "africas-talking": "https://api.africastalking.com/version1/messaging",
    "textbee": "https://api.textbee.dev/api/v1/gateway/devices/dev1/send-sms",
    "viber": "https://chatapi.viber.com/pa/send_message",
    "rapidpro": "https://rapidpro.example.org/api/v2/broadcasts.json",
}


def africas_talking(message: str, ref: str | None = None) -> dict[str, Any]:
    row = {"number": NUMBER, "statusCode": 101, "status": "Success", "cost": "KES 0.8", "messageId": ref}
    return {"SMSMessageData": {"Message": message, "Recipients": [row] if ref else []}}


def africas_talking_status(message: str) -> dict[str, Any]:
    row = {"number": NUMBER, "statusCode": 999, "status": message}
    return {"SMSMessageData": {"Message": "x", "Recipients": [row]}}


def wiring() -> Wiring:
    return Wiring(settings.parse(VALUES), lambda _: KEY, address_of=lambda _: "user")


def outcome(service: responses.RequestsMock, name: str, status: int, body: Any) -> Outcome:
    """What becomes of a message that is answered so."""
    service.post(URLS[name], json=body, status=status)
    try:
        [sent] = SERVICES[name].build(wiring()).send(Batch("Habari", (NUMBER,)))
    except SendError as error:
        return error.outcome
    return sent


@pytest.mark.parametrize(
    ("name", "status", "body", "details"),
    [
        ("africas-talking", 201, africas_talking(ECHO), SAID),
        ("africas-talking", 201, africas_talking_status(ECHO), SAID),
        ("textbee", 400, {"message": ECHO}, f"HTTP 400: {SAID}"),
        ("textbee", 429, {"message": [ECHO, ECHO], "hasReachedLimit": True}, f"HTTP 429: {SAID}; {SAID}"),
        ("viber", 200, {"status": 2, "status_message": ECHO}, f"invalidAuthToken: {SAID}"),
        ("rapidpro", 400, {"urns": [ECHO]}, f"HTTP 400: urns: {SAID}"),
        ("rapidpro", 201, {"id": 1, "status": ECHO}, SAID),
    ],
)
def test_our_key_is_not_among_them(
    service: responses.RequestsMock, name: str, status: int, body: Any, details: str
) -> None:
    assert outcome(service, name, status, body).details == details


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("africas-talking", 201, africas_talking(ENDLESS)),
        ("africas-talking", 201, africas_talking_status(ENDLESS)),
        ("textbee", 400, {"message": ENDLESS}),
        ("viber", 200, {"status": 3, "status_message": ENDLESS}),
        ("rapidpro", 400, {"urns": [ENDLESS]}),
        ("rapidpro", 201, {"id": 1, "status": ENDLESS}),
    ],
)
def test_they_end(service: responses.RequestsMock, name: str, status: int, body: Any) -> None:
    details = outcome(service, name, status, body).details
    assert len(details) == 200
    assert details.endswith("www…")


@pytest.mark.parametrize(
    ("name", "status", "body"),
    [
        ("africas-talking", 201, africas_talking("Sent", ENDLESS)),
        ("textbee", 201, {"data": {"success": True, "smsBatchId": ENDLESS}}),
        ("viber", 200, {"status": 0, "message_token": ENDLESS}),
        ("rapidpro", 201, {"id": ENDLESS, "status": "queued"}),
    ],
)
def test_an_endless_reference_is_not_kept_and_the_message_was_taken(
    service: responses.RequestsMock, name: str, status: int, body: Any
) -> None:
    taken = outcome(service, name, status, body)
    assert (taken.failure, taken.ref) == (None, None)
    assert taken.state is not None
    assert taken.details.endswith("; its reference has 3000000 characters and is not kept")


@pytest.mark.parametrize(
    ("name", "method", "url", "body"),
    [
        (
            *("africas-talking", "GET", "https://api.africastalking.com/version1/user"),
            {"UserData": {"balance": f"KES 1 {ECHO}"}},
        ),
        ("viber", "POST", "https://chatapi.viber.com/pa/get_account_info", {"status": 2, "status_message": ECHO}),
        ("rapidpro", "GET", "https://rapidpro.example.org/api/v2/workspace.json", {"name": ECHO}),
    ],
)
def test_a_check_tells_no_key_either(
    service: responses.RequestsMock, name: str, method: str, url: str, body: Any
) -> None:
    service.add(method, url, json=body)
    check = SERVICES[name].build(wiring()).check()
    assert SAID in check.says
    assert KEY not in json.dumps([check.says, check.balance])


# ---- how much of them is kept


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (Outcome("Sent", ref="r" * 200), Outcome("Sent", ref="r" * 200)),
        (Outcome("Sent", ref="r" * 201), Outcome("Sent; its reference has 201 characters and is not kept")),
        (Outcome("w" * 200), Outcome("w" * 200)),
        (Outcome("w" * 3_000_000), Outcome("w" * 199 + "…")),
        (Outcome("Sent", cost="K" * 3_000_000), Outcome("Sent", cost="K" * 199 + "…")),
        (
            Outcome("w" * 3_000_000, State.SENT, ref="r" * 3_000_000),
            Outcome("w" * 145 + "…; its reference has 3000000 characters and is not kept", State.SENT),
        ),
        (Check(True, "w" * 500, "K" * 300), Check(True, "w" * 399 + "…", "K" * 199 + "…")),
    ],
)
def test_words_are_kept_as_far_as_a_document_can_hold_them(given: Outcome | Check, kept: Outcome | Check) -> None:
    assert given == kept


@pytest.mark.parametrize("outcome", [Outcome("w" * 300, ref="r" * 300), Outcome("w" * 300)])
def test_what_is_kept_of_them_stays_as_it_is(outcome: Outcome) -> None:
    assert len(outcome.details) == 200
    assert replace(outcome, parts=1).details == outcome.details
