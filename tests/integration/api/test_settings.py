"""The app settings, as CHT's tools read and change them."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests

from mjumbe import settings
from mjumbe.couch import Couch
from tests.integration.conftest import StartApi
from tests.integration.processes import Process, eventually, make_user

Login = tuple[str, str]
PATH = "/api/v1/settings"


def get(api: Process, login: Login) -> dict[str, Any]:
    answer = requests.get(api.url + PATH, auth=login, timeout=30)
    assert answer.status_code == 200
    values: dict[str, Any] = answer.json()
    return values


def put(api: Process, login: Login, body: object, query: str = "") -> requests.Response:
    return requests.put(api.url + PATH + query, auth=login, json=body, timeout=30)


def store(couch: Couch, values: Any) -> None:
    """Write the document as another program would."""
    doc = couch.main.get("settings")
    assert doc
    couch.main.put({**doc, "settings": values})


@pytest.fixture(autouse=True)
def defaults(couch: Couch) -> Iterator[None]:
    yield
    store(couch, settings.load_defaults())


def test_a_new_database_has_the_defaults(api: Process, admin: Login) -> None:
    assert get(api, admin) == settings.load_defaults()


def test_merge(api: Process, admin: Login) -> None:
    before = get(api, admin)
    answer = put(api, admin, {"sms": {"africas_talking": {"username": "clinic"}, "replies": []}, "chts_own": [1]})
    assert (answer.status_code, answer.json()) == (200, {"success": True, "updated": True})
    after = get(api, admin)
    assert after["sms"]["africas_talking"] == {"username": "clinic"}
    assert after["sms"]["replies"] == []
    assert after["chts_own"] == [1]
    assert after["sms"]["outgoing_service"] == before["sms"]["outgoing_service"]
    assert after["permissions"] == before["permissions"]


@pytest.mark.parametrize(("levels", "status"), [(100, 200), (101, 400), (480, 400)])
def test_what_could_not_be_changed_again_is_not_stored(api: Process, admin: Login, levels: int, status: int) -> None:
    deep: object = "the innermost"
    for level in range(levels - 1):
        deep = [deep] if level % 2 else {"a": deep}
    assert put(api, admin, {"forms": deep}).status_code == status
    assert put(api, admin, {"locale": "sw"}).status_code == 200


def test_the_same_again_changes_nothing(api: Process, couch: Couch, admin: Login) -> None:
    put(api, admin, {"locale": "sw"})
    before = couch.main.get("settings")
    assert put(api, admin, {"locale": "sw"}).json() == {"success": True, "updated": False}
    assert couch.main.get("settings") == before


@pytest.mark.parametrize("query", ["?replace=true", "?replace=1", "?replace=yes&overwrite=false", "?replace=TRUE"])
def test_replace(api: Process, admin: Login, query: str) -> None:
    assert put(api, admin, {"sms": {"outgoing_service": "medic-gateway"}}, query).status_code == 200
    after = get(api, admin)
    assert after["sms"] == {"outgoing_service": "medic-gateway"}
    assert after["permissions"] == settings.load_defaults()["permissions"]


@pytest.mark.parametrize("query", ["?replace=false", "?replace=0&overwrite=", "?overwrite=No"])
def test_neither(api: Process, admin: Login, query: str) -> None:
    before = get(api, admin)
    assert put(api, admin, {"sms": {"outgoing_service": "medic-gateway"}}, query).status_code == 200
    assert get(api, admin)["sms"] == {**before["sms"], "outgoing_service": "medic-gateway"}


@pytest.mark.parametrize("query", ["?overwrite=true", "?overwrite=1", "?overwrite=true&replace=true"])
def test_overwrite(api: Process, admin: Login, query: str) -> None:
    given = {"locale": "sw", "sms": {"outgoing_service": "medic-gateway"}}
    assert put(api, admin, given, query).status_code == 200
    assert get(api, admin) == given


def test_chts_guide(api: Process, couch: Couch, admin: Login) -> None:
    """The curl command as operators have it in their notes: any content type, a body straight from the shell."""
    body = b'{"sms": {"outgoing_service": "africas-talking", "africas_talking": {"username": "sandbox"}}}\n'
    answer = requests.put(
        api.url + PATH, auth=admin, data=body, headers={"Content-Type": "application/x-www-form-urlencoded"}, timeout=30
    )
    assert answer.json()["success"] is True


CHT_CONF = "/medic/_design/medic/_rewrite"


def test_cht_conf_as_it_asks(api: Process, admin: Login) -> None:
    """`cht --url=… upload-app-settings`, then `backup-app-settings`: it greets, replaces, and reads what it wrote."""
    given = {"locale": "sw", "sms": {"outgoing_service": "medic-gateway"}, "tasks": {"rules": ""}}
    assert requests.get(f"{api.url}/medic/", auth=admin, timeout=30).status_code == 200
    url = f"{api.url}{CHT_CONF}/update_settings/medic?replace=1"
    for updated in (True, False):
        answer = requests.put(url, auth=admin, json=given, timeout=30)
        assert (answer.status_code, answer.json()) == (200, {"success": True, "updated": updated})
    kept = requests.get(f"{api.url}{CHT_CONF}/app_settings/medic", auth=admin, timeout=30).json()
    assert kept == {"settings": get(api, admin)}
    assert kept["settings"]["sms"] == given["sms"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"sms": {"duplicate_limit": 50}}, "sms.duplicate_limit"),
        ({"sms": {"outgoing_service": "pigeon"}}, "sms.outgoing_service"),
        ({"sms": {"africas_talking": {"base_url": "ftp://x"}}}, "sms.africas_talking.base_url"),
        ({"sms": {"replies": [{"keyword": "two words", "message": "x"}]}}, "sms.replies[0].keyword"),
        ({"sms": "text"}, "sms"),
        ({"permissions": {"can_access_gateway_api": "gateway"}}, "permissions.can_access_gateway_api"),
    ],
)
@pytest.mark.parametrize("query", ["", "?replace=true", "?overwrite=true"])
def test_wrong_settings_are_refused_and_the_old_stay(
    api: Process, admin: Login, change: dict[str, Any], path: str, query: str
) -> None:
    before = get(api, admin)
    answer = put(api, admin, {**change, "locale": "sw"}, query)
    assert answer.status_code == 400
    body = answer.json()
    assert (body["error"], body["problems"][0]["path"]) == ("bad_request", path)
    assert body["problems"][0]["expected"]
    assert path in body["reason"]
    assert get(api, admin) == before


def test_what_was_wrong_before_blocks_no_other_change(api: Process, couch: Couch, admin: Login) -> None:
    wrong = settings.load_defaults()
    wrong["sms"]["duplicate_limit"] = 50
    store(couch, wrong)
    assert put(api, admin, {"locale": "sw"}).status_code == 200
    assert put(api, admin, {"sms": {"in_doubt": "hold"}}).status_code == 200
    after = get(api, admin)
    assert (after["locale"], after["sms"]["in_doubt"], after["sms"]["duplicate_limit"]) == ("sw", "hold", 50)
    assert put(api, admin, {"sms": {"duplicate_limit": 51}}).status_code == 400
    assert put(api, admin, {"sms": {"duplicate_limit": 5}}).status_code == 200


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"text"', b"null"])
def test_what_is_no_object(api: Process, admin: Login, body: bytes) -> None:
    answer = requests.put(api.url + PATH, auth=admin, data=body, timeout=30)
    assert (answer.status_code, answer.json()["field"]) == (400, "body")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", PATH),
        ("PUT", PATH),
        ("GET", "/medic/"),
        ("GET", f"{CHT_CONF}/app_settings/medic"),
        ("PUT", f"{CHT_CONF}/update_settings/medic"),
    ],
)
def test_only_admins(api: Process, couch: Couch, method: str, path: str) -> None:
    login = make_user(couch, "both", "a-password", ["gateway", "sms"])
    assert requests.request(method, api.url + path, json={}, timeout=30).status_code == 401
    assert requests.request(method, api.url + path, json={}, auth=login, timeout=30).status_code == 403


def test_changes_at_once_are_all_kept(api: Process, start_api: StartApi, couch_url: str, admin: Login) -> None:
    servers = [api, start_api(couch_url)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: put(servers[n % 2], admin, {f"key{n}": n}), range(16)))
    assert [answer.status_code for answer in answers] == [200] * 16
    after = get(api, admin)
    assert {f"key{n}": n for n in range(16)}.items() <= after.items()


def test_a_change_by_another_program_is_picked_up_and_a_wrong_one_is_said(
    api: Process, couch: Couch, admin: Login
) -> None:
    def says() -> str:
        checks = requests.get(f"{api.url}/readyz", timeout=30).json()["checks"]
        return str(next(check["says"] for check in checks if check["name"] == "settings"))

    wrong = settings.load_defaults()
    wrong["sms"]["duplicate_limit"] = 50
    store(couch, wrong)
    eventually(lambda: "sms.duplicate_limit is 50; expected a whole number from 1 to 20" in says())
    store(couch, settings.load_defaults())
    eventually(lambda: says() == "All settings are in force.")
