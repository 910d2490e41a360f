"""Looking up people: senders by phone, and the places above them."""

import time
from collections import OrderedDict
from collections.abc import Iterable

from mjumbe.couch import Database, Document, Row
from sentinel.transitions.base import Contact
from sentinel.transitions.lineage import linked, references, upwards

REMEMBERED = 10_000  # senders
REMEMBERED_SECONDS = 60.0


class Contacts:
    """Who has which number, remembered for a minute. Used by one thread."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, tuple[float, Contact | None]] = OrderedDict()

    def by_phone(self, numbers: Iterable[str]) -> dict[str, Contact]:
        """The people with these numbers; of several with one number the one whose id comes first."""
        wanted = set(numbers)
        fresh = time.monotonic() - REMEMBERED_SECONDS
        unknown = [number for number in wanted if self._known.get(number, (0.0, None))[0] < fresh]
        if unknown:
            rows = self._database.view("mjumbe-contacts", "by_phone", keys=unknown, include_docs=True)
            self._remember(unknown, rows)
        return {number: contact for number in wanted if (contact := self._known[number][1]) is not None}

    def _remember(self, numbers: list[str], rows: list[Row]) -> None:
        found: dict[str, Contact] = {}
        for row in rows:
            if row.doc is not None:
                found.setdefault(row.key, Contact(row.doc))
        for number in numbers:
            self._known[number] = (time.monotonic(), found.get(number))
            self._known.move_to_end(number)
        while len(self._known) > REMEMBERED + len(numbers):
            self._known.popitem(last=False)

    def forget(self, doc: Document) -> None:
        """A person's document changed: their numbers are looked up again."""
        for number, (_, contact) in list(self._known.items()):
            if number == doc.get("phone") or (contact is not None and contact.doc["_id"] == doc["_id"]):
                del self._known[number]

    def lineage(self, docs: Iterable[Document]) -> dict[str, Document]:
        """Whom these documents are about and by whom they are, the places above, and the people who stand for these: by
        id, and those whom they are about also by the short code that a document names them by."""
        docs = list(docs)
        subjects = self._subjects({reference for doc in docs for reference in references(doc)})
        starts = [*subjects.values(), *(doc.get("contact") for doc in docs)]
        above = {place["_id"] for start in starts for place in upwards(start) if isinstance(place.get("_id"), str)}
        found = subjects | self._database.fetch(sorted(above - subjects.keys()))
        near = {id_ for place in found.values() for id_ in (*linked(place).values(), _contact_id(place)) if id_}
        return found | self._database.fetch(sorted(near - found.keys()))

    def _subjects(self, named: set[str]) -> dict[str, Document]:
        found = self._database.fetch(sorted(named))
        codes = sorted(named - found.keys())
        rows = self._database.view("mjumbe-contacts", "by_shortcode", keys=codes, include_docs=True) if codes else []
        return found | {row.key: row.doc for row in reversed(rows) if row.doc is not None}


def _contact_id(place: Document) -> str | None:
    contact = place.get("contact")
    found = contact.get("_id") if isinstance(contact, dict) else contact
    return found if isinstance(found, str) else None
