"""Listing messages page by page, newest first.

A bookmark names the last row that was read, so that messages which come in meanwhile change nothing behind it.
"""

import base64
import binascii
import json
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from api.errors import BadRequestError
from api.records import record
from mjumbe import documents, phone_numbers
from mjumbe.couch import Database, Row
from mjumbe.states import State

MOST = 1_000
CHUNK = 500  # rows read at once while filtering
CHUNKS = 10  # a page may come out shorter, with a bookmark, rather than read the whole database

STATES = ("received", *State)
FARTHEST = 10**16  # milliseconds since epoch
MOST_AT_ONCE = 100_000  # messages of one document at one moment

MILLISECONDS = re.compile(r"-?[0-9]{1,16}")

Key = list[Any]


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the index: the row with this key and document that was read last, and how many such rows were."""

    key: Key
    doc_id: str
    count: int


def _bound(value: object) -> object:
    text = str(value)
    moment = documents.read_moment(int(text) if MILLISECONDS.fullmatch(text) else text)
    if moment is None:
        raise PydanticCustomError("moment", "no moment")
    return moment


def _state(value: str) -> str:
    if value not in STATES:
        raise PydanticCustomError("state", "unknown")
    return value


def _position(value: object) -> Position:
    try:
        key, doc_id, count = json.loads(base64.urlsafe_b64decode(str(value)))
        *_, at = key
        within = at is None or abs(at) <= FARTHEST
        good = within and len(doc_id.encode()) > 0 and type(count) is int and 0 < count <= MOST_AT_ONCE
    except (ValueError, TypeError, AttributeError, RecursionError, binascii.Error):
        good = False
    if not good:
        raise PydanticCustomError("bookmark", "no bookmark")
    return Position(key, doc_id, count)


class MessageQuery(BaseModel):
    """What to list."""

    model_config = ConfigDict(extra="forbid", frozen=True, arbitrary_types_allowed=True)
    phone: str | None = Field(default=None, description="Who it is from or to, in any usual spelling.")
    state: Annotated[str, AfterValidator(_state)] | None = Field(
        default=None, description="A message's state; `received` for incoming ones."
    )
    since: Annotated[int, BeforeValidator(_bound, json_schema_input_type=str)] | None = Field(
        default=None, alias="from", description="Due or received then or later: ISO 8601 or ms since epoch."
    )
    until: Annotated[int, BeforeValidator(_bound, json_schema_input_type=str)] | None = Field(
        default=None, alias="to", description="Due or received then or earlier: ISO 8601 or ms since epoch."
    )
    limit: int = Field(default=50, ge=1, le=MOST)
    bookmark: Annotated[Position, BeforeValidator(_position, json_schema_input_type=str)] | None = Field(
        default=None, description="From the page before."
    )

    @staticmethod
    def expected(field: str) -> str:
        """What the parameter `field` takes, in words."""
        words = {
            "from": "a date and time in ISO 8601, or milliseconds since epoch",
            "to": "a date and time in ISO 8601, or milliseconds since epoch",
            "state": f"one of {', '.join(STATES)}",
            "limit": f"a whole number from 1 to {MOST}",
            "bookmark": "the bookmark of the page before, and the same query",
        }
        return words.get(field, "one of phone, state, from, to, limit and bookmark")


def find(database: Database, query: MessageQuery, country: str) -> tuple[list[dict[str, Any]], str | None]:
    """A page of records, and the bookmark of the next; None when there is no more. Raises BadRequestError."""
    number = phone_numbers.canonical(query.phone, country) if query.phone else None
    if number:
        prefix: Key = ["phone", phone_numbers.ending(number)]
    elif query.state:
        prefix = ["state", query.state]
    else:
        prefix = ["all"]
    if query.bookmark and query.bookmark.key[:-1] != prefix:
        raise BadRequestError("bookmark", MessageQuery.expected("bookmark"))
    if query.since is not None and query.until is not None and query.since > query.until:
        return [], None
    state = query.state if number else None
    found: list[dict[str, Any]] = []
    position = query.bookmark
    for _ in range(CHUNKS):
        wanted = CHUNK if state else query.limit + 1
        rows = _read(database, prefix, query, position, wanted)
        for row in rows:
            if len(found) == query.limit:
                return found, _encoded(position)
            position = _after(position, row)
            message = record(row.doc, row.value) if row.doc else None
            if message and state in (None, message["state"]) and number in (None, _number(message, country)):
                found.append(message)
        if len(rows) < wanted:
            return found, None
    return found, _encoded(position)


def _number(message: dict[str, Any], country: str) -> str:
    """Who a message is from or to."""
    written = message["from"] if message["direction"] == "incoming" else message["to"]
    return phone_numbers.canonical(str(written), country)


def _read(database: Database, prefix: Key, query: MessageQuery, position: Position | None, limit: int) -> list[Row]:
    """The next rows behind `position`."""
    arguments: dict[str, Any] = {
        "start_key": [*prefix, query.until if query.until is not None else {}],
        "end_key": [*prefix, query.since],
    }
    if position:
        arguments |= {"start_key": position.key, "start_key_doc_id": position.doc_id}
    skipped = position.count if position else 0
    rows = database.view_with_docs(
        "mjumbe", "messages", descending=True, reduce=False, limit=limit + skipped, **arguments
    )
    while position and skipped and rows and (rows[0].key, rows[0].id) == (position.key, position.doc_id):
        rows, skipped = rows[1:], skipped - 1
    return rows[:limit]


def _after(position: Position | None, row: Row) -> Position:
    same = position is not None and (row.key, row.id) == (position.key, position.doc_id)
    return Position(row.key, row.id, position.count + 1 if position and same else 1)


def _encoded(position: Position | None) -> str | None:
    if position is None:
        return None
    return base64.urlsafe_b64encode(json.dumps([position.key, position.doc_id, position.count]).encode()).decode()
