"""Give each due task its one message: text from its template, recipient from the lineage, a uuid.

A task of CHT's schedules may hold only a `message_key` (or `message`: a text, or one per language) and a `recipient`
in words; it gets its `messages` when it falls due. A task with several messages becomes several tasks, so that each
message has a state of its own. A uuid is a text, and no two tasks of a document share one: by it a task is found again.
"""

import copy
from collections.abc import Iterable, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any

from mjumbe import phone_numbers, states, text
from mjumbe.documents import TASK_LISTS, Document, message_of, milliseconds, read_moment, singles, tasks_of
from mjumbe.states import DUE, State, Task
from mjumbe.uuid7 import new_uuid
from sentinel.transitions import lineage
from sentinel.transitions.base import Context, locale_of
from sentinel.transitions.templates import fill, shown

# CHT's words for recipients: the contact of the place of a type above the patient or the sender, or so many steps up.
TYPES = {"clinic": "clinic", "health_center": "health_center", "district": "district_hospital"}
STEPS_UP = {"parent": 2, "grandparent": 3}
ANCESTOR, LINK = "ancestor:", "link:"
SENDER = "reporting_unit"
RETRY_TEXT = timedelta(hours=1)


def _is_unfinished(task: Task) -> bool:
    if states.of(task) is not State.PENDING:
        return False
    messages, message = task.get("messages"), message_of(task)
    single = isinstance(messages, list) and len(messages) == 1
    named = isinstance(message.get("uuid"), str) and message["uuid"] != ""
    return not single or not named or _lacks(message) is not None


def _lacks(message: dict[str, Any]) -> str | None:
    """What a message cannot be sent without."""
    text = message.get("message")
    if not isinstance(text, str) or not text:
        return "its message has no text"
    return None if message.get("to") else "its message has no recipient"


def _repeats(doc: Document) -> list[Task]:
    """The due tasks with the uuid of one before them, which would be claimed for them: they were sent for ever. And
    those with the uuid of one that went, wherever it is: what becomes of that would be stored with them."""
    seen = {_uuid_of(task) for task in tasks_of(doc) if states.of(task) not in DUE} - {""}
    repeats = []
    for task in tasks_of(doc):
        message_uuid = _uuid_of(task)
        if message_uuid in seen and states.of(task) is State.PENDING:
            repeats.append(task)
        elif message_uuid:
            seen.add(message_uuid)
    return repeats


def _uuid_of(task: Task) -> str:
    return str(message_of(task).get("uuid") or "")


def filter(doc: Document, context: Context) -> bool:
    return any(_is_unfinished(task) for task in tasks_of(doc)) or bool(_repeats(doc))


def on_match(doc: Document, context: Context) -> bool:
    before = copy.deepcopy([doc.get(name) for name in TASK_LISTS])
    for name in TASK_LISTS:
        if isinstance(doc.get(name), list):
            doc[name] = [finished for task in doc[name] for finished in _finish(task, doc, context)]
    for task in _repeats(doc):
        message_of(task)["uuid"] = new_uuid()
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
    parts = singles(task)
    if not parts:
        states.move(task, State.FAILED, context.now, "its messages are no objects with `to` and `message`")
        yield task
    for single in parts:
        message = message_of(single)
        message["uuid"] = str(message.get("uuid") or new_uuid())
        if lacking := _lacks(message):
            states.move(single, State.FAILED, context.now, lacking)
        yield single


def _compose(task: Task, doc: Document, context: Context) -> None:
    recipient, message = _recipient(task, doc, context), _text(task, doc, context)
    if recipient and message:
        task["messages"] = [{"to": recipient, "message": message, "uuid": new_uuid()}]
        return
    trouble = "its text is not in the translations" if recipient else "its recipient is not known"
    if context.settings.sms.clear_failing_schedules:
        states.move(task, State.CLEARED, context.now, f"cleared: {trouble}")
    elif (read_moment(task.get("retry_at")) or 0) <= milliseconds(context.now):
        states.wait(task, context.now, trouble, context.now + RETRY_TEXT)


def _text(task: Task, doc: Document, context: Context) -> str:
    locale = locale_of(doc, context)
    template = _in_language(task.get("message"), locale)
    key = task.get("message_key")
    if not template and isinstance(key, str):
        template = text.translate(key, locale, context.settings.locale, context.translations)
    return fill(template, doc, context)


def _in_language(message: object, locale: str) -> str | None:
    """CHT writes a text, or a list of `{"content": …, "locale": …}`."""
    if isinstance(message, str):
        return message
    texts = {
        str(entry.get("locale")): entry.get("content")
        for entry in (message if isinstance(message, list) else [])
        if isinstance(entry, dict)
    }
    chosen = texts.get(locale) or next(iter(texts.values()), None)
    return chosen if isinstance(chosen, str) else None


def _recipient(task: Task, doc: Document, context: Context) -> str | None:
    """The number of the first recipient that is found, else the sender's; a task names one, or with CHT 5 several."""
    sender = doc.get("from") or (lineage.reporter(doc, context) or {}).get("phone")
    named = task.get("recipient")
    given = named if isinstance(named, list) else [named]
    words = [str(word).strip() for word in given if isinstance(word, str | int)]
    wanted = [word for word in words if word] or [SENDER]
    found = _first(sender if word == SENDER else _resolved(word, doc, context) for word in wanted)
    return found if found or not context.settings.sms.default_to_sender else sender


def _resolved(wanted: str, doc: Document, context: Context) -> str | None:
    is_number = phone_numbers.normalise(wanted, context.settings.default_country_code)
    return wanted if is_number else _named(wanted, doc, context)


def _named(wanted: str, doc: Document, context: Context) -> str | None:
    """The number that a word for a recipient stands for. Above the patient before above the place, and these before
    above the sender: a message about a patient is for those who care for the patient."""
    reporter = lineage.reporter(doc, context)
    starts = [start for start in (*lineage.subjects(doc, context), reporter) if start]
    if wanted in STEPS_UP:
        above = islice(lineage.upwards(starts[0] if starts else None), STEPS_UP[wanted], STEPS_UP[wanted] + 1)
        return _first(_phone_of(place.get("contact")) for place in above)
    if wanted.startswith(LINK):
        tag = wanted.removeprefix(LINK)
        return _first(_linked_phone(start, tag, context) for start in starts) or _phone_above(starts, tag)
    if wanted in TYPES or wanted.startswith(ANCESTOR):
        found = _phone_above(starts, TYPES.get(wanted) or wanted.removeprefix(ANCESTOR))
        return found or (_phone_of(shown(doc, context)["contact"]) if wanted == "clinic" else None)
    return _field(wanted, doc, context)


def _phone_above(starts: Iterable[Document], kind: str) -> str | None:
    """The number of the contact of the nearest place of this type."""
    return _first(_phone_of((lineage.nearest(start, kind) or {}).get("contact")) for start in starts)


def _linked_phone(start: Document, tag: str, context: Context) -> str | None:
    """The number of who is linked under `tag` to `start`, or to the nearest above that has such a link."""
    links = (lineage.linked(place).get(tag) for place in lineage.upwards(start))
    return _phone_of(context.documents.get(next((link for link in links if link), "")))


def _field(path: str, doc: Document, context: Context) -> str | None:
    """A number in one of the fields, or elsewhere in what texts are filled from: `patient.parent.contact.phone`."""
    values = shown(doc, context)
    for holder in (values["fields"], values):
        value: Any = holder
        for step in path.split("."):
            value = value.get(step) if isinstance(value, dict) else None
        if isinstance(value, str | int) and not isinstance(value, bool) and value:
            return str(value)
    return None


def _first(found: Iterable[str | None]) -> str | None:
    return next((one for one in found if one), None)


def _phone_of(contact: Any) -> str | None:
    found = contact.get("phone") if isinstance(contact, dict) else None
    return found if isinstance(found, str) and found else None


def needs_lineage(doc: Document) -> bool:
    """Whether a task here is still without its message: recipient and text come from elsewhere."""
    return any(not task.get("messages") and states.of(task) in DUE for task in tasks_of(doc))
