"""Our logins at CouchDB: what each answer means, when a session is renewed, and that a refused password is no guess."""

from collections.abc import Iterator

import pytest
import requests
import responses

from mjumbe.couch import Couch, LoginError, UnavailableError
from mjumbe.login import PAUSES, SESSION_SECONDS, Refusals, RefusedError, basic_login
from tests.unit.clock import Clock

URL = "http://couch.example:5984"
SESSION = f"{URL}/_session"
COUCH_URL = "http://admin:s3cr3t@couch.example:5984/medic"
WRONG = {"error": "unauthorized", "reason": "Name or password is incorrect."}
LOCKED = {"error": "forbidden", "reason": "Account is temporarily locked due to multiple authentication failures"}
NOBODY = {"ok": True, "userCtx": {"name": None, "roles": []}}
ADMIN = {"ok": True, "userCtx": {"name": "admin", "roles": ["_admin"]}}
COOKIE = "AuthSession=one; Version=1; Max-Age=600; Path=/; HttpOnly"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def couch(clock: Clock) -> Couch:
    return Couch(COUCH_URL, refusals=Refusals(clock))


@pytest.fixture
def server() -> Iterator[responses.RequestsMock]:
    with responses.RequestsMock(assert_all_requests_are_fired=False) as mock:
        mock.get(f"{URL}/", json={"version": "3.4.2"})
        mock.post(SESSION, json={"ok": True}, headers={"Set-Cookie": COOKIE})
        yield mock


def logins(server: responses.RequestsMock) -> int:
    return sum(call.request.method == "POST" for call in server.calls)


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (401, WRONG, "the name or the password in COUCH_URL is wrong"),
        (403, LOCKED, f"the name in COUCH_URL may not log in now: {LOCKED['reason']}"),
    ],
)
def test_a_refused_login_is_not_repeated_at_every_request(
    server: responses.RequestsMock, couch: Couch, clock: Clock, status: int, body: dict[str, str], says: str
) -> None:
    server.replace(responses.POST, SESSION, json=body, status=status)
    for asked, pause in enumerate((*PAUSES, PAUSES[-1]), start=1):
        for one in (couch, couch, couch.impatient(1)):
            with pytest.raises(LoginError) as caught:
                one.welcome()
            assert (caught.value.status, caught.value.reason) == (status, says)
            assert logins(server) == asked
        clock.now += pause - 1
        with pytest.raises(LoginError):
            couch.welcome()
        assert logins(server) == asked, "the pause is not over"
        clock.now += 1
    server.replace(responses.POST, SESSION, json={"ok": True}, headers={"Set-Cookie": COOKIE})
    assert couch.welcome() == {"version": "3.4.2"}
    server.replace(responses.POST, SESSION, json=body, status=status)
    couch._client.authenticator.forget()
    with pytest.raises(LoginError):
        couch.welcome()
    clock.now += PAUSES[0]
    asked = logins(server)
    with pytest.raises(LoginError):
        couch.welcome()
    assert logins(server) == asked + 1, "after a success the first pause is the short one again"


@pytest.mark.parametrize(
    ("cookie", "seconds"),
    [
        (COOKIE, 600),
        ("AuthSession=one; Version=1; Path=/; HttpOnly", SESSION_SECONDS),
        ("AuthSession=one; Version=1; Max-Age=60; Path=/; Domain=elsewhere.example; HttpOnly", 60),
        ("AuthSession=one; Version=1; Expires=Sat, 28-Nov-2026 03:30:00 GMT; Max-Age=60; Path=/; Secure", 60),
    ],
)
def test_a_session_lasts_as_long_as_couchdb_says(
    server: responses.RequestsMock, couch: Couch, cookie: str, seconds: int
) -> None:
    server.replace(responses.POST, SESSION, json={"ok": True}, headers={"Set-Cookie": cookie})
    couch.welcome()
    assert server.calls[-1].request.headers["Cookie"] == "AuthSession=one"
    tokens = couch._client.authenticator.token_manager
    assert tokens.expire_time - tokens._get_current_time() in (seconds, seconds - 1)
    assert tokens.expire_time - tokens.refresh_time == seconds // 5


@pytest.mark.parametrize(
    ("status", "headers"),
    [(200, {}), (200, {"Set-Cookie": "other=one"}), (502, {}), (200, {"Set-Cookie": "AuthSession=a; Max-Age=x"})],
)
def test_what_is_no_couchdb(server: responses.RequestsMock, couch: Couch, status: int, headers: dict[str, str]) -> None:
    server.replace(responses.POST, SESSION, body="<html>", status=status, headers=headers)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=f"what answers at {URL} gave no session; is it a CouchDB?"):
            couch.welcome()
    assert logins(server) == 2


@pytest.mark.parametrize(
    "answer",
    [
        responses.Response("POST", SESSION, json=WRONG, status=401),
        responses.Response("POST", SESSION, body="<html>", status=502),
        responses.Response("POST", SESSION, body=requests.exceptions.ConnectionError("x")),
    ],
)
def test_a_good_session_outlives_a_login_that_fails(
    server: responses.RequestsMock, couch: Couch, answer: responses.Response
) -> None:
    couch.welcome()
    couch._client.authenticator.token_manager.refresh_time = 0
    server.replace(answer)
    assert couch.welcome() == {"version": "3.4.2"}
    assert logins(server) == 2


@pytest.mark.parametrize(
    ("header", "login"),
    [
        ("Basic YTpi", ("a", "b")),
        ("basic  YTpi ", ("a", "b")),
        ("Basic YTpiOmM=", ("a", "b:c")),
        ("Basic YTo=", ("a", "")),
        ("Basic YQ==", None),  # no colon
        ("Basic YT!pi", None),
        ("Basic YTp", None),
        ("Bearer YTpi", None),
        ("YTpi", None),
        ("", None),
    ],
)
def test_a_login_by_basic(header: str, login: tuple[str, str] | None) -> None:
    assert basic_login(header) == login


def test_couchdb_never_hears_so_many_wrong_passwords_that_it_locks_us_out(clock: Clock) -> None:
    """It does after five within five minutes (couch_auth_lockout.erl)."""
    refusals, asked = Refusals(clock), list[float]()
    while len(asked) < 20:
        try:
            refusals.check()
        except RefusedError:
            clock.now += 1
            continue
        asked.append(clock.now)
        refusals.refused(RefusedError(401, "wrong"))
    assert all(later - first > 300 for first, later in zip(asked, asked[4:], strict=False))
    assert asked[1] - asked[0] < 60, "one may be the fault of a CouchDB that is just starting"


def test_our_own_name_after_the_session_has_ended(server: responses.RequestsMock, couch: Couch) -> None:
    """CouchDB answers GET /_session with 200 and `name: null` to a cookie that it does not know any more."""
    server.add(responses.GET, SESSION, json=NOBODY)
    server.add(responses.GET, SESSION, json=ADMIN)
    assert couch.session_of({"Authorization": "Basic YWRtaW46czNjcjN0"}) == ("admin", ("_admin",))
    assert logins(server) == 2
