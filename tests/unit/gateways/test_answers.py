"""What services' answers mean, for every service alike: their statuses, Retry-After, and one question after another."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
import requests

from mjumbe.documents import DeliveryReport
from mjumbe.gateways.base import (
    Failure,
    Outcome,
    SendError,
    ask_each,
    read_retry_after,
    sending_outcome,
    status_outcome,
)
from mjumbe.states import State

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def response(status: int, **headers: str) -> requests.Response:
    made = requests.Response()
    made.status_code = status
    made.headers.update({name.replace("_", "-"): value for name, value in headers.items()})
    return made


@pytest.mark.parametrize(
    ("status", "failure", "state"),
    [
        (301, Failure.CONFIGURATION, None),
        (400, Failure.PERMANENT, State.FAILED),
        (401, Failure.CONFIGURATION, None),
        (403, Failure.CONFIGURATION, None),
        (404, Failure.PERMANENT, State.FAILED),
        (405, Failure.PERMANENT, State.FAILED),
        (407, Failure.CONFIGURATION, None),
        (408, Failure.RETRY, None),
        (413, Failure.PERMANENT, State.FAILED),
        (422, Failure.PERMANENT, State.FAILED),
        (425, Failure.RETRY, None),
        (429, Failure.RETRY, None),
        (500, Failure.RETRY, None),
        (502, Failure.RETRY, None),
        (503, Failure.RETRY, None),
        (504, Failure.AMBIGUOUS, None),
        (524, Failure.AMBIGUOUS, None),
        (599, Failure.RETRY, None),
    ],
)
def test_statuses(status: int, failure: Failure, state: State | None) -> None:
    outcome = status_outcome(response(status))
    assert (outcome.failure, outcome.state, outcome.code, outcome.retry_at) == (failure, state, str(status), None)
    assert outcome.details.startswith(f"HTTP {status}")


@pytest.mark.parametrize("status", [404, 405, 410])
def test_a_wrong_address_fails_no_message(status: int) -> None:
    outcome = sending_outcome(response(status))
    assert (outcome.failure, outcome.state, outcome.code) == (Failure.CONFIGURATION, None, str(status))
    assert outcome.details.startswith(f"HTTP {status}: ")
    assert outcome.details.endswith("; check the service's settings")


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_heeded(status: int) -> None:
    retry_at = status_outcome(response(status, Retry_After="120")).retry_at
    assert retry_at is not None
    assert timedelta(seconds=60) < retry_at - datetime.now(UTC) <= timedelta(seconds=120)


@pytest.mark.parametrize(
    ("value", "failure"),
    [
        ("90", Failure.QUOTA),
        ("0", Failure.RETRY),
        ("Thu, 01 Jan 2015 12:05:00 GMT", Failure.RETRY),
        ("soon", Failure.RETRY),
        ("-5", Failure.RETRY),
    ],
)
def test_only_a_pause_that_is_one_holds_the_service(value: str, failure: Failure) -> None:
    """Its attempts are not counted, so one that is over at once would be without end."""
    assert sending_outcome(response(429, Retry_After=value)).failure is failure


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("-1", None),
        ("²", None),
        ("0", NOW),
        ("2", NOW + timedelta(seconds=2)),
        (" 90 ", NOW + timedelta(seconds=90)),
        ("999999999999999999999", None),
        ("864000", NOW + timedelta(days=1)),
        ("Thu, 01 Jan 2026 12:05:00 GMT", NOW + timedelta(minutes=5)),
        ("Thu, 01 Jan 2026 12:05:00 -0000", NOW + timedelta(minutes=5)),
        ("Thu, 01 Jan 2026 14:05:00 +0200", NOW + timedelta(minutes=5)),
        ("Thu, 01 Jan 2025 12:05:00 GMT", NOW),
        ("Fri, 01 Jan 2027 12:05:00 GMT", NOW + timedelta(days=1)),
    ],
)
def test_retry_after(value: str | None, moment: datetime | None) -> None:
    assert read_retry_after(value, NOW) == moment


# ---- many questions


FINE = "fine"
SILENT = Outcome("nothing new")
BROKEN = Outcome("HTTP 500", failure=Failure.RETRY)
HTML = Outcome("HTTP 200 with a body that is no JSON", failure=Failure.AMBIGUOUS)
GONE = Outcome("HTTP 404", failure=Failure.PERMANENT)
PAUSE = Outcome("HTTP 429", failure=Failure.RETRY, retry_at=NOW)
KEY_REFUSED = Outcome("HTTP 401", failure=Failure.CONFIGURATION)
USED_UP = Outcome("HTTP 429", failure=Failure.QUOTA)


@pytest.mark.parametrize(
    ("answers", "asked", "learned"),
    [
        ([BROKEN, FINE, FINE], 3, 2),  # the one is odd, not the service
        ([HTML, FINE, HTML, HTML, FINE], 5, 2),
        ([GONE, GONE, GONE, GONE, FINE], 5, 1),
        ([FINE, BROKEN, HTML, BROKEN, FINE], 4, 1),
        ([FINE, BROKEN, BROKEN, SILENT, BROKEN, BROKEN, FINE], 7, 2),
        ([FINE, PAUSE, FINE], 2, 1),
        ([FINE, KEY_REFUSED, FINE], 2, 1),
        ([FINE, USED_UP, FINE], 2, 1),
    ],
)
def test_what_fails_keeps_no_other_from_being_asked_about(
    answers: list[Outcome | str], asked: int, learned: int
) -> None:
    questions: list[str] = []
    reports = ask_each([str(n) for n in range(len(answers))], asked_with(answers, questions))
    assert (len(questions), len(reports)) == (asked, learned)


@pytest.mark.parametrize(
    ("answers", "asked", "says"),
    [
        ([BROKEN, HTML, HTML, FINE], 3, "HTTP 200 with a body that is no JSON"),
        ([BROKEN, SILENT, SILENT], 3, "HTTP 500"),
        ([KEY_REFUSED, FINE], 1, "HTTP 401"),
    ],
)
def test_trouble_is_said_when_nothing_was_learned(answers: list[Outcome | str], asked: int, says: str) -> None:
    questions: list[str] = []
    with pytest.raises(SendError, match=says):
        ask_each([str(n) for n in range(len(answers))], asked_with(answers, questions))
    assert len(questions) == asked


def asked_with(answers: list[Outcome | str], questions: list[str]) -> Callable[[str], list[DeliveryReport]]:
    def ask(ref: str) -> list[DeliveryReport]:
        questions.append(ref)
        answer = answers[int(ref)]
        if answer == FINE:
            return [DeliveryReport("textbee", ref, "sent", State.SENT)]
        if answer == SILENT:
            return []
        assert isinstance(answer, Outcome)
        raise SendError(answer)

    return ask
