"""Who may do what: Basic, cookies, `_users`, `_security`."""

from __future__ import annotations

import base64
import re
import time
import uuid

import pytest
import requests

from tests.contract.conftest import Client

UNAUTHORIZED = {"error": "unauthorized", "reason": "You are not authorized to access this db."}
FORBIDDEN = {"error": "forbidden", "reason": "You are not allowed to access this db."}
WRONG = {"error": "unauthorized", "reason": "Name or password is incorrect."}
NOT_ADMIN = {"error": "unauthorized", "reason": "You are not a server admin."}


def test_session_of_nobody(anonymous):
    body = anonymous.get("/_session").json()
    assert body["ok"] is True
    assert body["userCtx"] == {"name": None, "roles": []}
    assert {"cookie", "default"} <= set(body["info"]["authentication_handlers"])
    assert "authenticated" not in body["info"]
    asked = anonymous.get("/_session?basic=true")
    assert (asked.status_code, asked.json()["error"]) == (401, "unauthorized"), "so that a browser asks for a password"


def test_session_with_basic(server):
    body = requests.get(f"{server.url}/_session", auth=(server.user, server.password), timeout=60).json()
    assert body["userCtx"] == {"name": server.user, "roles": ["_admin"]}
    assert body["info"]["authenticated"] == "default"


@pytest.mark.parametrize("form", [True, False])
def test_cookie(server, form):
    credentials = {"name": server.user, "password": server.password}
    with requests.Session() as session:
        options = {"data": credentials} if form else {"json": credentials}
        answer = session.post(f"{server.url}/_session", timeout=60, **options)
        assert answer.status_code == 200
        assert answer.json()["ok"] is True
        assert answer.json()["roles"] == ["_admin"]
        cookie = answer.headers["Set-Cookie"]
        assert cookie.startswith("AuthSession=")
        assert "HttpOnly" in cookie
        assert re.search(r"Max-Age=\d+", cookie)
        body = session.get(f"{server.url}/_session", timeout=60).json()
        assert body["userCtx"]["name"] == server.user
        assert body["info"]["authenticated"] == "cookie"
        assert session.get(f"{server.url}/_all_dbs", timeout=60).status_code == 200
        out = session.delete(f"{server.url}/_session", timeout=60)
        assert out.json() == {"ok": True}
        assert session.get(f"{server.url}/_session", timeout=60).json()["userCtx"]["name"] is None


def test_wrong_password(server, anonymous, new_user):
    """Never with the admin's name: after five wrong passwords CouchDB locks a name out (`chttpd_auth_lockout`)."""
    somebody, nobody = new_user()[0], f"contract-{uuid.uuid4().hex[:12]}"
    for name in (somebody, nobody):
        wrong = requests.get(f"{server.url}/_session", auth=(name, "wrong"), timeout=60)
        assert (wrong.status_code, wrong.json()) == (401, WRONG)
        answer = anonymous.post("/_session", {"name": name, "password": "wrong"})
        assert (answer.status_code, answer.json()) == (401, WRONG)
        assert answer.headers["Set-Cookie"].startswith("AuthSession=;"), "and no session goes on"
    for body in ({}, {"password": "wrong"}):
        assert anonymous.post("/_session", body).status_code == 400


def test_cookies_that_nobody_gave(anonymous):
    malformed = anonymous.get("/_session", headers={"Cookie": "AuthSession=nonsense"})
    assert malformed.status_code in (200, 400)
    forged = anonymous.get(
        "/_session", headers={"Cookie": "AuthSession=YWRtaW46NUYwMDAwMDA6AAAAAAAAAAAAAAAAAAAAAAAAAAA"}
    )
    assert forged.status_code in (200, 400)
    if forged.status_code == 200:
        assert forged.json()["userCtx"]["name"] is None


@pytest.mark.parametrize("signature", [bytes(32), bytes(20)])
def test_a_cookie_that_nobody_signed_is_nobody_s(server, anonymous, signature):
    raw = f"{server.user}:{int(time.time()):X}:".encode() + signature
    cookie = base64.urlsafe_b64encode(raw).decode().rstrip("=")
    answer = anonymous.get("/_session", headers={"Cookie": f"AuthSession={cookie}"})
    # One whose signature the embedded store takes for a part of the name, it refuses.
    assert answer.status_code == 400 or answer.json()["userCtx"] == {"name": None, "roles": []}
    assert anonymous.get("/_all_dbs", headers={"Cookie": f"AuthSession={cookie}"}).status_code in (400, 401)


def test_a_cookie_is_of_one_name_alone(server, anonymous, new_user):
    name, password = new_user()
    cookie = anonymous.post("/_session", {"name": name, "password": password}).cookies["AuthSession"]
    raw = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
    raised = base64.urlsafe_b64encode(raw.replace(name.encode(), server.user.encode())).decode().rstrip("=")
    with requests.Session() as session:  # without the cookie that the client has kept
        answer = session.get(f"{server.url}/_session", headers={"Cookie": f"AuthSession={raised}"}, timeout=60)
    assert (answer.status_code, answer.json()["userCtx"]["name"]) == (200, None)


def test_users_have_hashed_passwords(couch, new_user):
    name, password = new_user("gateway")
    document = couch.get(f"/_users/org.couchdb.user:{name}").json()
    assert "password" not in document
    assert password not in str(document)
    assert document["password_scheme"] == "pbkdf2"
    assert document["roles"] == ["gateway"]
    assert re.fullmatch("[0-9a-f]{40,}", document["derived_key"])
    assert document["iterations"] > 0
    assert document["salt"]
    another = couch.get(f"/_users/org.couchdb.user:{new_user()[0]}").json()  # with the same password
    assert another["salt"] != document["salt"]
    assert another["derived_key"] != document["derived_key"]


def test_user_logs_in(server, new_user, anonymous):
    name, password = new_user("gateway", "sms")
    answer = anonymous.post("/_session", {"name": name, "password": password})
    assert answer.json() == {"ok": True, "name": name, "roles": ["gateway", "sms"]}
    basic = requests.get(f"{server.url}/_session", auth=(name.encode(), password.encode()), timeout=60)
    assert basic.json()["userCtx"] == {"name": name, "roles": ["gateway", "sms"]}
    by_another_word = anonymous.post("/_session", {"username": name, "password": password})
    assert by_another_word.json()["name"] == name


def test_a_new_password_ends_the_old_one_and_its_sessions(server, couch, anonymous, new_user):
    name, old = new_user()
    assert requests.get(f"{server.url}/_session", auth=(name, old.encode()), timeout=60).status_code == 200
    cookie = anonymous.post("/_session", {"name": name, "password": old}).cookies["AuthSession"]
    document = couch.get(f"/_users/org.couchdb.user:{name}").json()
    assert couch.put(f"/_users/org.couchdb.user:{name}", document | {"password": "new"}).status_code in (201, 202)
    somebody = Client(server.url)
    of_session = somebody.eventually(
        "/_session", lambda answer: not answer.json()["userCtx"]["name"], headers={"Cookie": f"AuthSession={cookie}"}
    )
    assert of_session.json()["userCtx"]["name"] is None
    assert requests.get(f"{server.url}/_session", auth=(name, "new"), timeout=60).status_code == 200
    assert requests.get(f"{server.url}/_session", auth=(name, old.encode()), timeout=60).status_code == 401


@pytest.mark.parametrize("keeps_its_fields", [True, False])
def test_a_deleted_user_is_nobody(server, couch, new_user, keeps_its_fields):
    name, password = new_user()
    path, login = f"/_users/org.couchdb.user:{name}", (name, password.encode())
    document = couch.get(path).json()
    if keeps_its_fields:
        assert couch.put(path, document | {"_deleted": True}).ok
    else:
        assert couch.delete(path, params={"rev": document["_rev"]}).ok
    answer = Client(server.url).eventually("/_session", lambda answer: answer.status_code == 401, auth=login)
    assert (answer.status_code, answer.json()) == (401, WRONG)


def test_an_admin_of_the_configuration(server, couch):
    name = f"contract-{uuid.uuid4().hex[:12]}"
    path = f"/_node/_local/_config/admins/{name}"
    assert couch.put(path, "secret").status_code == 200
    try:
        kept = couch.eventually(path, lambda answer: answer.json().startswith("-pbkdf2")).json()
        assert kept.startswith("-pbkdf2") and "secret" not in kept
        answer = Client(server.url).eventually("/_session", lambda answer: answer.ok, auth=(name, "secret"))
        assert answer.json()["userCtx"] == {"name": name, "roles": ["_admin"]}
        assert name in couch.get("/_node/_local/_config").json()["admins"]
        # Hashed already, it is kept as it is: an admin of another server moves without their password.
        assert couch.put(path, kept).json() == kept
        assert couch.get(path).json() == kept
        assert requests.get(f"{server.url}/_session", auth=(name, "wrong"), timeout=60).status_code == 401
    finally:
        couch.delete(path)
    gone = Client(server.url).eventually("/_session", lambda answer: answer.status_code == 401, auth=(name, "secret"))
    assert (gone.status_code, gone.json()) == (401, WRONG)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"type": "other"}, "doc.type must be user"),
        ({"name": None}, "doc.name is required"),
        ({"roles": None}, None),
        ({"roles": "admin"}, None),
        ({"roles": ["sms", 1]}, "doc.roles can only contain strings"),
        ({"password": 5}, None),
        ({"name": "other"}, None),
        ({"roles": ["_admin"]}, None),
    ],
)
def test_user_documents_that_are_refused(couch, users, change, reason):
    name = f"contract-{uuid.uuid4().hex[:12]}"
    document = {"name": name, "password": "p", "roles": [], "type": "user"} | change
    answer = couch.put(f"/_users/org.couchdb.user:{name}", document)
    assert (answer.status_code, answer.json()["error"]) == (403, "forbidden")
    if reason:
        assert answer.json()["reason"] == reason


def test_only_admins_list_users(new_user, server):
    credentials = tuple(part.encode() for part in new_user())
    for path in ("/_users/_all_docs", "/_users/_changes"):
        assert requests.get(f"{server.url}{path}", timeout=60).status_code == 401
        assert requests.get(f"{server.url}{path}", auth=credentials, timeout=60).status_code in (401, 403)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/a"),
        ("PUT", "/a"),
        ("POST", ""),
        ("GET", "/_all_docs"),
        ("GET", "/_changes"),
        ("GET", "/_security"),
    ],
)
def test_a_new_database_is_for_admins(db, as_user, new_user, method, path):
    body = {} if method in ("PUT", "POST") else None
    nobody = as_user(db, None)(method, path, json=body)
    assert (nobody.status_code, nobody.json()) == (401, UNAUTHORIZED)
    somebody = as_user(db, new_user("gateway"))(method, path, json=body)
    assert (somebody.status_code, somebody.json()) == (403, FORBIDDEN)


def test_what_only_looks_like_one_s_own_document_is_for_members(db, as_user, new_user):
    user = new_user()
    path = f"/org.couchdb.user:{user[0]}"
    db.save({"_id": path[1:]})
    answer = as_user(db, user).get(path)
    assert (answer.status_code, answer.json()) == (403, FORBIDDEN)


def test_members_by_name_and_by_role(db, as_user, new_user):
    by_name, by_role, other = new_user(), new_user("sms"), new_user("else")
    db.put(
        "/_security",
        {"members": {"names": [by_name[0]], "roles": ["sms"]}, "admins": {"names": [], "roles": ["_admin"]}},
    )
    db.save({"_id": "a"})
    for member in (by_name, by_role):
        seen = as_user(db, member)
        assert seen.get("/a").status_code == 200
        assert seen.put(f"/{member[0]}", {}).status_code in (201, 202)
        assert seen.get("/_security").status_code == 200
        refused = seen.put("/_design/d", {"views": {}})
        assert (refused.status_code, refused.json()["error"]) == (403, "forbidden")
        before = db.get("/_security").json()
        assert seen.put("/_security", {}).status_code >= 400
        assert db.get("/_security").json() == before
    assert as_user(db, other).get("/a").status_code == 403
    assert as_user(db, None).get("/a").status_code == 401


@pytest.mark.parametrize("kind", ["names", "roles"])
def test_members_of_one_kind_close_a_database(db, as_user, new_user, kind):
    member = new_user("sms")
    listed = {"names": [member[0]], "roles": ["sms"]}[kind]
    db.put("/_security", {"members": {kind: listed}, "admins": {"roles": ["_admin"]}})
    db.save({"_id": "a"})
    assert as_user(db, member).get("/a").status_code == 200
    assert as_user(db, new_user("else")).get("/a").status_code == 403
    assert as_user(db, None).get("/a").status_code == 401


def test_admin_of_a_database(db, as_user, new_user):
    admin = new_user()
    db.put("/_security", {"members": {"names": [], "roles": ["_admin"]}, "admins": {"names": [admin[0]], "roles": []}})
    seen = as_user(db, admin)
    assert seen.put("/_design/d", {"views": {}}).status_code in (201, 202)
    security = seen.get("/_security").json()
    assert seen.put("/_security", security).status_code == 200


@pytest.mark.parametrize(
    "security",
    [{"members": {"names": [], "roles": []}, "admins": {"names": [], "roles": ["_admin"]}}, {"admins": {}}],
)
def test_a_database_without_members_is_open(db, as_user, security):
    db.put("/_security", security)
    seen = as_user(db, None)
    assert seen.put("/a", {"n": 1}).status_code in (201, 202)
    assert seen.get("/a").json()["n"] == 1
    refused = seen.put("/_design/d", {"views": {}})
    assert (refused.status_code, refused.json()["error"]) == (401, "unauthorized")


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/_all_dbs"),
        ("PUT", "/contract-not-to-be-made"),
        ("DELETE", "/_users"),
        ("GET", "/_node/_local/_config"),
        ("GET", "/_node/_local/_config/chttpd_auth/secret"),
        ("PUT", "/_node/_local/_config/contract/x"),
        ("GET", "/_membership"),
    ],
)
def test_for_server_admins(server, anonymous, new_user, method, path):
    credentials = tuple(part.encode() for part in new_user("gateway"))
    for answer in (
        anonymous(method, path, json="x" if "_config" in path else None),
        requests.request(method, server.url + path, auth=credentials, json="x", timeout=60),
    ):
        assert (answer.status_code, answer.json()) == (401, NOT_ADMIN)


def test_admins_are_shown_hashed(couch, server):
    admins = couch.get("/_node/_local/_config/admins").json()
    assert admins[server.user].startswith("-pbkdf2")
    assert server.password not in admins[server.user]


def test_the_secret_can_be_read(couch, server):
    # CouchDB makes itself a secret at the first login, when nobody gave it one.
    assert couch.post("/_session", {"name": server.user, "password": server.password}).status_code == 200
    answers = [couch.get(f"/_node/_local/_config/{section}/secret") for section in ("chttpd_auth", "couch_httpd_auth")]
    secrets = [answer.json() for answer in answers if answer.status_code == 200]
    assert secrets
    assert all(isinstance(secret, str) and secret for secret in secrets)
