"""Single documents: revisions, conflicts, deletion, headers, refusals, `_local`."""

from __future__ import annotations

import concurrent.futures
import gzip
import json
import re
from urllib.parse import quote

import pytest

CREATED = (201, 202)
CONFLICT = {"error": "conflict", "reason": "Document update conflict."}


def test_life_of_a_document(db):
    made = db.put("/a", {"n": 1})
    assert made.status_code in CREATED
    first = made.json()["rev"]
    assert made.json() == {"ok": True, "id": "a", "rev": first}
    assert re.fullmatch("1-[0-9a-f]{32}", first)
    assert made.headers["ETag"] == f'"{first}"'
    assert made.headers["Location"].endswith(f"/{db.name}/a")
    got = db.get("/a")
    assert got.status_code == 200
    assert got.json() == {"_id": "a", "_rev": first, "n": 1}
    assert got.headers["ETag"] == f'"{first}"'
    changed = db.put("/a", {"_rev": first, "n": 2}).json()["rev"]
    assert changed.startswith("2-")
    assert db.get("/a").json() == {"_id": "a", "_rev": changed, "n": 2}
    removed = db.delete("/a", params={"rev": changed})
    assert removed.status_code in (200, 202)
    assert removed.json()["rev"].startswith("3-")
    gone = db.get("/a")
    assert (gone.status_code, gone.json()) == (404, {"error": "not_found", "reason": "deleted"})
    again = db.put("/a", {"n": 3})
    assert again.status_code in CREATED
    assert again.json()["rev"].startswith("4-")
    assert db.get("/a").json()["n"] == 3


def test_missing(db):
    answer = db.get("/nothing")
    assert (answer.status_code, answer.json()) == (404, {"error": "not_found", "reason": "missing"})
    assert db("HEAD", "/nothing").status_code == 404
    assert db.delete("/nothing").status_code == 404


def test_head(db):
    (rev,) = db.save({"_id": "a", "n": 1})
    answer = db("HEAD", "/a")
    assert (answer.status_code, answer.headers["ETag"], answer.content) == (200, f'"{rev}"', b"")


def test_not_modified(db):
    (rev,) = db.save({"_id": "a"})
    assert db.get("/a", headers={"If-None-Match": f'"{rev}"'}).status_code == 304
    assert db.get("/a", headers={"If-None-Match": '"1-other"'}).status_code == 200


def test_conflicts(db):
    (first,) = db.save({"_id": "a"})
    (second,) = db.save({"_id": "a", "_rev": first, "n": 2})
    wrong = "1-00000000000000000000000000000000"
    for method, path, body in [
        ("PUT", "/a", {}),
        ("PUT", "/a", {"_rev": first}),
        ("PUT", "/a", {"_rev": wrong}),
        ("PUT", f"/a?rev={first}", {}),
        ("PUT", "/new", {"_rev": wrong}),
        ("POST", "", {"_id": "a"}),
        ("DELETE", "/a", None),
        ("DELETE", f"/a?rev={first}", None),
    ]:
        answer = db(method, path, json=body)
        assert (answer.status_code, answer.json()) == (409, CONFLICT), (method, path, body)
    assert db.get("/a").json()["_rev"] == second


def test_revision_in_url_or_header(db):
    (first,) = db.save({"_id": "a"})
    second = db.put(f"/a?rev={first}", {"n": 2}).json()["rev"]
    third = db.put("/a", {"n": 3}, headers={"If-Match": second}).json()["rev"]
    assert third.startswith("3-")
    assert db.put(f"/a?rev={first}", {"_rev": third}).status_code == 400
    assert db.put("/a", {"_rev": first}, headers={"If-Match": third}).status_code == 400
    assert db.put("/a", {"_rev": third}, headers={"If-Match": third}).status_code in CREATED
    fourth = db.get("/a").headers["ETag"]
    assert db.delete("/a", headers={"If-Match": fourth}).json()["ok"] is True, "as it came, in quotes"


def test_former_revision(db):
    (first,) = db.save({"_id": "a", "n": 1})
    (second,) = db.save({"_id": "a", "_rev": first, "n": 2})
    assert db.get("/a", params={"rev": first}).json() == {"_id": "a", "_rev": first, "n": 1}
    assert db.get("/a", params={"rev": second}).json()["n"] == 2
    assert db.get("/a", params={"rev": "2-00000000000000000000000000000000"}).status_code == 404
    third = db.delete("/a", params={"rev": second}).json()["rev"]
    assert db.get("/a", params={"rev": third}).json() == {"_id": "a", "_rev": third, "_deleted": True}


def test_history(db):
    (first,) = db.save({"_id": "a", "n": 1})
    (second,) = db.save({"_id": "a", "_rev": first, "n": 2})
    hashes = [rev.split("-")[1] for rev in (second, first)]
    assert db.get("/a?revs=true").json()["_revisions"] == {"start": 2, "ids": hashes}
    info = db.get("/a?revs_info=true").json()["_revs_info"]
    assert [one["rev"] for one in info] == [second, first]
    assert info[0]["status"] == "available"
    assert "_conflicts" not in db.get("/a?conflicts=true").json()
    # What is available can change without a new revision, so it must not be kept by a cache.
    assert "ETag" not in db.get("/a?revs_info=true").headers
    assert db.get("/a?revs=true").headers["ETag"] == f'"{second}"'
    assert set(db.get("/a?meta=true").json()) == {"_id", "_rev", "n", "_revs_info"}
    assert db.get("/a?local_seq=true").json()["_local_seq"]


def test_no_more_revisions_are_remembered_than_the_limit(db):
    assert db.put("/_revs_limit", 2).json() == {"ok": True}
    rev, revs = None, []
    for n in range(4):
        (rev,) = db.save({"_id": "a", "n": n, **({"_rev": rev} if rev else {})})
        revs.append(rev)
    hashes = [rev.partition("-")[2] for rev in reversed(revs)]
    assert db.get("/a?revs=true").json()["_revisions"] == {"start": 4, "ids": hashes[:2]}
    assert db.put("/a", {"_rev": rev, "n": 4}).json()["rev"].startswith("5-")


def test_a_former_body_is_gone_when_the_database_was_compacted(db):
    (first,) = db.save({"_id": "a", "n": 1})
    (second,) = db.save({"_id": "a", "_rev": first, "n": 2})
    assert db.get("/a", params={"rev": first}).json()["n"] == 1
    assert db.post("/_compact", headers={"Content-Type": "application/json"}).status_code == 202
    answer = db.eventually("/a?revs_info=true", lambda answer: answer.json()["_revs_info"][1]["status"] == "missing")
    wanted = [{"rev": second, "status": "available"}, {"rev": first, "status": "missing"}]
    assert answer.json()["_revs_info"] == wanted
    assert db.get("/a", params={"rev": first}).status_code == 404
    assert db.get("/a").json()["n"] == 2


def test_open_revs(db):
    (first,) = db.save({"_id": "a", "n": 1})
    unknown = "9-00000000000000000000000000000000"
    rows = db.get("/a", params={"open_revs": json.dumps([first, unknown])}).json()
    assert {"ok": {"_id": "a", "_rev": first, "n": 1}} in rows
    assert {"missing": unknown} in rows
    assert [row["ok"]["_rev"] for row in db.get("/a?open_revs=all").json()] == [first]
    assert db.get("/none?open_revs=all").status_code == 404
    (second,) = db.save({"_id": "a", "_rev": first, "n": 2})
    rows = db.get("/a", params={"open_revs": json.dumps([first, second]), "latest": "true"}).json()
    assert [row["ok"]["_rev"] for row in rows] == [second]


def test_latest(db):
    (first,) = db.save({"_id": "a", "n": 1})
    db.save({"_id": "a", "_rev": first, "n": 2})
    assert db.get("/a", params={"rev": first, "latest": "true"}).json()["n"] == 2


def test_delete_by_writing(db):
    (first,) = db.save({"_id": "a", "n": 1})
    answer = db.put("/a", {"_rev": first, "_deleted": True, "why": "test"})
    assert answer.status_code in (200, 201, 202)
    assert db.get("/a").json()["reason"] == "deleted"
    kept = db.get("/a", params={"rev": answer.json()["rev"]}).json()
    assert (kept["_deleted"], kept["why"]) == (True, "test")


def test_equal_writes_still_conflict(db):
    db.save({"_id": "a", "n": 1})
    assert db.put("/a", {"n": 1}).status_code == 409


def test_of_equal_writes_at_the_same_moment_one_is_taken(db):
    """The revision is the same for all, but only one writer is told that it is theirs."""
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: db.put("/a", {"owner": "same"}).status_code, range(8)))
    assert sorted(status in CREATED for status in statuses) == [False] * 7 + [True]
    assert set(statuses) - set(CREATED) == {409}
    rev = db.get("/a").json()["_rev"]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        statuses = list(pool.map(lambda _: db.put("/a", {"_rev": rev, "n": 2}).status_code, range(8)))
    assert sorted(status in CREATED for status in statuses) == [False] * 7 + [True]


def test_post(db):
    named = db.post("", {"_id": "a", "n": 1})
    assert named.status_code in CREATED
    assert named.json()["id"] == "a"
    unnamed = db.post("", {"n": 2})
    assert unnamed.status_code in CREATED
    assert len(unnamed.json()["id"]) == 32
    assert db.get(f"/{unnamed.json()['id']}").json()["n"] == 2


def test_a_write_that_nobody_waits_for(db):
    answer = db.put("/a?batch=ok", {"n": 1})
    assert (answer.status_code, answer.json()) == (202, {"ok": True, "id": "a"})
    assert db.eventually("/a", lambda answer: answer.ok).json()["n"] == 1


@pytest.mark.parametrize(
    "doc_id",
    [
        "with space",
        "slash/inside",
        "plus+254",
        "ünïcode-Σ-😀",
        "question?mark",
        "a:b@c",
        "percent%25",
        "UPPER",
        "two\nlines",
    ],
)
def test_ids(db, doc_id):
    path = f"/{quote(doc_id, safe='')}"
    assert db.put(path, {"n": 1}).json()["id"] == doc_id
    assert db.get(path).json()["_id"] == doc_id
    assert db.get("/_all_docs").json()["rows"][0]["id"] == doc_id


def test_a_plus_in_a_path_is_a_space(db):
    assert db.put("/a+b", {"n": 1}).json()["id"] == "a b"
    assert db.get("/a%20b").json()["n"] == 1
    assert db.get("/a%2Bb").status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "error"),
    [
        ("/a", b"{", "bad_request"),
        ("/a", b"", "bad_request"),
        ("/a", b"[]", "bad_request"),
        ("/a", b'"text"', "bad_request"),
        ("/a", rb'{"text": "\ud83d"}', "bad_request"),  # half a surrogate pair
        ("/a", rb'{"text": "\uD83D and \uDE00"}', "bad_request"),
        ("/a", b'{"text": "\xed\xa0\xbd"}', "bad_request"),
        ("/a", b'{"n": NaN}', "bad_request"),
        ("/a", b'{"n": -Infinity}', "bad_request"),
        ("/a", b'{"_unknown": 1}', "doc_validation"),
        ("/a", b'{"_deleted": 1}', "doc_validation"),
        ("/_unknown", b"{}", "illegal_docid"),
        ("/a", b'{"_rev": "nonsense"}', "bad_request"),
        ("/a", b'{"_rev": "x-abc"}', "bad_request"),
        ("/a", b'{"_rev": 1}', "bad_request"),
        ("/a?rev=nonsense", b"{}", "bad_request"),
        ("/a?rev=", b"{}", "bad_request"),
    ],
)
def test_refused(db, path, body, error):
    answer = db("PUT", path, data=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, error)


@pytest.mark.parametrize("doc_id", ["", "_design/", "_local/", "_other/x", 7, None, ["a"]])
def test_ids_that_are_refused(db, doc_id):
    for path, body in (("", {"_id": doc_id}), ("/_bulk_docs", {"docs": [{"_id": doc_id}]})):
        answer = db.post(path, body)
        assert (answer.status_code, answer.json()["error"]) == (400, "illegal_docid"), path


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", rb'{"_id": "a\ud83d"}'),
        ("POST", "/_bulk_docs", rb'{"docs": [{"_id": "a\ud83d"}]}'),
        ("POST", "/_bulk_get", rb'{"docs": [{"id": "a\ud83d"}]}'),
        ("POST", "/_all_docs", rb'{"keys": ["a\ud83d"]}'),
        ("GET", "/_all_docs?start_key=%22a%5Cud83d%22", b""),
    ],
)
def test_an_id_with_half_a_surrogate_pair(db, method, path, body):
    answer = db(method, path, data=body, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


def test_whole_surrogate_pairs_and_what_only_looks_like_a_half(db):
    body = rb'{"_id": "a\ud83d\ude00", "text": "\\ud83d"}'
    answer = db("POST", "", data=body, headers={"Content-Type": "application/json"})
    assert answer.json()["id"] == "a😀"
    assert db.get("/a%F0%9F%98%80").json()["text"] == r"\ud83d"


def test_post_must_be_json(db):
    answer = db("POST", "", data=b"{}", headers={"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()["error"]) == (415, "bad_content_type")


def test_gzipped_body(db):
    body = gzip.compress(json.dumps({"text": "ö" * 1000}).encode())
    headers = {"Content-Encoding": "gzip", "Content-Type": "application/json"}
    assert db("PUT", "/a", data=body, headers=headers).status_code in CREATED
    assert db.get("/a").json()["text"] == "ö" * 1000


@pytest.mark.parametrize("text", ["x" * 8_000_001, "ö" * 4_000_001])
def test_too_large(db, text):
    answer = db("PUT", "/big", data=json.dumps({"text": text}, ensure_ascii=False).encode())
    assert (answer.status_code, answer.json()) == (413, {"error": "document_too_large", "reason": "big"})


def test_values_come_back_as_they_were(db):
    values = {
        "null": None,
        "numbers": [0, -1, 1.5, 1e100, 2**53],
        "text": 'ä\u0000"\\/\n\u2028😀',
        "nested": {"": {"a": [[], {}]}},
        "z": 1,
        "a": 2,
    }
    db.put("/a", values)
    got = db.get("/a").json()
    assert {name: value for name, value in got.items() if not name.startswith("_")} == values
    assert [name for name in got if not name.startswith("_")] == list(values)


def test_local_documents(db):
    made = db.put("/_local/checkpoint", {"seq": "1"})
    assert made.status_code in CREATED
    assert made.json() == {"ok": True, "id": "_local/checkpoint", "rev": "0-1"}
    assert db.get("/_local/checkpoint").json() == {"_id": "_local/checkpoint", "_rev": "0-1", "seq": "1"}
    changed = db.put("/_local/checkpoint", {"_rev": "0-1", "seq": "2"})
    assert changed.json()["rev"] == "0-2"
    assert db.get("/_all_docs").json()["rows"] == []
    assert db.get("/_changes").json()["results"] == []
    assert db.get("").json()["doc_count"] == 0
    assert db.delete("/_local/checkpoint?rev=0-2").status_code in (200, 202)
    assert db.get("/_local/checkpoint").status_code == 404
    assert db.delete("/_local/checkpoint").status_code == 404
    again = db.put("/_local/checkpoint", {"seq": "3"}).json()["rev"]
    assert db.put("/_local/checkpoint", {"_rev": again, "_deleted": True}).status_code in (200, 201, 202)
    assert db.get("/_local/checkpoint").status_code == 404


def test_a_number_that_no_double_holds_is_refused_and_harms_no_view(db):
    answer = db("PUT", "/a", data='{"n": 1e999}', headers={"Content-Type": "application/json"})
    assert answer.status_code >= 400
    assert db.get("/a").status_code == 404
    db.put("/_design/d", {"views": {"v": {"map": "function (doc) { emit(doc._id); }"}}})
    db.put("/b", {})
    assert [row["id"] for row in db.get("/_design/d/_view/v").json()["rows"]] == ["b"]
