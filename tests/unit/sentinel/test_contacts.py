"""Whose numbers are whose, remembered."""

import pytest

from sentinel import contacts
from sentinel.contacts import Contacts
from tests.unit.sentinel.memory import MemoryDatabase


@pytest.fixture
def database() -> MemoryDatabase:
    made = MemoryDatabase()
    made.views = {"by_phone": lambda doc: [(doc["phone"], None)]}
    made.store(*({"_id": f"person-{number}", "phone": str(number)} for number in range(6)))
    made.store({"_id": "person-z", "phone": "0"})
    return made


def test_of_several_with_one_number_the_first(database: MemoryDatabase) -> None:
    found = Contacts(database).by_phone(["0", "nobody's"])
    assert {number: contact.doc["_id"] for number, contact in found.items()} == {"0": "person-0"}


def test_whoever_is_forgotten_for_newer_ones_is_still_told(
    database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contacts, "REMEMBERED", 5)
    known = Contacts(database)
    for number in range(5):
        known.by_phone([str(number)])
    assert set(known.by_phone(["0", "5"])) == {"0", "5"}
    assert len(known._known) == 5
