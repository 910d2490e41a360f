"""How the services stand, and trying one out, by the API against the simulators."""

import uuid
from typing import Any

import pytest
import requests

from mjumbe.polling_phones import PollingPhones
from tests.integration.gateways.town import AT, CALLED, KEY, PHONE, RAPIDPRO, TEXTBEE, VIBER, Town
from tests.integration.processes import eventually, make_user
from tests.integration.sentinel.world import OUTGOING_KEY, SOON, number

SAYS = {
    AT: "Africa's Talking took the credentials; the balance is KES",
    TEXTBEE: "TextBee took the API key; the device was last heard of at",
    VIBER: "Viber took the token of Simulator; its webhook is",
    RAPIDPRO: "RapidPro took the key; its workspace is Simulator",
}
REFUSED = {
    AT: "Africa's Talking did not take the credentials: HTTP 401",
    TEXTBEE: "TextBee did not take the API key: HTTP 401",
    VIBER: "Viber did not take the token: invalidAuthToken",
    RAPIDPRO: "RapidPro did not take the key: HTTP 403",
}
KEYS = {AT: "africastalking.com:outgoing", TEXTBEE: "textbee:outgoing", VIBER: "viber:outgoing"}
Login = tuple[str, str]


@pytest.fixture(scope="module")
def admin(town: Town) -> Login:
    assert town.couch.user is not None
    return town.couch.user, town.couch._password


def gateways(town: Town, login: Login) -> dict[str, dict[str, Any]]:
    answer = requests.get(f"{town.api.url}/api/v1/gateways", auth=login, timeout=30)
    assert answer.status_code == 200, answer.text
    return {entry["name"]: entry for entry in answer.json()["gateways"]}


def try_out(town: Town, login: Login, name: str, to: str | None = None) -> requests.Response:
    url = f"{town.api.url}/api/v1/gateways/{name}/test"
    return requests.post(url, auth=login, json={"to": to} if to else None, timeout=60)


def store_key(town: Town, login: Login, service: str, key: str) -> None:
    url = f"{town.api.url}/api/v1/credentials/{KEYS.get(service, 'rapidpro:outgoing')}"
    requests.put(url, auth=login, data=key, timeout=30).raise_for_status()


# ---- how they stand


def test_the_order_and_the_addresses(town: Town, admin: Login) -> None:
    town.set(public_url="https://sms.example.org", sms={"outgoing_service": VIBER, "fallback_services": [AT, PHONE]})
    found = gateways(town, admin)
    assert list(found)[:3] == [VIBER, AT, PHONE]
    assert {name: entry["place"] for name, entry in found.items()} == {
        VIBER: 1,
        AT: 2,
        PHONE: 3,
        TEXTBEE: None,
        RAPIDPRO: None,
    }
    assert all(entry["enabled"] and entry["configured"] and not entry["missing"] for entry in found.values())
    base = "https://sms.example.org/api/v1/sms"
    assert found[TEXTBEE]["callback_urls"] == {"events": f"{base}/textbee/events"}
    assert found[VIBER]["callback_urls"] == {"events": f"{base}/viber/events"}
    assert found[AT]["callback_urls"] == {
        route: f"{base}/africastalking/{route}?key=YOUR-KEY"
        for route in ("incoming-messages", "delivery-reports", "opt-out", "subscription")
    }
    assert found[PHONE]["callback_urls"] == {"poll": "https://sms.example.org/api/sms"}
    path = "/api/v2/sms/rapidpro/incoming-messages"  # CHT's, by which its users know it
    assert found[RAPIDPRO]["callback_urls"] == {"incoming-messages": f"https://sms.example.org{path}"}
    town.set(sms={"outgoing_service": AT, "fallback_services": []})


def test_what_is_missing_is_said(town: Town, admin: Login) -> None:
    town.set(sms={"textbee": {"enabled": False, "device_id": ""}})
    found = gateways(town, admin)[TEXTBEE]
    assert (found["enabled"], found["configured"]) == (False, False)
    assert found["missing"] == [
        "sms.textbee.device_id is not set; set it in /api/v1/settings",
        "it is switched off by sms.textbee.enabled",
    ]
    town.set(sms={"textbee": {"enabled": True, "device_id": "simulated"}})


def test_what_happened_today(town: Town, admin: Login) -> None:
    town.set(sms={"outgoing_service": AT})
    before = gateways(town, admin)[AT]["today"]
    town.until(town.write(number(), uuid.uuid4().hex), "delivered")
    town.until(town.write(number("99403"), uuid.uuid4().hex), "failed")
    after = gateways(town, admin)[AT]["today"]
    assert after["delivered"] == before.get("delivered", 0) + 1
    assert after["failed"] == before.get("failed", 0) + 1
    eventually(lambda: gateways(town, admin)[AT]["last_success"], SOON)
    eventually(lambda: str(gateways(town, admin)[AT]["balance"]).startswith("KES "), SOON)


def test_a_hold_is_said_with_its_reason(town: Town, admin: Login) -> None:
    doc_id = town.write(number("99405"), uuid.uuid4().hex)
    eventually(lambda: gateways(town, admin)[AT]["held"], SOON)
    found = gateways(town, admin)[AT]
    assert found["held"]["reason"] == "InsufficientBalance"
    assert found["held"]["since"] <= found["last_failure"]
    assert found["configured"]
    town.clear(doc_id)
    town.free(AT)
    eventually(lambda: not gateways(town, admin)[AT]["held"], SOON)


def test_no_secret_is_shown(town: Town, admin: Login) -> None:
    shown = requests.get(f"{town.api.url}/api/v1/gateways", auth=admin, timeout=30).text
    assert not [secret for secret in (KEY, OUTGOING_KEY, town.couch._password) if secret in shown]


# ---- trying them out


@pytest.mark.parametrize("service", CALLED)
def test_the_credentials_are_tried(town: Town, admin: Login, service: str) -> None:
    answer = try_out(town, admin, service)
    assert answer.status_code == 200
    assert answer.json()["ok"], answer.json()
    assert answer.json()["says"].startswith(SAYS[service])
    assert "uuid" not in answer.json(), "without a number nothing is sent"


@pytest.mark.parametrize("service", CALLED)
def test_wrong_credentials_are_said(town: Town, admin: Login, service: str) -> None:
    store_key(town, admin, service, "not-the-key")
    try:
        answer = try_out(town, admin, service, number()).json()
    finally:
        store_key(town, admin, service, OUTGOING_KEY if service == AT else KEY)
    assert not answer["ok"]
    assert answer["says"].startswith(REFUSED[service])
    assert "uuid" not in answer, "nothing was sent"


@pytest.mark.parametrize("service", [AT, TEXTBEE, VIBER])
def test_a_message_is_sent_and_followed(town: Town, admin: Login, service: str) -> None:
    to = number()
    if service == VIBER:
        town.register(to)
    answer = try_out(town, admin, service, to).json()
    assert (answer["ok"], answer["says"]) == (True, "The test message was delivered."), answer
    assert [entry["state"] for entry in answer["history"]][-1] == "delivered"
    assert to in town.accepted("mjumbe: a test message.")


def test_a_message_that_is_refused_is_said(town: Town, admin: Login) -> None:
    answer = try_out(town, admin, AT, number("99403")).json()
    assert (answer["ok"], answer["says"]) == (False, "The test message is failed so far: InvalidPhoneNumber.")
    assert answer["history"][-1]["state_details"] == "InvalidPhoneNumber"


def test_the_phone_is_known_by_its_polls(town: Town, admin: Login) -> None:
    none_yet = try_out(town, admin, PHONE, number()).json()
    assert (none_yet["ok"], "none has yet" in none_yet["says"], "uuid" in none_yet) == (False, True, False)
    phone = make_user(town.couch, "a-phone", "a-phone-password", ["gateway"])
    requests.post(f"{town.api.url}/api/sms", auth=phone, json={}, timeout=30).raise_for_status()
    polled = PollingPhones(town.couch).last_poll()
    answer = try_out(town, admin, PHONE).json()
    assert (answer["ok"], answer["says"]) == (True, f"The phone polls by itself; one did last at {polled}")


@pytest.mark.parametrize(
    ("name", "to", "status"), [("pigeons", None, 404), (AT, "not a number", 400), (TEXTBEE, "12", 400)]
)
def test_what_cannot_be_tried(town: Town, admin: Login, name: str, to: str | None, status: int) -> None:
    assert try_out(town, admin, name, to).status_code == status


def test_a_field_that_is_none_is_named(town: Town, admin: Login) -> None:
    url = f"{town.api.url}/api/v1/gateways/{AT}/test"
    for body, field in (({"phone": "+254711000111"}, "phone"), ({"number": "12"}, "to")):
        answer = requests.post(url, auth=admin, json=body, timeout=60)
        assert (answer.status_code, answer.json()["field"]) == (400, field)


def test_only_admins(town: Town) -> None:
    nobody = make_user(town.couch, "nobody", "nobody-password", [])
    assert requests.get(f"{town.api.url}/api/v1/gateways", auth=nobody, timeout=30).status_code == 403
    assert try_out(town, nobody, AT).status_code == 403
    assert requests.get(f"{town.api.url}/api/v1/gateways", timeout=30).status_code == 401
