"""One thread per database that writes, and commits what many requests want to write in one transaction.

A commit costs an fsync, whatever is in it. So the thread takes everything that is waiting, applies each request's
operation inside its own savepoint, commits once, and only then tells the requests: an answered write is on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

T = TypeVar("T")

# More than this in one transaction only makes the first of them wait longer.
GROUP_LIMIT = 256


@dataclass(frozen=True, slots=True)
class Counters:
    """What a database knows of itself without counting."""

    update_seq: int = 0
    doc_count: int = 0
    deleted_count: int = 0
    purge_seq: int = 0


class Transaction:
    """What a write operation sees: the connection, and the counters as they will be if the transaction commits."""

    def __init__(self, connection: sqlite3.Connection, counters: Counters, revs_limit: int) -> None:
        self.execute = connection.execute
        self.executemany = connection.executemany
        self.counters = counters
        self.revs_limit = revs_limit

    def count(self, documents: int = 0, deleted: int = 0) -> None:
        """Note that so many more documents are there, or deleted."""
        now = self.counters
        self.counters = replace(now, doc_count=now.doc_count + documents, deleted_count=now.deleted_count + deleted)

    def next_seq(self) -> int:
        """The next number in the order of changes."""
        self.counters = replace(self.counters, update_seq=self.counters.update_seq + 1)
        return self.counters.update_seq

    def next_purge(self) -> int:
        """The next number in the order of purges."""
        self.counters = replace(self.counters, purge_seq=self.counters.purge_seq + 1)
        return self.counters.purge_seq


class Writer:
    """Applies operations in the order in which they come, in groups. Made and used in one event loop."""

    def __init__(
        self, connection: sqlite3.Connection, counters: Counters, revs_limit: int, committed: Callable[[Counters], None]
    ) -> None:
        """`committed` is called in the event loop after each commit, before the requests hear of it."""
        self._connection = connection
        self._counters = counters
        self.revs_limit = revs_limit
        self._committed = committed
        self._loop = asyncio.get_running_loop()
        self._waiting: queue.SimpleQueue[tuple[Any, asyncio.Future[Any]] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="writer", daemon=True)
        self._thread.start()

    async def write(self, operation: Callable[[Transaction], T]) -> T:
        """Run `operation` in the next transaction; returns its result when it is on disk, or raises what it raised."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._waiting.put((operation, future))
        return await future

    def stop(self) -> None:
        """Commit what was asked for and end the thread. Call it off the event loop."""
        self._waiting.put(None)
        self._thread.join()
        self._connection.close()

    def _run(self) -> None:
        stopping = False
        while not stopping:
            group = [self._waiting.get()]
            while len(group) < GROUP_LIMIT:
                try:
                    group.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            stopping = None in group
            requests = [request for request in group if request is not None]
            if requests:
                self._commit(requests)

    def _commit(self, requests: list[tuple[Any, asyncio.Future[Any]]]) -> None:
        """One transaction for all `requests`; when it cannot be committed all of them fail with its error."""
        outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]] = []
        transaction = Transaction(self._connection, self._counters, self.revs_limit)
        try:
            transaction.execute("BEGIN IMMEDIATE")
            for operation, future in requests:
                outcomes.append((future, *self._apply(transaction, operation)))
            now = transaction.counters
            if now != self._counters:
                transaction.execute(
                    "UPDATE counters SET update_seq = ?, doc_count = ?, deleted_count = ?, purge_seq = ?",
                    (now.update_seq, now.doc_count, now.deleted_count, now.purge_seq),
                )
            transaction.execute("COMMIT")
            self._counters = now
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                transaction.execute("ROLLBACK")
            outcomes = [(future, None, error) for _, future in requests]
        self._loop.call_soon_threadsafe(self._deliver, self._counters, outcomes)

    @staticmethod
    def _apply(transaction: Transaction, operation: Callable[[Transaction], Any]) -> tuple[Any, Exception | None]:
        """Run one operation so that its failure leaves nothing behind and touches no other request."""
        before = transaction.counters
        transaction.execute("SAVEPOINT request")
        try:
            result, failure = operation(transaction), None
        except sqlite3.OperationalError:
            raise  # the disk is full or broken: nothing of this transaction can be trusted
        except Exception as error:
            result, failure = None, error
            transaction.execute("ROLLBACK TO request")
            transaction.counters = before
        transaction.execute("RELEASE request")
        return result, failure

    def _deliver(
        self, counters: Counters, outcomes: list[tuple[asyncio.Future[Any], Any, BaseException | None]]
    ) -> None:
        self._committed(counters)
        for future, result, failure in outcomes:
            if future.done():  # the client has gone away
                continue
            if failure is None:
                future.set_result(result)
            else:
                future.set_exception(failure)
