"""Logins at CouchDB. Ours are by session cookies, which the SDK's token manager renews, and without guessing.

CouchDB 3.4 locks a name out for minutes after five wrong passwords from one address (couch_auth_lockout.erl), and
several processes share that address: a password that was refused is not tried again at every request.
"""

import base64
import binascii
import threading
import time
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

import requests
from ibmcloudant import CouchDbSessionAuthenticator
from ibmcloudant.couchdb_session_token_manager import CouchDbSessionTokenManager

COOKIE = "AuthSession"
# After the first refusal, which may be that of a CouchDB that does not find its users yet, and after every other.
PAUSES = (10.0, 300.0)
# How long a session is taken for good when CouchDB does not say (`allow_persistent_cookies = false`): its default.
SESSION_SECONDS = 600


class RefusedError(Exception):
    """CouchDB refused the login: `status` is 401 for a wrong name or password, 403 for one that is locked out."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason


class NoSessionError(Exception):
    """What answered a login gave no session: a proxy's error page, or something that is no CouchDB."""


class Refusals:
    """What became of the logins with one name and password; the connections of one process share it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._last: RefusedError | None = None
        self._count = 0
        self._until = 0.0

    def check(self) -> None:
        """Raises RefusedError, as CouchDB's last word, while it is too early to ask again."""
        with self._lock:
            if self._last and self._clock() < self._until:
                raise RefusedError(self._last.status, self._last.reason)

    def refused(self, error: RefusedError) -> None:
        """CouchDB refused a login."""
        with self._lock:
            self._until = self._clock() + PAUSES[min(self._count, len(PAUSES) - 1)]
            self._count += 1
            self._last = error

    def accepted(self) -> None:
        """CouchDB took a login."""
        with self._lock:
            self._count, self._last = 0, None


class SessionAuthenticator(CouchDbSessionAuthenticator):  # type: ignore[misc]
    """The SDK's authenticator, with a login that looks at what CouchDB answers."""

    def __init__(self, user: str, password: str, refusals: Refusals) -> None:
        super().__init__(user, password)
        self.token_manager = _Sessions(user, password, refusals)

    def cookie(self) -> str:
        """The Cookie header of our session. Raises RefusedError, NoSessionError, and what requests raises."""
        return f"{COOKIE}={self.token_manager.get_token()}"

    def forget(self) -> None:
        """CouchDB does not know the session any more: the next request logs in."""
        self.token_manager.expire_time = 0


class _Sessions(CouchDbSessionTokenManager):  # type: ignore[misc]
    """When to log in is the SDK's: one thread at a time, and some time before the session ends."""

    def __init__(self, user: str, password: str, refusals: Refusals) -> None:
        super().__init__(user, password)
        self._refusals = refusals

    def get_token(self) -> str:
        """The session's cookie. While it is good, a login that fails is no matter: that one would only renew it."""
        try:
            return str(super().get_token())
        except (RefusedError, NoSessionError, requests.exceptions.RequestException):
            if self._is_token_expired():
                raise
            return str(self.access_token)

    def request_token(self) -> requests.Response:
        """Log in."""
        try:
            self._refusals.check()
            response: requests.Response = super().request_token()
            if response.status_code in (401, 403):
                self._refusals.refused(_refusal(response))
                self._refusals.check()
            _session(response)
        except Exception:
            # The SDK takes a login for under way until it succeeds, and lets all others wait a minute for it.
            self.request_time = 0
            raise
        self._refusals.accepted()
        return response

    def _save_token_info(self, token_response: requests.Response) -> None:
        """Keep the session, and renew it when a fifth of its time is left."""
        self.access_token, seconds = _session(token_response)
        self.expire_time = self._get_current_time() + seconds
        self.refresh_time = self.expire_time - seconds // 5


def _refusal(response: requests.Response) -> RefusedError:
    if response.status_code == 401:
        return RefusedError(401, "the name or the password in COUCH_URL is wrong")
    try:
        reason = str(response.json()["reason"])
    except (ValueError, KeyError, TypeError):
        reason = response.text[:200]
    return RefusedError(403, f"the name in COUCH_URL may not log in now: {reason}")


def _session(response: requests.Response) -> tuple[str, int]:
    """The session's cookie and for how many seconds it is good. requests' own jar would drop the cookie of a CouchDB
    that is set to another domain (`cookie_domain`) than COUCH_URL has."""
    try:
        morsel = SimpleCookie(response.headers.get("Set-Cookie", ""))[COOKIE]
        return morsel.value, int(morsel["max-age"] or SESSION_SECONDS)
    except (CookieError, KeyError, ValueError):
        raise NoSessionError from None


def basic_login(header: str) -> tuple[str, str] | None:
    """Name and password of a Basic Authorization header, None for what is none."""
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        decoded = base64.b64decode(encoded.strip(), validate=True).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None
    name, colon, password = decoded.partition(":")
    return (name, password) if colon else None
