"""What is known of people: who has Viber, who opted out, who subscribed; and that every service obeys it."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest

from mjumbe.documents import Document
from tests.integration.gateways.town import AT, PHONE, RAPIDPRO, TEXTBEE, VIBER, Town
from tests.integration.processes import eventually
from tests.integration.sentinel.world import SOON, number

texts = (f"text {n}" for n in itertools.count(1))


def until(town: Town, doc_id: str, is_so: Callable[[Document], Any]) -> Document:
    """Wait until there is such a document of which this is so, and return it."""
    found: list[Document] = []

    def reached() -> bool:
        doc = town.couch.main.get(doc_id)
        assert doc is not None, f"there is no document {doc_id}"
        found[:] = [doc]
        return bool(is_so(doc))

    eventually(reached, SOON)
    return found[0]


def viber_id(town: Town, person: str) -> str:
    doc = town.couch.main.get(f"viber-user:{person}")
    assert doc is not None
    return str(doc["value"])


# ---- Viber


@pytest.fixture
def viber_first(town: Town) -> Any:
    town.set(sms={"outgoing_service": VIBER, "fallback_services": [TEXTBEE]})
    yield
    town.set(sms={"outgoing_service": AT, "fallback_services": []})


def service_of(town: Town, to: str) -> str:
    """Write to somebody, and see by which service it went."""
    doc_id = town.write(to, next(texts))
    return str(town.until(doc_id, "delivered")["service"])


@pytest.mark.parametrize("text", ["register+{local}", "Register: {to}", "REGISTER {to}"])
def test_whoever_registers_is_written_to_by_viber_until_they_leave(town: Town, viber_first: None, text: str) -> None:
    to = number()
    assert service_of(town, to) == TEXTBEE, "the next service, at once"
    town.hear(VIBER, to, text.format(to=to, local="0" + to.removeprefix("+254")))
    until(town, f"viber-user:{to}", lambda doc: doc["value"])
    assert service_of(town, to) == VIBER
    left = {"event": "unsubscribed", "timestamp": 1516678387902, "user_id": viber_id(town, to), "message_token": 2**62}
    left["message_token"] += int(to[-8:-5])
    town.twins.ask("POST", "/events/viber", {"event": left, "repeat": 2})
    doc = until(town, f"viber-user:{to}", lambda doc: not doc["value"])
    assert [bool(entry["value"]) for entry in doc["history"]] == [True, False]
    assert service_of(town, to) == TEXTBEE


@pytest.mark.parametrize(
    "words", ["Amina\nKisumu", "ሰላም " * 1_000, "../medic", "%00"], ids=["lines", "long", "path", "escape"]
)
def test_whatever_is_written_behind_the_register_word_holds_nobody_up(town: Town, words: str) -> None:
    town.hear(VIBER, number(), f"register {words}")
    to = number()
    town.hear(VIBER, to, f"register {to}")
    until(town, f"viber-user:{to}", lambda doc: doc["value"])


@pytest.mark.parametrize("ending", ["99905", "99906"])
def test_whom_viber_does_not_know_any_more_is_written_to_by_the_next_service(
    town: Town, viber_first: None, ending: str
) -> None:
    to = number(ending)
    town.hear(VIBER, to, f"register+{to}")
    until(town, f"viber-user:{to}", lambda doc: doc["value"])
    doc_id = town.write(to, next(texts))
    assert town.until(doc_id, "denied")["service"] == VIBER
    until(town, f"viber-user:{to}", lambda doc: not doc["value"])
    assert service_of(town, to) == TEXTBEE


def test_a_shared_contact_and_a_customers_id_register_too(town: Town, viber_first: None) -> None:
    shared, customer = number(), number()
    town.couch.main.put({"_id": f"customer-{customer}", "type": "person", "phone": customer})
    contact = {
        "event": "message",
        "message_token": 2**61 + int(shared[-8:-5]),
        "sender": {"id": "KzI1NDcxMTAwMDAwMQ==", "name": "A person"},
        "message": {"type": "contact", "contact": {"name": "A person", "phone_number": shared.removeprefix("+")}},
    }
    town.twins.ask("POST", "/events/viber", {"event": contact})
    town.hear(VIBER, customer, f"register+customer-{customer}")
    for person in (shared, customer):
        until(town, f"viber-user:{person}", lambda doc: doc["value"])


def test_a_message_by_viber_is_from_the_persons_number(town: Town) -> None:
    person, text = number(), next(texts)
    town.register(person)
    town.hear(VIBER, person, text)
    eventually(lambda: [doc["from"] for doc in town.incoming(text)] == [person], SOON)


def test_whom_no_service_reaches_waits_and_is_told_why(town: Town) -> None:
    doc_id = town.write(number(), next(texts), via=VIBER)
    task = town.until_task(doc_id, lambda task: task.get("state_details"))
    assert (task["state"], task["state_details"]) == ("pending", "no service reaches this number: viber cannot")
    town.clear(doc_id)


# ---- opting out


def by_callback(town: Town, person: str) -> None:
    town.simulator.ask("POST", "/opt-out", {"phoneNumber": person, "senderId": "22000", "repeat": 3})


def by_answer(town: Town, person: str) -> None:
    town.until(town.write(person, next(texts), via=AT), "denied")


def by_report(town: Town, person: str) -> None:
    town.until(town.write(person, next(texts), via=AT), "denied")


def by_word(town: Town, person: str) -> None:
    town.hear(AT, person, " stop! please")


def by_word_to_textbee(town: Town, person: str) -> None:
    town.hear(TEXTBEE, person, "STOP")


def by_word_to_viber(town: Town, person: str) -> None:
    """Viber says who wrote by an id of its own."""
    town.register(person)
    town.hear(VIBER, person, "Stop")


WAYS = [
    (by_callback, "00001", "africas-talking: opt-out from 22000"),
    (by_answer, "99406", "africas-talking"),
    (by_report, "99611", "a delivery report"),
    (by_word, "00001", "the person wrote STOP"),
    (by_word_to_textbee, "00001", "the person wrote STOP"),
    (by_word_to_viber, "00001", "the person wrote STOP"),
]


@pytest.mark.parametrize(("way", "ending", "source"), WAYS)
def test_opting_out_is_one_record_that_every_service_obeys(
    town: Town, way: Callable[[Town, str], None], ending: str, source: str
) -> None:
    person = number(ending)
    way(town, person)
    doc = until(town, f"opt-out:{person}", lambda doc: doc["value"])
    assert (doc["type"], doc["phone"], doc["value"]) == ("opt_out", person, "opted-out")
    assert {entry["source"] for entry in doc["history"]} == {source}
    for service in (AT, TEXTBEE, VIBER, RAPIDPRO, PHONE):
        text = next(texts)
        local = "0" + person.removeprefix("+254")
        task = town.until(town.write(local, text, via=service), "denied")
        assert task["state_details"] == "The person opted out of messages."
        assert town.accepted(text) == []
    town.hear(TEXTBEE, person, "Start")
    until(town, f"opt-out:{person}", lambda doc: not doc["value"])
    text = next(texts)
    town.until(town.write(person, text, via=TEXTBEE), "delivered")
    assert town.accepted(text) == [person]


def test_opting_out_stops_what_waits_already(town: Town) -> None:
    person, text = number(), next(texts)
    town.twins.control(unauthorized=True)
    town.set(sms={"outgoing_service": RAPIDPRO})
    try:
        doc_id = town.write(person, text)
        town.until_held(RAPIDPRO, "HTTP 403")
        by_word(town, person)
        until(town, f"opt-out:{person}", lambda doc: doc["value"])
    finally:
        town.twins.control(unauthorized=False)
        town.free(RAPIDPRO)
    town.until(doc_id, "denied")
    town.set(sms={"outgoing_service": AT})
    assert town.accepted(text) == []


# ---- subscriptions


def test_subscriptions_are_kept_as_documents(town: Town) -> None:
    person = number()
    facts = {"phoneNumber": person, "shortCode": "22000", "keyword": "HABARI"}
    doc_id = f"subscription:22000:HABARI:{person}"
    for update, value in (("addition", "active"), ("Deletion", None), ("addition", "active")):
        town.simulator.ask("POST", "/subscription", {**facts, "updateType": update, "repeat": 2})
        expected = value
        until(town, doc_id, lambda doc, expected=expected: doc["value"] == expected)  # type: ignore[misc]
    doc = until(town, doc_id, lambda doc: True)
    assert (doc["type"], doc["phone"]) == ("subscription", person)
    values = [entry["value"] for entry in doc["history"]]
    assert [value for value, _ in itertools.groupby(values)] == ["active", None, "active"]
    eventually(lambda: not town.couch.callbacks.beginning_with("subscription:"), SOON)
