"""A person's decision that CouchDB does not take."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from mjumbe.couch import Row, Saved
from tests.unit.api.conftest import MemoryCouch

ADMIN = {"Authorization": "Basic YWRtaW46cHc="}
MESSAGE = {"to": "+254711000001", "message": "x", "uuid": "u1"}


@pytest.mark.parametrize(
    "answer",
    [{"rev": None, "error": "forbidden", "reason": "no"}, {"rev": "2-x", "by_few": True}],
    ids=["refused", "taken by few nodes of a cluster: what was cancelled there went out by the others"],
)
def test_what_couchdb_does_not_take_is_not_said_to_have_been_decided(
    client: FlaskClient, memory: MemoryCouch, monkeypatch: pytest.MonkeyPatch, answer: dict[str, Any]
) -> None:
    assert client.post("/api/v1/messages", json=MESSAGE, headers=ADMIN).status_code == 202
    rows = [Row("outgoing:u1", "u1", None)]
    monkeypatch.setattr(memory.main, "view", lambda *_, **__: rows, raising=False)
    monkeypatch.setattr(memory.main, "bulk", lambda docs: [Saved(doc["_id"], **answer) for doc in docs])
    said = client.post("/api/v1/messages/u1/cancel", headers=ADMIN)
    assert (said.status_code, said.json["error"] if said.json else None) == (503, "unavailable")


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
