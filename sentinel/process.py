"""The sentinel process: wait for CouchDB, wait to lead, lead."""

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from typing import TypeVar

import structlog

from mjumbe import phone_numbers, setup, states
from mjumbe.cached_vault import CachedVault
from mjumbe.couch import Couch, CouchError, UnavailableError
from mjumbe.credentials import CredentialError
from mjumbe.documents import Document, milliseconds
from mjumbe.live_settings import LiveSettings
from mjumbe.polling_phones import PollingPhones
from mjumbe.status import CHECKPOINT_ID, ServiceStatus, read_status
from sentinel.echoes import Echoes
from sentinel.feed import Feed
from sentinel.lease import LEASE_SECONDS, MARGIN_SECONDS, Lease, is_dead
from sentinel.notices import Notices
from sentinel.outbox import Heard, Outbox
from sentinel.patience import Patience
from sentinel.pipeline import Pipeline
from sentinel.polls import Polls
from sentinel.recent import RecentMessages
from sentinel.registers import Registers
from sentinel.reports import Reports
from sentinel.schedule import GRACE_SECONDS, Clock
from sentinel.services import Services

log = structlog.get_logger(__name__)

Answer = TypeVar("Answer")

# From SIGTERM on, for requests (a service may take 60 s to answer one) and for CouchDB to store their results: who
# supervises processes kills them after 75 s (`mjumbe up`) or 90 s (systemd).
STORE_SECONDS = 65.0


class Sentinel:
    """One process. `run` returns when `stop` is set, with everything stored that was under way."""

    def __init__(self, couch: Couch, vault: CachedVault) -> None:
        self._couch = couch
        self._vault = vault
        self._settings = LiveSettings(couch.main)
        self._unread = defaultdict[str, Patience](lambda: Patience("a credential cannot be read"))  # by its id
        self._services: Services | None = None
        # Who waits longer for CouchDB than the lease lasts neither keeps it nor takes it over.
        self._lease = Lease(couch.impatient(LEASE_SECONDS - MARGIN_SECONDS).sentinel, self._status)

    def run(self, stop: threading.Event) -> None:
        """Prepare, then stand by and lead in turn. Raises what a thread of the leader failed with."""
        _unless(stop.is_set, lambda: self._prepare(stop))
        while not stop.is_set() and self._lease.acquire(stop):
            self._lead(stop)

    def _prepare(self, stop: threading.Event) -> None:
        patience = Patience("the sentinel waits for CouchDB")
        while not stop.is_set():
            try:
                setup.prepare(self._couch)
                self._settings.refresh()
                patience.is_over()
                return
            except (UnavailableError, CouchError) as error:
                patience.waits(error)
                stop.wait(1.0)

    def _status(self) -> Mapping[str, ServiceStatus]:
        return self._services.status() if self._services else {}

    def _credential(self, credential_id: str) -> str | None:
        """Its value; None when there is none, and while CouchDB is away. Raises CredentialError."""
        patience = self._unread[credential_id]
        try:
            value = self._vault.get(credential_id)
        except (CredentialError, UnavailableError, CouchError) as error:
            patience.waits(error, id=credential_id)
            if isinstance(error, CredentialError):
                raise
            return None
        patience.is_over()
        return value

    def _lead(self, stop: threading.Event) -> None:
        down = threading.Event()
        threads = Threads(down)

        def is_over() -> bool:
            return stop.is_set() or down.is_set()

        # The heartbeat comes first: what follows may take longer than a lease.
        threads.start("lease", self._lease.keep)
        try:
            while not _unless(is_over, lambda: setup.is_built(self._couch.main, "mjumbe", "due")):
                if is_over():
                    return
            outbox = self._start(threads)
            while not is_over():
                stop.wait(0.2)
        except (UnavailableError, CouchError) as error:
            log.warning("the leader could not start", reason=str(error))
            stop.wait(1.0)
        else:
            down.set()
            outbox.wake()
            self._await(outbox, threads, stop)
        finally:
            down.set()
            threads.join("lease")
            self._lease.release()
            threads.raise_failure()

    def _await(self, outbox: Outbox, threads: "Threads", stop: threading.Event) -> None:
        """Wait until what is under way is stored; when this process is to stop, STORE_SECONDS at most."""
        while not stop.is_set():
            if threads.join("outbox", 0.2):
                return
        if not threads.join("outbox", STORE_SECONDS):
            log.error("CouchDB has not stored what was under way, and is not waited for any longer: that is in doubt")
            outbox.give_up()
            threads.join("outbox")

    def _start(self, threads: "Threads") -> Outbox:
        """Take over what the leader before left, then start the threads."""
        recent, registers = RecentMessages(), Registers.of(self._couch.main)
        registers.load()
        recent.load(self._couch.main, lambda to: phone_numbers.number_to_send_to(to, self._settings.current))
        notices = Notices(self._couch, self._settings, registers)
        services = Services(
            lambda: self._settings.current,
            self._credential,
            self._lease.check,
            registers.viber_users.get,
            PollingPhones(self._couch).last_poll,
            read_status(self._lease.previous or {}).services,
        )
        services.refresh()  # before the threads: the first poll, too, finds whom to ask
        self._services = services
        reports = Reports(self._couch, self._settings, services, notices)
        heard = Heard(reports.referenced, notices.opted_out, notices.left)
        echoes = Echoes(self._couch.main)
        checkpoint = self._couch.sentinel.get(CHECKPOINT_ID) or _fresh_checkpoint()
        outbox = Outbox(echoes, self._settings, services, recent, registers, heard, self._lease.check)
        pipeline = Pipeline(self._couch, echoes, self._settings, checkpoint["adopted"], outbox.offer, registers)
        clock = Clock(self._couch, self._settings, pipeline, services, outbox, reports)
        try:
            clock.doubt_claims(self._grace())
        except (UnavailableError, CouchError):
            outbox.close()
            raise
        threads.start("feed", Feed(self._couch, echoes, self._settings, pipeline, registers, checkpoint).run)
        threads.start("reports", reports.run)
        threads.start("clock", clock.run)
        threads.start("polls", Polls(self._couch, self._settings, services).run)
        threads.start("outbox", outbox.run)
        return outbox

    def _grace(self) -> float:
        """A leader before us that may be alive, only cut off or stopped, gets time to store its answers."""
        before = self._lease.previous
        gone = before is None or before.get("released") or is_dead(before.get("owner") or {})
        return 0.0 if gone else GRACE_SECONDS


def _fresh_checkpoint() -> Document:
    return {"_id": CHECKPOINT_ID, "seq": "0", "adopted": milliseconds(states.now())}


def _unless(is_over: Callable[[], bool], work: Callable[[], Answer]) -> Answer | None:
    """What `work` returns or raises; None when it `is_over` before. A request that waits for an index hears of no stop,
    so it has a thread of its own, which is left behind then: nothing is under way yet."""
    done: Future[Answer] = Future()

    def run() -> None:
        try:
            done.set_result(work())
        except BaseException as error:
            done.set_exception(error)

    threading.Thread(target=run, name="preparation", daemon=True).start()
    while not is_over():
        with suppress(FutureTimeoutError):
            return done.result(0.2)
    return None


class Threads:
    """The leader's threads: when one ends, all end."""

    def __init__(self, down: threading.Event) -> None:
        self._down = down
        self._threads: dict[str, threading.Thread] = {}
        self._failure: BaseException | None = None

    def start(self, name: str, work: Callable[[threading.Event], None]) -> None:
        """Start `work(down)`."""
        thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        self._threads[name] = thread
        thread.start()

    def _run(self, work: Callable[[threading.Event], None]) -> None:
        try:
            work(self._down)
        except BaseException as error:
            log.exception("a thread of the sentinel failed")
            self._failure = error
        finally:
            self._down.set()

    def join(self, name: str, seconds: float | None = None) -> bool:
        """Wait for one thread, `seconds` at most; whether it has ended. Those that wait for CouchDB's changes end by
        themselves."""
        if name not in self._threads:
            return True
        self._threads[name].join(seconds)
        return not self._threads[name].is_alive()

    def raise_failure(self) -> None:
        """Raise what a thread failed with, so that whoever supervises the process starts it anew."""
        if self._failure is not None:
            raise RuntimeError("a thread of the sentinel failed") from self._failure
