"""The table of faults: each row by what it does on the wire, and its copy in the documentation."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

import aiohttp
import pytest

from simulator.number_faults import ENDING_LENGTH, NUMBER_FAULTS, STATUS_NAMES, fault_of, markdown_table

DOCUMENT = Path(__file__).parents[3] / "docs" / "simulator.md"
SUCCESS = [("Success", None)]
NOTHING: list[tuple[str, str | None]] = []


def number_of(ending: str) -> str:
    return f"+2547110{ending}"


def test_the_documentation_shows_the_table() -> None:
    assert markdown_table() in DOCUMENT.read_text("utf-8")


def test_endings_are_distinct_and_of_one_length() -> None:
    endings = [fault.ending for fault in NUMBER_FAULTS]
    assert len(set(endings)) == len(endings)
    assert all(len(ending) == ENDING_LENGTH and ending.startswith("99") for ending in endings)


def test_an_ordinary_number_has_no_fault() -> None:
    assert fault_of("+254711000401") is None


ANSWERED = [  # ending, statusCode, the reports
    *((f"99{code}", code, SUCCESS if code < 400 else NOTHING) for code in STATUS_NAMES),
    ("99601", 101, [("Sent", None)]),
    ("99602", 101, [("Submitted", None)]),
    ("99603", 101, [("Buffered", None)]),
    ("99604", 101, SUCCESS),
    ("99605", 101, [("Rejected", "InsufficientCredit")]),
    ("99606", 101, [("Failed", "DeliveryFailure")]),
    ("99607", 101, [("Expired", None)]),
    ("99608", 101, [("AbsentSubscriber", "AbsentSubscriber")]),
    ("99609", 101, [("Teleported", None)]),
    ("99610", 101, [("Delivered", None)]),
    ("99611", 101, [("Rejected", "UserInBlackList")]),
    ("99612", 101, [("AbsentSubscriber", "AbsentSubscriber"), ("Success", None)]),
    ("99700", 101, NOTHING),
    ("99701", 101, SUCCESS),
    ("99702", 101, SUCCESS * 5),
    ("99703", 101, [("Success", None), ("Sent", None)]),
    ("99704", 101, SUCCESS),
]
UNANSWERED = {"99801": 0, "99802": 1, "99803": 0}  # ending: how many messages are accepted
REFUSED = {"99804": 500, "99805": 429, "99806": 200}  # ending: HTTP status
LEFT_OUT = "99807"


def test_every_row_is_tried() -> None:
    tried = {ending for ending, _, _ in ANSWERED} | set(UNANSWERED) | set(REFUSED) | {LEFT_OUT}
    assert tried == {fault.ending for fault in NUMBER_FAULTS}


@pytest.mark.parametrize(("ending", "status_code", "reports"), ANSWERED)
def test_answer_and_reports(play: Any, ending: str, status_code: int, reports: list[tuple[str, str | None]]) -> None:
    number = number_of(ending)

    async def scenario(lab: Any) -> None:
        status, _, body = await lab.send(number)
        [recipient] = json.loads(body)["SMSMessageData"]["Recipients"]
        accepted = status_code < 400
        assert (status, recipient["statusCode"], recipient["number"]) == (201, status_code, number)
        assert recipient["status"] == ("Success" if accepted else STATUS_NAMES[status_code])
        assert recipient["cost"] == ("KES 0.8000" if accepted else "0")
        assert recipient["messageId"].startswith("ATXid_") if accepted else recipient["messageId"] == "None"
        # An ordinary message after it: when its report is there, nothing else is on its way.
        await lab.send("+254711000001")
        posted = await lab.callbacks(len(reports) + 1)
        fields = [dict(parse_qsl(post.decode())) for _, _, post in lab.receiver.posts]
        told = [(f["status"], f.get("failureReason")) for f in fields if f["phoneNumber"] == number]
        assert told == reports
        assert all(f["id"] == recipient["messageId"] for f in fields if f["phoneNumber"] == number)
        assert len(posted) == len(reports) + 1
        assert (await lab.json("GET", "/counts"))["callbacks_waiting"] == 0

    play(scenario, late_report_ms=1)


@pytest.mark.parametrize(("ending", "accepted"), UNANSWERED.items())
def test_no_answer(play: Any, ending: str, accepted: int) -> None:
    async def scenario(lab: Any) -> None:
        sending = asyncio.create_task(lab.send(number_of(ending)))
        if ending == "99801":
            held = await lab.json("GET", "/requests?wait_for=1")
            assert held["requests"][0]["status"] is None
            assert not sending.done()
            sending.cancel()
        with pytest.raises((aiohttp.ClientConnectionError, asyncio.CancelledError)):
            await sending
        [entry] = (await lab.json("GET", "/requests"))["requests"]
        assert (entry["status"], entry["fault"]) == (None, fault_name(ending))
        assert len((await lab.json("GET", "/messages"))["messages"]) == accepted
        assert len(await lab.callbacks(accepted)) == accepted

    play(scenario)


def fault_name(ending: str) -> str:
    return next(fault.name for fault in NUMBER_FAULTS if fault.ending == ending)


@pytest.mark.parametrize(("ending", "http_status"), REFUSED.items())
def test_refused_request(play: Any, ending: str, http_status: int) -> None:
    async def scenario(lab: Any) -> None:
        status, content_type, body = await lab.send(f"+254711000001,{number_of(ending)}")
        assert status == http_status
        assert not content_type.startswith("application/json")
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(body)
        assert (await lab.json("GET", "/counts"))["accepted"] == 0

    play(scenario)


def test_too_many_requests_says_when_to_try_again(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        data = {"username": "sandbox", "to": number_of("99805"), "message": "x"}
        url = f"{lab.simulator.url}version1/messaging"
        async with lab.http.post(url, data=data, headers={"apiKey": "k"}) as response:
            assert (response.status, response.headers["Retry-After"]) == (429, "2")

    play(scenario)


def test_left_out(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        _, _, body = await lab.send(f"{number_of(LEFT_OUT)},+254711000001")
        data = json.loads(body)["SMSMessageData"]
        assert data["Message"] == "Sent to 1/2 Total Cost: KES 0.8000"
        assert [recipient["number"] for recipient in data["Recipients"]] == ["+254711000001"]
        _, _, body = await lab.send(number_of(LEFT_OUT))
        assert json.loads(body)["SMSMessageData"] == {"Message": "Sent to 0/1 Total Cost: 0", "Recipients": []}

    play(scenario)


def test_an_early_report_comes_before_the_answer(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        sending = asyncio.create_task(lab.send(number_of("99704")))
        answered = []
        lab.receiver.before_answer = lambda: answered.append(sending.done())
        await sending
        assert answered == [False]

    play(scenario)


def test_a_late_report_waits_for_its_time(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.send(number_of("99701"))
        await lab.send("+254711000001")
        [post] = await lab.callbacks(1)
        assert post["fields"]["phoneNumber"] == "+254711000001"
        assert (await lab.json("GET", "/counts"))["callbacks_waiting"] == 1

    play(scenario, late_report_ms=600_000)


def test_number_faults_can_be_switched_off(play: Any) -> None:
    async def scenario(lab: Any) -> None:
        await lab.json("PUT", "/control", {"number_faults": False})
        _, _, body = await lab.send(number_of("99801"))
        assert json.loads(body)["SMSMessageData"]["Recipients"][0]["statusCode"] == 101

    play(scenario)
