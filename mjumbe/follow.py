"""Watch what becomes of a document's messages."""

import time
from collections.abc import Callable, Iterator
from typing import Any

from mjumbe import states
from mjumbe.couch import Database, Document
from mjumbe.documents import tasks_of
from mjumbe.states import NEVER_SENT, State

FINAL = NEVER_SENT | {State.DELIVERED, State.FAILED}
LOOK_SECONDS = 1.0  # how long one call waits for a change


def place(database: Database) -> str:
    """Where the feed is now: from here on `versions` need not read what was before."""
    return str(database.info()["update_seq"])


def versions(
    database: Database, doc_id: str, since: str, seconds: float, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Document]:
    """The document as it is after each change that follows `since` (a `place`), for so many seconds."""
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and not stopped():
        changes = database.changes(since, limit=10, wait=min(left, LOOK_SECONDS), doc_ids=[doc_id])
        since = changes.last_seq
        yield from (change.doc for change in changes.changes if change.doc)


def follow(database: Database, doc_id: str, since: str, seconds: float, say: Callable[[dict[str, Any]], None]) -> bool:
    """Call `say` with each new entry of the histories of the document's tasks.

    Returns True once all tasks are delivered; False when one ended otherwise, or when `seconds` are over.
    """
    said = 0
    for doc in versions(database, doc_id, since, seconds):
        tasks = list(tasks_of(doc))
        entries = sorted(_entries(tasks), key=lambda entry: str(entry.get("timestamp")))
        for entry in entries[said:]:
            say(entry)
        said = len(entries)
        if tasks and all(states.of(task) in FINAL for task in tasks):
            return all(states.of(task) is State.DELIVERED for task in tasks)
    return False


def _entries(tasks: list[Document]) -> list[Document]:
    return [entry for task in tasks for entry in states.history(task)]
