"""Hand a message over, and watch what becomes of a document's messages."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import Any

from mjumbe import states
from mjumbe.couch import Database
from mjumbe.documents import Document, new_task, outgoing_document, tasks_of
from mjumbe.states import NOT_SENT, State

FINAL = NOT_SENT | {State.DELIVERED}
PAUSES = (0.03, 0.03, 0.05, 0.05, 0.1, 0.1, 0.2, 0.3)  # seconds between two looks at a document; the last repeats


def hand_over(database: Database, to: str, text: str, **facts: Any) -> Document:
    """Write the document of a message, due now, with `facts` in its task; returns it. Raises UnavailableError."""
    now = states.now()
    doc = outgoing_document(new_task(to, text, now, **facts), now, None)
    database.put(doc)
    return doc


def versions(
    database: Database, doc_id: str, seconds: float, stopped: Callable[[], bool] = lambda: False
) -> Iterator[Document]:
    """The document as it is, and again whenever it is another, for so many seconds. Raises UnavailableError.

    It is looked at again and again: the timeout of CouchDB's longpoll with a filter begins anew with every change of
    any other document (keep_sending_changes in fabric_view_changes.erl), so on a busy database that would never end.
    """
    deadline, rev = time.monotonic() + seconds, None
    for pause in chain(PAUSES, repeat(PAUSES[-1])):
        doc = database.get(doc_id)
        if doc is not None and doc["_rev"] != rev:
            rev = doc["_rev"]
            yield doc
        left = deadline - time.monotonic()
        if left <= 0 or stopped():
            return
        time.sleep(min(pause, left))


def follow(database: Database, doc_id: str, seconds: float, say: Callable[[dict[str, Any]], None]) -> bool:
    """Call `say` with each new entry of the histories of the document's tasks, of each in their order: several
    machines write them, each by its own clock.

    Returns True once all tasks are delivered; False when one ended otherwise, or when `seconds` are over.
    """
    said: Counter[int] = Counter()  # of each task, by its place
    for doc in versions(database, doc_id, seconds):
        tasks = list(tasks_of(doc))
        for place, task in enumerate(tasks):
            entries = states.history(task)
            for entry in entries[said[place] :]:
                say(entry)
            said[place] = len(entries)
        if tasks and all(states.of(task) in FINAL for task in tasks):
            return all(states.of(task) is State.DELIVERED for task in tasks)
    return False
