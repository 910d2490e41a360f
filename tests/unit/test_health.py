"""The checks that `/readyz` and `mjumbe doctor` share: what they say when CouchDB is away, or answers and fails."""

from functools import partial

from mjumbe.couch import CouchError, LoginError, TroubleError, UnavailableError
from mjumbe.credentials import CredentialError
from mjumbe.health import AWAY, CHECKS, LOCKED_OUT, Check, Said, inspect, sentence

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


def test_what_one_check_meets_is_said_of_it_alone_and_without_numbers() -> None:
    def raises(error: Exception) -> Said:
        raise error

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
