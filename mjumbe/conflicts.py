"""Documents that were written in two places: what became of a message in one of them counts in both.

CHT's app keeps documents on phones and brings its edits when there is network. Where the document has changed meanwhile
CouchDB keeps both revisions, shows one of them to everybody, and names the other in `_conflicts`. The one that it shows
may be the phone's, in which a message that went out hours ago is still `scheduled`.

The conflict itself stays: what else differs is for people to decide.
"""

from collections.abc import Sequence

import structlog

from mjumbe import states
from mjumbe.couch import Database
from mjumbe.counterparts import listed, pair, part, says_it
from mjumbe.documents import TASK_LISTS, Document, is_incoming, message_of, tasks_of
from mjumbe.states import Task

log = structlog.get_logger(__name__)

SETTLED = "settled_conflicts"  # the revisions that a document was compared with; each is looked at once
SEEN = "transitions"


def settle(database: Database, docs: Sequence[Document]) -> set[str]:
    """Bring what conflicting revisions know of messages into these documents, in place; their `_conflicts` go.

    Returns the ids of those that are to be written. Raises UnavailableError.
    """
    torn = {doc["_id"]: doc for doc in docs if "_conflicts" in doc}
    standing = {doc_id: doc.pop("_conflicts") for doc_id, doc in torn.items()}
    named = [(doc_id, rev) for doc_id, revs in standing.items() for rev in revs if rev not in _settled(torn[doc_id])]
    pairs = [(torn[other["_id"]], other) for other in database.read_revisions(named)]
    pairs = [(doc, other) for doc, other in pairs if _is_ours(doc) or _is_ours(other)]
    for doc, other in pairs:
        part(doc)
        part(other)
    forks = _forks(database, [(doc, other) for doc, other in pairs if any(_missing(doc, other).values())])
    for doc, other in pairs:
        fork = forks.get((other["_id"], other["_rev"]))
        taken = _take_tasks(doc, other, fork) + _take_states(doc, other)
        doc[SETTLED] = [*(rev for rev in _settled(doc) if rev in standing[doc["_id"]]), other["_rev"]]
        if taken:
            log.info("a conflicting revision knew more of messages", doc=doc["_id"], rev=other["_rev"], messages=taken)
    return {doc["_id"] for doc, _ in pairs}


def _forks(database: Database, pairs: Sequence[tuple[Document, Document]]) -> dict[tuple[str, str], Document]:
    """What each document was when the two went apart, by its id and the other's revision. CouchDB has that until it
    compacts."""
    named = {(doc["_id"], doc["_rev"]) for both in pairs for doc in both}
    lines = {(found["_id"], found["_rev"]): _line(found) for found in database.read_revisions(sorted(named), revs=True)}
    places: dict[tuple[str, str], tuple[str, str]] = {}
    for doc, other in pairs:
        ours = set(lines.get((doc["_id"], doc["_rev"]), ()))
        common = next((rev for rev in lines.get((other["_id"], other["_rev"]), ()) if rev in ours), None)
        if common:
            places[other["_id"], other["_rev"]] = (other["_id"], common)
    found = {(fork["_id"], fork["_rev"]): fork for fork in database.read_revisions(sorted(set(places.values())))}
    return {key: found[place] for key, place in places.items() if place in found}


def _line(doc: Document) -> list[str]:
    """The revisions that led to this one, newest first."""
    known = doc["_revisions"]
    return [f"{known['start'] - age}-{digest}" for age, digest in enumerate(known["ids"])]


def _settled(doc: Document) -> list[str]:
    known = doc.get(SETTLED)
    return known if isinstance(known, list) else []


def _is_ours(doc: Document) -> bool:
    return is_incoming(doc) or any(True for _ in tasks_of(doc))


def _take_tasks(doc: Document, other: Document, fork: Document | None) -> int:
    """Take the tasks that were added to the other revision since both went apart at `fork`; of how many.

    Where that is not known any more, they may as well have been taken out of this one; then only with the marks of the
    transitions that made them, if these have not seen this one. So it is with an answer to somebody, which may have
    been made on both sides.
    """
    is_seen_there_only = _take_marks(doc, other)
    missing = _missing(doc, other)
    if fork is not None:
        part(fork)
        missing = {name: _added(fork, other, name, tasks) for name, tasks in missing.items()}
    if not is_seen_there_only and (fork is None or is_incoming(doc)):
        waiting = sum(states.of(task) in states.DUE for tasks in missing.values() for task in tasks)
        if waiting:
            log.warning("messages of a conflicting revision are not sent", doc=doc["_id"], rev=other["_rev"], n=waiting)
        return 0
    for name, tasks in missing.items():
        if tasks:
            doc[name] = [*listed(doc, name), *tasks]
    return sum(map(len, missing.values()))


def _take_marks(doc: Document, other: Document) -> bool:
    """Where only the other revision was seen by transitions, take their marks, lest they see to it a second time, and
    whom they found to be the sender; whether there were any."""
    marks, theirs = doc.get(SEEN), other.get(SEEN)
    known = marks if isinstance(marks, dict) else {}
    if not isinstance(theirs, dict) or theirs.keys() <= known.keys():
        return False
    doc[SEEN] = {**theirs, **known}
    if other.get("contact") and not doc.get("contact"):
        doc["contact"] = other["contact"]
    return True


def _missing(doc: Document, other: Document) -> dict[str, list[Task]]:
    """The other's tasks that have no counterpart here, by their list."""
    return {name: pair(doc, other, name)[1] for name in TASK_LISTS}


def _added(fork: Document, other: Document, name: str, tasks: list[Task]) -> list[Task]:
    """Of these tasks of the other revision those that were not there yet, not even to another day."""
    added = pair(fork, other, name, says_it)[1]
    return [task for task in tasks if any(task is one for one in added)]


def _take_states(doc: Document, other: Document) -> int:
    """Take what the other revision says more of what became of the document's messages; of how many."""
    now, taken = states.now(), 0
    for name in TASK_LISTS:
        for ours, theirs in pair(doc, other, name)[0]:
            _share_uuid(ours, theirs)
            taken += states.take_over(ours, theirs, now, str(other["_rev"]))
    return taken


def _share_uuid(ours: Task, theirs: Task) -> None:
    """A message has one uuid, by which the outbox may hold it already: that of the side where it fell due."""
    said, written = message_of(ours), message_of(theirs)
    for task, own, other in ((ours, said, written), (theirs, written, said)):
        if other.get("uuid") and not own.get("uuid"):
            task["messages"] = [{**other, **own, "uuid": other["uuid"]}]
