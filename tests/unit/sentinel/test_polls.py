"""What services are asked for: statuses in turns, inboxes, balances; and what one of them may not do to the others."""

import threading
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import pytest
import structlog.testing
from structlog.testing import capture_logs

from mjumbe import documents, phone_numbers, states
from mjumbe.couch import UnavailableError
from mjumbe.documents import DeliveryReport, Document, IncomingMessage, milliseconds, tasks_of
from mjumbe.gateways.base import Batch, Check, Failure, FencedError, Gateway, Inbox, Outcome, SendError
from mjumbe.live_settings import LiveSettings
from mjumbe.settings import ServiceSettings, Settings
from mjumbe.states import State
from sentinel import polls
from sentinel import service as service_module
from sentinel.polls import STATUSES_AT_ONCE, Polls
from sentinel.service import Service
from sentinel.services import Services
from tests.unit.sentinel.memory import MemoryCouch

PHONE = "+254711000001"
SENT = "2026-01-31T08:30:00Z"
RECEIVED = milliseconds(datetime.fromisoformat(SENT))


class Quiet(Gateway):
    """A service that tells everything by itself."""

    def __init__(self) -> None:
        self.checks: list[Check] = []
        self.checked = 0

    def send(self, batch: Batch) -> list[Outcome]:
        raise AssertionError("polling sends nothing")

    def check(self) -> Check:
        self.checked += 1
        return Check(True, "fine", f"KES {self.checked}")


class Down(Quiet):
    """A service that does not answer."""

    def check(self) -> Check:
        self.checked += 1
        return Check(False, "no connection")


class Asked(Quiet):
    """A service whose statuses must be asked for."""

    def __init__(self, status: str = "wired") -> None:
        super().__init__()
        self.refs: list[list[str]] = []
        self.status = status

    def statuses(self, refs: Sequence[str]) -> list[DeliveryReport]:
        self.refs.append(list(refs))
        return [DeliveryReport("rapidpro", ref, self.status, State.FORWARDED_BY_GATEWAY) for ref in refs]


class WithInbox(Quiet):
    """A service that keeps what came in, five messages a look."""

    def __init__(self, *messages: IncomingMessage) -> None:
        super().__init__()
        self.messages = messages
        self.cursors: list[str | None] = []

    def inbox(self, cursor: str | None) -> Inbox:
        self.cursors.append(cursor)
        first = int(cursor or 0)
        found = list(self.messages[first : first + 5])
        return Inbox(found, str(first + len(found)) if found else cursor)


class OtherIds(WithInbox):
    inbox_ids_differ: ClassVar[bool] = True


class Fails(Quiet):
    """A service that cannot be asked."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self.error = error

    def statuses(self, refs: Sequence[str]) -> list[DeliveryReport]:
        raise self.error

    def inbox(self, cursor: str | None) -> Inbox:
        raise self.error


def due(doc: Document) -> Iterable[tuple[Any, Any]]:
    """The part of the view mjumbe/due that tells what a service took and has not settled."""
    for task in tasks_of(doc):
        if task["state"] in ("received-by-gateway", "forwarded-by-gateway", "sent"):
            changed = milliseconds(datetime.fromisoformat(task["state_history"][-1]["timestamp"]))
            yield ["open", task["service"], changed], task["gateway_ref"]


def messages(doc: Document) -> Iterable[tuple[Any, Any]]:
    """The part of the view mjumbe/messages that lists by number."""
    if doc.get("sms_message"):
        yield ["phone", phone_numbers.ending(doc["from"]), doc["reported_date"]], None


class Lab:
    def __init__(self, **gateways: Gateway) -> None:
        self.couch = MemoryCouch()
        self.couch.main.views = {"due": due, "messages": messages}
        self.services = {name: Service(name, gateway, ServiceSettings()) for name, gateway in gateways.items()}
        live = cast(LiveSettings, SimpleNamespace(current=Settings()))
        listed = cast(Services, SimpleNamespace(usable=lambda: list(self.services.values())))
        self.polls = Polls(self.couch.as_couch(), live, listed)

    def took(self, count: int, service: str = "rapidpro", state: str = "sent") -> None:
        """Messages that a service took: `r0` first."""
        now = milliseconds(states.now()) - 60_000
        for n in range(count):
            at = states.timestamp(datetime.fromtimestamp((now + n) / 1000, UTC))
            task = documents.new_task(PHONE, "x", states.now(), service=service, gateway_ref=f"r{n}")
            task |= {"state": state, "state_history": [{"state": state, "timestamp": at}]}
            self.couch.main.store(documents.outgoing_document(task, states.now(), None) | {"_id": f"d{n}"})


def incoming(ref: str, text: str = "Habari", sender: str = PHONE) -> IncomingMessage:
    return IncomingMessage("africas-talking", ref, sender, text, to="22000", sent_timestamp=SENT)


def test_statuses_are_stored_as_if_they_had_been_posted() -> None:
    gateway = Asked()
    lab = Lab(rapidpro=gateway)
    lab.took(2)
    lab.polls.ask_all()
    assert [*map(sorted, gateway.refs)] == [["r0", "r1"]]
    assert sorted(lab.couch.callbacks.docs) == ["report:rapidpro:r0:wired", "report:rapidpro:r1:wired"]


@pytest.mark.parametrize("state", ["pending", "forwarded-to-gateway", "delivered", "failed", "denied"])
def test_what_is_settled_or_not_taken_is_not_asked_for(state: str) -> None:
    gateway = Asked()
    lab = Lab(rapidpro=gateway)
    lab.took(3, state=state)
    lab.polls.ask_all()
    assert gateway.refs == []


def test_other_services_messages_are_not_asked_for() -> None:
    gateway = Asked()
    lab = Lab(rapidpro=gateway)
    lab.took(3, service="textbee")
    lab.polls.ask_all()
    assert gateway.refs == []


def test_messages_that_never_settle_keep_no_later_one_waiting() -> None:
    gateway = Asked()
    lab = Lab(rapidpro=gateway)
    lab.took(2 * STATUSES_AT_ONCE + 7)
    for _ in range(4):
        lab.polls.ask_all()
    assert [len(refs) for refs in gateway.refs] == [STATUSES_AT_ONCE, STATUSES_AT_ONCE, 7, STATUSES_AT_ONCE]
    assert len({ref for refs in gateway.refs[:3] for ref in refs}) == 2 * STATUSES_AT_ONCE + 7
    assert set(gateway.refs[3]) == set(gateway.refs[0]), "and then from the beginning"


def test_messages_that_cannot_be_asked_about_keep_no_other_waiting() -> None:
    """Who is asked one by one gives up when the first few fail."""
    gateway = Asked()
    lab = Lab(rapidpro=gateway)
    lab.took(5)
    for _ in range(200):  # in some order of chance
        lab.polls.ask_all()
    assert {refs[0] for refs in gateway.refs} == {f"r{n}" for n in range(5)}


def test_the_inbox_goes_on_where_it_was_left() -> None:
    gateway = WithInbox(*(incoming(f"m{n}", f"text {n}") for n in range(7)))
    lab = Lab(textbee=gateway)
    for _ in range(3):
        lab.polls.ask_all()
    assert gateway.cursors == [None, "5", "7"]
    assert len(lab.couch.main.docs) == 7
    doc = lab.couch.main.docs["incoming:africas-talking:m0"]
    assert (doc["from"], doc["sms_message"]["message"]) == (PHONE, "text 0")
    anew = Polls(lab.couch.as_couch(), cast(LiveSettings, SimpleNamespace(current=Settings())), lab.polls._services)
    anew.ask_all()
    assert gateway.cursors[-1] == "7", "the place is kept across restarts"


def test_a_message_that_is_refused_is_said_to_be() -> None:
    lab = Lab(textbee=WithInbox(incoming("m1"), incoming("m2")))
    lab.couch.main.refused.add("incoming:africas-talking:m1")
    with structlog.testing.capture_logs() as logs:
        lab.polls.ask_all()
    assert list(lab.couch.main.docs) == ["incoming:africas-talking:m2"]
    (line,) = [line for line in logs if line["log_level"] == "error"]
    assert (line["id"], line["reason"]) == ("incoming:africas-talking:m1", "forbidden: no")


def test_a_message_whose_callback_came_is_the_same_document() -> None:
    lab = Lab(textbee=WithInbox(incoming("m1")))
    lab.couch.main.store(documents.incoming_document(incoming("m1"), PHONE, 1))
    before = dict(lab.couch.main.docs)
    lab.polls.ask_all()
    assert lab.couch.main.docs == before


@pytest.mark.parametrize(
    ("row", "new"),
    [
        (incoming("inbox-1"), 0),
        (incoming("inbox-1", sender="0711000001"), 0),
        (incoming("inbox-1", "another text"), 1),
        (incoming("inbox-1", sender="+254711000002"), 1),
        (IncomingMessage("africas-talking", "inbox-1", PHONE, "Habari", "22000", "2026-01-31 08:30:00.900"), 0),
        (IncomingMessage("africas-talking", "inbox-1", PHONE, "Habari", "22000", "2026-01-31T08:30:01Z"), 1),
        (IncomingMessage("africas-talking", "inbox-1", PHONE, "Habari", "33000", SENT), 1),
    ],
)
def test_an_inbox_with_ids_of_its_own_is_joined_by_what_messages_say(
    monkeypatch: pytest.MonkeyPatch, row: IncomingMessage, new: int
) -> None:
    monkeypatch.setattr(polls, "SPOOL_SECONDS", 0)
    lab = Lab(at=OtherIds(row))
    lab.couch.main.store(documents.incoming_document(incoming("ATXid_1"), PHONE, RECEIVED))
    lab.polls.ask_all()
    assert len(lab.couch.main.docs) == 1 + new


@pytest.mark.parametrize("sms", ["Habari", ["Habari"], 7])
def test_what_is_no_message_keeps_none_of_an_inbox_with_ids_of_its_own_waiting(
    monkeypatch: pytest.MonkeyPatch, sms: object
) -> None:
    monkeypatch.setattr(polls, "SPOOL_SECONDS", 0)
    lab = Lab(at=OtherIds(incoming("inbox-1")))
    odd = {"_id": "odd", "type": "data_record", "from": PHONE, "reported_date": RECEIVED, "sms_message": sms}
    lab.couch.main.store(odd)
    lab.polls.ask_all()
    assert list(lab.couch.main.docs) == ["odd", "incoming:africas-talking:inbox-1"]


def test_an_inbox_with_ids_of_its_own_waits_for_the_spool(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(polls.time, "monotonic", lambda: clock[0])
    others, same = OtherIds(incoming("inbox-1")), WithInbox()
    lab = Lab(at=others, textbee=same)
    lab.polls.ask_all()
    assert (others.cursors, same.cursors) == ([], [None])
    lab.couch.main.store(documents.incoming_document(incoming("ATXid_1"), PHONE, RECEIVED))
    clock[0] += polls.SPOOL_SECONDS
    lab.polls.ask_all()
    assert (others.cursors, len(lab.couch.main.docs)) == ([None], 1)


def test_another_sentinel_keeps_the_place() -> None:
    gateway = WithInbox(incoming("m1"))
    lab = Lab(textbee=gateway)
    place = "_local/mjumbe-inbox-textbee"
    real = lab.couch.sentinel.get

    def get(doc_id: str) -> Document | None:
        found = real(doc_id)
        lab.couch.sentinel.store({"_id": place, "cursor": "9"})
        return found

    lab.couch.sentinel.get = get  # type: ignore[method-assign]
    lab.polls.ask_all()
    assert lab.couch.sentinel.docs[place]["cursor"] == "9"
    assert len(lab.couch.main.docs) == 1


# ---- balances


def test_balances_are_asked_for_once_an_hour(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(polls.time, "monotonic", lambda: clock[0])
    gateway = Quiet()
    lab = Lab(at=gateway)
    for _ in range(121):
        lab.polls.ask_all()
        clock[0] += 60
    assert gateway.checked == 2
    assert lab.services["at"].status.balance == "KES 2"


def test_a_service_with_a_new_key_is_asked_for_its_balance_at_once() -> None:
    lab = Lab(at=Quiet())
    lab.polls.ask_all()
    other = Quiet()  # perhaps with another account's key
    lab.services["at"].change(other, ServiceSettings())
    lab.polls.ask_all()
    assert other.checked == 1


# ---- trouble


@pytest.mark.parametrize(
    "error",
    [
        SendError(Outcome("HTTP 401", failure=Failure.CONFIGURATION)),
        UnavailableError("CouchDB is away"),
        ValueError("an answer that nobody foresaw"),
    ],
)
def test_trouble_with_one_keeps_no_other_from_being_asked(error: Exception) -> None:
    healthy = WithInbox(incoming("m1"))
    lab = Lab(first=Fails(error), second=healthy)
    lab.took(1, service="first")
    with capture_logs() as logs:
        lab.polls.ask_all()
    assert healthy.cursors == [None]
    said = [(entry["event"], entry["service"], entry["about"]) for entry in logs]
    assert said == [("a service could not be asked", "first", about) for about in ("statuses", "inbox")]


class FailsInPart(WithInbox):
    """A service that cannot be asked one thing."""

    def __init__(self, fails: str) -> None:
        super().__init__(incoming("m1"))
        self.fails = fails

    def statuses(self, refs: Sequence[str]) -> list[DeliveryReport]:
        self._fail("statuses")
        return [DeliveryReport("rapidpro", ref, "wired", State.FORWARDED_BY_GATEWAY) for ref in refs]

    def inbox(self, cursor: str | None) -> Inbox:
        self._fail("inbox")
        return super().inbox(cursor)

    def _fail(self, asked: str) -> None:
        if asked == self.fails:
            raise SendError(Outcome("HTTP 500", failure=Failure.RETRY))


@pytest.mark.parametrize(("fails", "reports", "messages"), [("statuses", 0, 1), ("inbox", 1, 0)])
def test_trouble_with_one_question_keeps_no_other_from_being_asked(fails: str, reports: int, messages: int) -> None:
    lab = Lab(rapidpro=FailsInPart(fails))
    lab.took(1)
    stored = len(lab.couch.main.docs)
    with capture_logs() as logs:
        lab.polls.ask_all()
    assert (len(lab.couch.callbacks.docs), len(lab.couch.main.docs) - stored) == (reports, messages)
    assert [(entry["about"], entry["reason"]) for entry in logs] == [(fails, "HTTP 500")]


def test_behind_the_fence_nobody_is_asked_any_more() -> None:
    second = WithInbox()
    lab = Lab(first=Fails(FencedError("this sentinel no longer leads")), second=second)
    stop = threading.Event()
    lab.polls.run(stop)
    assert second.cursors == []


def test_a_stop_ends_the_wait() -> None:
    stop = threading.Event()
    asked = threading.Event()

    class Tells(Quiet):
        def inbox(self, cursor: str | None) -> Inbox:
            asked.set()
            return Inbox([], cursor)

    running = threading.Thread(target=Lab(at=Tells()).polls.run, args=(stop,))
    running.start()
    assert asked.wait(30)
    stop.set()
    running.join(30)
    assert not running.is_alive()


@pytest.mark.parametrize(("gateway", "held"), [(Quiet(), False), (Down(), True)])
def test_a_service_that_failed_and_is_left_alone_is_asked(
    monkeypatch: pytest.MonkeyPatch, gateway: Gateway, held: bool
) -> None:
    lab = Lab(textbee=gateway)
    lab.polls.ask_all()  # it is asked for its balance, once an hour
    service = lab.services["textbee"]
    for _ in range(service_module.BREAKER_FAILURES):
        service.answered([Outcome("HTTP 500", failure=Failure.RETRY)])
    monkeypatch.setattr(service_module, "LEFT_ALONE_SECONDS", -service_module.PROBE_SECONDS)
    lab.polls.ask_all()
    assert service.status.held is held
