"""When a phone last polled, also after the clock was set."""

from datetime import datetime, timedelta

import pytest

from mjumbe import settings, states
from mjumbe.polling_phones import PollingPhones
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


def _set_clock(monkeypatch: pytest.MonkeyPatch, now: datetime) -> str:
    monkeypatch.setattr(states, "now", lambda: now)
    return states.timestamp(now)
