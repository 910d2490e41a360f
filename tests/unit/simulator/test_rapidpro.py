"""RapidPro's twin: its answers byte for byte, its quirks by number, what it says when it is asked, what it posts."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from simulator.rapidpro import QUIRKS
from simulator.twin import markdown_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "simulator.md"
KEY = {"Authorization": "Token right-key"}
JSON = "application/json"
SEND = "/api/v2/broadcasts.json"
DENIED = (403, JSON, b'{"detail":"Invalid token"}')


@pytest.fixture(autouse=True)
def known_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.rapidpro.uuid4", lambda: "u1")
    monkeypatch.setattr("simulator.rapidpro.iso", lambda _: "2026-01-31T08:30:00.000Z")


CREATED = (
    b'{"uuid":"u1","id":1000000,"urns":["tel:+254711000001"],"text":{"eng":"a@@b"},"status":"queued",'
    b'"contacts":[],"groups":[],"created_on":"2026-01-31T08:30:00.000Z"}'
)


@pytest.mark.parametrize(
    ("headers", "body", "answer"),
    [
        (KEY, b'{"urns":["tel:+254711000001"],"text":"a@@b"}', (201, JSON, CREATED)),
        (KEY, b'{"urns":["+254711000001"],"text":"x"}', (400, JSON, b'{"urns":["Invalid URN"]}')),
        (KEY, b'{"urns":["tel:+254711000001"]}', (400, JSON, b'{"text":["This field is required."]}')),
        (KEY, b"[]", (400, JSON, b'{"urns":["Invalid URN"]}')),
        ({}, b"{}", DENIED),
        ({"Authorization": "Token wrong"}, b"{}", DENIED),
        ({"Authorization": "Bearer right-key"}, b"{}", DENIED),
    ],
)
def test_sending(play: Any, headers: dict[str, str], body: bytes, answer: tuple[int, str, bytes]) -> None:
    async def scenario(lab: Any) -> None:
        assert await lab.ask("POST", SEND, headers=headers, data=body) == answer
        texts = [accepted["message"] for accepted in (await lab.json("GET", "/messages"))["messages"]]
        assert texts == (["a@b"] if answer[0] == 201 else [])

    play(scenario)


def test_the_documentation_shows_the_table() -> None:
    assert markdown_table(QUIRKS) in DOCUMENT.read_text("utf-8")


REFUSED = [(quirk.ending, quirk.answer) for quirk in QUIRKS if quirk.answer is not None]
STATUSES = [
    ("00001", "delivered"),
    ("99601", "wired"),
    ("99602", "sent"),
    ("99603", "resent"),
    ("99604", "delivered"),
    ("99605", "errored"),
    ("99606", "failed"),
    ("99607", "read"),
    ("99609", "teleported"),
    ("99700", "queued"),
]


def test_every_row_is_tried() -> None:
    assert {ending for ending, _ in STATUSES[1:]} | {ending for ending, _ in REFUSED} == {q.ending for q in QUIRKS}


@pytest.mark.parametrize(("ending", "answer"), REFUSED)
def test_refusals_by_number(play: Any, ending: str, answer: tuple[int, Any]) -> None:
    async def scenario(lab: Any) -> None:
        body = {"urns": [f"tel:+2547110{ending}"], "text": "Habari"}
        status, _, text = await lab.ask("POST", SEND, headers=KEY, json=body)
        assert (status, json.loads(text)) == answer

    play(scenario)


@pytest.mark.parametrize(("ending", "status"), STATUSES)
def test_what_becomes_of_messages(play: Any, ending: str, status: str) -> None:
    number = f"+2547110{ending}"

    async def scenario(lab: Any) -> None:
        await lab.ask("POST", SEND, headers=KEY, json={"urns": [f"tel:{number}"], "text": "Habari"})
        path = "/api/v2/messages.json?broadcast=1000000"
        while True:  # nobody is told, so there is nothing to wait for but the answer
            [row] = json.loads((await lab.ask("GET", path, headers=KEY))[2])["results"]
            if row["status"] == status:
                break
            await asyncio.sleep(0)
        assert (row["urn"], row["broadcast"], row["direction"]) == (f"tel:{number}", 1000000, "out")
        assert (row["labels"], row["attachments"], row["quick_replies"]) == ([], [], [])  # clients count on lists
        assert lab.receiver.posts == []

    play(scenario)


@pytest.mark.parametrize("broadcast", ["1", "x", ""])
def test_broadcasts_that_are_not_there(play: Any, broadcast: str) -> None:
    async def scenario(lab: Any) -> None:
        answer = await lab.ask("GET", f"/api/v2/messages.json?broadcast={broadcast}", headers=KEY)
        assert answer == (200, JSON, b'{"next":null,"previous":null,"results":[]}')

    play(scenario)


def test_the_workspace(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        status, _, body = await lab.ask("GET", "/api/v2/workspace.json", headers=KEY)
        assert (status, json.loads(body)["name"]) == (200, "Simulator")
        assert await lab.ask("GET", "/api/v2/workspace.json") == DENIED

    play(scenario)


def test_what_a_flow_posts(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for wrong in (False, True):
            await lab.json("PUT", "/control", {"wrong_signatures": wrong})
            await lab.json("POST", "/incoming/rapidpro", {"from": "+254711000001", "text": "Habari é", "id": "7"})
        assert lab.receiver.posts[0] == (
            "/rapidpro?key=s3cret",
            JSON,
            '{"id":"7","from":"+254711000001","content":"Habari é"}'.encode(),
        )
        assert [headers["Authorization"] for headers in lab.receiver.headers] == ["Token other-key", "Token wrong"]

    play(scenario, rapidpro_key="other-key")
