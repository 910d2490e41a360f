"""A database of its own with so many messages, and mjumbe running on it, as an operator would set it up."""

import base64
import secrets
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from typing import TypeVar
from urllib.parse import quote

from bench import seed
from bench.client import Client
from bench.lab import Lab
from bench.plan import CONCURRENCY
from bench.processes import Process
from mjumbe import settings_document, setup
from mjumbe.couch import Couch, UnavailableError
from mjumbe.credentials import Vault, VaultKeys
from mjumbe.documents import Document
from mjumbe.gateways import africas_talking
from mjumbe.status import CHECKPOINT_ID, LEADER_ID

AT_ONCE = 1_000  # documents in one bulk write
PATIENCE_SECONDS = 600.0
BUILD_SECONDS = 3_600.0  # a CouchDB builds the views of 500,000 messages while we wait
LOOK_SECONDS = 0.05


class StageError(RuntimeError):
    """Something that must come about did not."""


Item = TypeVar("Item")


def in_parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Lists of AT_ONCE items, the last of what is left."""
    rest = iter(items)
    while part := list(islice(rest, AT_ONCE)):
        yield part


class Stage:
    """Starts at `with`, and drops its databases at the end."""

    def __init__(self, lab: Lab, size: int, advance: Callable[[int], None]) -> None:
        """`advance` is told of every so many messages that were stored."""
        self.lab, self.size = lab, size
        self.key = secrets.token_urlsafe(12)
        self.couch: Couch = lab.couch(f"mjumbe-bench-{secrets.token_hex(4)}")
        self._advance = advance
        self._stack = ExitStack()

    def __enter__(self) -> "Stage":
        with self._stack:
            self._fill()
            self._configure()
            passphrase = secrets.token_urlsafe(24)
            self._store_credentials(passphrase)
            api, self._sentinel = self._start(passphrase)
            self.api_url = api.url()
            self.pids = {"api": api.pid, "sentinel": self._sentinel.pid, **self.lab.pids}
            self._wait_for_leader()
            self._others = self._count() - self.size
            self._stack = self._stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    # ---- setting up

    def _fill(self) -> None:
        """The messages first, the views then. They are none of the sentinel's business: one before it read them."""
        for database in self.couch.databases:
            self._stack.callback(database.drop)
        self.couch.main.create()
        self.couch.main.bulk(seed.people())
        for part in in_parts(seed.stored(self.size)):
            self.couch.main.bulk(part)
            self._advance(len(part))
        setup.prepare(self.couch)
        checkpoint = self.couch.sentinel.get(CHECKPOINT_ID) or {}
        self.couch.sentinel.put({**checkpoint, "seq": self.couch.main.info()["update_seq"]})
        for design in setup.read_designs():
            for view in design.views:
                self._build(design.name, view)

    def _build(self, design: str, view: str) -> None:
        deadline = time.monotonic() + BUILD_SECONDS
        while True:
            try:
                self.couch.main.view(design, view, limit=0, reduce=False)
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
            else:
                return

    def _configure(self) -> None:
        service = {"username": "sandbox", "base_url": self.lab.service.url, "concurrency": CONCURRENCY}
        changes = {"sms": {"outgoing_service": africas_talking.NAME, "africas_talking": service}}
        settings_document.change(self.couch.main, changes)

    def _store_credentials(self, passphrase: str) -> None:
        vault = Vault(self.couch, VaultKeys.load(passphrase, self.lab.folder))
        vault.set(africas_talking.INCOMING_CREDENTIAL, self.key)
        vault.set(africas_talking.OUTGOING_CREDENTIAL, secrets.token_urlsafe(12))

    def _start(self, passphrase: str) -> tuple[Process, Process]:
        environ = {
            "COUCH_URL": f"{self.lab.server_url}/{self.couch.name}",
            "MJUMBE_DATA": str(self.lab.folder),
            "MJUMBE_VAULT_KEY": passphrase,
            "MJUMBE_LOG": "json",
        }
        processes = []
        for name, arguments in (("api", ["--port", "0"]), ("sentinel", [])):
            process = Process(name, ["mjumbe.cli", name, *arguments], environ, self.lab.folder)
            self._stack.callback(process.stop)
            processes.append(process)
        return processes[0], processes[1]

    def _wait_for_leader(self) -> None:
        self.wait("a sentinel leads", lambda: self.couch.sentinel.get(LEADER_ID) is not None)

    # ---- what measurements use

    def callback_url(self, route: str) -> str:
        """Where the service posts, with the key."""
        path = f"/api/v1/sms/{africas_talking.CALLBACKS.slug}/{route}"
        return f"{self.api_url}{path}?key={quote(self.key, safe='')}"

    def client(self) -> Client:
        """A client of the API, as an admin."""
        login = base64.b64encode(":".join(self.lab.admin).encode()).decode()
        return Client(self.api_url, {"Authorization": f"Basic {login}"})

    def stored(self) -> int:
        """How many messages there are."""
        return self._count() - self._others

    def _count(self) -> int:
        return int(self.couch.main.info()["doc_count"])

    def write(self, docs: Iterable[Document]) -> None:
        """Write documents past the API, as another program would."""
        for part in in_parts(docs):
            self.couch.main.bulk(part)

    def fetch(self, ids: Iterable[str]) -> Iterator[Document]:
        """The documents with these ids."""
        for part in in_parts(ids):
            yield from self.couch.main.fetch(part).values()

    def is_read(self) -> bool:
        """Whether the sentinel has read all changes."""
        checkpoint = self.couch.sentinel.get(CHECKPOINT_ID)
        return checkpoint is not None and not self.couch.main.changes(checkpoint["seq"], limit=1, docs=False).changes

    def reports_are_applied(self) -> bool:
        """Whether no delivery report waits in its database."""
        return int(self.couch.callbacks.info()["doc_count"]) == 0

    def settle(self) -> None:
        """Wait until nothing is left to do from the measurement before."""
        self.wait("delivery reports are applied", self.reports_are_applied)
        self.wait("the sentinel has read all changes", self.is_read)

    def wait(self, what: str, condition: Callable[[], object], seconds: float = PATIENCE_SECONDS) -> float:
        """Until `condition` is true; when that was (s since epoch, LOOK_SECONDS late at most). Raises StageError."""
        deadline = time.monotonic() + seconds
        while not condition():
            self._sentinel.check()
            if time.monotonic() > deadline:
                raise StageError(f"not within {seconds:.0f} s: {what}")
            time.sleep(LOOK_SECONDS)
        return time.time()
