"""`_find` and its indexes."""

from __future__ import annotations

import pytest

DOCUMENTS = [
    {"_id": "a", "n": 1, "tags": ["x", "y"], "at": {"place": "kisumu"}, "text": "hello"},
    {"_id": "b", "n": 2, "tags": ["y"], "at": {"place": "lodwar"}, "text": "Habari"},
    {"_id": "c", "n": 3, "below": -3, "tags": [], "items": [{"state": "pending", "n": 1}, {"state": "sent", "n": 2}]},
    {"_id": "d", "n": "3", "none": None, "yes": True, "accent": "thé", "large": 2**53 + 1},
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
        ({"tags.0": {"$exists": False}}, "de"),  # but not in a list that is empty
        ({"n.x": {"$exists": False}}, ""),  # nor in what is no object
        ({"at": {"x": {"$exists": False}}}, "abcde"),
        ({"none": None}, "d"),
        ({"n": {"$type": "string"}}, "d"),
        ({"n": {"$type": "text"}}, ""),  # which is no type
        ({"n": {"$not": {"$type": "text"}}}, "abcde"),
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
        ({"text": {"$regex": "ell"}}, "a"),
        ({"accent": {"$regex": "^.{3}$"}}, ""),  # a dot is one byte
        ({"accent": {"$regex": "^.{4}$"}}, "d"),
        ({"accent": {"$regex": "é$"}}, "d"),
        ({"n": {"$mod": [2, 1]}}, "ac"),
        ({"below": {"$mod": [2, -1]}}, "c"),
        ({"below": {"$mod": [2, 1]}}, ""),
        ({"large": {"$mod": [2, 1]}}, "d"),
        ({"n": {"$lt": 2}}, "a"),
        ({"_id": {"$gt": "B"}}, "abcde"),  # ids have the order of their bytes
        ({"text": {"$gt": "Ha"}}, "ab"),  # and other texts that of ICU
        ({"text": {"$gt": "I"}}, ""),
        ({"yes": {"$type": "boolean"}}, "d"),
        ({"yes": {"$type": "number"}}, ""),
        ({"at": {}}, ""),
        ({"tags": {"$all": []}}, ""),
        ({"tags": {"$all": [["x", "y"]]}}, "a"),
        ({"tags": {"$in": ["x\u0001"]}}, "a"),  # ICU ignores this character
        ({"tags": {"$all": ["x\u0001"]}}, ""),  # of which $all does not ask
        ({"tags": {"$elemMatch": {}}}, ""),
        ({"items": {"$elemMatch": {"$not": {"other": 1}}}}, "c"),  # here a field need not be there
        ({"items": {"$elemMatch": {"n": {"$not": {"$gt": 0}}}}}, ""),
        ({"n": {"$or": [1, "3"]}}, "ad"),
        ({"$or": [{"n": 1}, {}]}, "a"),  # nothing is a document without fields
        ({"$and": [{}]}, ""),
        ({"tags.0": "x"}, "a"),
        ({"$not": {"$nor": [{"n": 1}, {"n": 2}]}}, "ab"),
        ({"$not": {"n": 1, "text": "hello"}}, "bcde"),
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
    for fields in (["tags", "tags.1"], ["tags.1", "tags"]):
        (document,) = find(documents, selector={"_id": "a"}, fields=fields)["docs"]
        assert document == {"tags": ["x", "y"]}, "a part of what was taken adds nothing"
    (document,) = find(documents, selector={"_id": "c"}, fields=["items", "items.0.n"])["docs"]
    assert document == {"items": DOCUMENTS[2]["items"]}
    (document,) = find(documents, selector={"_id": "a"}, fields=[])["docs"]
    assert document["n"] == 1, "none is all"


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
    begun = find(db, selector={"_id": {"$gt": None}}, limit=2)
    rest = find(db, selector={"_id": {"$gt": None}}, limit=2, skip=1, bookmark=begun["bookmark"])["docs"]
    assert [document["_id"] for document in rest] == ["03", "04"]
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


def test_sorts(documents):
    documents.post("/_index", {"index": {"fields": ["text", "n"]}})
    documents.eventually("/_index", lambda answer: answer.json()["total_rows"] == 2)

    def ids(sort, **selector):
        return [doc["_id"] for doc in find(documents, selector=selector, sort=sort, fields=["_id"])["docs"]]

    every = {"$gt": None}
    assert ids([{"_id": "desc"}], _id=every) == ["e", "d", "c", "b", "a"]
    assert ids(["text", "n"], text=every) == ["b", "a"], "the others have no text"
    by_second = {"selector": {"n": every}, "sort": ["n"]}
    assert documents.post("/_find", by_second).json()["error"] == "no_usable_index"


@pytest.mark.parametrize(
    ("selector", "usable"),
    [
        ({"text": {"$gt": None}}, False),  # what has no n is not in the index
        ({"n": {"$gt": None}}, True),
        ({"n": {"$exists": True}}, True),
        ({"n": {"$exists": False}}, False),
        ({"$not": {"n": {"$exists": False}}}, True),
        ({"$not": {"n": 9}}, True),
        ({"$nor": [{"n": 9}, {"n": 10}]}, True),
        ({"$and": [{"text": {"$gt": None}}, {"n": {"$gt": None}}]}, True),
        ({"$or": [{"n": 1}, {"n": 2}]}, True),
        ({"$or": [{"n": 1}, {"text": "Habari"}]}, False),
        ({"n": {"x": 1}}, False),
    ],
)
def test_a_sort_by_a_part_of_an_index_needs_its_other_fields_too(documents, selector, usable):
    documents.post("/_index", {"index": {"fields": ["text", "n"]}})
    documents.eventually("/_index", lambda answer: answer.json()["total_rows"] == 2)
    answer = documents.post("/_find", {"selector": selector, "sort": ["text"], "fields": ["_id"]})
    if usable:
        assert [document["_id"] for document in answer.json()["docs"]] == ["b", "a"]
    else:
        assert (answer.status_code, answer.json()["error"]) == (400, "no_usable_index")


def test_who_may_make_and_remove_indexes(documents, as_user, new_user):
    member = new_user("sms")
    documents.put("/_security", {"members": {"roles": ["sms"]}, "admins": {"roles": ["_admin"]}})
    seen = as_user(documents, member)
    index = {"index": {"fields": ["n"]}, "ddoc": "by-n", "name": "by-n"}
    assert seen.post("/_index", index).status_code >= 400
    assert documents.get("/_design/by-n").status_code == 404
    documents.post("/_index", index)
    assert seen.delete("/_index/by-n/json/by-n").status_code >= 400
    assert documents.get("/_design/by-n").status_code == 200
    assert len(seen.post("/_find", {"selector": {}}).json()["docs"]) == len(DOCUMENTS)


def test_two_indexes_in_one_design_document(db):
    one, two = ({"index": {"fields": [name]}, "ddoc": "_design/both", "name": name} for name in "ab")
    for index in (one, two):
        assert db.post("/_index", index).json() == {
            "result": "created",
            "id": "_design/both",
            "name": index["name"],
        }
    rev = db.get("/_design/both").json()["_rev"]
    db.eventually("/_index", lambda answer: answer.json()["total_rows"] == 3)
    assert db.post("/_index", one).json()["result"] == "exists"
    assert db.get("/_design/both").json()["_rev"] == rev, "nothing was written"
    assert db.delete("/_index/both/json/c").status_code == 404
    assert db.delete("/_index/_design/both/json/a").json() == {"ok": True}
    assert list(db.get("/_design/both").json()["views"]) == ["b"]
    left = db.eventually("/_index", lambda answer: answer.json()["total_rows"] == 2).json()["indexes"]
    assert [index["name"] for index in left] == ["_all_docs", "b"]
    assert db.delete("/_index/both/json/b").json() == {"ok": True}
    assert db.get("/_design/both").json()["reason"] == "deleted"


def test_an_index_goes_beside_what_is_none(db):
    assert db.put("/_design/d", {"language": "query"}).status_code in (201, 202)
    assert db.delete("/_index/d/json/n").status_code == 404
    assert db.put("/_design/e", {"language": "query", "views": {"v": {"map": {}}}}).status_code in (201, 202)
    assert db.post("/_index", {"index": {"fields": ["n"]}, "ddoc": "d", "name": "n"}).json()["result"] == "created"
    body = db.eventually("/_index", lambda answer: answer.json()["total_rows"] == 2).json()
    assert [index["name"] for index in body["indexes"]] == ["_all_docs", "n"]
    assert find(db, selector={"n": {"$gt": None}}, sort=["n"])["docs"] == []


def test_no_index_goes_among_map_functions(db):
    db.design("d", v="function (doc) {}")
    assert db.post("/_index", {"index": {"fields": ["n"]}, "ddoc": "d", "name": "n"}).status_code == 400
    assert list(db.get("/_design/d").json()["views"]) == ["v"]


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
        {"selector": {"n": {"$type": ["number"]}}},
        {"selector": {"n": {"$type": {"number": True}}}},
        {"selector": {"n": {"$regex": 1}}},
        {"selector": {"n": {"$regex": "("}}},
        {"selector": {"n": {"$not": 1}}},
        {"selector": {"n": {"$elemMatch": 1}}},
        {"selector": {}, "limit": -1},
        {"selector": {}, "fields": "a"},
        {"selector": {}, "unknown": 1},
        {"selector": {}, "sort": "a"},
        {"selector": {}, "sort": [{"a": "asc"}, {"b": "desc"}]},
        {"selector": {}, "sort": [{"a": "up"}]},
    ],
)
def test_refused(db, body):
    assert db.post("/_find", body).status_code == 400
