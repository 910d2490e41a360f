"""What the contract tests run against: the CouchDB that COUCH_URL names, or an embedded store of their own.

COUCH_URL is `http://user:password@host:port`, the name and password being a server admin's; a path after it is ignored.
Databases, users and configuration keys that the tests make have names of their own and are removed again. Only the
database `_users`, which a CouchDB without the single-node setup does not have, stays when the tests had to make it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import pytest
import requests

ROOT = Path(__file__).resolve().parents[2]
# What a CouchDB may need at most, hashing a password or starting its first JavaScript process on a busy machine.
PATIENCE_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """Where a CouchDB is, and who its admin is."""

    url: str
    user: str
    password: str
    is_embedded: bool


class Client:
    """`requests` for one user, below one URL."""

    def __init__(self, url: str, auth: tuple[str, str] | None = None) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.auth = auth
        # Without this `requests` would take credentials from ~/.netrc for the anonymous client.
        self.session.trust_env = False
        self.session.headers["Accept"] = "application/json"

    def __call__(self, method: str, path: str, **options: Any) -> requests.Response:
        options.setdefault("timeout", PATIENCE_SECONDS)
        return self.session.request(method, self.url + path, **options)

    def get(self, path: str, **options: Any) -> requests.Response:
        return self("GET", path, **options)

    def put(self, path: str, json: Any = None, **options: Any) -> requests.Response:
        return self("PUT", path, json=json, **options)

    def post(self, path: str, json: Any = None, **options: Any) -> requests.Response:
        return self("POST", path, json=json, **options)

    def delete(self, path: str, **options: Any) -> requests.Response:
        return self("DELETE", path, **options)

    def eventually(self, path: str, is_right: Callable[[requests.Response], bool], **options: Any) -> requests.Response:
        """GET until the answer is right, and give the last one.

        CouchDB answers a write before its caches have heard of it: the shard map (mem3_shards) of a deleted database,
        the design documents (ddoc_cache), of which views and Mango indexes are read.
        """
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self.get(path, **options)
            if is_right(answer) or time.monotonic() > deadline:
                return answer
            time.sleep(0.05)


class Database(Client):
    """A client whose paths are below a database."""

    def __init__(self, server: Server, name: str, auth: tuple[str, str] | None) -> None:
        super().__init__(f"{server.url}/{quote(name, safe='')}", auth)
        self.name = name

    def save(self, *documents: dict[str, Any]) -> list[str]:
        """Store documents in one request; their revisions. Fails when one is refused."""
        rows = self.post("/_bulk_docs", {"docs": list(documents)}).json()
        assert [row.get("error") for row in rows] == [None] * len(documents)
        return [row["rev"] for row in rows]

    def design(self, name: str, **views: str | tuple[str, str]) -> str:
        """Store a design document of map functions, or pairs of map and reduce; its revision."""
        functions = {
            view: {"map": given} if isinstance(given, str) else {"map": given[0], "reduce": given[1]}
            for view, given in views.items()
        }
        answer = self.put(f"/_design/{name}", {"language": "javascript", "views": functions})
        assert answer.status_code in (201, 202), answer.text
        return str(answer.json()["rev"])


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server under test."""
    url = os.environ.get("COUCH_URL")
    if url:
        parts = urlsplit(url)
        assert parts.username and parts.password, "COUCH_URL needs an admin's name and password"
        yield Server(
            f"{parts.scheme}://{parts.hostname}:{parts.port or 5984}",
            unquote(parts.username),
            unquote(parts.password),
            is_embedded=False,
        )
        return
    data = tmp_path_factory.mktemp("couch")
    command = [sys.executable, "-m", "embedded", "--port", "0", "--data", str(data), "--admin", "admin:contract"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("embedded store listening on "), line
        yield Server(line.split()[-1].rstrip("/"), "admin", "contract", is_embedded=True)
    finally:
        process.terminate()
        assert process.wait(timeout=20) == 0


@pytest.fixture(scope="session")
def couch(server: Server) -> Client:
    """The server, as its admin."""
    return Client(server.url, (server.user, server.password))


@pytest.fixture(scope="session")
def users(couch: Client) -> None:
    """The database `_users`, with the design document that checks what is written there.

    CouchDB stores that document by itself, up to five seconds after somebody made the database (chttpd_auth_cache).
    An embedded store, also one that COUCH_URL names, checks without it.
    """
    if "embedded" not in couch.get("/").json()["vendor"]["name"]:
        assert couch.put("/_users").status_code in (201, 202, 412)
        assert couch.eventually("/_users/_design/_auth", lambda answer: answer.ok).ok


@pytest.fixture
def anonymous(server: Server) -> Client:
    """The server, as nobody."""
    return Client(server.url)


@pytest.fixture
def new_database(server: Server, couch: Client) -> Iterator[Callable[..., Database]]:
    """Makes databases that are removed after the test.

    Of one copy each: a cluster answers a write that two of three copies have (fabric_doc_update.erl), and a view or
    `_changes` reads one of the three, which may be the other; of equal writes at once none might have a majority.
    """
    names: list[str] = []

    def make(suffix: str = "") -> Database:
        name = f"contract-{uuid.uuid4().hex[:12]}{suffix}"
        assert couch.put(f"/{quote(name, safe='')}", params={"n": 1}).status_code in (201, 202)
        names.append(name)
        return Database(server, name, (server.user, server.password))

    yield make
    for name in names:
        couch.delete(f"/{quote(name, safe='')}")


@pytest.fixture
def db(new_database: Callable[..., Database]) -> Database:
    """An empty database, as the server admin."""
    return new_database()


@pytest.fixture
def new_user(couch: Client, users: None) -> Iterator[Callable[..., tuple[str, str]]]:
    """Makes users that are removed after the test; gives name and password."""
    ids: list[str] = []

    def make(*roles: str) -> tuple[str, str]:
        name = f"contract-{uuid.uuid4().hex[:12]}"
        document = {"name": name, "password": "päss:word", "roles": list(roles), "type": "user"}
        answer = couch.put(f"/_users/org.couchdb.user:{name}", document)
        assert answer.status_code in (201, 202), answer.text
        ids.append(f"org.couchdb.user:{name}")
        return name, "päss:word"

    yield make
    for doc_id in ids:
        rev = couch.get(f"/_users/{doc_id}").json().get("_rev")
        couch.delete(f"/_users/{doc_id}", params={"rev": rev})


@pytest.fixture
def as_user(server: Server) -> Callable[..., Database]:
    """A database as somebody else sees it."""

    def make(database: Database, credentials: tuple[str, str] | None) -> Database:
        if credentials is None:
            return Database(server, database.name, None)
        name, password = (part.encode() for part in credentials)  # requests would encode a text as Latin-1
        return Database(server, database.name, (name, password))  # type: ignore[arg-type]

    return make
