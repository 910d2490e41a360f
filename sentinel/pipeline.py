"""From changed documents to due messages: transitions, one write, and what is to be sent."""

import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from mjumbe import states, text
from mjumbe.conflicts import settle
from mjumbe.couch import Couch
from mjumbe.documents import (
    Document,
    OutgoingMessage,
    find_task,
    is_incoming,
    milliseconds,
    outgoing_message,
    read_moment,
    tasks_of,
)
from mjumbe.live_settings import LiveSettings
from sentinel import opt_words, transitions
from sentinel.contacts import Contacts
from sentinel.echoes import Echoes
from sentinel.registers import Registers
from sentinel.transitions import link_sender
from sentinel.transitions.base import Context, is_ours, seen_by
from sentinel.transitions.messages import needs_lineage

log = structlog.get_logger(__name__)
TRANSLATIONS_SECONDS = 60.0
ODD_REMEMBERED = 1_000


class Pipeline:
    """Runs documents through the transitions and hands their due messages to `offer`. Threads take turns."""

    def __init__(
        self,
        couch: Couch,
        echoes: Echoes,
        settings: LiveSettings,
        adopted: int,
        offer: Callable[[Sequence[OutgoingMessage]], None],
        registers: Registers,
    ) -> None:
        self._registers = registers
        self._database = couch.main
        self._callbacks = couch.callbacks
        self._echoes = echoes
        self._settings = settings
        self._adopted = adopted
        self._offer = offer
        self._translations: dict[str, dict[str, str]] = {}
        self._translations_read = -math.inf  # monotonic: a machine that has just started is at 0
        self._contacts = Contacts(couch.main)
        self._odd: set[tuple[str, str]] = set()  # the documents, by id and revision, of which the log has said it
        self._lock = threading.Lock()

    def process(self, docs: Sequence[Document]) -> None:
        """Transitions for each document, one bulk write for all that changed, then their due messages are offered.

        A document that somebody else writes meanwhile is read again, and its transitions run on what it is then.
        """
        concerned = [doc for doc in docs if is_incoming(doc) or any(True for _ in tasks_of(doc)) or "_conflicts" in doc]
        if not concerned:
            return
        by_id = {doc["_id"]: doc for doc in concerned}
        with self._lock:
            # Before all else: whom a message goes to is looked up for what their documents are then.
            settled = settle(self._database, concerned)
            context = self._context(concerned)
            revisions = {doc["_id"]: doc.get("_rev") for doc in concerned}

            def edit(doc: Document) -> bool:
                # Whom a task that was added meanwhile goes to, and its text, were not looked up with the others'.
                looked_up = doc.get("_rev") == revisions[doc["_id"]]
                return self._run(doc, context if looked_up else self._context([doc])) or doc["_id"] in settled

            updates = self._echoes.update(dict.fromkeys(by_id, edit), by_id)
        self._offer([message for update in updates.values() if update.doc for message in due_messages(update.doc)])

    def _run(self, doc: Document, context: Context) -> bool:
        try:
            return transitions.run(doc, context)
        except Exception:
            # One odd document must not stop every other message; it stays as it is. The clock brings it every second.
            revision = str(doc.get("_id")), str(doc.get("_rev"))
            if revision not in self._odd:
                log.exception("a document's transitions failed, so it is left as it is", doc=doc.get("_id"))
                if len(self._odd) == ODD_REMEMBERED:
                    self._odd.clear()
                self._odd.add(revision)
            return False

    def _context(self, docs: Sequence[Document]) -> Context:
        incoming = [doc for doc in docs if is_incoming(doc)]
        fresh = [doc for doc in incoming if not seen_by(doc) and is_ours(doc, self._adopted)]
        # Before the documents are marked as seen: a word that is heard twice is one entry.
        self._keep_opt_words(fresh)
        return Context(
            settings=self._settings.current,
            now=states.now(),
            contacts=self._contacts.by_phone([link_sender.sender(doc, self._registers) for doc in fresh]),
            documents=self._contacts.lineage([doc for doc in docs if needs_lineage(doc)]),
            translations=self._read_translations() if incoming or any(needs_lineage(doc) for doc in docs) else {},
            registers=self._registers,
            adopted=self._adopted,
        )

    def _keep_opt_words(self, fresh: Sequence[Document]) -> None:
        """Record who wrote to have no more messages, or messages again; what is refused waits with the callbacks."""
        heard = opt_words.entries(fresh, self._settings.current, self._registers)
        refused = self._registers.opt_outs.record(*heard) if heard else []
        for entry, saved in zip(refused, self._callbacks.bulk([*map(opt_words.notice, refused)]), strict=True):
            if saved.error and not saved.conflict:
                log.error(
                    "neither database takes what a person wrote, so it does not hold; tell it by /api/v1/opt-outs",
                    wrote=entry.source,
                    docs=[doc["_id"] for doc in fresh if link_sender.sender(doc, self._registers) == entry.number],
                    reason=f"{saved.error}: {saved.reason}",
                )

    def _read_translations(self) -> dict[str, dict[str, str]]:
        if time.monotonic() - self._translations_read > TRANSLATIONS_SECONDS:
            self._translations = {}
            for doc in self._database.beginning_with("messages-"):
                try:
                    locale, texts = text.read_translations(doc)
                except ValueError as error:
                    log.warning("a translations document cannot be read", doc=doc["_id"], reason=str(error))
                    continue
                self._translations.setdefault(locale, {}).update(texts)
            self._translations_read = time.monotonic()
        return self._translations

    def learn(self, person: Document) -> None:
        """A person's document changed: look their numbers up again."""
        with self._lock:
            self._contacts.learn(person)

    def forget_translations(self) -> None:
        """Read the `messages-<locale>` documents again at the next need."""
        with self._lock:
            self._translations_read = -math.inf


def due_messages(doc: Document, uuid: str | None = None) -> list[OutgoingMessage]:
    """The document's messages that may be sent now, or that alone which is found by this `uuid`; a single one brings
    its document, which nothing else changes."""
    now = milliseconds(states.now())
    tasks = list(tasks_of(doc))
    found = []
    for task in tasks if uuid is None else filter(None, [find_task(doc, uuid)]):
        message = outgoing_message(doc, task)
        retry_at = read_moment(task.get("retry_at"))
        if message is not None and message.due <= now and (retry_at is None or retry_at <= now):
            found.append(replace(message, doc=doc) if len(tasks) == 1 else message)
    return found
