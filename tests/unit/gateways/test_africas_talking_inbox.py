"""Africa's Talking's inbox, in exact bytes: messages whose callbacks were missed."""

import re
from datetime import UTC, datetime, timedelta

import pytest
import responses

from mjumbe.documents import IncomingMessage
from mjumbe.gateways.africas_talking import AfricasTalking
from mjumbe.gateways.base import (
    Failure,
    Inbox,
    SendError,
)
from tests.unit.gateways.africas_talking import KEY, gateway

AT = "africas-talking"
FIRST = "+254711000001"

INBOX = "https://api.africastalking.com/version1/messaging?username=mtandao&lastReceivedId="
NOTHING = b'{"SMSMessageData":{"Messages":[]}}'
HABARI = (
    b'{"linkId":"SampleLinkId123","text":"Habari \\u00f1","to":"22000","id":15071,'
    b'"date":"2018-03-19T08:34:18.445Z","from":"+254711000001"}'
)


def page(*rows: bytes) -> bytes:
    return b'{"SMSMessageData":{"Messages":[' + b",".join(rows) + b"]}}"


def recent(number: int, age: int = 300) -> bytes:
    """A row that came `age` seconds before it is `dated`: tests may be collected long before they run."""
    return f'{{"linkId":"","text":"x","to":"22000","id":{number},"date":"AGO {age}","from":"{FIRST}"}}'.encode()


def dated(body: bytes) -> bytes:
    """The rows' dates as they are now."""

    def date(match: re.Match[bytes]) -> bytes:
        return (datetime.now(UTC) - timedelta(seconds=int(match[1]))).strftime("%Y-%m-%d %H:%M:%S").encode()

    return re.sub(rb"AGO (\d+)", date, body)


def test_the_inbox(service: responses.RequestsMock) -> None:
    service.get(INBOX + "15070", body=page(HABARI))
    service.get(INBOX + "15071", body=NOTHING)
    expected = IncomingMessage(
        *(AT, "inbox-15071", FIRST, "Habari ñ", "22000", "2018-03-19T08:34:18.445Z", "SampleLinkId123")
    )
    assert gateway().inbox("15070") == Inbox([expected], "15071")
    assert AfricasTalking.inbox_ids_differ
    for call in service.calls:
        assert (call.request.headers["apiKey"], call.request.headers["Accept"]) == (KEY, "application/json")


@pytest.mark.parametrize(
    ("cursor", "pages", "refs", "after"),
    [
        (None, [NOTHING], [], None),
        ("7", [NOTHING], [], "7"),
        ("7", [page(recent(9), recent(8)), page(recent(10)), NOTHING], ["inbox-8", "inbox-9", "inbox-10"], "10"),
        ("7", [page(recent(7), recent(3))], [], "7"),  # an inbox that does not heed lastReceivedId
        ("7", [page(recent(8), recent(9, age=5), recent(10))], ["inbox-8"], "8"),  # its webhook may be on its way
        (None, [page(recent(8, age=5))], [], None),
        (None, [page(HABARI, recent(15072)), NOTHING], ["inbox-15072"], "15072"),
        (None, [page(HABARI), NOTHING], [], "15071"),
        ("first:15070", [page(HABARI), NOTHING], [], "15071"),
        ("first:15071", [page(recent(15072)), NOTHING], ["inbox-15072"], "15072"),
        ("7", [page(b'{"id":8,"from":"22","date":"odd"}'), NOTHING], ["inbox-8"], "8"),
        (None, [page(b'{"id":8,"from":"22","date":"odd"}'), NOTHING], ["inbox-8"], "8"),
        ("7", [page(b'{"id":8,"text":"x"}', b'"x"', b'{"id":"9","from":"1"}'), NOTHING], [], "8"),
        ("7", [b"{}"], [], "7"),
        ("7", [b"[]"], [], "7"),
        ("7", [b'{"SMSMessageData":{"Messages":"x"}}'], [], "7"),
    ],
)
def test_looks_into_the_inbox(
    service: responses.RequestsMock, cursor: str | None, pages: list[bytes], refs: list[str], after: str | None
) -> None:
    for body in pages:
        service.get(INBOX.partition("?")[0], body=dated(body))
    inbox = gateway().inbox(cursor)
    assert ([message.ref for message in inbox.messages], inbox.cursor) == (refs, after)


@pytest.mark.parametrize(("cursor", "after"), [(None, "first:20"), ("first:0", "first:20"), ("0", "20")])
def test_a_look_into_the_inbox_ends(service: responses.RequestsMock, cursor: str | None, after: str) -> None:
    for number in range(20):
        service.get(f"{INBOX}{number}", body=dated(page(recent(number + 1))))
    inbox = gateway().inbox(cursor)
    assert (len(inbox.messages), inbox.cursor) == (20, after)


def test_an_inbox_that_cannot_be_read(service: responses.RequestsMock) -> None:
    service.get(INBOX + "7", body=b"The supplied authentication is invalid", status=401)
    with pytest.raises(SendError) as caught:
        gateway().inbox("7")
    assert caught.value.outcome.failure is Failure.CONFIGURATION


@pytest.mark.parametrize(("cursor", "after"), [(None, "first:9"), ("7", "9")])
def test_a_page_that_fails_hides_none_before_it(
    service: responses.RequestsMock, cursor: str | None, after: str
) -> None:
    service.get(f"{INBOX}{cursor or 0}", body=dated(page(recent(8), recent(9))))
    service.get(f"{INBOX}9", status=500)
    inbox = gateway().inbox(cursor)
    assert ([message.ref for message in inbox.messages], inbox.cursor) == (["inbox-8", "inbox-9"], after)
