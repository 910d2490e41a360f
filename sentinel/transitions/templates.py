"""What a text's template is filled from: CHT's names for the report, its patient and place, and those above them."""

from collections.abc import Callable
from functools import partial

import structlog

from mjumbe import mustache
from mjumbe.documents import Document
from sentinel import dates
from sentinel.transitions import lineage
from sentinel.transitions.base import Context, contact_of, locale_of

log = structlog.get_logger(__name__)


def fill(template: str | None, doc: Document, context: Context) -> str:
    """The template filled from the document; empty when there is none, or when it is none that can be filled."""
    try:
        values = shown(doc, context)
        formats = {"date": context.settings.date_format, "datetime": context.settings.reported_date_format}
        locale = locale_of(doc, context)
        writers = {name: partial(dates.written, pattern=pattern, locale=locale) for name, pattern in formats.items()}
        writers["local_phone"] = partial(_local_phone, country_code=context.settings.default_country_code)
        sections = {name: _section(write, values) for name, write in writers.items()}
        return mustache.render(template or "", values | sections).strip()
    except mustache.TemplateError as error:
        log.warning("a message's text cannot be made", doc=doc["_id"], reason=str(error))
        return ""


def _section(write: Callable[[str], str], values: Document) -> Callable[..., str]:
    """A section that is what `write` makes of what it holds; as a name, it has nothing within."""
    return lambda within="": write(mustache.render(within, values))


def _local_phone(number: str, country_code: str) -> str:
    """A number of our country without its code, as CHT 5.2 writes it (cht-core pull request 10868)."""
    return number.strip().removeprefix(f"+{country_code}")


def shown(doc: Document, context: Context) -> Document:
    """The document and its fields; what is known of the place and the patient that it is about overrules them."""
    patient, place = lineage.subjects(doc, context)
    reporter = lineage.reporter(doc, context) or {}
    values: Document = {}
    for layer in ({**doc, "contact": reporter}, place, patient):
        if layer is not None:
            fields = layer.get("fields")
            values |= {**layer, **(fields if isinstance(fields, dict) else {}), **_places(layer)}
    if patient is not None:
        # Before what the report calls the patient, in which a health worker may have mistyped it.
        values["patient_name"] = patient.get("patient_name") or patient.get("name") or values.get("patient_name")
    person = contact_of(doc, context)
    if person is not None:
        above = reporter.get("parent") if reporter.get("_id") == person.doc["_id"] else None
        reporter = {**person.doc, **({"parent": above} if above else {})}
    # What is known of the patient or place overrules the document here, too: a place's contact is its head, say.
    heads = (subject["contact"] for subject in (patient, place) if subject and subject.get("contact") is not None)
    contact = next(heads, reporter)
    return {**values, "fields": doc.get("fields"), "contact": contact, "patient": patient, "place": place}


def _places(layer: Document) -> Document:
    """The places above, by CHT's names for them, the older names too."""
    start = layer if layer.get("parent") else layer.get("contact")
    clinic, centre, district = (
        lineage.nearest(start, kind) for kind in ("clinic", "health_center", "district_hospital")
    )
    named = {"clinic": clinic, "health_center": centre, "district": district, "parent": centre, "grandparent": district}
    return {name: place for name, place in named.items() if place is not None}
