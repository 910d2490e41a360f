"""Many documents in one request: `_bulk_docs`, `_bulk_get`, `_all_docs`, `_purge`, `_revs_diff`."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from embedded import documents
from embedded.engine import edits, revisions
from embedded.engine.database import Database
from embedded.engine.edits import Edit
from embedded.engine.query import OFFSET_COUNTED
from embedded.engine.revisions import Document
from embedded.errors import CouchError, bad_request, empty_range, not_implemented, query_parse_error
from embedded.http import (
    Call,
    answer,
    answer_pieces,
    answer_text,
    by_one_name,
    compact,
    parse_count,
    parse_flag,
    parse_json,
    results_in_pieces,
    rows_in_pieces,
)


async def bulk_docs(call: Call) -> web.Response:
    """POST /db/_bulk_docs: every document is stored or refused by itself; the rows are in the order of the request.

    What is no document at all refuses the whole request, as in CouchDB.
    """
    body = await call.json_object()
    docs = body.get("docs")
    if "docs" not in body:
        raise bad_request("POST body must include `docs` parameter.")
    if not isinstance(docs, list):
        raise bad_request("`docs` parameter must be an array.")
    new_edits = parse_flag("new_edits", body.get("new_edits", True))
    parsed = [documents.parse_document(document) for document in docs]
    if any(edit.id.startswith(documents.LOCAL) for edit, _ in parsed):
        raise not_implemented("A _local document in _bulk_docs")
    wanted = [
        await _guarded(call, edit, fields, None if new_edits else doc)
        for (edit, fields), doc in zip(parsed, docs, strict=True)
    ]
    results = await call.database.write(lambda tx: edits.write_all(tx, wanted))
    rows = [
        {"id": edit.id, **result.body()}
        if isinstance(result, CouchError)
        else {"ok": True, "id": edit.id, "rev": result}
        for (edit, _), result in zip(parsed, results, strict=True)
        if new_edits or isinstance(result, CouchError)
    ]
    return answer(rows, 201)


async def _guarded(
    call: Call, edit: Edit, fields: dict[str, Any], copied: dict[str, Any] | None
) -> Edit | Document | CouchError:
    """What is to be stored: an edit, or with `copied` the revision that this document says it is."""
    try:
        guarded = await documents.guard(call, edit, fields)
        return guarded if copied is None else documents.made_elsewhere(guarded, copied)
    except CouchError as error:
        if error.status == 501:
            raise
        return error


async def bulk_get(call: Call) -> web.Response:
    """POST /db/_bulk_get: for each id, the revision named or the current one and its conflicts, deleted ones too."""
    call.understand("revs", "attachments", "att_encoding_info", "latest")
    body = await call.json_object()
    if not isinstance(body.get("docs"), list):
        raise bad_request("Missing JSON list of 'docs'.")
    results = [_bulk_get_row(call, wanted) for wanted in body["docs"]]
    return answer_text(f'{{"results":[{",".join(results)}]}}')


def _bulk_get_row(call: Call, wanted: Any) -> str:
    """One row; what is wrong with one is told in its own (bulk_get_open_doc_revs in chttpd_db.erl)."""
    if not isinstance(wanted, dict):
        raise bad_request("Each of `docs` must be an object.")
    doc_id, rev = wanted.get("id"), wanted.get("rev")
    try:
        if not isinstance(doc_id, str):
            raise bad_request("document id missed")
        found = documents.named_revs(call, doc_id, None if rev is None else [revisions.parse_rev(rev)])
    except CouchError as error:
        if error.status != 400:
            raise
        row = {"id": doc_id, "rev": rev, "error": error.error, "reason": error.reason}
        return compact({"id": doc_id, "docs": [{"error": row}]})
    rows = [
        f'{{"ok":{document.json(documents.extra_fields(call, document))}}}'
        if document
        else compact({"error": {"id": doc_id, "rev": named, "error": "not_found", "reason": "missing"}})
        for named, document in found or [("undefined", None)]
    ]
    return f'{{"id":{compact(doc_id)},"docs":[{",".join(rows)}]}}'


@dataclass(frozen=True, slots=True)
class AllDocsQuery:
    """The parameters of `_all_docs`; ids are compared byte by byte."""

    keys: list[str] | None = None
    low: str | None = None
    high: str | None = None
    include_low: bool = True
    include_high: bool = True
    descending: bool = False
    limit: int | None = None
    skip: int = 0
    include_docs: bool = False
    conflicts: bool = False
    update_seq: bool = False


# What a request for rows may say, for those of a view as well. Here a key has one row, so that a document's id behind
# it makes no difference.
ROWS_PARAMETERS = (
    *("key", "keys", "start_key", "end_key", "inclusive_end", "descending", "limit", "skip"),
    *("start_key_doc_id", "end_key_doc_id", "include_docs", "update_seq", "reduce"),
    *("update", "stable", "sorted", "conflicts", "attachments", "att_encoding_info"),
)


def _all_docs_query(given: dict[str, Any]) -> AllDocsQuery:
    """Parameters, already decoded, as a query."""
    keys = given.get("keys")
    if keys is not None and not isinstance(keys, list):
        raise bad_request("`keys` parameter must be an array.")
    start, end = given.get("start_key"), given.get("end_key")
    if "key" in given:
        start = end = given["key"]
    if keys is not None and (start is not None or end is not None):
        raise query_parse_error("`keys` is incompatible with `key`, `start_key` and `end_key`")
    for key in (start, end):
        if key is not None and not isinstance(key, str):
            raise not_implemented(f"A range of _all_docs that ends with {json.dumps(key)}, which is no id,")
    descending = parse_flag("descending", given.get("descending", False))
    inclusive = parse_flag("inclusive_end", given.get("inclusive_end", True))
    low, high = (end, start) if descending else (start, end)
    if low is not None and high is not None and low > high:
        raise empty_range(descending)
    return AllDocsQuery(
        keys,
        low,
        high,
        inclusive or not descending,
        inclusive or descending,
        descending,
        parse_count("limit", given["limit"]) if "limit" in given else None,
        parse_count("skip", given.get("skip", 0)),
        parse_flag("include_docs", given.get("include_docs", False)),
        parse_flag("conflicts", given.get("conflicts", False)),
        parse_flag("update_seq", given.get("update_seq", False)),
    )


_JSON_PARAMETERS = ("key", "keys", "start_key", "end_key")


async def parameters(call: Call) -> dict[str, Any]:
    """The parameters of a view-like request: those of the URL, and over them those of a POST's body."""
    in_body = await call.json_object() if call.request.method == "POST" else {}
    return _of_url(call) | by_one_name(in_body)


def _of_url(call: Call) -> dict[str, Any]:
    return {name: parse_json(value) if name in _JSON_PARAMETERS else value for name, value in call.query.items()}


async def queries(call: Call) -> list[dict[str, Any]]:
    """The list `queries` of a POST to …/queries, each with the URL's parameters under its own."""
    body = await call.json_object()
    if not isinstance(body.get("queries"), list) or not all(isinstance(one, dict) for one in body["queries"]):
        raise bad_request("POST body must include `queries` parameter.")
    return [_of_url(call) | by_one_name(one) for one in body["queries"]]


async def all_docs(call: Call) -> web.StreamResponse:
    """GET and POST /db/_all_docs."""
    return await _answer_all_docs(call)


async def design_docs(call: Call) -> web.StreamResponse:
    """GET and POST /db/_design_docs: `_all_docs` of design documents."""
    return await _answer_all_docs(call, design_only=True)


async def _answer_all_docs(call: Call, *, design_only: bool = False) -> web.StreamResponse:
    call.understand(*ROWS_PARAMETERS)
    query, database = _all_docs_query(await parameters(call)), call.database
    return await answer_pieces(call, lambda: _all_docs_text(database, query, design_only))


async def all_docs_queries(call: Call) -> web.StreamResponse:
    """POST /db/_all_docs/queries: several queries, one answer each."""
    wanted, database = [_all_docs_query(one) for one in await queries(call)], call.database
    return await answer_pieces(call, lambda: results_in_pieces(_all_docs_text(database, query) for query in wanted))


def _all_docs_text(database: Database, query: AllDocsQuery, design_only: bool = False) -> Iterator[str]:
    with database.borrow() as connection:
        if query.keys is not None:
            rows, before = _rows_of_keys(connection, query), None
            total = database.counters.doc_count
        else:
            total = _count_designs(connection) if design_only else database.counters.doc_count
            rows, before = _rows_of_range(connection, query, design_only), _rows_before(connection, query, design_only)
        head: dict[str, Any] = {"total_rows": total, "offset": None if before is None else min(before, total)}
        if query.update_seq:
            head["update_seq"] = database.seq_text(database.counters.update_seq)
        yield from rows_in_pieces(f'{compact(head)[:-1]},"rows":[', rows, lambda: "\n]}")


def _count_designs(connection: sqlite3.Connection) -> int:
    found = connection.execute(f"SELECT count(*) FROM documents WHERE {revisions.IS_DESIGN} AND NOT deleted")  # noqa: S608
    return int(found.fetchone()[0])


def _condition(query: AllDocsQuery, design_only: bool) -> tuple[str, list[Any]]:
    parts, arguments = ["NOT deleted"], []
    if query.low is not None:
        parts.append(f"id {'>=' if query.include_low else '>'} ?")
        arguments.append(query.low)
    if query.high is not None:
        parts.append(f"id {'<=' if query.include_high else '<'} ?")
        arguments.append(query.high)
    if design_only:
        parts.append(revisions.IS_DESIGN)
    return " AND ".join(parts), arguments


def _rows_of_range(connection: sqlite3.Connection, query: AllDocsQuery, design_only: bool) -> Iterator[str]:
    condition, arguments = _condition(query, design_only)
    table = "documents JOIN bodies USING (number)" if query.include_docs else "documents"
    conflicts = revisions.conflicts(connection, query.conflicts and query.include_docs)
    for doc_id, rev, body in connection.execute(
        f"SELECT id, rev, {'body' if query.include_docs else 'NULL'} FROM {table} WHERE {condition} "  # noqa: S608
        f"ORDER BY id {'DESC' if query.descending else 'ASC'} LIMIT ? OFFSET ?",
        [*arguments, -1 if query.limit is None else query.limit, query.skip],
    ):
        document = None if body is None else Document(doc_id, rev, False, body).json(conflicts(doc_id))
        yield _row(doc_id, rev, document)


def _row(doc_id: str, rev: str, document: str | None) -> str:
    name = compact(doc_id)
    tail = f',"doc":{document}}}' if document is not None else "}"
    return f'{{"id":{name},"key":{name},"value":{{"rev":"{rev}"}}{tail}'


def _rows_before(connection: sqlite3.Connection, query: AllDocsQuery, design_only: bool) -> int | None:
    """How many documents come before the first one answered; None when they are too many to count."""
    before = 0
    first = query.high if query.descending else query.low
    if first is not None:
        if query.descending:
            outside = AllDocsQuery(low=query.high, include_low=not query.include_high)
        else:
            outside = AllDocsQuery(high=query.low, include_high=not query.include_low)
        condition, arguments = _condition(outside, design_only)
        (before,) = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM documents WHERE {condition} LIMIT ?)",  # noqa: S608
            [*arguments, OFFSET_COUNTED + 1],
        ).fetchone()
    return None if before > OFFSET_COUNTED else before + query.skip


def _rows_of_keys(connection: sqlite3.Connection, query: AllDocsQuery) -> Iterator[str]:
    """A row for every key, in their order: a document, a deleted one, or an error."""
    keys = list(reversed(query.keys or [])) if query.descending else query.keys or []
    end = None if query.limit is None else query.skip + query.limit
    conflicts = revisions.conflicts(connection, query.conflicts and query.include_docs)
    for key in keys[query.skip : end]:
        document = revisions.read(connection, key) if isinstance(key, str) else None
        if document is None:
            yield compact({"key": key, "error": "not_found"})
        elif document.deleted:
            value = {"rev": document.rev, "deleted": True}
            row: dict[str, Any] = {"id": key, "key": key, "value": value}
            yield compact(row | {"doc": None} if query.include_docs else row)
        else:
            yield _row(key, document.rev, document.json(conflicts(key)) if query.include_docs else None)


async def purge(call: Call) -> web.Response:
    """POST /db/_purge: forget documents as if they had never been."""
    wanted = await call.json_object()
    for revs in wanted.values():
        if not isinstance(revs, list):
            raise bad_request("Invalid list of revisions")
    parsed = {doc_id: [revisions.parse_rev(rev) for rev in revs] for doc_id, revs in wanted.items()}
    purged = await call.database.write(lambda tx: edits.purge(tx, parsed))
    return answer({"purge_seq": None, "purged": purged}, 201)


async def revs_diff(call: Call) -> web.Response:
    """POST /db/_revs_diff: which of these revisions are not here."""
    missing = await _missing(call)
    return answer({doc_id: {"missing": revs} for doc_id, revs in missing.items()})


async def missing_revs(call: Call) -> web.Response:
    """POST /db/_missing_revs: the same in an older shape."""
    return answer({"missing_revs": await _missing(call)})


async def _missing(call: Call) -> dict[str, list[str]]:
    missing = {}
    for doc_id, revs in (await call.json_object()).items():
        if not isinstance(revs, list):
            raise bad_request("Invalid list of revisions")
        known = {rev for leaf in revisions.leaves(call.database.near(), doc_id) for rev in leaf.revisions()}
        unknown = [rev for rev in map(revisions.parse_rev, revs) if rev not in known]
        if unknown:
            missing[doc_id] = unknown
    return missing
