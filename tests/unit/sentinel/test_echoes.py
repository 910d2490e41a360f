"""Which changes are our own writes coming back."""

from typing import Any

import pytest

from mjumbe.couch import Couch
from sentinel import echoes
from sentinel.echoes import Echoes
from tests.unit.sentinel.memory import MemoryCouch


@pytest.fixture
def couch() -> Couch:
    return MemoryCouch().as_couch()


def write(couch: Couch, ours: Echoes, doc_id: str, **fields: Any) -> None:
    if couch.main.get(doc_id) is None:
        couch.main.put({"_id": doc_id})
    ours.update({doc_id: lambda doc: doc.update(fields) is None})


def rev(couch: Couch, doc_id: str) -> str:
    return str((couch.main.get(doc_id) or {})["_rev"])


def test_what_we_wrote_is_an_echo_once(couch: Couch) -> None:
    ours = Echoes(couch.main)
    write(couch, ours, "d", by="us")
    assert ours.is_one("d", rev(couch, "d")) and ours.is_one("d", rev(couch, "d")), "as often as one looks ahead"
    assert ours.heard("d", rev(couch, "d"))
    assert not ours.heard("d", rev(couch, "d")), "read again from an older place, it is processed"


def test_what_others_wrote_is_none(couch: Couch) -> None:
    ours = Echoes(couch.main)
    couch.main.put({"_id": "theirs"})
    assert not ours.heard("theirs", rev(couch, "theirs"))
    write(couch, ours, "d", by="us")
    couch.main.put({"_id": "d", "_rev": rev(couch, "d"), "by": "them"})
    assert not ours.is_one("d", rev(couch, "d")) and not ours.heard("d", rev(couch, "d"))


def test_of_two_writes_the_newest_comes_back(couch: Couch) -> None:
    ours = Echoes(couch.main)
    write(couch, ours, "d", by="us")
    before = rev(couch, "d")
    write(couch, ours, "d", by="us again")
    assert not ours.heard("d", before)
    assert ours.heard("d", rev(couch, "d"))


def test_an_edit_that_wrote_nothing_is_none(couch: Couch) -> None:
    ours = Echoes(couch.main)
    couch.main.put({"_id": "d"})
    ours.update({"d": lambda _: False, "gone": lambda _: True})
    assert not ours.heard("d", rev(couch, "d"))


def test_a_document_with_conflicts_is_read_anew_and_looked_at_again(couch: Couch) -> None:
    """What is known of it may be another revision by now; and a change of the other revision comes as one of ours."""
    ours = Echoes(couch.main)
    write(couch, ours, "d", settled_conflicts=["2-b"])
    assert not ours.heard("d", rev(couch, "d"))
    seen: list[Any] = []
    known = {"d": {"_id": "d", "_rev": rev(couch, "d"), "by": "an older revision"}}
    ours.update({"d": lambda doc: bool(seen.append(doc.get("by")))}, known)
    write(couch, ours, "e", by="us")
    ours.update({"e": lambda doc: bool(seen.append(doc["by"]))}, {"e": {"_id": "e", "by": "what is known"}})
    assert seen == [None, "what is known"]


@pytest.mark.parametrize("fields", [{}, {"settled_conflicts": ["2-b"]}])
def test_memory_is_bounded(couch: Couch, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any]) -> None:
    monkeypatch.setattr(echoes, "REMEMBERED", 2)
    ours = Echoes(couch.main)
    for doc_id in "abac":  # what is written again is new again
        write(couch, ours, doc_id, by="us", **fields)
    assert [ours.is_one(doc_id, rev(couch, doc_id)) for doc_id in "abc"] == [True, False, True]
    read: list[str] = []
    known = {doc_id: {"_id": doc_id, "is_known": True} for doc_id in "abc"}
    ours.update(
        {doc_id: lambda doc: bool("is_known" not in doc and read.append(doc["_id"])) for doc_id in "abc"}, known
    )
    assert read == (["a", "c"] if fields else [])
