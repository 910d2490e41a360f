"""What happened: every service request, accepted message and callback, and exact counts of them."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from sys import intern
from typing import Any, Generic, Protocol, TypeVar

from simulator.bell import Bell

Headers = tuple[tuple[str, str], ...]
_HEADER_SETS = 1_000  # clients repeat themselves, so equal sets of headers are kept once
_DISTINCT_PER_ENTRY = 10


def iso(seconds: float) -> str:
    """Seconds since the epoch as ISO 8601 in UTC with milliseconds."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(slots=True)
class ServiceRequest:
    """A request that somebody made to the service. Filled in as more of it is read and answered."""

    n: int
    received: float
    method: str
    path: str
    headers: Headers
    key: str = "missing"  # or "right" or "wrong"; the key itself is never kept
    to: tuple[str, ...] = ()
    message: str | None = None
    sender: str | None = None
    link_id: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)  # what else was asked for, as it was sent
    status: int | None = None  # None until it is answered, and for ever if it never is
    fault: str | None = None  # what was done to it instead of an ordinary answer
    message_ids: tuple[str, ...] = ()

    def shown(self) -> dict[str, Any]:
        """The request as JSON."""
        return {
            "n": self.n,
            "at": iso(self.received),
            "received_ms": round(self.received * 1000, 3),
            "method": self.method,
            "path": self.path,
            "to": list(self.to),
            "message": self.message,
            "from": self.sender,
            "link_id": self.link_id,
            "options": dict(self.options),
            "headers": dict(self.headers),
            "key": self.key,
            "status": self.status,
            "fault": self.fault,
            "message_ids": list(self.message_ids),
        }


@dataclass(slots=True)
class AcceptedMessage:
    """A message the service took for one recipient. `status` is the last report's, "Accepted" before the first."""

    n: int
    accepted: float
    to: str
    message: str
    message_id: str
    sender: str | None
    link_id: str | None
    status: str = "Accepted"

    def shown(self) -> dict[str, Any]:
        """The message as JSON."""
        return {
            "n": self.n,
            "at": iso(self.accepted),
            "accepted_ms": round(self.accepted * 1000, 3),
            "to": self.to,
            "message": self.message,
            "message_id": self.message_id,
            "from": self.sender,
            "link_id": self.link_id,
            "status": self.status,
        }


@dataclass(slots=True)
class CallbackPost:
    """One attempt to post a callback, recorded when it is over."""

    n: int
    sent: float
    kind: str
    url: str  # masked
    fields: dict[str, Any]
    attempt: int
    status: int | None  # None when no answer came: then `error` says why
    answer: str | None  # the beginning of the answer's body
    error: str | None
    took_ms: float

    def shown(self) -> dict[str, Any]:
        """The attempt as JSON."""
        return {
            "n": self.n,
            "at": iso(self.sent),
            "sent_ms": round(self.sent * 1000, 3),
            "kind": self.kind,
            "url": self.url,
            "fields": self.fields,
            "attempt": self.attempt,
            "status": self.status,
            "answer": self.answer,
            "error": self.error,
            "took_ms": round(self.took_ms, 3),
        }


class _Numbered(Protocol):
    n: int


T = TypeVar("T", bound=_Numbered)


class Ring(Generic[T]):
    """The last `size` entries; `total` counts all since the start or the last `clear`. Entries are numbered from 1."""

    def __init__(self, size: int) -> None:
        self.total = 0
        self._entries: deque[T] = deque(maxlen=size)

    def add(self, entry: T) -> T:
        """Keep `entry`, give it the next number, and return it."""
        self.total += 1
        entry.n = self.total
        self._entries.append(entry)
        return entry

    def since(self, n: int, limit: int) -> list[T]:
        """At most `limit` entries numbered above `n`, oldest first."""
        oldest = self.total - len(self._entries) + 1
        start = max(n + 1 - oldest, 0)
        return list(islice(self._entries, start, start + limit))

    def last(self, limit: int) -> list[T]:
        """The newest `limit` entries, oldest of them first."""
        return self.since(self.total - limit, limit)

    def clear(self) -> None:
        """Forget everything and number from 1 again."""
        self.total = 0
        self._entries.clear()


@dataclass
class _Counts:
    accepted: int = 0
    distinct: set[int] = field(default_factory=set)  # hashes of (to, text)
    distinct_complete: bool = True
    in_flight: int = 0
    max_in_flight: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    callbacks: dict[str, Counter[str]] = field(default_factory=dict)


class Record:
    """The record of one simulator. Every change rings the bell."""

    def __init__(self, size: int, bell: Bell) -> None:
        self._size = size
        self._bell = bell
        self.requests: Ring[ServiceRequest] = Ring(size)
        self.messages: Ring[AcceptedMessage] = Ring(size)
        self.callbacks: Ring[CallbackPost] = Ring(size)
        self._counts = _Counts()
        self._header_sets: dict[Headers, Headers] = {}

    def arrived(self, method: str, path: str, headers: Headers) -> ServiceRequest:
        """Record a request as it arrives, before its body is read."""
        if len(self._header_sets) >= _HEADER_SETS:
            self._header_sets.clear()
        headers = self._header_sets.setdefault(headers, headers)
        request = self.requests.add(ServiceRequest(0, time.time(), method, intern(path), headers))
        self._bell.ring()
        return request

    @contextmanager
    def in_flight(self) -> Iterator[None]:
        """Count a request as in flight while the block runs."""
        counts = self._counts
        counts.in_flight += 1
        counts.max_in_flight = max(counts.max_in_flight, counts.in_flight)
        try:
            yield
        finally:
            counts.in_flight -= 1

    def answered(self, request: ServiceRequest, status: int) -> None:
        """Record that `request` was answered with the HTTP `status`."""
        request.status = status
        self._counts.statuses[str(status)] += 1
        self._bell.ring()

    def unanswered(self, request: ServiceRequest, fault: str) -> None:
        """Record that `request` gets no answer, and why."""
        request.fault = fault
        self._counts.statuses["none"] += 1
        self._bell.ring()

    def accept(
        self, to: str, message: str, message_id: str, sender: str | None, link_id: str | None
    ) -> AcceptedMessage:
        """Record a message the service took."""
        counts = self._counts
        counts.accepted += 1
        if len(counts.distinct) < self._size * _DISTINCT_PER_ENTRY:
            counts.distinct.add(hash((to, message)))
        else:
            counts.distinct_complete = False
        accepted = self.messages.add(AcceptedMessage(0, time.time(), to, message, message_id, sender, link_id))
        self._bell.ring()
        return accepted

    def reported(self, message: AcceptedMessage, status: str) -> None:
        """Record that the network now says `status` about `message`."""
        message.status = status
        self._bell.ring()

    def posted(self, post: CallbackPost) -> None:
        """Record an attempt to post a callback."""
        answers = self._counts.callbacks.setdefault(post.kind, Counter())
        answers[str(post.status) if post.status is not None else "none"] += 1
        self.callbacks.add(post)
        self._bell.ring()

    def counts(self) -> dict[str, Any]:
        """The exact counts since the start or the last `clear`, as JSON.

        `distinct` and `duplicates` are null once more different messages were accepted than are told apart (ten
        times the record's size).
        """
        counts = self._counts
        distinct = len(counts.distinct) if counts.distinct_complete else None
        return {
            "requests": self.requests.total,
            "answers": dict(counts.statuses),
            "accepted": counts.accepted,
            "distinct": distinct,
            "duplicates": None if distinct is None else counts.accepted - distinct,
            "in_flight": counts.in_flight,
            "max_in_flight": counts.max_in_flight,
            "callbacks": {
                kind: {"posted": answers.total(), "answers": dict(answers)}
                for kind, answers in counts.callbacks.items()
            },
        }

    def clear(self) -> None:
        """Forget everything; requests in flight are still counted as in flight."""
        in_flight = self._counts.in_flight
        for ring in (self.requests, self.messages, self.callbacks):
            ring.clear()
        self._counts.accepted = 0
        self._counts.distinct.clear()
        self._counts.distinct_complete = True
        self._counts.max_in_flight = in_flight
        self._counts.statuses.clear()
        self._counts.callbacks.clear()
        self._bell.ring()
