"""Writing, reading and listing messages as a program does."""

import json
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
import requests

from api.messages import LONGEST_TEXT
from mjumbe import documents, states
from mjumbe.couch import Couch
from mjumbe.states import State
from tests.integration.processes import Process, make_user, nothing_stored

Login = tuple[str, str]
PATH = "/api/v1/messages"


@pytest.fixture(scope="module")
def program(couch: Couch) -> Login:
    return make_user(couch, "program", "program-password", ["sms"])


def send(api: Process, login: Login, body: Any) -> requests.Response:
    return requests.post(api.url + PATH, auth=login, json=body, timeout=30)


def show(api: Process, login: Login, message: str) -> requests.Response:
    return requests.get(f"{api.url}{PATH}/{requests.utils.quote(message, safe='')}", auth=login, timeout=30)  # type: ignore[attr-defined]


def listed(api: Process, login: Login, **query: Any) -> dict[str, Any]:
    answer = requests.get(api.url + PATH, auth=login, params=query, timeout=30)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


def number() -> str:
    return f"+2547{uuid.uuid4().int % 10**8:08d}"


def test_one_message(api: Process, couch: Couch, program: Login) -> None:
    answer = send(api, program, {"to": "0711 000 111", "message": "Karibu"})
    assert answer.status_code == 202
    [accepted] = answer.json()["messages"]
    assert (accepted["to"], accepted["state"]) == ("+254711000111", "pending")
    doc = couch.main.get(accepted["id"])
    assert doc and doc["kujua_message"] is True
    assert doc["from"] == program[0]
    [task] = doc["tasks"]
    assert task["messages"] == [{"to": "+254711000111", "message": "Karibu", "uuid": accepted["uuid"]}]
    assert "via" not in task
    record = show(api, program, accepted["uuid"]).json()
    assert {name: record[name] for name in ("uuid", "id", "direction", "to", "message", "state", "attempts")} == {
        "uuid": accepted["uuid"],
        "id": accepted["id"],
        "direction": "outgoing",
        "to": "+254711000111",
        "message": "Karibu",
        "state": "pending",
        "attempts": 0,
    }
    assert [entry["state"] for entry in record["history"]] == ["pending"]


@pytest.mark.parametrize(
    ("due", "state", "stored"),
    [
        ("2035-01-31T08:30:00Z", "scheduled", "2035-01-31T08:30:00.000Z"),
        ("2035-01-31T08:30:00+03:00", "scheduled", "2035-01-31T05:30:00.000Z"),
        ("2035-01-31 08:30", "scheduled", "2035-01-31T08:30:00.000Z"),
        (2053672200000, "scheduled", "2035-01-29T08:30:00.000Z"),
        ("2020-01-01T00:00:00Z", "pending", "2020-01-01T00:00:00.000Z"),
    ],
)
def test_due(api: Process, couch: Couch, program: Login, due: object, state: str, stored: str) -> None:
    [accepted] = send(api, program, {"to": 254711000111, "message": "x", "due": due}).json()["messages"]
    assert accepted["state"] == state
    assert show(api, program, accepted["uuid"]).json()["due"] == stored


@pytest.mark.parametrize(
    ("service", "via"),
    [("africas-talking", "africas-talking"), ("medic-gateway", "medic-gateway"), ("cht-gateway", "medic-gateway")],
)
def test_a_service_is_pinned(api: Process, couch: Couch, program: Login, service: str, via: str) -> None:
    [accepted] = send(api, program, {"to": "+254711000111", "message": "x", "service": service}).json()["messages"]
    doc = couch.main.get(accepted["id"])
    assert doc and doc["tasks"][0]["via"] == via
    assert show(api, program, accepted["uuid"]).json()["service"] == via


@pytest.mark.parametrize(
    "premium", [True, False, {"keyword": "afya"}, {"keyword": "afya", "link_id": "L1", "retry_duration_hours": 4}]
)
def test_premium_as_the_author_says(api: Process, couch: Couch, program: Login, premium: object) -> None:
    [accepted] = send(api, program, {"to": "+254711000111", "message": "x", "premium": premium}).json()["messages"]
    doc = couch.main.get(accepted["id"])
    assert doc and doc["tasks"][0]["premium"] == premium


def test_a_thousand_messages(api: Process, program: Login) -> None:
    answer = send(api, program, [{"to": "+254711000111", "message": f"{n}"} for n in range(1000)])
    assert answer.status_code == 202
    assert len({message["uuid"] for message in answer.json()["messages"]}) == 1000
    assert send(api, program, [{"to": "+254711000111", "message": "x"}] * 1001).status_code == 400


def test_a_uuid_makes_it_idempotent(api: Process, couch: Couch, program: Login) -> None:
    own = f"booking-{uuid.uuid4().hex}"
    message = {"to": "+254711000111", "message": "x", "uuid": own}
    first = send(api, program, message).json()["messages"]
    doc = couch.main.get(first[0]["id"])
    assert doc
    states.move(doc["tasks"][0], State.SENT, states.now())
    couch.main.put(doc)
    again = send(api, program, [message, {"to": "+254711000111", "message": "another"}])
    assert again.status_code == 202
    assert again.json()["messages"][0] == {**first[0], "state": "sent"}
    assert again.json()["messages"][1]["state"] == "pending"


GOOD = {"to": "+254711000111", "message": "x"}


def test_a_misspelt_field_is_named_before_the_one_that_is_missing_for_it(api: Process, program: Login) -> None:
    answer = send(api, program, {"to": "+254711000111", "text": "x"}).json()
    assert [problem["field"] for problem in answer["problems"]] == ["text", "message"]
    assert answer["field"] == "text"


@pytest.mark.parametrize("change", [{"to": "+254711000112"}, {"message": "another"}])
def test_another_message_with_a_known_uuid_is_refused(api: Process, program: Login, change: dict[str, str]) -> None:
    """To answer 202, with the first message's state, would say that this one is sent."""
    message = {**GOOD, "uuid": f"token-{uuid.uuid4().hex}"}
    assert send(api, program, message).status_code == 202
    answer = send(api, program, {**message, **change})
    assert answer.status_code == 409
    assert answer.json()["problems"] == [
        {
            "index": 0,
            "field": "uuid",
            "expected": f"a uuid that no other message has; {message['uuid']} is one to +254711000111",
        }
    ]
    own = uuid.uuid4().hex
    answer = send(api, program, [{**GOOD, "uuid": own}, {**message, **change}, message])
    assert (answer.status_code, answer.json()["problems"][0]["index"]) == (409, 1)
    assert answer.json()["reason"].endswith("The other 2 are stored.")
    assert show(api, program, own).status_code == 200


def test_a_uuid_may_be_a_number(api: Process, program: Login) -> None:
    own = uuid.uuid4().int % 10**12
    for _ in range(2):
        assert send(api, program, {**GOOD, "uuid": own}).json()["messages"][0]["uuid"] == str(own)
    assert show(api, program, str(own)).json()["to"] == GOOD["to"]


@pytest.mark.parametrize(
    ("body", "index", "field"),
    [
        ({"message": "x"}, 0, "to"),
        ({"to": "+254711000111"}, 0, "message"),
        ({**GOOD, "message": ""}, 0, "message"),
        ({**GOOD, "message": 7}, 0, "message"),
        ({**GOOD, "message": "x" * 40_001}, 0, "message"),
        ({**GOOD, "to": "SAFARICOM"}, 0, "to"),
        ({**GOOD, "to": ""}, 0, "to"),
        ({**GOOD, "to": True}, 0, "to"),
        ({**GOOD, "to": ["+254711000111"]}, 0, "to"),
        ({**GOOD, "due": "soon"}, 0, "due"),
        ({**GOOD, "due": 1e300}, 0, "due"),
        ({**GOOD, "due": True}, 0, "due"),
        ({**GOOD, "service": "pigeon"}, 0, "service"),
        ({**GOOD, "premium": "yes"}, 0, "premium"),
        ({**GOOD, "premium": {"keyword": ""}}, 0, "premium"),
        ({**GOOD, "premium": {"retry_duration_hours": 0}}, 0, "premium"),
        ({**GOOD, "premium": {"bulkSMSMode": 0}}, 0, "premium"),
        ({**GOOD, "uuid": "no spaces"}, 0, "uuid"),
        ({**GOOD, "when": "soon"}, 0, "when"),
        ([GOOD, GOOD, {**GOOD, "to": "x"}], 2, "to"),
        ([GOOD, 7], 1, "body"),
        ("text", 0, "body"),
        (None, 0, "body"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_stored(
    api: Process, couch: Couch, program: Login, body: Any, index: int, field: str
) -> None:
    headers = {"Content-Type": "application/json"}
    with nothing_stored(couch.main):
        answer = requests.post(api.url + PATH, auth=program, data=json.dumps(body), headers=headers, timeout=30)
    assert answer.status_code == 400
    [problem] = answer.json()["problems"]
    assert (problem["index"], problem["field"]) == (index, field)
    assert problem["expected"]


def test_a_wrong_number_is_shown(api: Process, program: Login) -> None:
    says = "Nothing was stored. to: expected a phone number such as +254711000111, as text or number; it is '12'"
    assert send(api, program, {**GOOD, "to": "12"}).json()["reason"] == says


def test_a_wrong_text_is_not(api: Process, program: Login) -> None:
    answer = send(api, program, {**GOOD, "message": "a secret " * LONGEST_TEXT})
    assert (answer.status_code, answer.json()["problems"][0]["field"]) == (400, "message")
    assert "a secret" not in answer.text


def test_an_empty_list(api: Process, program: Login) -> None:
    assert send(api, program, []).status_code == 400


def test_who_may(api: Process, couch: Couch, admin: Login) -> None:
    gateway = make_user(couch, "gateway", "gateway-password", ["gateway"])
    for method, path in (("GET", PATH), ("POST", PATH), ("GET", f"{PATH}/x")):
        assert requests.request(method, api.url + path, json=GOOD, timeout=30).status_code == 401
        assert requests.request(method, api.url + path, json=GOOD, auth=gateway, timeout=30).status_code == 403
    assert send(api, admin, GOOD).status_code == 202
    assert requests.post(api.url + PATH, auth=admin, data="to=1&message=x", timeout=30).status_code == 415


def test_unknown_message(api: Process, program: Login) -> None:
    for name in ("nobody", "settings", "_design/mjumbe", "a/b", "_all_docs"):
        answer = show(api, program, name)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")


def incoming(couch: Couch, sender: str, text: str, at: int) -> str:
    message = documents.IncomingMessage("africas-talking", uuid.uuid4().hex, sender, text, to="22333")
    doc = documents.incoming_document(message, sender, at)
    couch.main.put(doc)
    return str(doc["_id"])


def test_an_incoming_message(api: Process, couch: Couch, program: Login) -> None:
    sender = number()
    doc_id = incoming(couch, sender, "HELP", 1769848200000)
    record = show(api, program, doc_id).json()
    assert {name: record[name] for name in ("uuid", "direction", "from", "to", "message", "state", "service")} == {
        "uuid": doc_id,
        "direction": "incoming",
        "from": sender,
        "to": "22333",
        "message": "HELP",
        "state": "received",
        "service": "africas-talking",
    }
    assert listed(api, program, phone=sender)["messages"] == [record]


def conversation(couch: Couch, phone: str, count: int) -> list[str]:
    """Messages in and out, a second apart: their ids, newest first."""
    ids = []
    for n in range(count):
        at = 1_769_848_200_000 + n * 1000
        if n % 2:
            ids.append(incoming(couch, phone, f"in {n}", at))
        else:
            moment = datetime.fromtimestamp(at / 1000, UTC)
            doc = documents.outgoing_document(documents.new_task(phone, f"out {n}", moment, due=moment), moment, None)
            couch.main.put(doc)
            ids.append(doc["tasks"][0]["messages"][0]["uuid"])
    return ids[::-1]


def pages(api: Process, login: Login, **query: Any) -> list[list[str]]:
    found, bookmark = [], None
    while True:
        page = listed(api, login, **query, **({"bookmark": bookmark} if bookmark else {}))
        found.append([message["uuid"] for message in page["messages"]])
        bookmark = page["bookmark"]
        if bookmark is None:
            return found


def test_listing_newest_first_in_pages(api: Process, couch: Couch, program: Login) -> None:
    phone = number()
    ids = conversation(couch, phone, 7)
    spelled = "0" + phone.removeprefix("+254")
    assert pages(api, program, phone=spelled) == [ids]
    assert pages(api, program, phone=phone, limit=3) == [ids[:3], ids[3:6], ids[6:]]
    assert pages(api, program, phone=phone, limit=7) == [ids]
    assert pages(api, program, phone=phone, state="received", limit=2) == [[ids[1], ids[3]], [ids[5]]]
    assert pages(api, program, phone=phone, state="pending") == [ids[::2]]


def test_a_number_is_found_in_every_spelling(api: Process, couch: Couch, program: Login) -> None:
    """Programs that write documents themselves write the number as they have it."""
    phone = number()
    national = phone.removeprefix("+254")
    spellings = [phone, f"0{national}", f"254{national}", f"00254 {national}", f"+254-{national[:3]} {national[3:]}"]
    at = datetime(2026, 1, 31, tzinfo=UTC)
    ids = [uuid.uuid4().hex for _ in spellings]
    for written, message_uuid in zip([*spellings, f"+255{national}"], [*ids, "another"], strict=True):
        task = documents.new_task(written, "Habari", at, due=at, message_uuid=message_uuid)
        couch.main.put(documents.outgoing_document(task, at, None))
    for query in (phone, f"0{national}"):
        found = pages(api, program, phone=query, limit=2)
        assert sorted(message_uuid for page in found for message_uuid in page) == sorted(ids)
    assert pages(api, program, phone=f"+255{national}") == [["another"]]


def test_bounds(api: Process, couch: Couch, program: Login) -> None:
    phone = number()
    ids = conversation(couch, phone, 5)
    start, end = 1_769_848_201_000, 1_769_848_203_000
    bounds = {"from": start, "to": end}
    assert pages(api, program, phone=phone, **bounds) == [ids[1:4]]
    assert pages(api, program, phone=phone, **{"from": "2026-01-31T08:30:01Z"}) == [ids[:4]]
    assert pages(api, program, phone=phone, to="2026-01-31T11:30:01+03:00") == [ids[3:]]
    assert pages(api, program, phone=phone, **{"from": end, "to": start}) == [[]]


def test_a_bookmark_stays_where_it_is_when_messages_come_in(api: Process, couch: Couch, program: Login) -> None:
    phone = number()
    ids = conversation(couch, phone, 4)
    first = listed(api, program, phone=phone, limit=2)
    incoming(couch, phone, "new", 1_769_848_300_000)
    second = listed(api, program, phone=phone, limit=2, bookmark=first["bookmark"])
    assert [message["uuid"] for message in first["messages"] + second["messages"]] == ids
    assert second["bookmark"] is None


def test_messages_of_one_document_at_one_moment_are_paged(api: Process, couch: Couch, program: Login) -> None:
    phone, now = number(), states.now()
    tasks = [documents.new_task(phone, f"{n}", now, due=now) for n in range(5)]
    couch.main.put({**documents.outgoing_document(tasks[0], now, None), "tasks": tasks})
    found = pages(api, program, phone=phone, limit=2)
    assert [len(page) for page in found] == [2, 2, 1]
    assert {uuid for page in found for uuid in page} == {task["messages"][0]["uuid"] for task in tasks}


def test_listing_everything_and_by_state(api: Process, couch: Couch, program: Login) -> None:
    conversation(couch, number(), 3)
    everything = listed(api, program, limit=1000, to="2026-02-01")["messages"]
    assert {message["direction"] for message in everything} == {"incoming", "outgoing"}
    received = listed(api, program, state="received", limit=1000, to="2026-02-01")["messages"]
    assert received == [message for message in everything if message["direction"] == "incoming"]
    assert listed(api, program, state="unrecognised") == {"messages": [], "bookmark": None}


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"from": "soon"}, "from"),
        ({"to": "9" * 5000}, "to"),
        ({"bookmark": "x"}, "bookmark"),
        ({"bookmark": "W10="}, "bookmark"),
        ({"bookmark": "W1siYWxsIiwgNV0sICJ4IiwgMS41XQ=="}, "bookmark"),  # [["all", 5], "x", 1.5]
        ({"bookmark": "W1siYWxsIiwgNV0sICJ4IiwgdHJ1ZV0="}, "bookmark"),  # [["all", 5], "x", true]
        ({"bookmark": "W1siYWxsIiwgMV0sICJ4IiwgMV0=", "phone": "1"}, "bookmark"),
        ({"sender": "1"}, "sender"),
        ({"state": "pendin"}, "state"),
    ],
)
def test_wrong_queries(api: Process, program: Login, query: dict[str, str], field: str) -> None:
    answer = requests.get(api.url + PATH, auth=program, params=query, timeout=30)
    assert answer.status_code == 400
    assert answer.json()["field"] == field


# ---- taking one back


def test_what_waits_can_be_cancelled(api: Process, couch: Couch, program: Login) -> None:
    [accepted] = send(api, program, {**GOOD, "due": "2099-01-31T08:00Z"}).json()["messages"]
    url = f"{api.url}{PATH}/{accepted['uuid']}/cancel"
    gateway = make_user(couch, "phone-5", "gateway-password", ["gateway"])
    assert [requests.post(url, auth=login, timeout=30).status_code for login in (None, gateway)] == [401, 403]
    cancelled = requests.post(url, auth=program, timeout=30)
    assert cancelled.status_code == 200
    assert (cancelled.json()["state"], cancelled.json()["state_details"]) == ("cleared", f"cancelled by {program[0]}")
    doc = couch.main.get(accepted["id"])
    assert doc and doc["tasks"][0]["state"] == "cleared"
    again = requests.post(url, auth=program, timeout=30)
    assert again.status_code == 409
    assert "is not waiting any more" in again.json()["reason"]


@pytest.mark.parametrize(
    "facts", [{"state": "sent"}, {"state": "forwarded-to-gateway"}, {"state": "pending", "in_doubt": True}]
)
def test_what_went_or_may_have_gone_cannot(api: Process, couch: Couch, program: Login, facts: dict[str, Any]) -> None:
    [accepted] = send(api, program, GOOD).json()["messages"]
    doc = couch.main.get(accepted["id"])
    assert doc
    doc["tasks"][0] |= facts
    couch.main.put(doc)
    url = f"{api.url}{PATH}/{accepted['uuid']}/cancel"
    assert requests.post(url, auth=program, timeout=30).status_code == 409
    assert requests.post(f"{api.url}{PATH}/nobody-has-it/cancel", auth=program, timeout=30).status_code == 404
