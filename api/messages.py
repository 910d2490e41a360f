"""Messages for programs: write some, read one with its history, list them."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime
from itertools import islice
from typing import Annotated, Any

import structlog
from flask import Blueprint, request
from flask.typing import ResponseReturnValue
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    StrictBool,
    ValidationError,
)
from pydantic_core import PydanticCustomError

from api.auth import SMS
from api.bodies import Text, checked, demand_json, json_body
from api.context import Context, admit
from api.errors import ApiError, BadRequestError
from api.openapi import describe
from api.records import Message, MessagePage, record
from api.search import MessageQuery, find
from api.subscriptions import Product, active
from mjumbe import documents, phone_numbers, states
from mjumbe.couch import CouchError, UnavailableError
from mjumbe.documents import Document
from mjumbe.gateways import NAMES, africas_talking
from mjumbe.settings import Service
from mjumbe.uuid7 import new_uuid

MOST_MESSAGES = 1_000
MOST_SUBSCRIBERS = 10_000
STORED_AT_ONCE = 1_000
# In characters. `multipart_sms_limit` cuts what is sent; the longest that it allows, 255 parts, has 39,015.
LONGEST_TEXT = 40_000
BODY_BYTES = 8 * 1024 * 1024

blueprint = Blueprint("messages", __name__)
log = structlog.get_logger()


def _moment(value: object) -> datetime:
    moment = documents.read_moment(value)
    if moment is None or not documents.FIRST_MOMENT <= moment <= documents.LAST_MOMENT:
        raise PydanticCustomError("moment", "no moment")
    return documents.datetime_of(moment)


class PremiumFields(BaseModel):
    """A premium message, otherwise than the settings say."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    keyword: str | None = Field(default=None, min_length=1, max_length=100, description="The product's keyword.")
    link_id: str | None = Field(default=None, min_length=1, max_length=200, description="Of what this answers.")
    retry_duration_hours: int | None = Field(default=None, ge=1, le=168, description="How long to try.")


class Content(BaseModel):
    """What is sent, whoever gets it."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    message: str = Field(min_length=1, max_length=LONGEST_TEXT, description="The text.")
    due: Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=str | int)] | None = Field(
        default=None, description="When to send it: ISO 8601 (UTC when it names no zone) or ms since epoch; else now."
    )
    service: Service | None = Field(default=None, description=f"Send it by this service only: {' or '.join(NAMES)}.")
    premium: StrictBool | PremiumFields | None = Field(
        default=None,
        description="By Africa's Talking: whether and how the recipient pays, if not as `sms.africas_talking` says.",
    )
    uuid: Text | None = Field(
        default=None,
        min_length=1,
        max_length=100,
        pattern=r"^[\w.:-]+$",
        description="The message's own id, made by you: posting it again then does nothing; "
        "another message with it is refused.",
    )


class NewMessage(Content):
    """A message to send."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {"to": "+254711000111", "message": "Your appointment is tomorrow.", "due": "2026-01-31T08:00Z"}
            ]
        },
    )
    to: Text = Field(description="The recipient's number, in any usual spelling.")


class MessageToSubscribers(Content):
    """A message to everybody who has a premium product; by Africa's Talking, unless `service` says otherwise."""

    subscribers: Product


class NewMessages(RootModel[NewMessage | MessageToSubscribers | list[NewMessage]]):
    """One message, a list of up to 1,000, or one to up to 10,000 subscribers."""


class Accepted(BaseModel):
    """A message that is on disk and will be sent."""

    uuid: str
    id: str = Field(description="The document that holds it.")
    to: str = Field(description="The number as it is understood.")
    state: str = Field(description="`pending` (due now) or `scheduled`; of a message posted again, its state by now.")


class AcceptedMessages(BaseModel):
    """In the order in which they were given."""

    messages: list[Accepted]


EXPECTED = {
    "to": "a phone number such as +254711000111, as text or number",
    "subscribers": "an object with `short_code` and `keyword`",
    "message": f"a text of 1 to {LONGEST_TEXT} characters",
    "due": "a date and time in ISO 8601, or milliseconds since epoch",
    "service": " or ".join(NAMES),
    "premium": "true, false, or an object with `keyword`, `link_id` or `retry_duration_hours` (1 to 168)",
    "uuid": "1 to 100 letters, digits, dots, colons, dashes or underscores",
}
SHOWN = ("to", "due", "service", "uuid")  # what may be said of a wrong value: never a text
MOST_SHOWN = 50  # characters


@blueprint.post("/api/v1/messages")
@describe(
    "Send messages",
    "Each is checked first: nothing is stored unless all are good. With `subscribers` in place of `to`, the message "
    "goes to everybody who has the product. Role `sms`.",
    tag="messages",
    security="user",
    body=NewMessages,
    answers={202: AcceptedMessages},
    errors=(409, 415),
)
def send() -> ResponseReturnValue:
    """202 once the messages are on disk."""
    here, user = admit(SMS)
    demand_json(request)
    body = json_body(request, BODY_BYTES)
    country = here.settings.fresh().default_country_code
    if isinstance(body, dict) and "subscribers" in body:
        messages = _to_subscribers(here, body)
    else:
        messages = _checked(body if isinstance(body, list) else [body], country)
    now = states.now()
    docs = [_document(message, country, now, user.name) for message in messages]
    stored: list[bool] = []
    for start in range(0, len(docs), STORED_AT_ONCE):
        stored += here.intake.store(here.couch.main, docs[start : start + STORED_AT_ONCE])
    here.metrics.stored("outgoing", stored)
    repeated = [doc["_id"] for doc, new in zip(docs, stored, strict=True) if not new]
    present: dict[str, Document] = {}
    # All are stored by now: whoever is told of trouble sends them again, those without a uuid as new ones.
    with suppress(UnavailableError, CouchError):
        present = here.quick.main.fetch(repeated)
    _demand_same(docs, stored, present)
    return {"messages": [_accepted(present.get(doc["_id"], doc)) for doc in docs]}, 202


def _checked(entries: list[Any], country: str) -> list[NewMessage]:
    """The messages. Raises ApiError 400 with every entry that is wrong, by its index."""
    if not 1 <= len(entries) <= MOST_MESSAGES:
        raise BadRequestError("body", f"1 to {MOST_MESSAGES} messages")
    messages: list[NewMessage] = []
    problems: list[dict[str, Any]] = []
    for index, entry in enumerate(entries):
        try:
            message = NewMessage.model_validate(entry)
        except ValidationError as error:
            problems += _problems(index, entry, error)
            continue
        if phone_numbers.normalise(message.to, country) is None:
            problems.append(_problem(index, entry, "to"))
        messages.append(message)
    if problems:
        raise _refused(problems, several=len(entries) > 1)
    return messages


def _to_subscribers(here: Context, body: dict[str, Any]) -> list[NewMessage]:
    """A message for each subscriber. Raises ApiError 400."""
    try:
        wanted = MessageToSubscribers.model_validate(body)
    except ValidationError as error:
        raise _refused(_problems(0, body, error)) from None
    numbers = [number for number, _ in islice(active(here.couch.main, wanted.subscribers), MOST_SUBSCRIBERS + 1)]
    if len(numbers) > MOST_SUBSCRIBERS:
        raise BadRequestError("subscribers", f"a product of at most {MOST_SUBSCRIBERS} subscribers")
    content = {**dict(wanted), "service": wanted.service or africas_talking.NAME, "premium": _of_product(wanted)}
    del content["subscribers"]
    return [
        # The same uuid for the same person, so that posting it again does nothing.
        NewMessage.model_construct(
            **content | {"to": number, "uuid": wanted.uuid and f"{wanted.uuid}:{number.lstrip('+')}"}
        )
        for number in numbers
    ]


def _of_product(wanted: MessageToSubscribers) -> bool | PremiumFields | None:
    """What a message to a product's subscribers says of premium: its keyword is the product's unless it names one."""
    if not wanted.premium:
        return wanted.premium
    given = wanted.premium if isinstance(wanted.premium, PremiumFields) else PremiumFields()
    return given if given.keyword else given.model_copy(update={"keyword": wanted.subscribers.keyword})


def _refused(problems: list[dict[str, Any]], *, several: bool = False) -> ApiError:
    first = problems[0]
    where = f"message {first['index']}: {first['field']}" if several else first["field"]
    return ApiError(
        400,
        f"Nothing was stored. {where}: expected {first['expected']}",
        field=first["field"],
        expected=first["expected"],
        problems=problems,
    )


def _problems(index: int, entry: Any, error: ValidationError) -> list[dict[str, Any]]:
    """One for each field that is wrong, in whatever ways; first those that nobody knows: what is missing is in them."""
    places = (problem["loc"] for problem in error.errors(include_url=False))
    fields = dict.fromkeys(str(loc[0]) if loc else "body" for loc in places)
    return [_problem(index, entry, field) for field in sorted(fields, key=lambda field: field in EXPECTED)]


def _problem(index: int, entry: Any, field: str) -> dict[str, Any]:
    if not isinstance(entry, Mapping):
        return {"index": index, "field": "body", "expected": "an object with `to` and `message`"}
    expected = EXPECTED.get(field, f"only {', '.join(EXPECTED)}")
    if field in SHOWN and entry.get(field) is not None:
        expected += f"; it is {str(entry[field])[:MOST_SHOWN]!r}"
    return {"index": index, "field": field, "expected": expected}


def _document(message: NewMessage, country: str, now: datetime, author: str) -> Document:
    facts = message.model_dump(include={"premium"}, exclude_none=True)
    if message.service:
        facts["via"] = message.service
    message_uuid = message.uuid or new_uuid()
    task = documents.new_task(
        phone_numbers.canonical(message.to, country),
        message.message,
        now,
        due=message.due,
        message_uuid=message_uuid,
        **facts,
    )
    doc = documents.outgoing_document(task, now, author)
    # The same uuid is the same document, however often it is posted.
    return {**doc, "_id": f"outgoing:{message_uuid}", "receipt": documents.new_receipt()}


def _demand_same(docs: list[Document], stored: list[bool], present: Mapping[str, Document]) -> None:
    """Raises ApiError 409 when a uuid is another message's: 202 would say that this one is sent."""
    problems = []
    for index, (doc, new) in enumerate(zip(docs, stored, strict=True)):
        message, earlier = (documents.message_of(each["tasks"][0]) for each in (doc, present.get(doc["_id"], doc)))
        if not new and any(message[name] != earlier.get(name) for name in ("to", "message")):
            expected = f"a uuid that no other message has; {message['uuid']} is one to {earlier.get('to')}"
            problems.append({"index": index, "field": "uuid", "expected": expected})
    if problems:
        also = f" The other {len(docs) - len(problems)} are stored." if len(docs) > len(problems) else ""
        where = f"message {problems[0]['index']}: " if len(docs) > 1 else ""
        raise ApiError(
            409,
            f"{where}uuid: expected {problems[0]['expected']}. This one is not sent.{also}",
            field="uuid",
            problems=problems,
        )


def _accepted(doc: Document) -> dict[str, Any]:
    task = doc["tasks"][0]
    message = documents.message_of(task)
    return {"uuid": message["uuid"], "id": doc["_id"], "to": message["to"], "state": task["state"]}


@blueprint.get("/api/v1/messages/<id:message_uuid>")
@describe(
    "One message with its history",
    "By its uuid; an incoming one by its document's id. Role `sms`.",
    tag="messages",
    security="user",
    answers={200: Message},
    errors=(404,),
)
def show(message_uuid: str) -> ResponseReturnValue:
    """The whole record."""
    here, _ = admit(SMS)
    found = next(filter(None, (record(doc, message_uuid) for doc in _documents(here, message_uuid))), None)
    if found is None:
        raise here.no_message(message_uuid)
    return found


def _documents(here: Context, message_uuid: str) -> Iterator[Document]:
    """Where the message may be: documents with a message of this uuid, then the one that has it for its id."""
    rows = here.couch.main.view("mjumbe", "messages_by_uuid", key=message_uuid, include_docs=True)
    yield from (row.doc for row in rows if row.doc)
    yield from here.couch.main.fetch([message_uuid]).values()  # as a key: in a path, `..` would be another


@blueprint.get("/api/v1/messages")
@describe(
    "List messages, newest first",
    "In and out, by number, state and time. Role `sms`.",
    tag="messages",
    security="user",
    query=MessageQuery,
    answers={200: MessagePage},
    errors=(400,),
)
def search() -> ResponseReturnValue:
    """One page, and the bookmark of the next."""
    here, _ = admit(SMS)
    query = checked(MessageQuery, request.args.to_dict(), MessageQuery.expected)
    messages, bookmark = find(here.couch.main, query, here.settings.fresh().default_country_code)
    return {"messages": messages, "bookmark": bookmark}
