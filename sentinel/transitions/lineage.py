"""Whom a document is about and who stands above them, as CHT's templates and recipients see it.

CHT keeps only ids in a document's lineage and puts the documents in their place before it makes a message (it calls
that hydrating); so does this module, with what was read beforehand into `Context.documents`.
"""

from collections.abc import Iterator
from typing import Any

from mjumbe.documents import Document
from sentinel.transitions.base import Context

# Where CHT looks for a report's patient and place: each is a document's id, or the short code of one.
PATIENT = ("patient_uuid", "patient_id")
PLACE = ("place_uuid", "place_id")


def references(doc: Document, names: tuple[str, ...] = PATIENT + PLACE) -> list[str]:
    """What the document names its patient or place by, best first."""
    fields = doc.get("fields")
    holders = (fields if isinstance(fields, dict) else {}, doc)
    found = [holder.get(name) for name in names for holder in holders]
    return [str(value) for value in found if value and isinstance(value, str | int)]


def subjects(doc: Document, context: Context) -> tuple[Document | None, Document | None]:
    """The patient and the place that the document is about, with everybody above."""
    patient, place = (
        next((context.documents[named] for named in references(doc, names) if named in context.documents), None)
        for names in (PATIENT, PLACE)
    )
    return _whole(patient, context), _whole(place, context)


def reporter(doc: Document, context: Context) -> Document | None:
    """The document's contact, with everybody above."""
    return _whole(doc.get("contact"), context)


def upwards(start: Document | None) -> Iterator[Document]:
    """`start` and those above."""
    while isinstance(start, dict):
        yield start
        start = start.get("parent")


def nearest(start: Document | None, kind: str) -> Document | None:
    """The first of `start` and those above that is of this type."""
    return next((place for place in upwards(start) if kind in (place.get("type"), place.get("contact_type"))), None)


def linked(place: Document) -> dict[str, str]:
    """The ids of CHT's `linked_docs`, by tag."""
    links = place.get("linked_docs")
    ids = {tag: id_of(link) for tag, link in (links.items() if isinstance(links, dict) else ())}
    return {tag: found for tag, found in ids.items() if found}


def id_of(link: Any) -> str | None:
    """The id of the document that `link` is or names: CHT writes an object with the `_id`, or the id alone."""
    found = link.get("_id") if isinstance(link, dict) else link
    return found if isinstance(found, str) else None


def _whole(place: Any, context: Context) -> Document | None:
    if not isinstance(place, dict):
        return None
    document = context.documents.get(str(place.get("_id"))) or {}
    whole = {**place, **document}
    found = {
        "parent": _whole(place.get("parent"), context),
        "contact": context.documents.get(id_of(whole.get("contact")) or ""),
    }
    return whole | {name: value for name, value in found.items() if value is not None}
