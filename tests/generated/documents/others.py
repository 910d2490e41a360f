"""Other programs, which change documents while messages go out: what they leave is what is expected from then on.

They change only messages of which no service was asked yet, as whoever corrects or takes back a message does. Whether
one was asked meanwhile, CouchDB tells by the revision.
"""

import copy
import random
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import quote

from mjumbe import states
from mjumbe.couch import ConflictError
from mjumbe.documents import Document, message_of, tasks_of
from mjumbe.states import Task
from tests.generated.documents.generator import OWN_NUMBER, Generator
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
        fields = {"mark": task["mark"], "mother": self._generator.number()}
        doc: Document = {"_id": str(task["mark"]), "type": "data_record", "fields": fields, "tasks": [task]}
        self._world.couch.main.put(copy.deepcopy(doc))
        self.authored[doc["_id"]] = doc

    def meddle(self) -> str:
        """One change of one of the documents; returns what it was."""
        kinds = [
            self.cancel,
            self.cancel,
            self.clear,
            self.mute,
            self.correct,
            self.redirect,
            self.put_off,
            self.hurry,
            self.add,
            self.remove,
        ]
        kinds += [self.copy, self.say_more]
        kind = self._chance.choice([*kinds, self.delete, self.bring, self.bring])
        among = [doc_id for doc_id in self.authored if doc_id in self._first or kind != self.bring]
        among = [doc_id for doc_id in among if doc_id not in self.torn or kind == self.bring]
        # More often one of the last, whose messages wait still.
        doc_id = self._chance.choice([self._chance.choice(among), *among[-3:]])
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
        number = self._chance.choice([self._generator.number(), self._generator.number(), OWN_NUMBER])

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
        """A task, before those that there are or behind them."""
        task = self._generator.added_task(f"added{self._changes}")
        place = self._chance.choice([0, 99])

        def edit(doc: Document, authored: Document) -> bool:
            _insert(doc, task, place)
            _insert(authored, task, place)
            return True

        self._edit(doc_id, edit)

    def copy(self, doc_id: str) -> None:
        """A message under the uuid of another, as who copies a task and changes only what it says."""
        task = self._generator.simple_task(f"copy{self._changes}")
        place = self._chance.choice([0, 99])

        def edit(doc: Document, authored: Document) -> bool:
            uuids = [said["uuid"] for one in tasks_of(doc) if (said := message_of(one)).get("uuid")]
            if not uuids:
                return False
            message_of(task)["uuid"] = uuids[0]
            _insert(doc, task, place)
            _insert(authored, task, place)
            return True

        self._edit(doc_id, edit)

    def say_more(self, doc_id: str) -> None:
        """A second message in a task."""
        more = message_of(self._generator.simple_task(f"more{self._changes}"))
        marks: list[str] = []  # of the task; one of them

        def change(task: Task) -> None:
            marks.append(str(task["mark"]))
            if message_of(task) and not _is_template(task) and task["mark"] == marks[0]:
                message_of(task)["mark"] = task["mark"]
                task["messages"].append({**more, "mark": f"more{self._changes}"})

        self._change(doc_id, change)

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

    def cancel(self, doc_id: str) -> None:
        """A person takes a message back by the API, which lets them unless it may have been sent."""
        for task in filter(_waits, tasks_of(self._world.doc(doc_id))):
            message_uuid = message_of(task).get("uuid")
            if isinstance(message_uuid, str) and self._is_alone(message_uuid):
                answer = self._world.post(f"/api/v1/messages/{quote(message_uuid, safe='')}/cancel")
                assert answer.status_code in (200, 409), answer.text
                self._first.pop(doc_id, None)
                if answer.status_code == 200:
                    cancelled = [one for one in tasks_of(self.authored[doc_id]) if one.get("mark") == task["mark"]]
                    cancelled[0]["state"] = "cleared"

    def bring(self, doc_id: str) -> None:
        """A phone brings what was written on it without network, over the document as it was at first. Perhaps it adds
        a message, or takes back those that have not gone yet."""
        brought = {**copy.deepcopy(self._first[doc_id]), "note": f"written on a phone {self._changes}"}
        what = self._chance.choice(["note", "add", "add", "take back"])
        if what == "add":
            task = self._generator.simple_task(f"brought{self._changes}", uuid=False)
            for doc in (brought, self.authored[doc_id]):
                _insert(doc, task, 99)
        if what == "take back":
            for task in filter(_waits, tasks_of(brought)):
                states.move(task, states.State.CLEARED, states.now(), "on a phone")
            for task in filter(_waits, tasks_of(self.authored[doc_id])):
                task["taken_back"] = True
        self.torn.add(doc_id)
        self._world.bring(brought, self._chance.choice([1, 2, 9]))

    def _is_alone(self, message_uuid: str) -> bool:
        return len(self._world.couch.main.view("mjumbe", "messages_by_uuid", key=message_uuid)) == 1

    def _change(self, doc_id: str, change: Change) -> None:
        """Change those messages of a document that wait, and of which no service was asked."""

        def edit(doc: Document, authored: Document) -> bool:
            waiting = {task["mark"] for task in tasks_of(doc) if _waits(task)}
            for task in (*tasks_of(doc), *tasks_of(authored)):
                if task.get("mark") in waiting:
                    change(task)
            return bool(waiting)

        self._edit(doc_id, edit)

    def _edit(self, doc_id: str, edit: Callable[[Document, Document], bool]) -> None:
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


def _insert(doc: Document, task: Task, place: int) -> None:
    tasks = list(doc.get("tasks", []))
    tasks.insert(place, copy.deepcopy(task))
    doc["tasks"] = tasks


def _waits(task: Task) -> bool:
    """Whether it is one message that waits. Of several in one task some may be gone."""
    alone = "mark" in task and "mark" not in message_of(task)
    return alone and task["state"] in ("pending", "scheduled") and not _was_asked(task)


def _was_asked(task: Task) -> bool:
    return any(entry["state"] == "forwarded-to-gateway" for entry in states.history(task))


def _is_template(task: Task) -> bool:
    return "message_key" in task or "message" in task
