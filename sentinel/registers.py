"""What is known of numbers beside their contacts: who opted out, and who has which Viber id.

One document a number in the main database, `<kind>:<number>`, with its history; the whole register is in memory,
because every message asks it before it is sent.
"""

from dataclasses import dataclass

import structlog

from mjumbe import states
from mjumbe.couch import Database
from mjumbe.documents import OPT_OUT, Document, datetime_of, entries_of
from mjumbe.edits import Edit, apply_edits, edits_of

log = structlog.get_logger(__name__)

OPTED_OUT = "opted-out"


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that happened to a number: `value` is what holds from then on, None takes it back."""

    number: str  # E.164
    value: str | None
    at: int  # ms since epoch
    source: str  # where we know it from, in words


class Register:
    """One kind of fact. Reading is for any thread; `record` may be called by several."""

    def __init__(self, database: Database, kind: str) -> None:
        """`kind` up to a colon is also the type of the documents, its dashes as underscores."""
        self._database = database
        self._prefix = f"{kind}:"
        self._type = kind.split(":", maxsplit=1)[0].replace("-", "_")
        self._values: dict[str, str] = {}
        self._former: dict[str, str] = {}  # what held last for those for whom nothing holds now

    def load(self) -> None:
        """Read all documents of this kind."""
        for doc in self._database.beginning_with(self._prefix):
            self.learn(doc)

    def owns(self, doc_id: str) -> bool:
        """Whether a document of this id belongs here."""
        return doc_id.startswith(self._prefix)

    def learn(self, doc: Document) -> None:
        """A document of this kind was read or changed."""
        number = str(doc["_id"]).removeprefix(self._prefix)
        known: Document = {} if doc.get("_deleted") else doc
        value, held = known.get("value"), [entry["value"] for entry in entries_of(known) if entry.get("value")]
        # Never out of the register for a moment: another thread may be about to send to this number.
        _set(self._values, number, value)
        _set(self._former, number, held[-1] if held and not value else None)

    def get(self, number: str) -> str | None:
        """What holds for a number now, None when nothing does."""
        return self._values.get(number)

    def number_of(self, value: str) -> str | None:
        """The first number for which this value holds."""
        return next(iter(self.numbers_of(value)), None)

    def numbers_of(self, value: str) -> list[str]:
        """All numbers for which this value holds."""
        return [number for number, held in list(self._values.items()) if held == value]

    def former_numbers_of(self, value: str) -> list[str]:
        """All numbers for which this value held last, and nothing does now."""
        return [number for number, held in list(self._former.items()) if held == value]

    def record(self, *entries: Entry) -> list[Entry]:
        """Store what happened; returns what CouchDB refused to take.

        Of two entries for one number the later one holds, whatever order they come in.
        """
        in_order = sorted(entries, key=lambda entry: entry.at)
        edits = edits_of((self._prefix + entry.number, self._edit(entry)) for entry in in_order)
        updates = apply_edits(self._database, edits, create=True)
        for doc_id, update in updates.items():
            if update.error:
                log.error("what happened to a number is not stored", doc=doc_id, reason=update.error)
            if update.doc is not None:
                self.learn(update.doc)
        return [entry for entry in in_order if updates[self._prefix + entry.number].error]

    def _edit(self, entry: Entry) -> Edit:
        at = states.timestamp(datetime_of(entry.at))
        happened = {"value": entry.value, "source": entry.source, "timestamp": at}

        def edit(doc: Document) -> bool:
            history = entries_of(doc)
            if happened in history:
                return False
            doc |= {"type": self._type, "phone": entry.number}
            doc["history"] = _in_order([*history, happened], at)
            doc["value"] = doc["history"][-1].get("value")
            return True

        return edit


def _in_order(history: list[Document], newest: str) -> list[Document]:
    """By when it happened. What is yet to come, and lies after `newest`, was before the clock was set back: it stands
    first."""
    latest = max(states.latest(), newest)

    def place(entry: Document) -> tuple[bool, str]:
        at = str(entry.get("timestamp") or "")
        return at <= latest, at

    return sorted(history, key=place)


def _set(values: dict[str, str], number: str, value: object) -> None:
    if value:
        values[number] = str(value)
    else:
        values.pop(number, None)


@dataclass(frozen=True, slots=True)
class Registers:
    """What the sentinel asks before it sends."""

    opt_outs: Register
    viber_users: Register

    @classmethod
    def of(cls, database: Database) -> "Registers":
        return cls(Register(database, OPT_OUT), Register(database, "viber-user"))

    def load(self) -> None:
        """Read them all."""
        self.opt_outs.load()
        self.viber_users.load()

    def learn(self, doc: Document) -> None:
        """A document of the main database changed; those of other kinds are passed over."""
        for register in (self.opt_outs, self.viber_users):
            if register.owns(str(doc["_id"])):
                register.learn(doc)
