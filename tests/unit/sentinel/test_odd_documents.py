"""What other programs and people write into the main database never ends the thread that reads it."""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from mjumbe import documents, settings, states
from mjumbe.couch import Change, Changes
from mjumbe.documents import Document
from mjumbe.live_settings import LiveSettings
from sentinel import opt_words, pipeline
from sentinel.echoes import Echoes
from sentinel.feed import Feed
from sentinel.notices import Notices
from sentinel.pipeline import Pipeline
from sentinel.registers import Entry, Registers
from tests.unit.sentinel.memory import MemoryCouch

PHONE = "+254711000001"
OPT_OUT = f"opt-out:{PHONE}"
NOW = documents.milliseconds(states.now())


class House:
    """Registers, pipeline and feed on a database in memory."""

    def __init__(self, values: Mapping[str, Any] | None = None) -> None:
        self.couch = MemoryCouch()
        self.couch.main.views = {"by_phone": lambda doc: []}
        self.registers = Registers.of(self.couch.main)
        live = cast(LiveSettings, SimpleNamespace(current=settings.parse(values or {}), refresh=lambda: None))
        couch, echoes = self.couch.as_couch(), Echoes(self.couch.main)
        self.pipeline = Pipeline(couch, echoes, live, 0, lambda messages: None, self.registers)
        self.feed = Feed(couch, echoes, live, self.pipeline, self.registers, {"seq": "0"})

    def changed(self, *docs: Document) -> None:
        self.couch.main.store(*docs)
        found = [cast(Document, self.couch.main.get(doc["_id"])) for doc in docs]
        changes = [Change(doc["_id"], doc["_rev"], bool(doc.get("_deleted")), doc) for doc in found]
        self.feed._hear(Changes(changes, "1", 0))
        self.feed._process()


def start(**odd: Any) -> Document:
    """A message that takes an opt-out back."""
    message = documents.IncomingMessage("africas-talking", "m1", PHONE, "START")
    return {**documents.incoming_document(message, PHONE, NOW), **odd}


def of_place(contact: Any) -> tuple[Document, ...]:
    """A scheduled message to whoever stands for a place, and the place."""
    task = {"state": "pending", "message": "Habari", "recipient": "clinic"}
    return {"_id": "d", "tasks": [task], "contact": {"_id": "c", "parent": {"_id": "p"}}}, {
        "_id": "p",
        "contact": contact,
    }


def test_a_document_that_cannot_be_dealt_with_is_said_once(monkeypatch: pytest.MonkeyPatch) -> None:
    house = House()

    def broken(doc: Document, context: object) -> bool:
        raise ValueError(doc["_id"])

    monkeypatch.setattr(pipeline.transitions, "run", broken)
    with capture_logs() as logs:
        for _ in range(3):
            house.pipeline.process([{"_id": "d", "_rev": "1-x", "tasks": [{}]}])
        house.pipeline.process([{"_id": "d", "_rev": "2-x", "tasks": [{}]}])
    assert [line["doc"] for line in logs] == ["d", "d"]


def test_of_such_documents_no_more_is_remembered_than_memory_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "ODD_REMEMBERED", 2)
    monkeypatch.setattr(pipeline.transitions, "run", lambda doc, context: 1 / 0)
    house = House()
    for n in range(3):
        house.pipeline.process([{"_id": f"d{n}", "_rev": "1-x", "tasks": [{}]}])
    assert house.pipeline._odd == {("d2", "1-x")}


@pytest.mark.parametrize(
    "docs",
    [
        ({"_id": OPT_OUT, "history": ["by hand"]},),
        ({"_id": OPT_OUT, "history": "since May"},),
        ({"_id": OPT_OUT, "value": "opted-out", "history": [{"value": "opted-out"}]}, start()),
        ({"_id": OPT_OUT, "value": "opted-out", "history": 5}, start()),
        (start(reported_date=1.7e18),),
        ({"_id": OPT_OUT, "value": "opted-out", "history": []}, start(transitions=5)),
        (start(reported_date=-1e18),),
        of_place({"name": "Ann"}),
        of_place(5),
        of_place(["ann"]),
        (start(reported_date=10**400),),
        ({"_id": "d", "tasks": [{**documents.new_task(PHONE, "x", states.now()), "due": 10**400}]},),
        ({"_id": "d", "tasks": [{**documents.new_task(PHONE, "x", states.now()), "retry_at": -(10**400)}]},),
        ({"_id": "d", "tasks": 5, "scheduled_tasks": [documents.new_task(PHONE, "x", states.now())]},),
    ],
)
def test_odd_documents(docs: tuple[Document, ...]) -> None:
    house = House()
    house.couch.main.store(*docs)
    house.registers.load()
    house.changed(*docs)
    if docs[-1].get("sms_message"):
        assert house.registers.opt_outs.get(PHONE) is None, "the START was heard"


@pytest.mark.parametrize(("word", "holds"), [("STOP", "opted-out"), ("START", None)])
def test_a_word_that_the_register_does_not_take_is_kept_until_it_does(word: str, holds: str | None) -> None:
    house = House()
    before = {"_id": OPT_OUT, "value": None if holds else "opted-out", "history": []}
    house.couch.main.store(before)
    house.couch.main.refused.add(OPT_OUT)
    house.changed(
        documents.incoming_document(documents.IncomingMessage("africas-talking", "m1", PHONE, word), PHONE, NOW)
    )
    kept = list(house.couch.callbacks.docs.values())
    assert len(kept) == 1
    registers = Registers.of(house.couch.main)
    notices = Notices(
        house.couch.as_couch(), cast(LiveSettings, SimpleNamespace(current=settings.parse({}))), registers
    )
    notices.take(kept)
    assert list(house.couch.callbacks.docs.values()) == kept
    house.couch.main.refused.clear()
    notices.take(kept)
    assert (registers.opt_outs.get(PHONE), house.couch.main.docs[OPT_OUT]["value"]) == (holds, holds)
    assert house.couch.callbacks.docs == {}


def test_a_word_that_neither_database_takes_is_said_to_be_lost() -> None:
    house = House()
    house.couch.main.refused.add(OPT_OUT)
    entry = Entry(PHONE, "opted-out", NOW, "a test")
    house.couch.callbacks.refused.add(opt_words.notice(entry)["_id"])
    said = {"m1": (PHONE, "STOP"), "m2": ("+254711000002", "Habari"), "m3": ("+254711000003", "STOP")}
    messages = [documents.IncomingMessage("africas-talking", ref, *words) for ref, words in said.items()]
    with capture_logs() as logs:
        house.changed(*(documents.incoming_document(message, message.sender, NOW) for message in messages))
    (line,) = [line for line in logs if line["event"].startswith("neither database takes")]
    assert (line["log_level"], line["wrote"], line["docs"], line["reason"]) == (
        "error",
        "the person wrote STOP",
        ["incoming:africas-talking:m1"],
        "forbidden: no",
    )


def test_an_opt_out_whose_document_is_deleted_holds_no_more() -> None:
    house = House()
    house.changed({"_id": OPT_OUT, "value": "opted-out"})
    assert house.registers.opt_outs.get(PHONE) == "opted-out"
    house.changed({"_id": OPT_OUT, "_deleted": True})
    assert house.registers.opt_outs.get(PHONE) is None


def test_translations_are_read_on_a_machine_that_has_just_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.time, "monotonic", lambda: 5.0)  # seconds since then
    house = House()
    house.couch.main.store({"_id": "messages-en", "type": "translations", "custom": {"greeting": "Karibu"}})
    house.changed({"_id": "d", "tasks": [{"state": "pending", "message_key": "greeting", "recipient": PHONE}]})
    assert house.couch.main.docs["d"]["tasks"][0]["messages"][0]["message"] == "Karibu"


def test_a_document_named_like_a_translation_has_its_messages_sent() -> None:
    house = House()
    task = {"state": "pending", "message": "Habari", "recipient": PHONE}
    house.changed({"_id": "messages-2026-01-31", "reported_date": NOW, "tasks": [task]})
    assert house.couch.main.docs["messages-2026-01-31"]["tasks"][0]["messages"][0]["message"] == "Habari"


@pytest.mark.parametrize("values", [{}, {"sms": {"clear_failing_schedules": True}}], ids=["waits", "is cleared"])
def test_a_recipient_and_a_text_that_somebody_writes_while_we_do_are_looked_up(values: dict[str, Any]) -> None:
    """Not found, the task would wait for an hour or be cleared; the change comes back under the name of our write."""
    house = House(values)
    added, place = of_place({"_id": "ann"})
    added["tasks"][0] = {"state": "pending", "message_key": "habari", "recipient": "clinic"}
    place |= {"type": "clinic"}
    texts = {"_id": "messages-en", "type": "translations", "generic": {"habari": "Habari"}}
    house.couch.main.store(place, {"_id": "ann", "phone": PHONE}, texts)
    first = {"state": "pending", "messages": [{"to": PHONE, "message": "Jambo"}]}

    def add() -> None:
        house.couch.main.before_bulk = lambda: None
        house.couch.main.store({**added, "tasks": [first, *added["tasks"]]})

    house.couch.main.before_bulk = add
    house.changed({**added, "tasks": [first]})
    tasks = house.couch.main.docs["d"]["tasks"]
    assert [task["state"] for task in tasks] == ["pending"] * 2
    assert [documents.message_of(task).get("message") for task in tasks] == ["Jambo", "Habari"]
    assert [documents.message_of(task).get("to") for task in tasks] == [PHONE] * 2
