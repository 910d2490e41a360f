"""Link an incoming message to the person who sent it, as CHT does: `contact` with the lineage."""

from mjumbe.couch import Document
from sentinel.transitions.base import Context, is_fresh, mark

NAME = "link_sender"


def filter(doc: Document, context: Context) -> bool:
    return is_fresh(doc, context, NAME)


def on_match(doc: Document, context: Context) -> bool:
    contact = context.contacts.get(doc["from"])
    if contact is not None and not doc.get("contact"):
        doc["contact"] = contact.lineage
    mark(doc, NAME)
    return True
