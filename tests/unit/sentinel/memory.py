"""A CouchDB in memory, as far as the sentinel's modules need one."""

import copy
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, cast

from mjumbe import phone_numbers, states
from mjumbe.couch import Couch, Row, Saved, UnavailableError
from mjumbe.documents import Document, due_of, is_incoming, milliseconds, tasks_of
from tests.unit import memory


class MemoryDatabase(memory.MemoryDatabase):
    """With views. `before_bulk` runs before each bulk write, `after_bulk` when it is stored; `refused` are never."""

    def __init__(self, name: str = "medic") -> None:
        super().__init__(name)
        self.refused: set[str] = set()
        self.before_bulk: Callable[[], None] = lambda: None
        self.after_bulk: Callable[[], None] = lambda: None
        self.views: dict[str, Callable[[Document], Iterable[tuple[Any, Any]]]] = {}
        self.purged: list[str] = []
        self.bulks = 0

    def bulk(self, docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        if not docs:
            return []
        self.bulks += 1
        self.before_bulk()
        saved = super().bulk(docs)
        self.after_bulk()
        return saved

    def _save(self, doc: Mapping[str, Any]) -> Saved:
        return Saved(doc["_id"], None, "forbidden", "no") if doc["_id"] in self.refused else super()._save(doc)

    def view(self, design: str, view: str, **query: Any) -> list[Row]:
        emitted = self.views[view]
        rows = [
            Row(doc["_id"], key, value, copy.deepcopy(doc) if query.get("include_docs") else None)
            for doc in self.docs.values()
            for key, value in emitted(doc)
        ]
        if "keys" in query:
            return [row for wanted in query["keys"] for row in rows if row.key == wanted]
        first, last = (_sortable(query.get(name)) for name in ("start_key", "end_key"))
        backwards = bool(query.get("descending"))
        if backwards:
            first, last = last, first
        found = [
            row
            for row in sorted(rows, key=lambda row: row.key, reverse=backwards)
            if (first is None or row.key >= first) and (last is None or row.key <= last)
        ]
        skip, limit = query.get("skip", 0), query.get("limit")
        return found[skip : None if limit is None else skip + limit]

    def view_queries(self, design: str, view: str, queries: Sequence[Mapping[str, Any]]) -> list[list[Row]]:
        return [self.view(design, view, **query) for query in queries]

    def purge(self, docs: Sequence[Mapping[str, Any]]) -> None:
        for doc in docs:
            self.purged.append(doc["_id"])
            self.docs.pop(doc["_id"], None)


class MemoryCouch:
    """The databases of one server."""

    def __init__(self) -> None:
        self.main = MemoryDatabase()
        self.callbacks = MemoryDatabase("medic-callbacks")
        self.sentinel = MemoryDatabase("medic-sentinel")

    def as_couch(self) -> Couch:
        return cast(Couch, self)


def by_reference(doc: Document) -> Iterable[tuple[Any, Any]]:
    """The view mjumbe/messages_by_gateway_ref."""
    for task in tasks_of(doc):
        refs = {holder.get("gateway_ref") for holder in (task, *task["state_history"])}
        yield from ((ref, task["messages"][0]["uuid"]) for ref in refs if ref)


def _sortable(key: Any) -> Any:
    """An object in a key comes after every number, as in CouchDB."""
    return [math.inf if part == {} else part for part in key] if isinstance(key, list) else key


def due(doc: Document) -> Iterable[tuple[Any, Any]]:
    """The part of the view mjumbe/due that tells what waits."""
    for task in tasks_of(doc):
        left = task["state"] == "pending" and task.get("service") == "medic-gateway"
        state = ("bound" if task.get("via") else "assigned") if left else task["state"]
        value = {"uuid": task["messages"][0]["uuid"], "service": task.get("service"), "via": task.get("via")}
        yield [state, due_of(task, doc)], value
        if is_incoming(doc) and state == "pending":
            yield ["reply", due_of(task, doc)], value


def in_doubt(doc: Document) -> Iterable[tuple[Any, Any]]:
    """The part of the view mjumbe/due that tells what is in doubt."""
    for task in tasks_of(doc):
        if task.get("in_doubt") and task["state"] in ("pending", "forwarded-to-gateway"):
            message = task["messages"][0]
            yield (
                ["in-doubt", re.sub(r"\D", "", message["to"])],
                {"uuid": message["uuid"], "service": task.get("service")},
            )


def by_phone(doc: Document) -> Iterable[tuple[Any, Any]]:
    """The part of the view mjumbe/messages that lists a person's outgoing messages."""
    for task in tasks_of(doc):
        message = task["messages"][0]
        yield (
            ["phone", phone_numbers.ending(message["to"]), due_of(task, doc) or milliseconds(states.now())],
            message["uuid"],
        )


def away() -> None:
    """CouchDB is away."""
    raise UnavailableError("CouchDB is away")
