"""What is written to messages before they go: who takes them, or why nobody does.

Each write is made however long CouchDB is away, while this process leads; it looks at the message anew, because that
may have changed while it waited.
"""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import structlog

from mjumbe import states
from mjumbe.documents import MOST_WORDS, Document, Key, OutgoingMessage, Route, find_task, oldest_due
from mjumbe.gateways import NAMES, PHONE_GATEWAY
from mjumbe.live_settings import LiveSettings
from mjumbe.refusals import refuse
from mjumbe.states import State, Task
from mjumbe.text import shortened
from sentinel import outcomes
from sentinel.outcomes import Claim
from sentinel.pipeline import due_messages
from sentinel.recent import RecentMessages
from sentinel.registers import Register
from sentinel.writer import Write, Writer

log = structlog.get_logger(__name__)

UNREACHED_WAIT = timedelta(minutes=10)

Counted = dict[Key, tuple[str, str]]  # number and text by which a message was counted for the duplicate limit


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message that we hold, and the number it goes to."""

    message: OutgoingMessage
    number: str
    claim: Claim


class Claims:
    """Takes messages for the services, for any thread. Raises FencedError when this process leads no more."""

    def __init__(
        self,
        writer: Writer,
        settings: LiveSettings,
        recent: RecentMessages,
        opt_outs: Register,
        number: Callable[[OutgoingMessage], str],
    ) -> None:
        """`number` tells where a message goes."""
        self._writer = writer
        self._settings = settings
        self._recent = recent
        self._opt_outs = opt_outs
        self._number = number

    def take(self, service: str, messages: Sequence[OutgoingMessage]) -> dict[Key, Claimed]:
        """Take these messages; those that are not due any more, or too often sent, are left out."""
        claim_id = uuid.uuid4().hex
        claimed: dict[Key, Claimed] = {}
        counted: Counted = {}

        def claim(message: OutgoingMessage, doc: Document) -> bool:
            claimed.pop(message.key, None)
            task = find_task(doc, message.uuid) or {}
            # Ours already: the write's answer was lost, or too few nodes took it. Once more, to be sure.
            mine = task.get("claim") == claim_id and states.of(task) is State.FORWARDED_TO_GATEWAY
            if not mine:
                self._uncount(message, counted)
                # Another task of the document may be due under the uuid of one that went.
                if states.of(task) is not State.PENDING or not self._is_due(doc, message):
                    return False
                if not self._admit(task, message, counted):
                    return True
                states.claim(task, states.now(), service, claim_id)
            claimed[message.key] = Claimed(
                message, self._number(message), Claim(claim_id, service, states.attempts(task))
            )
            return True

        stored = self._write(messages, claim)
        return {key: held for key, held in claimed.items() if key[0] in stored}

    def leave_to_phone(self, messages: Sequence[OutgoingMessage]) -> None:
        """Leave messages to the phone gateway: it takes them at its next poll, if no other service does before."""
        counted: Counted = {}

        def leave(message: OutgoingMessage, doc: Document) -> bool:
            task = find_task(doc, message.uuid) or {}
            if task.get("service") == PHONE_GATEWAY:
                return False
            self._uncount(message, counted)
            if not self._is_due(doc, message):
                return False
            if self._admit(task, message, counted):
                failed = bool(message.route.last)
                outcomes.leave_to_phone(task, states.now(), self._settings.current.sms, failed_elsewhere=failed)
            return True

        self._write(messages, leave)

    def set_aside(self, messages: Sequence[OutgoingMessage]) -> None:
        """No service takes these messages: they stay due, say why, and are looked at again after a while."""

        def wait(message: OutgoingMessage, doc: Document) -> bool:
            task = find_task(doc, message.uuid)
            if task is None or not self._is_due(doc, message):
                return False
            now = states.now()
            states.wait(task, now, _why_by_none(message.route), now + UNREACHED_WAIT)
            return True

        self._write(messages, wait)

    def _is_due(self, doc: Document, message: OutgoingMessage) -> bool:
        """Whether a message is still to be sent as it was queued. One that grew too old in the queue is left for the
        clock to expire; one that its author corrected meanwhile, for the clock to offer as it is now."""
        oldest = oldest_due(states.now(), self._settings.current.sms)
        found = due_messages(doc, message.uuid)
        return any(due.wanted == message.wanted and due.due >= oldest for due in found)

    def _uncount(self, message: OutgoingMessage, counted: Counted) -> None:
        """Somebody wrote before the claim that this message was counted for: it may not be made now."""
        if message.key in counted:
            self._recent.take_back(*counted.pop(message.key))

    def _admit(self, task: Task, message: OutgoingMessage, counted: Counted) -> bool:
        """Whether a message may go: not what must not go out by now, and not the same text to the same number
        more than `duplicate_limit` times within half an hour, counted when it is first given to a service: that is
        two machines answering each other."""
        if refuse(task, self._settings.current, self._opt_outs.get, states.now()):
            return False
        if task.get("service"):
            return True
        number, limit = self._number(message), self._settings.current.sms.duplicate_limit
        if self._recent.count(number, message.text) >= limit:
            details = f"sent {limit} times to this number within 30 minutes (sms.duplicate_limit)"
            states.move(task, State.DUPLICATE, states.now(), details)
            return False
        counted[message.key] = (number, message.text)
        self._recent.add(number, message.text)
        return True

    def _write(
        self, messages: Sequence[OutgoingMessage], change: Callable[[OutgoingMessage, Document], bool]
    ) -> set[str]:
        """Write what `change` makes of the messages' documents.

        Returns the ids of the documents that are now as `change` left them: not those that are gone, or that CouchDB
        refuses.
        """
        edits = [(message.doc_id, partial(change, message)) for message in messages]
        known = {message.doc_id: message.doc for message in messages if message.doc is not None}
        updates = self._writer.submit(Write(edits, known, fenced=True)).result()
        for doc_id, update in updates.items():
            if update.error:
                log.error("a document takes no claim, so nothing of it is sent", doc=doc_id, reason=update.error)
        return {doc_id for doc_id, update in updates.items() if update.doc is not None and not update.error}


def _why_by_none(route: Route) -> str:
    """Why no service takes what goes by this route."""
    if route.without:
        return f"no service reaches this number: {', '.join(sorted(route.without))} cannot"
    return f"`via` is {shortened(str(route.via), MOST_WORDS)!r}; expected one of {', '.join(NAMES)}"
