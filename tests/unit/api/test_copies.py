"""What an API knows of the credentials and the settings when it starts while CouchDB is away."""

import json
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import cast

import pytest
from flask.testing import FlaskClient
from structlog.testing import capture_logs

from api import app as app_module
from api.app import create_app
from api.context import EXTENSION, Context
from api.copies import DIRECTORY
from api.intake import RETRY_SECONDS
from api.preparation import Preparation
from api.spool import Spool
from mjumbe.config import Config
from mjumbe.couch import Couch, UnavailableError
from mjumbe.documents import Document
from tests.unit.api.conftest import MemoryCouch

PATH = "/api/v1/sms/africastalking/incoming-messages"
KEY = "africastalking.com:incoming"
FORM = {"id": "1", "from": "0772000111", "text": "HELP"}
VAULT_KEY = "a passphrase for tests"
GIVE_UP_SECONDS = 5.0  # Africa's Talking, Viber


@contextmanager
def started(memory: MemoryCouch, data: Path, vault_key: str = VAULT_KEY) -> Iterator[FlaskClient]:
    app = create_app(Config("http://nobody.invalid/medic", data, vault_key), cast(Couch, memory))
    yield app.test_client()
    context(app.test_client()).intake.close()


def context(client: FlaskClient) -> Context:
    return cast(Context, client.application.extensions[EXTENSION])


def post(client: FlaskClient, key: str) -> int:
    return client.post(PATH, query_string={"key": key}, data=FORM).status_code


def spooled(data: Path) -> list[Document]:
    docs: list[Document] = []

    def take(name: str, some: Sequence[Document]) -> dict[str, str]:
        docs.extend(some)
        return {}

    Spool(data).drain(take, ["medic"])
    return docs


@pytest.fixture(autouse=True)
def away(memory: MemoryCouch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Preparation is one attempt, which fails where any request would."""
    monkeypatch.setattr("mjumbe.setup.prepare", lambda couch: couch.main.get("settings"))
    monkeypatch.setattr(Preparation, "start", lambda self, wait: self._attempt())


@pytest.fixture
def before(memory: MemoryCouch, tmp_path: Path) -> MemoryCouch:
    """CouchDB is away, after an API of this machine had read of it what callbacks need."""
    memory.main.docs["settings"] |= {"settings": {"default_country_code": "256"}}
    with started(memory, tmp_path) as client:
        context(client).vault.set(KEY, "the-key")
        context(client).vault.set("africastalking.com:outgoing", "the-costly-key")
    go(memory)
    return memory


def go(memory: MemoryCouch) -> None:
    for database in memory.databases:
        database.away = True


def come(memory: MemoryCouch) -> None:
    for database in memory.databases:
        database.away = False


def test_callbacks_are_taken_by_the_key_and_the_country_of_before(before: MemoryCouch, tmp_path: Path) -> None:
    with started(before, tmp_path) as client:
        assert post(client, "wrong") == 403
        assert post(client, "the-key") == 200
    assert [doc["from"] for doc in spooled(tmp_path)] == ["+256772000111"]


def test_a_silent_couchdb_keeps_no_service_waiting_until_it_gives_up(
    before: MemoryCouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Preparation, "start", lambda self, wait: None)
    longest = app_module.QUICK_SECONDS
    monkeypatch.setattr(app_module, "QUICK_SECONDS", RETRY_SECONDS)  # not less: what takes longer is not tried again
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/{before.name}"
        app = create_app(Config(url, tmp_path, VAULT_KEY))
        assert post(app.test_client(), "the-key") == 200
        context(app.test_client()).intake.close()
        silent.setblocking(False)
        asked: set[bytes] = set()
        with suppress(BlockingIOError):
            while True:
                asked.add(silent.accept()[0].recv(65536).split()[1])
    # Others ask meanwhile: for the settings, and to bring there what is in the spool by then.
    waited_for = asked - {b"/medic/settings"}
    assert waited_for == {b"/medic-vault/_all_docs", b"/medic/_bulk_docs"}
    assert len(waited_for) * longest < GIVE_UP_SECONDS


def test_nothing_lies_open_on_the_disk(before: MemoryCouch, tmp_path: Path) -> None:
    files = list((tmp_path / DIRECTORY).iterdir())
    assert {file.name for file in files} == {"medic%2Fsettings", f"medic%2F{KEY.replace(':', '%3A')}"}
    assert (tmp_path / DIRECTORY).stat().st_mode & 0o777 == 0o700
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        assert file.read_bytes().startswith(b"gAAAAA")


def test_what_changed_meanwhile_counts_from_when_couchdb_is_read(before: MemoryCouch, tmp_path: Path) -> None:
    come(before)
    with started(before, tmp_path) as client:
        context(client).vault.set(KEY, "the-next-key")
        go(before)
    with started(before, tmp_path) as client:
        assert (post(client, "the-key"), post(client, "the-next-key")) == (403, 200)
    come(before)
    with started(before, tmp_path) as client:
        context(client).vault.delete(KEY)
        go(before)
    with started(before, tmp_path) as client:
        assert post(client, "the-next-key") == 503, "nobody knows whether there is a key by now"


def test_a_copy_is_written_when_something_changed_alone(before: MemoryCouch, tmp_path: Path) -> None:
    come(before)
    files = {file: file.stat().st_ino for file in (tmp_path / DIRECTORY).iterdir()}
    with started(before, tmp_path):
        pass
    assert files == {file: file.stat().st_ino for file in (tmp_path / DIRECTORY).iterdir()}


def test_settings_that_were_recalled_are_read_anew(before: MemoryCouch, tmp_path: Path) -> None:
    with started(before, tmp_path) as client:
        settings = context(client).settings
        assert settings.loaded().default_country_code == "256"
        with pytest.raises(UnavailableError):
            settings.refresh_if_older(3_600)
        come(before)
        before.main.docs["settings"] |= {"_rev": "2-x", "settings": {"default_country_code": "255"}}
        assert settings.refresh_if_older(3_600).default_country_code == "255"


@pytest.mark.parametrize("other", ["key", "database", "damage", "file"])
def test_a_copy_of_no_use_is_no_copy(before: MemoryCouch, tmp_path: Path, other: str) -> None:
    for file in (tmp_path / DIRECTORY).iterdir():
        if other == "damage":
            file.write_bytes(b"\xff" + file.read_bytes()[1:])
        elif other == "file":
            file.unlink()
            file.mkdir()
    before.name = "another" if other == "database" else before.name
    vault_key = "another passphrase for tests" if other == "key" else VAULT_KEY
    with capture_logs() as logs, started(before, tmp_path, vault_key) as client:
        assert post(client, "the-key") == 503
    said = [line for line in logs if "copy" in line["event"]]
    assert bool(said) is (other != "database")
    assert "the-key" not in json.dumps(logs, default=str)


def test_a_disk_that_takes_no_copy_stops_nothing(memory: MemoryCouch, tmp_path: Path) -> None:
    (tmp_path / DIRECTORY).write_text("in the way")
    with capture_logs() as logs, started(memory, tmp_path) as client:
        context(client).vault.set(KEY, "the-key")
        assert post(client, "the-key") == 200
    assert {line["of"] for line in logs if line["event"] == "no copy for a start without CouchDB"} == {"settings", KEY}
