"""What services must be asked, because they do not tell or were not heard: statuses, inboxes, balances."""

import random
import threading
import time
from collections.abc import Iterator

import structlog

from mjumbe import documents, phone_numbers, states
from mjumbe.couch import Couch, CouchError, UnavailableError
from mjumbe.documents import Document, IncomingMessage, is_incoming, milliseconds, read_moment
from mjumbe.gateways.base import FencedError, Gateway, SendError
from mjumbe.live_settings import LiveSettings
from sentinel.service import Service
from sentinel.services import Services

log = structlog.get_logger(__name__)

POLL_SECONDS = 60.0
BALANCE_SECONDS = 3600.0
# RapidPro allows 2,500 requests an hour, and a status is a request.
STATUSES_AT_ONCE = 30
STATUS_MS = 24 * 3600 * 1000  # what is not settled by then is not asked for any more
AROUND_MS = 24 * 3600 * 1000  # how far from its sending a message may have been received
# How long a new leader leaves alone those inboxes that have ids of their own: CouchDB may just be back, and the
# callbacks of what is in them still in an API's spool. Stored before these, they would be other messages.
SPOOL_SECONDS = 60.0


class Polls:
    """Asks each usable service in turn. `run` in a thread of its own."""

    def __init__(self, couch: Couch, settings: LiveSettings, services: Services) -> None:
        self._couch = couch
        self._settings = settings
        self._services = services
        self._began = time.monotonic()
        self._balances: dict[str, tuple[Gateway, float]] = {}  # whose was asked, and when (monotonic)
        self._asked: dict[str, int] = {}  # how many of a service's open messages this round has asked about

    def run(self, stop: threading.Event) -> None:
        """Ask once a minute until `stop` is set."""
        while not stop.is_set():
            try:
                self.ask_all()
            except FencedError:
                return
            stop.wait(POLL_SECONDS)

    def ask_all(self) -> None:
        """Ask every usable service once; trouble with one question keeps no other from being asked, of it or of
        another service. Raises FencedError."""
        questions = {"account": self._account, "statuses": self._statuses, "inbox": self._inbox}
        for service in self._services.usable():
            for about, ask in questions.items():
                try:
                    ask(service)
                except FencedError:
                    raise
                except (SendError, UnavailableError, CouchError) as error:
                    log.info("a service could not be asked", service=service.name, about=about, reason=str(error))
                except Exception:
                    # An answer that nobody foresaw must not end the process that sends.
                    log.exception("a service could not be asked", service=service.name, about=about)

    def _account(self, service: Service) -> None:
        if service.is_left_alone() and service.gateway.check().ok:
            service.recovered()
        self._balance(service)

    def _balance(self, service: Service) -> None:
        """Once an hour, and at once when the service is called otherwise: a new key may be another account's."""
        gateway = service.gateway
        asked, at = self._balances.get(service.name, (None, 0.0))
        if asked is not gateway or time.monotonic() - at > BALANCE_SECONDS:
            self._balances[service.name] = gateway, time.monotonic()
            service.learn_balance(gateway.check().balance)

    def _statuses(self, service: Service) -> None:
        """Store what the service says of its open messages as if it had posted it.

        They are asked about in turns: those that never settle keep no later one waiting.
        """
        if type(service.gateway).statuses is Gateway.statuses:
            return
        now, asked = milliseconds(states.now()), self._asked.get(service.name, 0)
        rows = self._couch.main.view(
            "mjumbe",
            "due",
            start_key=["open", service.name, now - STATUS_MS],
            end_key=["open", service.name, now],
            skip=asked,
            limit=STATUSES_AT_ONCE,
        )
        self._asked[service.name] = asked + len(rows) if len(rows) == STATUSES_AT_ONCE else 0
        if rows:
            # Some that always fail end the asking, so they must not always be the first.
            reports = service.gateway.statuses(random.sample([str(row.value) for row in rows], len(rows)))
            self._couch.callbacks.bulk([documents.report_document(report, now) for report in reports])

    def _inbox(self, service: Service) -> None:
        """Store the messages whose callbacks never came, as if they had."""
        if type(service.gateway).inbox is Gateway.inbox or not self._may_look(service.gateway):
            return
        place = f"_local/mjumbe-inbox-{service.name}"
        kept: Document = self._couch.sentinel.get(place) or {"_id": place, "cursor": None}
        inbox = service.gateway.inbox(kept["cursor"])
        messages = [message for message in inbox.messages if not self._is_known(service.gateway, message)]
        for saved in self._couch.main.bulk([self._document(message) for message in messages]):
            if saved.error and not saved.conflict:
                log.error("a message of an inbox is refused", id=saved.id, reason=f"{saved.error}: {saved.reason}")
        if inbox.cursor != kept["cursor"]:
            self._couch.sentinel.put({**kept, "cursor": inbox.cursor})

    def _may_look(self, gateway: Gateway) -> bool:
        return not gateway.inbox_ids_differ or time.monotonic() - self._began >= SPOOL_SECONDS

    def _document(self, message: IncomingMessage) -> Document:
        sender = phone_numbers.canonical(message.sender, self._settings.current.default_country_code)
        return documents.incoming_document(message, sender, milliseconds(states.now()))

    def _is_known(self, gateway: Gateway, message: IncomingMessage) -> bool:
        """Whether the message's callback came: by its id, or, where the inbox has ids of its own, by what it says."""
        if not gateway.inbox_ids_differ:
            return False  # the same id is the same document
        sender = phone_numbers.canonical(message.sender, self._settings.current.default_country_code)
        return any(_same(doc, message) for doc in self._received(sender, message))

    def _received(self, sender: str, message: IncomingMessage) -> Iterator[Document]:
        sent = read_moment(message.sent_timestamp) or milliseconds(states.now())
        rows = self._couch.main.view(
            "mjumbe",
            "messages",
            start_key=["phone", phone_numbers.ending(sender), sent - AROUND_MS],
            end_key=["phone", phone_numbers.ending(sender), sent + AROUND_MS],
            reduce=False,
            include_docs=True,
        )
        docs = (row.doc for row in rows if row.doc is not None)
        yield from (doc for doc in docs if is_incoming(doc) and doc["from"] == sender)


def _same(doc: Document, message: IncomingMessage) -> bool:
    sms = doc["sms_message"]
    return (
        sms.get("message") == message.text
        and (sms.get("to") or None) == (message.to or None)
        and _second(sms.get("sent_timestamp")) == _second(message.sent_timestamp)
    )


def _second(written: str | None) -> int | str | None:
    moment = read_moment(written)
    return moment // 1000 if moment is not None else written
