"""Which messages a poll is given, when several phones have one user."""

import math
import time
from datetime import timedelta
from typing import Any

import pytest

from api.auth import User
from api.cht_gateway import Asking, _is_free
from api.deliveries import Deliveries
from mjumbe import states
from mjumbe.couch import Row

PHONE = User("phone", frozenset({"gateway"}))
BEGAN = states.now()
ASKING = Asking(PHONE, 0.0, BEGAN, frozenset())


def row(state: str, claim: str | None, age: float) -> Row:
    since = states.timestamp(BEGAN - timedelta(seconds=age))
    value: dict[str, Any] = {"uuid": "u", "state": state, "claim": claim, "since": since}
    return Row("doc", ["medic-gateway", 1, 0], value)


@pytest.mark.parametrize(
    ("state", "claim", "age", "free"),
    [
        ("pending", None, 0, True),
        ("pending", "other", 0, True),
        ("forwarded-to-gateway", "phone", 0.01, True),
        ("forwarded-to-gateway", "phone", 86_400, True),
        ("forwarded-to-gateway", "phone", -0.01, False),  # claimed while this poll was under way
        ("forwarded-to-gateway", "phone", -3600, True),  # before the clock was set back
        ("forwarded-to-gateway", "other", 30, False),
        ("forwarded-to-gateway", "other", 599, False),
        ("forwarded-to-gateway", "other", 601, True),
        ("forwarded-to-gateway", None, 30, True),
    ],
)
def test_who_may_be_given_a_message(state: str, claim: str | None, age: float, free: bool) -> None:
    assert _is_free(row(state, claim, age), ASKING, 600) == free


def test_nobody_s_patience_is_for_ever_unless_it_is() -> None:
    years = row("forwarded-to-gateway", "other", 10 * 365 * 86_400)
    assert _is_free(years, ASKING, 600)
    assert not _is_free(years, ASKING, math.inf), "sms.in_doubt is hold"


@pytest.mark.parametrize(("state", "free"), [("forwarded-to-gateway", False), ("pending", True)])
def test_what_a_poll_acknowledged_is_not_given_to_it(state: str, free: bool) -> None:
    """By an index that is behind, it is still with the phone. What is due again goes out as ever."""
    asking = Asking(PHONE, 0.0, BEGAN, frozenset({"u"}))
    assert _is_free(row(state, "phone", 30), asking, 600) == free


def test_what_was_handed_out_during_a_poll_is_not_handed_out_by_it() -> None:
    deliveries = Deliveries()
    began = time.monotonic()
    deliveries.note(["a"])
    assert deliveries.since("a", began)
    assert not deliveries.since("b", began)
    assert not deliveries.since("a", time.monotonic() + 1)


def test_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    deliveries = Deliveries()
    deliveries.note(["a"])
    later = time.monotonic() + 61
    monkeypatch.setattr("api.deliveries.time.monotonic", lambda: later)
    deliveries.note(["b"])
    assert set(deliveries._handed_out) == {"b"}
