"""`_find` and its indexes."""

from __future__ import annotations

import pytest

DOCUMENTS = [
    {"_id": "a", "n": 1, "tags": ["x", "y"], "at": {"place": "kisumu"}, "text": "hello"},
    {"_id": "b", "n": 2, "tags": ["y"], "at": {"place": "lodwar"}, "text": "Habari"},
    {"_id": "c", "n": 3, "tags": [], "items": [{"state": "pending", "n": 1}, {"state": "sent", "n": 2}]},
    {"_id": "d", "n": "3", "none": None},
    {"_id": "e", "dotted.name": 1, "n": 7.5},
]


@pytest.fixture
def documents(db):
    db.save(*DOCUMENTS)
    db.design("d", v="function (doc) {}")
    return db


def find(db, **body):
    answer = db.post("/_find", body)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("selector", "ids"),
    [
        ({}, "abcde"),
        ({"_id": "b"}, "b"),
        ({"_id": {"$gt": "c"}}, "de"),
        ({"n": 1}, "a"),
        ({"n": {"$eq": "3"}}, "d"),
        ({"n": {"$ne": 1}}, "bcde"),
        ({"n": {"$gt": 2}}, "cde"),
        ({"n": {"$gte": 2, "$lt": 7}}, "bc"),
        ({"n": {"$lte": 1}}, "a"),
        ({"n": {"$in": [1, 3, "3"]}}, "acd"),
        ({"n": {"$nin": [1, 3]}}, "bde"),
        ({"tags": {"$in": ["x"]}}, "a"),
        ({"tags": {"$nin": ["x"]}}, "bc"),
        ({"none": {"$exists": True}}, "d"),
        ({"tags": {"$exists": False}}, "de"),
        ({"none": None}, "d"),
        ({"n": {"$type": "string"}}, "d"),
        ({"tags": {"$type": "array"}}, "abc"),
        ({"none": {"$type": "null"}}, "d"),
        ({"at": {"$type": "object"}}, "ab"),
        ({"at.place": "kisumu"}, "a"),
        ({"at": {"place": "lodwar"}}, "b"),
        ({"dotted\\.name": 1}, "e"),
        ({"$and": [{"n": {"$gt": 1}}, {"tags": {"$all": ["y"]}}]}, "b"),
        ({"$or": [{"n": 1}, {"at.place": "lodwar"}]}, "ab"),
        ({"$nor": [{"n": 1}, {"n": 2}]}, "cde"),
        ({"$not": {"n": 1}}, "bcde"),
        ({"at.place": {"$not": {"$eq": "kisumu"}}}, "b"),
        ({"$not": {"tags": {"$exists": True}}}, "de"),
        ({"tags": {"$all": ["x", "y"]}}, "a"),
        ({"tags": {"$size": 1}}, "b"),
        ({"tags": {"$size": 0}}, "c"),
        ({"items": {"$elemMatch": {"state": "pending", "n": 1}}}, "c"),
        ({"items": {"$elemMatch": {"state": "pending", "n": 2}}}, ""),
        ({"tags": {"$elemMatch": {"$eq": "y"}}}, "ab"),
        ({"text": {"$regex": "^[Hh]a"}}, "b"),
        ({"n": {"$mod": [2, 1]}}, "ac"),
    ],
)
def test_selectors(documents, selector, ids):
    found = find(documents, selector=selector)["docs"]
    assert sorted(document["_id"] for document in found) == list(ids)


def test_whole_documents_and_a_warning(documents):
    body = find(documents, selector={"n": 1})
    (document,) = body["docs"]
    assert document == DOCUMENTS[0] | {"_rev": document["_rev"]}
    assert "warning" in body
    assert isinstance(body["bookmark"], str)


def test_fields(documents):
    (document,) = find(documents, selector={"_id": "a"}, fields=["_id", "at.place", "nothing"])["docs"]
    assert document == {"_id": "a", "at": {"place": "kisumu"}}


def test_bookmarks(db):
    db.save(*({"_id": f"{number:02}"} for number in range(60)))
    assert len(find(db, selector={"_id": {"$gt": None}})["docs"]) == 25, "the limit is 25 unless it is given"
    seen, bookmark = [], None
    while True:
        body = find(db, selector={"_id": {"$gt": None}}, limit=25, **({"bookmark": bookmark} if bookmark else {}))
        if not body["docs"]:
            break
        seen += [document["_id"] for document in body["docs"]]
        bookmark = body["bookmark"]
    assert seen == [f"{number:02}" for number in range(60)]
    found = find(db, selector={"_id": {"$gt": None}}, limit=2, skip=3)["docs"]
    assert [document["_id"] for document in found] == ["03", "04"]


def test_sort_needs_an_index(documents):
    query = {"selector": {"n": {"$gt": None}}, "sort": [{"n": "desc"}], "fields": ["_id"]}
    refused = documents.post("/_find", query)
    assert (refused.status_code, refused.json()["error"]) == (400, "no_usable_index")
    made = documents.post("/_index", {"index": {"fields": ["n"]}, "ddoc": "by-n", "name": "by-n"}).json()
    assert made == {"result": "created", "id": "_design/by-n", "name": "by-n"}
    documents.eventually("/_index", lambda answer: answer.json()["total_rows"] == 2)
    again = documents.post("/_index", {"index": {"fields": ["n"]}, "ddoc": "by-n", "name": "by-n"}).json()
    assert again["result"] == "exists"
    found = documents.post("/_find", query).json()["docs"]
    assert [document["_id"] for document in found] == ["d", "e", "c", "b", "a"]


def test_indexes(db):
    db.post("/_index", {"index": {"fields": ["a", {"b.c": "asc"}]}, "ddoc": "one", "name": "first"})
    body = db.eventually("/_index", lambda answer: answer.json()["total_rows"] == 2).json()
    assert body["total_rows"] == 2
    special, made = body["indexes"]
    assert (special["ddoc"], special["name"], special["type"]) == (None, "_all_docs", "special")
    assert (made["ddoc"], made["name"], made["type"]) == ("_design/one", "first", "json")
    assert made["def"]["fields"] == [{"a": "asc"}, {"b.c": "asc"}]
    assert db.delete("/_index/one/json/first").json() == {"ok": True}
    left = db.eventually("/_index", lambda answer: answer.json()["total_rows"] == 1)
    assert left.json()["total_rows"] == 1
    assert db.delete("/_index/one/json/first").status_code == 404


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"selector": []},
        {"selector": {"n": {"$unknown": 1}}},
        {"selector": {"n": {"$in": 1}}},
        {"selector": {}, "limit": -1},
        {"selector": {}, "fields": "a"},
    ],
)
def test_refused(db, body):
    assert db.post("/_find", body).status_code == 400
