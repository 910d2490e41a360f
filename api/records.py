"""A message as programs read it, made from the document that holds it."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from mjumbe import documents, states
from mjumbe.documents import Document
from mjumbe.states import Task


class HistoryEntry(BaseModel):
    """Something that happened to a message."""

    model_config = ConfigDict(extra="allow")
    state: str
    timestamp: str
    state_details: str | None = None
    late: bool = Field(default=False, description="It was told after something later had been: the state stayed.")


class Message(BaseModel):
    """One message, in or out. What is not known, or makes no sense for it, is null."""

    uuid: str = Field(description="Of an incoming message, its document's id.")
    id: str = Field(description="The document that holds it.")
    direction: str = Field(description="`outgoing` or `incoming`.")
    to: str | None = None
    sender: str | None = Field(default=None, alias="from")
    message: str | None = None
    state: str | None = Field(default=None, description="An incoming message is `received`.")
    state_details: str | None = None
    gateway_ref: str | None = Field(default=None, description="The service's own id of the message.")
    service: str | None = Field(default=None, description="The service that carried it, or will.")
    attempts: int = 0
    due: str | None = None
    cost: str | None = None
    parts: int | None = None
    history: list[HistoryEntry] = []


class MessagePage(BaseModel):
    """Messages, newest first."""

    messages: list[Message]
    bookmark: str | None = Field(description="Give it with the same query for the next page; null at the end.")


def _text(value: Any) -> str | None:
    """As text, which callers are promised, what others write as an object (CHT a state's details) or a number."""
    return value if value is None or isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _moment(value: Any) -> str | None:
    """A moment in ISO 8601, which documents may have in ms since epoch; what is none as it is written."""
    at = None if isinstance(value, str) else documents.read_moment(value)
    return _text(value) if at is None else states.timestamp(documents.datetime_of(at))


def _entry(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry of a task's history."""
    texts = {"state": _text(entry.get("state")) or "", "timestamp": _moment(entry.get("timestamp")) or ""}
    details = {"state_details": _text(entry["state_details"])} if "state_details" in entry else {}
    return {**entry, **texts, **details}


def outgoing_record(doc: Document, task: Task) -> dict[str, Any]:
    """The record of a task's message."""
    message, parts = documents.message_of(task), task.get("parts")
    return {
        "uuid": _text(message.get("uuid")),
        "id": doc["_id"],
        "direction": "outgoing",
        "to": _text(message.get("to")),
        "from": None,
        "message": _text(message.get("message")),
        "state": _text(task.get("state")),
        "state_details": _text(task.get("state_details")),
        "gateway_ref": _text(task.get("gateway_ref")),
        "service": _text(task.get("service") or task.get("via")),
        "attempts": states.attempts(task),
        "due": _moment(task.get("due")),
        "cost": _text(task.get("cost")),
        "parts": parts if isinstance(parts, int) else None,
        "history": [_entry(entry) for entry in states.history(task)],
    }


def _incoming_record(doc: Document) -> dict[str, Any]:
    """The record of an SMS that came in."""
    sms = doc["sms_message"]
    at = documents.read_moment(doc.get("reported_date"))
    received = states.timestamp(documents.datetime_of(at)) if at is not None else None
    return {
        "uuid": doc["_id"],
        "id": doc["_id"],
        "direction": "incoming",
        "to": _text(sms.get("to")),
        "from": _text(doc.get("from")),
        "message": _text(sms.get("message")),
        "state": "received",
        "state_details": None,
        "gateway_ref": _text(sms.get("gateway_ref")),
        "service": _text(sms.get("gateway")),
        "attempts": 0,
        "due": None,
        "cost": _text(sms.get("cost")),
        "parts": None,
        "history": [{"state": "received", "timestamp": received}] if received else [],
    }


def record(doc: Document, message_uuid: str) -> dict[str, Any] | None:
    """The record of the message in `doc` that has this uuid, or that `doc` is. None when it is gone by now."""
    task = documents.find_task(doc, message_uuid)
    if task is not None:
        return outgoing_record(doc, task)
    return _incoming_record(doc) if doc["_id"] == message_uuid and documents.is_incoming(doc) else None
