"""Writing and reading documents inside one database file: revisions, deletions, purges, `_local` documents.

A document has one line of revisions, because conflicting ones can only come from replication, which is not spoken. Its
current body is one JSON text without `_id` and `_rev`, so that an answer is put together without parsing anything.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass

from embedded.engine.writer import Transaction
from embedded.errors import CouchError, bad_request, conflict

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

# CouchDB keeps former bodies until it compacts, which it does by itself from time to time. So do we, always.
SUPERSEDED_KEPT = 10_000
SUPERSEDED_SPARE = 100  # so many more at most: they are removed by so many at once
# For the indexes, which hear of what was purged when they are asked next. CouchDB keeps 1,000, and what an index has
# not heard of yet; here an index that comes too late is built anew.
PURGES_KEPT = 10_000


@dataclass(frozen=True, slots=True)
class Edit:
    """A wish to write one document: `parent` is the revision it was made from, None for a new document."""

    id: str
    parent: str | None
    deleted: bool
    body: str


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
        head = json.dumps(fields | (extra or {}), ensure_ascii=False, separators=(",", ":"))
        return head if self.body == "{}" else f"{head[:-1]},{self.body[1:]}"

    def revisions(self) -> list[str]:
        """All known revision ids of this document up to this one, newest first."""
        generation, _, newest = self.rev.partition("-")
        hashes = [newest, *filter(None, self.history.split(","))]
        return [f"{int(generation) - age}-{digest}" for age, digest in enumerate(hashes)]


def parse_rev(rev: object) -> str:
    """A revision id as a client gave it. Raises 400 unless it is `N-<hash>`."""
    if isinstance(rev, str):
        generation, dash, digest = rev.partition("-")
        if dash and generation.isdecimal() and generation.isascii() and digest:
            return f"{int(generation)}-{digest}"
    raise bad_request("Invalid rev format")


def _next_rev(edit: Edit, previous: str | None) -> str:
    """Equal edits of equal revisions get equal ids, as in CouchDB; the hash itself is our own."""
    generation = int(previous.partition("-")[0]) if previous else 0
    seed = f"{edit.deleted} {previous} {edit.body}"
    return f"{generation + 1}-{hashlib.md5(seed.encode(), usedforsecurity=False).hexdigest()}"


def write(tx: Transaction, edit: Edit) -> str:
    """Store an edit and return the new revision id. Raises 409 unless it was made from the current revision.

    A deleted document may be written without a revision; its numbering goes on.
    """
    found = tx.execute(
        "SELECT rev, deleted, number, history FROM documents JOIN bodies USING (number) WHERE id = ?", (edit.id,)
    ).fetchone()
    if found is None:
        if edit.parent is not None:
            raise conflict()
        rev = _next_rev(edit, None)
        number = tx.execute("INSERT INTO bodies (history, body) VALUES ('', ?)", (edit.body,)).lastrowid
        tx.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", (edit.id, tx.next_seq(), rev, edit.deleted, number))
        tx.count(documents=not edit.deleted, deleted=edit.deleted)
        return rev
    current, was_deleted, number, history = found
    if edit.parent != current and not (edit.parent is None and was_deleted and not edit.deleted):
        raise conflict()
    rev = _next_rev(edit, current)
    _supersede(tx, number, current, was_deleted)
    tx.execute(
        "UPDATE documents SET seq = ?, rev = ?, deleted = ? WHERE id = ?", (tx.next_seq(), rev, edit.deleted, edit.id)
    )
    hashes = [current.partition("-")[2], *filter(None, history.split(","))][: tx.revs_limit - 1]
    tx.execute("UPDATE bodies SET body = ?, history = ? WHERE number = ?", (edit.body, ",".join(hashes), number))
    tx.count(documents=bool(was_deleted) - edit.deleted, deleted=edit.deleted - bool(was_deleted))
    return rev


def _supersede(tx: Transaction, number: int, rev: str, deleted: int) -> None:
    """Put the current body among the former ones."""
    place = tx.execute(
        "INSERT INTO superseded (number, rev, deleted, body) SELECT number, ?, ?, body FROM bodies WHERE number = ?",
        (rev, deleted, number),
    ).lastrowid
    if place and place % SUPERSEDED_SPARE == 0:
        tx.execute("DELETE FROM superseded WHERE place <= ?", (place - SUPERSEDED_KEPT,))


def write_all(tx: Transaction, edits: Iterable[Edit | CouchError]) -> list[str | CouchError]:
    """Store what can be stored: the new revision or the error of each, in order. Errors given are passed on."""
    results: list[str | CouchError] = []
    for edit in edits:
        if isinstance(edit, CouchError):
            results.append(edit)
            continue
        try:
            results.append(write(tx, edit))
        except CouchError as error:
            results.append(error)
    return results


def purge(tx: Transaction, wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    """Remove documents whose current revision is named, wholly; returns what was purged of each."""
    purged: dict[str, list[str]] = {}
    for doc_id, revs in wanted.items():
        found = tx.execute("SELECT rev, deleted, number FROM documents WHERE id = ?", (doc_id,)).fetchone()
        purged[doc_id] = []
        if found is None or found[0] not in revs:
            continue
        rev, deleted, number = found
        tx.execute("DELETE FROM documents WHERE id = ?", (doc_id,))
        tx.execute("DELETE FROM bodies WHERE number = ?", (number,))
        tx.execute("DELETE FROM superseded WHERE number = ?", (number,))
        tx.execute("INSERT INTO purges VALUES (?, ?)", (tx.next_purge(), doc_id))
        tx.count(documents=-(not deleted), deleted=-bool(deleted))
        purged[doc_id] = [rev]
    tx.execute("DELETE FROM purges WHERE seq <= ?", (tx.counters.purge_seq - PURGES_KEPT,))
    return purged


def write_local(tx: Transaction, doc_id: str, rev: str, body: str) -> None:
    """Store a `_local` document. CouchDB does not compare its revision, it only counts on from the one given."""
    tx.execute("INSERT OR REPLACE INTO local VALUES (?, ?, ?)", (doc_id, rev, body))


def delete_local(tx: Transaction, doc_id: str) -> bool:
    """Remove a `_local` document; False if there was none."""
    return tx.execute("DELETE FROM local WHERE id = ?", (doc_id,)).rowcount > 0


def read_local(connection: sqlite3.Connection, doc_id: str) -> Document | None:
    """A `_local` document."""
    found = connection.execute("SELECT rev, body FROM local WHERE id = ?", (doc_id,)).fetchone()
    return Document(doc_id, found[0], False, found[1]) if found else None


def read(connection: sqlite3.Connection, doc_id: str) -> Document | None:
    """The current revision of a document, which may be a deleted one; None if there never was one."""
    found = connection.execute(
        "SELECT rev, deleted, body, seq, history FROM documents JOIN bodies USING (number) WHERE id = ?", (doc_id,)
    ).fetchone()
    return Document(doc_id, found[0], bool(found[1]), *found[2:]) if found else None


def read_rev(connection: sqlite3.Connection, doc_id: str, rev: str) -> Document | None:
    """One revision of a document, if its body is still there."""
    current = read(connection, doc_id)
    if current is None or current.rev == rev:
        return current
    found = connection.execute(
        "SELECT s.deleted, s.body FROM documents d JOIN superseded s USING (number) WHERE d.id = ? AND s.rev = ?",
        (doc_id, rev),
    ).fetchone()
    known = current.revisions()
    if found is None or rev not in known:
        return None
    older = [one.partition("-")[2] for one in known[known.index(rev) + 1 :]]
    return Document(doc_id, rev, bool(found[0]), found[1], 0, ",".join(older))


def available_revs(connection: sqlite3.Connection, doc_id: str) -> dict[str, str]:
    """The revisions of a document whose bodies are there, each with `available` or `deleted`."""
    rows = connection.execute(
        "SELECT rev, deleted FROM documents WHERE id = :id UNION ALL "
        "SELECT s.rev, s.deleted FROM documents d JOIN superseded s USING (number) WHERE d.id = :id",
        {"id": doc_id},
    )
    return {rev: "deleted" if deleted else "available" for rev, deleted in rows}
