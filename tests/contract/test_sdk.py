"""The official SDK, ibmcloudant, as mjumbe uses it."""

from __future__ import annotations

import threading

import pytest
from ibm_cloud_sdk_core import ApiException
from ibmcloudant import CouchDbSessionAuthenticator
from ibmcloudant.cloudant_v1 import CloudantV1, Document
from ibmcloudant.features.changes_follower import ChangesFollower


@pytest.fixture
def service(server):
    service = CloudantV1(authenticator=CouchDbSessionAuthenticator(server.user, server.password))
    service.set_service_url(server.url)
    return service


def test_documents(service, db):
    assert service.get_server_information().get_result()["couchdb"] == "Welcome"
    made = service.put_document(db=db.name, doc_id="a/b", document={"n": 1}).get_result()
    got = service.get_document(db=db.name, doc_id="a/b").get_result()
    assert got == {"_id": "a/b", "_rev": made["rev"], "n": 1}
    posted = service.post_document(db=db.name, document=Document(text="ä" * 5000)).get_result()
    assert service.get_document(db=db.name, doc_id=posted["id"]).get_result()["text"] == "ä" * 5000
    head = service.head_document(db=db.name, doc_id="a/b")
    assert head.get_headers()["ETag"] == f'"{made["rev"]}"'
    service.delete_document(db=db.name, doc_id="a/b", rev=made["rev"])
    with pytest.raises(ApiException) as caught:
        service.get_document(db=db.name, doc_id="a/b")
    assert caught.value.status_code == 404


def test_bulk_and_views(service, db):
    rows = service.post_bulk_docs(
        db=db.name, bulk_docs={"docs": [{"_id": str(number), "n": number} for number in range(10)]}
    ).get_result()
    assert all(row["ok"] for row in rows)
    found = service.post_all_docs(db=db.name, keys=["1", "x"], include_docs=True).get_result()["rows"]
    assert (found[0]["doc"]["n"], found[1]["error"]) == (1, "not_found")
    got = service.post_bulk_get(db=db.name, docs=[{"id": "1"}]).get_result()
    assert got["results"][0]["docs"][0]["ok"]["n"] == 1
    design = {"views": {"by_n": {"map": "function (doc) { emit(doc.n); }", "reduce": "_count"}}}
    service.put_design_document(db=db.name, ddoc="d", design_document=design)
    view = service.post_view(db=db.name, ddoc="d", view="by_n", reduce=False, start_key=3, end_key=5).get_result()
    assert [row["key"] for row in view["rows"]] == [3, 4, 5]
    assert service.post_view(db=db.name, ddoc="d", view="by_n").get_result()["rows"][0]["value"] == 10
    assert service.get_design_document_information(db=db.name, ddoc="d").get_result()["name"] == "d"
    assert len(service.post_find(db=db.name, selector={"n": {"$lt": 3}}).get_result()["docs"]) == 3


def test_local_documents(service, db):
    service.put_local_document(db=db.name, doc_id="checkpoint", document={"seq": "1"})
    assert service.get_local_document(db=db.name, doc_id="checkpoint").get_result()["seq"] == "1"


def test_follower_finishes(service, db):
    db.save(*({"_id": f"{number:04}"} for number in range(1200)))
    limited = ChangesFollower(service=service, db=db.name, limit=500)
    assert len({change.id for change in limited.start_one_off()}) == 500
    follower = ChangesFollower(service=service, db=db.name)
    assert {change.id for change in follower.start_one_off()} == {f"{number:04}" for number in range(1200)}


def test_follower_listens(service, db):
    """A follower that stops still waits for its last request, so somebody has to go on writing."""
    db.save({"_id": "0", "n": 0})
    done = threading.Event()

    def write() -> None:
        number = 0
        while not done.wait(0.2):
            number += 1
            db.save({"_id": str(number), "n": number})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        follower = ChangesFollower(service=service, db=db.name, since="0", include_docs=True, limit=3)
        seen = {change.id: change.doc for change in follower.start()}
    finally:
        done.set()
        writer.join()
    assert len(seen) == 3
    assert all(str(document.n) == doc_id for doc_id, document in seen.items())
