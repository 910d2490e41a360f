"""Transitions: what happens to a document when it changes, in the order in which they are listed here."""

from mjumbe.documents import Document
from sentinel.transitions import dated, default_responses, due, expire, link_sender, messages, refuse, replies
from sentinel.transitions.base import Context, Transition

ALL: tuple[Transition, ...] = (link_sender, replies, default_responses, dated, due, messages, expire, refuse)


def run(doc: Document, context: Context) -> bool:
    """Run all transitions on the document in place; answers whether there is anything to write."""
    changed = False
    for transition in ALL:
        if transition.filter(doc, context):
            changed |= transition.on_match(doc, context)
    return changed
