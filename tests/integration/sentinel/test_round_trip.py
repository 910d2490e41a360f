"""A message's way, in and out, through real processes."""

import itertools
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests

from mjumbe import states
from mjumbe.couch import ConflictError
from mjumbe.documents import Document, message_of
from mjumbe.states import State
from tests.integration.processes import eventually
from tests.integration.sentinel.world import INCOMING_KEY, SOON, World, entries, moment, number

serials = itertools.count(1)
texts = (f"text {n}" for n in itertools.count(1))


@pytest.fixture(scope="module", autouse=True)
def replies(world: World) -> None:
    world.set(
        sms={
            "replies": [
                {"keyword": "HELP", "message": "Hello {{contact.name}}, we are here"},
                {"keyword": "balance", "translation_key": "balance"},
            ]
        }
    )


def free(world: World) -> None:
    """Several failures in a row leave the service in peace for a while; a changed setting frees it at once."""
    world.set(sms={"africas_talking": {"read_timeout": 30 + next(serials)}})
    eventually(lambda: world.held() is None)


# ---- in, and answered


def test_a_keyword_is_answered_and_the_answer_delivered(world: World) -> None:
    sender = number()
    person = {"_id": f"person-{sender}", "type": "person", "name": "Ann", "phone": sender, "parent": {"_id": "clinic"}}
    world.couch.main.put(person)
    doc_id = world.receive(sender, "help please", linkId="link-7", to="22000")
    task = world.until(doc_id, "delivered")
    doc = world.doc(doc_id)
    assert doc["contact"] == {"_id": person["_id"], "parent": {"_id": "clinic"}}
    assert doc["sms_message"]["link_id"] == "link-7"
    assert entries(task) == ["pending", "forwarded-to-gateway", "sent", "delivered"]
    (message,) = task["messages"]
    assert (message["to"], message["message"]) == (sender, "Hello Ann, we are here")
    (request,) = [r for r in world.simulator.requests("Hello Ann, we are here") if r["to"] == [sender]]
    assert (request["link_id"], request["key"], request["headers"]["Accept"]) == ("link-7", "right", "application/json")
    assert task["gateway_ref"] == request["message_ids"][0]
    assert (task["cost"], task["parts"], task["service"], task["attempts"]) == ("KES 0.8000", 1, "africas-talking", 1)
    times = [moment(entry) for entry in task["state_history"]]
    assert times == sorted(times)


def test_a_repeated_webhook_is_answered_once(world: World) -> None:
    sender = number()
    answer = world.simulator.ask(
        "POST", "/incoming", {"from": sender, "text": "HELP", "id": uuid.uuid4().hex, "repeat": 20, "concurrency": 20}
    )
    assert sorted(post["answer"] for post in answer["answers"]) == ['{"saved":0}'] * 19 + ['{"saved":1}'] or (
        sum("1" in post["answer"] for post in answer["answers"]) == 1
    )
    world.until(f"incoming:africas-talking:{answer['id']}", "delivered")
    answers = [m for m in world.simulator.messages("Hello , we are here") if m["to"] == sender]
    assert len(answers) == 1


def test_the_language_of_the_sender(world: World) -> None:
    sender = number()
    world.couch.main.put({"_id": f"person-{sender}", "type": "person", "phone": sender, "language": "sw"})
    for locale, text in (("en", "You owe nothing"), ("sw", "Huna deni")):
        world.couch.main.put(
            {"_id": f"messages-{locale}", "type": "translations", "code": locale, "generic": {"balance": text}}
        )
    assert world.until(world.receive(sender, "Balance"), "delivered")["messages"][0]["message"] == "Huna deni"
    assert world.until(world.receive(number(), "balance?"), "delivered")["messages"][0]["message"] == "You owe nothing"
    french = world.doc("messages-sw")
    french["generic"]["balance"] = "Hakuna deni"
    world.couch.main.put(french)

    def newest() -> bool:
        return world.until(world.receive(sender, "Balance"), "delivered")["messages"][0]["message"] == "Hakuna deni"

    eventually(newest)


def test_a_number_that_a_person_gets_later_is_linked(world: World) -> None:
    sender = number()
    first = world.receive(sender, "HELP")
    world.until(first, "delivered")
    assert "contact" not in world.doc(first)
    world.couch.main.put({"_id": f"person-{sender}", "type": "person", "name": "Bea", "phone": sender})

    def linked() -> bool:
        doc_id = world.receive(sender, f"HELP {next(texts)}")
        world.until(doc_id, "delivered")
        return world.doc(doc_id).get("contact") == {"_id": f"person-{sender}"}

    eventually(linked)


def test_default_responses(world: World) -> None:
    world.set(default_responses={"start_date": (datetime.now(UTC) - timedelta(days=1)).date().isoformat()})
    try:
        words = {
            "Habari": "Thank you, your message has arrived.",
            "": "Your message arrived without any text. Please write it again and send it.",
        }
        for text, answer in words.items():

            def answered(text: str = text, answer: str = answer) -> bool:
                doc_id = world.receive(number(), text)
                eventually(lambda: "link_sender" in world.doc(doc_id).get("transitions", {}))
                tasks = world.tasks(doc_id)
                return [task["messages"][0]["message"] for task in tasks] == [answer]

            eventually(answered)
    finally:
        world.set(default_responses={"start_date": ""})


# ---- out


@pytest.mark.parametrize(
    ("ending", "state", "details"),
    [
        ("99100", "delivered", "Success"),
        ("99102", "delivered", "Success"),
        ("99401", "failed", "RiskHold"),
        ("99403", "failed", "InvalidPhoneNumber"),
        ("99404", "failed", "UnsupportedNumberType"),
        ("99406", "denied", "UserInBlacklist"),
        ("99407", "failed", "CouldNotRoute"),
        ("99601", "sent", "Sent"),
        ("99602", "sent", "Sent"),
        ("99605", "failed", "Rejected (InsufficientCredit)"),
        ("99606", "failed", "Failed (DeliveryFailure)"),
        ("99607", "failed", "Expired"),
        ("99608", "failed", "AbsentSubscriber (AbsentSubscriber)"),
        ("99609", "sent", "Sent"),
        ("99610", "delivered", "Delivered"),
        ("99611", "denied", "Rejected (UserInBlackList)"),
        ("99612", "delivered", "Success"),
        ("99701", "delivered", "Success"),
        ("99702", "delivered", "Success"),
        ("99703", "delivered", "Success"),
        ("99704", "delivered", "Success"),
    ],
)
def test_what_the_service_and_the_network_say(world: World, ending: str, state: str, details: str) -> None:
    text = next(texts)
    doc_id = world.write(number(ending), text)
    reports = {"99601": 1, "99602": 1, "99608": 1, "99609": 1, "99612": 2, "99702": 5, "99703": 2}.get(ending, 0)

    def settled(task: Document) -> bool:
        told = [entry for entry in task["state_history"] if "report" in entry]
        return task["state"] == state and len(told) >= min(reports, 2 if ending != "99702" else 1)

    task = world.until_task(doc_id, settled)
    assert task["state_details"] == details
    assert len(world.simulator.requests(text)) == 1
    if ending == "99702":
        eventually(lambda: world.simulator.counts()["callbacks_waiting"] == 0)
        eventually(lambda: world.couch.callbacks.info()["doc_count"] == 0)
        assert entries(world.tasks(doc_id)[0]).count("delivered") == 1, "five reports are one"
    if ending == "99703":
        assert [entry.get("late") for entry in task["state_history"]][-1] is True, "Success, then Sent: it stays so"
    if ending == "99609":
        assert task["state_history"][-1]["report"] == "Teleported"
    if ending.startswith("994"):
        assert "gateway_ref" not in task


@pytest.mark.parametrize("ending", ["99500", "99501", "99502", "99599", "99803", "99804", "99807"])
def test_passing_trouble_is_tried_again_and_then_given_up(world: World, ending: str) -> None:
    text = next(texts)
    world.set(sms={"max_attempts": 2})
    try:
        task = world.until(world.write(number(ending), text), "failed")
        assert task["state_details"].startswith("gave up after 2 attempts: ")
        assert len(world.simulator.requests(text)) == 2
        first, second = (moment(e) for e in task["state_history"] if e["state"] == "forwarded-to-gateway")
        assert second - first >= timedelta(seconds=0.5), "not at once"
    finally:
        world.set(sms={"max_attempts": 10})
        free(world)


def test_too_many_requests_hold_the_service_until_it_says(world: World) -> None:
    text, after = next(texts), next(texts)
    doc_id = world.write(number("99805"), text)
    task = world.until_task(doc_id, lambda task: "429" in task.get("state_details", ""))
    assert (task["state"], task["attempts"]) == ("pending", 0)
    eventually(lambda: "429" in (world.held() or ""))
    eventually(lambda: cleared(world, doc_id))
    world.until(world.write(number(), after), "delivered")


def cleared(world: World, doc_id: str) -> bool:
    """A person takes a message back."""
    doc = world.doc(doc_id)
    states.move(doc["tasks"][0], State.CLEARED, states.now())
    try:
        world.couch.main.put(doc)
    except ConflictError:
        return False
    return True


def test_do_not_disturb_waits_until_the_morning(world: World) -> None:
    doc_id = world.write(number("99409"), next(texts))
    task = world.until_task(doc_id, lambda task: task.get("retry_at"))
    assert (task["state"], task["state_details"]) == ("pending", "DoNotDisturbRejection")
    morning = datetime.fromisoformat(task["retry_at"])
    assert (morning.hour, morning.minute) == (7, 0)
    assert timedelta(0) < morning - datetime.now(UTC) <= timedelta(days=1)


def test_a_report_before_its_reference_is_stored(world: World) -> None:
    """The report is posted while the service has not answered yet: nobody knows its reference."""
    ref, text = f"ATXid_{uuid.uuid4().hex}", next(texts)
    world.simulator.control(answer_body=None)
    world.simulator.ask("POST", "/reports", {"id": ref, "status": "Success", "phoneNumber": number()})
    eventually(lambda: world.couch.callbacks.info()["doc_count"] == 1)
    doc_id = world.write(number(), text, state="sent", gateway_ref=ref)
    task = world.until(doc_id, "delivered")
    assert task["state_history"][-1]["gateway_ref"] == ref
    eventually(lambda: world.couch.callbacks.info()["doc_count"] == 0)


def test_a_slow_answer_is_overtaken_by_its_report(world: World) -> None:
    world.simulator.control(latency_ms=1500)
    try:
        text = next(texts)
        task = world.until(world.write(number("99704"), text), "delivered")
        assert entries(task) == ["pending", "forwarded-to-gateway", "sent", "delivered"]
        assert len(world.simulator.requests(text)) == 1
    finally:
        world.simulator.control(latency_ms=0)


@pytest.mark.parametrize(
    ("to", "rules", "rule"),
    [
        ("+253711000001", {"outgoing_deny_list": "+253,ORANGE"}, "deny_list"),
        ("22000", {}, "too_short"),
        ("SAFARICOM", {}, "alphas"),
        ("0711 999 999", {"gateway_number": "+254711999999"}, "gateway_number"),
    ],
)
def test_refusals(world: World, to: str, rules: dict[str, Any], rule: str) -> None:
    text = next(texts)
    world.set(**rules)
    try:
        # Settings reach the sentinel by the changes feed, in front of what is written after them.
        task = world.until(world.write(to, text), "denied")
        assert task["state_history"][-1]["rule"] == rule
        assert world.simulator.requests(text) == []
    finally:
        world.set(outgoing_deny_list="", gateway_number="")


# ---- documents of other programs


def stamp(**offset: float) -> str:
    return states.timestamp(datetime.now(UTC) + timedelta(**offset))


def test_a_document_in_chts_shape(world: World) -> None:
    to, text = number(), next(texts)
    message = {"to": to, "message": text, "uuid": str(uuid.uuid4())}
    doc = {
        "_id": uuid.uuid4().hex,
        "type": "data_record",
        "from": "+254711000000",
        "form": "P",
        "fields": {"patient_id": "1"},
        "errors": [],
        "reported_date": int(datetime.now(UTC).timestamp() * 1000),
        "tasks": [{"messages": [message], "state": "pending", "state_history": [{"state": "pending"}], "group": 1}],
    }
    world.couch.main.put(doc)
    task = world.until(doc["_id"], "delivered")
    assert task["group"] == 1
    stored = world.doc(doc["_id"])
    assert {name: stored[name] for name in doc if name not in ("tasks", "_rev")} == {
        name: value for name, value in doc.items() if name != "tasks"
    }


def test_schedules_are_sent_when_they_fall_due(world: World) -> None:
    mother, nurse = number(), number()
    one, two, three, later = (next(texts) for _ in range(4))
    world.couch.main.put({"_id": f"nurse-{nurse}", "type": "person", "phone": nurse})
    world.couch.main.put({"_id": f"clinic-{nurse}", "type": "clinic", "contact": {"_id": f"nurse-{nurse}"}})
    contact = {"_id": f"person-{mother}", "parent": {"_id": f"clinic-{nurse}"}}
    doc = {
        "_id": uuid.uuid4().hex,
        "type": "data_record",
        "from": mother,
        "contact": contact,
        "fields": {"name": "Ann"},
        "reported_date": int(datetime.now(UTC).timestamp() * 1000),
        "scheduled_tasks": [
            {
                "due": stamp(seconds=-5),
                "state": "scheduled",
                "messages": [{"to": mother, "message": one, "uuid": "u1"}],
            },
            {
                "due": stamp(seconds=2),
                "state": "scheduled",
                "messages": [{"to": mother, "message": two}, {"to": nurse, "message": two}],
            },
            {
                "due": stamp(seconds=2),
                "state": "scheduled",
                "recipient": "clinic",
                "message": [{"locale": "en", "content": f"{three} {{{{fields.name}}}}"}],
            },
            {"due": stamp(days=1), "state": "scheduled", "messages": [{"to": mother, "message": later, "uuid": "u4"}]},
            {"due": stamp(seconds=-5), "state": "muted", "messages": [{"to": mother, "message": later, "uuid": "u5"}]},
        ],
    }
    world.couch.main.put(doc)

    def done() -> bool:
        found = [(message_of(task).get("message"), task["state"]) for task in world.tasks(doc["_id"])]
        expected = [(one, "delivered"), (two, "delivered"), (two, "delivered"), (f"{three} Ann", "delivered")]
        assert found == [*expected, (later, "scheduled"), (later, "muted")], found
        return True

    eventually(done, 40)
    assert sorted(entry["to"] for entry in world.simulator.messages(two)) == sorted([mother, nurse])
    assert [entry["to"] for entry in world.simulator.messages(f"{three} Ann")] == [nurse]
    for task in world.tasks(doc["_id"])[:4]:
        assert moment(task["state_history"][0]) >= datetime.fromisoformat(task["due"]), "not before its time"


def test_what_is_not_due_yet_is_not_sent(world: World) -> None:
    text, now = next(texts), states.now()
    doc_id = world.write(number(), text, due=now + timedelta(seconds=3))
    assert world.tasks(doc_id)[0]["state"] == "scheduled"
    task = world.until(doc_id, "delivered")
    assert moment(next(e for e in task["state_history"] if e["state"] == "sent")) >= now + timedelta(seconds=3)


def test_old_messages_are_not_sent(world: World) -> None:
    text = next(texts)
    task = world.until(world.write(number(), text, due=states.now() - timedelta(days=8)), "failed")
    assert task["state_details"].startswith("expired: it was due at ")
    assert world.simulator.requests(text) == []


def test_one_odd_document_stops_nothing(world: World) -> None:
    odd = {"type": "data_record", "tasks": [None, {"state": "pending"}, {"state": "pending", "messages": [{"to": 7}]}]}
    world.couch.main.put({"_id": uuid.uuid4().hex, **odd})
    world.couch.main.put({"_id": uuid.uuid4().hex, **odd, "sms_message": {}, "from": "+254711000001"})
    world.until(world.write(number(), next(texts)), "delivered")


# ---- many


def test_equal_texts_go_together(own_world: World) -> None:
    world, text = own_world, next(texts)
    world.set(sms={"africas_talking": {"batch_size": 40}})
    assert world.api.url
    ids = world.write_many([(number(f"{n:05}"), text) for n in range(100)])
    world.start_sentinel()
    eventually(lambda: set(world.states(ids)) == {"delivered"}, SOON)
    sizes = [len(request["to"]) for request in world.simulator.requests(text)]
    assert sum(sizes) == 100
    assert max(sizes) == 40


def test_the_settings_document_changed_by_hand(world: World) -> None:
    for word in ("apple", "pear"):
        world.set(sms={"replies": [{"keyword": word, "message": f"an answer to {word}"}]})
        task = world.until(world.receive(number(), word), "delivered")
        assert task["messages"][0]["message"] == f"an answer to {word}"
    world.set(sms={"replies": []})


def test_a_wrong_setting_leaves_the_old_ones_in_force(world: World) -> None:
    doc = world.doc("settings")
    good = doc["settings"]["sms"]["duplicate_limit"]
    doc["settings"]["sms"]["duplicate_limit"] = "many"
    world.couch.main.put(doc)
    world.until(world.write(number(), next(texts)), "delivered")
    world.couch.main.put(
        {
            **world.doc("settings"),
            "settings": {**doc["settings"], "sms": {**doc["settings"]["sms"], "duplicate_limit": good}},
        }
    )


def test_no_secret_and_no_text_in_the_logs(world: World) -> None:
    text = "a very private text"
    to = number()
    world.until(world.write(to, text), "delivered")
    wrong = requests.post(
        f"{world.api.url}/api/v1/sms/africastalking/incoming-messages",
        params={"key": "wrong-key-1"},
        data={},
        timeout=30,
    )
    assert wrong.status_code == 403
    logs = "".join(process.log() for process in world._processes)
    for secret in (text, INCOMING_KEY, "the-outgoing-key", "wrong-key-1", to):
        assert secret not in logs
