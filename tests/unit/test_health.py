"""The checks that `/readyz` and `mjumbe doctor` share: what they say when CouchDB is away, or answers and fails."""

from mjumbe.couch import TroubleError, UnavailableError
from mjumbe.health import AWAY, CHECKS, Check, Said, inspect

FULL = "CouchDB answered 500: its disk is full"


def well() -> Said:
    return True, "It answers."


def fail() -> Said:
    raise TroubleError(FULL)


def be_away() -> Said:
    raise UnavailableError("CouchDB cannot be reached")


def test_a_couchdb_that_answers_and_fails_is_quoted() -> None:
    found = list(inspect({"couchdb": well, **dict.fromkeys(("views", "vault"), fail)}))
    assert found[1:] == [Check(name, False, f"Not known: {FULL}.") for name in ("views", "vault")]
    assert [check.says for check in inspect({"couchdb": fail, "overdue": fail})] == [f"{FULL}.", f"Not known: {FULL}."]


def test_a_couchdb_that_does_not_answer_is_said_once() -> None:
    found = list(inspect(dict.fromkeys((*CHECKS, "overdue"), be_away)))
    assert found[0].says == "CouchDB cannot be reached: start it, or correct COUCH_URL."
    assert {check.says for check in found[1:]} == {AWAY}
