"""What Africa's Talking posts, in exact bytes."""

from collections.abc import Callable
from urllib.parse import parse_qsl

import pytest

from mjumbe.documents import DeliveryReport, IncomingMessage, Notice
from mjumbe.gateways import CALLBACKS
from mjumbe.gateways.base import (
    BadCallbackError,
    CallbackRecord,
    CallbackRequest,
)
from mjumbe.states import State

AT = "africas-talking"
FIRST = "+254711000001"


def posted(body: str) -> CallbackRequest:
    form = dict(reversed(parse_qsl(body, keep_blank_values=True)))
    return CallbackRequest({"key": "k"}, form, {}, body.encode())


Parser = Callable[[CallbackRequest], list[CallbackRecord]]
PARSERS = CALLBACKS["africastalking"].parsers


@pytest.mark.parametrize(
    ("route", "body", "record"),
    [
        (
            "incoming-messages",
            "linkId=SampleLinkId123&text=Habari+yako%3F&to=22000&id=b8a4c1f0&date=2017-05-03T06%3A04%3A45Z"
            "&from=%2B254711000001&cost=None&networkCode=63902",
            IncomingMessage(
                *(AT, "b8a4c1f0", FIRST, "Habari yako?", "22000", "2017-05-03T06:04:45Z", "SampleLinkId123", "63902")
            ),
        ),
        (
            "incoming-messages",
            "id=1&from=SAFARICOM&to=22000&text=&date=2017-05-03+06%3A04%3A45&linkId=None&cost=KES+1.00",
            IncomingMessage(AT, "1", "SAFARICOM", "", "22000", "2017-05-03 06:04:45", cost="KES 1.00"),
        ),
        (
            "incoming-messages",
            "id=+1+&from=%2B254711000001&text=%F0%9F%98%80+%D8%B3%D9%84%D8%A7%D9%85%0A+x+&date=odd",
            IncomingMessage(AT, "1", FIRST, "😀 سلام\n x ", sent_timestamp="odd"),
        ),
        ("incoming-messages", "id=1&from=20880", IncomingMessage(AT, "1", "20880", "")),
        (
            "opt-out",
            "senderId=AFYA&phoneNumber=%2B254711000001",
            Notice(AT, "opt-out", FIRST, None, {"sender_id": "AFYA"}),
        ),
        ("opt-out", "phoneNumber=0711000001", Notice(AT, "opt-out", "0711000001", None, {"sender_id": ""})),
        *(
            (
                "subscription",
                f"phoneNumber=%2B254711000001&shortCode=22000&keyword=afya&updateType={update}",
                Notice(
                    *(AT, "subscription", FIRST, None),
                    {"short_code": "22000", "keyword": "afya", "update": update.lower()},
                ),
            )
            for update in ("addition", "Addition", "DELETION", "deletion")
        ),
    ],
)
def test_callbacks(route: str, body: str, record: CallbackRecord) -> None:
    assert PARSERS[route](posted(body)) == [record]


def test_a_change_of_a_subscription_that_nobody_knows_is_passed_over() -> None:
    assert PARSERS["subscription"](posted("phoneNumber=%2B254711000001&updateType=renewal")) == []


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [
        ("Sent", None, State.FORWARDED_BY_GATEWAY),
        ("Submitted", None, State.SENT),
        ("Buffered", None, State.SENT),
        ("Success", None, State.DELIVERED),
        ("Delivered", None, State.DELIVERED),
        ("success", None, State.DELIVERED),
        ("SUCCESS", None, State.DELIVERED),
        ("Rejected", "InsufficientCredit", State.FAILED),
        ("Rejected", "InvalidLinkId", State.FAILED),
        ("Rejected", "UserInBlackList", State.DENIED),
        ("Rejected", "userinblacklist", State.DENIED),
        ("Failed", "UserInBlackList", State.DENIED),
        ("Failed", "UserIsInactive", State.FAILED),
        ("Failed", "UserAccountSuspended", State.FAILED),
        ("Failed", "NotNetworkSubcriber", State.FAILED),
        ("Failed", "UserNotSubscribedToProduct", State.FAILED),
        ("Failed", "UserDoesNotExist", State.FAILED),
        ("Failed", "DeliveryFailure", State.FAILED),
        ("Failed", "DoNotDisturbRejection", State.FAILED),
        ("Failed", "Something nobody knows", State.FAILED),
        ("Expired", None, State.FAILED),
        ("AbsentSubscriber", "AbsentSubscriber", State.FAILED),
        ("Success", "UserInBlackList", State.DELIVERED),
        ("Teleported", None, None),
        ("Teleported", "UserInBlackList", None),
    ],
)
def test_delivery_reports(status: str, reason: str | None, state: State | None) -> None:
    body = f"id=ATXid_1&status={status}&phoneNumber=%2B254711000001&networkCode=63902&retryCount=0"
    body += f"&failureReason={reason.replace(' ', '+')}" if reason else ""
    assert PARSERS["delivery-reports"](posted(body)) == [
        DeliveryReport(AT, "ATXid_1", status, state, FIRST, reason, "63902")
    ]


def test_a_bare_report() -> None:
    assert PARSERS["delivery-reports"](posted("id=1&status=Sent")) == [
        DeliveryReport(AT, "1", "Sent", State.FORWARDED_BY_GATEWAY)
    ]


@pytest.mark.parametrize(
    ("route", "body", "field"),
    [
        ("incoming-messages", "", "id"),
        ("incoming-messages", "from=%2B254711000001&text=x", "id"),
        ("incoming-messages", "id=+&from=%2B254711000001", "id"),
        ("incoming-messages", "id=1&text=x", "from"),
        ("incoming-messages", "id=1&from=+", "from"),
        ("delivery-reports", "id=1", "status"),
        ("delivery-reports", "status=Sent", "id"),
        ("opt-out", "senderId=AFYA", "phoneNumber"),
        ("subscription", "phoneNumber=1", "updateType"),
        ("subscription", "updateType=addition", "phoneNumber"),
    ],
)
def test_callbacks_that_cannot_be_stored(route: str, body: str, field: str) -> None:
    with pytest.raises(BadCallbackError) as caught:
        PARSERS[route](posted(body))
    assert caught.value.field == field


@pytest.mark.parametrize(("query", "asked"), [({"key": "k"}, "k"), ({}, "")])
def test_the_key_is_compared_with_the_incoming_credential(query: dict[str, str], asked: str) -> None:
    seen: list[tuple[str, str]] = []

    def matches(credential: str, given: str) -> bool:
        seen.append((credential, given))
        return True

    assert CALLBACKS["africastalking"].authenticate(CallbackRequest(query, {}, {}, b""), matches)
    assert seen == [("africastalking.com:incoming", asked)]
