"""The switches' effects on the wire, the record, and long polls."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

SWITCHES = [  # the change, HTTP status, what the body holds, how many messages are accepted
    ({"unauthorized": True}, 401, b"The supplied authentication is invalid", 0),
    ({"no_balance": True}, 201, b'"statusCode":405', 0),
    ({"error_rate": 1, "error_status": 503}, 503, b"There was an internal server error.", 0),
    ({"error_rate": 0.4}, 201, b'"statusCode":101', 1),  # the first two are answered, the third is not
    ({"answer_body": "<html>😀"}, 201, "<html>😀".encode(), 0),
    ({"answer_body": ""}, 201, b"", 0),
    ({"latency_ms": 1}, 201, b'"statusCode":101', 1),
]


@pytest.mark.parametrize(("change", "status", "part", "accepted"), SWITCHES)
def test_switch(play: Any, change: dict[str, Any], status: int, part: bytes, accepted: int) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", change)
        answer = await lab.send("+254711000001")
        assert answer[0] == status
        assert part in answer[2]
        assert (await lab.json("GET", "/counts"))["accepted"] == accepted

    play(scenario)


def test_the_error_rate_is_exact(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", {"error_rate": 0.1})
        statuses = [(await lab.send("+254711000001"))[0] for _ in range(30)]
        assert statuses == ([201] * 9 + [500]) * 3
        assert (await lab.json("GET", "/counts"))["answers"] == {"201": 27, "500": 3}

    play(scenario)


@pytest.mark.parametrize(("change", "accepted"), [({"down": True}, 0), ({"drop_after_accept": True}, 1)])
def test_dropped_connection(play: Any, change: dict[str, Any], accepted: int) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", change)
        with pytest.raises(aiohttp.ClientConnectionError):
            await lab.send("+254711000001")
        [entry] = (await lab.json("GET", "/requests"))["requests"]
        assert (entry["status"], entry["fault"]) == (None, next(iter(change)))
        assert (await lab.json("GET", "/counts"))["accepted"] == accepted

    play(scenario)


def test_never_answer_holds_until_the_client_leaves(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", {"never_answer": True})
        sending = [asyncio.create_task(lab.send("+254711000001")) for _ in range(5)]
        await lab.json("GET", "/requests?wait_for=5")
        assert (await lab.json("GET", "/counts"))["in_flight"] == 5
        for task in sending:
            task.cancel()
        while (await lab.json("GET", "/counts"))["in_flight"]:
            await asyncio.sleep(0)
        counts = await lab.json("GET", "/counts")
        assert (counts["accepted"], counts["max_in_flight"], counts["answers"]) == (0, 5, {"none": 5})

    play(scenario)


def test_the_client_leaves_before_the_answer(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        sending = asyncio.create_task(lab.send("+254711000001"))
        await lab.json("GET", "/messages?wait_for=1")
        sending.cancel()
        while (await lab.json("GET", "/counts"))["in_flight"]:
            await asyncio.sleep(0)
        [entry] = (await lab.json("GET", "/requests"))["requests"]
        assert (entry["status"], entry["fault"]) == (None, "the client closed the connection")
        assert len(await lab.callbacks(1)) == 1  # it was accepted all the same

    play(scenario, latency_ms=600_000)


def test_a_stop_ends_held_and_waiting_connections(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", {"never_answer": True})
        held = asyncio.create_task(lab.send("+254711000001"))
        waiting = asyncio.create_task(lab.json("GET", "/messages?wait_for=1&timeout_ms=60000"))
        await lab.json("GET", "/requests?wait_for=1")
        lab.simulator.exchange.stopping.set()
        lab.simulator.exchange.bell.ring()
        with pytest.raises(aiohttp.ClientConnectionError):
            await held
        assert (await waiting)["reached"] is False

    play(scenario)


@pytest.mark.parametrize("service", ["", "/textbee", "/viber", "/rapidpro"])
def test_an_sms_without_a_text_comes_in_at_a_url_of_its_own(play: Any, service: str) -> None:
    async def scenario(lab: Any) -> None:
        sms = {"from": "+254711000001", "text": "", "url": f"{lab.receiver.url}/elsewhere"}
        [answer] = (await lab.json("POST", f"/incoming{service}", sms))["answers"]
        assert answer["status"] == 200
        assert [path for path, _, _ in lab.receiver.posts] == ["/elsewhere"]

    play(scenario)


def test_requests(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        text = "Habari 😀"
        _, _, body = await lab.send("+254711000001,+254711000002", text, linkId="l-1", keyword="a", **{"from": "22000"})
        ids = [recipient["messageId"] for recipient in json.loads(body)["SMSMessageData"]["Recipients"]]
        listed = await lab.json("GET", "/requests")
        [entry] = listed["requests"]
        assert entry["at"].endswith("Z") and entry["received_ms"] > 1.7e12
        assert {name: entry[name] for name in entry if name not in ("at", "received_ms", "headers")} == {
            "n": 1,
            "method": "POST",
            "path": "/version1/messaging",
            "to": ["+254711000001", "+254711000002"],
            "message": text,
            "from": "22000",
            "link_id": "l-1",
            "options": {"keyword": "a"},
            "key": "right",
            "status": 201,
            "fault": None,
            "message_ids": ids,
        }
        assert entry["headers"]["Accept"] == "application/json"
        assert "right-key" not in json.dumps(listed)
        messages = (await lab.json("GET", "/messages"))["messages"]
        assert [(m["to"], m["message"], m["message_id"], m["from"], m["link_id"]) for m in messages] == [
            ("+254711000001", text, ids[0], "22000", "l-1"),
            ("+254711000002", text, ids[1], "22000", "l-1"),
        ]

    play(scenario, reports_url=None)


def test_counts(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for number in ("+254711000001", "+254711000001", "+254711000002", "+25471199407"):
            await lab.send(number)
        await lab.send("+254711000001", "Other")
        counts = await lab.json("GET", "/counts")
        assert counts == {
            "requests": 5,
            "answers": {"201": 5},
            "accepted": 4,
            "distinct": 3,
            "duplicates": 1,
            "in_flight": 0,
            "max_in_flight": 1,
            "callbacks": {},
            "callbacks_waiting": 4,
            "callbacks_dropped": 0,
        }

    play(scenario, report_delay_ms=600_000)


def test_listing_a_bounded_record(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for n in range(1, 8):
            await lab.send(f"+25471100000{n}")

        async def numbers(query: str) -> list[int]:
            listed = await lab.json("GET", f"/messages{query}")
            assert listed["total"] == 7
            return [entry["n"] for entry in listed["messages"]]

        assert await numbers("") == [3, 4, 5, 6, 7]
        assert await numbers("?since=0&limit=2") == [3, 4]
        assert await numbers("?since=4&limit=2") == [5, 6]
        assert await numbers("?since=7") == []
        assert await numbers("?since=99") == []
        assert await numbers("?last=2") == [6, 7]
        assert await numbers("?last=100") == [3, 4, 5, 6, 7]
        assert (await lab.json("GET", "/counts"))["accepted"] == 7

    play(scenario, record_size=5, reports_url=None)


def test_forget(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.send("+254711000001")
        await lab.json("DELETE", "/requests")
        counts = await lab.json("GET", "/counts")
        assert (counts["requests"], counts["accepted"], counts["callbacks_waiting"]) == (0, 0, 0)
        await lab.send("+254711000001")
        assert [entry["n"] for entry in (await lab.json("GET", "/messages"))["messages"]] == [1]

    play(scenario, report_delay_ms=600_000)


def test_wait_for(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        waiting = asyncio.create_task(lab.json("GET", "/messages?wait_for=2&timeout_ms=20000"))
        await lab.send("+254711000001")
        assert not waiting.done()
        await lab.send("+254711000002")
        listed = await waiting
        assert (listed["reached"], listed["total"]) == (True, 2)
        listed = await lab.json("GET", "/requests?wait_for=3&timeout_ms=1")
        assert (listed["reached"], listed["total"]) == (False, 2)

    play(scenario, reports_url=None)


REFUSED = [  # method, path, body, the field named
    ("PUT", "/control", b'{"latency_ms": "x"}', "latency_ms"),
    ("PUT", "/control", b"[]", "body"),
    ("PUT", "/control", b"{", "body"),
    ("PUT", "/control", b"\xff", "body"),
    ("POST", "/incoming", b'{"text": "Hi"}', "from"),
    ("POST", "/incoming", b'{"from": "+254711000001"}', "text"),
    ("POST", "/incoming", b'{"from": "+254711000001", "text": "Hi", "id": 7}', "id"),
    ("POST", "/incoming", b'{"from": "+254711000001", "text": "Hi", "repeat": 0}', "repeat"),
    ("POST", "/incoming", b'{"from": "+254711000001", "text": "Hi", "concurrency": true}', "concurrency"),
    ("POST", "/incoming", b'{"from": "+254711000001", "text": "Hi", "url": "file:///etc/passwd"}', "url"),
    ("POST", "/reports", b'{"id": "ATXid_1"}', "status"),
    ("POST", "/opt-out", b"{}", "phoneNumber"),
    ("POST", "/subscription", b'{"phoneNumber": "+254711000001"}', "keyword"),
    ("GET", "/requests?since=-1", b"", "since"),
    ("GET", "/messages?limit=0", b"", "limit"),
    ("GET", "/callbacks?wait_for=many", b"", "wait_for"),
    ("GET", "/requests?timeout_ms=1000000", b"", "timeout_ms"),
]


@pytest.mark.parametrize(("method", "path", "body", "field"), REFUSED)
def test_refused(play: Any, method: str, path: str, body: bytes, field: str) -> None:
    async def scenario(lab: Any) -> None:
        status, _, answer = await lab.ask(method, path, data=body)
        value = json.loads(answer)
        assert (status, value["field"]) == (400, field)
        assert value["expected"] in value["error"]
        assert lab.receiver.posts == []

    play(scenario)


def test_a_refused_change_changes_nothing(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", {"latency_ms": 5, "error_rate": 2})
        assert (await lab.json("GET", "/control"))["latency_ms"] == 0

    play(scenario)


@pytest.mark.parametrize(("origin", "status"), [("http://evil.example", 403), ("null", 403), (None, 200)])
def test_pages_of_other_sites_are_refused(play: Any, origin: str | None, status: int) -> None:
    async def scenario(lab: Any) -> None:
        own = lab.simulator.url.rstrip("/")
        headers = {"Origin": own if origin is None else origin}
        answer = await lab.ask("POST", "/incoming", headers=headers, data=b'{"from": "+254711000001", "text": "Hi"}')
        assert answer[0] == status
        assert len(lab.receiver.posts) == (1 if status == 200 else 0)

    play(scenario)


def test_a_request_that_is_too_large_is_refused_and_recorded(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        status, _, _ = await lab.send("+254711000001", "a" * 9_000_000)
        assert status == 413
        assert (await lab.json("GET", "/counts"))["answers"] == {"413": 1}

    play(scenario)
