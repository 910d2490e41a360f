"""The transition `messages`: recipients, texts, and one message with a uuid of its own for each task."""

import copy
from typing import Any

import pytest

from mjumbe import documents
from mjumbe.documents import Document
from sentinel import transitions
from sentinel.transitions import messages
from sentinel.transitions.base import Contact
from tests.unit.sentinel.village import (
    ANN,
    OTHER,
    PLACES,
    SENDER,
    TRANSLATIONS,
    at,
    context,
    record,
    task,
)


def unfinished(**more: Any) -> Document:
    return {"state": "pending", "state_history": [], "due": at(), **more}


def finish(one: Document, values: dict[str, Any] | None = None, **more: Any) -> list[Document]:
    doc = record(scheduled_tasks=[one], **{"from": SENDER, "contact": Contact(ANN).lineage, **more})
    shown = context(values, documents=PLACES, translations=TRANSLATIONS)
    assert messages.filter(doc, shown)
    messages.on_match(doc, shown)
    finished: list[Document] = doc["scheduled_tasks"]
    return finished


@pytest.mark.parametrize(
    ("recipient", "to"),
    [
        (None, SENDER),
        ("reporting_unit", SENDER),
        ("clinic", SENDER),
        ("parent", "+254711000020"),
        ("health_center", "+254711000020"),
        ("grandparent", "+254711000030"),
        ("district", "+254711000030"),
        (OTHER, OTHER),
        ("0711000009", "0711000009"),
        (711000009, "711000009"),
        ("somebody", SENDER),
        (["somebody", " link:nurse ", "district"], "+254711000040"),
        (["somebody", None, {}, 711000009], "711000009"),
        (["reporting_unit", "district"], SENDER),
        (["somebody", "nobody"], SENDER),
        ([], SENDER),
        ({"_id": "cai"}, SENDER),
        ("ancestor:health_center", "+254711000020"),
        ("ancestor:district_hospital", "+254711000030"),
        ("ancestor:nowhere", SENDER),
        ("link:nurse", "+254711000040"),
        ("link:guard", "+254711000050"),
        ("link:health_center", "+254711000020"),
        ("link:nobody", SENDER),
        ("mother_phone", "+254711000070"),
        ("fields.mother.phone", "+254711000080"),
        ("mother.phone", "+254711000080"),
    ],
)
def test_recipients(recipient: object, to: str) -> None:
    fields = {"mother_phone": "+254711000070", "mother": {"phone": "+254711000080"}}
    (finished,) = finish(unfinished(message="Habari", recipient=recipient), fields=fields)
    (message,) = finished["messages"]
    assert (message["to"], message["message"], bool(message["uuid"])) == (to, "Habari", True)


@pytest.mark.parametrize(
    ("recipient", "fields", "to"),
    [
        ("patient.parent.contact.phone", {"patient_id": "12345"}, "+254711000060"),
        ("patient.phone", {"patient_id": "ann"}, SENDER),
        (["patient.phone", "patient.parent.contact.phone"], {"patient_id": "12345"}, "+254711000060"),
        ("place.contact.phone", {"place_id": "other"}, "+254711000060"),
        ("clinic.contact.phone", {"patient_id": "12345"}, "+254711000060"),
        ("clinic.contact.phone", {}, SENDER),
        ("clinic", {}, SENDER),
        ("contact.parent.parent.contact.phone", {}, "+254711000020"),
        ("phone", {"patient_id": "ann"}, SENDER),
        ("patient.phone", {"patient_id": "12345"}, None),
        ("patient.phone", {}, None),
        ("patient", {"patient_id": "ann"}, None),
        ("phone", {}, None),
    ],
)
def test_recipients_are_looked_for_where_texts_are_filled_from(
    recipient: object, fields: dict[str, Any], to: str | None
) -> None:
    one = unfinished(message="Habari", recipient=recipient)
    (finished,) = finish(one, {"sms": {"default_to_sender": False}}, fields=fields)
    assert [message["to"] for message in finished.get("messages", [])] == [to] * (to is not None)


@pytest.mark.parametrize(
    ("recipient", "to"),
    [
        ("health_center", "+254711000020"),
        ("district", "+254711000030"),
        ("clinic", SENDER),
        ("parent", "+254711000030"),
    ],
)
def test_a_sender_who_belongs_to_a_health_center(recipient: str, to: str) -> None:
    """Places are told by their type: in CHT's own hierarchy health workers are in a health_center, not in a clinic."""
    above = {"_id": "centre", "parent": {"_id": "district"}}
    (finished,) = finish(unfinished(message="x", recipient=recipient), contact={"_id": "q", "parent": above})
    assert finished["messages"][0]["to"] == to


@pytest.mark.parametrize(
    ("report", "recipient", "to"),
    [
        ({"fields": {"patient_id": "12345"}}, "clinic", "+254711000060"),
        ({"fields": {"patient_id": 12345}}, "parent", "+254711000020"),
        ({"patient_id": "12345"}, "link:nurse", "+254711000040"),
        ({"fields": {"patient_uuid": "baraka"}}, "clinic", "+254711000060"),
        ({"fields": {"patient_uuid": "baraka"}}, "health_center", "+254711000020"),
        ({"fields": {"place_id": "other"}}, "clinic", "+254711000060"),
        ({"fields": {"patient_id": "unknown"}}, "clinic", SENDER),
        ({"fields": {"patient_id": "12345"}}, "reporting_unit", SENDER),
    ],
)
def test_a_message_about_a_patient_is_for_those_above_the_patient(
    report: dict[str, Any], recipient: str, to: str
) -> None:
    (finished,) = finish(unfinished(message="x", recipient=recipient), **report)
    assert finished["messages"][0]["to"] == to


def test_a_recipient_by_lineage_when_nobody_sent_the_document() -> None:
    (finished,) = finish(unfinished(message="x"), **{"from": None})
    assert finished["messages"][0]["to"] == SENDER, "the contact's own number"


def test_a_recipient_that_nobody_knows() -> None:
    values = {"sms": {"default_to_sender": False}}
    one = unfinished(message="x", recipient="district")
    (finished,) = finish(one, values, contact={"_id": "ann", "parent": {"_id": "lost"}})
    assert "messages" not in finished
    assert (finished["state"], finished["state_details"]) == ("pending", "its recipient is not known")
    assert finished["retry_at"] == at(hours=1)
    before = copy.deepcopy(finished)
    (again,) = finish(finished, values, contact={})
    assert again == before, "not before its time, and said once"


@pytest.mark.parametrize("retry_at", [1, [], {"no": "date"}, "soon"])
def test_what_others_wrote_for_the_next_attempt_s_date_may_be_none(retry_at: object) -> None:
    (finished,) = finish(unfinished(message_key="nowhere", retry_at=retry_at))
    assert (finished["state_details"], finished["retry_at"]) == ("its text is not in the translations", at(hours=1))


def test_failing_schedules_are_cleared_on_demand() -> None:
    (finished,) = finish(unfinished(message_key="nowhere"), {"sms": {"clear_failing_schedules": True}})
    assert (finished["state"], finished["state_details"]) == ("cleared", "cleared: its text is not in the translations")


@pytest.mark.parametrize(
    ("source", "locale", "text"),
    [
        (
            {"message": "Dear {{contact.name}}, {{fields.debt}} < 60 & {{{fields.debt}}}"},
            None,
            "Dear Ann, 50 < 60 & 50",
        ),
        ({"message_key": "balance"}, None, "You owe 50"),
        ({"message_key": "balance"}, "sw", "Deni 50"),
        (
            {"message": [{"locale": "en", "content": "Owe"}, {"locale": "sw", "content": "Deni"}]},
            *("sw", "Deni"),
        ),
        (
            {"message": [{"locale": "en", "content": "Owe"}, {"locale": "sw", "content": "Deni"}]},
            *("fr", "Owe"),
        ),
    ],
)
def test_texts(source: dict[str, Any], locale: str | None, text: str) -> None:
    (finished,) = finish(unfinished(**source), fields={"debt": 50}, locale=locale)
    assert finished["messages"][0]["message"] == text


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{patient_name}} of {{debt}}", "Zawadi of 50"),
        ("{{patient.name}}, {{patient_id}}", "Zawadi, 12345"),
        ("{{name}} of {{clinic.name}}, {{clinic.contact.phone}}", "Zawadi of Fay's area, +254711000060"),
        ("{{health_center.name}} {{parent.name}} {{district.contact.phone}}", "Vipingo Vipingo +254711000030"),
        ("{{contact.name}} of {{contact.parent.name}}, {{contact.parent.parent.name}}", "Ann of Ann's area, Vipingo"),
        ("{{fields.debt}} {{place.name}}.", "50 ."),
        ("by {{#date}}{{due}}{{/date}}, {{#datetime}}{{due}}{{/datetime}}", "by 3 May, 2026, 03.05.26 08:09"),
        ("by {{date}}{{#date}}{{nothing}}{{/date}}.", "by ."),
        ("Call {{#local_phone}} {{clinic.contact.phone}} {{/local_phone}}!", "Call 711000060!"),
        ("{{#local_phone}}+255711000060{{/local_phone}}{{local_phone}}.", "+255711000060."),
        ("by {{#date}}{{words}}{{/date}}.", "by {{debt}}{{/x}}."),
    ],
)
def test_texts_about_a_patient(template: str, text: str) -> None:
    formats = {"date_format": "D MMM, YYYY", "reported_date_format": "DD.MM.YY HH:mm"}
    fields = {"patient_id": "12345", "debt": 50, "due": "2026-05-03T08:09:00", "words": "{{debt}}{{/x}}"}
    (finished,) = finish(unfinished(message=template), formats, fields=fields)
    assert finished["messages"][0]["message"] == text


@pytest.mark.parametrize(
    ("fields", "text"), [({"place_id": "district"}, "Vipingo"), ({"place_id": "other"}, "Vipingo"), ({}, "Vipingo")]
)
def test_where_nobody_is_above_the_reporter_s_places_are_meant(fields: dict[str, Any], text: str) -> None:
    (finished,) = finish(unfinished(message="{{parent.name}}"), fields=fields)
    assert finished["messages"][0]["message"] == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"patient_id": "12345", "patient_name": "Zawdi"}, "Zawadi"),
        ({"patient_id": "bea", "patient_name": "Bea"}, "Bea"),
        ({"patient_id": "unknown", "patient_name": "Zawdi"}, "Zawdi"),
    ],
)
def test_a_patient_is_called_as_the_patient_s_document_does(fields: dict[str, Any], text: str) -> None:
    (finished,) = finish(unfinished(message="{{patient_name}}"), fields=fields)
    assert finished["messages"][0]["message"] == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"place_id": "other"}, "+254711000060"),
        ({"place_id": "other", "patient_id": "12345"}, "+254711000060"),
        ({"patient_id": "12345"}, SENDER),
        ({"place_id": "nowhere"}, SENDER),
        ({"place_id": "district"}, "+254711000030"),
        ({}, SENDER),
    ],
)
def test_the_contact_in_a_text_about_a_place_is_that_place_s(fields: dict[str, Any], text: str) -> None:
    (finished,) = finish(unfinished(message="{{contact.phone}}"), fields=fields)
    assert finished["messages"][0]["message"] == text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"patient_id": "unknown"}, ",Ann's area"),
        ({"patient_name": "Baraka"}, "Baraka,Ann's area"),
        ({"place_id": "other"}, ",Fay's area"),
        ({"place_id": "district"}, ",Ann's area"),
        ({"name": "Neema", "clinic": "no place"}, "Neema,Ann's area"),
        (None, ",Ann's area"),
    ],
)
def test_texts_about_nobody_known(fields: dict[str, Any] | None, text: str) -> None:
    template = "{{patient_name}}{{#fields.name}}{{name}}{{/fields.name}},{{clinic.name}}"
    (finished,) = finish(unfinished(message=template), fields=fields)
    assert finished["messages"][0]["message"] == text


@pytest.mark.parametrize(
    "source",
    [
        {},
        {"message": ""},
        {"message": "{{nothing}}"},
        {"message": []},
        {"message": [None, 3]},
        {"message": 3},
        {"message_key": "nowhere"},
        {"message_key": ["balance"]},
        {"message_key": {"sw": "balance"}},
        {"message": [{"locale": ["en"], "content": 5}, {"locale": {}}]},
        {"message": "{{/never}}closed"},
    ],
)
def test_texts_that_cannot_be_made(source: dict[str, Any]) -> None:
    (finished,) = finish(unfinished(**source))
    assert "messages" not in finished
    assert (finished["state"], finished["retry_at"]) == ("pending", at(hours=1))


def test_several_messages_become_several_tasks() -> None:
    one = unfinished(
        group=3,
        messages=[
            {"to": SENDER, "message": "one", "uuid": "u1"},
            {"to": OTHER, "message": "two"},
            "odd",
            {"to": OTHER, "message": "three", "uuid": None},
        ],
    )
    finished = finish(one)
    assert [task["messages"][0]["message"] for task in finished] == ["one", "two", "three"]
    assert [len(task["messages"]) for task in finished] == [1, 1, 1]
    assert [task["group"] for task in finished] == [3, 3, 3]
    uuids = [task["messages"][0]["uuid"] for task in finished]
    assert uuids[0] == "u1"
    assert len(set(uuids)) == 3
    assert all(isinstance(uuid, str) and uuid for uuid in uuids)
    finished[0]["state_history"].append("x")
    assert finished[1]["state_history"] == [], "each has a history of its own"


@pytest.mark.parametrize("place", range(3))
def test_a_message_that_can_never_be_sent_keeps_no_other_of_its_task_from_going(place: int) -> None:
    given = [{"to": OTHER, "message": f"text {number}"} for number in range(3)]
    given[place] = {"to": "", "message": "to nobody"}
    finished = finish(unfinished(messages=given))
    states = [task["state"] for task in finished]
    assert states == ["failed" if number == place else "pending" for number in range(3)]
    assert [len(task["state_history"]) for task in finished] == [int(state == "failed") for state in states]


@pytest.mark.parametrize("listed", ["tasks", "scheduled_tasks"])
def test_no_two_messages_of_a_document_share_a_uuid(listed: str) -> None:
    sent, first, again = task("sent"), task(to=SENDER), task(to=OTHER)
    doc = record(sent, **{listed: [sent, first]}) if listed == "tasks" else record(sent, scheduled_tasks=[first])
    doc[listed].append(again)
    assert transitions.run(doc, context())
    uuids = [documents.message_of(each)["uuid"] for each in documents.tasks_of(doc)]
    assert (uuids[0], len(set(uuids))) == ("u1", 3)
    assert not transitions.run(doc, context())


@pytest.mark.parametrize("state", ["forwarded-to-gateway", "sent"])
def test_a_copy_before_what_went_gets_a_uuid_of_its_own(state: str) -> None:
    """The other's report made it delivered before it was sent, and so it never was."""
    doc = record(task(), task(state))
    assert transitions.run(doc, context())
    copied, went = (documents.message_of(each)["uuid"] for each in documents.tasks_of(doc))
    assert went == "u1" != copied
    assert not transitions.run(doc, context())


def test_a_number_for_a_uuid_becomes_a_text() -> None:
    one = task()
    one["messages"][0]["uuid"] = 7
    doc = record(one)
    assert transitions.run(doc, context())
    assert doc["tasks"][0]["messages"][0]["uuid"] == "7"


@pytest.mark.parametrize("uuid", [None, ""])
def test_a_message_gets_the_uuid_that_it_lacks(uuid: str | None) -> None:
    one = task()
    one["messages"][0]["uuid"] = uuid
    (finished,) = finish(one)
    assert finished["messages"][0]["uuid"]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ([{"to": OTHER, "message": "", "uuid": "u1"}], "its message has no text"),
        ([{"to": OTHER, "message": 17}], "its message has no text"),
        ([{"to": "", "message": "x", "uuid": "u1"}], "its message has no recipient"),
        (["odd"], "its messages are no objects with `to` and `message`"),
        ("odd", "its messages are no objects with `to` and `message`"),
    ],
)
def test_what_can_never_be_sent_fails_with_the_reason(given: object, says: str) -> None:
    (finished,) = finish(unfinished(messages=given))
    assert (finished["state"], finished["state_details"]) == ("failed", says)


@pytest.mark.parametrize("state", ["scheduled", "sent", "failed", "muted", "cleared", None])
def test_only_what_is_pending_is_finished(state: str | None) -> None:
    doc = record({"state": state, "message_key": "balance"}, None, "odd")
    assert not messages.filter(doc, context())


@pytest.mark.parametrize(
    ("tasks", "needs"),
    [
        ([], False),
        ([task()], False),
        ([unfinished(recipient="clinic")], True),
        ([unfinished(message_key="balance")], True),
        ([{"state": "scheduled", "message_key": "balance"}], True),
        ([{"state": "sent", "message_key": "balance"}], False),
    ],
)
def test_who_needs_the_lineage_and_the_translations(tasks: list[Document], needs: bool) -> None:
    assert messages.needs_lineage(record(*tasks)) is needs


def test_without_a_clinic_the_contact_of_the_text_is_meant() -> None:
    one = unfinished(message="Habari", recipient="clinic")
    off = {"sms": {"default_to_sender": False}}
    (finished,) = finish(one, off, fields={"place_id": "centre"}, contact=None)
    assert finished["messages"][0]["to"] == "+254711000020"
