"""People and programs around mjumbe: who orders messages, who writes to it, who joins and leaves."""

import base64
import json
import random
import time
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import requests

from mjumbe import documents, states
from mjumbe.couch import ConflictError, Couch, CouchError, UnavailableError
from tests import leaks
from tests.generated.services.books import AT, PHONE, SERVICES, TEXTBEE, VIBER, Books, Letter, Order
from tests.generated.services.callers import KEY, Call, Callers, Phone, form, signed
from tests.integration.processes import ADMIN, eventually

KEYWORD, REPLY = "HABARI", "Nzuri, asante sana kwa kuuliza"
SHORT_CODE, PRODUCT = "22000", "afya"
LATER = 8.0  # seconds, within which something is told once more


class People:
    """Everybody. `seconds`: how long it takes to write a thread's messages."""

    def __init__(self, books: Books, callers: Callers, seconds: float) -> None:
        self.books, self._callers, self._seconds = books, callers, seconds
        places = books.chance("numbers").sample(range(100_000), 5_000)
        self._numbers = (leaks.number(f"+2547{books.seed % 1000:03}{place:05}") for place in places)
        self.on_viber: dict[str, str] = {}  # the numbers of those who have Viber, by their ids there
        self._subscribers: list[str] = []

    # ---- before the rest

    def join(self, couch: Couch, count: int, patience: float) -> None:
        """People tell the bot who they are, by a word or a contact, and subscribe to a product; some leave it again."""
        for number in (next(self._numbers) for _ in range(count)):
            name = base64.b64encode(f"viber {number}".encode()).decode()
            self.on_viber[name] = number
            self.books.regulars.add(number)
            self._register(name, by_contact=self.books.chance("contact", number).random() < 0.5)
        numbers = [next(self._numbers) for _ in range(count)]
        self.books.regulars |= set(numbers)
        self._subscribers, left = numbers[count // 3 :], numbers[: count // 3]
        self._subscribe(numbers, "addition")
        eventually(lambda: _joined(couch) == set(numbers), patience)
        self._subscribe(left, "Deletion")
        eventually(lambda: _joined(couch) == set(self._subscribers), patience)
        eventually(lambda: all(_value(couch, f"viber-user:{number}") for number in self.on_viber.values()), patience)

    def _subscribe(self, numbers: Sequence[str], update: str) -> None:
        for number in numbers * 2:
            facts = {"phoneNumber": number, "shortCode": SHORT_CODE, "keyword": PRODUCT, "updateType": update}
            self._callers.call(form("subscription", facts, lambda: None))

    def _register(self, name: str, *, by_contact: bool) -> None:
        number = self.on_viber[name]
        if by_contact:
            contact = {"type": "contact", "contact": {"phone_number": number.removeprefix("+")}}
            self._callers.call(_viber_event("message", name, lambda: None, message=contact, sender={"id": name}))
        else:
            self.say(name, f"register+{number}")

    def register_again(self) -> None:
        """Whoever was taken out of the map is in it again."""
        for name, number in self.on_viber.items():
            self.say(name, f"register+{number} ")

    def say(self, name: str, text: str, *, times: int = 1) -> None:
        """Somebody writes to the bot."""
        letter = self.books.write(Letter(VIBER, name, text))
        message = {"type": "text", "text": leaks.text(text)}
        call = _viber_event("message", name, letter.was_heard, message=message, sender={"id": name})
        for _ in range(times):
            self._callers.call(call)

    # ---- messages out

    def write_messages(self, couch: Couch, count: int) -> None:
        """Alone, in bulks of one text, one text twice to one person; by the API or as documents."""
        chance, left, serial = self.books.chance("messages"), count, 0
        while left > 0:
            time.sleep(chance.random() * 3 * self._seconds / count)
            serial += 1
            if serial == 3:
                self._tell_subscribers(chance)
            size = chance.choice((1, 1, 2, chance.randrange(1, 8)))
            text = leaks.text(f"message {serial} @home for you" + chance.choice(("", " ü", " @@ contact.name")))
            numbers = [self._recipient(chance) for _ in range(size)]
            if size == 2 and chance.random() < 0.3:
                numbers[1] = numbers[0]
                self.books.regulars.add(numbers[0])
            facts = self._facts(chance, numbers)
            for number in numbers:
                self.books.order(Order((number, text), facts.get("service"), bool(facts.get("premium"))))
            written = [f"0{number[4:]}" if chance.random() < 0.1 else number for number in numbers]
            store = self._post if chance.random() < 0.5 else self._store
            store(chance, couch, written, text, facts)
            left -= size

    def write_one(self, couch: Couch) -> None:
        """A last message, when all the others are done with."""
        key = next(self._numbers), leaks.text("the last message of all")
        self.books.order(Order(key))
        doc = documents.outgoing_document(documents.new_task(*key, states.now()), states.now(), None)
        insist(lambda: _put_new(couch, doc))

    def _recipient(self, chance: random.Random) -> str:
        return chance.choice(list(self.on_viber.values())) if chance.random() < 0.5 else next(self._numbers)

    def _facts(self, chance: random.Random, numbers: Sequence[str]) -> dict[str, Any]:
        """What is said of a message besides."""
        facts: dict[str, Any] = {}
        if chance.random() < 0.5:
            reached = set(numbers) <= set(self.on_viber.values())
            facts["service"] = VIBER if reached else chance.choice([name for name in SERVICES if name != VIBER])
        if chance.random() < 0.2:
            facts["premium"] = True
        return facts

    def _post(
        self, chance: random.Random, couch: Couch, numbers: Sequence[str], text: str, facts: dict[str, Any]
    ) -> None:
        """By the API, until it says that it has them; at times once more."""
        self._insist(chance, [{"to": to, "message": text, "uuid": uuid.uuid4().hex, **facts} for to in numbers])

    def _tell_subscribers(self, chance: random.Random) -> None:
        text = leaks.text("message to all who subscribed")
        for number in self._subscribers:
            self.books.order(Order((number, text), AT))
        product = {"short_code": SHORT_CODE, "keyword": PRODUCT}
        self._insist(chance, {"subscribers": product, "message": text, "uuid": uuid.uuid4().hex})

    def _insist(self, chance: random.Random, body: Any) -> None:
        def post() -> None:
            answer = requests.post(f"{self._callers.url}/api/v1/messages", json=body, auth=ADMIN, timeout=60)
            if answer.status_code not in (202, 503):
                self.books.wonder(f"messages were answered {answer.status_code}: {answer.text[:200]}")
            if answer.status_code == 503:
                raise requests.ConnectionError

        insist(post)
        while chance.random() < 0.2:
            insist(post)

    def _store(
        self, chance: random.Random, couch: Couch, numbers: Sequence[str], text: str, facts: dict[str, Any]
    ) -> None:
        """As documents, until the store has them: one each or one for all, due now or soon; others change them too."""
        now = states.now()
        facts = {"via" if name == "service" else name: value for name, value in facts.items()}
        tasks = [documents.new_task(to, text, now, due=self._due(chance, now), **facts) for to in numbers]
        docs = [documents.outgoing_document(task, now, None) for task in tasks]
        if chance.random() < 0.3:
            docs = [{**docs[0], "tasks": tasks[::2], "scheduled_tasks": tasks[1::2]}]
        for doc in docs:
            insist(lambda doc=doc: _put_new(couch, doc))
        for turn in range(chance.choice((0, 0, 1, 3))):
            for doc in docs:
                insist(lambda doc=doc, turn=turn: _touch(couch, doc["_id"], turn))

    def _due(self, chance: random.Random, now: datetime) -> datetime | None:
        return now + timedelta(seconds=chance.random() * 5) if chance.random() < 0.2 else None

    # ---- messages in

    def write_letters(self, phones: Sequence[Phone], count: int) -> None:
        """Each by any service, again at once and later; some ask for an answer. Some leave Viber."""
        chance = self.books.chance("letters")
        for serial in range(count):
            time.sleep(chance.random() * 2 * self._seconds / count)
            text = leaks.text(f"{chance.choice((KEYWORD, 'jambo'))} letter {serial} @ü")
            service = chance.choice(SERVICES)
            if service == VIBER:
                self._speak(chance, text)
            else:
                self._receive(chance, phones, serial, service, text)

    def _speak(self, chance: random.Random, text: str) -> None:
        name = chance.choice(list(self.on_viber))
        self.say(name, text, times=chance.randrange(1, 4))
        if chance.random() < 0.2:
            self._callers.call(_viber_event("unsubscribed", name, lambda: None, user_id=name))
            if chance.random() < 0.5:
                self._callers.call(_viber_event("subscribed", name, lambda: None, user={"id": name}), 2.0)

    def _receive(self, chance: random.Random, phones: Sequence[Phone], serial: int, service: str, text: str) -> None:
        link_id = f"link-{serial}" if service == AT and chance.random() < 0.5 else None
        date = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
        letter = self.books.write(Letter(service, next(self._numbers), text, link_id, date))
        is_told = service not in (AT, TEXTBEE) or chance.random() < 0.6
        # Africa's Talking's inbox has ids of its own, so it must not show what is still on its way.
        place = self.books.show(letter) if service == TEXTBEE or not is_told else 0
        if service == PHONE:
            chance.choice(phones).receive(f"phone-letter-{serial}", letter)
        elif is_told:
            call = _call_of(letter, serial, place)
            self._callers.call(call)
            while chance.random() < 0.4:
                self._callers.call(call, chance.choice((0.0, chance.random() * LATER)))


def _call_of(letter: Letter, serial: int, place: int) -> Call:
    """The webhook by which a service tells of it."""
    heard, name = letter.was_heard, f"letter-{serial}"
    if letter.service == AT:
        fields = {"id": name, "from": letter.sender, "to": SHORT_CODE, "text": letter.text, "date": letter.date}
        return form("incoming-messages", fields | ({"linkId": letter.link_id} if letter.link_id else {}), heard)
    if letter.service == TEXTBEE:
        told = {"smsId": f"sms-{place}", "sender": letter.sender, "message": letter.text}
        return signed("textbee/events", "X-Signature", {"webhookEvent": "MESSAGE_RECEIVED", **told}, heard)
    body = json.dumps({"id": name, "from": letter.sender, "content": letter.text}).encode()
    headers = {"Content-Type": "application/json", "Authorization": f"Token {KEY}"}
    return Call("/api/v1/sms/rapidpro/incoming-messages", body, headers, heard, insists=False)


def _viber_event(event: str, name: str, heard: Callable[[], None], **facts: Any) -> Call:
    token = 2**62 + random.getrandbits(60)
    told = {"event": event, "timestamp": int(time.time() * 1000), "message_token": token, **facts}
    return signed("viber/events", "X-Viber-Content-Signature", told, heard)


def _joined(couch: Couch) -> set[str]:
    docs = couch.main.beginning_with(f"subscription:{SHORT_CODE}:{PRODUCT}:")
    return {doc["_id"].rpartition(":")[2] for doc in docs if doc.get("value") == "active"}


def _value(couch: Couch, doc_id: str) -> Any:
    return (couch.main.get(doc_id) or {}).get("value")


def _put_new(couch: Couch, doc: Any) -> None:
    try:
        couch.main.put(doc)
    except ConflictError:
        return  # it went through, only the answer was lost


def _touch(couch: Couch, doc_id: str, turn: int) -> None:
    """Another program changes a document, whatever becomes of its messages meanwhile."""
    doc = couch.main.get(doc_id)
    assert doc is not None
    couch.main.put({**doc, "touched": turn})


def insist(deed: Callable[[], None]) -> None:
    """Until it is done: a store, or an API, may be away."""
    while True:
        try:
            return deed()
        except (UnavailableError, CouchError, requests.RequestException):
            time.sleep(0.1)
