"""The part of a CouchDB that the vault uses, in memory, and a vault on it."""

import base64
import copy
import itertools
from collections.abc import Iterable, Mapping
from typing import Any, cast

from mjumbe.couch import ConflictError, Couch, Database, Saved, UnavailableError
from mjumbe.credentials import Vault, VaultKeys
from mjumbe.documents import Document

INCOMING = "africastalking.com:incoming"
FIRST_KEY = base64.urlsafe_b64encode(b"1" * 32).decode()


class MemoryDatabase(Database):
    """Documents with revisions in memory; `interfere` makes the next writes conflict."""

    docs: dict[str, Document]
    interfere: int

    def __init__(self, couch: "MemoryCouch") -> None:
        super().__init__(cast(Couch, couch), "medic-vault")
        self.docs = {}
        self.interfere = 0

    def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        self._server.reads += 1
        if self._server.away:
            raise UnavailableError("CouchDB is away")
        return {doc_id: copy.deepcopy(self.docs[doc_id]) for doc_id in dict.fromkeys(ids) if doc_id in self.docs}

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        stored = self.docs.get(doc["_id"])
        if self.interfere and stored:
            self.interfere -= 1
            stored["_rev"] += "x"
        if (stored or {}).get("_rev") != doc.get("_rev"):
            raise ConflictError(409, "Document update conflict.")
        rev = f"{next(self._server.revs)}-x"
        self.docs[doc["_id"]] = {**copy.deepcopy(dict(doc)), "_rev": rev}
        return rev

    def delete(self, doc_id: str, rev: str) -> None:
        if self.docs[doc_id]["_rev"] != rev:
            raise ConflictError(409, "Document update conflict.")
        del self.docs[doc_id]

    def beginning_with(self, prefix: str, after: str = "", limit: int | None = None) -> list[Document]:
        found = [doc for doc_id, doc in sorted(self.docs.items()) if doc_id.startswith(prefix) and doc_id > after]
        return copy.deepcopy(found[:limit])

    def bulk(self, docs: Any) -> list[Saved]:
        return [Saved(doc["_id"], self.put(doc)) for doc in docs]

    @property
    def _server(self) -> "MemoryCouch":
        return cast(MemoryCouch, self.couch)


class MemoryCouch:
    """The part of Couch that the vault uses."""

    def __init__(self) -> None:
        self.revs = itertools.count(1)
        self.reads = 0
        self.away = False
        self.configuration: dict[tuple[str, str], str] = {}
        self.vault = MemoryDatabase(self)

    def config(self, section: str, key: str) -> str | None:
        if self.away:
            raise UnavailableError("CouchDB is away")
        return self.configuration.get((section, key))

    def request(self, method: str, path: str) -> None:
        assert (method, path) == (
            "DELETE",
            "/_node/_local/_config/medic-credentials/africastalking.com%3Aincoming",
        )
        del self.configuration["medic-credentials", INCOMING]


def keys(*listed: str) -> VaultKeys:
    return VaultKeys.load(",".join(listed or (FIRST_KEY,)), "unused")


def vault_of(couch: MemoryCouch, *listed: str) -> Vault:
    return Vault(cast(Couch, couch), keys(*listed))
