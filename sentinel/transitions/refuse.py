"""Refuse what is due and must not go out."""

from mjumbe import states
from mjumbe.documents import Document, message_of, tasks_of
from mjumbe.refusals import refuse
from mjumbe.states import State
from sentinel.transitions.base import Context


def filter(doc: Document, context: Context) -> bool:
    return any(states.of(task) is State.PENDING for task in tasks_of(doc))


def on_match(doc: Document, context: Context) -> bool:
    changed = False
    for task in tasks_of(doc):
        if states.of(task) is State.PENDING and message_of(task).get("to"):
            changed |= refuse(task, context.settings, context.registers.opt_outs.get, context.now)
    return changed
