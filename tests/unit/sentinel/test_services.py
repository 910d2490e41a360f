"""The services: limits, holds, probes, the breaker, and which one is chosen. The clock is ours."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from mjumbe import settings
from mjumbe.documents import DeliveryReport, Route
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.gateways.base import Failure, Gateway, Outcome
from mjumbe.settings import ServiceSettings
from mjumbe.states import State, timestamp
from mjumbe.status import ServiceStatus
from sentinel import services
from sentinel.service import (
    BREAKER_FAILURES,
    BREAKER_SECONDS,
    LEFT_ALONE_SECONDS,
    PROBE_SECONDS,
    SILENT_SECONDS,
    Service,
)
from sentinel.services import Services

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
AT = "africas-talking"
SENT = Outcome("Sent", State.SENT)
NO_BALANCE = Outcome("InsufficientBalance", failure=Failure.CONFIGURATION, code="405")
BROKEN = Outcome("HTTP 500", failure=Failure.RETRY)
LOST = Outcome("no answer in time", failure=Failure.AMBIGUOUS)
REFUSED = Outcome("InvalidPhoneNumber", State.FAILED, Failure.PERMANENT)


@dataclass
class Time:
    """The two clocks of the module, moved together by hand."""

    seconds: float = 1000.0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return START + timedelta(seconds=self.seconds)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> Iterator[Time]:
    clock = Time()
    monkeypatch.setattr(services.time, "monotonic", clock.monotonic)
    monkeypatch.setattr(services.states, "now", clock.now)
    yield clock
    monkeypatch.undo()


def service(**limits: Any) -> Service:
    return Service(AT, cast(Gateway, None), ServiceSettings(**limits))


def ask(subject: Service, *outcomes: Outcome) -> bool:
    """One request from start to end."""
    subject.started()
    changed = subject.answered(list(outcomes))
    subject.finished()
    return changed


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


# ---- choosing


class Config:
    """Settings and credentials as they are now."""

    def __init__(self, **sms: Any) -> None:
        self.values: dict[str, Any] = {
            "sms": {"outgoing_service": AT, "africas_talking": {"username": "sandbox"}, **sms}
        }
        self.keys: dict[str, str] = {"africastalking.com:outgoing": "k"}
        self.polled: str | None = None
        self.services = Services(
            lambda: settings.parse(self.values), self.keys.get, lambda: None, last_poll=lambda: self.polled
        )

    def change(self, **sms: Any) -> None:
        self.values = settings.merge(self.values, {"sms": sms})

    def chosen(self, via: str | None = None) -> str | None:
        found = self.services.choose(Route(via))
        return found.name if isinstance(found, Service) else found

    def service(self, via: str | None = None) -> Service:
        found = self.services.choose(Route(via))
        assert isinstance(found, Service)
        return found


def test_the_outgoing_service(time: Time) -> None:
    config = Config()
    assert config.services.refresh()
    assert (config.chosen(), config.chosen(AT), config.chosen(PHONE_GATEWAY)) == (AT, AT, PHONE_GATEWAY)


def test_the_phone_gateway(time: Time) -> None:
    config = Config(outgoing_service=PHONE_GATEWAY)
    config.services.refresh()
    assert config.chosen() == PHONE_GATEWAY
    assert config.services.status()[PHONE_GATEWAY].held is False


def test_a_phone_that_does_not_poll_is_the_last_resort(time: Time) -> None:
    config = Config(outgoing_service=PHONE_GATEWAY, fallback_services=[AT])
    config.services.refresh()
    assert config.chosen() == PHONE_GATEWAY, "it has five minutes from our start on"
    time.seconds += 301
    assert config.services.refresh()
    assert config.chosen() == AT
    assert config.services.status()[PHONE_GATEWAY].reason == "no phone has polled yet"
    ask(config.service(), NO_BALANCE)
    assert config.chosen() == PHONE_GATEWAY, "where it finds them at its next poll"
    config.polled = timestamp(time.now())
    time.seconds += 3
    assert config.services.refresh()
    assert (config.chosen(), config.services.status()[PHONE_GATEWAY].held) == (PHONE_GATEWAY, False)
    time.seconds += 301
    config.services.refresh()
    assert config.services.status()[PHONE_GATEWAY].reason == f"no phone has polled since {config.polled}"


def test_a_service_that_hangs_is_not_waited_for_when_another_takes_messages(time: Time) -> None:
    config = Config(fallback_services=[PHONE_GATEWAY], africas_talking={"username": "sandbox", "concurrency": 2})
    config.services.refresh()
    hanging = config.service()
    hanging.started()
    hanging.started()
    time.seconds += 2
    assert config.chosen() is None, "it is only busy"
    time.seconds += 2
    assert config.chosen() == PHONE_GATEWAY
    assert config.chosen(AT) is None, "a message bound to it waits"
    hanging.answered([SENT])
    hanging.finished()
    assert config.chosen() == AT


def look_again(config: Config, time: Time, seconds: float) -> None:
    time.seconds += seconds
    config.services.refresh()


def test_the_setting_says_when_a_phone_is_silent(time: Time) -> None:
    config = Config(outgoing_service=PHONE_GATEWAY, medic_gateway={"silent_after": "2h"})
    look_again(config, time, 7199)
    assert not config.services.status()[PHONE_GATEWAY].held
    look_again(config, time, 2)
    assert config.services.status()[PHONE_GATEWAY].held


def test_one_that_hangs_alone_is_used_as_far_as_it_has_room(time: Time) -> None:
    config = Config(africas_talking={"username": "sandbox", "concurrency": 2})
    config.services.refresh()
    config.service().started()
    time.seconds += SILENT_SECONDS + 0.1
    assert config.chosen() == AT
    config.service().started()
    assert config.chosen() is None
    assert not config.services.status()[AT].held, "slow is not broken"


def test_how_long_nothing_was_under_way_does_not_count(time: Time) -> None:
    subject = service()
    ask(subject, SENT)
    time.seconds += 3600
    subject.started()
    assert not subject.is_silent()


# ---- what is known of a service


def test_what_was_known_outlives_a_change_and_a_leader(time: Time) -> None:
    before = ServiceStatus(True, "HTTP 401", "then", "a success", "a failure", "KES 5")
    config = Config()
    config.services = Services(
        lambda: settings.parse(config.values), config.keys.get, lambda: None, before={AT: before}
    )
    config.services.refresh()
    known = ServiceStatus(last_success="a success", last_failure="a failure", balance="KES 5")
    assert config.services.status()[AT] == known
    config.change(reply_to="22000")
    look_again(config, time, 3)
    assert config.services.status()[AT] == known


def test_services_that_are_not_in_the_order_are_known_too(time: Time) -> None:
    config = Config(textbee={"device_id": "d"})
    config.keys["textbee:outgoing"] = "k"
    config.services.refresh()
    ask(config.service("textbee"), SENT)
    assert config.services.status()["textbee"].last_success
    assert not config.services.status()["viber"].held, "nobody needs it"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda config: config.keys.clear(), "no API key; PUT it to /api/v1/credentials/africastalking.com:outgoing"),
        (
            lambda config: config.change(africas_talking={"username": ""}),
            "sms.africas_talking.username is not set; set it in /api/v1/settings",
        ),
        (
            lambda config: config.change(africas_talking={"enabled": False}),
            "it is switched off by sms.africas_talking.enabled",
        ),
    ],
)
def test_what_is_not_configured_is_held_and_says_why(time: Time, change: Callable[[Config], None], reason: str) -> None:
    config = Config()
    change(config)
    config.services.refresh()
    assert config.chosen() is None
    status = config.services.status()[AT]
    assert (status.held, status.reason) == (True, reason)


def test_no_service_is_said_once(time: Time) -> None:
    config = Config()
    config.keys.clear()
    config.services.refresh()
    with capture_logs() as logs:
        for _ in range(100):
            config.services.say_if_none()
    assert [(entry["event"], entry["reasons"]) for entry in logs] == [
        (
            "No active SMS service",
            "africas-talking: no API key; PUT it to /api/v1/credentials/africastalking.com:outgoing",
        )
    ]
    config.keys["africastalking.com:outgoing"] = "k"
    time.seconds += 3
    config.services.refresh()
    config.services.say_if_none()
    config.keys.clear()
    time.seconds += 3
    config.services.refresh()
    with capture_logs() as logs:
        config.services.say_if_none()
    assert len(logs) == 1, "and again when it comes again"


def test_fallbacks_in_their_order(time: Time) -> None:
    config = Config(fallback_services=[PHONE_GATEWAY])
    config.services.refresh()
    assert config.services.order() == [AT, PHONE_GATEWAY]
    ask(config.service(), NO_BALANCE)
    assert config.chosen() == PHONE_GATEWAY
    assert config.chosen(AT) is None, "a message bound to a service waits for it"
    time.seconds += 61
    assert config.chosen() == AT, "the probe"


def test_a_busy_service_is_no_reason_for_the_next(time: Time) -> None:
    config = Config(fallback_services=[PHONE_GATEWAY], africas_talking={"username": "sandbox", "concurrency": 1})
    config.services.refresh()
    config.service().started()
    assert config.chosen() is None


def test_a_service_named_twice_is_tried_once(time: Time) -> None:
    assert Config(fallback_services=[PHONE_GATEWAY, AT, PHONE_GATEWAY]).services.order() == [AT, PHONE_GATEWAY]


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config.keys.update({"africastalking.com:outgoing": "another"}),
        lambda config: config.change(africas_talking={"base_url": "http://127.0.0.1:1"}),
        lambda config: config.change(reply_to="22000"),
    ],
)
def test_a_change_of_key_or_settings_frees_at_once(time: Time, change: Callable[[Config], None]) -> None:
    config = Config()
    config.services.refresh()
    ask(config.service(), NO_BALANCE)
    assert config.chosen() is None
    change(config)
    assert not config.services.refresh(), "looked at every two seconds"
    time.seconds += 2
    assert config.services.refresh()
    assert config.chosen() == AT
    time.seconds += 2
    assert not config.services.refresh()


def test_newer_settings_do_not_complete_an_older_gateway(time: Time) -> None:
    config = Config(africas_talking={"username": ""})
    config.services.refresh()
    config.change(africas_talking={"username": "sandbox"})
    assert config.chosen() is None, "it would be asked without a user name"
    time.seconds += 2
    config.services.refresh()
    assert config.chosen() == AT


def test_the_gateway_has_the_settings_limits(time: Time) -> None:
    config = Config(africas_talking={"username": "sandbox", "concurrency": 4, "batch_size": 7})
    config.services.refresh()
    assert (config.service().room(), config.service().batch_size) == (4, 7)
