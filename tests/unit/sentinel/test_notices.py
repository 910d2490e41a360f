"""What services tell of people: kept in the main database, removed where it waited, whatever is odd about it."""

import itertools
import json
from types import SimpleNamespace
from typing import Any, cast

import pytest

from mjumbe import documents, settings, states
from mjumbe.couch import UnavailableError
from mjumbe.documents import Document, Notice
from mjumbe.gateways import viber
from mjumbe.gateways.base import CallbackRequest
from mjumbe.live_settings import LiveSettings
from sentinel.notices import Notices
from sentinel.registers import OPTED_OUT, Entry, Registers
from tests.unit.sentinel.memory import MemoryCouch, away

PHONE, OTHER = "+254711000001", "+254711000002"
USER = "KMMqtlNTDxIm/5bZhdQ5uA=="
serial = itertools.count(1)


class Lab:
    """Notices on databases in memory."""

    def __init__(self) -> None:
        self.couch = MemoryCouch()
        self.registers = Registers.of(self.couch.main)
        live = cast(LiveSettings, SimpleNamespace(current=settings.parse({})))
        self.notices = Notices(self.couch.as_couch(), live, self.registers)

    def come(self, *told: tuple[Notice, int]) -> None:
        """These were posted, each at its time (ms)."""
        docs = [documents.notice_document(notice, received) for notice, received in told]
        self.couch.callbacks.store(*docs)
        self.notices.take([self.couch.callbacks.docs[doc["_id"]] for doc in docs])

    def doc(self, doc_id: str) -> Document:
        return self.couch.main.docs[doc_id]


@pytest.fixture
def lab() -> Lab:
    return Lab()


def opt_out(phone: str = PHONE, sender: str = "22000") -> Notice:
    return Notice("africas-talking", "opt-out", phone, None, {"sender_id": sender})


def subscription(update: str, phone: str = PHONE, code: str = "22000", keyword: str = "HABARI") -> Notice:
    facts = {"short_code": code, "keyword": keyword, "update": update}
    return Notice("africas-talking", "subscription", phone, None, facts)


def viber_user(update: str, user: str = USER, phone: str = "", **facts: str) -> Notice:
    return Notice("viber", "viber-user", phone, str(next(serial)), {"user": user, "update": update, **facts})


# ---- opt-outs


@pytest.mark.parametrize("notice", [opt_out(), subscription("addition"), viber_user("registered", phone=PHONE)])
def test_what_couchdb_does_not_take_waits_on(lab: Lab, notice: Notice) -> None:
    lab.couch.main.refused = {f"opt-out:{PHONE}", f"subscription:22000:HABARI:{PHONE}", f"viber-user:{PHONE}"}
    lab.come((notice, 3_600_000))
    assert (len(lab.couch.callbacks.docs), lab.couch.main.docs) == (1, {})
    lab.couch.main.refused = set()
    lab.notices.take(list(lab.couch.callbacks.docs.values()))
    assert (lab.couch.callbacks.docs, len(lab.couch.main.docs)) == ({}, 1)


@pytest.mark.parametrize("written", [PHONE, "254711000001", "0711000001", "0711 000 001"])
def test_an_opt_out(lab: Lab, written: str) -> None:
    lab.come((opt_out(written), 3_600_000))
    assert lab.registers.opt_outs.get(PHONE) == OPTED_OUT
    assert lab.doc(f"opt-out:{PHONE}")["history"] == [
        {
            "value": OPTED_OUT,
            "source": "africas-talking: opt-out from 22000",
            "timestamp": "1970-01-01T01:00:00.000Z",
        }
    ]
    assert lab.couch.callbacks.docs == {}


def test_an_opt_out_without_a_sender_id(lab: Lab) -> None:
    lab.come((opt_out(sender=""), 1))
    assert lab.doc(f"opt-out:{PHONE}")["history"][0]["source"] == "africas-talking: opt-out from bulk messages"


def test_one_that_was_lifted_since_does_not_come_back(lab: Lab) -> None:
    lab.registers.opt_outs.record(Entry(PHONE, None, 2000, "the person wrote START"))
    lab.come((opt_out(), 1000))
    assert lab.registers.opt_outs.get(PHONE) is None


def test_what_an_answer_or_a_report_says_is_the_same_record(lab: Lab) -> None:
    before = documents.milliseconds(states.now())
    lab.notices.opted_out([PHONE, None, "", "0711000002"], "africas-talking")
    for number in (PHONE, OTHER):
        doc = lab.doc(f"opt-out:{number}")
        assert (doc["type"], doc["value"]) == ("opt_out", OPTED_OUT)
        assert doc["history"][0]["source"] == "africas-talking"
        assert (documents.read_moment(doc["history"][0]["timestamp"]) or 0) >= before
    assert len(lab.couch.main.docs) == 2


def test_what_is_known_is_not_written_again(lab: Lab) -> None:
    for _ in range(3):
        lab.notices.opted_out([PHONE], "a delivery report")
    assert lab.couch.main.bulks == 1
    lab.notices.opted_out([], "a delivery report")
    assert lab.couch.main.bulks == 1


# ---- subscriptions


def test_a_subscription_has_a_document_for_each_product(lab: Lab) -> None:
    lab.come((subscription("addition"), 1000), (subscription("addition", keyword="BEI"), 1000))
    assert sorted(lab.couch.main.docs) == [f"subscription:22000:BEI:{PHONE}", f"subscription:22000:HABARI:{PHONE}"]
    doc = lab.doc(f"subscription:22000:HABARI:{PHONE}")
    assert (doc["type"], doc["phone"], doc["value"]) == ("subscription", PHONE, "active")
    assert doc["history"][0]["source"] == "africas-talking: addition"


@pytest.mark.parametrize("backwards", [False, True])
def test_the_latest_update_holds(lab: Lab, backwards: bool) -> None:
    told = [(subscription("addition"), 1000), (subscription("deletion"), 2000)]
    lab.come(*(reversed(told) if backwards else told))
    doc = lab.doc(f"subscription:22000:HABARI:{PHONE}")
    assert doc["value"] is None
    assert [entry["value"] for entry in doc["history"]] == ["active", None]


def test_a_subscription_to_nothing_that_is_named(lab: Lab) -> None:
    lab.come((subscription("addition", code="", keyword=""), 1000))
    assert lab.doc(f"subscription:-:-:{PHONE}")["value"] == "active"


# ---- Viber


@pytest.mark.parametrize(
    "facts",
    [
        {"phone": "254711000001"},
        {"customer": PHONE},
        {"customer": "0711000001"},
        {"customer": "customer-7"},
        {"customer": " customer-7 "},
    ],
)
def test_whoever_registers_is_known_by_number(lab: Lab, facts: dict[str, Any]) -> None:
    lab.couch.main.store({"_id": "customer-7", "type": "person", "phone": "0711000001"})
    lab.come((viber_user("registered", **facts), 1000))
    assert lab.registers.viber_users.get(PHONE) == USER
    assert lab.doc(f"viber-user:{PHONE}")["type"] == "viber_user"
    assert lab.couch.callbacks.docs == {}


@pytest.mark.parametrize("customer", ["", "nobody", "_design/mjumbe", "_security", "a place", "12"])
def test_whom_nobody_knows_is_passed_over(lab: Lab, customer: str) -> None:
    lab.couch.main.store({"_id": "a place", "type": "clinic"}, {"_id": "_design/mjumbe", "phone": PHONE})
    before = dict(lab.couch.main.docs)
    lab.come((viber_user("registered", customer=customer), 1000))
    assert lab.couch.main.docs == before
    assert lab.couch.callbacks.docs == {}, "and does not come again"


def test_leaving_takes_the_entry_back(lab: Lab) -> None:
    lab.come((viber_user("registered", phone=PHONE), 1000))
    lab.come((viber_user("unsubscribed"), 2000))
    assert lab.registers.viber_users.get(PHONE) is None
    assert [entry["value"] for entry in lab.doc(f"viber-user:{PHONE}")["history"]] == [USER, None]


def test_leaving_takes_all_entries_of_the_person_back(lab: Lab) -> None:
    for number in (PHONE, OTHER):
        lab.come((viber_user("registered", phone=number), 1000))
    lab.come((viber_user("registered", user="another", phone="+254711000003"), 1000))
    lab.come((viber_user("unsubscribed"), 2000))
    known = [lab.registers.viber_users.get(number) for number in (PHONE, OTHER, "+254711000003")]
    assert known == [None, None, "another"]


def test_whoever_comes_back_has_their_entries_again(lab: Lab) -> None:
    for number in (PHONE, OTHER):
        lab.come((viber_user("registered", phone=number), 1000))
    lab.come((viber_user("registered", user="another", phone="+254711000003"), 1000))
    lab.come((viber_user("unsubscribed"), 2000), (viber_user("unsubscribed", user="another"), 2000))
    lab.come((viber_user("registered", user="a third", phone=OTHER), 3000))
    lab.come((viber_user("subscribed"), 4000))
    known = [lab.registers.viber_users.get(number) for number in (PHONE, OTHER, "+254711000003")]
    assert known == [USER, "a third", None]


def test_a_registration_and_leaving_in_one_batch_are_taken_in_order(lab: Lab) -> None:
    lab.come((viber_user("unsubscribed"), 2000), (viber_user("registered", phone=PHONE), 1000))
    assert lab.registers.viber_users.get(PHONE) is None
    lab.come((viber_user("registered", phone=PHONE), 3000))
    assert lab.registers.viber_users.get(PHONE) == USER


@pytest.mark.parametrize("update", ["unsubscribed", "subscribed"])
def test_what_strangers_do_changes_nothing(lab: Lab, update: str) -> None:
    lab.come((viber_user("registered", phone=PHONE), 1000))
    lab.come((viber_user(update, user="a stranger"), 2000))
    assert lab.registers.viber_users.get(PHONE) == USER


def test_whoever_registers_another_number_has_that(lab: Lab) -> None:
    lab.come((viber_user("registered", user="another", phone=PHONE), 1000))
    lab.come((viber_user("registered", phone=PHONE), 2000))
    assert lab.registers.viber_users.get(PHONE) == USER


def test_from_the_event_to_the_map(lab: Lab) -> None:
    """The fields are those that the gateway makes of Viber's event."""
    form = {
        "event": "message",
        "message_token": "5136431130449316903",
        "sender": json.dumps({"id": USER, "name": "A person"}),
        "message": '{"type": "text", "text": "register+0711000001"}',
    }
    records = viber.parse_event(CallbackRequest({}, form, {}, b""))
    lab.come(*((record, 1000) for record in records if isinstance(record, Notice)))
    assert lab.registers.viber_users.get(PHONE) == USER


# ---- trouble


def test_nothing_is_removed_before_it_is_kept(lab: Lab) -> None:
    lab.couch.main.before_bulk = away
    with pytest.raises(UnavailableError):
        lab.come((opt_out(), 1000))
    (waiting,) = lab.couch.callbacks.docs.values()
    lab.couch.main.before_bulk = lambda: None
    lab.notices.take([waiting])
    lab.notices.take([waiting])
    assert len(lab.doc(f"opt-out:{PHONE}")["history"]) == 1, "taken twice, kept once"
    assert lab.couch.callbacks.docs == {}


def test_other_documents_are_left_alone(lab: Lab) -> None:
    report = {"_id": "report:x", "type": "delivery_report"}
    lab.couch.callbacks.store(report)
    lab.notices.take([lab.couch.callbacks.docs["report:x"]])
    assert list(lab.couch.callbacks.docs) == ["report:x"]


@pytest.mark.parametrize(
    "odd",
    [
        {"type": "opt_out"},
        {"type": "opt_out", "gateway": "x", "phone": PHONE, "received": "yesterday"},
        {"type": "opt_out", "gateway": "x", "phone": 254711000001, "received": 1},
        {"type": "subscription", "gateway": "x", "phone": PHONE, "received": 1},
        {"type": "viber_user", "update": "registered", "user": USER, "phone": PHONE},
    ],
)
def test_an_odd_notice_stops_no_other(lab: Lab, odd: Document) -> None:
    lab.couch.callbacks.store({"_id": "odd", **odd}, documents.notice_document(opt_out(OTHER), 5))
    lab.notices.take(list(lab.couch.callbacks.docs.values()))
    assert lab.registers.opt_outs.get(OTHER) == OPTED_OUT
    assert list(lab.couch.callbacks.docs) == ["odd"]
