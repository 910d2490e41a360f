"""Other programs, which change documents while messages go out: what they leave is what is expected from then on.

They change only messages of which no service was asked yet, as whoever corrects or takes back a message does. Whether
one was asked meanwhile, CouchDB tells by the revision.
"""

import copy
import random
from collections.abc import Callable
from datetime import timedelta

from mjumbe import states
from mjumbe.couch import ConflictError
from mjumbe.documents import Document, message_of, tasks_of
from mjumbe.states import Task
from tests.faults.generated.generator import Generator
from tests.integration.sentinel.world import World

Change = Callable[[Task], None]


class Others:
    def __init__(self, chance: random.Random, generator: Generator, world: World) -> None:
        self.authored: dict[str, Document] = {}  # by id: what those who write to them want
        self._first: dict[str, Document] = {}  # as they were first stored, of those that nobody else changed
        self.torn: set[str] = set()  # written on a phone as well, and shown as that left them for a moment
        self._chance = chance
        self._generator = generator
        self._world = world
        self._changes = 0

    def write(self, count: int) -> None:
        """Store new documents."""
        docs = [self._generator.document() for _ in range(count)]
        for doc, saved in zip(docs, self._world.couch.main.bulk(copy.deepcopy(docs)), strict=True):
            assert saved.rev, saved
            self.authored[doc["_id"]] = doc
            self._first[doc["_id"]] = {**copy.deepcopy(doc), "_rev": saved.rev}

    def write_to(self, number: str) -> None:
        """Store a document with one message to this number."""
        self._changes += 1
        task = self._generator.simple_task(f"to{self._changes}", uuid=False)
        message_of(task)["to"] = number
        doc = {"_id": str(task["mark"]), "type": "data_record", "tasks": [task]}
        self._world.couch.main.put(copy.deepcopy(doc))
        self.authored[doc["_id"]] = doc

    def meddle(self) -> str:
        """One change of one of the documents; returns what it was."""
        kinds = [self.clear, self.mute, self.correct, self.redirect, self.put_off, self.hurry, self.add, self.remove]
        kind = self._chance.choice([*kinds, self.delete, self.bring, self.bring])
        among = self._first.keys() if kind == self.bring else self.authored.keys() - self.torn
        doc_id = self._chance.choice(sorted(among))
        self._changes += 1
        kind(doc_id)
        return f"{kind.__name__} {doc_id}"

    def clear(self, doc_id: str) -> None:
        self._change(doc_id, lambda task: task.update(state="cleared"))

    def mute(self, doc_id: str) -> None:
        self._change(doc_id, lambda task: task.update(state="muted"))

    def correct(self, doc_id: str) -> None:
        def change(task: Task) -> None:
            if message_of(task).get("message") and not _is_template(task):
                message_of(task)["message"] = f"{task['mark']} corrected {self._changes}"

        self._change(doc_id, change)

    def redirect(self, doc_id: str) -> None:
        number = self._generator.number()

        def change(task: Task) -> None:
            if message_of(task).get("to") and not _is_template(task):
                message_of(task)["to"] = number

        self._change(doc_id, change)

    def put_off(self, doc_id: str) -> None:
        due = states.timestamp(states.now() + timedelta(days=2))
        self._change(doc_id, lambda task: task.update(due=due, state="scheduled"))

    def hurry(self, doc_id: str) -> None:
        due = states.timestamp(states.now() - timedelta(minutes=1))
        self._change(doc_id, lambda task: task.update(due=due))

    def remove(self, doc_id: str) -> None:
        self._change(doc_id, lambda task: task.clear())

    def add(self, doc_id: str) -> None:
        task = self._generator.simple_task(f"added{self._changes}")
        self._edit(doc_id, lambda doc, authored: [_append(one, task) for one in (doc, authored)])

    def delete(self, doc_id: str) -> None:
        """Take the whole document out, if no service was asked for any message of it."""

        def edit(doc: Document, authored: Document) -> bool:
            if any(_was_asked(task) for task in tasks_of(doc)):
                return False
            doc["_deleted"] = authored["_deleted"] = True
            return True

        self._edit(doc_id, edit)
        if self.authored[doc_id].get("_deleted"):
            del self.authored[doc_id]

    def bring(self, doc_id: str) -> None:
        """A phone brings what was written on it without network, over the document as it was at first. Perhaps it adds
        a message, or takes back those that have not gone yet."""
        brought = {**copy.deepcopy(self._first[doc_id]), "note": f"written on a phone {self._changes}"}
        what = self._chance.choice(["note", "add", "add", "take back"])
        if what == "add":
            task = self._generator.simple_task(f"brought{self._changes}", uuid=False)
            for doc in (brought, self.authored[doc_id]):
                _append(doc, task)
        if what == "take back":
            for task in filter(_waits, tasks_of(brought)):
                states.move(task, states.State.CLEARED, states.now(), "on a phone")
            for task in filter(_waits, tasks_of(self.authored[doc_id])):
                task["taken_back"] = True
        self.torn.add(doc_id)
        self._world.bring(brought, self._chance.choice([1, 2, 9]))

    def _change(self, doc_id: str, change: Change) -> None:
        """Change those messages of a document that wait, and of which no service was asked."""

        def edit(doc: Document, authored: Document) -> bool:
            waiting = {task["mark"] for task in tasks_of(doc) if _waits(task)}
            for task in (*tasks_of(doc), *tasks_of(authored)):
                if task.get("mark") in waiting:
                    change(task)
            return bool(waiting)

        self._edit(doc_id, edit)

    def _edit(self, doc_id: str, edit: Callable[[Document, Document], object]) -> None:
        """Apply `edit` to the document and to what is wanted of it, at once."""
        while True:
            doc, authored = self._world.doc(doc_id), copy.deepcopy(self.authored[doc_id])
            if not edit(doc, authored):
                return
            try:
                self._world.couch.main.put(doc)
            except ConflictError:
                continue
            self.authored[doc_id] = authored
            self._first.pop(doc_id, None)
            return


def _append(doc: Document, task: Task) -> None:
    doc["tasks"] = [*doc.get("tasks", []), copy.deepcopy(task)]


def _waits(task: Task) -> bool:
    """Whether it is one message that waits. Of several in one task some may be gone."""
    alone = "mark" in task and "mark" not in message_of(task)
    return alone and task["state"] in ("pending", "scheduled") and not _was_asked(task)


def _was_asked(task: Task) -> bool:
    return any(entry["state"] == "forwarded-to-gateway" for entry in states.history(task))


def _is_template(task: Task) -> bool:
    return "message_key" in task or "message" in task
