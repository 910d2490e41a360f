"""Callbacks into databases in memory: what is asked of CouchDB, and what goes wrong."""

from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import EXTENSION
from mjumbe.cached_vault import CachedVault
from mjumbe.couch import CouchError
from tests.unit.api.conftest import MemoryCouch, MemoryDatabase

PATH = "/api/v1/sms/africastalking/incoming-messages"
FORM = {"id": "1", "from": "0711000111", "text": "HELP"}


@pytest.fixture
def vault(app: Flask) -> CachedVault:
    vault: CachedVault = app.extensions[EXTENSION].vault
    vault.set("africastalking.com:incoming", "the-key")
    return vault


def test_a_callback_costs_one_write_and_nothing_else(
    app: Flask, client: FlaskClient, vault: CachedVault, memory: MemoryCouch, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.extensions[EXTENSION].settings.refresh()
    for name in ("get", "fetch", "beginning_with"):
        monkeypatch.setattr(type(memory.main), name, lambda *_, **__: pytest.fail("a read"))
    answer = client.post(PATH, query_string={"key": "the-key"}, data=FORM)
    assert (answer.status_code, answer.json) == (200, {"saved": 1})
    assert memory.main.bulks == [1]


def test_a_sender_is_read_by_the_country_of_the_settings(
    client: FlaskClient, vault: CachedVault, memory: MemoryCouch
) -> None:
    memory.main.docs["settings"] |= {"_rev": "2-x", "settings": {"default_country_code": "256"}}
    client.application.extensions[EXTENSION].settings.refresh()
    client.post(PATH, query_string={"key": "the-key"}, data={**FORM, "from": "0772000111"})
    assert memory.main.docs["incoming:africas-talking:1"]["from"] == "+256772000111"


def test_couchdb_away(client: FlaskClient, vault: CachedVault, memory: MemoryCouch) -> None:
    memory.main.away = True
    answer = client.post(PATH, query_string={"key": "the-key"}, data=FORM)
    assert (answer.status_code, answer.json) == (200, {"saved": 1})
    assert client.application.extensions[EXTENSION].spool.state().waiting == {"medic": 1}


def test_what_became_of_callbacks_is_counted(client: FlaskClient, vault: CachedVault, memory: MemoryCouch) -> None:
    for key in ("the-key", "the-key", "wrong"):
        client.post(PATH, query_string={"key": key}, data=FORM)
    memory.main.away = True
    for _ in range(2):
        client.post(PATH, query_string={"key": "the-key"}, data={**FORM, "id": "2"})
    figures = client.get("/metrics").text.splitlines()
    assert {
        'mjumbe_documents_stored_total{kind="incoming"} 2.0',
        'mjumbe_documents_repeated_total{kind="incoming"} 2.0',
        "mjumbe_documents_spooled_total 1.0",
        'mjumbe_callbacks_refused_total{service="africastalking"} 1.0',
    } <= set(figures)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_couchdb_that_does_not_let_us_in_is_our_trouble(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """Nobody's key can be checked then: 403 would tell a service that its key is wrong, and it would not come again."""

    def refuse(*_: object) -> None:
        raise CouchError(status, "no")

    monkeypatch.setattr(MemoryDatabase, "fetch", refuse)
    answer = client.post(PATH, query_string={"key": "the-key"}, data=FORM)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


def test_neither_couchdb_nor_the_spool(
    client: FlaskClient, vault: CachedVault, memory: MemoryCouch, tmp_path: Path
) -> None:
    memory.main.away = True
    (tmp_path / "spool.sqlite").mkdir()
    answer = client.post(PATH, query_string={"key": "the-key"}, data=FORM)
    assert (answer.status_code, answer.json["error"] if answer.json else None) == (503, "unavailable")
    assert answer.headers["Retry-After"] == "5"


def test_a_credential_that_cannot_be_read_is_our_trouble(client: FlaskClient, memory: MemoryCouch) -> None:
    memory.vault.put({"_id": "credential:africastalking.com%3Aincoming", "secret": "gAAAAAB"})
    assert client.post(PATH, query_string={"key": "the-key"}, data=FORM).status_code == 503


def test_an_error_of_ours_is_json_without_a_traceback(
    client: FlaskClient, vault: CachedVault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.callbacks.store", lambda *_: 1 / 0)
    answer = client.post(PATH, query_string={"key": "the-key"}, data=FORM)
    assert answer.status_code == 500
    assert answer.json
    assert answer.json["error"] == "internal"
    assert answer.json["error_id"] in answer.json["reason"]
    assert b"ZeroDivision" not in answer.data


def test_wrong_keys_behind_a_trusted_proxy_are_counted_by_client(
    client: FlaskClient, vault: CachedVault, app: Flask
) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix  # noqa: PLC0415

    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1)  # type: ignore[method-assign]
    for n in range(31):
        status = client.post(PATH, data=FORM, headers={"X-Forwarded-For": f"10.9.9.9, 10.0.0.{n % 2}"}).status_code
        assert status == 403
    statuses = {client.post(PATH, data=FORM, headers={"X-Forwarded-For": "10.0.0.7"}).status_code for _ in range(31)}
    assert statuses == {403, 429}
    assert client.post(PATH, data=FORM, headers={"X-Forwarded-For": "10.0.0.8"}).status_code == 403
