"""One SMS service as the outbox sees it: how much it takes at once, and whether it is held."""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from enum import Enum, auto

import structlog

from mjumbe import states
from mjumbe.documents import DeliveryReport, Key
from mjumbe.gateways.base import PASSING, Failure, Gateway, Outcome
from mjumbe.log import mask_numbers
from mjumbe.settings import ServiceSettings
from mjumbe.states import State
from mjumbe.status import ServiceStatus

log = structlog.get_logger(__name__)

PROBE_SECONDS = 60.0  # a held service is asked once a minute whether it works again
BREAKER_FAILURES = 5  # requests that fail in a row before a service is left in peace
BREAKER_SECONDS = 5.0  # at first; doubled at each failed probe, up to PROBE_SECONDS
LEFT_ALONE_SECONDS = 5.0  # after which a held service would have been asked again, if a message waited for it
# A service that has answered nothing for so long, though it was asked, is waited for no more when another can take the
# message: usually an answer comes within 2 s, but a hanging one would take all of `read_timeout`.
SILENT_SECONDS = 3.0
REFUSED_REMEMBERED = 1_000  # messages


class Cause(Enum):
    """What a service is held by, which decides what frees it."""

    ANSWER = auto()  # it said that it takes nothing: a message that it takes
    FAILURES = auto()  # requests that failed in a row: anything that it answers
    REPORT = auto()  # it took messages that it could not send: a report that one was sent


class Service:
    """One service that we call: its gateway, its limits, and its health. Safe for many threads."""

    def __init__(
        self, name: str, gateway: Gateway, limits: ServiceSettings, before: ServiceStatus | None = None
    ) -> None:
        """`before`: how the service was, as far as is known; what held it then is asked anew."""
        self.name = name
        self.gateway = gateway
        self.limits = limits
        self.status = replace(before or ServiceStatus(), held=False, reason=None, since=None)
        # Whether it is asked by one request at a time, because what held it may be over.
        self._is_tried = before is not None and before.held
        self._lock = threading.Lock()
        self._places = 0  # taken by requests: from before their claim until their results are handed in
        self._asking = 0  # requests that wait for the service's answer
        self._failures = 0
        self._cause: Cause | None = None  # while it is held
        self._held_until = 0.0  # monotonic
        self._refused: dict[Key, float] = {}  # messages, and when they were refused last (monotonic), oldest first
        self._taken = 0.0  # when it last took a message (monotonic)
        self._probes: set[str] = set()  # the references of what it took while a report held it
        self._tokens = self._burst = max(1.0, limits.max_per_second or 0.0)
        self._filled = self._heard = time.monotonic()

    def change(self, gateway: Gateway, limits: ServiceSettings) -> None:
        """From now on it is called by these, with a new key for instance. What is under way is under way."""
        with self._lock:
            is_tried, rate = self.status.held or self._is_tried, self.limits.max_per_second
            self._free()
            self._refused.clear()
            self._is_tried, self._held_until = is_tried, 0.0
            self.gateway, self.limits = gateway, limits
            self._burst = max(1.0, limits.max_per_second or 0.0)
            self._tokens = min(self._tokens, self._burst) if rate else self._burst

    def room(self) -> int:
        """How many requests may start now. A held service, and one that was, gets single probes."""
        with self._lock:
            if self.status.held or self._is_tried:
                return 1 if time.monotonic() >= self._held_until and self._places == 0 else 0
            free = self.limits.concurrency - self._places
            # Less than nothing is free when the settings allow less than is under way, or a rate less than the probes.
            return max(0, min(free, self._fill()) if self.limits.max_per_second else free)

    @property
    def batch_size(self) -> int:
        """Messages for the next request: a probe risks a single one."""
        return 1 if self.status.held or self._is_tried else self.limits.batch_size

    def is_over_rate(self) -> bool:
        """Whether only its rate keeps it from taking another request."""
        with self._lock:
            return bool(self.limits.max_per_second) and self._places < self.limits.concurrency and self._fill() < 1

    def is_silent(self) -> bool:
        """Whether requests are under way and none has been answered for SILENT_SECONDS."""
        with self._lock:
            return self._asking > 0 and time.monotonic() - self._heard > SILENT_SECONDS

    def _fill(self) -> int:
        """The requests that the rate allows now: a bucket that fills with `max_per_second`."""
        now = time.monotonic()
        rate = self.limits.max_per_second or 0.0
        self._tokens = min(self._burst, self._tokens + (now - self._filled) * rate)
        self._filled = now
        return int(self._tokens)

    def started(self) -> None:
        """A request takes a place."""
        with self._lock:
            self._places += 1
            self._tokens -= 1

    @contextmanager
    def asked(self) -> Iterator[None]:
        """While a request waits for its answer."""
        with self._lock:
            if self._asking == 0:
                self._heard = time.monotonic()
            self._asking += 1
        try:
            yield
        finally:
            with self._lock:
                self._asking -= 1

    def finished(self) -> None:
        """A request is over, its results handed in: its place is another's."""
        with self._lock:
            self._places -= 1

    # ---- health

    def judged(self, keys: Sequence[Key], outcomes: Sequence[Outcome]) -> list[Outcome]:
        """The outcomes of the messages with these keys, as they are to be taken.

        A message that is refused once more for how the service is configured, though that took others since, is refused
        for itself: a sender id that one network does not know. It is tried again like one that failed, lest it hold up
        all others for a minute each time.
        """
        now = time.monotonic()
        with self._lock:
            judged = [self._judged(key, outcome, now) for key, outcome in zip(keys, outcomes, strict=True)]
            if any(outcome.failure is None for outcome in outcomes):
                self._taken = now
        return judged

    def _judged(self, key: Key, outcome: Outcome, now: float) -> Outcome:
        before = self._refused.pop(key, None)
        if outcome.failure is not Failure.CONFIGURATION:
            return outcome
        self._refused[key] = now
        if len(self._refused) > REFUSED_REMEMBERED:
            del self._refused[next(iter(self._refused))]
        is_its_own = before is not None and self._taken > before
        return replace(outcome, failure=Failure.RETRY) if is_its_own else outcome

    def answered(self, outcomes: Sequence[Outcome]) -> bool:
        """Draw from a request's outcomes how the service is; answers whether it became held or free."""
        with self._lock:
            self._heard = time.monotonic()
            before = self.status
            refusal = next((o for o in outcomes if o.failure in (Failure.CONFIGURATION, Failure.QUOTA)), None)
            failed = all(o.failure in PASSING and not o.personal for o in outcomes)
            if refusal is not None:
                self._hold(Cause.ANSWER, refusal.details, _seconds_until(refusal.retry_at) or PROBE_SECONDS)
            elif failed:
                self._failed(outcomes[0].details)
            else:
                self._took(outcomes)
        return self._say_change(before)

    def _failed(self, details: str) -> None:
        self.status = replace(self.status, last_failure=_now())
        # What was under way when the pause began is no probe, and makes no pause longer.
        if self._is_paused():
            return
        self._failures += 1
        if self._cause is Cause.REPORT:
            self._held_until = time.monotonic() + PROBE_SECONDS
        elif self._failures >= BREAKER_FAILURES:
            pause = min(PROBE_SECONDS, BREAKER_SECONDS * 2 ** min(self._failures - BREAKER_FAILURES, 10))
            # Not how often by now: a reason that stays is logged once.
            self._hold(Cause.FAILURES, f"{details}, {BREAKER_FAILURES} times in a row", pause)

    def _took(self, outcomes: Sequence[Outcome]) -> None:
        self.status = replace(self.status, last_success=_now())
        if self._cause in (Cause.ANSWER, Cause.REPORT) and self._is_paused():
            return  # it was under way when the pause began
        if self._cause is Cause.REPORT:
            self._probes.update(outcome.ref for outcome in outcomes if outcome.ref)
            self._held_until = time.monotonic() + PROBE_SECONDS
        else:
            self._free()

    def reported(self, report: DeliveryReport) -> None:
        """Draw from what became of a message how the service is that took it: a phone that may not send SMS takes
        every message, and fails each. It is held, until a message that it took since is reported sent."""
        with self._lock:
            before = self.status
            if report.state is State.FAILED and report.failure == Failure.CONFIGURATION:
                self._hold(Cause.REPORT, report.summary, PROBE_SECONDS)
            elif report.state in (State.SENT, State.DELIVERED) and report.ref in self._probes:
                self._free()
        self._say_change(before)

    def is_left_alone(self) -> bool:
        """Whether its failures hold it, and no message waits that would have asked it again."""
        with self._lock:
            since = time.monotonic() - self._held_until
            return self._cause is Cause.FAILURES and self._places == 0 and since > LEFT_ALONE_SECONDS

    def recovered(self) -> None:
        """It answers again, so that its failures hold it no more. Other causes only a message can ask about."""
        with self._lock:
            before = self.status
            if self._cause is Cause.FAILURES:
                self._free()
        self._say_change(before)

    def learn_balance(self, balance: str | None) -> None:
        """The service said what is left in the account."""
        with self._lock:
            self.status = replace(self.status, balance=balance or self.status.balance)

    def _is_paused(self) -> bool:
        return self.status.held and time.monotonic() < self._held_until

    def _hold(self, cause: Cause, reason: str, seconds: float) -> None:
        self._cause = cause
        self._held_until = time.monotonic() + seconds
        now = _now()
        self.status = replace(
            self.status,
            held=True,
            reason=mask_numbers(reason),  # often a service's words, and shown to everybody
            since=self.status.since or now,
            last_failure=now,
        )

    def _free(self) -> None:
        self._is_tried = False
        self._failures = 0
        self._cause = None
        self._probes.clear()
        self.status = replace(self.status, held=False, reason=None, since=None)

    def _say_change(self, before: ServiceStatus) -> bool:
        """Log it when the service became held or free, and answer whether it did."""
        if self.status.held == before.held:
            return False
        say_change(self.name, self.status)
        return True


def say_change(service: str, status: ServiceStatus) -> None:
    """Log that a service became held, or free."""
    if status.held:
        log.warning("a service is held", service=service, reason=status.reason)
    else:
        log.info("a service works again", service=service)


def _now() -> str:
    return states.timestamp(states.now())


def _seconds_until(moment: datetime | None) -> float | None:
    return max(1.0, (moment - states.now()).total_seconds()) if moment else None
