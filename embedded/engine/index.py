"""The view index of one design document: rows in an SQLite file of their own, brought up to date when asked for.

Everything in the file can be made again from the documents, so its commits do not wait for the disk. The file notes how
far it has read, in the same transaction as the rows, so after a crash it goes on from there. It notes of which
database, too: beside a database that was restored from a backup it starts anew.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from embedded.engine import revisions
from embedded.engine.collation import COLLATION_VERSION, encode
from embedded.engine.connections import Readers, connect
from embedded.engine.javascript import MapFunctions, Row
from embedded.engine.writer import Counters
from embedded.errors import no_database, not_implemented

SCHEMA = """
CREATE TABLE rows (
    view INTEGER NOT NULL,         -- the number of the view in the design document
    key BLOB NOT NULL,             -- collation.encode(key)
    id TEXT NOT NULL,              -- the document that emitted the row
    place INTEGER NOT NULL,        -- the number of the row among those of the document
    key_json TEXT NOT NULL,
    value TEXT NOT NULL,           -- JSON
    number NUMERIC,                -- the value if it is a number, for reduce functions
    PRIMARY KEY (view, key, id, place)
) WITHOUT ROWID;
CREATE INDEX rows_by_document ON rows (id);
CREATE TABLE totals (view INTEGER PRIMARY KEY, total INTEGER NOT NULL);
CREATE TABLE progress (token TEXT NOT NULL, seq INTEGER NOT NULL, purge_seq INTEGER NOT NULL);
INSERT INTO progress VALUES ('', 0, 0);
"""

# Documents mapped in one call into V8 and written in one transaction; also bounded by size, for memory's sake.
BATCH_DOCUMENTS = 500
BATCH_CHARACTERS = 4_000_000
# After an update of more batches than this V8 has taken memory that it does not give back: it is started anew.
LONG_UPDATE = 10
_SMALL = 2**53

_Columns = tuple[Any, ...]  # of one row of the table
_Place = tuple[int, bytes, int]  # what tells a document's rows apart: view, key, place


@dataclass(frozen=True, slots=True)
class ViewFunctions:
    """The map functions of a design document: what its index depends on. Built-in reduces are computed when asked."""

    signature: str
    maps: dict[str, str]

    @classmethod
    def of(cls, design_document: dict[str, Any]) -> ViewFunctions:
        """Read them from a valid design document. Raises 501 for languages and options that are not spoken."""
        language = design_document.get("language", "javascript")
        if language != "javascript":
            raise not_implemented(f"A view in the language {language!r}")
        if any(design_document.get("options", {}).values()):
            raise not_implemented("A design document with options")
        maps = {name: view["map"] for name, view in sorted(design_document.get("views", {}).items()) if name != "lib"}
        seed = json.dumps([COLLATION_VERSION, maps])
        return cls(hashlib.md5(seed.encode(), usedforsecurity=False).hexdigest(), maps)

    def number(self, view: str) -> int:
        """The number under which the rows of a view are kept."""
        return list(self.maps).index(view)


class Indexed(Protocol):
    """What an index needs of the database that it is of."""

    token: str  # which life of the database this is
    counters: Counters
    indexers: Executor  # where updates run
    closed: bool

    def borrow(self) -> AbstractContextManager[sqlite3.Connection]:
        """A reading connection for the calling thread."""


@dataclass(frozen=True, slots=True)
class _Changed:
    """A document to index: its text for the map functions, None when it has no rows any more."""

    seq: int
    id: str
    text: str | None


class Index:
    """Made once per database and signature. `borrow` is for threads, the rest for the event loop."""

    def __init__(self, database: Indexed, functions: ViewFunctions, path: Path) -> None:
        path.parent.mkdir(exist_ok=True)
        self.functions = functions
        self._database = database
        self._path = path
        self._writing = connect(path, "NORMAL")
        if self._writing.execute("PRAGMA user_version").fetchone()[0] == 0:
            self._writing.executescript(f"BEGIN; {SCHEMA} PRAGMA user_version = 1; COMMIT;")
        self.seq, self._purge_seq = self._start()
        self._readers = Readers(path)
        self._maps: MapFunctions | None = None
        self._lock = threading.Lock()
        self.borrow = self._readers.borrow
        self._running: asyncio.Future[None] | None = None

    def _start(self) -> tuple[int, int]:
        """How far the file has read changes and purges. Empties it if it belongs to another database."""
        token, seq, purge_seq = self._writing.execute("SELECT token, seq, purge_seq FROM progress").fetchone()
        counters = self._database.counters
        if token == self._database.token and seq <= counters.update_seq and purge_seq <= counters.purge_seq:
            return seq, purge_seq
        return self._empty(counters.purge_seq)

    def _empty(self, purge_seq: int) -> tuple[int, int]:
        """Begin anew: nothing that was purged up to `purge_seq` will be found among the documents."""
        with self._writing as connection:
            connection.execute("BEGIN")
            connection.execute("DELETE FROM rows")
            connection.execute("DELETE FROM totals")
            values = (self._database.token, purge_seq)
            connection.execute("UPDATE progress SET token = ?, seq = 0, purge_seq = ?", values)
        return 0, purge_seq

    @property
    def updating(self) -> bool:
        """Whether an update is under way."""
        return self._running is not None and not self._running.done()

    async def refresh(self) -> None:
        """Bring the index up to everything written before this call; requests that come together share one update.

        Raises 404 when the database is deleted meanwhile: no update goes on then.
        """
        goal = self._database.counters
        while self.seq < goal.update_seq or self._purge_seq < goal.purge_seq:
            if self._database.closed:
                raise no_database()
            await asyncio.shield(self.start_update())

    def start_update(self) -> asyncio.Future[None]:
        """The update that is under way, or a new one."""
        if self._running is None or self._running.done():
            self._running = asyncio.get_running_loop().run_in_executor(self._database.indexers, self._update)
        return self._running

    def behind(self) -> bool:
        """Whether documents were written or purged since the last update."""
        counters = self._database.counters
        return (self.seq, self._purge_seq) != (counters.update_seq, counters.purge_seq)

    def _update(self) -> None:
        """Index everything that was written before this call. Raises CouchError for map functions that cannot run."""
        goal = self._database.counters.update_seq
        with self._lock:
            if self._purge_seq < self._database.counters.purge_seq:
                self._forget_purged()
            batches = 0
            while self.seq < goal and not self._database.closed:
                self._index(self._next_batch(goal))
                batches += 1
            if batches > LONG_UPDATE:
                self._free_maps()

    def _next_batch(self, goal: int) -> list[_Changed]:
        """The next documents in the order of changes; empty when the rest up to `goal` has changed again since."""
        batch: list[_Changed] = []
        size = 0
        with self._database.borrow() as connection:
            conflicts = revisions.conflicts(connection, deleted=True)
            for seq, doc_id, rev, deleted, body in connection.execute(
                "SELECT seq, id, rev, deleted, body FROM documents INDEXED BY changes JOIN bodies USING (number) "
                "WHERE seq > ? ORDER BY seq LIMIT ?",
                (self.seq, BATCH_DOCUMENTS),
            ):
                mapped = not deleted and not doc_id.startswith("_design/")
                document = revisions.Document(doc_id, rev, False, body)
                batch.append(_Changed(seq, doc_id, document.json(conflicts(doc_id)) if mapped else None))
                size += len(body)
                if size > BATCH_CHARACTERS:
                    break
        return batch or [_Changed(goal, "", None)]

    def _index(self, batch: Sequence[_Changed]) -> None:
        """Write what has changed of these documents' rows, and note the progress, in one transaction."""
        texts = [changed.text for changed in batch if changed.text is not None]
        mapped = iter(self._map(texts) if texts else [])
        rows = {changed.id: _rows(changed.id, next(mapped) if changed.text is not None else []) for changed in batch}
        with self._writing as connection:
            connection.execute("BEGIN")
            self._replace(rows)
            connection.execute("UPDATE progress SET seq = ?", (batch[-1].seq,))
        self.seq = batch[-1].seq

    def _map(self, texts: list[str]) -> list[list[list[Row]]]:
        if self._maps is None:
            self._maps = MapFunctions(self.functions.maps)
        return self._maps.run(texts)

    def _replace(self, rows: Mapping[str, dict[_Place, _Columns]]) -> None:
        """Give each document these rows. Most changes of a message leave most of them as they are."""
        counts = dict.fromkeys(range(len(self.functions.maps)), 0)
        old: list[tuple[int, bytes, str, int]] = []
        new: list[_Columns] = []
        for doc_id, now in rows.items():
            for before in self._writing.execute("SELECT * FROM rows WHERE id = ?", (doc_id,)).fetchall():
                view, key, _, place = before[:4]
                if now.get((view, key, place)) == before:
                    del now[view, key, place]
                else:
                    old.append((view, key, doc_id, place))
                    counts[view] -= 1
            new += now.values()
        for view, *_ in new:
            counts[view] += 1
        self._writing.executemany("DELETE FROM rows WHERE view = ? AND key = ? AND id = ? AND place = ?", old)
        self._writing.executemany("INSERT INTO rows VALUES (?, ?, ?, ?, ?, ?, ?)", new)
        self._write_totals(counts)

    def _write_totals(self, counts: dict[int, int]) -> None:
        self._writing.executemany(
            "INSERT INTO totals VALUES (?, ?) ON CONFLICT (view) DO UPDATE SET total = total + excluded.total",
            [(view, change) for view, change in counts.items() if change],
        )

    def _forget_purged(self) -> None:
        """Remove the rows of purged documents. One that was written again has been indexed anew, or will be.

        All rows where it is not known any more which documents these are.
        """
        with self._database.borrow() as connection:
            purged = connection.execute("SELECT seq, id FROM purges WHERE seq > ?", (self._purge_seq,)).fetchall()
            again = {doc_id for _, doc_id in purged if revisions.read(connection, doc_id) is not None}
        if purged[0][0] > self._purge_seq + 1:
            self.seq, self._purge_seq = self._empty(purged[-1][0])
            return
        with self._writing as writing:
            writing.execute("BEGIN")
            self._replace({doc_id: {} for _, doc_id in purged if doc_id not in again})
            writing.execute("UPDATE progress SET purge_seq = ?", (purged[-1][0],))
        self._purge_seq = purged[-1][0]

    def total(self, connection: sqlite3.Connection, view: int) -> int:
        """How many rows a view has."""
        found = connection.execute("SELECT total FROM totals WHERE view = ?", (view,)).fetchone()
        return int(found[0]) if found else 0

    def size(self) -> int:
        """Bytes of the index."""
        return self._path.stat().st_size

    def close(self) -> None:
        """Wait for an update that is under way, then close the file and free V8."""
        with self._lock:
            self._readers.close()
            self._writing.close()
            self._free_maps()

    def _free_maps(self) -> None:
        if self._maps is not None:
            self._maps.close()
            self._maps = None


# In ASCII: JavaScript can emit half a surrogate pair.
_key_json = json.JSONEncoder(separators=(",", ":")).encode


def _rows(doc_id: str, by_view: list[list[Row]]) -> dict[_Place, _Columns]:
    """What a document emitted, as rows of the table."""
    rows: dict[_Place, _Columns] = {}
    for view, emitted in enumerate(by_view):
        for place, (key, value) in enumerate(emitted):
            code = encode(key)
            rows[view, code, place] = (view, code, doc_id, place, _key_json(key), value, _number(value))
    return rows


def _number(value: str) -> int | float | None:
    """The number that a JSON text is. Whole numbers as such, so that their sum has no decimal point."""
    if value[0] not in "-0123456789":
        return None
    number: int | float = json.loads(value)
    return number if isinstance(number, int) and abs(number) < _SMALL else float(number)
