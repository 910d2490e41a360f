"""Who wants no messages: told by a program, listed, obeyed, taken back."""

from typing import Any

import pytest
import requests

from tests.integration.processes import eventually, make_user
from tests.integration.sentinel.world import World, number

Login = tuple[str, str]
PATH = "/api/v1/opt-outs"


@pytest.fixture(scope="module")
def program(world: World) -> Login:
    return make_user(world.couch, "program", "program-password", ["sms"])


def ask(world: World, login: Login | None, method: str, **arguments: Any) -> tuple[int, Any]:
    answer = requests.request(method, world.api.url + PATH, auth=login, timeout=60, **arguments)
    return answer.status_code, answer.json()


def listed(world: World, login: Login) -> dict[str, Any]:
    status, body = ask(world, login, "GET")
    assert (status, body["after"]) == (200, None)
    return {each["phone"]: each["source"] for each in body["opt_outs"] if (each["since"] or "").endswith("Z")}


def test_from_opting_out_to_the_next_message(world: World, program: Login) -> None:
    to, other = number(), number()
    assert ask(world, program, "POST", json={"phone": to.replace("+254", "0")}) == (202, {"phone": to})
    eventually(lambda: listed(world, program).get(to) == f"opt-out, told by {program[0]}")
    assert other not in listed(world, program)
    denied = world.until(world.write(to, f"to {to}"), "denied")
    assert "opted out" in denied["state_details"]
    assert ask(world, program, "DELETE", params={"phone": to}) == (202, {"phone": to})
    eventually(lambda: to not in listed(world, program))
    world.until_task(world.write(to, f"again to {to}"), lambda task: task.get("gateway_ref"))


@pytest.mark.parametrize("history", [None, [], "since May", ["by hand"], [{"value": "opted-out"}]])
def test_a_document_that_somebody_wrote_by_hand_is_listed(world: World, program: Login, history: object) -> None:
    to = number()
    world.couch.main.put({"_id": f"opt-out:{to}", "value": "opted-out", "history": history})
    status, body = ask(world, program, "GET")
    assert status == 200
    assert {"phone": to, "since": None, "source": None} in body["opt_outs"]


@pytest.mark.parametrize("after", ["~", "\ufff0", "\uffff", "\U0010ffff"])
def test_behind_all_of_them_is_nobody(world: World, program: Login, after: str) -> None:
    assert ask(world, program, "GET", params={"after": after}) == (200, {"opt_outs": [], "after": None})


@pytest.mark.parametrize("given", [{}, {"phone": "12"}, {"phone": "STOP"}, {"phone": "+254711000111", "to": "x"}])
def test_what_is_no_number(world: World, program: Login, given: dict[str, str]) -> None:
    for method, arguments in (("POST", {"json": given}), ("DELETE", {"params": given}), ("DELETE", {"json": given})):
        status, body = ask(world, program, method, **arguments)
        assert (status, body["field"]) == (400, "phone")
    status, body = ask(world, program, "GET", params={"before": "x"})
    assert (status, body["field"]) == (400, "before")


def test_who_may(world: World) -> None:
    gateway = make_user(world.couch, "phone-7", "gateway-password", ["gateway"])
    for method in ("GET", "POST", "DELETE"):
        for login, refused in ((None, 401), (gateway, 403)):
            assert ask(world, login, method, json={"phone": "+254711000111"})[0] == refused
            assert ask(world, login, method, data="no JSON")[0] == refused, "nothing is read of who may not"
