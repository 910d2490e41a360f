"""Which messages a poll is given, when several phones have one user."""

import math
import time
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import cht_gateway
from api.auth import User
from api.cht_gateway import Asking, _is_free, _message, _pick, _take
from api.context import EXTENSION, Context
from api.deliveries import Deliveries
from mjumbe import states
from mjumbe.couch import Row
from mjumbe.documents import new_task
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.settings import parse
from mjumbe.states import claim

PHONE = User("phone", frozenset({"gateway"}))
BEGAN = states.now()
MESSAGE = {"to": "+254711000111", "message": "Habari", "uuid": "u"}
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


def test_a_message_is_handed_out_in_its_parts_and_to_the_number_that_it_goes_to() -> None:
    settings = parse({"multipart_sms_limit": 1, "outgoing_phone_replace": {"match": "+254", "replace": "+256"}})
    task = new_task("0772 000 111", "x" * 161, BEGAN, message_uuid="u")
    assert _message(task, settings) == {"id": "u", "to": "+256772000111", "content": "x" * 157 + "..."}


@pytest.mark.parametrize(("holder", "taken"), [("phone", ["u"]), ("other", [])])
def test_what_another_took_since_the_index_saw_it_is_not_taken(holder: str, taken: list[str]) -> None:
    task = new_task("+254711000111", "Habari", BEGAN, message_uuid="u", service=PHONE_GATEWAY)
    claim(task, BEGAN, PHONE_GATEWAY, holder)
    ours: dict[str, Any] = {}
    shown = row("forwarded-to-gateway", "phone", 30)
    assert not _take(shown, PHONE, lambda _: False, False, ours, {"_id": "doc", "tasks": [task]})
    assert [message_uuid for _, message_uuid in ours] == taken


@pytest.mark.parametrize(
    ("messages", "given"),
    [
        ([MESSAGE], ["u"]),
        ([MESSAGE, {**MESSAGE, "uuid": "u2"}], []),  # the second would never go
        ([{**MESSAGE, "message": None}], []),  # claimed, it would wait for ever for a phone that is not given it
    ],
)
def test_what_somebody_changes_while_it_waits_for_a_phone_is_taken_if_it_can_go(
    messages: list[dict[str, Any]], given: list[str]
) -> None:
    task = {"state": "pending", "service": PHONE_GATEWAY, "messages": messages}
    taken: dict[str, Any] = {}
    assert _take(
        row("pending", None, 30), PHONE, lambda _: False, False, taken, {"_id": "doc", "tasks": [task]}
    ) == bool(given)
    state = "forwarded-to-gateway" if given else "pending"
    assert ([message_uuid for _, message_uuid in taken], task["state"]) == (given, state)


@pytest.mark.parametrize(("in_doubt", "given"), [("retry", ["u"]), ("hold", [])])
def test_what_another_s_phone_has_is_given_on_only_where_doubts_are_tried_again(
    monkeypatch: pytest.MonkeyPatch, in_doubt: str, given: list[str]
) -> None:
    theirs = row("forwarded-to-gateway", "other", 13 * 3600)
    monkeypatch.setattr(cht_gateway, "_assigned", lambda *_: iter([theirs]))
    monkeypatch.setattr(cht_gateway, "_claim", lambda here, user, settings, chosen: [{"id": "u"} for _ in chosen])
    here, asking = cast(Context, SimpleNamespace(deliveries=Deliveries())), replace(ASKING, began=time.monotonic())
    found = _pick(here, asking, parse({"sms": {"in_doubt": in_doubt}}), "true")
    assert [message["id"] for message in found] == given


def test_a_poll_notes_what_it_is_given(app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cht_gateway, "_pick", lambda *_: [{"id": "u", "to": "+254711000111", "content": "Habari"}])
    began = time.monotonic()
    assert client.post("/api/sms", json={}, headers={"Authorization": "Basic cDpw"}).status_code == 200
    assert app.extensions[EXTENSION].deliveries.since("u", began)


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
