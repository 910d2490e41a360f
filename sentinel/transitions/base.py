"""What transitions work with."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from mjumbe.documents import Document, is_incoming, read_moment
from mjumbe.settings import Settings
from mjumbe.text import Translations
from sentinel.registers import Registers


@dataclass(frozen=True, slots=True)
class Contact:
    """A person, as far as messages need: the lineage that CHT keeps on documents, and the document itself."""

    doc: Document

    @property
    def lineage(self) -> Document:
        lineage: Document = {"_id": self.doc["_id"]}
        if self.doc.get("parent"):
            lineage["parent"] = self.doc["parent"]
        return lineage

    @property
    def locale(self) -> str | None:
        language = self.doc.get("language")
        return language if isinstance(language, str) and language else None


@dataclass(frozen=True, slots=True)
class Context:
    """All that the transitions of one batch may look at; nothing in it talks to CouchDB."""

    settings: Settings
    now: datetime
    contacts: Mapping[str, Contact]  # by normalised number, the senders of the batch
    documents: Mapping[str, Document]  # the contacts' parents and other documents that recipients are found in
    translations: Translations
    registers: Registers
    adopted: int  # ms: when mjumbe first ran on this database


class Transition(Protocol):
    """A module in this folder: `filter` says whether a document concerns it, `on_match` changes the document."""

    def filter(self, doc: Document, context: Context) -> bool: ...

    def on_match(self, doc: Document, context: Context) -> bool:
        """Answers whether the document was changed."""
        ...


def seen_by(doc: Document) -> Document:
    """The marks of the transitions that have seen a document, ours and CHT's, by name; others write anything there."""
    marks = doc.get("transitions")
    return marks if isinstance(marks, dict) else {}


def is_fresh(doc: Document, context: Context, name: str) -> bool:
    """Whether this is an incoming message that transition `name` has not seen."""
    return is_incoming(doc) and name not in seen_by(doc) and is_ours(doc, context.adopted)


def is_ours(doc: Document, adopted: int) -> bool:
    """Whether an incoming message came to mjumbe, or after it.

    What was in a database before mjumbe came to it has been answered by whatever ran there before.
    """
    return bool(doc.get("receipt")) or (read_moment(doc.get("reported_date")) or 0) >= adopted


def mark(doc: Document, name: str) -> None:
    """Note on the document that transition `name` has seen it, so that a replayed feed answers nobody twice."""
    doc["transitions"] = {**seen_by(doc), name: {"ok": True}}


def contact_of(doc: Document, context: Context) -> Contact | None:
    """The person behind a document: whose number it came from, else whom it is linked to."""
    contact = context.contacts.get(str(doc.get("from")))
    linked = doc.get("contact")
    person = context.documents.get(str(linked.get("_id"))) if isinstance(linked, dict) else None
    return contact or (Contact(person) if person else None)


def locale_of(doc: Document, context: Context) -> str:
    """The language to answer in: the document's, the message's, the sender's, else the settings'."""
    contact = contact_of(doc, context)
    sms = doc.get("sms_message")
    found = (doc.get("locale"), sms.get("locale") if isinstance(sms, dict) else None, contact and contact.locale)
    return next((locale for locale in found if locale and isinstance(locale, str)), context.settings.locale_outgoing)
