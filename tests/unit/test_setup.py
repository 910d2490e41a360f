"""What is read before a CouchDB is prepared; tests/integration/sentinel/test_setup.py prepares a real one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import responses

from mjumbe import setup
from mjumbe.couch import Couch, CouchError, NotFoundError, UnavailableError
from mjumbe.setup import Design, read_designs
from tests.unit.sentinel.memory import MemoryDatabase


def test_designs_are_folders(tmp_path: Path) -> None:
    for path, text in {
        "b/views/two/map.js": "function (doc) { emit(2); }\n",
        "b/views/one/map.js": "function (doc) { emit(1); }\n",
        "b/views/one/reduce.js": "_count\n",
        "a/views/x/map.js": "// Key: a function of it.\nfunction (doc) {}",
    }.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (tmp_path / "README").write_text("no design document")
    assert read_designs(tmp_path) == [
        Design("a", {"x": {"map": "function (doc) {}"}}),
        Design(
            "b",
            {
                "one": {"map": "function (doc) { emit(1); }", "reduce": "_count"},
                "two": {"map": "function (doc) { emit(2); }"},
            },
        ),
    ]


def test_a_map_without_a_function_is_named(tmp_path: Path) -> None:
    file = tmp_path / "a" / "views" / "x" / "map.js"
    file.parent.mkdir(parents=True)
    file.write_text("// function\n")
    with pytest.raises(ValueError, match="has no line that begins"):
        read_designs(tmp_path)


@pytest.mark.parametrize(
    "view",
    [
        *("medic/messages_by_state", "medic-sms/messages_by_uuid", "medic-sms/messages_by_gateway_ref"),
        *("medic-sms/gateway_messages_by_state", "medic-sms/messages_by_last_updated_state"),
        *("mjumbe/due", "mjumbe/assigned", "mjumbe/sent_recently", "mjumbe/messages_by_gateway_ref"),
        *("mjumbe/messages_by_uuid", "mjumbe/messages", "mjumbe-contacts/by_phone"),
        "mjumbe-contacts/by_shortcode",
    ],
)
def test_what_chts_tools_and_mjumbe_ask_for_is_there(view: str) -> None:
    design, _, name = view.partition("/")
    views = {design.name: design.views for design in read_designs()}
    assert "function" in views[design][name]["map"]


def test_two_processes_may_change_a_design_document_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one has swapped the new views in, and removed what they were built in, while we waited for that."""
    database = MemoryDatabase()
    database.store({"_id": "_design/mjumbe", "views": {"old": {}}})

    def view(*_: object, **__: object) -> NoReturn:
        database.docs.pop("_design/:staged:mjumbe", None)
        raise NotFoundError(404, "not_found: deleted")

    monkeypatch.setattr(database, "view", view)
    design = next(design for design in read_designs() if design.name == "mjumbe")
    setup._install(database, design)
    assert database.docs["_design/mjumbe"]["views"] == design.views


@pytest.mark.parametrize(
    "write",
    [setup._store_first, lambda database, doc_id, content: setup._write(database, doc_id, content())],
    ids=["what is made once", "what is written over"],
)
def test_two_processes_may_start_at_once(
    write: Callable[[Any, str, Callable[[], dict[str, str]]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    database = MemoryDatabase()

    def get(doc_id: str) -> None:
        database.store({"_id": doc_id, "of": "the other"})

    monkeypatch.setattr(database, "get", get)
    write(database, "settings", lambda: {"of": "us"})
    assert database.docs["settings"]["of"] == "the other"


def test_couchdb_may_know_the_design_document_of_before_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    database = MemoryDatabase()
    answers: list[list[object] | NotFoundError] = [NotFoundError(404, "not_found: missing_named_view"), [], []]

    def view(*_: object, **__: object) -> list[object]:
        answer = answers.pop(0)
        if isinstance(answer, NotFoundError):
            raise answer
        return answer

    monkeypatch.setattr(database, "view", view)
    monkeypatch.setattr(setup, "PAUSE_SECONDS", 0.0)
    database.store({"_id": "_design/mjumbe", "views": {"old": {}}})
    setup._install(database, Design("mjumbe", {"new": {"map": "function (doc) {}"}}))
    assert not answers
    assert database.docs["_design/:staged:mjumbe"]["_deleted"]


@pytest.mark.parametrize(
    "trouble", [UnavailableError("it is away"), NotFoundError(404, "not_found: Database does not exist.")]
)
def test_no_index_is_waited_for_where_there_is_no_couchdb_or_no_database(
    monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    database = MemoryDatabase()

    def fail(*_: object, **__: object) -> NoReturn:
        raise trouble

    monkeypatch.setattr(database, "view", fail)
    monkeypatch.setattr(database, "info", fail, raising=False)
    with pytest.raises(type(trouble)):
        setup.is_built(database, "mjumbe", "due")


def test_only_names_of_ours_are_ours_alone() -> None:
    names = {design.name for design in read_designs()}
    assert {name for name in names if not name.startswith(setup.OWN)} == {"medic", "medic-sms"}


# ---- a CouchDB whose answers are these


URL = "http://couch.example:5984"


@pytest.fixture
def couchdb() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock() as mock:
        yield mock


def test_an_index_that_was_built_is_only_behind(
    couchdb: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CouchDB works on the index of a database that is written to all the time."""
    monkeypatch.setattr(setup, "read_designs", lambda: [Design("mjumbe", {})])
    indexes = setup.Indexes(Couch(f"{URL}/medic"))
    for signature, pending, running, unbuilt in [
        ("old", 50_000, True, ["mjumbe"]),
        ("old", 999, True, []),
        ("old", 50_000, True, []),
        ("new", 50_000, True, ["mjumbe"]),
        ("new", 50_000, False, []),
        ("new", 50_000, True, []),
    ]:
        index = {"signature": signature, "updates_pending": {"total": pending}, "updater_running": running}
        couchdb.upsert("GET", f"{URL}/medic/_design/mjumbe/_info", json={"name": "mjumbe", "view_index": index})
        assert indexes.unbuilt() == unbuilt


@pytest.mark.parametrize(
    ("reason", "is_said"), [("missing", False), ("deleted", False), ("Database does not exist.", True)]
)
def test_a_design_document_that_is_missing_is_unbuilt_and_a_database_is_not(
    couchdb: responses.RequestsMock, monkeypatch: pytest.MonkeyPatch, reason: str, is_said: bool
) -> None:
    monkeypatch.setattr(setup, "read_designs", lambda: [Design("mjumbe", {})])
    couchdb.get(f"{URL}/medic/_design/mjumbe/_info", json={"error": "not_found", "reason": reason}, status=404)
    indexes = setup.Indexes(Couch(f"{URL}/medic"))
    if is_said:
        with pytest.raises(NotFoundError):
            indexes.unbuilt()
    else:
        assert indexes.unbuilt() == ["mjumbe"]


@pytest.mark.parametrize("status", [201, 202, 412])
def test_the_database_of_users_is_there_afterwards(couchdb: responses.RequestsMock, status: int) -> None:
    couchdb.put(f"{URL}/_users", json={"error": "x", "reason": "y"} if status == 412 else {"ok": True}, status=status)
    setup._make_users(Couch(f"{URL}/medic"))


def test_who_may_not_make_databases_is_told(couchdb: responses.RequestsMock) -> None:
    refusal = {"error": "unauthorized", "reason": "You are not a server admin."}
    couchdb.put(f"{URL}/_users", json=refusal, status=401)
    with pytest.raises(CouchError, match="You are not a server admin"):
        setup.prepare(Couch(f"{URL}/medic"))
