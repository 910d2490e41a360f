"""Which service each message goes by: real services and outbox, gateways and a store in memory, a clock of ours."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mjumbe import documents, gateways, settings, states
from mjumbe.documents import Document, IncomingMessage
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.gateways.base import Batch, Check, Failure, Gateway, Outcome
from mjumbe.gateways.viber import NOT_REGISTERED
from mjumbe.live_settings import LiveSettings
from mjumbe.states import State, Task
from sentinel.echoes import Echoes
from sentinel.outbox import Heard, Outbox
from sentinel.pipeline import due_messages
from sentinel.recent import RecentMessages
from sentinel.registers import OPTED_OUT, Entry, Registers
from sentinel.service import BREAKER_FAILURES, Service
from sentinel.services import Services
from tests.unit.sentinel.memory import MemoryCouch

AT, TEXTBEE, VIBER = "africas-talking", "textbee", "viber"
BROKEN = Outcome("HTTP 500", failure=Failure.RETRY)
ASLEEP = Outcome("DoNotDisturbRejection", failure=Failure.RETRY, personal=True)
NO_BALANCE = Outcome("InsufficientBalance", failure=Failure.CONFIGURATION)
USED_UP = Outcome("daily limit", failure=Failure.QUOTA, retry_at=states.now() + timedelta(hours=12))
LOST = Outcome("no answer in time", failure=Failure.AMBIGUOUS)
REFUSED = Outcome("InvalidPhoneNumber", State.FAILED, Failure.PERMANENT)


class Desk(Gateway):
    """One service: what it was asked, what it answers, and whom it reaches."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.asked: list[Batch] = []
        self.answer: Callable[[str], Outcome] = lambda number: Outcome("Sent", State.SENT, ref=f"{name} {number}")
        self.reached: Callable[[str], bool] = lambda number: True

    def always(self, outcome: Outcome) -> None:
        self.answer = lambda number: outcome

    @property
    def numbers(self) -> list[str]:
        return [number for batch in self.asked for number in batch.recipients]

    def send(self, batch: Batch) -> list[Outcome]:
        self.asked.append(batch)
        return [self.answer(number) for number in batch.recipients]

    def reaches(self, number: str) -> bool:
        return self.reached(number)

    def check(self) -> Check:
        return Check(True, "fine")


class Lab:
    """Services at desks, and an outbox driven by hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **sms: Any) -> None:
        self.now = 1000.0
        self.desks = {name: Desk(name) for name in (AT, TEXTBEE, VIBER)}
        at_desks = {
            name: replace(
                gateways.SERVICES[name],
                missing=lambda _: [],
                build=lambda _, name=name: self.desks[name],  # type: ignore[misc]
            )
            for name in self.desks
        }
        monkeypatch.setattr(gateways, "SERVICES", at_desks)
        for module in ("sentinel.service", "sentinel.services"):
            monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: self.now))
        self.couch = MemoryCouch()
        self.live = SimpleNamespace(current=None)
        self.values: dict[str, Any] = {}
        self.set(outgoing_service=AT, fallback_services=[TEXTBEE], africas_talking={"batch_size": 1}, **sms)
        self.registers = Registers.of(self.couch.main)
        self.services = Services(lambda: self.live.current, lambda _: "key", lambda: None)
        self.services.refresh()
        self.outbox = Outbox(
            Echoes(self.couch.as_couch().main),
            cast(LiveSettings, self.live),
            self.services,
            RecentMessages(),
            self.registers,
            Heard(lambda refs: None, lambda numbers, service: None, lambda numbers, service: None),
            lambda: None,
        )

    def set(self, **sms: Any) -> None:
        self.values = settings.merge(self.values, {"sms": sms})
        self.live.current = settings.parse(self.values)

    def later(self, seconds: float) -> None:
        self.now += seconds

    def service(self, name: str) -> Service:
        return self.services._services[name]

    def offer(self, *docs: Document) -> None:
        self.couch.main.store(*docs)
        for doc in docs:
            stored = self.couch.main.get(doc["_id"])
            assert stored is not None
            self.outbox.offer(due_messages(stored))

    def run(self) -> None:
        """Send all that can be sent now, and let each round of requests finish before the next is started."""
        for _ in range(200):
            started = self.outbox._dispatch()
            self.outbox._workers.shutdown(wait=True)
            self.outbox._workers = ThreadPoolExecutor(4)
            if not started:
                return
        raise AssertionError("messages go round and round")

    def task(self, doc_id: str) -> Task:
        found: Task = self.couch.main.docs[doc_id]["tasks"][0]
        return found

    def by(self) -> dict[str, list[str]]:
        """Who was asked for which numbers."""
        return {name: sorted(desk.numbers) for name, desk in self.desks.items() if desk.asked}

    def close(self) -> None:
        self.outbox._workers.shutdown(wait=True)
        self.outbox._writer.close()


@pytest.fixture
def lab(monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    made = Lab(monkeypatch)
    yield made
    made.close()


def number(n: int) -> str:
    return f"+2547110000{n:02}"


def doc(n: int, **facts: Any) -> Document:
    """A message to the nth number, of a text of its own."""
    now = states.now()
    task = documents.new_task(number(n), f"text {n}", now, **facts)
    return documents.outgoing_document(task, now, None) | {"_id": f"d{n}"}


def services_in(task: Task) -> list[str]:
    """The services that claimed a message, in order."""
    return [entry["service"] for entry in task["state_history"] if entry["state"] == "forwarded-to-gateway"]


# ---- to the next service, or not


@pytest.mark.parametrize(("outcome", "attempts"), [(BROKEN, 2), (NO_BALANCE, 1), (USED_UP, 1)])
def test_what_a_service_surely_did_not_take_goes_to_the_next_at_once(lab: Lab, outcome: Outcome, attempts: int) -> None:
    lab.desks[AT].always(outcome)
    lab.offer(doc(1))
    lab.run()
    assert lab.by() == {AT: [number(1)], TEXTBEE: [number(1)]}
    task = lab.task("d1")
    assert (task["state"], task["service"], task["attempts"]) == ("sent", TEXTBEE, attempts)
    assert services_in(task) == [AT, TEXTBEE]


@pytest.mark.parametrize(
    ("outcome", "state"),
    [(LOST, "pending"), (ASLEEP, "pending"), (REFUSED, "failed"), (Outcome("ok", State.SENT), "sent")],
)
def test_what_it_took_or_will_never_take_goes_to_no_other(lab: Lab, outcome: Outcome, state: str) -> None:
    lab.desks[AT].always(outcome)
    lab.offer(doc(1))
    lab.run()
    assert lab.by() == {AT: [number(1)]}
    assert lab.task("d1")["state"] == state


def test_each_recipient_of_a_request_goes_its_own_way(lab: Lab) -> None:
    lab.set(africas_talking={"batch_size": 10})
    lab.later(3)
    lab.services.refresh()
    answers = {number(1): BROKEN, number(2): REFUSED, number(3): Outcome("Sent", State.SENT, ref="r3"), number(4): LOST}
    lab.desks[AT].answer = lambda to: answers[to]
    docs = [doc(n) for n in (1, 2, 3, 4)]
    for each in docs:
        each["tasks"][0]["messages"][0]["message"] = "one text"
    lab.offer(*docs)
    lab.run()
    assert lab.by() == {AT: [number(n) for n in (1, 2, 3, 4)], TEXTBEE: [number(1)]}
    assert [lab.task(f"d{n}")["state"] for n in (1, 2, 3, 4)] == ["sent", "failed", "sent", "pending"]


def test_a_message_bound_to_a_service_goes_by_no_other(lab: Lab) -> None:
    lab.desks[AT].always(BROKEN)
    lab.offer(doc(1, via=AT))
    lab.run()
    assert lab.by() == {AT: [number(1)]}
    assert lab.task("d1")["retry_at"]


def test_when_all_fail_each_is_asked_once_before_a_wait(lab: Lab) -> None:
    for desk in lab.desks.values():
        desk.always(BROKEN)
    lab.offer(doc(1))
    lab.run()
    task = lab.task("d1")
    assert services_in(task) == [AT, TEXTBEE]
    assert (task["state"], task["attempts"]) == ("pending", 2)
    assert task["retry_at"]
    assert not lab.outbox.knows(("d1", task["messages"][0]["uuid"])), "the clock brings it again, with every service"


def test_attempts_are_bounded_over_all_services(lab: Lab) -> None:
    lab.set(max_attempts=1)
    lab.desks[AT].always(BROKEN)
    lab.offer(doc(1))
    lab.run()
    assert lab.by() == {AT: [number(1)]}
    assert lab.task("d1")["state_details"] == "gave up after 1 attempts: HTTP 500"


def test_a_failure_of_the_next_is_not_the_end_of_the_first(lab: Lab) -> None:
    """Africa's Talking stumbles once, then TextBee's day is used up: what TextBee was to take goes all the same."""
    lab.set(textbee={"concurrency": 1})
    lab.later(3)
    lab.services.refresh()
    stumbles = {number(n) for n in range(4)}

    def stumble(to: str) -> Outcome:
        if to in stumbles:
            stumbles.remove(to)
            return BROKEN
        return Outcome("Sent", State.SENT, ref=f"r{to}")

    lab.desks[AT].answer = stumble
    lab.desks[TEXTBEE].always(USED_UP)
    lab.offer(*(doc(n) for n in range(4)))
    lab.run()
    assert not lab.service(AT).status.held
    assert lab.service(TEXTBEE).status.held
    assert [lab.task(f"d{n}")["state"] for n in range(4)] == ["sent"] * 4


def test_what_is_in_doubt_at_one_service_goes_by_the_next(lab: Lab) -> None:
    """Else the last message that waits would be every probe of a service that hangs, until its attempts are used up."""
    lab.desks[AT].always(LOST)
    lab.offer(doc(1))
    lab.run()
    task = lab.task("d1")
    assert (services_in(task), task["in_doubt"]) == ([AT], True)
    lab.couch.main.docs["d1"]["tasks"][0].pop("retry_at")
    stored = lab.couch.main.get("d1")
    assert stored is not None
    lab.outbox.offer(due_messages(stored))
    lab.run()
    assert services_in(lab.task("d1")) == [AT, TEXTBEE]
    assert lab.task("d1")["state"] == "sent"


# ---- left to the phone gateway


@pytest.fixture
def phone_next(lab: Lab) -> Lab:
    lab.set(fallback_services=[PHONE_GATEWAY])
    return lab


def look_again(lab: Lab, doc_id: str) -> None:
    """As the clock brings it."""
    stored = lab.couch.main.get(doc_id)
    assert stored is not None
    lab.outbox.offer(due_messages(stored))
    lab.run()


def test_what_was_left_to_the_phone_goes_by_the_service_that_works_again(phone_next: Lab) -> None:
    phone_next.desks[AT].always(NO_BALANCE)
    phone_next.offer(*(doc(n) for n in range(5)))
    phone_next.run()
    assert {phone_next.task(f"d{n}")["service"] for n in range(5)} == {PHONE_GATEWAY}
    phone_next.desks[AT].always(Outcome("Sent", State.SENT, ref="r"))
    phone_next.later(61)
    for n in range(5):
        look_again(phone_next, f"d{n}")
    assert [phone_next.task(f"d{n}")["state"] for n in range(5)] == ["sent"] * 5


def test_what_a_phone_was_given_stays_with_it(phone_next: Lab) -> None:
    phone_next.desks[AT].always(NO_BALANCE)
    phone_next.offer(doc(1))
    phone_next.run()
    phone_next.later(61)
    phone_next.desks[AT].always(Outcome("Sent", State.SENT, ref="r"))
    phone_next.desks[AT].asked.clear()
    waiting = phone_next.couch.main.get("d1")
    assert waiting is not None
    phone_next.outbox.offer(due_messages(waiting))
    states.claim(phone_next.couch.main.docs["d1"]["tasks"][0], states.now(), PHONE_GATEWAY, "a phone")
    phone_next.couch.main.store(phone_next.couch.main.docs["d1"])  # a phone polled after it was offered
    phone_next.run()
    assert phone_next.by() == {}
    assert phone_next.task("d1")["claim"] == "a phone"


def test_what_failed_before_it_was_left_to_the_phone_is_not_tried_again_at_once(phone_next: Lab) -> None:
    """A service that fails with this message only would use up its attempts while the phone is on its way."""
    phone_next.desks[AT].always(BROKEN)
    phone_next.offer(doc(1))
    phone_next.run()
    assert (phone_next.task("d1")["service"], phone_next.task("d1")["attempts"]) == (PHONE_GATEWAY, 1)
    assert phone_next.task("d1")["retry_at"]


def test_whom_a_service_cannot_reach_is_left_to_the_phone_for_a_while(phone_next: Lab) -> None:
    phone_next.set(outgoing_service=VIBER)
    phone_next.desks[VIBER].reached = lambda to: to == number(2)
    phone_next.offer(doc(1))
    phone_next.run()
    assert phone_next.outbox.leaves_to_phone(("d1", phone_next.task("d1")["messages"][0]["uuid"]))
    bulks = phone_next.couch.main.bulks
    look_again(phone_next, "d1")
    assert phone_next.couch.main.bulks == bulks, "nothing was written"


def test_of_whom_was_left_to_the_phone_no_more_is_remembered_than_for_that_while(
    phone_next: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    phone_next.set(outgoing_service=VIBER)
    phone_next.desks[VIBER].reached = lambda to: False
    monkeypatch.setattr("sentinel.outbox.LEFT_SECONDS", 0.0)
    for n in (1, 2):
        phone_next.offer(doc(n))
        phone_next.run()
    assert [doc_id for doc_id, _ in phone_next.outbox._left] == ["d2"]


def test_whom_it_reaches_is_not(phone_next: Lab) -> None:
    phone_next.desks[AT].always(NO_BALANCE)
    phone_next.offer(doc(1))
    phone_next.run()
    look_again(phone_next, "d1")
    assert phone_next.task("d1")["service"] == PHONE_GATEWAY
    assert not phone_next.outbox.leaves_to_phone(("d1", phone_next.task("d1")["messages"][0]["uuid"]))


def test_different_texts_are_left_to_the_phone_in_one_write(lab: Lab) -> None:
    lab.set(outgoing_service=PHONE_GATEWAY, fallback_services=[])
    lab.offer(*(doc(n) for n in range(50)))
    before = lab.couch.main.bulks
    lab.run()
    assert lab.couch.main.bulks == before + 1
    assert {lab.task(f"d{n}")["service"] for n in range(50)} == {PHONE_GATEWAY}


# ---- whom a service cannot reach


@pytest.fixture
def viber_first(lab: Lab) -> Lab:
    lab.set(outgoing_service=VIBER, fallback_services=[AT, TEXTBEE])
    lab.desks[VIBER].reached = lambda to: to == number(1)
    return lab


def test_only_whom_it_reaches(viber_first: Lab) -> None:
    viber_first.offer(*(doc(n) for n in range(3)))
    viber_first.run()
    assert viber_first.by() == {VIBER: [number(1)], AT: [number(0), number(2)]}
    assert viber_first.task("d0")["attempts"] == 1, "passing a service over is no attempt"


def test_whom_it_does_not_reach_is_not_given_to_it_when_the_others_fail(viber_first: Lab) -> None:
    for name in (AT, TEXTBEE):
        viber_first.desks[name].always(NO_BALANCE)
    viber_first.offer(doc(0))
    viber_first.run()
    assert viber_first.by() == {AT: [number(0)], TEXTBEE: [number(0)]}
    assert viber_first.task("d0")["state"] == "pending"


@pytest.mark.parametrize("others", [[AT], []])
def test_who_leaves_the_bot_while_a_message_is_on_its_way_gets_it_otherwise(lab: Lab, others: list[str]) -> None:
    def leave(number: str) -> Outcome:
        lab.desks[VIBER].reached = lambda number: False
        return NOT_REGISTERED

    lab.set(outgoing_service=VIBER, fallback_services=others)
    lab.desks[VIBER].answer = leave
    lab.offer(doc(0))
    lab.run()
    task = lab.task("d0")
    assert services_in(task) == [VIBER, *others]
    after = ("sent", 1, "Sent") if others else ("pending", 0, "no service reaches this number: viber cannot")
    assert (task["state"], task["attempts"], task["state_details"]) == after


def test_whom_nobody_reaches_is_set_aside(lab: Lab) -> None:
    lab.set(outgoing_service=VIBER, fallback_services=[])
    lab.desks[VIBER].reached = lambda to: False
    lab.offer(doc(1))
    lab.run()
    task = lab.task("d1")
    assert lab.by() == {}
    assert (task["state"], task["state_details"]) == ("pending", "no service reaches this number: viber cannot")
    assert task["retry_at"]


def test_a_service_that_nobody_knows_is_said(lab: Lab) -> None:
    lab.offer(doc(1, via="africastalking"))
    lab.run()
    task = lab.task("d1")
    says = "`via` is 'africastalking'; expected one of africas-talking, textbee, viber, rapidpro, medic-gateway"
    assert lab.by() == {}
    assert (task["state"], task["state_details"]) == ("pending", says)
    assert task["retry_at"]


# ---- held, over its rate, busy


def test_a_held_service_gets_single_probes(lab: Lab) -> None:
    lab.desks[AT].always(NO_BALANCE)
    lab.offer(doc(1))
    lab.run()
    lab.later(61)
    lab.offer(*(doc(n) for n in range(2, 10)))
    lab.run()
    assert lab.by()[AT] == [number(1), number(2)]
    assert lab.by()[TEXTBEE] == [number(n) for n in range(1, 10)], "the probe's message too"


def test_it_is_first_again_when_a_probe_went_well(lab: Lab) -> None:
    lab.desks[AT].always(NO_BALANCE)
    lab.offer(doc(1))
    lab.run()
    lab.desks[AT].always(Outcome("Sent", State.SENT, ref="r"))
    lab.later(61)
    lab.offer(doc(2))
    lab.run()
    lab.offer(*(doc(n) for n in range(3, 6)))
    lab.run()
    assert lab.by() == {AT: [number(n) for n in range(1, 6)], TEXTBEE: [number(1)]}


def test_the_breaker_opens_for_the_rest(lab: Lab) -> None:
    lab.set(africas_talking={"concurrency": 1})
    lab.later(3)
    lab.services.refresh()
    lab.desks[AT].always(BROKEN)
    lab.offer(*(doc(n) for n in range(30)))
    lab.run()
    assert len(lab.by()[AT]) == BREAKER_FAILURES
    assert lab.by()[TEXTBEE] == [number(n) for n in range(30)]


def test_what_exceeds_the_rate_goes_by_the_next(lab: Lab) -> None:
    lab.set(africas_talking={"max_per_second": 3})
    lab.later(3)
    lab.services.refresh()
    lab.offer(*(doc(n) for n in range(10)))
    lab.run()
    assert (len(lab.by()[AT]), len(lab.by()[TEXTBEE])) == (3, 7)


def test_what_exceeds_the_rate_of_the_only_service_waits(lab: Lab) -> None:
    lab.set(fallback_services=[], africas_talking={"max_per_second": 3})
    lab.later(3)
    lab.services.refresh()
    lab.offer(*(doc(n) for n in range(10)))
    lab.run()
    assert len(lab.by()[AT]) == 3
    lab.later(1)
    lab.run()
    assert len(lab.by()[AT]) == 6
    assert not lab.service(AT).status.held


def test_a_busy_service_is_waited_for(lab: Lab) -> None:
    for _ in range(16):
        lab.service(AT).started()
    lab.offer(doc(1))
    lab.run()
    assert lab.by() == {}
    lab.service(AT).finished()
    lab.run()
    assert lab.by() == {AT: [number(1)]}


# ---- changes while messages are due


def held(lab: Lab) -> None:
    """Nothing takes the messages."""
    for desk in lab.desks.values():
        desk.always(NO_BALANCE)
    lab.offer(*(doc(n) for n in range(5)))
    lab.run()
    for desk in lab.desks.values():
        desk.asked.clear()
        desk.always(Outcome("Sent", State.SENT, ref="r"))


@pytest.mark.parametrize(
    ("change", "service"),
    [
        ({"outgoing_service": VIBER}, VIBER),
        ({"fallback_services": [TEXTBEE, VIBER]}, VIBER),
        ({"outgoing_service": PHONE_GATEWAY}, None),
        ({"fallback_services": [TEXTBEE, PHONE_GATEWAY]}, None),
    ],
)
def test_changed_settings_route_what_is_due_anew(lab: Lab, change: dict[str, Any], service: str | None) -> None:
    held(lab)
    lab.set(**change)
    lab.run()
    assert lab.by() == ({service: [number(n) for n in range(5)]} if service else {})
    assert {lab.task(f"d{n}").get("service") for n in range(5)} == {service or PHONE_GATEWAY}


def test_nothing_goes_by_both(lab: Lab) -> None:
    lab.offer(*(doc(n) for n in range(20)))
    lab.outbox._dispatch()
    lab.set(outgoing_service=TEXTBEE, fallback_services=[])
    lab.run()
    both = lab.desks[AT].numbers + lab.desks[TEXTBEE].numbers
    assert sorted(both) == [number(n) for n in range(20)]
    assert lab.desks[AT].asked
    assert lab.desks[TEXTBEE].asked


def test_whoever_opts_out_while_a_message_waits_is_left_alone(lab: Lab) -> None:
    held(lab)
    lab.registers.opt_outs.record(Entry(number(3), OPTED_OUT, 1, "a test"))
    lab.later(61)
    lab.run()
    assert number(3) not in lab.desks[AT].numbers + lab.desks[TEXTBEE].numbers
    assert lab.task("d3")["state"] == "denied"


# ---- who comes first


def test_replies_overtake_bulk_also_at_the_next_service(lab: Lab) -> None:
    lab.set(textbee={"concurrency": 1})
    lab.later(3)
    lab.services.refresh()
    lab.desks[AT].always(NO_BALANCE)
    lab.offer(doc(0))
    lab.run()
    message = IncomingMessage(AT, "m1", number(50), "Habari")
    reply = documents.incoming_document(message, message.sender, documents.milliseconds(states.now()))
    reply["tasks"] = [documents.new_task(number(50), "Nzuri", states.now())]
    lab.offer(*(doc(n) for n in range(1, 20)), reply)
    lab.run()
    assert lab.desks[TEXTBEE].numbers[:2] == [number(0), number(50)]
