"""The documents: built, read and checked."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mjumbe import documents
from mjumbe.documents import AS_SET, DeliveryReport, IncomingMessage, Notice, OutgoingMessage, Premium, Route
from mjumbe.gateways.base import Batch, CallbackRequest
from mjumbe.states import State

AT = datetime(2026, 1, 1, tzinfo=UTC)
MS = 1_767_225_600_000
STAMP = "2026-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    ("ref", "doc_id"),
    [
        ("ATXid_1", "incoming:africas-talking:ATXid_1"),
        ("a/b:c d+é", "incoming:africas-talking:a%2Fb%3Ac%20d%2B%C3%A9"),
        ("x" * 200, "incoming:africas-talking:" + "x" * 200),
    ],
)
def test_ids(ref: str, doc_id: str) -> None:
    assert documents.incoming_id("africas-talking", ref) == doc_id


def test_long_references_make_short_ids_that_still_differ() -> None:
    made = {documents.incoming_id("africas-talking", "x" * length) for length in (201, 202, 5000)}
    assert len(made) == 3
    assert all(doc_id.startswith("incoming:africas-talking:sha256-") and len(doc_id) < 100 for doc_id in made)


def test_an_incoming_document() -> None:
    message = IncomingMessage(
        *("africas-talking", "ATXid_1", "0711000001", "Habari"),
        to="22000",
        sent_timestamp="2026-01-01 00:00:00",
        link_id="L1",
        network_code="63902",
        cost="KES 1.00",
    )
    doc = documents.incoming_document(message, "+254711000001", MS)
    receipt = doc.pop("receipt")
    assert receipt != documents.incoming_document(message, "+254711000001", MS)["receipt"]
    assert doc == {
        "_id": "incoming:africas-talking:ATXid_1",
        "type": "data_record",
        "from": "+254711000001",
        "form": None,
        "fields": {},
        "errors": [],
        "tasks": [],
        "reported_date": MS,
        "sms_message": {
            "type": "sms_message",
            "message": "Habari",
            "from": "0711000001",
            "gateway": "africas-talking",
            "gateway_ref": "ATXid_1",
            "form": None,
            "locale": None,
            "reported_date": MS,
            "to": "22000",
            "sent_timestamp": "2026-01-01 00:00:00",
            "link_id": "L1",
            "network_code": "63902",
            "cost": "KES 1.00",
        },
    }
    assert documents.is_incoming(doc)


def test_what_is_not_there_is_left_out() -> None:
    doc = documents.incoming_document(IncomingMessage("africas-talking", "1", "SAFARICOM", ""), "SAFARICOM", MS)
    assert doc["sms_message"]["message"] == ""
    assert not {"to", "sent_timestamp", "link_id", "network_code", "cost"} & doc["sms_message"].keys()


@pytest.mark.parametrize("state", [None, *State])
def test_a_report_comes_back_as_it_was(state: State | None) -> None:
    report = DeliveryReport("africas-talking", "a/1", "Not Ours", state, "+254711000001", "Why", "63902", "permanent")
    doc = documents.report_document(report, MS)
    assert doc["_id"] == "report:africas-talking:a%2F1:Not%20Ours"
    assert doc["received"] == MS
    assert documents.read_report(json.loads(json.dumps(doc))) == report
    assert documents.read_report({**doc, "retry_count": "0"}) == report, "an earlier version kept it"


def test_a_bare_report() -> None:
    report = DeliveryReport("africas-talking", "1", "Sent", State.SENT)
    assert documents.read_report(documents.report_document(report, MS)) == report


def test_a_report_s_words_end() -> None:
    report = DeliveryReport("africas-talking", "1", "s" * 60_000, None, reason="r" * 60_000)
    assert (report.status, report.reason) == ("s" * 199 + "…", "r" * 199 + "…")
    assert documents.read_report(documents.report_document(report, MS)) == report


def test_a_notice() -> None:
    notice = Notice("africas-talking", "opt-out", "+254711000001", "22000:+254711000001", {"sender_id": "22000"})
    doc = documents.notice_document(notice, MS)
    doc.pop("receipt")
    assert doc == {
        "_id": "opt-out:africas-talking:22000%3A%2B254711000001",
        "type": "opt_out",
        "gateway": "africas-talking",
        "phone": "+254711000001",
        "received": MS,
        "sender_id": "22000",
    }


def test_a_notice_that_names_no_single_event_is_told_anew_each_time() -> None:
    """Who joined, left and joined again before the first was seen to had left: the third was taken for the first."""
    notice = Notice("africas-talking", "subscription", "+254711000001", None, {"update": "addition"})
    first, second = (documents.notice_document(notice, MS)["_id"] for _ in range(2))
    assert first != second
    assert all(doc_id.startswith("subscription:africas-talking:") for doc_id in (first, second))


@pytest.mark.parametrize(
    ("due", "state"),
    [(None, "pending"), (AT, "pending"), (AT - timedelta(days=1), "pending"), (AT + timedelta(seconds=1), "scheduled")],
)
def test_new_tasks(due: datetime | None, state: str) -> None:
    task = documents.new_task("+254711000001", "Habari", AT, due=due, message_uuid="u1", via="africas-talking")
    assert task == {
        "messages": [{"to": "+254711000001", "message": "Habari", "uuid": "u1"}],
        "state": state,
        "state_history": [{"state": state, "timestamp": STAMP}],
        "via": "africas-talking",
        **({} if due is None else {"due": due.strftime("%Y-%m-%dT%H:%M:%S.000Z")}),
    }


def test_an_outgoing_document() -> None:
    task = documents.new_task("+254711000001", "Habari", AT)
    doc = documents.outgoing_document(task, AT, "ann")
    doc.pop("_id")
    assert doc == {
        "type": "data_record",
        "from": "ann",
        "kujua_message": True,
        "fields": {},
        "errors": [],
        "reported_date": MS,
        "tasks": [task],
    }


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (MS, MS),
        (float(MS), MS),
        (0, 0),
        (STAMP, MS),
        ("2026-01-01T03:00:00+03:00", MS),
        ("2026-01-01T00:00:00", MS),
        ("2026-01-01", MS),
        ("tomorrow", None),
        ("", None),
        (None, None),
        (True, None),
        ([], None),
        (float("inf"), None),
    ],
)
def test_moments(value: object, moment: int | None) -> None:
    assert documents.read_moment(value) == moment


@pytest.mark.parametrize(("moment", "year"), [(MS, 2026), (10**18, 9999), (-(10**18), 1)])
def test_datetimes(moment: int, year: int) -> None:
    assert documents.datetime_of(moment).year == year


@pytest.mark.parametrize(
    ("task", "doc", "due"),
    [
        ({"due": STAMP, "timestamp": 5}, {"reported_date": 7}, MS),
        ({"due": "odd", "timestamp": STAMP}, {"reported_date": 7}, MS),
        ({"due": None}, {"reported_date": 7}, 7),
        ({}, {}, 0),
    ],
)
def test_due_of(task: dict[str, Any], doc: dict[str, Any], due: int) -> None:
    assert documents.due_of(task, doc) == due


@pytest.mark.parametrize(
    ("doc", "count"),
    [
        ({}, 0),
        ({"tasks": None, "scheduled_tasks": "x"}, 0),
        ({"tasks": [None, "x", {"state": "sent"}], "scheduled_tasks": [{"state": "pending"}]}, 2),
    ],
)
def test_tasks_of(doc: dict[str, Any], count: int) -> None:
    assert len(list(documents.tasks_of(doc))) == count


@pytest.mark.parametrize("messages", [None, [], "x", ["x"], [None], {}])
def test_odd_messages(messages: object) -> None:
    assert documents.message_of({"messages": messages}) == {}


def test_find_task() -> None:
    first, second = ({"messages": [{"uuid": uuid}]} for uuid in ("u1", "u2"))
    doc = {"tasks": [first], "scheduled_tasks": [second]}
    assert documents.find_task(doc, "u2") is second
    assert documents.find_task(doc, "u3") is None


@pytest.mark.parametrize(
    ("states", "found"),
    [
        (["pending", "sent"], 1),
        (["pending", "forwarded-to-gateway"], 1),
        (["scheduled", "cleared", "pending"], 1),
        (["sent", "pending"], 0),
        (["pending", "scheduled"], 0),
    ],
)
def test_of_copies_the_one_that_does_not_wait_is_found(states: list[str], found: int) -> None:
    tasks = [{"state": state, "messages": [{"uuid": "u"}]} for state in states]
    assert documents.find_task({"tasks": tasks}, "u") is tasks[found]


@pytest.mark.parametrize(
    ("doc", "incoming"),
    [
        ({"type": "data_record", "sms_message": {}, "from": "+254711000001"}, True),
        ({"type": "data_record", "sms_message": {}, "from": ""}, False),
        ({"type": "data_record", "from": "+254711000001"}, False),
        ({"type": "data_record", "sms_message": "x", "from": "+254711000001"}, False),
        ({"type": "person", "sms_message": {}, "from": "+254711000001"}, False),
    ],
)
def test_is_incoming(doc: dict[str, Any], incoming: bool) -> None:
    assert documents.is_incoming(doc) is incoming


MESSAGE = {"to": "+254711000001", "message": "Habari", "uuid": "u1"}
INCOMING = {"_id": "d", "type": "data_record", "from": "+254711000001", "reported_date": 5}
LINKED = {"from": "0711000001", "link_id": "L1"}


@pytest.mark.parametrize(
    ("doc", "listed", "task", "snapshot"),
    [
        (
            {"_id": "d", "reported_date": 5},
            *("tasks", {"state": "pending", "messages": [MESSAGE]}),
            OutgoingMessage("d", "u1", "+254711000001", "Habari", 5, False),
        ),
        (
            {"_id": "d"},
            *("scheduled_tasks", {"state": "pending", "messages": [MESSAGE], "due": STAMP, "via": "viber"}),
            OutgoingMessage("d", "u1", "+254711000001", "Habari", MS, False, AS_SET, Route("viber")),
        ),
        (  # no service's name
            {"_id": "d"},
            *("tasks", {"state": "pending", "messages": [MESSAGE], "due": STAMP, "via": ["viber"]}),
            OutgoingMessage("d", "u1", "+254711000001", "Habari", MS, False),
        ),
        (  # an answer to somebody carries the linkId
            {**INCOMING, "sms_message": LINKED},
            *("tasks", {"state": "pending", "messages": [MESSAGE]}),
            OutgoingMessage("d", "u1", "+254711000001", "Habari", 5, True, Premium(link_id="L1")),
        ),
        (  # in the spelling in which the sender's number came
            {**INCOMING, "sms_message": LINKED},
            *("tasks", {"state": "pending", "messages": [{**MESSAGE, "to": "0711000001"}]}),
            OutgoingMessage("d", "u1", "0711000001", "Habari", 5, True, Premium(link_id="L1")),
        ),
        *(
            (
                {**INCOMING, "sms_message": LINKED},
                *("tasks", {"state": "pending", "messages": [MESSAGE], "premium": said}),
                OutgoingMessage("d", "u1", "+254711000001", "Habari", 5, True, premium),
            )
            for said, premium in (
                (True, Premium(True, link_id="L1")),
                (False, Premium(False, link_id="L1")),
                ({}, Premium(True, link_id="L1")),
                ({"keyword": "afya", "link_id": "L2", "retry_duration_hours": 4}, Premium(True, "afya", "L2", 4)),
                ({"keyword": None, "link_id": 5, "retry_duration_hours": "x"}, Premium(True, link_id="5")),
                ("yes", Premium(link_id="L1")),
            )
        ),
        (  # not to anybody else
            {**INCOMING, "sms_message": LINKED},
            *("tasks", {"state": "pending", "messages": [{**MESSAGE, "to": "+254711000002"}]}),
            OutgoingMessage("d", "u1", "+254711000002", "Habari", 5, True),
        ),
        (  # and not months later
            {**INCOMING, "sms_message": LINKED},
            *("scheduled_tasks", {"state": "pending", "messages": [MESSAGE], "due": STAMP}),
            OutgoingMessage("d", "u1", "+254711000001", "Habari", MS, False),
        ),
        *(
            ({"_id": "d"}, "tasks", {"state": "pending", "messages": [{**MESSAGE, **wrong}]}, None)
            for wrong in ({"to": ""}, {"to": None}, {"uuid": None}, {"message": ""}, {"message": None}, {"message": 3})
        ),
        *(
            ({"_id": "d"}, "tasks", {"state": state, "messages": [MESSAGE]}, None)
            for state in [*State, "teleported", None]
            if state != "pending"
        ),
        ({"_id": "d"}, "tasks", {"state": "pending", "messages": []}, None),
    ],
)
def test_outgoing_messages(
    doc: dict[str, Any], listed: str, task: dict[str, Any], snapshot: OutgoingMessage | None
) -> None:
    assert documents.outgoing_message({**doc, listed: [task]}, task) == snapshot


def test_a_message_of_a_document_that_nobody_wrote_is_not_looked_for_among_all_of_its_messages() -> None:
    class Unread(list[Any]):
        def __iter__(self) -> Any:
            raise AssertionError("with a thousand messages that is a million steps")

    task = {"state": "pending", "messages": [MESSAGE]}
    message = documents.outgoing_message({"_id": "d", "reported_date": 5, "tasks": Unread([task])}, task)
    assert message == OutgoingMessage("d", "u1", "+254711000001", "Habari", 5, False)


def test_records_do_not_show_people_s_words_and_numbers() -> None:
    at_hand = {"tasks": [{"messages": [{"to": "+254711000111", "message": "HELP ME"}]}]}
    records = [
        IncomingMessage("textbee", "1", "+254711000111", "HELP ME"),
        DeliveryReport("textbee", "1", "sent", State.SENT, phone="+254711000111"),
        Notice("textbee", "opt-out", "+254711000111", "22000:+254711000111", {"customer": "+254711000111"}),
        OutgoingMessage("doc", "uuid", "+254711000111", "HELP ME", 0, False, doc=at_hand),
        Batch("HELP ME", ("+254711000111",)),
        CallbackRequest({"key": "HELP ME"}, {"text": "HELP ME"}, {"apikey": "HELP ME"}, b"HELP ME"),
    ]
    assert "HELP ME" not in repr(records)
    assert "711000" not in repr(records)


def test_new_documents_and_messages_have_ids_that_begin_with_the_time() -> None:
    """Random ones touch another page of each B-tree with every document."""
    task = documents.new_task("+254711000001", "text", AT)
    doc = documents.outgoing_document(task, AT, "nurse")
    assert [uuid.UUID(made).version for made in (doc["_id"], task["messages"][0]["uuid"])] == [7, 7]
