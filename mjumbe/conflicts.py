"""Documents that were written in two places: what became of a message in one of them counts in both.

CHT's app keeps documents on phones and brings its edits when there is network. Where the document has changed meanwhile
CouchDB keeps both revisions, shows one of them to everybody, and names the other in `_conflicts`. The one that it shows
may be the phone's, in which a message that went out hours ago is still `scheduled`.

The conflict itself stays: what else differs is for people to decide.
"""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from mjumbe import states
from mjumbe.couch import Database
from mjumbe.documents import TASK_LISTS, Document, date_of, is_incoming, message_of, tasks_of
from mjumbe.states import Task

log = structlog.get_logger(__name__)

SETTLED = "settled_conflicts"  # the revisions that a document was compared with; each is looked at once
SEEN = "transitions"
IsSame = Callable[[Task, Task], bool]
WRITTEN = ("message_key", "message", "recipient", "type", "group")  # what the author of a task says, and nobody changes


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
        _part(doc)
        _part(other)
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
    named = {(doc["_id"], doc["_rev"]) for pair in pairs for doc in pair}
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


def _listed(doc: Document, name: str) -> list[Any]:
    tasks = doc.get(name)
    return tasks if isinstance(tasks, list) else []


def _part(doc: Document) -> None:
    """Make of a task with several messages one for each, as the sentinel does when it falls due: on one side that is
    done perhaps."""
    for name in TASK_LISTS:
        if isinstance(doc.get(name), list):
            doc[name] = [single for task in doc[name] for single in _singles(task)]


def _singles(task: Any) -> list[Any]:
    given = task.get("messages") if isinstance(task, dict) else None
    messages = [message for message in given if isinstance(message, dict)] if isinstance(given, list) else []
    if len(messages) < 2:
        return [task]
    return [{**copy.deepcopy(task), "messages": [message]} for message in messages]


def _take_tasks(doc: Document, other: Document, fork: Document | None) -> int:
    """Take the tasks that were added to the other revision since both went apart at `fork`; of how many.

    Where that is not known any more, they may as well have been taken out of this one; then only with the marks of the
    transitions that made them, if these have not seen this one. So it is with an answer to somebody, which may have
    been made on both sides.
    """
    is_seen_there_only = _take_marks(doc, other)
    missing = _missing(doc, other)
    if fork is not None:
        _part(fork)
        missing = {name: _added(fork, other, name, tasks) for name, tasks in missing.items()}
    if not is_seen_there_only and (fork is None or is_incoming(doc)):
        waiting = sum(states.of(task) in states.DUE for tasks in missing.values() for task in tasks)
        if waiting:
            log.warning("messages of a conflicting revision are not sent", doc=doc["_id"], rev=other["_rev"], n=waiting)
        return 0
    for name, tasks in missing.items():
        if tasks:
            doc[name] = [*_listed(doc, name), *tasks]
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
    return {name: _pair(doc, other, name)[1] for name in TASK_LISTS}


def _added(fork: Document, other: Document, name: str, tasks: list[Task]) -> list[Task]:
    """Of these tasks of the other revision those that were not there yet, not even to another day."""
    added = _pair(fork, other, name, _says_it)[1]
    return [task for task in tasks if any(task is one for one in added)]


def _take_states(doc: Document, other: Document) -> int:
    """Take what the other revision says more of what became of the document's messages; of how many."""
    now, taken = states.now(), 0
    for name in TASK_LISTS:
        for ours, theirs in _pair(doc, other, name)[0]:
            _share_uuid(ours, theirs)
            taken += states.take_over(ours, theirs, now, str(other["_rev"]))
    return taken


def _share_uuid(ours: Task, theirs: Task) -> None:
    """A message has one uuid, by which the outbox may hold it already: that of the side where it fell due."""
    said, written = message_of(ours), message_of(theirs)
    for task, own, other in ((ours, said, written), (theirs, written, said)):
        if other.get("uuid") and not own.get("uuid"):
            task["messages"] = [{**other, **own, "uuid": other["uuid"]}]


def _pair(doc: Document, other: Document, name: str, *more: IsSame) -> tuple[list[tuple[Task, Task]], list[Task]]:
    """Of the list `name` the tasks that are the same in both revisions, and the other's that have no counterpart.

    A message is known by its uuid, which it gets when it falls due: without, by what it says, for its place changes
    with the tasks before it; and by its place and its day, for somebody may have corrected what it says. Without a day
    there they are two messages, which were added on two phones.
    """
    ours = {place: task for place, task in enumerate(_listed(doc, name)) if isinstance(task, dict)}
    theirs = {place: task for place, task in enumerate(_listed(other, name)) if isinstance(task, dict)}
    pairs: list[tuple[Task, Task]] = []
    for is_same in (_has_uuid_of, _says_the_same, _is_to_the_same_day, *more):
        for place, task in list(theirs.items()):
            among = [place] if is_same is _is_to_the_same_day else list(ours)
            found = next((at for at in among if at in ours and is_same(ours[at], task)), None)
            if found is not None:
                pairs.append((ours.pop(found), theirs.pop(place)))
    return pairs, list(theirs.values())


def _has_uuid_of(ours: Task, theirs: Task) -> bool:
    message_uuid = message_of(theirs).get("uuid")
    return bool(message_uuid) and message_of(ours).get("uuid") == message_uuid


def _may_be(ours: Task, theirs: Task) -> bool:
    """Whether they may be one task, on one side without its uuid yet. A date that is missing, or that nobody can read,
    is written into it when it is first seen."""
    if message_of(ours).get("uuid") and message_of(theirs).get("uuid"):
        return False
    return len({date_of(ours, {}), date_of(theirs, {})} - {None}) < 2


def _is_to_the_same_day(ours: Task, theirs: Task) -> bool:
    return _may_be(ours, theirs) and date_of(ours, {}) == date_of(theirs, {}) is not None


def _says_the_same(ours: Task, theirs: Task) -> bool:
    """Whether it is the same to the same day. What is made of a template may have fallen due on both sides at once, and
    got a uuid on each."""
    if _has_template(ours) and date_of(ours, {}) == date_of(theirs, {}) is not None:
        return _says_it(ours, theirs)
    return _may_be(ours, theirs) and _says_it(ours, theirs)


def _says_it(ours: Task, theirs: Task) -> bool:
    """Whether their authors wrote the same; a message that was made of a template is not its author's."""
    if any(ours.get(name) != theirs.get(name) for name in WRITTEN):
        return False
    said, written = message_of(ours), message_of(theirs)
    if _has_template(ours) or not said or not written:
        return True
    return all(said.get(name) == written.get(name) for name in ("to", "message"))


def _has_template(task: Task) -> bool:
    return bool(task.get("message_key") or task.get("message"))
