"""An API on databases in memory: no network, no processes."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import app as app_module
from api.app import create_app
from mjumbe import settings
from mjumbe.config import Config
from mjumbe.couch import Couch, Saved, UnavailableError
from tests.unit import memory


class MemoryDatabase(memory.MemoryDatabase):
    """Its bulk writes are counted; `lose_answers` of them are done, and fail."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.bulks: list[int] = []
        self.lose_answers = 0

    def bulk(self, docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        saved = super().bulk(json.loads(json.dumps(docs)))
        self.bulks.append(len(docs))
        if self.lose_answers:
            self.lose_answers -= 1
            raise UnavailableError("the answer was lost")
        return saved


class MemoryCouch:
    """The four databases, and users by name: (password, roles)."""

    def __init__(self) -> None:
        self.name = "medic"
        self.main, self.vault, self.sentinel, self.callbacks = self.databases = tuple(
            MemoryDatabase(name) for name in ("medic", "medic-vault", "medic-sentinel", "medic-callbacks")
        )
        self.main.store({"_id": "settings", "settings": settings.load_defaults()})
        self.users = {"Basic YWRtaW46cHc=": ("admin", ("_admin",)), "Basic cDpw": ("p", ("gateway",))}
        self.logins: list[Mapping[str, str]] = []

    def impatient(self, read_timeout: float) -> "MemoryCouch":
        return self

    def session_of(self, headers: Mapping[str, str]) -> tuple[str | None, tuple[str, ...]]:
        self.logins.append(headers)
        return self.users.get(headers.get("Authorization") or headers.get("Cookie") or "", (None, ()))

    def config(self, section: str) -> dict[str, str]:
        return {}


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
