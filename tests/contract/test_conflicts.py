"""Documents with several leaves, as replication leaves them: copies of others' edits, conflicts, and what ends them."""

from __future__ import annotations

from typing import Any

import pytest

CREATED = (201, 202)
ROOT, LOW, HIGH = "1-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "2-b" + "0" * 31, "2-c" + "0" * 31
HASH = {rev: rev.partition("-")[2] for rev in (ROOT, LOW, HIGH)}


def copy_of(rev: str, *before: str, deleted: bool = False, **fields: Any) -> dict[str, Any]:
    """A revision of the document `a` as a replication brings it."""
    line = [rev, *before]
    doc = {"_id": "a", "_rev": rev, "_revisions": {"start": int(rev[0]), "ids": [r.partition("-")[2] for r in line]}}
    return {**doc, **({"_deleted": True} if deleted else {}), **fields}


def bring(db, *docs):
    answer = db.post("/_bulk_docs", {"new_edits": False, "docs": list(docs)})
    assert (answer.status_code in CREATED, answer.json()) == (True, []), answer.text


@pytest.fixture
def torn(db):
    """A document that was edited in two places."""
    bring(db, copy_of(ROOT, n=1), copy_of(LOW, ROOT, n="low"), copy_of(HIGH, ROOT, n="high"))
    return db


def test_a_copy_keeps_its_revision(db):
    bring(db, copy_of(LOW, ROOT, n=1))
    assert db.get("/a?revs=true").json() == {
        "_id": "a",
        "_rev": LOW,
        "n": 1,
        "_revisions": {"start": 2, "ids": [HASH[LOW], HASH[ROOT]]},
    }
    assert db.get("").json()["doc_count"] == 1


def test_one_of_two_read_by_its_name_has_no_conflicts(torn):
    for rev in (ROOT, LOW):
        assert "_conflicts" not in torn.get("/a", params={"rev": rev, "conflicts": "true"}).json()


def test_a_copy_by_put(db):
    answer = db.put("/a?new_edits=false", copy_of(LOW, ROOT, n=1))
    assert (answer.status_code in CREATED, answer.json()) == (True, {"ok": True, "id": "a", "rev": LOW})


@pytest.mark.parametrize("order", [(LOW, HIGH), (HIGH, LOW)])
def test_everybody_sees_the_same_of_two(db, order):
    for rev in order:
        bring(db, copy_of(rev, ROOT, n=rev))
    assert db.get("/a?conflicts=true").json() == {"_id": "a", "_rev": HIGH, "n": HIGH, "_conflicts": [LOW]}
    assert "_conflicts" not in db.get("/a").json()
    assert db.get("").json()["doc_count"] == 1


def test_the_longer_line_is_seen(torn):
    (rev,) = torn.save({"_id": "a", "_rev": LOW, "n": "longer"})
    assert rev[0] == "3"
    assert torn.get("/a?conflicts=true").json() == {"_id": "a", "_rev": rev, "n": "longer", "_conflicts": [HIGH]}


@pytest.mark.parametrize("n", ["low", "other"])
def test_what_is_known_already_changes_nothing(torn, n):
    before = torn.get("/_changes").json()["last_seq"]
    bring(torn, copy_of(LOW, ROOT, n=n), copy_of(ROOT, n=n))
    assert torn.get("/_changes", params={"since": before}).json()["results"] == []
    assert torn.get(f"/a?rev={LOW}").json()["n"] == "low"


def test_a_line_that_goes_on_ends_no_conflict(torn):
    longer = "4-" + "0" * 32
    bring(torn, copy_of(longer, "3-" + "1" * 32, LOW, ROOT, n="longer"))
    doc = torn.get("/a?conflicts=true&revs=true").json()
    assert (doc["_rev"], doc["_conflicts"], doc["_revisions"]["start"]) == (longer, [HIGH], 4)
    assert doc["_revisions"]["ids"][2:] == [HASH[LOW], HASH[ROOT]]


def test_a_short_line_is_known_to_its_root(torn):
    """A replication names only what the other side lacks."""
    bring(torn, copy_of("3-" + "0" * 32, LOW, n="longer"))
    assert torn.get("/a?revs=true").json()["_revisions"]["ids"] == ["0" * 32, HASH[LOW], HASH[ROOT]]


@pytest.mark.parametrize(("gone", "left", "n"), [(HIGH, LOW, "low"), (LOW, HIGH, "high")])
def test_deleting_one_of_two_leaves_the_other(torn, gone, left, n):
    answer = torn.delete(f"/a?rev={gone}")
    assert answer.status_code in (200, 202), answer.text
    assert torn.get("/a?conflicts=true").json() == {"_id": "a", "_rev": left, "n": n}
    deleted = torn.get("/a?deleted_conflicts=true").json()["_deleted_conflicts"]
    assert deleted == [answer.json()["rev"]]
    assert torn.get("").json()["doc_count"] == 1


def test_deleting_both_deletes_the_document(torn):
    for rev in (HIGH, LOW):
        assert torn.delete(f"/a?rev={rev}").status_code in (200, 202)
    assert torn.get("/a").json() == {"error": "not_found", "reason": "deleted"}
    info = torn.get("").json()
    assert (info["doc_count"], info["doc_del_count"]) == (0, 1)


def test_a_deletion_that_comes_as_a_copy_loses(db):
    bring(db, copy_of(LOW, ROOT, n="low"), copy_of(HIGH, ROOT, deleted=True))
    assert db.get("/a?conflicts=true").json() == {"_id": "a", "_rev": LOW, "n": "low"}


def test_an_edit_of_neither_is_refused(torn):
    answer = torn.put("/a", {"_rev": ROOT})
    assert (answer.status_code, answer.json()["error"]) == (409, "conflict")


def test_every_leaf_can_be_read(torn):
    torn.delete(f"/a?rev={LOW}")
    found = torn.get("/a?open_revs=all").json()
    assert sorted((row["ok"]["_rev"][0], row["ok"].get("n")) for row in found) == [("2", "high"), ("3", None)]
    bulk = torn.post("/_bulk_get", {"docs": [{"id": "a"}]}).json()["results"][0]["docs"]
    assert sorted(row["ok"]["_rev"][0] for row in bulk) == ["2", "3"]


def test_the_latest_of_a_revision_is_every_leaf_that_came_of_it(torn):
    found = torn.get(f'/a?open_revs=["{ROOT}"]&latest=true').json()
    assert sorted(row["ok"]["_rev"] for row in found) == [LOW, HIGH]


def test_a_conflict_is_read_by_its_revision(torn):
    assert torn.get(f"/a?rev={LOW}").json() == {"_id": "a", "_rev": LOW, "n": "low"}
    answer = torn.post("/_bulk_get", {"docs": [{"id": "a", "rev": LOW}, {"id": "a", "rev": "9-" + "0" * 32}]}).json()
    found, missing = (result["docs"][0] for result in answer["results"])
    assert found["ok"]["n"] == "low"
    assert missing["error"]["error"] == "not_found"


def test_what_a_replication_still_has_to_bring(torn):
    other = "2-d" + "0" * 31
    assert torn.post("/_revs_diff", {"a": [ROOT, LOW, HIGH, other]}).json()["a"]["missing"] == [other]


def test_a_conflict_is_a_change_of_the_document(db):
    bring(db, copy_of(HIGH, ROOT, n="high"))
    before = db.get("/_changes").json()["last_seq"]
    bring(db, copy_of(LOW, ROOT, n="low"))
    asked = {"since": before, "include_docs": "true", "conflicts": "true"}
    (change,) = db.get("/_changes", params=asked).json()["results"]
    assert change["changes"] == [{"rev": HIGH}]
    assert change["doc"] == {"_id": "a", "_rev": HIGH, "n": "high", "_conflicts": [LOW]}
    (change,) = db.get("/_changes", params={"since": before, "style": "all_docs"}).json()["results"]
    assert sorted(leaf["rev"] for leaf in change["changes"]) == [LOW, HIGH]


@pytest.mark.parametrize(
    ("method", "path", "body", "rows"),
    [
        ("GET", "/_all_docs?include_docs=true&conflicts=true", None, "rows"),
        ("POST", "/_all_docs?include_docs=true&conflicts=true", {"keys": ["a"]}, "rows"),
        ("POST", "/_all_docs", {"keys": ["a"], "include_docs": True, "conflicts": True}, "rows"),
        ("GET", "/_design/d/_view/by_n?include_docs=true&conflicts=true", None, "rows"),
        ("POST", "/_design/d/_view/by_n", {"keys": ["high"], "include_docs": True, "conflicts": True}, "rows"),
        ("POST", "/_find", {"selector": {"n": "high"}, "conflicts": True}, "docs"),
    ],
)
def test_conflicts_are_named_where_they_are_asked_for(torn, method, path, body, rows):
    torn.design("d", by_n="function (doc) { emit(doc.n); }")
    found = [row.get("doc", row) for row in torn(method, path, json=body).json()[rows]]
    assert [doc["_conflicts"] for doc in found if doc["_id"] == "a"] == [[LOW]]


def test_a_map_function_sees_the_conflicts(torn):
    torn.design("d", torn="function (doc) { if (doc._conflicts) { emit(doc._conflicts, doc.n); } }")
    (row,) = torn.get("/_design/d/_view/torn").json()["rows"]
    assert (row["key"], row["value"]) == ([LOW], "high")
    torn.delete(f"/a?rev={LOW}")
    assert torn.get("/_design/d/_view/torn").json()["rows"] == []


def test_a_map_function_sees_the_deleted_conflicts(torn):
    torn.design("d", ended="function (doc) { if (doc._deleted_conflicts) { emit(doc._conflicts, 1); } }")
    assert torn.get("/_design/d/_view/ended").json()["rows"] == []
    torn.delete(f"/a?rev={LOW}")
    (row,) = torn.get("/_design/d/_view/ended").json()["rows"]
    assert row["key"] is None, "of those that are not deleted there is none"


def test_the_limit_of_revisions_holds_for_copies(db):
    assert db.put("/_revs_limit", 3).status_code in (200, 202)
    line = [f"{place:032x}" for place in range(9, 0, -1)]
    bring(db, {"_id": "a", "_rev": f"9-{line[0]}", "_revisions": {"start": 9, "ids": line}})
    assert db.get("/a?revs=true").json()["_revisions"] == {"start": 9, "ids": line[:3]}
    other = ["f" * 32, *line[1:]]
    bring(db, {"_id": "a", "_rev": f"9-{other[0]}", "_revisions": {"start": 9, "ids": other}})
    doc = db.get("/a?revs=true&conflicts=true").json()
    assert doc["_conflicts"] == [f"9-{line[0]}"]
    assert doc["_revisions"] == {"start": 9, "ids": other[:3]}


@pytest.mark.parametrize(("gone", "left", "n"), [(HIGH, LOW, "low"), (LOW, HIGH, "high")])
def test_purging_one_of_two_leaves_the_other(torn, gone, left, n):
    assert torn.post("/_purge", {"a": [gone]}).json()["purged"] == {"a": [gone]}
    assert torn.get("/a?conflicts=true").json() == {"_id": "a", "_rev": left, "n": n}
    assert torn.get("/a", params={"rev": gone}).status_code == 404
    assert torn.get("").json()["doc_count"] == 1
