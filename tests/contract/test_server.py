"""The server and its databases as a whole."""

from __future__ import annotations

import json
import re
import uuid

import pytest

CREATED = (201, 202)


def test_welcome(anonymous):
    answer = anonymous.get("/")
    assert answer.status_code == 200
    assert answer.headers["Content-Type"].startswith("application/json")
    assert answer.headers["Cache-Control"] == "must-revalidate"
    assert answer.headers["Server"].startswith("CouchDB/3.")
    assert answer.text.endswith("}\n")
    body = answer.json()
    assert body["couchdb"] == "Welcome"
    assert re.match(r"3\.\d+", body["version"])
    assert body["vendor"]["name"]
    assert isinstance(body["features"], list)


def test_up(anonymous):
    answer = anonymous.get("/_up")
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


def test_uuids(anonymous):
    uuids = anonymous.get("/_uuids?count=3").json()["uuids"]
    assert len(set(uuids)) == 3
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in uuids)
    assert "no-cache" in anonymous.get("/_uuids").headers["Cache-Control"]
    assert len(anonymous.get("/_uuids?count=1000").json()["uuids"]) == 1000
    assert anonymous.get("/_uuids?count=1001").status_code == 400


def test_all_dbs(couch, db):
    names = couch.get("/_all_dbs").json()
    assert db.name in names
    assert names == sorted(names)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({}, "abcd"),
        ({"descending": "true"}, "dcba"),
        ({"skip": 1, "limit": 2}, "bc"),
        ({"skip": 3, "limit": 2}, "d"),
        ({"descending": "true", "limit": 1}, "d"),
    ],
)
@pytest.mark.parametrize("names", [("start_key", "end_key"), ("startkey", "endkey")])
def test_some_of_all_dbs(couch, query, found, names):
    own = f"contract-{uuid.uuid4().hex[:12]}-"
    try:
        for letter in "abcd":
            assert couch.put(f"/{own}{letter}").status_code in CREATED
        ends = ("d", "a") if "descending" in query else ("a", "d")
        bounds = {name: json.dumps(f"{own}{end}") for name, end in zip(names, ends, strict=True)}
        assert couch.get("/_all_dbs", params=query | bounds).json() == [f"{own}{letter}" for letter in found]
    finally:
        for letter in "abcd":
            couch.delete(f"/{own}{letter}")


@pytest.mark.parametrize("query", ["limit=x", "skip=-1", "limit=--5", "limit=-", "skip=%D9%A3"])
def test_a_count_that_is_none(couch, query):
    assert couch.get(f"/_all_dbs?{query}").status_code == 400


def test_create_describe_delete(couch):
    name = f"contract-{uuid.uuid4().hex[:12]}"
    created = couch.put(f"/{name}")
    assert created.status_code in CREATED
    assert created.json() == {"ok": True}
    assert created.headers["Location"].endswith(f"/{name}")
    again = couch.put(f"/{name}")
    assert again.status_code == 412
    assert again.json()["error"] == "file_exists"
    info = couch.get(f"/{name}").json()
    assert (info["db_name"], info["doc_count"], info["doc_del_count"]) == (name, 0, 0)
    assert isinstance(info["update_seq"], str)
    assert {"file", "external", "active"} <= set(info["sizes"])
    assert couch("HEAD", f"/{name}").status_code == 200
    assert couch.delete(f"/{name}?rev=1-a").status_code == 400, "meant for a document"
    assert couch.delete(f"/{name}").json() == {"ok": True}
    gone = couch.eventually(f"/{name}", lambda answer: answer.status_code == 404 and "exist" in answer.text)
    assert (gone.status_code, gone.json()) == (404, {"error": "not_found", "reason": "Database does not exist."})
    assert couch("HEAD", f"/{name}").status_code == 404
    assert couch.delete(f"/{name}").status_code == 404


def test_counts(db):
    first, *_ = db.save({"_id": "a"}, {"_id": "b"}, {"_id": "c"})
    db.delete("/a", params={"rev": first})
    info = db.get("").json()
    assert (info["doc_count"], info["doc_del_count"]) == (2, 1)


@pytest.mark.parametrize("name", ["Upper", "1digit", "_underscore", "sp%20ace", "dot.dot"])
def test_illegal_names(couch, name):
    answer = couch.put(f"/{name}")
    assert (answer.status_code, answer.json()["error"]) == (400, "illegal_database_name")


def test_a_name_that_is_too_long(couch):
    answer = couch.put(f"/{'a' * 239}")
    assert (answer.status_code, answer.json()["error"]) == (400, "database_name_too_long")


def test_name_with_every_kind_of_character(new_database, couch):
    db = new_database("/a_b$(c)+d-e")
    assert db.name in couch.get("/_all_dbs").json()
    assert db.put("/doc", {"a": 1}).status_code in CREATED
    assert db.get("/doc").json()["a"] == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/doc"),
        ("PUT", "/doc"),
        ("POST", ""),
        ("GET", "/_all_docs"),
        ("POST", "/_bulk_docs"),
        ("GET", "/_changes"),
        ("GET", "/_security"),
        ("GET", "/_design/d/_view/v"),
    ],
)
def test_no_database(couch, method, path):
    body = {} if method in ("PUT", "POST") else None
    answer = couch(method, f"/contract-{uuid.uuid4().hex[:12]}{path}", json=body)
    assert (answer.status_code, answer.json()) == (404, {"error": "not_found", "reason": "Database does not exist."})


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/_changes", "GET"),
        ("GET", "/_bulk_docs", "POST"),
        ("DELETE", "/_all_docs", "GET"),
        ("DELETE", "/_security", "PUT"),
    ],
)
def test_method_not_allowed(db, method, path, allowed):
    answer = db(method, path)
    assert (answer.status_code, answer.json()["error"]) == (405, "method_not_allowed")
    assert allowed in answer.headers["Allow"]


def test_security_of_a_new_database(db):
    security = db.get("/_security").json()
    assert security["members"]["roles"] == ["_admin"]
    assert security["admins"]["roles"] == ["_admin"]
    wanted = {"members": {"names": ["a"], "roles": ["b"]}, "admins": {"names": ["c"], "roles": []}}
    assert db.put("/_security", wanted).json() == {"ok": True}
    assert db.get("/_security").json() == wanted


def test_nobody_opens_the_database_of_users(couch, users):
    answer = couch.put("/_users/_security", {"members": {"names": [], "roles": []}})
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")


def test_limits(db):
    assert db.get("/_revs_limit").json() == 1000
    assert db.put("/_revs_limit", 5).json() == {"ok": True}
    assert db.get("/_revs_limit").json() == 5
    assert db.get("/_purged_infos_limit").json() == 1000
    assert db.put("/_purged_infos_limit", 10).json() == {"ok": True}


def test_maintenance(db):
    rev = db.design("d", v="function (doc) { emit(doc._id); }")
    assert rev
    for path in ("/_compact", "/_compact/d", "/_view_cleanup"):
        answer = db.post(path, headers={"Content-Type": "application/json"})
        assert (answer.status_code, answer.json()) == (202, {"ok": True}), path
    answer = db.post("/_ensure_full_commit", headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["ok"]) == (201, True)


def test_membership(couch):
    body = couch.get("/_membership").json()
    assert body["all_nodes"]
    assert body["cluster_nodes"]


def test_configuration(couch):
    section, key = "contract-test", f"africastalking.com:{uuid.uuid4().hex[:8]}"
    url = f"/_node/_local/_config/{section}/{key}"
    missing = couch.get(url)
    assert (missing.status_code, missing.json()) == (404, {"error": "not_found", "reason": "unknown_config_value"})
    try:
        assert couch.put(url, "first").json() == ""
        assert couch.put(url, " second\n").json() == "first"
        assert couch.get(url).json() == "second"
        assert couch.get(f"/_node/_local/_config/{section}").json()[key] == "second"
        assert couch.get("/_node/_local/_config").json()[section][key] == "second"
        node = couch.get("/_node/_local").json()["name"]
        assert couch.get(f"/_node/{node}/_config/{section}/{key}").json() == "second"
    finally:
        assert couch.delete(url).json() == "second"
    assert couch.delete(url).status_code == 404
    assert section not in couch.get("/_node/_local/_config").json()


def test_unknown_configuration_section_is_empty(couch):
    assert couch.get("/_node/_local/_config/contract-nothing").json() == {}
