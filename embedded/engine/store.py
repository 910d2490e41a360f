"""The data directory: its databases, its configuration, and the lock that keeps a second server out."""

from __future__ import annotations

import fcntl
import os
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, unquote

from embedded.engine.config import Config
from embedded.engine.database import Database
from embedded.errors import CouchError, no_database

SYSTEM_DATABASES = ("_users", "_replicator", "_global_changes")
# Threads that read, and threads that bring indexes up to date: apart, so that a long update holds up no reader.
READERS = 6
INDEXERS = 2


class DataInUse(Exception):
    """Another server works on the data directory."""


def check_name(name: str) -> None:
    """Raise 400 unless CouchDB would take it as a database's name."""
    if name in SYSTEM_DATABASES:
        return
    if not re.fullmatch(r"[a-z][a-z0-9_$()+/-]*", name):
        raise CouchError(
            400,
            "illegal_database_name",
            f"Name: '{name}'. Only lowercase characters (a-z), digits (0-9), and any of the characters "
            "_, $, (, ), +, -, and / are allowed. Must begin with a letter.",
        )
    if len(name.encode()) > 238:
        raise CouchError(400, "database_name_too_long", f"At least one path segment of `{name}` is too long.")


class Store:
    """All databases of one data directory. Made and used in the event loop."""

    def __init__(self, folder: Path) -> None:
        """Raises DataInUse when another process has the directory."""
        self._databases_folder = folder / "databases"
        self._databases_folder.mkdir(parents=True, exist_ok=True)
        self._lock = _lock(folder / "lock")
        self.config = Config(folder / "config.json")
        self.readers = ThreadPoolExecutor(READERS, thread_name_prefix="reader")
        self.indexers = ThreadPoolExecutor(INDEXERS, thread_name_prefix="indexer")
        self._open: dict[str, Database] = {}
        self._deleting: set[str] = set()
        if "_users" not in self.names():
            self.create("_users")

    def _path(self, name: str) -> Path:
        return self._databases_folder / f"{quote(name, safe='')}.sqlite"

    def names(self) -> list[str]:
        """The names of all databases, in order."""
        return sorted(unquote(path.stem) for path in self._databases_folder.glob("*.sqlite"))

    def database(self, name: str) -> Database:
        """An existing database. Raises 404."""
        database = self._open.get(name)
        if database is None:
            path = self._path(name)
            if name in self._deleting or not path.exists():
                raise no_database()
            database = self._open[name] = Database(name, path, self.readers, self.indexers)
        return database

    def create(self, name: str) -> None:
        """Make a database. Raises 412 when it is there."""
        check_name(name)
        path = self._path(name)
        if path.exists():
            raise CouchError(412, "file_exists", "The database could not be created, the file already exists.")
        self._open[name] = Database(name, path, self.readers, self.indexers)

    async def delete(self, name: str) -> None:
        """Remove a database with all that is in it. Raises 404."""
        database = self.database(name)
        self._deleting.add(name)
        del self._open[name]
        try:
            await database.delete()
        finally:
            self._deleting.discard(name)

    async def close(self) -> None:
        """Finish all writes, close all files, and let the directory go."""
        for database in self._open.values():
            await database.close()
        self.readers.shutdown()
        self.indexers.shutdown()
        os.close(self._lock)


def _lock(path: Path) -> int:
    """Hold the lock file until the process ends, whichever way it ends."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise DataInUse(
            f"Another embedded store is running on {path.parent}. Stop it, or give this one its own --data directory."
        ) from error
    return file
