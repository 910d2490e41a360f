"""What the duplicate limit counts."""

import pytest

from sentinel import recent
from sentinel.recent import WINDOW_SECONDS, RecentMessages
from tests.unit.sentinel.memory import MemoryDatabase

FIRST, SECOND = "+254711000001", "+254711000002"


class Time:
    seconds = 1_000_000.0

    def time(self) -> float:
        return self.seconds


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Time:
    clock = Time()
    monkeypatch.setattr(recent.time, "time", clock.time)
    return clock


def test_counts_are_by_number_and_text(time: Time) -> None:
    counted = RecentMessages()
    for to, text in [(FIRST, "a"), (FIRST, "a"), (FIRST, "b"), (SECOND, "a")]:
        counted.add(to, text)
    assert [counted.count(*key) for key in [(FIRST, "a"), (FIRST, "b"), (SECOND, "a"), (SECOND, "b")]] == [2, 1, 1, 0]


def test_what_was_not_sent_after_all_does_not_count(time: Time) -> None:
    counted = RecentMessages()
    for text in "aab":
        counted.add(FIRST, text)
    for text in "abc":
        counted.take_back(FIRST, text)
    assert [counted.count(FIRST, text) for text in "abc"] == [1, 0, 0]


def test_they_are_forgotten_after_half_an_hour(time: Time) -> None:
    counted = RecentMessages()
    counted.add(FIRST, "a")
    time.seconds += WINDOW_SECONDS - 60
    counted.add(FIRST, "a")
    assert counted.count(FIRST, "a") == 2
    time.seconds += 61
    assert counted.count(FIRST, "a") == 1
    time.seconds += WINDOW_SECONDS
    assert counted.count(FIRST, "a") == 0


def test_what_was_sent_before_the_clock_was_set_back_does_not_count_for_days(time: Time) -> None:
    counted = RecentMessages()
    counted.add(FIRST, "a")
    time.seconds -= 86_400
    counted.add(FIRST, "a")
    assert counted.count(FIRST, "a") == 1


def test_memory_is_bounded(time: Time) -> None:
    counted = RecentMessages()
    for number in range(20_000):
        counted.add(str(number), "a")
        time.seconds += 1
    assert len(counted._times) <= WINDOW_SECONDS * 1.2 + 1


def test_lone_surrogates_are_counted_too(time: Time) -> None:
    counted = RecentMessages()
    counted.add(FIRST, "\ud800")
    assert counted.count(FIRST, "\ud800") == 1


def test_what_the_database_tells(time: Time) -> None:
    def sent_recently(doc: dict[str, object]) -> list[tuple[int, dict[str, object]]]:
        return [(int(str(doc["at"])), {"to": doc["to"], "message": "a", "uuid": "u"})]

    database = MemoryDatabase()
    database.views["sent_recently"] = sent_recently
    now = int(time.seconds * 1000)
    database.store(
        {"_id": "1", "to": FIRST, "at": now - WINDOW_SECONDS * 1000 - 1},
        {"_id": "2", "to": FIRST, "at": now - WINDOW_SECONDS * 1000 + 60_000},
        {"_id": "3", "to": "0711000001", "at": now - 1000},
        {"_id": "4", "to": SECOND, "at": now},
    )
    counted = RecentMessages()
    counted.load(database, lambda to: to.replace("0711", "+254711") if to.startswith("0") else to)
    assert (counted.count(FIRST, "a"), counted.count(SECOND, "a")) == (2, 1), "in whatever spelling"
    time.seconds += 120
    assert counted.count(FIRST, "a") == 1


def test_the_database_is_read_in_pages(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recent, "PAGE", 2)
    now = int(time.seconds * 1000)
    moments = [now - 5, now - 4, now - 4, now - 4, now - 4, now - 4, now - 3, now - 3, now, now]
    database = MemoryDatabase()
    database.views["sent_recently"] = lambda doc: [(doc["at"], {"to": FIRST, "message": "a"})]
    database.store(*({"_id": str(number), "at": at} for number, at in enumerate(moments)))
    counted = RecentMessages()
    counted.load(database, str)
    assert counted.count(FIRST, "a") == len(moments)
