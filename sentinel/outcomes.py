"""What a service's answer does to a message: the state, the next attempt, or the wait for a decision."""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from mjumbe import states
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.gateways.base import Failure, Outcome
from mjumbe.settings import Sms
from mjumbe.states import State, Task


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to give one message to one service once."""

    id: str
    service: str
    attempt: int  # 1 for the first


def apply(task: Task, outcome: Outcome, claim: Claim, now: datetime, sms: Sms, *, at_once: bool = False) -> bool:
    """Store in `task` what became of the attempt that `claim` allowed; answers whether there was anything to store.

    `at_once`: another service takes the message now, so that what may be tried again waits for nothing.

    An answer that comes when the claim is no longer ours (a report overtook it, a person cleared the message, another
    sentinel took over) still leaves its reference and its place in the history.
    """
    ours = task.get("claim") == claim.id
    if not ours and _is_stored(task, claim):
        return False
    if ours:
        del task["claim"]
    states.remember_ref(task, outcome.ref)
    if outcome.cost:
        task["cost"] = outcome.cost
    if outcome.parts:
        task["parts"] = outcome.parts
    facts: dict[str, Any] = {"service": claim.service, "attempt": claim.attempt, "code": outcome.code}
    if outcome.failure is None or outcome.failure is Failure.PERMANENT:
        task.pop("in_doubt", None)
        states.move(task, outcome.state or State.FAILED, now, outcome.details, gateway_ref=outcome.ref, **facts)
    elif not ours or states.of(task) is not State.FORWARDED_TO_GATEWAY:
        states.note(task, now, f"a late answer: {outcome.details}", **facts)
    elif outcome.failure in (Failure.CONFIGURATION, Failure.QUOTA):
        # The service is held, not the message: another service may take it.
        states.release(task, now, outcome.details, spent=False, **facts)
    elif outcome.failure is Failure.AMBIGUOUS:
        doubt(task, outcome.details, now, sms, **facts)
    else:
        try_again(task, outcome, now, sms, at_once=at_once, **facts)
    return True


def _is_stored(task: Task, claim: Claim) -> bool:
    """Whether this outcome is in the document already: the write went through, only CouchDB's answer was lost.

    Attempts that were not spent share their number, so what lies before the newest claim of it is another's.
    """
    for entry in reversed(states.history(task)):
        same = entry.get("service") == claim.service and entry.get("attempt") == claim.attempt
        if same and not entry.get("in_doubt"):
            return bool(entry.get("state") != State.FORWARDED_TO_GATEWAY)
    return False


def doubt(task: Task, details: str, now: datetime, sms: Sms, **facts: Any) -> None:
    """A request whose answer never came: send again, or hold the message until a report or a person decides."""
    task["in_doubt"] = True
    if sms.in_doubt == "hold":
        sentence = f"in doubt: {details}; held until a delivery report or a person settles it"
        task["state_details"] = sentence
        states.note(task, now, sentence, in_doubt=True, **facts)
    else:
        outcome = Outcome(f"in doubt: {details}", failure=Failure.AMBIGUOUS)
        try_again(task, outcome, now, sms, in_doubt=True, **facts)


def try_again(task: Task, outcome: Outcome, now: datetime, sms: Sms, *, at_once: bool = False, **facts: Any) -> None:
    """Another attempt later (or `at_once`), or none when there were enough. One that reached nobody is none: it is made
    again as soon as its service is asked again."""
    attempts = states.attempts(task)
    if outcome.spent and attempts >= min(sms.max_attempts, outcome.most_attempts or sms.max_attempts):
        states.move(task, State.FAILED, now, f"gave up after {attempts} attempts: {outcome.details}", **facts)
        return
    later = None if at_once or not outcome.spent else max(outcome.retry_at or now, now + _backoff(attempts, sms))
    states.release(task, now, outcome.details, later, spent=outcome.spent, **facts)


def leave_to_phone(task: Task, now: datetime, sms: Sms, *, failed_elsewhere: bool) -> None:
    """Let the phone gateway find the message at a poll. Until a phone takes it, it may still go by another service; by
    one that has just failed with it, not before a wait."""
    task["service"] = PHONE_GATEWAY
    if failed_elsewhere:
        task["retry_at"] = states.timestamp(now + _backoff(states.attempts(task), sms))


def _backoff(attempts: int, sms: Sms) -> timedelta:
    """Doubles with each attempt; random within its upper half, so that messages that failed together part."""
    longest = min(sms.retry_max, sms.retry_base * 2 ** min(attempts - 1, 30))
    return timedelta(seconds=longest * random.uniform(0.5, 1.0))  # noqa: S311  # no secret depends on it
