"""A village of CHT's: its people and places, documents about them, and what the transitions know of it."""

from datetime import UTC, datetime, timedelta
from typing import Any

from mjumbe import documents, settings, states
from mjumbe.documents import Document, IncomingMessage, milliseconds
from sentinel.registers import Registers
from sentinel.transitions.base import Context
from tests.unit.sentinel.memory import MemoryDatabase

NOW = datetime(2026, 1, 10, 12, 0, tzinfo=UTC)
SENDER, OTHER = "+254711000001", "+254711000002"
ANN = {
    "_id": "ann",
    "type": "person",
    "name": "Ann",
    "phone": SENDER,
    "parent": {"_id": "clinic", "parent": {"_id": "centre", "parent": {"_id": "district"}}},
}
PLACES: dict[str, Document] = {
    "ann": ANN,
    "clinic": {
        "_id": "clinic",
        "type": "clinic",
        "name": "Ann's area",
        "contact": {"_id": "ann"},
        "parent": {"_id": "centre", "parent": {"_id": "district"}},
    },
    "centre": {
        "_id": "centre",
        "type": "health_center",
        "name": "Vipingo",
        "contact": {"_id": "bea"},
        "parent": {"_id": "district"},
        "linked_docs": {"nurse": "dan", "guard": {"_id": "eve"}},
    },
    "district": {"_id": "district", "type": "contact", "contact_type": "district_hospital", "contact": "cai"},
    "bea": {"_id": "bea", "phone": "+254711000020"},
    "cai": {"_id": "cai", "phone": "+254711000030"},
    "dan": {"_id": "dan", "phone": "+254711000040"},
    "eve": {"_id": "eve", "phone": "+254711000050"},
    "other": {
        "_id": "other",
        "type": "clinic",
        "name": "Fay's area",
        "contact": {"_id": "fay"},
        "parent": {"_id": "centre"},
    },
    "fay": {"_id": "fay", "phone": "+254711000060"},
    "baraka": {"_id": "baraka", "type": "person", "name": "Baraka", "parent": {"_id": "other"}},
    "12345": {
        "_id": "zawadi",
        "type": "person",
        "name": "Zawadi",
        "patient_id": "12345",
        "parent": {"_id": "other", "parent": {"_id": "centre", "parent": {"_id": "district"}}},
    },
}
TRANSLATIONS = {"en": {"balance": "You owe {{fields.debt}}"}, "sw": {"balance": "Deni {{fields.debt}}"}}


def context(values: dict[str, Any] | None = None, **more: Any) -> Context:
    facts: dict[str, Any] = {
        "settings": settings.parse(values or {}),
        "now": NOW,
        "contacts": {},
        "documents": {},
        "translations": {},
        "adopted": 0,
        "registers": Registers.of(MemoryDatabase()),
    }
    return Context(**{**facts, **more})


def incoming(text: str = "Habari", reported: datetime = NOW, **more: Any) -> Document:
    message = IncomingMessage("africas-talking", "m1", SENDER, text)
    return {**documents.incoming_document(message, SENDER, milliseconds(reported)), **more}


def task(state: str = "pending", to: str = OTHER, **more: Any) -> Document:
    return {"messages": [{"to": to, "message": "x", "uuid": "u1"}], "state": state, "state_history": [], **more}


def record(*tasks: Document, **more: Any) -> Document:
    return {"_id": "d", "type": "data_record", "reported_date": milliseconds(NOW), "tasks": list(tasks), **more}


def at(**offset: float) -> str:
    return states.timestamp(NOW + timedelta(**offset))


def texts(doc: Document) -> list[tuple[str, str]]:
    return [(message["to"], message["message"]) for task in doc["tasks"] for message in task["messages"]]
