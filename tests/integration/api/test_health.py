"""Health, monitoring, metrics and the API's description."""

from datetime import timedelta
from typing import Any

import pytest
import requests

from mjumbe import documents, states
from mjumbe.couch import Couch
from mjumbe.states import State
from mjumbe.status import CHECKPOINT_ID, LEADER_ID
from tests.integration.processes import Process, eventually

Login = tuple[str, str]


def get(api: Process, path: str) -> requests.Response:
    return requests.get(api.url + path, timeout=30)


def checks(api: Process) -> dict[str, tuple[bool, str]]:
    answer = get(api, "/readyz")
    body = answer.json()
    assert answer.status_code == (200 if body["ready"] else 503)
    assert body["ready"] == all(check["ok"] for check in body["checks"])
    return {check["name"]: (check["ok"], check["says"]) for check in body["checks"]}


def lead(couch: Couch, *, age: float = 0.0, released: bool = False, services: dict[str, Any] | None = None) -> None:
    """Say what a leading sentinel would say."""
    present = couch.sentinel.get(LEADER_ID) or {"_id": LEADER_ID}
    heartbeat = states.timestamp(states.now() - timedelta(seconds=age))
    couch.sentinel.put(
        {**present, "owner": {}, "heartbeat": heartbeat, "released": released, "services": services or {}}
    )


def test_alive_and_info(api: Process) -> None:
    assert get(api, "/healthz").json() == {"ok": True}
    info = get(api, "/api/info").json()
    assert info["name"] == "mjumbe"
    assert info["version"] and info["couchdb"]


def test_ready_says_what_is_missing_until_nothing_is(api: Process, couch: Couch, admin: Login) -> None:
    first = checks(api)
    assert {name for name, (ok, _) in first.items() if not ok} == {"sentinel", "service"}
    assert first["sentinel"][1] == "No sentinel has run yet; start one with `mjumbe sentinel`."
    assert "/api/v1/credentials/africastalking.com:outgoing" in first["service"][1]
    lead(couch)
    url = f"{api.url}/api/v1/credentials/africastalking.com:outgoing"
    requests.put(url, auth=admin, data="outgoing-key", timeout=30).raise_for_status()
    assert {name: ok for name, (ok, _) in checks(api).items()} == dict.fromkeys(
        ("couchdb", "spool", "views", "vault", "sentinel", "service", "settings"), True
    )
    assert get(api, "/readyz").status_code == 200


def test_a_silent_and_a_stopped_sentinel(api: Process, couch: Couch) -> None:
    lead(couch, age=31)
    ok, says = checks(api)["sentinel"]
    assert not ok and "last heartbeat was at" in says
    lead(couch, released=True)
    ok, says = checks(api)["sentinel"]
    assert not ok and "stopped at" in says
    lead(couch)
    assert checks(api)["sentinel"][0]


def test_a_held_service_is_said_with_its_reason(api: Process, couch: Couch, admin: Login) -> None:
    url = f"{api.url}/api/v1/credentials/africastalking.com:outgoing"
    requests.put(url, auth=admin, data="outgoing-key", timeout=30).raise_for_status()
    held = {"held": True, "reason": "InsufficientBalance", "since": "2026-01-31T08:30:00.000Z"}
    lead(couch, services={"africas-talking": held})
    ok, says = checks(api)["service"]
    assert not ok
    reason = (
        "The service africas-talking is held since 2026-01-31T08:30:00.000Z: InsufficientBalance; "
        "`mjumbe gateways test africas-talking NUMBER` sends a message by it, which frees it when it works."
    )
    assert says == f"No active SMS service. {reason}"
    assert 'mjumbe_service_held{service="africas-talking"} 1.0' in get(api, "/metrics").text
    lead(couch, services={"africas-talking": {"held": False}})
    assert checks(api)["service"][0]


def test_a_service_that_is_switched_off_keeps_nobody_from_being_ready(api: Process, couch: Couch, admin: Login) -> None:
    url = f"{api.url}/api/v1/credentials/africastalking.com:outgoing"
    requests.put(url, auth=admin, data="outgoing-key", timeout=30).raise_for_status()
    lead(couch)
    for sms, says in [
        (
            {"fallback_services": ["textbee"], "textbee": {"enabled": False}},
            "The service africas-talking is configured. "
            "The service textbee is not used: it is switched off by sms.textbee.enabled.",
        ),
        ({"fallback_services": [], "textbee": {"enabled": True}}, "The service africas-talking is configured."),
    ]:
        requests.put(f"{api.url}/api/v1/settings", auth=admin, json={"sms": sms}, timeout=30).raise_for_status()
        eventually(lambda says=says: checks(api)["service"] == (True, says))  # type: ignore[misc]


def test_a_credential_that_no_key_opens_is_said(api: Process, couch: Couch) -> None:
    couch.vault.put({"_id": "credential:broken", "secret": "gAAAAAB"})
    ok, says = checks(api)["vault"]
    assert not ok and "broken" in says
    doc = couch.vault.get("credential:broken")
    assert doc
    couch.vault.delete(doc["_id"], doc["_rev"])
    assert checks(api)["vault"][0]


STATES = {
    "due": ("pending", "forwarded-to-gateway", "received-by-gateway", "forwarded-by-gateway"),
    "scheduled": ("scheduled",),
    "muted": ("denied", "muted", "cleared", "duplicate"),
    "failed": ("failed",),
    "delivered": ("sent", "delivered"),
}


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_monitoring(api: Process, couch: Couch, version: str) -> None:
    before = get(api, f"/api/{version}/monitoring").json()
    now = states.now()
    for names in STATES.values():
        for state in names:
            for due in (now - timedelta(days=6.9), now - timedelta(days=7.1), now + timedelta(days=1)):
                task = documents.new_task("+254711000111", "x", due, due=due)
                states.move(task, State(state), now)
                task["state"] = state
                couch.main.put(documents.outgoing_document(task, now, None))
    body = get(api, f"/api/{version}/monitoring").json()
    for shape, factor in (("state", 3), ("total", 3), ("seven_days", 1)):
        had, has = before["messaging"]["outgoing"][shape], body["messaging"]["outgoing"][shape]
        assert {name: has[name] - had[name] for name in has} == {
            name: factor * len(names) for name, names in STATES.items()
        }
    hundred = body["messaging"]["outgoing"]["last_hundred"]
    assert set(hundred) == {"pending", "final", "muted"}
    assert hundred["final"]["delivered"] >= 2
    assert body["couchdb"]["medic"]["name"] == couch.main.name
    assert body["couchdb"]["medic"]["doc_count"] == couch.main.info()["doc_count"]
    assert body["couchdb"]["medic"]["update_sequence"] > 0
    assert body["version"]["couchdb"] and body["version"]["app"]
    assert body["date"]["current"] > 1_700_000_000_000
    assert body["date"]["uptime"] > 0


def test_of_each_group_the_last_hundred_are_counted(api: Process, couch: Couch) -> None:
    now = states.now()
    docs = [documents.outgoing_document(documents.new_task("+254711000111", "x", now), now, None) for _ in range(101)]
    for doc in docs:
        states.move(doc["tasks"][0], State.FAILED, now + timedelta(seconds=1))
    assert all(saved.rev for saved in couch.main.bulk(docs))
    hundred = get(api, "/api/v2/monitoring").json()["messaging"]["outgoing"]["last_hundred"]
    assert hundred["final"] == {"sent": 0, "delivered": 0, "failed": 100}


def test_backlog(api: Process, couch: Couch) -> None:
    def backlog() -> int:
        return int(get(api, "/api/v2/monitoring").json()["sentinel"]["backlog"])

    checkpoint = couch.sentinel.get(CHECKPOINT_ID)
    assert checkpoint
    checkpoint["seq"] = couch.main.info()["update_seq"]
    couch.sentinel.put(checkpoint)
    assert backlog() == 0
    for _ in range(3):
        couch.main.put(documents.outgoing_document(documents.new_task("1", "x", states.now()), states.now(), None))
    assert backlog() == 3


def test_metrics(api: Process) -> None:
    get(api, "/nothing/here")
    answer = get(api, "/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'mjumbe_http_requests_total{method="any",route="none",status="404"}' in answer.text
    assert "mjumbe_couchdb_up 1.0" in answer.text
    assert "mjumbe_intake_batch_documents_bucket" in answer.text


def test_the_description_and_its_page(api: Process) -> None:
    spec = get(api, "/api/openapi.json").json()
    assert spec["openapi"] == "3.1.0"
    assert "/api/v1/sms/africastalking/incoming-messages" in spec["paths"]
    page = get(api, "/api/docs")
    assert page.headers["Content-Type"].startswith("text/html")
    for path in spec["paths"]:
        assert path in page.text
    assert "http://" not in page.text and "https://" not in page.text and "<script" not in page.text
    style = get(api, "/api/static/docs.css")
    assert style.status_code == 200
    assert style.headers["Content-Type"].startswith("text/css")


def test_security_headers_and_errors(api: Process) -> None:
    for path in ("/healthz", "/api/docs", "/nothing", "/api/v1/settings"):
        headers = requests.get(f"{api.url}{path}", headers={"X-Forwarded-Proto": "https"}, timeout=30).headers
        assert "Strict-Transport-Security" not in headers, "no proxy is trusted, the one on this machine neither"
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["X-Frame-Options"] == "DENY"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Referrer-Policy"] == "no-referrer"
        assert headers["Cache-Control"] == "no-store"
    answer = get(api, "/nothing")
    assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    head = requests.head(f"{api.url}/healthz", timeout=30)
    assert (head.status_code, head.content) == (200, b"")
