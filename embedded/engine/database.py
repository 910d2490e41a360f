"""One database: an SQLite file, a writing thread, some reading connections, and requests that wait for a change."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any, TypeVar

from embedded.engine import revisions
from embedded.engine.connections import Readers, connect
from embedded.engine.index import Index, ViewFunctions
from embedded.engine.writer import Counters, Transaction, Writer
from embedded.errors import no_database

T = TypeVar("T")

# CouchDB 3: server admins only, until somebody says otherwise.
DEFAULT_SECURITY = {"members": {"roles": ["_admin"]}, "admins": {"roles": ["_admin"]}}
DEFAULT_REVS_LIMIT = 1000


class Database:
    """An open database. Its methods are called in the event loop; `read` and `write` do their work in threads."""

    def __init__(self, name: str, path: Path, readers: Executor, indexers: Executor) -> None:
        """Open `path`, or make it when it is not there; the executors are for queries and for index updates.

        Raises sqlite3.DatabaseError when the file is damaged.
        """
        _check_whole(path)
        self.name = name
        self.path = path
        self.indexers = indexers
        self._executor = readers
        writing = connect(path, "FULL")
        version = writing.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            _create(writing)
        elif version == 1:  # made before there were conflicts
            writing.executescript(f"BEGIN; {revisions.BRANCHES} PRAGMA user_version = 2; COMMIT;")
        self.counters = Counters(
            *writing.execute("SELECT update_seq, doc_count, deleted_count, purge_seq FROM counters").fetchone()
        )
        meta: dict[str, Any] = {name: json.loads(value) for name, value in writing.execute("SELECT * FROM meta")}
        self.token: str = meta["token"]
        self.security: dict[str, Any] = meta["security"]
        self.purged_infos_limit: int = meta.get("purged_infos_limit", 1000)
        self._writer = Writer(writing, self.counters, meta["revs_limit"], self._committed)
        self._near = connect(path, "FULL")
        self._readers = Readers(path)
        self._waiting: set[asyncio.Future[None]] = set()
        self._indexes: dict[str, Index] = {}
        self.closed = False

    @property
    def revs_limit(self) -> int:
        """How many revision ids of a document are remembered."""
        return self._writer.revs_limit

    def near(self) -> sqlite3.Connection:
        """The connection for look-ups so short that a thread would cost more. Only for use in the event loop."""
        if self.closed:
            raise no_database()
        return self._near

    async def read(self, query: Callable[[sqlite3.Connection], T]) -> T:
        """Run `query` in a thread, on a connection that sees one state of the database throughout."""

        def run() -> T:
            with self.borrow() as connection:
                return query(connection)

        return await asyncio.get_running_loop().run_in_executor(self._executor, run)

    def borrow(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        """A reading connection for the calling thread."""
        if self.closed:
            raise no_database()
        return self._readers.borrow()

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run `operation` with others in one transaction; returns when its work is on disk."""
        if self.closed:
            raise no_database()
        return await self._writer.write(operation)

    def _committed(self, counters: Counters) -> None:
        changed = counters.update_seq != self.counters.update_seq
        self.counters = counters
        if changed:
            self._wake()

    def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        for future in waiting:
            if not future.done():
                future.set_result(None)

    async def changed_after(self, seq: int, timeout: float) -> bool:
        """Wait until something was written after `seq`; False after `timeout` seconds, or when the database goes."""
        if self.counters.update_seq > seq:
            return True
        if self.closed:
            return False
        future = asyncio.get_running_loop().create_future()
        self._waiting.add(future)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(future, timeout)
        self._waiting.discard(future)
        return self.counters.update_seq > seq and not self.closed

    def seq_text(self, seq: int) -> str:
        """A sequence as clients see it: opaque, and tied to this database's own life."""
        return f"{seq}-{self.token}"

    def parse_seq(self, text: str) -> int | None:
        """What `seq_text` gave. A sequence of another database (deleted and made again, restored) starts at 0,
        because seeing a change twice does less harm than never. None if it is no sequence at all."""
        if text in ("0", ""):
            return 0
        match = re.fullmatch(r"([0-9]{1,20})-([0-9a-z]+)", text)
        if match is None:
            return None
        seq = int(match[1])
        return seq if match[2] == self.token and self._is_given_out(seq) else 0

    def _is_given_out(self, seq: int) -> bool:
        """Asked of the file where need be: readers see a commit, and give out its numbers, before the event loop hears
        of it."""
        if seq <= self.counters.update_seq:
            return True
        (newest,) = self.near().execute("SELECT update_seq FROM counters").fetchone()
        return seq <= int(newest)

    async def set_security(self, security: dict[str, Any]) -> None:
        """Replace the `_security` object."""
        await self._set_meta("security", security)
        self.security = security

    async def set_revs_limit(self, limit: int) -> None:
        """Remember `limit` revision ids of each document from its next change on."""
        await self._set_meta("revs_limit", limit)
        self._writer.revs_limit = limit

    async def set_purged_infos_limit(self, limit: int) -> None:
        """Keep the number; indexes take note of purges whatever it says."""
        await self._set_meta("purged_infos_limit", limit)
        self.purged_infos_limit = limit

    async def _set_meta(self, name: str, value: object) -> None:
        text = json.dumps(value)
        await self.write(lambda tx: tx.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (name, text)).rowcount)

    def index(self, functions: ViewFunctions) -> Index:
        """The view index for these functions; design documents with equal views share it."""
        index = self._indexes.get(functions.signature)
        if index is None:
            index = Index(self, functions, self._views_folder() / f"{functions.signature}.sqlite")
            self._indexes[functions.signature] = index
        return index

    def clean_views(self, wanted: set[str]) -> None:
        """Remove the indexes whose signature no design document has any more."""
        for path in self._views_folder().glob("*.sqlite"):
            if path.stem not in wanted:
                index = self._indexes.pop(path.stem, None)
                if index is not None:
                    index.close()
                for file in path.parent.glob(f"{path.stem}.sqlite*"):
                    file.unlink(missing_ok=True)

    async def compact(self) -> None:
        """Forget the bodies of former revisions."""
        await self.write(lambda tx: tx.execute("DELETE FROM superseded").rowcount)

    def size(self) -> int:
        """Bytes on disk."""
        return self.path.stat().st_size

    def _views_folder(self) -> Path:
        return self.path.with_suffix(".views")

    async def close(self) -> None:
        """Finish the writes that were asked for and close the files."""
        self.closed = True
        await asyncio.to_thread(self._writer.stop)
        for index in self._indexes.values():
            await asyncio.to_thread(index.close)
        self._near.close()
        self._readers.close()
        self._wake()

    async def delete(self) -> None:
        """Close the database and remove its files."""
        await self.close()
        for suffix in ("-wal", "-shm", ""):  # cut short, it leaves no log without its file
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        shutil.rmtree(self._views_folder(), ignore_errors=True)


def _check_whole(path: Path) -> None:
    """Raise DatabaseError for a file that is lost while the log of its last writes is there. SQLite would remove that,
    and begin an empty database that nobody asked for."""
    log = path.with_name(f"{path.name}-wal")
    if _size(log) and not _size(path):
        raise sqlite3.DatabaseError(f"{path.name} is {'empty' if path.exists() else 'gone'}, and {log.name} is not")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _create(connection: sqlite3.Connection) -> None:
    """The tables of a new database, in one transaction: a crash leaves a whole database or an empty file."""
    meta = {"token": secrets.token_hex(8), "security": DEFAULT_SECURITY, "revs_limit": DEFAULT_REVS_LIMIT}
    connection.executescript(f"BEGIN; {revisions.SCHEMA} {revisions.BRANCHES}")
    connection.executemany(
        "INSERT INTO meta VALUES (?, ?)", [(name, json.dumps(value)) for name, value in meta.items()]
    )
    connection.execute("PRAGMA user_version = 2")
    connection.execute("COMMIT")
