"""Where the changes feed goes on from."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mjumbe.couch import Change, Changes, Couch, CouchError, UnavailableError
from mjumbe.documents import Document
from sentinel import backlog, feed
from sentinel.feed import Feed


class Database:
    """The feed of a database at `seq`, whose answers are empty; `trouble` comes first."""

    def __init__(self, seq: str, copies: int = 1, trouble: Exception | None = None) -> None:
        self.seq = seq
        self.copies = copies
        self.trouble = trouble
        self.asked: list[str] = []
        self.stop = threading.Event()

    def info(self) -> Mapping[str, Any]:
        return {"update_seq": self.seq, "cluster": {"q": 2, "n": self.copies, "w": 1, "r": 1}}

    def changes(self, since: str, **_: Any) -> Changes:
        self.asked.append(since)
        if self.trouble:
            trouble, self.trouble = self.trouble, None
            raise trouble
        self.stop.set()
        return Changes([], since, 0)


def since_of(database: Database, checkpoint: str) -> list[str]:
    """What a feed with this checkpoint asks for."""
    couch = cast(Couch, SimpleNamespace(main=database))
    none: Any = None
    reading = Feed(couch, none, none, none, none, {"_id": "_local/mjumbe-checkpoint", "seq": checkpoint})
    waiting = SimpleNamespace(is_set=database.stop.is_set, wait=lambda _: None)
    reading.run(cast(threading.Event, waiting))
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
    class PutBack(Database):
        def changes(self, since: str, **query: Any) -> Changes:
            self.seq = "7-older"
            return super().changes(since, **query)

    assert since_of(PutBack("12-x", trouble=UnavailableError("CouchDB is away")), "12-x") == ["12-x", "0"]


@pytest.mark.parametrize(("status", "asked"), [(400, ["12-x", "0"]), (404, ["12-x"] * 2), (500, ["12-x"] * 2)])
def test_all_is_read_again_for_a_sequence_that_is_not_known_alone(status: int, asked: list[str]) -> None:
    """Not for every error that passes: a large database is hours of reading."""
    assert since_of(Database("12-x", trouble=CouchError(status, "a reason")), "12-x") == asked


class Busy:
    """A database with many changes: every second one of them our own write, the last one a person's message."""

    def __init__(self, count: int) -> None:
        self.ids = [f"{'ours' if n % 2 else 'theirs'}-{n:05d}" for n in range(count - 1)] + ["incoming:last"]
        self.fetched: list[str] = []
        self.stop = threading.Event()

    def info(self) -> Mapping[str, Any]:
        return {"update_seq": "0"}

    def changes(self, since: str, *, limit: int, wait: float = 0.0, docs: bool = True) -> Changes:
        first = int(since)
        if first == len(self.ids) and docs:
            self.stop.set()
        entries = [Change(one, "1-x", False, read(one) if docs else None) for one in self.ids[first : first + limit]]
        end = first + len(entries)
        return Changes(entries, str(end), len(self.ids) - end)

    def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        found = {one: read(one) for one in ids}
        self.fetched += found
        return found


def read(doc_id: str) -> Document:
    return {"_id": doc_id, "_rev": "1-x"}


class Processed:
    """What a feed made of the changes of `database`, and how much was processed at each of its checkpoints."""

    def __init__(self, database: Busy) -> None:
        self.batches: list[list[str]] = []
        self.learned: list[str] = []
        self.checkpoints: list[tuple[int, int]] = []
        couch = SimpleNamespace(main=database, sentinel=SimpleNamespace(put=self.put))
        ours = SimpleNamespace(is_one=is_ours, heard=is_ours)
        pipeline = SimpleNamespace(process=self.process)
        registers = SimpleNamespace(learn=lambda doc: self.learned.append(doc["_id"]))
        reading = Feed(*cast(Any, (couch, ours, None, pipeline, registers, {"_id": "_local/x", "seq": "0"})))
        reading.run(cast(threading.Event, SimpleNamespace(is_set=database.stop.is_set, wait=lambda _: None)))

    def process(self, docs: Sequence[Document]) -> None:
        self.batches.append([doc["_id"] for doc in docs])

    def put(self, checkpoint: Document) -> str:
        self.checkpoints.append((int(checkpoint["seq"]), sum(map(len, self.batches))))
        return "1-x"


def is_ours(doc_id: str, rev: str) -> bool:
    return doc_id.startswith("ours")


@pytest.mark.parametrize("count", [1, 199, 200, 401, 1_201, 5_000, 13_000])
def test_what_others_wrote_is_processed_once_and_a_persons_message_early(count: int) -> None:
    database = Busy(count)
    processed = Processed(database)
    theirs = [one for one in database.ids if not one.startswith("ours")]
    assert sorted(processed.learned) == sorted(theirs)
    assert max(map(len, processed.batches)) <= 200
    assert not any(one.startswith("ours") for batch in processed.batches for one in [*batch, *database.fetched])
    first = next(place for place, batch in enumerate(processed.batches) if "incoming:last" in batch)
    assert first <= (count // 5_000) * 5 + 1, "it does not wait for all that came before it"


def test_what_could_not_be_processed_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """CouchDB went away while the first were written; what they say is not passed over."""
    troubles, process = [UnavailableError("CouchDB is away")], Processed.process

    def fail_first(processed: Processed, docs: Sequence[Document]) -> None:
        if troubles:
            raise troubles.pop()
        process(processed, docs)

    monkeypatch.setattr(Processed, "process", fail_first)
    database = Busy(401)
    processed = Processed(database)
    theirs = [one for one in database.ids if not one.startswith("ours")]
    assert sorted(one for batch in processed.batches for one in batch) == sorted(theirs)


class Spread(Busy):
    """In a cluster: what one node tells of, others are asked for. `late` is what they have of a person's message until
    they are asked the third time."""

    def __init__(self, late: dict[str, Document]) -> None:
        super().__init__(201)
        self.late = late
        self.asked = 0

    def changes(self, since: str, *, limit: int, wait: float = 0.0, docs: bool = True) -> Changes:
        told = super().changes(since, limit=min(limit, 100), wait=wait, docs=docs)
        changes = [replace(each, rev="2-x", doc=None) if each.id == "incoming:last" else each for each in told.changes]
        return Changes(changes, told.last_seq, told.pending)

    def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        found = super().fetch(ids)
        if "incoming:last" in found:
            self.asked += 1
            found["incoming:last"]["_rev"] = "2-x"
            if self.asked < 3:
                del found["incoming:last"]
                found |= self.late
        return found

    def read_revisions(self, named: Sequence[tuple[str, str | None]]) -> list[Document]:
        assert named == [("incoming:last", None)]
        return []


@pytest.mark.parametrize(
    "late", [{}, {"incoming:last": {"_id": "incoming:last", "_rev": "1-x"}}], ids=["missing", "an older one"]
)
def test_what_one_node_of_a_cluster_told_of_is_read_until_most_have_it(late: dict[str, Document]) -> None:
    """It was passed over, and a person's message never answered: the node does not tell of it again."""
    database = Spread(late)
    processed = Processed(database)
    assert database.asked == 3
    assert [one for batch in processed.batches for one in batch].count("incoming:last") == 1


def test_a_person_s_message_behind_what_memory_holds_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backlog, "CAPACITY", 1_000)
    database = Busy(26_000)
    processed = Processed(database)
    assert sorted(processed.learned.count(one) for one in set(processed.learned))[-2:] == [1, 2], "the person's, again"
    first = next(place for place, batch in enumerate(processed.batches) if "incoming:last" in batch)
    assert first <= 26_000 // feed.AT_ONCE_BEHIND + 2


def test_the_checkpoint_is_never_ahead_of_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "CHECKPOINT_SECONDS", 0.0)
    database = Busy(13_000)
    processed = Processed(database)
    done = [one for batch in processed.batches for one in batch]
    for seq, count in processed.checkpoints:
        theirs = {one for one in database.ids[:seq] if not one.startswith("ours")}
        assert theirs <= set(done[:count]), seq
    places = [seq for seq, _ in processed.checkpoints]
    assert places == sorted(set(places)) and len(places) > 2 and places[-1] == 13_000, "it moves as the work does"


@pytest.mark.parametrize("requests", range(1, 9))
def test_sequences_that_are_no_longer_known_while_far_behind(requests: int) -> None:
    """After so many requests another database, of another kind of server, stands in the place of the first."""
    database = Busy(13_000)
    changes, known = database.changes, {"0"}
    asked: list[str] = []

    def replaced(since: str, **query: Any) -> Changes:
        asked.append(since)
        if len(asked) == requests + 1:
            known.intersection_update({"0"})
        if len(asked) == 1_000:
            database.stop.set()
        if since not in known:
            raise CouchError(400, "bad_request: Malformed sequence supplied in 'since' parameter.")
        found = changes(since, **query)
        known.add(found.last_seq)
        return found

    database.changes = replaced  # type: ignore[method-assign]
    processed = Processed(database)
    assert set(processed.learned) == {one for one in database.ids if not one.startswith("ours")}


def test_what_is_gone_is_passed_over() -> None:
    processed: list[Any] = []
    deleted = read("gone since") | {"_rev": "2-x", "_deleted": True}
    database = SimpleNamespace(
        fetch=lambda ids: {one: read(one) for one in ids if one != "gone since"}, read_revisions=lambda named: [deleted]
    )
    ours = SimpleNamespace(heard=is_ours)
    pipeline = SimpleNamespace(process=processed.extend)
    registers = SimpleNamespace(learn=lambda doc: None)
    reading = Feed(*cast(Any, (SimpleNamespace(main=database), ours, None, pipeline, registers, {"seq": "0"})))
    gone = [Change("gone", "2-x", True), Change("_design/x", "1-x", False), Change("gone since", "1-x", False)]
    reading._hear(Changes([*gone, Change("there", "1-x", False)], "4-x", 0))
    reading._process()
    assert processed == [read("there")]


@pytest.mark.parametrize(("torn", "processed"), [(False, []), (True, ["ours"])])
def test_a_conflict_that_comes_under_the_name_of_our_write_is_processed(torn: bool, processed: list[str]) -> None:
    """It may have a message that this revision has not."""
    found: list[Document] = []
    pipeline = SimpleNamespace(process=found.extend)
    registers = SimpleNamespace(learn=lambda doc: None)
    main = SimpleNamespace(fetch=lambda ids: {one: read(one) for one in ids})
    reading = Feed(
        *cast(Any, (SimpleNamespace(main=main), SimpleNamespace(heard=is_ours), None, pipeline, registers)),
        {"seq": "0"},
    )
    reading._hear(Changes([Change("ours", "1-x", False, torn=torn)], "4-x", 0))
    reading._process()
    assert [doc["_id"] for doc in found] == processed


def test_who_keeps_something_is_told_of_its_change_before_anything_is_processed() -> None:
    """An opt-out that is removed, a person's new number, a setting: messages that come with them follow them."""
    told: list[Any] = []
    settings = SimpleNamespace(refresh=lambda: told.append("settings"))
    pipeline = SimpleNamespace(forget_translations=lambda: told.append("translations"), learn=told.append)
    registers = SimpleNamespace(learn=told.append)
    ours = SimpleNamespace(heard=is_ours)
    reading = Feed(*cast(Any, (None, ours, settings, pipeline, registers, {"seq": "0"})))
    amina = {"_id": "amina", "type": "person", "name": "Amina", "phone": "+254711000111"}
    changes = [Change(one, "1-x", False) for one in ("settings", "messages-sw")]
    reading._hear(Changes([*changes, Change("gone", "2-x", True), Change("amina", "1-x", False, amina)], "4-x", 0))
    assert told == ["settings", "translations", {"_id": "gone", "_deleted": True}, amina, amina]
