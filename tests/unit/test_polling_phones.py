"""When a phone last polled, also after the clock was set, and how long it may be silent."""

from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from mjumbe import settings, states
from mjumbe.polling_phones import PollingPhones
from tests.unit.clock import Clock
from tests.unit.sentinel.memory import MemoryCouch


@pytest.mark.parametrize("set_back", [timedelta(minutes=5), timedelta(days=3)])
def test_what_was_noted_before_the_clock_was_set_back_does_not_count(
    monkeypatch: pytest.MonkeyPatch, set_back: timedelta
) -> None:
    couch, now = MemoryCouch().as_couch(), states.now()
    for user in ("lost", "field"):
        PollingPhones(couch).polled(user)
    moment = _set_clock(monkeypatch, now - set_back)
    assert PollingPhones(couch).last_poll() is None
    PollingPhones(couch).polled("field")
    assert PollingPhones(couch).last_poll() == moment
    assert PollingPhones(couch).check(settings.parse({})).ok


def test_another_machine_s_clock_may_be_a_little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    couch, now = MemoryCouch().as_couch(), states.now()
    moment = _set_clock(monkeypatch, now)
    PollingPhones(couch).polled("field")
    _set_clock(monkeypatch, now - timedelta(seconds=20))
    assert PollingPhones(couch).last_poll() == moment


def test_each_phone_s_poll_is_noted_once_in_fifteen_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A poll without a write, but for the first, costs CouchDB nothing."""
    clock, database = Clock(), MemoryCouch()
    monkeypatch.setattr("mjumbe.polling_phones.time", SimpleNamespace(monotonic=clock))
    phones, noted = PollingPhones(database.as_couch()), []
    for user, seconds in [("a", 0), ("b", 1), ("a", 13.9), ("b", 0), ("a", 0.1), ("b", 1), ("a", 13.9)]:
        clock.now += seconds
        before = database.sentinel.docs.get(f"phone:{user}")
        phones.polled(user)
        noted.append(database.sentinel.docs[f"phone:{user}"] != before)
    assert noted == [True, True, False, False, True, True, False]


@pytest.mark.parametrize(
    ("silent", "ok", "says"),
    [
        (None, False, "none has yet. Set the app to this server, with a user's login"),
        (0, True, "one did last at 2026-01-31T08:00:00.000Z"),
        (299, True, "one did last at 2026-01-31T08:00:00.000Z"),
        (300, False, "at 2026-01-31T08:00:00.000Z: is it on, in reach, and set to this server?"),
        (3000, False, "at 2026-01-31T08:00:00.000Z: is it on, in reach, and set to this server?"),
    ],
)
def test_a_phone_that_is_silent_for_five_minutes_is_asked_after(
    monkeypatch: pytest.MonkeyPatch, silent: int | None, ok: bool, says: str
) -> None:
    couch, now = MemoryCouch().as_couch(), datetime(2026, 1, 31, 8, tzinfo=UTC)
    if silent is not None:
        _set_clock(monkeypatch, now)
        PollingPhones(couch).polled("field")
        _set_clock(monkeypatch, now + timedelta(seconds=silent))
    check = PollingPhones(couch).check(settings.parse({}))
    assert check.ok is ok
    assert check.says.endswith(says)


def _set_clock(monkeypatch: pytest.MonkeyPatch, now: datetime) -> str:
    monkeypatch.setattr(states, "now", lambda: now)
    return states.timestamp(now)
