"""What goes wrong for which number: the last five digits of a recipient choose it.

`NUMBER_FAULTS` is the one table; docs/simulator.md shows it (a test compares them). Every ending is `99` and three
digits, so that an ordinary number rarely has one: one in two thousand.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum, auto

ENDING_LENGTH = 5
UNKNOWN_REPORT_STATUS = "Teleported"
RETRY_AFTER_S = 2


class Way(Enum):
    """How the request that names the number is answered. All but the first concern the whole request."""

    ANSWER = auto()  # with an ordinary answer
    LEAVE_OUT = auto()  # with an answer that does not mention the number
    NEVER = auto()  # not at all: nothing is accepted, the connection is held
    DROP_AFTER = auto()  # not at all: everything is accepted, then the connection is closed
    DROP_BEFORE = auto()  # not at all: nothing is accepted, the connection is closed
    ERROR_500 = auto()
    TOO_MANY_429 = auto()
    NOT_JSON = auto()  # with 200 and a page of HTML, as a proxy gives


class Timing(Enum):
    """When a delivery report comes."""

    USUAL = auto()  # report_delay_ms after the message was accepted, or after the report before it
    EARLY = auto()  # before the send request is answered
    LATE = auto()  # after late_report_ms
    AT_ONCE = auto()  # right after the report before it


@dataclass(frozen=True)
class Report:
    """A delivery report that will be made."""

    status: str
    reason: str | None = None  # failureReason
    timing: Timing = Timing.USUAL


@dataclass(frozen=True)
class NumberFault:
    """One row of the table."""

    ending: str
    name: str
    happens: str  # a sentence for people
    status_code: int = 101
    reports: tuple[Report, ...] | None = None  # None: those of an ordinary number
    way: Way = Way.ANSWER


STATUS_NAMES = {
    100: "Processed",
    101: "Sent",
    102: "Queued",
    401: "RiskHold",
    402: "InvalidSenderId",
    403: "InvalidPhoneNumber",
    404: "UnsupportedNumberType",
    405: "InsufficientBalance",
    406: "UserInBlacklist",
    407: "CouldNotRoute",
    409: "DoNotDisturbRejection",
    500: "InternalServerError",
    501: "GatewayError",
    502: "RejectedByGateway",
    599: "SomethingNew",  # of ours: a code that nobody knows
}
ACCEPTING_CODES = frozenset({100, 101, 102})


def _code(status_code: int) -> NumberFault:
    name = STATUS_NAMES[status_code]
    accepted = "accepted, then reported as usual" if status_code in ACCEPTING_CODES else "not accepted"
    return NumberFault(f"99{status_code}", name, f"statusCode {status_code}, {accepted}", status_code)


def _report(ending: str, *reports: Report, happens: str | None = None, name: str | None = None) -> NumberFault:
    status = reports[-1].status
    reason = f", failureReason {reports[-1].reason}" if reports[-1].reason else ""
    return NumberFault(ending, name or status, happens or f"reported {status}{reason}", reports=reports)


def _way(ending: str, name: str, happens: str, way: Way) -> NumberFault:
    return NumberFault(ending, name, happens, way=way)


NUMBER_FAULTS: tuple[NumberFault, ...] = (
    *(_code(status_code) for status_code in STATUS_NAMES),
    _report("99601", Report("Sent")),
    _report("99602", Report("Submitted")),
    _report("99603", Report("Buffered")),
    _report("99604", Report("Success")),
    _report("99605", Report("Rejected", "InsufficientCredit")),
    _report("99606", Report("Failed", "DeliveryFailure")),
    _report("99607", Report("Expired")),
    _report("99608", Report("AbsentSubscriber", "AbsentSubscriber")),
    _report("99609", Report(UNKNOWN_REPORT_STATUS), happens=f"reported {UNKNOWN_REPORT_STATUS}, which nobody knows"),
    _report("99610", Report("Delivered")),
    _report("99611", Report("Rejected", "UserInBlackList"), name="Blacklisted"),
    _report(
        "99612",
        Report("AbsentSubscriber", "AbsentSubscriber"),
        Report("Success"),
        happens="reported AbsentSubscriber, then Success",
        name="AbsentThenSuccess",
    ),
    NumberFault("99700", "NoReport", "accepted and never reported", reports=()),
    _report(
        "99701",
        Report("Success", timing=Timing.LATE),
        happens="reported Success late_report_ms later (30 s unless changed)",
        name="LateReport",
    ),
    _report(
        "99702",
        Report("Success"),
        *[Report("Success", timing=Timing.AT_ONCE)] * 4,
        happens="reported Success five times",
        name="RepeatedReport",
    ),
    _report("99703", Report("Success"), Report("Sent"), happens="reported Success, then Sent", name="OutOfOrder"),
    _report(
        "99704",
        Report("Success", timing=Timing.EARLY),
        happens="reported Success before the request is answered",
        name="EarlyReport",
    ),
    _way("99801", "NeverAnswers", "nothing is accepted, the connection is held open and never answered", Way.NEVER),
    _way(
        "99802",
        "DropsAfterAccepting",
        "accepted, reported as usual, but the connection is closed without an answer",
        Way.DROP_AFTER,
    ),
    _way("99803", "DropsBeforeAccepting", "nothing is accepted, the connection is closed", Way.DROP_BEFORE),
    _way("99804", "ServerError", "HTTP 500, nothing is accepted", Way.ERROR_500),
    _way(
        "99805", "TooManyRequests", f"HTTP 429 with Retry-After {RETRY_AFTER_S}, nothing is accepted", Way.TOO_MANY_429
    ),
    _way("99806", "NotJson", "HTTP 200 with a page of HTML, nothing is accepted", Way.NOT_JSON),
    _way("99807", "LeftOut", "not accepted, and not among the answer's Recipients", Way.LEAVE_OUT),
)

_BY_ENDING = {fault.ending: fault for fault in NUMBER_FAULTS}


def fault_of(number: str) -> NumberFault | None:
    """The fault that `number` chooses with its last digits, or None for an ordinary number."""
    return _BY_ENDING.get(number[-ENDING_LENGTH:])


def fault_of_request(numbers: Iterable[str]) -> NumberFault | None:
    """The first fault among `numbers` that concerns the whole request, or None."""
    for number in numbers:
        fault = fault_of(number)
        if fault is not None and fault.way not in (Way.ANSWER, Way.LEAVE_OUT):
            return fault
    return None


def markdown_table() -> str:
    """The table as docs/simulator.md shows it."""
    words = ("| a number ending in | is called | and what happens |", "|---|---|---|")
    rows = (f"| `{fault.ending}` | {_spaced(fault.name)} | {fault.happens} |" for fault in NUMBER_FAULTS)
    return "\n".join((*words, *rows))


def _spaced(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
