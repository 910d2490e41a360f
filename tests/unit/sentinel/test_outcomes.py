"""What a service's answer does to a message."""

import copy
import itertools
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mjumbe import states
from mjumbe.gateways.base import Failure, Outcome
from mjumbe.settings import Sms
from mjumbe.states import State, Task
from sentinel import outcomes
from sentinel.outcomes import Claim

AT = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
LATER = AT + timedelta(seconds=1)
SMS = Sms()
HOLD = Sms(in_doubt="hold")


def claimed(claim: str = "c1", attempts: int = 0) -> tuple[Task, Claim]:
    task: Task = {"state": "pending", "state_history": [{"state": "pending"}], "attempts": attempts}
    states.claim(task, AT, "africas-talking", claim)
    return task, Claim(claim, "africas-talking", attempts + 1)


def last(task: Task) -> dict[str, Any]:
    return states.history(task)[-1]


def retry_at(task: Task) -> datetime:
    return datetime.fromisoformat(task["retry_at"])


# ---- while the claim is ours


@pytest.mark.parametrize(
    ("outcome", "state", "kept"),
    [
        (
            Outcome("Sent", State.SENT, ref="r1", code="101", cost="KES 0.8000", parts=2),
            *("sent", {"gateway_ref": "r1", "cost": "KES 0.8000", "parts": 2}),
        ),
        (Outcome("Queued", State.RECEIVED_BY_GATEWAY, ref="r1"), "received-by-gateway", {"gateway_ref": "r1"}),
        (Outcome("Processed", State.FORWARDED_BY_GATEWAY), "forwarded-by-gateway", {}),
        (Outcome("RiskHold", State.FAILED, Failure.PERMANENT, code="401"), "failed", {}),
        (Outcome("UserInBlacklist", State.DENIED, Failure.PERMANENT, code="406"), "denied", {}),
        (Outcome("HTTP 400", None, Failure.PERMANENT), "failed", {}),
    ],
)
def test_final_answers(outcome: Outcome, state: str, kept: dict[str, Any]) -> None:
    task, claim = claimed()
    assert outcomes.apply(task, outcome, claim, LATER, SMS)
    history = task.pop("state_history")
    assert task == {
        "state": state,
        "state_details": outcome.details,
        "service": "africas-talking",
        "attempts": 1,
        **kept,
    }
    assert history[-1] == {
        "state": state,
        "state_details": outcome.details,
        "timestamp": states.timestamp(LATER),
        "service": "africas-talking",
        "attempt": 1,
        **({"code": outcome.code} if outcome.code else {}),
        **({"gateway_ref": outcome.ref} if outcome.ref else {}),
    }


@pytest.mark.parametrize("failure", [Failure.CONFIGURATION, Failure.QUOTA])
@pytest.mark.parametrize("wait", [None, timedelta(hours=3)])
def test_a_held_service_costs_no_attempt(failure: Failure, wait: timedelta | None) -> None:
    task, claim = claimed(attempts=4)
    outcome = Outcome("InsufficientBalance", failure=failure, code="405", retry_at=AT + wait if wait else None)
    assert outcomes.apply(task, outcome, claim, LATER, SMS)
    assert (task["state"], task["attempts"], task["state_details"]) == ("pending", 4, "InsufficientBalance")
    assert "retry_at" not in task, "the service waits; the message may go by another"
    assert "claim" not in task


@pytest.mark.parametrize("at_once", [False, True])
def test_a_request_that_reached_nobody_costs_no_attempt_and_waits_for_its_service_alone(at_once: bool) -> None:
    outcome = Outcome("no connection (Connection refused)", failure=Failure.RETRY, most_attempts=3, spent=False)
    task, claim = claimed(attempts=SMS.max_attempts)
    assert outcomes.apply(task, outcome, claim, LATER, SMS, at_once=at_once)
    assert (task["state"], task["attempts"], task["state_details"]) == ("pending", SMS.max_attempts, outcome.details)
    assert "retry_at" not in task


@pytest.mark.parametrize("attempts", range(12))
def test_backoff_doubles_within_its_bounds(attempts: int) -> None:
    sms = Sms(retry_base=30, retry_max=3600, max_attempts=100)
    longest = min(3600, 30 * 2**attempts)
    waits = set()
    for _ in range(50):
        task, claim = claimed(attempts=attempts)
        assert outcomes.apply(task, Outcome("HTTP 500", failure=Failure.RETRY), claim, LATER, sms)
        wait = (retry_at(task) - LATER).total_seconds()
        assert longest / 2 - 0.001 <= wait <= longest
        waits.add(wait)
    assert len(waits) > 1, "messages that failed together part"


def test_backoff_of_very_many_attempts() -> None:
    task, claim = claimed(attempts=98)
    outcomes.apply(task, Outcome("HTTP 500", failure=Failure.RETRY), claim, LATER, Sms(max_attempts=100))
    assert retry_at(task) - LATER <= timedelta(hours=1)


def test_not_before_the_service_says() -> None:
    task, claim = claimed()
    morning = AT + timedelta(hours=19)
    outcomes.apply(task, Outcome("DoNotDisturbRejection", failure=Failure.RETRY, retry_at=morning), claim, LATER, SMS)
    assert (task["state"], retry_at(task)) == ("pending", morning)


@pytest.mark.parametrize("says", [AT - timedelta(days=1), LATER, LATER + timedelta(seconds=1)])
def test_a_service_that_says_soon_is_not_asked_before_the_backoff_is_over(says: datetime) -> None:
    task, claim = claimed()
    outcomes.apply(task, Outcome("HTTP 503", failure=Failure.RETRY, retry_at=says), claim, LATER, Sms(retry_base=30))
    assert retry_at(task) - LATER >= timedelta(seconds=14)


@pytest.mark.parametrize(("attempts", "state"), [(0, "pending"), (1, "failed")])
def test_a_service_may_want_fewer_attempts(attempts: int, state: str) -> None:
    task, claim = claimed(attempts=attempts)
    assert outcomes.apply(task, Outcome("HTTP 500", failure=Failure.RETRY, most_attempts=2), claim, LATER, SMS)
    assert task["state"] == state


def test_attempts_are_bounded() -> None:
    sms = Sms(max_attempts=3)
    task: Task = {"state": "pending"}
    for number in itertools.count(1):
        states.claim(task, AT, "africas-talking", f"c{number}")
        claim = Claim(f"c{number}", "africas-talking", number)
        outcomes.apply(task, Outcome("HTTP 500", failure=Failure.RETRY, code="500"), claim, LATER, sms)
        if task["state"] != "pending":
            break
    assert number == 3
    assert (task["state"], task["state_details"]) == ("failed", "gave up after 3 attempts: HTTP 500")
    assert len(states.history(task)) == 6


# ---- in doubt

LOST = Outcome("no answer in time (ReadTimeout)", failure=Failure.AMBIGUOUS)


def test_in_doubt_and_sent_again() -> None:
    task, claim = claimed()
    assert outcomes.apply(task, LOST, claim, LATER, SMS)
    assert (task["state"], task["in_doubt"], task["attempts"]) == ("pending", True, 1)
    assert timedelta(seconds=15) <= retry_at(task) - LATER + timedelta(milliseconds=1) <= timedelta(seconds=31)
    assert last(task)["in_doubt"] is True
    assert last(task)["state_details"] == "in doubt: no answer in time (ReadTimeout)"
    states.claim(task, LATER, "africas-talking", "c2")
    outcomes.apply(task, Outcome("Sent", State.SENT, ref="r2"), Claim("c2", "africas-talking", 2), LATER, SMS)
    assert (task["state"], task["gateway_ref"]) == ("sent", "r2")
    assert "in_doubt" not in task


def test_in_doubt_and_held() -> None:
    task, claim = claimed()
    assert outcomes.apply(task, LOST, claim, LATER, HOLD)
    assert (task["state"], task["in_doubt"]) == ("forwarded-to-gateway", True)
    assert "claim" not in task
    assert "retry_at" not in task
    assert "held until a delivery report or a person settles it" in task["state_details"]
    assert last(task)["in_doubt"] is True


def test_in_doubt_is_bounded_too() -> None:
    task, claim = claimed(attempts=9)
    assert outcomes.apply(task, LOST, claim, LATER, SMS)
    assert task["state"] == "failed"


# ---- the answer to CouchDB's write was lost

OUTCOMES = [
    Outcome("Sent", State.SENT, ref="r1", code="101"),
    Outcome("RiskHold", State.FAILED, Failure.PERMANENT),
    Outcome("HTTP 500", failure=Failure.RETRY),
    Outcome("InsufficientBalance", failure=Failure.CONFIGURATION),
]


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_stored_already(outcome: Outcome) -> None:
    task, claim = claimed()
    outcomes.apply(task, outcome, claim, AT, SMS)
    before = copy.deepcopy(task)
    assert not outcomes.apply(task, outcome, claim, LATER, SMS)
    assert task == before


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_stored_already_and_then_a_report_came(outcome: Outcome) -> None:
    task, claim = claimed()
    outcomes.apply(task, outcome, claim, AT, SMS)
    states.move(task, State.DELIVERED, AT, "Success", report="Success", gateway_ref="r1")
    before = copy.deepcopy(task)
    assert not outcomes.apply(task, outcome, claim, LATER, SMS)
    assert task == before


# ---- the claim is no longer ours

SENT = Outcome("Sent", State.SENT, ref="r1", cost="KES 0.8000", parts=1)


def test_a_report_came_before_the_answer() -> None:
    task, claim = claimed()
    states.move(task, State.DELIVERED, AT, "Success", report="Success", gateway_ref="r1")
    assert outcomes.apply(task, SENT, claim, LATER, SMS)
    assert (task["state"], task["gateway_ref"], task["cost"]) == ("delivered", "r1", "KES 0.8000")
    assert (last(task)["state"], last(task)["late"]) == ("sent", True)


def test_cleared_meanwhile() -> None:
    task, claim = claimed()
    states.move(task, State.CLEARED, AT)
    assert outcomes.apply(task, SENT, claim, LATER, SMS)
    assert (task["state"], task["gateway_ref"]) == ("cleared", "r1")
    assert last(task)["late"] is True


@pytest.mark.parametrize("outcome", [o for o in OUTCOMES if o.failure in (Failure.RETRY, Failure.CONFIGURATION)])
def test_cleared_and_not_taken(outcome: Outcome) -> None:
    task, claim = claimed()
    states.move(task, State.CLEARED, AT)
    assert outcomes.apply(task, outcome, claim, LATER, SMS)
    assert task["state"] == "cleared"
    assert last(task)["state_details"] == f"a late answer: {outcome.details}"


def test_doubted_by_another_sentinel_before_the_answer() -> None:
    task, claim = claimed()
    del task["claim"]
    outcomes.doubt(task, "no answer was stored", AT, SMS, service="africas-talking", attempt=1)
    assert outcomes.apply(task, SENT, claim, LATER, SMS)
    assert (task["state"], task["gateway_ref"]) == ("sent", "r1")
    assert "in_doubt" not in task


def test_claimed_again_by_another_sentinel_before_the_answer() -> None:
    task, claim = claimed()
    del task["claim"]
    outcomes.doubt(task, "no answer was stored", AT, SMS, service="africas-talking", attempt=1)
    states.claim(task, AT, "africas-talking", "c2")
    assert outcomes.apply(task, Outcome("HTTP 500", failure=Failure.RETRY), claim, LATER, SMS)
    assert (task["state"], task["claim"]) == ("forwarded-to-gateway", "c2"), "the other's claim is left alone"


def test_a_refusal_that_cost_no_attempt_is_not_taken_for_the_answer() -> None:
    """Attempt 1 was refused without being spent, so the next is attempt 1 too, and its answer is another one."""
    task, first = claimed()
    outcomes.apply(task, Outcome("InsufficientBalance", failure=Failure.CONFIGURATION), first, AT, SMS)
    states.claim(task, AT, "africas-talking", "c2")
    del task["claim"]
    outcomes.doubt(task, "no answer was stored", AT, SMS, service="africas-talking", attempt=1)
    assert outcomes.apply(task, SENT, Claim("c2", "africas-talking", 1), LATER, SMS)
    assert (task["state"], task["gateway_ref"]) == ("sent", "r1")
