"""A task that no date says anything about is due when it is first seen; without a mark it would be taken for old."""

from mjumbe import states
from mjumbe.couch import Document
from mjumbe.documents import date_of, tasks_of
from mjumbe.states import DUE, Task
from sentinel.transitions.base import Context


def _is_undated(task: Task, doc: Document) -> bool:
    return states.of(task) in DUE and date_of(task, doc) is None


def filter(doc: Document, context: Context) -> bool:
    return any(_is_undated(task, doc) for task in tasks_of(doc))


def on_match(doc: Document, context: Context) -> bool:
    for task in tasks_of(doc):
        if _is_undated(task, doc):
            task["timestamp"] = states.timestamp(context.now)
    return True
