"""Posting messages while CouchDB has troubles."""

import pytest
from flask.testing import FlaskClient

from mjumbe.couch import UnavailableError
from tests.unit.api.conftest import MemoryCouch

ADMIN = {"Authorization": "Basic YWRtaW46cHc="}
NAMED = {"to": "+254711000001", "message": "x", "uuid": "u1"}


def test_trouble_after_messages_are_stored_is_none_of_the_callers(
    client: FlaskClient, memory: MemoryCouch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetch(ids: object) -> None:
        raise UnavailableError("away")

    assert client.post("/api/v1/messages", json=NAMED, headers=ADMIN).status_code == 202
    monkeypatch.setattr(memory.main, "fetch", fetch)
    answer = client.post("/api/v1/messages", json=[NAMED, {"to": "+254711000002", "message": "new"}], headers=ADMIN)
    assert answer.status_code == 202
    assert len([doc_id for doc_id in memory.main.docs if doc_id.startswith("outgoing:")]) == 2
