"""Every way in which a request can fail, in CouchDB's words.

Status codes, error names and reasons are those of CouchDB 3 (`chttpd:error_info`), because clients decide by them.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import Any

# The low byte of SQLite's codes for what the disk did, the kinds of each being in the byte above.
DISK_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
FULL = (errno.ENOSPC, errno.EDQUOT)


class CouchError(Exception):
    """A failure that is answered with a status and `{"error": …, "reason": …}`."""

    def __init__(self, status: int, error: str, reason: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status} {error}: {reason}")
        self.status = status
        self.error = error
        self.reason = reason
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """The JSON object that CouchDB answers with."""
        return {"error": self.error, "reason": self.reason}


def bad_request(reason: str) -> CouchError:
    """400: the request is not what this URL takes."""
    return CouchError(400, "bad_request", reason)


def query_parse_error(reason: str) -> CouchError:
    """400: a query parameter has a value or a combination that makes no sense."""
    return CouchError(400, "query_parse_error", reason)


def empty_range(descending: bool) -> CouchError:
    """400: the range of keys ends before it begins, in the order that is asked for."""
    direction = "false" if descending else "true"
    return query_parse_error(
        f"No rows can match your key range, reverse your start_key and end_key or set descending={direction}"
    )


def not_found(reason: str = "missing") -> CouchError:
    """404; the reason is `missing` or `deleted` for documents and a sentence for databases."""
    return CouchError(404, "not_found", reason)


def no_database() -> CouchError:
    """404 for every request below a database that is not there."""
    return not_found("Database does not exist.")


def conflict() -> CouchError:
    """409: somebody else wrote the document first, or the revision given is not the current one."""
    return CouchError(409, "conflict", "Document update conflict.")


def unauthorized(reason: str) -> CouchError:
    """401: nobody is logged in, or the person logged in may not do this at all."""
    return CouchError(401, "unauthorized", reason)


def forbidden(reason: str) -> CouchError:
    """403: a known user who is not a member."""
    return CouchError(403, "forbidden", reason)


def disk_trouble(error: Exception) -> str | None:
    """A sentence for an error that the disk made, with what to do; None for any other."""
    if isinstance(error, sqlite3.OperationalError):
        code = error.sqlite_errorcode & 0xFF
        known, full = code in DISK_CODES, code == sqlite3.SQLITE_FULL
    else:
        number = error.errno if isinstance(error, OSError) else None
        known, full = number in (*FULL, errno.EFBIG, errno.EIO, errno.EROFS, errno.EACCES), number in FULL
    if not known:
        return None
    if full:
        return f"The embedded store's disk is full ({error}): free some space where its --data is."
    return f"The embedded store's disk fails ({error}): is it full, broken, or closed to this user?"


def damage(error: Exception, database: str | None) -> str | None:
    """A sentence for the error of a database whose file is damaged, with what to do; None for any other."""
    if type(error) is not sqlite3.DatabaseError:  # its subclasses are for what is around the file
        return None
    return (
        f"The embedded store's database {database} is damaged ({error}): stop the store and put a copy of its --data "
        "back; what `sqlite3 FILE .recover` finds in the damaged file is all else that is left."
    )


def not_implemented(what: str) -> CouchError:
    """501: real CouchDB does this and we do not. `what` names it as the subject of a sentence."""
    return CouchError(
        501, "not_implemented", f"{what}: mjumbe's embedded store does not speak this; point COUCH_URL at a CouchDB 3."
    )
