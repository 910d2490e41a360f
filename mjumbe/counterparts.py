"""Which tasks of two revisions of a document are the same message."""

from collections.abc import Callable
from typing import Any

from mjumbe.documents import TASK_LISTS, Document, date_of, message_of, singles
from mjumbe.states import Task

IsSame = Callable[[Task, Task], bool]
WRITTEN = ("message_key", "message", "recipient", "type", "group")  # what the author of a task says, and nobody changes


def listed(doc: Document, name: str) -> list[Any]:
    """The document's list of tasks `name`; others write anything there and in it."""
    tasks = doc.get(name)
    return tasks if isinstance(tasks, list) else []


def part(doc: Document) -> None:
    """Make of a task with several messages one for each, as the sentinel does when it falls due: on one side that is
    done perhaps."""
    for name in TASK_LISTS:
        if isinstance(doc.get(name), list):
            doc[name] = [single for task in doc[name] for single in _parted(task)]


def _parted(task: Any) -> list[Any]:
    parts = singles(task) if isinstance(task, dict) else []
    return parts if len(parts) > 1 else [task]


def pair(doc: Document, other: Document, name: str, *more: IsSame) -> tuple[list[tuple[Task, Task]], list[Task]]:
    """Of the list `name` the tasks that are the same in both revisions, and the other's that have no counterpart.

    A message is known by its uuid, which it gets when it falls due: without, by what it says, for its place changes
    with the tasks before it; and by its place and its day, for somebody may have corrected what it says. Without a day
    there they are two messages, which were added on two phones.
    """
    ours = {place: task for place, task in enumerate(listed(doc, name)) if isinstance(task, dict)}
    theirs = {place: task for place, task in enumerate(listed(other, name)) if isinstance(task, dict)}
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
        return says_it(ours, theirs)
    return _may_be(ours, theirs) and says_it(ours, theirs)


def says_it(ours: Task, theirs: Task) -> bool:
    """Whether their authors wrote the same; a message that was made of a template is not its author's."""
    if any(ours.get(name) != theirs.get(name) for name in WRITTEN):
        return False
    said, written = message_of(ours), message_of(theirs)
    if _has_template(ours) or not said or not written:
        return True
    return all(said.get(name) == written.get(name) for name in ("to", "message"))


def _has_template(task: Task) -> bool:
    return bool(task.get("message_key") or task.get("message"))
