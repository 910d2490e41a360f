"""Every URL that is spoken: pattern, method, who may call it, and the function that answers.

Access follows `chttpd_auth_request` of CouchDB 3. Path segments are split before they are decoded, so a slash in a name
has to be written %2F; the more particular pattern comes first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import Enum
from urllib.parse import unquote_plus

from aiohttp import web

from embedded import administration, bulk, changes, databases, documents, find, views
from embedded.errors import CouchError, not_implemented
from embedded.http import Call

Handler = Callable[[Call], Awaitable[web.StreamResponse]]


class Access(Enum):
    """Who may call a URL."""

    ANYONE = "anyone"
    SERVER_ADMIN = "server admin"
    MEMBER = "member of the database"
    DB_ADMIN = "admin of the database"


@dataclass(frozen=True, slots=True)
class Route:
    """A method on a path; `{name}` in the pattern takes one segment."""

    method: str
    pattern: str
    access: Access
    handler: Handler

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """The named segments if the path fits."""
        wanted = [part for part in self.pattern.split("/") if part]
        if len(segments) != len(wanted):
            return None
        named: dict[str, str] = {}
        for part, segment in zip(wanted, segments, strict=True):
            if part.startswith("{"):
                named[part.strip("{}")] = segment
            elif part != segment:
                return None
        return named


ANYONE, SERVER, MEMBER, ADMIN = Access.ANYONE, Access.SERVER_ADMIN, Access.MEMBER, Access.DB_ADMIN
_DOC, _DDOC, _LOCAL = "/{db}/{doc}", "/{db}/_design/{doc}", "/{db}/_local/{doc}"
_CONFIG = "/_node/{node}/_config"

ROUTES = (
    Route("GET", "/", ANYONE, administration.welcome),
    Route("GET", "/_up", ANYONE, administration.up),
    Route("GET", "/_uuids", ANYONE, administration.uuids),
    Route("GET", "/_session", ANYONE, administration.get_session),
    Route("POST", "/_session", ANYONE, administration.post_session),
    Route("DELETE", "/_session", ANYONE, administration.delete_session),
    Route("GET", "/_all_dbs", SERVER, databases.all_dbs),
    Route("GET", "/_membership", SERVER, administration.membership),
    Route("GET", "/_node/{node}", SERVER, administration.node),
    Route("GET", _CONFIG, SERVER, administration.all_config),
    Route("GET", f"{_CONFIG}/{{section}}", SERVER, administration.config_section),
    Route("GET", f"{_CONFIG}/{{section}}/{{key}}", SERVER, administration.get_config),
    Route("PUT", f"{_CONFIG}/{{section}}/{{key}}", SERVER, administration.put_config),
    Route("DELETE", f"{_CONFIG}/{{section}}/{{key}}", SERVER, administration.delete_config),
    Route("PUT", "/{db}", SERVER, databases.create),
    Route("DELETE", "/{db}", SERVER, databases.delete),
    Route("GET", "/{db}", MEMBER, databases.info),
    Route("POST", "/{db}", MEMBER, documents.post),
    Route("POST", "/{db}/_bulk_docs", MEMBER, bulk.bulk_docs),
    Route("POST", "/{db}/_bulk_get", MEMBER, bulk.bulk_get),
    Route("GET", "/{db}/_all_docs", MEMBER, bulk.all_docs),
    Route("POST", "/{db}/_all_docs", MEMBER, bulk.all_docs),
    Route("POST", "/{db}/_all_docs/queries", MEMBER, bulk.all_docs_queries),
    Route("GET", "/{db}/_design_docs", MEMBER, bulk.design_docs),
    Route("POST", "/{db}/_design_docs", MEMBER, bulk.design_docs),
    Route("GET", "/{db}/_changes", MEMBER, changes.changes),
    Route("POST", "/{db}/_changes", MEMBER, changes.changes),
    Route("POST", "/{db}/_find", MEMBER, find.find),
    Route("GET", "/{db}/_index", MEMBER, find.list_indexes),
    Route("POST", "/{db}/_index", MEMBER, find.create_index),
    Route("DELETE", "/{db}/_index/{ddoc}/json/{name}", MEMBER, find.delete_index),
    Route("DELETE", "/{db}/_index/_design/{ddoc}/json/{name}", MEMBER, find.delete_index),
    Route("GET", "/{db}/_security", MEMBER, databases.get_security),
    Route("PUT", "/{db}/_security", ADMIN, databases.put_security),
    Route("POST", "/{db}/_purge", ADMIN, bulk.purge),
    Route("GET", "/{db}/_purged_infos_limit", ADMIN, databases.get_purged_infos_limit),
    Route("PUT", "/{db}/_purged_infos_limit", ADMIN, databases.put_purged_infos_limit),
    Route("GET", "/{db}/_revs_limit", MEMBER, databases.get_revs_limit),
    Route("PUT", "/{db}/_revs_limit", ADMIN, databases.put_revs_limit),
    Route("POST", "/{db}/_revs_diff", MEMBER, bulk.revs_diff),
    Route("POST", "/{db}/_missing_revs", MEMBER, bulk.missing_revs),
    Route("POST", "/{db}/_compact", ADMIN, databases.compact_database),
    Route("POST", "/{db}/_compact/{ddoc}", ADMIN, databases.compact_views),
    Route("POST", "/{db}/_view_cleanup", ADMIN, views.cleanup),
    Route("POST", "/{db}/_ensure_full_commit", MEMBER, databases.ensure_full_commit),
    Route("GET", "/{db}/_design/{ddoc}/_view/{view}", MEMBER, views.view),
    Route("POST", "/{db}/_design/{ddoc}/_view/{view}", MEMBER, views.view),
    Route("POST", "/{db}/_design/{ddoc}/_view/{view}/queries", MEMBER, views.view_queries),
    Route("GET", "/{db}/_design/{ddoc}/_info", MEMBER, views.info),
    *(
        Route(method, pattern, MEMBER, handler)
        for pattern in (_DDOC, _LOCAL, _DOC)
        for method, handler in (
            ("GET", documents.get),
            ("PUT", documents.put),
            ("DELETE", documents.delete),
            ("COPY", documents.copy),
        )
    ),
)


def find_route(method: str, raw_path: str) -> tuple[Route, dict[str, str]]:
    """The route for a request, with the named segments. Raises 405 for other methods, 501 for what is not spoken."""
    # CouchDB decodes a plus in a path as a space (`decode_plus_to_space`).
    segments = [unquote_plus(part) for part in raw_path.split("/") if part]
    wanted = "GET" if method == "HEAD" else method
    methods: list[str] = []
    known = False
    for route in ROUTES:
        named = route.match(segments)
        if named is None or _is_reserved(named):
            continue
        if known and route.pattern == _DOC:
            break  # the path is a URL of the database's own, not a document
        known = known or route.pattern != _DOC
        if route.method == wanted:
            if route.pattern in (_DDOC, _LOCAL):
                named["prefix"] = "_design/" if route.pattern == _DDOC else "_local/"
            return route, named
        methods.append(route.method)
    if methods:
        allowed = sorted({*methods, *(["HEAD"] if "GET" in methods else [])})
        raise CouchError(405, "method_not_allowed", f"Only {','.join(allowed)} allowed", {"Allow": ", ".join(allowed)})
    raise not_implemented(f"{method} {raw_path}")


def _is_reserved(named: dict[str, str]) -> bool:
    """Whether a name that stands for a database or a document is a URL of CouchDB's instead."""
    return named.get("db") in _OF_THE_SERVER or named.get("doc") in _UNSPOKEN_OF_DATABASES


# Names that are no databases: URLs of the server, spoken or not.
_OF_THE_SERVER = frozenset(
    (
        *("_all_dbs", "_membership", "_node", "_session", "_up", "_uuids"),
        *("_active_tasks", "_cluster_setup", "_config", "_db_updates", "_dbs_info", "_log", "_nouveau_analyze"),
        *(
            "_replicate",
            "_reshard",
            "_restart",
            "_scheduler",
            "_search_analyze",
            "_smoosh",
            "_stats",
            "_system",
            "_utils",
        ),
    )
)
_UNSPOKEN_OF_DATABASES = frozenset(
    (
        *("_explain", "_shards", "_sync_shards", "_partition", "_temp_view", "_search_analyze", "_nouveau_analyze"),
        *("_auto_purge", "_time_seq", "_rewrite", "_local_docs", "_purged_infos"),
    )
)
