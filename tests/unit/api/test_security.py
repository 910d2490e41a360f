"""What holds on every route: headers, who is asked for a login, sizes, whom we believe about addresses."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import pytest
import structlog.testing
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api import app as app_module
from api.app import create_app
from api.callbacks import CALLBACKS
from api.headers import SECURITY_HEADERS
from api.limiter import FAILURES_PER_MINUTE
from tests.unit.api.conftest import MemoryCouch

ADMIN = {"Authorization": "Basic YWRtaW46cHc="}
OPEN = {
    "/api/docs",
    "/api/info",
    "/api/openapi.json",
    "/api/static/<path:filename>",
    "/api/v1/monitoring",
    "/api/v2/monitoring",
    "/healthz",
    "/metrics",
    "/readyz",
    "/sms/",
}
SERVICES = {path for callbacks in CALLBACKS.values() for path in callbacks.paths()} | {
    f"/sms/{route}" for route in ("twoway", "delivery-reports", "opt-out", "subscription")
}
CALLBACK = "/api/v1/sms/africastalking/incoming-messages"


@pytest.fixture(autouse=True)
def unlogged() -> Iterator[None]:
    """Thousands of lines that nobody reads."""
    with structlog.testing.capture_logs():
        yield


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Every rule with a method of its own, and a path that it matches."""
    for rule in app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            path = "/".join("x" if part.startswith("<") else part for part in rule.rule.split("/"))
            yield rule.rule, method, path


def carries_all_headers(answer: TestResponse) -> bool:
    return all(answer.headers.get(name) == value for name, value in SECURITY_HEADERS.items())


def test_every_answer_of_every_route_carries_the_headers_and_no_cookie(app: Flask, client: FlaskClient) -> None:
    seen = set()
    for _, method, path in routes(app):
        for asked in (method, "HEAD", "OPTIONS", "DELETE", "PROPFIND"):
            for headers in ({}, ADMIN, {"Authorization": "Basic eDp5"}, {**ADMIN, "Sec-Fetch-Site": "cross-site"}):
                answer = client.open(path, method=asked, headers=headers, data=b"{")
                assert carries_all_headers(answer), (asked, path, answer.status)
                assert "Set-Cookie" not in answer.headers
                seen.add(answer.status_code)
    assert {200, 400, 401, 403, 404, 405, 415, 429} <= seen


def test_answers_of_routes_that_are_none_carry_them_too(client: FlaskClient) -> None:
    for path in ("/", "/nothing", "/api/v1/sms/nobody/incoming-messages", "/.env"):
        answer = client.get(path)
        assert (answer.status_code, carries_all_headers(answer)) == (404, True)
        assert answer.json
        assert answer.json["error"] == "not_found"


def test_every_route_fails_without_a_word_of_why(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("what nobody may see")

    for endpoint in app.view_functions:
        monkeypatch.setitem(app.view_functions, endpoint, fail)
    for _, method, path in routes(app):
        answer = client.open(path, method=method)
        assert (answer.status_code, carries_all_headers(answer)) == (500, True)
        assert answer.json
        assert set(answer.json) == {"error", "reason", "error_id"}
        assert b"nobody may see" not in answer.data
        assert b"KeyError" not in answer.data


def test_every_route_that_is_not_meant_for_everybody_asks_who_it_is(app: Flask, client: FlaskClient) -> None:
    asked = 0
    for rule, method, path in routes(app):
        if rule not in OPEN:
            answer = client.open(path, method=method, data=b"{}", content_type="application/json")
            assert answer.status_code in ((401, 403, 429) if rule in SERVICES else (401,)), (method, rule)
            asked += 1
    assert asked > 20


def test_no_route_takes_a_body_of_any_size(app: Flask, client: FlaskClient) -> None:
    body = b'"' + b"x" * (9 * 1024 * 1024) + b'"'
    for rule, method, path in routes(app):
        if method in ("POST", "PUT"):
            answer = client.open(path, method=method, data=body, headers=ADMIN, content_type="application/json")
            bodiless = "/gateways/" in rule  # refused for their path before, or there is nothing to say in a body
            assert answer.status_code in ((404, 413, 502) if bodiless else (413,)), (method, rule, answer.status)


@pytest.mark.parametrize("path", ["/readyz", "/api/v2/monitoring"])
def test_who_asks_while_couchdb_is_being_asked_is_told_to_come_again(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    """Anybody may ask, and while CouchDB hangs they would pile up."""
    monkeypatch.setattr("api.context.INSPECTION_WAIT", 0.0)
    with ThreadPoolExecutor(1) as threads, app.extensions[app_module.EXTENSION].inspection():
        answer = threads.submit(client.get, path).result(30)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")


# ---- proxies


def behind(proxies: int, memory: MemoryCouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FlaskClient:
    monkeypatch.setattr("mjumbe.setup.prepare", lambda couch: None)
    monkeypatch.setenv("COUCH_URL", "http://nobody.invalid/medic")
    monkeypatch.setenv("MJUMBE_DATA", str(tmp_path))
    monkeypatch.setenv("MJUMBE_VAULT_KEY", "a passphrase for tests")
    monkeypatch.setenv("MJUMBE_TRUSTED_PROXIES", str(proxies))
    return create_app(couch=cast(Any, memory)).test_client()


def wrong_keys(client: FlaskClient, forwarded: list[str]) -> list[int]:
    return [
        client.post(CALLBACK, query_string={"key": "wrong"}, headers={"X-Forwarded-For": value}).status_code
        for value in forwarded
    ]


@pytest.mark.parametrize(
    ("proxies", "forwarded", "last"),
    [
        # Without a trusted proxy the header is a stranger's own word, and makes nobody somebody else.
        (0, [f"10.0.0.{n}" for n in range(FAILURES_PER_MINUTE + 1)], 429),
        (0, ["" for _ in range(FAILURES_PER_MINUTE + 1)], 429),
        # With one the last entry counts, which the proxy wrote; what stands before it the stranger did.
        (1, [f"10.0.0.{n}, 192.0.2.1" for n in range(FAILURES_PER_MINUTE + 1)], 429),
        (1, [f"192.0.2.1, 10.0.0.{n}" for n in range(FAILURES_PER_MINUTE + 1)], 403),
        (1, [*["192.0.2.1"] * FAILURES_PER_MINUTE, "192.0.2.2"], 403),
        (2, [f"10.0.0.{n}, 192.0.2.1, 198.51.100.7" for n in range(FAILURES_PER_MINUTE + 1)], 429),
        # A proxy that wrote nothing: the connection's own address.
        (1, ["" for _ in range(FAILURES_PER_MINUTE + 1)], 429),
        (2, [f"10.0.0.{n}" for n in range(FAILURES_PER_MINUTE + 1)], 429),
        # Some proxies write the client's port too: another one is nobody else, another address is.
        (1, [f"192.0.2.1:{4711 + n}" for n in range(FAILURES_PER_MINUTE + 1)], 429),
        (1, [*["192.0.2.1:4711"] * FAILURES_PER_MINUTE, "192.0.2.2:4711"], 403),
        (1, [*["[2001:db8::1]:4711"] * FAILURES_PER_MINUTE, "[2001:db8:0:1::1]:4711"], 403),
    ],
)
def test_whom_a_failure_is_counted_for(
    memory: MemoryCouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxies: int, forwarded: list[str], last: int
) -> None:
    client = behind(proxies, memory, tmp_path, monkeypatch)
    client.application.extensions[app_module.EXTENSION].vault.set("africastalking.com:incoming", "the-key")
    *before, final = wrong_keys(client, forwarded)
    assert set(before) == {403}
    assert final == last


@pytest.mark.parametrize(
    ("proxies", "proto", "said"),
    [
        (0, "https", None),
        (1, "https", "max-age=31536000"),
        (1, "http", None),
        (2, "https", "max-age=31536000"),
        (2, "http", None),
        # What stands before the last a stranger may have written.
        (2, "https, http", None),
    ],
)
def test_tls_is_asked_for_where_a_trusted_proxy_says_that_it_is_there(
    memory: MemoryCouch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, proxies: int, proto: str, said: str | None
) -> None:
    client = behind(proxies, memory, tmp_path, monkeypatch)
    headers = {
        "X-Forwarded-Proto": proto,
        "X-Forwarded-For": "203.0.113.9, 192.0.2.1",
        "X-Forwarded-Host": "evil.example, evil.example",
    }
    assert client.get("/healthz", headers=headers).headers.get("Strict-Transport-Security") == said
    assert client.get("/healthz").headers.get("Strict-Transport-Security") is None
    assert b"evil.example" not in client.get("/api/openapi.json", headers=headers).data
    foreign = {**headers, **ADMIN, "Origin": "http://evil.example"}
    assert client.post("/api/v1/messages", json={}, headers=foreign).status_code == 403
