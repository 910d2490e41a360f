"""What serves a whole run: the store, the simulator, the load generator."""

import os
import secrets
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import requests

from bench.load import Generator
from bench.processes import ROOT, Process
from bench.service import Service
from mjumbe.couch import Couch

ADMIN = "admin"


class Lab:
    """Starts at `with`, and ends with everything that it started, the databases of its stages included."""

    def __init__(self, couch_url: str | None) -> None:
        """`couch_url` names a CouchDB and its admin; without it the embedded store is started."""
        self._given = couch_url
        self._stack = ExitStack()

    def __enter__(self) -> "Lab":
        with self._stack:  # what was started is stopped when something else does not start
            self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="mjumbe-bench-")))
            self.pids: dict[str, int] = {}
            self.server_url = self._server()
            self.service = Service(self.start("simulator", ["mjumbe.cli", "simulator", "--port", "0"]).url())
            self.generator = Generator(self._start_generator())
            self.pids["load"] = self.generator.pid
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _server(self) -> str:
        """`http://user:password@host:port`, without a path."""
        if self._given:
            parts = urlsplit(self._given)
            return f"{parts.scheme}://{parts.netloc}"
        password = secrets.token_urlsafe(12)
        arguments = ["mjumbe.cli", "embedded", "--port", "0", "--data", str(self.folder / "store")]
        store = self.start("store", arguments, {"COUCH_ADMIN": f"{ADMIN}:{password}"})
        return store.url().replace("://", f"://{ADMIN}:{password}@")

    def start(self, name: str, arguments: list[str], environ: dict[str, str] | None = None) -> Process:
        """Start a process that lives as long as the lab."""
        process = Process(name, arguments, {"MJUMBE_LOG": "json", **(environ or {})}, self.folder)
        self._stack.callback(process.stop)
        self.pids[name] = process.pid
        return process

    def _start_generator(self) -> "subprocess.Popen[str]":
        popen = subprocess.Popen(
            [sys.executable, "-m", "bench.generator"],
            cwd=ROOT,
            env=dict(os.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

        def stop() -> None:
            popen.kill()
            popen.communicate()

        self._stack.callback(stop)
        return popen

    def couch(self, database: str) -> Couch:
        return Couch(f"{self.server_url}/{database}")

    def database_url(self, database: str) -> str:
        """The address of a database, without the admin's password."""
        return f"{self.address}/{quote(database, safe='')}"

    @property
    def address(self) -> str:
        """The server, without the admin's password."""
        parts = urlsplit(self.server_url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"

    @property
    def admin(self) -> tuple[str, str]:
        parts = urlsplit(self.server_url)
        return unquote(parts.username or ""), unquote(parts.password or "")

    def cookie(self) -> dict[str, str]:
        """The header of a fresh session: CouchDB takes long over a password, which is no part of any floor."""
        name, password = self.admin
        if not name:
            return {}
        with requests.Session() as session:
            session.trust_env = False
            answer = session.post(f"{self.address}/_session", json={"name": name, "password": password}, timeout=30)
            answer.raise_for_status()
        return {"Cookie": f"AuthSession={answer.cookies['AuthSession']}"}

    def welcome(self) -> str:
        """What the store says it is."""
        greeting = self.couch("_users").welcome()  # logged in: CHT's CouchDB greets nobody else (require_valid_user)
        return f"{(greeting.get('vendor') or {}).get('name', '')} {greeting.get('version', '')}".strip()
