"""Real processes on this machine: the store, and API processes on it, on free ports and loopback only.

With COUCH_URL set, its server is used in place of the embedded store, each module in a database of its own.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from mjumbe import setup
from mjumbe.couch import Couch
from tests.integration.processes import ADMIN, VAULT_KEY, Process, make_databases, remove_users, start, stop_all

StartStore = Callable[..., Process]
StartApi = Callable[..., Process]


@pytest.fixture(scope="module")
def start_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStore]:
    """Starts embedded stores: `start_store(data=None, port=0)`."""
    started: list[Process] = []

    def begin(data: Path | None = None, port: int = 0) -> Process:
        folder = tmp_path_factory.mktemp("store")
        arguments = ["embedded", "--port", str(port), "--data", str(data or folder), "--admin", ":".join(ADMIN)]
        process = start(arguments, folder / "output")
        started.append(process)
        return process

    yield begin
    stop_all(started)


@pytest.fixture(scope="session")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A CouchDB, `http://admin:password@host:port`: that of COUCH_URL, else an embedded store."""
    given = os.environ.get("COUCH_URL")
    if given:
        parts = urlsplit(given)
        url = f"{parts.scheme}://{parts.netloc}"
        requests.put(f"{url}/_users", timeout=30)  # `docker run couchdb` has none, and tests make users before all else
        yield url
        remove_users(url)
        return
    folder = tmp_path_factory.mktemp("store")
    process = start(
        ["embedded", "--port", "0", "--data", str(folder), "--admin", ":".join(ADMIN)], folder.with_suffix(".output")
    )
    yield process.url.replace("://", f"://{':'.join(ADMIN)}@")
    process.stop()


@pytest.fixture(scope="module")
def couch_url(server_url: str) -> Iterator[str]:
    """A COUCH_URL with a database that is this module's alone."""
    url = f"{server_url}/test-{uuid.uuid4().hex}"
    yield url
    for database in Couch(url).databases:
        database.drop()


@pytest.fixture(scope="module")
def couch(couch_url: str) -> Couch:
    """A client of this module's databases, which are prepared."""
    couch = Couch(couch_url)
    make_databases(couch)
    setup.prepare(couch)
    return couch


@pytest.fixture(scope="module")
def admin(couch: Couch) -> tuple[str, str]:
    """Name and password of a server admin."""
    assert couch.user is not None
    return couch.user, couch._password


@pytest.fixture(scope="module")
def start_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartApi]:
    """Starts API processes: `start_api(couch_url, *arguments, **environment)`."""
    started: list[Process] = []
    data = tmp_path_factory.mktemp("data")

    def begin(url: str, *arguments: str, **environment: str) -> Process:
        env = {"COUCH_URL": url, "MJUMBE_DATA": str(data), "MJUMBE_VAULT_KEY": VAULT_KEY, "MJUMBE_LOG": "json"}
        output = tmp_path_factory.mktemp("api") / "output"
        process = start(["mjumbe.cli", "api", "--port", "0", *arguments], output, env | environment)
        started.append(process)
        return process

    yield begin
    stop_all(started)


@pytest.fixture(scope="module")
def api(start_api: StartApi, couch_url: str, couch: Couch) -> Process:
    """An API process on this module's database."""
    return start_api(couch_url)
