"""Phones that poll: several at once, each with its own user, what they are given, hear and tell."""

import threading
import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from tests.integration.gateways.town import PHONE, TEXTBEE, Town
from tests.integration.processes import eventually, make_user
from tests.integration.sentinel.world import SOON, entries, number

Login = tuple[str, str]


@pytest.fixture(scope="module")
def phones(town: Town) -> list[Login]:
    town.set(sms={"outgoing_service": PHONE})
    return [make_user(town.couch, name, f"{name}-password", ["gateway"]) for name in ("first", "second")]


def poll(town: Town, login: Login, **body: Any) -> list[dict[str, str]]:
    answer = requests.post(f"{town.api.url}/api/sms", auth=login, json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    given: list[dict[str, str]] = answer.json()["messages"]
    return given


def write(town: Town, count: int) -> list[str]:
    """So many messages that wait for a phone: their documents' ids."""
    prefix, text = number(""), uuid.uuid4().hex
    ids = town.write_many([(f"{prefix}{n:05}", f"{text} {n}") for n in range(count)])
    eventually(lambda: all(town.tasks(doc_id)[0].get("service") == PHONE for doc_id in ids), SOON)
    return ids


def test_two_phones_at_once_never_get_the_same_message(town: Town, phones: list[Login]) -> None:
    ids = write(town, 120)
    uuids = {town.tasks(doc_id)[0]["messages"][0]["uuid"] for doc_id in ids}
    given: list[tuple[str, str]] = []
    together = threading.Barrier(2)

    def work(login: Login) -> None:
        updates: list[dict[str, str]] = []
        for _ in range(20):
            together.wait(60)
            messages = poll(town, login, updates=updates)
            given.extend((message["id"], login[0]) for message in messages)
            updates = [{"id": message["id"], "status": "PENDING"} for message in messages]

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, phones))
    holders = Counter(message for message, _ in given)
    assert set(holders) == uuids
    assert set(holders.values()) == {1}
    assert {login for _, login in given} == {login for login, _ in phones}, "and both had some"


def test_a_message_is_bound_to_the_phone_that_took_it(town: Town, phones: list[Login]) -> None:
    first, second = phones
    (doc_id,) = write(town, 1)
    (message,) = poll(town, first)
    assert poll(town, second) == []
    assert poll(town, first) == [message], "again until it is acknowledged"
    assert poll(town, first, updates=[{"id": message["id"], "status": "PENDING"}]) == []
    assert town.tasks(doc_id)[0]["state"] == "forwarded-by-gateway"


def test_its_whole_life(town: Town, phones: list[Login]) -> None:
    (doc_id,) = write(town, 1)
    (message,) = poll(town, phones[0])
    for status in ("UNSENT", "PENDING", "SENT", "SENT", "DELIVERED", "DELIVERED"):
        poll(town, phones[0], updates=[{"id": message["id"], "status": status}])
    assert entries(town.until(doc_id, "delivered"))[1:] == [
        "forwarded-to-gateway",
        "received-by-gateway",
        "forwarded-by-gateway",
        "sent",
        "delivered",
    ]


def test_a_failure_has_its_reason(town: Town, phones: list[Login]) -> None:
    (doc_id,) = write(town, 1)
    (message,) = poll(town, phones[0])
    poll(town, phones[0], updates=[{"id": message["id"], "status": "FAILED", "reason": "RADIO_OFF"}])
    assert town.until(doc_id, "failed")["state_details"] == "RADIO_OFF"


def test_what_a_phone_hears_comes_in_once_and_is_answered(town: Town, phones: list[Login]) -> None:
    answer, sender = uuid.uuid4().hex, number()
    town.set(sms={"replies": [{"keyword": "MSAADA", "message": answer}]})
    heard = {"id": uuid.uuid4().hex, "from": sender, "content": "Msaada", "sms_sent": 1767247485123}
    for login in (*phones, *phones):
        poll(town, login, messages=[heard])
    given: list[dict[str, str]] = []

    def is_answered() -> bool:
        given.extend(poll(town, phones[1]))
        return bool(given)

    eventually(is_answered, SOON)
    assert {(message["to"], message["content"]) for message in given} == {(sender, answer)}
    poll(town, phones[1], updates=[{"id": given[0]["id"], "status": "SENT"}])
    assert poll(town, phones[0]) == []


@pytest.mark.parametrize("roles", [[], ["sms"]])
def test_without_the_role_nothing_is_given(town: Town, phones: list[Login], roles: list[str]) -> None:
    stranger = make_user(town.couch, "stranger", "stranger-password", roles)
    ids = write(town, 1)
    refused = requests.post(f"{town.api.url}/api/sms", auth=stranger, json={}, timeout=30)
    wrong = requests.post(f"{town.api.url}/api/sms", auth=(phones[0][0], "wrong"), json={}, timeout=30)
    assert (refused.status_code, wrong.status_code) == (403, 401)
    assert town.states(ids) == ["pending"]
    town.clear(ids[0])


def test_the_phone_is_the_next_service_when_another_is_held(town: Town, phones: list[Login]) -> None:
    town.set(sms={"outgoing_service": TEXTBEE, "fallback_services": [PHONE]})
    town.twins.control(unauthorized=True)
    try:
        to, text = number(), uuid.uuid4().hex
        town.write(to, text)
        given: list[dict[str, str]] = []

        def is_given() -> bool:
            given[:] = poll(town, phones[0])
            return bool(given)

        eventually(is_given, SOON)
        assert [(message["to"], message["content"]) for message in given] == [(to, text)]
        poll(town, phones[0], updates=[{"id": given[0]["id"], "status": "SENT"}])
    finally:
        town.twins.control(unauthorized=False)
        town.set(sms={"outgoing_service": PHONE, "fallback_services": []})


# ---- a phone that does not poll


def fall_silent(town: Town) -> None:
    """As if minutes went by."""
    town.set(sms={"medic_gateway": {"silent_after": 0.001}})
    town.until_held(PHONE, "no phone has polled")


def test_what_no_phone_took_goes_by_the_next_service_and_what_one_was_given_does_not(own_town: Town) -> None:
    town = own_town
    login = make_user(town.couch, "first", "first-password", ["gateway"])
    town.set(sms={"outgoing_service": PHONE, "fallback_services": [TEXTBEE], "medic_gateway": {"poll_limit": 5}})
    town.start_sentinel()
    ids = write(town, 12)
    assert town.api.url
    given = poll(town, login)
    assert len(given) == 5
    fall_silent(town)
    eventually(lambda: int(town.twins.counts()["accepted"]) == 7, SOON)
    taken = [doc_id for doc_id in ids if town.tasks(doc_id)[0]["service"] == PHONE]
    assert {town.tasks(doc_id)[0]["messages"][0]["uuid"] for doc_id in taken} == {each["id"] for each in given}
    assert town.states(taken) == ["forwarded-to-gateway"] * 5
    assert poll(town, login) == given, "it is given again what it has, and nothing else"
    town.set(sms={"medic_gateway": {"silent_after": "1h"}})
    eventually(lambda: town.why_held(PHONE) == "", SOON)
    write(town, 1)


def test_a_first_poll_after_a_long_silence_finds_what_waits(own_town: Town) -> None:
    town = own_town
    login = make_user(town.couch, "first", "first-password", ["gateway"])
    town.set(sms={"outgoing_service": PHONE})
    sentinel = town.start_sentinel()
    fall_silent(town)
    write(town, 3)
    eventually(lambda: "No active SMS service" in sentinel.log(), SOON)
    answer = requests.get(f"{town.api.url}/readyz", timeout=30)
    (says,) = [check["says"] for check in answer.json()["checks"] if check["name"] == "service"]
    assert answer.status_code == 503
    assert says.startswith("No active SMS service. The service medic-gateway is held since")
    assert "no phone has polled yet" in says
    assert len(poll(town, login)) == 3
    eventually(lambda: "no phone has polled since" in town.why_held(PHONE), SOON)


def test_what_was_left_to_the_phone_goes_when_an_earlier_service_works_again(own_town: Town) -> None:
    town = own_town
    town.set(sms={"outgoing_service": TEXTBEE, "fallback_services": [PHONE]})
    town.twins.control(unauthorized=True)
    town.start_sentinel()
    write(town, 20)
    town.twins.control(unauthorized=False)
    town.free(TEXTBEE)
    eventually(lambda: int(town.twins.counts()["accepted"]) == 20, SOON)
