"""Refuse what must not go out: by the settings (deny list, short numbers, names, our own number), and to people who
opted out."""

from mjumbe import phone_numbers, states
from mjumbe.documents import Document, message_of, tasks_of
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
        refusal = phone_numbers.refusal(str(recipient), context.settings)
        if refusal is not None:
            changed |= states.move(task, State.DENIED, context.now, refusal.reason, rule=refusal.code)
        elif context.registers.opt_outs.get(phone_numbers.number_to_send_to(str(recipient), context.settings)):
            changed |= states.deny_opted_out(task, context.now)
    return changed
