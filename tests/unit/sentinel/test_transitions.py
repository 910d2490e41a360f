"""The transitions one by one but for `messages`, and what they do together."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from mjumbe import documents, states
from mjumbe.documents import Document, milliseconds
from sentinel import transitions
from sentinel.registers import OPTED_OUT, Entry, Registers
from sentinel.transitions import dated, default_responses, due, expire, link_sender, refuse, replies
from sentinel.transitions.base import Contact
from tests.unit.sentinel.memory import MemoryDatabase
from tests.unit.sentinel.village import (
    ANN,
    NOW,
    OTHER,
    SENDER,
    TRANSLATIONS,
    at,
    context,
    incoming,
    record,
    task,
    texts,
)

# ---- what is new to mjumbe

ALL_FOR_INCOMING = [link_sender, replies, default_responses]
ANSWERING = {"sms": {"replies": [{"keyword": "x", "message": "x"}]}, "default_responses": {"start_date": "2020-01-01"}}


@pytest.mark.parametrize("transition", ALL_FOR_INCOMING)
@pytest.mark.parametrize(
    ("change", "concerned"),
    [
        ({}, True),
        ({"type": "person"}, False),
        ({"sms_message": None}, False),
        ({"from": ""}, False),
        ({"transitions": {"update_clinics": {"ok": True}}}, True),
        ({"transitions": {name: {"ok": True} for name in ("link_sender", "replies", "default_responses")}}, False),
        ({"transitions": 5}, True),
        ({"transitions": "replies"}, True),
    ],
)
def test_what_concerns_incoming_messages(transition: Any, change: dict[str, Any], concerned: bool) -> None:
    assert transition.filter(incoming(**change), context(ANSWERING)) is concerned


@pytest.mark.parametrize("transition", ALL_FOR_INCOMING)
@pytest.mark.parametrize(
    ("receipt", "reported", "concerned"),
    [
        (None, milliseconds(NOW) - 1, False),
        (None, milliseconds(NOW), True),
        (None, at(), True),
        (None, at(seconds=-1), False),
        (None, None, False),
        ("r", milliseconds(NOW) - 1, True),
    ],
)
def test_an_adopted_database_is_not_answered_again(
    transition: Any, receipt: str | None, reported: object, concerned: bool
) -> None:
    doc = incoming(receipt=receipt, reported_date=reported)
    assert transition.filter(doc, context(ANSWERING, adopted=milliseconds(NOW))) is concerned


# ---- link_sender


def test_the_sender_is_linked() -> None:
    doc = incoming()
    assert link_sender.on_match(doc, context(contacts={SENDER: Contact(ANN)}))
    assert doc["contact"] == {"_id": "ann", "parent": ANN["parent"]}
    assert doc["transitions"] == {"link_sender": {"ok": True}}


@pytest.mark.parametrize(
    ("contacts", "before", "after"),
    [
        ({}, None, None),
        ({SENDER: Contact({"_id": "zoe"})}, None, {"_id": "zoe"}),
        ({SENDER: Contact(ANN)}, {"_id": "bea"}, {"_id": "bea"}),
    ],
)
def test_linking(contacts: dict[str, Contact], before: Document | None, after: Document | None) -> None:
    doc = incoming(**({"contact": before} if before else {}))
    assert link_sender.on_match(doc, context(contacts=contacts))
    assert doc.get("contact") == after
    assert not link_sender.filter(doc, context())


# ---- replies

REPLIES = {
    "locale": "en",
    "sms": {
        "replies": [
            {"keyword": "HELP", "message": "Hello {{contact.name}}, you wrote {{sms_message.message}} & more"},
            {"keyword": "balance", "translation_key": "balance"},
            {"keyword": "HELP", "message": "never"},
            {"keyword": "empty", "message": "{{contact.nothing}}"},
        ]
    },
}


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("HELP", "Hello Ann, you wrote HELP & more"),
        ("help me", "Hello Ann, you wrote help me & more"),
        ("  Help, please", "Hello Ann, you wrote   Help, please & more"),
        ("HELPME", None),
        ("please HELP", None),
        ("", None),
        ("😀", None),
        ("Balance?", "You owe 50"),
        ("empty", None),
    ],
)
def test_keywords(text: str, answer: str | None) -> None:
    doc = incoming(text, fields={"debt": 50})
    shown = context(REPLIES, contacts={SENDER: Contact(ANN)}, translations=TRANSLATIONS)
    assert replies.on_match(doc, shown)
    assert texts(doc) == ([(SENDER, answer)] if answer else [])
    assert not replies.filter(doc, shown), "answered once"
    for made in doc["tasks"]:
        assert made["state"] == "pending"
        assert made["state_history"] == [{"state": "pending", "timestamp": states.timestamp(NOW)}]


@pytest.mark.parametrize(
    ("message", "document", "person", "outgoing", "answer"),
    [
        ("sw", None, None, None, "Deni 50"),
        (None, "sw", None, None, "Deni 50"),
        (None, None, "sw", None, "Deni 50"),
        (None, None, "sw-KE", None, "Deni 50"),
        (None, None, None, "sw", "Deni 50"),
        (None, None, None, None, "You owe 50"),
        ("fr", "sw", "fr", "fr", "Deni 50"),
        ("sw", "", "fr", "fr", "Deni 50"),
        ("fr", None, "sw", "sw", "You owe 50"),
        (5, ["fr"], "sw", None, "Deni 50"),
        (None, None, ["sw"], None, "You owe 50"),
    ],
)
def test_the_language_of_an_answer(message: Any, document: Any, person: Any, outgoing: Any, answer: str) -> None:
    doc = incoming("balance", fields={"debt": 50}, locale=document)
    doc["sms_message"]["locale"] = message
    values = {**REPLIES, "locale_outgoing": outgoing}
    person_doc = {**ANN, "language": person}
    replies.on_match(doc, context(values, contacts={SENDER: Contact(person_doc)}, translations=TRANSLATIONS))
    assert texts(doc) == [(SENDER, answer)]


@pytest.mark.parametrize(
    ("reported", "due"), [(NOW - timedelta(days=8), None), (NOW, None), (NOW + timedelta(minutes=1), NOW)]
)
def test_an_answer_waits_for_no_other_clock(reported: datetime, due: datetime | None) -> None:
    """To one that came long ago it is as old as that, and expires."""
    doc = incoming("help", reported)
    shown = context({"sms": {"replies": [{"keyword": "HELP", "message": "we are here"}]}})
    assert replies.on_match(doc, shown)
    (made,) = doc["tasks"]
    assert (made["state"], made.get("due")) == ("pending", states.timestamp(due) if due else None)
    assert documents.due_of(made, doc) == milliseconds(min(reported, NOW))


def test_a_translation_that_is_no_template_answers_nothing_and_stops_nothing() -> None:
    doc = incoming("balance")
    assert replies.on_match(doc, context(REPLIES, translations={"en": {"balance": "{{/a}}closed"}}))
    assert doc["tasks"] == []


# ---- default_responses


@pytest.mark.parametrize(
    ("start", "reported", "more", "concerned"),
    [
        (None, NOW, {}, False),
        ("2026-01-09", NOW, {}, True),
        ("2026-01-10", NOW, {}, True),
        ("2026-01-11", NOW, {}, False),
        ("2026-01-09", datetime(2026, 1, 8, 23, 59, 59, tzinfo=UTC), {}, False),
        ("2026-01-09", datetime(2026, 1, 9, tzinfo=UTC), {}, True),
        ("2026-01-09", NOW, {"form": "P"}, False),
    ],
)
def test_from_when_on_messages_are_answered(
    start: str | None, reported: datetime, more: dict[str, Any], concerned: bool
) -> None:
    shown = context({"default_responses": {"start_date": start}})
    assert default_responses.filter(incoming(reported=reported, **more), shown) is concerned


@pytest.mark.parametrize(
    ("listed", "concerned"),
    [
        ({}, True),
        ({"registration": False}, True),
        ({"default_responses": True}, True),
        ({"default_responses": {"disable": False}}, True),
        ({"default_responses": False}, False),
        ({"default_responses": None}, False),
        ({"default_responses": {"disable": True}}, False),
    ],
)
def test_chts_switch(listed: dict[str, Any], concerned: bool) -> None:
    """In CHT a date alone answers nobody: who left the date and switched the transition off pays nothing."""
    assert default_responses.filter(incoming(), context({**ANSWERING, "transitions": listed})) is concerned


@pytest.mark.parametrize(
    ("text", "values", "answer"),
    [
        ("Habari", {}, "Thank you, your message has arrived."),
        ("Habari", {"locale": "sw"}, "Asante, ujumbe wako umefika."),
        ("Habari", {"locale": "fr"}, "Thank you, your message has arrived."),
        (" \n", {}, "Your message arrived without any text. Please write it again and send it."),
        (
            *("Habari", {"forms_only_mode": True}),
            "We did not recognise this report. Please check its first word and send it again.",
        ),
        ("p 12 Baraka", {"forms_only_mode": True, "forms": {"P": {}}}, "Thank you, your message has arrived."),
    ],
)
def test_default_responses(text: str, values: dict[str, Any], answer: str) -> None:
    doc = incoming(text)
    shown = context({**ANSWERING, **values})
    assert default_responses.on_match(doc, shown)
    assert texts(doc) == [(SENDER, answer)]
    assert not default_responses.filter(doc, shown)


def test_what_has_an_answer_gets_no_other() -> None:
    doc = incoming(tasks=[task()])
    default_responses.on_match(doc, context(ANSWERING))
    assert len(doc["tasks"]) == 1


# ---- due


@pytest.mark.parametrize(
    ("state", "moment", "pending"),
    [
        ("scheduled", at(), True),
        ("scheduled", at(seconds=-1), True),
        ("scheduled", at(seconds=1), False),
        ("scheduled", milliseconds(NOW), True),
        ("muted", at(), False),
        ("cleared", at(), False),
    ],
)
def test_due(state: str, moment: object, pending: bool) -> None:
    scheduled = task(state, due=moment)
    doc = record(scheduled_tasks=[scheduled])
    if due.filter(doc, context()):
        assert due.on_match(doc, context())
    assert scheduled["state"] == ("pending" if pending else state)
    assert len(scheduled["state_history"]) == pending


# ---- dated


@pytest.mark.parametrize(
    ("one", "more", "concerned"),
    [
        (task(), {}, True),
        (task("scheduled"), {}, True),
        (task(due="soon"), {"reported_date": "yesterday"}, True),
        (task(due=0), {}, False),
        (task(), {"reported_date": []}, True),
        (task(timestamp=at()), {}, False),
        (task(), {"reported_date": milliseconds(NOW)}, False),
        (task("sent"), {}, False),
    ],
)
def test_what_has_no_date_is_due_now_and_not_expired(one: Document, more: dict[str, Any], concerned: bool) -> None:
    doc = {**record(one), "reported_date": None, **more}
    assert dated.filter(doc, context()) is concerned
    if concerned:
        assert transitions.run(doc, context())
        assert (one["state"], one.get("due") or one["timestamp"]) == ("pending", at())
        assert not transitions.run(doc, context()), "nothing is left to do"


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("20261227T100000Z", "2026-12-27T10:00:00.000Z"),
        ("2026-W53-7", "2027-01-03T00:00:00.000Z"),
        ("2026-12-27 10:00", "2026-12-27T10:00:00.000Z"),
        ("2026-12-27T10:00:00+0300", "2026-12-27T07:00:00.000Z"),
        ("2026-12-27T13:00:00+03:00", None),
        ("2026-12-27T10:00", None),
        ("2026-12-27", None),
        (1798362000000, None),
        ([], at()),
        ({}, at()),
    ],
)
@pytest.mark.parametrize("name", ["due", "timestamp"])
def test_a_date_that_the_views_may_read_otherwise_is_written_anew(name: str, written: Any, read: str | None) -> None:
    one = task("scheduled", **{name: written})
    doc = record(one)
    assert dated.filter(doc, context()) is (read is not None)
    if read:
        dated.on_match(doc, context())
        assert one[name] == read
        assert not dated.filter(doc, context())


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("29/12/2026", ["29/12/2026"]),
        ("x" * 1000, [f"{'x' * 49}…"]),
        ([], ["[]"]),
        ("20261227T100000Z", []),
        ("", []),
        (None, []),
    ],
)
def test_a_due_that_cannot_be_read_is_said_once(written: Any, said: list[str]) -> None:
    doc = record(task("scheduled", due=written))
    with capture_logs() as logs:
        for _ in range(2):
            transitions.run(doc, context())
    assert [line["due"] for line in logs] == said


# ---- expire


@pytest.mark.parametrize(
    ("one", "expired"),
    [
        (task(due=at(days=-7)), False),
        (task(due=at(days=-7, seconds=-1)), True),
        (task("scheduled", due=at(days=-8)), False),
        (task("forwarded-to-gateway", due=at(days=-8)), False),
        (task("sent", due=at(days=-8)), False),
        (task(timestamp=at(days=-8)), True),
        (task(retry_at=at(hours=1), due=at(days=-8)), True),
    ],
)
def test_expiry(one: Document, expired: bool) -> None:
    doc = record(one)
    assert expire.filter(doc, context()) is expired
    if expired:
        assert expire.on_match(doc, context())
        assert one["state"] == "failed"
        assert one["state_details"].startswith("expired: it was due at 2026-01-0")


def test_expiry_is_a_setting() -> None:
    assert expire.filter(record(task(due=at(minutes=-2))), context({"sms": {"expire_after": "1m"}}))


# ---- refuse


@pytest.mark.parametrize(
    ("to", "values", "rule"),
    [
        (OTHER, {}, None),
        ("+254711000002", {"outgoing_deny_list": "253, +25471"}, "deny_list"),
        ("ORANGE NET", {"outgoing_deny_list": "orange", "outgoing_deny_with_alphas": False}, "deny_list"),
        ("22000", {}, "too_short"),
        ("22000", {"outgoing_deny_shorter_than": 5}, None),
        ("SAFARICOM", {}, "alphas"),
        ("SAFARICOM", {"outgoing_deny_with_alphas": False}, None),
        ("0711000002", {"gateway_number": OTHER}, "gateway_number"),
    ],
)
def test_refusals(to: str, values: dict[str, Any], rule: str | None) -> None:
    one = task(to=to)
    doc = record(one)
    assert refuse.filter(doc, context(values))
    assert refuse.on_match(doc, context(values)) is (rule is not None)
    assert one["state"] == ("denied" if rule else "pending")
    if rule:
        assert one["state_history"][-1]["rule"] == rule
        assert to not in one["state_details"]


@pytest.mark.parametrize("state", ["scheduled", "sent", "failed", "delivered"])
def test_only_what_is_pending_is_refused(state: str) -> None:
    assert not refuse.filter(record(task(state, to="1")), context())


# ---- together


def test_an_incoming_message_from_end_to_end() -> None:
    doc = incoming("HELP")
    shown = context({**REPLIES, **ANSWERING, "sms": REPLIES["sms"]}, contacts={SENDER: Contact(ANN)})
    assert transitions.run(doc, shown)
    assert doc["contact"]["_id"] == "ann"
    assert texts(doc) == [(SENDER, "Hello Ann, you wrote HELP & more")]
    assert doc["transitions"].keys() == {"link_sender", "replies", "default_responses"}
    assert not transitions.run(doc, shown), "nothing is left to do"


def test_a_schedule_that_falls_due_is_made_expired_and_refused_in_that_order() -> None:
    late = {"state": "scheduled", "due": at(days=-8), "message": "late", "recipient": OTHER}
    denied = {"state": "scheduled", "due": at(), "message": "denied", "recipient": "+254711999999"}
    good = {"state": "scheduled", "due": at(), "message": "good", "recipient": OTHER}
    doc = record(scheduled_tasks=[late, denied, good, {"state": "scheduled", "due": at(days=1), "message": "later"}])
    assert transitions.run(doc, context({"outgoing_deny_list": "+254711999"}))
    assert [task["state"] for task in doc["scheduled_tasks"]] == ["failed", "denied", "pending", "scheduled"]


@pytest.mark.parametrize(
    "odd",
    [
        {"tasks": None},
        {"tasks": "x", "scheduled_tasks": {}},
        {"tasks": [None, 3, "x", {}]},
        {"sms_message": {"message": None}},
        {"sms_message": {"message": 17}},
        {"transitions": None},
        {"contact": "ann"},
        {"reported_date": "yesterday"},
        {"fields": None},
    ],
)
def test_odd_documents(odd: dict[str, Any]) -> None:
    doc = {**incoming(), **odd}
    transitions.run(doc, context({**ANSWERING, **REPLIES}, translations=TRANSLATIONS))


@pytest.mark.parametrize("replace", ["+254", "0", ""])
@pytest.mark.parametrize(
    ("to", "state"), [(OTHER, "denied"), ("0711000002", "denied"), (SENDER, "pending"), ("+254711000003", "pending")]
)
def test_people_who_opted_out_get_nothing(to: str, state: str, replace: str) -> None:
    registers = Registers.of(MemoryDatabase())
    registers.opt_outs.record(Entry(OTHER, OPTED_OUT, 1, "test"))
    doc = record(task(to=to))
    values = {"outgoing_phone_replace": {"match": "+254", "replace": replace}}
    transitions.run(doc, context(values, registers=registers))
    assert doc["tasks"][0]["state"] == state


def test_a_viber_id_is_the_person_s_number() -> None:
    registers = Registers.of(MemoryDatabase())
    registers.viber_users.record(Entry(SENDER, "user==", 1, "test"))
    doc = incoming("Habari")
    doc["sms_message"]["gateway"] = "viber"
    doc["from"] = "user=="
    transitions.run(doc, context(registers=registers, contacts={SENDER: Contact(ANN)}))
    assert (doc["from"], doc["contact"]["_id"]) == (SENDER, "ann")
