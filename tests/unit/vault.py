"""The part of a CouchDB that the vault uses, in memory, and a vault on it."""

import base64
from collections.abc import Iterable, Mapping
from typing import Any, cast

from mjumbe.couch import Couch
from mjumbe.credentials import Vault, VaultKeys
from mjumbe.documents import Document
from tests.unit import memory

INCOMING = "africastalking.com:incoming"
FIRST_KEY = base64.urlsafe_b64encode(b"1" * 32).decode()


class MemoryDatabase(memory.MemoryDatabase):
    """Its readings are counted; `interfere` makes the next writes conflict."""

    def __init__(self) -> None:
        super().__init__("medic-vault")
        self.reads = 0
        self.interfere = 0

    def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        self.reads += 1
        return super().fetch(ids)

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        stored = self.docs.get(doc["_id"])
        if self.interfere and stored:
            self.interfere -= 1
            stored["_rev"] += "x"
        return super().put(doc)


class MemoryCouch:
    """The part of Couch that the vault uses."""

    def __init__(self) -> None:
        self.configuration: dict[tuple[str, str], str] = {}
        self.vault = MemoryDatabase()

    def config(self, section: str) -> dict[str, str]:
        self.vault.get("")  # raises as all of it does
        return {key: value for (place, key), value in self.configuration.items() if place == section}

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
