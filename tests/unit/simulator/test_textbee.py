"""TextBee's twin: its answers byte for byte, its quirks by number, its signed webhooks, its inbox."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from simulator.textbee import QUIRKS
from simulator.twin import markdown_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "simulator.md"
DEVICE = "/api/v1/gateway/devices/dev1"
KEY = {"x-api-key": "right-key"}
JSON = "application/json"
NUMBER = "+254711000001"


@pytest.fixture(autouse=True)
def known_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.textbee.secrets.token_hex", lambda size: "0" * 2 * size)


async def send(lab: Any, number: str = NUMBER, text: str = "Habari") -> tuple[int, str, bytes]:
    body = {"message": text, "recipients": [number]}
    answer: tuple[int, str, bytes] = await lab.ask("POST", f"{DEVICE}/send-sms", headers=KEY, json=body)
    return answer


ID = "0" * 24
ANSWERS = [  # headers, body, the answer
    (
        *(KEY, b'{"message":"Hi","recipients":["+254711000001"]}'),
        (
            *(201, JSON),
            b'{"data":{"success":true,"message":"SMS added to queue for processing",'
            b'"smsBatchId":"000000000000000000000000","recipientCount":1}}',
        ),
    ),
    (
        KEY,
        b'{"message":" ","recipients":["+254711000001"]}',
        (400, JSON, b'{"success":false,"error":"Message cannot be blank"}'),
    ),
    (KEY, b'{"message":"Hi","recipients":[]}', (400, JSON, b'{"success":false,"error":"Invalid recipients"}')),
    (KEY, b"[]", (400, JSON, b'{"success":false,"error":"Message cannot be blank"}')),
    (KEY, b"{", (400, JSON, b'{"success":false,"error":"Message cannot be blank"}')),
    ({}, b"{}", (401, JSON, b'{"error":"Unauthorized"}')),
    ({"x-api-key": "wrong"}, b"{}", (401, JSON, b'{"error":"Unauthorized"}')),
]


@pytest.mark.parametrize(("headers", "body", "answer"), ANSWERS)
def test_sending(play: Any, headers: dict[str, str], body: bytes, answer: tuple[int, str, bytes]) -> None:
    async def scenario(lab: Any) -> None:
        assert await lab.ask("POST", f"{DEVICE}/send-sms", headers=headers, data=body) == answer
        [entry] = (await lab.json("GET", "/requests"))["requests"]
        assert "x-api-key" not in {name.lower() for name in entry["headers"]}

    play(scenario, textbee_url=None)


def test_the_documentation_shows_the_table() -> None:
    assert markdown_table(QUIRKS) in DOCUMENT.read_text("utf-8")


REFUSED = [(quirk.ending, quirk.answer) for quirk in QUIRKS if quirk.answer is not None]


@pytest.mark.parametrize(("ending", "answer"), REFUSED)
def test_refusals_by_number(play: Any, ending: str, answer: tuple[int, Any]) -> None:
    async def scenario(lab: Any) -> None:
        status, _, body = await send(lab, f"+2547110{ending}")
        assert (status, json.loads(body)) == answer
        assert (await lab.json("GET", "/counts"))["accepted"] == 0

    play(scenario)


STEPS = [
    ("00001", ["MESSAGE_SENT", "MESSAGE_DELIVERED"], "delivered"),
    ("99601", ["MESSAGE_SENT"], "sent"),
    ("99602", [], "dispatched"),
    ("99604", ["MESSAGE_DELIVERED"], "delivered"),
    ("99605", ["MESSAGE_FAILED"], "failed"),
    ("99606", ["MESSAGE_FAILED"], "failed"),
    ("99607", ["MESSAGE_FAILED"], "failed"),
    ("99608", ["MESSAGE_FAILED"], "failed"),
    ("99609", ["UNKNOWN_STATE"], "unknown"),
    ("99700", [], "accepted"),
    ("99702", ["MESSAGE_DELIVERED"] * 5, "delivered"),
    ("99703", ["MESSAGE_DELIVERED", "MESSAGE_SENT"], "sent"),
]


def test_every_row_is_tried() -> None:
    assert {ending for ending, _, _ in STEPS[1:]} | {ending for ending, _ in REFUSED} == {q.ending for q in QUIRKS}


@pytest.mark.parametrize(("ending", "events", "status"), STEPS)
def test_what_becomes_of_messages(play: Any, ending: str, events: list[str], status: str) -> None:
    number = f"+2547110{ending}"

    async def scenario(lab: Any) -> None:
        await send(lab, number)
        fields = [post["fields"] for post in await lab.callbacks(len(events))]
        assert [field["webhookEvent"] for field in fields] == events
        assert all(field["recipient"] == number and field["smsBatchId"] == ID for field in fields)

        async def polled() -> Any:
            batch = json.loads((await lab.ask("GET", f"{DEVICE}/sms-batch/{ID}", headers=KEY))[2])
            return batch["data"]["messages"][0]

        while (await polled())["status"] != status:  # what nobody is told takes its time too
            await asyncio.sleep(0)
        assert (await polled()).get("errorCode") == (fields[0].get("errorCode") if fields else None)

    play(scenario)


def test_webhooks_are_signed_over_their_bytes(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for wrong in (False, True):
            await lab.json("PUT", "/control", {"wrong_signatures": wrong})
            event = {"webhookEvent": "MESSAGE_SENT", "smsBatchId": "é"}
            answer = await lab.json("POST", "/events/textbee", {"event": event})
            assert [entry["status"] for entry in answer["answers"]] == [200]
        right, wrong_one = (headers["X-Signature"] for headers in lab.receiver.headers)
        path, content_type, body = lab.receiver.posts[0]
        assert (path, content_type) == ("/textbee?key=s3cret", JSON)
        assert body == '{"webhookEvent":"MESSAGE_SENT","smsBatchId":"é"}'.encode()
        assert right == hmac.new(b"other-secret", body, hashlib.sha256).hexdigest()
        assert wrong_one != right

    play(scenario, textbee_secret="other-secret")


def test_a_phone_sends_a_message(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        answer = await lab.json(
            "POST", "/incoming/textbee", {"from": NUMBER, "text": "Habari 😀", "id": "s1", "repeat": 2}
        )
        assert (answer["id"], len(answer["answers"])) == ("s1", 2)
        fields = json.loads(lab.receiver.posts[0][2])
        assert fields["receivedAt"].endswith("Z")
        assert {name: fields[name] for name in ("smsId", "sender", "message", "webhookEvent")} == {
            "smsId": "s1",
            "sender": NUMBER,
            "message": "Habari 😀",
            "webhookEvent": "MESSAGE_RECEIVED",
        }
        rows = json.loads((await lab.ask("GET", f"{DEVICE}/messages?type=received", headers=KEY))[2])["data"]
        assert [(row["_id"], row["sender"]) for row in rows] == [("s1", NUMBER)]

    play(scenario)


def test_the_inbox_has_a_cursor(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for number in range(101):
            await lab.json("POST", "/incoming/textbee", {"from": NUMBER, "text": "x", "id": f"s{number}"})
        path = "/api/v1/gateway/messages?direction=received&order=asc"
        first = json.loads((await lab.ask("GET", path, headers=KEY))[2])
        assert (len(first["data"]), first["meta"]) == (100, {"nextCursor": "100"})
        rest = json.loads((await lab.ask("GET", f"{path}&cursor=100", headers=KEY))[2])
        assert ([row["_id"] for row in rest["data"]], rest["meta"]) == (["s100"], {"nextCursor": None})

    play(scenario, textbee_url=None)


def test_devices(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        status, _, body = await lab.ask("GET", "/api/v1/gateway/devices", headers=KEY)
        [device] = json.loads(body)["data"]
        assert (status, device["_id"], device["enabled"]) == (200, "simulated", True)
        assert (await lab.ask("GET", "/api/v1/gateway/devices"))[0] == 401
        assert (await lab.ask("GET", f"{DEVICE}/sms-batch/gone", headers=KEY))[0] == 404

    play(scenario)


SWITCHES = [({"unauthorized": True}, 401), ({"error_rate": 1, "error_status": 503}, 503), ({"answer_body": "{}"}, 200)]


@pytest.mark.parametrize(("change", "status"), SWITCHES)
def test_switches(play: Any, change: dict[str, Any], status: int) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", change)
        assert (await send(lab))[0] == status
        assert (await lab.json("GET", "/counts"))["accepted"] == 0

    play(scenario)


@pytest.mark.parametrize(
    ("number", "change", "accepted"),
    [("+254711099802", {}, 1), ("+254711099803", {}, 0), (NUMBER, {"drop_after_accept": True}, 1)],
)
def test_connections_that_break(play: Any, number: str, change: dict[str, Any], accepted: int) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", change)
        with pytest.raises(aiohttp.ClientConnectionError):
            await send(lab, number)
        assert (await lab.json("GET", "/counts"))["accepted"] == accepted

    play(scenario)


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        ("/incoming/pigeon", {"from": NUMBER, "text": "x"}, "service"),
        ("/events/textbee", {"event": []}, "event"),
        ("/incoming/textbee", {"text": "x"}, "from"),
    ],
)
def test_what_the_desk_refuses(play: Any, path: str, body: dict[str, Any], field: str) -> None:
    async def scenario(lab: Any) -> None:
        status, _, answer = await lab.ask("POST", path, json=body)
        assert (status, json.loads(answer)["field"]) == (400, field)

    play(scenario)


def test_the_older_call_gives_the_newest_first(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for number in range(101):
            await lab.json("POST", "/incoming/textbee", {"from": NUMBER, "text": "x", "id": f"s{number}"})
        body = json.loads((await lab.ask("GET", f"{DEVICE}/messages", headers=KEY))[2])
        assert [row["_id"] for row in body["data"]] == [f"s{number}" for number in range(100, 0, -1)]
        assert body["meta"]["total"] == 101

    play(scenario)
