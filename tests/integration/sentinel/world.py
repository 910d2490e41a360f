"""All that a message meets on its way: a store, an API, sentinels and a simulated service, as real processes."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import requests

from mjumbe import documents, settings, setup, states
from mjumbe.couch import ConflictError, Couch
from mjumbe.credentials import Vault, VaultKeys
from mjumbe.documents import Document, tasks_of
from mjumbe.states import Task
from mjumbe.status import LEADER_ID, SentinelStatus, read_status
from sentinel.process import STORE_SECONDS
from tests import leaks
from tests.integration.processes import ROOT, VAULT_KEY, Process, eventually, make_databases, start, stop_all

INCOMING_KEY = leaks.secret("the-incoming-key-5f1c")
OUTGOING_KEY = leaks.secret("the-outgoing-key-77ab")
SOON = 40.0  # seconds: far more than any machine needs

SENTINEL = """
from datetime import timedelta
from mjumbe import states
from mjumbe.cli import main
from sentinel import process
now = states.now
states.now = lambda: now() + timedelta(seconds={})
process.STORE_SECONDS = {}
main()
"""

serial = itertools.count(1)


def number(ending: str = "00001") -> str:
    """A phone number that no other test has; its last five digits choose what the simulated service does with it."""
    return leaks.number(f"+2547{next(serial):03}{ending}")


class Simulator:
    """The simulated Africa's Talking, by its own endpoints."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.url = process.url
        self._http = requests.Session()
        self._http.trust_env = False

    def ask(self, method: str, path: str, body: Any = None, **params: Any) -> Any:
        answer = self._http.request(method, self.url + path, json=body, params=params, timeout=90)
        answer.raise_for_status()
        return answer.json()

    def control(self, **switches: Any) -> None:
        self.ask("PUT", "/control", switches)

    def messages(self, text: str) -> list[dict[str, Any]]:
        """What was accepted with this text, one entry a recipient."""
        return [entry for entry in self.ask("GET", "/messages", limit=100_000)["messages"] if entry["message"] == text]

    def requests(self, text: str) -> list[dict[str, Any]]:
        """The requests with this text, answered or not."""
        listed = self.ask("GET", "/requests", limit=100_000)["requests"]
        return [entry for entry in listed if entry["message"] == text]

    def counts(self) -> dict[str, Any]:
        counted: dict[str, Any] = self.ask("GET", "/counts")
        return counted

    def forget(self) -> None:
        self.ask("DELETE", "/requests")


class World:
    """One database with settings and credentials for the simulator; processes are started as they are needed."""

    def __init__(self, couch_url: str, folder: Path) -> None:
        self.couch_url = couch_url
        self.couch = Couch(couch_url)
        self._folder = folder
        arguments = ["simulator", "--port", "0", "--key", OUTGOING_KEY]
        delays = ["--report-delay-ms", "0", "--late-report-ms", "2000"]
        self._processes = [start([*arguments, *delays], folder / "simulator")]
        self.simulator = Simulator(self._processes[0])
        self._api: Process | None = None
        self.environment = {
            "COUCH_URL": couch_url,
            "MJUMBE_DATA": str(folder),
            "MJUMBE_VAULT_KEY": VAULT_KEY,
            "MJUMBE_LOG": "json",
        }
        make_databases(self.couch)
        setup.prepare(self.couch)
        self.vault = Vault(self.couch, VaultKeys.load(self.environment.get("MJUMBE_VAULT_KEY"), folder))
        self.vault.set("africastalking.com:incoming", INCOMING_KEY)
        self.vault.set("africastalking.com:outgoing", OUTGOING_KEY)
        self.set(
            sms={
                "retry_base": 1,
                "retry_max": 2,
                "africas_talking": {"base_url": self.simulator.url, "read_timeout": 30},
            }
        )

    # ---- settings

    def set(self, **changes: Any) -> None:
        """Change the settings document as a person would: by hand."""
        while True:
            doc = self.couch.main.get("settings")
            assert doc is not None
            doc["settings"] = settings.merge(doc["settings"], changes)
            settings.parse(doc["settings"])
            try:
                self.couch.main.put(doc)
            except ConflictError:
                continue
            return

    # ---- processes

    @property
    def api(self) -> Process:
        """The API, started at its first use, with the simulator's callbacks pointed at it."""
        if self._api is None:
            self._api = self.start_api()
            base = f"{self._api.url}/api/v1/sms/africastalking"
            self.simulator.control(
                incoming_url=f"{base}/incoming-messages?key={INCOMING_KEY}",
                reports_url=f"{base}/delivery-reports?key={INCOMING_KEY}",
            )
        return self._api

    def start_api(self, port: int = 0) -> Process:
        """An API process: another one, or at the port of one that was killed."""
        process = start(
            ["mjumbe.cli", "api", "--port", str(port)], self._folder / f"api-{uuid.uuid4().hex}", self.environment
        )
        self._processes.append(process)
        return process

    def start_sentinel(
        self, *, leads: bool = True, clock_ahead: float = 0, store_seconds: float = STORE_SECONDS
    ) -> Process:
        """A sentinel process; with `leads`, returned when it does. Its clock may be ahead by some seconds, and it may
        wait less than usual for CouchDB when it is stopped."""
        output = self._folder / f"sentinel-{uuid.uuid4().hex}"
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MJUMBE_", "COUCH_"))}
        with output.open("wb") as stream:
            popen = subprocess.Popen(
                [sys.executable, "-c", SENTINEL.format(clock_ahead, store_seconds), "sentinel"],
                cwd=ROOT,
                env=clean | self.environment,
                stdout=stream,
                stderr=stream,
            )
        process = Process(popen, output)
        self._processes.append(process)
        if leads:
            self.wait_for_leader(process)
        return process

    def run(self, *arguments: str, piped: str = "", **environment: str) -> tuple[int, str]:
        """Exit code and output of `mjumbe <arguments>`, with `piped` to be read."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("MJUMBE_", "COUCH_"))}
        done = subprocess.run(
            [sys.executable, "-m", "mjumbe.cli", *arguments],
            cwd=ROOT,
            env=clean | self.environment | environment,
            input=piped,
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
        return done.returncode, done.stdout + done.stderr

    def wait_for_leader(self, process: Process, seconds: float = SOON) -> None:
        def leads() -> bool:
            assert process.popen.poll() is None, process.log()
            status = self.status()
            return status is not None and status.owner["pid"] == process.popen.pid and not status.released

        eventually(leads, seconds)

    def status(self) -> SentinelStatus | None:
        doc = self.couch.sentinel.get(LEADER_ID)
        return read_status(doc) if doc else None

    def held(self) -> str | None:
        """Why the sentinel says that it holds Africa's Talking; None when it does not."""
        status = self.status()
        service = status.services.get("africas-talking") if status else None
        return (service.reason or "held") if service and service.held else None

    def close(self) -> None:
        """Stop what was started, and remove the databases."""
        stop_all(self._processes)
        for database in self.couch.databases:
            self.couch.request("DELETE", f"/{database.name}")

    def post(self, path: str, body: Any = None) -> requests.Response:
        """What the API answers an admin."""
        assert self.couch.user
        login = (self.couch.user, self.couch._password)
        return requests.post(self.api.url + path, json=body, auth=login, timeout=90)

    # ---- messages

    def write(self, to: str, text: str, **facts: Any) -> str:
        """Write the document of one outgoing message, as any program may; returns its id."""
        now = states.now()
        doc = documents.outgoing_document(documents.new_task(to, text, now, **facts), now, None)
        self.couch.main.put(doc)
        return str(doc["_id"])

    def write_many(self, messages: list[tuple[str, str]]) -> list[str]:
        """The same for many messages `(to, text)` at once."""
        now = states.now()
        docs = [documents.outgoing_document(documents.new_task(to, text, now), now, None) for to, text in messages]
        assert all(saved.rev for saved in self.couch.main.bulk(docs))
        return [str(doc["_id"]) for doc in docs]

    def bring(self, doc: Document, edits: int) -> str:
        """What a phone wrote over `doc` without network comes by replication, as so many edits; returns the last."""
        generation, _, digest = doc["_rev"].partition("-")
        start = int(generation) + edits
        written = json.dumps(doc)
        made = (hashlib.md5(f"{edit} {written}".encode()).hexdigest() for edit in range(edits, 0, -1))
        ids = [*made, digest]
        copied = {**doc, "_rev": f"{start}-{ids[0]}", "_revisions": {"start": start, "ids": ids}}
        answer = self.couch.request(
            "POST", f"/{self.couch.main.name}/_bulk_docs", body={"new_edits": False, "docs": [copied]}
        )
        assert answer == []
        return str(copied["_rev"])

    def receive(self, sender: str, text: str, **more: Any) -> str:
        """Somebody sends us an SMS; returns the id of its document."""
        assert self.api.url
        answer = self.simulator.ask("POST", "/incoming", {"from": sender, "text": text, **more})
        assert [post["status"] for post in answer["answers"]] == [200], answer
        return documents.incoming_id("africas-talking", answer["id"])

    def doc(self, doc_id: str) -> Document:
        doc = self.couch.main.get(doc_id)
        assert doc is not None, f"there is no document {doc_id}"
        return doc

    def tasks(self, doc_id: str) -> list[Task]:
        return list(tasks_of(self.doc(doc_id)))

    def until(self, doc_id: str, state: str, seconds: float = SOON) -> Task:
        """Wait until the document's first task is in `state`, and return the task."""
        return self.until_task(doc_id, lambda task: task["state"] == state, f"is not {state}", seconds)

    def until_task(
        self, doc_id: str, is_so: Callable[[Task], object], otherwise: str = "is not so", seconds: float = SOON
    ) -> Task:
        """Wait until something is so of the document's first task, and return the task."""
        found: list[Task] = []

        def reached() -> bool:
            found[:] = self.tasks(doc_id)
            assert found, f"{doc_id} has no task"
            assert is_so(found[0]), f"{doc_id} {otherwise}: {found[0]}"
            return True

        eventually(reached, seconds)
        return found[0]

    def states(self, ids: list[str]) -> list[str]:
        """The states of the first tasks of many documents."""
        docs = self.couch.main.fetch(ids)
        return [str(next(tasks_of(docs[doc_id]))["state"]) for doc_id in ids]


def entries(task: Task) -> list[str]:
    """The states in a task's history, in order."""
    return [str(entry["state"]) for entry in states.history(task)]


def moment(entry: dict[str, Any]) -> datetime:
    """When something was noted in a history."""
    return datetime.fromisoformat(entry["timestamp"])
