"""Claims and results reach CouchDB in shared bulk writes, in the order in which they are handed in.

A request's place is another's as soon as its result waits here: whoever takes it claims behind that result, so that
both are one write, and no request is made whose place still belongs to one without a stored result.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace

import structlog

from mjumbe.batcher import Batcher
from mjumbe.documents import Document
from mjumbe.edits import Edit, Update, edits_of
from mjumbe.gateways.base import FencedError
from sentinel.echoes import Echoes
from sentinel.patience import GivenUpError, Patience

log = structlog.get_logger(__name__)

# Documents in one bulk. The requests of one text for 32 times 100 recipients would make one of 6,400, some 15 MB of
# JSON; and who has been written need not wait for the rest.
AT_ONCE = 2_000

Updates = Mapping[str, Update]


@dataclass(frozen=True, slots=True)
class Write:
    """Edits by their documents' ids, with those documents as they were, if we have them.

    `fenced`: only while this process leads, and by a majority of a cluster's nodes, as the lease. What is not is stored
    whoever leads by now, wherever it can be.
    """

    edits: Sequence[tuple[str, Edit]]
    known: Mapping[str, Document]
    fenced: bool


class Writer:
    """One thread, which writes what many hand in, however long CouchDB is away. Edits run in that thread alone."""

    def __init__(self, echoes: Echoes, fence: Callable[[], None], given_up: threading.Event) -> None:
        """`fence` raises FencedError when this process leads no more; once `given_up` is set, CouchDB is not waited for
        any longer."""
        self._echoes = echoes
        self._fence = fence
        self._given_up = given_up
        self._batcher: Batcher[Write, Updates] = Batcher(
            "writes", self._write, limit=AT_ONCE, weigh=lambda write: len(write.edits)
        )

    def submit(self, write: Write) -> "Future[Updates]":
        """The future has what became of each document, or FencedError, GivenUpError, or what an edit raised."""
        return self._batcher.submit(write)

    def close(self) -> None:
        """Write what was handed in, then end the thread."""
        self._batcher.close()

    def _write(self, writes: Sequence[Write]) -> Sequence[Updates | Exception]:
        try:
            return self._together(writes)
        except GivenUpError:
            raise
        except Exception as error:
            if len(writes) == 1:
                return [error]
            # One odd document's claim must not put the results of others in doubt. What is known of the documents is
            # read again: edits have changed it, and would find their work done.
            log.exception("some of many writes failed, so each is made by itself")
            return [self._write([replace(write, known={})])[0] for write in writes]

    def _together(self, writes: Sequence[Write]) -> Sequence[Updates | Exception]:
        known = {doc_id: doc for write in writes for doc_id, doc in write.known.items()}
        fenced: FencedError | None = None

        def attempt() -> Updates:
            nonlocal known, fenced
            fenced = self._fenced()
            made = [write for write in writes if not (write.fenced and fenced)]
            edits = edits_of(edit for write in made for edit in write.edits)
            read, known = known, {}  # an attempt changes them in place
            return self._echoes.update(edits, read, surely=any(write.fenced for write in made))

        updates = Patience("claims and results wait for CouchDB").insist(attempt, self._given_up)
        return [
            fenced if write.fenced and fenced else {doc_id: updates[doc_id] for doc_id, _ in write.edits}
            for write in writes
        ]

    def _fenced(self) -> FencedError | None:
        try:
            self._fence()
        except FencedError as error:
            return error
        return None
