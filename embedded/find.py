"""`_find` and `_index`: Mango queries, answered by reading every document.

An index of Mango's only says here which sort orders are allowed, as in CouchDB, and which documents such a query sees:
those that have all its fields.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from embedded import auth
from embedded.documents import DESIGN, check_id
from embedded.engine import edits, mango, revisions
from embedded.engine.collation import encode
from embedded.engine.edits import Edit
from embedded.errors import CouchError, bad_request, not_found, not_implemented
from embedded.http import Call, answer, answer_text, compact, parse_count, parse_flag

DEFAULT_LIMIT = 25
_WARNING = "No matching index found, create an index to optimize query time."
# What may stand beside the selector; these change nothing here.
_HARMLESS = {"use_index", "allow_fallback", "r", "stable", "update", "stale", "partition"}
_KNOWN = {"selector", "limit", "skip", "sort", "fields", "bookmark", "conflicts", "execution_stats"} | _HARMLESS


@dataclass(frozen=True, slots=True)
class _Find:
    """A query, understood."""

    test: mango.Test
    required: set[mango.Path]
    sort: tuple[mango.Path, ...]
    descending: bool
    limit: int
    skip: int
    fields: list[list[str]] | None
    conflicts: bool


async def find(call: Call) -> web.Response:
    """POST /db/_find."""
    body = await call.json_object()
    unknown = set(body) - _KNOWN
    if unknown:
        raise CouchError(400, "invalid_key", f"Invalid key {sorted(unknown)[0]} for this request")
    if body.get("execution_stats"):
        raise not_implemented("execution_stats of _find")
    query = _query(body)
    if query.sort and query.sort != (("_id",),):
        await call.database.read(lambda connection: _check_sort(connection, query))
    rows = await call.database.read(lambda connection: _run(connection, query))
    skipped = query.skip + len(rows)
    bookmark = base64.urlsafe_b64encode(compact({"skip": skipped}).encode()).decode() if rows else "nil"
    tail = compact({"bookmark": bookmark, "warning": _WARNING})
    return answer_text(f'{{"docs":[\n{",".join(rows)}],{tail[1:]}')


def _query(body: dict[str, Any]) -> _Find:
    if "selector" not in body:
        raise CouchError(400, "missing_required_key", "Missing required key: selector")
    fields = body.get("fields")
    if fields is not None and not (isinstance(fields, list) and all(isinstance(name, str) for name in fields)):
        raise CouchError(400, "invalid_fields_json", "Fields must be an array of strings")
    sort, descending = _sort(body.get("sort") or [])
    skip = parse_count("skip", body.get("skip", 0))
    bookmark = body.get("bookmark")
    if bookmark not in (None, "", "nil"):
        try:
            skip += int(json.loads(base64.urlsafe_b64decode(bookmark))["skip"])
        except (TypeError, ValueError, KeyError, binascii.Error):
            raise CouchError(400, "invalid_bookmark", f"Invalid bookmark value: {bookmark}") from None
    return _Find(
        mango.compile_selector(body["selector"]),
        mango.required_fields(body["selector"]),
        sort,
        descending,
        parse_count("limit", body.get("limit", DEFAULT_LIMIT)),
        skip,
        [mango.split_field(name) for name in fields] if fields else None,
        parse_flag("conflicts", body.get("conflicts", False)),
    )


def _sort(given: Any) -> tuple[tuple[mango.Path, ...], bool]:
    """The fields to sort by, as paths, and whether downwards. All have one direction, as in CouchDB."""
    if not isinstance(given, list):
        raise CouchError(400, "invalid_sort_json", "Sort must be an array of sort specs")
    paths, directions = [], set()
    for entry in given:
        name, direction = next(iter(entry.items())) if isinstance(entry, dict) and len(entry) == 1 else (entry, "asc")
        if not isinstance(name, str) or direction not in ("asc", "desc"):
            raise CouchError(400, "invalid_sort_json", f"Invalid sort field: {entry!r}")
        paths.append(tuple(mango.split_field(name)))
        directions.add(direction)
    if len(directions) > 1:
        raise CouchError(
            400, "unsupported_mixed_sort", "Sorts currently only support a single direction for all fields."
        )
    return tuple(paths), directions == {"desc"}


def _check_sort(connection: sqlite3.Connection, query: _Find) -> None:
    """Raise 400 unless there is an index whose fields begin with those to sort by, and that has all that matches: its
    other fields are required by the selector (is_usable in mango_idx_view.erl)."""
    for _, index in _indexes(connection):
        paths = tuple(tuple(mango.split_field(name)) for name in index["fields"])
        first = len(query.sort)
        if paths[:first] == query.sort and {*paths[first:]} - {("_id",), ("_rev",)} <= query.required:
            return
    raise CouchError(400, "no_usable_index", "No index exists for this sort, try indexing by the sort fields.")


def _run(connection: sqlite3.Connection, query: _Find) -> list[str]:
    matching = _matching(connection, query)
    if query.sort and query.sort != (("_id",),):
        keyed = [(_sort_key(document, query.sort), text, document) for text, document in matching]
        present = [entry for entry in keyed if entry[0] is not None]
        present.sort(key=lambda entry: entry[0] or (), reverse=query.descending)
        matching = iter((text, document) for _, text, document in present)
    rows = []
    for place, (text, document) in enumerate(matching):
        if place >= query.skip + query.limit:
            break
        if place >= query.skip:
            rows.append(text if query.fields is None else compact(mango.project(document, query.fields)))
    return rows


def _matching(connection: sqlite3.Connection, query: _Find) -> Iterator[tuple[str, dict[str, Any]]]:
    """All documents that match, in the order of their ids, without design documents."""
    down = "DESC" if query.descending else "ASC"
    conflicts = revisions.conflicts(connection, query.conflicts)
    for doc_id, rev, body in connection.execute(
        "SELECT id, rev, body FROM documents JOIN bodies USING (number) "  # noqa: S608
        f"WHERE NOT deleted AND NOT {revisions.IS_DESIGN} ORDER BY id {down}"
    ):
        text = revisions.Document(doc_id, rev, False, body).json(conflicts(doc_id))
        document = json.loads(text)
        if query.test(document):
            yield text, document


def _sort_key(document: dict[str, Any], sort: tuple[mango.Path, ...]) -> tuple[bytes | str, ...] | None:
    """What to sort a document by; None if it lacks a field, and so is not in the index."""
    values = [mango.field(document, list(path)) for path in sort]
    return None if any(isinstance(value, mango.Absent) for value in values) else (*map(encode, values), document["_id"])


def _indexes(connection: sqlite3.Connection) -> list[tuple[str, dict[str, Any]]]:
    """Mango's indexes: (design document's id, {name, fields, ddoc}) in the order of ids."""
    found = []
    for doc_id, body in connection.execute(
        "SELECT id, body FROM documents JOIN bodies USING (number) "  # noqa: S608
        f"WHERE {revisions.IS_DESIGN} AND NOT deleted ORDER BY id"
    ):
        fields = json.loads(body)
        if fields.get("language") == "query":
            for name, view in fields.get("views", {}).items():
                if isinstance(view.get("map", {}).get("fields"), dict):  # else it is no index for CouchDB, either
                    found.append((doc_id, {"name": name, "fields": list(view["map"]["fields"])}))
    return found


def _directed(names: list[str]) -> list[dict[str, str]]:
    return [{name: "asc"} for name in names]


async def list_indexes(call: Call) -> web.Response:
    """GET /db/_index."""
    special = {"ddoc": None, "name": "_all_docs", "type": "special", "def": {"fields": [{"_id": "asc"}]}}
    found = await call.database.read(_indexes)
    rows = [
        {
            "ddoc": ddoc,
            "name": index["name"],
            "type": "json",
            "partitioned": False,
            "def": {"fields": _directed(index["fields"])},
        }
        for ddoc, index in found
    ]
    return answer({"total_rows": len(rows) + 1, "indexes": [special, *rows]})


async def create_index(call: Call) -> web.Response:
    """POST /db/_index: a design document in Mango's language, named by what it says unless it is given a name."""
    auth.require_db_admin(call.user, call.database.security)
    body = await call.json_object()
    names = _index_fields(body)
    digest = hashlib.sha1(compact(names).encode(), usedforsecurity=False).hexdigest()
    ddoc = check_id(DESIGN + str(body.get("ddoc", digest)).removeprefix(DESIGN))
    name = str(body.get("name", digest))
    view = {
        "map": {"fields": dict.fromkeys(names, "asc"), "partial_filter_selector": {}},
        "reduce": "_count",
        "options": {"def": {"fields": names}},
    }
    current = revisions.read(call.database.near(), ddoc)
    fields: dict[str, Any] = {"language": "query", "views": {}}
    if current and not current.deleted:
        fields = json.loads(current.body)
    if fields.get("language") != "query":
        raise bad_request(f"{ddoc} is not a design document of Mango's")
    views = fields.setdefault("views", {})
    exists = views.get(name) == view
    if not exists:
        views[name] = view
        parent = current.rev if current else None
        await call.database.write(lambda tx: edits.write(tx, Edit(ddoc, parent, False, compact(fields))))
    return answer({"result": "exists" if exists else "created", "id": ddoc, "name": name})


def _index_fields(body: dict[str, Any]) -> list[str]:
    """The fields of an index to be made. Raises 400, and 501 for kinds that would answer otherwise."""
    definition = body.get("index")
    if body.get("type", "json") != "json":
        raise not_implemented(f"An index of type {body['type']!r}")
    if not isinstance(definition, dict) or not isinstance(definition.get("fields"), list) or not definition["fields"]:
        raise bad_request("An index needs a list of fields")
    if definition.get("partial_filter_selector") or body.get("partitioned"):
        raise not_implemented("A partial or partitioned index")
    return [".".join(path) for path in _sort(definition["fields"])[0]]


async def delete_index(call: Call) -> web.Response:
    """DELETE /db/_index/ddoc/json/name."""
    auth.require_db_admin(call.user, call.database.security)
    ddoc = DESIGN + call.path["ddoc"].removeprefix(DESIGN)
    current = revisions.read(call.database.near(), ddoc)
    fields = json.loads(current.body) if current and not current.deleted else {}
    if current is None or fields.get("language") != "query" or call.path["name"] not in fields.get("views", {}):
        raise not_found()
    del fields["views"][call.path["name"]]
    gone = not fields["views"]
    edit = Edit(ddoc, current.rev, gone, "{}" if gone else compact(fields))
    await call.database.write(lambda tx: edits.write(tx, edit))
    return answer({"ok": True})
