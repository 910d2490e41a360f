"""Callbacks: exactly Africa's Talking's bytes, repeated, retried, and never showing a key."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

FORM = "application/x-www-form-urlencoded; charset=utf-8"
INCOMING = {"from": "+254711000001", "text": "Habari & <b>😀</b>", "id": "m-1", "date": "2017-05-03 06:04:45"}
POSTED = [  # our endpoint, what it is told, the path posted to, the body posted
    (
        "/incoming",
        INCOMING | {"linkId": "l-1"},
        "/incoming",
        b"date=2017-05-03+06%3A04%3A45&from=%2B254711000001&id=m-1&linkId=l-1"
        b"&text=Habari+%26+%3Cb%3E%F0%9F%98%80%3C%2Fb%3E&to=22000&cost=None&networkCode=99999",
    ),
    (
        "/incoming",
        {"from": "MPESA", "text": "", "id": "m-2", "date": "soon", "linkId": "", "to": "40404"},
        "/incoming",
        b"date=soon&from=MPESA&id=m-2&text=&to=40404&cost=None&networkCode=99999",
    ),
    (
        "/reports",
        {"id": "ATXid_1", "status": "Success", "phoneNumber": "+254711000001"},
        "/reports",
        b"phoneNumber=%2B254711000001&retryCount=0&id=ATXid_1&status=Success&networkCode=99999",
    ),
    (
        "/reports",
        {"id": "ATXid_1", "status": "Failed", "failureReason": "NotNetworkSubcriber", "networkCode": "63902"},
        "/reports",
        b"phoneNumber=&retryCount=0&id=ATXid_1&status=Failed&networkCode=63902&failureReason=NotNetworkSubcriber",
    ),
    ("/opt-out", {"phoneNumber": "+254711000001"}, "/opt_out", b"senderId=22000&phoneNumber=%2B254711000001"),
    (
        "/subscription",
        {"phoneNumber": "+254711000001", "keyword": "news", "updateType": "Deletion"},
        "/subscription",
        b"phoneNumber=%2B254711000001&shortCode=22000&keyword=news&updateType=Deletion",
    ),
]


@pytest.mark.parametrize(("endpoint", "value", "path", "body"), POSTED)
def test_posted(play: Any, endpoint: str, value: dict[str, str], path: str, body: bytes) -> None:
    async def scenario(lab: Any) -> None:
        answer = await lab.json("POST", endpoint, value)
        assert lab.receiver.posts == [(f"{path}?key=s3cret", FORM, body)]
        assert [(a["status"], a["answer"], a["error"]) for a in answer["answers"]] == [(200, '{"saved": 1}', None)]

    play(scenario)


def test_an_incoming_message_gets_what_it_was_not_given(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        answer = await lab.json("POST", "/incoming", {"from": "+254711000001", "text": "Hi"})
        body = lab.receiver.posts[0][2].decode()
        assert f"&id={answer['id']}&linkId={answer['link_id']}&text=Hi&to=22000&" in body
        assert body.startswith("date=20") and "Z&from=" in body

    play(scenario)


def test_networks_outside_the_sandbox(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for number in ("+254711000001", "+256711000001", "+15550001"):
            await lab.json("POST", "/incoming", {"from": number, "text": "Hi"})
        assert [body.rpartition(b"=")[2] for _, _, body in lab.receiver.posts] == [b"63902", b"64110", b"99999"]

    play(scenario, username="mine")


def test_fifty_equal_webhooks_at_once(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        answer = await lab.json("POST", "/incoming", INCOMING | {"repeat": 50, "concurrency": 50})
        assert len(answer["answers"]) == 50
        assert len({body for _, _, body in lab.receiver.posts}) == 1

    play(scenario)


def test_another_url(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("POST", "/incoming", INCOMING | {"url": f"{lab.receiver.url}/elsewhere?key=k"})
        assert [path for path, _, _ in lab.receiver.posts] == ["/elsewhere?key=k"]

    play(scenario)


def test_a_failed_callback_is_tried_again_and_recorded(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        lab.receiver.answers = [503, 500, 200]
        answer = await lab.json("POST", "/incoming", INCOMING)
        assert [a["status"] for a in answer["answers"]] == [503]
        posts = await lab.callbacks(3)
        assert [(post["attempt"], post["status"]) for post in posts] == [(1, 503), (2, 500), (3, 200)]
        counts = (await lab.json("GET", "/counts"))["callbacks"]
        assert counts == {"incoming": {"posted": 3, "answers": {"503": 1, "500": 1, "200": 1}}}

    play(scenario)


@pytest.mark.parametrize("status", [200, 302, 400, 403, 429])
def test_other_answers_end_it(play: Any, status: int) -> None:
    async def scenario(lab: Any) -> None:
        lab.receiver.answers = [status]
        await lab.json("POST", "/incoming", INCOMING)
        counts = await lab.json("GET", "/counts")
        assert (counts["callbacks"]["incoming"]["posted"], counts["callbacks_waiting"]) == (1, 0)

    play(scenario)


def test_nobody_listens(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        [answer] = (await lab.json("POST", "/incoming", INCOMING))["answers"]
        assert answer["status"] is None
        assert answer["error"].startswith("ClientConnectorError")
        posts = await lab.callbacks(3)
        assert [post["attempt"] for post in posts] == [1, 2, 3]
        assert (await lab.json("GET", "/counts"))["callbacks_waiting"] == 0

    play(scenario, incoming_url="http://127.0.0.1:1/incoming?key=s3cret")


def test_the_key_is_never_shown(play: Any, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    caplog.set_level(logging.DEBUG)

    async def scenario(lab: Any) -> None:
        lab.receiver.answers = [500, 500, 500]
        await lab.json("POST", "/incoming", INCOMING)
        await lab.json("POST", "/incoming", INCOMING | {"url": "http://127.0.0.1:1/?key=s3cret"})
        await lab.callbacks(6)
        for path in ("/control", "/callbacks", "/requests", "/counts", "/", "/phone"):
            assert b"s3cret" not in (await lab.ask("GET", path))[2]

    play(scenario)
    assert "s3cret" not in caplog.text + "".join(capfd.readouterr())


def test_no_url(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        answer = await lab.ask("POST", "/reports", json={"id": "ATXid_1", "status": "Success"})
        assert answer[0] == 409
        assert "reports_url" in json.loads(answer[2])["error"]
        await lab.send("+254711000001")
        listed = await lab.json("GET", "/messages?wait_for=1")
        assert listed["messages"][0]["to"] == "+254711000001"

    play(scenario, reports_url=None)


def test_report_steps(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", {"report_steps": ["Sent", "Submitted", "Success"]})
        await lab.send("+254711000001")
        posts = await lab.callbacks(3)
        assert [post["fields"]["status"] for post in posts] == ["Sent", "Submitted", "Success"]
        assert (await lab.json("GET", "/messages"))["messages"][0]["status"] == "Success"

    play(scenario)


def test_no_reports(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", {"reports": False})
        await lab.send("+254711000001")
        assert (await lab.json("GET", "/counts"))["callbacks_waiting"] == 0
        assert lab.receiver.posts == []

    play(scenario)


def test_too_many_waiting_callbacks_are_dropped_and_counted(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        for _ in range(5):
            await lab.send("+254711000001")
        counts = await lab.json("GET", "/counts")
        assert (counts["callbacks_waiting"], counts["callbacks_dropped"]) == (3, 2)

    play(scenario, record_size=3, report_delay_ms=600_000)


@pytest.mark.parametrize(
    ("status", "is_tried_again"), [(200, False), (302, False), (404, False), (500, True), (503, True)]
)
def test_only_who_is_down_is_asked_again(play: Any, status: int, is_tried_again: bool) -> None:
    async def scenario(lab: Any) -> None:
        lab.receiver.answers = [status]
        await lab.json("POST", "/incoming", {"from": "+254711000001", "text": "Habari"})
        waiting = lab.simulator.exchange.callbacks.waiting
        posted = await lab.callbacks(1 + is_tried_again)
        assert [entry["status"] for entry in posted] == ([status, 200] if is_tried_again else [status])
        assert is_tried_again or waiting == 0

    play(scenario, callback_retries_ms=(50,))


def test_what_waited_when_all_was_forgotten_is_not_posted(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.send("+254711000001")
        await lab.json("DELETE", "/requests")
        assert (await lab.json("GET", "/counts"))["callbacks_waiting"] == 0
        await lab.json("PUT", "/control", {"report_delay_ms": 200})  # the first one's time is over by then
        await lab.send("+254711000002")
        assert [entry["fields"]["phoneNumber"] for entry in await lab.callbacks(1)] == ["+254711000002"]
        assert (await lab.json("GET", "/counts"))["callbacks_waiting"] == 0

    play(scenario, report_delay_ms=50)
