"""The small service for scripts: what it refuses, and its callbacks. Sending is tried with a sentinel."""

import uuid
from typing import Any

import pytest
import requests

from mjumbe import documents
from mjumbe.couch import Couch
from tests.integration.processes import Process, make_user

Login = tuple[str, str]
KEY = "the-incoming-key-5f1c"
FORM = {"Content-Type": "application/x-www-form-urlencoded"}
MISSING = {"error": "Missing 'phone' query parameter"}
INVOKE = ("/sms/invoke-bulk-sms", "/sms/invoke-twoway-sms")


@pytest.fixture(scope="module", autouse=True)
def key(api: Process, admin: Login) -> None:
    url = f"{api.url}/api/v1/credentials/africastalking.com:incoming"
    requests.put(url, auth=admin, data=KEY, timeout=30).raise_for_status()


@pytest.fixture(scope="module")
def script(couch: Couch) -> Login:
    return make_user(couch, "script", "script-password", ["sms"])


def post(api: Process, path: str, form: Any, key: str | None = KEY) -> requests.Response:
    return requests.post(f"{api.url}/sms/{path}", params={"key": key} if key else {}, data=form, timeout=30)


def two_way(**changes: str | None) -> dict[str, str]:
    fields = {"linkId": "L1", "text": "HELP", "to": "22333", "id": uuid.uuid4().hex, "date": "2026-01-31 08:30:00"}
    return {name: value for name, value in {**fields, "from": "+254711000111", **changes}.items() if value is not None}


def test_ready(api: Process) -> None:
    for path in ("/sms/", "/sms"):
        answer = requests.get(api.url + path, timeout=30, allow_redirects=False)
        assert (answer.status_code, answer.json()) == (200, {"service": "sms", "status": "ready"})


@pytest.mark.parametrize("path", INVOKE)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_what_is_not_sent(api: Process, couch: Couch, script: Login, path: str, method: str) -> None:
    before = couch.main.info()["doc_count"]

    def ask(**arguments: Any) -> requests.Response:
        return requests.request(method, api.url + path, timeout=30, **arguments)

    assert ask(params={"phone": "254711000111"}).status_code == 401
    stranger = make_user(couch, "stranger", "a-password", ["gateway"])
    assert ask(params={"phone": "254711000111"}, auth=stranger).status_code == 403
    latin = "phone=254711000111&message=caf%E9"
    for garbled in (ask(params=latin, auth=script), ask(data=latin, headers=FORM, auth=script)):
        assert (garbled.status_code, "send it in UTF-8" in garbled.text) == (400, True)
    for params in ({}, {"phone": " "}, {"message": "Habari"}):
        answer = ask(params=params, auth=script)
        assert (answer.status_code, answer.json()) == (400, MISSING)
    answer = ask(params={"phone": "SAFARICOM"}, auth=script)
    assert answer.status_code == 400
    assert "SAFARICOM" in answer.json()["error"]
    answer = ask(params={"phone": "254711000111"}, data={"message": "x" * 40_001}, auth=script)
    assert answer.status_code == 400
    other_site = {"Sec-Fetch-Site": "cross-site"}
    assert ask(params={"phone": "254711000111"}, auth=script, headers=other_site).status_code == 403
    assert couch.main.info()["doc_count"] == before


def test_head_sends_nothing(api: Process, script: Login) -> None:
    answer = requests.head(f"{api.url}/sms/invoke-bulk-sms?phone=254711000111", auth=script, timeout=30)
    assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, POST")


def test_a_two_way_message_is_the_document_that_it_is_elsewhere(api: Process, couch: Couch) -> None:
    form = two_way()
    for _ in range(2):
        answer = post(api, "twoway", form)
        assert (answer.status_code, answer.text, answer.headers["Content-Type"]) == (
            *(200, "GOOD"),
            "text/plain; charset=utf-8",
        )
    url = f"{api.url}/api/v1/sms/africastalking/incoming-messages"
    again = requests.post(url, params={"key": KEY}, data=form, timeout=30)
    assert again.json() == {"saved": 0}
    doc = couch.main.get(documents.incoming_id("africas-talking", form["id"]))
    assert doc is not None
    assert (doc["from"], doc["sms_message"]["link_id"], doc["sms_message"]["to"]) == ("+254711000111", "L1", "22333")


def test_an_empty_text_is_a_message(api: Process) -> None:
    assert post(api, "twoway", two_way(text="")).text == "GOOD"


@pytest.mark.parametrize("missing", ["linkId", "text", "to", "id", "date", "from"])
def test_every_field_is_required(api: Process, missing: str) -> None:
    answer = post(api, "twoway", two_way(**{missing: None}))
    assert (answer.status_code, answer.text) == (400, "BAD")


@pytest.mark.parametrize("empty", ["id", "from"])
def test_some_must_not_be_empty(api: Process, empty: str) -> None:
    answer = post(api, "twoway", two_way(**{empty: " "}))
    assert (answer.status_code, answer.text) == (400, "BAD")


CALLBACKS = [
    ("delivery-reports", {"id": "ATXid_7", "status": "Success"}, "report:africas-talking:ATXid_7:Success"),
    ("opt-out", {"senderId": "AFYA", "phoneNumber": "+254711000112"}, "opt-out:africas-talking:"),
    (
        "subscription",
        {"phoneNumber": "+254711000112", "shortCode": "22000", "keyword": "afya", "updateType": "Addition"},
        "subscription:africas-talking:",
    ),
]


@pytest.mark.parametrize(("path", "form", "prefix"), CALLBACKS)
def test_other_callbacks(api: Process, couch: Couch, path: str, form: dict[str, str], prefix: str) -> None:
    before = len(couch.callbacks.beginning_with(prefix))
    answer = post(api, path, form)
    assert (answer.status_code, answer.text) == (200, "OK")
    assert len(couch.callbacks.beginning_with(prefix)) == before + 1
    assert post(api, path, {}).status_code == 400


@pytest.mark.parametrize("path", ["twoway", *(path for path, _, _ in CALLBACKS)])
@pytest.mark.parametrize("wrong", [None, "", "wrong"])
def test_callbacks_need_the_key(api: Process, path: str, wrong: str | None) -> None:
    assert post(api, path, two_way(), key=wrong).status_code == 403
