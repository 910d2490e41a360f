"""The credentials over HTTP: set and named, never shown."""

import uuid
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests

from mjumbe.couch import Couch
from tests.integration.conftest import StartApi
from tests.integration.processes import Process, make_user

Login = tuple[str, str]
PATH = "/api/v1/credentials"
SECRET = "s3cret-value-93b2"


def put(api: Process, login: Login | None, name: str, body: bytes | str, **headers: str) -> requests.Response:
    return requests.put(f"{api.url}{PATH}/{name}", auth=login, data=body, headers=headers, timeout=30)


def test_set_name_delete(api: Process, couch: Couch, admin: Login) -> None:
    name = f"africastalking.com:{uuid.uuid4().hex}"
    url = f"{api.url}{PATH}/{name}"
    assert requests.get(url, auth=admin, timeout=30).status_code == 404
    answer = put(api, admin, name, SECRET + "\n", **{"Content-Type": "text/plain"})
    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    names = requests.get(api.url + PATH, auth=admin, timeout=30)
    assert name in names.json()["credentials"]
    shown = requests.get(url, auth=admin, timeout=30)
    assert shown.json() == {"id": name, "set": True}
    doc = couch.vault.beginning_with("credential:")
    assert SECRET not in f"{names.text}{shown.text}{doc}{api.log()}"
    assert requests.delete(url, auth=admin, timeout=30).json() == {"ok": True}
    assert requests.delete(url, auth=admin, timeout=30).status_code == 404


@pytest.mark.parametrize("name", ["a/b c", "rapidpro:incoming", "x%y", "ü"])
def test_names_of_all_kinds(api: Process, admin: Login, name: str) -> None:
    quoted = requests.utils.quote(name, safe="")  # type: ignore[attr-defined]
    assert put(api, admin, quoted, SECRET).status_code == 200
    assert requests.get(f"{api.url}{PATH}/{quoted}", auth=admin, timeout=30).json()["id"] == name
    assert name in requests.get(api.url + PATH, auth=admin, timeout=30).json()["credentials"]
    assert requests.delete(f"{api.url}{PATH}/{quoted}", auth=admin, timeout=30).status_code == 200


def test_a_slash_at_the_end_of_the_url_is_none_of_the_name(api: Process, admin: Login) -> None:
    name = f"slash-{uuid.uuid4().hex}:incoming"
    assert put(api, admin, name + "/", SECRET).status_code == 200
    assert [
        each for each in requests.get(api.url + PATH, auth=admin, timeout=30).json()["credentials"] if name in each
    ] == [name]
    for method, status in (("GET", 200), ("DELETE", 200), ("GET", 404)):
        url = f"{api.url}{PATH}/{name}/"
        assert requests.request(method, url, auth=admin, timeout=30).status_code == status


@pytest.mark.parametrize(
    ("body", "status"),
    [("", 400), ("  \n", 400), (b"\xff\xfe", 400), ("x" * 4097, 400), ("x" * 20_000, 413)],
)
def test_what_is_no_credential(api: Process, admin: Login, body: bytes | str, status: int) -> None:
    answer = put(api, admin, "refused", body)
    assert answer.status_code == status
    assert "refused" not in requests.get(api.url + PATH, auth=admin, timeout=30).json()["credentials"]


def test_only_admins(api: Process, couch: Couch) -> None:
    login = make_user(couch, "both", "a-password", ["gateway", "sms"])
    for method in ("GET", "PUT", "DELETE"):
        for path in (PATH, f"{PATH}/x"):
            if (method, path) not in (("PUT", PATH), ("DELETE", PATH)):
                url = api.url + path
                assert requests.request(method, url, data="x", timeout=30).status_code == 401
                assert requests.request(method, url, data="x", auth=login, timeout=30).status_code == 403


def test_wrong_logins_are_limited_by_address_and_name(api: Process, admin: Login) -> None:
    name = f"victim-{uuid.uuid4().hex}"
    statuses = [requests.get(api.url + PATH, auth=(name, f"guess {n}"), timeout=60).status_code for n in range(33)]
    assert statuses == [401] * 30 + [429] * 3
    assert requests.get(api.url + PATH, auth=admin, timeout=30).status_code == 200
    assert "guess" not in api.log()


def test_wrong_logins_are_limited_when_they_are_tried_at_once(start_api: StartApi, couch_url: str) -> None:
    api = start_api(couch_url)

    def guess(n: int) -> int:
        return requests.get(api.url + PATH, auth=("victim", f"guess {n}"), timeout=60).status_code

    with ThreadPoolExecutor(100) as threads:
        assert Counter(threads.map(guess, range(100))) == {401: 30, 429: 70}
