"""The state machine of an outgoing message: the only code that changes a task's state.

The states and their spelling are the Community Health Toolkit's; a task is the dictionary that CHT keeps in `tasks`
and `scheduled_tasks`. States only move forward, the history keeps everything in order of arrival.
"""

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

Task = dict[str, Any]


class State(StrEnum):
    SCHEDULED = "scheduled"  # not due yet
    PENDING = "pending"  # due: waiting for a service
    FORWARDED_TO_GATEWAY = "forwarded-to-gateway"  # claimed: a request with it is under way, or its outcome in doubt
    RECEIVED_BY_GATEWAY = "received-by-gateway"  # the service has it in its queue
    FORWARDED_BY_GATEWAY = "forwarded-by-gateway"  # the service tried to send it
    SENT = "sent"  # on the network
    DELIVERED = "delivered"  # on the handset
    FAILED = "failed"  # given up; nothing tries again by itself
    DENIED = "denied"  # refused before sending: by our rules, or because the person opted out
    CLEARED = "cleared"  # taken back: no longer needed
    MUTED = "muted"  # the person's messages are switched off
    DUPLICATE = "duplicate"  # the same text to the same number too often
    UNRECOGNISED = "unrecognised"  # the phone gateway reported a state that nobody knows


_ORDER = (
    State.SCHEDULED,
    State.PENDING,
    State.FORWARDED_TO_GATEWAY,
    State.RECEIVED_BY_GATEWAY,
    State.FORWARDED_BY_GATEWAY,
    State.SENT,
    State.DELIVERED,
)
_RANK = {state: rank for rank, state in enumerate(_ORDER)}

NEVER_SENT = frozenset({State.DENIED, State.CLEARED, State.MUTED, State.DUPLICATE})
NOT_SENT = NEVER_SENT | {State.FAILED}  # ended, and nobody will send it any more
# How much a state tells of what became of a message. What is still due tells nothing.
_TOLD: dict[State | None, int] = {
    **dict.fromkeys(NEVER_SENT, 1),
    State.FORWARDED_TO_GATEWAY: 2,
    State.FAILED: 3,
    State.RECEIVED_BY_GATEWAY: 4,
    State.FORWARDED_BY_GATEWAY: 5,
    State.SENT: 6,
    State.DELIVERED: 7,
}
DUE = frozenset({State.PENDING, State.SCHEDULED})
CLOCKS_APART = timedelta(minutes=1)  # what the clocks of two machines may differ by


def now() -> datetime:
    return datetime.now(UTC)


def timestamp(at: datetime) -> str:
    """As CHT writes times: ISO 8601 in UTC with milliseconds, `2026-01-01T00:00:00.000Z`."""
    return at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"


def latest() -> str:
    """The latest moment that may be now by another machine's clock: a later one was written before the clock was set
    back."""
    return timestamp(now() + CLOCKS_APART)


def of(task: Task) -> State | None:
    """The task's state, None for one that we do not know."""
    try:
        return State(str(task.get("state")))
    except ValueError:
        return None


def is_forward(current: State | None, target: State) -> bool:
    """Whether `target` comes after `current` in a message's life.

    `delivered` is final; `failed` may still become `delivered`; what was never sent stays so. A state that nobody
    knows may become any.
    """
    if current is None or current is State.UNRECOGNISED:
        return True
    if current is State.FAILED:
        return target is State.DELIVERED
    if current in NEVER_SENT or current is State.DELIVERED:
        return False
    if target not in _RANK:
        return True
    return _RANK[target] > _RANK[current]


def move(task: Task, target: State, at: datetime, details: str | None = None, **facts: Any) -> bool:
    """Move `task` to `target` if that is forward, else note in its history that `target` came late.

    `details` is a sentence or a service's word, `facts` go into the history entry. Answers whether the state changed.
    """
    if not is_forward(_known(task), target):
        come_late(task, target, at, details, **facts)
        return False
    _set(task, target, at, details, facts)
    return True


def _known(task: Task) -> State | None:
    """The task's state; behind one that nobody knows the last that was, from where the message goes on."""
    if of(task) is not State.UNRECOGNISED:
        return of(task)
    before = [of(entry) for entry in history(task) if not entry.get("late")]
    return next((state for state in reversed(before) if state not in (None, State.UNRECOGNISED)), None)


def come_late(task: Task, told: State, at: datetime, details: str | None = None, **facts: Any) -> None:
    """Keep in the history a state that was `told` of the task and is not its own any more."""
    _append(task, told, at, details, {**facts, "late": True})


def claim(task: Task, at: datetime, service: str, claim_id: str) -> None:
    """Take a due task for `service`: from here until its outcome is stored, sending it is in doubt.

    `claim_id` tells whose claim it is.
    """
    task["service"] = service
    task["claim"] = claim_id
    task["attempts"] = attempts(task) + 1
    task.pop("retry_at", None)
    _set(task, State.FORWARDED_TO_GATEWAY, at, None, {"service": service, "attempt": task["attempts"]})


def release(
    task: Task, at: datetime, details: str, retry_at: datetime | None = None, *, spent: bool = True, **facts: Any
) -> None:
    """Give a claimed task back: due again at `retry_at`. `spent=False` when the attempt should not count.

    This is the one step backward, and only whoever holds the claim takes it, or has the service's word that the message
    was not sent. A held service is asked once a minute, for days perhaps: equal refusals in a row are one entry of the
    history that counts them in `times`.
    """
    if not spent:
        task["attempts"] = max(0, attempts(task) - 1)
    if retry_at is not None:
        task["retry_at"] = timestamp(retry_at)
    before = _before_this_attempt(task)
    if not spent and before and before[-1].get("state_details") == details:
        task["state_history"] = before[:-1]
        times = before[-1].get("times")
        facts["times"] = times + 1 if isinstance(times, int) else 2
    _set(task, State.PENDING, at, details, facts)


def _before_this_attempt(task: Task) -> list[dict[str, Any]]:
    """The history up to the last claim; empty when something came after it that is no part of the attempt."""
    entries = history(task)
    claims = [place for place, entry in enumerate(entries) if entry.get("state") == State.FORWARDED_TO_GATEWAY]
    if not claims or any(entry.get("late") for entry in entries[claims[-1] :]):
        return []
    return entries[: claims[-1]]


def settle(task: Task, at: datetime, *, sent: bool, by: str) -> None:
    """The person `by` says whether a message was sent of which that is not known; if not, it is due again at once."""
    task.pop("in_doubt", None)
    task.pop("retry_at", None)
    if sent:
        move(task, State.SENT, at, f"settled by {by}: it was sent")
    else:
        release(task, at, f"settled by {by}: it was not sent")


def take_over(task: Task, other: Task, at: datetime, rev: str) -> bool:
    """Make of the task what `other` is, the same message in the conflicting revision `rev` of its document, if that is
    further on in a message's life. Answers whether it was."""
    if not _is_further(other, task):
        return False
    known, theirs = history(task), history(other)
    entries = [*theirs, *(entry for entry in known if entry not in theirs)]
    task.clear()
    task.update(other, state_history=sorted(entries, key=lambda entry: str(entry.get("timestamp"))))
    note(task, at, f"from the conflicting revision {rev}", conflict=rev)
    return True


def _is_further(other: Task, task: Task) -> bool:
    """Whether `other` says more of what became of a message than `task`.

    Not by what the task has been through already: it was put back since. Where one went on from what the other is, it
    is right; where each went its own way, the one that tells more.
    """
    known, theirs, told = _own_history(task), _own_history(other), of(other)
    news = [entry for entry in theirs if entry not in known]
    if not news and other.get("state") in {entry.get("state") for entry in known}:
        return False
    # Many write what is due without any history.
    is_as_told = known[-1].get("state") == task.get("state") if known else of(task) in DUE
    if is_as_told and all(entry in theirs for entry in known):
        # What is merely due on both sides may be due at another time: who rescheduled it is right.
        return told in _TOLD or (told in DUE and (of(task) not in DUE or attempts(other) > attempts(task)))
    return told in _TOLD and _TOLD[told] > _TOLD.get(of(task), 0)


def _own_history(task: Task) -> list[dict[str, Any]]:
    """The history without what was noted when conflicts were settled."""
    return [entry for entry in history(task) if "conflict" not in entry]


def history(task: Task) -> list[dict[str, Any]]:
    """The task's history, oldest first."""
    entries = task.get("state_history")
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []


def note(task: Task, at: datetime, details: str, **facts: Any) -> None:
    """Keep something in the history that changes no state."""
    _append(task, str(task.get("state")), at, details, facts)


def wait(task: Task, at: datetime, details: str, until: datetime) -> None:
    """Nothing can be done about the task now: say why, once, and look again at `until`."""
    if task.get("state_details") != details:
        note(task, at, details)
        task["state_details"] = details
    task["retry_at"] = timestamp(until)


def attempts(task: Task) -> int:
    """How many times the task was given to a service."""
    count = task.get("attempts")
    return count if isinstance(count, int) else 0


def remember_ref(task: Task, ref: str | None) -> None:
    """Keep the service's reference. An empty one never erases one that is there, and "None" is no reference."""
    if ref and ref != "None":
        task["gateway_ref"] = ref


def _set(task: Task, state: State, at: datetime, details: str | None, facts: dict[str, Any]) -> None:
    task["state"] = state.value
    if details is None:
        task.pop("state_details", None)
    else:
        task["state_details"] = details
    _append(task, state, at, details, facts)


def _append(task: Task, state: str, at: datetime, details: str | None, facts: dict[str, Any]) -> None:
    entry: dict[str, Any] = {"state": str(state)}
    if details is not None:
        entry["state_details"] = details
    entry["timestamp"] = timestamp(at)
    entry.update({name: value for name, value in facts.items() if value is not None})
    task["state_history"] = [*history(task), entry]
