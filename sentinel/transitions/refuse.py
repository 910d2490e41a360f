"""Refuse what the settings do not let out: the deny list, short numbers, names, our own number."""

from mjumbe import phone, states
from mjumbe.couch import Document
from mjumbe.documents import message_of, tasks_of
from mjumbe.states import State
from sentinel.transitions.base import Context


def filter(doc: Document, context: Context) -> bool:
    return any(states.of(task) is State.PENDING for task in tasks_of(doc))


def on_match(doc: Document, context: Context) -> bool:
    changed = False
    for task in tasks_of(doc):
        recipient = message_of(task).get("to")
        if states.of(task) is not State.PENDING or not recipient:
            continue
        refusal = phone.refusal(str(recipient), context.settings)
        if refusal is not None:
            changed |= states.move(task, State.DENIED, context.now, refusal.reason, rule=refusal.code)
    return changed
