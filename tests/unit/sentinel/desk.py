"""An outbox with one service, whose desk answers as a test says."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

from mjumbe import documents, settings, states
from mjumbe.documents import Document, Key
from mjumbe.gateways.base import Batch, Gateway, Outcome
from mjumbe.live_settings import LiveSettings
from mjumbe.settings import ServiceSettings
from mjumbe.states import State, Task
from sentinel.echoes import Echoes
from sentinel.outbox import Heard, Outbox
from sentinel.pipeline import due_messages
from sentinel.recent import RecentMessages
from sentinel.registers import Registers
from sentinel.service import Service
from sentinel.services import Services
from tests.unit.sentinel.memory import MemoryCouch, MemoryDatabase

PHONE = "+254711000001"


class Desk:
    """The gateway: what was asked of it, and what it answers."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []
        self.answer: Callable[[Batch], list[Outcome]] = lambda batch: [
            Outcome("Sent", State.SENT, ref=f"r{number}") for number in batch.recipients
        ]

    def send(self, batch: Batch) -> list[Outcome]:
        self.batches.append(batch)
        return self.answer(batch)

    def reaches(self, number: str) -> bool:
        return True


class Lab:
    """An outbox with one service, driven by hand: `run` dispatches until nothing starts any more."""

    def __init__(self, **values: Any) -> None:
        self.couch = MemoryCouch()
        self.desk = Desk()
        self.service: Service | str | None = Service(
            "africas-talking", cast(Gateway, self.desk), ServiceSettings(batch_size=10)
        )
        self.live = SimpleNamespace(current=settings.parse(values))
        self.stuck: set[str | None] = set()  # the routes that nothing takes, by their service
        self.referenced: dict[str, Key] = {}
        self.fence: Callable[[], None] = lambda: None
        services = SimpleNamespace(
            choose=lambda route: self.service,
            order=lambda route: ["africas-talking"],
            goes_elsewhere=lambda route, service, outcome: False,
            is_stuck=lambda route: route.via in self.stuck,
            refresh=lambda: False,
            say_if_none=lambda: None,
        )
        self.recent = RecentMessages()
        self.registers = Registers.of(self.couch.main)
        self.opted_out: list[str] = []
        self.left: list[str] = []
        self.outbox = Outbox(
            Echoes(self.couch.as_couch().main),
            cast(LiveSettings, self.live),
            cast(Services, services),
            self.recent,
            self.registers,
            Heard(self.referenced.update, self.note(self.opted_out), self.note(self.left)),
            self.check,
        )

    @staticmethod
    def note(heard: list[str]) -> Callable[[Sequence[str], str], None]:
        return lambda numbers, service: heard.extend(numbers)

    @property
    def database(self) -> MemoryDatabase:
        return self.couch.main

    def offer(self, *docs: Document) -> None:
        self.database.store(*docs)
        for doc in docs:
            self.outbox.offer(due_messages(self.stored(doc["_id"])))

    def run(self) -> None:
        """Send all that can be sent, and let it finish."""
        while self.outbox._dispatch():
            pass
        self.outbox._workers.shutdown(wait=True)
        self.outbox._workers = ThreadPoolExecutor(4)

    def close(self) -> None:
        self.outbox._workers.shutdown(wait=True)
        self.outbox._writer.close()

    def check(self) -> None:
        self.fence()

    def stored(self, doc_id: str = "d") -> Document:
        """The document as CouchDB would give it to us."""
        found = self.database.get(doc_id)
        assert found is not None
        return found

    def task(self, doc_id: str = "d") -> Task:
        found: Task = self.database.docs[doc_id]["tasks"][0]
        return found


def doc(doc_id: str = "d", to: str = PHONE, text: str = "Habari", **more: Any) -> Document:
    now = states.now()
    return documents.outgoing_document(documents.new_task(to, text, now, **more), now, None) | {"_id": doc_id}
