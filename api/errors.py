"""Every answer that is no success, as JSON: `{"error": word, "reason": sentence, "field"?, "expected"?, …}`."""

import uuid
from collections.abc import Mapping
from functools import partial
from typing import Any

import structlog
from flask import Flask, jsonify
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException

from mjumbe.couch import CouchError, UnavailableError
from mjumbe.credentials import CredentialError
from mjumbe.seldom import Seldom

SENTENCES = {
    404: "There is nothing at this path; /api/docs lists what there is.",
    405: "This path takes other methods.",
}
RETRY_AFTER = 5  # seconds: what a caller is asked to wait when we cannot serve now
# What CouchDB answers when it does not let us in: our password was changed, our name is locked for five minutes
# (chttpd_auth_lockout), the database is not there yet. The request itself was none of it.
NOT_FOR_US = (401, 403, 404)

log = structlog.get_logger()

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "timeout",
    409: "conflict",
    413: "too_large",
    415: "unsupported_media_type",
    429: "too_many_requests",
    500: "internal",
    503: "unavailable",
}


class ApiError(Exception):
    """Ends a request with an error answer. `facts` go into its body beside `error` and `reason`."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None, **facts: Any) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.headers = dict(headers or {})
        self.facts = facts


class BadRequestError(ApiError):
    """400: `field` is what is missing or wrong, `expected` what should be there."""

    def __init__(self, field: str, expected: str) -> None:
        super().__init__(400, f"{field}: expected {expected}", field=field, expected=expected)


class BusyError(ApiError):
    """503: nothing is wrong with the request, which may come again in RETRY_AFTER seconds."""

    def __init__(self, reason: str) -> None:
        super().__init__(503, reason, {"Retry-After": str(RETRY_AFTER)})


def answer(
    status: int, reason: str, headers: Mapping[str, str] | None = None, **facts: Any
) -> tuple[Any, int, dict[str, str]]:
    """The error answer, as a Flask view returns it."""
    body = {"error": CODES.get(status, "error"), "reason": reason, **facts}
    return jsonify(body), status, dict(headers or {})


def register(app: Flask) -> None:
    """Answer everything that goes wrong in `app` so; no traceback and no HTML ever leaves."""
    seldom = Seldom()  # each request has a line of its own with its status
    app.register_error_handler(ApiError, _api_error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(UnavailableError, partial(_unavailable, seldom))
    app.register_error_handler(CouchError, partial(_refused, seldom))
    app.register_error_handler(CredentialError, partial(_unreadable, seldom))
    app.register_error_handler(Exception, _unexpected)


def _api_error(error: ApiError) -> ResponseReturnValue:
    return answer(error.status, error.reason, error.headers, **error.facts)


def _http_error(error: HTTPException) -> ResponseReturnValue:
    headers = {name: value for name, value in error.get_headers() if name.lower() in ("allow", "retry-after")}
    return answer(error.code or 500, SENTENCES.get(error.code or 500) or error.description or error.name, headers)


def _unavailable(seldom: Seldom, error: UnavailableError) -> ResponseReturnValue:
    seldom(log.warning, "CouchDB is away", str(error))
    return _api_error(BusyError("CouchDB cannot be reached; try again."))


def _refused(seldom: Seldom, error: CouchError) -> ResponseReturnValue:
    if error.status not in NOT_FOR_US:
        return _unexpected(error)
    seldom(log.error, "CouchDB does not serve us", str(error))
    return _api_error(BusyError("CouchDB is not ready for us; try again, and see /readyz."))


def _unreadable(seldom: Seldom, error: CredentialError) -> ResponseReturnValue:
    seldom(log.error, "a credential cannot be used", str(error))
    return _api_error(BusyError("A stored credential cannot be used; /readyz says which."))


def _unexpected(error: Exception) -> ResponseReturnValue:
    error_id = uuid.uuid4().hex[:12]
    log.error("request failed", error_id=error_id, exc_info=error)
    return answer(500, f"Something is wrong on our side; the log tells what under {error_id}.", error_id=error_id)
