"""The services: which one is chosen, and what is known of each. The clock is ours."""

from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from mjumbe import settings
from mjumbe.credentials import CredentialError
from mjumbe.documents import Route
from mjumbe.gateways import PHONE_GATEWAY
from mjumbe.states import timestamp
from mjumbe.status import ServiceStatus
from sentinel.service import (
    SILENT_SECONDS,
    Service,
)
from sentinel.services import Services
from tests.unit.sentinel.asking import AT, NO_BALANCE, SENT, Time, ask, service

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
    config.services.refresh()
    assert (config.chosen(), config.chosen(AT), config.chosen(PHONE_GATEWAY)) == (AT, AT, PHONE_GATEWAY)


def test_a_machine_that_has_just_started_has_its_services_too(time: Time) -> None:
    time.seconds = 1.0
    config = Config()
    config.services.refresh()
    assert config.chosen() == AT


def test_a_credential_that_cannot_be_read_is_said_and_not_taken_for_none(time: Time) -> None:
    config = Config()
    problem = "credential africastalking.com:outgoing cannot be read with the key in MJUMBE_VAULT_KEY"

    def unreadable(credential_id: str) -> str | None:
        raise CredentialError(problem)

    config.services._credential = unreadable
    config.services.refresh()
    assert config.chosen() is None
    assert config.services.status()[AT].reason == f"for the sentinel, {problem}"
    config.services._credential = config.keys.get
    look_again(config, time, 3)
    assert config.chosen() == AT


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
    config.services.refresh()
    assert config.chosen() == AT
    assert config.services.status()[PHONE_GATEWAY].reason == "no phone has polled yet"
    ask(config.service(), NO_BALANCE)
    assert config.chosen() == PHONE_GATEWAY, "where it finds them at its next poll"
    config.polled = timestamp(time.now())
    time.seconds += 3
    config.services.refresh()
    assert (config.chosen(), config.services.status()[PHONE_GATEWAY].held) == (PHONE_GATEWAY, False)
    time.seconds += 301
    config.services.refresh()
    assert config.services.status()[PHONE_GATEWAY].reason == f"no phone has polled since {config.polled}"


@pytest.mark.parametrize("set_by", [-3 * 86_400, -600, 600, 3 * 86_400])
def test_a_clock_that_is_set_makes_no_phone_silent_nor_one_that_is_heard(time: Time, set_by: float) -> None:
    config = Config(outgoing_service=PHONE_GATEWAY, fallback_services=[AT])
    config.polled = timestamp(time.now())
    look_again(config, time, 290)
    time.ahead = set_by
    look_again(config, time, 9)
    assert config.chosen() == PHONE_GATEWAY
    look_again(config, time, 9)
    assert config.chosen() == AT, "it has not polled since"
    config.polled = timestamp(time.now())
    look_again(config, time, 3)
    assert config.chosen() == PHONE_GATEWAY


def test_a_phone_that_was_silent_before_it_came_into_use_is_not_waited_for(time: Time) -> None:
    config = Config()
    config.polled = timestamp(time.now())
    time.seconds += 3600
    config.change(outgoing_service=PHONE_GATEWAY, fallback_services=[AT])
    config.services.refresh()
    assert config.chosen() == AT


def test_a_service_that_hangs_is_not_waited_for_when_another_takes_messages(time: Time) -> None:
    config = Config(fallback_services=[PHONE_GATEWAY], africas_talking={"username": "sandbox", "concurrency": 2})
    config.services.refresh()
    hanging = config.service()
    hanging.started()
    hanging.started()
    time.seconds += 10
    assert config.chosen() is None, "its claims wait for CouchDB: it is not asked yet"
    with hanging.asked(), hanging.asked():
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
    with config.service().asked():
        time.seconds += SILENT_SECONDS + 0.1
        assert config.chosen() == AT
        config.service().started()
        assert config.chosen() is None
    assert not config.services.status()[AT].held, "slow is not broken"


def test_how_long_nothing_was_under_way_does_not_count(time: Time) -> None:
    subject = service()
    ask(subject, SENT)
    time.seconds += 3600
    with subject.asked():
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
    config.services.refresh()
    assert config.chosen() is None, "looked at every two seconds"
    time.seconds += 2
    config.services.refresh()
    gateway = config.service().gateway
    time.seconds += 2
    config.services.refresh()
    assert config.service().gateway is gateway, "nothing changed any more"


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
