"""Delivery reports: on time, early, late, repeated, unknown, odd, in one batch."""

import copy
import itertools
import threading
from collections.abc import Iterable
from typing import Any

import pytest
from structlog.testing import capture_logs

from mjumbe import states
from mjumbe.couch import Change, Changes, Row, UnavailableError
from mjumbe.documents import DeliveryReport, Document, milliseconds
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.gateways.base import Failure
from mjumbe.settings import Settings
from mjumbe.states import State, Task
from sentinel import reports
from sentinel.reports import WAIT_MS
from tests.unit.sentinel.memory import by_reference
from tests.unit.sentinel.reporting import PHONE, Lab, doc, document, report, task


@pytest.mark.parametrize(
    ("status", "reason", "state"),
    [
        ("Sent", None, "sent"),  # late: it was on the network already
        ("Submitted", None, "sent"),
        ("Success", None, "delivered"),
        ("Failed", "DeliveryFailure", "failed"),
        ("AbsentSubscriber", "AbsentSubscriber", "failed"),
        ("Teleported", None, "sent"),
    ],
)
def test_on_time(status: str, reason: str | None, state: str) -> None:
    lab = Lab(doc(task()))
    lab.come(document(report(status, reason=reason)))
    assert lab.task()["state"] == state
    (entry,) = lab.task()["state_history"]
    assert entry["state_details"] == (f"{status} ({reason})" if reason else status)
    assert (entry["report"], entry["network_code"], entry["gateway_ref"]) == (status, "63902", "r1")
    assert lab.waiting == 0


@pytest.mark.parametrize("order", list(itertools.permutations(["Sent", "Submitted", "Success"])))
def test_in_any_order_it_ends_delivered(order: tuple[str, ...]) -> None:
    lab = Lab(doc(task(state="received-by-gateway")))
    for status in order:
        lab.come(document(report(status)))
    assert lab.task()["state"] == "delivered"
    assert [entry["report"] for entry in lab.task()["state_history"]] == list(order)


def test_several_in_one_batch_are_applied_as_they_were_received() -> None:
    lab = Lab(doc(task(state="received-by-gateway")))
    lab.come(document(report("Success"), 300), document(report("Sent"), 100), document(report("Submitted"), 200))
    history = [(entry["report"], entry.get("late", False)) for entry in lab.task()["state_history"]]
    assert history == [("Sent", False), ("Submitted", False), ("Success", False)]
    assert lab.couch.main.bulks == 1


def test_those_of_one_millisecond_are_applied_as_they_were_stored() -> None:
    lab = Lab(doc(task(state="received-by-gateway")))
    lab.come(document(report("Success"), 100), document(report("Sent"), 100))
    history = [(entry["report"], entry.get("late", False)) for entry in lab.task()["state_history"]]
    assert history == [("Success", False), ("Sent", True)]


def test_a_batch_for_many_messages_is_one_write() -> None:
    lab = Lab(*(doc(task(ref=f"r{n}", uuid=f"u{n}"), doc_id=f"d{n}") for n in range(500)))
    lab.come(*(document(report("Success", f"r{n}")) for n in range(500)))
    assert lab.couch.main.bulks == 1
    assert all(lab.task(f"d{n}")["state"] == "delivered" for n in range(500))


def test_a_document_is_read_once_for_reports_of_many_of_its_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a thousand recipients in one document each report brought all of it."""
    lab = Lab({**doc(), "tasks": [task(ref=f"r{n}", uuid=f"u{n}") for n in range(100)]})
    read: list[str] = []
    view, fetch = lab.couch.main.view, lab.couch.main.fetch

    def with_rows(design: str, name: str, **query: Any) -> list[Row]:
        rows = view(design, name, **query)
        read.extend(row.id for row in rows if row.doc)
        return rows

    def by_ids(ids: Iterable[str]) -> dict[str, Document]:
        docs = fetch(ids)
        read.extend(docs)
        return docs

    monkeypatch.setattr(lab.couch.main, "view", with_rows)
    monkeypatch.setattr(lab.couch.main, "fetch", by_ids)
    lab.come(*(document(report("Success", f"r{n}")) for n in range(100)))
    assert {each["state"] for each in lab.couch.main.docs["d"]["tasks"]} == {"delivered"}
    assert read == ["d"]


def test_a_later_success_wins_over_an_absent_subscriber() -> None:
    lab = Lab(doc(task()))
    lab.come(document(report("AbsentSubscriber", reason="AbsentSubscriber")))
    lab.come(document(report("Success")))
    assert lab.task()["state"] == "delivered"


# ---- failures that pass


def failure(ref: str, kind: Failure | None, reason: str = "RESULT_ERROR_RADIO_OFF") -> DeliveryReport:
    return DeliveryReport("textbee", ref, "failed", State.FAILED, PHONE, reason, failure=kind)


def accepted(ref: str = "r1", attempts: int = 1, state: str = "received-by-gateway", **more: Any) -> Task:
    """A message that TextBee took."""
    return task(state, ref, service="textbee", attempts=attempts, **more)


@pytest.mark.parametrize(
    ("kind", "attempts", "state"),
    [
        (Failure.RETRY, 1, "pending"),
        (Failure.PERMANENT, 1, "failed"),
        (None, 1, "failed"),
        (Failure.RETRY, 9, "pending"),
        (Failure.RETRY, 10, "failed"),
    ],
)
@pytest.mark.parametrize("before", ["received-by-gateway", "forwarded-by-gateway", "sent"])
def test_a_failure_that_passes_gives_another_attempt(
    before: str, kind: Failure | None, attempts: int, state: str
) -> None:
    lab = Lab(doc(accepted(attempts=attempts, state=before)))
    lab.come(document(failure("r1", kind)))
    one = lab.task()
    assert one["state"] == state
    assert "failed (RESULT_ERROR_RADIO_OFF)" in one["state_details"]
    assert ("retry_at" in one, one.get("via")) == ((True, "textbee") if state == "pending" else (False, one.get("via")))
    assert one["attempts"] == attempts
    assert lab.waiting == 0


@pytest.mark.parametrize("before", ["received-by-gateway", "forwarded-by-gateway", "sent"])
def test_trouble_of_the_services_own_costs_no_attempt_and_any_service_may_take_the_message(before: str) -> None:
    lab = Lab(doc(accepted(attempts=10, state=before)))
    told = failure("r1", Failure.CONFIGURATION, "PERMISSION_DENIED")
    lab.come(document(told))
    lab.come(document(told))
    one = lab.task()
    assert (one["state"], one["state_details"]) == ("pending", "failed (PERMISSION_DENIED)")
    assert (one["attempts"], "retry_at" in one, "via" in one) == (9, False, False)
    assert lab.heard == [told], "once, though it came twice"


def test_what_is_tried_for_days_has_one_entry_for_all_of_it() -> None:
    lab = Lab(doc(task("pending", None)))
    one = lab.couch.main.docs["d"]["tasks"][0]
    for turn in range(1, 4):
        states.claim(one, states.now(), "textbee", f"c{turn}")
        del one["claim"]
        states.remember_ref(one, f"r{turn}")
        states.move(one, State.RECEIVED_BY_GATEWAY, states.now(), "accepted", gateway_ref=f"r{turn}")
        lab.come(document(failure(f"r{turn}", Failure.CONFIGURATION, "PERMISSION_DENIED")))
        one = lab.task()
    assert [entry["state"] for entry in one["state_history"]] == [
        "forwarded-to-gateway",
        "received-by-gateway",
        "pending",
    ]
    assert (one["state_history"][-1]["times"], one["state_history"][-1]["gateway_ref"]) == (3, "r3")


def test_a_failure_told_again_gives_no_further_attempt() -> None:
    lab = Lab(doc(accepted()))
    lab.come(document(failure("r1", Failure.RETRY)))
    first = copy.deepcopy(lab.task())
    lab.come(document(failure("r1", Failure.RETRY)))
    assert lab.task() == first


@pytest.mark.parametrize(
    ("told", "state"),
    [
        (failure("r1", Failure.RETRY, "again"), "received-by-gateway"),
        (failure("r1", Failure.PERMANENT, "again"), "received-by-gateway"),
        (DeliveryReport("textbee", "r1", "sent", State.SENT), "received-by-gateway"),
        (DeliveryReport("textbee", "r1", "delivered", State.DELIVERED), "delivered"),
        (failure("r2", Failure.RETRY), "pending"),
        (failure("r2", None), "failed"),
    ],
)
def test_of_an_earlier_attempt_only_its_delivery_counts(told: DeliveryReport, state: str) -> None:
    lab = Lab(doc(accepted()))
    lab.come(document(failure("r1", Failure.RETRY)))
    second = lab.couch.main.docs["d"]["tasks"][0]
    second |= {"state": "received-by-gateway", "gateway_ref": "r2", "attempts": 2}
    lab.come(document(told))
    assert lab.task()["state"] == state
    assert lab.task()["state_history"][-1]["gateway_ref"] == told.ref
    assert lab.waiting == 0


def test_an_attempt_under_way_is_not_given_back() -> None:
    claimed = accepted(state="forwarded-to-gateway", claim="c", state_history=[{"gateway_ref": "r1"}])
    assert reports.apply(claimed, failure("r1", Failure.RETRY), Settings().sms)
    assert claimed["state"] == "forwarded-to-gateway"
    assert claimed["state_history"][-1]["late"]


def test_what_is_said_late_of_an_attempt_that_failed_takes_back_no_other() -> None:
    lab = Lab(doc(accepted()))
    lab.come(document(failure("r1", Failure.RETRY)))
    waiting = copy.deepcopy(lab.task())
    lab.come(document(DeliveryReport("textbee", "r1", "sent", State.SENT)))
    assert lab.task() | {"state_history": None} == waiting | {"state_history": None}
    assert lab.task()["state_history"][-1]["late"]


@pytest.mark.parametrize(
    "before", [{"state": "pending", "retry_at": "2026-01-01T00:00:00.000Z"}, {"state": "forwarded-to-gateway"}]
)
def test_a_report_of_an_attempt_before_settles_no_doubt(before: dict[str, Any]) -> None:
    lab = Lab(doc(accepted(attempts=2, in_doubt=True, **before)))
    lab.come(document(DeliveryReport("textbee", "r1", "sent", State.SENT)))
    assert before.items() <= lab.task().items()
    assert lab.task()["in_doubt"] is True
    lab.come(document(DeliveryReport("textbee", "r1", "delivered", State.DELIVERED)))
    assert lab.task()["state"] == "delivered"
    assert not {"in_doubt", "retry_at"} & lab.task().keys()


def test_what_is_delivered_is_not_tried_again() -> None:
    lab = Lab(doc(accepted(state="delivered")))
    lab.come(document(failure("r1", Failure.RETRY)))
    assert lab.task()["state"] == "delivered"


def test_a_delivery_before_the_next_attempt_ends_it() -> None:
    lab = Lab(doc(accepted()))
    lab.come(document(failure("r1", Failure.RETRY)))
    lab.come(document(DeliveryReport("textbee", "r1", "delivered", State.DELIVERED)))
    assert lab.task()["state"] == "delivered"


def test_repeated() -> None:
    lab = Lab(doc(task()))
    for _ in range(3):
        lab.come(document(report("Success")))
    assert len(lab.task()["state_history"]) == 1
    assert lab.waiting == 0


def test_the_same_status_for_another_reason_is_another_report() -> None:
    lab = Lab(doc(task()))
    lab.come(document(report("Failed", reason="DeliveryFailure")))
    lab.come(document(report("Failed", reason="UserIsInactive")))
    assert len(lab.task()["state_history"]) == 2


def test_early_and_told_of_the_reference() -> None:
    lab = Lab(doc(task(state="forwarded-to-gateway", ref=None)))
    lab.come(document(report("Success")))
    assert (lab.task()["state"], lab.waiting) == ("forwarded-to-gateway", 1)
    lab.couch.main.store(doc(task()))
    lab.reports.referenced({"other": ("o", "u2"), "r1": ("d", "u1")})
    assert (lab.task()["state"], lab.waiting) == ("delivered", 0)
    lab.reports.referenced({"r1": ("d", "u1")})
    assert len(lab.task()["state_history"]) == 1


def test_early_and_found_by_looking_again() -> None:
    lab = Lab(doc(task(state="forwarded-to-gateway", ref=None)))
    lab.come(document(report("Sent")), document(report("Success")))
    lab.couch.main.store(doc(task()))
    lab.reports.look_again()
    assert lab.waiting == 2, "not so soon"
    lab.look_again()
    assert (lab.task()["state"], lab.waiting) == ("delivered", 0)


def test_nobodys_report_is_dropped_after_a_day() -> None:
    lab = Lab()
    old, young = (milliseconds(states.now()) - WAIT_MS + ms for ms in (-1_000, 60_000))
    lab.come(document(report("Success", "nobody"), old), document(report("Success", "young"), young))
    with capture_logs() as logs:
        lab.look_again()
    assert [told["gateway_ref"] for told in lab.couch.callbacks.docs.values()] == ["young"]
    assert [entry["count"] for entry in logs] == [1]


def test_other_documents_are_left_where_they_are() -> None:
    lab = Lab()
    lab.come({"_id": "opt-out:x", "type": "opt_out"})
    lab.look_again()
    assert lab.waiting == 1


@pytest.mark.parametrize("gone", [None, {"_id": "d", "tasks": []}])
def test_the_message_is_gone(gone: Document | None) -> None:
    lab = Lab(doc(task()))
    lab.couch.main.views["messages_by_gateway_ref"] = lambda _: [("r1", "u1")]
    if gone:
        lab.couch.main.store(gone)
    else:
        lab.couch.main.docs["d"] = {"_id": "d"}
    lab.come(document(report("Success")))
    assert lab.waiting == 0


def test_a_document_that_couchdb_refuses_keeps_its_report() -> None:
    lab = Lab(doc(task()), doc(task(ref="r2"), doc_id="e"))
    lab.couch.main.refused = {"d"}
    lab.come(document(report("Success")), document(report("Success", "r2")))
    assert (lab.task("e")["state"], lab.waiting) == ("delivered", 1)
    lab.couch.main.refused = set()
    lab.look_again()
    assert (lab.task()["state"], lab.waiting) == ("delivered", 0)


def test_what_waits_for_long_is_looked_up_less_often() -> None:
    lab = Lab()
    asked: list[Any] = []
    view = lab.couch.main.view
    lab.couch.main.view = lambda *names, **query: asked.extend(query["keys"]) or view(*names, **query)  # type: ignore
    now = milliseconds(states.now())
    lab.come(document(report("Success", "old", phone=None), now - 2 * reports.YOUNG_MS))
    lab.come(document(report("Success", "new", phone=None), now))
    asked.clear()
    lab.look_again(at_all=False)
    assert asked == ["new"] * 2, "in the index as it is, and brought up"
    asked.clear()
    lab.look_again()
    assert sorted(asked) == ["new"] * 2 + ["old"] * 2


@pytest.mark.parametrize(
    "change",
    [
        {"gateway_ref": None},
        {"status": None},
        {"state": "teleported"},
        {"received": "yesterday"},
        {"phone": 254711000001},
    ],
)
def test_an_odd_report_keeps_no_other_waiting(change: dict[str, Any]) -> None:
    odd = {**document(report("Success", "r1")), **change}
    for name in [name for name, value in change.items() if value is None]:
        del odd[name]
    lab = Lab(doc(task()), doc(task(ref="r2", uuid="u2"), doc_id="e"))
    lab.come(odd, document(report("Success", "r2")))
    assert lab.task("e")["state"] == "delivered"
    unread = change.keys() & {"gateway_ref", "status", "state"}
    assert (lab.task()["state"], lab.waiting) == (("sent", 1) if unread else ("delivered", 0))


@pytest.mark.parametrize(
    ("told", "via"),
    [(DeliveryReport("textbee", "r1", "sent", State.SENT), None), (failure("r1", Failure.RETRY), "textbee")],
)
def test_the_service_whose_report_settles_a_doubt_has_the_message(told: DeliveryReport, via: str | None) -> None:
    one = task("pending", None, in_doubt=True, service=PHONE_GATEWAY)
    assert reports.apply(one, told, Settings().sms)
    assert (one["service"], one.get("via")) == ("textbee", via)


def test_a_message_that_is_under_way_stays_with_its_service_when_a_doubt_is_settled() -> None:
    one = task("forwarded-to-gateway", None, in_doubt=True, service="rapidpro", claim="c")
    assert reports.apply(one, DeliveryReport("textbee", "r1", "sent", State.SENT), Settings().sms)
    assert one["service"] == "rapidpro"


def test_the_attempt_that_a_report_settles_is_the_one_that_counts_from_then_on() -> None:
    one = task("pending", "first", in_doubt=True)
    assert reports.apply(one, report("Submitted", "second"), Settings().sms)
    assert (one["gateway_ref"], one["state"]) == ("second", State.SENT)
    assert reports.apply(one, report("Failed", "second"), Settings().sms)
    assert one["state"] == State.FAILED
    assert reports.apply(one, report("Success", "first"), Settings().sms)
    assert (one["gateway_ref"], one["state"]) == ("second", State.DELIVERED)
    assert states.history(one)[-1]["gateway_ref"] == "first"


def test_the_reference_is_stored_while_its_report_is_looked_up() -> None:
    lab = Lab(doc(task(state="forwarded-to-gateway", ref=None)))
    is_last = iter([False, True])  # the index as it is, then brought up

    def stored_meanwhile(_: Document) -> list[tuple[str, str]]:
        if not next(is_last):
            return []
        lab.couch.main.views["messages_by_gateway_ref"] = by_reference
        lab.couch.main.docs["d"] = {**doc(task()), "_rev": "9-x"}
        lab.reports.referenced({"r1": ("d", "u1")})
        return []

    lab.couch.main.views["messages_by_gateway_ref"] = stored_meanwhile
    lab.come(document(report("Success")))
    assert (lab.task()["state"], lab.waiting) == ("delivered", 0)


def test_what_was_stored_lately_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a broadcast the index would be brought up for each batch of reports."""
    monkeypatch.setattr(reports, "REMEMBERED", 2)
    lab = Lab(*(doc(task(ref=ref, uuid=f"u{ref}"), doc_id=f"d{ref}") for ref in ("r1", "r2", "r3")))
    for ref in ("r1", "r2", "r3"):
        lab.reports.referenced({ref: (f"d{ref}", f"u{ref}")})
    asked: list[list[str]] = []
    view = lab.couch.main.view
    lab.couch.main.view = lambda *names, **query: asked.append(query["keys"]) or view(*names, **query)  # type: ignore
    lab.come(*(document(report("Success", ref)) for ref in ("r1", "r2", "r3")))
    assert asked == [["r1"]]
    assert {lab.task(f"d{ref}")["state"] for ref in ("r1", "r2", "r3")} == {"delivered"}


def test_the_index_is_brought_up_only_for_references_that_it_does_not_know() -> None:
    """And what it knows of a message that was deleted since is not known."""
    lab = Lab(*(doc(task(ref=ref, uuid=f"u{ref}"), doc_id=f"d{ref}") for ref in ("r1", "r2")))
    asked: list[tuple[str, list[str]]] = []
    view = lab.couch.main.view

    def indexed(*names: str, **query: Any) -> list[Row]:
        asked.append((query["update"], query["keys"]))
        found = view(*names, **query)
        if query["update"] == "false":
            return [*(row for row in found if row.key == "r1"), Row("deleted", "r3", "u3")]
        return found

    lab.couch.main.view = indexed  # type: ignore[method-assign]
    lab.come(*(document(report("Success", ref, phone=None)) for ref in ("r1", "r2", "r3")))
    assert asked == [("false", ["r1", "r2", "r3"]), ("true", ["r2", "r3"])]
    assert [lab.task(f"d{ref}")["state"] for ref in ("r1", "r2")] == ["delivered"] * 2
    assert lab.waiting == 1, "the report of what was deleted"


class NoWaiting(threading.Event):
    """Who waits for it goes on at once."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def test_what_comes_as_a_leader_stops_is_left_to_the_next() -> None:
    lab, stop = Lab(doc(task())), NoWaiting()
    told = document(report("Success"))
    lab.couch.callbacks.store(told)

    def changes(since: str, **_: Any) -> Changes:
        stop.set()
        return Changes([Change(told["_id"], "1-x", False, lab.couch.callbacks.get(told["_id"]))], "1-x", 0)

    lab.couch.callbacks.changes = changes  # type: ignore[method-assign]
    lab.reports.run(stop)
    assert (lab.task()["state"], lab.waiting) == ("sent", 1)


def test_after_an_outage_the_reports_are_read_from_the_beginning() -> None:
    lab, stop = Lab(), NoWaiting()
    asked: list[str] = []

    def changes(since: str, **_: Any) -> Changes:
        asked.append(since)
        if len(asked) == 2:
            raise UnavailableError("CouchDB is away")  # and comes back with an older copy of its files, for instance
        if len(asked) == 3:
            stop.set()
        return Changes([], "9-before", 0)

    lab.couch.callbacks.changes = changes  # type: ignore[method-assign]
    lab.reports.run(stop)
    assert asked == ["0", "9-before", "0"]
