"""Whose numbers are whose, remembered."""

from typing import Any

import pytest

from mjumbe.couch import Row
from mjumbe.documents import Document
from sentinel import contacts
from sentinel.contacts import Contacts
from tests.unit.sentinel.memory import MemoryDatabase


@pytest.fixture
def database() -> MemoryDatabase:
    made = MemoryDatabase()
    made.views = {"by_phone": lambda doc: [] if doc.get("is_new") else [(doc["phone"], None)]}
    made.store(*(person(f"person-{number}", str(number)) for number in range(6)), person("person-z", "0"))
    return made


def person(doc_id: str, phone: object, **fields: object) -> Document:
    return {"_id": doc_id, "type": "person", "phone": phone, **fields}


def ids(contacts: Contacts, *numbers: str) -> dict[str, str]:
    return {number: contact.doc["_id"] for number, contact in contacts.by_phone(numbers).items()}


def test_of_several_with_one_number_the_first(database: MemoryDatabase) -> None:
    assert ids(Contacts(database), "0", "nobody's") == {"0": "person-0"}


def test_whoever_is_forgotten_for_newer_ones_is_still_told(
    database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "REMEMBERED", 5)
    known = Contacts(database)
    for number in range(5):
        known.by_phone([str(number)])
    assert set(known.by_phone(["0", "5"])) == {"0", "5"}
    assert len(known._known) == 5


@pytest.mark.parametrize(
    ("doc", "found"),
    [
        (person("new", "7"), {"7": "new"}),
        ({"_id": "new", "type": "contact", "contact_type": "chw", "phone": "7"}, {"7": "new"}),
        ({"_id": "new", "type": "contact", "phone": "7"}, {}),
        ({"_id": "opt-out:7", "type": "opt_out", "phone": "7"}, {}),
        (person("new", 7), {}),
        (person("new", ["7"]), {}),
        (person("new", ""), {}),
        (person("a-first", "5"), {"5": "a-first"}),  # by its id
        (person("person-zz", "5"), {"5": "person-5"}),
    ],
)
def test_who_is_not_in_the_index_yet_is_known_by_the_changes(
    database: MemoryDatabase, doc: Document, found: dict[str, str]
) -> None:
    known = Contacts(database)
    assert ids(known, "7") == {}
    database.store({**doc, "is_new": True})
    if contacts.is_person(doc):
        known.learn(doc)
    numbers = found or {"7": ""}
    assert ids(known, *numbers) == found


def test_what_the_index_says_of_somebody_who_changed_is_not_believed(database: MemoryDatabase) -> None:
    known = Contacts(database)
    assert ids(known, "3") == {"3": "person-3"}
    moved = person("person-3", "33", is_new=True)
    rows = [Row("person-3", "3", None, moved)]
    database.store(moved)
    known.learn(moved)
    database.view = lambda design, view, **query: rows  # type: ignore[method-assign]  # as before the change
    assert ids(known, "3", "33") == {"33": "person-3"}


def test_the_index_is_waited_for_only_when_it_may_lack_somebody(
    database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "REMEMBERED", 2)
    asked: list[tuple[str, bool]] = []
    view = database.view

    def note(design: str, name: str, **query: Any) -> list[Row]:
        asked.append((query["update"], query["stable"]))
        return view(design, name, **query)

    database.view = note  # type: ignore[method-assign]
    known = Contacts(database)
    for changed in ([], ["8"], ["9"], ["10"], []):
        for phone in changed:
            known.learn(person(f"new-{phone}", phone))
        known.by_phone([f"after {len(asked)}"])
    assert asked == [(update, True) for update in ("true", "false", "false", "true", "false")]
