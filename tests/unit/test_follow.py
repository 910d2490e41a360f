"""Following one document."""

import time
from datetime import timedelta

import pytest

from mjumbe import states
from mjumbe.documents import new_task
from mjumbe.follow import follow, versions
from mjumbe.states import State
from tests.unit.sentinel.memory import MemoryCouch, MemoryDatabase


def test_each_version_is_seen_once() -> None:
    database = MemoryDatabase()
    database.store({"_id": "d", "n": 1})
    seen = []
    for doc in versions(database, "d", 30.0):
        seen.append(doc["n"])
        if len(seen) == 2:
            break
        database.store({"_id": "d", "n": 2})
    assert seen == [1, 2]


def test_it_ends_in_time_whatever_else_changes() -> None:
    database = MemoryDatabase()
    began = time.monotonic()
    assert list(versions(database, "not there", 0.2)) == []
    assert time.monotonic() - began >= 0.2


def test_it_ends_when_it_is_told_to() -> None:
    assert list(versions(MemoryDatabase(), "d", 3600.0, lambda: True)) == []


@pytest.mark.parametrize("ahead", [0, 90, -90])
def test_what_becomes_of_a_message(ahead: int) -> None:
    """Also where the clock of who sends it is `ahead` of the service's and the sentinel's, in seconds."""
    couch = MemoryCouch()
    task = new_task("+254711000001", "x", states.now())
    couch.main.store({"_id": "d", "tasks": [task]})
    said: list[str] = []

    def say(entry: dict[str, str]) -> None:
        said.append(entry["state"])
        if entry["state"] == State.PENDING:
            states.move(task, State.DELIVERED, states.now() - timedelta(seconds=ahead))
            couch.main.store({"_id": "d", "tasks": [task]})

    assert follow(couch.main, "d", 30.0, say)
    assert said == ["pending", "delivered"]


def test_a_message_that_ends_otherwise_is_not_delivered() -> None:
    couch = MemoryCouch()
    delivered, failed = (new_task("+254711000001", "x", states.now()) for _ in range(2))
    states.move(delivered, State.DELIVERED, states.now())
    states.move(failed, State.FAILED, states.now())
    said: list[str] = []
    couch.main.store({"_id": "d", "tasks": [delivered, failed]})
    assert not follow(couch.main, "d", 3600.0, lambda entry: said.append(entry["state"]))
    assert sorted(said) == ["delivered", "failed", "pending", "pending"]


def test_a_document_without_a_message_yet_is_no_end() -> None:
    couch = MemoryCouch()
    couch.main.store({"_id": "d"})
    assert not follow(couch.main, "d", 0.0, lambda entry: None)
