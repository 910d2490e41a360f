"""The spool's file when it cannot be read or written: nothing acknowledged is lost, and nobody waits behind it."""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, nullcontext
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from api.intake import Intake
from api.metrics import Metrics
from api.spool import FILE, Spool, SpoolError, SpoolState
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.documents import Document
from tests.unit.api.conftest import MemoryDatabase
from tests.unit.api.test_intake import doc, until

BOTH = ("medic", "medic-callbacks")


class Written:
    """What a drain wrote, in its order; refuses what is called so."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    def __call__(self, database: str, docs: Sequence[Document]) -> Mapping[str, str]:
        self.ids += [doc["_id"] for doc in docs]
        return {doc["_id"]: "for a reason" for doc in docs if doc["_id"] == "refused"}


@pytest.fixture
def written() -> Written:
    return Written()


@contextmanager
def unwritable(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Another's lock stands for a full disk: what is in the file can be read, and nothing written."""
    with closing(sqlite3.connect(folder / FILE, isolation_level=None)) as other, monkeypatch.context() as patch:
        patch.setattr("api.spool.LOCK_SECONDS", 0.01)
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


def test_what_cannot_be_removed_is_written_once_and_removed_later(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.spool.DRAINED_AT_ONCE", 2)
    spool = Spool(tmp_path)
    spool.add("medic", [doc(name) for name in ("a", "b", "refused", "c", "d")])
    spool.add("medic-callbacks", [doc("e")])
    with unwritable(tmp_path, monkeypatch):
        for _ in range(2):
            with pytest.raises(SpoolError, match="keeps what is in CouchDB already: it cannot be written"):
                spool.drain(written, BOTH)
        assert written.ids == ["a", "b", "refused", "c", "d", "e"]
        assert not spool.holds("medic")
        for ask in (spool.state, lambda: spool.add("medic", [doc("f")])):
            with pytest.raises(SpoolError, match=f"{tmp_path / FILE}.*; free some disk space"):
                ask()
    with pytest.raises(SpoolError):  # not before a drain has seen that it is over
        spool.add("medic", [doc("f")])
    spool.drain(written, BOTH)
    assert len(written.ids) == 6
    assert spool.state() == SpoolState(waiting={}, set_aside=1)
    assert spool.add("medic", [doc("f")]) == [True]
    assert spool.drain(written, BOTH) == 1


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """No transaction that writes has room for its journal."""

    def refuse(_: Spool) -> sqlite3.Connection:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Spool, "_open", refuse)


@pytest.mark.parametrize("name", ["a", "refused"])
@pytest.mark.parametrize("others", [False, True])
def test_a_file_that_fills_its_disk_is_cut_off_when_couchdb_has_all_of_it(
    tmp_path: Path, written: Written, request: pytest.FixtureRequest, name: str, others: bool
) -> None:
    spool = Spool(tmp_path)
    spool.add("medic", [doc(name), doc("b")])
    if others:
        spool.add("another", [doc("c")])
    request.getfixturevalue("full")
    is_needed = name == "refused" or others
    with pytest.raises(SpoolError, match="is full") if is_needed else nullcontext():
        spool.drain(written, BOTH)
    assert written.ids == [name, "b"]
    assert bool((tmp_path / FILE).stat().st_size) is is_needed
    if not is_needed:
        assert spool.state() == SpoolState(waiting={}, set_aside=0)


def test_a_file_that_keeps_what_was_refused_earlier_is_not_cut_off(
    tmp_path: Path, written: Written, request: pytest.FixtureRequest
) -> None:
    spool = Spool(tmp_path)
    spool.add("medic", [doc("refused")])
    spool.drain(written, BOTH)
    spool.add("medic", [doc("a")])
    request.getfixturevalue("full")
    with pytest.raises(SpoolError, match="is full"):
        spool.drain(written, BOTH)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("SELECT id FROM set_aside").fetchall() == [("refused",)]


def test_whoever_has_a_file_open_that_is_cut_off_puts_nothing_there(
    tmp_path: Path, written: Written, request: pytest.FixtureRequest
) -> None:
    """Another process, which waited for the lock: it acknowledges nothing."""
    spool = Spool(tmp_path)
    spool.add("medic", [doc("a")])
    with closing(spool._open()) as other:
        request.getfixturevalue("full")
        spool.drain(written, BOTH)
        with pytest.raises(sqlite3.OperationalError, match="no such table"):
            other.execute("INSERT INTO waiting (db, id, doc) VALUES ('medic', 'b', '{}')")


def test_what_is_put_there_is_synced_with_its_directory(tmp_path: Path) -> None:
    """The removal of the journal is what commits: with less, a power cut brings it back, and takes the row away."""
    with closing(Spool(tmp_path)._open()) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (3,)  # EXTRA


def test_an_id_is_another_document_in_each_database(tmp_path: Path, written: Written) -> None:
    spool = Spool(tmp_path)
    assert [spool.add(database, [doc("a")]) for database in (*BOTH, *BOTH)] == [[True], [True], [False], [False]]
    assert spool.drain(written, BOTH) == 2


def test_a_stream_of_documents_does_not_keep_the_spool_filled(tmp_path: Path) -> None:
    """Each write takes a moment, in which the next documents come: those of the last write wait for its end."""
    spool = Spool(tmp_path)
    spool.add("medic", [doc("a")])
    written: list[str] = []
    with ThreadPoolExecutor() as threads:
        waits: list[Future[list[bool] | None]] = []

        def write(database: str, docs: Sequence[Document]) -> Mapping[str, str]:
            written.extend(doc["_id"] for doc in docs)
            if written == ["a"]:
                assert spool.add_behind(database, [doc("b")]) == [True], "CouchDB may hang: nobody waits for it"
            else:
                waits.append(threads.submit(spool.add_behind, database, [doc("c")]))
            return {}

        assert spool.drain(write, BOTH) == 2
        assert [wait.result() for wait in waits] == [None]
    assert written == ["a", "b"]
    assert spool.state() == SpoolState(waiting={}, set_aside=0)


def test_what_another_process_adds_is_nothing_that_ours_must_go_behind(tmp_path: Path, written: Written) -> None:
    """It orders its own, and brings it to CouchDB; each would keep the spool filled for the other."""
    ours, other = Spool(tmp_path), Spool(tmp_path)
    ours.add("medic", [doc("0")])

    def write(database: str, docs: Sequence[Document]) -> Mapping[str, str]:
        if ours.holds(database) and len(written.ids) < 100:
            other.add(database, [doc(f"{len(written.ids) + 1}")])
        return written(database, docs)

    ours.drain(write, BOTH)
    assert written.ids == ["0", "1"]


def test_what_an_earlier_process_left_is_gone_behind_to_its_end(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.spool.DRAINED_AT_ONCE", 1)
    Spool(tmp_path).add("medic", [doc("a"), doc("b")])
    ours = Spool(tmp_path)
    assert ours.holds("medic"), "before it was looked at, too"

    def write(database: str, docs: Sequence[Document]) -> Mapping[str, str]:
        assert ours.holds(database)
        return written(database, docs)

    ours.drain(write, BOTH)
    assert written.ids == ["a", "b"]
    assert ours.add_behind("medic", [doc("c")]) is None


def test_what_is_in_another_file_by_now_is_not_taken_for_what_was_written(
    tmp_path: Path, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path)
    spool.add("medic", [doc("a"), doc("b")])
    with unwritable(tmp_path, monkeypatch), pytest.raises(SpoolError):
        spool.drain(written, BOTH)
    (tmp_path / FILE).unlink()
    Spool(tmp_path).add("medic", [doc("c"), doc("d"), doc("e")])
    monkeypatch.setattr("api.spool.DRAINED_AT_ONCE", 1)
    spool._filled["medic"] = 9
    spool.drain(written, BOTH)
    assert written.ids == ["a", "b", "c", "d", "e"]
    assert spool.state() == SpoolState(waiting={}, set_aside=0)


def test_a_new_file_s_document_is_not_taken_for_the_one_that_was_in_its_place(tmp_path: Path, written: Written) -> None:
    """Somebody moved the file aside; and the service posts the same message once more."""
    spool = Spool(tmp_path)
    for _ in range(2):
        assert spool.add("medic", [doc("a")]) == [True]
        assert spool.drain(written, BOTH) == 1
        (tmp_path / FILE).unlink()
    assert written.ids == ["a", "a"]


@pytest.mark.parametrize("error", [UnavailableError("away"), CouchError(404, "not_found: Database does not exist.")])
def test_a_database_that_takes_nothing_keeps_its_own_and_is_told_of(
    tmp_path: Path, written: Written, error: Exception
) -> None:
    spool = Spool(tmp_path)
    for database in BOTH:
        spool.add(database, [doc(f"of {database}")])

    def write(database: str, docs: Sequence[Document]) -> Mapping[str, str]:
        if database == "medic":
            raise error
        return written(database, docs)

    with pytest.raises(type(error)):
        spool.drain(write, BOTH)
    assert written.ids == ["of medic-callbacks"]
    assert spool.state() == SpoolState(waiting={"medic": 1}, set_aside=0)


def test_a_file_without_tables_is_an_empty_spool(tmp_path: Path, written: Written) -> None:
    """Killed directly after it was made."""
    (tmp_path / FILE).touch()
    spool = Spool(tmp_path)
    assert spool.drain(written, BOTH) == 0
    assert spool.state() == SpoolState(waiting={}, set_aside=0)
    assert not spool.holds("medic")
    spool.add("medic", [doc("a")])
    assert spool.drain(written, BOTH) == 1


def test_a_file_with_a_log_that_is_written_ahead_is_read_and_kept_on(tmp_path: Path, written: Written) -> None:
    """As spools were made once."""
    Spool(tmp_path).add("medic", [doc("a")])
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        assert connection.execute("PRAGMA journal_mode = WAL").fetchone() == ("wal",)
    spool = Spool(tmp_path)
    assert spool.state() == SpoolState(waiting={"medic": 1}, set_aside=0)
    spool.add("medic", [doc("b")])
    spool.drain(written, BOTH)
    assert written.ids == ["a", "b"]
    assert [path.name for path in tmp_path.iterdir()] == [FILE]


@pytest.mark.parametrize("kind", ["TEXT", "BLOB"])
@pytest.mark.parametrize(
    "row",
    [
        (b"\xff", b'{"_id": "\xff"}'),
        (b"a", b'{"_id": "a", "text": "\xff"}'),
        (b"a", b'{"_id": "a"'),
        (b"a", b'{"_id": "another"}'),
        (b"a", b"null"),
        (b"a", b"[" * 100_000),
    ],
    ids=["id", "text", "cut off", "another's", "no document", "nested"],
)
def test_a_damaged_row_is_set_aside_as_it_is(
    tmp_path: Path, written: Written, row: tuple[bytes, bytes], kind: str
) -> None:
    spool = Spool(tmp_path)
    spool.add("medic", [doc("before")])
    with closing(sqlite3.connect(tmp_path / FILE)) as connection, connection:
        insert = f"INSERT INTO waiting (db, id, doc) VALUES ('medic', CAST(? AS {kind}), CAST(? AS {kind}))"
        connection.execute(insert, row)
    spool.add("medic", [doc("behind")])
    assert [spool.drain(written, BOTH) for _ in range(2)] == [2, 0]
    assert written.ids == ["before", "behind"]
    assert spool.state() == SpoolState(waiting={}, set_aside=1)
    with closing(sqlite3.connect(tmp_path / FILE)) as connection:
        kept = connection.execute("SELECT CAST(id AS BLOB), CAST(doc AS BLOB) FROM set_aside").fetchall()
    assert kept == [row]


def test_to_look_makes_no_file(tmp_path: Path, written: Written) -> None:
    assert Spool(tmp_path).state() == SpoolState(waiting={}, set_aside=0)
    assert Spool(tmp_path).drain(written, BOTH) == 0
    assert not any(tmp_path.iterdir())


def test_a_directory_that_is_closed_to_us_holds_up_nothing(tmp_path: Path, database: MemoryDatabase) -> None:
    spool = Spool(tmp_path / ("x" * 300))  # a name that is too long fails for root, too, when it is looked at
    intake = Intake(Metrics(), spool, [database], retry_seconds=0)
    assert intake.store(database, [doc("a")]) == [True]
    until(lambda: not spool.holds("medic"))
    with pytest.raises(SpoolError, match="cannot be read"):
        spool.state()
    intake.close()


def damage(path: Path) -> None:
    path.write_bytes(os.urandom(8192))


@pytest.mark.parametrize(
    ("spoil", "advice"),
    [(damage, "it is damaged: move it aside and keep it"), (Path.mkdir, "free some disk space, or make it a file")],
)
def test_a_spool_that_cannot_be_read_holds_up_nothing_and_is_left_as_it_is(
    tmp_path: Path, database: MemoryDatabase, spoil: object, advice: str
) -> None:
    good, path = tmp_path / "good", tmp_path / FILE
    Spool(good).add("medic", [doc("acknowledged")])
    spoil(path)  # type: ignore[operator]
    content = path.read_bytes() if path.is_file() else None
    spool = Spool(tmp_path)
    with capture_logs() as lines:
        intake = Intake(Metrics(), spool, [database], retry_seconds=0)
        assert intake.store(database, [doc("a")]) == [True]
        until(lambda: not spool.holds("medic"))
        assert intake.store(database, [doc("b")]) == [True]
        assert list(database.docs) == ["a", "b"]
        with pytest.raises(SpoolError, match=f"the spool {path} cannot be read .*; {advice}"):
            spool.state()
        database.away = True
        with pytest.raises(UnavailableError, match=str(path)):
            intake.store(database, [doc("c")])
        database.away = False
        assert (path.read_bytes() if path.is_file() else None) == content
        with spool._lock:  # between the two it is not looked at
            path.rename(tmp_path / "aside")
            (good / FILE).rename(path)
        until(lambda: "acknowledged" in database.docs)
        intake.close()
    said = [line for line in lines if line["event"] == "the spool cannot be drained, trying again"]
    assert {str(path) in line["reason"] and advice in line["reason"] for line in said} == {True}
