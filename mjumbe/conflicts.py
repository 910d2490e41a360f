"""Documents that were written in two places: what became of a message in one of them counts in both.

CHT's app keeps documents on phones and brings its edits when there is network. Where the document has changed meanwhile
CouchDB keeps both revisions, shows one of them to everybody, and names the other in `_conflicts`. The one that it shows
may be the phone's, in which a message that went out hours ago is still `scheduled`.

The conflict itself stays: what else differs is for people to decide.
"""

from collections.abc import Iterator, Sequence

import structlog

from mjumbe import states
from mjumbe.couch import Database
from mjumbe.documents import TASK_LISTS, Document, date_of, find_task, is_incoming, message_of, tasks_of
from mjumbe.states import Task

log = structlog.get_logger(__name__)

SETTLED = "settled_conflicts"  # the revisions that a document was compared with; each is looked at once
SEEN = "transitions"


def settle(database: Database, docs: Sequence[Document]) -> set[str]:
    """Bring what conflicting revisions know of messages into these documents, in place; their `_conflicts` go.

    Returns the ids of those that are to be written. Raises UnavailableError.
    """
    torn = {doc["_id"]: doc for doc in docs if "_conflicts" in doc}
    named = [(doc_id, rev) for doc_id, doc in torn.items() for rev in doc.pop("_conflicts") if rev not in _settled(doc)]
    changed = set()
    for other in database.read_revisions(named):
        doc = torn[other["_id"]]
        if not (_is_ours(doc) or _is_ours(other)):
            continue
        taken = _take_marks(doc, other) + _take_states(doc, other)
        doc[SETTLED] = [*_settled(doc), other["_rev"]]
        changed.add(doc["_id"])
        if taken:
            log.info("a conflicting revision knew more of messages", doc=doc["_id"], rev=other["_rev"], messages=taken)
    return changed


def _settled(doc: Document) -> list[str]:
    known = doc.get(SETTLED)
    return known if isinstance(known, list) else []


def _is_ours(doc: Document) -> bool:
    return is_incoming(doc) or any(True for _ in tasks_of(doc))


def _places(doc: Document) -> Iterator[tuple[str, int, Task]]:
    """Every task of a document, with its list and its place there."""
    for name in TASK_LISTS:
        tasks = doc.get(name)
        for place, task in enumerate(tasks if isinstance(tasks, list) else ()):
            if isinstance(task, dict):
                yield name, place, task


def _take_marks(doc: Document, other: Document) -> int:
    """Where only the other revision was seen by transitions, take their marks and the tasks that they made: else the
    person is answered twice."""
    marks, theirs = doc.get(SEEN), other.get(SEEN)
    known = marks if isinstance(marks, dict) else {}
    if not isinstance(theirs, dict) or theirs.keys() <= known.keys():
        return 0
    doc[SEEN] = {**theirs, **known}
    missing = [(name, task) for name, place, task in _places(other) if _counterpart(doc, name, place, task) is None]
    for name, task in missing:
        here = doc.get(name)
        doc[name] = [*(here if isinstance(here, list) else ()), task]
    return len(missing)


def _take_states(doc: Document, other: Document) -> int:
    """Take what the other revision says more of what became of the document's messages; of how many."""
    now, rev = states.now(), str(other["_rev"])
    pairs = [(_counterpart(doc, *place), place[2]) for place in _places(other)]
    return sum(states.take_over(ours, theirs, now, rev) for ours, theirs in pairs if ours is not None)


def _counterpart(doc: Document, name: str, place: int, theirs: Task) -> Task | None:
    """The document's task with the same message; one that has no message yet is known by its place and its date."""
    message_uuid = message_of(theirs).get("uuid")
    if message_uuid and (found := find_task(doc, message_uuid)):
        return found
    here = next((task for list_name, at, task in _places(doc) if (list_name, at) == (name, place)), None)
    if here is None or message_of(here).get("uuid") or date_of(here, {}) != date_of(theirs, {}):
        return None
    return here
