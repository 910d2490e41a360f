"""Follows `_changes` in batches, with a checkpoint that never runs ahead of the work."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence

import structlog

from mjumbe.couch import Change, Changes, Couch, CouchError, UnavailableError, sequence_number
from mjumbe.documents import Document
from mjumbe.live_settings import LiveSettings
from mjumbe.settings_document import DOCUMENT_ID
from sentinel.backlog import Backlog
from sentinel.contacts import is_person
from sentinel.echoes import Echoes
from sentinel.patience import Patience
from sentinel.pipeline import Pipeline
from sentinel.registers import Registers

log = structlog.get_logger(__name__)

AT_ONCE = 200
# Far behind, in a broadcast for instance, most changes are our own writes: they are read without their documents.
AT_ONCE_BEHIND = 5_000
CHECKPOINT_SECONDS = 1.0
LONGPOLL_SECONDS = 30.0
# Under load changes are read in batches: each reading costs CouchDB as much as many changes. The more there were, the
# longer the next are waited for; the first after a pause never waits.
LINGER_SECONDS = 0.02
LINGER_PER_CHANGE = 0.001
LONGEST_LINGER = 0.1


class Feed:
    """One leader's reading of the main database. `run` in a thread of its own."""

    def __init__(
        self,
        couch: Couch,
        echoes: Echoes,
        settings: LiveSettings,
        pipeline: Pipeline,
        registers: Registers,
        checkpoint: Document,
    ) -> None:
        """`checkpoint` is the document CHECKPOINT_ID as it is now."""
        self._couch = couch
        self._echoes = echoes
        self._settings = settings
        self._pipeline = pipeline
        self._registers = registers
        self._checkpoint = checkpoint
        self._written = time.monotonic()
        self._backlog = Backlog(str(checkpoint["seq"]))
        self._behind = False  # whether much is still to be read
        self._ahead: str | None = None  # until where people who wrote were looked for, while the backlog is full

    def run(self, stop: threading.Event) -> None:
        """Process changes until `stop` is set. What fails is read again."""
        patience, sure = Patience("changes wait for CouchDB"), False
        while not stop.is_set():
            try:
                if not sure:
                    self._start()
                    sure = True
                read = self._read()
                if stop.is_set():
                    return
                self._process()
                self._store_checkpoint()
                patience.is_over()
                if read and self._backlog.is_empty() and not self._behind:
                    stop.wait(min(LINGER_SECONDS + LINGER_PER_CHANGE * read, LONGEST_LINGER))
            except (UnavailableError, CouchError) as error:
                patience.waits(error)
                sure = False
                stop.wait(1.0)

    def _start(self) -> None:
        """Go on from where all was processed; what is known of places behind may be another database's by now."""
        self._backlog = Backlog(self._place(self._backlog.done()))
        self._behind, self._ahead = False, None

    def _place(self, since: str) -> str:
        """Where to go on from: the beginning when the database is a copy of its own files from before `since`.

        CouchDB knows such files by their uuid and answers with what follows `since`: nothing, until as much was
        written anew (calculate_start_seq in couch_db.erl). The number that a sequence begins with is the sum over all
        shards (pack_seqs in fabric_view_changes.erl), so it can be compared where each shard has one copy only.
        """
        info = self._couch.main.info()
        if info.get("cluster", {}).get("n") != 1 or sequence_number(since) <= sequence_number(info["update_seq"]):
            return since
        log.warning("the database was put back from an older copy, so all changes are read again")
        return "0"

    def _read(self) -> int:
        """Read on, and answer how many changes there were."""
        if self._backlog.is_full():
            return self._look_ahead()
        waits = self._behind or not self._backlog.is_empty()
        changes = self._next_ids() if waits else self._next()
        self._hear(changes)
        return len(changes.changes)

    def _next_ids(self) -> Changes:
        return self._couch.main.changes(self._backlog.read, limit=AT_ONCE_BEHIND, docs=False)

    def _next(self) -> Changes:
        since = self._backlog.read
        # With a checkpoint still to be written, the wait for the next change must not be long.
        wait = CHECKPOINT_SECONDS if since != self._checkpoint["seq"] else LONGPOLL_SECONDS
        try:
            return self._couch.main.changes(since, limit=AT_ONCE, wait=wait)
        except CouchError as error:
            if error.status != 400 or since == "0":
                raise
            # A sequence that another kind of server gave out. (Of another database's CouchDB knows that it is, and
            # answers from the beginning.) What was done is marked in the documents, so reading all of them does
            # nothing twice.
            log.warning("CouchDB does not know the checkpoint, so all changes are read again", reason=error.reason)
            return self._couch.main.changes("0", limit=AT_ONCE, wait=wait)

    def _look_ahead(self) -> int:
        """Find the people who wrote behind what memory holds."""
        if self._backlog.has_people():
            return 0
        changes = self._couch.main.changes(self._ahead or self._backlog.read, limit=AT_ONCE_BEHIND, docs=False)
        self._ahead = changes.last_seq
        there = (change for change in changes.changes if not change.deleted)
        self._backlog.add_people(change for change in there if not self._echoes.is_one(change.id, change.rev))
        return len(changes.changes)

    def _hear(self, changes: Changes) -> None:
        self._behind = changes.pending > AT_ONCE
        if not self._behind:
            self._ahead = None
        self._backlog.add(self._news(changes), changes.last_seq)

    def _news(self, changes: Changes) -> Iterator[Change]:
        """What is to be processed of these changes; the rest is done here."""
        for change in changes.changes:
            if change.id == DOCUMENT_ID:
                self._settings.refresh()
            if change.id.startswith("messages-"):
                self._pipeline.forget_translations()
            if change.deleted:
                self._registers.learn({"_id": change.id, "_deleted": True})
            ours = self._echoes.heard(change.id, change.rev) and not change.torn
            if change.deleted or ours:
                self._backlog.finish([change.id])
            elif not change.id.startswith("_design/"):
                if change.doc is not None:
                    self._learn(change.doc)
                yield change

    def _process(self) -> None:
        """Process what comes next of the backlog: people's messages first, by themselves."""
        self._process_changed(self._backlog.people(AT_ONCE))
        self._process_changed(self._backlog.others(AT_ONCE))

    def _process_changed(self, changed: Mapping[str, Document | None]) -> None:
        if not changed:
            return
        read = self._read_changed([doc_id for doc_id, doc in changed.items() if doc is None])
        for doc in read.values():
            self._learn(doc)
        self._pipeline.process([found for doc_id, doc in changed.items() if (found := doc or read.get(doc_id))])
        self._backlog.finish(changed)

    def _read_changed(self, ids: Sequence[str]) -> dict[str, Document]:
        """These documents, those that are not deleted.

        In a cluster one node tells of a change, and two others may be asked for the document before they have it. The
        one that told does not tell it again. Raises UnavailableError, so that it is read until they do.
        """
        read = self._couch.main.fetch(ids)
        missing = [(doc_id, None) for doc_id in ids if doc_id not in read]
        there = {doc["_id"]: doc for doc in (self._couch.main.read_revisions(missing) if missing else ())}
        if len(there) < len(missing) or not all(map(self._backlog.is_as_new, read.values())):
            raise UnavailableError("most of CouchDB's nodes do not have yet what one told of")
        return read | {doc_id: doc for doc_id, doc in there.items() if not doc.get("_deleted")}

    def _learn(self, doc: Document) -> None:
        """Keep what a document says of whom it is about, before any is processed that came with it."""
        self._registers.learn(doc)
        if is_person(doc):
            self._pipeline.learn(doc)

    def _store_checkpoint(self) -> None:
        done = self._backlog.done()
        if done == self._checkpoint["seq"] or time.monotonic() - self._written < CHECKPOINT_SECONDS:
            return
        self._checkpoint["seq"] = done
        # CouchDB compares no revision of a `_local` document: over whatever another leader wrote there.
        self._checkpoint["_rev"] = self._couch.sentinel.put(self._checkpoint)
        self._written = time.monotonic()
