"""A person's decision that CouchDB does not take."""

from functools import partial

import pytest
from flask.testing import FlaskClient

from mjumbe.couch import Row, Saved
from tests.unit.api.conftest import MemoryCouch

ADMIN = {"Authorization": "Basic YWRtaW46cHc="}
MESSAGE = {"to": "+254711000001", "message": "x", "uuid": "u1"}


def test_what_couchdb_refuses_is_not_said_to_have_been_decided(
    client: FlaskClient, memory: MemoryCouch, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.post("/api/v1/messages", json=MESSAGE, headers=ADMIN).status_code == 202
    rows = [Row("outgoing:u1", "u1", None)]
    monkeypatch.setattr(memory.main, "view", lambda *_, **__: rows, raising=False)
    refused = partial(Saved, rev=None, error="forbidden", reason="no")
    monkeypatch.setattr(memory.main, "bulk", lambda docs: [refused(doc["_id"]) for doc in docs])
    answer = client.post("/api/v1/messages/u1/cancel", headers=ADMIN)
    assert (answer.status_code, answer.json["error"] if answer.json else None) == (503, "unavailable")


def test_a_message_that_waits_for_couchdb_is_not_said_not_to_be(
    client: FlaskClient, memory: MemoryCouch, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [("GET", "/api/v1/messages/u1"), ("POST", "/api/v1/messages/u1/cancel")]

    def statuses() -> list[int]:
        return [client.open(path, method=method, headers=ADMIN).status_code for method, path in asked]

    # As CouchDB answers when it is back, and has not been brought what waits.
    monkeypatch.setattr(memory.main, "view", lambda *_, **__: [], raising=False)
    monkeypatch.setattr(memory.main, "fetch", lambda ids: {})
    assert statuses() == [404, 404]
    memory.main.away = True
    assert client.post("/api/v1/messages", json=MESSAGE, headers=ADMIN).status_code == 202
    assert statuses() == [503, 503]
