"""The small service for scripts, with a sentinel and a simulated Africa's Talking: what is sent and answered."""

import uuid
from typing import Any

import pytest
import requests

from mjumbe.states import State
from tests.integration.processes import make_user
from tests.integration.sentinel.world import World, number

Login = tuple[str, str]
BULK, TWO_WAY = "/sms/invoke-bulk-sms", "/sms/invoke-twoway-sms"


@pytest.fixture(scope="module")
def script(world: World) -> Login:
    return make_user(world.couch, "script", "script-password", ["sms"])


def ask(world: World, login: Login, method: str, path: str, **arguments: Any) -> tuple[int, dict[str, Any]]:
    answer = requests.request(method, world.api.url + path, auth=login, timeout=60, **arguments)
    return answer.status_code, answer.json()


@pytest.mark.parametrize("path", [BULK, TWO_WAY])
@pytest.mark.parametrize("where", ["query", "form", "json"])
def test_sending(world: World, script: Login, path: str, where: str) -> None:
    to, text = number(), uuid.uuid4().hex
    given = {"phone": to.removeprefix("+"), "message": text}
    arguments = {"query": {"params": given}, "form": {"data": given}, "json": {"json": given}}[where]
    status, body = ask(world, script, "GET" if where == "query" else "POST", path, **arguments)
    assert (status, body["message"]) == (200, f"SMS sent to {to}"), body
    [accepted] = world.simulator.messages(text)
    response = body["response"]
    assert (accepted["to"], response["ref"]) == (to, accepted["message_id"])
    assert response["state"] in (State.SENT, State.DELIVERED)
    assert response["cost"] == "KES 0.8000"
    url = f"{world.api.url}/api/v1/messages/{response['uuid']}"
    shown = requests.get(url, auth=script, timeout=30).json()
    assert (shown["to"], shown["service"], shown["gateway_ref"]) == (to, "africas-talking", response["ref"])
    [row] = world.couch.main.view("medic-sms", "messages_by_uuid", key=response["uuid"], include_docs=True)
    assert row.doc is not None
    assert (row.doc["from"], row.doc["tasks"][0]["via"]) == (script[0], "africas-talking"), "whatever else there is"


@pytest.mark.parametrize("given", [{}, {"message": ""}])
def test_the_default_text(world: World, script: Login, given: dict[str, str]) -> None:
    to = number()
    assert ask(world, script, "GET", BULK, params={"phone": to, **given})[0] == 200
    assert to in [accepted["to"] for accepted in world.simulator.messages("Hello from Africa's Talking!")]


def test_a_message_that_is_refused(world: World, script: Login) -> None:
    to = number("99403")
    status, body = ask(world, script, "GET", BULK, params={"phone": to})
    assert status == 422
    assert body["error"] == f"SMS to {to} is failed: InvalidPhoneNumber"
    assert (body["response"]["state"], body["response"]["ref"]) == ("failed", None)


def test_a_message_that_waits(world: World, script: Login) -> None:
    to = number("99500")
    world.set(sms={"retry_base": 30, "retry_max": 60})
    try:
        status, body = ask(world, script, "GET", BULK, params={"phone": to})
    finally:
        world.set(sms={"retry_base": 1, "retry_max": 2})
    assert (status, body["message"]) == (202, f"SMS to {to} waits to be sent")
    assert (body["response"]["state"], body["response"]["details"]) == ("pending", "InternalServerError")


def test_a_reply_by_keyword_to_a_two_way_message(world: World) -> None:
    world.set(sms={"replies": [{"keyword": "HABARI", "message": "Nzuri"}]})
    world.simulator.control(incoming_url=f"{world.api.url}/sms/twoway?key=the-incoming-key-5f1c")
    doc_id = world.receive(number(), "Habari", link_id="L1")
    task = world.until(doc_id, "delivered")
    assert task["messages"][0]["message"] == "Nzuri"
