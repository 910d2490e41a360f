"""Delivery reports, messages that they are of, and a Reports that is driven by hand."""

import copy
import itertools
from types import SimpleNamespace
from typing import Any, cast

from mjumbe import documents, states
from mjumbe.documents import DeliveryReport, Document, milliseconds
from mjumbe.gateways.africas_talking import REPORT_STATES
from mjumbe.live_settings import LiveSettings
from mjumbe.settings import Settings
from mjumbe.states import Task
from sentinel.notices import Notices
from sentinel.registers import Registers
from sentinel.reports import Reports
from sentinel.services import Services
from tests.unit.sentinel.memory import MemoryCouch, by_phone, by_reference, due, in_doubt

PHONE = "+254711000001"
serial = itertools.count(1)


def report(status: str, ref: str = "r1", reason: str | None = None, phone: str | None = PHONE) -> DeliveryReport:
    return DeliveryReport("africas-talking", ref, status, REPORT_STATES.get(status.lower()), phone, reason, "63902")


def document(told: DeliveryReport, received: int | None = None) -> Document:
    return documents.report_document(told, milliseconds(states.now()) + next(serial) if received is None else received)


def task(state: str = "sent", ref: str | None = "r1", uuid: str = "u1", to: str = PHONE, **more: Any) -> Task:
    made: Task = {"messages": [{"to": to, "message": "x", "uuid": uuid}], "state": state, "state_history": []}
    return {**made, **({"gateway_ref": ref} if ref else {}), **more}


class Lab:
    """A Reports on databases in memory, driven by hand."""

    def __init__(self, *docs: Document) -> None:
        self.couch = MemoryCouch()
        self.couch.main.views = {
            "messages_by_gateway_ref": by_reference,
            "due": lambda doc: (*due(doc), *in_doubt(doc)),
            "messages": by_phone,
        }
        self.couch.main.store(*docs)
        self.registers = Registers.of(self.couch.main)
        live = cast(LiveSettings, SimpleNamespace(current=Settings()))
        self.heard: list[DeliveryReport] = []  # what the services were told, when nothing of it was written yet
        services = cast(Services, SimpleNamespace(reported=self.heard.append))
        notices = Notices(self.couch.as_couch(), live, self.registers)
        self.reports = Reports(self.couch.as_couch(), live, services, notices)

    def come(self, *docs: Document) -> None:
        """These report documents are new in `<db>-callbacks`."""
        self.couch.callbacks.store(*docs)
        self.reports._take([copy.deepcopy(self.couch.callbacks.docs[doc["_id"]]) for doc in docs])

    def look_again(self, *, at_all: bool = True) -> None:
        self.reports._looked = float("-inf")
        if at_all:
            self.reports._looked_at_all = float("-inf")
        self.reports.look_again()

    def task(self, doc_id: str = "d") -> Task:
        found: Task = self.couch.main.docs[doc_id]["tasks"][0]
        return found

    @property
    def waiting(self) -> int:
        return len(self.couch.callbacks.docs)


def doc(*tasks: Task, doc_id: str = "d") -> Document:
    return {"_id": doc_id, "tasks": list(tasks)}
