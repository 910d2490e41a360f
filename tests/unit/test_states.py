"""The state machine: every state against every target, claims and their release, the history."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from mjumbe import states
from mjumbe.states import State, Task

AT = datetime(2026, 1, 1, 12, 0, 0, 123_999, UTC)
STAMP = "2026-01-01T12:00:00.123Z"

# For each state the targets that it moves to; every other target is only noted in the history.
FORWARD: dict[str, set[str]] = {
    "scheduled": {
        *("pending", "forwarded-to-gateway", "received-by-gateway", "forwarded-by-gateway", "sent", "delivered"),
        *("failed", "denied", "cleared", "muted", "duplicate", "unrecognised"),
    },
    "pending": {
        *("forwarded-to-gateway", "received-by-gateway", "forwarded-by-gateway", "sent", "delivered"),
        *("failed", "denied", "cleared", "muted", "duplicate", "unrecognised"),
    },
    "forwarded-to-gateway": {
        *("received-by-gateway", "forwarded-by-gateway", "sent", "delivered"),
        *("failed", "denied", "cleared", "muted", "duplicate", "unrecognised"),
    },
    "received-by-gateway": {
        *("forwarded-by-gateway", "sent", "delivered"),
        *("failed", "denied", "cleared", "muted", "duplicate", "unrecognised"),
    },
    "forwarded-by-gateway": {
        *("sent", "delivered"),
        *("failed", "denied", "cleared", "muted", "duplicate", "unrecognised"),
    },
    "sent": {"delivered", "failed", "denied", "cleared", "muted", "duplicate", "unrecognised"},
    "delivered": set(),
    "failed": {"delivered"},
    "denied": set(),
    "cleared": set(),
    "muted": set(),
    "duplicate": set(),
    "unrecognised": {state.value for state in State},
    "teleported": {state.value for state in State},
}


@pytest.mark.parametrize("target", [state.value for state in State])
@pytest.mark.parametrize("current", FORWARD)
def test_moves(current: str, target: str) -> None:
    task: Task = {"state": current, "state_details": "before", "state_history": [{"state": current}]}
    moved = states.move(task, State(target), AT, "the reason", code="101", gateway_ref=None)
    assert moved is (target in FORWARD[current])
    assert task["state"] == (target if moved else current)
    assert task["state_details"] == ("the reason" if moved else "before")
    entry = {"state": target, "state_details": "the reason", "timestamp": STAMP, "code": "101"}
    assert task["state_history"] == [{"state": current}, entry if moved else {**entry, "late": True}]


@pytest.mark.parametrize(
    ("before", "target"),
    [(before, target) for before in FORWARD for target in State if before not in ("teleported", "unrecognised")],
)
def test_a_word_that_nobody_knows_opens_no_way_back(before: str, target: State) -> None:
    """cht-gateway's phones may tell any."""
    entries = [{"state": before}, {"state": "pending", "late": True}, {"state": "unrecognised"}]
    task: Task = {"state": "unrecognised", "state_history": entries}
    assert states.move(task, target, AT) is (target in FORWARD[before])


def test_every_state_is_in_the_table() -> None:
    assert set(FORWARD) - {"teleported"} == {state.value for state in State}


@pytest.mark.parametrize(
    ("state", "known"),
    [("pending", State.PENDING), ("unrecognised", State.UNRECOGNISED), ("teleported", None), (None, None), (7, None)],
)
def test_of(state: object, known: State | None) -> None:
    assert states.of({"state": state}) is known
    assert states.of({}) is None


@pytest.mark.parametrize(
    ("at", "text"),
    [
        (AT, STAMP),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00.000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),  # no date, as some programs write it
        (datetime(2026, 1, 1, 3, 0, 0, 5_000, timezone(timedelta(hours=3))), "2026-01-01T00:00:00.005Z"),
    ],
)
def test_timestamps(at: datetime, text: str) -> None:
    assert states.timestamp(at) == text


def pending(**more: Any) -> Task:
    return {"state": "pending", "state_history": [{"state": "pending", "timestamp": STAMP}], **more}


def test_a_move_without_details_takes_the_old_ones_away() -> None:
    task = pending(state_details="earlier")
    assert states.move(task, State.SENT, AT)
    assert "state_details" not in task
    assert task["state_history"][-1] == {"state": "sent", "timestamp": STAMP}


def test_a_claim() -> None:
    task = pending(attempts=2, retry_at="2026-01-01T11:00:00.000Z", state_details="HTTP 500")
    states.claim(task, AT, "africas-talking", "c1")
    assert task == {
        "state": "forwarded-to-gateway",
        "service": "africas-talking",
        "claim": "c1",
        "attempts": 3,
        "state_history": [
            {"state": "pending", "timestamp": STAMP},
            {"state": "forwarded-to-gateway", "timestamp": STAMP, "service": "africas-talking", "attempt": 3},
        ],
    }


@pytest.mark.parametrize("attempts", [None, "3", [], True])
def test_odd_attempts(attempts: object) -> None:
    assert states.attempts({"attempts": attempts}) == int(attempts is True)
    assert states.attempts({}) == 0


def test_a_release_that_spends_the_attempt() -> None:
    task = pending()
    states.claim(task, AT, "africas-talking", "c1")
    states.release(task, AT, "HTTP 500", AT + timedelta(seconds=30), code="500")
    assert (task["state"], task["state_details"], task["attempts"]) == ("pending", "HTTP 500", 1)
    assert task["retry_at"] == "2026-01-01T12:00:30.123Z"
    assert task["state_history"][1:] == [
        {"state": "forwarded-to-gateway", "timestamp": STAMP, "service": "africas-talking", "attempt": 1},
        {"state": "pending", "state_details": "HTTP 500", "timestamp": STAMP, "code": "500"},
    ]


def test_equal_refusals_in_a_row_are_one_entry_that_counts_them() -> None:
    task = pending()
    for _ in range(1000):
        states.claim(task, AT, "africas-talking", "c")
        states.release(task, AT, "InsufficientBalance", spent=False)
    assert task["attempts"] == 0
    assert "retry_at" not in task
    assert task["state_history"] == [
        {"state": "pending", "timestamp": STAMP},
        {"state": "forwarded-to-gateway", "timestamp": STAMP, "service": "africas-talking", "attempt": 1},
        {"state": "pending", "state_details": "InsufficientBalance", "timestamp": STAMP, "times": 1000},
    ]


def test_another_refusal_begins_another_entry() -> None:
    task = pending()
    for details in ("InsufficientBalance", "InsufficientBalance", "HTTP 401", "HTTP 401", "HTTP 401"):
        states.claim(task, AT, "africas-talking", "c")
        states.release(task, AT, details, spent=False)
    counted = [(entry.get("state_details"), entry.get("times")) for entry in task["state_history"]]
    assert counted == [
        *((None, None), (None, None), ("InsufficientBalance", 2)),
        *((None, None), ("HTTP 401", 3)),
    ]


@pytest.mark.parametrize("times", ["3", None, [], {}])
def test_an_odd_count_is_begun_anew(times: object) -> None:
    task = pending()
    task["state_history"][0] |= {"state_details": "HTTP 401", "times": times}
    states.claim(task, AT, "africas-talking", "c")
    states.release(task, AT, "HTTP 401", spent=False)
    assert task["state_history"][-1]["times"] == 2


def test_spent_attempts_are_never_collapsed() -> None:
    task = pending()
    for _ in range(3):
        states.claim(task, AT, "africas-talking", "c")
        states.release(task, AT, "HTTP 500", AT)
    assert len(task["state_history"]) == 7
    assert task["attempts"] == 3


@pytest.mark.parametrize("history", [None, "x", {}, [None, 3, "x"]])
def test_an_odd_history_is_begun_anew(history: object) -> None:
    task: Task = {"state": "pending", "state_history": history}
    assert states.history(task) == []
    states.note(task, AT, "something", report="Sent")
    assert task["state_history"] == [
        {"state": "pending", "state_details": "something", "timestamp": STAMP, "report": "Sent"}
    ]


@pytest.mark.parametrize(
    ("before", "given", "after"),
    [
        (None, "ATXid_1", "ATXid_1"),
        ("ATXid_1", "ATXid_2", "ATXid_2"),
        ("ATXid_1", None, "ATXid_1"),
        ("ATXid_1", "", "ATXid_1"),
        ("ATXid_1", "None", "ATXid_1"),
        (None, "None", None),
    ],
)
def test_references_are_never_erased(before: str | None, given: str | None, after: str | None) -> None:
    task: Task = {"gateway_ref": before} if before else {}
    states.remember_ref(task, given)
    assert task.get("gateway_ref") == after


@pytest.mark.parametrize("state", ["pending", "forwarded-to-gateway"])
@pytest.mark.parametrize(("sent", "after"), [(True, "sent"), (False, "pending")])
def test_a_person_settles_a_doubt(state: str, sent: bool, after: str) -> None:
    task: Task = {"state": state, "in_doubt": True, "retry_at": "2026-01-01T13:00:00.000Z", "attempts": 1}
    states.settle(task, AT, sent=sent, by="amina")
    assert task["state"] == after
    assert "in_doubt" not in task and "retry_at" not in task
    assert states.history(task)[-1]["state_details"].startswith("settled by amina: it was")
