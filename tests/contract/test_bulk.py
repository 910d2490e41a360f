"""Many documents in one request: `_bulk_docs`, `_bulk_get`, `_all_docs`, `_purge`, `_revs_diff`."""

from __future__ import annotations

import json
import socket
from base64 import b64encode
from urllib.parse import urlsplit

import pytest

from tests.contract.conftest import Server

CREATED = (201, 202)
UNKNOWN = "1-00000000000000000000000000000000"


def test_every_row_has_its_own_answer(db):
    (rev,) = db.save({"_id": "here"})
    answer = db.post(
        "/_bulk_docs",
        {
            "docs": [
                {"_id": "new", "n": 1},
                {"_id": "here"},
                {"_id": "here", "_rev": rev, "n": 2},
                {"n": 3},
                {"_id": "not-here", "_rev": UNKNOWN},
            ]
        },
    )
    assert answer.status_code in CREATED
    new, refused, changed, unnamed, missing = answer.json()
    assert (new["ok"], new["id"], new["rev"][:2]) == (True, "new", "1-")
    conflict = {"error": "conflict", "reason": "Document update conflict."}
    assert {name: refused[name] for name in ("id", "error", "reason")} == {"id": "here", **conflict}
    assert (changed["ok"], changed["rev"][:2]) == (True, "2-")
    assert len(unnamed["id"]) == 32
    assert {name: missing[name] for name in ("id", "error", "reason")} == {"id": "not-here", **conflict}


def test_one_id_twice(db):
    """One of two writes wins; which one is not said."""
    first, second = db.post("/_bulk_docs", {"docs": [{"_id": "a", "n": 1}, {"_id": "a", "n": 2}]}).json()
    assert sorted([first.get("error", ""), second.get("error", "")]) == ["", "conflict"]
    assert db.get("/a").json()["n"] == (2 if "error" in first else 1)


def test_delete_and_write_again(db):
    revs = db.save({"_id": "a"}, {"_id": "b"})
    deleted = db.save({"_id": "a", "_rev": revs[0], "_deleted": True})
    assert db.get("/a").json()["reason"] == "deleted"
    (again,) = db.save({"_id": "a", "n": 2})
    assert again.startswith("3-")
    assert deleted[0].startswith("2-")
    db.save({"_id": "b", "_rev": revs[1], "_deleted": True})
    info = db.get("").json()
    assert (info["doc_count"], info["doc_del_count"]) == (1, 1)


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "bad_request"),
        ({"docs": {}}, "bad_request"),
        ({"docs": [1]}, "bad_request"),
        ({"docs": [{"_id": "ok"}, {"_id": "_bad"}]}, "illegal_docid"),
        ({"docs": [{"_id": "ok"}, {"_id": 7}]}, "illegal_docid"),
        ({"docs": [{"_id": "ok"}, {"_id": "x", "_foo": 1}]}, "doc_validation"),
    ],
)
def test_a_wrong_document_refuses_the_request(db, body, error):
    answer = db.post("/_bulk_docs", body)
    assert (answer.status_code, answer.json()["error"]) == (400, error)
    assert db.get("/ok").status_code == 404


def test_no_documents(db):
    answer = db.post("/_bulk_docs", {"docs": []})
    assert answer.status_code in CREATED
    assert answer.json() == []


def test_bulk_get(db):
    (first,) = db.save({"_id": "a", "n": 1})
    (second,) = db.save({"_id": "a", "_rev": first, "n": 2})
    wanted = [{"id": "a"}, {"id": "a", "rev": first}, {"id": "missing"}]
    results = db.post("/_bulk_get", {"docs": wanted}).json()["results"]
    assert [row["id"] for row in results] == ["a", "a", "missing"]
    assert results[0]["docs"] == [{"ok": {"_id": "a", "_rev": second, "n": 2}}]
    assert results[1]["docs"][0]["ok"]["n"] == 1
    error = results[2]["docs"][0]["error"]
    assert (error["id"], error["error"], error["reason"]) == ("missing", "not_found", "missing")
    assert db.post("/_bulk_get", {}).status_code == 400


def test_bulk_get_of_what_is_no_revision_of_a_document(db):
    (a,) = db.save({"_id": "a"})
    wanted = [{"rev": "1-a"}, {"id": "a", "rev": "nonsense"}, {"id": "a", "rev": a}]
    nameless, no_rev, right = db.post("/_bulk_get", {"docs": wanted}).json()["results"]
    assert nameless["id"] is None
    assert [row["error"]["error"] for row in nameless["docs"] + no_rev["docs"]] == ["bad_request"] * 2
    assert right["docs"][0]["ok"]["_rev"] == a


@pytest.fixture
def letters(db):
    """Documents whose ids tell byte order from other orders, and a deleted one."""
    for_deletion, *_ = db.save(*({"_id": doc_id} for doc_id in ["gone", "a", "B", "b", "a1", "é", "z", "_design/x"]))
    db.save({"_id": "gone", "_rev": for_deletion, "_deleted": True})
    return db


# Ids are ordered byte by byte: capitals, then "_", then small letters, then what is not ASCII.
ORDER = ["B", "_design/x", "a", "a1", "b", "z", "é"]


@pytest.mark.parametrize(
    ("parameters", "ids"),
    [
        ({}, ORDER),
        ({"descending": True}, ORDER[::-1]),
        ({"startkey": "a"}, ["a", "a1", "b", "z", "é"]),
        ({"start_key": "a", "end_key": "b"}, ["a", "a1", "b"]),
        ({"startkey": "a", "endkey": "b", "inclusive_end": False}, ["a", "a1"]),
        ({"startkey": "b", "endkey": "a", "descending": True}, ["b", "a1", "a"]),
        ({"startkey": "b", "endkey": "a", "descending": True, "inclusive_end": False}, ["b", "a1"]),
        ({"startkey": "a", "endkey": "a\ufff0"}, ["a", "a1"]),
        ({"key": "b"}, ["b"]),
        ({"key": "nothing"}, []),
        ({"limit": 2}, ORDER[:2]),
        ({"limit": 2, "skip": 3}, ORDER[3:5]),
        ({"skip": 100}, []),
        ({"limit": 10**20}, ORDER),
        ({"limit": 0}, []),
        ({"startkey": "_design/", "endkey": "_design0"}, ["_design/x"]),
    ],
)
def test_all_docs_ranges(letters, parameters, ids):
    query = {name: json.dumps(value) for name, value in parameters.items()}
    by_get = letters.get("/_all_docs", params=query)
    assert by_get.status_code == 200
    assert [row["id"] for row in by_get.json()["rows"]] == ids
    assert by_get.json()["total_rows"] == len(ORDER)
    assert [row["id"] for row in letters.post("/_all_docs", parameters).json()["rows"]] == ids


@pytest.mark.parametrize(
    ("parameters", "offset"),
    [
        ({}, 0),
        ({"skip": 2}, 2),
        ({"skip": 100}, len(ORDER)),
        ({"startkey": "a"}, 2),
        ({"startkey": "a", "skip": 1}, 3),
        ({"startkey": "a", "inclusive_end": False}, 2),
        ({"descending": True}, 0),
        ({"startkey": "b", "descending": True}, 2),
        ({"startkey": "b", "descending": True, "skip": 1}, 3),
    ],
)
def test_all_docs_say_how_many_come_before_them(letters, parameters, offset):
    assert letters.post("/_all_docs", parameters).json()["offset"] == offset


@pytest.mark.parametrize("descending", [True, False])
def test_a_range_that_can_hold_nothing(letters, descending):
    start, end = ("a", "b") if descending else ("b", "a")
    answer = letters.post("/_all_docs", {"start_key": start, "end_key": end, "descending": descending})
    assert (answer.status_code, answer.json()["error"]) == (400, "query_parse_error")
    assert f"descending={str(not descending).lower()}" in answer.json()["reason"]


def test_all_docs_with_a_sequence_to_go_on_from(letters):
    seq = letters.get("/_all_docs?update_seq=true").json()["update_seq"]
    assert "update_seq" not in letters.get("/_all_docs").json()
    assert letters.get("/_changes", params={"since": seq}).json()["results"] == []


def test_all_docs_rows(db):
    (rev,) = db.save({"_id": "a", "n": 1})
    assert db.get("/_all_docs").json()["rows"] == [{"id": "a", "key": "a", "value": {"rev": rev}}]
    (row,) = db.get("/_all_docs?include_docs=true").json()["rows"]
    assert row["doc"] == {"_id": "a", "_rev": rev, "n": 1}
    body = db.get("/_all_docs").json()
    assert (body["total_rows"], body["offset"]) == (1, 0)


def test_all_docs_keys(letters):
    keys = ["z", "nothing", "gone", "a", "z"]
    for answer in (
        letters.post("/_all_docs", {"keys": keys, "include_docs": True}),
        letters.get("/_all_docs", params={"keys": json.dumps(keys), "include_docs": "true"}),
    ):
        rows = answer.json()["rows"]
        assert [row["key"] for row in rows] == keys
        assert (rows[0]["id"], rows[0]["doc"]["_id"]) == ("z", "z")
        assert rows[1] == {"key": "nothing", "error": "not_found"}
        assert (rows[2]["id"], rows[2]["value"]["deleted"], rows[2]["doc"]) == ("gone", True, None)
        assert "rev" in rows[2]["value"]
    for parameters, found in (
        ({"descending": True}, keys[::-1]),
        ({"skip": 1, "limit": 2}, keys[1:3]),
        ({"skip": 4, "limit": 2}, keys[4:]),
        ({"skip": 9}, []),
    ):
        rows = letters.post("/_all_docs", {"keys": keys, **parameters}).json()["rows"]
        assert [row["key"] for row in rows] == found, parameters
    assert letters.post("/_all_docs", {"keys": []}).json()["rows"] == []
    assert letters.post("/_all_docs", {"keys": "a"}).status_code == 400


def test_all_docs_queries(letters):
    answer = letters.post("/_all_docs/queries", {"queries": [{"keys": ["a"]}, {"limit": 1}, {"startkey": "z"}]})
    found = [[row["id"] for row in result["rows"]] for result in answer.json()["results"]]
    assert found == [["a"], ["B"], ["z", "é"]]
    answer = letters.post("/_all_docs/queries?limit=1", {"queries": [{}, {"limit": 2}]})
    assert [len(result["rows"]) for result in answer.json()["results"]] == [1, 2]
    assert letters.post("/_all_docs/queries", {"queries": []}).json() == {"results": []}
    for body in ({}, {"queries": {}}):
        assert letters.post("/_all_docs/queries", body).status_code == 400


def test_design_docs(letters):
    assert [row["id"] for row in letters.get("/_design_docs").json()["rows"]] == ["_design/x"]


def test_many_rows(db, server):
    """More than one piece of the answer."""
    db.save(*({"_id": f"{number:05}", "text": "x" * 50} for number in range(2500)))
    answer = db.get("/_all_docs?include_docs=true")
    assert [row["id"] for row in answer.json()["rows"]] == [f"{number:05}" for number in range(2500)]
    assert answer.text.endswith("}\n")
    assert len(db.get("/_changes?include_docs=true").json()["results"]) == 2500
    for path in ("/_all_docs", "/_changes"):
        head = raw_head(db.url + path, server)
        assert head.startswith(b"HTTP/1.1 200 ")
        assert head.endswith(b"\r\n\r\n") and head.count(b"\r\n\r\n") == 1, "no body"


def raw_head(url: str, server: Server) -> bytes:
    """All that is answered to a HEAD; `requests` does not look at what follows the head."""
    parts = urlsplit(url)
    login = b64encode(f"{server.user}:{server.password}".encode()).decode()
    with socket.create_connection((parts.hostname, parts.port), timeout=60) as client:
        lines = [f"HEAD {parts.path} HTTP/1.1", f"Host: {parts.netloc}", f"Authorization: Basic {login}"]
        client.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return answer


def test_purge(db):
    (first,) = db.save({"_id": "a", "n": 1})
    (current,) = db.save({"_id": "a", "_rev": first, "n": 2})
    db.save({"_id": "b", "n": 1})
    db.design("d", by_n="function (doc) { emit(doc.n); }")
    assert len(db.get("/_design/d/_view/by_n").json()["rows"]) == 2
    answer = db.post("/_purge", {"a": [current], "b": [UNKNOWN], "c": [UNKNOWN]})
    assert answer.status_code in CREATED
    assert answer.json()["purged"] == {"a": [current], "b": [], "c": []}
    assert "purge_seq" in answer.json()
    assert db.get("/a").json() == {"error": "not_found", "reason": "missing"}
    assert [row["id"] for row in db.get("/_design/d/_view/by_n").json()["rows"]] == ["b"]
    assert [row["id"] for row in db.get("/_changes").json()["results"] if row["id"] == "a"] == []
    info = db.get("").json()
    assert (info["doc_count"], info["doc_del_count"]) == (2, 0)
    seq = info["update_seq"]
    assert db.post("/_purge", {"b": [UNKNOWN]}).json()["purged"] == {"b": []}
    assert db.get("/_changes", params={"since": seq}).json()["results"] == []
    assert db.put("/a", {"n": 3}).json()["rev"].startswith("1-")
    assert len(db.get("/_design/d/_view/by_n").json()["rows"]) == 2


def test_missing_revisions(db):
    (first,) = db.save({"_id": "a"})
    wanted = {"a": [first, UNKNOWN], "b": [UNKNOWN]}
    diff = db.post("/_revs_diff", wanted).json()
    assert {name: row["missing"] for name, row in diff.items()} == {"a": [UNKNOWN], "b": [UNKNOWN]}
    assert db.post("/_revs_diff", {"a": [first]}).json() == {}
    assert db.post("/_missing_revs", wanted).json() == {"missing_revs": {"a": [UNKNOWN], "b": [UNKNOWN]}}
