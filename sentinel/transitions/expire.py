"""Nothing that has waited longer than `sms.expire_after` is sent: a gateway repaired after weeks sends no old news."""

from mjumbe import states
from mjumbe.documents import Document, datetime_of, due_of, oldest_due, tasks_of
from mjumbe.states import State, Task
from sentinel.transitions.base import Context


def _is_expired(task: Task, doc: Document, context: Context) -> bool:
    return states.of(task) is State.PENDING and due_of(task, doc) < oldest_due(context.now, context.settings.sms)


def filter(doc: Document, context: Context) -> bool:
    return any(_is_expired(task, doc, context) for task in tasks_of(doc))


def on_match(doc: Document, context: Context) -> bool:
    for task in tasks_of(doc):
        if _is_expired(task, doc, context):
            due = states.timestamp(datetime_of(due_of(task, doc)))
            states.move(task, State.FAILED, context.now, f"expired: it was due at {due}")
    return True
