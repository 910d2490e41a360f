"""The `_changes` feed. Sequences are opaque, and a cluster may order changes of different documents as it likes."""

from __future__ import annotations

import json
import threading
import time
from contextlib import contextmanager

import pytest


def ids(answer):
    return [row["id"] for row in answer.json()["results"]]


def test_rows(db):
    a, b = db.save({"_id": "a", "n": 1}, {"_id": "b"})
    db.save({"_id": "b", "_rev": b, "_deleted": True})
    body = db.get("/_changes").json()
    rows = {row["id"]: row for row in body["results"]}
    assert set(rows) == {"a", "b"}
    assert len(body["results"]) == 2, "one row a document"
    assert rows["a"]["changes"] == [{"rev": a}]
    assert "deleted" not in rows["a"]
    assert rows["b"]["deleted"] is True
    assert rows["b"]["changes"][0]["rev"].startswith("2-")
    assert body["pending"] == 0
    assert body["last_seq"] is not None


def test_empty(db):
    assert ids(db.get("/_changes")) == []
    assert ids(db.get("/_changes?since=0")) == []
    assert ids(db.get("/_changes?since=now")) == []


def test_since(db):
    db.save({"_id": "a"}, {"_id": "b"})
    last = db.get("/_changes").json()["last_seq"]
    assert ids(db.get("/_changes", params={"since": last})) == []
    db.save({"_id": "c"})
    assert ids(db.get("/_changes", params={"since": last})) == ["c"]
    now = db.get("/_changes", params={"since": "now"}).json()
    assert now["results"] == []
    db.save({"_id": "d"})
    assert ids(db.get("/_changes", params={"since": now["last_seq"]})) == ["d"]


def test_since_update_seq_of_the_database(db):
    db.save({"_id": "a"})
    seq = db.get("").json()["update_seq"]
    db.save({"_id": "b"})
    assert ids(db.get("/_changes", params={"since": seq})) == ["b"]


@pytest.mark.parametrize("interval", [{}, {"seq_interval": 10}])
def test_page_by_page(db, interval):
    names = {f"doc-{number:03}" for number in range(25)}
    db.save(*({"_id": name} for name in names))
    seen, since, pending = [], "0", 25
    while pending:
        body = db.get("/_changes", params={"since": since, "limit": 10} | interval).json()
        assert len(body["results"]) <= 10
        seen += [row["id"] for row in body["results"]]
        since, pending = body["last_seq"], body["pending"]
        assert pending == 25 - len(seen)
    assert sorted(seen) == sorted(names)


@pytest.mark.parametrize("feed", ["normal", "longpoll"])
def test_only_so_many_rows_have_a_sequence(db, feed):
    db.save(*({"_id": str(number)} for number in range(5)))
    body = db.get("/_changes", params={"feed": feed, "limit": 4, "seq_interval": 2}).json()
    assert [row["seq"] is None for row in body["results"]] == [False, True, False, True]
    assert len(ids(db.get("/_changes", params={"since": body["last_seq"]}))) == 1


@pytest.mark.parametrize("interval", ["0", "-1", "many"])
def test_an_interval_that_is_none(db, interval):
    answer = db.get("/_changes", params={"seq_interval": interval})
    assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


def test_every_row_is_a_place_to_go_on_from(db):
    db.save(*({"_id": str(number)} for number in range(5)))
    rows = db.get("/_changes").json()["results"]
    for place, row in enumerate(rows):
        rest = ids(db.get("/_changes", params={"since": row["seq"]}))
        assert set(rest) == {later["id"] for later in rows[place + 1 :]}


def test_include_docs(db):
    a, b = db.save({"_id": "a", "n": 1}, {"_id": "b", "n": 2})
    db.save({"_id": "b", "_rev": b, "_deleted": True})
    rows = {row["id"]: row["doc"] for row in db.get("/_changes?include_docs=true").json()["results"]}
    assert rows["a"] == {"_id": "a", "_rev": a, "n": 1}
    assert (rows["b"]["_id"], rows["b"]["_deleted"]) == ("b", True)


def test_descending(db):
    for name in "abc":
        db.save({"_id": name})
    assert sorted(ids(db.get("/_changes?descending=true"))) == ["a", "b", "c"]
    assert len(ids(db.get("/_changes?descending=true&limit=1"))) == 1
    last = db.get("").json()["update_seq"]
    since = db.get("/_changes?descending=true", params={"since": last})
    assert sorted(ids(since)) == ["a", "b", "c"], "from the end, whatever `since` says"


def test_a_limit_of_none_is_one_of_one(db):
    db.save({"_id": "a"}, {"_id": "b"})
    assert len(ids(db.get("/_changes?limit=0"))) == 1


def test_style_and_design_filter(db):
    db.save({"_id": "a"})
    db.design("d", v="function (doc) {}")
    assert sorted(ids(db.get("/_changes?style=all_docs"))) == ["_design/d", "a"]
    assert ids(db.get("/_changes?filter=_design")) == ["_design/d"]


def test_doc_ids(db):
    db.save({"_id": "a"}, {"_id": "b"}, {"_id": "c"})
    wanted = ["a", "c", "nothing"]
    assert sorted(ids(db.post("/_changes?filter=_doc_ids", {"doc_ids": wanted}))) == ["a", "c"]
    by_url = db.get("/_changes", params={"filter": "_doc_ids", "doc_ids": json.dumps(wanted)})
    assert sorted(ids(by_url)) == ["a", "c"]
    assert ids(db.post("/_changes?filter=_doc_ids", {"doc_ids": []})) == []
    assert db.post("/_changes?filter=_doc_ids", {}).status_code == 400


def test_selector(db):
    db.save({"_id": "a", "n": 1}, {"_id": "b", "n": 2})
    assert ids(db.post("/_changes?filter=_selector", {"selector": {"n": {"$gt": 1}}})) == ["b"]


@pytest.mark.parametrize("descending", ["true", "false"])
def test_a_limit_counts_what_a_selector_lets_through(db, descending):
    for name, n in (("a", 1), ("b", 2), ("c", 2), ("d", 2), ("e", 1)):
        db.save({"_id": name, "n": n})
    query = {"filter": "_selector", "limit": 2, "descending": descending}
    found = ids(db.post("/_changes", {"selector": {"n": 2}}, params=query))
    assert len(found) == 2 and set(found) < {"b", "c", "d"}
    assert set(ids(db.post("/_changes", {"selector": {"n": 1}}, params=query))) == {"a", "e"}


def test_post_without_filter(db):
    db.save({"_id": "a"})
    assert ids(db.post("/_changes", {})) == ["a"]


def test_malformed_since(db):
    assert db.get("/_changes?since=nonsense").status_code == 400


@contextmanager
def writing(db, *batches):
    """Stores documents a moment from now, in a thread; gives the sequence before them.

    A feed has to be asked from that sequence: from "now" it would wait for ever, were the write the faster one.
    """
    since = db.get("").json()["update_seq"]

    def write() -> None:
        for batch in batches:
            begun.wait(0.3)
            db.save(*batch)

    begun = threading.Event()  # never set: it only lets the feed come first
    writer = threading.Thread(target=write)
    writer.start()
    yield since
    writer.join()


def test_longpoll_answers_at_once_when_there_is_something(db):
    db.save({"_id": "a"})
    answer = db.get("/_changes?feed=longpoll&since=0&timeout=10000")
    assert ids(answer) == ["a"]
    assert {"last_seq", "pending"} <= set(answer.json())


@pytest.mark.parametrize("patience", ["timeout=20000", "heartbeat=100", "heartbeat=true"])
def test_longpoll_waits_for_a_write(db, patience):
    with writing(db, [{"_id": "a", "n": 1}]) as since:
        answer = db.get(f"/_changes?feed=longpoll&include_docs=true&{patience}", params={"since": since})
    assert ids(answer) == ["a"]
    assert answer.json()["results"][0]["doc"]["n"] == 1


def test_longpoll_times_out(db):
    db.save({"_id": "a"})
    started = time.monotonic()
    answer = db.get("/_changes?feed=longpoll&since=now&timeout=300")
    assert time.monotonic() - started >= 0.25
    assert ids(answer) == []
    last = answer.json()["last_seq"]
    db.save({"_id": "b"})
    assert ids(db.get("/_changes", params={"since": last})) == ["b"]


FILTERS = {"_doc_ids": {"doc_ids": ["_design/mine"]}, "_selector": {"selector": {"n": 1}}, "_design": {}}


@pytest.mark.parametrize("name", FILTERS)
def test_longpoll_with_filter_waits_though_there_are_other_changes(db, name):
    db.save({"_id": "other"})
    query = {"feed": "longpoll", "filter": name, "timeout": 20000, "since": "0"}
    with writing(db, [{"_id": "_design/mine", "n": 1}]):
        answer = db.post("/_changes", FILTERS[name], params=query)
    assert ids(answer) == ["_design/mine"]


def test_longpoll_with_filter_finds_what_is_far_behind(db):
    db.save(*({"_id": str(number)} for number in range(700)))
    db.save({"_id": "mine", "n": 1})
    query = {"feed": "longpoll", "filter": "_selector", "timeout": 20000}
    assert ids(db.post("/_changes", {"selector": {"n": 1}}, params=query)) == ["mine"]


def test_longpoll_with_filter_says_how_far_it_has_looked(db):
    db.save({"_id": "other"})
    query = {"feed": "longpoll", "filter": "_doc_ids", "timeout": 300, "since": "0"}
    body = db.post("/_changes", {"doc_ids": ["mine"]}, params=query).json()
    assert body["results"] == []
    assert ids(db.get("/_changes", params={"since": body["last_seq"]})) == []


def test_a_heartbeat_takes_some_time(db):
    assert db.get("/_changes?feed=longpoll&heartbeat=0").status_code == 400


def test_longpoll_with_filter_sleeps_through_other_changes(db):
    query = {"feed": "longpoll", "filter": "_doc_ids", "timeout": 20000}
    with writing(db, [{"_id": "other"}], [{"_id": "mine"}]) as since:
        answer = db.post("/_changes", {"doc_ids": ["mine"]}, params=query | {"since": since})
    assert ids(answer) == ["mine"]


def test_continuous(db):
    db.save({"_id": "before"})
    with db.get("/_changes?feed=continuous&since=0&heartbeat=200&include_docs=true", stream=True) as answer:
        lines = answer.iter_lines(chunk_size=1)
        assert json.loads(next(line for line in lines if line))["id"] == "before"
        assert next(lines) == b"", "a heartbeat is an empty line"
        db.save({"_id": "after", "n": 1})
        row = json.loads(next(line for line in lines if line))
        assert (row["id"], row["doc"]["n"]) == ("after", 1)
        assert row["seq"] is not None
        (rev,) = [change["rev"] for change in row["changes"]]
        db.save({"_id": "after", "_rev": rev, "_deleted": True})
        row = json.loads(next(line for line in lines if line))
        assert (row["id"], row["deleted"]) == ("after", True)


def test_continuous_ends_with_the_timeout(db):
    db.save({"_id": "a"})
    lines = [json.loads(line) for line in db.get("/_changes?feed=continuous&timeout=300").text.splitlines() if line]
    assert lines[0]["id"] == "a"
    assert set(lines[-1]) == {"last_seq", "pending"}


def test_continuous_ends_with_the_limit(db):
    db.save({"_id": "a"}, {"_id": "b"}, {"_id": "c"})
    answer = db.get("/_changes?feed=continuous&limit=2&timeout=20000")
    rows = [json.loads(line) for line in answer.text.splitlines() if line]
    assert len([row for row in rows if "id" in row]) == 2
    assert set(rows[-1]) == {"last_seq", "pending"}


def test_continuous_with_filter_goes_on_from_its_limit(db):
    for name, n in (("a", 1), ("b", 2), ("c", 1), ("d", 1)):
        db.save({"_id": name, "n": n})
    query = {"feed": "continuous", "filter": "_selector", "limit": 1, "timeout": 20000}
    seen, since = [], "0"
    for _ in range(3):
        answer = db.post("/_changes", {"selector": {"n": 1}}, params=query | {"since": since})
        row, end = (json.loads(line) for line in answer.text.splitlines() if line)
        seen.append(row["id"])
        since = end["last_seq"]
    assert sorted(seen) == ["a", "c", "d"]
