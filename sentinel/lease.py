"""Who leads: one sentinel sends, others stand by.

The leader writes its heartbeat into one document of `<db>-sentinel`; whoever sees that document unchanged for
LEASE_SECONDS on its own clock takes it over with the revision it saw, so that only one can. No clock is compared with
another machine's. The leader stops sending before its lease can have run out (`check`, the fence).

In a cluster that is cut in two, each half takes writes, and answers 202 where it has fewer than a majority of the
document's copies (fabric_doc_update in CouchDB's sources). Such a write holds no lease: only one half has the majority.
When the halves meet again the document has a revision of each, and CouchDB takes a write to either. So whoever takes
the lease looks at all of them, waits until nobody has written any for long enough, and removes the others.
"""

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

from mjumbe import states
from mjumbe.couch import ConflictError, CouchError, Database, UnavailableError
from mjumbe.documents import Document
from mjumbe.gateways.base import FencedError
from mjumbe.status import LEADER_ID, ServiceStatus
from sentinel.patience import Patience

log = structlog.get_logger(__name__)

HEARTBEAT_SECONDS = 2.0
LEASE_SECONDS = 10.0  # a leader that has not written its heartbeat for so long is taken for dead
# The leader stops this long before a standby may take over: what a write to CouchDB may take, and clocks that drift.
MARGIN_SECONDS = 2.0
TIDY_SECONDS = (
    60.0  # how often the leader looks for what another half of a cluster left: a request beside the heartbeat
)


def clock() -> float:
    """Seconds on a clock that nobody sets and that goes on while the machine or the process sleeps."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass(frozen=True, slots=True)
class Owner:
    """A sentinel process: unique `id`, and where it runs, so that its neighbours can see that it died."""

    id: str
    host: str
    pid: int
    started: str  # the process's start in the kernel's words: a pid alone may be somebody else's by now

    @classmethod
    def here(cls) -> "Owner":
        return cls(uuid.uuid4().hex, _host(), os.getpid(), _started(os.getpid()))


def is_dead(owner: Mapping[str, Any]) -> bool:
    """Whether this owner ran on this machine and is no more. False when that cannot be told from here."""
    pid = owner.get("pid")
    if owner.get("host") != _host() or not isinstance(pid, int):
        return False
    return _started(pid) != owner.get("started")


def _host() -> str:
    """The machine's boot and the process namespace: pids mean the same only within both."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()}/{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return f"{socket.gethostname()}/{uuid.getnode()}/{uuid.uuid4()}"


def _started(pid: int) -> str:
    """Field 22 of /proc/<pid>/stat, counted after the command's name (which may hold spaces); "" when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class Lease:
    """The right to send. `acquire` waits for it, `keep` holds it, `release` hands it on at once: one after the other.
    `check` is the fence, for any thread.
    """

    def __init__(self, database: Database, services: Callable[[], Mapping[str, ServiceStatus]] = dict) -> None:
        """`services` tells how the services are, to be published with each heartbeat."""
        self._database = database
        self._services = services
        self._owner = Owner.here()
        self._rev: str | None = None
        self._deadline = 0.0
        self.previous: Document | None = None  # the document of the leader before us

    def acquire(self, stop: threading.Event) -> bool:
        """Wait until this process leads; False when `stop` was set first."""
        seen: list[str] = []
        seen_at = clock()
        patience = Patience("waiting for CouchDB to see who leads")
        stands_by = False
        while not stop.is_set():
            try:
                leaves = self._leaves()
                if (revs := [doc["_rev"] for doc in leaves]) != seen:
                    seen, seen_at = revs, clock()
                if all(map(self._is_free, leaves)) or clock() - seen_at > LEASE_SECONDS:
                    if self._take(leaves):
                        return True
                elif not stands_by:
                    stands_by = True
                    log.info("another sentinel holds the lease; this one stands by", pid=os.getpid())
                patience.is_over()
            except (UnavailableError, CouchError) as error:
                patience.waits(error)
            stop.wait(1.0)
        return False

    def _is_free(self, doc: Document) -> bool:
        # Our own lease, which ran out while CouchDB was away, need not be waited for.
        return bool(doc.get("released") or self._is_ours(doc) or is_dead(doc.get("owner") or {}))

    def _is_ours(self, doc: Document) -> bool:
        return (doc.get("owner") or {}).get("id") == self._owner.id

    def _take(self, leaves: Sequence[Document]) -> bool:
        self._rev = leaves[0]["_rev"] if leaves else None
        try:
            for other in leaves[1:]:
                self._remove(other)
            self._write(released=False)
        except ConflictError:
            return False
        if self._others():  # of a half that was met just now: its leader may be alive
            self._deadline = 0.0
            return False
        self.previous = next((doc for doc in leaves if not self._is_free(doc)), leaves[0] if leaves else None)
        log.info("this sentinel leads", pid=os.getpid())
        return True

    def _leaves(self) -> list[Document]:
        return self._database.leaves(LEADER_ID).get(LEADER_ID, [])

    def _others(self) -> list[Document]:
        return [doc for doc in self._leaves() if doc["_rev"] != self._rev]

    def _remove(self, other: Document) -> None:
        """Whoever wrote it holds no lease by it any more."""
        self._database.put({"_id": LEADER_ID, "_rev": other["_rev"], "_deleted": True}, surely=True)

    def keep(self, stop: threading.Event) -> None:
        """Write heartbeats until `stop` is set or the lease is lost."""
        patience, tidied = Patience("the heartbeat could not be written"), clock()
        while not stop.wait(HEARTBEAT_SECONDS):
            try:
                self._write(released=False)
                patience.is_over()
                if clock() - tidied >= TIDY_SECONDS:
                    tidied = clock()
                    self._tidy()
            except ConflictError:
                log.error("another sentinel has taken over; this one stops sending")
                self._deadline = 0.0
                return
            except (UnavailableError, CouchError) as error:
                patience.waits(error)
            if self._deadline < clock():
                log.error("the lease has run out; this sentinel stops sending")
                return

    def _tidy(self) -> None:
        """Remove what another half left, which everybody might be shown in place of ours. Nobody leads by it: who does
        has removed ours before."""
        with suppress(UnavailableError, CouchError):  # the next time, then
            for other in self._others():
                self._remove(other)

    def release(self) -> None:
        """Let a standby take over at once."""
        self._deadline = 0.0
        try:
            self._write(released=True)
        except (ConflictError, UnavailableError, CouchError) as error:
            log.warning("the lease could not be handed on; it runs out by itself", reason=str(error))

    def check(self) -> None:
        """Raise FencedError unless this process surely leads at this moment."""
        if clock() >= self._deadline:
            raise FencedError("this sentinel no longer leads")

    def _write(self, *, released: bool) -> None:
        began = clock()
        doc: Document = {
            "_id": LEADER_ID,
            "type": "sentinel_status",
            "owner": asdict(self._owner),
            "heartbeat": states.timestamp(states.now()),
            "released": released,
            "services": {name: asdict(status) for name, status in self._services().items()},
        }
        if self._rev:
            doc["_rev"] = self._rev
        self._rev = self._put(doc)
        if not released:
            self._deadline = began + LEASE_SECONDS - MARGIN_SECONDS

    def _put(self, doc: Document) -> str:
        """Write the document. A conflict with our own write, whose answer was lost, is none."""
        try:
            return self._database.put(doc, surely=True)
        except ConflictError:
            present = next(filter(self._is_ours, self._leaves()), None)
            if present is None:
                raise
            return self._database.put({**doc, "_rev": present["_rev"]}, surely=True)
