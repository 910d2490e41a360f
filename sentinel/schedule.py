"""What happens by the clock: messages that fall due, claims that nobody answered, reports that still wait."""

import math
import random
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import structlog

from mjumbe import setup, states
from mjumbe.couch import ABSENT, Couch, CouchError, NotFoundError, Row, UnavailableError
from mjumbe.documents import ANY_ROUTE, Document, Key, Route, message_of, milliseconds, oldest_due, tasks_of
from mjumbe.edits import apply_edits
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.live_settings import LiveSettings
from mjumbe.states import State, Task
from sentinel import outcomes
from sentinel.outbox import Outbox
from sentinel.patience import Patience
from sentinel.pipeline import Pipeline
from sentinel.queue import CAPACITY
from sentinel.reports import Reports
from sentinel.service import Service
from sentinel.services import Services

log = structlog.get_logger(__name__)

TICK_SECONDS = 1.0
# While the outbox has no room we look only so often: in a broadcast the index would be busy with each message's every
# state.
FULL_SECONDS = 5.0
SETTINGS_SECONDS = 5.0
CLAIMS_SECONDS = 15.0
MINUTE_SECONDS = 60.0
PAGE = 1_000
LOOKED_AT = (State.SCHEDULED, "reply", State.PENDING, "assigned")
STUCK_SECONDS = 10.0  # after which messages are looked for again, when all that were found wait for held services
# How long a leader that may still be alive has for storing the answers of its requests: the longest read timeout
# that is usual, and some.
GRACE_SECONDS = 90.0


class Clock:
    """Ticks once a second. `run` in a thread of its own."""

    def __init__(
        self,
        couch: Couch,
        settings: LiveSettings,
        pipeline: Pipeline,
        services: Services,
        outbox: Outbox,
        reports: Reports,
    ) -> None:
        self._couch = couch
        self._settings = settings
        self._pipeline = pipeline
        self._services = services
        self._outbox = outbox
        self._reports = reports
        self._claims = time.monotonic()
        self._minute = -math.inf  # monotonic: when that was done which is done once a minute
        self._seen: dict[str, float] = {}  # claims that are not ours, and when we saw them first
        self._looked = 0.0  # when we looked for what is due (monotonic)
        self._pending = 0.0  # when to look for pending messages again (monotonic)

    def run(self, stop: threading.Event) -> None:
        """Tick until `stop` is set."""
        patience = Patience("the clock waits for CouchDB")
        while not stop.is_set():
            try:
                self._tick()
                patience.is_over()
            except (UnavailableError, CouchError) as error:
                patience.waits(error)
                # Somebody deleted the design documents, or the database and made it again. One that is not there stays
                # so: a node of a cluster may only not know of it yet, and what it made then would be another database.
                if isinstance(error, NotFoundError) and error.reason in ABSENT:
                    with suppress(UnavailableError, CouchError):
                        setup.prepare(self._couch)
            stop.wait(TICK_SECONDS)

    def _tick(self) -> None:
        self._settings.refresh_if_older(SETTINGS_SECONDS)
        now = time.monotonic()
        # A phone that brings something at its poll is given what was there when we looked last (api/cht_gateway.py).
        a_phone_polls = PHONE_GATEWAY in self._services.order()
        if a_phone_polls or self._outbox.has_room() or now - self._looked >= FULL_SECONDS:
            self._looked = now
            self._due()
        self._reports.look_again()
        if now - self._claims > CLAIMS_SECONDS:
            self._claims = now
            self.doubt_claims(GRACE_SECONDS)
        if now - self._minute > MINUTE_SECONDS:
            self._minute = now
            self._each_minute()

    def _each_minute(self) -> None:
        oldest = oldest_due(states.now(), self._settings.current.sms)
        for state in (State.PENDING, "assigned", "bound"):
            self._process(self._rows(state, oldest)[:PAGE])
        # Who writes is looked up in this index as it is, and the feed tells of those whom it lacks
        # (sentinel/contacts.py). Nobody else has it brought up, and in a broadcast each document is work for it.
        self._couch.main.view("mjumbe-contacts", "by_phone", limit=0, update="lazy")

    def _due(self) -> None:
        """Bring what is due by now from CouchDB to the outbox: answers always, the rest as far as it has room."""
        now = milliseconds(states.now())
        waiting = self._waiting(now)
        if State.SCHEDULED in waiting:
            fallen_due = self._rows(State.SCHEDULED, now)[:PAGE]
            self._process(fallen_due)
            if len(fallen_due) == PAGE:
                self._looked = -math.inf  # there may be more, which must not wait for FULL_SECONDS
        if "reply" in waiting:
            self._process(self._rows("reply", now)[:PAGE])
        if State.PENDING in waiting and time.monotonic() >= self._pending:
            self._process(self._fair(now))
        if "assigned" in waiting and self._outbox.has_room():
            service = self._services.choose(ANY_ROUTE)
            if isinstance(service, Service):
                self._process(self._untaken(service, now))

    def _waiting(self, now: int) -> set[str]:
        """In which of the states that `_due` reads anything is due by `now` (ms).

        The index is brought up for the first, and read as it is then for all that a tick asks: each question would wait
        anew for what was written since the one before, and in a broadcast an index hardly keeps up.
        """
        queries = [
            {"start_key": [state], "end_key": [state, now], "limit": 1, "update": "false" if place else "true"}
            for place, state in enumerate(LOOKED_AT)
        ]
        answers = self._couch.main.view_queries("mjumbe", "due", queries)
        return {state for state, rows in zip(LOOKED_AT, answers, strict=True) if rows}

    def _fair(self, now: int) -> list[Row]:
        """The oldest of what waits; when that is more than was read, half a page from a moment of chance: a broadcast
        must not wait in CouchDB until all that was written before it has gone, or can go."""
        read = self._read(State.PENDING, now)
        if len(read) < PAGE + CAPACITY:
            return self._wanted(read)[:PAGE]
        newest = self._look_up(start_key=[State.PENDING, now], end_key=[State.PENDING], descending=True, limit=1)
        moment = random.uniform(read[0].key[1], newest[0].key[1] if newest else now)  # noqa: S311  # no secret
        halves = (self._wanted(rows)[: PAGE // 2] for rows in (read, self._read(State.PENDING, now, int(moment))))
        found = list({_key(row): row for row in chain.from_iterable(halves)}.values())
        if not found and self._outbox.has_room():
            self._pending = time.monotonic() + STUCK_SECONDS
        return found

    def _untaken(self, service: Service, now: int) -> list[Row]:
        """Messages that were left to the phone gateway and that no phone has taken, as many as `service` may take until
        the next tick."""
        rows = [row for row in self._rows("assigned", now) if not self._outbox.leaves_to_phone(_key(row))]
        if service.status.held:
            return rows[:1]  # its probe
        return rows[: min(PAGE, service.room() * service.batch_size) if service.limits.max_per_second else PAGE]

    def _wanted(self, rows: Sequence[Row]) -> list[Row]:
        """Those that the outbox does not know, and that it has room for."""
        has_room = {via: self._outbox.takes(Route(via)) for via in {row.value.get("via") for row in rows}}
        return [row for row in self._unknown(rows) if has_room[row.value.get("via")]]

    def _rows(self, state: str, until: int) -> list[Row]:
        """The messages in `state` that were due by `until` (ms), oldest first, that the outbox does not know; more than
        a page, if there are."""
        return self._unknown(self._read(state, until))

    def _unknown(self, rows: Sequence[Row]) -> list[Row]:
        return [row for row in rows if not self._outbox.knows(_key(row))]

    def _read(self, state: str, until: int, since: int = 0) -> list[Row]:
        return self._look_up(start_key=[state, since], end_key=[state, until], limit=PAGE + CAPACITY)

    def _look_up(self, **query: Any) -> list[Row]:
        """In the index as it is since the beginning of this tick, or one before."""
        return self._couch.main.view("mjumbe", "due", update="false", stable=True, **query)

    def _process(self, rows: Sequence[Row]) -> None:
        if rows:
            docs = list(self._couch.main.fetch(row.id for row in rows).values())
            # A message may come here before the feed has heard how the settings were changed before it was written.
            self._settings.refresh()
            self._pipeline.process(docs)

    def doubt_claims(self, grace: float) -> None:
        """What is claimed and not under way here, seen first `grace` seconds ago or before: its outcome is in doubt.

        When it was claimed another machine's clock says, which may be wrong, as ours may.
        """
        seen, self._seen = self._seen, {}
        rows = self._couch.main.view(
            "mjumbe", "due", start_key=[State.FORWARDED_TO_GATEWAY], end_key=[State.FORWARDED_TO_GATEWAY, {}]
        )
        self._adopt([row for row in rows if row.value["service"] is None])
        ids = [row.id for row in rows if row.value["service"] not in (None, PHONE_GATEWAY)]
        for start in range(0, len(ids), PAGE):
            edits = dict.fromkeys(ids[start : start + PAGE], lambda doc: self._doubt(doc, seen, grace))
            updates = apply_edits(self._couch.main, edits)
            count = sum(update.written for update in updates.values())
            if count:
                log.warning("requests without a stored answer are in doubt", documents=count)

    def _adopt(self, rows: Sequence[Row]) -> None:
        """What CHT handed to a phone, and no phone has acknowledged, waits for phones here too, as it did there: the
        app sends an id once, however often it is given it. What is too old to be sent stays as it is."""
        oldest = oldest_due(states.now(), self._settings.current.sms)
        ids = [row.id for row in rows if row.key[1] >= oldest]
        for start in range(0, len(ids), PAGE):
            updates = apply_edits(self._couch.main, dict.fromkeys(ids[start : start + PAGE], _leave_to_phones))
            if count := sum(update.written for update in updates.values()):
                log.info("messages that another server gave to phones are left to phones", documents=count)

    def _doubt(self, doc: Document, seen: Mapping[str, float], grace: float) -> bool:
        changed = False
        for task in self._forgotten(doc, seen, grace):
            facts = {"service": task.get("service"), "attempt": states.attempts(task)}
            del task["claim"]
            outcomes.doubt(
                task, "no answer was stored for the last request", states.now(), self._settings.current.sms, **facts
            )
            changed = True
        return changed

    def _forgotten(self, doc: Document, seen: Mapping[str, float], grace: float) -> Iterable[Task]:
        now = time.monotonic()
        for task in tasks_of(doc):
            claim = str(task.get("claim") or "")
            if states.of(task) is not State.FORWARDED_TO_GATEWAY or not claim or task.get("service") == PHONE_GATEWAY:
                continue
            if self._outbox.knows((doc["_id"], str(message_of(task).get("uuid")))):
                continue
            self._seen[claim] = seen.get(claim, now)
            if now - self._seen[claim] >= grace:
                yield task


def _leave_to_phones(doc: Document) -> bool:
    given = [task for task in tasks_of(doc) if states.of(task) is State.FORWARDED_TO_GATEWAY]
    given = [task for task in given if not task.get("service") and not task.get("claim")]
    for task in given:
        task["service"] = PHONE_GATEWAY
        states.note(task, states.now(), "given to a phone before mjumbe came; a phone is given it again")
    return bool(given)


def _key(row: Row) -> Key:
    return row.id, str(row.value["uuid"])
