"""Watch what becomes of a document's messages."""

import time
from collections.abc import Callable
from typing import Any

from mjumbe import states
from mjumbe.couch import Couch, Document
from mjumbe.documents import tasks_of
from mjumbe.states import NEVER_SENT, State

FINAL = NEVER_SENT | {State.DELIVERED, State.FAILED}


def follow(couch: Couch, doc_id: str, seconds: float, say: Callable[[dict[str, Any]], None]) -> bool:
    """Call `say` with each new entry of the histories of the document's tasks.

    Returns True once all tasks are delivered; False when one ended otherwise, or when `seconds` are over.
    """
    deadline, said, since = time.monotonic() + seconds, 0, "0"
    while time.monotonic() < deadline:
        changes = couch.main.changes(since, limit=10, wait=1.0, doc_ids=[doc_id])
        since = changes.last_seq
        for change in changes.changes:
            tasks = list(tasks_of(change.doc or {}))
            entries = sorted(_entries(tasks), key=lambda entry: str(entry.get("timestamp")))
            for entry in entries[said:]:
                say(entry)
            said = len(entries)
            if tasks and all(states.of(task) in FINAL for task in tasks):
                return all(states.of(task) is State.DELIVERED for task in tasks)
    return False


def _entries(tasks: list[Document]) -> list[Document]:
    return [entry for task in tasks for entry in states.history(task)]
