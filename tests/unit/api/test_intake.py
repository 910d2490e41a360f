"""The intake: who stored a document, whatever becomes of CouchDB's answers."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from api.intake import Intake
from api.metrics import Metrics
from mjumbe.couch import CouchError, Saved, UnavailableError
from mjumbe.documents import Document
from tests.unit.api.conftest import MemoryDatabase


@pytest.fixture
def intake() -> Intake:
    return Intake(Metrics(), retry_seconds=0.5)


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


def test_couchdb_staying_away_is_said(intake: Intake, database: MemoryDatabase) -> None:
    database.away = True
    with pytest.raises(UnavailableError):
        intake.store(database, [doc("a")])
    database.away = False
    assert intake.store(database, [doc("a")]) == [True]


class Choosy(MemoryDatabase):
    """Refuses a bulk as a whole for one bad document, as CouchDB does, and one document by its validation."""

    def bulk(self, docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        if any("bad" in doc["_id"] for doc in docs):
            raise CouchError(400, "bad document")
        forbidden = [doc["_id"] for doc in docs if "forbidden" in doc["_id"]]
        stored = super().bulk([doc for doc in docs if doc["_id"] not in forbidden])
        return [*stored, *(Saved(doc_id, None, "forbidden", "not here") for doc_id in forbidden)]


def test_one_refused_document_keeps_no_other_from_being_stored(intake: Intake) -> None:
    database = Choosy("choosy")
    answers = intake._write(database, [doc("a"), doc("bad"), doc("forbidden"), doc("b")])
    assert [answers[0], answers[3]] == [True, True]
    assert [type(answer) for answer in answers[1:3]] == [CouchError, CouchError]
    with pytest.raises(CouchError, match="bad"):
        intake.store(database, [doc("bad")])


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_database_that_is_not_ours_is_asked_once(
    intake: Intake, database: MemoryDatabase, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    calls = []

    def refuse(docs: Sequence[Any]) -> list[Saved]:
        calls.append(len(docs))
        raise CouchError(status, "no")

    monkeypatch.setattr(MemoryDatabase, "bulk", lambda self, docs: refuse(docs))
    with pytest.raises(CouchError):
        intake._write(database, [doc("a"), doc("b")])
    assert calls == [2]
