"""/api/sms, as CHT's Android app calls it."""

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from api.cht_gateway import ROWS_AT_ONCE, STATES
from mjumbe import documents, states
from mjumbe.couch import Couch
from mjumbe.documents import Document
from mjumbe.edits import apply_edits
from mjumbe.polling_phones import PollingPhones
from tests.integration.conftest import StartApi
from tests.integration.processes import Process, make_user

Login = tuple[str, str]


@pytest.fixture(scope="module")
def phone(couch: Couch) -> Login:
    return make_user(couch, "phone", "phone-password", ["gateway"])


@pytest.fixture(scope="module")
def other_phone(couch: Couch) -> Login:
    return make_user(couch, "other", "other-password", ["gateway"])


def poll(api: Process, login: Login, **body: Any) -> list[dict[str, str]]:
    answer = requests.post(f"{api.url}/api/sms", auth=login, json=body, timeout=30)
    assert answer.status_code == 200, answer.text
    messages: list[dict[str, str]] = answer.json()["messages"]
    return messages


def copies(couch: Couch, message_uuid: str, *tos: str, **facts: Any) -> list[str]:
    """Documents with a message of one uuid, as somebody makes who copies a document: their ids."""
    now = states.now()
    tasks = [documents.new_task(to, "Habari", now, message_uuid=message_uuid, **facts) for to in tos]
    docs = [documents.outgoing_document(task, now, None) for task in tasks]
    assert all(saved.rev for saved in couch.main.bulk(docs))
    assert couch.main.view("mjumbe", "messages_by_uuid", key=message_uuid), "the index knows them"
    return [doc["_id"] for doc in docs]


def state_of(couch: Couch, doc_id: str) -> str:
    doc = couch.main.get(doc_id)
    assert doc
    return str(doc["tasks"][0]["state"])


def assigned(
    couch: Couch,
    count: int = 1,
    *,
    due: datetime | None = None,
    claimed: datetime | None = None,
    by: str = "",
    **facts: Any,
) -> list[str]:
    """Messages that the sentinel has given to the phone gateway: their uuids, oldest first."""
    docs = []
    for number in range(count):
        at = (due or states.now()) + timedelta(milliseconds=number)
        facts = {"service": "medic-gateway"} | facts
        task = documents.new_task(f"0711 000 {number:03d}", f"text {number}", at, due=at, **facts)
        if claimed:
            states.claim(task, claimed, "medic-gateway", by)
        docs.append(documents.outgoing_document(task, at, None))
    assert all(saved.rev for saved in couch.main.bulk(docs))
    return [doc["tasks"][0]["messages"][0]["uuid"] for doc in docs]


def task_of(couch: Couch, message_uuid: str) -> Document:
    row = couch.main.view("mjumbe", "messages_by_uuid", key=message_uuid, include_docs=True)[0]
    assert row.doc
    task = documents.find_task(row.doc, message_uuid)
    assert task
    return task


def history(couch: Couch, message_uuid: str) -> list[str]:
    return [entry["state"] for entry in states.history(task_of(couch, message_uuid))]


@pytest.fixture(autouse=True)
def nothing_left(api: Process, couch: Couch) -> None:
    rows = couch.main.view("mjumbe", "assigned", include_docs=True)
    couch.main.bulk([{**row.doc, "_deleted": True} for row in rows if row.doc])


def test_who_opted_out_since_the_message_was_assigned_gets_none(api: Process, couch: Couch, phone: Login) -> None:
    given, denied = assigned(couch, 2)
    rev = couch.main.put({"_id": "opt-out:+254711000001", "type": "opt_out", "value": "opted-out"})
    assert [message["id"] for message in poll(api, phone)] == [given]
    task = task_of(couch, denied)
    assert (task["state"], task["state_history"][-1]["rule"]) == ("denied", "opted_out")
    couch.main.delete("opt-out:+254711000001", rev)


def test_what_the_settings_refuse_since_it_was_assigned_is_not_given(
    api: Process, couch: Couch, phone: Login, admin: Login
) -> None:
    given, denied = assigned(couch, 2)
    for deny_list, messages in (("0711 000 001", [given]), ("", [given])):
        change = {"outgoing_deny_list": deny_list}
        requests.put(f"{api.url}/api/v1/settings", auth=admin, json=change, timeout=30).raise_for_status()
        assert [message["id"] for message in poll(api, phone)] == messages
    task = task_of(couch, denied)
    assert (task["state"], task["state_history"][-1]["rule"]) == ("denied", "deny_list")


def test_greeting(api: Process, phone: Login) -> None:
    answer = requests.get(f"{api.url}/api/sms", auth=phone, timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"medic-gateway": True})


def test_a_poll_without_a_body_brings_nothing(api: Process, couch: Couch, phone: Login) -> None:
    [given] = assigned(couch, 1)
    answer = requests.post(f"{api.url}/api/sms", auth=phone, timeout=30)
    assert [message["id"] for message in answer.json()["messages"]] == [given]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_may_poll(api: Process, couch: Couch, admin: Login, method: str) -> None:
    def status(login: Login | None) -> requests.Response:
        return requests.request(method, f"{api.url}/api/sms", auth=login, json={}, timeout=30)

    nobody = status(None)
    assert nobody.status_code == 401
    assert nobody.headers["WWW-Authenticate"].startswith("Basic ")
    assert status(("nobody", "wrong")).status_code == 401
    assert status(make_user(couch, "sms", "sms-password", ["sms"])).status_code == 403
    assert status(admin).status_code == 200


def test_a_role_that_the_settings_permit(api: Process, couch: Couch, admin: Login) -> None:
    login = make_user(couch, "field", "field-password", ["field-phone"])
    change = {"permissions": {"can_access_gateway_api": ["gateway", "field-phone"]}}
    requests.put(f"{api.url}/api/v1/settings", auth=admin, json=change, timeout=30).raise_for_status()
    assert poll(api, login) == []


def test_a_session_cookie_logs_in(api: Process, couch: Couch, phone: Login) -> None:
    name, password = phone
    session = requests.post(f"{couch.server_url}/_session", json={"name": name, "password": password}, timeout=30)
    cookies = {"AuthSession": session.cookies["AuthSession"]}
    assert requests.get(f"{api.url}/api/sms", cookies=cookies, timeout=30).status_code == 200
    assert requests.get(f"{api.url}/api/sms", cookies={"AuthSession": "no; way"}, timeout=30).status_code == 401


@pytest.mark.parametrize("content_type", ["application/json", "application/json; charset=utf-8"])
def test_messages_come_in_once(api: Process, couch: Couch, phone: Login, content_type: str) -> None:
    ref = uuid.uuid4().hex
    body = (
        f'{{"messages":[{{"id":"{ref}","from":"0711000111","content":"héllo 😀",'
        '"sms_sent":1769848200000,"sms_received":1769848201000}]}'
    )
    for _ in range(2):
        answer = requests.post(
            f"{api.url}/api/sms", auth=phone, data=body.encode(), headers={"Content-Type": content_type}, timeout=30
        )
        assert (answer.status_code, answer.json()) == (200, {"messages": []})
    doc = couch.main.get(f"incoming:medic-gateway:{ref}")
    assert doc
    assert doc["_rev"].startswith("1-")
    assert doc["from"] == "+254711000111"
    sms = doc["sms_message"]
    assert (sms["message"], sms["gateway"], sms["sent_timestamp"]) == ("héllo 😀", "medic-gateway", "1769848200000")


def test_bad_entries_are_passed_over_and_good_ones_kept(api: Process, couch: Couch, phone: Login) -> None:
    good, numbered = uuid.uuid4().hex, uuid.uuid4().int % 10**12
    entries = [
        None,
        "text",
        [],
        {"from": "1", "content": "no id"},
        {"id": "x", "content": "no sender"},
        {"id": {}, "from": "1"},
        {"id": good, "from": "SAFARICOM", "content": ""},
        {"id": numbered, "from": 254711000111, "content": None},
    ]
    assert poll(api, phone, messages=entries, updates=["x", {}, {"id": "nobody's", "status": "SENT"}]) == []
    empty = couch.main.get(f"incoming:medic-gateway:{good}")
    assert empty and (empty["from"], empty["sms_message"]["message"]) == ("SAFARICOM", "")
    assert couch.main.get(f"incoming:medic-gateway:{numbered}")
    assert poll(api, phone, messages={"not": "a list"}, updates=7) == []


@pytest.mark.parametrize("number", ["NaN", "-Infinity", "1e400", pytest.param("9" * 5000, id="digits")])
def test_a_number_that_is_none_is_its_entry_s_trouble_alone(
    api: Process, couch: Couch, phone: Login, number: str
) -> None:
    bad, undated = ({"id": uuid.uuid4().hex, "from": "0711000111", "content": "x"} for _ in range(2))
    body = json.dumps({"messages": [bad | {"id": 0.5}, undated | {"sms_sent": 0.5}], "updates": [{"id": 0.5}]})
    answer = requests.post(
        f"{api.url}/api/sms",
        auth=phone,
        data=body.replace("0.5", number),
        headers={"Content-Type": "application/json"},
        timeout=30,
    )
    assert (answer.status_code, answer.json()) == (200, {"messages": []})
    doc = couch.main.get(f"incoming:medic-gateway:{undated['id']}")
    assert doc and "sent_timestamp" not in doc["sms_message"]
    assert couch.main.get(f"incoming:medic-gateway:{number}") is None


@pytest.mark.parametrize(
    ("body", "content_type", "status"),
    [
        (b"{", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{}", "text/plain", 415),
        (b"a=b", "application/x-www-form-urlencoded", 415),
        (b'{"a":"' + b"x" * 1_048_576 + b'"}', "application/json", 413),
    ],
)
def test_bodies_that_are_no_poll(api: Process, phone: Login, body: bytes, content_type: str, status: int) -> None:
    answer = requests.post(
        f"{api.url}/api/sms", auth=phone, data=body, headers={"Content-Type": content_type}, timeout=30
    )
    assert answer.status_code == status
    assert answer.json()["reason"]


def test_what_is_due_goes_out_oldest_first_until_acknowledged(api: Process, couch: Couch, phone: Login) -> None:
    late = assigned(couch)
    early = assigned(couch, due=states.now() - timedelta(hours=1))
    expected = [
        {"id": early[0], "to": "+254711000000", "content": "text 0"},
        {"id": late[0], "to": "+254711000000", "content": "text 0"},
    ]
    assert [poll(api, phone) for _ in range(3)] == [expected] * 3
    task = task_of(couch, early[0])
    assert (task["state"], task["attempts"], task["claim"]) == ("forwarded-to-gateway", 1, phone[0])
    assert poll(api, phone, updates=[{"id": early[0], "status": "UNSENT"}]) == expected[1:]
    assert poll(api, phone, updates=[{"id": late[0], "status": "PENDING"}]) == []
    assert history(couch, early[0]) == ["pending", "forwarded-to-gateway", "received-by-gateway"]
    assert history(couch, late[0]) == ["pending", "forwarded-to-gateway", "forwarded-by-gateway"]


@pytest.mark.parametrize(
    "facts",
    [
        {"service": None},
        {"service": "africas-talking"},
        {"service": "medic-gateway", "state": "scheduled"},
        {"service": "medic-gateway", "state": "cleared"},
        {"service": "medic-gateway", "state": "sent"},
    ],
)
def test_what_is_not_the_phone_s_stays(api: Process, couch: Couch, phone: Login, facts: dict[str, Any]) -> None:
    assigned(couch, **facts)
    assert poll(api, phone) == []


def test_what_is_weeks_old_stays(api: Process, couch: Couch, phone: Login) -> None:
    assigned(couch, due=states.now() - timedelta(days=8))
    assert poll(api, phone) == []


def test_answers_to_people_overtake_bulk(api: Process, couch: Couch, phone: Login) -> None:
    assigned(couch, 60)
    message = documents.IncomingMessage("medic-gateway", uuid.uuid4().hex, "+254711000111", "BALANCE")
    later = states.now() + timedelta(seconds=1)
    answer = documents.new_task("+254711000111", "5 kWh", later, service="medic-gateway")
    bulk = documents.new_task("+254711000111", "a reminder", later, due=later, service="medic-gateway")
    doc = documents.incoming_document(message, "+254711000111", documents.milliseconds(later))
    couch.main.put({**doc, "tasks": [answer], "scheduled_tasks": [bulk]})
    first = [given["content"] for given in poll(api, phone)]
    assert first[:2] == ["5 kWh", "text 0"], "though its time is later, as a reminder's on the same document is not"
    assert "a reminder" not in first


def test_poll_limit(api: Process, couch: Couch, phone: Login) -> None:
    uuids = assigned(couch, 30)
    first = [message["id"] for message in poll(api, phone)]
    assert first == uuids[:25]
    second = poll(api, phone, updates=[{"id": message, "status": "SENT"} for message in first])
    assert [message["id"] for message in second] == uuids[25:]


def test_several_messages_of_one_document(api: Process, couch: Couch, phone: Login) -> None:
    now = states.now()
    tasks = [documents.new_task("+254711000111", text, now, service="medic-gateway") for text in ("one", "two")]
    doc = documents.outgoing_document(tasks[0], now, None)
    couch.main.put({**doc, "tasks": tasks})
    out = poll(api, phone)
    assert {message["content"] for message in out} == {"one", "two"}
    poll(api, phone, updates=[{"id": message["id"], "status": "DELIVERED"} for message in out])
    assert [task_of(couch, message["id"])["state"] for message in out] == ["delivered", "delivered"]


def test_copies_of_a_message_are_each_sent(api: Process, couch: Couch, phone: Login) -> None:
    """A phone sends once what it is given under one id."""
    tos = ["+254711000111", "+254711000112", "+254711000113"]
    first, second, third = copies(couch, uuid.uuid4().hex, *tos, service="medic-gateway")
    rev = couch.main.put({"_id": "opt-out:+254711000113", "type": "opt_out", "value": "opted-out"})
    out = {message["to"]: message["id"] for message in poll(api, phone)}
    assert set(out) == set(tos[:2])
    assert len(set(out.values())) == 2
    poll(api, phone, updates=[{"id": out["+254711000111"], "status": "DELIVERED"}])
    states_of = [state_of(couch, doc_id) for doc_id in (first, second, third)]
    assert states_of == ["delivered", "forwarded-to-gateway", "denied"]
    couch.main.delete("opt-out:+254711000113", rev)


def test_what_a_phone_tells_is_not_of_a_copy_that_it_was_not_given(api: Process, couch: Couch, phone: Login) -> None:
    [message] = assigned(couch)
    poll(api, phone)
    ids = copies(couch, message, "+254711000112") + copies(couch, message, "+254711000113", service="viber")
    poll(api, phone, updates=[{"id": message, "status": "DELIVERED"}])
    assert [state_of(couch, doc_id) for doc_id in ids] == ["pending", "pending"]
    rows = couch.main.view("mjumbe", "messages_by_uuid", key=message, include_docs=True)
    assert sorted(row.doc["tasks"][0]["state"] for row in rows if row.doc) == ["delivered", "pending", "pending"]


STATUSES = [
    ("UNSENT", None, "received-by-gateway", None),
    ("PENDING", None, "forwarded-by-gateway", None),
    ("SENT", None, "sent", None),
    ("DELIVERED", None, "delivered", None),
    ("FAILED", "no credit", "failed", "no credit"),
    ("FAILED", None, "failed", None),
    ("EXPLODED", "loudly", "unrecognised", "EXPLODED"),
]


@pytest.mark.parametrize(("status", "reason", "state", "details"), STATUSES)
def test_statuses(
    api: Process, couch: Couch, phone: Login, status: str, reason: str | None, state: str, details: str | None
) -> None:
    [message] = assigned(couch)
    poll(api, phone)
    poll(api, phone, updates=[{"id": message, "status": status, "reason": reason}])
    task = task_of(couch, message)
    assert (task["state"], task.get("state_details"), "claim" in task) == (state, details, False)


def test_several_states_of_one_id_in_one_poll(api: Process, couch: Couch, phone: Login) -> None:
    [message] = assigned(couch)
    poll(api, phone)
    told = [{"id": message, "status": status} for status in ("UNSENT", "PENDING", "SENT", "DELIVERED")]
    before = ["pending", "forwarded-to-gateway"]
    applied = [*before, "received-by-gateway", "forwarded-by-gateway", "sent", "delivered"]
    poll(api, phone, updates=told)
    assert history(couch, message) == applied
    rev = couch.main.view("mjumbe", "messages_by_uuid", key=message, include_docs=True)[0].doc
    poll(api, phone, updates=told)  # the phone repeats what got no answer
    assert couch.main.view("mjumbe", "messages_by_uuid", key=message, include_docs=True)[0].doc == rev


def test_states_only_move_forward(api: Process, couch: Couch, phone: Login) -> None:
    [message] = assigned(couch)
    poll(api, phone)
    poll(api, phone, updates=[{"id": message, "status": "DELIVERED"}])
    poll(api, phone, updates=[{"id": message, "status": "SENT"}, {"id": message, "status": "FAILED"}])
    assert task_of(couch, message)["state"] == "delivered"
    assert history(couch, message)[-2:] == ["sent", "failed"]
    [other] = assigned(couch)
    poll(api, phone)
    poll(api, phone, updates=[{"id": other, "status": "FAILED"}, {"id": other, "status": "DELIVERED"}])
    assert task_of(couch, other)["state"] == "delivered"
    [third] = assigned(couch)
    poll(api, phone)
    poll(api, phone, updates=[{"id": third, "status": status} for status in ("SENT", "EXPLODED", "PENDING")])
    assert task_of(couch, third)["state"] == "unrecognised", "a word that nobody knows opens no way back"
    poll(api, phone, updates=[{"id": third, "status": "DELIVERED"}])
    assert task_of(couch, third)["state"] == "delivered"


@pytest.mark.parametrize("processes", [1, 2])
def test_two_phones_that_poll_at_once_never_get_the_same_message(
    api: Process,
    start_api: StartApi,
    couch_url: str,
    couch: Couch,
    phone: Login,
    other_phone: Login,
    processes: int,
) -> None:
    servers = [api, start_api(couch_url)][:processes]
    logins = [phone, other_phone]
    for _ in range(5):
        uuids = assigned(couch, 40)
        together = threading.Barrier(2)

        def take(number: int, together: threading.Barrier = together) -> list[str]:
            together.wait(30)
            return [message["id"] for message in poll(servers[number % processes], logins[number])]

        with ThreadPoolExecutor(2) as pool:
            taken = [message for messages in pool.map(take, range(2)) for message in messages]
        assert len(taken) == len(set(taken)) >= 25
        assert set(taken) <= set(uuids)
        for message in taken:
            assert history(couch, message) == ["pending", "forwarded-to-gateway"]
        poll(api, phone, updates=[{"id": message, "status": "UNSENT"} for message in uuids])


def test_another_user_s_phone_takes_over_after_twelve_hours(
    api: Process, couch: Couch, phone: Login, other_phone: Login
) -> None:
    [fresh] = assigned(couch, claimed=states.now() - timedelta(hours=11), by=phone[0])
    [stale] = assigned(couch, claimed=states.now() - timedelta(hours=13), by=phone[0])
    assert [message["id"] for message in poll(api, other_phone)] == [stale]
    assert [message["id"] for message in poll(api, phone)] == [fresh]
    assert task_of(couch, stale)["claim"] == other_phone[0]


def test_what_other_phones_have_is_in_no_phone_s_way(api: Process, couch: Couch, phone: Login) -> None:
    assigned(couch, 2 * ROWS_AT_ONCE, claimed=states.now(), by="a phone that fell into a river")
    [fresh] = assigned(couch)
    assert [message["id"] for message in poll(api, phone)] == [fresh]


def test_a_poll_is_noted(api: Process, couch: Couch) -> None:
    login = make_user(couch, "noted", "noted-password", ["gateway"])
    began = states.timestamp(states.now())
    poll(api, login)
    noted = couch.sentinel.get(f"phone:{login[0]}")
    assert noted is not None
    assert (noted["user"], noted["polled"] >= began) == (login[0], True)
    poll(api, login)
    assert couch.sentinel.get(f"phone:{login[0]}") == noted, "not each of them"
    assert PollingPhones(couch).last_poll() == noted["polled"]


@pytest.mark.parametrize("odd", [{"due": [2026]}, {"messages": [{"uuid": {"is": "odd"}}]}])
def test_an_odd_document_keeps_no_other_from_being_handed_out(
    api: Process, couch: Couch, phone: Login, odd: dict[str, Any]
) -> None:
    task = documents.new_task("+254711000111", "odd", states.now(), service="medic-gateway")
    couch.main.put(documents.outgoing_document(task | odd, states.now(), None))
    [fresh] = assigned(couch)
    assert [message["id"] for message in poll(api, phone)] == [fresh]


def test_a_message_without_text_or_recipient_is_not_handed_out(api: Process, couch: Couch, phone: Login) -> None:
    now = datetime.now(UTC)
    for change in ({"to": ""}, {"message": None}):
        task = documents.new_task("+254711000111", "text", now, service="medic-gateway")
        task["messages"][0] |= change
        couch.main.put(documents.outgoing_document(task, now, None))
    assert poll(api, phone) == []


@pytest.mark.parametrize(("sent", "after"), [(True, "sent"), (False, "pending")])
def test_a_person_settles_what_a_lost_phone_has(
    api: Process, couch: Couch, admin: Login, phone: Login, sent: bool, after: str
) -> None:
    (message_uuid,) = assigned(couch)
    url = f"{api.url}/api/v1/messages/{message_uuid}/settle"
    assert requests.post(url, auth=admin, json={"sent": sent}, timeout=30).status_code == 409, "no phone has it yet"
    assert [message["id"] for message in poll(api, phone)] == [message_uuid]
    assert requests.post(url, auth=admin, json={"sent": sent}, timeout=30).json()["state"] == after
    task = task_of(couch, message_uuid)
    assert (task["state"], "claim" in task) == (after, False)
    assert requests.post(url, auth=admin, json={"sent": sent}, timeout=30).status_code == 409


@pytest.mark.parametrize("status", ["UNSENT", "SENT", "DELIVERED", "FAILED"])
def test_what_a_phone_tells_settles_what_was_in_doubt_at_another_service_before(
    api: Process, couch: Couch, admin: Login, phone: Login, status: str
) -> None:
    """Else a person could have a message sent again that has arrived."""
    [message] = assigned(couch, in_doubt=True)
    poll(api, phone)
    poll(api, phone, updates=[{"id": message, "status": status}])
    after = task_of(couch, message)
    url = f"{api.url}/api/v1/messages/{message}/settle"
    assert requests.post(url, auth=admin, json={"sent": False}, timeout=30).status_code == 409
    assert (after["state"], "in_doubt" in after) == (STATES[status], False)
    assert task_of(couch, message) == after


def hand_on(couch: Couch, message_uuid: str, service: str, claim: str) -> None:
    """What a phone had is taken by somebody else."""
    (row,) = couch.main.view("mjumbe", "messages_by_uuid", key=message_uuid)

    def edit(doc: Document) -> bool:
        states.claim(doc["tasks"][0], states.now(), service, claim)
        return True

    assert apply_edits(couch.main, {str(row.id): edit})[str(row.id)].written


@pytest.mark.parametrize(
    ("service", "told"), [("africas-talking", ["failed", "sent", "unrecognised"]), ("medic-gateway", ["failed"])]
)
def test_a_phone_comes_back_when_somebody_else_has_its_message(
    api: Process, couch: Couch, phone: Login, service: str, told: list[str]
) -> None:
    [message] = assigned(couch)
    poll(api, phone)
    hand_on(couch, message, service, "another's claim")
    for status in (*told, *told):
        poll(api, phone, updates=[{"id": message, "status": status.upper()}])
        task = task_of(couch, message)
        assert (task["state"], task["claim"]) == ("forwarded-to-gateway", "another's claim")
    assert [entry["state"] for entry in states.history(task) if entry.get("late")] == told, "once each"
    poll(api, phone, updates=[{"id": message, "status": "DELIVERED"}])
    assert task_of(couch, message)["state"] == "delivered"


@pytest.mark.parametrize(
    ("status", "after"),
    [("FAILED", {"pending", "forwarded-to-gateway"}), ("SENT", {"sent"}), ("UNSENT", {"received-by-gateway"})],
)
def test_a_phone_comes_back_when_its_message_is_to_go_again(
    api: Process, couch: Couch, admin: Login, phone: Login, status: str, after: set[str]
) -> None:
    """With FAILED it may be given the message again by the same poll."""
    [message] = assigned(couch)
    poll(api, phone)
    url = f"{api.url}/api/v1/messages/{message}/settle"
    requests.post(url, auth=admin, json={"sent": False}, timeout=30).raise_for_status()
    poll(api, phone, updates=[{"id": message, "status": status}])
    assert task_of(couch, message)["state"] in after
