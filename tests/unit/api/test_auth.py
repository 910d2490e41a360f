"""Logins: remembered for seconds, limited when wrong."""

import base64
import threading
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from api.auth import REMEMBERED_SECONDS, Users
from api.errors import ApiError
from api.limiter import FAILURES_PER_ADDRESS, MINUTE, FailureLimit, network
from mjumbe.couch import UnavailableError
from tests.unit.api.conftest import MemoryCouch
from tests.unit.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def users(memory: MemoryCouch, clock: Clock) -> Users:
    return Users(memory, FailureLimit(3), clock)  # type: ignore[arg-type]


def request(authorization: str | None = None, cookie: str | None = None, address: str = "10.0.0.1") -> Request:
    headers = {name: value for name, value in (("Authorization", authorization), ("Cookie", cookie)) if value}
    return Request(EnvironBuilder(headers=headers, environ_base={"REMOTE_ADDR": address}).get_environ())


def basic(text: str) -> str:
    return "Basic " + base64.b64encode(text.encode()).decode()


def refused(users: Users, asked: Request, roles: tuple[str, ...] = ()) -> ApiError:
    with pytest.raises(ApiError) as caught:
        users.require(asked, roles)
    return caught.value


def test_a_good_login_is_asked_once_in_ten_seconds(users: Users, memory: MemoryCouch, clock: Clock) -> None:
    for _ in range(3):
        assert users.require(request(basic("admin:pw"))).name == "admin"
    assert len(memory.logins) == 1
    clock.now += REMEMBERED_SECONDS
    users.require(request(basic("admin:pw")))
    assert len(memory.logins) == 2


def test_roles(users: Users) -> None:
    assert users.require(request(basic("p:p")), ("gateway",)).name == "p"
    assert refused(users, request(basic("p:p")), ("sms",)).status == 403
    assert "sms" in refused(users, request(basic("p:p")), ("sms",)).reason
    assert refused(users, request(basic("p:p"))).status == 403
    assert users.require(request(basic("admin:pw")), ("sms",)).name == "admin"


@pytest.mark.parametrize(
    ("authorization", "cookie"),
    [
        (None, None),
        ("Bearer x", None),
        ("Basic", None),
        ("Basic ???", None),
        ("Basic " + base64.b64encode(b"no colon").decode(), None),
        (None, "AuthSession="),
        (None, "AuthSession=a b"),
        (None, "Other=x"),
    ],
)
def test_what_is_no_login_is_not_asked(
    users: Users, memory: MemoryCouch, authorization: str | None, cookie: str | None
) -> None:
    error = refused(users, request(authorization, cookie))
    assert (error.status, error.headers["WWW-Authenticate"][:5]) == (401, "Basic")
    assert memory.logins == []


def test_only_the_session_cookie_is_passed_on(users: Users, memory: MemoryCouch) -> None:
    memory.users["AuthSession=abc-_="] = ("admin", ("_admin",))
    assert users.require(request(cookie="other=1; AuthSession=abc-_=; more=2")).name == "admin"
    assert memory.logins == [{"Cookie": "AuthSession=abc-_=", "X-Forwarded-For": "10.0.0.1"}]


def test_wrong_logins_are_limited_by_address_and_name(users: Users, memory: MemoryCouch) -> None:
    statuses = [refused(users, request(basic(f"admin:{n}"))).status for n in range(5)]
    assert statuses == [401, 401, 401, 429, 429]
    assert len(memory.logins) == 3
    assert refused(users, request(basic("p:wrong"))).status == 401
    assert refused(users, request(basic("admin:wrong"), address="10.0.0.2")).status == 401


def test_wrong_logins_are_limited_by_address_whatever_names_they_try(users: Users, memory: MemoryCouch) -> None:
    statuses = [refused(users, request(basic(f"name-{n}:x"))).status for n in range(FAILURES_PER_ADDRESS + 5)]
    assert statuses == [401] * FAILURES_PER_ADDRESS + [429] * 5
    assert len(memory.logins) == FAILURES_PER_ADDRESS
    assert refused(users, request(cookie="AuthSession=abc")).status == 429
    assert refused(users, request(basic("admin:pw"))).status == 429
    assert users.require(request(basic("admin:pw"), address="10.0.0.2")).name == "admin"


def test_who_was_right_lately_is_not_kept_out_by_a_neighbour_s_guesses(
    users: Users, memory: MemoryCouch, clock: Clock
) -> None:
    users.require(request(basic("p:p")), ("gateway",))
    for n in range(FAILURES_PER_ADDRESS):
        refused(users, request(basic(f"p:{n}")))
        refused(users, request(basic(f"name-{n}:x")))
    clock.now += REMEMBERED_SECONDS
    assert users.require(request(basic("p:p")), ("gateway",)).name == "p"
    del memory.users[basic("p:p")]
    clock.now += REMEMBERED_SECONDS
    statuses = [refused(users, request(basic("p:p"))).status for _ in range(3)]
    assert statuses == [429, 429, 429]
    assert not users._known


class SlowCouch(MemoryCouch):
    """Answers when `go` is set, one after the other; `asked` counts who waits for that or was answered."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Semaphore(0)
        self.go = threading.Event()

    def session_of(self, headers: Mapping[str, str]) -> tuple[str | None, tuple[str, ...]]:
        self.asked.release()
        assert self.go.wait(30)
        return super().session_of(headers)


def status(users: Users, asked: Request) -> int:
    try:
        users.require(asked)
    except ApiError as error:
        return error.status
    return 200


def test_no_more_are_asked_at_once_than_may_be_wrong() -> None:
    couch = SlowCouch()
    users = Users(couch, FailureLimit(3))  # type: ignore[arg-type]
    with ThreadPoolExecutor(20) as threads:
        wrong = [threads.submit(status, users, request(basic(f"admin:{n}"))) for n in range(3)]
        for _ in wrong:
            assert couch.asked.acquire(timeout=30)
        later = [threads.submit(status, users, request(basic(f"admin:{n}"))) for n in (*range(3, 19), "pw")]
        couch.go.set()
    assert [guess.result() for guess in wrong] == [401] * 3
    assert [guess.result() for guess in later] == [429] * 17
    assert len(couch.logins) == 3


def test_many_who_are_right_at_once_wait_for_their_turn_and_are_let_in() -> None:
    couch = SlowCouch()
    office = [f"nurse-{n}" for n in range(FAILURES_PER_ADDRESS + 20)]
    couch.users |= {basic(f"{name}:x"): (name, ("_admin",)) for name in office}
    users = Users(couch, FailureLimit(3))  # type: ignore[arg-type]
    with ThreadPoolExecutor(len(office) + 10) as threads:
        logins = [threads.submit(status, users, request(basic(f"{name}:x"))) for name in office]
        logins += [threads.submit(status, users, request(basic(f"{office[0]}:x"))) for _ in range(10)]
        for _ in range(FAILURES_PER_ADDRESS - 10):
            assert couch.asked.acquire(timeout=30)
        couch.go.set()
    assert Counter(login.result() for login in logins) == {200: len(logins)}
    assert not users._limit._under_way
    assert not users._limit._failures


def test_a_login_that_could_not_be_asked_for_is_no_wrong_one(
    users: Users, memory: MemoryCouch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(_headers: Mapping[str, str]) -> tuple[str | None, tuple[str, ...]]:
        raise UnavailableError("away")

    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(memory, "session_of", away)
        for _ in range(FAILURES_PER_ADDRESS + 1):
            with pytest.raises(UnavailableError):
                users.require(request(basic("admin:pw")))
    assert users.require(request(basic("admin:pw"))).name == "admin"


def test_who_gets_no_turn_is_asked_to_come_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.limiter.TURN_SECONDS", 0)
    limit = FailureLimit(1)
    with limit.attempt("x"), pytest.raises(ApiError) as caught, limit.attempt("x"):
        pass
    assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "5"})
    with limit.attempt("x"):
        pass


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_no_page_of_another_site_acts_in_a_user_s_name(users: Users, site: str) -> None:
    asked = request(basic("admin:pw"))
    asked.environ["HTTP_SEC_FETCH_SITE"] = site
    assert users.require(asked).name == "admin"
    for method in ("POST", "PUT", "DELETE", "PATCH"):
        asked.method = method
        assert refused(users, asked).status == 403
    asked.environ["HTTP_SEC_FETCH_SITE"] = "same-origin"
    assert users.require(asked).name == "admin"


def test_who_is_logged_in_already_is_not_limited(users: Users) -> None:
    users.require(request(basic("admin:pw")))
    for n in range(4):
        refused(users, request(basic(f"admin:{n}")))
    assert users.require(request(basic("admin:pw"))).name == "admin"


def test_memory_is_bounded(users: Users, memory: MemoryCouch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.auth.REMEMBERED_LOGINS", 2)
    for name in ("a", "b", "c"):
        memory.users[basic(f"{name}:x")] = (name, ("_admin",))
        users.require(request(basic(f"{name}:x")))
    assert len(users._known) == 2


@pytest.mark.parametrize(
    ("address", "counted"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("10.0.0.1:4711", "10.0.0.1"),
        ("[2001:db8:1:2:3::4]", "2001:db8:1:2::/64"),
        ("[2001:db8:1:2:3::4]:4711", "2001:db8:1:2::/64"),
        ("[::ffff:10.0.0.1]:4711", "10.0.0.1"),
        ("10.0.0.1:", "unknown"),
        ("10.0.0.1:x", "unknown"),
        ("[10.0.0.1:4711", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
        ("unix", "unknown"),
    ],
)
def test_network(address: str | None, counted: str) -> None:
    assert network(address) == counted


def test_the_wait_is_said(clock: Clock) -> None:
    limit = FailureLimit(2, clock)
    limit.failed("x")
    clock.now += 20
    limit.failed("x")
    for seconds in ("40", "30"):
        with pytest.raises(ApiError) as caught:
            limit.failed("x")
        assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": seconds})
        clock.now += 10
    with pytest.raises(ApiError), limit.attempt("x"):
        pass
    limit.failed("y")
    clock.now += 20
    limit.failed("x")
    with pytest.raises(ApiError):
        limit.failed("x")


def test_who_failed_is_forgotten_after_a_minute(clock: Clock) -> None:
    limit = FailureLimit(30, clock)
    for n in range(1_000):
        limit.failed("x", str(n))
    clock.now += MINUTE
    limit.failed("y")
    assert list(limit._failures) == [("y",)]


def test_of_whoever_goes_on_failing_no_more_is_remembered_than_counts(clock: Clock) -> None:
    limit = FailureLimit(30, clock)
    for _ in range(100):
        limit.failed("x")
        clock.now += MINUTE / 20
    assert len(limit._failures["x",]) == 30


def test_no_more_are_remembered_than_those_who_failed_last(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.limiter.REMEMBERED", 100)
    limit = FailureLimit(1_000, clock)
    for n in range(30_000):
        limit.failed(str(n))
        if n % 50 == 0:
            limit.failed("persistent")
        assert len(limit._failures) <= 100
    assert len(limit._failures["persistent",]) == 600
