"""Where the changes feed goes on from."""

import threading
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mjumbe.couch import Change, Changes, Couch, UnavailableError
from sentinel.feed import Feed


class Database:
    """The feed of a database at `seq`, whose answers are empty; `troubles` come first."""

    def __init__(self, seq: str, copies: int = 1, troubles: int = 0) -> None:
        self.seq = seq
        self.copies = copies
        self.troubles = troubles
        self.asked: list[str] = []
        self.stop = threading.Event()

    def info(self) -> Mapping[str, Any]:
        return {"update_seq": self.seq, "cluster": {"q": 2, "n": self.copies, "w": 1, "r": 1}}

    def changes(self, since: str, **_: Any) -> Changes:
        self.asked.append(since)
        if self.troubles:
            self.troubles -= 1
            self.seq = "7-older"
            raise UnavailableError("CouchDB is away")
        self.stop.set()
        return Changes([], since, 0)


def since_of(database: Database, checkpoint: str) -> list[str]:
    """What a feed with this checkpoint asks for."""
    couch = cast(Couch, SimpleNamespace(main=database))
    none: Any = None
    feed = Feed(couch, none, none, none, none, {"_id": "_local/mjumbe-checkpoint", "seq": checkpoint})
    waiting = SimpleNamespace(is_set=database.stop.is_set, wait=lambda _: None)
    feed.run(cast(threading.Event, waiting))
    return database.asked


@pytest.mark.parametrize(
    ("checkpoint", "seq", "copies", "asked"),
    [
        ("12-x", "12-x", 1, "12-x"),
        ("12-x", "40-y", 1, "12-x"),
        ("12-x", "7-y", 1, "0"),
        ("12-x", "7-y", 3, "12-x"),
        ("0", "7-y", 1, "0"),
        ("now", "7-y", 1, "now"),
    ],
    ids=["at the end", "behind", "put back", "copies count differently", "the beginning", "no number"],
)
def test_a_database_put_back_from_an_older_copy_is_read_again(
    checkpoint: str, seq: str, copies: int, asked: str
) -> None:
    assert since_of(Database(seq, copies), checkpoint) == [asked]


def test_put_back_while_the_sentinel_ran() -> None:
    assert since_of(Database("12-x", troubles=1), "12-x") == ["12-x", "0"]


def test_only_what_others_wrote_is_processed() -> None:
    processed: list[Any] = []
    pipeline = SimpleNamespace(process=processed.extend)
    echoes = SimpleNamespace(is_one=lambda doc: doc["_id"] == "ours")
    registers = SimpleNamespace(learn=lambda doc: None)
    feed = Feed(*cast(Any, (SimpleNamespace(), echoes, None, pipeline, registers, {"seq": "0"})))
    entries = [Change(doc_id, "1-x", False, {"_id": doc_id, "_rev": "1-x"}) for doc_id in ("ours", "theirs")]
    feed._process(Changes([*entries, Change("gone", "1-x", True, None)], "1-x", 0))
    assert [doc["_id"] for doc in processed] == ["theirs"]
