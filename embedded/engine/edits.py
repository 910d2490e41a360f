"""Writing documents inside one database file: edits, copies of others' edits, purges, `_local` documents."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from embedded.engine import revisions
from embedded.engine.revisions import Document
from embedded.engine.writer import Transaction
from embedded.errors import CouchError, conflict

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


def _next_rev(edit: Edit, previous: str | None) -> str:
    """Equal edits of equal revisions get equal ids, as in CouchDB; the hash itself is our own."""
    generation = int(previous.partition("-")[0]) if previous else 0
    seed = f"{edit.deleted} {previous} {edit.body}"
    return f"{generation + 1}-{hashlib.md5(seed.encode(), usedforsecurity=False).hexdigest()}"


def write(tx: Transaction, edit: Edit) -> str:
    """Store an edit and return the new revision id. Raises 409 unless it was made from the current revision, or from
    one that conflicts with it.

    A deleted document may be written without a revision; its numbering goes on.
    """
    found = tx.execute(
        "SELECT rev, deleted, number, history FROM documents JOIN bodies USING (number) WHERE id = ?", (edit.id,)
    ).fetchone()
    if found is None:
        if edit.parent is not None:
            raise conflict()
        rev = _next_rev(edit, None)
        _insert(tx, Document(edit.id, rev, edit.deleted, edit.body))
        return rev
    current, was_deleted, number, history = found
    parent = current if edit.parent is None and was_deleted and not edit.deleted else edit.parent
    if parent != current or edit.deleted:
        leaves = {leaf.rev: leaf for leaf in revisions.leaves(tx, edit.id)}
        if parent not in leaves:
            raise conflict()
        if len(leaves) > 1:
            line = ",".join(rev.partition("-")[2] for rev in leaves[parent].revisions())
            return graft(tx, Document(edit.id, _next_rev(edit, parent), edit.deleted, edit.body, history=line))
    rev = _next_rev(edit, current)
    _supersede(tx, number, current, was_deleted)
    tx.execute(
        "UPDATE documents SET seq = ?, rev = ?, deleted = ? WHERE id = ?", (tx.next_seq(), rev, edit.deleted, edit.id)
    )
    hashes = [current.partition("-")[2], *filter(None, history.split(","))][: tx.revs_limit - 1]
    tx.execute("UPDATE bodies SET body = ?, history = ? WHERE number = ?", (edit.body, ",".join(hashes), number))
    tx.count(documents=bool(was_deleted) - edit.deleted, deleted=edit.deleted - bool(was_deleted))
    return rev


def _insert(tx: Transaction, doc: Document) -> None:
    """Store the first revision that is known of a document."""
    number = tx.execute("INSERT INTO bodies (history, body) VALUES (?, ?)", (doc.history, doc.body)).lastrowid
    tx.execute("INSERT INTO documents VALUES (?, ?, ?, ?, ?)", (doc.id, tx.next_seq(), doc.rev, doc.deleted, number))
    tx.count(documents=not doc.deleted, deleted=doc.deleted)


def _supersede(tx: Transaction, number: int, rev: str, deleted: int) -> None:
    """Put the current body among the former ones."""
    place = tx.execute(
        "INSERT INTO superseded (number, rev, deleted, body) SELECT number, ?, ?, body FROM bodies WHERE number = ?",
        (rev, deleted, number),
    ).lastrowid
    _trim(tx, place)


def _trim(tx: Transaction, place: int | None) -> None:
    """Remove the oldest of the former bodies, when one was put at `place` among them."""
    if place and place % SUPERSEDED_SPARE == 0:
        tx.execute("DELETE FROM superseded WHERE place <= ?", (place - SUPERSEDED_KEPT,))


def graft(tx: Transaction, doc: Document) -> str:
    """Store a revision as it is, and return its id: at the end of the line that it goes on from, else as a conflict.
    One that is known already changes nothing."""
    before = revisions.leaves(tx, doc.id)
    line = doc.revisions()
    if not before:
        _insert(tx, _stemmed(tx, doc))
    elif not any(doc.rev in leaf.revisions() for leaf in before):
        parent = next((leaf.rev for leaf in before if leaf.rev in line), None)
        grafted = _stemmed(tx, _rooted(doc, before))
        _put_leaves(tx, before, [*(leaf for leaf in before if leaf.rev != parent), grafted])
    return doc.rev


def _stemmed(tx: Transaction, doc: Document) -> Document:
    """The revision with as much of its history as is kept."""
    return replace(doc, history=",".join(doc.history.split(",")[: tx.revs_limit - 1]))


def _rooted(doc: Document, before: Sequence[Document]) -> Document:
    """The revision with what is known here of what came before the oldest that it names."""
    oldest = doc.revisions()[-1]
    line = next((revs for leaf in before if oldest in (revs := leaf.revisions())), [oldest])
    older = [rev.partition("-")[2] for rev in line[line.index(oldest) + 1 :]]
    return replace(doc, history=",".join(filter(None, [doc.history, *older])))


def _put_leaves(tx: Transaction, before: Sequence[Document], after: Sequence[Document]) -> None:
    """Store the leaves that a document has now: the best of them is the document."""
    doc_id, current = before[0].id, before[0]
    (number,) = tx.execute("SELECT number FROM documents WHERE id = ?", (doc_id,)).fetchone()
    best, *others = sorted(after, key=lambda leaf: leaf.rank, reverse=True)
    still = {leaf.rev for leaf in after}
    for leaf in before:
        if leaf.rev not in still:
            place = tx.execute(
                "INSERT INTO superseded (number, rev, deleted, body) VALUES (?, ?, ?, ?)",
                (number, leaf.rev, leaf.deleted, leaf.body),
            ).lastrowid
            _trim(tx, place)
    tx.execute("DELETE FROM branches WHERE id = ?", (doc_id,))
    tx.executemany(
        "INSERT INTO branches VALUES (?, ?, ?, ?, ?)",
        [(doc_id, leaf.rev, leaf.deleted, leaf.history, leaf.body) for leaf in others],
    )
    tx.execute(
        "UPDATE documents SET seq = ?, rev = ?, deleted = ? WHERE id = ?",
        (tx.next_seq(), best.rev, best.deleted, doc_id),
    )
    tx.execute("UPDATE bodies SET body = ?, history = ? WHERE number = ?", (best.body, best.history, number))
    tx.count(documents=current.deleted - best.deleted, deleted=best.deleted - current.deleted)


def write_all(tx: Transaction, edits: Iterable[Edit | Document | CouchError]) -> list[str | CouchError]:
    """Store what can be stored, a Document as it is from elsewhere: the new revision or the error of each, in order.
    Errors given are passed on."""
    results: list[str | CouchError] = []
    for edit in edits:
        if isinstance(edit, CouchError):
            results.append(edit)
            continue
        try:
            results.append(graft(tx, edit) if isinstance(edit, Document) else write(tx, edit))
        except CouchError as error:
            results.append(error)
    return results


def purge(tx: Transaction, wanted: dict[str, list[str]]) -> dict[str, list[str]]:
    """Remove the leaves that are named, and the document with the last of them; returns what was purged of each."""
    purged: dict[str, list[str]] = {}
    for doc_id, revs in wanted.items():
        before = revisions.leaves(tx, doc_id)
        after = [leaf for leaf in before if leaf.rev not in revs]
        purged[doc_id] = [leaf.rev for leaf in before if leaf.rev in revs]
        if after and purged[doc_id]:
            _put_leaves(tx, before, after)
            _forget_bodies(tx, before, after)
        elif purged[doc_id]:
            _remove(tx, before[0])
    tx.execute("DELETE FROM purges WHERE seq <= ?", (tx.counters.purge_seq - PURGES_KEPT,))
    return purged


def _forget_bodies(tx: Transaction, before: Iterable[Document], after: Iterable[Document]) -> None:
    """Remove what was purged, and what came before it alone."""
    left = {rev for leaf in after for rev in leaf.revisions()}
    tx.executemany(
        "DELETE FROM superseded WHERE number = (SELECT number FROM documents WHERE id = ?) AND rev = ?",
        [(leaf.id, rev) for leaf in before for rev in leaf.revisions() if rev not in left],
    )


def _remove(tx: Transaction, doc: Document) -> None:
    (number,) = tx.execute("SELECT number FROM documents WHERE id = ?", (doc.id,)).fetchone()
    tx.execute("DELETE FROM documents WHERE id = ?", (doc.id,))
    tx.execute("DELETE FROM bodies WHERE number = ?", (number,))
    tx.execute("DELETE FROM superseded WHERE number = ?", (number,))
    tx.execute("DELETE FROM branches WHERE id = ?", (doc.id,))
    tx.execute("INSERT INTO purges VALUES (?, ?)", (tx.next_purge(), doc.id))
    tx.count(documents=-(not doc.deleted), deleted=-bool(doc.deleted))


def write_local(tx: Transaction, doc_id: str, rev: str, body: str) -> None:
    """Store a `_local` document. CouchDB does not compare its revision, it only counts on from the one given."""
    tx.execute("INSERT OR REPLACE INTO local VALUES (?, ?, ?)", (doc_id, rev, body))


def delete_local(tx: Transaction, doc_id: str) -> bool:
    """Remove a `_local` document; False if there was none."""
    return tx.execute("DELETE FROM local WHERE id = ?", (doc_id,)).rowcount > 0
