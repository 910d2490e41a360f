"""One service: limits, holds, probes, the breaker, what reports say. The clock is ours."""

from dataclasses import replace
from datetime import timedelta
from typing import Any, cast

import pytest

from mjumbe.documents import DeliveryReport
from mjumbe.gateways.base import Failure, Gateway, Outcome
from mjumbe.settings import ServiceSettings
from mjumbe.states import State
from mjumbe.status import ServiceStatus
from sentinel.service import BREAKER_FAILURES, BREAKER_SECONDS, LEFT_ALONE_SECONDS, PROBE_SECONDS, Service
from tests.unit.sentinel.asking import AT, BROKEN, LOST, NO_BALANCE, REFUSED, SENT, START, Time, ask, service

# ---- limits


def test_so_many_requests_at_once(time: Time) -> None:
    subject = service(concurrency=3)
    rooms = [subject.room()]
    for _ in range(3):
        subject.started()
        rooms.append(subject.room())
    subject.finished()
    assert [*rooms, subject.room()] == [3, 2, 1, 0, 1]


def test_so_many_requests_a_second(time: Time) -> None:
    subject = service(concurrency=100, max_per_second=10)
    started = 0
    for _ in range(1000):  # ten seconds
        for _ in range(subject.room()):
            ask(subject, SENT)
            started += 1
        time.seconds += 0.01
    assert 100 <= started <= 111


def test_less_than_one_request_a_second(time: Time) -> None:
    subject = service(max_per_second=0.1)
    assert subject.room() == 1
    ask(subject, SENT)
    time.seconds += 9.5
    assert subject.room() == 0
    time.seconds += 0.6
    assert subject.room() == 1


def test_fewer_requests_at_once_than_are_under_way(time: Time) -> None:
    subject = service(concurrency=3)
    for _ in range(3):
        subject.started()
    subject.change(subject.gateway, ServiceSettings(concurrency=1))
    rooms = [subject.room()]
    for _ in range(3):
        subject.finished()
        rooms.append(subject.room())
    assert rooms == [0, 0, 0, 1]


def test_probes_past_the_rate_leave_no_room_and_not_less(time: Time) -> None:
    subject = service(max_per_second=0.01)
    ask(subject, NO_BALANCE)
    for _ in range(5):
        time.seconds += PROBE_SECONDS
        ask(subject, NO_BALANCE)
    time.seconds += PROBE_SECONDS
    ask(subject, SENT)
    assert (subject.status.held, subject.room()) == (False, 0)


def test_the_rate_does_not_gather_over_a_pause(time: Time) -> None:
    subject = service(concurrency=100, max_per_second=5)
    time.seconds += 3600
    assert subject.room() == 5


def test_the_size_of_a_request(time: Time) -> None:
    subject = service(batch_size=40)
    assert subject.batch_size == 40
    ask(subject, NO_BALANCE)
    assert subject.batch_size == 1


# ---- holds


@pytest.mark.parametrize("failure", [Failure.CONFIGURATION, Failure.QUOTA])
def test_a_hold_is_asked_once_a_minute(time: Time, failure: Failure) -> None:
    subject = service()
    assert ask(subject, Outcome("HTTP 401", failure=failure))
    assert (subject.status.held, subject.status.reason) == (True, "HTTP 401")
    requests = 0
    for _ in range(600):  # ten minutes
        time.seconds += 1
        for _ in range(subject.room()):
            requests += 1
            assert not ask(subject, Outcome("HTTP 401", failure=failure)), "held before, held now"
    assert requests in (9, 10)


def test_one_refusal_among_many_holds_the_service(time: Time) -> None:
    subject = service()
    assert ask(subject, SENT, NO_BALANCE, SENT)
    assert subject.room() == 0


@pytest.mark.parametrize(
    ("between", "then"), [(SENT, Failure.RETRY), (REFUSED, Failure.CONFIGURATION), (BROKEN, Failure.CONFIGURATION)]
)
def test_who_is_refused_again_though_others_were_taken_since_is_refused_for_itself(
    time: Time, between: Outcome, then: Failure
) -> None:
    subject = service()

    def give(uuid: str, outcome: Outcome) -> Failure | None:
        time.seconds += PROBE_SECONDS
        (judged,) = subject.judged([("doc", uuid)], [outcome])
        ask(subject, judged)
        return judged.failure

    assert give("odd", NO_BALANCE) is Failure.CONFIGURATION
    assert subject.status.held
    give("another", between)
    assert give("odd", NO_BALANCE) is then
    assert subject.status.held == (then is Failure.CONFIGURATION)
    assert give("a third", NO_BALANCE) is Failure.CONFIGURATION, "which was not refused before"
    assert subject.status.held


def test_one_probe_at_a_time(time: Time) -> None:
    subject = service()
    ask(subject, NO_BALANCE)
    time.seconds += 61
    assert subject.room() == 1
    subject.started()
    assert subject.room() == 0
    time.seconds += 3600
    assert subject.room() == 0, "the probe is not answered yet"


def test_requests_under_way_are_waited_for_before_a_probe(time: Time) -> None:
    subject = service()
    subject.started()
    ask(subject, NO_BALANCE)
    time.seconds += 61
    assert subject.room() == 0
    subject.finished()
    assert subject.room() == 1


@pytest.mark.parametrize("outcome", [SENT, REFUSED])
def test_a_probe_that_is_answered_frees_the_service(time: Time, outcome: Outcome) -> None:
    subject = service(concurrency=16)
    ask(subject, NO_BALANCE)
    time.seconds += 61
    assert ask(subject, outcome)
    assert subject.room() == 16
    assert (subject.status.held, subject.status.reason, subject.status.since) == (False, None, None)


def test_a_quota_holds_until_the_service_says(time: Time) -> None:
    subject = service()
    ask(subject, Outcome("quota", failure=Failure.QUOTA, retry_at=time.now() + timedelta(hours=3)))
    time.seconds += 3 * 3600 - 1
    assert subject.room() == 0
    time.seconds += 2
    assert subject.room() == 1


def test_no_more_refusals_are_remembered_than_memory_is_for(time: Time, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sentinel.service.REFUSED_REMEMBERED", 2)
    subject = service()
    for n in range(3):
        subject.judged([("d", f"u{n}")], [NO_BALANCE])
    assert list(subject._refused) == [("d", "u1"), ("d", "u2")]


def test_a_quota_that_is_over_when_it_is_said_is_a_pause_all_the_same(time: Time) -> None:
    subject = service()
    ask(subject, Outcome("quota", failure=Failure.QUOTA, retry_at=time.now() - timedelta(hours=1)))
    assert subject.room() == 0
    time.seconds += 1
    assert subject.room() == 1


@pytest.mark.parametrize("failure", [Failure.QUOTA, Failure.CONFIGURATION])
def test_a_success_that_was_under_way_ends_no_wait_that_the_service_asked_for(time: Time, failure: Failure) -> None:
    subject = service()
    for _ in range(2):
        subject.started()
    subject.answered([Outcome("too many", failure=failure, retry_at=time.now() + timedelta(seconds=30))])
    assert not subject.answered([SENT])
    for _ in range(2):
        subject.finished()
    assert (subject.room(), subject.status.held) == (0, True)
    time.seconds += 31
    assert subject.room() == 1
    assert ask(subject, SENT)
    assert subject.room() == 16


def test_numbers_in_what_a_service_says_are_not_shown_to_everybody(time: Time) -> None:
    subject = service()
    ask(subject, Outcome("no credit for +254711000111, 0711000112", failure=Failure.CONFIGURATION))
    assert subject.status.reason == "no credit for **********111, *******112"


def test_since_when_it_is_held(time: Time) -> None:
    subject = service()
    ask(subject, NO_BALANCE)
    since = subject.status.since
    time.seconds += 61
    ask(subject, Outcome("HTTP 401", failure=Failure.CONFIGURATION))
    assert (subject.status.since, subject.status.reason) == (since, "HTTP 401")
    assert subject.status.last_failure != since


# ---- the breaker


@pytest.mark.parametrize("failure", [BROKEN, LOST])
def test_failures_in_a_row_leave_the_service_in_peace(time: Time, failure: Outcome) -> None:
    subject = service()
    assert [ask(subject, failure) for _ in range(5)] == [False] * 4 + [True]
    assert subject.status.reason == f"{failure.details}, 5 times in a row"


def test_the_pauses_double_up_to_a_minute(time: Time) -> None:
    subject = service()
    for _ in range(5):
        ask(subject, BROKEN)
    pauses = []
    for _ in range(6):
        began = time.seconds
        while not subject.room():
            time.seconds += 0.25
        pauses.append(time.seconds - began)
        ask(subject, BROKEN)
    assert pauses == [5, 10, 20, 40, 60, 60]
    while not subject.room():
        time.seconds += 0.25
    assert ask(subject, SENT)
    assert [ask(subject, BROKEN) for _ in range(4)] == [False] * 4, "and counting begins anew"


def test_requests_under_way_when_the_pause_begins_are_no_probes(time: Time) -> None:
    subject = service()
    for _ in range(16):
        subject.started()
    for _ in range(16):
        subject.answered([BROKEN])
        subject.finished()
    time.seconds += 5.25
    assert subject.room() == 1


def test_a_success_between_begins_the_count_anew(time: Time) -> None:
    subject = service()
    for _ in range(10):
        for _ in range(4):
            ask(subject, BROKEN)
        assert not ask(subject, SENT, BROKEN)
    assert not subject.status.held


@pytest.mark.parametrize("failure", [BROKEN, LOST])
def test_what_failed_and_is_left_alone_recovers_when_it_answers(time: Time, failure: Outcome) -> None:
    subject = service()
    for _ in range(BREAKER_FAILURES):
        ask(subject, failure)
    assert subject.status.held and not subject.is_left_alone()
    time.seconds += BREAKER_SECONDS
    assert not subject.is_left_alone(), "a message may be about to ask it"
    time.seconds += LEFT_ALONE_SECONDS + 1
    assert subject.is_left_alone()
    subject.started()
    assert not subject.is_left_alone(), "it is being asked"
    subject.finished()
    subject.recovered()
    assert (subject.status.held, subject.status.reason, subject.status.since) == (False, None, None)
    assert not ask(subject, failure), "the count begins anew"


def test_what_the_service_said_itself_only_a_message_can_ask(time: Time) -> None:
    subject = service()
    ask(subject, NO_BALANCE)
    time.seconds += 3_600
    assert not subject.is_left_alone()
    subject.recovered()
    assert subject.status.held


# ---- what reports say


def told(ref: str, state: State, failure: Failure | None = None) -> DeliveryReport:
    return DeliveryReport(AT, ref, str(state), state, reason="PERMISSION_DENIED" if failure else None, failure=failure)


NOT_ALLOWED = told("r1", State.FAILED, Failure.CONFIGURATION)


def test_what_takes_messages_and_cannot_send_them_is_held_until_one_is_reported_sent(time: Time) -> None:
    subject = service()
    subject.reported(NOT_ALLOWED)
    assert (subject.status.held, subject.status.reason) == (True, "failed (PERMISSION_DENIED)")
    requests = 0
    for _ in range(600):  # ten minutes
        time.seconds += 1
        for _ in range(subject.room()):
            requests += 1
            assert not ask(subject, replace(SENT, ref=f"probe {requests}")), "that it takes a message says nothing"
            if requests % 2:
                subject.reported(told(f"probe {requests}", State.FAILED, Failure.CONFIGURATION))
    assert requests in (9, 10)
    subject.reported(told("from before", State.DELIVERED))
    assert subject.status.held
    subject.reported(told("probe 2", State.SENT))
    assert (subject.status.held, subject.room()) == (False, 16)
    ask(subject, NO_BALANCE)
    time.seconds += 61
    assert ask(subject, SENT), "what its answers say counts again"


def test_a_held_service_that_cannot_be_asked_may_still_be_unable_to_send(time: Time) -> None:
    subject = service()
    subject.reported(NOT_ALLOWED)
    for _ in range(BREAKER_FAILURES):
        time.seconds += PROBE_SECONDS + 1
        ask(subject, BROKEN)
    time.seconds += 3_600
    assert not subject.is_left_alone()
    ask(subject, SENT)
    assert subject.status.held


# ---- what changes while requests are under way


def change(subject: Service, **limits: Any) -> None:
    subject.change(cast(Gateway, object()), ServiceSettings(**limits))


def test_what_is_under_way_counts_after_a_change(time: Time) -> None:
    subject = service(concurrency=3)
    subject.started()
    subject.started()
    change(subject, concurrency=4)
    assert subject.room() == 2
    change(subject, concurrency=1)
    assert subject.room() <= 0
    subject.finished()
    subject.finished()
    assert subject.room() == 1


@pytest.mark.parametrize("refusal", [NO_BALANCE, replace(NO_BALANCE, failure=Failure.QUOTA)])
def test_after_a_change_what_was_held_is_asked_by_one_request(time: Time, refusal: Outcome) -> None:
    subject = service(concurrency=8, batch_size=40)
    ask(subject, refusal)
    assert subject.room() == 0
    for _ in range(2):
        change(subject, concurrency=8, batch_size=40)
        assert (subject.status.held, subject.room(), subject.batch_size) == (False, 1, 1)
        subject.started()
        assert subject.room() == 0
        subject.finished()
    ask(subject, SENT)
    assert (subject.room(), subject.batch_size) == (8, 40)
    ask(subject, refusal)
    change(subject, concurrency=8)
    ask(subject, refusal)
    assert (subject.status.held, subject.room()) == (True, 0)


def test_the_leader_before_held_it(time: Time) -> None:
    before = ServiceStatus(held=True, reason="InsufficientBalance")
    subject = Service(AT, cast(Gateway, None), ServiceSettings(concurrency=8), before)
    assert (subject.status.held, subject.room(), subject.batch_size) == (False, 1, 1)
    ask(subject, SENT)
    assert subject.room() == 8


@pytest.mark.parametrize(
    ("before", "after", "at_once", "a_second_later"),
    [(None, 5, 5, 5), (5, 50, 0, 32), (20, 2, 0, 2), (5, None, 32, 32)],
)
def test_a_changed_rate(
    time: Time, before: float | None, after: float | None, at_once: int, a_second_later: int
) -> None:
    subject = service(concurrency=32, max_per_second=before)
    for _ in range(int(before or 10)):
        ask(subject, SENT)
    change(subject, concurrency=32, max_per_second=after)
    assert subject.room() == at_once
    time.seconds += 1
    assert subject.room() == a_second_later


@pytest.mark.parametrize(
    "report",
    [
        told("r1", State.FAILED),
        told("r1", State.FAILED, Failure.RETRY),
        told("r1", State.FAILED, Failure.PERMANENT),
        told("r1", State.DELIVERED),
        told("r1", State.FORWARDED_BY_GATEWAY),
    ],
)
def test_other_reports_say_nothing_of_the_service(time: Time, report: DeliveryReport) -> None:
    subject = service()
    subject.reported(report)
    assert not subject.status.held
    ask(subject, NO_BALANCE)
    subject.reported(report)
    assert subject.status.held


def test_numbers_that_must_not_be_disturbed_say_nothing_of_the_service(time: Time) -> None:
    subject = service()
    asleep = Outcome("DoNotDisturbRejection", failure=Failure.RETRY, retry_at=START + timedelta(days=1), personal=True)
    assert not any(ask(subject, asleep) for _ in range(20))
