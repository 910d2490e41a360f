"""Who is asking: CouchDB's users by Basic or session cookie, and what their roles allow."""

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from flask import Request

from api.errors import ApiError
from api.limiter import FAILURES_PER_ADDRESS, FailureLimit, network
from mjumbe.couch import Couch
from mjumbe.login import COOKIE, basic_login

ADMIN = "_admin"
SMS = "sms"  # may write and read messages
REMEMBERED_SECONDS = 10.0
REMEMBERED_LOGINS = 1_000
COOKIE_VALUE = re.compile(r"[\w.~+/:=-]+", re.ASCII)
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# Where a browser says that a page of ours, or nobody's, made it ask.
OWN_SITE = ("same-origin", "none")


@dataclass(frozen=True, slots=True)
class User:
    """A CouchDB user."""

    name: str
    roles: frozenset[str]

    def may(self, roles: Iterable[str]) -> bool:
        """Whether the user has one of `roles`; an admin may do everything."""
        return ADMIN in self.roles or not self.roles.isdisjoint(roles)


class Users:
    """CouchDB's users. A good login is remembered for seconds, by a hash: CouchDB takes long to check a password."""

    def __init__(self, couch: Couch, limit: FailureLimit, clock: Callable[[], float] = time.monotonic) -> None:
        self._couch = couch
        self._limit = limit
        self._by_address = FailureLimit(FAILURES_PER_ADDRESS)
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, tuple[float, User]] = {}

    def require(self, request: Request, roles: Iterable[str] = ()) -> User:
        """The user who sent `request`, who must have one of `roles` or be an admin.

        Raises ApiError (401 without a good login, 403 without the role or at another site's bidding, 429 after too
        many bad ones) and UnavailableError.
        """
        user = self._user(request)
        if request.method not in SAFE_METHODS:
            demand_own_will(request)
        roles = list(roles)
        if not user.may(roles):
            wanted = f"the role {' or '.join(sorted(roles))}, or be an admin" if roles else "be an admin of CouchDB"
            raise ApiError(403, f"The user {user.name} must have {wanted}." if roles else f"{user.name} must {wanted}.")
        return user

    def _user(self, request: Request) -> User:
        credentials, name = _credentials(request)
        if not credentials:
            raise _unauthorized("Log in with the name and password of a CouchDB user.")
        digest = hashlib.sha256(repr(sorted(credentials.items())).encode()).hexdigest()
        return self._remembered(digest) or self._ask(credentials, digest, network(request.remote_addr), name)

    def _ask(self, credentials: Mapping[str, str], digest: str, address: str, name: str) -> User:
        """Ask CouchDB, unless there were too many wrong logins: for this name, or for any, from this address."""
        who = (address, hashlib.sha256(name.encode()).hexdigest())
        if digest not in self._known:
            with self._by_address.attempt(address), self._limit.attempt(*who):
                # While this one waited for its turn, another may have asked for the same login.
                return self._remembered(digest) or self._session(credentials, digest, address)
        try:  # whoever was right lately is not kept out by a neighbour's guesses
            return self._session(credentials, digest, address)
        except ApiError:
            self._known.pop(digest, None)
            self._by_address.failed(address)
            self._limit.failed(*who)
            raise

    def _session(self, credentials: Mapping[str, str], digest: str, address: str) -> User:
        """Whose login it is, by CouchDB's word, which is remembered. Raises ApiError 401 when it is nobody's."""
        # CouchDB 3.4 locks a name for the address whose five guesses were wrong, and takes this header's word for the
        # address (mochiweb_request:get(peer)) from a private one as ours: else one stranger would lock out everybody.
        found, roles = self._couch.session_of({**credentials, "X-Forwarded-For": address})
        if found is None:
            raise _unauthorized("Name or password is wrong.")
        user = User(found, frozenset(roles))
        self._remember(digest, user)
        return user

    def _remembered(self, digest: str) -> User | None:
        until, user = self._known.get(digest, (0.0, None))
        return user if user is not None and self._clock() < until else None

    def _remember(self, digest: str, user: User) -> None:
        now = self._clock()
        with self._lock:
            if len(self._known) >= REMEMBERED_LOGINS:
                self._known = {key: entry for key, entry in self._known.items() if entry[0] > now}
            if len(self._known) < REMEMBERED_LOGINS or digest in self._known:
                self._known[digest] = (now + REMEMBERED_SECONDS, user)


def demand_own_will(request: Request) -> None:
    """Raises ApiError 403 when a page of another site asks: a browser sends its user's login along with that."""
    if not _is_own_will(request):
        raise ApiError(403, "A page of another site may not act in your name.")


def _is_own_will(request: Request) -> bool:
    """As the browser tells it; by plain HTTP it tells only which site's page asks. Programs tell nothing."""
    if site := request.headers.get("Sec-Fetch-Site"):
        return site in OWN_SITE
    page = request.headers.get("Origin") or request.headers.get("Referer")
    return not page or page.partition("://")[2].partition("/")[0].lower() == request.host.lower()


def _unauthorized(reason: str) -> ApiError:
    return ApiError(401, reason, {"WWW-Authenticate": 'Basic realm="mjumbe", charset="UTF-8"'})


def _credentials(request: Request) -> tuple[Mapping[str, str], str]:
    """The headers that hold the login, for CouchDB, and the name in it as far as it can be seen."""
    header = request.headers.get("Authorization", "")
    scheme, _, encoded = header.partition(" ")
    if scheme.lower() == "basic":
        login = basic_login(header)
        return ({"Authorization": f"Basic {encoded.strip()}"}, login[0]) if login else ({}, "")
    cookie = request.cookies.get(COOKIE, "")
    return ({"Cookie": f"{COOKIE}={cookie}"}, "") if COOKIE_VALUE.fullmatch(cookie) else ({}, "")
