"""Give each due task its one message: text from its template, recipient from the lineage, a uuid.

A task of CHT's schedules may hold only a `message_key` (or `message`: a text, or one per language) and a `recipient`
in words; it gets its `messages` when it falls due. A task with several messages becomes several tasks, so that each
message has a state of its own.
"""

import copy
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from mjumbe import phone, states, text
from mjumbe.couch import Document
from mjumbe.documents import TASK_LISTS, message_of, tasks_of
from mjumbe.states import DUE, State, Task
from sentinel.transitions.base import Context, fill
from sentinel.transitions.replies import locale_of

# How many steps up from the sender the contact is found whom CHT's words for recipients name.
STEPS_UP = {"clinic": 1, "parent": 2, "health_center": 2, "grandparent": 3, "district": 3}
SENDER = "reporting_unit"
RETRY_TEXT = timedelta(hours=1)


def _is_unfinished(task: Task) -> bool:
    if states.of(task) is not State.PENDING:
        return False
    messages, message = task.get("messages"), message_of(task)
    single = isinstance(messages, list) and len(messages) == 1
    return not single or not message.get("uuid") or _lacks(message) is not None


def _lacks(message: dict[str, Any]) -> str | None:
    """What a message cannot be sent without."""
    text = message.get("message")
    if not isinstance(text, str) or not text:
        return "its message has no text"
    return None if message.get("to") else "its message has no recipient"


def filter(doc: Document, context: Context) -> bool:
    return any(_is_unfinished(task) for task in tasks_of(doc))


def on_match(doc: Document, context: Context) -> bool:
    before = copy.deepcopy([doc.get(name) for name in TASK_LISTS])
    for name in TASK_LISTS:
        if isinstance(doc.get(name), list):
            doc[name] = [finished for task in doc[name] for finished in _finish(task, doc, context)]
    return before != [doc.get(name) for name in TASK_LISTS]


def _finish(task: Any, doc: Document, context: Context) -> Iterator[Any]:
    """The task, or one for each of its messages."""
    if not isinstance(task, dict) or not _is_unfinished(task):
        yield task
        return
    if not task.get("messages"):
        _compose(task, doc, context)
    if not task.get("messages"):
        yield task
        return
    given = task["messages"] if isinstance(task["messages"], list) else []
    messages = [message for message in given if isinstance(message, dict)]
    if not messages:
        states.move(task, State.FAILED, context.now, "its messages are no objects with `to` and `message`")
        yield task
    for position, message in enumerate(messages):
        message["uuid"] = message.get("uuid") or str(uuid.uuid4())
        single = task if position == 0 else copy.deepcopy(task)
        single["messages"] = [message]
        if lacking := _lacks(message):
            states.move(single, State.FAILED, context.now, lacking)
        yield single


def _compose(task: Task, doc: Document, context: Context) -> None:
    recipient, message = _recipient(task, doc, context), _text(task, doc, context)
    if recipient and message:
        task["messages"] = [{"to": recipient, "message": message, "uuid": str(uuid.uuid4())}]
        return
    trouble = "its text is not in the translations" if recipient else "its recipient is not known"
    if context.settings.sms.clear_failing_schedules:
        states.move(task, State.CLEARED, context.now, f"cleared: {trouble}")
    elif not task.get("retry_at") or task["retry_at"] <= states.timestamp(context.now):
        if task.get("state_details") != trouble:
            states.note(task, context.now, trouble)
            task["state_details"] = trouble
        task["retry_at"] = states.timestamp(context.now + RETRY_TEXT)


def _text(task: Task, doc: Document, context: Context) -> str:
    locale = locale_of(doc, context)
    template = _in_language(task.get("message"), locale)
    if not template and task.get("message_key"):
        template = text.translate(task["message_key"], locale, context.settings.locale, context.translations)
    return fill(template, doc, context)


def _in_language(message: object, locale: str) -> str | None:
    """CHT writes a text, or a list of `{"content": …, "locale": …}`."""
    if isinstance(message, str):
        return message
    texts = {
        entry.get("locale"): entry.get("content")
        for entry in (message if isinstance(message, list) else [])
        if isinstance(entry, dict)
    }
    chosen = texts.get(locale) or next(iter(texts.values()), None)
    return chosen if isinstance(chosen, str) else None


def _recipient(task: Task, doc: Document, context: Context) -> str | None:
    wanted = str(task.get("recipient") or SENDER)
    if phone.normalise(wanted, context.settings.default_country_code):
        return wanted
    found = _ancestor_phone(doc, STEPS_UP[wanted], context) if wanted in STEPS_UP else None
    if found or (wanted != SENDER and not context.settings.sms.default_to_sender):
        return found
    return doc.get("from") or (context.documents.get(ancestor_id(doc, 0) or "") or {}).get("phone")


def ancestor_id(doc: Document, steps: int) -> str | None:
    """The id of the place `steps` up in the document's contact's lineage."""
    place = doc.get("contact")
    for _ in range(steps):
        place = place.get("parent") if isinstance(place, dict) else None
    return place.get("_id") if isinstance(place, dict) else None


def _ancestor_phone(doc: Document, steps: int, context: Context) -> str | None:
    place = context.documents.get(ancestor_id(doc, steps) or "") or {}
    contact = place.get("contact")
    contact_id = contact.get("_id") if isinstance(contact, dict) else contact
    found = (context.documents.get(contact_id or "") or {}).get("phone")
    return found if isinstance(found, str) else None


def needs_lineage(doc: Document) -> bool:
    """Whether a task here is still without its message: recipient and text come from elsewhere."""
    return any(not task.get("messages") and states.of(task) in DUE for task in tasks_of(doc))
