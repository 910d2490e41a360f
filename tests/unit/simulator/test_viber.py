"""Viber's twin: every status by number, signed events with tokens beyond 2^53, and the webhook's handshake."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import pytest

from simulator.twin import markdown_table
from simulator.viber import QUIRKS, number_of, user_of

DOCUMENT = Path(__file__).parents[3] / "docs" / "simulator.md"
TOKEN = {"X-Viber-Auth-Token": "right-token"}
NUMBER = "+254711000001"


def message(number: str = NUMBER, **changes: Any) -> dict[str, Any]:
    return {"receiver": user_of(number), "type": "text", "text": "Habari", "sender": {"name": "Mtandao"}, **changes}


async def send(lab: Any, body: Any, headers: dict[str, str] = TOKEN) -> Any:
    status, _, answer = await lab.ask("POST", "/pa/send_message", headers=headers, json=body)
    assert status == 200
    return json.loads(answer)


def test_people_have_ids() -> None:
    assert user_of(NUMBER) == "KzI1NDcxMTAwMDAwMQ=="
    assert number_of(user_of(NUMBER)) == NUMBER
    assert number_of("not given") is None


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (message(), TOKEN, 0),
        (message(text=""), TOKEN, 4),
        (message(receiver=None), TOKEN, 4),
        (message(type="picture"), TOKEN, 4),
        (message(text="x" * 7001), TOKEN, 3),
        (message(sender={"name": "x" * 29}), TOKEN, 3),
        (message(sender="Mtandao"), TOKEN, 3),
        (message(receiver="!"), TOKEN, 5),
        ([], TOKEN, 4),
        (message(), {}, 2),
        (message(), {"X-Viber-Auth-Token": "wrong"}, 2),
        (message(auth_token="right-token"), {}, 0),
        (message(auth_token="wrong"), {}, 2),
        (message(auth_token=7), {}, 2),
    ],
)
def test_sending(play: Any, body: Any, headers: dict[str, str], status: int) -> None:
    async def scenario(lab: Any) -> None:
        answer = await send(lab, body, headers)
        assert answer["status"] == status
        if status == 0:
            assert (answer["status_message"], answer["message_token"] > 2**53) == ("ok", True)
            [accepted] = (await lab.json("GET", "/messages"))["messages"]
            assert (accepted["to"], accepted["message_id"]) == (NUMBER, str(answer["message_token"]))

    play(scenario)


def test_the_documentation_shows_the_table() -> None:
    assert markdown_table(QUIRKS) in DOCUMENT.read_text("utf-8")


REFUSED = [(quirk.ending, quirk.answer[1]) for quirk in QUIRKS if quirk.answer is not None]
STEPS = [
    ("00001", ["delivered", "seen"]),
    ("99601", ["delivered"]),
    ("99606", ["failed"]),
    ("99700", []),
    ("99702", ["delivered"] * 5),
]


def test_every_row_is_tried() -> None:
    assert {ending for ending, _ in STEPS[1:]} | {ending for ending, _ in REFUSED} == {q.ending for q in QUIRKS}


@pytest.mark.parametrize(("ending", "answer"), REFUSED)
def test_refusals_by_number(play: Any, ending: str, answer: dict[str, Any]) -> None:
    async def scenario(lab: Any) -> None:
        assert await send(lab, message(f"+2547110{ending}")) == answer
        assert (await lab.json("GET", "/counts"))["accepted"] == 0

    play(scenario)


@pytest.mark.parametrize(("ending", "events"), STEPS)
def test_what_becomes_of_messages(play: Any, ending: str, events: list[str]) -> None:
    number = f"+2547110{ending}"

    async def scenario(lab: Any) -> None:
        answer = await send(lab, message(number))
        posts = await lab.callbacks(len(events))
        assert [post["fields"]["event"] for post in posts] == events
        for post in posts:
            assert (post["fields"]["message_token"], post["fields"]["user_id"]) == (
                answer["message_token"],
                user_of(number),
            )
            assert ("desc" in post["fields"]) == (post["fields"]["event"] == "failed")

    play(scenario)


def test_events_are_signed_by_the_token(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for wrong in (False, True):
            await lab.json("PUT", "/control", {"wrong_signatures": wrong})
            await lab.json(
                "POST", "/incoming/viber", {"from": NUMBER, "text": "register+4711", "id": "4912661846655238145"}
            )
        right, wrong_one = (headers["X-Viber-Content-Signature"] for headers in lab.receiver.headers)
        body = lab.receiver.posts[0][2]
        assert b'"message_token":4912661846655238145,' in body
        assert json.loads(body)["sender"]["id"] == user_of(NUMBER)
        assert json.loads(body)["message"] == {"type": "text", "text": "register+4711"}
        assert right == hmac.new(b"other-token", body, hashlib.sha256).hexdigest()
        assert wrong_one != hmac.new(b"other-token", lab.receiver.posts[1][2], hashlib.sha256).hexdigest()

    play(scenario, viber_token="other-token")


@pytest.mark.parametrize(("answered", "status"), [(200, 0), (500, 1)])
def test_the_webhook_is_asked_before_it_is_set(play: Any, answered: int, status: int) -> None:
    async def scenario(lab: Any) -> None:
        url = f"{lab.receiver.url}/hook"
        lab.receiver.answers = [answered]
        asked = await lab.ask("POST", "/pa/set_webhook", headers=TOKEN, json={"url": url, "event_types": ["seen"]})
        assert json.loads(asked[2])["status"] == status
        assert json.loads(lab.receiver.posts[0][2])["event"] == "webhook"
        account = json.loads((await lab.ask("POST", "/pa/get_account_info", headers=TOKEN, json={}))[2])
        assert account["webhook"] == (url if status == 0 else "")

    play(scenario, viber_url=None)


def test_a_webhook_must_be_a_url(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        asked = await lab.ask("POST", "/pa/set_webhook", headers=TOKEN, json={"url": "here"})
        assert asked[2] == b'{"status":1,"status_message":"invalidUrl"}'

    play(scenario)


def test_an_empty_url_takes_the_webhook_away(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        asked = await lab.ask("POST", "/pa/set_webhook", headers=TOKEN, json={"url": ""})
        assert asked[2] == b'{"status":0,"status_message":"ok"}'
        account = json.loads((await lab.ask("POST", "/pa/get_account_info", headers=TOKEN, json={}))[2])
        assert account["webhook"] == ""

    play(scenario)
