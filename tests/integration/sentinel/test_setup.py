"""Preparing a CouchDB: once, by many at once, over what CHT left there, and for a newer version's views."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial

import pytest

from mjumbe import documents, settings, setup, states
from mjumbe.couch import ADMINS_ONLY, Couch, CouchError, NotFoundError, UnavailableError
from mjumbe.setup import Design
from mjumbe.status import CHECKPOINT_ID
from tests.integration.processes import eventually


@pytest.fixture
def couch(server_url: str) -> Iterator[Couch]:
    made = Couch(f"{server_url}/test-{uuid.uuid4().hex}")
    yield made
    for database in made.databases:
        database.create()  # a test that failed may not have come so far
        made.request("DELETE", f"/{database.name}")


def test_everything_is_there(couch: Couch) -> None:
    setup.prepare(couch)
    stored = couch.main.get("settings")
    assert stored is not None
    assert stored["settings"] == settings.load_defaults()
    checkpoint = couch.sentinel.get(CHECKPOINT_ID)
    assert checkpoint is not None
    assert abs(checkpoint["adopted"] - documents.milliseconds(states.now())) < 60_000
    assert setup.Indexes(couch).unbuilt() == []
    assert couch.main.view("medic", "messages_by_state") == []
    assert couch.request("GET", f"/{couch.sentinel.name}/_revs_limit") == setup.SENTINEL_REVS_LIMIT


def prepare_like_a_process(couch_url: str) -> bool:
    """Prepare, as the API and the sentinel do at their start: again, when CouchDB cannot.

    It names a new database's shards by the second (fabric_db_create.erl), and fails one of two who make the database at
    once, but in different seconds.
    """
    with suppress(UnavailableError, CouchError):
        setup.prepare(Couch(couch_url))
        return True
    return False


def test_again_and_by_many_at_once_changes_nothing(couch: Couch) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: eventually(lambda: prepare_like_a_process(couch._url)), range(4)))
    before = {name: couch.main.get(name) for name in ("settings", "_design/mjumbe", "_design/medic")}
    assert all(doc is not None and doc["_rev"].startswith("1-") for doc in before.values())
    checkpoint = couch.sentinel.get(CHECKPOINT_ID)
    setup.prepare(couch)
    assert {name: couch.main.get(name) for name in before} == before
    assert couch.sentinel.get(CHECKPOINT_ID) == checkpoint


@pytest.mark.parametrize(("doc_id", "is_read"), [("incoming:africas-talking:1", True), ("of-chts", False)])
def test_what_came_in_before_there_was_a_checkpoint_is_read(couch: Couch, doc_id: str, is_read: bool) -> None:
    """An API's spool is brought to a database that was made anew while that is made ready."""
    couch.main.create()
    couch.main.put({"_id": doc_id})
    setup.prepare(couch)
    checkpoint = couch.sentinel.get(CHECKPOINT_ID)
    assert checkpoint is not None
    assert (doc_id in [change.id for change in couch.main.changes(checkpoint["seq"], limit=100).changes]) is is_read


def test_settings_and_chts_design_documents_stay(couch: Couch) -> None:
    couch.main.create()
    theirs = {"language": "javascript", "views": {"messages_by_state": {"map": "function (doc) { emit(1); }"}}}
    couch.main.put({"_id": "_design/medic", **theirs})
    couch.main.put({"_id": "settings", "settings": {"locale": "sw"}})
    setup.prepare(couch)
    for doc_id, content in (("_design/medic", theirs), ("settings", {"settings": {"locale": "sw"}})):
        stored = couch.main.get(doc_id)
        assert stored is not None
        assert {name: stored[name] for name in content} == content


def test_who_makes_the_databases_may_be_cut_off_before_they_are_closed(couch: Couch) -> None:
    """Where CouchDB's default_security is `everyone`. One that is in use is left as open as its owner has it."""
    for database in (couch.main, couch.vault):
        couch.request("PUT", f"/{database.name}")
        couch.request("PUT", f"/{database.name}/_security", body={})
    couch.main.put({"_id": "d"})
    setup.prepare(couch)
    assert couch.request("GET", f"/{couch.vault.name}/_security") == ADMINS_ONLY
    assert couch.request("GET", f"/{couch.main.name}/_security") == {}


def test_chts_sentinel_database_keeps_its_revisions(couch: Couch) -> None:
    couch.sentinel.create()
    before = couch.request("GET", f"/{couch.sentinel.name}/_revs_limit")
    setup.prepare(couch)
    assert couch.request("GET", f"/{couch.sentinel.name}/_revs_limit") == before != setup.SENTINEL_REVS_LIMIT


def test_only_views_that_we_ask_are_kept_up_to_date(couch: Couch) -> None:
    setup.prepare(couch)
    docs = {design.name: couch.main.get(f"_design/{design.name}") or {} for design in setup.read_designs()}
    assert {name for name, doc in docs.items() if doc.get("autoupdate") is False} == {"medic", "medic-sms"}


def is_missing(couch: Couch, design: str, view: str) -> bool:
    try:
        couch.main.view(design, view)
    except NotFoundError:
        return True
    return False


@pytest.mark.parametrize("name", ["mjumbe-x", "of-chts"])
def test_newer_versions_bring_their_views(couch: Couch, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Also those of CHT's names, where mjumbe made them."""
    versions = [
        [Design(name, {view: {"map": f"function (doc) {{ emit(doc._id, {number}); }}"}})]
        for number, view in enumerate(("one", "two", "three"))
    ]
    monkeypatch.setattr(setup, "read_designs", lambda: versions[0])
    setup.prepare(couch)
    couch.main.put({"_id": "d"})
    assert [row.value for row in couch.main.view(name, "one", key="d")] == [0]
    for number, (before, view) in enumerate((("one", "two"), ("two", "three")), 1):
        monkeypatch.setattr(setup, "read_designs", lambda of=versions[number]: of)
        setup.prepare(couch)
        assert [row.value for row in couch.main.view(name, view, key="d")] == [number]
        eventually(partial(is_missing, couch, name, before))
        assert couch.main.get(f"_design/{setup.STAGED}{name}") is None


def test_a_wrong_password_is_said_and_not_waited_for(couch: Couch) -> None:
    setup.prepare(couch)
    # A name of nobody's: wrong passwords for our own would lock it out of a CouchDB 3.4.
    wrong = Couch(couch.server_url.replace("://", f"://nobody-{couch.name}:wrong@") + f"/{couch.name}")
    with pytest.raises(CouchError, match="COUCH_URL is wrong"):
        wrong.main.get("settings")
