"""Connections to one SQLite file for reading: as many as there are readers, each seeing one state of the file."""

from __future__ import annotations

import contextlib
import queue
import sqlite3
from collections.abc import Iterator
from pathlib import Path


def connect(path: Path, synchronous: str) -> sqlite3.Connection:
    """A connection in autocommit mode that any one thread at a time may use."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=60)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA synchronous = {synchronous}")
    connection.execute("PRAGMA cache_size = -4096")
    return connection


class Readers:
    """A pool of reading connections; for any thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: queue.LifoQueue[sqlite3.Connection] = queue.LifoQueue()
        self._closed = False

    @contextlib.contextmanager
    def borrow(self) -> Iterator[sqlite3.Connection]:
        """A connection inside a read transaction, so that several queries see the same state."""
        try:
            connection = self._idle.get_nowait()
        except queue.Empty:
            connection = connect(self._path, "FULL")
        try:
            connection.execute("BEGIN")
            yield connection
        finally:
            connection.rollback()
            self._idle.put(connection)
            if self._closed:
                self.close()

    def close(self) -> None:
        """Close what is idle now, and what comes back later."""
        self._closed = True
        with contextlib.suppress(queue.Empty):
            while True:
                self._idle.get_nowait().close()
