"""Logins from inside: what takes time from outside, and what another server or an older one has stored."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request

from embedded import auth
from embedded.auth import Authenticator, User
from embedded.engine import edits
from embedded.engine.edits import Edit
from embedded.engine.store import Store
from embedded.errors import CouchError
from embedded.http import Service
from embedded.server import handle

ADMIN = User("admin", ("_admin",), "cookie")
NOBODY = User()
Session = Callable[[Authenticator, Store], Coroutine[Any, Any, None]]


class Clock:
    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def time(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(auth, "time", clock)
    monkeypatch.setattr(auth, "ITERATIONS", 2)
    return clock


def run(folder: Path, session: Session, admin: str = "admin:pw") -> None:
    async def all_of_it() -> None:
        store = Store(folder)
        try:
            await session(Authenticator(store, admin), store)
        finally:
            await store.close()

    asyncio.run(all_of_it())


def request_with(cookie: str) -> Any:
    return make_mocked_request("GET", "/", headers={"Cookie": cookie})


@pytest.mark.parametrize(
    ("timeout", "seconds", "user", "is_renewed"),
    [
        (None, 0, ADMIN, False),
        (None, 59, ADMIN, False),
        (None, 61, ADMIN, True),
        (None, 599, ADMIN, True),
        (None, 600, NOBODY, False),
        ("10", 0.5, ADMIN, False),
        ("10", 2, ADMIN, True),
        ("10", 10, NOBODY, False),
    ],
)
def test_how_long_a_session_lasts(
    timeout: str | None, seconds: float, user: User, is_renewed: bool, clock: Clock, tmp_path: Path
) -> None:
    async def session(logins: Authenticator, store: Store) -> None:
        if timeout:
            store.config.put("chttpd_auth", "timeout", timeout)
        header = logins.cookie_header("admin")
        assert f"Max-Age={timeout or 600};" in header
        clock.now += seconds
        request = request_with(header)
        found = await logins.identify(request)
        assert found == user
        renewed = logins.renewal(request, found)
        assert bool(renewed) == is_renewed
        if renewed:
            clock.now += int(timeout or 600) - 1
            assert await logins.identify(request_with(renewed)) == ADMIN

    run(tmp_path, session)


def test_a_session_is_renewed_with_any_answer_but_its_own_end(clock: Clock, tmp_path: Path) -> None:
    async def session(logins: Authenticator, store: Store) -> None:
        service, cookie = Service(store, logins), logins.cookie_header("admin")

        async def set_cookie(method: str, path: str) -> str | None:
            answer = await handle(service, make_mocked_request(method, path, headers={"Cookie": cookie}))
            return answer.headers.get("Set-Cookie")

        assert await set_cookie("GET", "/_all_dbs") is None
        clock.now += 100
        for path in ("/_all_dbs", "/none"):
            assert await set_cookie("GET", path) == logins.cookie_header("admin") != cookie
        assert await set_cookie("DELETE", "/_session") == Authenticator.no_cookie_header()

    run(tmp_path, session)


def test_a_session_that_came_with_a_password_is_not_renewed(clock: Clock, tmp_path: Path) -> None:
    async def session(logins: Authenticator, store: Store) -> None:
        request = request_with(logins.cookie_header("admin"))
        clock.now += 100
        assert logins.renewal(request, User("admin", ("_admin",), "default")) is None
        assert logins.renewal(request, NOBODY) is None

    run(tmp_path, session)


def test_a_name_with_colons_has_a_session(clock: Clock, tmp_path: Path) -> None:
    async def session(logins: Authenticator, store: Store) -> None:
        store.config.put("admins", "a:b", Authenticator.hash_admin("pw"))
        assert await logins.identify(request_with(logins.cookie_header("a:b"))) == User("a:b", ("_admin",), "cookie")

    run(tmp_path, session)


async def _log_in(logins: Authenticator, name: str, password: str) -> tuple[str, ...] | int:
    """The roles, or the status that refuses."""
    try:
        return (await logins.log_in(name, password, "default")).roles
    except CouchError as error:
        return error.status


def test_an_admin_as_older_servers_hashed_them(clock: Clock, tmp_path: Path) -> None:
    """CouchDB 3.3 and before: by SHA-1, and without its name."""
    derived = hashlib.pbkdf2_hmac("sha1", b"pw", b"salt", 10).hex()

    async def session(logins: Authenticator, store: Store) -> None:
        store.config.put("admins", "old", f"-pbkdf2-{derived},salt,10")
        assert await _log_in(logins, "old", "pw") == ("_admin",)
        assert await _log_in(logins, "old", "px") == 401

    run(tmp_path, session)


HASHED = {"derived_key": hashlib.pbkdf2_hmac("sha1", b"pw", b"salt", 10).hex(), "salt": "salt", "iterations": 10}


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"password_scheme": "pbkdf2", **HASHED}, ("sms",)),
        ({"password_scheme": "simple", **HASHED}, 401),
        (HASHED, 401),
        *(({"password_scheme": "pbkdf2", **HASHED, missing: None}, 401) for missing in HASHED),
    ],
)
def test_users_as_other_servers_stored_them(
    stored: dict[str, Any], expected: object, clock: Clock, tmp_path: Path
) -> None:
    document = {"name": "u", "type": "user", "roles": ["sms"], **stored}
    body = json.dumps({name: value for name, value in document.items() if value is not None})

    async def session(logins: Authenticator, store: Store) -> None:
        users = store.database("_users")
        await users.write(lambda its: edits.write(its, Edit("org.couchdb.user:u", None, False, body)))
        assert await _log_in(logins, "u", "pw") == expected

    run(tmp_path, session)


def test_no_more_logins_are_remembered_than_a_bound(
    clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(auth, "_REMEMBERED", 3)

    async def session(logins: Authenticator, store: Store) -> None:
        for number in range(5):
            store.config.put("admins", f"a{number}", Authenticator.hash_admin("pw"))
            assert await _log_in(logins, f"a{number}", "pw") == ("_admin",)
        assert len(logins._verified) <= 3

    run(tmp_path, session)


@pytest.mark.parametrize("admin", ["admin", "admin:", ":pw", ":"])
def test_an_admin_needs_a_name_and_a_password(admin: str, clock: Clock, tmp_path: Path) -> None:
    async def session(logins: Authenticator, store: Store) -> None:
        raise AssertionError("it started")

    with pytest.raises(ValueError, match="name:password"):
        run(tmp_path, session, admin)
