"""The outbox: due messages → claim → gateway → result.

A message waits in a queue in memory, which the changes feed and the clock fill; CouchDB stays the truth, and a
message that falls out of memory is found there again. Claims are written before a request is made, for as many
requests as may start, and a request's place is free only when its results are stored: so what may be in doubt after a
crash is never more than `concurrency` requests.
"""

import threading
import uuid
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import structlog

from mjumbe import states, text
from mjumbe.batcher import Batcher
from mjumbe.couch import Couch, CouchError, Document, Edit, UnavailableError, Update
from mjumbe.documents import OutgoingMessage, find_task, milliseconds
from mjumbe.gateways.base import Batch, Failure, FencedError, Outcome, SendError
from mjumbe.live_settings import LiveSettings
from mjumbe.states import State, Task
from sentinel import outcomes
from sentinel.outcomes import Claim
from sentinel.pipeline import due_messages, number_of
from sentinel.recent import RecentMessages
from sentinel.services import Service, Services

log = structlog.get_logger(__name__)

CAPACITY = 2_000  # bulk messages kept in memory, with their documents
ASSIGN_AT_ONCE = 500  # messages given to the polling phone gateway in one write
IDLE_SECONDS = 0.5
# Under load, claims and results wait this long for company: one write for ten messages instead of ten.
LINGER_SECONDS = 0.01

Lane = OrderedDict[tuple[str, str | None], deque[OutgoingMessage]]  # by text and linkId


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that we hold, and the number it goes to."""

    message: OutgoingMessage
    number: str
    claim: Claim


@dataclass(frozen=True, slots=True)
class Result:
    """What is to be stored of one message: the edit, and its document as it was when it was claimed, if we have it."""

    doc_id: str
    edit: Edit
    doc: Document | None


class Queue:
    """Due messages: replies before bulk, equal texts together, texts taking turns. Not safe for threads by itself."""

    def __init__(self, number: Callable[[OutgoingMessage], str]) -> None:
        """`number` tells where a message goes: a request may not hold a number twice."""
        self._number = number
        self._lanes: OrderedDict[str | None, tuple[Lane, Lane]] = OrderedDict()  # by the service they are bound to
        self._bulk_size = 0
        self._reply_size = 0

    def __len__(self) -> int:
        return self._bulk_size + self._reply_size

    @property
    def is_full(self) -> bool:
        return self._bulk_size >= CAPACITY

    def add(self, message: OutgoingMessage) -> None:
        replies, bulk = self._lanes.setdefault(message.via, (OrderedDict(), OrderedDict()))
        lane = replies if message.reply else bulk
        lane.setdefault((message.text, message.link_id), deque()).append(message)
        self._count(message, 1)

    def _count(self, message: OutgoingMessage, change: int) -> None:
        if message.reply:
            self._reply_size += change
        else:
            self._bulk_size += change

    def vias(self) -> list[str | None]:
        """The services that waiting messages are bound to (None for those that are not), those with replies first."""
        return sorted(self._lanes, key=lambda via: not self._lanes[via][0])

    def take(self, via: str | None, size: int) -> list[OutgoingMessage]:
        """Up to `size` messages of one text, each number once; the rest of that text goes to the end of its lane."""
        if via not in self._lanes:
            return []
        replies, bulk = self._lanes[via]
        lane = replies or bulk
        key = next(iter(lane))
        waiting = lane.pop(key)
        taken: dict[str, OutgoingMessage] = {}
        again: list[OutgoingMessage] = []
        while waiting and len(taken) < size:
            message = waiting.popleft()
            if taken.setdefault(self._number(message), message) is not message:
                again.append(message)
        waiting.extendleft(reversed(again))
        if waiting:
            lane[key] = waiting
        self._lanes.move_to_end(via)
        if not replies and not bulk:
            del self._lanes[via]
        for message in taken.values():
            self._count(message, -1)
        return list(taken.values())


class Outbox:
    """Sends what is offered. One thread claims, `concurrency` threads talk to the services, one writes results."""

    def __init__(
        self,
        couch: Couch,
        settings: LiveSettings,
        services: Services,
        recent: RecentMessages,
        referenced: Callable[[Sequence[str]], None],
        fence: Callable[[], None],
    ) -> None:
        """`referenced` is told the references that services gave, once they are stored."""
        self._database = couch.main
        self._settings = settings
        self._services = services
        self._recent = recent
        self._referenced = referenced
        self._fence = fence
        self._queue = Queue(lambda message: number_of(message.to, settings.current))
        self._pause = threading.Event()  # never set: it only waits
        self._known: set[tuple[str, str]] = set()  # queued or under way
        self._lock = threading.Lock()
        self._bell = threading.Event()
        self._workers = ThreadPoolExecutor(max_workers=256, thread_name_prefix="send")
        self._results: Batcher[Result, Document | None] = Batcher("results", self._store, linger=LINGER_SECONDS)

    # ---- what comes in

    def offer(self, messages: Iterable[OutgoingMessage]) -> None:
        """Queue due messages that are not known yet. When memory is full, bulk waits in CouchDB for the clock."""
        with self._lock:
            for message in messages:
                if message.key in self._known or (self._queue.is_full and not message.reply):
                    continue
                self._known.add(message.key)
                self._queue.add(message)
        self._bell.set()

    def knows(self, key: tuple[str, str]) -> bool:
        """Whether this message is queued or under way."""
        with self._lock:
            return key in self._known

    def room(self) -> int:
        """How many more bulk messages fit into memory."""
        with self._lock:
            return max(0, CAPACITY - len(self._queue))

    def forget_waiting(self) -> None:
        """Drop the queue; what is still due comes again from CouchDB."""
        with self._lock:
            while via := self._queue.vias():
                for message in self._queue.take(via[0], CAPACITY):
                    self._known.discard(message.key)

    # ---- the claiming thread

    def run(self, stop: threading.Event) -> None:
        """Claim and send until `stop` is set, then let what is under way finish and store it."""
        while not stop.is_set():
            try:
                self._services.refresh()
                self._bell.clear()
                if self._dispatch():
                    stop.wait(LINGER_SECONDS)
                else:
                    self._services.say_if_none()
                    self._bell.wait(IDLE_SECONDS)
            except FencedError:
                break
            except (UnavailableError, CouchError) as error:
                log.warning("messages wait for CouchDB", reason=str(error))
                stop.wait(1.0)
        self._workers.shutdown(wait=True)
        self._results.close()

    def wake(self) -> None:
        """Look at the queue again now: something changed."""
        self._bell.set()

    def _dispatch(self) -> bool:
        """Claim and start as many requests as may start; answers whether there were any."""
        self._fence()
        with self._lock:
            vias = self._queue.vias()
        for via in vias:
            chosen = self._services.choose(via)
            if isinstance(chosen, Service):
                batches = self._take_batches(chosen, via)
            elif chosen is not None:
                batches = [self._take(via, ASSIGN_AT_ONCE)]
            else:
                continue
            self._guarded(chosen, batches)
            return True
        return False

    def _take_batches(self, service: Service, via: str | None) -> list[list[OutgoingMessage]]:
        batches = (self._take(via, service.batch_size) for _ in range(service.room()))
        return [batch for batch in batches if batch]

    def _take(self, via: str | None, size: int) -> list[OutgoingMessage]:
        with self._lock:
            return self._queue.take(via, size)

    def _guarded(self, chosen: Service | str, batches: Sequence[Sequence[OutgoingMessage]]) -> None:
        """Claim or assign; when CouchDB fails, the messages are forgotten, and found there again later."""
        messages = [message for batch in batches for message in batch]
        try:
            if isinstance(chosen, str):
                self._assign(chosen, messages)
            else:
                self._start(chosen, batches)
        except Exception:
            self._forget(messages)
            raise

    def _forget(self, messages: Iterable[OutgoingMessage]) -> None:
        with self._lock:
            self._known.difference_update(message.key for message in messages)

    # ---- claims

    def _start(self, service: Service, batches: Sequence[Sequence[OutgoingMessage]]) -> None:
        claimed = self._claim(service.name, [message for batch in batches for message in batch])
        for batch in batches:
            held = [claimed[message.key] for message in batch if message.key in claimed]
            self._forget(message for message in batch if message.key not in claimed)
            if held:
                service.started()
                self._workers.submit(self._send, service, held)

    def _claim(self, service: str, messages: Sequence[OutgoingMessage]) -> dict[tuple[str, str], Claimed]:
        """Take these messages in one bulk write; those that are not due any more, or too often sent, are left out."""
        claim_id = uuid.uuid4().hex
        claimed: dict[tuple[str, str], Claimed] = {}
        counted: set[tuple[str, str]] = set()

        def take(message: OutgoingMessage, doc: Document) -> bool:
            claimed.pop(message.key, None)
            task = find_task(doc, message.uuid)
            if task is None:
                return False
            # Ours already: the write went through, only its answer was lost.
            mine = task.get("claim") == claim_id and states.of(task) is State.FORWARDED_TO_GATEWAY
            if not mine:
                if not self._is_due(doc, message):
                    return False
                if not self._admit(task, message, counted):
                    return True
                states.claim(task, states.now(), service, claim_id)
            number = number_of(message.to, self._settings.current)
            claimed[message.key] = Claimed(message, number, Claim(claim_id, service, states.attempts(task)))
            return not mine

        stored = self._insist(messages, take)
        return {key: claim for key, claim in claimed.items() if key[0] in stored}

    def _assign(self, service: str, messages: Sequence[OutgoingMessage]) -> None:
        """Leave messages to the phone gateway: it takes them at its next poll."""
        counted: set[tuple[str, str]] = set()

        def take(message: OutgoingMessage, doc: Document) -> bool:
            task = find_task(doc, message.uuid)
            if task is None or task.get("service") == service or not self._is_due(doc, message):
                return False
            if self._admit(task, message, counted):
                task["service"] = service
            return True

        self._insist(messages, take)
        self._forget(messages)

    def _is_due(self, doc: Document, message: OutgoingMessage) -> bool:
        """Whether a message is still to be sent. One that grew too old in the queue is left for the clock to expire."""
        oldest = milliseconds(states.now()) - int(self._settings.current.sms.expire_after * 1000)
        return any(due.uuid == message.uuid and due.due >= oldest for due in due_messages(doc))

    def _admit(self, task: Task, message: OutgoingMessage, counted: set[tuple[str, str]]) -> bool:
        """Count a message against the duplicate limit when it is first given to a service; False, and the task is a
        duplicate, when its text went to its number `duplicate_limit` times within half an hour: machines in a loop."""
        if task.get("service") or message.key in counted:
            return True
        settings = self._settings.current
        number, limit = number_of(message.to, settings), settings.sms.duplicate_limit
        if self._recent.count(number, message.text) >= limit:
            details = f"sent {limit} times to this number within 30 minutes (sms.duplicate_limit)"
            states.move(task, State.DUPLICATE, states.now(), details)
            return False
        counted.add(message.key)
        self._recent.add(number, message.text)
        return True

    def _insist(
        self, messages: Sequence[OutgoingMessage], take: Callable[[OutgoingMessage, Document], bool]
    ) -> set[str]:
        """Write what `take` makes of the messages' documents, however long CouchDB is away, while we lead.

        Returns the ids of the documents that are now as `take` left them: not those that are gone, or that CouchDB
        refuses.
        """
        by_doc: dict[str, list[Edit]] = {}
        for message in messages:
            by_doc.setdefault(message.doc_id, []).append(partial(take, message))
        edits = {doc_id: _all_of(several) for doc_id, several in by_doc.items()}
        known = {message.doc_id: message.doc for message in messages if message.doc is not None}
        while True:
            self._fence()
            try:
                updates = self._database.update(edits, known)
                break
            except UnavailableError as error:
                log.warning("claims wait for CouchDB", reason=str(error), messages=len(messages))
                known = {}
                self._pause.wait(1.0)
        for doc_id, update in updates.items():
            if update.error:
                log.error("a document takes no claim, so nothing of it is sent", doc=doc_id, reason=update.error)
        return {doc_id for doc_id, update in updates.items() if update.doc is not None and not update.error}

    # ---- the sending threads

    def _send(self, service: Service, batch: Sequence[Claimed]) -> None:
        """One request, its results stored before its place is given to another."""
        try:
            results = self._ask(service, batch)
            if results is None:
                self._forget(claimed.message for claimed in batch)
                return
            if service.answered(results):
                self.wake()
            self._keep(service, batch, results)
        except Exception:
            log.exception("a request's results could not be stored; its messages are in doubt", service=service.name)
            self._forget(claimed.message for claimed in batch)
        finally:
            service.finished()
            self.wake()

    def _ask(self, service: Service, batch: Sequence[Claimed]) -> list[Outcome] | None:
        """The outcomes of a request; None when this process may no longer send, and did not."""
        first = batch[0].message
        body = text.limit_parts(first.text, self._settings.current.multipart_sms_limit)
        request = Batch(body, tuple(claimed.number for claimed in batch), first.link_id)
        try:
            return service.gateway.send(request)
        except SendError as error:
            return [error.outcome] * len(batch)
        except FencedError:
            return None
        except Exception as error:
            log.exception("a gateway failed in an unknown way", service=service.name)
            return [Outcome(f"an error of ours: {type(error).__name__}", failure=Failure.AMBIGUOUS)] * len(batch)

    def _keep(self, service: Service, batch: Sequence[Claimed], results: Sequence[Outcome]) -> None:
        now, sms = states.now(), self._settings.current.sms
        stored: list[Future[Document | None]] = []
        for claimed, outcome in zip(batch, results, strict=True):

            def store(doc: Document, claimed: Claimed = claimed, outcome: Outcome = outcome) -> bool:
                task = find_task(doc, claimed.message.uuid)
                return task is not None and outcomes.apply(task, outcome, claimed.claim, now, sms)

            stored.append(self._results.submit(Result(claimed.message.doc_id, store, claimed.message.doc)))
        docs = [future.result() for future in stored]
        self._forget(claimed.message for claimed in batch)
        self._referenced([outcome.ref for outcome in results if outcome.ref])
        # A message given back at once (a held service) is due again without anybody's changing it.
        self.offer(message for doc in docs if doc for message in due_messages(doc))

    def _store(self, results: Sequence[Result]) -> list[Document | Exception | None]:
        """Write the results of many requests in one bulk, however long CouchDB is away."""
        edits: dict[str, list[Edit]] = {}
        for result in results:
            edits.setdefault(result.doc_id, []).append(result.edit)
        combined = {doc_id: _all_of(several) for doc_id, several in edits.items()}
        known = {result.doc_id: result.doc for result in results if result.doc is not None}
        while True:
            try:
                updates = self._database.update(combined, known)
            except UnavailableError as error:
                log.warning("results wait for CouchDB", reason=str(error), results=len(results))
                known = {}
                self._pause.wait(1.0)
            else:
                return [_stored(result.doc_id, updates[result.doc_id]) for result in results]


def _stored(doc_id: str, update: Update) -> Document | Exception | None:
    return CouchError(409, f"document {doc_id} did not take its result: {update.error}") if update.error else update.doc


def _all_of(edits: Sequence[Edit]) -> Edit:
    """One edit that makes all of them, and has something to write when one of them has."""

    def edit(doc: Document) -> bool:
        return sum(single(doc) for single in edits) > 0

    return edit
