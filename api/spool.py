"""The spool: where acknowledged documents wait on this machine's disk while CouchDB is away.

A small SQLite file in MJUMBE_DATA, synced before a service gets its 200. It is drained in the order of receipt, each
database by itself: one that takes nothing holds up no other. An entry that CouchDB refuses is set aside with the
reason, so that the rest goes on.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from api.disk import Answer, elsewhere
from mjumbe import states
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.documents import Document, milliseconds
from mjumbe.private_files import make_private

log = structlog.get_logger()

FILE = "spool.sqlite"
# Another process of the same machine may hold the file's lock for a commit.
LOCK_SECONDS = 5.0
DRAINED_AT_ONCE = 500
WAITS = "waits"  # in place of a reason: it is not done
DAMAGED = "surrogateescape"  # how bytes are read that are no UTF-8: one such row must not keep all from being read

SCHEMA = """
BEGIN;
CREATE TABLE IF NOT EXISTS waiting (
    place INTEGER PRIMARY KEY AUTOINCREMENT, db TEXT NOT NULL, id TEXT NOT NULL, doc TEXT NOT NULL, UNIQUE (db, id));
CREATE TABLE IF NOT EXISTS set_aside (
    place INTEGER PRIMARY KEY, db TEXT NOT NULL, id TEXT NOT NULL, doc TEXT NOT NULL, reason TEXT NOT NULL,
    at INTEGER NOT NULL);
COMMIT;
"""
# Not by its place alone: the file may be another than the one that it was read from.
SET_ASIDE = """
INSERT OR REPLACE INTO set_aside
SELECT place, db, id, doc, :reason, :at FROM waiting WHERE place = :place AND db = :db AND CAST(id AS BLOB) = :id
"""
TAKE_OUT = "DELETE FROM waiting WHERE place = :place AND db = :db AND CAST(id AS BLOB) = :id"

Row = tuple[int, str, str, str]  # place, database, id, document
Refusals = Mapping[str, str]
Write = Callable[[str, Sequence[Document]], Refusals]
"""Writes documents to a database; returns why for those that it will never take, by id. Raises when it is away."""


class SpoolError(Exception):
    """The spool cannot be written: the disk is full, or the directory is not ours. Nothing was acknowledged."""


@dataclass(frozen=True, slots=True)
class SpoolState:
    """How many documents wait for CouchDB, by their database, and how many it will never take."""

    waiting: Mapping[str, int]
    set_aside: int


class Spool:
    """The spool of one machine. Threads and processes may share it.

    What cannot be read or removed is in trouble until a later `drain` succeeds. Meanwhile nothing is put there, and
    nobody has to wait behind what nobody can read.
    """

    def __init__(self, directory: Path) -> None:
        """Nothing is made on disk before there is something to spool."""
        self._path = directory / FILE
        self._lock = threading.Lock()
        self._doors: dict[str, threading.Lock] = {}  # by database, see `_bring`
        # The databases for which something waits that ours must go behind, and the place of the last of it.
        self._filled: dict[str, int] = {}
        self._sure = self._is_absent()  # whether that is known: what is in the file may be an earlier process's
        self._trouble = ""
        # What CouchDB has, or why it refused it, and the file has still: by database, then by place and id in order.
        self._done: dict[str, dict[tuple[int, str], str | None]] = {}

    def _is_absent(self) -> bool:
        """Whether there is no file, as far as is known: that the directory is closed to us is said by `drain`."""
        try:
            return not self._path.exists()
        except OSError:
            return False

    def holds(self, database: str) -> bool:
        """Whether something may wait for this database that can be brought there; no I/O."""
        return not self._trouble and (not self._sure or database in self._filled)

    def add_behind(self, database: str, docs: Sequence[Document]) -> list[bool] | None:
        """As `add`, behind what waits; None when nothing does that `holds` knows of: they may go straight there."""
        with self._door(database):
            return self.add(database, docs) if self.holds(database) else None

    def add(self, database: str, docs: Sequence[Document]) -> list[bool]:
        """Put documents on disk; for each, whether it was not there yet. Raises SpoolError."""
        if self._trouble:
            raise SpoolError(self._trouble)
        with self._lock, self._or_spool_error("cannot be written"):
            answers, self._filled[database] = elsewhere(lambda: self._insert(database, docs))
            return answers

    def drain(self, write: Write, databases: Collection[str]) -> int:
        """Hand what waits for these databases to `write`, in order of receipt, and remove it; returns how many
        documents went. What waits for another one stays.

        A database for which `write` raises keeps all that was not written; once the others had their turn, the first of
        these errors is raised. What cannot be removed, because the disk is full for instance, is written all the same,
        once, and removed by a later call. Raises SpoolError.
        """
        drained, failures = 0, []
        try:
            for database in [name for name in self._look() if name in databases]:
                try:
                    for count in self._bring(write, database):
                        drained += count
                except (UnavailableError, CouchError) as error:
                    failures.append(error)
            self._remove()
        except SpoolError as error:
            self._trouble = str(error)
            raise
        self._trouble = ""
        if failures:
            raise failures[0]
        return drained

    def _bring(self, write: Write, database: str) -> Iterator[int]:
        """Hand what waits for a database to `write` and remove it, batch by batch; yields how many documents went.

        The door is closed for the last of it: `add_behind` waits. Else a stream of messages would fill the spool again
        with each batch, for as long as it lasts.
        """
        rows = self._next(database)
        while rows:
            yield self._hand_over(write, database, rows)
            # Not before CouchDB has taken something: whoever waits at the door must not wait for one that hangs.
            nearly_all = len(rows) < DRAINED_AT_ONCE
            with self._door(database) if nearly_all else nullcontext():
                yield self._hand_over(write, database, self._next(database))
                rows = self._next(database)

    def _door(self, database: str) -> threading.Lock:
        return self._doors.setdefault(database, threading.Lock())

    def _hand_over(self, write: Write, database: str, rows: Sequence[Row]) -> int:
        docs, refused = _decoded(rows)
        if docs:
            refused |= write(database, docs)
        self._note(database, rows, refused)
        with suppress(SpoolError):  # there is more to write
            self._remove()
        return len(rows) - len(refused)

    def _look(self) -> list[str]:
        """The databases for which something waits."""
        if self._sure and not self._filled:
            return []
        with self._lock:
            found = dict(self._read(self._databases))
            before = self._filled if self._sure else found
            self._filled, self._sure = {name: before[name] for name in found if name in before}, True
        return list(found)

    def _next(self, database: str) -> list[Row]:
        """What has waited longest for a database.

        Once all of it came from other processes since our last, ours need not go behind it: else each process would
        keep the spool filled for the others.
        """
        with self._lock:
            rows = self._read(lambda: self._first(database, DRAINED_AT_ONCE))
            if not rows or rows[0][0] > self._filled.get(database, 0):
                self._filled.pop(database, None)
        return rows

    def _read(self, work: Callable[[], list[Answer]]) -> list[Answer]:
        """What `work` finds in the file; nothing when there is none. Raises SpoolError."""
        with self._or_spool_error("cannot be read"):
            return elsewhere(work) if self._exists() else []

    def state(self) -> SpoolState:
        """What is in the spool. Raises SpoolError when it cannot be read, or what was written cannot be removed."""
        if self._trouble:
            raise SpoolError(self._trouble)
        return SpoolState(dict(self._read(self._waiting)), sum(self._read(self._aside)))

    @contextmanager
    def _or_spool_error(self, what: str) -> Iterator[None]:
        """Around what needs the file. Raises SpoolError with `what` became of it, and what to do."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            advice = (
                "free some disk space, or make it a file that this user may write, in a directory where the user may"
            )
            if type(error) is sqlite3.DatabaseError:  # its subclasses are for what is around the file
                advice = "it is damaged: move it aside and keep it, for what was acknowledged may be in it"
            raise SpoolError(f"the spool {self._path} {what} ({error}); {advice}") from None

    def _exists(self) -> bool:
        """Whether there is a file with tables, which are made in one transaction."""
        return self._path.exists() and self._path.stat().st_size > 0

    def _open_to_read(self) -> sqlite3.Connection:
        """Needs no room on the disk, and no right to write."""
        connection = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", timeout=LOCK_SECONDS, uri=True)
        connection.text_factory = partial(bytes.decode, errors=DAMAGED)
        return connection

    def _open(self) -> sqlite3.Connection:
        make_private(self._path.parent)
        if not self._path.exists():
            self._path.touch(mode=0o600)  # numbers and texts of people
        connection = sqlite3.connect(self._path, timeout=LOCK_SECONDS)
        # Not WAL: that needs room on the disk to be read. EXTRA also syncs the directory, where the journal's end is
        # what commits.
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA synchronous = EXTRA")
        connection.executescript(SCHEMA)
        return connection

    def _insert(self, database: str, docs: Sequence[Document]) -> tuple[list[bool], int]:
        """Which were not there yet, and the last place."""
        with closing(self._open()) as connection, connection:
            answers = [_insert(connection, database, doc) for doc in docs]
            return answers, connection.execute("SELECT coalesce(max(place), 0) FROM waiting").fetchone()[0]

    def _waiting(self) -> list[tuple[str, int]]:
        with closing(self._open_to_read()) as connection:
            return connection.execute("SELECT db, count(*) FROM waiting GROUP BY db").fetchall()

    def _aside(self) -> list[int]:
        with closing(self._open_to_read()) as connection:
            return [int(connection.execute("SELECT count(*) FROM set_aside").fetchone()[0])]

    def _databases(self) -> list[tuple[str, int]]:
        """The databases for which something waits, and the place of its last."""
        query = "SELECT db, max(place) FROM waiting GROUP BY db ORDER BY min(place)"
        with closing(self._open_to_read()) as connection:
            found = connection.execute(query).fetchall()
        return [(name, last) for name, last in found if self._first(name, 1)]

    def _first(self, database: str, limit: int) -> list[Row]:
        """What waits behind the last that is done; from the start when that is gone, with the whole file perhaps."""
        place, doc_id = next(reversed(self._done.get(database, {})), (0, ""))
        # The plus keeps SQLite from sorting all of a database's rows for the first of them.
        query = """
            SELECT place, db, CAST(id AS TEXT), CAST(doc AS TEXT) FROM waiting WHERE +db = :db AND place > coalesce(
                (SELECT place FROM waiting WHERE place = :place AND db = :db AND CAST(id AS BLOB) = :id), 0)
            ORDER BY place LIMIT :limit"""
        values = {"db": database, "place": place, "id": _bytes(doc_id), "limit": limit}
        with closing(self._open_to_read()) as connection:
            return connection.execute(query, values).fetchall()

    def _note(self, database: str, rows: Sequence[Row], refused: Refusals) -> None:
        done = self._done.setdefault(database, {})
        for place, _, doc_id, _ in rows:
            reason = refused.get(doc_id)
            if reason is not None:
                log.error("a spooled document is refused and set aside", database=database, id=doc_id, reason=reason)
            done.pop((place, doc_id), None)  # the order counts
            done[place, doc_id] = reason

    def _remove(self) -> None:
        """Take out of the file what is done; what was refused is kept in the other table."""
        if not self._done:
            return
        with self._lock, self._or_spool_error("keeps what is in CouchDB already: it cannot be written"):
            if self._exists():
                elsewhere(self._take_out)
            self._done.clear()

    def _take_out(self) -> None:
        now = milliseconds(states.now())
        done = [(*key, database, reason) for database, found in self._done.items() for key, reason in found.items()]
        try:
            with closing(self._open()) as connection, connection:
                for place, doc_id, database, reason in done:
                    this = {"place": place, "db": database, "id": _bytes(doc_id), "reason": reason, "at": now}
                    if reason is not None:
                        connection.execute(SET_ASIDE, this)
                    connection.execute(TAKE_OUT, this)
        except sqlite3.OperationalError:
            if not self._cut_off():
                raise

    def _cut_off(self) -> bool:
        """Empty the file at one stroke if CouchDB has all that is in it; answers whether it has.

        To remove a row SQLite needs room on the disk, which the file itself may have filled. Whoever waits for our
        lock meanwhile finds no tables, and puts nothing there.
        """
        with closing(self._open_to_read()) as connection:
            connection.execute("BEGIN EXCLUSIVE")
            rows = connection.execute("SELECT db, place, CAST(id AS TEXT) FROM waiting")
            is_needed = any(self._done.get(name, {}).get((place, doc_id), WAITS) for name, place, doc_id in rows)
            is_needed |= connection.execute("SELECT 1 FROM set_aside").fetchone() is not None
            if not is_needed:
                os.truncate(self._path, 0)
            connection.rollback()
        return not is_needed


def _decoded(rows: Sequence[Row]) -> tuple[list[Document], dict[str, str]]:
    """The documents in rows, and why for those whose row is damaged, by id."""
    docs, damaged = [], {}
    for _, _, doc_id, text in rows:
        try:
            doc = json.loads(text.encode())  # raises ValueError for DAMAGED bytes
        except (ValueError, RecursionError) as error:
            damaged[doc_id] = f"damaged in the spool: no JSON ({error})"
            continue
        if isinstance(doc, dict) and doc.get("_id") == doc_id:
            docs.append(doc)
        else:
            damaged[doc_id] = "damaged in the spool: not the document of this id"
    return docs, damaged


def _bytes(doc_id: str) -> bytes:
    """An id as it is in the file, for SQL's `CAST(id AS BLOB)`."""
    return doc_id.encode(errors=DAMAGED)


def _insert(connection: sqlite3.Connection, database: str, doc: Document) -> bool:
    cursor = connection.execute(
        "INSERT OR IGNORE INTO waiting (db, id, doc) VALUES (?, ?, ?)", (database, doc["_id"], json.dumps(doc))
    )
    return cursor.rowcount == 1
