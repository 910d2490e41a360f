"""A service that is asked by hand, on a clock that is moved by hand."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

from mjumbe.gateways.base import Failure, Gateway, Outcome
from mjumbe.settings import ServiceSettings
from mjumbe.states import State
from sentinel.service import Service

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
AT = "africas-talking"
SENT = Outcome("Sent", State.SENT)
NO_BALANCE = Outcome("InsufficientBalance", failure=Failure.CONFIGURATION, code="405")
BROKEN = Outcome("HTTP 500", failure=Failure.RETRY)
LOST = Outcome("no answer in time", failure=Failure.AMBIGUOUS)
REFUSED = Outcome("InvalidPhoneNumber", State.FAILED, Failure.PERMANENT)


@dataclass
class Time:
    """The two clocks of the module, moved together by hand; the one that people see may be set, too."""

    seconds: float = 1000.0
    ahead: float = 0.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds + self.ahead)


def service(**limits: Any) -> Service:
    return Service(AT, cast(Gateway, None), ServiceSettings(**limits))


def ask(subject: Service, *outcomes: Outcome) -> bool:
    """One request from start to end."""
    subject.started()
    changed = subject.answered(list(outcomes))
    subject.finished()
    return changed
