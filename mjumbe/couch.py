"""The CouchDB client: sessions, reads, bulk writes, views and changes.

Everything goes through IBM's Cloudant SDK with a session cookie, because checking a Basic password costs CouchDB 3.4
600,000 rounds of hashing.
"""

import hmac
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

import requests
from ibm_cloud_sdk_core import ApiException
from ibm_cloud_sdk_core.authenticators import NoAuthAuthenticator

from mjumbe.documents import Document
from mjumbe.http_sessions import plain_session, why
from mjumbe.login import NoSessionError, Refusals, RefusedError, SessionAuthenticator, basic_login
from mjumbe.sdk import Client

CONNECT_TIMEOUT = 5.0
READ_TIMEOUT = 90.0
# CouchDB's default purge/max_document_id_number: it refuses a _purge of more documents at once.
PURGE_LIMIT = 100
REVISIONS_AT_ONCE = 1_000  # read in one request: a report has some KB, and with its revisions tens
ACCEPTED = 202
# A document that is not there. Any other 404 says that the database is not, or not now: chttpd:error_info in CouchDB's
# sources has "Database does not exist." (also of a node that is yet to learn of it) and "no_db_file" (of a shard).
ABSENT = ("not_found: missing", "not_found: deleted")
# 501, to whatever it does not do: of all that begins with 5 the one that does not pass.
NOT_DONE = 501
# What CouchDB answers to a whole _bulk_docs for one document in it: not valid, an attachment's stub, too large. Also
# 413: too many documents.
REFUSALS = (400, 412, 413, NOT_DONE)
# And how begins what it says there of single documents that it cannot take now: their shard has no file (`no_db_file`,
# fabric_doc_update.erl), its disk is too full (couch_disk_monitor.erl, from 3.4 on), the process is stuck that runs
# validate_doc_update (couch_os_process.erl), or a node did not answer (3.0 to 3.2: reorder_results in couch_util.erl).
NOT_NOW = ("not_found", "insufficient_storage", "os_process_error", "unknown_error: undefined")
# What couch_httpd:verify_is_server_admin and couch_db:check_is_member say to whoever is none.
ADMINS_NEEDED = (
    "You are not a server admin.",
    "You are not authorized to access this db.",
    "You are not allowed to access this db.",
)
# CouchDB 3's own default, which `[couchdb] default_security = everyone` of an older configuration opens to the world.
ADMINS_ONLY = {"admins": {"roles": ["_admin"]}, "members": {"roles": ["_admin"]}}
URL_FORM = (
    "COUCH_URL must be http(s)://user:password@host:port/database, for instance "
    "http://admin:password@127.0.0.1:5984/medic; in the password write / as %2F, ? as %3F, # as %23 and @ as %40"
)


class CouchError(Exception):
    """CouchDB refused a request: `status` (HTTP), `reason` in its own words."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(f"CouchDB answered {status}: {reason}")
        self.status = status
        self.reason = reason


class NotFoundError(CouchError):
    """No such document, view or database."""


class ConflictError(CouchError):
    """Somebody else wrote the document first."""


class LoginError(CouchError):
    """CouchDB does not let us in with the name and password of COUCH_URL (401), or not now (403)."""


class UnavailableError(Exception):
    """CouchDB cannot be reached, or says that it cannot serve now (5xx, 429). Trying again later is right."""


class TroubleError(UnavailableError):
    """CouchDB answers, and says that it cannot serve now, in its own words: its disk is full, for instance."""


class TooFewError(UnavailableError):
    """Fewer than half of a document's nodes took a write, and it was to be sure that no other is made beside it."""

    def __init__(self) -> None:
        super().__init__("too few of CouchDB's nodes took a write: are the others down?")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a view: `id` is empty where rows were reduced to one, `doc` is there only with include_docs."""

    id: str
    key: Any
    value: Any
    doc: Document | None = None


@dataclass(frozen=True, slots=True)
class Saved:
    """CouchDB's answer for one document of a bulk write: `rev` when it was stored, else `error` and `reason`.

    `by_few`: fewer than half of the document's nodes stored it. The others are away, or took somebody else's write.
    """

    id: str
    rev: str | None
    error: str | None = None
    reason: str | None = None
    by_few: bool = False

    @property
    def conflict(self) -> bool:
        return self.error == "conflict"


@dataclass(frozen=True, slots=True)
class Change:
    """One entry of the changes feed; `doc` is the newest revision when it was read, if documents were asked for.

    With `torn` there are other revisions beside `rev`, and one of them may be what changed.
    """

    id: str
    rev: str
    deleted: bool
    doc: Document | None = None
    torn: bool = False


@dataclass(frozen=True, slots=True)
class Changes:
    """A stretch of the changes feed, and the sequence to go on from."""

    changes: list[Change]
    last_seq: str
    pending: int


class Couch:
    """One CouchDB server, and mjumbe's databases there: `<db>`, `<db>-vault`, `<db>-sentinel`, `<db>-callbacks`."""

    def __init__(self, url: str, read_timeout: float = READ_TIMEOUT, refusals: Refusals | None = None) -> None:
        """`url` is COUCH_URL: `http://user:password@host:5984/<db>`. Raises ValueError with what is wrong.

        `read_timeout` (seconds) is how long an answer may take: a view that is being built takes long. Connecting may
        take no longer either. `refusals` is what is known of logins with this URL.
        """
        parts, port = _url_parts(url)
        name = parts.path.strip("/")
        if parts.scheme not in ("http", "https") or not parts.hostname or not name or "/" in name:
            raise ValueError(URL_FORM)
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        self.server_url = f"{parts.scheme}://{host}" + (f":{port}" if port else "")
        self.name = name
        self._url = url
        self._timeout = (min(CONNECT_TIMEOUT, read_timeout), read_timeout)
        self._refusals = refusals or Refusals()
        self.user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password or "")
        self._client = self._connect()
        self.main = Database(self, name)
        self.vault = Database(self, f"{name}-vault")
        self.sentinel = Database(self, f"{name}-sentinel")
        self.callbacks = Database(self, f"{name}-callbacks")

    def impatient(self, read_timeout: float) -> "Couch":
        """The same CouchDB with connections of its own, for whoever cannot wait."""
        return Couch(self._url, read_timeout, self._refusals)

    @property
    def databases(self) -> "tuple[Database, ...]":
        return (self.main, self.vault, self.sentinel, self.callbacks)

    def _connect(self) -> Any:
        authenticator = NoAuthAuthenticator()
        if self.user:
            authenticator = SessionAuthenticator(self.user, self._password, self._refusals)
        session = plain_session()
        adapter = requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=64)
        session.mount("http://", adapter)
        session.mount("https://", adapter)
        return Client(authenticator, session, self.server_url, self._timeout)

    def call(self, operation: Callable[[Any], Any]) -> Any:
        """Run `operation(sdk client)` and return its decoded answer.

        Raises NotFoundError, ConflictError, LoginError, CouchError or UnavailableError. A session that CouchDB no
        longer accepts (it restarted with another secret) is renewed once.
        """
        try:
            return self._attempt(operation)
        except CouchError as error:
            if error.status != 401 or isinstance(error, LoginError) or not self.user:
                raise
            self._client.authenticator.forget()
            return self._attempt(operation)

    def _attempt(self, operation: Callable[[Any], Any]) -> Any:
        try:
            return operation(self._client).get_result()
        except ApiException as error:
            raise _couch_error(error, self.user) from None
        except RefusedError as error:
            raise LoginError(error.status, error.reason) from None
        except requests.exceptions.RequestException as error:
            raise UnavailableError(f"CouchDB at {self.server_url} cannot be reached ({why(error)})") from None
        except NoSessionError:
            raise UnavailableError(f"what answers at {self.server_url} gave no session; is it a CouchDB?") from None

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        params: Mapping[str, str] | None = None,
        *,
        surely: bool = False,
    ) -> Any:
        """What the SDK has no call for: `path` is relative to the server, `body` is sent as JSON.

        `surely`: 202, by which a cluster says that fewer than half of a document's nodes stored it, is no success.
        """

        def operation(client: Any) -> Any:
            data = None if body is None else json.dumps(body)
            answer = client.send(client.prepare_request(method, path, params=params, data=data))
            if surely and answer.get_status_code() == ACCEPTED:
                raise TooFewError
            return answer

        return self.call(operation)

    def welcome(self) -> Document:
        """The server's greeting, with its version."""
        answer: Document = self.call(lambda client: client.get_server_information())
        return answer

    def config(self, section: str) -> dict[str, str]:
        """A section of the server's own configuration, empty when nothing in it is set."""
        values: dict[str, str] = self.request("GET", f"/_node/_local/_config/{quote(section, safe='')}")
        return values

    def session_of(self, headers: Mapping[str, str]) -> tuple[str | None, tuple[str, ...]]:
        """Whose credentials these request headers (`Authorization` or `Cookie`) are: the CouchDB user's name and roles.

        Name None stands for nobody: no credentials, or wrong ones. Raises UnavailableError, and what `call` raises.
        """
        given = basic_login(headers.get("Authorization", ""))
        if given is not None and given[0] == self.user:
            # CouchDB 3.4 locks a name out for minutes after five wrong passwords from one address: strangers' guesses
            # at our own name, passed on by us, would lock us out.
            if not hmac.compare_digest(given[1].encode(), self._password.encode()):
                return None, ()
            context = self.call(_own_session)["userCtx"]
            return context["name"], tuple(context.get("roles") or ())
        try:
            with plain_session() as session:  # a shared one would keep one user's cookie for the next
                answer = session.get(
                    f"{self.server_url}/_session",
                    headers=dict(headers),
                    timeout=self._timeout,
                )
            # 403: CouchDB 3.4 has locked the name after somebody's guesses (chttpd_auth_lockout); that passes.
            if answer.status_code >= 500 or answer.status_code in (403, 429):
                raise UnavailableError(f"CouchDB answered {answer.status_code} to a login")
            context = answer.json().get("userCtx", {}) if answer.status_code == 200 else {}
        except (requests.exceptions.RequestException, ValueError) as error:
            raise UnavailableError(f"CouchDB cannot check a login ({type(error).__name__})") from None
        return context.get("name"), tuple(context.get("roles") or ())


def _own_session(client: Any) -> Any:
    """Who we are. To a session that it does not know any more, CouchDB answers 200 there, and that we are nobody."""
    answer = client.send(client.prepare_request("GET", "/_session"))
    if not answer.get_result()["userCtx"]["name"]:
        raise CouchError(401, "the session has ended")
    return answer


def sequence_number(seq: object, unknown: int = 0) -> int:
    """The number in a sequence of the changes: CouchDB writes `17-g1AAAA…`."""
    number = str(seq).partition("-")[0]
    return int(number) if number.isdecimal() else unknown


def _url_parts(url: str) -> tuple[SplitResult, int | None]:
    """The URL in its parts, with the port. Python's own errors show the password, or what it took for a port."""
    try:
        parts = urlsplit(url)
        return parts, parts.port
    except ValueError:
        raise ValueError(URL_FORM) from None


def _couch_error(error: ApiException, user: str | None) -> CouchError | UnavailableError:
    status = int(error.status_code or 0)
    message = str(error.message or "")
    if message.endswith(ADMINS_NEEDED):
        message += f" COUCH_URL names {user or 'nobody'}; it must name a server admin."
    # 412 nodedown: all nodes with a copy of some shard are down or in maintenance (chttpd:error_info).
    is_away = status >= 500 and status != NOT_DONE
    if is_away or status in (429, 0) or (status == 412 and message.startswith("nodedown")):
        return TroubleError(f"CouchDB answered {status}: {message}")
    kind = {404: NotFoundError, 409: ConflictError}.get(status, CouchError)
    return kind(status, message)


def standing(rev: str) -> tuple[int, str]:
    """The order in which CouchDB shows one of several revisions: that of the longest line, then by their hashes."""
    number, _, digest = rev.partition("-")
    return int(number), digest


def _behind(prefix: str) -> str | None:
    """The first text behind all that begin with `prefix`; None when all do. Ids have the order of their bytes, as
    Python's texts do."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else None


@dataclass(slots=True)
class Database:
    """One database. All methods raise UnavailableError when CouchDB is away, NotFoundError when the database is."""

    couch: Couch
    name: str
    _path: str = field(init=False)

    def __post_init__(self) -> None:
        self._path = "/" + quote(self.name, safe="")

    def create(self) -> bool:
        """Make the database, for server admins alone; False when it is there already, and is left as it is."""
        try:
            self.couch.call(lambda client: client.put_database(db=self.name))
        except CouchError as error:
            if error.status != 412:
                raise
            if not self._is_unfinished():
                return False
        self.couch.request("PUT", f"{self._path}/_security", body=ADMINS_ONLY)
        return True

    def _is_unfinished(self) -> bool:
        """Whether it is open to everybody and holds nothing: who made it was cut off.

        Its update_seq tells less: CouchDB raises it with `_security` itself (set_security in couch_bt_engine.erl).
        """
        if self.couch.request("GET", f"{self._path}/_security"):
            return False
        info = self.info()
        return bool(info["doc_count"] == info["doc_del_count"] == 0)

    def drop(self) -> None:
        """Delete the database with all that is in it; nothing when there is none."""
        with suppress(NotFoundError):
            self.couch.call(lambda client: client.delete_database(db=self.name))

    def info(self) -> Document:
        """CouchDB's description of the database (doc_count, sizes, update_seq …)."""
        answer: Document = self.couch.call(lambda client: client.get_database_information(db=self.name))
        return answer

    def get(self, doc_id: str) -> Document | None:
        """A document (also `_local/…` and `_design/…`), None when there is none."""
        try:
            answer: Document = self.couch.request("GET", self._doc_path(doc_id))
        except NotFoundError as error:
            if error.reason not in ABSENT:
                raise
            return None
        return answer

    def put(self, doc: Mapping[str, Any], *, surely: bool = False) -> str:
        """Write one document, and return its new revision. Raises ConflictError.

        `surely`: raises UnavailableError unless a majority of its nodes stored it.
        """
        answer = self.couch.request("PUT", self._doc_path(str(doc["_id"])), body=doc, surely=surely)
        return str(answer["rev"])

    def _doc_path(self, doc_id: str) -> str:
        for special in ("_local/", "_design/"):
            if doc_id.startswith(special):
                return f"{self._path}/{special}{quote(doc_id.removeprefix(special), safe='')}"
        return f"{self._path}/{quote(doc_id, safe='')}"

    def delete(self, doc_id: str, rev: str) -> None:
        """Delete a document. Raises ConflictError when `rev` is not the newest."""
        self.couch.request("DELETE", self._doc_path(doc_id), params={"rev": rev})

    def bulk(self, docs: Sequence[Mapping[str, Any]]) -> list[Saved]:
        """Write many documents at once; one answer each, in their order.

        CouchDB refuses a bulk as a whole for one document in it, or for more than `max_bulk_docs_count` (10,000 by
        default): then each half goes by itself.
        """
        if not docs:
            return []
        try:
            rows = self.couch.call(
                lambda client: client.post_bulk_docs(db=self.name, bulk_docs={"docs": [dict(doc) for doc in docs]})
            )
        except CouchError as error:
            if error.status not in REFUSALS:
                raise
            if len(docs) == 1:
                return [Saved(str(docs[0]["_id"]), None, str(error.status), error.reason)]
            half = len(docs) // 2
            return self.bulk(docs[:half]) + self.bulk(docs[half:])
        said = (f"{row['error']}: {row.get('reason')}" for row in rows if row.get("error"))
        if trouble := next((words for words in said if words.startswith(NOT_NOW)), None):
            raise TroubleError(f"CouchDB cannot take a document of {self.name} now: {trouble}")
        return [
            Saved(str(r.get("id")), r.get("rev"), r.get("error"), r.get("reason"), bool(r.get("accepted")))
            for r in rows
        ]

    def fetch(self, ids: Iterable[str]) -> dict[str, Document]:
        """The documents with these ids, those that exist, and with their `_conflicts` where there are any."""
        keys = list(dict.fromkeys(ids))
        if not keys:
            return {}
        answer = self.couch.call(
            lambda client: client.post_all_docs(db=self.name, keys=keys, include_docs=True, conflicts=True)
        )
        if any(row.get("error", "not_found") != "not_found" for row in answer["rows"]):
            # fabric_view_all_docs gives the row of a document that it could not read an `error`: it may well exist.
            raise UnavailableError(f"a document of {self.name} could not be read")
        return {row["id"]: row["doc"] for row in answer["rows"] if row.get("doc")}

    def read_revisions(self, named: Sequence[tuple[str, str | None]], *, revs: bool = False) -> list[Document]:
        """The documents with these ids as they are in these revisions, those that CouchDB still has, None for all that
        stand beside each other; with `revs`, the ids of what came before are in their `_revisions`."""
        found: list[Document] = []
        for start in range(0, len(named), REVISIONS_AT_ONCE):
            batch = named[start : start + REVISIONS_AT_ONCE]
            wanted = {"docs": [{"id": doc_id, "rev": rev} if rev else {"id": doc_id} for doc_id, rev in batch]}
            params = {"revs": "true"} if revs else None
            answer = self.couch.request("POST", f"{self._path}/_bulk_get", body=wanted, params=params)
            rows = [row for result in answer["results"] for row in result["docs"]]
            if any(row.get("error", {}).get("error", "not_found") != "not_found" for row in rows):
                raise UnavailableError(f"a revision of a document of {self.name} could not be read")
            found += [row["ok"] for row in rows if "ok" in row]
        return found

    def leaves(self, *ids: str) -> dict[str, list[Document]]:
        """Documents as they are and, behind that, the revisions that conflict with each; those that exist.

        A cluster answers what two nodes have if that is the same, else what all have (fabric_open_revs.erl): what a
        majority took is among it. `_conflicts` are those that one node knows of.
        """
        found: dict[str, list[Document]] = {}
        for doc in self.read_revisions([(doc_id, None) for doc_id in ids]):
            if not doc.get("_deleted"):
                found.setdefault(doc["_id"], []).append(doc)
        return {
            doc_id: sorted(docs, key=lambda doc: standing(doc["_rev"]), reverse=True) for doc_id, docs in found.items()
        }

    def beginning_with(self, prefix: str, after: str = "", limit: int | None = None) -> list[Document]:
        """The documents whose ids begin with `prefix`, in the order of their ids; only those behind the id `after`."""
        start, end = f"{after}\u0000" if after else prefix, _behind(prefix)
        if end is not None and start >= end:  # CouchDB answers 400 to that
            return []
        answer = self.couch.call(
            lambda client: client.post_all_docs(
                db=self.name,
                start_key=start,
                end_key=end,
                inclusive_end=False,
                include_docs=True,
                conflicts=True,
                limit=limit,
            )
        )
        return [row["doc"] for row in answer["rows"]]

    def view(self, design: str, view: str, *, stable: bool = False, **query: Any) -> list[Row]:
        """Query a view; `query` as the SDK's post_view has it (key, keys, start_key, end_key, limit, descending …).

        `stable`: of a cluster's copies of the index always the same one is asked.
        """
        # CouchDB 3.0 and 3.1 refuse `stable` in a body (parse_param in couch_mrview_http.erl), where the SDK puts it.
        path = f"{self._path}/_design/{design}/_view/{view}" + ("?stable=true" if stable else "")
        body = {name: value for name, value in query.items() if value is not None}
        return self._rows(f"{design}/{view}", self.couch.request("POST", path, body))

    def view_with_docs(self, design: str, view: str, *, stable: bool = False, **query: Any) -> list[Row]:
        """As `view`, with the documents. With `include_docs` that of a broadcast, which has a thousand rows, would come
        with each of them; here it comes once. What it says is read after the rows; its `_conflicts` come with it."""
        rows = self.view(design, view, stable=stable, **query)
        docs = self.fetch(row.id for row in rows)
        return [replace(row, doc=docs.get(row.id)) for row in rows]

    def view_queries(self, design: str, view: str, queries: Sequence[Mapping[str, Any]]) -> list[list[Row]]:
        """Several queries of a view at once, one after the other, each asked of the same copy of the index."""
        path = f"{self._path}/_design/{design}/_view/{view}/queries?stable=true"
        answers = self.couch.request("POST", path, {"queries": queries})["results"]
        return [self._rows(f"{design}/{view}", answer) for answer in answers]

    def _rows(self, view: str, answer: Mapping[str, Any]) -> list[Row]:
        if any("error" in row for row in answer["rows"]):
            # row_to_json in couch_mrview_http.erl: a row whose document could not be read, which may well exist.
            raise UnavailableError(f"a row of {view} in {self.name} could not be read")
        return [Row(r.get("id") or "", r.get("key"), r.get("value"), r.get("doc")) for r in answer["rows"]]

    def changes(self, since: str, *, limit: int, wait: float = 0.0, docs: bool = True) -> Changes:
        """What changed after `since` ("0", "now" or a sequence handed out before).

        When there is nothing, the answer waits up to `wait` seconds for the first change.
        """
        # Only the last sequence is of use, and each is work for CouchDB (pack_seqs in fabric_view_changes.erl).
        query: dict[str, Any] = {"since": since, "limit": limit, "seq_interval": limit, "style": "all_docs"}
        if docs:
            query |= {"include_docs": True, "conflicts": True}
        if wait:
            query |= {"feed": "longpoll", "timeout": int(wait * 1000)}
        answer = self.couch.call(lambda client: client.post_changes(db=self.name, **query))
        if any(entry.get("error") for entry in answer["results"]):
            # fabric_view_changes names an `error` where a document could not be read: passed over, it would be lost.
            raise UnavailableError(f"a changed document of {self.name} could not be read")
        changes = [
            Change(
                entry["id"],
                entry["changes"][0]["rev"],
                bool(entry.get("deleted")),
                entry.get("doc"),
                torn=len(entry["changes"]) > 1,
            )
            for entry in answer["results"]
        ]
        return Changes(changes, str(answer["last_seq"]), int(answer.get("pending") or 0))

    def purge(self, docs: Sequence[Mapping[str, Any]]) -> None:
        """Remove these documents (`_id` and `_rev`) without leaving tombstones behind."""
        for start in range(0, len(docs), PURGE_LIMIT):
            revisions = {doc["_id"]: [doc["_rev"]] for doc in docs[start : start + PURGE_LIMIT]}
            self.couch.request("POST", f"{self._path}/_purge", body=revisions)
