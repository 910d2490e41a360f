"""Premium subscriptions with a simulated Africa's Talking: asked for, notified, listed, written to, let go."""

import uuid
from typing import Any

import pytest
import requests

from mjumbe.couch import Couch
from tests.integration.processes import eventually, make_user
from tests.integration.sentinel.world import INCOMING_KEY, OUTGOING_KEY, World, number

Login = tuple[str, str]
PATH = "/api/v1/subscriptions"


@pytest.fixture(scope="module")
def program(world: World) -> Login:
    base = f"{world.api.url}/api/v1/sms/africastalking"
    world.simulator.control(subscription_url=f"{base}/subscription?key={INCOMING_KEY}")
    return make_user(world.couch, "program", "program-password", ["sms"])


def ask(world: World, login: Login | None, method: str, path: str = PATH, **arguments: Any) -> tuple[int, Any]:
    answer = requests.request(method, world.api.url + path, auth=login, timeout=60, **arguments)
    return answer.status_code, answer.json()


def product() -> dict[str, str]:
    return {"short_code": "22000", "keyword": f"afya-{uuid.uuid4().hex[:8]}"}


def listed(world: World, login: Login, wanted: dict[str, str]) -> list[str]:
    status, body = ask(world, login, "GET", params=wanted)
    assert status == 200, body
    assert all(each["since"].endswith("Z") for each in body["subscribers"])
    return [each["phone"] for each in body["subscribers"]]


def test_a_subscription_from_asking_to_leaving(world: World, program: Login) -> None:
    wanted, to = product(), number()
    said = {"ok": True, "says": "Africa's Talking says: Waiting for user input"}
    assert ask(world, program, "POST", json={**wanted, "phone": to.replace("+254", "0")}) == (200, said)
    eventually(lambda: listed(world, program, wanted) == [to])
    assert listed(world, program, product()) == []
    status, body = ask(world, program, "DELETE", params={**wanted, "phone": to})
    assert (status, body["ok"]) == (200, True)
    eventually(lambda: listed(world, program, wanted) == [])
    status, body = ask(world, program, "DELETE", json={**wanted, "phone": to})
    assert (status, body) == (502, {"ok": False, "says": "Africa's Talking refused: Subscription not found"})


def test_what_notifications_missed_is_fetched(world: World, program: Login) -> None:
    wanted, numbers = product(), sorted([number(), number()])
    url = f"{world.api.url}/api/v1/sms/africastalking/subscription?key={INCOMING_KEY}"
    world.simulator.control(subscription_url="http://127.0.0.1:1/nobody")
    try:
        for to in numbers:
            assert ask(world, program, "POST", json={**wanted, "phone": to})[0] == 200
    finally:
        world.simulator.control(subscription_url=url)
    assert listed(world, program, wanted) == []
    assert ask(world, program, "POST", f"{PATH}/fetch", json=wanted) == (200, {"subscribers": 2, "new": 2})
    eventually(lambda: listed(world, program, wanted) == numbers)
    assert ask(world, program, "POST", f"{PATH}/fetch", json=wanted) == (200, {"subscribers": 2, "new": 0})


def subscribe(couch: Couch, wanted: dict[str, str], numbers: list[str], value: str | None = "active") -> None:
    """The documents that the sentinel keeps."""
    prefix = f"subscription:{wanted['short_code']}:{wanted['keyword']}:"
    history = [{"value": value, "timestamp": "2026-01-31T08:30:00.000Z"}]
    facts = {"type": "subscription", "value": value, "history": history}
    for first in range(0, len(numbers), 1000):
        docs = [{"_id": prefix + each, "phone": each, **facts} for each in numbers[first : first + 1000]]
        assert all(saved.rev for saved in couch.main.bulk(docs))


def test_a_message_to_all_subscribers(world: World, program: Login) -> None:
    wanted, numbers, text = product(), sorted(number() for _ in range(3)), uuid.uuid4().hex
    subscribe(world.couch, wanted, numbers)
    subscribe(world.couch, wanted, [number()], value=None)
    body = {"subscribers": wanted, "message": text, "uuid": uuid.uuid4().hex}
    for _ in range(2):
        status, answer = ask(world, program, "POST", "/api/v1/messages", json=body)
        assert status == 202, answer
        assert [message["to"] for message in answer["messages"]] == numbers
    eventually(lambda: sorted(each["to"] for each in world.simulator.messages(text)) == numbers, 40)
    shown = requests.get(f"{world.api.url}/api/v1/messages/{answer['messages'][0]['uuid']}", auth=program, timeout=30)
    assert (shown.json()["to"], shown.json()["service"]) == (numbers[0], "africas-talking")


def test_a_subscription_that_a_person_wrote_by_hand(world: World, program: Login) -> None:
    wanted, to = product(), number()
    world.couch.main.put({"_id": f"subscription:22000:{wanted['keyword']}:{to}", "value": "active"})
    answer = {"subscribers": [{"phone": to, "since": None}]}
    assert ask(world, program, "GET", params=wanted) == (200, answer)
    body = {"subscribers": wanted, "message": "x", "due": "2099-01-01"}
    status, accepted = ask(world, program, "POST", "/api/v1/messages", json=body)
    assert (status, [message["to"] for message in accepted["messages"]]) == (202, [to])


def test_what_subscribers_pay_for_has_their_product_s_keyword(world: World, program: Login) -> None:
    wanted = product()
    subscribe(world.couch, wanted, [number()])
    for premium, keyword in ((True, wanted["keyword"]), ({"keyword": "other"}, "other")):
        body = {"subscribers": wanted, "message": "x", "due": "2099-01-01", "premium": premium}
        status, answer = ask(world, program, "POST", "/api/v1/messages", json=body)
        assert status == 202, answer
        assert world.tasks(answer["messages"][0]["id"])[0]["premium"]["keyword"] == keyword


PREMIUM = [
    (True, {}, None),
    ({"keyword": "maji", "retry_duration_hours": 4}, {"keyword": "maji", "retryDurationInHours": "4"}, None),
    ({"link_id": "L1"}, {}, "L1"),
    (False, {}, None),
]


@pytest.mark.parametrize(("premium", "options", "link_id"), PREMIUM)
@pytest.mark.parametrize("way", ["api", "document"])
def test_premium_reaches_the_service_as_the_author_says(
    world: World, program: Login, way: str, premium: Any, options: dict[str, str], link_id: str | None
) -> None:
    text = uuid.uuid4().hex
    if way == "api":
        body = {"to": number(), "message": text, "premium": premium}
        assert ask(world, program, "POST", "/api/v1/messages", json=body)[0] == 202
    else:
        world.write(number(), text, premium=premium)
    eventually(lambda: len(world.simulator.messages(text)) == 1)
    [request] = world.simulator.requests(text)
    wanted = {"bulkSMSMode": "0", **options} if premium else {}
    assert (request["options"], request["link_id"]) == (wanted, link_id)


def test_many_subscribers(world: World, program: Login) -> None:
    wanted, text = product(), uuid.uuid4().hex
    subscribe(world.couch, wanted, [f"+25479{place:07d}" for place in range(2_500)])
    body = {"subscribers": wanted, "message": text, "due": "2099-01-01"}
    status, answer = ask(world, program, "POST", "/api/v1/messages", json=body)
    assert (status, len({message["id"] for message in answer["messages"]})) == (202, 2_500)
    assert {message["state"] for message in answer["messages"]} == {"scheduled"}


def test_nobody_is_subscribed(world: World, program: Login) -> None:
    body = {"subscribers": product(), "message": "x"}
    assert ask(world, program, "POST", "/api/v1/messages", json=body) == (202, {"messages": []})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"subscribers": {"short_code": "22000"}}, "subscribers"),
        ({"subscribers": "22000"}, "subscribers"),
        ({"message": ""}, "message"),
        ({"to": "+254711000111"}, "to"),
        ({"service": "pigeon"}, "service"),
    ],
)
def test_wrong_messages_to_subscribers(world: World, program: Login, change: dict[str, Any], field: str) -> None:
    body = {"subscribers": product(), "message": "x", **change}
    status, answer = ask(world, program, "POST", "/api/v1/messages", json=body)
    assert (status, answer["field"]) == (400, field)


@pytest.mark.parametrize(
    ("method", "path", "given", "field"),
    [
        ("GET", PATH, {"short_code": "22000"}, "keyword"),
        ("GET", PATH, {"short_code": "22000", "keyword": ""}, "keyword"),
        ("POST", PATH, {"short_code": "22000", "keyword": "afya"}, "phone"),
        ("POST", PATH, {"short_code": "22000", "keyword": "afya", "phone": "SAFARICOM"}, "phone"),
        ("POST", PATH, {"short_code": "22000", "keyword": "afya", "phone": "0711000111", "more": 1}, "more"),
        ("DELETE", PATH, {"keyword": "afya", "phone": "0711000111"}, "short_code"),
        ("POST", f"{PATH}/fetch", {"keyword": "afya"}, "short_code"),
    ],
)
def test_wrong_requests(
    world: World, program: Login, method: str, path: str, given: dict[str, Any], field: str
) -> None:
    arguments: dict[str, Any] = {"params": given} if method == "GET" else {"json": given}
    status, answer = ask(world, program, method, path, **arguments)
    assert (status, answer["field"]) == (400, field)


def test_who_may(world: World) -> None:
    gateway = make_user(world.couch, "phone", "a-password", ["gateway"])
    for method, path in (("GET", PATH), ("POST", PATH), ("DELETE", PATH), ("POST", f"{PATH}/fetch")):
        assert ask(world, None, method, path)[0] == 401
        assert ask(world, gateway, method, path)[0] == 403


def test_a_form_is_not_taken(world: World, program: Login) -> None:
    assert ask(world, program, "POST", data={**product(), "phone": "0711000111"})[0] == 415


def test_an_account_that_is_not_configured(world: World, program: Login) -> None:
    world.vault.delete("africastalking.com:outgoing")
    wanted = {**product(), "phone": number()}
    try:
        eventually(lambda: ask(world, program, "POST", json=wanted)[0] == 409)
        _, body = ask(world, program, "POST", json=wanted)
        assert "/api/v1/credentials/africastalking.com:outgoing" in body["reason"]
        world.vault.set("africastalking.com:outgoing", "a-wrong-key")
        eventually(lambda: ask(world, program, "POST", json=wanted)[0] == 502)
    finally:
        world.vault.set("africastalking.com:outgoing", OUTGOING_KEY)
