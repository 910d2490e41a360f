"""The intake: who stored a document, whatever becomes of CouchDB's answers."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from api import health
from api.intake import Intake
from api.metrics import Metrics
from api.spool import Spool, SpoolError, SpoolState
from mjumbe.couch import CouchError, Saved, UnavailableError
from mjumbe.documents import Document
from tests.unit.api.conftest import MemoryDatabase


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path)


@pytest.fixture
def intake(spool: Spool, database: MemoryDatabase) -> Iterator[Intake]:
    intake = Intake(Metrics(), spool, [database], retry_seconds=0.5)
    yield intake
    intake.close()


def doc(doc_id: str, receipt: str | None = None) -> Document:
    return {"_id": doc_id, "receipt": receipt or f"receipt of {doc_id}"}


def test_new_and_known(intake: Intake, database: MemoryDatabase) -> None:
    assert intake.store(database, [doc("a"), doc("b")]) == [True, True]
    assert intake.store(database, [doc("b", "another"), doc("c")]) == [False, True]
    assert intake.store(database, []) == []
    assert database.docs["b"]["receipt"] == "receipt of b"


def test_of_equal_documents_in_one_batch_the_first_is_stored(intake: Intake, database: MemoryDatabase) -> None:
    assert intake._write(database, [doc("a", "first"), doc("a", "second"), doc("b")]) == [True, False, True]
    assert database.bulks == [2]
    assert database.docs["a"]["receipt"] == "first"


def test_many_at_once_share_writes(intake: Intake, database: MemoryDatabase) -> None:
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: intake.store(database, [doc(f"{n % 100}", f"{n}")]), range(400)))
    assert sum(stored for [stored] in answers) == 100


def test_a_lost_answer_is_found_again_by_the_receipt(intake: Intake, database: MemoryDatabase) -> None:
    intake.store(database, [doc("theirs", "of another request")])
    database.lose_answers = 2
    assert intake.store(database, [doc("ours"), doc("theirs")]) == [True, False]


def test_a_document_without_a_receipt_is_never_taken_for_ours(intake: Intake, database: MemoryDatabase) -> None:
    database.put({"_id": "a"})
    database.lose_answers = 1
    assert intake.store(database, [{"_id": "a"}]) == [False]


def until(condition: Callable[[], bool]) -> None:
    """Wait for another thread's work."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_while_couchdb_is_away_documents_are_spooled_then_stored_in_order(
    intake: Intake, database: MemoryDatabase, spool: Spool
) -> None:
    database.away = True
    assert [intake.store(database, [doc(name)]) for name in ("a", "b", "a")] == [[True], [True], [False]]
    assert spool.state() == SpoolState(waiting={"medic": 2}, set_aside=0)
    assert b"mjumbe_documents_spooled_total 2.0" in intake._metrics.exposition()
    database.away = False
    until(lambda: not spool.holds("medic"))
    assert list(database.docs) == ["a", "b"]
    assert spool.state() == SpoolState(waiting={}, set_aside=0)
    assert intake.store(database, [doc("c"), doc("a", "again")]) == [True, False]


def test_an_error_that_nobody_foresaw_keeps_nothing_in_the_spool(
    intake: Intake, database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    database.away = True
    intake.store(database, [doc("a")])
    errors, bulk = [RuntimeError("unforeseen")], database.bulk
    monkeypatch.setattr(database, "bulk", lambda docs: raised(errors.pop()) if errors else bulk(docs))
    database.away = False
    until(lambda: "a" in database.docs)
    assert not errors


def raised(error: Exception) -> Any:
    raise error


def test_what_comes_while_something_waits_is_stored_behind_it(
    database: MemoryDatabase, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool.add("medic", [doc("first")])
    with monkeypatch.context() as patch:
        patch.setattr(spool, "drain", lambda write, databases: raised(UnavailableError("not yet")))
        intake = Intake(Metrics(), spool, [database])
        assert intake.store(database, [doc("second")]) == [True]
        assert not database.docs
    until(lambda: not spool.holds("medic") and "second" in database.docs)
    assert list(database.docs) == ["first", "second"]
    intake.close()


def test_a_database_that_takes_nothing_holds_up_no_other(spool: Spool) -> None:
    main, callbacks = MemoryDatabase("medic"), MemoryDatabase("medic-callbacks")
    main.away = callbacks.away = True
    intake = Intake(Metrics(), spool, [main, callbacks], retry_seconds=0.0)
    assert intake.store(callbacks, [doc("report")]) == [True]
    assert intake.store(main, [doc("spooled")]) == [True]
    main.away = False
    until(lambda: "spooled" in main.docs and not spool.holds("medic"))
    assert intake.store(main, [doc("direct")]) == [True]
    assert "direct" in main.docs
    assert spool.holds("medic-callbacks")
    callbacks.away = False
    until(lambda: not spool.holds("medic-callbacks"))
    assert callbacks.docs.keys() == {"report"}
    intake.close()


def test_a_process_that_was_killed_leaves_its_spool_to_the_next(database: MemoryDatabase, tmp_path: Path) -> None:
    Spool(tmp_path).add("medic", [doc("a")])
    intake = Intake(Metrics(), Spool(tmp_path), [database])
    until(lambda: "a" in database.docs)
    intake.close()


def test_a_couchdb_that_hangs_is_waited_for_no_longer_than_a_caller_can(
    intake: Intake, database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    hangs, bulk = threading.Event(), database.bulk
    monkeypatch.setattr("api.intake.ANSWER_WITHIN", 0.0)
    monkeypatch.setattr(database, "bulk", lambda docs: bulk(docs) if hangs.wait(30) else [])
    with pytest.raises(UnavailableError, match="did not answer a write"):
        intake.store(database, [doc("a")])
    hangs.set()


def test_what_waited_in_vain_for_its_turn_is_not_stored_later(
    database: MemoryDatabase, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who was told 503 sends it again, perhaps under another id."""
    begun, hangs, bulk = threading.Event(), threading.Event(), database.bulk

    def slow(docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        begun.set()
        assert hangs.wait(30)
        return bulk(docs)

    monkeypatch.setattr(database, "bulk", slow)
    monkeypatch.setattr("api.intake.WRITERS", 1)
    monkeypatch.setattr("api.intake.ANSWER_WITHIN", 0.0)
    intake = Intake(Metrics(), spool, [database])
    intake._batchers[database.name].submit([doc("under way")])
    assert begun.wait(30)
    with pytest.raises(UnavailableError, match="did not answer a write"):
        intake.store(database, [doc("waits")])
    hangs.set()
    intake.close()
    assert list(database.docs) == ["under way"]


def test_neither_couchdb_nor_the_disk(database: MemoryDatabase, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    intake = Intake(Metrics(), Spool(tmp_path / "file"), [database], retry_seconds=0)
    database.away = True
    with capture_logs() as logs, pytest.raises(UnavailableError, match="spool"):
        intake.store(database, [doc("a")])
    assert [line["event"] for line in logs if line["log_level"] == "error"][-1:] == [
        "callbacks can be stored nowhere, and are answered 503"
    ]
    database.away = False
    assert intake.store(database, [doc("a")]) == [True]
    intake.close()


def test_a_locked_spool_is_waited_for_once(
    database: MemoryDatabase, spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service gives up after 5 s, which one wait for the lock takes."""
    database.away = True
    intake = Intake(Metrics(), spool, [database], retry_seconds=0)
    assert intake.store(database, [doc("a")]) == [True]
    waited: list[str] = []

    def locked(name: str, docs: Sequence[Document]) -> list[bool]:
        waited.append(name)
        raise SpoolError("database is locked")

    monkeypatch.setattr(spool, "add", locked)
    with pytest.raises(UnavailableError, match="database is locked"):
        intake.store(database, [doc("b")])
    assert waited == ["medic"]
    intake.close()


REFUSED = {"bad": ("400", "bad document"), "forbidden": ("forbidden", "not here")}


class Choosy(MemoryDatabase):
    """Refuses some documents: one that is no document, one by its validation."""

    def bulk(self, docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        refused = [doc["_id"] for doc in docs if doc["_id"] in REFUSED]
        stored = super().bulk([doc for doc in docs if doc["_id"] not in refused])
        return [*stored, *(Saved(doc_id, None, *REFUSED[doc_id]) for doc_id in refused)]


def test_what_couchdb_has_by_now_is_not_set_aside(database: MemoryDatabase, spool: Spool) -> None:
    """It was written, and its answer never came; then it was spooled."""
    database.put(doc("a"))
    spool.add("medic", [doc("a"), doc("b")])
    intake = Intake(Metrics(), spool, [database])
    until(lambda: not spool.holds("medic"))
    assert list(database.docs) == ["a", "b"]
    assert spool.state() == SpoolState(waiting={}, set_aside=0)
    intake.close()


def test_a_poisoned_document_is_set_aside_and_the_rest_goes_on(spool: Spool) -> None:
    database = Choosy("choosy")
    spool.add("choosy", [doc("a"), doc("forbidden"), doc("bad"), doc("b")])
    intake = Intake(Metrics(), spool, [database])
    until(lambda: not spool.holds("choosy"))
    assert list(database.docs) == ["a", "b"]
    assert spool.state() == SpoolState(waiting={}, set_aside=2)
    intake.close()


def test_what_waits_for_a_database_of_another_name_waits_on(database: MemoryDatabase, tmp_path: Path) -> None:
    """It was restored under another name, or COUCH_URL is that of a test."""
    spool = Spool(tmp_path)
    spool.add("before", [doc("a"), doc("b")])
    spool.add("medic", [doc("c")])
    intake = Intake(Metrics(), spool, [database])
    until(lambda: "c" in database.docs and not spool.holds("medic"))
    assert spool.state() == SpoolState(waiting={"before": 2}, set_aside=0)
    ok, says = health.spool(spool, ["medic"])
    assert not ok
    assert "2 documents wait in the spool for before, which COUCH_URL does not name" in says
    intake.close()
    before = MemoryDatabase("before")
    intake = Intake(Metrics(), Spool(tmp_path), [before])
    until(lambda: before.docs.keys() == {"a", "b"})
    intake.close()


def test_one_refused_document_keeps_no_other_from_being_stored(spool: Spool) -> None:
    database = Choosy("choosy")
    intake = Intake(Metrics(), spool, [database])
    answers = intake._write(database, [doc("a"), doc("b"), doc("bad"), doc("forbidden"), doc("bad")])
    assert answers[:2] == [True, True]
    assert [type(answer) for answer in answers[2:]] == [CouchError] * 3, "the second of two equal ones, too"
    with pytest.raises(CouchError, match="bad"):
        intake.store(database, [doc("bad")])
    intake.close()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "the name or the password in COUCH_URL is wrong"),
        (403, "forbidden: Account is temporarily locked due to multiple authentication failures"),
        (404, "not_found: Database does not exist."),
    ],
)
def test_what_couchdb_refuses_to_us_waits_in_the_spool(
    intake: Intake, database: MemoryDatabase, spool: Spool, status: int, reason: str
) -> None:
    """Its database is not there yet, or somebody changed our password: no service's message is lost for that."""
    refusing = Refusing("medic", CouchError(status, reason))
    assert intake._write(refusing, [doc("a"), doc("b")]) == [True, True]
    assert refusing.asked == 1
    until(lambda: not spool.holds("medic"))
    assert list(database.docs) == ["a", "b"]


class Refusing(MemoryDatabase):
    """Refuses every bulk, and counts them."""

    def __init__(self, name: str, error: CouchError) -> None:
        super().__init__(name)
        self.error = error
        self.asked = 0

    def bulk(self, docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        self.asked += 1
        raise self.error
