"""The intake: documents that come in over HTTP reach CouchDB in shared bulk writes.

Each caller is answered when its own document is on disk, and learns whether it was its own write that stored it. While
CouchDB is away the disk is the spool's, and a thread brings to CouchDB what waits there.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial
from itertools import islice

import structlog

from api.metrics import Metrics
from api.spool import Spool, SpoolError
from mjumbe.batcher import Batcher
from mjumbe.couch import CouchError, Database, Saved, UnavailableError
from mjumbe.documents import Document
from mjumbe.seldom import Seldom

# While CouchDB writes one batch, requests make up the next: a writer that let all of them have their turn first would
# leave CouchDB idle, and us after that. More writers cost more than they gain (docs/performance.md).
WRITERS = 2
ENOUGH = 8  # documents that are written without waiting for company
RETRY_SECONDS = 0.5  # how long a write is tried again when CouchDB is away, before it is spooled
PAUSES = (0.05, 0.1, 0.25, 0.5)  # seconds between the attempts; the last repeats
# Services give up after 5 s (Africa's Talking, Viber): what takes much longer answers nobody.
ANSWER_WITHIN = 15.0
DRAIN_SECONDS = 1.0  # how often a waiting spool is tried

log = structlog.get_logger()

Answer = bool | Exception
Way = Callable[[Database, Mapping[str, Document]], Mapping[str, Answer] | None]


class Intake:
    """Group commit of documents with an `_id` and a `receipt`, WRITERS threads a database."""

    def __init__(
        self, metrics: Metrics, spool: Spool, databases: Sequence[Database], retry_seconds: float = RETRY_SECONDS
    ) -> None:
        """`databases` are those that may be written; their answers must not take long (`Couch.impatient`)."""
        self._metrics = metrics
        self._spool = spool
        self._retry_seconds = retry_seconds
        self._seldom = Seldom()
        self._databases = {database.name: database for database in databases}
        self._batchers = {
            name: Batcher(f"intake {name}", partial(self._write_all, database), enough=ENOUGH, threads=WRITERS)
            for name, database in self._databases.items()
        }
        self._closing = threading.Event()
        self._waiting = threading.Event()  # there may be something in the spool
        self._waiting.set()
        self._drainer = threading.Thread(target=self._drain, name="spool", daemon=True)
        self._drainer.start()

    def store(self, database: Database, docs: Sequence[Document]) -> list[bool]:
        """Store documents; for each, True when this call stored it, False when one with its `_id` was there.

        The documents must be fit for JSON. Raises UnavailableError when neither CouchDB nor the spool takes them, or
        neither has within ANSWER_WITHIN seconds, though one may yet if it has begun; CouchError when CouchDB refuses
        a document.
        """
        future = self._batchers[database.name].submit(docs)
        try:
            answers = future.result(ANSWER_WITHIN)
        except FutureTimeoutError:
            future.cancel()  # who is told 503 sends it again, perhaps under another id
            raise UnavailableError(f"CouchDB did not answer a write within {ANSWER_WITHIN:.0f} s") from None
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return [answer is True for answer in answers]

    def close(self) -> None:
        """Write what was handed in, then end the threads. What waits in the spool stays there."""
        for batcher in self._batchers.values():
            batcher.close()
        self._closing.set()
        self._waiting.set()

    def _write_all(self, database: Database, requests: Sequence[Sequence[Document]]) -> list[list[Answer]]:
        """The documents of many requests in one write; each request's answers."""
        answers = iter(self._write(database, [doc for docs in requests for doc in docs]))
        return [list(islice(answers, len(docs))) for docs in requests]

    def _write(self, database: Database, docs: Sequence[Document]) -> list[Answer]:
        self._metrics.batch(len(docs))
        distinct: dict[str, Document] = {}
        for doc in docs:
            distinct.setdefault(doc["_id"], doc)
        answers = self._save(database, distinct)
        # Of equal documents in one batch only the first was sent.
        return [_own(answers[doc["_id"]], doc is distinct[doc["_id"]]) for doc in docs]

    def _save(self, database: Database, docs: Mapping[str, Document]) -> Mapping[str, Answer]:
        """To CouchDB; to the spool when it is away or refuses us, and behind what already waits there.

        What the spool does not take goes past it to CouchDB: better out of turn than not at all.
        """
        behind = partial(self._put_aside, behind=True)
        ways: Sequence[tuple[str, Way]] = (
            ("the spool", behind),
            ("CouchDB", self._insist),
            ("the spool", self._put_aside),
        )
        problems: dict[str, str] = {}  # by who takes nothing
        for taker, way in ways:
            if taker in problems:
                continue  # whoever holds the spool's lock is not waited for twice
            try:
                if (answers := way(database, docs)) is not None:
                    return answers
            except (UnavailableError, CouchError, SpoolError) as error:
                # A database that is not there (yet), or a password of ours that was changed: that passes, too.
                self._seldom(log.warning, f"{taker} takes nothing now", str(error))
                problems[taker] = str(error)
        reason = "; ".join(problems.values())
        self._seldom(log.error, "callbacks can be stored nowhere, and are answered 503", reason)
        raise UnavailableError(reason)

    def _put_aside(
        self, database: Database, docs: Mapping[str, Document], *, behind: bool = False
    ) -> dict[str, Answer] | None:
        """Into the spool; or `behind` what waits there, and None when nothing does."""
        add = self._spool.add_behind if behind else self._spool.add
        stored = add(database.name, list(docs.values()))
        if stored is None:
            return None
        self._metrics.spooled(sum(stored))
        self._waiting.set()
        return dict(zip(docs, stored, strict=True))

    def _insist(self, database: Database, docs: Mapping[str, Document]) -> dict[str, Answer]:
        """Write, again and again while CouchDB is away, for `retry_seconds`."""
        deadline = time.monotonic() + self._retry_seconds
        attempts = 0
        while True:
            try:
                return self._attempt(database, docs, again=attempts > 0)
            except UnavailableError:
                pause = PAUSES[min(attempts, len(PAUSES) - 1)]
                if time.monotonic() + pause > deadline:
                    raise
                attempts += 1
                time.sleep(pause)

    def _drain(self) -> None:
        """Bring what waits in the spool to CouchDB, as long as there is something. A trouble is logged once."""
        trouble = ""
        while self._waiting.wait() and not self._closing.is_set():
            self._waiting.clear()
            drained, before, trouble = 0, trouble, ""
            try:
                drained = self._spool.drain(self._drain_batch, self._databases)
            except UnavailableError:
                self._waiting.set()
            except (SpoolError, CouchError) as error:
                trouble = str(error)
                self._waiting.set()
            except Exception as error:  # whatever it is: without this thread nothing leaves the spool any more
                trouble = f"an error of ours: {type(error).__name__}"
                self._waiting.set()
                if trouble != before:
                    log.exception("the spool's drain failed")
            if trouble and trouble != before:
                log.error("the spool cannot be drained, trying again", reason=trouble)
            if drained:
                log.info("what was spooled is in CouchDB", documents=drained)
            self._closing.wait(DRAIN_SECONDS)

    def _drain_batch(self, name: str, docs: Sequence[Document]) -> dict[str, str]:
        """Write spooled documents; why for those that CouchDB refuses, by id."""
        answers = self._attempt(self._databases[name], {doc["_id"]: doc for doc in docs}, again=False)
        return {doc_id: str(answer) for doc_id, answer in answers.items() if isinstance(answer, Exception)}

    def _attempt(self, database: Database, docs: Mapping[str, Document], *, again: bool) -> dict[str, Answer]:
        answers = {saved.id: _answer(saved) for saved in database.bulk(list(docs.values()))}
        there = [doc_id for doc_id, stored in answers.items() if stored is False]
        if again and there:
            # The attempt before may have been written though its answer never came: whose is the document there?
            present = database.fetch(there)
            for doc_id in there:
                receipt = docs[doc_id].get("receipt")
                answers[doc_id] = receipt is not None and present.get(doc_id, {}).get("receipt") == receipt
        return answers


def _answer(saved: Saved) -> Answer:
    if saved.rev:
        return True
    if saved.conflict:
        return False
    return CouchError(400, f"document {saved.id} was refused: {saved.error}: {saved.reason}")


def _own(answer: Answer, first: bool) -> Answer:
    return answer if first or isinstance(answer, Exception) else False
