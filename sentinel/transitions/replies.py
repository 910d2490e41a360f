"""Answer keywords: the first word of an incoming message chooses the answer in `sms.replies`."""

import structlog

from mjumbe import text
from mjumbe.documents import Document, date_of, milliseconds, new_task
from mjumbe.settings import Reply
from sentinel.transitions.base import Context, is_fresh, locale_of, mark
from sentinel.transitions.templates import fill

log = structlog.get_logger(__name__)
NAME = "replies"


def filter(doc: Document, context: Context) -> bool:
    return is_fresh(doc, context, NAME)


def on_match(doc: Document, context: Context) -> bool:
    mark(doc, NAME)
    word = text.first_word(str(doc["sms_message"].get("message") or ""))
    for reply in context.settings.sms.replies:
        if word and word == text.first_word(reply.keyword):
            answer(doc, _template(reply, doc, context), context)
            break
    return True


def _template(reply: Reply, doc: Document, context: Context) -> str | None:
    return reply.message or text.translate(
        reply.translation_key or "", locale_of(doc, context), context.settings.locale, context.translations
    )


def answer(doc: Document, template: str | None, context: Context) -> None:
    """Add a task with the rendered template to the document, addressed to its sender; nothing when it says nothing."""
    message = fill(template, doc, context)
    if not message:
        log.warning("an answer has no text, so none is sent", doc=doc["_id"])
        return
    tasks = doc.get("tasks")
    # Without a date of its own it is due when its message came in, by the clock of whoever took that: one that is ahead
    # of ours must not keep the answer waiting.
    ahead = (date_of({}, doc) or 0) > milliseconds(context.now)
    task = new_task(doc["from"], message, context.now, due=context.now if ahead else None)
    doc["tasks"] = [*(tasks if isinstance(tasks, list) else []), task]
