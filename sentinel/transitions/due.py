"""What was scheduled becomes pending when it falls due."""

from mjumbe import states
from mjumbe.documents import Document, due_of, milliseconds, tasks_of
from mjumbe.states import State, Task
from sentinel.transitions.base import Context


def _is_due(task: Task, doc: Document, context: Context) -> bool:
    return states.of(task) is State.SCHEDULED and due_of(task, doc) <= milliseconds(context.now)


def filter(doc: Document, context: Context) -> bool:
    return any(_is_due(task, doc, context) for task in tasks_of(doc))


def on_match(doc: Document, context: Context) -> bool:
    for task in tasks_of(doc):
        if _is_due(task, doc, context):
            states.move(task, State.PENDING, context.now)
    return True
