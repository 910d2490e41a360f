"""The outbox: due messages → claim → gateway → result.

A message waits in a queue in memory, which the changes feed and the clock fill; CouchDB stays the truth, and a
message that falls out of memory is found there again. A claim is written before a request is made, and behind the
results of the request whose place it takes: so what may be sent twice after a crash is never more than `concurrency`
requests.
"""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import structlog

from mjumbe import phone_numbers, states, text
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.documents import Document, Key, OutgoingMessage, Route, find_task
from mjumbe.edits import Edit, Update
from mjumbe.gateways.base import Batch, Failure, FencedError, Gateway, Outcome, SendError
from mjumbe.live_settings import LiveSettings
from mjumbe.states import Task
from sentinel import outcomes
from sentinel.claims import Claimed, Claims
from sentinel.echoes import Echoes
from sentinel.outcomes import Claim
from sentinel.patience import GivenUpError, Patience
from sentinel.pipeline import due_messages
from sentinel.queue import CAPACITY, Queue
from sentinel.recent import RecentMessages
from sentinel.registers import Registers
from sentinel.service import Service
from sentinel.services import Services
from sentinel.writer import Updates, Write, Writer

log = structlog.get_logger(__name__)

ASSIGN_AT_ONCE = 500  # messages given to the polling phone gateway in one write
LEFT_SECONDS = 60.0  # whom a service cannot reach is left to the phone gateway for so long before it is offered again
IDLE_SECONDS = 0.5
# Documents kept with the messages that wait: 7 KB each, and while a service is held answers may wait by the 100,000.
MOST_DOCUMENTS = 10_000
# As much of a text is looked for in what a service says of it; a shorter one may well be a word of the service's own.
REPEATED, LEAST_REPEATED = 20, 4
# Given back, lest whoever leads now must take it for perhaps sent.
NOT_SENT = Outcome("not sent: this sentinel no longer led", failure=Failure.CONFIGURATION)


@dataclass(frozen=True, slots=True)
class Heard:
    """Whom the outbox tells what it learns from the services' answers."""

    references: Callable[[Mapping[str, Key]], None]  # that are stored now, and their messages
    opt_outs: Callable[[Sequence[str], str], None]  # numbers, and which service said so
    left: Callable[[Sequence[str], str], None]  # who left a service, and which


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that was made: its messages and their results, those that another service may take, and what the
    writer will say of the results."""

    messages: Sequence[OutgoingMessage]
    results: Sequence[Outcome]
    elsewhere: Mapping[Key, OutgoingMessage]
    stored: "Future[Updates]"


class Outbox:
    """Sends what is offered. One thread chooses what goes next; each request has a thread, which claims its messages,
    asks the service and hands in the results; the writer stores claims and results."""

    def __init__(
        self,
        echoes: Echoes,
        settings: LiveSettings,
        services: Services,
        recent: RecentMessages,
        registers: Registers,
        heard: Heard,
        fence: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._services = services
        self._given_up = threading.Event()
        self._writer = Writer(echoes, fence, self._given_up)
        self._claims = Claims(self._writer, settings, recent, registers.opt_outs, self._number)
        self._heard = heard
        self._fence = fence
        self._queue = Queue(self._number)
        self._known: set[Key] = set()  # queued or under way
        self._left: dict[Key, float] = {}  # left to the phone gateway: until when (monotonic)
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._workers = ThreadPoolExecutor(max_workers=256, thread_name_prefix="send")

    # ---- what comes in

    def offer(self, messages: Iterable[OutgoingMessage]) -> None:
        """Queue due messages that are not known yet. When memory is full, bulk waits in CouchDB for the clock, but
        for a little of each text, and what is queued all the same leaves its document there."""
        with self._lock:
            for message in messages:
                if message.key in self._known or not self._queue.fits(message):
                    continue
                self._queue.add(message if len(self._known) < MOST_DOCUMENTS else replace(message, doc=None))
                self._known.add(message.key)
        self._bell.set()

    def knows(self, key: Key) -> bool:
        """Whether this message is queued or under way."""
        with self._lock:
            return key in self._known

    def leaves_to_phone(self, key: Key) -> bool:
        """Whether it was left to the phone gateway a moment ago because a service cannot reach its recipient."""
        with self._lock:
            return self._left.get(key, 0.0) > time.monotonic()

    def has_room(self) -> bool:
        """Whether less than half of what memory holds waits for services that take messages."""
        with self._lock:
            bulk = dict(self._queue.bulk())
        moving = sum(count for route, count in bulk.items() if not self._services.is_stuck(route))
        return moving < CAPACITY // 2

    def takes(self, route: Route) -> bool:
        """Whether more bulk that goes by this route fits into memory."""
        with self._lock:
            return not self._queue.is_full(route)

    # ---- the choosing thread

    def run(self, stop: threading.Event) -> None:
        """Send until `stop` is set, then let what is under way finish and store it."""
        patience = Patience("messages wait for CouchDB")
        while not stop.is_set():
            try:
                self._services.refresh()
                self._bell.clear()
                if self._dispatch():
                    patience.is_over()
                else:
                    self._services.say_if_none()
                    self._bell.wait(IDLE_SECONDS)
            except FencedError as error:
                log.error("the outbox stops sending", reason=str(error))
                break
            except GivenUpError:  # the process ends, and CouchDB is away
                break
            except (UnavailableError, CouchError) as error:
                patience.waits(error)
                stop.wait(1.0)
        self.close()

    def close(self) -> None:
        """Let what is under way finish and store it."""
        self._workers.shutdown(wait=True)
        self._writer.close()

    def give_up(self) -> None:
        """Wait for CouchDB no longer: what it has not stored of the requests that are under way is in doubt."""
        self._given_up.set()

    def wake(self) -> None:
        """Look at the queue again now: something changed."""
        self._bell.set()

    def _dispatch(self) -> bool:
        """Start as many requests as may start; answers whether there were any."""
        self._fence()
        with self._lock:
            routes = self._queue.routes()
        for route in routes:
            chosen = self._services.choose(route)
            if isinstance(chosen, Service):
                for batch in self._take_batches(chosen, route):
                    chosen.started()
                    self._workers.submit(self._send, chosen, batch)
                return True
            if chosen is not None:
                self._leave(route, self._assign)
                return True
            if not self._services.order(route):
                self._leave(route, self._set_aside)
        return False

    def _take_batches(self, service: Service, route: Route) -> list[list[OutgoingMessage]]:
        """A batch for each request that may start; whom the service cannot reach waits for the next service."""
        batches = []
        for _ in range(service.room()):
            batch: list[OutgoingMessage] = []
            unreached: list[OutgoingMessage] = []
            for message in self._take(route, service.batch_size):
                (batch if service.gateway.reaches(self._number(message)) else unreached).append(message)
            self._queue_again(replace(each, route=each.route.never_by(service.name)) for each in unreached)
            if batch:
                batches.append(batch)
        return batches

    def _take(self, route: Route, size: int) -> list[OutgoingMessage]:
        with self._lock:
            return self._queue.take(route, size)

    def _leave(self, route: Route, how: Callable[[Sequence[OutgoingMessage]], None]) -> None:
        """Deal with up to ASSIGN_AT_ONCE messages, of any texts, for which there is no request."""
        messages: list[OutgoingMessage] = []
        while len(messages) < ASSIGN_AT_ONCE and (more := self._take(route, ASSIGN_AT_ONCE - len(messages))):
            messages += more
        self._guarded(partial(how, messages), messages)

    def _number(self, message: OutgoingMessage) -> str:
        return phone_numbers.number_to_send_to(message.to, self._settings.current)

    def _queue_again(self, messages: Iterable[OutgoingMessage]) -> None:
        """Queue messages that are known already, by new routes."""
        with self._lock:
            for message in messages:
                self._queue.add(message)
        self._bell.set()

    def _guarded(self, work: Callable[[], None], messages: Sequence[OutgoingMessage]) -> None:
        """Do it; when CouchDB fails, the messages are forgotten, and found there again later."""
        try:
            work()
        except Exception:
            self._forget(messages)
            raise

    def _forget(self, messages: Iterable[OutgoingMessage]) -> None:
        with self._lock:
            self._known.difference_update(message.key for message in messages)

    def _assign(self, messages: Sequence[OutgoingMessage]) -> None:
        """Leave messages to the phone gateway, and do not offer them again for a while."""
        self._claims.leave_to_phone(messages)
        now = time.monotonic()
        with self._lock:
            self._left = {key: until for key, until in self._left.items() if until > now}
            self._left |= {message.key: now + LEFT_SECONDS for message in messages if message.route.without}
        self._forget(messages)

    def _set_aside(self, messages: Sequence[OutgoingMessage]) -> None:
        """No service takes these messages, now or later."""
        self._claims.set_aside(messages)
        self._forget(messages)

    # ---- the sending threads

    def _send(self, service: Service, batch: Sequence[OutgoingMessage]) -> None:
        """One request: its claim, what the service says, its results."""
        try:
            try:
                exchange = self._exchange(service, batch)
            finally:
                service.finished()
                self.wake()
            if exchange is not None:
                self._settle(service, exchange)
        except (FencedError, GivenUpError):
            self._forget(batch)
        except Exception:
            log.exception("a request failed on our side; what was claimed of it is in doubt", service=service.name)
            self._forget(batch)

    def _exchange(self, service: Service, batch: Sequence[OutgoingMessage]) -> Exchange | None:
        """Claim the messages, ask the service, and hand in its results; None when nothing is to be sent any more."""
        held = self._claims.take(service.name, batch)
        self._forget(message for message in batch if message.key not in held)
        claimed = [held[message.key] for message in batch if message.key in held]
        if not claimed:
            return None
        gateway = service.gateway
        with service.asked():
            results = self._ask(gateway, claimed)
        # One that was called by another key, or elsewhere, says nothing of the service as it is now.
        if results is not None and gateway is service.gateway:
            results = service.judged([each.message.key for each in claimed], results)
            if service.answered(results):
                self.wake()
        return self._hand_in(service, claimed, results or [NOT_SENT] * len(claimed))

    def _ask(self, gateway: Gateway, batch: Sequence[Claimed]) -> list[Outcome] | None:
        """The outcomes of a request; None when this process may no longer send, and did not."""
        first, limit = batch[0].message, self._settings.current.multipart_sms_limit
        body = text.limit_parts(first.text, limit)
        request = Batch(body, tuple(claimed.number for claimed in batch), first.premium)
        try:
            results = gateway.send(request)
        except SendError as error:
            results = [error.outcome] * len(batch)
        except FencedError:
            return None
        except Exception as error:
            log.exception("a gateway failed in an unknown way", gateway=type(gateway).__name__)
            results = [Outcome(f"an error of ours: {type(error).__name__}", failure=Failure.AMBIGUOUS)] * len(batch)
        cut = f"; the text was cut to {limit} parts (multipart_sms_limit)" if body != first.text else ""
        return [_said(outcome, first.text, cut) for outcome in results]

    def _hand_in(self, service: Service, batch: Sequence[Claimed], results: Sequence[Outcome]) -> Exchange:
        """Let the results be stored, whoever leads by now: one that is not stored is a message sent twice."""
        # First: a message whose result is stored is not asked about again.
        self._tell(service.name, [(claimed.number, each) for claimed, each in zip(batch, results, strict=True)])
        now, sms = states.now(), self._settings.current.sms
        edits: list[tuple[str, Edit]] = []
        elsewhere: dict[Key, OutgoingMessage] = {}
        for claimed, outcome in zip(batch, results, strict=True):
            at_once = self._services.goes_elsewhere(claimed.message.route, service.name, outcome)
            if at_once:
                elsewhere[claimed.message.key] = claimed.message
            edit = partial(_apply, claimed, partial(outcomes.apply, now=now, sms=sms, at_once=at_once), outcome)
            edits.append((claimed.message.doc_id, edit))
        known = {claimed.message.doc_id: claimed.message.doc for claimed in batch if claimed.message.doc is not None}
        stored = self._writer.submit(Write(edits, known, fenced=False))
        return Exchange([claimed.message for claimed in batch], results, elsewhere, stored)

    def _settle(self, service: Service, exchange: Exchange) -> None:
        """What follows when the results are stored. Raises CouchError when a document did not take its own."""
        docs = [_stored(doc_id, update) for doc_id, update in exchange.stored.result().items()]
        answered = zip(exchange.messages, exchange.results, strict=True)
        self._heard.references({outcome.ref: message.key for message, outcome in answered if outcome.ref})
        due = {message.key: message for doc in docs if doc for message in due_messages(doc)}
        # What others wrote meanwhile has not been looked at yet, whether it may go: the clock brings that.
        same = {
            message.key: due[message.key]
            for message in exchange.messages
            if message.key in due and due[message.key].wanted == message.wanted
        }
        # A message that another service may take keeps its place here: nobody else may offer it without its route.
        again = [
            replace(same[key], route=message.route.last_by(service.name))
            for key, message in exchange.elsewhere.items()
            if key in same
        ]
        kept = {each.key for each in again}
        self._forget(message for message in exchange.messages if message.key not in kept)
        self._queue_again(again)
        # A message given back at once (a held service) is due again without anybody's changing it.
        self.offer(message for key, message in same.items() if key not in exchange.elsewhere)

    def _tell(self, service: str, answered: Sequence[tuple[str, Outcome]]) -> None:
        """Keep who opted out or left by what a service answered, however long CouchDB is away."""

        def tell() -> None:
            self._heard.opt_outs([number for number, outcome in answered if outcome.opted_out], service)
            self._heard.left([number for number, outcome in answered if outcome.left], service)

        Patience("who opted out waits for CouchDB").insist(tell, self._given_up)


def _said(outcome: Outcome, message: str, cut: str) -> Outcome:
    """What a service said as it is kept: with a word when the text was `cut`, and without the text, which some
    refusals repeat, or its beginning; why a service is held is logged."""
    if outcome.failure is None:
        return replace(outcome, details=outcome.details + cut) if cut else outcome
    place = _repeats(outcome.details, message)
    return outcome if place is None else replace(outcome, details=f"{outcome.details[:place]}…")


def _repeats(said: str, message: str) -> int | None:
    """Where `said` begins to repeat the message, if it does: cut off, it may end with a few letters of it."""
    place = said.find(message[:REPEATED]) if len(message) >= LEAST_REPEATED else -1
    if place >= 0:
        return place
    for size in range(min(REPEATED, len(message)), LEAST_REPEATED - 1, -1):
        if said.endswith(f"{message[:size]}…"):
            return len(said) - size - 1
    return None


def _apply(claimed: Claimed, store: Callable[[Task, Outcome, Claim], bool], outcome: Outcome, doc: Document) -> bool:
    task = find_task(doc, claimed.message.uuid)
    return task is not None and store(task, outcome, claimed.claim)


def _stored(doc_id: str, update: Update) -> Document | None:
    if update.error:
        raise CouchError(409, f"document {doc_id} did not take its result: {update.error}")
    return update.doc
