"""Link an incoming message to the person who sent it, as CHT does: `contact` with the lineage.

A message that came by Viber is from a Viber id; when we know the person's number, it is from that.
"""

from mjumbe.documents import Document
from mjumbe.gateways import viber
from sentinel.registers import Registers
from sentinel.transitions.base import Context, is_fresh, mark

NAME = "link_sender"


def filter(doc: Document, context: Context) -> bool:
    return is_fresh(doc, context, NAME)


def sender(doc: Document, registers: Registers) -> str:
    """The number that an incoming message is from, as far as it is known."""
    written = str(doc["from"])
    if doc["sms_message"].get("gateway") != viber.NAME:
        return written
    return registers.viber_users.number_of(written) or written


def on_match(doc: Document, context: Context) -> bool:
    doc["from"] = sender(doc, context.registers)
    contact = context.contacts.get(doc["from"])
    if contact is not None and not doc.get("contact"):
        doc["contact"] = contact.lineage
    mark(doc, NAME)
    return True
