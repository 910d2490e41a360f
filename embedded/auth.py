"""Who asks: Basic credentials and session cookies, for server admins and for the documents of `_users`.

Passwords are kept as PBKDF2 hashes, as CouchDB 3.4 keeps them (docs.couchdb.org, "Authentication Database"). To verify
one takes a third of a second by design, so verified credentials are remembered, under a hash with this process's key.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import json
import secrets
import time
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from embedded.engine import revisions
from embedded.engine.store import Store
from embedded.errors import bad_request, forbidden, unauthorized

USER_PREFIX = "org.couchdb.user:"
# OWASP's number for PBKDF2 with SHA-256, and CouchDB 3.4's default.
ITERATIONS = 600_000
SESSION_SECONDS = 600
_COOKIE = "AuthSession"
_REMEMBERED = 1000


@dataclass(frozen=True, slots=True)
class User:
    """Who a request is from; `name` None is nobody. `handler` is CouchDB's word for how they proved it."""

    name: str | None = None
    roles: tuple[str, ...] = ()
    handler: str | None = None

    @property
    def is_server_admin(self) -> bool:
        """Whether the user may do everything."""
        return "_admin" in self.roles


@dataclass(frozen=True, slots=True)
class _Account:
    """A stored password and whose it is."""

    name: str
    roles: tuple[str, ...]
    derived_key: str
    salt: str
    iterations: int
    prf: str

    def matches(self, password: str) -> bool:
        derived = derive(password, self.salt, self.iterations, self.prf)
        return hmac.compare_digest(derived, self.derived_key)


def derive(password: str, salt: str, iterations: int, prf: str = "sha256") -> str:
    """The PBKDF2 hash of a password, in hex, as long as the hash function's own output."""
    return hashlib.pbkdf2_hmac(prf, password.encode(), salt.encode(), iterations).hex()


def hash_password(document: dict[str, Any], iterations: int) -> dict[str, Any]:
    """A `_users` document as it is stored: with the hash of its `password`, without the password."""
    password = document.get("password")
    if password is None:
        return document
    if not isinstance(password, str):
        raise forbidden("Password must be a string")
    salt = secrets.token_hex(16)
    rest = {name: value for name, value in document.items() if name != "password"}
    return rest | {
        "derived_key": derive(password, salt, iterations),
        "iterations": iterations,
        "password_scheme": "pbkdf2",
        "pbkdf2_prf": "sha256",
        "salt": salt,
    }


def check_user_document(doc_id: str, document: dict[str, Any]) -> None:
    """Raise 403 for a user document that CouchDB's own validation refuses."""
    name, roles = document.get("name"), document.get("roles")
    if document.get("type") != "user":
        raise forbidden("doc.type must be user")
    if not name:
        raise forbidden("doc.name is required")
    if not isinstance(roles, list):
        raise forbidden("doc.roles must exist" if roles is None else "doc.roles must be an array")
    if not all(isinstance(role, str) for role in roles):
        raise forbidden("doc.roles can only contain strings")
    if doc_id != f"{USER_PREFIX}{name}":
        raise forbidden("Doc ID must be of the form org.couchdb.user:name")
    if any(role.startswith("_") for role in roles):
        raise forbidden("No system roles (starting with underscore) in users db.")


class Authenticator:
    """Finds the user of a request. Made once a server."""

    def __init__(self, store: Store, admin: str) -> None:
        """`admin` is `name:password`; this admin exists as long as the process, others are in the configuration."""
        self._store = store
        self._key = secrets.token_bytes(32)
        self._verified: dict[bytes, _Account] = {}
        name, colon, password = admin.partition(":")
        if not name or not colon or not password:
            raise ValueError("The admin must be given as name:password.")
        # The salt is the same at every start, so that cookies given before a restart stay valid.
        secret = store.config.get("chttpd_auth", "secret") or ""
        salt = hmac.digest(secret.encode(), f"salt of admin {name}".encode(), "sha256").hex()[:32]
        own = _Account(name, ("_admin",), derive(password, salt, ITERATIONS), salt, ITERATIONS, "sha256")
        self._own_admin = own
        self._verified[self._fingerprint(name, password)] = own

    @property
    def own_admin(self) -> str:
        """The name of the admin that the server was started with."""
        return self._own_admin.name

    def admins(self) -> dict[str, str]:
        """The section `admins` of the configuration: names and hashes."""
        own = self._own_admin
        hashed = f"-pbkdf2:sha256-{own.derived_key},{own.salt},{own.iterations}"
        return dict(self._store.config.section("admins")) | {own.name: hashed}

    @staticmethod
    def hash_admin(password: str) -> str:
        """A password as the section `admins` keeps it."""
        salt = secrets.token_hex(16)
        return f"-pbkdf2:sha256-{derive(password, salt, ITERATIONS)},{salt},{ITERATIONS}"

    @property
    def session_seconds(self) -> int:
        """How long a cookie is valid."""
        return self._store.config.number("chttpd_auth", "timeout", SESSION_SECONDS)

    async def identify(self, request: web.Request) -> User:
        """The user of a request. Raises 401 for wrong Basic credentials, 400 for a cookie that is none."""
        cookie = request.cookies.get(_COOKIE)
        if cookie:
            user = self._by_cookie(cookie)
            if user is not None:
                return user
        header = request.headers.get("Authorization", "")
        scheme, _, credentials = header.partition(" ")
        if scheme.lower() != "basic":
            return User()
        try:
            name, _, password = base64.b64decode(credentials, validate=True).decode().partition(":")
        except (ValueError, binascii.Error):
            raise unauthorized("Name or password is incorrect.") from None
        return await self.log_in(name, password, "default")

    async def log_in(self, name: str, password: str, handler: str) -> User:
        """The user with this name and password. Raises 401."""
        account = self._account(name)
        fingerprint = self._fingerprint(name, password)
        if account is None or (
            self._verified.get(fingerprint) != account and not await asyncio.to_thread(account.matches, password)
        ):
            raise unauthorized("Name or password is incorrect.")
        if len(self._verified) >= _REMEMBERED:
            self._verified.clear()
        self._verified[fingerprint] = account
        return User(name, account.roles, handler)

    def _fingerprint(self, name: str, password: str) -> bytes:
        return hmac.digest(self._key, json.dumps([name, password]).encode(), "sha256")

    def _account(self, name: str) -> _Account | None:
        """The account of an admin, else of a user."""
        if name == self._own_admin.name:
            return self._own_admin
        hashed = self._store.config.get("admins", name)
        if hashed is not None:
            prf, _, rest = hashed.removeprefix("-pbkdf2").removeprefix(":").partition("-")
            derived_key, salt, iterations = rest.split(",")
            return _Account(name, ("_admin",), derived_key, salt, int(iterations), prf or "sha1")
        found = revisions.read(self._store.database("_users").near(), USER_PREFIX + name)
        if found is None or found.deleted:
            return None
        document = json.loads(found.body)
        if document.get("password_scheme") != "pbkdf2" or not {"derived_key", "salt", "iterations"} <= document.keys():
            return None  # written by somebody else's server, or without a password
        return _Account(
            name,
            tuple(document.get("roles", [])),
            document["derived_key"],
            document["salt"],
            document["iterations"],
            document.get("pbkdf2_prf", "sha1"),
        )

    def cookie_header(self, name: str) -> str:
        """The value of Set-Cookie that logs this user in."""
        account = self._account(name)
        if account is None:
            raise unauthorized("Name or password is incorrect.")
        stamp = f"{int(time.time()):X}"
        value = f"{name}:{stamp}:".encode() + self._sign(account, stamp)
        encoded = base64.urlsafe_b64encode(value).decode().rstrip("=")
        return f"{_COOKIE}={encoded}; Version=1; Max-Age={self.session_seconds}; Path=/; HttpOnly"

    @staticmethod
    def no_cookie_header() -> str:
        """The value of Set-Cookie that logs out."""
        return f"{_COOKIE}=; Version=1; Path=/; HttpOnly"

    def renewal(self, request: web.Request, user: User) -> str | None:
        """A new cookie for a session of which a tenth has passed, as CouchDB gives it with any answer."""
        if user.handler != "cookie" or user.name is None:
            return None
        _, stamp, _ = _parse_cookie(request.cookies[_COOKIE])
        age = time.time() - int(stamp, 16)
        return self.cookie_header(user.name) if age > self.session_seconds * 0.1 else None

    def _sign(self, account: _Account, stamp: str) -> bytes:
        """Bound to the server's secret and to the password's hash: a new password ends all sessions."""
        key = f"{self._store.config.get('chttpd_auth', 'secret')}{account.salt}{account.derived_key}".encode()
        return hmac.digest(key, f"{account.name}:{stamp}".encode(), "sha256")

    def _by_cookie(self, cookie: str) -> User | None:
        """The user whose cookie this is; None if it is expired or not signed by us."""
        name, stamp, signature = _parse_cookie(cookie)
        account = self._account(name)
        if account is None or not hmac.compare_digest(self._sign(account, stamp), signature):
            return None
        age = time.time() - int(stamp, 16)
        return User(name, account.roles, "cookie") if age < self.session_seconds else None


def _parse_cookie(cookie: str) -> tuple[str, str, bytes]:
    """Name, time in hex and signature. The name may hold colons, the signature any byte."""
    try:
        raw = base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4))
        signature = raw[-32:]
        name, stamp, _ = raw[:-32].decode().rsplit(":", 2)
        int(stamp, 16)
    except (ValueError, binascii.Error):
        raise bad_request("Malformed AuthSession cookie. Please clear your cookies.") from None
    return name, stamp, signature


def _listed(user: User, entry: object) -> bool:
    """Whether a part of `_security` (members or admins) names the user or one of the user's roles."""
    if not isinstance(entry, dict):
        return False
    return user.name in entry.get("names", []) or bool(set(user.roles) & set(entry.get("roles", [])))


def is_db_admin(user: User, security: dict[str, Any]) -> bool:
    """Whether the user may change design documents and the security of a database."""
    return user.is_server_admin or _listed(user, security.get("admins"))


def require_member(user: User, security: dict[str, Any]) -> None:
    """Raise 401 or 403 unless the user may use the database. One that names no members is open to everybody."""
    members = security.get("members")
    members = members if isinstance(members, dict) else {}
    is_open = not members.get("names") and not members.get("roles")
    if is_open or is_db_admin(user, security) or _listed(user, members):
        return
    if user.name is None:
        raise unauthorized("You are not authorized to access this db.")
    raise forbidden("You are not allowed to access this db.")


def require_db_admin(user: User, security: dict[str, Any]) -> None:
    """Raise 401 or 403 unless the user may change the database's design."""
    require_member(user, security)
    if not is_db_admin(user, security):
        reason = "You are not a db or server admin."
        raise unauthorized(reason) if user.name is None else forbidden(reason)


def require_server_admin(user: User) -> None:
    """Raise 401 unless the user is a server admin; CouchDB says 401 to those who are logged in, too."""
    if not user.is_server_admin:
        raise unauthorized("You are not a server admin.")


def is_own_document(user: User, database: str, doc_id: str) -> bool:
    """Whether a document is the one in `_users` that tells who the user is, which the user may read and change."""
    return user.name is not None and database == "_users" and doc_id == USER_PREFIX + user.name
