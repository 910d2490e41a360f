"""Changes that were read and are still to be processed."""

from collections import deque
from collections.abc import Iterable
from itertools import islice

from mjumbe.couch import Change, standing
from mjumbe.documents import INCOMING, Document

CAPACITY = 20_000

Waiting = dict[str, int]  # ids and their numbers, in their order


class Backlog:
    """The changes behind a place in the feed, those of people who wrote apart: in a broadcast they do not wait for
    thousands of others. For one thread."""

    def __init__(self, seq: str) -> None:
        """`seq` is where the feed is read from."""
        self.read = seq
        """The sequence until which changes were read."""
        self._people: Waiting = {}
        self._others: Waiting = {}
        self._docs: dict[str, Document] = {}  # that came with their changes
        self._revs: dict[str, str] = {}
        self._added = 0
        self._marks = deque([(0, seq)])  # how many had been added, and the sequence until which they were read

    def add(self, changes: Iterable[Change], seq: str) -> None:
        """Keep all that is to be processed of what was read until `seq`; an id that waits already keeps its place."""
        for change in changes:
            self._keep(change)
        self.read = seq
        self._marks.append((self._added, seq))

    def add_people(self, changes: Iterable[Change]) -> None:
        """Keep those who wrote, of changes that will be read again."""
        for change in changes:
            if _is_from_a_person(change):
                self._keep(change)

    def _keep(self, change: Change) -> None:
        waiting = self._people if _is_from_a_person(change) else self._others
        waiting.setdefault(change.id, self._added)
        self._added += 1
        self._revs[change.id] = change.rev
        if change.doc is not None:
            self._docs[change.id] = change.doc

    def people(self, limit: int) -> dict[str, Document | None]:
        """Up to `limit` that people wrote, by id, with the documents that came with their changes."""
        return self._first(self._people, limit)

    def others(self, limit: int) -> dict[str, Document | None]:
        """Up to `limit` of the rest, likewise."""
        return self._first(self._others, limit)

    def is_as_new(self, doc: Document) -> bool:
        """Whether a document that waits is no older than its change."""
        return standing(doc["_rev"]) >= standing(self._revs[doc["_id"]])

    def _first(self, waiting: Waiting, limit: int) -> dict[str, Document | None]:
        return {doc_id: self._docs.get(doc_id) for doc_id in islice(waiting, limit)}

    def finish(self, ids: Iterable[str]) -> None:
        """There is nothing to be done about these, or no more."""
        for doc_id in ids:
            self._people.pop(doc_id, None)
            self._others.pop(doc_id, None)
            self._docs.pop(doc_id, None)
            self._revs.pop(doc_id, None)

    def done(self) -> str:
        """The sequence until which nothing waits any more."""
        oldest = min(_oldest(self._people, self._added), _oldest(self._others, self._added))
        while len(self._marks) > 1 and self._marks[1][0] <= oldest:
            self._marks.popleft()
        return self._marks[0][1]

    def is_empty(self) -> bool:
        """Whether nothing waits."""
        return not self._people and not self._others

    def is_full(self) -> bool:
        """Whether no more is to be read for now."""
        return len(self._people) + len(self._others) >= CAPACITY

    def has_people(self) -> bool:
        """Whether somebody who wrote waits."""
        return bool(self._people)


def _oldest(waiting: Waiting, none: int) -> int:
    return next(iter(waiting.values()), none)


def _is_from_a_person(change: Change) -> bool:
    return change.id.startswith(INCOMING)
