"""A database in memory, as far as all unit tests need one."""

import copy
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from mjumbe.couch import ConflictError, Couch, Database, Saved, UnavailableError
from mjumbe.documents import Document


class MemoryDatabase(Database):
    """Documents with revisions. `away` makes every call fail."""

    def __init__(self, name: str = "medic") -> None:
        super().__init__(cast(Couch, None), name)
        self.docs: dict[str, Document] = {}
        self.away = False
        self._revs = itertools.count(1)

    def _ask(self) -> None:
        if self.away:
            raise UnavailableError("CouchDB is away")

    def store(self, *docs: Mapping[str, Any]) -> None:
        """Somebody else's write: whatever revision is there."""
        for doc in docs:
            self.docs[doc["_id"]] = {**copy.deepcopy(dict(doc)), "_rev": f"{next(self._revs)}-x"}

    def get(self, doc_id: str) -> Document | None:
        self._ask()
        return copy.deepcopy(self.docs.get(doc_id))

    def leaves(self, *ids: str) -> dict[str, list[Document]]:
        return {doc_id: [doc] for doc_id, doc in self.fetch(ids).items()}

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        self._ask()
        if (self.docs.get(doc["_id"]) or {}).get("_rev") != doc.get("_rev"):
            raise ConflictError(409, "Document update conflict.")
        self.store(doc)
        return str(self.docs[doc["_id"]]["_rev"])

    def delete(self, doc_id: str, rev: str) -> None:
        self._ask()
        if self.docs[doc_id]["_rev"] != rev:
            raise ConflictError(409, "Document update conflict.")
        del self.docs[doc_id]

    def bulk(self, docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        self._ask()
        return [self._save(doc) for doc in docs]

    def _save(self, doc: Mapping[str, Any]) -> Saved:
        try:
            return Saved(doc["_id"], self.put(doc))
        except ConflictError:
            return Saved(doc["_id"], None, "conflict", "Document update conflict.")

    def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        self._ask()
        return {doc_id: copy.deepcopy(self.docs[doc_id]) for doc_id in dict.fromkeys(ids) if doc_id in self.docs}

    def beginning_with(self, prefix: str, after: str = "", limit: int | None = None) -> list[Document]:
        self._ask()
        found = [doc for doc_id, doc in sorted(self.docs.items()) if doc_id.startswith(prefix) and doc_id > after]
        return copy.deepcopy(found[:limit])
