"""Answer what no keyword matched, as CHT's default_responses does: only messages of the start date and later."""

from mjumbe import text
from mjumbe.documents import Document, datetime_of, read_moment
from sentinel.forms import names_form
from sentinel.transitions.base import Context, is_fresh, locale_of, mark
from sentinel.transitions.replies import answer

NAME = "default_responses"


def filter(doc: Document, context: Context) -> bool:
    start, reported = context.settings.default_responses.start_date, read_moment(doc.get("reported_date"))
    if start is None or reported is None or not is_fresh(doc, context, NAME) or _is_off(context):
        return False
    return datetime_of(reported).date() >= start and not doc.get("form")


def _is_off(context: Context) -> bool:
    """Whether CHT's list of transitions has this one, switched off: false, null, or `{"disable": true}`."""
    listed = context.settings.transitions
    value = listed.get(NAME)
    return NAME in listed and (not value or (isinstance(value, dict) and bool(value.get("disable"))))


def on_match(doc: Document, context: Context) -> bool:
    mark(doc, NAME)
    if not doc.get("tasks"):
        template = text.translate(
            _key(doc, context), locale_of(doc, context), context.settings.locale, context.translations
        )
        answer(doc, template, context)
    return True


def _key(doc: Document, context: Context) -> str:
    message = str(doc["sms_message"].get("message") or "")
    if not message.strip():
        return "empty"
    known = names_form(message, context.settings.forms)
    return "form_not_found" if context.settings.forms_only_mode and not known else "sms_received"
