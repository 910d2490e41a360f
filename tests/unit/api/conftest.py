"""An API on databases in memory: no network, no processes."""

import copy
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import app as app_module
from api.app import create_app
from mjumbe import settings
from mjumbe.config import Config
from mjumbe.couch import ConflictError, Couch, Database, Saved, UnavailableError
from mjumbe.documents import Document


class MemoryDatabase(Database):
    """A database without views. `away` makes every call fail; `lose_answers` of bulk writes that were done."""

    def __init__(self, name: str) -> None:
        super().__init__(cast(Couch, SimpleNamespace()), name)
        self.docs: dict[str, Document] = {}
        self.bulks: list[int] = []
        self.away = False
        self.lose_answers = 0

    def _here(self) -> None:
        if self.away:
            raise UnavailableError("away")

    def get(self, doc_id: str) -> Document | None:
        self._here()
        return copy.deepcopy(self.docs.get(doc_id))

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        [saved] = self.bulk([doc])
        if saved.rev is None:
            raise ConflictError(409, "conflict")
        return saved.rev

    def bulk(self, docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        self._here()
        self.bulks.append(len(docs))
        saved = [self._save(json.loads(json.dumps(doc))) for doc in docs]
        if self.lose_answers:
            self.lose_answers -= 1
            raise UnavailableError("the answer was lost")
        return saved

    def _save(self, doc: Document) -> Saved:
        present = self.docs.get(doc["_id"], {}).get("_rev")
        if present != doc.get("_rev"):
            return Saved(doc["_id"], None, "conflict", "Document update conflict.")
        doc["_rev"] = f"{int((present or '0').partition('-')[0]) + 1}-x"
        self.docs[doc["_id"]] = doc
        return Saved(doc["_id"], doc["_rev"])

    def delete(self, doc_id: str, rev: str) -> None:
        self._here()
        assert self.docs.pop(doc_id)["_rev"] == rev

    def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        self._here()
        return {doc_id: copy.deepcopy(self.docs[doc_id]) for doc_id in ids if doc_id in self.docs}

    def beginning_with(self, prefix: str, after: str = "", limit: int | None = None) -> list[Document]:
        self._here()
        found = [doc for doc_id, doc in sorted(self.docs.items()) if doc_id.startswith(prefix) and doc_id > after]
        return copy.deepcopy(found[:limit])


class MemoryCouch:
    """The four databases, and users by name: (password, roles)."""

    def __init__(self) -> None:
        self.name = "medic"
        self.main, self.vault, self.sentinel, self.callbacks = self.databases = tuple(
            MemoryDatabase(name) for name in ("medic", "medic-vault", "medic-sentinel", "medic-callbacks")
        )
        self.main.docs["settings"] = {"_id": "settings", "_rev": "1-x", "settings": settings.load_defaults()}
        self.users = {"Basic YWRtaW46cHc=": ("admin", ("_admin",)), "Basic cDpw": ("p", ("gateway",))}
        self.logins: list[Mapping[str, str]] = []

    def impatient(self, read_timeout: float) -> "MemoryCouch":
        return self

    def session_of(self, headers: Mapping[str, str]) -> tuple[str | None, tuple[str, ...]]:
        self.logins.append(headers)
        return self.users.get(headers.get("Authorization") or headers.get("Cookie") or "", (None, ()))

    def config(self, section: str, key: str) -> str | None:
        return None


@pytest.fixture
def memory() -> MemoryCouch:
    return MemoryCouch()


@pytest.fixture
def database() -> MemoryDatabase:
    return MemoryDatabase("medic")


@pytest.fixture
def app(memory: MemoryCouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flask]:
    """An app whose CouchDB is in memory and needs no preparation."""
    monkeypatch.setattr("mjumbe.setup.prepare", lambda couch: None)
    config = Config(couch_url="http://nobody.invalid/medic", data=tmp_path, vault_key="a passphrase for tests")
    app = create_app(config, cast(Couch, memory))
    yield app
    app.extensions[app_module.EXTENSION].intake.close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()
