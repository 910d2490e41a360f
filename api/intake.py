"""The intake: documents that come in over HTTP reach CouchDB in shared bulk writes.

Each caller is answered when its own document is on disk, and learns whether it was its own write that stored it.
"""

import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import partial

import structlog

from api.metrics import Metrics
from mjumbe.batcher import Batcher
from mjumbe.couch import CouchError, Database, Saved, UnavailableError
from mjumbe.documents import Document

RETRY_SECONDS = 5.0  # how long a write is tried again when CouchDB is away
PAUSES = (0.05, 0.1, 0.25, 0.5)  # seconds between the attempts; the last repeats
# A CouchDB that takes connections and does not answer must not keep every thread busy.
ANSWER_WITHIN = 15.0

log = structlog.get_logger()

Answer = bool | Exception


class Intake:
    """Group commit of documents with an `_id` and a `receipt`, one writer thread a database."""

    def __init__(self, metrics: Metrics, retry_seconds: float = RETRY_SECONDS) -> None:
        self._metrics = metrics
        self._retry_seconds = retry_seconds
        self._batchers: dict[str, Batcher[Document, bool]] = {}
        self._lock = threading.Lock()

    def store(self, database: Database, docs: Sequence[Document]) -> list[bool]:
        """Store documents; for each, True when this call stored it, False when one with its `_id` was there.

        The documents must be fit for JSON. Raises UnavailableError when CouchDB stays away, CouchError when it
        refuses a document.
        """
        batcher = self._batcher(database)
        futures = [batcher.submit(doc) for doc in docs]
        try:
            return [future.result(ANSWER_WITHIN) for future in futures]
        except FutureTimeoutError:
            raise UnavailableError(f"CouchDB did not answer a write within {ANSWER_WITHIN:.0f} s") from None

    def close(self) -> None:
        """Write what was handed in, then end the threads."""
        for batcher in self._batchers.values():
            batcher.close()

    def _batcher(self, database: Database) -> Batcher[Document, bool]:
        with self._lock:
            if database.name not in self._batchers:
                name = f"intake {database.name}"
                self._batchers[database.name] = Batcher(name, partial(self._write, database))
            return self._batchers[database.name]

    def _write(self, database: Database, docs: Sequence[Document]) -> list[Answer]:
        self._metrics.batch(len(docs))
        distinct: dict[str, Document] = {}
        for doc in docs:
            distinct.setdefault(doc["_id"], doc)
        answers = self._save(database, distinct)
        # Of equal documents in one batch only the first was sent.
        return [_own(answers[doc["_id"]], doc is distinct[doc["_id"]]) for doc in docs]

    def _save(self, database: Database, docs: Mapping[str, Document]) -> dict[str, Answer]:
        """Write, again and again while CouchDB is away, for `retry_seconds`."""
        deadline = time.monotonic() + self._retry_seconds
        attempts = 0
        while True:
            try:
                return self._attempt(database, docs, again=attempts > 0)
            except UnavailableError as error:
                pause = PAUSES[min(attempts, len(PAUSES) - 1)]
                if time.monotonic() + pause > deadline:
                    raise
                attempts += 1
                log.info("CouchDB is away, writing again", documents=len(docs), attempt=attempts, reason=str(error))
                time.sleep(pause)

    def _attempt(self, database: Database, docs: Mapping[str, Document], *, again: bool) -> dict[str, Answer]:
        answers = {saved.id: _answer(saved) for saved in self._bulk(database, list(docs.values()))}
        there = [doc_id for doc_id, stored in answers.items() if stored is False]
        if again and there:
            # The attempt before may have been written though its answer never came: whose is the document there?
            present = database.fetch(there)
            for doc_id in there:
                receipt = docs[doc_id].get("receipt")
                answers[doc_id] = receipt is not None and present.get(doc_id, {}).get("receipt") == receipt
        return answers

    def _bulk(self, database: Database, docs: list[Document]) -> list[Saved]:
        """One bulk write. CouchDB refuses a bulk as a whole for one document in it: then each goes alone."""
        try:
            return database.bulk(docs)
        except CouchError as error:
            if error.status in (401, 403, 404):
                raise
            if len(docs) == 1:
                return [Saved(docs[0]["_id"], None, str(error.status), error.reason)]
            return [saved for doc in docs for saved in self._bulk(database, [doc])]


def _answer(saved: Saved) -> Answer:
    if saved.rev:
        return True
    if saved.conflict:
        return False
    return CouchError(400, f"document {saved.id} was refused: {saved.error}: {saved.reason}")


def _own(answer: Answer, first: bool) -> Answer:
    return answer if first or isinstance(answer, Exception) else False
