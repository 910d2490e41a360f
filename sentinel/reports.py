"""Delivery reports → states: taken from `<db>-callbacks` in bulk, matched by reference, then removed there.

A report that comes before its message's reference is stored waits, and is matched when the reference appears; one
that nothing matches for a day is dropped, with a line in the log.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import structlog

from mjumbe import states
from mjumbe.couch import Couch, CouchError, UnavailableError
from mjumbe.documents import DeliveryReport, Document, Key, find_task, milliseconds, read_moment, read_report
from mjumbe.edits import apply_edits, edits_of
from mjumbe.gateways.base import Failure, Outcome
from mjumbe.live_settings import LiveSettings
from mjumbe.settings import Sms
from mjumbe.states import State, Task
from sentinel import outcomes
from sentinel.doubts import settled_by
from sentinel.notices import Notices
from sentinel.patience import Patience
from sentinel.services import Services

log = structlog.get_logger(__name__)

AT_ONCE = 500
WAIT_MS = 24 * 3600 * 1000
LOOK_AGAIN_SECONDS = 5.0  # for what came within the last minute
LOOK_AT_ALL_SECONDS = 60.0  # for the rest: an account may be shared, and thousands wait that are never ours
YOUNG_MS = 60 * 1000
LONGPOLL_SECONDS = 30.0
REMEMBERED = 10_000  # references: those of the seconds, in a broadcast, until the clock has the index brought up
LINGER_SECONDS = 0.05  # nobody waits for a report: the next batch may gather


@dataclass(frozen=True, slots=True)
class Arrived:
    """A report as it waits in its database."""

    id: str
    rev: str
    received: int  # ms since epoch
    report: DeliveryReport


class Reports:
    """Applies the reports of one database. `run` follows it; `referenced` hears of new references from the outbox."""

    def __init__(self, couch: Couch, settings: LiveSettings, services: Services, notices: Notices) -> None:
        self._couch = couch
        self._settings = settings
        self._services = services
        self._notices = notices
        self._waiting: dict[str, dict[str, Arrived]] = {}  # by reference, then by id
        self._stored: OrderedDict[str, Key] = OrderedDict()  # references that were stored lately, oldest first
        self._lock = threading.Lock()
        self._looked = self._looked_at_all = time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Apply reports as they come until `stop` is set. Reports still there from before come first."""
        since, patience = "0", Patience("delivery reports wait for CouchDB")
        while not stop.is_set():
            try:
                changes = self._couch.callbacks.changes(since, limit=AT_ONCE, wait=LONGPOLL_SECONDS)
                if stop.is_set():
                    return  # whoever leads next applies them, and learns what they say of the services
                docs = [change.doc for change in changes.changes if change.doc and not change.deleted]
                self._take(docs)
                self._notices.take(docs)
                since = changes.last_seq
                patience.is_over()
                stop.wait(LINGER_SECONDS)
            except (UnavailableError, CouchError) as error:
                patience.waits(error)
                # It may come back as an older copy, where this place is ahead of all changes. What is done is removed
                # there, so that reading from the beginning costs no more than what waits.
                since = "0"
                stop.wait(1.0)

    def _take(self, docs: Sequence[Document]) -> None:
        arrived = [each for doc in docs if doc.get("type") == "delivery_report" and (each := _read(doc))]
        # First they wait, then they are looked up: a reference that is stored in between finds them.
        with self._lock:
            for each in arrived:
                self._waiting.setdefault(each.report.ref, {})[each.id] = each
        self._done(arrived, self._apply(arrived))

    def referenced(self, places: Mapping[str, Key]) -> None:
        """These references are stored now: apply the reports that wait for them. While CouchDB is away they wait on."""
        with self._lock:
            self._stored |= places
            while len(self._stored) > REMEMBERED:
                self._stored.popitem(last=False)
            waiting = [each for ref in places for each in self._waiting.get(ref, {}).values()]
        if waiting:
            with suppress(UnavailableError, CouchError):
                self._again(waiting)

    def look_again(self) -> None:
        """Match what waits once more (another program may have stored the reference), and drop what is too old."""
        if time.monotonic() - self._looked < LOOK_AGAIN_SECONDS:
            return
        self._looked = time.monotonic()
        with self._lock:
            waiting = [each for several in self._waiting.values() for each in several.values()]
        if self._looked - self._looked_at_all < LOOK_AT_ALL_SECONDS:
            young = milliseconds(states.now()) - YOUNG_MS
            waiting = [each for each in waiting if each.received > young]
        else:
            self._looked_at_all = self._looked
        for start in range(0, len(waiting), AT_ONCE):
            self._again(waiting[start : start + AT_ONCE])

    def _again(self, waiting: Sequence[Arrived]) -> None:
        done = self._apply(waiting)
        oldest = milliseconds(states.now()) - WAIT_MS
        expired = [each for each in waiting if each.id not in done and each.received < oldest]
        if expired:
            log.warning(
                "delivery reports matched no message for a day and are dropped",
                count=len(expired),
                first=expired[0].report.ref,
            )
            self._remove(expired)
        self._done(waiting, done | {each.id for each in expired})

    def _done(self, arrived: Sequence[Arrived], ids: set[str]) -> None:
        """Those with these ids wait no longer."""
        with self._lock:
            for each in arrived:
                if each.id in ids:
                    waiting = self._waiting.get(each.report.ref, {})
                    waiting.pop(each.id, None)
                    if not waiting:
                        self._waiting.pop(each.report.ref, None)

    def _remove(self, arrived: Iterable[Arrived]) -> None:
        self._couch.callbacks.purge([{"_id": each.id, "_rev": each.rev} for each in arrived])

    def _apply(self, arrived: Sequence[Arrived]) -> set[str]:
        """Apply those reports whose message is known: one view query, one bulk write. Returns their documents' ids."""
        if not arrived:
            return set()
        # In order of receipt, those of one millisecond as they were stored: several may be of one message.
        reports = {each.id: each.report for each in sorted(arrived, key=lambda each: each.received)}
        places, known = self._find({report.ref for report in reports.values()})
        found = {doc_id: places[report.ref] for doc_id, report in reports.items() if report.ref in places}
        unknown = {doc_id: report for doc_id, report in reports.items() if doc_id not in found}
        received = {each.id: each.received for each in arrived}
        found |= settled_by(unknown, received, self._couch.main, self._settings.current)
        updates = apply_edits(
            self._couch.main,
            edits_of((doc, partial(self._edit, uuid, reports[doc_id])) for doc_id, (doc, uuid) in found.items()),
            known=known,
        )
        applied = {doc_id for doc_id, (message_doc, _) in found.items() if not updates[message_doc].error}
        self._notices.opted_out(
            [report.phone for doc_id, report in reports.items() if doc_id in applied and report.state is State.DENIED],
            "a delivery report",
        )
        self._remove(each for each in arrived if each.id in applied)
        return applied

    def _find(self, refs: set[str]) -> tuple[dict[str, Key], dict[str, Document]]:
        """The messages with these references, and those of their documents that were read.

        What was stored lately is remembered. A message keeps its references, so what the index knows is right, and it
        is brought up only for the rest: with each batch of reports it would have to read what the one before wrote.
        """
        with self._lock:
            places = {ref: self._stored[ref] for ref in refs & self._stored.keys()}
        docs: dict[str, Document] = {}
        for update in ("false", "true"):
            if keys := sorted(refs - places.keys()):
                rows = self._couch.main.view_with_docs(
                    "mjumbe", "messages_by_gateway_ref", keys=keys, update=update, stable=True
                )
                for row in rows:
                    if row.doc is not None:  # else it was deleted since
                        places[row.key], docs[row.id] = (row.id, str(row.value)), row.doc
        return places, docs

    def _edit(self, message_uuid: str, report: DeliveryReport, doc: Document) -> bool:
        task = find_task(doc, message_uuid)
        if task is None or not apply(task, report, self._settings.current.sms):
            return False
        # Before it is written: what is due again by that must find its service held.
        self._services.reported(report)
        return True


def _read(doc: Document) -> Arrived | None:
    """One odd document must not stop every other report; it stays as it is, for a later version perhaps."""
    try:
        return Arrived(doc["_id"], doc["_rev"], read_moment(doc.get("received")) or 0, read_report(doc))
    except (KeyError, ValueError) as error:
        log.error("a delivery report cannot be read, so it is left as it is", doc=doc["_id"], reason=repr(error))
        return None


def apply(task: Task, report: DeliveryReport, sms: Sms) -> bool:
    """Move a task as a report says; False when the report was there already, or has nothing to say.

    What comes late goes to the history only, and so does a status that nobody knows. A failure that passes gives the
    message another attempt, by the service that took it; one that is the service's own trouble, not the message's,
    costs none, and any service may take the message then.
    """
    facts: dict[str, Any] = {"report": report.status, "reason": report.reason, "gateway_ref": report.ref}
    if any(facts.items() <= entry.items() for entry in _told(task)):
        return False
    facts["network_code"] = report.network_code
    now, details, state = states.now(), report.summary, report.state
    if _is_of_an_earlier_attempt(task, report) and state is not State.DELIVERED:
        states.note(task, now, details, late=True, **facts)
        return True
    settled = task.pop("in_doubt", False)
    if settled or not task.get("gateway_ref"):
        states.remember_ref(task, report.ref)  # what is there may be an earlier attempt's
    if settled:
        task.pop("retry_at", None)
        if not task.get("claim"):  # else it is under way with whoever was chosen since
            task["service"] = report.gateway
        # Whatever the report says, the service has the message: it must not be sent again.
        state = state or State.RECEIVED_BY_GATEWAY
    failed = state is State.FAILED and states.is_forward(states.of(task), state)
    if state is None:
        states.note(task, now, details, **facts)
    elif failed and report.failure == Failure.RETRY:
        task["via"] = task.get("service")
        outcomes.try_again(task, Outcome(details, failure=Failure.RETRY), now, sms, **facts)
    elif failed and report.failure == Failure.CONFIGURATION:
        states.release(task, now, details, spent=False, **facts)
    else:
        states.move(task, state, now, details, **facts)
    return True


def _told(task: Task) -> Iterator[dict[str, Any]]:
    """The reports in a task's history."""
    for entry in states.history(task):
        if "report" in entry:
            yield {"reason": None, **entry}


def _is_of_an_earlier_attempt(task: Task, report: DeliveryReport) -> bool:
    """Whether the attempt has ended, or was followed by another, whose own reference is not known while it lasts."""
    if report.ref == task.get("gateway_ref"):
        return states.of(task) in (State.PENDING, State.FORWARDED_TO_GATEWAY)
    return any(entry.get("gateway_ref") == report.ref for entry in states.history(task))
