"""A service that fails, is too slow, switched off or changed in the middle: the rest go by the next one, none twice."""

import itertools
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
import requests

from tests.integration.gateways.town import AT, PHONE, RAPIDPRO, TEXTBEE, VIBER, Town
from tests.integration.processes import eventually, make_user
from tests.integration.sentinel.world import SOON, Simulator, number

WITHIN = 5.0  # seconds: what is promised
SLACK = 30.0  # for a machine that has other things to do
PATIENCE = 300.0

texts = (f"text {n}" for n in itertools.count(1))


def many(town: Town, count: int) -> list[str]:
    """So many messages, of as many texts, to as many numbers; their ids."""
    prefix, text = number(""), next(texts)
    return town.write_many([(f"{prefix}{n:05}", f"{text}, {n}") for n in range(count)])


def accepted(town: Town) -> Counter[tuple[str, str]]:
    """How often any service accepted each (number, text)."""
    return Counter(pair for at in (town.simulator, town.twins) for pair in pairs(at))


def pairs(at: Simulator) -> Iterable[tuple[str, str]]:
    return [(entry["to"], entry["message"]) for entry in at.ask("GET", "/messages", limit=100_000)["messages"]]


def count(at: Simulator) -> int:
    return int(at.counts()["accepted"])


def until_accepted(at: Simulator, wanted: int, seconds: float = PATIENCE) -> None:
    eventually(lambda: count(at) >= wanted, seconds)


def until_all_accepted(town: Town, wanted: int) -> None:
    eventually(lambda: count(town.simulator) + count(town.twins) >= wanted, PATIENCE)


@pytest.fixture
def slow_town(own_town: Town) -> Town:
    """Africa's Talking takes its time, so that something can happen in the middle; a wait for another attempt would
    outlast the test."""
    own_town.simulator.control(latency_ms=100, reports=False)
    own_town.twins.control(reports=False)
    own_town.set(
        sms={
            "fallback_services": [TEXTBEE],
            "retry_base": 3600,
            "retry_max": 3600,
            "africas_talking": {"batch_size": 1, "concurrency": 8},
        }
    )
    return own_town


# ---- failing in the middle


@pytest.mark.parametrize(
    ("messages", "fault"), [(1_000, {"error_rate": 1.0}), (200, {"unauthorized": True}), (200, {"no_balance": True})]
)
def test_the_rest_goes_by_the_next_service(slow_town: Town, messages: int, fault: dict[str, Any]) -> None:
    town = slow_town
    town.start_sentinel()
    ids = many(town, messages)
    until_accepted(town.simulator, messages // 10)
    town.simulator.control(**fault)
    began, before = time.monotonic(), count(town.twins)
    until_accepted(town.twins, before + 1, WITHIN + SLACK)
    print(f"the next service's first message after {time.monotonic() - began:.2f} s")
    until_all_accepted(town, messages)
    print(f"all {messages} messages after {time.monotonic() - began:.2f} s")
    eventually(lambda: not {"pending", "forwarded-to-gateway"} & set(town.states(ids)), SOON)
    assert set(accepted(town).values()) == {1}
    assert len(accepted(town)) == messages
    assert "failed" not in town.states(ids)


def test_the_rest_does_not_wait_for_a_service_that_hangs(slow_town: Town) -> None:
    """What it may have taken is another matter: `hold` keeps that back until somebody knows."""
    town = slow_town
    town.set(sms={"in_doubt": "hold", "africas_talking": {"read_timeout": 60}})
    town.start_sentinel()
    ids = many(town, 200)
    until_accepted(town.simulator, 20)
    town.simulator.control(latency_ms=120_000)
    under_way = 8
    until_accepted(town.twins, 1, WITHIN + SLACK)
    eventually(lambda: town.states(ids).count("forwarded-to-gateway") <= under_way, PATIENCE)
    eventually(lambda: "pending" not in town.states(ids), PATIENCE)
    assert set(accepted(town).values()) == {1}


def test_it_comes_back_by_itself(slow_town: Town) -> None:
    """The breaker opens, a probe is made with one message at a time, and then Africa's Talking is first again."""
    town = slow_town
    town.simulator.control(error_rate=1.0, latency_ms=0)
    town.start_sentinel()
    ids = many(town, 100)
    until_accepted(town.twins, 100)
    town.until_held(AT, "HTTP 500")
    assert "5 times in a row" in town.why_held(AT)
    refused = town.simulator.counts()["requests"]
    assert refused < 20, "it is left in peace"
    town.simulator.control(error_rate=0.0)

    def is_back() -> bool:
        ids.extend(many(town, 1))
        return count(town.simulator) > 0

    eventually(is_back, 90)
    eventually(lambda: town.why_held(AT) == "", SOON)
    before = count(town.twins)
    ids += many(town, 20)
    eventually(lambda: set(town.states(ids)) <= {"sent", "received-by-gateway"}, SOON)
    assert count(town.twins) == before, "and nothing goes by the next one any more"
    assert set(accepted(town).values()) == {1}


def test_when_all_fail_nothing_is_lost(slow_town: Town) -> None:
    town = slow_town
    town.set(sms={"retry_base": 1, "retry_max": 2, "max_attempts": 100})
    for at in (town.simulator, town.twins):
        at.control(error_rate=1.0, latency_ms=0)
    sentinel = town.start_sentinel()
    ids = many(town, 60)
    town.until_held(AT, "HTTP 500")
    town.until_held(TEXTBEE, "HTTP 500")
    eventually(lambda: "No active SMS service" in sentinel.log(), SOON)
    for at in (town.simulator, town.twins):
        at.control(error_rate=0.0)
    eventually(lambda: set(town.states(ids)) <= {"sent", "received-by-gateway"}, PATIENCE)
    assert set(accepted(town).values()) == {1}
    assert sentinel.log().count("No active SMS service") == 1, "not once a message, nor once a probe"


# ---- changes in the middle


@pytest.mark.parametrize("messages", [500, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.parametrize(("first", "second"), [(AT, TEXTBEE), (TEXTBEE, AT)])
def test_another_service_is_chosen_while_messages_are_due(
    own_town: Town, messages: int, first: str, second: str
) -> None:
    town = own_town
    for at in (town.simulator, town.twins):
        at.control(reports=False)
    town.at(first).control(latency_ms=100)
    town.set(sms={"outgoing_service": first, "africas_talking": {"batch_size": 1}})
    town.start_sentinel()
    ids = [doc_id for _ in range(messages // 500) for doc_id in many(town, 500)]
    until_accepted(town.at(first), messages // 10)
    town.set(sms={"outgoing_service": second})
    until_all_accepted(town, messages)
    eventually(lambda: set(town.states(ids)) <= {"sent", "received-by-gateway"}, SOON)
    assert set(accepted(town).values()) == {1}
    assert len(accepted(town)) == messages
    assert count(town.at(second)) > 0
    services = Counter(town.tasks(doc_id)[0]["service"] for doc_id in ids[:: max(1, messages // 200)])
    assert set(services) <= {first, second}


def test_what_waits_for_the_phone_goes_by_the_service_that_is_chosen(own_town: Town) -> None:
    town = own_town
    town.set(sms={"outgoing_service": PHONE})
    town.start_sentinel()
    ids = many(town, 50)
    eventually(lambda: all(town.tasks(doc_id)[0].get("service") == PHONE for doc_id in ids), SOON)
    town.set(sms={"outgoing_service": TEXTBEE})
    until_accepted(town.twins, 50)
    assert set(accepted(town).values()) == {1}


def test_what_no_phone_took_goes_by_a_service_that_works_again(own_town: Town) -> None:
    town = own_town
    town.simulator.control(error_rate=1.0, reports=False)
    town.set(sms={"fallback_services": [PHONE], "retry_base": 1, "retry_max": 2, "max_attempts": 100})
    town.start_sentinel()
    ids = many(town, 50)
    eventually(lambda: all(town.tasks(doc_id)[0].get("service") == PHONE for doc_id in ids), PATIENCE)
    login = make_user(town.couch, "one-phone", "one-phone-password", ["gateway"])
    answer = requests.post(f"{town.api.url}/api/sms", auth=login, json={}, timeout=60)
    taken = {message["id"] for message in answer.json()["messages"]}
    assert taken
    town.simulator.control(error_rate=0.0)
    until_accepted(town.simulator, 50 - len(taken), 90)
    eventually(lambda: town.states(ids).count("sent") == 50 - len(taken), SOON)
    assert town.states(ids).count("forwarded-to-gateway") == len(taken), "what a phone has is the phone's"
    assert set(accepted(town).values()) == {1}


def test_a_service_that_is_switched_off_is_passed_over(own_town: Town) -> None:
    town = own_town
    town.set(sms={"fallback_services": [TEXTBEE], "africas_talking": {"enabled": False}})
    town.start_sentinel()
    many(town, 20)
    until_accepted(town.twins, 20)
    assert count(town.simulator) == 0
    town.set(sms={"africas_talking": {"enabled": True}})

    def is_used() -> bool:
        many(town, 1)
        return count(town.simulator) > 0

    eventually(is_used, SOON)


def test_what_exceeds_the_rate_goes_by_the_next_service(own_town: Town) -> None:
    town = own_town
    town.set(sms={"fallback_services": [TEXTBEE], "africas_talking": {"batch_size": 1, "max_per_second": 0.01}})
    town.start_sentinel()
    many(town, 50)
    until_all_accepted(town, 50)
    assert count(town.simulator) == 1
    assert count(town.twins) == 49
    assert town.why_held(AT) == "", "being over its rate is no trouble"


# ---- no service at all


def test_no_service_is_said_once_with_the_reason_for_each(own_town: Town) -> None:
    town = own_town
    town.vault.delete("textbee:outgoing")
    town.set(
        sms={
            "outgoing_service": VIBER,
            "fallback_services": [TEXTBEE, RAPIDPRO],
            "viber": {"sender_name": ""},
            "rapidpro": {"enabled": False},
        }
    )
    sentinel = town.start_sentinel()
    ids = many(town, 30)
    eventually(lambda: "No active SMS service" in sentinel.log(), SOON)
    reasons = [
        "viber: sms.viber.sender_name is not set; set it in /api/v1/settings",
        "textbee: no API key; PUT it to /api/v1/credentials/textbee:outgoing",
        "rapidpro: it is switched off by sms.rapidpro.enabled",
    ]
    (line,) = [line for line in sentinel.log().splitlines() if "No active SMS service" in line]
    assert "; ".join(reasons) in line
    readiness = requests.get(f"{town.api.url}/readyz", timeout=30)
    assert readiness.status_code == 503
    (says,) = [check["says"] for check in readiness.json()["checks"] if check["name"] == "service"]
    assert says.startswith("No active SMS service")
    for reason in reasons:
        assert reason.split(": ", maxsplit=1)[1] in says
    assert set(town.states(ids)) == {"pending"}
    assert "state_details" not in town.tasks(ids[0])[0]
    town.set(sms={"rapidpro": {"enabled": True}})
    until_accepted(town.twins, 30)
    assert sentinel.log().count("No active SMS service") == 1
    eventually(lambda: "No active SMS service" not in requests.get(f"{town.api.url}/readyz", timeout=30).text, SOON)
