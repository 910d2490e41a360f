"""Changing the stored settings; tests/integration/api/test_settings.py does it over HTTP."""

from typing import Any

import pytest

from mjumbe.couch import UnavailableError
from mjumbe.settings import SettingsError
from mjumbe.settings_document import change, values
from tests.unit.sentinel.memory import MemoryDatabase


def database(**fields: Any) -> MemoryDatabase:
    made = MemoryDatabase()
    made.store({"_id": "settings", **fields})
    return made


def test_a_change_is_merged_and_says_whether_it_was_one() -> None:
    stored = database(settings={"locale": "en", "sms": {"reply_to": "22000"}})
    assert change(stored, {"sms": {"duplicate_limit": 7}})
    assert values(stored.get("settings")) == {"locale": "en", "sms": {"reply_to": "22000", "duplicate_limit": 7}}
    assert not change(stored, {"locale": "en"})


def test_one_of_two_wrong_settings_may_be_mended() -> None:
    stored = database(settings={"locale": "en", "sms": {"duplicate_limit": 50, "in_doubt": "perhaps"}})
    assert change(stored, {"sms": {"duplicate_limit": 5}})
    with pytest.raises(SettingsError, match=r"sms\.duplicate_limit") as refused:
        change(stored, {"sms": {"duplicate_limit": 50}})
    assert len(refused.value.problems) == 1, "not the one that was wrong before"


@pytest.mark.parametrize("fields", [{}, {"settings": None}, {"settings": "x"}])
def test_a_document_without_settings(fields: dict[str, Any]) -> None:
    stored = database(**fields)
    assert change(stored, {"locale": "sw"})
    assert values(stored.get("settings")) == {"locale": "sw"}


def test_without_a_document_nothing_is_stored() -> None:
    stored = MemoryDatabase()
    with pytest.raises(UnavailableError):
        change(stored, {"locale": "sw"})
    assert values(stored.get("settings")) == {}
