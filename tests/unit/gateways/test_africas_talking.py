"""Africa's Talking, in exact bytes: requests as they go out, answers as they come in."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

import pytest
import requests
import responses

from mjumbe import settings
from mjumbe.documents import Premium
from mjumbe.gateways import CALLBACKS, PHONE_GATEWAY, missing
from mjumbe.gateways.africas_talking import DEFINITION, AfricasTalking, read_answer
from mjumbe.gateways.base import (
    Batch,
    Check,
    Failure,
    Outcome,
    Wiring,
)
from mjumbe.states import State
from tests.unit.gateways.africas_talking import KEY, gateway
from tests.unit.gateways.conftest import refused

AT = "africas-talking"
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SENDING = "https://api.africastalking.com/version1/messaging"
FIRST, SECOND, THIRD = "+254711000001", "+254711000002", "+254711000003"
SENT = (
    b'{"SMSMessageData":{"Message":"Sent to 1/1 Total Cost: KES 0.8000","Recipients":[{"statusCode":101,'
    b'"number":"+254711000001","status":"Success","cost":"KES 0.8000","messageId":"ATXid_1","messageParts":1}]}}'
)


# ---- requests


@pytest.mark.parametrize(
    ("changes", "batch", "url", "body"),
    [
        (
            {},
            Batch("Habari", (FIRST,)),
            *(SENDING, "username=mtandao&to=%2B254711000001&message=Habari"),
        ),
        (
            {},
            Batch("Una deni la 50/- & riba + 5%: ñ €\nkesho 😀", (FIRST, SECOND)),
            SENDING,
            "username=mtandao&to=%2B254711000001%2C%2B254711000002"
            "&message=Una+deni+la+50%2F-+%26+riba+%2B+5%25%3A+%C3%B1+%E2%82%AC%0Akesho+%F0%9F%98%80",
        ),
        (
            {"sms": {"reply_to": "AFYA"}},
            Batch("Habari", (FIRST,)),
            *(SENDING, "username=mtandao&to=%2B254711000001&message=Habari&from=AFYA"),
        ),
        (  # a premium answer goes to the content host
            {"sms": {"reply_to": "22000"}},
            Batch("Habari", (FIRST,), Premium(link_id="L/1")),
            "https://content.africastalking.com/version1/messaging",
            "username=mtandao&to=%2B254711000001&message=Habari&from=22000&linkId=L%2F1&bulkSMSMode=0",
        ),
        (
            {"sms": {"africas_talking": {"username": "sandbox"}}},
            Batch("Habari", (FIRST,)),
            "https://api.sandbox.africastalking.com/version1/messaging",
            "username=sandbox&to=%2B254711000001&message=Habari",
        ),
        (
            {"sms": {"africas_talking": {"username": "sandbox"}}},
            Batch("Habari", (FIRST,), Premium(link_id="L1")),
            "https://api.sandbox.africastalking.com/version1/messaging",
            "username=sandbox&to=%2B254711000001&message=Habari&linkId=L1&bulkSMSMode=0",
        ),
        (
            {"sms": {"africas_talking": {"base_url": "https://proxy.example/at/"}}},
            Batch("Habari", (FIRST,)),
            "https://proxy.example/at/version1/messaging",
            "username=mtandao&to=%2B254711000001&message=Habari",
        ),
        (
            {"sms": {"africas_talking": {"base_url": "https://proxy.example/at/"}}},
            Batch("Habari", (FIRST,), Premium(link_id="L1")),
            "https://proxy.example/at/version1/messaging",
            "username=mtandao&to=%2B254711000001&message=Habari&linkId=L1&bulkSMSMode=0",
        ),
        (
            {"sms": {"africas_talking": {"enqueue": True, "keyword": "afya", "retry_duration_hours": 4}}},
            Batch("Habari", (FIRST,)),
            *(SENDING, "username=mtandao&to=%2B254711000001&message=Habari&enqueue=1"),
        ),
        (
            {"sms": {"reply_to": "22000", "africas_talking": {"keyword": "afya", "retry_duration_hours": 4}}},
            Batch("Habari", (FIRST,), Premium(link_id="L1")),
            "https://content.africastalking.com/version1/messaging",
            "username=mtandao&to=%2B254711000001&message=Habari&from=22000&linkId=L1&bulkSMSMode=0&keyword=afya"
            "&retryDurationInHours=4",
        ),
        (  # the author says more than the settings
            {"sms": {"reply_to": "22000", "africas_talking": {"keyword": "afya", "retry_duration_hours": 4}}},
            Batch("Habari", (FIRST,), Premium(wanted=True, keyword="maji", link_id="L1", retry_duration_hours=12)),
            "https://content.africastalking.com/version1/messaging",
            "username=mtandao&to=%2B254711000001&message=Habari&from=22000&linkId=L1&bulkSMSMode=0&keyword=maji"
            "&retryDurationInHours=12",
        ),
        (
            {"sms": {"reply_to": "22000", "africas_talking": {"keyword": "afya"}}},
            Batch("Habari", (FIRST,), Premium(wanted=True)),
            "https://content.africastalking.com/version1/messaging",
            "username=mtandao&to=%2B254711000001&message=Habari&from=22000&bulkSMSMode=0&keyword=afya",
        ),
        (  # an ordinary message of a premium account
            {"sms": {"reply_to": "22000", "africas_talking": {"premium": True, "keyword": "afya"}}},
            Batch("Habari", (FIRST,), Premium(wanted=False, link_id="L1")),
            *(SENDING, "username=mtandao&to=%2B254711000001&message=Habari&from=22000"),
        ),
        (  # to subscribers: no linkId
            {"sms": {"reply_to": "22000", "africas_talking": {"premium": True, "keyword": "afya", "enqueue": True}}},
            Batch("Habari", (FIRST, SECOND)),
            "https://content.africastalking.com/version1/messaging",
            "username=mtandao&to=%2B254711000001%2C%2B254711000002&message=Habari&from=22000&enqueue=1&bulkSMSMode=0"
            "&keyword=afya",
        ),
    ],
)
def test_the_request(
    service: responses.RequestsMock, changes: dict[str, Any], batch: Batch, url: str, body: str
) -> None:
    service.post(url, body=SENT, status=201)
    gateway(**changes).send(batch)
    request = service.calls[0].request
    assert request.body == body
    assert request.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert request.headers["Accept"] == "application/json"
    assert request.headers["apiKey"] == KEY
    assert dict(parse_qsl(body))["message"] == batch.text
    assert len(service.calls) == 1


def test_timeouts_go_with_every_request(service: responses.RequestsMock) -> None:
    service.post(SENDING, body=SENT, status=201)
    section = {"connect_timeout": "3s", "read_timeout": "45s"}
    gateway(sms={"africas_talking": section}).send(Batch("Habari", (FIRST,)))
    assert service.calls[0].request.req_kwargs["timeout"] == (3.0, 45.0)


def test_nothing_is_sent_without_a_key() -> None:
    with responses.RequestsMock():
        assert refused(gateway(key=None), FIRST).failure is Failure.CONFIGURATION


# ---- answers


def test_a_success(service: responses.RequestsMock) -> None:
    service.post(SENDING, body=SENT, status=201)
    assert gateway().send(Batch("Habari", (FIRST,))) == [
        Outcome("Sent", State.SENT, ref="ATXid_1", code="101", cost="KES 0.8000", parts=1)
    ]


@pytest.mark.parametrize(
    ("code", "word", "name", "state", "failure"),
    [
        (100, "Processed", "Processed", State.FORWARDED_BY_GATEWAY, None),
        (101, "Success", "Sent", State.SENT, None),
        (102, "Queued", "Queued", State.RECEIVED_BY_GATEWAY, None),
        (401, "RiskHold", "RiskHold", State.FAILED, Failure.PERMANENT),
        (402, "InvalidSenderId", "InvalidSenderId", None, Failure.CONFIGURATION),
        (403, "InvalidPhoneNumber", "InvalidPhoneNumber", State.FAILED, Failure.PERMANENT),
        (404, "UnsupportedNumberType", "UnsupportedNumberType", State.FAILED, Failure.PERMANENT),
        (405, "InsufficientBalance", "InsufficientBalance", None, Failure.CONFIGURATION),
        (406, "UserInBlacklist", "UserInBlacklist", State.DENIED, Failure.PERMANENT),
        (407, "CouldNotRoute", "CouldNotRoute", State.FAILED, Failure.PERMANENT),
        (409, "DoNotDisturbRejection", "DoNotDisturbRejection", None, Failure.RETRY),
        (500, "InternalServerError", "InternalServerError", None, Failure.RETRY),
        (501, "GatewayError", "GatewayError", None, Failure.RETRY),
        (502, "RejectedByGateway", "RejectedByGateway", None, Failure.RETRY),
        (599, "SomethingNew", "SomethingNew", None, Failure.RETRY),
        (0, "", "no statusCode", None, Failure.RETRY),
    ],
)
def test_status_codes(
    service: responses.RequestsMock, code: int, word: str, name: str, state: State | None, failure: Failure | None
) -> None:
    taken = failure is None
    cost, ref, parts = ("KES 0.8000", "ATXid_1", 2) if taken else ("0", "None", 0)
    body = (
        f'{{"SMSMessageData":{{"Message":"Sent to {int(taken)}/1 Total Cost: {cost}","Recipients":[{{"statusCode":'
        f'{code},"number":"{FIRST}","status":"{word}","cost":"{cost}","messageId":"{ref}","messageParts":{parts}}}]}}}}'
    )
    service.post(SENDING, body=body.encode(), status=201, content_type="application/json; charset=utf-8")
    (outcome,) = gateway().send(Batch("Habari", (FIRST,)))
    assert (outcome.state, outcome.failure, outcome.details) == (state, failure, name)
    assert outcome.code == (str(code) if code else None)
    assert (outcome.ref, outcome.cost, outcome.parts) == (("ATXid_1", "KES 0.8000", 2) if taken else (None,) * 3)
    assert (outcome.retry_at is not None, outcome.personal) == (code == 409, code == 409)
    assert outcome.opted_out == (code == 406)


@pytest.mark.parametrize(
    ("now", "end"),
    [  # 08:00 West Africa Time is 07:00 UTC
        (datetime(2026, 1, 1, 19, 0, tzinfo=UTC), datetime(2026, 1, 2, 7, 0, tzinfo=UTC)),
        (datetime(2026, 1, 1, 23, 30, tzinfo=UTC), datetime(2026, 1, 2, 7, 0, tzinfo=UTC)),
        (datetime(2026, 1, 2, 0, 30, tzinfo=UTC), datetime(2026, 1, 2, 7, 0, tzinfo=UTC)),
        (datetime(2026, 1, 2, 6, 59, tzinfo=UTC), datetime(2026, 1, 2, 7, 0, tzinfo=UTC)),
        (datetime(2026, 1, 2, 7, 0, tzinfo=UTC), datetime(2026, 1, 3, 7, 0, tzinfo=UTC)),
        (datetime(2025, 12, 31, 22, 0, tzinfo=UTC), datetime(2026, 1, 1, 7, 0, tzinfo=UTC)),
    ],
)
def test_the_end_of_do_not_disturb(now: datetime, end: datetime) -> None:
    (outcome,) = read_answer(answer(row(FIRST, 409)), (FIRST,), now)
    assert outcome.retry_at == end


def row(number: str | None, code: int = 101, ref: str | None = "ATXid_1", **more: Any) -> dict[str, Any]:
    return {"statusCode": code, "number": number, "status": "x", "cost": "KES 0.8000", "messageId": ref, **more}


def answer(*rows: Any, message: str = "Sent") -> dict[str, Any]:
    return {"SMSMessageData": {"Message": message, "Recipients": list(rows)}}


def test_recipients_are_matched_by_number_not_by_position() -> None:
    said = answer(row("254 711 000 003", ref="r3"), row("+254711000001", 403, "None"), row(SECOND, ref="r2"))
    outcomes = read_answer(said, (FIRST, SECOND, THIRD), NOW)
    assert [(outcome.code, outcome.ref) for outcome in outcomes] == [("403", None), ("101", "r2"), ("101", "r3")]


def test_a_recipient_that_the_answer_leaves_out_is_tried_again() -> None:
    outcomes = read_answer(answer(row(SECOND, ref="r2")), (FIRST, SECOND), NOW)
    assert [outcome.failure for outcome in outcomes] == [Failure.RETRY, None]
    assert outcomes[0].details == "the answer does not name this recipient"


@pytest.mark.parametrize("number", ["0711000001", "+254799000001", "+25471100XXXX", "", None])
@pytest.mark.parametrize("ref", ["r1", "None", None])
def test_a_recipient_that_may_be_meant_by_another_number_is_in_doubt(number: str | None, ref: str | None) -> None:
    outcomes = read_answer(answer(row(number, ref=ref), row(SECOND, ref="r2")), (FIRST, SECOND), NOW)
    assert [outcome.failure for outcome in outcomes] == [Failure.AMBIGUOUS, None]
    outcomes = read_answer(answer(row(number, 403, "None"), row(SECOND, ref="r2")), (FIRST, SECOND), NOW)
    assert [outcome.failure for outcome in outcomes] == [Failure.RETRY, None], "nobody was sent anything by that"


@pytest.mark.parametrize("refusal", [405, 403, 500])
@pytest.mark.parametrize("accepted_first", [True, False])
@pytest.mark.parametrize("ref", ["r1", None])
def test_a_recipient_that_is_named_twice_was_accepted_if_one_row_says_so(
    refusal: int, accepted_first: bool, ref: str | None
) -> None:
    rows = [row(FIRST, ref=ref), row(FIRST, refusal, "None")]
    (outcome,) = read_answer(answer(*(rows if accepted_first else reversed(rows))), (FIRST,), NOW)
    assert (outcome.state, outcome.failure, outcome.ref) == (State.SENT, None, ref)


@pytest.mark.parametrize("ref", ["None", "", None, " "])
def test_references_that_are_none(ref: Any) -> None:
    (outcome,) = read_answer(answer(row(FIRST, ref=ref)), (FIRST,), NOW)
    assert (outcome.ref, outcome.state) == (None, State.SENT)


@pytest.mark.parametrize(
    ("odd", "state"),
    [
        ({"statusCode": "101"}, State.SENT),
        ({"statusCode": "Success"}, None),
        ({"statusCode": None}, None),
        ({"statusCode": [101]}, None),
        ({"statusCode": float("inf")}, None),
        ({"messageParts": "1"}, State.SENT),
        ({"messageParts": None}, State.SENT),
        ({"messageId": 17}, State.SENT),
        ({"cost": None}, State.SENT),
    ],
)
def test_odd_recipients(odd: dict[str, Any], state: State | None) -> None:
    (outcome,) = read_answer(answer({**row(FIRST), **odd}), (FIRST,), NOW)
    assert outcome.state is state
    assert (outcome.failure is None) == (state is not None)


@pytest.mark.parametrize(
    ("ref", "code", "failure"),
    [
        ("ATXid_1", None, Failure.AMBIGUOUS),
        ("ATXid_1", 599, Failure.RETRY),
        ("None", None, Failure.RETRY),
    ],
)
def test_an_id_without_a_code_leaves_in_doubt_what_was_sent(ref: str, code: int | None, failure: Failure) -> None:
    (outcome,) = read_answer(answer({**row(FIRST), "statusCode": code, "messageId": ref}), (FIRST,), NOW)
    assert outcome.failure is failure
    assert outcome.ref == (ref if ref != "None" else None), "its delivery report settles it"


@pytest.mark.parametrize(
    ("body", "failure", "state", "details"),
    [
        (
            b'{"SMSMessageData":{"Message":"InvalidSenderId","Recipients":[]}}',
            *(Failure.CONFIGURATION, None, "InvalidSenderId"),
        ),
        (
            b'{"SMSMessageData":{"Message":"InsufficientBalance","Recipients":[]}}',
            *(Failure.CONFIGURATION, None, "InsufficientBalance"),
        ),
        (
            b'{"SMSMessageData":{"Message":"InternalServerError","Recipients":[]}}',
            *(Failure.RETRY, None, "InternalServerError"),
        ),
        (
            b'{"SMSMessageData":{"Message":"UserInBlacklist","Recipients":[]}}',
            *(Failure.PERMANENT, State.DENIED, "UserInBlacklist"),
        ),
        (
            b'{"SMSMessageData":{"Message":"Something else","Recipients":[]}}',
            *(Failure.RETRY, None, "Something else"),
        ),
        (b'{"SMSMessageData":{"Recipients":[]}}', Failure.RETRY, None, "an answer without recipients"),
        (
            b'{"SMSMessageData":{"Message":"Sent to 0/1 Total Cost: 0","Recipients":[]}}',
            *(Failure.RETRY, None, "Sent to 0/1 Total Cost: 0"),
        ),
        (
            b'{"SMSMessageData":{"Message":"Sent to 1/1 Total Cost: KES 0.8000","Recipients":[]}}',
            *(Failure.AMBIGUOUS, None, "Sent to 1/1 Total Cost: KES 0.8000"),
        ),
        (b'{"SMSMessageData":{"Message":"Sent"}}', Failure.AMBIGUOUS, None, "Sent"),
        *(
            (body, Failure.AMBIGUOUS, None, "an answer without recipients")
            for body in (
                b'{"SMSMessageData":{"Message":null,"Recipients":null}}',
                b'{"SMSMessageData":[]}',
                b'{"SMSMessageData":null}',
                b'{"SMSMessageData":{"Recipients":["x"]}}',
                b'{"status":"ok"}',
                b"{}",
                b"[]",
                b"null",
                b'"OK"',
            )
        ),
    ],
)
def test_answers_without_recipients(
    service: responses.RequestsMock, body: bytes, failure: Failure, state: State | None, details: str
) -> None:
    service.post(SENDING, body=body, status=201)
    outcomes = gateway().send(Batch("Habari", (FIRST, SECOND)))
    assert len(outcomes) == 2
    for outcome in outcomes:
        assert (outcome.failure, outcome.state, outcome.details) == (failure, state, details)


XML = (
    b'<?xml version="1.0" encoding="UTF-8"?><AfricasTalkingResponse><SMSMessageData><Message>Sent to 1/1</Message>'
    b"</SMSMessageData></AfricasTalkingResponse>"
)


@pytest.mark.parametrize(
    ("status", "body", "failure", "state", "details"),
    [
        (401, b"The supplied authentication is invalid", Failure.CONFIGURATION, None, "HTTP 401"),
        (403, b"", Failure.CONFIGURATION, None, "HTTP 403"),
        (400, b"Must have username in your request", Failure.PERMANENT, State.FAILED, "HTTP 400"),
        (
            *(404, b"<html>Not here</html>", Failure.CONFIGURATION, None),
            "HTTP 404: nothing is at this address; check the service's settings",
        ),
        (429, b"", Failure.RETRY, None, "HTTP 429"),
        (500, b"<html>", Failure.RETRY, None, "HTTP 500"),
        (502, b"Bad Gateway", Failure.RETRY, None, "HTTP 502"),
        (503, b"", Failure.RETRY, None, "HTTP 503"),
        (504, b"", Failure.AMBIGUOUS, None, "HTTP 504"),
        (201, XML, Failure.AMBIGUOUS, None, "HTTP 201 with a body that is no JSON"),
        (200, b"<html>Welcome</html>", Failure.AMBIGUOUS, None, "HTTP 200 with a body that is no JSON"),
        (201, b"", Failure.AMBIGUOUS, None, "HTTP 201 with a body that is no JSON"),
        (201, SENT[:40], Failure.AMBIGUOUS, None, "HTTP 201 with a body that is no JSON"),
    ],
)
def test_requests_that_fail_as_a_whole(
    service: responses.RequestsMock, status: int, body: bytes, failure: Failure, state: State | None, details: str
) -> None:
    service.post(SENDING, body=body, status=status, content_type="text/plain")
    outcome = refused(gateway(), FIRST)
    assert (outcome.failure, outcome.state, outcome.details) == (failure, state, details)
    assert KEY not in outcome.details


def test_too_many_requests_hold_the_service_until_it_says(service: responses.RequestsMock) -> None:
    service.post(SENDING, status=429, headers={"Retry-After": "120"})
    outcome = refused(gateway(), FIRST)
    assert (outcome.failure, outcome.state) == (Failure.QUOTA, None)
    assert outcome.retry_at is not None


def test_another_2xx_will_do(service: responses.RequestsMock) -> None:
    service.post(SENDING, body=SENT, status=200)
    assert gateway().send(Batch("Habari", (FIRST,)))[0].state is State.SENT


# ---- the balance


@pytest.mark.parametrize(
    ("status", "body", "check"),
    [
        (
            *(200, b'{"UserData":{"balance":"KES 1785.50"}}'),
            Check(True, "Africa's Talking took the credentials; the balance is KES 1785.50", "KES 1785.50"),
        ),
        (
            *(200, b'{"userData":{"balance":"KES 1785.50"}}'),
            Check(True, "Africa's Talking took the credentials; the balance is KES 1785.50", "KES 1785.50"),
        ),
        (200, b'{"UserData":{}}', Check(False, "Africa's Talking gave an answer without a balance")),
        (200, b'{"UserData":"x"}', Check(False, "Africa's Talking gave an answer without a balance")),
        (200, b"[]", Check(False, "Africa's Talking gave an answer without a balance")),
        (
            *(401, b"The supplied authentication is invalid"),
            Check(False, "Africa's Talking did not take the credentials: HTTP 401"),
        ),
    ],
)
def test_the_balance(service: responses.RequestsMock, status: int, body: bytes, check: Check) -> None:
    service.get("https://api.africastalking.com/version1/user?username=mtandao", body=body, status=status)
    assert gateway().check() == check
    assert service.calls[0].request.headers["apiKey"] == KEY
    assert service.calls[0].request.headers["Accept"] == "application/json"


def test_the_balance_cannot_be_asked(service: responses.RequestsMock) -> None:
    service.get("https://api.africastalking.com/version1/user", body=requests.exceptions.ConnectTimeout())
    says = "Africa's Talking could not be asked at api.africastalking.com: no connection (ConnectTimeout)"
    assert gateway().check() == Check(False, says)


# ---- is it configured?


@pytest.mark.parametrize(
    ("name", "values", "key", "sentences"),
    [
        (AT, {"sms": {"africas_talking": {"username": "mtandao"}}}, KEY, []),
        (AT, {}, KEY, ["sms.africas_talking.username is not set; set it in /api/v1/settings"]),
        (
            *(AT, {"sms": {"africas_talking": {"username": "mtandao"}}}, None),
            ["no API key; PUT it to /api/v1/credentials/africastalking.com:outgoing"],
        ),
        (
            *(AT, {"sms": {"africas_talking": {"username": "mtandao", "enabled": False}}}, KEY),
            ["it is switched off by sms.africas_talking.enabled"],
        ),
        (
            *(AT, {"sms": {"africas_talking": {"enabled": False}}}, ""),
            [
                "sms.africas_talking.username is not set; set it in /api/v1/settings",
                "it is switched off by sms.africas_talking.enabled",
                "no API key; PUT it to /api/v1/credentials/africastalking.com:outgoing",
            ],
        ),
        (
            *(AT, {"sms": {"africas_talking": {"username": "mtandao", "premium": True}}}, KEY),
            ["sms.africas_talking.premium needs your short code in sms.reply_to; set it in /api/v1/settings"],
        ),
        (AT, {"sms": {"reply_to": "22000", "africas_talking": {"username": "mtandao", "premium": True}}}, KEY, []),
        (PHONE_GATEWAY, {}, None, []),
    ],
)
def test_what_is_missing(name: str, values: dict[str, Any], key: str | None, sentences: list[str]) -> None:
    assert missing(name, settings.parse(values), lambda _: key) == sentences


def test_the_definition() -> None:
    assert DEFINITION.name == AT
    assert DEFINITION.callbacks is CALLBACKS["africastalking"]
    wiring = Wiring(settings.parse({}), lambda _: KEY)
    assert isinstance(DEFINITION.build(wiring), AfricasTalking)
