"""Edits: documents are read, changed and written in bulk, and again where somebody else wrote first."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mjumbe.conflicts import settle
from mjumbe.couch import Database, Saved, TooFewError, standing
from mjumbe.documents import Document

CONFLICT_ROUNDS = 20

Edit = Callable[[Document], bool]
"""Changes a document in place; answers whether there is anything to write. Called again, on the newer revision,
when somebody else wrote first."""


@dataclass(slots=True)
class Update:
    """What became of one document that was edited: its newest content, None when it does not exist.

    `error` says why CouchDB did not take the change.
    """

    doc: Document | None
    written: bool = False
    error: str | None = None


def edits_of(edits: Iterable[tuple[str, Edit]]) -> dict[str, Edit]:
    """What `apply_edits` takes: for each document's id one edit that makes all of its own, in their order."""
    by_doc: dict[str, list[Edit]] = {}
    for doc_id, edit in edits:
        by_doc.setdefault(doc_id, []).append(edit)
    return {doc_id: partial(_make_all, several) for doc_id, several in by_doc.items()}


def _make_all(edits: Sequence[Edit], doc: Document) -> bool:
    return sum(edit(doc) for edit in edits) > 0


def apply_edits(
    database: Database,
    edits: Mapping[str, Edit],
    known: Mapping[str, Document] | None = None,
    *,
    create: bool = False,
    surely: bool = False,
) -> dict[str, Update]:
    """Apply each edit to the newest revision of its document, all in bulk, until none meets a conflict. What revisions
    beside it know of messages is brought into it before (mjumbe/conflicts.py), and is written with it.

    `known` may hold documents just read, to save the first read (the edits change them in place). Returns what
    became of each id: a document that CouchDB refuses, or that is still contended after CONFLICT_ROUNDS rounds,
    has its `error` and keeps nobody else from being written. With `create`, an edit of a document that does not
    exist gets one with nothing but its `_id`. With `surely`, raises TooFewError when fewer than half of a document's
    nodes stored its change: in a cluster that is cut in two, the other half may make another of it. All are to be made
    again then. Raises what `database` raises.
    """
    current = dict(known or {})
    overtaken: dict[str, Document] = {}
    outcome: dict[str, Update] = {}
    waiting = list(edits)
    for _ in range(CONFLICT_ROUNDS):
        current |= database.fetch([doc_id for doc_id in waiting if doc_id not in current])
        current |= overtaken  # which by that read all nodes have now (read repair)
        settled = settle(database, [current[doc_id] for doc_id in waiting if doc_id in current])
        changed = []
        for doc_id in waiting:
            doc = current.get(doc_id, {"_id": doc_id} if create else None)
            if doc is not None and (edits[doc_id](doc) or doc_id in settled):
                changed.append(doc)
            else:
                outcome[doc_id] = Update(doc)
        answers = database.bulk(changed)
        overtaken = _overtaken(database, answers)
        if surely and any(saved.by_few and saved.id not in overtaken for saved in answers):
            raise TooFewError
        for doc, saved in zip(changed, answers, strict=True):
            if saved.id in overtaken:
                continue
            if saved.rev:
                doc["_rev"] = saved.rev
                outcome[doc["_id"]] = Update(doc, written=True)
            elif not saved.conflict:
                outcome[doc["_id"]] = Update(doc, error=f"{saved.error}: {saved.reason}")
        current = {}
        waiting = [doc_id for doc_id in waiting if doc_id not in outcome]
        if not waiting:
            break
    contended = {doc_id: Update(None, error="others keep writing it") for doc_id in waiting}
    return outcome | contended


def _overtaken(database: Database, answers: Iterable[Saved]) -> dict[str, Document]:
    """Of these writes, those that another was made beside, though one node or more stored them: the documents as they
    are by that other, in conflict with ours.

    In a cluster each node takes the write that reaches it first, and whoever reached the fewer is answered
    `accepted` (force_reply in fabric_doc_update.erl), as when the others are down. Which of the two everybody is shown
    does not tell who reached more.
    """
    stored = {saved.id: saved.rev for saved in answers if saved.by_few and saved.rev}
    found: dict[str, Document] = {}
    for doc_id, leaves in database.leaves(*stored).items():
        ours = stored[doc_id]
        beside = [doc for doc in leaves if doc["_rev"] != ours and standing(doc["_rev"])[0] >= standing(ours)[0]]
        if beside:
            others = [doc["_rev"] for doc in leaves if doc is not beside[0]]
            found[doc_id] = {**beside[0], **({"_conflicts": others} if others else {})}
    return found
