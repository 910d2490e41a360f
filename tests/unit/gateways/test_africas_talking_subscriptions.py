"""Africa's Talking's subscriptions to premium services, in exact bytes."""

import pytest
import responses

from mjumbe.gateways.base import (
    Check,
    Failure,
    SendError,
)
from tests.unit.gateways.africas_talking import KEY, gateway

FIRST, SECOND = "+254711000001", "+254711000002"

TOKEN_URL = "https://api.africastalking.com/checkout/token/create"
SUBSCRIPTION = "https://content.africastalking.com/version1/subscription"
TOKEN = b'{"description":"Success","token":"CkTkn_1"}'


@pytest.mark.parametrize(
    ("username", "api", "content"),
    [
        ("mtandao", "https://api.africastalking.com", "https://content.africastalking.com"),
        ("sandbox", "https://api.sandbox.africastalking.com", "https://api.sandbox.africastalking.com"),
    ],
)
def test_subscribing(service: responses.RequestsMock, username: str, api: str, content: str) -> None:
    service.post(f"{api}/checkout/token/create", body=TOKEN, status=201)
    url = f"{content}/version1/subscription/create"
    service.post(url, body=b'{"status":"Success","description":"Waiting for user input"}', status=201)
    check = gateway(sms={"africas_talking": {"username": username}}).subscribe(FIRST, "22000", "afya & maji")
    assert check == Check(True, "Africa's Talking says: Waiting for user input")
    token, create = (call.request for call in service.calls)
    assert (token.body, token.headers["Accept"]) == ("phoneNumber=%2B254711000001", "application/json")
    assert create.body == (
        f"username={username}&shortCode=22000&keyword=afya+%26+maji&phoneNumber=%2B254711000001&checkoutToken=CkTkn_1"
    )
    assert (create.headers["apiKey"], create.headers["Accept"]) == (KEY, "application/json")


@pytest.mark.parametrize("status", [403, 404, 410])
def test_subscribing_where_checkout_tokens_are_no_longer_made(service: responses.RequestsMock, status: int) -> None:
    """Africa's Talking's clients for Python 2.0, Node.js 0.8 and .NET ask for a subscription without a token."""
    service.post(TOKEN_URL, status=status)
    answer = b'{"status":"Success","description":"Waiting for user input"}'
    service.post(f"{SUBSCRIPTION}/create", body=answer, status=201)
    assert gateway().subscribe(FIRST, "22000", "afya") == Check(True, "Africa's Talking says: Waiting for user input")
    assert service.calls[1].request.body == (
        "username=mtandao&shortCode=22000&keyword=afya&phoneNumber=%2B254711000001"
    )


@pytest.mark.parametrize("status", [429, 503])
def test_nobody_is_asked_to_subscribe_while_checkout_tokens_are_not_made_for_now(
    service: responses.RequestsMock, status: int
) -> None:
    service.post(TOKEN_URL, status=status)
    with pytest.raises(SendError, match=f"HTTP {status}"):
        gateway().subscribe(FIRST, "22000", "afya")


def test_unsubscribing(service: responses.RequestsMock) -> None:
    service.post(f"{SUBSCRIPTION}/delete", body=b'{"status":"Success","description":"Succeeded"}', status=201)
    assert gateway().unsubscribe(FIRST, "22000", "afya") == Check(True, "Africa's Talking says: Succeeded")
    assert service.calls[0].request.body == (
        "username=mtandao&shortCode=22000&keyword=afya&phoneNumber=%2B254711000001"
    )


@pytest.mark.parametrize(
    ("token", "answer", "says"),
    [
        (b'{"description":"Failed"}', None, "Africa's Talking gave no checkout token: Failed"),
        (b'{"description":"Failed","token":"None"}', None, "Africa's Talking gave no checkout token: Failed"),
        (b"[]", None, "Africa's Talking gave no checkout token: an answer without description"),
        (
            *(TOKEN, b'{"status":"Failed","description":"Invalid checkout token"}'),
            "Africa's Talking refused: Invalid checkout token",
        ),
        (TOKEN, b"{}", "Africa's Talking refused: an answer without description"),
        (TOKEN, b"[]", "Africa's Talking refused: an answer without description"),
    ],
)
def test_refused_subscriptions(service: responses.RequestsMock, token: bytes, answer: bytes | None, says: str) -> None:
    service.post(TOKEN_URL, body=token, status=201)
    if answer is not None:
        service.post(f"{SUBSCRIPTION}/create", body=answer, status=201)
    assert gateway().subscribe(FIRST, "22000", "afya") == Check(False, says)


def test_who_is_subscribed(service: responses.RequestsMock) -> None:
    url = f"{SUBSCRIPTION}?username=mtandao&shortCode=22000&keyword=afya&lastReceivedId="
    service.get(
        url + "0",
        body=b'{"responses":[{"id":4,"phoneNumber":"+254711000001","date":"2026-01-01T00:00:00Z"},'
        b'{"id":6,"phoneNumber":"+254711000002","date":"2026-01-01T00:00:00Z"},{"id":"x"},"y"]}',
    )
    service.get(url + "6", body=b'{"responses":[{"id":7,"phoneNumber":"+254711000001"},{"id":8}]}')
    service.get(url + "8", body=b'{"responses":[]}')
    assert gateway().subscribers("22000", "afya") == [FIRST, SECOND]
    assert service.calls[0].request.headers["apiKey"] == KEY


def test_a_list_of_subscribers_that_begins_again_ends(service: responses.RequestsMock) -> None:
    service.get(SUBSCRIPTION, body=b'{"responses":[{"id":4,"phoneNumber":"+254711000001"}]}')
    assert gateway().subscribers("22000", "afya") == [FIRST]


def test_subscriptions_need_the_key(service: responses.RequestsMock) -> None:
    service.post(f"{SUBSCRIPTION}/delete", body=b"The supplied authentication is invalid", status=401)
    with pytest.raises(SendError) as caught:
        gateway().unsubscribe(FIRST, "22000", "afya")
    assert caught.value.outcome.failure is Failure.CONFIGURATION
