"""`mjumbe migrate`: from one store into another, cut short and started again, with what is there left alone."""

import os
import subprocess
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest

from mjumbe import documents, setup, states
from mjumbe.cached_vault import CachedVault
from mjumbe.commands import migrate as command
from mjumbe.couch import Couch, Database, Saved
from mjumbe.credentials import VaultKeys
from mjumbe.documents import DeliveryReport, Document, milliseconds
from mjumbe.migrate import Copied, MigrationError, migrate
from mjumbe.states import State
from mjumbe.status import CHECKPOINT_ID, LEADER_ID
from tests.integration.conftest import StartStore
from tests.integration.processes import ADMIN, ROOT, VAULT_KEY

MESSAGES = 1_203
OTHERS = 2  # the settings, and what another program wrote


@pytest.fixture(scope="module")
def stores(start_store: StartStore) -> tuple[str, str]:
    """The addresses of two servers."""
    first, second = (start_store().url.replace("://", f"://{':'.join(ADMIN)}@") for _ in range(2))
    return first, second


@pytest.fixture
def source(stores: tuple[str, str]) -> Couch:
    """A store with messages, a setting, a credential and a report that waits."""
    couch = Couch(f"{stores[0]}/from-{uuid.uuid4().hex}")
    setup.prepare(couch)
    now = states.now()
    docs = [
        documents.outgoing_document(documents.new_task(f"+25471{n:07d}", f"é {n}", now), now, None)
        for n in range(MESSAGES)
    ]
    assert all(saved.rev for saved in couch.main.bulk(docs))
    settings = couch.main.get("settings")
    assert settings
    settings["settings"]["gateway_number"] = "+254711082000"
    couch.main.put(settings)
    couch.main.put({"_id": "😀 an id of another program"})
    vault(couch).set("africastalking.com:outgoing", "the-key")
    report = DeliveryReport("africas-talking", "ATXid_1", "Success", State.DELIVERED)
    couch.callbacks.put(documents.report_document(report, milliseconds(now)))
    couch.sentinel.put({"_id": LEADER_ID, "owner": {}, "heartbeat": states.timestamp(now), "released": True})
    return couch


@pytest.fixture
def target(stores: tuple[str, str]) -> Couch:
    return Couch(f"{stores[1]}/to-{uuid.uuid4().hex}")


def vault(couch: Couch) -> CachedVault:
    return CachedVault(couch, VaultKeys.load(VAULT_KEY, "/nowhere"))


def everything(couch: Couch) -> dict[str, dict[str, object]]:
    """All documents of all databases without their revisions, but for the lease."""
    found = {}
    for role, database in zip(("main", "vault", "sentinel", "callbacks"), couch.databases, strict=True):
        for doc in database.beginning_with(""):
            doc.pop("_rev")
            if doc["_id"] != LEADER_ID:
                found[f"{role} {doc['_id']}"] = doc
    return found


def run(source_url: str, target_url: str, data: Path) -> tuple[int, str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MJUMBE_", "COUCH_"))}
    done = subprocess.run(
        [sys.executable, "-m", "mjumbe.cli", "migrate", "--to", target_url],
        cwd=ROOT,
        env={**clean, "COUCH_URL": source_url, "MJUMBE_DATA": str(data)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.returncode, done.stdout + done.stderr


def test_everything_is_copied_once(source: Couch, target: Couch, tmp_path: Path) -> None:
    code, output = run(source._url, target._url, tmp_path)
    assert code == 0, output
    assert f"{source.name}: {MESSAGES + OTHERS} copied, 0 were there already" in output
    assert f"Everything is in {target.server_url}/{target.name}." in output
    assert everything(target) == everything(source)
    assert target.sentinel.get(LEADER_ID) is None, "the lease is of the source's sentinels"
    assert ADMIN[1] not in output
    assert vault(target).get("africastalking.com:outgoing") == "the-key"
    assert len(target.main.view("mjumbe", "due", start_key=["pending"], end_key=["pending", {}])) == MESSAGES
    before, after = (couch.sentinel.get(CHECKPOINT_ID) or {} for couch in (source, target))
    assert (after["seq"], after["adopted"]) == ("0", before["adopted"])
    code, output = run(source._url, target._url, tmp_path)
    assert code == 0, output
    assert f"{source.name}: 0 copied, {MESSAGES + OTHERS} were there already" in output


class CutShortError(Exception):
    pass


def test_a_copy_that_was_cut_short_goes_on(source: Couch, target: Couch) -> None:
    def cut(name: str, done: int, total: int) -> None:
        assert total >= MESSAGES
        if done >= 1_000:
            raise CutShortError

    with pytest.raises(CutShortError):
        migrate(source, target, cut)
    there = target.main.info()["doc_count"]
    assert 0 < there < MESSAGES
    [main, *_] = migrate(source, target)
    assert (main.same, main.written) == (there, MESSAGES + OTHERS - there)
    assert everything(target) == everything(source)


def test_what_the_target_refuses_is_named(
    source: Couch, target: Couch, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs, bulk = "😀 an id of another program", Database.bulk

    def choosy(database: Database, docs: Sequence[Document]) -> list[Saved]:
        saved = bulk(database, [doc for doc in docs if doc["_id"] != theirs])
        return [*saved, *(Saved(theirs, None, "forbidden", "not here") for doc in docs if doc["_id"] == theirs)]

    monkeypatch.setattr(Database, "bulk", choosy)
    assert not command.run(source, target)
    assert f"{source.name}: {theirs} was refused: forbidden: not here" in capsys.readouterr().out


def test_of_many_troubles_the_first_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    ids = [f"id {n}" for n in range(22)]
    command._report(Copied("medic", 5, 7, ids[:11], dict.fromkeys(ids[11:], "forbidden: not here")))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "medic: 5 copied, 7 were there already"
    assert [line.split(" was ")[0].split(" is ")[0] for line in lines[1:21]] == [f"medic: {one}" for one in ids[:20]]
    assert lines[21:] == ["medic: and 2 more"]
    command._report(Copied("medic", 5, 7, ids[:20], {}))
    assert "more" not in capsys.readouterr().out


def test_what_is_there_is_left_alone(source: Couch, target: Couch, tmp_path: Path) -> None:
    setup.prepare(target)
    target.main.put({"_id": "theirs", "text": "not ours"})
    mine = source.main.beginning_with("", limit=1)[0]
    target.main.put({"_id": mine["_id"], "text": "another"})
    code, output = run(source._url, target._url, tmp_path)
    assert code == 1
    assert f"{mine['_id']} is there with another content, and was left alone" in output
    assert "settings is there with another content" in output
    assert "Everything is in" not in output
    kept = target.main.get(mine["_id"])
    assert kept and kept["text"] == "another"
    assert target.main.get("theirs")
    assert target.main.info()["doc_count"] >= MESSAGES


def test_what_cannot_be_copied(source: Couch, target: Couch, stores: tuple[str, str], tmp_path: Path) -> None:
    with pytest.raises(MigrationError, match="name another"):
        migrate(source, source)
    with pytest.raises(MigrationError, match="is COUCH_URL right"):
        migrate(Couch(f"{stores[0]}/nothing-{uuid.uuid4().hex}"), target)
    for couch in (target, source):
        setup.prepare(couch)
        present = couch.sentinel.get(LEADER_ID) or {"_id": LEADER_ID, "owner": {}}
        couch.sentinel.put({**present, "heartbeat": states.timestamp(states.now()), "released": False})
        with pytest.raises(MigrationError, match=f"at work on .*{couch.name}; stop it"):
            migrate(source, target)
    wrong = target._url.replace(f":{ADMIN[1]}@", ":another@")
    code, output = run(source._url, wrong, tmp_path)
    assert code == 1 and "the name or the password in --to is wrong" in output
    code, output = run(source._url, "foo", tmp_path)
    assert code == 1 and output.startswith("Error: --to must be http(s)://user:password@host:port/database")
    code, output = run(source._url, "http://127.0.0.1:1/x", tmp_path)
    assert code == 1 and "Traceback" not in output


def test_what_a_conflicting_revision_knows_of_a_message_comes_along(source: Couch, target: Couch) -> None:
    """The conflict itself stays behind: documents go without their history."""
    torn = documents.outgoing_document(documents.new_task("+254711000111", "hello", states.now()), states.now(), None)
    torn["tasks"][0]["state"] = State.PENDING.value
    sent = {**torn, "tasks": [{**torn["tasks"][0], "state": State.SENT.value, "gateway_ref": "ATXid_9"}]}
    first = source.main.put(torn)
    copied = {**sent, "_rev": f"{first[:1]}-0", "_revisions": {"start": 1, "ids": ["0"]}}
    source.request("POST", f"/{source.name}/_bulk_docs", body={"new_edits": False, "docs": [copied]})
    assert source.main.fetch([torn["_id"]])[torn["_id"]]["_conflicts"] == ["1-0"]
    migrate(source, target)
    task = target.main.fetch([torn["_id"]])[torn["_id"]]["tasks"][0]
    assert (task["state"], task["gateway_ref"]) == ("sent", "ATXid_9")
