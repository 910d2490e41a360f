"""Claims and results in shared bulk writes."""

import threading
from collections.abc import Iterator
from concurrent.futures import Future

import pytest

from mjumbe.couch import UnavailableError
from mjumbe.documents import Document
from mjumbe.edits import Edit
from mjumbe.gateways.base import FencedError
from sentinel import writer
from sentinel.echoes import Echoes
from sentinel.patience import GivenUpError
from sentinel.writer import Updates, Write, Writer
from tests.unit.sentinel.memory import MemoryCouch, MemoryDatabase

SOON = 30.0


def adds(word: str) -> Edit:
    """Adds a word, once: as claims and results do, it finds its work done."""

    def edit(doc: Document) -> bool:
        if word in doc["words"]:
            return False
        doc["words"].append(word)
        return True

    return edit


def fails(doc: Document) -> bool:
    raise ValueError(f"{doc['_id']} is odd")


class Lab:
    def __init__(self) -> None:
        self.couch = MemoryCouch()
        self.leads = True
        self.given_up = threading.Event()
        self.writer = Writer(Echoes(self.couch.as_couch().main), self.check, self.given_up)
        self.go_on = threading.Event()
        self.database.store(*({"_id": doc_id, "words": []} for doc_id in "abc"))

    @property
    def database(self) -> MemoryDatabase:
        return self.couch.main

    def check(self) -> None:
        if not self.leads:
            raise FencedError("another leads")

    def submit(self, doc_id: str, edit: Edit, *, fenced: bool) -> "Future[Updates]":
        known = self.database.get(doc_id)
        assert known is not None
        return self.writer.submit(Write([(doc_id, edit)], {doc_id: known}, fenced))

    def hold(self) -> "Future[Updates]":
        """Something is being written until `go_on`: what is submitted now is written together."""
        busy = threading.Event()

        def wait() -> None:
            busy.set()
            assert self.go_on.wait(SOON)

        self.database.before_bulk = wait
        held = self.submit("c", adds("first"), fenced=False)
        assert busy.wait(SOON)
        return held

    def words(self, doc_id: str) -> list[str]:
        words: list[str] = self.database.docs[doc_id]["words"]
        return words


@pytest.fixture
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.go_on.set()
    made.writer.close()


def test_a_result_and_the_claim_behind_it_are_one_write_in_their_order(lab: Lab) -> None:
    lab.hold()
    bulks = lab.database.bulks
    result, claim = lab.submit("a", adds("result"), fenced=False), lab.submit("a", adds("claim"), fenced=True)
    other = lab.submit("b", adds("claim"), fenced=True)
    lab.go_on.set()
    written = [future.result(SOON) for future in (result, claim, other)]
    assert [list(updates) for updates in written] == [["a"], ["a"], ["b"]]
    assert all(update.written for updates in written for update in updates.values())
    assert (lab.words("a"), lab.words("b")) == (["result", "claim"], ["claim"])
    assert lab.database.bulks == bulks + 1


def test_large_writes_are_not_one_and_who_is_written_waits_for_no_other(lab: Lab) -> None:
    lab.hold()
    count = writer.AT_ONCE
    lab.database.store(*({"_id": f"{part}{number}", "words": []} for part in "xy" for number in range(count)))
    large, other = (
        lab.writer.submit(Write([(f"{part}{number}", adds("claim")) for number in range(count)], {}, fenced=True))
        for part in "xy"
    )
    others_turn = threading.Event()

    def hold_the_other() -> None:
        if lab.words("x0"):
            others_turn.set()
            assert large.result(SOON), "it is answered before the other is written"

    lab.go_on.set()
    lab.database.before_bulk = hold_the_other
    assert len(other.result(SOON)) == count
    assert others_turn.is_set()
    assert (lab.words("x0"), lab.words(f"y{count - 1}")) == (["claim"], ["claim"])


def test_who_leads_no_more_claims_nothing_and_still_stores_results(lab: Lab) -> None:
    lab.hold()
    result, claim = lab.submit("a", adds("result"), fenced=False), lab.submit("b", adds("claim"), fenced=True)
    lab.leads = False
    lab.go_on.set()
    assert result.result(SOON)["a"].written
    with pytest.raises(FencedError):
        claim.result(SOON)
    assert (lab.words("a"), lab.words("b")) == (["result"], [])


def test_who_stops_to_lead_while_couchdb_is_away_claims_nothing(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    def come_back(seconds: float) -> None:
        lab.leads = False
        lab.database.before_bulk = lambda: None

    def away() -> None:
        raise UnavailableError("CouchDB is away")

    monkeypatch.setattr(lab.given_up, "wait", come_back)
    lab.database.before_bulk = away
    claim = lab.submit("a", adds("claim"), fenced=True)
    with pytest.raises(FencedError):
        claim.result(SOON)
    assert lab.words("a") == []


def test_couchdb_is_not_waited_for_when_that_was_given_up(lab: Lab) -> None:
    def away() -> None:
        lab.given_up.set()
        raise UnavailableError("CouchDB is away")

    lab.database.before_bulk = away
    with pytest.raises(GivenUpError, match="CouchDB is away"):
        lab.submit("a", adds("result"), fenced=False).result(SOON)


def test_an_odd_document_keeps_no_other_from_being_written(lab: Lab) -> None:
    lab.hold()
    result, odd = lab.submit("a", adds("result"), fenced=False), lab.submit("b", fails, fenced=True)
    lab.go_on.set()
    assert result.result(SOON)["a"].written
    with pytest.raises(ValueError, match="b is odd"):
        odd.result(SOON)
    assert lab.words("a") == ["result"], "though it was changed in memory before the other one failed"
