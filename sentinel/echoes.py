"""Our own writes come back in the changes, where nothing is to be done about them again."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from mjumbe.conflicts import SETTLED
from mjumbe.couch import Database
from mjumbe.documents import Document
from mjumbe.edits import Edit, Update, apply_edits

REMEMBERED = 20_000


class Echoes:
    """Writes documents whose changes the feed may pass over: who writes here has done all that follows. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revisions: OrderedDict[str, str] = OrderedDict()  # of what we wrote and did not hear of yet, by id
        # Documents with conflicts. CouchDB takes a write to each of their revisions, so what we have of one may not be
        # the document any more; and a change of another revision than ours comes under the name of ours.
        self._torn: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def update(
        self, edits: Mapping[str, Edit], known: Mapping[str, Document] | None = None, *, surely: bool = False
    ) -> dict[str, Update]:
        """As `apply_edits`; a document with conflicts is read anew, whatever is `known` of it."""
        with self._lock:
            sure = {doc_id: doc for doc_id, doc in (known or {}).items() if doc_id not in self._torn}
        updates = apply_edits(self._database, edits, sure, surely=surely)
        with self._lock:
            for doc_id, update in updates.items():
                if update.doc is not None and SETTLED in update.doc:
                    _remember(self._torn, doc_id, None)
                if update.written and update.doc is not None:
                    _remember(self._revisions, doc_id, update.doc["_rev"])
        return updates

    def is_one(self, doc_id: str, rev: str) -> bool:
        """Whether this is the document as we wrote it last."""
        with self._lock:
            return self._revisions.get(doc_id) == rev

    def heard(self, doc_id: str, rev: str) -> bool:
        """As `is_one`; what is one will not be asked for again."""
        with self._lock:
            if self._revisions.get(doc_id) != rev:
                return False
            del self._revisions[doc_id]
            return doc_id not in self._torn


def _remember(ids: OrderedDict[str, Any], doc_id: str, value: Any) -> None:
    """The newest REMEMBERED are kept."""
    ids[doc_id] = value
    ids.move_to_end(doc_id)
    while len(ids) > REMEMBERED:
        ids.popitem(last=False)
