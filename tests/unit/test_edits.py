"""Documents that are edited in bulk, while others write them too."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import responses

from mjumbe.couch import Couch, TooFewError
from mjumbe.documents import Document
from mjumbe.edits import apply_edits, edits_of

URL = "http://couch.example:5984"


@pytest.fixture
def server() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        yield mock


@pytest.fixture
def couch() -> Couch:
    return Couch(f"{URL}/medic")


class Store:
    """The documents of a database behind `responses`, with revisions; `meddle` runs before each bulk write."""

    def __init__(self, server: responses.RequestsMock, docs: dict[str, int]) -> None:
        self.docs = docs  # id → revision and content at once
        self.meddle: Callable[[], None] = lambda: None
        self.forbidden: set[str] = set()
        self.few: set[str] = set()  # what fewer than half of the nodes take
        self.beside: dict[str, int] = {}  # id → revision and content of another write, which the others took
        self.writes: list[list[str]] = []
        self.reads: list[list[str]] = []
        server.add_callback(
            responses.POST, f"{URL}/medic/_all_docs", callback=self._read, content_type="application/json"
        )
        server.add_callback(
            responses.POST, f"{URL}/medic/_bulk_docs", callback=self._write, content_type="application/json"
        )
        server.add_callback(
            responses.POST, f"{URL}/medic/_bulk_get", callback=self._leaves, content_type="application/json"
        )

    def _leaves(self, request: Any) -> tuple[int, dict[str, str], str]:
        wanted = json.loads(request.body)["docs"]
        revs = [
            [each["rev"]] if "rev" in each else [f"{self.docs[each['id']]}-x", *self._other(each["id"])]
            for each in wanted
        ]
        rows = [
            {
                "id": each["id"],
                "docs": [{"ok": {"_id": each["id"], "_rev": rev, "count": int(rev[0])}} for rev in of_it],
            }
            for each, of_it in zip(wanted, revs, strict=True)
        ]
        return 200, {}, json.dumps({"results": rows})

    def _other(self, doc_id: str) -> list[str]:
        return [f"{self.beside[doc_id]}-a"] if doc_id in self.beside else []

    def _read(self, request: Any) -> tuple[int, dict[str, str], str]:
        keys = json.loads(request.body)["keys"]
        self.reads.append(keys)
        rows = [
            {
                "id": key,
                "key": key,
                "value": {"rev": f"{self.docs[key]}-x"},
                "doc": {"_id": key, "_rev": f"{self.docs[key]}-x", "count": self.docs[key]},
            }
            if key in self.docs
            else {"key": key, "error": "not_found"}
            for key in keys
        ]
        return 200, {}, json.dumps({"rows": rows})

    def _write(self, request: Any) -> tuple[int, dict[str, str], str]:
        self.meddle()
        docs = json.loads(request.body)["docs"]
        self.writes.append([doc["_id"] for doc in docs])
        return 201, {}, json.dumps([self._save(doc) for doc in docs])

    def _save(self, doc: Document) -> Document:
        if doc["_id"] in self.forbidden:
            return {"id": doc["_id"], "error": "forbidden", "reason": "no"}
        if doc["_rev"] == f"{self.beside.get(doc['_id'])}-a":
            self.docs[doc["_id"]] = self.beside.pop(doc["_id"])
        elif doc["_rev"] != f"{self.docs.get(doc['_id'])}-x":
            return {"id": doc["_id"], "error": "conflict", "reason": "Document update conflict."}
        self.docs[doc["_id"]] += 1
        few = {"accepted": True} if doc["_id"] in self.few else {}
        return {"id": doc["_id"], "rev": f"{self.docs[doc['_id']]}-x", **few}


def bump(doc: Document) -> bool:
    doc["count"] += 1
    return True


def test_an_update_is_one_read_and_one_write(server: responses.RequestsMock, couch: Couch) -> None:
    store = Store(server, {"a": 1, "b": 1})
    done = apply_edits(couch.main, {"a": bump, "b": lambda doc: False, "c": bump})
    assert store.reads == [["a", "b", "c"]]
    assert store.writes == [["a"]]
    assert (done["a"].written, done["a"].doc) == (True, {"_id": "a", "_rev": "2-x", "count": 2})
    assert (done["b"].written, done["b"].error) == (False, None)
    assert (done["c"].doc, done["c"].written, done["c"].error) == (None, False, None)


def test_what_is_known_is_not_read(server: responses.RequestsMock, couch: Couch) -> None:
    store = Store(server, {"a": 1})
    assert apply_edits(couch.main, {"a": bump}, {"a": {"_id": "a", "_rev": "1-x", "count": 1}})["a"].written
    assert store.reads == []


def test_a_conflict_is_edited_anew(server: responses.RequestsMock, couch: Couch) -> None:
    store = Store(server, {"a": 1, "b": 1})

    def meddle() -> None:
        store.meddle = lambda: None
        store.docs["a"] = 7

    store.meddle = meddle
    done = apply_edits(couch.main, {"a": bump, "b": bump}, {"a": {"_id": "a", "_rev": "1-x", "count": 1}})
    assert done["a"].doc == {"_id": "a", "_rev": "8-x", "count": 8}
    assert store.writes == [["a", "b"], ["a"]], "and nothing twice"


def test_what_few_nodes_took_is_looked_at_and_counts_while_nobody_else_wrote(
    server: responses.RequestsMock, couch: Couch
) -> None:
    """The others are down."""
    store = Store(server, {"a": 1, "b": 1})
    store.few = {"a"}
    done = apply_edits(couch.main, {"a": bump, "b": bump})
    assert [done[name].written for name in "ab"] == [True, True]
    assert store.writes == [["a", "b"]]


def test_what_few_nodes_took_does_not_count_where_it_is_to_be_sure(
    server: responses.RequestsMock, couch: Couch
) -> None:
    """The others are cut off, and may take another's claim."""
    store = Store(server, {"a": 1, "b": 1})
    store.few = {"a"}
    with pytest.raises(TooFewError):
        apply_edits(couch.main, {"a": bump, "b": bump}, surely=True)
    store.few = set()
    assert apply_edits(couch.main, {"a": bump, "b": bump}, surely=True)["a"].written


@pytest.mark.parametrize(
    ("other", "seen"),
    [(1, [1]), (2, [1, 2]), (3, [1, 3])],
    ids=["an old conflict", "at once", "at once, and gone on from since"],
)
def test_of_two_writes_only_one_counts(
    server: responses.RequestsMock, couch: Couch, other: int, seen: list[int]
) -> None:
    """A phone claims a message as a service does, and the claim that is shown is the one that fewer nodes took: both
    went out."""
    store = Store(server, {"a": 1})
    store.beside = {"a": other}
    few = iter([{"a"}, set[str]()])
    store.meddle = lambda: setattr(store, "few", next(few))
    edited: list[int] = []

    def edit(doc: Document) -> bool:
        edited.append(doc["count"])
        return bump(doc)

    assert apply_edits(couch.main, {"a": edit})["a"].written
    assert edited == seen


def test_what_few_nodes_took_is_edited_anew_when_the_others_took_another_write(
    server: responses.RequestsMock, couch: Couch
) -> None:
    """Two phones claim one message at once: one node heard the one first, two nodes the other."""
    store = Store(server, {"a": 1})
    store.few = {"a"}

    def write(request: Any) -> tuple[int, dict[str, str], str]:
        answer = store._write(request)
        if len(store.writes) == 1:
            store.docs["a"] = 7
        return answer

    server.remove(responses.POST, f"{URL}/medic/_bulk_docs")
    server.add_callback(responses.POST, f"{URL}/medic/_bulk_docs", callback=write, content_type="application/json")
    seen: list[int] = []

    def edit(doc: Document) -> bool:
        seen.append(doc["count"])
        return bump(doc)

    done = apply_edits(couch.main, {"a": edit})
    assert seen == [1, 7]
    assert (done["a"].written, done["a"].doc) == (True, {"_id": "a", "_rev": "8-x", "count": 8})


def test_a_refusal_keeps_nobody_else_from_being_written(server: responses.RequestsMock, couch: Couch) -> None:
    store = Store(server, {"a": 1, "b": 1})
    store.forbidden = {"a"}
    done = apply_edits(couch.main, {"a": bump, "b": bump})
    assert (done["a"].error, done["a"].written, done["b"].written) == ("forbidden: no", False, True)


def test_contention_ends(server: responses.RequestsMock, couch: Couch) -> None:
    store = Store(server, {"a": 1})

    def meddle() -> None:
        store.docs["a"] += 1

    store.meddle = meddle
    done = apply_edits(couch.main, {"a": bump})
    assert done["a"].error == "others keep writing it"
    assert len(store.writes) == 20


def test_nothing_is_asked_for_no_edits(server: responses.RequestsMock, couch: Couch) -> None:
    assert apply_edits(couch.main, {}) == {}
    assert len(server.calls) == 0


def test_all_edits_of_one_document_are_made_in_their_order(server: responses.RequestsMock, couch: Couch) -> None:
    Store(server, {"a": 1, "b": 1})
    made: list[str] = []

    def edit(name: str, changes: bool) -> Callable[[Document], bool]:
        def make(doc: Document) -> bool:
            made.append(f"{doc['_id']}: {name}")
            return changes

        return make

    edits = [("a", edit("1", True)), ("b", edit("2", False)), ("a", edit("3", False)), ("a", edit("4", True))]
    outcome = apply_edits(couch.main, edits_of(edits))
    assert made == ["a: 1", "a: 3", "a: 4", "b: 2"]
    assert {doc_id: update.written for doc_id, update in outcome.items()} == {"a": True, "b": False}
