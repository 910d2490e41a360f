"""Follows `_changes` in batches, with a checkpoint that never runs ahead of the work."""

import threading
import time
from collections.abc import Iterator, Sequence

import structlog

from mjumbe.couch import Change, Changes, Couch, CouchError, UnavailableError, sequence_number
from mjumbe.documents import INCOMING, Document
from mjumbe.live_settings import LiveSettings
from mjumbe.settings_document import DOCUMENT_ID
from sentinel.contacts import is_person
from sentinel.echoes import Echoes
from sentinel.patience import Patience
from sentinel.pipeline import Pipeline
from sentinel.registers import Registers

log = structlog.get_logger(__name__)

AT_ONCE = 200
# Far behind, in a broadcast for instance, most changes are our own writes: they are read without their documents.
AT_ONCE_BEHIND = 1_000
AHEAD = 5_000  # changes looked through at once
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
        self._ahead: str | None = None  # how far `_look_ahead` has seen, while the feed is behind

    def run(self, stop: threading.Event) -> None:
        """Process changes until `stop` is set. What fails is read again."""
        since, sure, behind = str(self._checkpoint["seq"]), False, False
        patience = Patience("changes wait for CouchDB")
        while not stop.is_set():
            try:
                if not sure:
                    since, sure = self._place(since), True
                changes = self._read(since, behind)
                if stop.is_set():
                    return
                self._process(changes)
                since = changes.last_seq
                self._keep(since)
                patience.is_over()
                behind = _is_far_from_the_end(changes)
                if behind:
                    continue
                self._ahead = None
                if changes.changes and not changes.pending:
                    stop.wait(min(LINGER_SECONDS + LINGER_PER_CHANGE * len(changes.changes), LONGEST_LINGER))
            except (UnavailableError, CouchError) as error:
                patience.waits(error)
                sure = behind = False
                self._ahead = None  # it may be a place in a database that is another by now
                stop.wait(1.0)

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

    def _read(self, since: str, behind: bool) -> Changes:
        if behind:
            return self._couch.main.changes(since, limit=AT_ONCE_BEHIND, docs=False)
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

    def _look_ahead(self, since: str) -> None:
        """Find the people who wrote after `since`, and answer them first."""
        changes = self._couch.main.changes(self._ahead or since, limit=AHEAD, docs=False)
        self._ahead = changes.last_seq
        news = [change for change in changes.changes if _is_from_a_person(change) and not change.deleted]
        for docs in self._documents([each for each in news if not self._echoes.is_one(each.id, each.rev)]):
            self._pipeline.process(docs)

    def _process(self, changes: Changes) -> None:
        news = []
        for change in changes.changes:
            if change.id == DOCUMENT_ID:
                self._settings.refresh()
            if change.id.startswith("messages-"):
                self._pipeline.forget_translations()
            if change.deleted:
                self._registers.learn({"_id": change.id, "_deleted": True})
            elif not change.id.startswith("_design/") and not self._echoes.heard(change.id, change.rev):
                news.append(change)
        # Among a thousand changes the people who wrote come first, too.
        for docs in self._documents(sorted(news, key=lambda change: not _is_from_a_person(change))):
            for doc in docs:
                self._registers.learn(doc)
                if is_person(doc):
                    self._pipeline.learn(doc)
            self._pipeline.process(docs)
            if _is_far_from_the_end(changes):
                self._look_ahead(changes.last_seq)

    def _documents(self, changes: Sequence[Change]) -> Iterator[list[Document]]:
        """The changed documents, AT_ONCE at a time; those that did not come with the changes are read now."""
        for start in range(0, len(changes), AT_ONCE):
            part = changes[start : start + AT_ONCE]
            read = self._couch.main.fetch(change.id for change in part if change.doc is None)
            docs = [change.doc or read.get(change.id) for change in part]
            yield [doc for doc in docs if doc is not None]

    def _keep(self, seq: str) -> None:
        if seq == self._checkpoint["seq"] or time.monotonic() - self._written < CHECKPOINT_SECONDS:
            return
        self._checkpoint["seq"] = seq
        # CouchDB compares no revision of a `_local` document: over whatever another leader wrote there.
        self._checkpoint["_rev"] = self._couch.sentinel.put(self._checkpoint)
        self._written = time.monotonic()


def _is_far_from_the_end(changes: Changes) -> bool:
    return changes.pending > AT_ONCE


def _is_from_a_person(change: Change) -> bool:
    return change.id.startswith(INCOMING)
