"""Documents inside one database file, and reading their revisions.

Nearly every document has one line of revisions. One that was written in two places has several after a replication:
the best of their leaves is the document as everybody sees it, the others are its conflicts. A body is one JSON text
without `_id` and `_rev`, so that an answer is put together without parsing anything.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from embedded.errors import bad_request

SCHEMA = """
CREATE TABLE documents (
    id TEXT PRIMARY KEY,           -- in the order of _all_docs: plain bytes
    seq INTEGER NOT NULL,          -- when it last changed
    rev TEXT NOT NULL,             -- the current revision, "3-<32 hex>"
    deleted INTEGER NOT NULL,
    number INTEGER NOT NULL        -- its row in bodies
) WITHOUT ROWID;
CREATE UNIQUE INDEX changes ON documents (seq, rev, deleted, number);
CREATE TABLE bodies (
    number INTEGER PRIMARY KEY,
    history TEXT NOT NULL,         -- hashes of the former revisions, newest first, joined by commas
    body TEXT NOT NULL
);
CREATE TABLE superseded (          -- bodies of former revisions, as many as SUPERSEDED_KEPT
    place INTEGER PRIMARY KEY AUTOINCREMENT,
    number INTEGER NOT NULL,
    rev TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    body TEXT NOT NULL
);
CREATE INDEX superseded_by_document ON superseded (number);
CREATE TABLE local (id TEXT PRIMARY KEY, rev TEXT NOT NULL, body TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE purges (seq INTEGER PRIMARY KEY, id TEXT NOT NULL);
CREATE TABLE counters (update_seq INTEGER, doc_count INTEGER, deleted_count INTEGER, purge_seq INTEGER);
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES (0, 0, 0, 0);
"""
BRANCHES = """
CREATE TABLE branches (            -- the leaves of documents beside the one that is in documents
    id TEXT NOT NULL,
    rev TEXT NOT NULL,
    deleted INTEGER NOT NULL,
    history TEXT NOT NULL,
    body TEXT NOT NULL,
    PRIMARY KEY (id, rev)
) WITHOUT ROWID;
"""


IS_DESIGN = "(id > '_design/' AND id < '_design0')"  # SQL; 0 comes after /


@dataclass(frozen=True, slots=True)
class Document:
    """One revision of a document, as stored."""

    id: str
    rev: str
    deleted: bool
    body: str
    seq: int = 0
    history: str = ""

    def json(self, extra: dict[str, object] | None = None) -> str:
        """The document as CouchDB answers it; `extra` holds further underscore fields."""
        fields: dict[str, object] = {"_id": self.id, "_rev": self.rev}
        if self.deleted:
            fields["_deleted"] = True
        if extra:
            fields |= extra
        head = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
        return head if self.body == "{}" else f"{head[:-1]},{self.body[1:]}"

    def revisions(self) -> list[str]:
        """All known revision ids of this document up to this one, newest first."""
        generation, _, newest = self.rev.partition("-")
        hashes = [newest, *filter(None, self.history.split(","))]
        return [f"{int(generation) - age}-{digest}" for age, digest in enumerate(hashes)]

    @property
    def rank(self) -> tuple[bool, int, str]:
        """Of a document's leaves that with the highest is the document (couch_doc:to_doc_info)."""
        generation, _, digest = self.rev.partition("-")
        return not self.deleted, int(generation), digest


class Reading(Protocol):
    """A connection, or a transaction, which reads what it has written."""

    def execute(self, sql: str, parameters: Any = ..., /) -> sqlite3.Cursor: ...


def parse_rev(rev: object) -> str:
    """A revision id as a client gave it. Raises 400 unless it is `N-<hash>`, N of at most 20 digits."""
    if isinstance(rev, str):
        generation, dash, digest = rev.partition("-")
        if dash and re.fullmatch("[0-9]{1,20}", generation) and digest:
            return f"{int(generation)}-{digest}"
    raise bad_request("Invalid rev format")


def read_local(connection: sqlite3.Connection, doc_id: str) -> Document | None:
    """A `_local` document."""
    found = connection.execute("SELECT rev, body FROM local WHERE id = ?", (doc_id,)).fetchone()
    return Document(doc_id, found[0], False, found[1]) if found else None


def read(connection: Reading, doc_id: str) -> Document | None:
    """The current revision of a document, which may be a deleted one; None if there never was one."""
    found = connection.execute(
        "SELECT rev, deleted, body, seq, history FROM documents JOIN bodies USING (number) WHERE id = ?", (doc_id,)
    ).fetchone()
    return Document(doc_id, found[0], bool(found[1]), *found[2:]) if found else None


def leaves(connection: Reading, doc_id: str) -> list[Document]:
    """The document and its conflicts, deleted ones too, the best first; empty if there never was one."""
    current = read(connection, doc_id)
    if current is None:
        return []
    return [current, *_others(connection, doc_id)]


def _others(connection: Reading, doc_id: str) -> list[Document]:
    rows = connection.execute("SELECT rev, deleted, body, history FROM branches WHERE id = ?", (doc_id,))
    found = [Document(doc_id, rev, bool(deleted), body, 0, history) for rev, deleted, body, history in rows]
    return sorted(found, key=lambda leaf: leaf.rank, reverse=True)


def other_leaves(connection: Reading, wanted: bool = True) -> Callable[[str], list[Document]]:
    """Looks up a document's leaves beside the best, the better first; finds none unless they are `wanted`. Most
    databases have none: that is asked once."""
    if not wanted or not connection.execute("SELECT EXISTS (SELECT 1 FROM branches)").fetchone()[0]:
        return lambda doc_id: []
    return lambda doc_id: _others(connection, doc_id)


def read_rev(connection: sqlite3.Connection, doc_id: str, rev: str) -> Document | None:
    """One revision of a document, if its body is still there."""
    known = leaves(connection, doc_id)
    for leaf in known:
        if leaf.rev == rev:
            return leaf
    found = connection.execute(
        "SELECT s.deleted, s.body FROM documents d JOIN superseded s USING (number) WHERE d.id = ? AND s.rev = ?",
        (doc_id, rev),
    ).fetchone()
    line = next((revs for leaf in known if rev in (revs := leaf.revisions())), None)
    if found is None or line is None:
        return None
    older = [one.partition("-")[2] for one in line[line.index(rev) + 1 :]]
    return Document(doc_id, rev, bool(found[0]), found[1], 0, ",".join(older))


def available_revs(connection: sqlite3.Connection, doc_id: str) -> dict[str, str]:
    """The revisions of a document whose bodies are there, each with `available` or `deleted`."""
    rows = connection.execute(
        "SELECT rev, deleted FROM documents WHERE id = :id UNION ALL "
        "SELECT rev, deleted FROM branches WHERE id = :id UNION ALL "
        "SELECT s.rev, s.deleted FROM documents d JOIN superseded s USING (number) WHERE d.id = :id",
        {"id": doc_id},
    )
    return {rev: "deleted" if deleted else "available" for rev, deleted in rows}


Conflicts = Callable[[str], dict[str, object]]
"""The field `_conflicts` of the document with an id, as CouchDB adds it: the other leaves that are not deleted."""


def conflicts(connection: sqlite3.Connection, wanted: bool = True, *, deleted: bool = False) -> Conflicts:
    """Looks them up; finds nothing unless they are `wanted`.

    With `deleted` there is the field `_deleted_conflicts` for the other leaves that are.
    """
    if not wanted:
        return lambda doc_id: {}
    others = other_leaves(connection)
    named = {False: "_conflicts", True: "_deleted_conflicts"} if deleted else {False: "_conflicts"}

    def of(doc_id: str) -> dict[str, object]:
        leaves = others(doc_id)
        found = {name: [leaf.rev for leaf in leaves if leaf.deleted == kind] for kind, name in named.items()}
        return {name: revs for name, revs in found.items() if revs}

    return of
