"""Those who call mjumbe: services with their webhooks, and phones that poll."""

import hashlib
import heapq
import hmac
import itertools
import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import requests

from tests import leaks
from tests.generated.services.books import PHONE, Books, Deed, Letter, Said, Word

KEY = leaks.secret("the-key-of-generated-services")
PATIENCE = 60.0  # seconds for one answer
PASSING = (502, 503, 504)


@dataclass
class Call:
    """One webhook. `heard` notes that it was acknowledged; with `insists` it is made again until it is."""

    path: str
    body: bytes
    headers: Mapping[str, str]
    heard: Callable[[], None]
    insists: bool = True


def form(path: str, fields: Mapping[str, str], heard: Callable[[], None], *, insists: bool = True) -> Call:
    """A webhook of Africa's Talking's, the key in its URL."""
    for name in ("from", "phoneNumber"):
        leaks.number(fields.get(name, ""))
    leaks.text(fields.get("text", ""))
    request = requests.Request("POST", "http://nowhere", data=fields).prepare()
    assert isinstance(request.body, str)
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    return Call(f"/api/v1/sms/africastalking/{path}?key={KEY}", request.body.encode(), kind, heard, insists)


def signed(path: str, header: str, fields: Mapping[str, Any], heard: Callable[[], None]) -> Call:
    """A webhook in JSON, signed by HMAC."""
    body = json.dumps(fields).encode()
    proof = hmac.new(KEY.encode(), body, hashlib.sha256).hexdigest()
    return Call(f"/api/v1/sms/{path}", body, {"Content-Type": "application/json", header: proof}, heard)


class Callers:
    """Make calls at their time, several at once, at whatever address the API has."""

    def __init__(self, books: Books, threads: int = 6) -> None:
        self.url = ""
        self._books = books
        self._waiting: list[tuple[float, int, Call]] = []
        self._serial = itertools.count()
        self._open = 0  # calls that are not over
        self._changed = threading.Condition()
        self._ends = False
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def call(self, call: Call, after: float = 0.0) -> None:
        """Make this call in `after` seconds; when all is healed, at once."""
        with self._changed:
            self._open += 1
            self._put(call, after)

    def _put(self, call: Call, after: float) -> None:
        heapq.heappush(self._waiting, (time.monotonic() + after, next(self._serial), call))
        self._changed.notify_all()

    def hurry(self) -> None:
        """Whatever waits for its time is called now."""
        with self._changed:
            self._waiting = [(0.0, serial, call) for _, serial, call in self._waiting]
            heapq.heapify(self._waiting)
            self._changed.notify_all()

    def are_done(self) -> bool:
        with self._changed:
            return self._open == 0

    def stop(self) -> None:
        with self._changed:
            self._ends = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(PATIENCE)

    def _next(self) -> Call | None:
        with self._changed:
            while not self._ends:
                wait = self._waiting[0][0] - time.monotonic() if self._waiting else None
                if wait is not None and wait <= 0:
                    return heapq.heappop(self._waiting)[2]
                self._changed.wait(wait)
        return None

    def _work(self) -> None:
        with requests.Session() as session:
            session.trust_env = False
            while (call := self._next()) is not None:
                if self._is_over(session, call):
                    with self._changed:
                        self._open -= 1
                else:
                    with self._changed:
                        self._put(call, 0.3)

    def _is_over(self, session: requests.Session, call: Call) -> bool:
        try:
            answer = session.post(self.url + call.path, data=call.body, headers=dict(call.headers), timeout=PATIENCE)
        except requests.RequestException:
            return not call.insists
        if answer.ok:
            call.heard()
            return True
        if answer.status_code not in PASSING:
            self._books.wonder(f"{call.path.partition('?')[0]} was answered {answer.status_code}: {answer.text[:200]}")
            return True
        return not call.insists


# ---- phones

PLANS = (
    ["UNSENT", "PENDING", "SENT", "DELIVERED"],
    ["PENDING", "SENT"],
    ["SENT", "PENDING", "DELIVERED", "SENT"],
    ["UNSENT"],
    ["FAILED"],
    ["PENDING", "FAILED"],
    ["FAILED", "DELIVERED"],
    ["PENDING", "MUMBLING", "SENT"],
    ["SENT", "MUMBLING", "DELIVERED"],
    ["SENT", "SENT", "DELIVERED", "FAILED"],
)
PHONE_STATES = {
    "UNSENT": "received-by-gateway",
    "PENDING": "forwarded-by-gateway",
    "SENT": "sent",
    "DELIVERED": "delivered",
    "FAILED": "failed",
}
MOST_LETTERS, MOST_UPDATES = 10, 20  # in a poll: what the app sends


@dataclass
class Phone:
    """An Android phone with the app, by a user of its own: sends what it is given once, tells it as often as asked."""

    books: Books
    callers: Callers  # knows the API's address
    login: tuple[str, str]
    every: float = 0.3
    _updates: list[Word] = field(default_factory=list)
    _letters: list[tuple[str, Letter]] = field(default_factory=list)
    _plans: dict[str, list[str]] = field(default_factory=dict)
    _ends: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def start(self) -> None:
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._ends.set()
        self._thread.join(PATIENCE)

    def receive(self, letter_id: str, letter: Letter) -> None:
        with self._lock:
            self._letters.append((letter_id, letter))

    def is_done(self) -> bool:
        with self._lock:
            return not self._letters and not self._updates

    def _run(self) -> None:
        with requests.Session() as session:
            session.trust_env, session.auth = False, self.login
            for turn in itertools.count():
                if self._ends.wait(self.every):
                    return
                self._poll(session, self.books.chance(self.login[0], turn))

    def _poll(self, session: requests.Session, chance: Any) -> None:
        with self._lock:
            letters, updates = self._letters[:MOST_LETTERS], self._updates[:MOST_UPDATES]
        body = {
            "messages": [{"id": name, "from": one.sender, "content": one.text} for name, one in letters],
            "updates": [{"id": word.ref, "status": word.status, "reason": "NO_CREDIT"} for word in updates],
        }
        try:
            answer = session.post(f"{self.callers.url}/api/sms", json=body, timeout=PATIENCE)
        except requests.RequestException:
            return
        if answer.status_code != 200:
            if answer.status_code not in PASSING:
                self.books.wonder(f"a poll was answered {answer.status_code}: {answer.text[:200]}")
            return
        for told in (*updates, *(letter for _, letter in letters)):
            told.heard = True
        if not self.books.healed.is_set() and chance.random() < 0.15:
            return  # the answer was lost on its way: all of it is told again, and nothing was given
        given = answer.json()["messages"]
        with self._lock:
            del self._letters[: len(letters)], self._updates[: len(updates)]
            for message in given:
                self._send(message)

    def _send(self, message: Mapping[str, str]) -> None:
        name, key = message["id"], (message["to"], message["content"])
        if name not in self._plans:
            self.books.ask([key])
            self.books.enter(Deed(PHONE, key, taken=True, said=Said.TAKEN, state="forwarded-to-gateway", ref=name))
            self._plans[name] = self.books.chance("phone", name).choice(PLANS)
            told = self._plans[name]
        else:
            told = self._plans[name][-1:]
        for status in told:
            word = Word(PHONE, name, status, PHONE_STATES.get(status))
            self._updates.append(self.books.tell(word))
