"""The checks that `/readyz` and `mjumbe doctor` share: what they say when CouchDB is away, or answers and fails."""

from functools import partial

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
