"""A database from inside, where a test from outside would have to be lucky."""

import asyncio
import os
import sqlite3
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from embedded.engine import edits, revisions
from embedded.engine.config import Config
from embedded.engine.connections import Readers, connect
from embedded.engine.database import Database
from embedded.engine.edits import Edit
from embedded.engine.index import Index, ViewFunctions
from embedded.engine.revisions import Document
from embedded.engine.writer import Counters, Transaction
from embedded.errors import CouchError


def written(path: Path) -> int:
    with sqlite3.connect(path) as connection:
        return int(connection.execute("SELECT update_seq FROM counters").fetchone()[0])


def test_a_sequence_holds_that_a_reader_gave_out_before_the_event_loop_heard_of_the_commit(tmp_path: Path) -> None:
    """A feed that began anew for it read the whole database, for each of its calls perhaps."""
    path = tmp_path / "one.sqlite"

    async def run() -> None:
        with ThreadPoolExecutor() as threads:
            database = Database("one", path, threads, threads)
            writing = asyncio.ensure_future(database.write(Transaction.next_seq))
            await asyncio.sleep(0)  # the writer has it now
            while written(path) == 0:
                pass  # the event loop hears of nothing meanwhile
            assert database.counters.update_seq == 0
            assert database.parse_seq(database.seq_text(1)) == 1
            assert database.parse_seq(database.seq_text(2)) == 0, "of a later copy of this file"
            await writing
            await database.close()

    asyncio.run(run())


def test_what_is_written_is_on_disk_when_it_is_answered(tmp_path: Path) -> None:
    """With less, what was committed last before a power cut is gone."""

    async def run() -> int:
        with ThreadPoolExecutor() as threads:
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            [synchronous] = await database.write(lambda its: its.execute("PRAGMA synchronous").fetchone())
            await database.close()
            return int(synchronous)

    assert asyncio.run(run()) == 2  # FULL


def test_a_write_that_fails_counts_nothing_and_leaves_nothing(tmp_path: Path) -> None:
    def fail(its: Transaction) -> None:
        its.count(documents=1)
        its.next_seq()
        edits.write_local(its, "_local/a", "0-1", "{}")
        raise ValueError

    async def run() -> Counters:
        with ThreadPoolExecutor() as threads:
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            with pytest.raises(ValueError):
                await database.write(fail)
            await database.write(Transaction.next_seq)
            assert revisions.read_local(database.near(), "_local/a") is None
            await database.close()
            return database.counters

    assert asyncio.run(run()) == Counters(update_seq=1)


def test_who_goes_away_keeps_no_answer_from_those_who_write_with_them(tmp_path: Path) -> None:
    async def run() -> None:
        go_on = threading.Event()
        with ThreadPoolExecutor() as threads:
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            first = asyncio.ensure_future(database.write(lambda its: go_on.wait(30)))
            await asyncio.sleep(0)  # the writer has it now; what comes meanwhile is of one transaction
            gone, patient = (asyncio.ensure_future(database.write(Transaction.next_seq)) for _ in range(2))
            await asyncio.sleep(0)
            gone.cancel()
            go_on.set()
            assert await first
            assert await asyncio.wait_for(patient, 30) == 2, "what was asked for is done, heard of or not"
            await database.close()

    asyncio.run(run())


async def purge(database: Database, ids: str) -> None:
    """Write documents, and purge them again, each in a call of its own."""
    for doc_id in ids:
        rev = await database.write(partial(edits.write, edit=Edit(doc_id, None, False, "{}")))
        await database.write(partial(edits.purge, wanted={doc_id: [str(rev)]}))


def rows(index: Index) -> list[str]:
    with index.borrow() as connection:
        return [doc_id for (doc_id,) in connection.execute("SELECT id FROM rows ORDER BY id")]


def test_purges_are_forgotten_and_no_index_minds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each delivery report is purged, and none of them is to leave anything behind for ever."""
    monkeypatch.setattr(edits, "PURGES_KEPT", 3)

    async def run() -> None:
        with ThreadPoolExecutor() as threads:
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            index = database.index(ViewFunctions("all", {"all": "function (doc) { emit(doc._id); }"}))
            revs = {
                doc_id: str(await database.write(partial(edits.write, edit=Edit(doc_id, None, False, "{}"))))
                for doc_id in "abc"
            }
            await index.refresh()
            assert rows(index) == ["a", "b", "c"]
            await database.write(partial(edits.purge, wanted={"a": [revs["a"]]}))
            await index.refresh()
            assert rows(index) == ["b", "c"]
            await database.write(partial(edits.purge, wanted={"b": [revs["b"]]}))
            await purge(database, "vwxyz")  # that b was purged is forgotten before the index hears of it
            await index.refresh()
            assert rows(index) == ["c"]
            assert not index.behind()
            with database.borrow() as connection:
                assert connection.execute("SELECT count(*) FROM purges").fetchone() == (3,)
            await database.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("progress", "goes_on"),
    [
        ("token = token", True),
        ("token = 'of another database'", False),
        ("seq = 9", False),  # the database is an older copy
        ("purge_seq = 9", False),
    ],
)
def test_an_index_beside_another_database_starts_anew(tmp_path: Path, progress: str, goes_on: bool) -> None:
    functions = ViewFunctions("all", {"all": "function (doc) { emit(doc._id); }"})

    async def run() -> None:
        with ThreadPoolExecutor() as threads:
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            await database.write(partial(edits.write, edit=Edit("a", None, False, "{}")))
            await database.index(functions).refresh()
            await database.close()
            with sqlite3.connect(tmp_path / "one.views" / "all.sqlite") as file:
                file.execute(f"UPDATE progress SET {progress}")
                file.execute("UPDATE rows SET id = 'of the file'")
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            index = database.index(functions)
            assert (index.seq == 1) is goes_on
            await index.refresh()
            assert rows(index) == (["of the file"] if goes_on else ["a"])
            await database.close()

    asyncio.run(run())


@asynccontextmanager
async def update_that_waits(folder: Path) -> AsyncIterator[tuple[Database, Index, threading.Event]]:
    """A database with one document, and an index whose update waits for its turn until the event is set."""
    go_on = threading.Event()
    with ThreadPoolExecutor() as readers, ThreadPoolExecutor(1) as indexers:
        database = Database("one", folder / "one.sqlite", readers, indexers)
        index = database.index(ViewFunctions("all", {"all": "function (doc) { emit(doc._id); }"}))
        await database.write(partial(edits.write, edit=Edit("a", None, False, "{}")))
        indexers.submit(go_on.wait, 30)
        yield database, index, go_on


def test_who_goes_away_ends_no_update_that_others_wait_for(tmp_path: Path) -> None:
    async def run() -> None:
        async with update_that_waits(tmp_path) as (database, index, go_on):
            impatient, patient = (asyncio.ensure_future(index.refresh()) for _ in range(2))
            await asyncio.sleep(0)
            impatient.cancel()
            await asyncio.wait([impatient])
            go_on.set()
            await patient
            assert rows(index) == ["a"]
            await database.close()

    asyncio.run(run())


def test_who_waits_for_the_index_of_a_database_that_is_deleted_is_told(tmp_path: Path) -> None:
    async def run() -> None:
        async with update_that_waits(tmp_path) as (database, index, go_on):
            waiting = asyncio.ensure_future(index.refresh())
            await asyncio.sleep(0)
            await database.delete()
            go_on.set()
            with pytest.raises(CouchError) as failure:
                await asyncio.wait_for(waiting, 30)
            assert failure.value.status == 404

    asyncio.run(run())


def test_a_change_leaves_the_rows_that_it_does_not_concern(tmp_path: Path) -> None:
    """A message is written three times, and most of its rows stay as they are."""
    maps = {
        "name": "function (doc) { emit(doc.name, null); emit(doc.name, 2); }",
        "state": "function (doc) { if (doc.state) { emit(doc.state, doc.value); } }",
    }
    # A body, and how many rows are removed and how many written for it.
    steps = [
        ('{"name":"A"}', 0, 2),
        ('{"name":"A","other":1}', 0, 0),
        ('{"name":"A","state":"sent","value":1}', 0, 1),
        ('{"name":"A","state":"sent","value":2}', 1, 1),
        ('{"name":"A","state":"failed","value":2}', 1, 1),
        ('{"name":"B","state":"failed","value":2}', 2, 2),
        ('{"name":"B"}', 1, 0),
    ]

    async def run() -> None:
        with ThreadPoolExecutor() as threads:
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            index = database.index(ViewFunctions("two", maps))
            index._writing.executescript(
                "CREATE TEMP TABLE seen (removed, added);"
                "CREATE TEMP TRIGGER removed AFTER DELETE ON rows BEGIN INSERT INTO seen VALUES (1, 0); END;"
                "CREATE TEMP TRIGGER added AFTER INSERT ON rows BEGIN INSERT INTO seen VALUES (0, 1); END;"
            )
            rev = None
            for body, removed, added in steps:
                rev = await database.write(partial(edits.write, edit=Edit("a", rev, False, body)))
                await index.refresh()
                seen = index._writing.execute("SELECT total(removed), total(added) FROM seen").fetchone()
                assert seen == (removed, added), body
                assert sum(index.total(index._writing, view) for view in range(2)) == len(rows(index)), body
                index._writing.execute("DELETE FROM seen")
            await database.close()

    asyncio.run(run())


def bodies(path: Path) -> list[str]:
    """The bodies of former revisions that are on disk."""
    with sqlite3.connect(path) as connection:
        return [body for (body,) in connection.execute("SELECT body FROM superseded ORDER BY place")]


def copied(rev: str, *before: str, body: str) -> Document:
    return Document("a", rev, False, f'{{"n":"{body}"}}', history=",".join(before))


def test_former_bodies_of_documents_with_conflicts_are_as_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "SUPERSEDED_KEPT", 3)
    monkeypatch.setattr(edits, "SUPERSEDED_SPARE", 2)
    path = tmp_path / "one.sqlite"

    async def run() -> None:
        with ThreadPoolExecutor() as threads:
            database = Database("one", path, threads, threads)
            await database.write(partial(edits.write_all, edits=[copied("1-a", body=""), copied("90-b", body="")]))
            rev = "1-a"
            for n in range(20):
                [rev] = await database.write(partial(edits.write_all, edits=[Edit("a", rev, False, f'{{"n":{n}}}')]))
            await database.close()

    asyncio.run(run())
    assert bodies(path)[-3:] == [f'{{"n":{n}}}' for n in (16, 17, 18)]
    assert len(bodies(path)) < 6


def test_what_is_purged_is_not_on_disk(tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite"

    async def run() -> None:
        with ThreadPoolExecutor() as threads:
            database = Database("one", path, threads, threads)
            line = [copied("1-r", body="root"), copied("2-b", "r", body="kept")]
            branch = [copied("2-c", "r", body="before"), copied("3-d", "c", "r", body="purged")]
            await database.write(partial(edits.write_all, edits=[*line, *branch]))
            assert await database.write(partial(edits.purge, wanted={"a": ["3-d"]})) == {"a": ["3-d"]}
            assert [leaf.rev for leaf in await database.read(lambda its: revisions.leaves(its, "a"))] == ["2-b"]
            await database.close()

    asyncio.run(run())
    assert bodies(path) == ['{"n":"root"}']


def test_a_database_made_before_there_were_conflicts_takes_them(tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite"

    async def run() -> list[str]:
        with ThreadPoolExecutor() as threads:
            database = Database("one", path, threads, threads)
            await database.write(partial(edits.write, edit=Edit("a", None, False, "{}")))
            await database.close()
            with sqlite3.connect(path) as connection:
                connection.executescript("DROP TABLE branches; PRAGMA user_version = 1")
            for _ in range(2):
                database = Database("one", path, threads, threads)
                await database.write(partial(edits.graft, doc=revisions.Document("a", "1-x", False, "{}")))
                with database.borrow() as connection:
                    found = [leaf.rev for leaf in revisions.leaves(connection, "a")]
                await database.close()
            return found

    assert len(asyncio.run(run())) == 2


def test_a_reader_sees_one_state_until_it_is_done(tmp_path: Path) -> None:
    path = tmp_path / "one.sqlite"
    writing = connect(path, "FULL")
    writing.execute("CREATE TABLE rows (n)")
    readers = Readers(path)

    def count(connection: sqlite3.Connection) -> int:
        return int(connection.execute("SELECT count(*) FROM rows").fetchone()[0])

    with readers.borrow() as connection:
        assert count(connection) == 0
        writing.execute("INSERT INTO rows VALUES (1)")
        assert count(connection) == 0
    with readers.borrow() as again:
        assert again is connection, "one that is idle is used again"
        assert count(again) == 1
        readers.close()
        assert count(again) == 1, "whoever reads, reads to the end"
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        count(again)
    writing.close()


@pytest.mark.parametrize("section", ["chttpd_auth", "couch_httpd_auth"])
def test_a_secret_is_one_under_both_its_names(section: str, tmp_path: Path) -> None:
    """What CHT encrypted with it is read by either."""
    path = tmp_path / "config.json"
    umask = os.umask(0)
    try:
        first = Config(path)
    finally:
        os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o600
    secret = first.get("chttpd_auth", "secret")
    assert secret and first.get("couch_httpd_auth", "secret") == secret
    first.delete("couch_httpd_auth", "secret")
    again = Config(path)
    assert again.get(section, "secret") == secret
    assert Config(path).get(section, "secret") == secret
    assert Config(path).get("couchdb", "uuid") == first.get("couchdb", "uuid")


def test_nothing_is_left_of_what_was_purged(tmp_path: Path) -> None:
    """What people wrote is in no table any more."""

    async def run() -> dict[str, int]:
        with ThreadPoolExecutor() as threads:
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            first = str(await database.write(partial(edits.write, edit=Edit("a", None, False, '{"n":1}'))))
            await database.write(partial(edits.write, edit=Edit("a", first, False, '{"n":2}')))
            await database.write(partial(edits.graft, doc=revisions.Document("a", "1-x", False, '{"n":3}')))
            with database.borrow() as connection:
                leaves = [leaf.rev for leaf in revisions.leaves(connection, "a")]
            assert len(leaves) == 2
            await database.write(partial(edits.purge, wanted={"a": leaves[1:]}))
            with database.borrow() as connection:
                bodies = [
                    row[0] for row in connection.execute("SELECT body FROM superseded UNION SELECT body FROM branches")
                ]
            assert bodies == ['{"n":1}'], "of the line that is left"
            await database.write(partial(edits.purge, wanted={"a": leaves[:1]}))
            with database.borrow() as connection:
                tables = ("documents", "bodies", "superseded", "branches")
                left = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables}
            await database.close()
            return left

    assert set(asyncio.run(run()).values()) == {0}


def test_of_former_bodies_the_newest_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "SUPERSEDED_KEPT", 4)
    monkeypatch.setattr(edits, "SUPERSEDED_SPARE", 3)

    async def run() -> None:
        with ThreadPoolExecutor() as threads:
            database = Database("one", tmp_path / "one.sqlite", threads, threads)
            revs: list[str] = []
            for number in range(21):
                edit = Edit("a", revs[-1] if revs else None, False, f'{{"n":{number}}}')
                revs.append(str(await database.write(partial(edits.write, edit=edit))))
                with database.borrow() as connection:
                    (count,) = connection.execute("SELECT count(*) FROM superseded").fetchone()
                    assert count == number if number < 4 else 4 <= count < 4 + 3
                    assert all(revisions.read_rev(connection, "a", rev) for rev in revs[-5:])
            await database.close()

    asyncio.run(run())
