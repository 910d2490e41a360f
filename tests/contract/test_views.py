"""Design documents and their views: map functions, order, ranges, reduce, indexes."""

from __future__ import annotations

import json

import pytest

from mjumbe.setup import read_designs

EMIT_KEY = "function (doc) { if ('key' in doc) emit(doc.key, doc.value); }"

# CouchDB's order of values (docs.couchdb.org, "Views Collation"), without the two characters (` and ^) whose place
# depends on the version of ICU.
ORDER = [
    None,
    False,
    True,
    -1.5,
    0,
    1,
    2,
    3.5,
    1e9,
    "",
    " ",
    "_",
    "-",
    ",",
    ";",
    ":",
    "!",
    "?",
    ".",
    "'",
    '"',
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    "@",
    "*",
    "/",
    "\\",
    "&",
    "#",
    "%",
    "+",
    "+254700000001",
    "<",
    "=",
    ">",
    "|",
    "~",
    "$",
    "0",
    "10",
    "2",
    "9",
    "a",
    "A",
    "á",
    "Á",
    "aa",
    "aB",
    "Ab",
    "ab c",
    "abc",
    "b",
    "B",
    "ba",
    "bb",
    "e",
    "é",
    "f",
    "o",
    "ö",
    "p",
    "z",
    "я",
    "一",
    "\ufff0",
    [],
    [None],
    ["a"],
    ["a", {}],
    ["b"],
    ["b", "c"],
    ["b", "c", "a"],
    ["b", "d"],
    ["b", "d", "e"],
    {},
    {"a": 1},
    {"a": 2},
    {"b": 1},
    {"b": 2},
    {"b": 2, "a": 1},
    {"b": 2, "c": 2},
]


@pytest.fixture
def ordered(db):
    """A document for every key of ORDER, with ids that say nothing of the order."""
    db.save(*({"_id": f"{(place * 37) % 101:03}", "place": place, "key": key} for place, key in enumerate(ORDER)))
    db.design("d", by_key="function (doc) { emit(doc.key, doc.place); }")
    return db


def places(answer):
    assert answer.status_code == 200, answer.text
    return [row["value"] for row in answer.json()["rows"]]


def test_order(ordered):
    rows = ordered.get("/_design/d/_view/by_key").json()["rows"]
    assert [row["key"] for row in rows] == ORDER
    assert places(ordered.get("/_design/d/_view/by_key?descending=true")) == list(range(len(ORDER)))[::-1]


def at(key):
    return next(place for place, other in enumerate(ORDER) if other == key and type(other) is type(key))


def between(first, last):
    return list(range(at(first), at(last) + 1))


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"key": "ab c"}, [at("ab c")]),
        ({"key": None}, [at(None)]),
        ({"key": ["b", "c"]}, [at(["b", "c"])]),
        ({"key": 1}, [at(1)]),
        # No key twice: CouchDB merges its shards' rows by the place of a key in `keys`, and remembers one place a key.
        ({"keys": ["z", "nothing", "a"]}, [at("z"), at("a")]),
        ({"startkey": "a", "endkey": "abc"}, between("a", "abc")),
        ({"start_key": "a", "end_key": "abc", "inclusive_end": False}, between("a", "abc")[:-1]),
        ({"startkey": "abc", "endkey": "a", "descending": True}, between("a", "abc")[::-1]),
        (
            {"startkey": "abc", "endkey": "a", "descending": True, "inclusive_end": False},
            between("a", "abc")[:0:-1],
        ),
        ({"startkey": ["b"], "endkey": ["b", {}]}, between(["b"], ["b", "d", "e"])),
        ({"startkey": ["b", "c"], "endkey": ["b", "c", {}]}, between(["b", "c"], ["b", "c", "a"])),
        ({"startkey": [], "endkey": {}}, between([], {})),
        ({"startkey": "+", "endkey": "+\ufff0"}, between("+", "+254700000001")),
        ({"startkey": "a", "endkey": "a\ufff0"}, between("a", "abc")),
        ({"endkey": True}, between(None, True)),
        ({"startkey": {}}, between({}, {"b": 2, "c": 2})),
        ({"startkey": 0, "endkey": 2, "limit": 2}, [at(0), at(1)]),
        ({"startkey": 0, "endkey": 2, "skip": 1}, [at(1), at(2)]),
        ({"limit": 0}, []),
        ({"limit": 2**63 - 1, "skip": len(ORDER) - 1}, [len(ORDER) - 1]),
        ({"limit": 3, "skip": 2, "descending": True}, list(range(len(ORDER)))[::-1][2:5]),
    ],
)
def test_ranges(ordered, parameters, expected):
    query = {name: json.dumps(value) for name, value in parameters.items()}
    assert places(ordered.get("/_design/d/_view/by_key", params=query)) == expected
    assert places(ordered.post("/_design/d/_view/by_key", parameters)) == expected


@pytest.mark.parametrize(
    ("parameters", "offset"),
    [
        ({}, 0),
        ({"skip": 2}, 2),
        ({"skip": 1000}, len(ORDER)),
        ({"start_key": "a"}, at("a")),
        ({"start_key": "a", "skip": 1}, at("a") + 1),
        ({"start_key": "a", "inclusive_end": False}, at("a")),
        ({"key": "a"}, at("a")),
        ({"descending": True}, 0),
        ({"start_key": "a", "descending": True}, len(ORDER) - at("a") - 1),
        ({"start_key": "a", "descending": True, "inclusive_end": False}, len(ORDER) - at("a") - 1),
    ],
)
def test_how_many_rows_come_before(ordered, parameters, offset):
    body = ordered.post("/_design/d/_view/by_key", parameters).json()
    assert (body["offset"], body["total_rows"]) == (offset, len(ORDER))


def test_rows(db):
    db.save({"_id": "a", "key": "x", "value": {"n": 1}}, {"_id": "b", "key": "w"}, {"_id": "c"})
    db.design("d", by_key=EMIT_KEY)
    body = db.get("/_design/d/_view/by_key").json()
    assert body == {
        "total_rows": 2,
        "offset": 0,
        "rows": [{"id": "b", "key": "w", "value": None}, {"id": "a", "key": "x", "value": {"n": 1}}],
    }


def test_equal_keys_are_in_the_order_of_ids(db):
    db.save(*({"_id": doc_id, "key": 1} for doc_id in ["b", "B", "a", "c"]))
    db.design("d", by_key=EMIT_KEY)

    def found(**parameters):
        answer = db.get("/_design/d/_view/by_key", params=parameters)
        return [row["id"] for row in answer.json()["rows"]]

    assert found() == ["B", "a", "b", "c"]
    assert found(descending="true") == ["c", "b", "a", "B"]
    assert found(key="1", startkey_docid="b") == ["b", "c"]
    assert found(startkey="1", startkey_docid="b") == ["b", "c"]
    assert found(startkey="1", endkey="1", endkey_docid="a") == ["B", "a"]
    assert found(startkey="1", startkey_docid="b", descending="true") == ["b", "a", "B"]
    assert found(startkey="1", startkey_docid="b", limit="1", skip="1") == ["c"]


def test_several_rows_of_one_document(db):
    db.save({"_id": "a", "words": ["y", "x", "y"]})
    db.design("d", words="function (doc) { doc.words.forEach(function (word) { emit(word, word.length); }); }")
    assert [row["key"] for row in db.get("/_design/d/_view/words").json()["rows"]] == ["x", "y", "y"]


def test_what_a_map_function_sees(db):
    (rev,) = db.save({"_id": "a", "list": [1, 2]})
    db.design(
        "d",
        v="""function (doc) {
            log("nothing");
            emit([doc._id, doc._rev, isArray(doc.list), sum(doc.list), toJSON(doc.list)], undefined);
            emit(undefined, new Date(0));
        }""",
    )
    rows = db.get("/_design/d/_view/v").json()["rows"]
    assert rows[0]["key"] is None
    assert rows[0]["value"] == "1970-01-01T00:00:00.000Z"
    assert (rows[1]["key"], rows[1]["value"]) == (["a", rev, True, 3, "[1,2]"], None)


def test_what_was_emitted_is_as_the_map_function_leaves_it(db):
    db.save({"_id": "a"})
    db.design("d", v="function (doc) { var key = [1]; emit(key, key); key.push(2); emit(key, key); }")
    rows = db.get("/_design/d/_view/v").json()["rows"]
    assert [(row["key"], row["value"]) for row in rows] == [([1, 2], [1, 2])] * 2


def test_a_map_that_throws_skips_the_document(db):
    db.save({"_id": "a", "list": [1]}, {"_id": "b"}, {"_id": "c", "list": [1, 2]})
    db.design("d", size="function (doc) { emit(doc._id, doc.list.length); }", all="function (doc) { emit(doc._id); }")
    assert [row["id"] for row in db.get("/_design/d/_view/size").json()["rows"]] == ["a", "c"]
    assert [row["id"] for row in db.get("/_design/d/_view/all").json()["rows"]] == ["a", "b", "c"]


def test_follows_changes(db):
    db.design("d", by_key=EMIT_KEY)
    assert db.get("/_design/d/_view/by_key").json()["rows"] == []
    a, b = db.save({"_id": "a", "key": 1}, {"_id": "b", "key": 2})
    assert [row["key"] for row in db.get("/_design/d/_view/by_key").json()["rows"]] == [1, 2]
    db.save({"_id": "a", "_rev": a, "key": 3})
    assert [row["key"] for row in db.get("/_design/d/_view/by_key").json()["rows"]] == [2, 3]
    db.save({"_id": "b", "_rev": b, "_deleted": True, "key": 9})
    body = db.get("/_design/d/_view/by_key").json()
    assert [row["key"] for row in body["rows"]] == [3]
    assert body["total_rows"] == 1


def test_design_documents_are_not_mapped(db):
    db.save({"_id": "a"})
    db.design("d", all="function (doc) { emit(doc._id); }")
    assert [row["id"] for row in db.get("/_design/d/_view/all").json()["rows"]] == ["a"]


def test_changed_design_document(db):
    db.save({"_id": "a", "n": 1, "m": 2})
    rev = db.design("d", v="function (doc) { emit(doc.n); }")
    assert db.get("/_design/d/_view/v").json()["rows"][0]["key"] == 1
    changed = {"_rev": rev, "views": {"v": {"map": "function (doc) { emit(doc.m); }"}}}
    assert db.put("/_design/d", changed).status_code in (201, 202)
    answer = db.eventually("/_design/d/_view/v", lambda answer: answer.json()["rows"][0]["key"] != 1)
    assert answer.json()["rows"][0]["key"] == 2


def test_equal_design_documents_share_an_index(db):
    """So a new version can be built under another name and then take the old one's place without a wait."""
    db.save({"_id": "a", "key": 1})
    db.design("live", by_key=(EMIT_KEY, "_count"))
    db.design("staged", by_key=(EMIT_KEY, "_count"))
    db.design("other", by_key=("function (doc) { emit(1); }", "_count"))
    infos = [db.get(f"/_design/{name}/_info").json() for name in ("live", "staged", "other")]
    signatures = [info["view_index"]["signature"] for info in infos]
    assert signatures[0] == signatures[1] != signatures[2]
    assert infos[0]["name"] == "live"
    assert {"language", "sizes", "updater_running"} <= set(infos[0]["view_index"])
    assert db.get("/_design/live/_view/by_key").json()["rows"] == [{"key": None, "value": 1}]
    info = db.eventually("/_design/staged/_info", lambda answer: not pending(answer))
    assert pending(info) == 0


def pending(answer):
    """How many changes the index has still to read. `update_seq` grows during the first build, and says nothing."""
    return answer.json()["view_index"]["updates_pending"]["total"]


def test_our_own_design_documents(db):
    """The JavaScript engine compiles them, comments and all, and they take any document."""
    db.save(
        {"_id": "a", "type": "data_record", "tasks": [{"messages": [{}]}, None], "scheduled_tasks": {}}, {"_id": "b"}
    )
    for design in read_designs():
        assert db.put(f"/_design/{design.name}", {"views": design.views}).status_code in (201, 202), design.name
        for view in design.views:
            answer = db.get(f"/_design/{design.name}/_view/{view}?reduce=false")
            assert (answer.status_code, answer.json()["rows"]) == (200, []), view


def test_update_modes(db):
    db.save({"_id": "a", "key": 1})
    db.design("d", by_key=EMIT_KEY)
    assert len(db.get("/_design/d/_view/by_key").json()["rows"]) == 1
    for mode in ("update=false", "update=lazy", "update=true", "stable=true", "stale=ok"):
        assert db.get(f"/_design/d/_view/by_key?{mode}").status_code == 200
    for mode in ("false", "lazy", "true"):
        answer = db.post("/_design/d/_view/by_key?stable=true", {"update": mode, "keys": [1]})
        assert [row["id"] for row in answer.json()["rows"]] == ["a"]


def test_include_docs(db):
    (a, _) = db.save({"_id": "a", "key": 1, "value": {"_id": "b"}}, {"_id": "b", "key": 2, "value": {"_id": "none"}})
    db.design("d", by_key="function (doc) { emit(doc.key, 1); }", linked=EMIT_KEY)
    rows = db.get("/_design/d/_view/by_key?include_docs=true").json()["rows"]
    assert rows[0]["doc"] == {"_id": "a", "_rev": a, "key": 1, "value": {"_id": "b"}}
    linked = db.get("/_design/d/_view/linked?include_docs=true").json()["rows"]
    assert [row["doc"] and row["doc"]["_id"] for row in linked] == ["b", None]


def test_include_docs_by_their_revisions(db):
    (first,) = db.save({"_id": "b", "n": 1})
    db.save({"_id": "b", "_rev": first, "n": 2}, {"_id": "a", "key": 1, "value": {"_id": "b", "_rev": first}})
    db.design("d", linked=EMIT_KEY)
    (row,) = db.get("/_design/d/_view/linked?include_docs=true").json()["rows"]
    assert row["doc"] == {"_id": "b", "_rev": first, "n": 1}


def test_queries(db):
    db.save({"_id": "a", "key": 1}, {"_id": "b", "key": 2})
    db.design("d", by_key=(EMIT_KEY, "_count"))
    body = {"queries": [{"key": 2, "reduce": False}, {"reduce": True}, {"limit": 1, "reduce": False}]}
    results = db.post("/_design/d/_view/by_key/queries", body).json()["results"]
    assert [row["id"] for row in results[0]["rows"]] == ["b"]
    assert results[1]["rows"] == [{"key": None, "value": 2}]
    assert [row["id"] for row in results[2]["rows"]] == ["a"]


def test_queries_under_which_the_url_says_something(db):
    db.save({"_id": "a", "key": 1}, {"_id": "b", "key": 2}, {"_id": "c", "key": "2"})
    db.design("d", by_key=EMIT_KEY)
    answer = db.post("/_design/d/_view/by_key/queries?startkey=2", {"queries": [{}, {"start_key": 1}, {"limit": 1}]})
    found = ["".join(row["id"] for row in result["rows"]) for result in answer.json()["results"]]
    assert found == ["bc", "abc", "b"]


@pytest.fixture
def sales(db):
    """[place, month] → amount, under the three reduce functions."""
    amounts = [("kisumu", 1, 10), ("kisumu", 1, 5), ("kisumu", 2, 20), ("lodwar", 1, 1), ("lodwar", 3, 2.5)]
    db.save(*({"place": place, "month": month, "amount": amount} for place, month, amount in amounts))
    emit = "function (doc) { emit([doc.place, doc.month], doc.amount); }"
    db.design("d", count=(emit, "_count"), sum=(emit, "_sum"), stats=(emit, "_stats"))
    return db


@pytest.mark.parametrize(
    ("view", "parameters", "rows"),
    [
        ("count", {}, [(None, 5)]),
        ("sum", {}, [(None, 38.5)]),
        ("sum", {"group": False}, [(None, 38.5)]),
        ("stats", {}, [(None, {"sum": 38.5, "count": 5, "min": 1, "max": 20, "sumsqr": 532.25})]),
        ("sum", {"group_level": 1}, [(["kisumu"], 35), (["lodwar"], 3.5)]),
        (
            "count",
            {"group": True},
            [(["kisumu", 1], 2), (["kisumu", 2], 1), (["lodwar", 1], 1), (["lodwar", 3], 1)],
        ),
        ("count", {"group_level": 2, "descending": True, "limit": 1}, [(["lodwar", 3], 1)]),
        ("count", {"group_level": 1, "descending": True}, [(["lodwar"], 2), (["kisumu"], 3)]),
        ("count", {"group": True, "skip": 1, "limit": 2}, [(["kisumu", 2], 1), (["lodwar", 1], 1)]),
        (
            "sum",
            {"startkey": ["kisumu", 2], "endkey": ["lodwar", 1], "group_level": 1},
            [(["kisumu"], 20), (["lodwar"], 1)],
        ),
        ("count", {"keys": [["lodwar", 3], ["kisumu", 1]], "group": True}, [(["lodwar", 3], 1), (["kisumu", 1], 2)]),
        ("sum", {"key": ["kisumu", 1]}, [(None, 15)]),
        ("count", {"startkey": ["m"], "group": True}, []),
        ("count", {"startkey": ["m"]}, []),
        ("count", {"group": True, "limit": 0}, []),
    ],
)
def test_reduce(sales, view, parameters, rows):
    answer = sales.post(f"/_design/d/_view/{view}", parameters)
    assert answer.status_code == 200, answer.text
    assert [(row["key"], row["value"]) for row in answer.json()["rows"]] == rows
    assert "total_rows" not in answer.json()


def test_reduce_can_be_left_out(sales):
    body = sales.get("/_design/d/_view/sum?reduce=false&limit=1").json()
    assert body["total_rows"] == 5
    assert body["rows"][0]["key"] == ["kisumu", 1]


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([[1, 2], [10, 20]], [11, 22]),
        ([[1, 2], [10, 20, 30]], [11, 22, 30]),
        ([[1, 2], 10], [11, 2]),
        ([{"a": 1, "b": {"c": 2}}, {"a": 10, "b": {"d": 3}}], {"a": 11, "b": {"c": 2, "d": 3}}),
        ([1, 2.5], 3.5),
    ],
)
def test_sums(db, values, total):
    db.save(*({"key": "a", "value": value} for value in values))
    db.design("d", v=(EMIT_KEY, "_sum"))
    assert db.get("/_design/d/_view/v").json()["rows"][0]["value"] == total


def test_sums_of_what_is_larger_than_64_bits(db):
    emit = "function (doc) { emit(1, Math.pow(2, 64)); }"
    db.save({"_id": "a"}, {"_id": "b"})
    db.design("d", sum=(emit, "_sum"), stats=(emit, "_stats"))
    assert db.get("/_design/d/_view/sum").json()["rows"][0]["value"] == 2**65
    stats = db.get("/_design/d/_view/stats").json()["rows"][0]["value"]
    assert (stats["sum"], stats["min"], stats["max"], stats["sumsqr"]) == (2**65, 2**64, 2**64, 2.0**129)


@pytest.mark.parametrize("number", [1_700_000_000, -1_700_000_000, 2**52 + 1], ids=["squares", "below", "sum"])
def test_sums_that_become_larger_than_64_bits(db, number):
    emit = "function (doc) { for (var i = 0; i < 2100; i++) emit(doc.n % 2, doc.n); }"
    db.save({"n": number})
    db.design("d", sum=(emit, "_sum"), stats=(emit, "_stats"))
    assert db.get("/_design/d/_view/sum?group=true").json()["rows"][0]["value"] == 2100 * number
    stats = db.get("/_design/d/_view/stats").json()["rows"][0]["value"]
    assert stats == {"sum": 2100 * number, "count": 2100, "min": number, "max": number, "sumsqr": 2100 * number**2}


@pytest.mark.parametrize(
    ("view", "parameters"),
    [
        ("map", {"reduce": "true"}),
        ("map", {"group": "true"}),
        ("map", {"group_level": "1"}),
        ("map", {"limit": "-1"}),
        ("map", {"limit": "many"}),
        ("map", {"skip": "-1"}),
        ("map", {"descending": "yes"}),
        ("map", {"startkey": "2", "endkey": "1"}),
        ("map", {"startkey": "1", "endkey": "2", "descending": "true"}),
        ("map", {"keys": "[1,3]", "key": "2"}),
        ("map", {"keys": "[1,3]", "startkey": "2"}),
        ("count", {"include_docs": "true"}),
        ("count", {"keys": "[1,2]"}),
        ("count", {"keys": "[1,2]", "group_level": "1"}),
    ],
)
def test_queries_that_make_no_sense(db, view, parameters):
    db.design("d", map=EMIT_KEY, count=(EMIT_KEY, "_count"))
    answer = db.get(f"/_design/d/_view/{view}", params=parameters)
    assert (answer.status_code, answer.json()["error"]) == (400, "query_parse_error")


def test_key_that_is_no_json(db):
    db.design("d", map=EMIT_KEY)
    assert db.get("/_design/d/_view/map?key=nojson").status_code == 400


def test_missing_views(db):
    assert db.get("/_design/none/_view/v").json() == {"error": "not_found", "reason": "missing"}
    rev = db.design("d", v=EMIT_KEY)
    answer = db.get("/_design/d/_view/other")
    assert (answer.status_code, answer.json()) == (404, {"error": "not_found", "reason": "missing_named_view"})
    assert db.put("/_design/d", {"_rev": rev, "_deleted": True, "views": {"v": {"map": EMIT_KEY}}}).ok
    assert db.eventually("/_design/d/_view/v", lambda answer: answer.status_code == 404).status_code == 404


def test_code_for_map_functions_is_no_view(db):
    views = {"lib": {"key": "exports.key = 1;"}, "v": {"map": EMIT_KEY}}
    assert db.put("/_design/d", {"views": views}).status_code in (201, 202)
    db.save({"_id": "a", "key": 1})
    assert len(db.get("/_design/d/_view/v").json()["rows"]) == 1
    assert db.get("/_design/d/_view/lib").status_code == 404


@pytest.mark.parametrize(
    "document",
    [
        {"views": {"v": {"map": 1}}},
        {"views": {"v": {"map": EMIT_KEY, "reduce": 1}}},
        {"views": []},
        {"views": {"v": {"map": EMIT_KEY}}, "options": "local_seq"},
        {"views": {"v": {"map": EMIT_KEY}}, "options": []},
        {"views": {"v": {"map": EMIT_KEY}}, "language": 1},
        {"views": {"v": {"map": EMIT_KEY}}, "language": "query"},
        {"views": {"v": 1}, "language": "query"},
    ],
)
def test_design_documents_that_are_none(db, document):
    answer = db.put("/_design/d", document)
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_design_doc")


@pytest.mark.parametrize("source", ["function (doc) { emit(", "not javascript at all", "1 + 1"])
def test_map_functions_that_cannot_be_compiled(db, source):
    answer = db.put("/_design/d", {"views": {"v": {"map": source}}})
    assert (answer.status_code, answer.json()["error"]) == (400, "compilation_error")


def test_update_seq(db):
    db.save({"_id": "a", "key": 1})
    db.design("d", by_key=EMIT_KEY)
    assert db.get("/_design/d/_view/by_key?update_seq=true").json()["update_seq"] is not None


def test_many_documents(db):
    for start in range(0, 3000, 1000):
        db.save(*({"_id": f"{number:05}", "key": number % 10, "value": 1} for number in range(start, start + 1000)))
    db.design("d", by_key=(EMIT_KEY, "_sum"))
    rows = db.get("/_design/d/_view/by_key?group=true").json()["rows"]
    assert rows == [{"key": key, "value": 300} for key in range(10)]
    rows = db.get("/_design/d/_view/by_key?reduce=false&include_docs=true").json()["rows"]
    assert len(rows) == 3000
    assert all(row["doc"]["_id"] == row["id"] for row in rows)
