"""Every task that waits has a date, in a form that the views read as we do.

A task that no date says anything about is due when it is first seen; without a mark it would be taken for old. One with
a date that only Python reads (`20261227T100000Z`) stood before all others in the views, for as long as it waited.
"""

import re

import structlog

from mjumbe import states
from mjumbe.documents import Document, date_of, datetime_of, read_moment, tasks_of
from mjumbe.states import DUE, Task
from mjumbe.text import shortened
from sentinel.transitions.base import Context

log = structlog.get_logger(__name__)

MOST_SHOWN = 50  # characters of what is no date

# What every JavaScript engine reads, and the views take for UTC when it names no zone.
READ_EVERYWHERE = re.compile(r"\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d+)?)?(Z|[+-]\d{2}:\d{2})?)?")


def _is_given(value: object) -> bool:
    """Whether the views take it for a date that was written: to JavaScript an empty list is something, too."""
    return value not in (None, False, 0, "")


def _is_dated(task: Task, doc: Document) -> bool:
    # The views take the first that is given, readable or not.
    values = task.get("due"), task.get("timestamp"), doc.get("reported_date")
    value = next((value for value in values if _is_given(value)), task.get("due"))
    if isinstance(value, str):
        return READ_EVERYWHERE.fullmatch(value) is not None and read_moment(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool)


def _lacks_date(task: Task, doc: Document) -> bool:
    return states.of(task) in DUE and not _is_dated(task, doc)


def filter(doc: Document, context: Context) -> bool:
    return any(_lacks_date(task, doc) for task in tasks_of(doc))


def on_match(doc: Document, context: Context) -> bool:
    for task in tasks_of(doc):
        if _lacks_date(task, doc):
            at = date_of(task, doc)
            if _is_given(task.get("due")) and read_moment(task["due"]) is None:
                written = shortened(str(task["due"]), MOST_SHOWN)
                log.warning("a message's due cannot be read, so another date counts", doc=doc["_id"], due=written)
            name = "due" if _is_given(task.get("due")) else "timestamp"
            task[name] = states.timestamp(context.now if at is None else datetime_of(at))
    return True
