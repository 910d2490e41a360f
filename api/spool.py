"""The spool: where acknowledged documents wait on this machine's disk while CouchDB is away.

A small SQLite file in MJUMBE_DATA, synced before a service gets its 200. It is drained in the order of receipt, each
database by itself: one that takes nothing holds up no other. An entry that CouchDB refuses is set aside with the
reason, so that the rest goes on.
"""

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import gevent
import structlog
from gevent import monkey
from gevent.util import wrap_errors

from mjumbe.config import PRIVATE
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.documents import Document

log = structlog.get_logger()

FILE = "spool.sqlite"
# Another process of the same machine may hold the file's lock for a commit.
LOCK_SECONDS = 5.0
DRAINED_AT_ONCE = 200

SCHEMA = """
CREATE TABLE IF NOT EXISTS waiting (
    place INTEGER PRIMARY KEY AUTOINCREMENT, db TEXT NOT NULL, id TEXT NOT NULL, doc TEXT NOT NULL, UNIQUE (db, id));
CREATE TABLE IF NOT EXISTS set_aside (
    place INTEGER PRIMARY KEY, db TEXT NOT NULL, id TEXT NOT NULL, doc TEXT NOT NULL, reason TEXT NOT NULL,
    at INTEGER NOT NULL);
"""

Row = tuple[int, str, str, str]  # place, database, id, document
Refusals = Mapping[str, str]
Answer = TypeVar("Answer")
Write = Callable[[str, Sequence[Document]], Refusals]
"""Writes documents to a database; returns why for those that it will never take, by id. Raises when it is away."""


class SpoolError(Exception):
    """The spool cannot be written: the disk is full, or the directory is not ours. Nothing was acknowledged."""


@dataclass(frozen=True, slots=True)
class SpoolState:
    """How many documents wait for CouchDB, and how many it will never take."""

    waiting: int
    set_aside: int


class Spool:
    """The spool of one machine. Threads and processes may share it."""

    def __init__(self, directory: Path) -> None:
        """Nothing is made on disk before there is something to spool."""
        self._path = directory / FILE
        self._lock = threading.Lock()
        self._filled: set[str] = set()  # the databases for which something waits
        self._sure = not self._path.exists()  # whether that is known: what is in the file may be an earlier process's

    def holds(self, database: str) -> bool:
        """Whether something may wait for this database, as far as this process knows; no I/O."""
        return not self._sure or database in self._filled

    def add(self, database: str, docs: Sequence[Document]) -> list[bool]:
        """Put documents on disk; for each, whether it was not there yet. Raises SpoolError."""
        trouble = f"the spool {self._path} cannot be written; free some disk space, or make it writable"
        with self._lock, _or_spool_error(trouble):
            answers = _elsewhere(lambda: self._insert(database, docs))
            self._filled.add(database)
            return answers

    def drain(self, write: Write) -> int:
        """Hand what waits to `write`, in order of receipt, and remove it; returns how many documents went.

        A database for which `write` raises keeps all that was not written; once the others had their turn, the first of
        these errors is raised. Raises SpoolError.
        """
        drained, failures = 0, []
        for database in self._look():
            try:
                while rows := self._next(database):
                    docs, refused = _decoded(rows)
                    if docs:
                        refused |= write(database, docs)
                    self._remove(rows, refused)
                    drained += len(rows) - len(refused)
            except (UnavailableError, CouchError) as error:
                failures.append(error)
        if failures:
            raise failures[0]
        return drained

    def _look(self) -> list[str]:
        """The databases for which something waits."""
        if self._sure and not self._filled:
            return []
        with self._lock:
            found = self._read(self._databases)
            self._filled, self._sure = set(found), True
        return found

    def _next(self, database: str) -> list[Row]:
        """What has waited longest for a database."""
        with self._lock:
            rows = self._read(lambda: self._first(database))
            if not rows:
                self._filled.discard(database)
        return rows

    def _read(self, work: Callable[[], Answer]) -> Answer:
        with _or_spool_error(f"the spool {self._path} cannot be read"):
            return _elsewhere(work)

    def state(self) -> SpoolState:
        """What is in the spool. Raises SpoolError when it cannot be read."""
        if not self._path.exists():
            return SpoolState(0, 0)
        return self._read(self._count)

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=PRIVATE, parents=True, exist_ok=True)
        if not self._path.exists():
            self._path.touch(mode=0o600)  # numbers and texts of people
        connection = sqlite3.connect(self._path, timeout=LOCK_SECONDS)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.executescript(SCHEMA)
        return connection

    def _insert(self, database: str, docs: Sequence[Document]) -> list[bool]:
        with closing(self._open()) as connection, connection:
            return [_insert(connection, database, doc) for doc in docs]

    def _count(self) -> SpoolState:
        with closing(self._open()) as connection:
            waiting, aside = (
                int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  # our names
                for table in ("waiting", "set_aside")
            )
        return SpoolState(waiting, aside)

    def _databases(self) -> list[str]:
        with closing(self._open()) as connection:
            return [name for (name,) in connection.execute("SELECT db FROM waiting GROUP BY db ORDER BY min(place)")]

    def _first(self, database: str) -> list[Row]:
        # The plus keeps SQLite from sorting all of a database's rows for the first of them.
        query = "SELECT place, db, id, doc FROM waiting WHERE +db = ? ORDER BY place LIMIT ?"
        with closing(self._open()) as connection:
            return connection.execute(query, (database, DRAINED_AT_ONCE)).fetchall()

    def _remove(self, rows: Sequence[Row], refused: Refusals) -> None:
        for _, database, doc_id, _ in rows:
            if doc_id in refused:
                reason = refused[doc_id]
                log.error("a spooled document is refused and set aside", database=database, id=doc_id, reason=reason)
        with self._lock, _or_spool_error(f"what was written cannot be removed from the spool {self._path}"):
            _elsewhere(lambda: self._take_out(rows, refused))

    def _take_out(self, rows: Sequence[Row], refused: Refusals) -> None:
        """Delete rows; those that are `refused` are kept in the other table."""
        now = int(time.time() * 1000)
        aside = [(place, db, doc_id, doc, refused[doc_id], now) for place, db, doc_id, doc in rows if doc_id in refused]
        with closing(self._open()) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO set_aside VALUES (?, ?, ?, ?, ?, ?)", aside)
            connection.executemany("DELETE FROM waiting WHERE place = ?", [(row[0],) for row in rows])


@contextmanager
def _or_spool_error(trouble: str) -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise SpoolError(f"{trouble} ({error})") from None


def _elsewhere(work: Callable[[], Answer]) -> Answer:
    """What `work` answers. Under gevent another thread does it: it may wait for a lock or a disk, and all with it."""
    if not monkey.is_module_patched("threading"):
        return work()
    # An error that ends a thread's work is printed by gevent, so it comes back as an answer.
    answer = gevent.get_hub().threadpool.apply(wrap_errors((sqlite3.Error, OSError), work))
    if isinstance(answer, Exception):
        raise answer
    return answer  # type: ignore[no-any-return]


def _decoded(rows: Sequence[Row]) -> tuple[list[Document], dict[str, str]]:
    """The documents in rows, and why for those whose row is damaged, by id."""
    docs, damaged = [], {}
    for _, _, doc_id, text in rows:
        try:
            doc = json.loads(text)
        except ValueError as error:
            damaged[doc_id] = f"damaged in the spool: no JSON ({error})"
            continue
        if isinstance(doc, dict) and doc.get("_id") == doc_id:
            docs.append(doc)
        else:
            damaged[doc_id] = "damaged in the spool: not the document of this id"
    return docs, damaged


def _insert(connection: sqlite3.Connection, database: str, doc: Document) -> bool:
    cursor = connection.execute(
        "INSERT OR IGNORE INTO waiting (db, id, doc) VALUES (?, ?, ?)", (database, doc["_id"], json.dumps(doc))
    )
    return cursor.rowcount == 1
