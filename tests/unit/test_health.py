"""The checks that `/readyz` and `mjumbe doctor` share: what they say of a part, and when CouchDB is away, or fails."""

from datetime import UTC, datetime, timedelta
from functools import partial
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mjumbe import states
from mjumbe.couch import CouchError, LoginError, TroubleError, UnavailableError
from mjumbe.credentials import CredentialError
from mjumbe.health import AWAY, CHECKS, LOCKED_OUT, Check, House, Said, inspect, sentence, sentinel, views
from mjumbe.status import LEADER_ID
from tests.unit.sentinel.memory import MemoryCouch

FULL = "CouchDB answered 500: its disk is full"


def well() -> Said:
    return True, "It answers."


def fail() -> Said:
    raise TroubleError(FULL)


def raises(error: Exception) -> Said:
    raise error


NOW = datetime(2026, 1, 31, 8, tzinfo=UTC)


def moment(seconds_ago: float) -> str:
    return states.timestamp(NOW - timedelta(seconds=seconds_ago))


def be_away() -> Said:
    raise UnavailableError("CouchDB cannot be reached")


def test_a_couchdb_that_answers_and_fails_is_quoted() -> None:
    found = list(inspect([("couchdb", well), ("views", fail), ("vault", well)]))
    assert found[1:] == [Check("views", False, f"Not known: {FULL}."), Check("vault", True, "It answers.")]
    assert [check.says for check in inspect([("couchdb", fail), ("overdue", fail)])] == [
        f"{FULL}.",
        f"Not known: {FULL}.",
    ]


def test_a_couchdb_that_does_not_answer_is_said_once() -> None:
    asked: list[str] = []

    def ask(name: str) -> Said:
        asked.append(name)
        return be_away()

    names = (*CHECKS, "overdue")
    found = list(inspect([*((name, partial(ask, name)) for name in names), ("spool", well)]))
    assert found[0].says == "CouchDB cannot be reached: start it, or correct COUCH_URL."
    assert {check.says for check in found[1:-1]} == {AWAY}
    assert found[-1] == Check("spool", True, "It answers.")
    assert asked == [names[0]], "each would wait for it anew"


def test_a_couchdb_that_does_not_let_us_in_is_asked_once() -> None:
    """Each further login could be the one that locks the name out."""
    asked: list[str] = []

    def ask(name: str) -> Said:
        asked.append(name)
        raise LoginError(401, "the name or the password in COUCH_URL is wrong")

    found = list(inspect([(name, partial(ask, name)) for name in ("couchdb", "views", "vault")]))
    assert [check.says for check in found] == [
        "The name or the password in COUCH_URL is wrong.",
        LOCKED_OUT,
        LOCKED_OUT,
    ]
    assert asked == ["couchdb"]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (UnavailableError("CouchDB cannot be reached"), AWAY),
        (LoginError(401, "the name or the password in COUCH_URL is wrong"), LOCKED_OUT),
    ],
)
def test_a_couchdb_that_goes_meanwhile_is_asked_no_more(error: Exception, says: str) -> None:
    found = list(inspect([("couchdb", well), ("views", partial(raises, error)), ("vault", well), ("spool", well)]))
    assert [(check.ok, check.says) for check in found[1:]] == [(False, says), (False, says), (True, "It answers.")]


@pytest.mark.parametrize(
    ("status", "ok", "says"),
    [
        (None, False, "No sentinel has run yet"),
        ({"heartbeat": moment(0)}, True, "The sentinel's last heartbeat was 0 s ago."),
        ({"heartbeat": moment(29)}, True, "The sentinel's last heartbeat was 29 s ago."),
        ({"heartbeat": moment(31)}, False, f"The sentinel's last heartbeat was at {moment(31)}; look into its log"),
        ({"heartbeat": moment(-9)}, True, "The sentinel's last heartbeat was 0 s ago."),
        ({"heartbeat": "nonsense"}, False, "The sentinel's last heartbeat was at nonsense; look into its log"),
        ({}, False, "The sentinel's last heartbeat was at ; look into its log"),
        ({"heartbeat": moment(0), "released": True}, False, f"The sentinel stopped at {moment(0)}; start it"),
    ],
)
def test_a_sentinel_is_heard_of(monkeypatch: pytest.MonkeyPatch, status: Any, ok: bool, says: str) -> None:
    monkeypatch.setattr(states, "now", lambda: NOW)
    couch = MemoryCouch()
    if status is not None:
        couch.sentinel.store({"_id": LEADER_ID, "owner": {}, **status})
    found = sentinel(cast(House, SimpleNamespace(couch=couch)))
    assert (found[0], found[1].startswith(says)) == (ok, True), found[1]


@pytest.mark.parametrize(
    ("unbuilt", "expected"),
    [
        ([], (True, "All views are built.")),
        (
            ["mjumbe", "medic"],
            (False, "The views of mjumbe, medic are being built; this takes a while on a large database."),
        ),
    ],
)
def test_views_that_are_being_built_are_named(unbuilt: list[str], expected: Said) -> None:
    assert views(cast(House, SimpleNamespace(indexes=SimpleNamespace(unbuilt=lambda: unbuilt)))) == expected


def test_what_one_check_meets_is_said_of_it_alone_and_without_numbers() -> None:
    checks = [
        ("views", partial(raises, CouchError(400, "no +254711000111 here"))),
        ("vault", partial(raises, CredentialError("no key opens it"))),
        ("service", lambda: (False, "It refused +254711000111.")),
        ("settings", well),
    ]
    found = list(inspect(checks))
    assert [(check.ok, "254711000111" in check.says) for check in found] == [(False, False)] * 3 + [(True, False)]
    assert found[1].says == "No key opens it."


def test_sentences() -> None:
    assert [sentence(text) for text in ("is it on?", "it is", "It is.", "")] == ["Is it on?", "It is.", "It is.", "."]
