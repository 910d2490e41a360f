"""Which message in doubt a report for an unknown reference settles."""

from datetime import timedelta
from typing import Any

import pytest

from mjumbe import states
from mjumbe.couch import Row
from mjumbe.documents import milliseconds
from mjumbe.states import Task
from tests.unit.sentinel.reporting import PHONE, Lab, doc, document, report, task

IN_DOUBT = {"state": "pending", "in_doubt": True}
REFUSED = {"state": "pending", "service": "africas-talking"}


def doubted(state: str = "pending", uuid: str = "u1", service: str = "africas-talking", **more: Any) -> Task:
    """A message that a service never answered for."""
    history = [{"state": state, "in_doubt": True, "service": service}]
    return task(state, None, uuid, in_doubt=True, service=service, **{"state_history": history, **more})


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Success", "delivered"),
        ("Sent", "forwarded-by-gateway"),
        ("Failed", "failed"),
        ("Teleported", "received-by-gateway"),
    ],
)
@pytest.mark.parametrize("before", ["pending", "forwarded-to-gateway"])
def test_a_report_settles_a_doubt(before: str, status: str, state: str) -> None:
    lab = Lab(doc(doubted(before, retry_at="2026-01-01T00:00:00.000Z")))
    lab.come(document(report(status, "unknown")))
    assert (lab.task()["state"], lab.task()["gateway_ref"]) == (state, "unknown")
    assert not {"in_doubt", "retry_at"} & lab.task().keys()
    assert lab.waiting == 0


@pytest.mark.parametrize(
    ("tasks", "phone"),
    [
        ([doubted(), doubted(uuid="u2")], PHONE),
        ([task("pending", None)], PHONE),
        ([doubted(service="rapidpro")], PHONE),
        ([doubted(state_history=[IN_DOUBT | {"service": "rapidpro"}, REFUSED])], PHONE),
        ([doubted(service="rapidpro", uuid="u1"), doubted(service="textbee", uuid="u2")], PHONE),
        ([doubted()], "+254711000002"),
        ([doubted()], None),
        ([doubted()], "unknown"),
    ],
)
def test_a_report_that_may_be_anothers_settles_nothing(tasks: list[Task], phone: str | None) -> None:
    lab = Lab(doc(*tasks))
    lab.come(document(report("Success", "unknown", phone=phone)))
    assert lab.task()["state"] == "pending"
    assert lab.waiting == 1


@pytest.mark.parametrize(
    ("earlier", "state"),
    [(timedelta(minutes=2), "pending"), (timedelta(seconds=30), "delivered"), (timedelta(minutes=-1), "delivered")],
)
def test_a_report_from_before_the_service_was_asked_is_of_another_message(earlier: timedelta, state: str) -> None:
    """Its machine's clock may be half a minute behind."""
    at = states.now()
    claim = {"state": "forwarded-to-gateway", "service": "africas-talking", "timestamp": states.timestamp(at)}
    one = doubted()
    lab = Lab(doc(one | {"state_history": [claim, *one["state_history"]]}))
    lab.come(document(report("Success", "unknown"), milliseconds(at - earlier)))
    assert (lab.task()["state"], lab.waiting) == (state, int(state == "pending"))


WAS_IN_DOUBT = {"state": "pending", "in_doubt": True, "service": "africas-talking"}
TAKEN_SINCE = {"state": "sent", "service": "africas-talking", "gateway_ref": "second"}
REPORTED = {"state": "sent", "report": "Submitted", "gateway_ref": "first"}


@pytest.mark.parametrize(
    ("other", "settles"),
    [
        (task("sent", "second", state_history=[WAS_IN_DOUBT, TAKEN_SINCE]), False),
        (task("delivered", "other", service="textbee", state_history=[WAS_IN_DOUBT]), False),
        (task("sent", None, service="africas-talking"), False),
        (task("sent", "first", state_history=[WAS_IN_DOUBT, REPORTED]), True),
        (task("sent", "first", state_history=[WAS_IN_DOUBT, WAS_IN_DOUBT, REPORTED]), False),
        (task("sent", "r", state_history=[WAS_IN_DOUBT | {"service": "textbee"}]), True),
        (task("sent", None, service="textbee"), True),
        (task("sent", "second", to="+254722000001", state_history=[WAS_IN_DOUBT, TAKEN_SINCE]), True),
        (task("failed", None, service="africas-talking"), True),
    ],
)
@pytest.mark.parametrize("to", [PHONE, "0711 000 001"])
def test_a_report_that_may_be_of_a_message_whose_doubt_is_over_settles_no_other(
    other: Task, settles: bool, to: str
) -> None:
    """Its first request was perhaps taken, though it went again: the reports of that name an unknown reference."""
    number = other["messages"][0]["to"]
    message = {"to": to if number == PHONE else number, "message": "y", "uuid": "u2"}
    lab = Lab(doc(doubted()), doc(other | {"messages": [message]}, doc_id="d2"))
    lab.come(document(report("Success", "unknown")))
    assert (lab.task()["state"], lab.waiting) == ("delivered" if settles else "pending", int(not settles))


@pytest.mark.parametrize("to", [PHONE, "0711 000 001"])
def test_an_early_report_of_a_message_under_way_settles_no_other(to: str) -> None:
    under_way = task("forwarded-to-gateway", None, "u2", to, claim="c", service="africas-talking")
    lab = Lab(doc(doubted("pending", "u1")), doc(under_way, doc_id="d2"))
    lab.come(document(report("Success", "r2")))
    assert (lab.task()["state"], lab.waiting) == ("pending", 1)
    lab.couch.main.docs["d2"]["tasks"][0] |= {"state": "sent", "gateway_ref": "r2"}
    del lab.couch.main.docs["d2"]["tasks"][0]["claim"]
    lab.reports.referenced({"r2": ("d2", "u2")})
    assert (lab.task()["state"], lab.task("d2")["state"], lab.waiting) == ("pending", "delivered", 0)


def test_an_early_report_whose_message_is_stored_while_it_is_looked_up_settles_no_other() -> None:
    """Nothing is under way any more when that is asked."""
    lab = Lab(doc(doubted("pending", "u1")))
    known, view = iter([[], [], [Row("d2", "r2", "u2")]]), lab.couch.main.view
    lab.couch.main.view = lambda design, name, **query: (  # type: ignore[method-assign]
        next(known) if name == "messages_by_gateway_ref" else view(design, name, **query)
    )
    lab.come(document(report("Success", "r2")))
    assert (lab.task()["state"], lab.waiting) == ("pending", 1)


@pytest.mark.parametrize("other", [{"claim": "c", "service": "textbee"}, {"service": "africas-talking"}])
def test_what_is_under_way_elsewhere_or_no_more_hinders_nothing(other: dict[str, Any]) -> None:
    lab = Lab(doc(doubted("pending", "u1")), doc(task("forwarded-to-gateway", None, "u2", **other), doc_id="d2"))
    lab.come(document(report("Success", "r2")))
    assert (lab.task()["state"], lab.waiting) == ("delivered", 0)


@pytest.mark.parametrize("to", ["0711000001", "0711 000 001", "711000001", "00254711000001", "254711000001"])
def test_a_report_settles_a_doubt_however_the_number_was_written(to: str) -> None:
    lab = Lab(doc(doubted("pending", "u1", to=to)))
    lab.come(document(report("Success", "r1")))
    assert (lab.task()["state"], lab.waiting) == ("delivered", 0)


def test_a_report_settles_no_doubt_of_a_number_that_only_looks_alike() -> None:
    lab = Lab(doc(doubted("pending", "u1", to="+71 1000 001")))
    lab.come(document(report("Success", "r1")))
    assert (lab.task()["state"], lab.waiting) == ("pending", 1)


def test_a_report_settles_a_doubt_while_its_message_is_under_way_again() -> None:
    lab = Lab(doc(doubted("forwarded-to-gateway", "u1", claim="c")))
    lab.come(document(report("Success", "r1")))
    assert (lab.task()["state"], lab.waiting) == ("delivered", 0)


def test_a_report_settles_the_doubt_at_its_own_service() -> None:
    lab = Lab(doc(doubted(service="rapidpro"), doc_id="d"), doc(doubted(uuid="u2"), doc_id="e"))
    lab.come(document(report("Success", "unknown")))
    assert (lab.task("d")["state"], lab.task("e")["state"]) == ("pending", "delivered")
    assert lab.waiting == 0


@pytest.mark.parametrize("since", ["textbee", "medic-gateway"])
def test_a_report_settles_a_doubt_though_another_service_was_chosen_since(since: str) -> None:
    lab = Lab(doc(doubted() | {"service": since}))
    lab.come(document(report("Success", "unknown")))
    assert (lab.task()["state"], lab.waiting) == ("delivered", 0)


def test_one_report_settles_one_doubt_and_its_successor_finds_it_by_reference() -> None:
    lab = Lab(doc(doubted()))
    lab.come(document(report("Sent", "unknown")))
    lab.come(document(report("Success", "unknown")))
    assert lab.task()["state"] == "delivered"
