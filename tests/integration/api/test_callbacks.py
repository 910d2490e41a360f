"""Africa's Talking's callbacks, over real HTTP into a real store."""

import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote

import pytest
import requests

from mjumbe import documents, setup
from mjumbe.couch import Couch
from tests.integration.conftest import StartApi, StartStore
from tests.integration.processes import Process, eventually, nothing_stored

KEY = "the-incoming-key-5f1c"
OTHER_KEY = "the-outgoing-key-77ab"
INCOMING = "/api/v1/sms/africastalking/incoming-messages"
REPORTS = "/api/v1/sms/africastalking/delivery-reports"


@pytest.fixture(scope="module", autouse=True)
def keys(api: Process, admin: tuple[str, str]) -> None:
    for name, value in (("africastalking.com:incoming", KEY), ("africastalking.com:outgoing", OTHER_KEY)):
        answer = requests.put(f"{api.url}/api/v1/credentials/{name}", auth=admin, data=value)
        assert (answer.status_code, answer.json()) == (200, {"ok": True})


def post(api: Process, path: str, form: object, key: str | None = KEY, **arguments: object) -> requests.Response:
    params = {} if key is None else {"key": key}
    return requests.post(api.url + path, params=params, data=form, timeout=30, **arguments)  # type: ignore[arg-type]


def new_id() -> str:
    return f"ATXid_{uuid.uuid4().hex}"


def message(message_id: str, **fields: str) -> dict[str, str]:
    return {"id": message_id, "from": "+254711000111", "to": "22333", "text": "HELP", **fields}


def stored(couch: Couch, message_id: str) -> dict[str, object] | None:
    return couch.main.get(f"incoming:africas-talking:{quote(message_id, safe='')}")


def test_an_incoming_message_becomes_a_document(api: Process, couch: Couch) -> None:
    message_id = new_id()
    form = message(message_id, date="2026-01-31 08:30:00", linkId="link-1", networkCode="63902", cost="KES 1.00")
    answer = post(api, INCOMING, form | {"from": "0711 000 111"})
    assert (answer.status_code, answer.json()) == (200, {"saved": 1})
    doc = stored(couch, message_id)
    assert doc is not None
    assert (doc["type"], doc["from"]) == ("data_record", "+254711000111")
    sms = doc["sms_message"]
    assert isinstance(sms, dict)
    assert sms["from"] == "0711 000 111"
    assert {name: sms[name] for name in ("message", "gateway", "gateway_ref", "to", "sent_timestamp", "link_id")} == {
        "message": "HELP",
        "gateway": "africas-talking",
        "gateway_ref": message_id,
        "to": "22333",
        "sent_timestamp": "2026-01-31 08:30:00",
        "link_id": "link-1",
    }


def test_a_repeated_message_is_one_document(api: Process, couch: Couch) -> None:
    message_id = new_id()
    assert post(api, INCOMING, message(message_id)).json() == {"saved": 1}
    before = stored(couch, message_id)
    assert post(api, INCOMING, message(message_id, text="another text")).json() == {"saved": 0}
    assert stored(couch, message_id) == before


def test_fifty_equal_messages_at_once_to_two_processes(
    api: Process, start_api: StartApi, couch_url: str, couch: Couch
) -> None:
    processes = (api, start_api(couch_url))
    message_id = new_id()
    together = threading.Barrier(50)

    def send(number: int) -> tuple[int, object]:
        together.wait(30)
        answer = post(processes[number % 2], INCOMING, message(message_id))
        return answer.status_code, answer.json()

    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(send, range(50)))
    assert [status for status, _ in answers] == [200] * 50
    assert sorted(str(body) for _, body in answers) == ["{'saved': 0}"] * 49 + ["{'saved': 1}"]
    found = couch.main.beginning_with(f"incoming:africas-talking:{message_id}")
    assert len(found) == 1


@pytest.mark.parametrize("key", [None, "", "wrong", OTHER_KEY, KEY + "x", KEY[:-1], "\ud83d", "\0"])
@pytest.mark.parametrize("path", [INCOMING, REPORTS])
def test_without_the_right_key_nothing_is_stored(api: Process, couch: Couch, path: str, key: str | None) -> None:
    query = "" if key is None else "?key=" + quote(key, safe="", errors="surrogatepass")
    form = message(new_id(), status="Success")
    with nothing_stored(couch.main, couch.callbacks):
        answer = requests.post(api.url + path + query, data=form, timeout=30)
    assert answer.status_code == 403
    assert answer.json()["error"] == "forbidden"
    assert "africastalking.com:incoming" in answer.json()["reason"]


def test_no_credential_stored_refuses_every_key(start_api: StartApi, couch_url: str) -> None:
    url = f"{couch_url}-keyless"
    couch = Couch(url)
    setup.prepare(couch)
    try:
        other = start_api(url)
        for key in ("", "None", KEY):
            assert post(other, INCOMING, message(new_id()), key=key).status_code == 403
    finally:
        for database in couch.databases:
            couch.request("DELETE", f"/{database.name}")


def test_wrong_keys_are_limited_and_the_right_one_never_is(start_api: StartApi, couch_url: str) -> None:
    other = start_api(couch_url)
    statuses = [post(other, INCOMING, message(new_id()), key="wrong").status_code for _ in range(35)]
    assert statuses == [403] * 30 + [429] * 5
    refused = post(other, INCOMING, message(new_id()), key="wrong")
    assert 1 <= int(refused.headers["Retry-After"]) <= 60
    assert refused.json()["error"] == "too_many_requests"
    assert post(other, INCOMING, message(new_id())).json() == {"saved": 1}


def test_a_changed_key_works_at_once_in_every_process(
    api: Process, start_api: StartApi, couch_url: str, admin: tuple[str, str]
) -> None:
    other = start_api(couch_url)
    assert post(other, INCOMING, message(new_id())).json() == {"saved": 1}
    path = "/api/v1/credentials/africastalking.com:incoming"
    requests.put(api.url + path, auth=admin, data="the-changed-key").raise_for_status()
    try:
        eventually(lambda: post(other, INCOMING, message(new_id()), key="the-changed-key").status_code == 200, 5)
    finally:
        requests.put(api.url + path, auth=admin, data=KEY).raise_for_status()
    assert post(api, INCOMING, message(new_id())).status_code == 200


FORM = "application/x-www-form-urlencoded"
ODD = {
    "empty text": (b"id=%s&from=%%2B254711000111&text=", FORM, "+254711000111", ""),
    "no text": (b"id=%s&from=%%2B254711000111", FORM, "+254711000111", ""),
    "alphanumeric sender": (b"id=%s&from=SAFARICOM&text=x", FORM, "SAFARICOM", "x"),
    "strange date": (b"id=%s&from=22333&text=x&date=yesterday+at+noon", FORM, "22333", "x"),
    "emoji": (b"id=%s&from=1&text=%%F0%%9F%%98%%80", FORM, "1", "\U0001f600"),
    "raw UTF-8": ("id=%s&from=1&text=Ĝis la 😀".encode(), FORM, "1", "Ĝis la 😀"),
    "invalid UTF-8": (b"id=%s&from=1&text=a%%FF%%FEb", FORM, "1", "a\ufffd\ufffdb"),
    "NUL": (b"id=%s&from=1&text=a%%00b", FORM, "1", "a\0b"),
    "lone surrogate in JSON": (b'{"id":"%s","from":"1","text":"a\\ud83db"}', "application/json", "1", "a\ufffdb"),
    "JSON without a content type": (b'{"id":"%s","from":254711000111,"text":null}', "", "+254711000111", ""),
    "a field twice": (b"id=%s&from=1&text=first&text=second", FORM, "1", "first"),
    "Latin-1 content type": (b"id=%s&from=1&text=%%C3%%A9", FORM + "; charset=iso-8859-1", "1", "é"),
    "ten thousand characters": (b"id=%s&from=1&text=" + b"x" * 10_000, FORM, "1", "x" * 10_000),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_input_is_stored(api: Process, couch: Couch, name: str) -> None:
    body, content_type, sender, text = ODD[name]
    message_id = new_id()
    headers = {"Content-Type": content_type} if content_type else {}
    answer = post(api, INCOMING, body % message_id.encode(), headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"saved": 1})
    doc = stored(couch, message_id)
    assert doc is not None
    assert (doc["from"], doc["sms_message"]["message"]) == (sender, text)  # type: ignore[index]


def test_multipart_is_taken_like_a_form(api: Process, couch: Couch) -> None:
    message_id = new_id()
    fields = {name: (None, value) for name, value in message(message_id, text="über").items()}
    assert post(api, INCOMING, None, files=fields).json() == {"saved": 1}
    assert stored(couch, message_id)["sms_message"]["message"] == "über"  # type: ignore[index]


@pytest.mark.parametrize("message_id", ["a/b?c#d%e", " spaced ", "None", "x" * 3_000, "ünïcode-😀", "_underscore"])
def test_any_id_is_one_document(api: Process, message_id: str) -> None:
    unique = message_id + uuid.uuid4().hex
    assert [post(api, INCOMING, message(unique)).json() for _ in range(2)] == [{"saved": 1}, {"saved": 0}]


@pytest.mark.parametrize(
    ("path", "form", "field"),
    [
        (INCOMING, {"from": "+254711000111", "text": "x"}, "id"),
        (INCOMING, {"id": "1", "text": "x"}, "from"),
        (INCOMING, {"id": "", "from": "1"}, "id"),
        (REPORTS, {"id": "1"}, "status"),
        (REPORTS, {"status": "Success"}, "id"),
        (INCOMING, b"[1]", "id"),
        (INCOMING, b"{not JSON", "body"),
        (INCOMING, b"{" + b'"a":{' * 5_000, "body"),
    ],
)
def test_what_cannot_be_stored_is_named(api: Process, path: str, form: object, field: str) -> None:
    answer = post(api, path, form)
    assert answer.status_code == 400
    assert answer.json()["field"] == field
    assert answer.json()["expected"]


def test_too_large(api: Process) -> None:
    assert post(api, INCOMING, message(new_id(), text="x" * 65_536)).status_code == 413
    chunks = (b"x" * 1024 for _ in range(100))
    answer = post(api, INCOMING, chunks)
    assert (answer.status_code, answer.json()["error"]) == (413, "too_large")


@pytest.mark.parametrize("status", ["Success", "Sent", "Rejected", "SomethingNew", "Zugestellt ✓"])
def test_delivery_reports_wait_for_the_sentinel(api: Process, couch: Couch, status: str) -> None:
    ref = new_id()
    form = {"id": ref, "status": status, "phoneNumber": "+254711000111", "networkCode": "63902"}
    assert post(api, REPORTS, form).json() == {"saved": 1}
    assert post(api, REPORTS, form).json() == {"saved": 0}
    doc = couch.callbacks.get(f"report:africas-talking:{ref}:{quote(status, safe='')}")
    assert doc is not None
    assert (doc["gateway_ref"], doc["status"], doc["phone"]) == (ref, status, "+254711000111")


def test_notices(api: Process, couch: Couch) -> None:
    phone = f"+2547{uuid.uuid4().int % 10**8:08d}"
    opt_out = {"senderId": "CLINIC", "phoneNumber": phone}
    assert post(api, "/api/v1/sms/africastalking/opt-out", opt_out).json() == {"saved": 1}
    subscription = {"phoneNumber": phone, "shortCode": "22333", "keyword": "k", "updateType": "Addition"}
    assert post(api, "/api/v1/sms/africastalking/subscription", subscription).json() == {"saved": 1}
    left = {**subscription, "updateType": "Deletion"}
    again = [post(api, "/api/v1/sms/africastalking/subscription", form).json() for form in (left, subscription)]
    assert again == [{"saved": 1}] * 2, "joined again before anybody saw to it that they had joined and left"
    subscription["updateType"] = "sideways"
    assert post(api, "/api/v1/sms/africastalking/subscription", subscription).json() == {"saved": 0}


def test_paths_and_methods(api: Process) -> None:
    assert post(api, INCOMING + "/", message(new_id())).json() == {"saved": 1}
    for method in ("GET", "PUT", "DELETE", "HEAD"):
        answer = requests.request(method, api.url + INCOMING, params={"key": KEY}, timeout=30)
        assert answer.status_code == 405
        assert "POST" in answer.headers["Allow"]
    unknown = post(api, "/api/v1/sms/nobody/incoming-messages", {})
    assert (unknown.status_code, unknown.json()["error"]) == (404, "not_found")
    assert requests.options(api.url + INCOMING, timeout=30).headers["Allow"]


def test_the_log_has_each_request_and_no_key(api: Process) -> None:
    post(api, INCOMING, message(new_id()), key="a-wrong-key-for-the-log")
    eventually(lambda: "callback refused" in api.log())
    for secret in (KEY, OTHER_KEY, "a-wrong-key-for-the-log", "key=", "HELP", "+254711000111"):
        assert secret not in api.log()


def test_couchdb_away_and_back(
    start_store: StartStore, start_api: StartApi, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("outage")
    store = start_store(data)
    url = store.url.replace("://", "://admin:a-test-password@") + "/medic"
    other = start_api(url)
    auth = ("admin", "a-test-password")
    path = f"{other.url}/api/v1/credentials/africastalking.com:incoming"
    requests.put(path, auth=auth, data=KEY, timeout=30).raise_for_status()
    message_id = new_id()
    assert post(other, INCOMING, message(message_id)).json() == {"saved": 1}
    store.stop()
    spooled = [new_id() for _ in range(5)]
    for spooled_id in spooled:
        assert post(other, INCOMING, message(spooled_id)).json() == {"saved": 1}
    assert post(other, INCOMING, message(spooled[0])).json() == {"saved": 0}
    assert post(other, INCOMING, message(new_id()), key="wrong").status_code == 403
    assert requests.get(f"{other.url}/healthz", timeout=30).status_code == 200
    assert requests.get(f"{other.url}/api/v1/settings", auth=("new", "login"), timeout=30).status_code == 503
    ready = requests.get(f"{other.url}/readyz", timeout=30)
    assert ready.status_code == 503
    said = {check["name"]: check for check in ready.json()["checks"]}
    assert not said["couchdb"]["ok"]
    assert said["spool"]["says"].startswith("5 documents wait in the spool")
    assert requests.get(f"{other.url}/api/v2/monitoring", timeout=30).json()["sentinel"] == {"backlog": -1}
    start_store(data, store.port)
    main = Couch(url).main
    ids = [documents.incoming_id("africas-talking", spooled_id) for spooled_id in spooled]
    eventually(lambda: len(main.fetch(ids)) == len(ids))
    # What comes before the spool is empty goes behind what waits there, and counts as new.
    eventually(lambda: "Nothing waits in the spool" in requests.get(f"{other.url}/readyz", timeout=30).text)
    assert post(other, INCOMING, message(new_id())).json() == {"saved": 1}
    assert post(other, INCOMING, message(message_id)).json() == {"saved": 0}
    received = [doc["reported_date"] for doc in main.fetch(ids).values()]
    assert received == sorted(received)
    assert "Traceback" not in other.log()


def test_started_while_couchdb_is_away(
    start_store: StartStore, start_api: StartApi, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = tmp_path_factory.mktemp("late")
    store = start_store(data)
    store.stop()
    url = store.url.replace("://", "://admin:a-test-password@") + "/medic"
    other = start_api(url, MJUMBE_DATA=str(data))  # a machine's first start: it knows of no key
    assert post(other, INCOMING, message(new_id())).status_code == 503
    start_store(data, store.port)
    eventually(lambda: post(other, INCOMING, message(new_id())).status_code == 403)
    eventually(lambda: '"CouchDB is ready"' in other.log())
    assert "Traceback" not in other.log()
