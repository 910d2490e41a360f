"""Our own writes come back in the changes, where nothing is to be done about them again."""

import threading
from collections import OrderedDict
from collections.abc import Mapping

from mjumbe.couch import Database
from mjumbe.documents import Document
from mjumbe.edits import Edit, Update, apply_edits

REMEMBERED = 20_000


class Echoes:
    """Writes documents whose changes the feed may pass over: who writes here has done all that follows. Thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._revisions: OrderedDict[str, str] = OrderedDict()  # of what we wrote and did not hear of yet, by id
        self._lock = threading.Lock()

    def update(self, edits: Mapping[str, Edit], known: Mapping[str, Document] | None = None) -> dict[str, Update]:
        """As `apply_edits`."""
        updates = apply_edits(self._database, edits, known)
        with self._lock:
            for doc_id, update in updates.items():
                if update.written and update.doc is not None:
                    self._revisions[doc_id] = update.doc["_rev"]
                    self._revisions.move_to_end(doc_id)
            while len(self._revisions) > REMEMBERED:
                self._revisions.popitem(last=False)
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
            return True
