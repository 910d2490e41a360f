"""The CouchDB client: what each answer means, the renewal of a session, whose a login is."""

import base64
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
import requests
import responses
from responses import matchers

import mjumbe.couch as couch_module
from mjumbe.couch import ConflictError, Couch, CouchError, NotFoundError, Row, UnavailableError

URL = "http://couch.example:5984"
SESSION = f"{URL}/_session"


@pytest.fixture
def server() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.post(SESSION, json={"ok": True}, headers={"Set-Cookie": "AuthSession=one; Max-Age=600; Path=/; HttpOnly"})
        yield mock


@pytest.fixture
def couch() -> Couch:
    return Couch("http://ad%40min:p%3Ass@couch.example:5984/medic")


# ---- COUCH_URL


@pytest.mark.parametrize(
    ("url", "server_url", "name", "user"),
    [
        ("http://a:b@h:5984/medic", "http://h:5984", "medic", "a"),
        ("https://a:b@h/medic/", "https://h", "medic", "a"),
        ("http://h:5984/medic", "http://h:5984", "medic", None),
        ("http://ad%40min:p%3Ass@h:5984/medic", "http://h:5984", "medic", "ad@min"),
        ("http://a:b@[::1]:5984/medic", "http://[::1]:5984", "medic", "a"),
    ],
)
def test_the_url(url: str, server_url: str, name: str, user: str | None) -> None:
    couch = Couch(url)
    assert (couch.server_url, couch.name, couch.user) == (server_url, name, user)
    assert [database.name for database in couch.databases] == [
        name,
        f"{name}-vault",
        f"{name}-sentinel",
        f"{name}-callbacks",
    ]


@pytest.mark.parametrize(
    "url", ["", "medic", "ftp://h/medic", "http://h", "http://h/", "http://h/a/b", "http:///medic"]
)
def test_urls_that_name_no_database(url: str) -> None:
    with pytest.raises(ValueError, match="COUCH_URL must be"):
        Couch(url)


@pytest.mark.parametrize(
    "password", ["s3cr3t", "s3cr3t/x", "x/s3cr3t", "s3cr3t#", "s3cr3t?", "[s3cr3t", "s3cr3t\uff03", "12/s3cr3t"]
)
def test_a_url_that_cannot_be_read_is_not_shown(password: str) -> None:
    try:
        couch = Couch(f"http://admin:{password}@127.0.0.1:59840/medic")
    except ValueError as error:
        assert str(error) == couch_module.URL_FORM
    else:
        assert "s3cr3t" not in f"{couch!r} {couch.main!r} {couch.server_url}"


# ---- answers


def body(error: str, reason: str) -> dict[str, str]:
    return {"error": error, "reason": reason}


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, body("bad_request", "invalid UTF-8 JSON"), CouchError),
        (403, body("forbidden", "You are not allowed"), CouchError),
        (404, body("not_found", "missing"), NotFoundError),
        (409, body("conflict", "Document update conflict."), ConflictError),
        (412, body("file_exists", "The database could not be created, the file already exists."), CouchError),
        (412, body("nodedown", "progress not possible"), UnavailableError),
        (413, body("document_too_large", "x"), CouchError),
        (429, body("too_many_requests", "x"), UnavailableError),
        (500, body("internal_server_error", "x"), UnavailableError),
        (501, body("not_implemented", "x"), CouchError),
        (503, body("unavailable", "x"), UnavailableError),
        (502, "<html>Bad Gateway</html>", UnavailableError),
    ],
)
def test_statuses(
    server: responses.RequestsMock, couch: Couch, status: int, answer: Any, kind: type[Exception]
) -> None:
    text = answer if isinstance(answer, str) else json.dumps(answer)
    server.put(f"{URL}/medic/d", body=text, status=status, content_type="application/json")
    with pytest.raises(kind) as caught:
        couch.main.put({"_id": "d"})
    assert "p:ss" not in str(caught.value)


@pytest.mark.parametrize("reason", couch_module.ADMINS_NEEDED)
@pytest.mark.parametrize(("url", "named"), [(f"{URL}/medic", "nobody"), ("http://jo:x@couch.example:5984/medic", "jo")])
def test_who_is_no_admin_is_told_what_to_do(server: responses.RequestsMock, reason: str, url: str, named: str) -> None:
    server.get(f"{URL}/medic", json=body("unauthorized", reason), status=401)
    with pytest.raises(CouchError) as caught:
        Couch(url).main.info()
    assert caught.value.reason == f"unauthorized: {reason} COUCH_URL names {named}; it must name a server admin."


@pytest.mark.parametrize(
    "error",
    [requests.exceptions.ConnectTimeout(), requests.exceptions.ReadTimeout(), requests.exceptions.ConnectionError()],
)
def test_no_answer(server: responses.RequestsMock, couch: Couch, error: Exception) -> None:
    server.get(f"{URL}/medic/d", body=error)
    with pytest.raises(UnavailableError, match="cannot be reached"):
        couch.main.get("d")


def test_a_session_that_couchdb_forgot_is_renewed_once(server: responses.RequestsMock, couch: Couch) -> None:
    server.get(f"{URL}/medic/d", json=body("unauthorized", "x"), status=401)
    server.get(f"{URL}/medic/d", json={"_id": "d"})
    assert couch.main.get("d") == {"_id": "d"}
    assert [call.request.url for call in server.calls].count(SESSION) == 2


def test_a_wrong_password_is_said(server: responses.RequestsMock, couch: Couch) -> None:
    server.replace(responses.POST, SESSION, json=body("unauthorized", "Name or password is incorrect."), status=401)
    with pytest.raises(CouchError) as caught:
        couch.main.get("d")
    assert caught.value.status == 401


def test_a_new_database_is_for_admins_alone(server: responses.RequestsMock, couch: Couch) -> None:
    server.put(f"{URL}/medic-vault", json={"ok": True}, status=201)
    server.put(f"{URL}/medic-vault/_security", json={"ok": True})
    assert couch.vault.create()
    security = json.loads(server.calls[-1].request.body or b"")
    assert security["members"] == security["admins"] == {"roles": ["_admin"]}
    server.replace(responses.PUT, f"{URL}/medic-vault", json=body("file_exists", "x"), status=412)
    server.get(f"{URL}/medic-vault/_security", json={"members": {"names": ["ann"]}})
    count = len(server.calls)
    assert not couch.vault.create()
    assert len(server.calls) == count + 2, "its _security is its owner's"


def test_a_database_that_could_not_be_made_is_not_taken_for_one_that_is_there(
    server: responses.RequestsMock, couch: Couch
) -> None:
    server.put(f"{URL}/medic-vault", json=body("unauthorized", "You are not a server admin."), status=403)
    server.get(f"{URL}/medic-vault/_security", json={"members": {"names": ["ann"]}})
    with pytest.raises(CouchError):
        couch.vault.create()


@pytest.mark.parametrize(("doc_count", "doc_del_count", "closed"), [(0, 0, True), (1, 0, False), (0, 1, False)])
def test_an_open_database_that_holds_nothing_is_closed(
    server: responses.RequestsMock, couch: Couch, doc_count: int, doc_del_count: int, closed: bool
) -> None:
    """Also where its `_security` was written, which raises the update_seq of each of its two shards."""
    server.put(f"{URL}/medic-vault", json=body("file_exists", "x"), status=412)
    server.get(f"{URL}/medic-vault/_security", json={})
    info = {"update_seq": "2-g1AAAACT", "doc_count": doc_count, "doc_del_count": doc_del_count}
    server.get(f"{URL}/medic-vault", json=info)
    server.put(f"{URL}/medic-vault/_security", json={"ok": True})
    assert couch.vault.create() is closed
    assert (server.calls[-1].request.method == "PUT") is closed


def test_what_is_not_there(server: responses.RequestsMock, couch: Couch) -> None:
    server.get(f"{URL}/medic/d", json=body("not_found", "deleted"), status=404)
    assert couch.main.get("d") is None
    server.get(f"{URL}/_node/_local/_config/a", json={})
    assert couch.config("a") == {}


@pytest.mark.parametrize("reason", ["Database does not exist.", "no_db_file"])
def test_a_database_that_is_away_is_no_missing_document(
    server: responses.RequestsMock, couch: Couch, reason: str
) -> None:
    server.get(f"{URL}/medic/d", json=body("not_found", reason), status=404)
    with pytest.raises(NotFoundError, match=reason):
        couch.main.get("d")


@pytest.mark.parametrize(
    "answer",
    [
        body("not_found", "no_db_file"),
        body("insufficient_storage", "database_dir is too full"),
        body("os_process_error", "OS process timed out."),
        body("unknown_error", "undefined"),
    ],
    ids=lambda answer: answer["reason"],
)
def test_a_document_that_cannot_be_taken_now_is_not_refused(
    server: responses.RequestsMock, couch: Couch, answer: dict[str, str]
) -> None:
    rows = [{"ok": True, "id": "a", "rev": "1-x"}, {"id": "b", **answer}]
    server.post(f"{URL}/medic/_bulk_docs", json=rows, status=201)
    with pytest.raises(UnavailableError, match=answer["reason"]):
        couch.main.bulk([{"_id": "a"}, {"_id": "b"}])


@pytest.mark.parametrize("error", ["conflict", "forbidden", "unauthorized", "unknown_error", "TypeError"])
def test_a_document_that_is_refused_keeps_no_other_waiting(
    server: responses.RequestsMock, couch: Couch, error: str
) -> None:
    rows = [{"ok": True, "id": "a", "rev": "1-x"}, {"id": "b", **body(error, "no")}]
    server.post(f"{URL}/medic/_bulk_docs", json=rows, status=201)
    assert [(each.rev, each.error) for each in couch.main.bulk([{"_id": "a"}, {"_id": "b"}])] == [
        ("1-x", None),
        (None, error),
    ]


@pytest.mark.parametrize("status", [400, 412, 413, 501])
def test_one_document_that_is_none_keeps_no_other_of_a_bulk_from_being_written(
    server: responses.RequestsMock, couch: Couch, status: int
) -> None:
    """chttpd_db reads all documents of a _bulk_docs before it writes any."""

    def write(request: Any) -> tuple[int, dict[str, str], str]:
        ids = [doc["_id"] for doc in json.loads(request.body)["docs"]]
        rows = [{"ok": True, "id": doc_id, "rev": "1-x"} for doc_id in ids]
        return (status, {}, json.dumps(body("no", "bad"))) if "bad" in ids else (201, {}, json.dumps(rows))

    server.add_callback(responses.POST, f"{URL}/medic/_bulk_docs", write, content_type="application/json")
    saved = couch.main.bulk([{"_id": "a"}, {"_id": "bad"}, {"_id": "b"}])
    assert [(each.id, each.rev) for each in saved] == [("a", "1-x"), ("bad", None), ("b", "1-x")]
    assert (saved[1].error, saved[1].reason, saved[1].conflict) == (str(status), "no: bad", False)


def test_more_documents_than_couchdb_takes_at_once_go_in_pieces(server: responses.RequestsMock, couch: Couch) -> None:
    """[couchdb] max_bulk_docs_count is 10,000 unless it is set."""
    sizes: list[int] = []

    def write(request: Any) -> tuple[int, dict[str, str], str]:
        docs = json.loads(request.body)["docs"]
        sizes.append(len(docs))
        if len(docs) > 10_000:
            return 413, {}, json.dumps(body("max_bulk_docs_count_exceeded", "10000"))
        return 201, {}, json.dumps([{"id": doc["_id"], "rev": "1-x"} for doc in docs])

    server.add_callback(responses.POST, f"{URL}/medic/_bulk_docs", write, content_type="application/json")
    saved = couch.main.bulk([{"_id": str(number)} for number in range(25_000)])
    assert [each.id for each in saved] == [str(number) for number in range(25_000)]
    assert sizes == [25_000, 12_500, 6_250, 6_250, 12_500, 6_250, 6_250]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_bulk_into_a_database_that_is_not_ours_is_asked_once(
    server: responses.RequestsMock, couch: Couch, status: int
) -> None:
    server.post(f"{URL}/medic/_bulk_docs", json=body("no", "x"), status=status)
    with pytest.raises(CouchError):
        couch.main.bulk([{"_id": "a"}, {"_id": "b"}])
    bulks = [call for call in server.calls if "_bulk_docs" in str(call.request.url)]
    assert len(bulks) == (2 if status == 401 else 1), "the session is renewed once"


@pytest.mark.parametrize(
    ("doc_id", "path"),
    [
        ("a/b c", "medic/a%2Fb%20c"),
        ("_local/mjumbe-checkpoint", "medic/_local/mjumbe-checkpoint"),
        ("_design/medic", "medic/_design/medic"),
        ("org.couchdb.user:é", "medic/org.couchdb.user%3A%C3%A9"),
    ],
)
def test_ids_in_paths(server: responses.RequestsMock, couch: Couch, doc_id: str, path: str) -> None:
    server.get(re.compile(f"{URL}/medic/.*"), json={"_id": doc_id})
    couch.main.get(doc_id)
    assert server.calls[-1].request.url == f"{URL}/{path}"


def test_bodies_are_not_compressed(server: responses.RequestsMock, couch: Couch) -> None:
    server.post(f"{URL}/medic/_bulk_docs", json=[{"id": "d", "rev": "1-x"}], status=201)
    couch.main.bulk([{"_id": "d", "text": "x" * 10_000}])
    sent = server.calls[-1].request
    assert "Content-Encoding" not in sent.headers
    assert json.loads(sent.body) == {"docs": [{"_id": "d", "text": "x" * 10_000}]}


def test_a_write_that_a_minority_of_a_cluster_took(server: responses.RequestsMock, couch: Couch) -> None:
    server.put(f"{URL}/medic/d", json={"ok": True, "id": "d", "rev": "1-x"}, status=202)
    assert couch.main.put({"_id": "d"}) == "1-x"
    with pytest.raises(UnavailableError, match="too few"):
        couch.main.put({"_id": "d"}, surely=True)


def test_nothing_is_asked_for_nothing(server: responses.RequestsMock, couch: Couch) -> None:
    assert couch.main.fetch([]) == {}
    assert couch.main.bulk([]) == []
    couch.main.purge([])
    assert len(server.calls) == 0


def test_a_document_that_cannot_be_read_does_not_count_as_missing(server: responses.RequestsMock, couch: Couch) -> None:
    gone = [
        {"key": "a", "error": "not_found"},
        {"id": "b", "key": "b", "value": {"rev": "2-x", "deleted": True}, "doc": None},
    ]
    there = {"id": "c", "key": "c", "value": {"rev": "1-x"}, "doc": {"_id": "c", "_rev": "1-x"}}
    rows = [*gone, there]
    server.post(f"{URL}/medic/_all_docs", json={"total_rows": 2, "rows": rows})
    assert couch.main.fetch("abc") == {"c": there["doc"]}
    server.replace(responses.POST, f"{URL}/medic/_all_docs", json={"rows": [*rows, {"key": "d", "error": "timeout"}]})
    with pytest.raises(UnavailableError, match="could not be read"):
        couch.main.fetch("abcd")


def test_documents_come_with_the_names_of_their_conflicts_each_once(
    server: responses.RequestsMock, couch: Couch
) -> None:
    """Without the names, what became of a message in another revision would stay there (mjumbe/conflicts.py)."""
    doc = {"_id": "a", "_rev": "2-b", "_conflicts": ["2-a"]}
    wanted = matchers.json_params_matcher({"keys": ["a", "b"], "include_docs": True, "conflicts": True})
    rows = [{"id": "a", "key": "a", "value": {"rev": "2-b"}, "doc": doc}, {"key": "b", "error": "not_found"}]
    server.post(f"{URL}/medic/_all_docs", json={"rows": rows}, match=[wanted])
    assert couch.main.fetch(["a", "b", "a"]) == {"a": doc}


def test_a_revision_that_cannot_be_read_is_not_taken_for_one_that_is_gone(
    server: responses.RequestsMock, couch: Couch
) -> None:
    wanted = matchers.json_params_matcher({"docs": [{"id": "a", "rev": "2-a"}, {"id": "b", "rev": "2-b"}]})
    found = [{"ok": {"_id": "a", "_rev": "2-a"}}]
    gone, unread = ([{"error": {"id": "b", "rev": "2-b", "error": error}}] for error in ("not_found", "timeout"))

    def results(of_b: list[Any]) -> dict[str, Any]:
        return {"results": [{"id": "a", "docs": found}, {"id": "b", "docs": of_b}]}

    named = [("a", "2-a"), ("b", "2-b")]
    server.post(f"{URL}/medic/_bulk_get", json=results(gone), match=[wanted])
    assert couch.main.read_revisions(named) == [found[0]["ok"]]
    server.replace(responses.POST, f"{URL}/medic/_bulk_get", json=results(unread), match=[wanted])
    with pytest.raises(UnavailableError, match="could not be read"):
        couch.main.read_revisions(named)
    assert couch.main.read_revisions([]) == []


def test_the_leaves_of_a_document(server: responses.RequestsMock, couch: Couch) -> None:
    """The one first that is shown: of the longest line, not deleted."""
    wanted = matchers.json_params_matcher({"docs": [{"id": "a"}]})
    docs = [{"_id": "a", "_rev": rev} for rev in ("9-c", "10-a", "10-b")] + [
        {"_id": "a", "_rev": "11-a", "_deleted": True}
    ]
    rows = [{"ok": doc} for doc in docs]
    server.post(f"{URL}/medic/_bulk_get", json={"results": [{"id": "a", "docs": rows}]}, match=[wanted])
    assert [doc["_rev"] for doc in couch.main.leaves("a")["a"]] == ["10-b", "10-a", "9-c"]
    missing = {"id": "a", "rev": "undefined", "error": "not_found", "reason": "missing"}
    rows[:] = [{"error": missing}]
    server.replace(
        responses.POST, f"{URL}/medic/_bulk_get", json={"results": [{"id": "a", "docs": rows}]}, match=[wanted]
    )
    assert couch.main.leaves("a") == {}


def test_a_row_that_cannot_be_read_is_no_row_without_a_document(server: responses.RequestsMock, couch: Couch) -> None:
    """Else a delivery report would count as applied to the message that was not read, and be removed."""
    row = {"id": "a", "key": "ATXid_1", "value": "u", "doc": {"_id": "a", "_rev": "1-x"}}
    server.post(f"{URL}/medic/_design/d/_view/v", json={"rows": [row, {"key": "ATXid_2", "error": "timeout"}]})
    with pytest.raises(UnavailableError, match="d/v in medic"):
        couch.main.view("d", "v", keys=["ATXid_1", "ATXid_2"], include_docs=True)


def test_several_questions_are_one_request_of_the_same_copy(server: responses.RequestsMock, couch: Couch) -> None:
    queries = [{"key": "a"}, {"key": "b", "update": "false"}]
    asked = [matchers.json_params_matcher({"queries": queries}), matchers.query_param_matcher({"stable": "true"})]
    path, found, none = f"{URL}/medic/_design/d/_view/v/queries", {"id": "1", "key": "a", "value": 1}, {"rows": []}
    server.post(path, json={"results": [{"rows": [found]}, none]}, match=asked)
    assert couch.main.view_queries("d", "v", queries) == [[Row("1", "a", 1)], []]
    server.replace(responses.POST, path, json={"results": [none, {"rows": [{"key": "b", "error": "timeout"}]}]})
    with pytest.raises(UnavailableError, match="d/v in medic"):
        couch.main.view_queries("d", "v", queries)


def test_a_document_comes_once_however_many_of_the_rows_are_its_own(
    server: responses.RequestsMock, couch: Couch
) -> None:
    """One with a thousand messages came with each of them: half a gigabyte of JSON, ten times that in memory."""
    rows = [{"id": doc_id, "key": ref, "value": "u"} for doc_id, ref in [("a", "r1"), ("a", "r2"), ("b", "r3")]]
    asked = matchers.json_params_matcher({"keys": ["r1", "r2", "r3"]})
    server.post(f"{URL}/medic/_design/d/_view/v", json={"rows": rows}, match=[asked])
    doc = {"_id": "a", "_rev": "1-x"}
    found = [{"id": "a", "key": "a", "doc": doc}, {"key": "b", "error": "not_found"}]
    asked = matchers.json_params_matcher({"keys": ["a", "b"], "include_docs": True, "conflicts": True})
    server.post(f"{URL}/medic/_all_docs", json={"rows": found}, match=[asked])
    seen = couch.main.view_with_docs("d", "v", keys=["r1", "r2", "r3"])
    assert [(row.key, row.doc) for row in seen] == [("r1", doc), ("r2", doc), ("r3", None)]


@pytest.mark.parametrize(("stable", "query"), [(False, {}), (True, {"stable": "true"})])
def test_a_stable_index_is_asked_for_in_the_url(
    server: responses.RequestsMock, couch: Couch, stable: bool, query: dict[str, str]
) -> None:
    """CouchDB 3.0 and 3.1 answer 400 to it in a body."""
    path = f"{URL}/medic/_design/mjumbe/_view/due"
    asked = [matchers.json_params_matcher({"update": "false"}), matchers.query_param_matcher(query)]
    server.add(responses.POST, path, json={"rows": []}, match=asked)
    assert couch.main.view("mjumbe", "due", update="false", limit=None, stable=stable) == []


@pytest.mark.parametrize(
    ("prefix", "after", "asked"),
    [
        ("incoming:", "", {"start_key": "incoming:", "end_key": "incoming;"}),
        ("incoming:", "incoming:7", {"start_key": "incoming:7\u0000", "end_key": "incoming;"}),
        ("", "", {"start_key": ""}),
        ("", "incoming:7", {"start_key": "incoming:7\u0000"}),
    ],
)
def test_documents_by_how_their_ids_begin(
    server: responses.RequestsMock, couch: Couch, prefix: str, after: str, asked: dict[str, str]
) -> None:
    wanted = {**asked, "inclusive_end": False, "include_docs": True, "conflicts": True}
    doc = {"_id": "incoming:8"}
    server.add(
        responses.POST,
        f"{URL}/medic/_all_docs",
        json={"rows": [{"id": "incoming:8", "doc": doc}]},
        match=[matchers.json_params_matcher(wanted)],
    )
    assert couch.main.beginning_with(prefix, after) == [doc]


def test_behind_the_last_id_nothing_is_asked_for(couch: Couch) -> None:
    assert couch.main.beginning_with("incoming:", "opt-out:1") == []


def test_a_purge_goes_in_pieces(server: responses.RequestsMock, couch: Couch) -> None:
    server.post(f"{URL}/medic/_purge", json={"purge_seq": None, "purged": {}}, status=201)
    couch.main.purge([{"_id": f"d{n}", "_rev": "1-x"} for n in range(250)])
    sizes = [len(json.loads(call.request.body)) for call in server.calls if "_purge" in str(call.request.url)]
    assert sizes == [100, 100, 50]


@pytest.mark.parametrize("revs", [False, True])
def test_revisions_are_read_in_pieces_and_those_that_are_gone_passed_over(
    server: responses.RequestsMock, couch: Couch, monkeypatch: pytest.MonkeyPatch, revs: bool
) -> None:
    monkeypatch.setattr("mjumbe.couch.REVISIONS_AT_ONCE", 2)
    gone = {"error": {"id": "gone", "rev": "1-x", "error": "not_found", "reason": "missing"}}

    def found(request: Any) -> tuple[int, dict[str, str], str]:
        wanted = json.loads(request.body)["docs"]
        assert len(wanted) <= 2
        rows = [gone if one["id"] == "gone" else {"ok": {"_id": one["id"], "_rev": one["rev"]}} for one in wanted]
        return 200, {}, json.dumps({"results": [{"id": "_", "docs": [row]} for row in rows]})

    asked = matchers.query_param_matcher({"revs": "true"} if revs else {})
    server.add_callback(responses.POST, f"{URL}/medic/_bulk_get", found, match=[asked])
    named = [(doc_id, "1-x") for doc_id in ("a", "gone", "b")]
    assert [doc["_id"] for doc in couch.main.read_revisions(named, revs=revs)] == ["a", "b"]


def test_waiting_for_changes(server: responses.RequestsMock, couch: Couch) -> None:
    server.post(f"{URL}/medic/_changes", json={"results": [], "last_seq": "9-x", "pending": 3})
    answer = couch.main.changes("5-x", limit=10, wait=30)
    assert (answer.last_seq, answer.pending) == ("9-x", 3)
    query = dict(parse_qsl(urlsplit(str(server.calls[-1].request.url)).query))
    asked = {"since": "5-x", "limit": "10", "seq_interval": "10", "style": "all_docs"}
    with_docs = {"include_docs": "true", "conflicts": "true"}
    assert query == {**asked, **with_docs, "feed": "longpoll", "timeout": "30000"}
    couch.main.changes("5-x", limit=10, docs=False)
    assert dict(parse_qsl(urlsplit(str(server.calls[-1].request.url)).query)) == asked


def test_a_changed_document_that_cannot_be_read_is_not_passed_over(
    server: responses.RequestsMock, couch: Couch
) -> None:
    purged = {"id": "a", "seq": "6-x", "changes": [{"rev": "1-x"}]}
    rows = [purged]
    server.add_callback(
        responses.POST,
        f"{URL}/medic/_changes",
        lambda _: (200, {}, json.dumps({"results": rows, "last_seq": "7-x", "pending": 0})),
        content_type="application/json",
    )
    assert couch.main.changes("5-x", limit=10).changes[0].doc is None
    rows.append({"id": "b", "seq": "7-x", "changes": [{"rev": "1-x"}], "error": "timeout"})
    with pytest.raises(UnavailableError):
        couch.main.changes("5-x", limit=10)


def test_a_whole_number_of_any_length_in_a_document_is_no_trouble(server: responses.RequestsMock, couch: Couch) -> None:
    odd, fine = f'{{"_id":"a","n":{"9" * 5000},"m":2}}', '{"_id":"b"}'
    rows = ",".join(f'{{"id":"{name}","key":"{name}","doc":{doc}}}' for name, doc in (("a", odd), ("b", fine)))
    server.post(f"{URL}/medic/_all_docs", body=f'{{"rows":[{rows}]}}', content_type="application/json")
    docs = couch.main.fetch(["a", "b"])
    assert docs["b"] == {"_id": "b"}
    assert (docs["a"]["n"], docs["a"]["m"]) == (float("inf"), 2)
    assert isinstance(docs["a"]["m"], int)


# ---- logins of others


@pytest.mark.parametrize(
    ("status", "answer", "who"),
    [
        (200, {"userCtx": {"name": "ann", "roles": ["gateway"]}}, ("ann", ("gateway",))),
        (200, {"userCtx": {"name": None, "roles": []}}, (None, ())),
        (401, body("unauthorized", "Name or password is incorrect."), (None, ())),
    ],
)
def test_whose_credentials(couch: Couch, status: int, answer: Any, who: tuple[str | None, tuple[str, ...]]) -> None:
    with responses.RequestsMock() as server:
        server.get(
            SESSION, json=answer, status=status, match=[matchers.header_matcher({"Authorization": "Basic YW5uOng="})]
        )
        assert couch.session_of({"Authorization": "Basic YW5uOng="}) == who


def test_a_wrong_password_for_our_own_name_is_nobody_s_and_is_not_passed_on(
    server: responses.RequestsMock, couch: Couch
) -> None:
    """CouchDB would lock our name after a few of a stranger's guesses."""
    server.get(SESSION, json={"userCtx": {"name": "ad@min", "roles": ["_admin"]}})
    ours, guess = (base64.b64encode(f"ad@min:{password}".encode()).decode() for password in ("p:ss", "guess"))
    assert couch.session_of({"Authorization": f"Basic {guess}"}) == (None, ())
    assert len(server.calls) == 0
    assert couch.session_of({"Authorization": f"Basic {ours}"}) == ("ad@min", ("_admin",))


@pytest.mark.parametrize("status", [403, 429, 500, 503])
def test_logins_cannot_be_checked(couch: Couch, status: int) -> None:
    with responses.RequestsMock() as server:
        server.get(SESSION, status=status)
        with pytest.raises(UnavailableError):
            couch.session_of({})


@pytest.mark.parametrize(
    ("patience", "timeout"),
    [
        (None, (couch_module.CONNECT_TIMEOUT, couch_module.READ_TIMEOUT)),
        (15.0, (couch_module.CONNECT_TIMEOUT, 15.0)),
        (2.0, (2.0, 2.0)),
    ],
)
def test_no_answer_is_waited_for_without_end(
    server: responses.RequestsMock, couch: Couch, patience: float | None, timeout: tuple[float, float]
) -> None:
    asked = couch if patience is None else couch.impatient(patience)
    bounds = matchers.request_kwargs_matcher({"timeout": timeout})
    server.get(f"{URL}/medic", json={"doc_count": 1}, match=[bounds])
    server.get(SESSION, json={"userCtx": {"name": "bob", "roles": []}}, match=[bounds])
    assert asked.main.info() == {"doc_count": 1}
    assert asked.session_of({"Cookie": "AuthSession=x"}) == ("bob", ())


@pytest.mark.parametrize(
    ("seq", "number"),
    [("17-g1AAAA", 17), ("0", 0), (5, 5), ("now", -1), ("", -1), (None, -1), ("-1-x", -1)],
)
def test_the_number_in_a_sequence(seq: object, number: int) -> None:
    assert couch_module.sequence_number(seq, unknown=-1) == number
