"""Looking up people: senders by phone, and the places above them."""

import time
from collections import OrderedDict
from collections.abc import Collection, Iterable

from mjumbe.couch import Database
from mjumbe.documents import Document
from sentinel.transitions.base import Contact
from sentinel.transitions.lineage import id_of, linked, references, upwards

REMEMBERED = 10_000  # senders
REMEMBERED_SECONDS = 60.0


class Contacts:
    """Who has which number, remembered for a minute. For one thread at a time.

    The index is asked as it is: in a broadcast CouchDB may need seconds to bring it up, and whoever wrote would wait so
    long for an answer. The changes that are read tell of the people whom it may not have yet; not known is only who was
    entered in the middle of a broadcast and writes before the feed has come to that.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, tuple[float, Contact | None]] = OrderedDict()  # by number
        self._numbers: dict[str, set[str]] = {}  # of whom is known, by their ids
        self._is_behind = True  # whether the index may lack others than `_changed`
        self._changed: dict[str, str] = {}  # people's numbers by their ids

    def by_phone(self, numbers: Iterable[str]) -> dict[str, Contact]:
        """The people with these numbers; of several with one number the one whose id comes first."""
        fresh = time.monotonic() - REMEMBERED_SECONDS
        wanted = set(numbers)
        known = {number: entry[1] for number in wanted if (entry := self._known.get(number)) and entry[0] >= fresh}
        if unknown := wanted - known.keys():
            known |= self._look_up(unknown)
        return {number: contact for number, contact in known.items() if contact is not None}

    def _look_up(self, numbers: Collection[str]) -> dict[str, Contact | None]:
        # A cluster has copies of an index, and each is brought up by itself: `stable` always asks the same one
        # (get_shards in fabric_view.erl).
        update = "true" if self._is_behind else "false"
        rows = self._database.view(
            "mjumbe-contacts", "by_phone", keys=list(numbers), include_docs=True, update=update, stable=True
        )
        self._is_behind = False
        docs = {row.doc["_id"]: row.doc for row in rows if row.doc is not None}
        changed = {doc_id for doc_id, number in self._changed.items() if number in numbers}
        docs |= self._database.fetch(sorted(changed - docs.keys()))
        found: dict[str, Contact | None] = dict.fromkeys(numbers)
        for _, doc in sorted(docs.items(), reverse=True):
            if is_person(doc) and doc["phone"] in found:
                found[doc["phone"]] = Contact(doc)
        for number, contact in found.items():
            self._forget(number)
            self._known[number] = (time.monotonic(), contact)
            if contact is not None:
                self._numbers.setdefault(contact.doc["_id"], set()).add(number)
        while len(self._known) > REMEMBERED:
            self._forget(next(iter(self._known)))
        return found

    def _forget(self, number: str) -> None:
        _, contact = self._known.pop(number, (0.0, None))
        if contact is not None:
            numbers = self._numbers[contact.doc["_id"]]
            numbers.discard(number)
            if not numbers:
                del self._numbers[contact.doc["_id"]]

    def learn(self, doc: Document) -> None:
        """A person's document changed: their numbers are looked up again."""
        for number in {doc["phone"], *self._numbers.get(doc["_id"], ())}:
            self._forget(number)
        if len(self._changed) == REMEMBERED:
            self._changed.clear()
            self._is_behind = True
        self._changed[doc["_id"]] = doc["phone"]

    def lineage(self, docs: Iterable[Document]) -> dict[str, Document]:
        """Whom these documents are about and by whom they are, the places above, and the people who stand for these: by
        id, and those whom they are about also by the short code that a document names them by."""
        docs = list(docs)
        subjects = self._subjects({reference for doc in docs for reference in references(doc)})
        starts = [*subjects.values(), *(doc.get("contact") for doc in docs)]
        above = {place_id for start in starts for place in upwards(start) if (place_id := id_of(place))}
        found = subjects | self._database.fetch(sorted(above - subjects.keys()))
        names = (name for place in found.values() for name in (*linked(place).values(), id_of(place.get("contact"))))
        near = {name for name in names if name}
        return found | self._database.fetch(sorted(near - found.keys()))

    def _subjects(self, named: set[str]) -> dict[str, Document]:
        found = self._database.fetch(sorted(named))
        codes = sorted(named - found.keys())
        rows = self._database.view("mjumbe-contacts", "by_shortcode", keys=codes, include_docs=True) if codes else []
        return found | {row.key: row.doc for row in reversed(rows) if row.doc is not None}


def is_person(doc: Document) -> bool:
    """Whether this is somebody with a number, as the view mjumbe-contacts/by_phone has it."""
    phone, kind = doc.get("phone"), doc.get("type")
    if not isinstance(phone, str) or not phone:
        return False
    return kind == "person" or (kind == "contact" and bool(doc.get("contact_type")))
